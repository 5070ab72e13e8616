//! Views on a CPU in Rust, which keeps all it may of the page tables, over a small Xen ([`crate::xen::fake`]).

use alloc::collections::BTreeMap;
use alloc::vec;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::arch::view_tables::TABLES_MIN;
use crate::xen::fake::{Call, FakeXen};

#[path = "view_model_tests.rs"]
mod model;

const A: DomainId = DomainId(3);
const B: DomainId = DomainId(4);
/// First frame of every guest's RAM.
const RAM: u64 = 0x40000;
const RAM_PAGES: u64 = 64;
/// What one instruction moves at most.
const PAIR_BYTES: usize = 16;
/// An access that faults more often than this never ends.
const PATIENCE: usize = 4;

const VALID: u64 = 1;
const READ_ONLY: u64 = 1 << 7;
const ADDRESS_MASK: u64 = 0xffff_ffff_f000;

/// A CPU with a TLB that forgets nothing unless it is told to: pages, and where tables of level 3 are.
#[derive(Default)]
struct Cpu {
    root: Cell<usize>,
    pages: RefCell<BTreeMap<usize, u64>>,
    tables: RefCell<BTreeMap<usize, usize>>,
    views: RefCell<Weak<Views<Rc<Cpu>>>>,
}

struct Abort {
    address: usize,
    /// Else it is one of permission.
    is_translation: bool,
}

/// An entry of a table, read as the walker reads it.
fn entry(table: usize, index: usize) -> u64 {
    let entry: *const AtomicU64 = ptr::with_exposed_provenance(table + index * size_of::<u64>());
    // SAFETY: tables are alive as long as the views, and the descriptors point to tables alone.
    unsafe { (*entry).load(Ordering::Relaxed) }
}

impl Cpu {
    /// The entry for a page by way of the tables in memory, whatever is kept of them.
    fn walk(&self, address: usize) -> u64 {
        let mut table = self.root.get();
        for shift in [39, 30, 21] {
            let descriptor = entry(table, address >> shift & 511);
            if descriptor & VALID == 0 {
                return 0;
            }
            table = (descriptor & ADDRESS_MASK) as usize;
        }
        self.tables.borrow_mut().insert(address >> 21, table);
        entry(table, address >> 12 & 511)
    }

    fn translate(&self, address: usize, is_store: bool) -> Result<usize, Abort> {
        let page = address / PAGE_BYTES;
        let known = self.pages.borrow().get(&page).copied();
        let table = self.tables.borrow().get(&(address >> 21)).copied();
        let descriptor = match (known, table) {
            (Some(descriptor), _) => descriptor,
            (None, Some(table)) => entry(table, address >> 12 & 511),
            (None, None) => self.walk(address),
        };
        if descriptor & VALID == 0 {
            return Err(Abort { address, is_translation: true });
        }
        self.pages.borrow_mut().insert(page, descriptor);
        if is_store && descriptor & READ_ONLY != 0 {
            return Err(Abort { address, is_translation: false });
        }
        Ok((descriptor & ADDRESS_MASK) as usize + address % PAGE_BYTES)
    }

    /// Makes one access of at most [`PAIR_BYTES`], to one or two pages at once.
    fn access(&self, address: usize, length: usize, is_store: bool) -> Option<(usize, usize)> {
        for _ in 0..PATIENCE {
            let both = self
                .translate(address, is_store)
                .and_then(|first| self.translate(address + length - 1, is_store).map(|last| (first, last)));
            match both {
                Ok(both) => return Some(both),
                Err(Abort { address, is_translation }) => {
                    let views = self.views.borrow().upgrade().unwrap();
                    if !views.fault(address, is_store) || !is_translation {
                        return None;
                    }
                }
            }
        }
        panic!("the access to {address:#x} faults again and again");
    }

    /// Calls `each(address in a slot, offset)` for each byte, access by access.
    fn each_byte(
        &self,
        address: usize,
        length: usize,
        is_store: bool,
        mut each: impl FnMut(usize, usize),
    ) -> bool {
        let mut at = 0;
        while at < length {
            let bytes = PAIR_BYTES.min(length - at);
            let Some((first, last)) = self.access(address + at, bytes, is_store) else { return false };
            for byte in 0..bytes {
                let is_in_first = (address + at) % PAGE_BYTES + byte < PAGE_BYTES;
                each(if is_in_first { first + byte } else { last + 1 + byte - bytes }, at + byte);
            }
            at += bytes;
        }
        true
    }
}

impl Translation for Rc<Cpu> {
    fn start(&self, root: usize) {
        self.root.set(root);
    }
    fn publish(&self) {}
    fn forget_page(&self, address: usize) {
        self.pages.borrow_mut().remove(&(address / PAGE_BYTES));
    }
    fn forget_paths(&self, addresses: impl Iterator<Item = usize>) {
        for address in addresses {
            self.forget_page(address);
            self.tables.borrow_mut().remove(&(address >> 21));
        }
    }
    fn forget_all(&self) {
        self.pages.borrow_mut().clear();
        self.tables.borrow_mut().clear();
    }
}

impl Mmu for Rc<Cpu> {
    unsafe fn read(&self, address: usize, out: &mut [u8]) -> bool {
        self.each_byte(address, out.len(), false, |slot, at| {
            let byte: *const u8 = ptr::with_exposed_provenance(slot);
            // SAFETY: a slot that the tables show, which the fake maps as long as it holds a page.
            out[at] = unsafe { byte.read_volatile() };
        })
    }
    unsafe fn write(&self, address: usize, data: &[u8]) -> bool {
        self.each_byte(address, data.len(), true, |slot, at| {
            let byte: *mut u8 = ptr::with_exposed_provenance_mut(slot);
            // SAFETY: as in `read`.
            unsafe { byte.write_volatile(data[at]) }
        })
    }
}

struct Bed {
    xen: FakeXen,
    pager: Rc<RefCell<Pager>>,
    cpu: Rc<Cpu>,
    views: Rc<Views<Rc<Cpu>>>,
}

impl Bed {
    /// Two guests, a window of so many pages, so many page tables.
    fn new(pages: usize, tables: usize) -> Self {
        let xen = FakeXen::new();
        for domain in [A, B] {
            xen.add_domain(domain, 1);
            xen.populate(domain, RAM..RAM + RAM_PAGES);
        }
        let pager = xen.pager(pages);
        let cpu = Rc::new(Cpu::default());
        let views = Views::new(&pager, cpu.clone(), tables);
        *cpu.views.borrow_mut() = Rc::downgrade(&views);
        Self { xen, pager, cpu, views }
    }

    fn view(&self, domain: DomainId, fault_around: usize) -> View<Rc<Cpu>> {
        View::new(&self.views, domain, Access::ReadWrite, fault_around).unwrap()
    }

    fn pin(&self, domain: DomainId, pages: Range<u64>) -> PinnedSlots {
        let mut slots = PinnedSlots::new();
        let frames = pages.map(|page| GuestFrame(RAM + page));
        self.pager.borrow_mut().pin(domain, &frames, &mut slots).unwrap();
        slots
    }

    fn unpin(&self, slots: PinnedSlots) {
        slots.into_iter().for_each(|slot| self.pager.borrow_mut().unpin(slot));
    }

    fn map_calls(&self) -> usize {
        self.xen.calls(Call::MapForeign)
    }

    /// Page by page: what is shown, or kept by the CPU, is what the slot holds, under the right name.
    fn check(&self) {
        let state = self.views.state.borrow();
        for (page, descriptor) in &*self.cpu.pages.borrow() {
            let address = page * PAGE_BYTES;
            assert_eq!(self.cpu.walk(address), *descriptor, "the CPU keeps what the tables do not say");
            let (index, offset) = ((address - UPPER_HALF) / VIEW_BYTES, address % VIEW_BYTES);
            let entry = state.views[index].expect("a page is shown where no view is");
            let frame = (offset / PAGE_BYTES) as u64;
            let slot = (descriptor & ADDRESS_MASK) as usize;
            assert_eq!(self.xen.foreign_page(slot), Some((entry.domain, frame)));
            assert!(self.pager.borrow().holds(ForeignPage::new(entry.domain, GuestFrame(frame)).unwrap()));
            assert_eq!(descriptor & READ_ONLY != 0, entry.access == Access::ReadOnly);
        }
        drop(state);
        assert!(self.views.tables_used() <= self.views.tables.max(TABLES_MIN));
    }
}

fn at(page: u64) -> GuestAddress {
    GuestAddress((RAM + page) * PAGE_BYTES as u64)
}

fn read<const BYTES: usize>(view: &View<Rc<Cpu>>, address: GuestAddress) -> Result<[u8; BYTES], MemoryError> {
    let mut out = [0; BYTES];
    view.read(address, &mut out).map(|()| out)
}

#[test]
fn a_read_across_pages_gives_what_the_guest_wrote() {
    let bed = Bed::new(8, 8);
    let address = at(1).0 - 3;
    bed.xen.write_guest(A, address, b"abcdef");
    let view = bed.view(A, 1);
    assert_eq!(read(&view, GuestAddress(address)), Ok(*b"abcdef"));
    bed.check();
    assert_eq!((bed.views.counters().faults, bed.pager.borrow().pinned()), (2, 0));
}

#[test]
fn a_write_is_seen_by_the_guest() {
    let bed = Bed::new(8, 8);
    bed.view(A, 16).write(GuestAddress(at(2).0 - 2), b"abcd").unwrap();
    assert_eq!(bed.xen.read_guest(A, at(2).0 - 2), *b"abcd");
}

#[test]
fn a_page_that_is_there_is_read_without_a_fault() {
    let bed = Bed::new(8, 8);
    let view = bed.view(A, 1);
    read::<1>(&view, at(0)).unwrap();
    let before = (bed.views.counters(), bed.pager.borrow().counters());
    read::<64>(&view, at(0)).unwrap();
    assert_eq!((bed.views.counters(), bed.pager.borrow().counters()), before);
}

#[test]
fn the_neighbours_of_a_page_come_by_the_same_hypercall_and_without_a_fault() {
    let bed = Bed::new(64, 8);
    let view = bed.view(A, 16);
    read::<1>(&view, at(5)).unwrap();
    read::<65536>(&view, at(0)).unwrap();
    assert_eq!((bed.views.counters().faults, bed.map_calls()), (1, 1));
    bed.check();
}

#[test]
fn neighbours_that_are_holes_are_no_error() {
    let bed = Bed::new(64, 8);
    bed.xen.balloon_out(A, RAM + 6..RAM + 9);
    let view = bed.view(A, 16);
    read::<1>(&view, at(5)).unwrap();
    assert_eq!(read::<4096>(&view, at(15)).map(|_| bed.map_calls()), Ok(1));
}

#[test]
fn a_hole_fails_with_its_address_and_nothing_stays_pinned() {
    let bed = Bed::new(64, 8);
    bed.xen.balloon_out(A, RAM + 6..RAM + 7);
    let view = bed.view(A, 16);
    assert_eq!(read::<8192>(&view, at(5)), Err(MemoryError::NotMapped(at(6).0)));
    assert_eq!((bed.pager.borrow().pinned(), bed.views.counters().failures), (0, 1));
}

#[test]
fn an_address_beyond_a_view_is_refused_without_a_fault() {
    let bed = Bed::new(8, 8);
    let view = bed.view(A, 1);
    let last = VIEW_BYTES as u64 - 1;
    assert_eq!(read::<2>(&view, GuestAddress(last)), Err(MemoryError::NotMapped(last)));
    assert_eq!(read::<2>(&view, GuestAddress(u64::MAX)), Err(MemoryError::NotMapped(u64::MAX)));
    assert_eq!(bed.views.counters().faults, 0);
}

#[test]
fn a_store_to_a_view_for_reading_is_refused_whether_the_page_is_there_or_not() {
    let bed = Bed::new(8, 8);
    let view = View::new(&bed.views, A, Access::ReadOnly, 1).unwrap();
    assert_eq!(view.write(at(0), b"x"), Err(MemoryError::OutOfRange));
    read::<1>(&view, at(0)).unwrap();
    assert_eq!(view.write(at(0), b"x"), Err(MemoryError::OutOfRange));
    assert_eq!(bed.xen.read_guest(A, at(0).0), [0]);
    bed.check();
}

#[test]
fn a_fault_while_the_pager_is_borrowed_fails() {
    let bed = Bed::new(8, 8);
    let view = bed.view(A, 1);
    let borrowed = bed.pager.borrow_mut();
    assert_eq!(read::<1>(&view, at(0)), Err(MemoryError::NotMapped(at(0).0)));
    drop(borrowed);
    assert_eq!(read(&view, at(0)), Ok([0]));
}

#[test]
fn a_page_is_hidden_before_its_slot_holds_another() {
    let bed = Bed::new(2, 8);
    bed.xen.write_guest(A, at(0).0, b"a");
    let view = bed.view(A, 1);
    read::<1>(&view, at(0)).unwrap();
    bed.unpin(bed.pin(B, 0..2));
    bed.check();
    assert_eq!((bed.cpu.pages.borrow().len(), bed.views.counters().hidden), (0, 1));
    assert_eq!(read(&view, at(0)), Ok(*b"a"));
}

#[test]
fn a_page_given_back_is_hidden_even_while_it_is_pinned() {
    let bed = Bed::new(4, 8);
    bed.xen.write_guest(A, at(0).0, b"a");
    let view = bed.view(A, 1);
    let pinned = bed.pin(A, 0..1);
    assert_eq!(read(&view, at(0)), Ok(*b"a"));
    bed.xen.balloon_out(A, RAM..RAM + 1);
    bed.pager.borrow_mut().forget(A);
    bed.xen.populate(A, RAM..RAM + 1);
    assert_eq!(read(&view, at(0)), Ok([0]));
    bed.unpin(pinned);
}

#[test]
fn a_page_that_the_clock_has_passed_faults_without_a_hypercall_and_stays() {
    let bed = Bed::new(2, 8);
    let view = bed.view(A, 1);
    read::<1>(&view, at(0)).unwrap();
    read::<1>(&view, at(1)).unwrap();
    // The hand takes both marks and replaces the first page.
    bed.unpin(bed.pin(B, 0..1));
    let calls = bed.map_calls();
    read::<1>(&view, at(1)).unwrap();
    assert_eq!((bed.map_calls(), bed.views.counters().map_faults), (calls, 2));
    bed.check();
}

#[test]
fn a_neighbour_that_the_clock_has_passed_shows_its_next_use() {
    let bed = Bed::new(4, 8);
    let view = bed.view(A, 4);
    read::<1>(&view, at(0)).unwrap();
    // The hand takes all four marks and replaces the first page.
    bed.unpin(bed.pin(B, 0..1));
    read::<1>(&view, at(1)).unwrap();
    read::<1>(&view, at(2)).unwrap();
    assert_eq!((bed.views.counters().faults, bed.views.counters().map_faults), (3, 1));
}

#[test]
fn both_pages_of_a_border_are_had_at_once_with_the_least_of_everything() {
    let bed = Bed::new(2, TABLES_MIN);
    for border in [0x40200, 0x80000, 0x800_0000_u64] {
        bed.xen.populate(A, border - 16..border + 16);
        let address = border * PAGE_BYTES as u64 - 4;
        bed.xen.write_guest(A, address, b"abcdefgh");
        let view = bed.view(A, 16);
        assert_eq!(read(&view, GuestAddress(address)), Ok(*b"abcdefgh"));
        bed.check();
    }
    assert_eq!(bed.pager.borrow().pinned(), 0);
}

#[test]
fn tables_are_taken_from_the_place_that_was_entered_longest_ago() {
    let bed = Bed::new(16, TABLES_MIN);
    let view = bed.view(A, 1);
    for place in 0..8 {
        let frame = 0x80000 + place * 512;
        bed.xen.populate(A, frame..frame + 1);
        bed.xen.write_guest(A, frame * PAGE_BYTES as u64, &[place as u8]);
    }
    for place in (0..8).chain(0..8) {
        let address = GuestAddress((0x80000 + place * 512) * PAGE_BYTES as u64);
        assert_eq!(read(&view, address), Ok([place as u8]));
        bed.check();
    }
    // The root, one of level 1, one of level 2: four are left.
    assert_eq!((bed.views.tables_used(), bed.views.counters().map_faults), (TABLES_MIN, 8));
    assert!(bed.views.counters().table_reclaims >= 4);
}

#[test]
fn without_slots_a_read_is_exhausted() {
    let bed = Bed::new(2, 8);
    let view = bed.view(A, 1);
    let pinned = bed.pin(B, 0..2);
    assert_eq!(read::<1>(&view, at(0)), Err(MemoryError::Exhausted));
    bed.unpin(pinned);
    assert_eq!(read::<1>(&view, at(0)), Ok([0]));
}

#[test]
fn views_alike_are_one_and_the_last_to_go_leaves_nothing() {
    let bed = Bed::new(8, 8);
    let (first, second) = (bed.view(A, 4), bed.view(A, 3));
    assert_eq!(first.index, second.index);
    read::<1>(&first, at(0)).unwrap();
    drop(first);
    assert!(bed.views.tables_used() > 1);
    drop(second);
    assert_eq!((bed.views.tables_used(), bed.cpu.pages.borrow().len()), (1, 0));
}

#[test]
fn a_guest_that_a_view_has_shown_can_go_away() {
    let bed = Bed::new(8, 8);
    let view = bed.view(A, 4);
    read::<1>(&view, at(0)).unwrap();
    assert_eq!(bed.pager.borrow_mut().forget(A), 0);
    bed.xen.destroy(A);
    assert_eq!((bed.xen.exists(A), bed.xen.leaks()), (false, vec![]));
    assert_eq!(read::<1>(&view, at(0)), Err(MemoryError::NotMapped(at(0).0)));
}
