//! A guest's memory through pins: what one side writes the other reads, and nothing stays pinned.

use alloc::vec;
use alloc::vec::Vec;

use drivers::guest::{GuestAddress, PinnedMemory};
use proptest::prelude::*;

use super::*;
use crate::xen::fake::{Call, FakeXen};

const GUEST: DomainId = DomainId(3);
const RAM: u64 = 0x4000_0000;
const RAM_PAGES: u64 = 2048;
const PAGE: u64 = PAGE_BYTES as u64;

struct Bed {
    xen: FakeXen,
    pager: Rc<RefCell<Pager>>,
    memory: ForeignMemory,
}

fn bed(window_pages: usize) -> Bed {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    xen.populate(GUEST, RAM / PAGE..RAM / PAGE + RAM_PAGES);
    let pager = xen.pager(window_pages);
    Bed { xen, memory: ForeignMemory::new(pager.clone(), GUEST), pager }
}

/// So many bytes from an offset in the guest's RAM on.
fn region(offset: u64, length: u32) -> GuestRegion {
    GuestRegion { address: GuestAddress(RAM + offset), length }
}

fn read<const BYTES: usize>(pinned: &ForeignPinned, offset: u32) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    pinned.read(offset, &mut out).unwrap();
    out
}

#[test]
fn what_the_guest_writes_is_read_across_pages() {
    let bed = bed(8);
    bed.xen.write_guest(GUEST, RAM + PAGE - 2, &[1, 2, 3, 4]);
    let pinned = bed.memory.pin(&[region(PAGE - 2, 4)]).unwrap();
    assert_eq!((pinned.len(), read(&pinned, 0)), (4, [1, 2, 3, 4]));
}

#[test]
fn the_guest_may_write_while_its_memory_is_pinned() {
    let bed = bed(8);
    let pinned = bed.memory.pin(&[region(0, 4)]).unwrap();
    bed.xen.write_guest(GUEST, RAM + 1, &[7]);
    assert_eq!(read(&pinned, 0), [0, 7, 0, 0]);
}

#[test]
fn what_is_written_across_regions_reaches_the_guest() {
    let bed = bed(8);
    let pinned = bed.memory.pin(&[region(PAGE - 1, 2), region(5 * PAGE + 7, 3)]).unwrap();
    pinned.write(1, &[1, 2, 3]).unwrap();
    assert_eq!(bed.xen.read_guest(GUEST, RAM + PAGE - 1), [0, 1, 0]);
    assert_eq!(bed.xen.read_guest(GUEST, RAM + 5 * PAGE + 7), [2, 3, 0]);
}

#[test]
fn half_words_are_little_endian() {
    let bed = bed(8);
    bed.xen.write_guest(GUEST, RAM + 2, &[0x34, 0x12]);
    let pinned = bed.memory.pin(&[region(0, 8)]).unwrap();
    assert_eq!(pinned.load_u16(2), Ok(0x1234));
    pinned.store_u16(4, 0xabcd).unwrap();
    assert_eq!(bed.xen.read_guest(GUEST, RAM + 4), [0xcd, 0xab]);
}

#[test]
fn a_half_word_at_an_odd_address_is_out_of_range() {
    let bed = bed(8);
    let pinned = bed.memory.pin(&[region(PAGE - 1, 4)]).unwrap();
    assert_eq!(pinned.load_u16(0), Err(MemoryError::OutOfRange));
    assert_eq!(pinned.load_u16(2), Err(MemoryError::OutOfRange));
    assert_eq!(pinned.load_u16(1), Ok(0));
}

#[test]
fn access_beyond_the_end_is_out_of_range() {
    let bed = bed(8);
    let pinned = bed.memory.pin(&[region(0, 4)]).unwrap();
    assert_eq!(pinned.read(1, &mut [0; 4]), Err(MemoryError::OutOfRange));
    assert_eq!(pinned.write(u32::MAX, &[0]), Err(MemoryError::OutOfRange));
    assert_eq!(pinned.load_u16(3), Err(MemoryError::OutOfRange));
    assert_eq!(pinned.read(4, &mut []), Ok(()));
}

#[test]
fn empty_regions_pin_nothing() {
    let bed = bed(8);
    let pinned = bed.memory.pin(&[region(5, 0), region(u64::MAX - RAM, 0)]).unwrap();
    assert_eq!((pinned.len(), bed.pager.borrow().pinned()), (0, 0));
}

#[test]
fn an_empty_region_between_others_does_not_matter() {
    let bed = bed(8);
    bed.xen.write_guest(GUEST, RAM, &[1, 2, 3]);
    let pinned = bed.memory.pin(&[region(0, 1), region(PAGE, 0), region(2, 1)]).unwrap();
    assert_eq!(read(&pinned, 0), [1, 3]);
}

#[test]
fn a_region_that_wraps_around_is_not_mapped() {
    let bed = bed(8);
    let region = GuestRegion { address: GuestAddress(u64::MAX - 3), length: 8 };
    assert_eq!(bed.memory.pin(&[region]).err(), Some(MemoryError::NotMapped(u64::MAX - 3)));
}

#[test]
fn a_region_beyond_all_ram_is_not_mapped() {
    let bed = bed(8);
    let region = GuestRegion { address: GuestAddress(0xffff_ffff_ffff_0000), length: 8 };
    assert_eq!(bed.memory.pin(&[region]).err(), Some(MemoryError::NotMapped(0xffff_ffff_ffff_0000)));
}

#[test]
fn a_region_with_a_hole_pins_nothing() {
    let bed = bed(8);
    bed.xen.balloon_out(GUEST, RAM / PAGE + 1..RAM / PAGE + 2);
    let refused = bed.memory.pin(&[region(0, 4), region(PAGE - 4, 12)]).err();
    assert_eq!(refused, Some(MemoryError::NotMapped(RAM + PAGE)));
    assert_eq!(bed.pager.borrow().pinned(), 0);
}

#[test]
fn more_bytes_than_can_be_counted_are_out_of_range() {
    let bed = bed(8);
    let regions = [region(0, u32::MAX), region(0, 1)];
    assert_eq!(bed.memory.pin(&regions).err(), Some(MemoryError::OutOfRange));
}

#[test]
fn more_pages_than_one_pin_may_hold_are_refused_without_a_hypercall() {
    let bed = bed(2048);
    let bytes = (PAGES_PER_PIN * PAGE_BYTES) as u32;
    assert_eq!(bed.memory.pin(&[region(1, bytes)]).err(), Some(MemoryError::Exhausted));
    assert_eq!(bed.xen.calls(Call::MapForeign), 0);
    assert!(bed.memory.pin(&[region(0, bytes)]).is_ok());
}

#[test]
fn a_dropped_pin_is_given_back_and_its_pages_stay_mapped() {
    let bed = bed(8);
    drop(bed.memory.pin(&[region(0, 8192)]).unwrap());
    assert_eq!((bed.pager.borrow().pinned(), bed.pager.borrow().mapped()), (0, 2));
}

#[test]
fn nobody_looks_for_missing_pages_where_none_is_missing_for_long() {
    let bed = bed(64);
    let prefetch = |pages: core::ops::Range<u64>| {
        let regions: Vec<_> = pages.map(|page| region(page * PAGE, 1)).collect();
        let before = bed.pager.borrow().counters();
        bed.memory.prefetch(&regions);
        let after = bed.pager.borrow().counters();
        (after.misses - before.misses, after.hits - before.hits)
    };
    assert_eq!(prefetch(0..8), (8, 0));
    for _ in 0..=IDLE_LOOKS_MAX {
        assert_eq!(prefetch(0..8), (0, 8));
    }
    assert_eq!(prefetch(0..16), (0, 0));
    // Until one is missing.
    drop(bed.memory.pin(&[region(8 * PAGE, 1)]).unwrap());
    assert_eq!(prefetch(0..16), (7, 9));
    assert_eq!(prefetch(8..24), (8, 8));
}

#[test]
fn prefetched_regions_are_pinned_without_a_hypercall() {
    let bed = bed(8);
    let regions = [region(10, 5000), region(7 * PAGE, 1)];
    bed.memory.prefetch(&regions);
    let before = bed.xen.calls(Call::MapForeign);
    bed.memory.pin(&regions).unwrap();
    assert_eq!((before, bed.xen.calls(Call::MapForeign)), (1, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Regions of any place and length are one run of bytes, whatever part of it is read or written.
    #[test]
    fn pinned_regions_are_one_run_of_bytes(
        regions in prop::collection::vec((0..12 * PAGE, 0u32..9000), 1..5),
        part in (0.0..1.0, 0.0..1.0),
    ) {
        let bed = bed(64);
        let content: Vec<u8> = (0..16 * PAGE).map(|at| (at % 251) as u8).collect();
        bed.xen.write_guest(GUEST, RAM, &content);
        let list: Vec<_> = regions.iter().map(|(offset, length)| region(*offset, *length)).collect();
        let of_region = |(offset, length): &(u64, u32)| *offset as usize..*offset as usize + *length as usize;
        let places: Vec<usize> = regions.iter().flat_map(of_region).collect();
        let start = (places.len() as f64 * part.0) as usize;
        let end = start + ((places.len() - start) as f64 * part.1) as usize;

        let pinned = bed.memory.pin(&list).unwrap();
        prop_assert_eq!(pinned.len() as usize, places.len());
        let mut seen = vec![0; end - start];
        pinned.read(start as u32, &mut seen).unwrap();
        prop_assert!(seen.iter().zip(&places[start..end]).all(|(seen, place)| *seen == content[*place]));

        pinned.write(start as u32, &vec![0xff; end - start]).unwrap();
        let mut expected = content;
        places[start..end].iter().for_each(|place| expected[*place] = 0xff);
        prop_assert_eq!(&bed.xen.read_guest::<{ 16 * PAGE_BYTES }>(GUEST, RAM)[..], &expected[..]);
    }
}

#[test]
fn a_device_that_pins_all_it_can_leaves_the_others_their_share() {
    const OTHER: DomainId = DomainId(4);
    let bed = bed(8);
    bed.xen.add_domain(OTHER, 1);
    bed.xen.populate(OTHER, RAM / PAGE..RAM / PAGE + RAM_PAGES);
    let other = ForeignMemory::new(bed.pager.clone(), OTHER);
    let greedy = &bed.memory;
    let _all = greedy.pin(&[region(0, 4 * PAGE_BYTES as u32)]).unwrap();
    assert!(matches!(greedy.pin(&[region(0, 1)]), Err(MemoryError::Exhausted)));
    assert!(other.pin(&[region(0, 4 * PAGE_BYTES as u32)]).is_ok());
    drop(other);
    assert!(greedy.pin(&[region(0, 4 * PAGE_BYTES as u32)]).is_ok());
}
