//! The pool over memory of the test, which lies where the test says in the machine.

use alloc::collections::BTreeMap;
use alloc::vec;

use super::*;
use crate::limits::BLOCK_BYTES;
use crate::mm::bus::SelfGrants;
use crate::xen::fake::FakeXen;

const PLACE: u64 = 0x1_3fa0_0000;
const BLOCK_FRAMES: u64 = (BLOCK_BYTES / PAGE_BYTES) as u64;

/// Memory of some blocks, with frames as in a domain's RAM.
struct Ram {
    // Keeps the memory alive; one block more than used, for the alignment.
    _memory: Vec<u8>,
    start: usize,
    frames: Rc<RefCell<FrameAllocator>>,
}

/// So many blocks of RAM with old content in it.
fn ram(blocks: usize) -> Ram {
    let memory = vec![0xa5; (blocks + 1) * BLOCK_BYTES];
    let start = memory.as_ptr().expose_provenance().next_multiple_of(BLOCK_BYTES);
    let mut frames = FrameAllocator::default();
    frames.add_bank(&(start..start + blocks * BLOCK_BYTES));
    Ram { _memory: memory, start, frames: Rc::new(RefCell::new(frames)) }
}

/// The machine: blocks of ours lie there in reverse order, each of them contiguous but for some pages.
#[derive(Default)]
struct Places {
    elsewhere: BTreeMap<u64, u64>,
    asked: usize,
    refused: bool,
}

impl Places {
    fn of(frame: u64) -> u64 {
        let (block, page) = (frame / BLOCK_FRAMES, frame % BLOCK_FRAMES);
        PLACE + ((1000 - block % 1000) * BLOCK_FRAMES + page) * PAGE_BYTES as u64
    }
}

impl BusAddresses for Places {
    fn bus_address(&mut self, frame: Gfn) -> Result<u64, GrantError> {
        self.asked += 1;
        if self.refused {
            return Err(GrantError::InUse);
        }
        Ok(self.elsewhere.get(&frame.0).copied().unwrap_or_else(|| Self::of(frame.0)))
    }
}

fn pool(ram: &Ram) -> DmaPool {
    DmaPool::new(&ram.frames, &mut Places::default()).unwrap()
}

fn bytes(start: NonNull<u8>, length: usize) -> &'static mut [u8] {
    // SAFETY: memory of the pool under test, which outlives what the tests do with it.
    unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), length) }
}

#[test]
fn the_largest_size_that_leaves_half_of_the_ram_is_taken() {
    let sizes = [16, 4, 2, 1].map(|blocks| pool(&ram(blocks)).bytes());
    assert_eq!(sizes, [2 << 20, 2 << 20, 2 << 20, 1 << 20]);
}

#[test]
fn every_page_is_asked_for() {
    let ram = ram(4);
    let mut places = Places::default();
    let pool = DmaPool::new(&ram.frames, &mut places).unwrap();
    assert_eq!((places.asked, pool.bytes()), (512, 2 << 20));
    assert_eq!(pool.bus_address(), Places::of(Gfn::containing(pool.address()).0));
}

#[test]
fn a_gap_in_the_middle_makes_it_another_run() {
    let ram = ram(4);
    let first = Gfn::containing(ram.start).0;
    let elsewhere = BTreeMap::from([(first + 3 * BLOCK_FRAMES + 300, PLACE)]);
    let pool = DmaPool::new(&ram.frames, &mut Places { elsewhere, ..Places::default() }).unwrap();
    assert_eq!(pool.address(), ram.start + 2 * BLOCK_BYTES);
    assert_eq!(ram.frames.borrow().free() as u64, 3 * BLOCK_FRAMES);
}

#[test]
fn gaps_in_all_blocks_make_it_a_smaller_run() {
    let ram = ram(4);
    let first = Gfn::containing(ram.start).0;
    let elsewhere = (0..4).map(|block| (first + block * BLOCK_FRAMES + 300, PLACE)).collect();
    let pool = DmaPool::new(&ram.frames, &mut Places { elsewhere, ..Places::default() }).unwrap();
    assert_eq!((pool.address(), pool.bytes()), (ram.start + 3 * BLOCK_BYTES, 1 << 20));
}

#[test]
fn scattered_ram_is_refused_and_given_back() {
    let ram = ram(2);
    let first = Gfn::containing(ram.start).0;
    // Each second page.
    let elsewhere = (0..BLOCK_FRAMES).map(|pair| (first + pair * 2, PLACE)).collect();
    let refused = DmaPool::new(&ram.frames, &mut Places { elsewhere, ..Places::default() });
    assert_eq!(refused.err(), Some(DmaError::NotContiguous));
    assert_eq!(ram.frames.borrow().free() as u64, 2 * BLOCK_FRAMES);
}

#[test]
fn too_little_ram_is_refused() {
    let ram = ram(1);
    let _held = FrameAllocator::take(&ram.frames, 400).unwrap();
    assert_eq!(DmaPool::new(&ram.frames, &mut Places::default()).err(), Some(DmaError::NoRam));
}

#[test]
fn an_address_that_cannot_be_learnt_ends_it() {
    let ram = ram(4);
    let mut places = Places { refused: true, ..Places::default() };
    let refused = DmaPool::new(&ram.frames, &mut places);
    assert_eq!(refused.err(), Some(DmaError::NoBusAddress(GrantError::InUse)));
    assert_eq!((places.asked, ram.frames.borrow().free() as u64), (1, 4 * BLOCK_FRAMES));
}

#[test]
fn self_grants_find_where_the_pool_lies() {
    let xen = FakeXen::new();
    let ram = ram(2);
    let first = Gfn::containing(ram.start).0;
    for page in 0..2 * BLOCK_FRAMES {
        // The fake's version 1 entries have 32 bits for a frame number; the test's memory lies higher.
        xen.place_ram_at(u64::from((first + page) as u32), Places::of(first + page));
    }
    struct Low(SelfGrants);
    impl BusAddresses for Low {
        fn bus_address(&mut self, frame: Gfn) -> Result<u64, GrantError> {
            self.0.bus_address(Gfn(u64::from(frame.0 as u32)))
        }
    }
    let pages = xen.single_pages();
    let pool = DmaPool::new(&ram.frames, &mut Low(SelfGrants::new(&pages).unwrap())).unwrap();
    assert_eq!(pool.bus_address(), Places::of(first + BLOCK_FRAMES));
    assert_eq!((xen.grant_mappings(), pages.borrow().mapped(), xen.leaks().len()), (0, 0, 0));
}

#[test]
fn pages_are_zeroed_each_time_and_come_back() {
    let ram = ram(4);
    let mut pool = pool(&ram);
    let (bus_address, start) = pool.allocate(3).unwrap();
    let offset = pool.bytes() - 3 * PAGE_BYTES;
    let expected = (pool.bus_address() + offset as u64, pool.address() + offset);
    assert_eq!((bus_address, start.addr().get()), expected);
    assert!(bytes(start, 3 * PAGE_BYTES).iter().all(|byte| *byte == 0));
    bytes(start, 3 * PAGE_BYTES).fill(7);
    pool.free(start, 3);
    assert_eq!(pool.free_bytes(), pool.bytes());
    let (_, again) = pool.allocate(512).unwrap();
    assert!(bytes(again, pool.bytes()).iter().all(|byte| *byte == 0));
    assert_eq!(pool.allocate(1), None);
}

#[test]
fn no_pages_are_no_allocation() {
    assert_eq!(pool(&ram(4)).allocate(0), None);
}

#[test]
fn what_was_never_given_does_not_come_back() {
    let ram = ram(4);
    let mut pool = pool(&ram);
    let (_, start) = pool.allocate(1).unwrap();
    pool.free(start, 2);
    assert_eq!(pool.free_bytes(), pool.bytes() - PAGE_BYTES);
}

#[test]
fn a_buffer_in_the_pool_is_shared_where_it_is() {
    let ram = ram(4);
    let mut pool = pool(&ram);
    let (bus_address, start) = pool.allocate(2).unwrap();
    let buffer = NonNull::from(&mut bytes(start, 2 * PAGE_BYTES)[100..5000]);
    let free = pool.free_bytes();
    // SAFETY: the buffer is memory of the test.
    assert_eq!(unsafe { pool.share(buffer) }, Some(bus_address + 100));
    // SAFETY: likewise.
    unsafe { pool.unshare(bus_address + 100, buffer, DeviceWrote::Yes) };
    assert_eq!(pool.free_bytes(), free);
}

#[test]
fn a_buffer_elsewhere_is_copied_there_and_back() {
    let ram = ram(4);
    let mut pool = pool(&ram);
    let mut data = vec![3_u8; 5000];
    let buffer = NonNull::from(data.as_mut_slice());
    // SAFETY: the buffer is memory of the test.
    let bus_address = unsafe { pool.share(buffer) }.unwrap();
    assert_eq!(pool.free_bytes(), pool.bytes() - 2 * PAGE_BYTES);
    let copy = NonNull::new(ptr::with_exposed_provenance_mut(
        pool.address() + (bus_address - pool.bus_address()) as usize,
    ));
    let copy = bytes(copy.unwrap(), 5000);
    assert!(copy.iter().all(|byte| *byte == 3));
    copy[..10].fill(4);
    // SAFETY: likewise.
    unsafe { pool.unshare(bus_address, buffer, DeviceWrote::Yes) };
    assert_eq!((&data[..10], &data[10..]), (&[4; 10][..], &[3; 4990][..]));
    assert_eq!(pool.free_bytes(), pool.bytes());
}

#[test]
fn what_a_device_only_reads_is_not_copied_back() {
    let ram = ram(4);
    let mut pool = pool(&ram);
    let mut data = vec![3_u8; 100];
    let buffer = NonNull::from(data.as_mut_slice());
    // SAFETY: the buffer is memory of the test.
    let bus_address = unsafe { pool.share(buffer) }.unwrap();
    bytes(NonNull::new(ptr::with_exposed_provenance_mut(pool.address())).unwrap(), 100).fill(4);
    // SAFETY: likewise.
    unsafe { pool.unshare(bus_address, buffer, DeviceWrote::No) };
    assert_eq!((data, pool.free_bytes()), (vec![3; 100], pool.bytes()));
}

#[test]
fn without_room_for_a_copy_nothing_is_shared() {
    let ram = ram(4);
    let mut pool = pool(&ram);
    let _taken = pool.allocate(512).unwrap();
    let mut data = vec![3_u8; 100];
    let buffer = NonNull::from(data.as_mut_slice());
    // SAFETY: the buffer is memory of the test.
    assert_eq!(unsafe { pool.share(buffer) }, None);
    // SAFETY: likewise.
    unsafe { pool.unshare(1 << 63, buffer, DeviceWrote::Yes) };
    assert_eq!((data, pool.free_bytes()), (vec![3; 100], 0));
}
