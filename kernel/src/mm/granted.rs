//! The memory of a guest that grants its pages one by one: to us it is only what the guest's requests name.
//!
//! An address is a grant reference, with bit 63 set (Linux, `drivers/xen/grant-dma-ops.c`):
//!
//! ```text
//!   63  62        44  43         12  11        0
//!    1  0 ... 0       reference      offset
//! ```
//! The pages of a buffer have consecutive references; buffers that a device only reads are granted for reading only. The guest
//! takes each grant back as soon as it is told that the request is done, and gives the device up for good when one is still
//! mapped then.
//!
//! Two ways to reach a page. Rings are mapped as long as their queue lives. Of a request nothing is mapped: Xen copies
//! (`GNTTABOP_copy`), one hypercall for each read or write of up to [`COPY_BATCH`] pages. A request of 4 KiB takes four:
//! indirect table, header, data, status; requests that wait together share those for tables and headers. Larger ones
//! than [`GRANT_COPY_MAX_BYTES`] are mapped, and unmapped before the guest is told.
//!
//! What is copied is looked at only then: a reference that means nothing shows when it is read or written. Neither way can it
//! harm anybody: Xen checks each.
//!
//! [`COPY_BATCH`]: crate::xen::grant::COPY_BATCH

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::ops::{Deref, Range};

use drivers::guest::{Access, GuestAddress, GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use smallvec::SmallVec;

use super::pieces::Pieces;
use super::singles::{GrantedPages, SinglePages};
use crate::limits::{
    GRANT_COPY_MAX_BYTES, GRANTED_REGIONS_PER_DEVICE, GRANTS_FOR_RINGS, GRANTS_MAPPED_PER_DEVICE, PAGE_BYTES,
    PAGES_PER_PIN,
};
use crate::xen::DomainId;
use crate::xen::grant::{Copies, GrantError, GrantedBytes};
use crate::xen::hypercall::{Errno, HypercallError};

/// The bit that tells a grant from an address of the guest's own.
const GRANT: u64 = 1 << 63;
const PAGE: u64 = PAGE_BYTES as u64;

/// The memory that a guest grants to one device.
pub struct GrantedMemory(Rc<Borrower>);

/// One device, and what it holds.
struct Borrower {
    domain: DomainId,
    pages: Rc<RefCell<SinglePages>>,
    copy_max_bytes: u32,
    /// Pages mapped.
    mapped: Cell<usize>,
    /// Regions remembered.
    remembered: Cell<usize>,
}

/// Granted regions, until dropped.
pub enum GrantedPinned {
    /// Mapped.
    // Rare, and large: what is moved about is small without it.
    Mapped(Box<MappedRegions>),
    /// Copied when they are read or written.
    Copied(CopiedRegions),
}

/// Granted regions that are mapped.
pub struct MappedRegions {
    pieces: Pieces,
    // Unmapped when dropped.
    pages: GrantedPages,
    borrower: Rc<Borrower>,
}

/// Granted regions that are remembered.
pub struct CopiedRegions {
    /// Ascending by `start`. Small requests need no memory from the heap.
    regions: SmallVec<[Remembered; 4]>,
    length: u32,
    borrower: Rc<Borrower>,
}

#[derive(Clone, Copy)]
struct Remembered {
    /// Offset of its first byte in the whole run.
    start: u32,
    /// Where it is in the space of grants: the address without its highest bit.
    place: u64,
}

impl GrantedMemory {
    /// What `domain` grants to a device of its; what is mapped of it is mapped among `pages`.
    #[must_use]
    pub fn new(pages: Rc<RefCell<SinglePages>>, domain: DomainId) -> Self {
        Self::with_copies_up_to(pages, domain, GRANT_COPY_MAX_BYTES)
    }

    /// Likewise, with another limit than [`GRANT_COPY_MAX_BYTES`].
    #[must_use]
    pub fn with_copies_up_to(pages: Rc<RefCell<SinglePages>>, domain: DomainId, copy_max_bytes: u32) -> Self {
        let (mapped, remembered) = (Cell::new(0), Cell::new(0));
        Self(Rc::new(Borrower { domain, pages, copy_max_bytes, mapped, remembered }))
    }

    /// Maps regions, of which the first `readable_bytes` bytes will only be read, while no more than `most` pages are
    /// mapped.
    fn map(
        &self,
        regions: &[GuestRegion],
        readable_bytes: u32,
        most: usize,
    ) -> Result<GrantedPinned, MemoryError> {
        let borrower = &self.0;
        let (_, pages) = measure(regions)?;
        if borrower.mapped.get() + pages > most {
            return Err(MemoryError::Exhausted);
        }
        let mut pieces = Pieces::with_room_for(pages)?;
        let mut wanted: SmallVec<[(u32, Access); 4]> = SmallVec::new();
        super::reserve(&mut wanted, pages)?;
        let mut start = 0;
        for region in regions {
            let access = if start < readable_bytes { Access::Read } else { Access::Write };
            wanted.extend(bytes_of(place_of(region)?, region.length).map(|bytes| (bytes.reference, access)));
            start += region.length;
        }
        let pages = SinglePages::map_granted(&borrower.pages, borrower.domain, &wanted)
            .map_err(|failed| out_of_reach(borrower.domain, failed))?;
        let mut mapped = pages.iter();
        let mut start = 0;
        for region in regions {
            for bytes in bytes_of(place_of(region)?, region.length) {
                let Some(page) = mapped.next() else { break };
                // SAFETY: mapped just now, to be written unless the region begins among the readable bytes, and kept beside
                // the pieces.
                unsafe { pieces.push(page.gfn.address() + usize::from(bytes.offset), bytes.length.into()) };
            }
            if start < readable_bytes {
                pieces.protect();
            }
            start += region.length;
        }
        drop(mapped);
        borrower.mapped.update(|mapped| mapped + pages.iter().count());
        let regions = MappedRegions { pieces, pages, borrower: borrower.clone() };
        Ok(GrantedPinned::Mapped(Box::new(regions)))
    }

    /// Remembers regions.
    fn remember(&self, regions: &[GuestRegion]) -> Result<GrantedPinned, MemoryError> {
        let borrower = &self.0;
        let (length, _) = measure(regions)?;
        if borrower.remembered.get() + regions.len() > GRANTED_REGIONS_PER_DEVICE {
            return Err(MemoryError::Exhausted);
        }
        let mut remembered = SmallVec::new();
        super::reserve(&mut remembered, regions.len())?;
        let mut start = 0;
        for region in regions.iter().filter(|region| region.length > 0) {
            remembered.push(Remembered { start, place: place_of(region)? });
            start += region.length;
        }
        borrower.remembered.update(|held| held + remembered.len());
        Ok(GrantedPinned::Copied(CopiedRegions { regions: remembered, length, borrower: borrower.clone() }))
    }
}

impl GuestMemory for GrantedMemory {
    type Pinned = GrantedPinned;

    fn pin(&self, regions: &[GuestRegion]) -> Result<GrantedPinned, MemoryError> {
        self.pin_split(regions, 0)
    }

    fn pin_split(&self, regions: &[GuestRegion], readable_bytes: u32) -> Result<GrantedPinned, MemoryError> {
        let (length, _) = measure(regions)?;
        if length > self.0.copy_max_bytes
            && let Ok(mapped) = self.map(regions, readable_bytes, GRANTS_MAPPED_PER_DEVICE - GRANTS_FOR_RINGS)
        {
            return Ok(mapped);
        }
        // For want of room, too; and if it is no grant at all the copy will tell.
        self.remember(regions)
    }

    fn pin_ring(&self, ring: GuestRegion, access: Access) -> Result<GrantedPinned, MemoryError> {
        let readable_bytes = if access == Access::Read { ring.length } else { 0 };
        self.map(&[ring], readable_bytes, GRANTS_MAPPED_PER_DEVICE)
            .inspect_err(|error| log::debug!("{}: a ring: {error}", self.0.domain))
    }

    fn read(&self, address: GuestAddress, out: &mut [u8]) -> Result<(), MemoryError> {
        let length = u32::try_from(out.len()).map_err(|_| MemoryError::OutOfRange)?;
        let place = place_of(&GuestRegion { address, length })?;
        let mut copies = Copies::new(self.0.domain);
        read(&mut copies, place, out);
        copies.finish().map_err(|failed| out_of_reach(self.0.domain, failed))
    }

    fn read_together<'a>(&self, mut reads: impl Iterator<Item = (GuestAddress, &'a mut [u8])>) -> bool {
        let mut copies = Copies::new(self.0.domain);
        let named = reads.all(|(address, out)| {
            let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
            let place = place_of(&GuestRegion { address, length });
            place.is_ok_and(|place| {
                read(&mut copies, place, out);
                true
            })
        });
        named && copies.finish().is_ok()
    }

    fn write_together<'a>(&self, mut writes: impl Iterator<Item = (GuestAddress, &'a [u8])>) -> bool {
        let mut copies = Copies::new(self.0.domain);
        let named = writes.all(|(address, data)| {
            let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let place = place_of(&GuestRegion { address, length });
            place.is_ok_and(|place| {
                write(&mut copies, place, data);
                true
            })
        });
        named && copies.finish().is_ok()
    }

    fn prefetch(&self, _: &[GuestRegion]) {}
}

/// Where a region is in the space of grants, if all its pages can have a reference.
fn place_of(region: &GuestRegion) -> Result<u64, MemoryError> {
    let address = region.address.0;
    if address & GRANT == 0 {
        return Err(MemoryError::Untranslated(address));
    }
    let place = address & !GRANT;
    let last = place.checked_add(region.length.saturating_sub(1).into());
    match last.map(|last| u32::try_from(last / PAGE)) {
        Some(Ok(_)) => Ok(place),
        _ => Err(MemoryError::NotMapped(address)),
    }
}

/// Bytes and pages of `regions`, no more of them than one pin may hold.
fn measure(regions: &[GuestRegion]) -> Result<(u32, usize), MemoryError> {
    let (mut length, mut pages) = (0_u32, 0_u64);
    for region in regions {
        let place = place_of(region)?;
        length = length.checked_add(region.length).ok_or(MemoryError::OutOfRange)?;
        pages += (place % PAGE + u64::from(region.length)).div_ceil(PAGE) * u64::from(region.length > 0);
    }
    if pages > PAGES_PER_PIN as u64 {
        return Err(MemoryError::Exhausted);
    }
    Ok((length, pages as usize))
}

/// The bytes from `place` on, `length` of them, page by page. [`place_of`] says that each has a reference.
fn bytes_of(place: u64, length: u32) -> impl Iterator<Item = GrantedBytes> {
    let mut rest = place..place.saturating_add(length.into());
    core::iter::from_fn(move || {
        let Range { start, end } = rest;
        let length = (end - start).min(PAGE - start % PAGE);
        rest.start += length;
        (length > 0).then_some(GrantedBytes {
            reference: (start / PAGE) as u32,
            offset: (start % PAGE) as u16,
            length: length as u16,
        })
    })
}

/// Reads the bytes from `place` on.
fn read<'a>(copies: &mut Copies<'a>, place: u64, mut out: &'a mut [u8]) {
    for bytes in bytes_of(place, out.len() as u32) {
        let Some((part, rest)) = out.split_at_mut_checked(bytes.length.into()) else { break };
        copies.read(bytes, part);
        out = rest;
    }
}

/// Writes the bytes from `place` on.
fn write<'a>(copies: &mut Copies<'a>, place: u64, mut data: &'a [u8]) {
    for bytes in bytes_of(place, data.len() as u32) {
        let Some((part, rest)) = data.split_at_checked(bytes.length.into()) else { break };
        copies.write(bytes, part);
        data = rest;
    }
}

fn out_of_reach(domain: DomainId, (reference, error): (u32, GrantError)) -> MemoryError {
    log::trace!("{domain}: grant {reference}: {error}");
    match error {
        GrantError::Hypercall(HypercallError { errno: Errno::ENOMEM, .. }) => MemoryError::Exhausted,
        _ => MemoryError::NotMapped(GRANT | (u64::from(reference) * PAGE)),
    }
}

impl CopiedRegions {
    /// Calls `visit(place, bytes)` for each stretch of `offset..offset + length` that lies in one region.
    fn visit(
        &self,
        offset: u32,
        length: usize,
        mut visit: impl FnMut(u64, usize),
    ) -> Result<(), MemoryError> {
        let length = u32::try_from(length).map_err(|_| MemoryError::OutOfRange)?;
        let end =
            offset.checked_add(length).filter(|end| *end <= self.length).ok_or(MemoryError::OutOfRange)?;
        let first = self.regions.partition_point(|region| region.start <= offset).saturating_sub(1);
        let mut regions = self.regions.get(first..).unwrap_or_default().iter().peekable();
        let mut at = offset;
        while at < end {
            let region = regions.next().ok_or(MemoryError::OutOfRange)?;
            let region_end = regions.peek().map_or(self.length, |next| next.start);
            let bytes = end.min(region_end) - at;
            visit(region.place + u64::from(at - region.start), bytes as usize);
            at += bytes;
        }
        Ok(())
    }

    fn finish(&self, copies: Copies<'_>) -> Result<(), MemoryError> {
        copies.finish().map_err(|failed| out_of_reach(self.borrower.domain, failed))
    }
}

impl PinnedMemory for CopiedRegions {
    fn len(&self) -> u32 {
        self.length
    }

    fn read(&self, offset: u32, mut out: &mut [u8]) -> Result<(), MemoryError> {
        let mut copies = Copies::new(self.borrower.domain);
        self.visit(offset, out.len(), |place, bytes| {
            if let Some(part) = out.split_off_mut(..bytes) {
                read(&mut copies, place, part);
            }
        })?;
        self.finish(copies)
    }

    fn write(&self, offset: u32, mut data: &[u8]) -> Result<(), MemoryError> {
        let mut copies = Copies::new(self.borrower.domain);
        self.visit(offset, data.len(), |place, bytes| {
            if let Some(part) = data.split_off(..bytes) {
                write(&mut copies, place, part);
            }
        })?;
        self.finish(copies)
    }

    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError> {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError> {
        self.write(offset, &value.to_le_bytes())
    }
}

impl Deref for GrantedPinned {
    type Target = dyn PinnedMemory;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Mapped(regions) => &regions.pieces,
            Self::Copied(regions) => regions,
        }
    }
}

impl Drop for MappedRegions {
    fn drop(&mut self) {
        self.borrower.mapped.update(|mapped| mapped - self.pages.iter().count());
    }
}

impl Drop for CopiedRegions {
    fn drop(&mut self) {
        self.borrower.remembered.update(|held| held - self.regions.len());
    }
}

#[cfg(test)]
#[path = "granted_tests.rs"]
mod tests;
