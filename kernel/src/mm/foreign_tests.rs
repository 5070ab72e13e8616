//! The pager against a small Xen ([`crate::xen::fake`]), one behaviour at a time. Neighbour: `foreign_model_tests`.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;

use super::*;
use crate::mm::physmap::MAP_BATCH;
use crate::xen::fake::{Call, FakeXen};

#[path = "foreign_model_tests.rs"]
mod model;

const A: DomainId = DomainId(3);
const B: DomainId = DomainId(4);
/// First frame of every guest's RAM.
const RAM: u64 = 0x40000;
const RAM_PAGES: u64 = 2048;

struct Bed {
    xen: FakeXen,
    pager: Rc<RefCell<Pager>>,
}

impl Bed {
    /// Two guests and a window of so many pages.
    fn new(pages: usize) -> Self {
        let xen = FakeXen::new();
        for domain in [A, B] {
            xen.add_domain(domain, 1);
            xen.populate(domain, RAM..RAM + RAM_PAGES);
        }
        let pager = xen.pager(pages);
        Self { xen, pager }
    }

    /// Pins pages of a guest, by their places in its RAM.
    fn pin(&self, domain: DomainId, pages: Range<u64>) -> Result<PinnedSlots, MemoryError> {
        let mut slots = PinnedSlots::new();
        let frames = pages.map(|page| GuestFrame(RAM + page));
        self.pager.borrow_mut().pin(domain, &frames, &mut slots).map(|()| slots)
    }

    fn prefetch(&self, domain: DomainId, pages: Range<u64>) {
        self.pager.borrow_mut().prefetch(domain, pages.map(|page| GuestFrame(RAM + page)));
    }

    fn unpin(&self, slots: PinnedSlots) {
        slots.into_iter().for_each(|slot| self.pager.borrow_mut().unpin(slot));
    }

    /// Pins pages and gives them back at once.
    fn touch(&self, domain: DomainId, pages: Range<u64>) {
        self.unpin(self.pin(domain, pages).unwrap());
    }

    /// What is mapped in each slot, as a place in the guest's RAM.
    fn held(&self, slots: &[u32]) -> Vec<Option<(DomainId, u64)>> {
        let address = |slot: &u32| self.pager.borrow().address(*slot);
        let page = |slot| self.xen.foreign_page(address(slot)).map(|(domain, frame)| (domain, frame - RAM));
        slots.iter().map(page).collect()
    }

    fn map_calls(&self) -> usize {
        self.xen.calls(Call::MapForeign)
    }
}

#[test]
fn a_page_forgotten_while_pinned_is_mapped_anew() {
    let bed = Bed::new(4);
    let before = bed.pin(A, 0..1).unwrap();
    bed.pager.borrow_mut().forget(A);
    let after = bed.pin(A, 0..1).unwrap();
    assert_ne!(before, after);
    bed.unpin(before);
    bed.unpin(after);
    assert_eq!((bed.pager.borrow_mut().forget(A), bed.xen.leaks()), (0, vec![]));
}

#[test]
fn pinned_pages_are_mapped_in_the_order_asked_for() {
    let bed = Bed::new(8);
    let slots = bed.pin(A, 5..8).unwrap();
    assert_eq!(bed.held(&slots), [Some((A, 5)), Some((A, 6)), Some((A, 7))]);
}

#[test]
fn the_same_frame_of_two_guests_is_two_pages() {
    let bed = Bed::new(8);
    let (of_a, of_b) = (bed.pin(A, 5..6).unwrap(), bed.pin(B, 5..6).unwrap());
    assert_eq!((bed.held(&of_a), bed.held(&of_b)), (vec![Some((A, 5))], vec![Some((B, 5))]));
}

#[test]
fn a_page_pinned_twice_is_in_one_slot() {
    let bed = Bed::new(8);
    let (first, second) = (bed.pin(A, 5..6).unwrap(), bed.pin(A, 5..6).unwrap());
    assert_eq!(first, second);
    bed.unpin(first);
    assert_eq!(bed.pager.borrow().pinned(), 1);
    bed.unpin(second);
    assert_eq!(bed.pager.borrow().pinned(), 0);
}

#[test]
fn a_page_named_twice_in_one_pin_is_mapped_once() {
    let bed = Bed::new(8);
    let mut slots = PinnedSlots::new();
    let frames = [GuestFrame(RAM), GuestFrame(RAM)].into_iter();
    bed.pager.borrow_mut().pin(A, &frames, &mut slots).unwrap();
    assert_eq!((slots[0], bed.xen.mapped()), (slots[1], 1));
}

#[test]
fn pins_are_appended() {
    let bed = Bed::new(8);
    let mut slots = bed.pin(A, 0..1).unwrap();
    bed.pager.borrow_mut().pin(A, &[GuestFrame(RAM + 1)].into_iter(), &mut slots).unwrap();
    assert_eq!(bed.held(&slots), [Some((A, 0)), Some((A, 1))]);
}

#[test]
fn hits_make_no_hypercall() {
    let bed = Bed::new(8);
    bed.touch(A, 0..8);
    let before = bed.map_calls();
    bed.touch(A, 0..8);
    assert_eq!((bed.map_calls(), bed.pager.borrow().counters().hits), (before, 8));
}

#[test]
fn all_misses_of_a_pin_are_one_hypercall() {
    let bed = Bed::new(512);
    bed.touch(A, 0..MAP_BATCH as u64);
    assert_eq!(bed.map_calls(), 1);
}

#[test]
fn more_misses_than_a_batch_take_another_hypercall() {
    let bed = Bed::new(512);
    let slots = bed.pin(A, 0..MAP_BATCH as u64 + 1).unwrap();
    assert_eq!((bed.map_calls(), bed.held(&slots[256..])), (2, vec![Some((A, 256))]));
}

#[test]
fn a_full_window_replaces_in_place_and_unmaps_nothing() {
    let bed = Bed::new(4);
    bed.touch(A, 0..4);
    bed.touch(B, 0..4);
    assert_eq!((bed.xen.references(A), bed.xen.references(B)), (0, 4));
    assert_eq!((bed.xen.calls(Call::Unmap), bed.pager.borrow().counters().evictions), (0, 4));
}

#[test]
fn a_page_used_lately_outlives_one_that_was_not() {
    let bed = Bed::new(4);
    bed.touch(A, 0..4);
    // The hand passes all four and takes the first slot; page 1 is used again after that.
    bed.touch(A, 4..5);
    bed.touch(A, 1..2);
    bed.touch(A, 5..6);
    let before = bed.map_calls();
    bed.touch(A, 1..2);
    assert_eq!(bed.map_calls(), before);
}

#[test]
fn pinned_pages_stay_when_others_need_room() {
    let bed = Bed::new(4);
    let slots = bed.pin(A, 0..3).unwrap();
    bed.touch(B, 0..1);
    bed.touch(B, 1..2);
    assert_eq!(bed.held(&slots), [Some((A, 0)), Some((A, 1)), Some((A, 2))]);
}

#[test]
fn a_window_full_of_pins_is_exhausted_and_nothing_is_pinned() {
    let bed = Bed::new(4);
    let slots = bed.pin(A, 0..3).unwrap();
    assert_eq!(bed.pin(B, 0..2), Err(MemoryError::Exhausted));
    assert_eq!(bed.pager.borrow().pinned(), 3);
    bed.unpin(slots);
    assert!(bed.pin(B, 0..4).is_ok());
}

#[test]
fn a_hole_fails_the_whole_pin_with_its_address() {
    let bed = Bed::new(8);
    bed.xen.balloon_out(A, RAM + 1..RAM + 2);
    assert_eq!(bed.pin(A, 0..3), Err(MemoryError::NotMapped((RAM + 1) * 4096)));
    assert_eq!(bed.pager.borrow().pinned(), 0);
    assert_eq!(bed.pager.borrow().counters().failures, 1);
}

#[test]
fn the_pages_beside_a_hole_are_found_afterwards() {
    let bed = Bed::new(8);
    bed.xen.balloon_out(A, RAM + 1..RAM + 2);
    bed.pin(A, 0..3).unwrap_err();
    let before = bed.map_calls();
    bed.touch(A, 0..1);
    bed.touch(A, 2..3);
    assert_eq!(bed.map_calls(), before);
}

#[test]
fn a_page_that_could_not_be_replaced_and_is_elsewhere_by_then_is_in_one_slot() {
    let bed = Bed::new(2);
    bed.touch(A, 1..3);
    bed.xen.balloon_out(A, RAM..RAM + 1);
    // Page 0 is to take the place of page 1, which takes that of page 2; then page 0 cannot be had.
    assert!(bed.pin(A, 0..2).is_err());
    let mut slots = PinnedSlots::new();
    let frames = [1, 1, 3].map(|page| GuestFrame(RAM + page));
    assert_eq!(bed.pager.borrow_mut().pin(A, &frames.into_iter(), &mut slots), Ok(()));
    assert_eq!((slots[0], bed.held(&slots)), (slots[1], vec![Some((A, 1)), Some((A, 1)), Some((A, 3))]));
}

#[test]
fn a_page_that_could_not_be_replaced_may_be_asked_for_again() {
    let bed = Bed::new(1);
    bed.touch(A, 0..1);
    bed.xen.balloon_out(B, RAM..RAM + 1);
    bed.pin(B, 0..1).unwrap_err();
    let slots = bed.pin(A, 0..1).unwrap();
    assert_eq!((bed.held(&slots), bed.xen.leaks().len()), (vec![Some((A, 0))], 0));
}

#[test]
fn a_frame_beyond_any_guest_is_not_mapped() {
    let bed = Bed::new(4);
    let mut slots = PinnedSlots::new();
    let result = bed.pager.borrow_mut().pin(A, &[GuestFrame(1 << 48)].into_iter(), &mut slots);
    assert_eq!((result, bed.map_calls()), (Err(MemoryError::NotMapped(1 << 60)), 0));
}

#[test]
fn pages_of_a_guest_that_is_not_there_are_not_mapped() {
    let bed = Bed::new(4);
    assert_eq!(bed.pin(DomainId(9), 0..1), Err(MemoryError::NotMapped(RAM * 4096)));
}

#[test]
fn a_hypercall_refused_as_a_whole_pins_nothing_and_is_made_again() {
    let bed = Bed::new(4);
    bed.xen.refuse(Call::MapForeign, 0, Errno::EPERM);
    assert_eq!(bed.pin(A, 0..2), Err(MemoryError::NotMapped(RAM * 4096)));
    assert_eq!(bed.pager.borrow().pinned(), 0);
    let slots = bed.pin(A, 0..2).unwrap();
    assert_eq!(bed.held(&slots), [Some((A, 0)), Some((A, 1))]);
}

#[test]
fn prefetched_pages_are_hits() {
    let bed = Bed::new(8);
    bed.prefetch(A, 0..8);
    bed.touch(A, 0..8);
    assert_eq!((bed.map_calls(), bed.pager.borrow().pinned()), (1, 0));
}

#[test]
fn prefetching_more_than_fits_pins_nothing() {
    let bed = Bed::new(8);
    bed.prefetch(A, 0..20);
    assert_eq!((bed.pager.borrow().mapped(), bed.pager.borrow().pinned()), (8, 0));
}

#[test]
fn prefetching_a_hole_is_no_error_and_loses_only_that_page() {
    let bed = Bed::new(8);
    bed.xen.balloon_out(A, RAM + 1..RAM + 2);
    bed.prefetch(A, 0..3);
    assert_eq!(bed.xen.references(A), 2);
}

#[test]
fn forgetting_a_guest_lets_it_go_and_leaves_others() {
    let bed = Bed::new(200);
    bed.touch(A, 0..100);
    bed.touch(B, 0..100);
    assert_eq!(bed.pager.borrow_mut().forget(A), 0);
    bed.xen.destroy(A);
    assert_eq!((bed.xen.exists(A), bed.xen.references(B)), (false, 100));
}

#[test]
fn forgetting_takes_few_hypercalls() {
    let bed = Bed::new(128);
    bed.touch(A, 0..128);
    bed.pager.borrow_mut().forget(A);
    assert_eq!(bed.xen.calls(Call::Multicall), 128_usize.div_ceil(crate::xen::memory::REMOVE_BATCH));
}

#[test]
fn forgetting_counts_and_keeps_what_is_pinned() {
    let bed = Bed::new(8);
    bed.touch(A, 0..4);
    let slots = bed.pin(A, 2..3).unwrap();
    assert_eq!(bed.pager.borrow_mut().forget(A), 1);
    assert_eq!((bed.held(&slots), bed.xen.references(A)), (vec![Some((A, 2))], 1));
}

#[test]
fn forgetting_also_unmaps_a_page_that_can_no_longer_be_found() {
    let bed = Bed::new(1);
    bed.touch(A, 0..1);
    bed.xen.balloon_out(B, RAM..RAM + 1);
    bed.pin(B, 0..1).unwrap_err();
    bed.pager.borrow_mut().forget(A);
    assert_eq!(bed.xen.references(A), 0);
}

#[test]
fn a_forgotten_page_is_mapped_anew() {
    let bed = Bed::new(4);
    bed.touch(A, 0..1);
    bed.xen.write_guest(A, RAM * 4096, &[1]);
    bed.xen.balloon_out(A, RAM..RAM + 1);
    bed.pager.borrow_mut().forget(A);
    bed.xen.populate(A, RAM..RAM + 1);
    let slots = bed.pin(A, 0..1).unwrap();
    assert_eq!((bed.held(&slots), bed.map_calls()), (vec![Some((A, 0))], 2));
}

#[test]
fn an_unmap_that_xen_refuses_keeps_the_page_and_is_tried_again() {
    let bed = Bed::new(4);
    bed.touch(A, 0..1);
    bed.xen.refuse(Call::Multicall, 0, Errno::EPERM);
    bed.pager.borrow_mut().forget(A);
    assert_eq!((bed.pager.borrow().mapped(), bed.xen.references(A)), (1, 1));
    bed.pager.borrow_mut().forget(A);
    assert_eq!((bed.pager.borrow().mapped(), bed.xen.references(A)), (0, 0));
}

#[test]
fn without_memory_for_all_tables_the_window_shrinks_and_serves() {
    let bed = Bed::new(1024);
    bed.xen.set_pool(1);
    let slots = bed.pin(A, 0..300).unwrap();
    bed.unpin(slots);
    // Reaches beyond the first table: fails there and is done again in what is left.
    let slots = bed.pin(A, 300..600).unwrap();
    assert_eq!(bed.held(&slots[299..]), [Some((A, 599))]);
    assert_eq!(bed.pager.borrow().mapped(), 512);
    assert_eq!(bed.xen.leaks(), []);
}

#[test]
fn a_shrunk_window_is_exhausted_at_its_new_size() {
    let bed = Bed::new(1024);
    bed.xen.set_pool(1);
    assert_eq!(bed.pin(A, 0..513), Err(MemoryError::Exhausted));
    assert!(bed.pin(A, 0..512).is_ok());
    assert_eq!(bed.pager.borrow().pinned(), 512);
}

#[test]
fn without_any_table_every_pin_is_refused() {
    let bed = Bed::new(1024);
    bed.xen.set_pool(0);
    assert_eq!(bed.pin(A, 0..1), Err(MemoryError::Exhausted));
    assert_eq!(bed.pin(A, 0..1), Err(MemoryError::Exhausted));
}

#[test]
fn the_last_slot_free_is_found_after_the_window_shrank() {
    let bed = Bed::new(1024);
    bed.xen.set_pool(1);
    let _most = bed.pin(A, 0..511).unwrap();
    // One more page, used lately, in the last slot there is; the next miss shrinks the window.
    bed.touch(A, 511..512);
    let slots = bed.pin(A, 512..513);
    assert_eq!(slots.map(|slots| bed.held(&slots)), Ok(vec![Some((A, 512))]));
}

/// Both guests have devices, so that each has its share.
fn shared_bed(pages: usize) -> Bed {
    let bed = Bed::new(pages);
    [A, B].iter().for_each(|guest| bed.pager.borrow_mut().device_came(*guest));
    bed
}

#[test]
fn a_guest_that_scans_its_memory_wears_out_its_own_slots_only() {
    let bed = shared_bed(64);
    bed.touch(A, 0..32);
    (0..RAM_PAGES).for_each(|page| bed.touch(B, page..page + 1));
    let before = bed.map_calls();
    bed.touch(A, 0..32);
    assert_eq!((bed.map_calls(), bed.pager.borrow().held(B)), (before, 32));
}

#[test]
fn a_guest_alone_has_all_slots_and_gives_up_what_is_not_its_share() {
    let bed = shared_bed(64);
    bed.touch(A, 0..64);
    assert_eq!(bed.pager.borrow().held(A), 64);
    (0..100).for_each(|page| bed.touch(B, page..page + 1));
    assert_eq!((bed.pager.borrow().held(A), bed.pager.borrow().held(B)), (32, 32));
    (0..100).for_each(|page| bed.touch(A, page..page + 1));
    assert_eq!((bed.pager.borrow().held(A), bed.pager.borrow().held(B)), (32, 32));
}

#[test]
fn a_hint_takes_nothing_of_the_share_of_others() {
    let bed = shared_bed(16);
    bed.touch(A, 0..8);
    let _all = bed.pin(B, 0..8).unwrap();
    bed.prefetch(B, 8..16);
    assert_eq!((bed.pager.borrow().held(A), bed.pager.borrow().held(B)), (8, 8));
}

#[test]
fn a_shares_part_of_a_device_goes_with_devices_and_guests() {
    let bed = shared_bed(64);
    bed.pager.borrow_mut().device_came(A);
    assert_eq!((bed.pager.borrow().share(A), bed.pager.borrow().share(B)), (16, 32));
    bed.pager.borrow_mut().device_left(B);
    assert_eq!(bed.pager.borrow().share(A), 32);
}

#[test]
fn pages_that_cannot_be_mapped_cost_nobody_a_page() {
    let bed = shared_bed(4);
    bed.touch(A, 0..4);
    bed.xen.balloon_out(B, RAM..RAM + RAM_PAGES);
    (0..10).for_each(|page| assert!(bed.pin(B, page..page + 1).is_err()));
    let before = bed.map_calls();
    bed.touch(A, 0..4);
    assert_eq!((bed.map_calls(), bed.pager.borrow().held(A), bed.pager.borrow().held(B)), (before, 4, 0));
}

#[test]
fn a_page_given_back_while_pinned_goes_when_its_pin_goes() {
    let bed = shared_bed(8);
    let slots = bed.pin(A, 0..2).unwrap();
    bed.pager.borrow_mut().forget(A);
    bed.pager.borrow_mut().drop_stale();
    assert_eq!(bed.xen.references(A), 2);
    bed.unpin(slots);
    bed.pager.borrow_mut().drop_stale();
    assert_eq!((bed.xen.references(A), bed.pager.borrow().held(A)), (0, 0));
}

#[test]
fn without_memory_for_tables_slots_come_out_of_our_ram() {
    let xen = FakeXen::new();
    xen.add_domain(A, 1);
    xen.populate(A, RAM..RAM + RAM_PAGES);
    let frames = xen.own_ram(256);
    // A table of its own for our RAM, as Xen has when it is not in one large block; one more for the window.
    xen.break_up(&frames);
    let pager = Rc::new(RefCell::new(Pager::new(xen.mixed_window(1024, 1024, frames))));
    xen.set_pool(1);
    let bed = Bed { xen, pager };
    let _most = bed.pin(A, 0..512).unwrap();
    let slots = bed.pin(A, 512..600).unwrap();
    assert_eq!(bed.held(&slots)[87], Some((A, 599)));
    assert!(bed.pager.borrow().window().ballooned() >= 88);
    assert_eq!(bed.xen.leaks(), []);
}

struct Shown(RefCell<Vec<ForeignPage>>);

impl Viewer for Shown {
    fn hide(&self, page: ForeignPage) {
        self.0.borrow_mut().push(page);
    }
}

#[test]
fn a_page_that_is_shown_is_hidden_before_it_leaves() {
    let bed = Bed::new(2);
    let viewer = Rc::new(Shown(RefCell::default()));
    bed.pager.borrow_mut().set_viewer(viewer.clone());
    let slots = bed.pin(A, 0..2).unwrap();
    assert!(bed.pager.borrow_mut().show(ForeignPage::new(A, GuestFrame(RAM)).unwrap()).is_some());
    bed.unpin(slots);
    bed.touch(B, 0..2);
    let page = ForeignPage::new(A, GuestFrame(RAM));
    assert_eq!(viewer.0.take().into_iter().map(Some).collect::<Vec<_>>(), [page]);
    bed.touch(A, 0..2);
    assert_eq!(viewer.0.take(), []);
}

/// Whoever has less than his share gets it from one who has more, whoever has pinned most.
#[test]
fn pins_of_the_richest_do_not_protect_the_second_richest() {
    const C: DomainId = DomainId(5);
    let bed = Bed::new(12);
    bed.xen.add_domain(C, 1);
    bed.xen.populate(C, RAM..RAM + RAM_PAGES);
    [B, A, C].iter().for_each(|guest| bed.pager.borrow_mut().device_came(*guest));
    let _pinned = bed.pin(A, 0..6).unwrap();
    bed.touch(C, 0..1);
    bed.touch(B, 0..5);
    (0..100).for_each(|page| bed.touch(C, page..page + 1));
    let pager = bed.pager.borrow();
    assert_eq!((pager.held(A), pager.held(B), pager.held(C)), (6, 4, 2));
}

#[test]
fn distrusted_pages_are_not_found_at_once_and_unmapped_in_portions() {
    let bed = shared_bed(STALE_PORTION * 3);
    let pages = STALE_PORTION as u64 * 2;
    let _ring = bed.pin(A, 0..1).unwrap();
    bed.touch(A, 0..pages);
    bed.touch(B, 0..8);
    bed.pager.borrow_mut().distrust(A);
    assert!(!bed.pager.borrow().holds(ForeignPage::new(A, GuestFrame(RAM + 5)).unwrap()));
    let mut left = vec![];
    for _ in 0..3 {
        bed.pager.borrow_mut().drop_stale();
        left.push(bed.xen.references(A));
    }
    assert_eq!((left, bed.xen.references(B)), (vec![STALE_PORTION, 1, 1], 8));
    bed.pager.borrow_mut().drop_stale();
    assert_eq!(bed.xen.leaks(), []);
}

#[test]
fn a_device_more_must_leave_enough_to_all() {
    let bed = Bed::new(SLOTS_PER_DEVICE_MIN * 4);
    let mut pager = bed.pager.borrow_mut();
    assert!(pager.has_room_for_device(A));
    pager.device_came(A);
    pager.device_came(A);
    // Two guests share, and the first of them shares its half again.
    assert!(pager.has_room_for_device(B));
    assert!(pager.has_room_for_device(A));
    pager.device_came(B);
    assert!(!pager.has_room_for_device(A));
    assert!(pager.has_room_for_device(B));
}
