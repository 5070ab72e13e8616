//! Who has our RAM when it is short: heap and volumes before the window.
//!
//! The window may be made of RAM that nobody needs ([`super::balloon`]). Here is where it has to give some back: when
//! somebody wants frames that it has, when few are free at all, and when the heap has to grow into them.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::ops::Range;

use super::address::Gfn;
use super::foreign::Pager;
use super::frames::{FrameAllocator, FrameRun};
use crate::limits::{FRAMES_HIGH, FRAMES_LOW, HEAP_LOW_BYTES, HEAP_STEP_BYTES, PAGE_BYTES, TEND_AGAIN_TURNS};

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
    /// Turns until what could not be had is tried again.
    patience: Cell<u32>,
}

impl Ram {
    /// The RAM that `frames` and the window of `pager` share.
    #[must_use]
    pub fn new(frames: Rc<RefCell<FrameAllocator>>, pager: Rc<RefCell<Pager>>) -> Self {
        Self { frames, pager, patience: Cell::new(0) }
    }

    /// Which of it is free.
    #[must_use]
    pub fn frames(&self) -> &Rc<RefCell<FrameAllocator>> {
        &self.frames
    }

    /// Takes `count` frames next to each other, or none. The window gives way, as far as devices can do without.
    #[must_use]
    pub fn take(&self, count: usize) -> Option<FrameRun> {
        {
            let pager = self.pager.borrow();
            let usable = pager.usable();
            // What is left of the RAM that slots can be made of.
            let ram = self.frames.borrow().free() + pager.window().ballooned();
            let left = ram.checked_sub(count)?.saturating_sub(FRAMES_HIGH);
            let of_ram = pager.window().of_ram();
            if usable - of_ram + of_ram.min(left) < pager.least_usable().min(usable) {
                return None;
            }
        }
        FrameAllocator::take(&self.frames, count).or_else(|| {
            let pager = &self.pager;
            let range = self.frames.borrow_mut().find_with_lent(count, pager.borrow().pinned_ram())?;
            pager.borrow_mut().give_range_back(&range);
            FrameAllocator::take(&self.frames, count)
        })
    }

    /// Takes the frames that hold the byte range `range`, if all of them are RAM and nobody needs them. The window gives
    /// way.
    #[must_use]
    pub fn take_at(&self, range: &Range<usize>) -> Option<FrameRun> {
        FrameAllocator::take_at(&self.frames, range).or_else(|| {
            let frames = Gfn::containing(range.start)..Gfn::containing(range.end + PAGE_BYTES - 1);
            let mut pager = self.pager.borrow_mut();
            if !self.frames.borrow().is_free_or_lent(range)
                || pager.pinned_ram().any(|gfn| frames.contains(&gfn))
            {
                return None;
            }
            pager.give_range_back(&frames);
            drop(pager);
            FrameAllocator::take_at(&self.frames, range)
        })
    }

    /// Keeps some RAM free, and the heap large enough, and unmaps what nobody needs. Costs next to nothing when there is nothing
    /// to do. Returns whether there is more.
    pub fn tend(&self, heap: &mut impl Growing) -> bool {
        self.pager.borrow_mut().drop_stale();
        let more = self.pager.borrow_mut().clean();
        if self.patience.get() > 0 {
            self.patience.update(|turns| turns - 1);
            return more;
        }
        let free = self.frames.borrow().free();
        let mut pager = self.pager.borrow_mut();
        let given = free >= FRAMES_LOW
            || pager.window().ballooned() == 0
            || pager.give_back(FRAMES_HIGH - free).is_ok();
        drop(pager);
        let grown = heap.free_bytes() >= HEAP_LOW_BYTES || {
            let end = heap.end();
            self.take_at(&(end..end + HEAP_STEP_BYTES)).map(|run| heap.grow(run)).is_some()
        };
        if !(given && grown) {
            self.patience.set(TEND_AGAIN_TURNS);
        }
        more
    }
}

#[cfg(test)]
#[path = "ram_tests.rs"]
mod tests;
