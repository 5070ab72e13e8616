//! Who has our RAM when it is short: heap and volumes before the window.
//!
//! The window may be made of RAM that nobody needs ([`super::balloon`]). Here is where it has to give some back: when
//! somebody wants frames that it has, when few are free at all, and when the heap has to grow into them.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::ops::Range;

use super::address::Gfn;
use super::foreign::Pager;
use super::frames::{FrameAllocator, FrameRun};
use crate::limits::{FRAMES_HIGH, FRAMES_LOW, HEAP_LOW_BYTES, HEAP_STEP_BYTES, PAGE_BYTES};

/// The heap, as far as it grows.
pub trait Growing {
    /// Bytes of it that are free.
    fn free_bytes(&self) -> usize;
    /// Address of the first byte behind it.
    fn end(&self) -> usize;
    /// Adds the frames behind it.
    fn grow(&mut self, run: FrameRun);
}

/// Our RAM.
#[derive(Clone)]
pub struct Ram {
    frames: Rc<RefCell<FrameAllocator>>,
    pager: Rc<RefCell<Pager>>,
}

impl Ram {
    /// The RAM that `frames` and the window of `pager` share.
    #[must_use]
    pub fn new(frames: Rc<RefCell<FrameAllocator>>, pager: Rc<RefCell<Pager>>) -> Self {
        Self { frames, pager }
    }

    /// Which of it is free.
    #[must_use]
    pub fn frames(&self) -> &Rc<RefCell<FrameAllocator>> {
        &self.frames
    }

    /// Takes `count` frames next to each other, or none. The window gives way.
    #[must_use]
    pub fn take(&self, count: usize) -> Option<FrameRun> {
        FrameAllocator::take(&self.frames, count).or_else(|| {
            let range = self.frames.borrow().find_with_lent(count)?;
            self.pager.borrow_mut().give_range_back(&range);
            FrameAllocator::take(&self.frames, count)
        })
    }

    /// Takes the frames that hold the byte range `range`, if all of them are RAM and nobody needs them. The window gives
    /// way.
    #[must_use]
    pub fn take_at(&self, range: &Range<usize>) -> Option<FrameRun> {
        FrameAllocator::take_at(&self.frames, range).or_else(|| {
            let frames = Gfn::containing(range.start)..Gfn::containing(range.end + PAGE_BYTES - 1);
            self.pager.borrow_mut().give_range_back(&frames);
            FrameAllocator::take_at(&self.frames, range)
        })
    }

    /// Keeps some RAM free, and the heap large enough. Costs next to nothing when there is nothing to do.
    pub fn tend(&self, heap: &mut impl Growing) {
        let mut pager = self.pager.borrow_mut();
        pager.drop_stale();
        let free = self.frames.borrow().free();
        if free < FRAMES_LOW && pager.window().ballooned() > 0 {
            pager.give_back(FRAMES_HIGH - free);
        }
        drop(pager);
        if heap.free_bytes() < HEAP_LOW_BYTES {
            let end = heap.end();
            if let Some(run) = self.take_at(&(end..end + HEAP_STEP_BYTES)) {
                heap.grow(run);
            }
        }
    }
}

#[cfg(test)]
#[path = "ram_tests.rs"]
mod tests;
