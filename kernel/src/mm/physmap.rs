//! The single owner of our guest-physical frame numbers: which is RAM, which a hole, which holds whose page.
//!
//! Xen lets a domain map anything over anything, and leaks what was there (a RAM page, the reference on a foreign
//! page mapped over itself). So the moves are made here, in [`super::balloon`] and in [`super::singles`], and only legal
//! ones can be written: a hole is a value that is used up by the move out of it.
//!
//! | from | to | by |
//! |---|---|---|
//! | Ram, zeroed first | Hole | [`Balloon::inflate`] |
//! | Hole | Ram, zeroed | [`Balloon::deflate`] |
//! | Hole | Foreign | [`Window::begin`], [`Window::commit`] |
//! | Foreign | another Foreign, in place | likewise; never the same page again |
//! | Foreign | Hole | [`Window::unmap`] |
//! | Hole | Grant, ioreq page | a value of [`super::singles`] is made |
//! | Grant, ioreq page | Hole | that very value is dropped |
//!
//! Holes come from the extended regions that Xen names in the device tree ([`Unpopulated`]), on which nothing of our RAM is
//! spent, or out of RAM ([`Balloon`]). Second-stage tables never come back to Xen's pool, so what is used is dense and
//! used again.

use alloc::vec::Vec;
use core::num::NonZeroU64;
use core::ops::Range;

use super::address::{Gfn, GuestFrame};
use super::balloon::Balloon;
use super::frames::LentFrame;
use crate::limits::PAGE_BYTES;
use crate::restart::words::Word;
use crate::xen::DomainId;
use crate::xen::hypercall::Errno;
use crate::xen::memory;

/// Second-stage tables cover 2 MiB; so does the alignment of the region.
pub const REGION_ALIGNMENT: usize = 2 << 20;
const FRAMES_PER_TABLE: u64 = (REGION_ALIGNMENT / PAGE_BYTES) as u64;

/// A frame number of ours that holds nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Hole(Gfn);

impl Hole {
    /// Which one.
    #[must_use]
    pub fn gfn(&self) -> Gfn {
        self.0
    }

    /// What a frame leaves that was given back to Xen.
    pub(super) fn of_ram(frame: &LentFrame) -> Self {
        Self(frame.gfn())
    }
}

/// Holes of a region that nobody has populated, handed out in order.
///
/// An earlier life of this kernel may have used the first ones, and left guests' pages there. These are made holes again
/// before they are handed out: whatever is there might be the very page that is to be mapped, and over itself it must not be.
pub struct Unpopulated {
    next: Gfn,
    end: Gfn,
    /// What lies before it is a hole.
    clean_until: Gfn,
    /// What lies from here on was never used.
    used_until: Gfn,
    /// How many were ever used, for the next life.
    note: Option<&'static Word>,
}

impl Unpopulated {
    /// The holes in a range of bytes, page aligned, that Xen names as unpopulated and nobody else uses.
    #[must_use]
    pub fn new(range: &Range<usize>) -> Self {
        let (next, end) = (Gfn::containing(range.start), Gfn::containing(range.end));
        Self { next, end, clean_until: next, used_until: next, note: None }
    }

    /// The same, of which as many may be in use as `note` says; it says how many are from now on.
    #[must_use]
    pub fn noted_in(mut self, note: &'static Word) -> Self {
        let used = if note.is_damaged() { u64::MAX } else { note.get().unwrap_or(0) };
        self.used_until = Gfn(self.next.0.saturating_add(used).min(self.end.0));
        self.note = Some(note);
        self
    }

    fn take(&mut self) -> Option<Hole> {
        if self.next >= self.end {
            return None;
        }
        while self.next >= self.clean_until && self.clean_until < self.used_until {
            self.clean(memory::REMOVE_BATCH);
        }
        let hole = Hole(self.next);
        self.next.0 += 1;
        if let Some(note) = self.note
            && self.next > self.used_until
        {
            // Before it holds anything.
            self.used_until = self.next;
            self.clean_until = self.next;
            note.set(note.get().unwrap_or(0) + 1);
        }
        Some(hole)
    }

    /// Makes up to `most` frames holes again that may hold what an earlier life left, by one hypercall.
    fn clean(&mut self, most: usize) {
        let count = (self.used_until.0.saturating_sub(self.clean_until.0) as usize)
            .min(most)
            .min(memory::REMOVE_BATCH);
        let mut frames = [0; memory::REMOVE_BATCH];
        let mut results = [0; memory::REMOVE_BATCH];
        for (frame, gfn) in frames.iter_mut().zip(self.clean_until.0..) {
            *frame = gfn;
        }
        // What was none is none: Xen says ENOENT then.
        if let Err(error) = memory::remove_many(frames.get(..count).unwrap_or_default(), &mut results) {
            log::error!("physmap: {error}");
        }
        self.clean_until.0 += count as u64;
    }

    /// Xen has no memory for the table that covers `gfn`: neither this nor what lies behind it can be used.
    fn end_before(&mut self, gfn: Gfn) -> bool {
        let end = Gfn(gfn.0 / FRAMES_PER_TABLE * FRAMES_PER_TABLE);
        let shrinks = end < self.end;
        self.end = self.end.min(end);
        shrinks
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

/// Index of a frame number in the [`Window`].
pub type SlotIndex = usize;

/// Foreign pages mapped by one hypercall.
pub const MAP_BATCH: usize = 256;

/// No frame number.
const NOWHERE: i32 = i32::MIN;

/// Xen has no RAM for a slot that was to be RAM again, or it is none that could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRam;

/// Slots: frame numbers that hold pages of guests, each a hole or a foreign page.
pub struct Window {
    /// Frame number of each slot, less the region's first: half the memory that whole ones take.
    gfns: Vec<i32>,
    /// What it holds; from [`Self::begin`] to [`Self::commit`], what it is to hold.
    pages: Vec<Option<ForeignPage>>,
    mapped: usize,
    unpopulated: Unpopulated,
    /// Frame numbers of the region, from which on there are other slots than this source's.
    region: Range<Gfn>,
    balloon: Balloon,
    ballooned: usize,
    /// Slots that have a frame number.
    placed: usize,
    /// Xen had no RAM for us, and it was said.
    is_short: bool,
    /// No slot before this one is without a frame number.
    lowest_nowhere: SlotIndex,
    batch: Batch,
}

/// Moves begun.
#[derive(Default)]
struct Batch {
    slots: Vec<u32>,
    /// What they held before.
    before: Vec<Option<ForeignPage>>,
    guest_frames: Vec<u64>,
    own_frames: Vec<u64>,
    errors: Vec<i32>,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self::default();
        batch.slots.reserve_exact(MAP_BATCH);
        batch.before.reserve_exact(MAP_BATCH);
        batch.guest_frames.reserve_exact(MAP_BATCH);
        batch.own_frames.reserve_exact(MAP_BATCH);
        batch.errors.reserve_exact(MAP_BATCH);
        batch
    }
}

/// The frame number that [`Window::gfns`] has as `offset`.
fn absolute(first: Gfn, offset: i32) -> Option<Gfn> {
    (offset != NOWHERE).then(|| Gfn(first.0.wrapping_add_signed(i64::from(offset))))
}

impl Window {
    /// A window of at most `capacity` slots. They come from the region first, then out of our RAM.
    #[must_use]
    pub fn new(capacity: usize, unpopulated: Unpopulated, balloon: Balloon) -> Self {
        Self {
            gfns: alloc::vec![NOWHERE; capacity],
            pages: alloc::vec![None; capacity],
            mapped: 0,
            region: unpopulated.next..unpopulated.end,
            unpopulated,
            balloon,
            ballooned: 0,
            placed: 0,
            is_short: false,
            lowest_nowhere: 0,
            batch: Batch::new(),
        }
    }

    /// Slots that there can be at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.gfns.len()
    }

    /// Slots that there are, or can be made now.
    #[must_use]
    #[inline]
    pub fn usable(&self) -> usize {
        let of_region = self.of_region();
        if of_region >= self.capacity() {
            return self.capacity();
        }
        (of_region + self.ballooned + self.balloon.available()).min(self.capacity())
    }

    /// Of these, how many are out of our RAM, or can be made of it.
    #[must_use]
    pub fn of_ram(&self) -> usize {
        self.usable().saturating_sub(self.of_region())
    }

    /// Slots that the region has memory for tables for.
    fn of_region(&self) -> usize {
        self.unpopulated.end.0.saturating_sub(self.region.start.0) as usize
    }

    /// Slots that hold a page.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.mapped
    }

    /// Slots out of our RAM.
    #[must_use]
    pub fn ballooned(&self) -> usize {
        self.ballooned
    }

    /// Slots out of our RAM that hold nothing.
    #[must_use]
    pub fn ballooned_holes(&self) -> usize {
        (0..self.capacity()).filter(|slot| self.is_ballooned(*slot) && self.page(*slot).is_none()).count()
    }

    /// Frame numbers of the region that hold nothing: slots, and what is not made a slot of yet, or cannot.
    #[must_use]
    pub fn region_holes(&self) -> usize {
        let in_region = |slot: &SlotIndex| self.gfn(*slot).is_some_and(|gfn| self.region.contains(&gfn));
        let slots = (0..self.capacity()).filter(in_region);
        let (mut made, mut holes) = (0, 0);
        for slot in slots {
            made += 1;
            holes += usize::from(self.page(slot).is_none());
        }
        self.region_frames() - made + holes
    }

    /// Frame numbers of the region.
    #[must_use]
    pub fn region_frames(&self) -> usize {
        (self.region.end.0 - self.region.start.0) as usize
    }

    /// What a slot holds, or is to hold.
    #[must_use]
    pub fn page(&self, slot: SlotIndex) -> Option<ForeignPage> {
        self.pages.get(slot).copied().flatten()
    }

    /// Its frame number, if it has one.
    #[must_use]
    pub fn gfn(&self, slot: SlotIndex) -> Option<Gfn> {
        absolute(self.region.start, *self.gfns.get(slot)?)
    }

    /// Address of the first byte of a slot.
    #[must_use]
    pub fn address(&self, slot: SlotIndex) -> usize {
        self.gfn(slot).map_or(0, Gfn::address)
    }

    /// Makes up to `most` frames of the region holes again that an earlier life of this kernel left in use. Returns whether there
    /// are more of them.
    pub fn clean(&mut self, most: usize) -> bool {
        let region = &mut self.unpopulated;
        if region.clean_until < region.used_until {
            region.clean(most);
        }
        region.clean_until < region.used_until
    }

    /// Whether a slot is out of our RAM.
    #[must_use]
    pub fn is_ballooned(&self, slot: SlotIndex) -> bool {
        self.gfn(slot).is_some_and(|gfn| !self.region.contains(&gfn))
    }

    /// Makes new slots, each of them a hole, and calls `made` for each. Returns whether there are any.
    pub fn grow(&mut self, mut made: impl FnMut(SlotIndex)) -> bool {
        let Some(slot) = self.nowhere() else { return false };
        if let Some(hole) = self.unpopulated.take() {
            self.place(slot, &hole);
            made(slot);
            return true;
        }
        let holes = self.balloon.inflate(self.capacity() - self.placed);
        let any = !holes.is_empty();
        for hole in holes {
            // There are as many, or there would be fewer holes.
            let Some(slot) = self.nowhere() else { break };
            self.place(slot, &hole);
            self.ballooned += 1;
            made(slot);
        }
        any
    }

    /// The first slot without a frame number.
    fn nowhere(&mut self) -> Option<SlotIndex> {
        let from = self.lowest_nowhere;
        let found = self.gfns.get(from..)?.iter().position(|gfn| *gfn == NOWHERE);
        self.lowest_nowhere = found.map_or(self.gfns.len(), |place| from + place);
        found.map(|place| from + place)
    }

    fn place(&mut self, slot: SlotIndex, hole: &Hole) {
        if let Some(offset) = self.gfns.get_mut(slot) {
            *offset = hole.gfn().0.wrapping_sub(self.region.start.0) as i32;
            self.placed += 1;
        }
    }

    /// Takes a slot's frame number away, which is a hole.
    fn displace(&mut self, slot: SlotIndex) -> Option<Hole> {
        let hole = self.gfn(slot).filter(|_| self.page(slot).is_none()).map(Hole)?;
        *self.gfns.get_mut(slot)? = NOWHERE;
        self.placed -= 1;
        self.lowest_nowhere = self.lowest_nowhere.min(slot);
        Some(hole)
    }

    /// Makes RAM again of a slot that is a hole and out of our RAM.
    ///
    /// # Errors
    /// [`NoRam`]: the slot is as it was.
    pub fn give_back(&mut self, slot: SlotIndex) -> Result<(), NoRam> {
        let hole = Some(slot).filter(|slot| self.is_ballooned(*slot)).and_then(|slot| self.displace(slot));
        let given = self.balloon.deflate(hole.ok_or(NoRam)?);
        let was_short = core::mem::replace(&mut self.is_short, given.is_err());
        given.map(|()| self.ballooned -= 1).map_err(|hole| {
            self.place(slot, &hole);
            if !was_short {
                log::warn!("balloon: Xen has no RAM for us now: our own memory stays smaller");
            }
            NoRam
        })
    }

    /// Whether no further move can be begun before [`Self::commit`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.begun() >= MAP_BATCH
    }

    /// Moves begun and not made yet.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.batch.slots.len()
    }

    /// Begins a move: `slot` is to hold `page`, over a hole or over another page. It does once [`Self::commit`] says so.
    /// Returns whether it was begun; if not, the slot is as it was.
    #[must_use]
    pub fn begin(&mut self, slot: SlotIndex, page: ForeignPage) -> bool {
        if self.page(slot) == Some(page) {
            // Over itself: a reference on the page would be lost. (It was forgotten while pinned, so what is in the slot is
            // the page that the guest had there before.)
            self.unmap(&[slot]);
        }
        let (Some(gfn), false) = (self.gfn(slot), self.is_full()) else { return false };
        let Some(held) = self.pages.get_mut(slot).filter(|held| **held != Some(page)) else { return false };
        self.batch.slots.push(slot as u32);
        self.batch.before.push(held.replace(page));
        self.batch.guest_frames.push(page.frame().0);
        self.batch.own_frames.push(gfn.0);
        true
    }

    /// Makes the moves that were begun, all of them with pages of `domain`, by one hypercall. `outcome(slot, page, result)` is
    /// called for each; a slot whose move failed holds what it held before.
    ///
    /// Returns whether the window has become smaller, as Xen has no memory left for tables of ours.
    pub fn commit(
        &mut self,
        domain: DomainId,
        mut outcome: impl FnMut(SlotIndex, ForeignPage, Result<(), Errno>),
    ) -> bool {
        let Batch { slots, before, guest_frames, own_frames, errors } = &mut self.batch;
        errors.clear();
        errors.resize(slots.len(), 0);
        if let Err(error) = memory::map_foreign(domain, guest_frames, own_frames, errors) {
            log::debug!("physmap: {domain}: {error}");
            errors.fill(-error.errno.0);
        }
        guest_frames.clear();
        own_frames.clear();
        let mut shrunk = false;
        for ((slot, before), error) in slots.drain(..).zip(before.drain(..)).zip(errors.drain(..)) {
            let slot = slot as usize;
            let Some(page) = self.pages.get(slot).copied().flatten() else { continue };
            let result = if error == 0 { Ok(()) } else { Err(Errno(error.saturating_abs())) };
            if result.is_ok() {
                self.mapped += usize::from(before.is_none());
            } else if let Some(held) = self.pages.get_mut(slot) {
                *held = before;
            }
            if result == Err(Errno::ENOENT)
                && let Some(gfn) = self.gfns.get(slot).and_then(|offset| absolute(self.region.start, *offset))
            {
                shrunk |= self.region.contains(&gfn) && self.unpopulated.end_before(gfn);
            }
            outcome(slot, page, result);
        }
        shrunk
    }

    /// Gives up a slot beyond what the window has become. Returns whether it was one.
    pub fn abandon(&mut self, slot: SlotIndex) -> bool {
        let beyond =
            self.gfn(slot).is_some_and(|gfn| self.region.contains(&gfn) && gfn >= self.unpopulated.end);
        beyond && self.displace(slot).is_some()
    }

    /// Makes slots holes again, many by one hypercall. A slot that Xen refuses to unmap keeps its page.
    pub fn unmap(&mut self, slots: &[SlotIndex]) {
        for batch in slots.chunks(memory::REMOVE_BATCH) {
            let mut frames = [0; memory::REMOVE_BATCH];
            let mut results = [0; memory::REMOVE_BATCH];
            for (frame, slot) in frames.iter_mut().zip(batch) {
                *frame = self.gfn(*slot).map_or(u64::MAX, |gfn| gfn.0);
            }
            let frames = frames.get(..batch.len()).unwrap_or(&frames);
            if let Err(error) = memory::remove_many(frames, &mut results) {
                log::error!("physmap: {error}");
                continue;
            }
            for (slot, result) in batch.iter().zip(results) {
                let Some(held) = self.pages.get_mut(*slot) else { continue };
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

#[cfg(test)]
#[path = "physmap_exhaustive_tests.rs"]
mod exhaustive_tests;
