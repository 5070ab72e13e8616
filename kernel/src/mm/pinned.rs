//! Guest memory as device models see it: regions of a guest, pinned through the [`Pager`].
//!
//! Each device may pin an equal part of its guest's fair share of the slots, so that none can keep the others from theirs,
//! whatever its requests look like and however long a disk takes to answer them.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::ops::{Deref, Range};

#[cfg(target_os = "none")]
use drivers::guest::GuestAddress;
use drivers::guest::{GuestMemory, GuestRegion, MemoryError};

use super::address::GuestFrame;
use super::foreign::{Pager, PinnedSlots};
use super::pieces::Pieces;
use crate::limits::{IDLE_LOOKS_MAX, PAGE_BYTES, PAGES_PER_PIN};
use crate::xen::DomainId;

/// The memory of one guest, reached by foreign mapping, with one share of the slots.
pub struct ForeignMemory(Rc<Sharer>);

/// One of those who share the slots.
struct Sharer {
    pager: Rc<RefCell<Pager>>,
    domain: DomainId,
    /// Pages that it has pinned; one that is pinned twice counts twice.
    pinned: Cell<usize>,
    /// Looks in a row, before all is pinned, that found no page missing, and how many were ever missing at the last of them.
    idle_looks: Cell<(u32, u64)>,
    /// For what is read without a pin; none when there is no memory for its page tables.
    #[cfg(target_os = "none")]
    view: Option<super::view::View<crate::arch::view_mmu::Hardware>>,
}

impl Drop for Sharer {
    fn drop(&mut self) {
        self.pager.borrow_mut().device_left(self.domain);
    }
}

/// Pinned regions of a guest, unpinned when dropped.
pub struct ForeignPinned {
    sharer: Rc<Sharer>,
    slots: PinnedSlots,
    pieces: Pieces,
}

impl ForeignMemory {
    /// The memory of `domain`.
    #[must_use]
    pub fn new(pager: Rc<RefCell<Pager>>, domain: DomainId) -> Self {
        pager.borrow_mut().device_came(domain);
        Self(Rc::new(Sharer {
            pager,
            domain,
            pinned: Cell::new(0),
            idle_looks: Cell::default(),
            #[cfg(target_os = "none")]
            view: view_of(domain),
        }))
    }
}

#[cfg(target_os = "none")]
fn view_of(domain: DomainId) -> Option<super::view::View<crate::arch::view_mmu::Hardware>> {
    use super::view::{Access, View, running};
    View::new(&running()?, domain, Access::ReadOnly, crate::limits::VIEW_FAULT_AROUND).ok()
}

/// The frames of regions, in order. A region that wraps around, or is empty, has none.
#[derive(Clone)]
struct Frames<'a> {
    regions: core::slice::Iter<'a, GuestRegion>,
    /// What is left of the region under way.
    frames: Range<u64>,
}

impl<'a> Frames<'a> {
    fn new(regions: &'a [GuestRegion]) -> Self {
        Self { regions: regions.iter(), frames: 0..0 }
    }
}

impl Iterator for Frames<'_> {
    type Item = GuestFrame;

    #[inline]
    fn next(&mut self) -> Option<GuestFrame> {
        loop {
            if let Some(frame) = self.frames.next() {
                return Some(GuestFrame(frame));
            }
            self.frames = frames_of(self.regions.next()?).unwrap_or(0..0);
        }
    }
}

/// First frame and the one after the last of a region; none when it wraps around.
fn frames_of(region: &GuestRegion) -> Option<Range<u64>> {
    let first = region.address.0 / PAGE_BYTES as u64;
    if region.length == 0 {
        return Some(first..first);
    }
    let end = region.address.0.checked_add(u64::from(region.length))?;
    Some(first..end.div_ceil(PAGE_BYTES as u64))
}

/// Number of pages of `regions`, which must not be more than one pin may hold; nor may their bytes be too many to number.
fn measure(regions: &[GuestRegion]) -> Result<usize, MemoryError> {
    let (mut pages, mut length) = (0, 0_u32);
    for region in regions {
        let frames = frames_of(region).ok_or(MemoryError::NotMapped(region.address.0))?;
        pages += frames.end - frames.start;
        length = length.checked_add(region.length).ok_or(MemoryError::OutOfRange)?;
    }
    if pages > PAGES_PER_PIN as u64 {
        return Err(MemoryError::Exhausted);
    }
    Ok(pages as usize)
}

impl GuestMemory for ForeignMemory {
    type Pinned = ForeignPinned;

    fn pin(&self, regions: &[GuestRegion]) -> Result<ForeignPinned, MemoryError> {
        let pages = measure(regions)?;
        let sharer = &self.0;
        let mut pager = sharer.pager.borrow_mut();
        if sharer.pinned.get() + pages > pager.share(sharer.domain) {
            return Err(MemoryError::Exhausted);
        }
        let mut slots = PinnedSlots::new();
        super::reserve(&mut slots, pages)?;
        let mut pieces = Pieces::with_room_for(pages)?;
        pager.pin(sharer.domain, &Frames::new(regions), &mut slots)?;
        let mut places = slots.iter();
        for region in regions {
            let mut offset = region.address.0 as usize % PAGE_BYTES;
            let mut left = region.length;
            while left > 0 {
                let Some(slot) = places.next() else { break };
                let bytes = left.min((PAGE_BYTES - offset) as u32);
                // SAFETY: the slot stays mapped while we hold its pin, which is as long as the pieces live; foreign RAM is
                // mapped writable.
                unsafe { pieces.push(pager.address(*slot) + offset, bytes) };
                left -= bytes;
                offset = 0;
            }
        }
        sharer.pinned.update(|pinned| pinned + slots.len());
        Ok(ForeignPinned { sharer: sharer.clone(), slots, pieces })
    }

    /// By the view, on the machine: for what is read once that costs less than to pin it.
    #[cfg(target_os = "none")]
    fn read(&self, address: GuestAddress, out: &mut [u8]) -> Result<(), MemoryError> {
        match &self.0.view {
            Some(view) => view.read(address, out),
            None => self.read_by_pin(address, out),
        }
    }

    /// Not where pages have not been missing for a while: to look each of them up once more costs a tenth of a small request.
    fn prefetch(&self, regions: &[GuestRegion]) {
        let mut pager = self.0.pager.borrow_mut();
        let misses = pager.counters().misses;
        let looks = match self.0.idle_looks.get() {
            (looks, seen) if seen == misses => looks.saturating_add(1),
            _ => 0,
        };
        self.0.idle_looks.set((looks, misses));
        if looks <= IDLE_LOOKS_MAX {
            pager.prefetch(self.0.domain, Frames::new(regions));
        }
    }
}

impl Deref for ForeignPinned {
    type Target = Pieces;

    fn deref(&self) -> &Pieces {
        &self.pieces
    }
}

impl Drop for ForeignPinned {
    fn drop(&mut self) {
        let mut pager = self.sharer.pager.borrow_mut();
        self.slots.iter().for_each(|slot| pager.unpin(*slot));
        self.sharer.pinned.update(|pinned| pinned - self.slots.len());
    }
}

#[cfg(test)]
#[path = "pinned_tests.rs"]
mod tests;
