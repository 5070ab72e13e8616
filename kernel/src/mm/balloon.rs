//! The balloon: RAM of ours given back to Xen, so that its frame numbers are holes, and got again.
//!
//! Both ways lead past zeroes. Xen scrubs neither what a living domain gives back, which may hold guests' data and is
//! somebody else's memory next, nor what it gives to us.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use smallvec::SmallVec;

use super::frames::{FrameAllocator, LentFrame};
use super::physmap::Hole;
use crate::arch::copy;
use crate::arch::whole::Whole;
use crate::limits::{FRAMES_HIGH, PAGE_BYTES};
use crate::xen::memory;

/// Pages given back by one hypercall.
pub const BALLOON_BATCH: usize = 16;

/// Holes that were made together.
pub type Holes = SmallVec<[Hole; BALLOON_BATCH]>;

/// Makes holes of free frames, and frames of holes.
pub struct Balloon {
    frames: Rc<RefCell<FrameAllocator>>,
    /// Xen took a frame not: it has no page to break up the block of memory that the frame lies in.
    stopped: bool,
}

impl Balloon {
    /// One that takes what `frames` can spare.
    #[must_use]
    pub fn new(frames: Rc<RefCell<FrameAllocator>>) -> Self {
        Self { frames, stopped: false }
    }

    /// Makes RAM again of what an earlier life of this kernel lent, whatever is there now. What Xen has no RAM for stays lent.
    pub fn recover(frames: &Rc<RefCell<FrameAllocator>>, lent: Vec<LentFrame>) {
        let mut balloon = Self::new(frames.clone());
        let mut lost = 0;
        for frame in lent {
            // A guest's page, or nothing.
            let _ = memory::remove(frame.gfn().0);
            lost += usize::from(balloon.deflate(Hole::of_ram(&frame)).is_err());
        }
        if lost > 0 {
            log::warn!("balloon: Xen has no RAM for {lost} pages that it had taken");
        }
    }

    /// Holes that can be made now. Free frames below [`FRAMES_HIGH`] are not spared.
    #[must_use]
    pub fn available(&self) -> usize {
        if self.stopped { 0 } else { self.frames.borrow().free().saturating_sub(FRAMES_HIGH) }
    }

    /// Ram -> Hole: gives up to `most` frames back to Xen, and no more than [`BALLOON_BATCH`], zeroed, by one hypercall.
    #[must_use]
    pub fn inflate(&mut self, most: usize) -> Holes {
        // What is noted as lent is none of our RAM any more when somebody reads the note.
        let _whole = Whole::begin();
        let count = self.available().min(BALLOON_BATCH).min(most);
        let mut lent: SmallVec<[LentFrame; BALLOON_BATCH]> =
            (0..count).map_while(|_| self.frames.borrow_mut().lend()).collect();
        let numbers: SmallVec<[u64; BALLOON_BATCH]> = lent.iter().map(|frame| frame.gfn().0).collect();
        if numbers.is_empty() {
            return Holes::new();
        }
        lent.iter().for_each(zero);
        let done = memory::decrease_reservation(&numbers).unwrap_or_else(|error| {
            log::debug!("balloon: {error}");
            0
        });
        if done < lent.len() {
            self.stopped = true;
            log::info!("balloon: Xen takes no more of our RAM");
            lent.drain(done..).for_each(|frame| self.frames.borrow_mut().take_back(frame));
        }
        lent.into_iter().map(|frame| Hole::of_ram(&frame)).collect()
    }

    /// Hole -> Ram: gets RAM for a hole that was made here, zeroed.
    ///
    /// # Errors
    /// Xen has none; the hole is still one.
    pub fn deflate(&mut self, hole: Hole) -> Result<(), Hole> {
        let _whole = Whole::begin();
        // The tables for this frame number are there, so Xen does not lose what it allocates.
        if !matches!(memory::populate(&[hole.gfn().0]), Ok(1)) {
            return Err(hole);
        }
        let frame = LentFrame::again(hole.gfn());
        zero(&frame);
        self.frames.borrow_mut().take_back(frame);
        self.stopped = false;
        Ok(())
    }
}

fn zero(frame: &LentFrame) {
    // SAFETY: RAM of ours, mapped at its frame number, and nobody's: it is lent to the balloon.
    unsafe { copy::zero(core::ptr::with_exposed_provenance_mut(frame.gfn().address()), PAGE_BYTES) }
}

#[cfg(test)]
#[path = "balloon_tests.rs"]
mod tests;
