//! Only legal moves, whatever Xen answers: single pages, and the window's batches.

use alloc::vec;

use super::*;
use crate::xen::fake::{Call, FakeXen};

const GUEST: DomainId = DomainId(3);
const RAM: u64 = 0x40000;

fn xen() -> FakeXen {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    xen.populate(GUEST, RAM..RAM + 512);
    xen
}

fn page(place: u64) -> ForeignPage {
    ForeignPage::new(GUEST, GuestFrame(RAM + place)).unwrap()
}

type Outcomes = Vec<(SlotIndex, Result<(), Errno>)>;

/// A window of so many slots, all of them made.
fn window(xen: &FakeXen, slots: usize) -> Window {
    let mut window = xen.window(slots);
    (0..slots).for_each(|expected| assert!(window.grow(|slot| assert_eq!(slot, expected))));
    window
}

/// Maps `moves` and collects what is said about each.
fn map(window: &mut Window, moves: &[(SlotIndex, ForeignPage)]) -> Outcomes {
    let mut outcomes = Vec::new();
    moves.iter().for_each(|(slot, page)| assert!(window.begin(*slot, *page)));
    window.commit(GUEST, |slot, _, result| outcomes.push((slot, result)));
    outcomes
}

#[test]
fn a_foreign_page_keeps_its_domain_and_frame() {
    let page = ForeignPage::new(DomainId(0x7fef), GuestFrame((1 << 48) - 1)).unwrap();
    assert_eq!((page.domain(), page.frame()), (DomainId(0x7fef), GuestFrame((1 << 48) - 1)));
}

#[test]
fn a_frame_beyond_48_bits_is_no_foreign_page() {
    assert_eq!(ForeignPage::new(DomainId(1), GuestFrame(1 << 48)), None);
}

#[test]
fn page_0_of_domain_0_is_a_page() {
    let page = ForeignPage::new(DomainId(0), GuestFrame(0)).unwrap();
    assert_eq!((page.domain(), page.frame()), (DomainId(0), GuestFrame(0)));
}

#[test]
fn moves_into_holes_are_one_hypercall() {
    let xen = xen();
    let mut window = window(&xen, 8);
    let outcomes = map(&mut window, &[(0, page(5)), (3, page(9))]);
    assert_eq!(outcomes, [(0, Ok(())), (3, Ok(()))]);
    assert_eq!((window.page(0), window.page(3), window.page(1)), (Some(page(5)), Some(page(9)), None));
    assert_eq!((window.mapped(), xen.mapped(), xen.calls(Call::MapForeign)), (2, 2, 1));
    assert_eq!(xen.foreign_page(window.address(3)), Some((GUEST, RAM + 9)));
}

#[test]
fn another_page_is_replaced_in_place() {
    let xen = xen();
    let mut window = window(&xen, 8);
    map(&mut window, &[(0, page(5))]);
    map(&mut window, &[(0, page(6))]);
    assert_eq!((window.mapped(), xen.references(GUEST), xen.calls(Call::Unmap)), (1, 1, 0));
    assert_eq!(xen.leaks(), []);
}

#[test]
fn a_page_is_never_mapped_over_itself() {
    let xen = xen();
    let mut window = window(&xen, 8);
    map(&mut window, &[(0, page(5))]);
    map(&mut window, &[(1, page(6)), (0, page(5)), (2, page(7))]);
    assert_eq!((xen.leaks(), xen.references(GUEST), xen.calls(Call::Unmap)), (vec![], 3, 1));
}

#[test]
fn a_page_that_cannot_leave_its_slot_is_not_mapped_over_itself() {
    let xen = xen();
    let mut window = window(&xen, 8);
    map(&mut window, &[(0, page(5))]);
    xen.refuse(Call::Multicall, 0, Errno::EPERM);
    assert!(!window.begin(0, page(5)));
    assert_eq!((window.begun(), window.page(0), xen.leaks()), (0, Some(page(5)), vec![]));
}

#[test]
fn errors_belong_to_their_own_moves() {
    let xen = xen();
    xen.balloon_out(GUEST, RAM + 7..RAM + 8);
    let mut window = window(&xen, 8);
    map(&mut window, &[(0, page(5)), (2, page(1))]);
    let outcomes = map(&mut window, &[(1, page(6)), (2, page(7)), (3, page(8))]);
    assert_eq!(outcomes, [(1, Ok(())), (2, Err(Errno::EINVAL)), (3, Ok(()))]);
    assert_eq!((window.page(2), window.mapped()), (Some(page(1)), 4));
}

#[test]
fn a_refused_batch_changes_nothing() {
    let xen = xen();
    let mut window = window(&xen, 8);
    xen.refuse(Call::MapForeign, 0, Errno::EPERM);
    let outcomes = map(&mut window, &[(0, page(5))]);
    assert_eq!((outcomes, window.page(0), window.mapped()), (vec![(0, Err(Errno::EPERM))], None, 0));
}

#[test]
fn unmapped_slots_are_holes() {
    let xen = xen();
    let mut window = window(&xen, 8);
    map(&mut window, &[(0, page(5)), (1, page(6)), (2, page(7))]);
    window.unmap(&[0, 2]);
    assert_eq!((window.page(0), window.page(1), window.page(2)), (None, Some(page(6)), None));
    assert_eq!((window.mapped(), xen.references(GUEST)), (1, 1));
}

#[test]
fn many_slots_are_unmapped_by_few_hypercalls() {
    let xen = xen();
    let mut window = window(&xen, 100);
    let moves: Vec<_> = (0..100).map(|slot| (slot, page(slot as u64))).collect();
    map(&mut window, &moves);
    window.unmap(&(0..100).collect::<Vec<_>>());
    assert_eq!((xen.mapped(), xen.calls(Call::Multicall)), (0, 4));
}

#[test]
fn a_slot_that_xen_does_not_unmap_keeps_its_page() {
    let xen = xen();
    let mut window = window(&xen, 8);
    map(&mut window, &[(0, page(5)), (1, page(6)), (2, page(7))]);
    xen.refuse(Call::Unmap, 1, Errno::EPERM);
    window.unmap(&[0, 1, 2]);
    assert_eq!((window.page(0), window.page(1), window.page(2)), (None, Some(page(6)), None));
    assert_eq!((window.mapped(), xen.mapped()), (1, 1));
}

#[test]
fn unmapping_nothing_makes_no_hypercall() {
    let xen = xen();
    xen.window(8).unmap(&[]);
    assert_eq!(xen.calls(Call::Multicall), 0);
}
