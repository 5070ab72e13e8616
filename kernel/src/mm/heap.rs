//! The heap: `linked_list_allocator` behind Rust's global allocator. It grows into the RAM behind it.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::NonNull;

use linked_list_allocator::Heap;

use super::frames::FrameRun;
use super::ram::Growing;
use crate::arch::single_core::SingleCore;

struct KernelHeap(SingleCore<Heap>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(SingleCore::new(Heap::empty()));

// SAFETY: blocks come from `Heap`, which never hands out the same memory twice; a failure is a null pointer.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .try_borrow()
            .and_then(|mut heap| heap.allocate_first_fit(layout).ok())
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let (Some(mut heap), Some(block)) = (self.0.try_borrow(), NonNull::new(block)) {
            // SAFETY: GlobalAlloc's contract: the block came from `alloc` with this layout.
            unsafe { heap.deallocate(block, layout) }
        }
    }
}

/// Gives the heap its memory. Before this, every allocation fails.
///
/// # Safety
/// `range` must be RAM that nothing else uses, and this must be called once.
pub unsafe fn init(range: &Range<usize>) {
    if let Some(mut heap) = HEAP.0.try_borrow() {
        // SAFETY: the caller's contract.
        unsafe { heap.init(core::ptr::with_exposed_provenance_mut(range.start), range.len()) }
    }
}

/// Bytes free, in pieces of any size.
#[must_use]
pub fn free_bytes() -> usize {
    HEAP.0.try_borrow().map_or(0, |heap| heap.free())
}

/// The heap, as far as it grows.
pub struct Growth;

impl Growing for Growth {
    fn free_bytes(&self) -> usize {
        free_bytes()
    }

    fn end(&self) -> usize {
        HEAP.0.try_borrow().map_or(0, |heap| heap.top().addr())
    }

    fn grow(&mut self, run: FrameRun) {
        if let Some(mut heap) = HEAP.0.try_borrow()
            && run.address() == heap.top().addr()
        {
            let bytes = run.leak().len();
            // SAFETY: the frames lie right behind the heap, are RAM, mapped, and nobody else's from now on.
            unsafe { heap.extend(bytes) }
        }
    }
}
