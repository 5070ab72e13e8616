//! The guest's memory, a mapping for each region, as virtio backends on Linux have it: one for each descriptor.
//!
//! Whether pages are mapped for that, or long before, is `main.c`'s to say.

use core::sync::atomic::{AtomicU16, Ordering};

use drivers::guest::{GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use smallvec::SmallVec;

use crate::host::Pages;

const PAGE_BYTES: u64 = 4096;

/// The memory of the one guest.
pub struct ForeignMemory;

/// Regions that are mapped.
pub struct Pinned {
    /// Enough for a header, a buffer and a status.
    regions: SmallVec<[Mapped; 3]>,
    bytes: u32,
}

struct Mapped {
    pages: Pages,
    /// Where in the first page it starts.
    skipped: usize,
    bytes: u32,
}

impl Mapped {
    fn new(region: &GuestRegion) -> Option<Self> {
        let skipped = region.address.0 % PAGE_BYTES;
        let pages = (skipped + u64::from(region.length)).div_ceil(PAGE_BYTES);
        let pages = Pages::map(region.address.0 / PAGE_BYTES, usize::try_from(pages).ok()?)?;
        Some(Self { pages, skipped: usize::try_from(skipped).ok()?, bytes: region.length })
    }

    /// The byte at `offset`, which is inside.
    fn at(&self, offset: u32) -> *mut u8 {
        self.pages.start().wrapping_add(self.skipped + offset as usize)
    }
}

impl GuestMemory for ForeignMemory {
    type Pinned = Pinned;

    fn pin(&self, regions: &[GuestRegion]) -> Result<Pinned, MemoryError> {
        let mut pinned = Pinned { regions: SmallVec::new(), bytes: 0 };
        for region in regions.iter().filter(|region| region.length > 0) {
            let mapped = Mapped::new(region).ok_or(MemoryError::NotMapped(region.address.0))?;
            pinned.bytes = pinned.bytes.checked_add(mapped.bytes).ok_or(MemoryError::Exhausted)?;
            pinned.regions.push(mapped);
        }
        Ok(pinned)
    }

    fn prefetch(&self, _regions: &[GuestRegion]) {}
}

impl Pinned {
    /// Calls `copy` for each run of bytes of the range: where it is, its place in the range, and its length.
    pub fn for_each_run(
        &self,
        offset: u32,
        length: usize,
        mut copy: impl FnMut(*mut u8, usize, usize),
    ) -> Result<(), MemoryError> {
        let length = u32::try_from(length).map_err(|_| MemoryError::OutOfRange)?;
        if offset.checked_add(length).is_none_or(|end| end > self.bytes) {
            return Err(MemoryError::OutOfRange);
        }
        let (mut skip, mut done) = (offset, 0);
        for region in &self.regions {
            let run = region.bytes.saturating_sub(skip).min(length - done);
            if run > 0 {
                copy(region.at(skip), done as usize, run as usize);
            }
            skip = skip.saturating_sub(region.bytes);
            done += run;
        }
        Ok(())
    }

    fn half_word(&self, offset: u32) -> Result<&AtomicU16, MemoryError> {
        let mut found = Err(MemoryError::OutOfRange);
        self.for_each_run(offset, 2, |at, _, length| {
            if length == 2 && at.addr().is_multiple_of(2) {
                // SAFETY: mapped as long as this lives, aligned, and atomic for the guest, too.
                found = Ok(unsafe { AtomicU16::from_ptr(at.cast()) });
            }
        })?;
        found
    }
}

impl PinnedMemory for Pinned {
    fn len(&self) -> u32 {
        self.bytes
    }

    fn read(&self, offset: u32, out: &mut [u8]) -> Result<(), MemoryError> {
        self.for_each_run(offset, out.len(), |from, place, length| {
            let to = out.as_mut_ptr().wrapping_add(place);
            // SAFETY: both have so many bytes. The guest may write the one, of which any value will do.
            unsafe { core::ptr::copy_nonoverlapping(from, to, length) };
        })
    }

    fn write(&self, offset: u32, data: &[u8]) -> Result<(), MemoryError> {
        self.for_each_run(offset, data.len(), |to, place, length| {
            let from = data.as_ptr().wrapping_add(place);
            // SAFETY: both have so many bytes; what the guest writes at the same time is its own loss.
            unsafe { core::ptr::copy_nonoverlapping(from, to, length) };
        })
    }

    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError> {
        Ok(u16::from_le(self.half_word(offset)?.load(Ordering::Relaxed)))
    }

    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError> {
        self.half_word(offset)?.store(value.to_le(), Ordering::Relaxed);
        Ok(())
    }
}
