//! The same RAM is the window's while nobody needs it, and the heap's or a volume's when they do.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::limits::SLOTS_PER_DEVICE_MIN;
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
    let first = frames.borrow_mut().find_with_lent(PAGES, core::iter::empty()).unwrap().start.address();
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
    assert!(bed.ram.take(PAGES - FRAMES_HIGH - SLOTS_PER_DEVICE_MIN).is_some());
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
    let _behind_it = FrameAllocator::take_at(bed.ram.frames(), &(bed.first..bed.first + PAGE_BYTES)).unwrap();
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

const REGION: usize = 256;

/// When Xen has no RAM left, nobody's pages are thrown away for nothing.
#[test]
fn no_ram_to_be_had_costs_nobody_his_pages() {
    let bed = bed();
    bed.touch(0..1000);
    let _volume = bed.ram.take(FRAMES_HIGH - FRAMES_LOW + 1).unwrap();
    bed.xen.leave_free(0);
    let before = (bed.pager.borrow().mapped(), bed.xen.calls(crate::xen::fake::Call::Populate));
    bed.ram.tend(&mut FakeHeap { free: usize::MAX, end: 0, runs: vec![] });
    let after = (bed.pager.borrow().mapped(), bed.xen.calls(crate::xen::fake::Call::Populate));
    bed.ram.tend(&mut FakeHeap { free: usize::MAX, end: 0, runs: vec![] });
    let again = bed.xen.calls(crate::xen::fake::Call::Populate);
    assert!(
        after.0 + 64 >= before.0 && after.1 - before.1 <= 64,
        "mapped {} -> {}, {} populate calls in one tend, {} in the next",
        before.0,
        after.0,
        after.1 - before.1,
        again - after.1,
    );
}

/// RAM comes out of slots that are made of RAM, not out of others.
#[test]
fn slots_that_are_no_ram_are_left_alone() {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    xen.populate(GUEST, GUEST_RAM..GUEST_RAM + 2048);
    let frames = xen.own_ram(PAGES);
    let pager = Rc::new(RefCell::new(Pager::new(xen.mixed_window(REGION + PAGES, REGION, frames.clone()))));
    pager.borrow_mut().device_came(GUEST);
    let bed = Bed { xen, ram: Ram::new(frames, pager.clone()), pager, first: 0 };
    bed.touch(0..(REGION + PAGES - FRAMES_HIGH) as u64);
    let before = bed.pager.borrow().mapped();
    let _volume = bed.ram.take(FRAMES_HIGH - FRAMES_LOW + 1).unwrap();
    bed.ram.tend(&mut FakeHeap { free: usize::MAX, end: 0, runs: vec![] });
    let lost = before - bed.pager.borrow().mapped();
    assert_eq!(lost, FRAMES_LOW + 1, "pages unmapped for {} frames", FRAMES_LOW + 1);
}

/// The heap grows as long as there is RAM.
#[test]
fn a_small_volume_does_not_stop_the_heap() {
    let bed = bed();
    let _volume = bed.ram.take(1).unwrap();
    let mut heap = FakeHeap { free: 0, end: bed.first, runs: vec![] };
    bed.ram.tend(&mut heap);
    assert_eq!(heap.runs.len(), 1, "{} frames are free", bed.free());
}

/// A guest's ring in the window does not stop the heap.
#[test]
fn a_ring_does_not_stop_the_heap() {
    let bed = bed();
    let _ring = bed.pin(0..1);
    let mut heap = FakeHeap { free: 0, end: bed.first, runs: vec![] };
    bed.ram.tend(&mut heap);
    assert_eq!(heap.runs.len(), 1, "{} frames are free", bed.free());
}

/// What does not help is not done again and again.
#[test]
fn a_heap_that_cannot_grow_does_not_wear_out_the_window() {
    let bed = bed();
    bed.touch(0..1000);
    let _behind_it = FrameAllocator::take_at(bed.ram.frames(), &(bed.first..bed.first + PAGE_BYTES)).unwrap();
    let mut heap = FakeHeap { free: 0, end: bed.first, runs: vec![] };
    let count =
        || (bed.xen.calls(crate::xen::fake::Call::Populate), bed.xen.calls(crate::xen::fake::Call::Decrease));
    let before = count();
    for _ in 0..10 {
        bed.ram.tend(&mut heap);
        bed.touch(552..1000);
    }
    let after = count();
    assert_eq!(
        (after.0 - before.0, after.1 - before.1, heap.runs.len()),
        (0, 0, 0),
        "populate, decrease, grown"
    );
}

/// One pinned page does not keep a volume from RAM that lies elsewhere.
#[test]
fn a_volume_is_put_where_nothing_is_pinned() {
    let bed = bed();
    let _ring = bed.pin(0..1);
    bed.touch(1..440);
    assert!(bed.ram.take(300).is_some(), "frames free {}, ballooned {}", bed.free(), bed.ballooned());
}

/// RAM comes from others when whoever has most has pinned it.
#[test]
fn ram_comes_from_whoever_can_give() {
    const OTHER: DomainId = DomainId(4);
    let bed = bed();
    bed.xen.add_domain(OTHER, 1);
    bed.xen.populate(OTHER, GUEST_RAM..GUEST_RAM + 512);
    let _pinned = bed.pin(0..300);
    let mut slots = PinnedSlots::new();
    bed.pager
        .borrow_mut()
        .pin(OTHER, &(0..148).map(|page| GuestFrame(GUEST_RAM + page)), &mut slots)
        .unwrap();
    bed.unpin(slots);
    let _volume = bed.ram.take(FRAMES_HIGH - FRAMES_LOW + 1).unwrap();
    bed.ram.tend(&mut FakeHeap { free: usize::MAX, end: 0, runs: vec![] });
    assert_eq!(bed.free(), FRAMES_HIGH);
}

/// More holes than slots, and no RAM for them: the books still balance.
#[test]
fn holes_that_are_not_wanted_are_not_made() {
    use crate::mm::census::Census;
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    xen.populate(GUEST, GUEST_RAM..GUEST_RAM + 2048);
    let frames = xen.own_ram(PAGES);
    let singles = xen.single_pages();
    let pager = Rc::new(RefCell::new(Pager::new(xen.mixed_window(10, 0, frames.clone()))));
    xen.refuse_all(crate::xen::fake::Call::Populate, 0, crate::xen::hypercall::Errno::ENOMEM);
    let mut slots = PinnedSlots::new();
    pager.borrow_mut().pin(GUEST, &core::iter::once(GuestFrame(GUEST_RAM)), &mut slots).unwrap();
    let census = Census::take(&frames.borrow(), pager.borrow().window(), &singles.borrow(), 0);
    assert!(census.adds_up(), "{census}");
}

/// A volume leaves the devices that are there what they need to go on.
#[test]
fn a_volume_does_not_starve_running_devices() {
    use crate::mm::pinned::ForeignMemory;
    use drivers::guest::{GuestAddress, GuestMemory, GuestRegion};
    let bed = bed();
    bed.pager.borrow_mut().device_left(GUEST);
    let memory = ForeignMemory::new(bed.pager.clone(), GUEST);
    let page = |page: u64, pages: u32| GuestRegion {
        address: GuestAddress((GUEST_RAM + page) * 4096),
        length: pages * 4096,
    };
    let _rings = memory.pin(&[page(0, 3)]).unwrap();
    let volume = bed.ram.take(PAGES - 16);
    bed.ram.tend(&mut FakeHeap { free: usize::MAX, end: 0, runs: vec![] });
    assert!(
        volume.is_none() || memory.pin(&[page(10, 2)]).is_ok(),
        "share is {}, free {}",
        bed.pager.borrow().share(GUEST),
        bed.free()
    );
}
