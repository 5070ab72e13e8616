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
//! RAM is spent on it. Its first part serves single pages ([`SinglePage`]), the rest is the pager's window
//! ([`Window`]). Second-stage tables never come back to Xen's pool, so both are dense and reused.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::num::NonZeroU64;
use core::ops::Range;

use super::address::{Gfn, GuestFrame};
use crate::limits::{PAGE_BYTES, SINGLE_PAGES};
use crate::xen::DomainId;
use crate::xen::dm::ServerId;
use crate::xen::grant::{self, GrantError, GrantTable};
use crate::xen::hypercall::{Errno, HypercallError};
use crate::xen::memory;

/// Second-stage tables cover 2 MiB; so does the alignment of the region.
pub const REGION_ALIGNMENT: usize = 2 << 20;

/// Frame numbers for single pages: a set of those in use.
pub struct SinglePages {
    first: Gfn,
    used: [u64; SINGLE_PAGES / 64],
}

/// A page of the hypervisor's or of a guest's ioreq server at a frame number of ours; unmapped when dropped.
pub struct SinglePage {
    owner: Rc<RefCell<SinglePages>>,
    index: usize,
}

/// A granted page at a frame number of ours; unmapped when dropped.
pub struct GrantMapping {
    owner: Rc<RefCell<SinglePages>>,
    index: usize,
    handle: u32,
    bus_address: u64,
}

impl SinglePages {
    /// Manages [`SINGLE_PAGES`] holes from `first` on.
    #[must_use]
    pub fn new(first: Gfn) -> Self {
        Self { first, used: [0; SINGLE_PAGES / 64] }
    }

    /// Maps Xen's shared info page.
    ///
    /// # Errors
    /// Xen's answer.
    pub fn map_shared_info(owner: &Rc<RefCell<Self>>) -> Result<SinglePage, HypercallError> {
        Self::map(owner, memory::map_shared_info)
    }

    /// Maps the page with the per-vCPU slots of an ioreq server.
    ///
    /// # Errors
    /// Xen's answer; ENOMEM when all frame numbers for single pages are taken.
    pub fn map_ioreq(
        owner: &Rc<RefCell<Self>>,
        domain: DomainId,
        server: ServerId,
    ) -> Result<SinglePage, HypercallError> {
        Self::map(owner, |gfn| memory::map_ioreq_page(domain, server, gfn))
    }

    /// Maps the first page of our grant table.
    ///
    /// # Errors
    /// Xen's answer.
    pub fn map_grant_table(owner: &Rc<RefCell<Self>>) -> Result<GrantTable, HypercallError> {
        let page = Self::map(owner, memory::map_grant_table)?;
        // SAFETY: mapped just now.
        Ok(unsafe { GrantTable::new(page) })
    }

    /// Maps the page that `domain` granted us as `reference`, for reading.
    ///
    /// # Errors
    /// Xen's answer; ENOMEM when all frame numbers for single pages are taken.
    pub fn map_grant(
        owner: &Rc<RefCell<Self>>,
        domain: DomainId,
        reference: u32,
    ) -> Result<GrantMapping, GrantError> {
        let (index, gfn) = owner.borrow().hole()?;
        let grant::Mapped { handle, bus_address } = grant::map_read_only(domain, reference, gfn)?;
        owner.borrow_mut().toggle(index);
        Ok(GrantMapping { owner: owner.clone(), index, handle, bus_address })
    }

    fn map(
        owner: &Rc<RefCell<Self>>,
        map: impl FnOnce(u64) -> Result<(), HypercallError>,
    ) -> Result<SinglePage, HypercallError> {
        let (index, gfn) = owner.borrow().hole()?;
        map(gfn.0)?;
        owner.borrow_mut().toggle(index);
        Ok(SinglePage { owner: owner.clone(), index })
    }

    fn hole(&self) -> Result<(usize, Gfn), HypercallError> {
        let full = HypercallError { operation: "find a frame number for a page", errno: Errno::ENOMEM };
        let index = (0..SINGLE_PAGES).find(|index| !self.is_used(*index)).ok_or(full)?;
        Ok((index, self.gfn(index)))
    }

    fn gfn(&self, index: usize) -> Gfn {
        Gfn(self.first.0 + index as u64)
    }

    fn is_used(&self, index: usize) -> bool {
        self.used.get(index / 64).is_none_or(|word| word >> (index % 64) & 1 != 0)
    }

    fn toggle(&mut self, index: usize) {
        if let Some(word) = self.used.get_mut(index / 64) {
            *word ^= 1 << (index % 64);
        }
    }

    /// Pages mapped now.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.used.iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl SinglePage {
    /// Address of its first byte.
    #[must_use]
    pub fn address(&self) -> usize {
        self.owner.borrow().gfn(self.index).address()
    }
}

impl Drop for SinglePage {
    fn drop(&mut self) {
        let mut owner = self.owner.borrow_mut();
        match memory::remove(owner.gfn(self.index).0) {
            Ok(()) => owner.toggle(self.index),
            // The frame number stays marked as used: nothing is ever mapped over a page that is still there.
            Err(error) => log::error!("physmap: a frame number is lost: {error}"),
        }
    }
}

impl GrantMapping {
    /// Address of the page in the machine.
    #[must_use]
    pub fn bus_address(&self) -> u64 {
        self.bus_address
    }
}

impl Drop for GrantMapping {
    fn drop(&mut self) {
        let mut owner = self.owner.borrow_mut();
        match grant::unmap(owner.gfn(self.index), self.handle) {
            Ok(()) => owner.toggle(self.index),
            // As for a single page.
            Err(error) => log::error!("physmap: a frame number is lost: {error}"),
        }
    }
}

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
