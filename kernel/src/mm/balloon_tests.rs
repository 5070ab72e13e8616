//! RAM goes to Xen and comes back without anybody's data in it.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::xen::fake::{Call, FakeXen};
use crate::xen::hypercall::Errno;

const PAGES: usize = FRAMES_HIGH + 40;
const MARKER: [u8; 16] = *b"a guest's secret";

struct Bed {
    xen: FakeXen,
    frames: Rc<RefCell<FrameAllocator>>,
    balloon: Balloon,
}

fn bed() -> Bed {
    let xen = FakeXen::new();
    let frames = xen.own_ram(PAGES);
    Bed { xen, balloon: Balloon::new(frames.clone()), frames }
}

/// Leaves the marker in all frames that are free.
fn write_marker(frames: &Rc<RefCell<FrameAllocator>>) {
    let run = FrameAllocator::take(frames, PAGES).unwrap();
    for page in (run.address()..run.address() + run.bytes()).step_by(PAGE_BYTES) {
        // SAFETY: RAM of the fake's, taken for ourselves.
        unsafe { copy::to_shared(core::ptr::with_exposed_provenance_mut(page + 100), &MARKER) }
    }
}

fn content(address: usize) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_BYTES];
    // SAFETY: RAM of the fake's.
    unsafe { copy::from_shared(core::ptr::with_exposed_provenance(address), &mut bytes) }
    bytes
}

#[test]
fn what_was_in_our_ram_is_not_given_away() {
    let mut bed = bed();
    write_marker(&bed.frames);
    let holes = bed.balloon.inflate(usize::MAX);
    // The fake looks at each page that it is given.
    assert_eq!((holes.len(), bed.xen.leaks(), bed.xen.calls(Call::Decrease)), (BALLOON_BATCH, vec![], 1));
}

#[test]
fn what_others_left_in_the_ram_that_we_get_is_not_seen() {
    let mut bed = bed();
    for hole in bed.balloon.inflate(usize::MAX) {
        let address = hole.gfn().address();
        bed.balloon.deflate(hole).unwrap();
        assert_eq!(content(address), vec![0; PAGE_BYTES]);
    }
    assert_eq!((bed.frames.borrow().free(), bed.frames.borrow().lent()), (PAGES, 0));
}

#[test]
fn some_frames_are_never_spared() {
    let mut bed = bed();
    let mut holes = Vec::new();
    while bed.balloon.available() > 0 {
        holes.extend(bed.balloon.inflate(usize::MAX));
    }
    assert_eq!((holes.len(), bed.frames.borrow().free()), (PAGES - FRAMES_HIGH, FRAMES_HIGH));
    assert!(bed.balloon.inflate(usize::MAX).is_empty());
}

#[test]
fn what_xen_does_not_take_stays_ours_and_no_more_is_offered() {
    let mut bed = bed();
    // No page for the table that breaks up the block.
    bed.xen.set_pool(0);
    assert!(bed.balloon.inflate(usize::MAX).is_empty());
    assert_eq!((bed.frames.borrow().free(), bed.balloon.available()), (PAGES, 0));
    assert_eq!(bed.xen.census(), [PAGES, 0, 0, 0]);
}

#[test]
fn a_refused_hypercall_loses_nothing() {
    let mut bed = bed();
    bed.xen.refuse(Call::Decrease, 0, Errno::EPERM);
    assert!(bed.balloon.inflate(usize::MAX).is_empty());
    assert_eq!(bed.frames.borrow().free(), PAGES);
}

#[test]
fn a_hole_stays_one_when_xen_has_no_ram() {
    let mut bed = bed();
    let mut holes = bed.balloon.inflate(usize::MAX);
    bed.xen.leave_free(0);
    let hole = holes.pop().unwrap();
    let gfn = hole.gfn();
    assert_eq!(bed.balloon.deflate(hole), Err(Hole::of_ram(&LentFrame::again(gfn))));
    assert_eq!(bed.frames.borrow().lent(), BALLOON_BATCH);
}
