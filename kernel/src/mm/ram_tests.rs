//! The same RAM is the window's while nobody needs it, and the heap's or a volume's when they do.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::mm::address::GuestFrame;
use crate::mm::foreign::PinnedSlots;
use crate::xen::DomainId;
use crate::xen::fake::FakeXen;

const GUEST: DomainId = DomainId(3);
const GUEST_RAM: u64 = 0x40000;
const PAGES: usize = 512;

struct Bed {
    xen: FakeXen,
    ram: Ram,
    pager: Rc<RefCell<Pager>>,
    first: usize,
}

/// A window of nothing but RAM.
fn bed() -> Bed {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    xen.populate(GUEST, GUEST_RAM..GUEST_RAM + 2048);
    let frames = xen.own_ram(PAGES);
    let first = frames.borrow().find_with_lent(PAGES).unwrap().start.address();
    let pager = Rc::new(RefCell::new(Pager::new(xen.mixed_window(PAGES, 0, frames.clone()))));
    pager.borrow_mut().device_came(GUEST);
    Bed { xen, ram: Ram::new(frames, pager.clone()), pager, first }
}

impl Bed {
    fn pin(&self, pages: Range<u64>) -> PinnedSlots {
        let mut slots = PinnedSlots::new();
        let frames = pages.map(|page| GuestFrame(GUEST_RAM + page));
        self.pager.borrow_mut().pin(GUEST, &frames, &mut slots).unwrap();
        slots
    }

    fn touch(&self, pages: Range<u64>) {
        pages.for_each(|page| self.unpin(self.pin(page..page + 1)));
    }

    fn unpin(&self, slots: PinnedSlots) {
        slots.into_iter().for_each(|slot| self.pager.borrow_mut().unpin(slot));
    }

    fn free(&self) -> usize {
        self.ram.frames().borrow().free()
    }

    fn ballooned(&self) -> usize {
        self.pager.borrow().window().ballooned()
    }
}

/// A heap that keeps count.
struct FakeHeap {
    free: usize,
    end: usize,
    runs: Vec<FrameRun>,
}

impl Growing for FakeHeap {
    fn free_bytes(&self) -> usize {
        self.free
    }

    fn end(&self) -> usize {
        self.end
    }

    fn grow(&mut self, run: FrameRun) {
        assert_eq!(run.address(), self.end);
        self.end += run.bytes();
        self.free += run.bytes();
        self.runs.push(run);
    }
}

#[test]
fn the_window_takes_the_ram_that_nobody_needs() {
    let bed = bed();
    bed.touch(0..1000);
    assert_eq!((bed.ballooned(), bed.free()), (PAGES - FRAMES_HIGH, FRAMES_HIGH));
    assert_eq!(bed.xen.census(), [FRAMES_HIGH, PAGES - FRAMES_HIGH, 0, 0]);
    assert_eq!(bed.xen.leaks(), vec![]);
}

#[test]
fn a_volume_gets_ram_that_the_window_has() {
    let bed = bed();
    bed.touch(0..1000);
    let run = bed.ram.take(300).unwrap();
    assert!(bed.ballooned() <= PAGES - 300);
    // All of it is RAM: touching a hole would end the test.
    for page in (run.address()..run.address() + run.bytes()).step_by(PAGE_BYTES) {
        let mut byte = [1];
        // SAFETY: our run.
        unsafe { crate::arch::copy::from_shared(core::ptr::with_exposed_provenance(page), &mut byte) }
    }
    drop(run);
    // And gives it back.
    bed.touch(0..1000);
    assert_eq!((bed.ballooned(), bed.xen.leaks()), (PAGES - FRAMES_HIGH, vec![]));
}

#[test]
fn pinned_pages_do_not_give_way() {
    let bed = bed();
    bed.touch(0..440);
    let pinned = bed.pin(0..200);
    let before = bed.pager.borrow().pinned();
    assert!(bed.ram.take(PAGES).is_none());
    assert_eq!((before, bed.pager.borrow().pinned()), (200, 200));
    bed.unpin(pinned);
    assert!(bed.ram.take(PAGES).is_some());
}

#[test]
fn the_heap_grows_into_the_window() {
    let bed = bed();
    bed.touch(0..1000);
    let mut heap = FakeHeap { free: HEAP_LOW_BYTES - 1, end: bed.first, runs: vec![] };
    bed.ram.tend(&mut heap);
    assert_eq!((heap.runs.len(), heap.end), (1, bed.first + HEAP_STEP_BYTES));
    bed.ram.tend(&mut heap);
    assert_eq!(heap.runs.len(), 1);
    assert_eq!(bed.xen.leaks(), vec![]);
}

#[test]
fn a_heap_that_cannot_grow_stays() {
    let bed = bed();
    let _volume = bed.ram.take(1).unwrap();
    let mut heap = FakeHeap { free: 0, end: bed.first, runs: vec![] };
    bed.ram.tend(&mut heap);
    assert_eq!(heap.end, bed.first);
}

#[test]
fn when_few_frames_are_free_the_window_gives_some_back() {
    let bed = bed();
    bed.touch(0..1000);
    let _volume = bed.ram.take(FRAMES_HIGH - FRAMES_LOW + 1).unwrap();
    assert_eq!(bed.free(), FRAMES_LOW - 1);
    bed.ram.tend(&mut FakeHeap { free: usize::MAX, end: 0, runs: vec![] });
    assert_eq!(bed.free(), FRAMES_HIGH);
    bed.touch(0..1000);
    assert_eq!((bed.free(), bed.xen.leaks()), (FRAMES_HIGH, vec![]));
}
