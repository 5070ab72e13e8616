//! Guest memory as device models see it: regions of a guest, pinned through the [`Pager`].
//!
//! Each device may pin an equal share of the slots, so that none can keep the others from theirs, whatever its requests
//! look like and however long a disk takes to answer them.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::ptr;

#[cfg(target_os = "none")]
use drivers::guest::GuestAddress;
use drivers::guest::{GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use smallvec::SmallVec;

use super::address::GuestFrame;
use super::foreign::{Pager, PinnedSlots};
use crate::arch::copy;
use crate::limits::{PAGE_BYTES, PAGES_PER_PIN};
use crate::xen::DomainId;

/// The memory of one guest, reached by foreign mapping, with one share of the slots.
pub struct ForeignMemory(Rc<Sharer>);

/// One of those who share the slots.
struct Sharer {
    pager: Rc<RefCell<Pager>>,
    domain: DomainId,
    /// Pages that it has pinned; one that is pinned twice counts twice.
    pinned: Cell<usize>,
    /// For what is read without a pin; none when there is no memory for its page tables.
    #[cfg(target_os = "none")]
    view: Option<super::view::View<crate::arch::view_mmu::Hardware>>,
}

impl Drop for Sharer {
    fn drop(&mut self) {
        self.pager.borrow_mut().sharer_left();
    }
}

/// Bytes of one page within a pinned range.
#[derive(Clone, Copy)]
struct Piece {
    /// Offset of the first byte in the whole range.
    start: u32,
    /// Where it is mapped: in the slot of its page.
    address: usize,
}

/// Pinned regions of a guest, unpinned when dropped.
pub struct ForeignPinned {
    sharer: Rc<Sharer>,
    /// One a page and region, ascending by `start`. Small requests need no memory from the heap.
    pieces: SmallVec<[Piece; 4]>,
    length: u32,
}

impl ForeignMemory {
    /// The memory of `domain`.
    #[must_use]
    pub fn new(pager: Rc<RefCell<Pager>>, domain: DomainId) -> Self {
        pager.borrow_mut().sharer_came();
        Self(Rc::new(Sharer {
            pager,
            domain,
            pinned: Cell::new(0),
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

/// Number of pages and bytes of `regions`, which must not be more than one pin may hold.
fn measure(regions: &[GuestRegion]) -> Result<(usize, u32), MemoryError> {
    let (mut pages, mut length) = (0, 0_u32);
    for region in regions {
        let frames = frames_of(region).ok_or(MemoryError::NotMapped(region.address.0))?;
        pages += frames.end - frames.start;
        length = length.checked_add(region.length).ok_or(MemoryError::OutOfRange)?;
    }
    if pages > PAGES_PER_PIN as u64 {
        return Err(MemoryError::Exhausted);
    }
    Ok((pages as usize, length))
}

impl GuestMemory for ForeignMemory {
    type Pinned = ForeignPinned;

    fn pin(&self, regions: &[GuestRegion]) -> Result<ForeignPinned, MemoryError> {
        let (pages, length) = measure(regions)?;
        let sharer = &self.0;
        if sharer.pinned.get() + pages > sharer.pager.borrow().share() {
            return Err(MemoryError::Exhausted);
        }
        let mut slots = PinnedSlots::new();
        let mut pieces = SmallVec::new();
        slots.try_reserve(pages).map_err(|_| MemoryError::Exhausted)?;
        pieces.try_reserve(pages).map_err(|_| MemoryError::Exhausted)?;
        let mut pager = sharer.pager.borrow_mut();
        pager.pin(sharer.domain, &Frames::new(regions), &mut slots)?;
        let mut slots = slots.iter();
        let mut start = 0;
        for region in regions {
            let mut offset = region.address.0 as usize % PAGE_BYTES;
            let end = start + region.length;
            while start < end {
                let Some(slot) = slots.next() else { break };
                pieces.push(Piece { start, address: pager.address(*slot) + offset });
                start += (end - start).min((PAGE_BYTES - offset) as u32);
                offset = 0;
            }
        }
        sharer.pinned.update(|pinned| pinned + pieces.len());
        Ok(ForeignPinned { sharer: sharer.clone(), pieces, length })
    }

    /// By the view, on the machine: for what is read once that costs less than to pin it.
    #[cfg(target_os = "none")]
    fn read(&self, address: GuestAddress, out: &mut [u8]) -> Result<(), MemoryError> {
        if let Some(view) = &self.0.view {
            return view.read(address, out);
        }
        let length = u32::try_from(out.len()).map_err(|_| MemoryError::OutOfRange)?;
        self.pin(&[GuestRegion { address, length }])?.read(0, out)
    }

    fn prefetch(&self, regions: &[GuestRegion]) {
        self.0.pager.borrow_mut().prefetch(self.0.domain, Frames::new(regions));
    }
}

impl ForeignPinned {
    /// Index of the piece that holds the byte at `offset`.
    fn piece_at(&self, offset: u32) -> usize {
        let pieces = self.pieces.as_slice();
        let behind = if pieces.len() <= self.pieces.inline_size() {
            pieces.iter().position(|piece| piece.start > offset).unwrap_or(pieces.len())
        } else {
            pieces.partition_point(|piece| piece.start <= offset)
        };
        behind.saturating_sub(1)
    }

    /// Calls `visit(address, offset in the range, bytes)` for each stretch of `offset..offset + length` that lies in
    /// one page.
    fn visit(
        &self,
        offset: u32,
        length: usize,
        mut visit: impl FnMut(usize, usize, usize),
    ) -> Result<(), MemoryError> {
        let length = u32::try_from(length).map_err(|_| MemoryError::OutOfRange)?;
        let end =
            offset.checked_add(length).filter(|end| *end <= self.length).ok_or(MemoryError::OutOfRange)?;
        if length == 0 {
            return Ok(());
        }
        let mut pieces = self.pieces.get(self.piece_at(offset)..).unwrap_or_default().iter().peekable();
        let mut at = offset;
        while at < end {
            let piece = pieces.next().ok_or(MemoryError::OutOfRange)?;
            let piece_end = pieces.peek().map_or(self.length, |next| next.start);
            let bytes = end.min(piece_end) - at;
            visit(piece.address + (at - piece.start) as usize, (at - offset) as usize, bytes as usize);
            at += bytes;
        }
        Ok(())
    }

    /// Address of the half-word at `offset`, which must be even and lie in one page.
    fn half_word(&self, offset: u32) -> Result<*mut u16, MemoryError> {
        let bytes = size_of::<u16>() as u32;
        let index = self.piece_at(offset);
        let piece = self.pieces.get(index).ok_or(MemoryError::OutOfRange)?;
        let piece_end = self.pieces.get(index + 1).map_or(self.length, |next| next.start);
        let address = piece.address + (offset - piece.start) as usize;
        if offset.checked_add(bytes).is_none_or(|end| end > piece_end)
            || !address.is_multiple_of(align_of::<u16>())
        {
            return Err(MemoryError::OutOfRange);
        }
        Ok(ptr::with_exposed_provenance_mut(address))
    }
}

impl PinnedMemory for ForeignPinned {
    fn len(&self) -> u32 {
        self.length
    }

    fn read(&self, offset: u32, out: &mut [u8]) -> Result<(), MemoryError> {
        self.visit(offset, out.len(), |address, position, bytes| {
            if let Some(out) = out.get_mut(position..position + bytes) {
                // SAFETY: the piece lies in a slot that stays mapped while we hold its pin.
                unsafe { copy::from_shared(ptr::with_exposed_provenance(address), out) }
            }
        })
    }

    fn write(&self, offset: u32, data: &[u8]) -> Result<(), MemoryError> {
        self.visit(offset, data.len(), |address, position, bytes| {
            if let Some(data) = data.get(position..position + bytes) {
                // SAFETY: as in `read`; foreign RAM is mapped writable.
                unsafe { copy::to_shared(ptr::with_exposed_provenance_mut(address), data) }
            }
        })
    }

    fn fill_zero(&self, offset: u32, length: u32) -> Result<(), MemoryError> {
        self.visit(offset, length as usize, |address, _, bytes| {
            // SAFETY: as in `write`.
            unsafe { copy::zero(ptr::with_exposed_provenance_mut(address), bytes) }
        })
    }

    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError> {
        let address = self.half_word(offset)?;
        // SAFETY: aligned, in a page that stays mapped while we hold its pin; volatile, as others may write it.
        Ok(u16::from_le(unsafe { address.read_volatile() }))
    }

    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError> {
        let address = self.half_word(offset)?;
        // SAFETY: as in `load_u16`.
        unsafe { address.write_volatile(value.to_le()) };
        Ok(())
    }
}

impl Drop for ForeignPinned {
    fn drop(&mut self) {
        let mut pager = self.sharer.pager.borrow_mut();
        for piece in &self.pieces {
            pager.unpin_at(piece.address);
        }
        self.sharer.pinned.update(|pinned| pinned - self.pieces.len());
    }
}

#[cfg(test)]
#[path = "pinned_tests.rs"]
mod tests;
