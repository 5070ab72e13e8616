//! Guest memory as device models see it: regions of a guest, pinned through the [`Pager`].

use alloc::rc::Rc;
use core::cell::RefCell;
use core::ptr;

use drivers::guest::{GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use smallvec::SmallVec;

use super::address::GuestFrame;
use super::foreign::{Pager, PinnedSlots};
use crate::arch::copy;
use crate::limits::{PAGE_BYTES, PAGES_PER_PIN};
use crate::xen::DomainId;

/// The memory of one guest, reached by foreign mapping.
#[derive(Clone)]
pub struct ForeignMemory {
    pager: Rc<RefCell<Pager>>,
    domain: DomainId,
}

/// Bytes of one page within a pinned range.
#[derive(Clone, Copy)]
struct Piece {
    /// Offset of the first byte in the whole range.
    start: u32,
    /// Where it is mapped.
    address: usize,
}

/// Pinned regions of a guest, unpinned when dropped.
pub struct ForeignPinned {
    pager: Rc<RefCell<Pager>>,
    slots: PinnedSlots,
    /// One a page and region, ascending by `start`.
    pieces: SmallVec<[Piece; 4]>,
    length: u32,
}

impl ForeignMemory {
    /// The memory of `domain`.
    #[must_use]
    pub fn new(pager: Rc<RefCell<Pager>>, domain: DomainId) -> Self {
        Self { pager, domain }
    }
}

/// First and last frame of a region; none when it wraps around. Empty regions have no frames.
fn frames_of(region: &GuestRegion) -> Option<core::ops::Range<u64>> {
    let start = region.address.0;
    let end = start.checked_add(u64::from(region.length))?;
    if region.length == 0 {
        return Some(0..0);
    }
    Some(start / PAGE_BYTES as u64..end.div_ceil(PAGE_BYTES as u64))
}

fn all_frames(regions: &[GuestRegion]) -> impl Iterator<Item = GuestFrame> + Clone {
    regions.iter().filter_map(frames_of).flatten().map(GuestFrame)
}

impl GuestMemory for ForeignMemory {
    type Pinned = ForeignPinned;

    fn pin(&self, regions: &[GuestRegion]) -> Result<ForeignPinned, MemoryError> {
        let mut pages = 0;
        let mut length: u32 = 0;
        for region in regions {
            let frames = frames_of(region).ok_or(MemoryError::NotMapped(region.address.0))?;
            pages += frames.end - frames.start;
            length = length.checked_add(region.length).ok_or(MemoryError::OutOfRange)?;
        }
        if pages > PAGES_PER_PIN as u64 {
            return Err(MemoryError::Exhausted);
        }
        let mut pinned = ForeignPinned {
            pager: self.pager.clone(),
            slots: PinnedSlots::new(),
            pieces: SmallVec::new(),
            length,
        };
        let count = pages as usize;
        pinned.slots.try_reserve(count).map_err(|_| MemoryError::Exhausted)?;
        pinned.pieces.try_reserve(count).map_err(|_| MemoryError::Exhausted)?;
        let mut pager = self.pager.borrow_mut();
        pager.pin(self.domain, &all_frames(regions), &mut pinned.slots)?;
        let mut slots = pinned.slots.iter();
        let mut start = 0;
        for region in regions {
            let mut offset = region.address.0 as usize % PAGE_BYTES;
            let mut left = region.length as usize;
            while left > 0 {
                let Some(slot) = slots.next() else { break };
                pinned.pieces.push(Piece { start, address: pager.address(*slot) + offset });
                let bytes = left.min(PAGE_BYTES - offset);
                left -= bytes;
                offset = 0;
                start += bytes as u32;
            }
        }
        drop(pager);
        Ok(pinned)
    }

    fn prefetch(&self, regions: &[GuestRegion]) {
        self.pager.borrow_mut().prefetch(self.domain, all_frames(regions));
    }
}

impl ForeignPinned {
    /// Calls `visit(address, offset in the range, bytes)` for each stretch of `offset..offset + length` that lies in one page.
    fn visit(
        &self,
        offset: u32,
        length: usize,
        mut visit: impl FnMut(usize, usize, usize),
    ) -> Result<(), MemoryError> {
        let length = u32::try_from(length).map_err(|_| MemoryError::OutOfRange)?;
        let end =
            offset.checked_add(length).filter(|end| *end <= self.length).ok_or(MemoryError::OutOfRange)?;
        let mut at = offset;
        let mut index = self.pieces.partition_point(|piece| piece.start <= offset).saturating_sub(1);
        while at < end {
            let piece = self.pieces.get(index).ok_or(MemoryError::OutOfRange)?;
            index += 1;
            let piece_end = self.pieces.get(index).map_or(self.length, |next| next.start);
            let bytes = end.min(piece_end) - at;
            visit(piece.address + (at - piece.start) as usize, (at - offset) as usize, bytes as usize);
            at += bytes;
        }
        Ok(())
    }

    /// Address of the half-word at `offset`, in one page by being even.
    fn half_word(&self, offset: u32) -> Result<*mut u16, MemoryError> {
        let mut address = None;
        self.visit(offset, size_of::<u16>(), |at, _, bytes| {
            if bytes == size_of::<u16>() && at % align_of::<u16>() == 0 {
                address = Some(at);
            }
        })?;
        address.map(ptr::with_exposed_provenance_mut).ok_or(MemoryError::OutOfRange)
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
        let mut pager = self.pager.borrow_mut();
        for slot in self.slots.drain(..) {
            pager.unpin(slot);
        }
    }
}

#[cfg(test)]
#[path = "pinned_tests.rs"]
mod tests;
