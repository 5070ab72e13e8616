//! The single owner of our guest-physical frame numbers outside RAM: which is a hole, which holds whose page.
//!
//! Xen lets a domain map anything over anything, and leaks what was there (a RAM page, the reference on a foreign
//! page mapped over itself). So the moves are made here and nowhere else, and only legal ones can be written:
//!
//! ```text
//!   Hole ── map ──> Foreign(domain, frame) ── replace, never by itself ──> Foreign(other)
//!     ^                        │
//!     └──────── unmap ─────────┘
//!
//!   Hole ── map ──> Grant(handle) ── unmap, by that very handle ──> Hole
//! ```
//!
//! The region is one of the extended regions that Xen names in the device tree: unpopulated, so that nothing of our
//! RAM is spent on it. Its first part serves single pages ([`super::singles`]), the rest is the pager's window
//! ([`Window`]). Second-stage tables never come back to Xen's pool, so both are dense and reused.

use alloc::vec::Vec;
use core::num::NonZeroU64;
use core::ops::Range;

use super::address::{Gfn, GuestFrame};
use crate::limits::PAGE_BYTES;
use crate::xen::DomainId;
use crate::xen::hypercall::{Errno, HypercallError};
use crate::xen::memory;

/// Second-stage tables cover 2 MiB; so does the alignment of the region.
pub const REGION_ALIGNMENT: usize = 2 << 20;

/// A page of a guest, in one word: bit 63 always set, then the domain, then the frame number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignPage(NonZeroU64);

impl ForeignPage {
    const DOMAIN_SHIFT: u32 = 48;
    const PRESENT: u64 = 1 << 63;

    /// Page `frame` of `domain`; none when the frame number is beyond any guest's address space.
    #[must_use]
    pub const fn new(domain: DomainId, frame: GuestFrame) -> Option<Self> {
        if frame.0 >> Self::DOMAIN_SHIFT != 0 {
            return None;
        }
        match NonZeroU64::new(Self::PRESENT | (domain.0 as u64) << Self::DOMAIN_SHIFT | frame.0) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    /// Whose page.
    #[must_use]
    pub const fn domain(self) -> DomainId {
        DomainId((self.0.get() >> Self::DOMAIN_SHIFT) as u16 & 0x7fff)
    }

    /// Which page.
    #[must_use]
    pub const fn frame(self) -> GuestFrame {
        GuestFrame(self.0.get() & ((1 << Self::DOMAIN_SHIFT) - 1))
    }

    /// A hash of `bits` bits (Fibonacci hashing: neighbouring frames spread evenly).
    #[must_use]
    pub const fn hash(self, bits: u32) -> usize {
        (self.0.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - bits)) as usize
    }
}

/// Frame numbers that hold pages of guests, each a hole or a foreign page.
pub struct Window {
    first: Gfn,
    slots: Vec<Option<ForeignPage>>,
    mapped: usize,
    /// Work space of [`Self::map`], kept so that mapping takes no memory.
    batch: Batch,
}

#[derive(Default)]
struct Batch {
    guest_frames: Vec<u64>,
    own_frames: Vec<u64>,
    errors: Vec<i32>,
}

/// Index of a frame number in the [`Window`].
pub type SlotIndex = usize;

/// Foreign pages mapped by one hypercall.
pub const MAP_BATCH: usize = 256;

impl Window {
    /// A window of holes; `range` in bytes, page aligned.
    #[must_use]
    pub fn new(range: &Range<usize>) -> Self {
        let mut batch = Batch::default();
        batch.guest_frames.reserve_exact(MAP_BATCH);
        batch.own_frames.reserve_exact(MAP_BATCH);
        batch.errors.reserve_exact(MAP_BATCH);
        Self {
            first: Gfn::containing(range.start),
            slots: alloc::vec![None; range.len() / PAGE_BYTES],
            mapped: 0,
            batch,
        }
    }

    /// Number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no slots.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Slots that hold a page.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.mapped
    }

    /// What a slot holds.
    #[must_use]
    pub fn page(&self, slot: SlotIndex) -> Option<ForeignPage> {
        self.slots.get(slot).copied().flatten()
    }

    /// Address of the first byte of a slot.
    #[must_use]
    pub fn address(&self, slot: SlotIndex) -> usize {
        self.first.address() + slot * PAGE_BYTES
    }

    /// Maps pages of one guest into slots, over holes or over other pages: at most [`MAP_BATCH`], by one hypercall.
    ///
    /// `outcome(slot, result)` is called for each move; a slot whose move failed holds what it held before. A page
    /// that is in its slot already is left alone and succeeds: mapping it over itself would leak a reference.
    ///
    /// # Errors
    /// The hypercall as a whole was refused; no slot has changed, `outcome` was not called.
    pub fn map(
        &mut self,
        domain: DomainId,
        moves: &[(SlotIndex, ForeignPage)],
        mut outcome: impl FnMut(SlotIndex, Result<(), Errno>),
    ) -> Result<(), HypercallError> {
        self.batch.guest_frames.clear();
        self.batch.own_frames.clear();
        for (slot, page) in moves.iter().take(MAP_BATCH) {
            if self.page(*slot) != Some(*page) {
                self.batch.guest_frames.push(page.frame().0);
                self.batch.own_frames.push(self.first.0 + *slot as u64);
            }
        }
        self.batch.errors.clear();
        self.batch.errors.resize(self.batch.guest_frames.len(), 0);
        memory::map_foreign(
            domain,
            &self.batch.guest_frames,
            &self.batch.own_frames,
            &mut self.batch.errors,
        )?;

        let mut errors = self.batch.errors.iter();
        for (slot, page) in moves.iter().take(MAP_BATCH) {
            let Some(held) = self.slots.get_mut(*slot) else { continue };
            let error =
                if *held == Some(*page) { 0 } else { errors.next().copied().unwrap_or(-Errno::EINVAL.0) };
            if error == 0 {
                self.mapped += usize::from(held.is_none());
                *held = Some(*page);
                outcome(*slot, Ok(()));
            } else {
                outcome(*slot, Err(Errno(error.saturating_abs())));
            }
        }
        Ok(())
    }

    /// Makes slots holes again, many by one hypercall. A slot that Xen refuses to unmap keeps its page.
    pub fn unmap(&mut self, slots: &[SlotIndex]) {
        for batch in slots.chunks(memory::REMOVE_BATCH) {
            let mut frames = [0; memory::REMOVE_BATCH];
            let mut results = [0; memory::REMOVE_BATCH];
            for (frame, slot) in frames.iter_mut().zip(batch) {
                *frame = self.first.0 + *slot as u64;
            }
            let frames = frames.get(..batch.len()).unwrap_or(&frames);
            if let Err(error) = memory::remove_many(frames, &mut results) {
                log::error!("physmap: {error}");
                continue;
            }
            for (slot, result) in batch.iter().zip(results) {
                let Some(held) = self.slots.get_mut(*slot) else { continue };
                if result != 0 {
                    log::error!("physmap: slot {slot} stays mapped: {}", Errno(-(result as i32)));
                } else if held.take().is_some() {
                    self.mapped -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "physmap_tests.rs"]
mod tests;
