//! Grants, version 1: pages of ours that a domain may map, and pages that domains granted to us, mapped or copied.
//!
//! We grant to nobody but ourselves ([`crate::mm::bus`]); guests grant the buffers of their requests
//! ([`crate::mm::granted`]).

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use drivers::guest::Access;
use smallvec::SmallVec;

use super::DomainId;
use super::abi::{CopyGrant, CopySide, DOMID_SELF, GrantEntry, MapGrant, UnmapGrant, grant, number};
use super::hypercall::{HypercallError, call};
use crate::limits::PAGE_BYTES;
use crate::mm::address::Gfn;
use crate::mm::singles::SinglePage;

/// What went wrong with a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Xen refused the hypercall.
    #[error(transparent)]
    Hypercall(#[from] HypercallError),
    /// Xen refused the one operation in it (`grant_table.h`, `GNTST_`).
    #[error("{operation}: status {status}{}", reason(*.status))]
    Status {
        /// What was asked for, in words.
        operation: &'static str,
        /// Xen's answer.
        status: i16,
    },
    /// The entry of the table is still in use.
    #[error("the entry of the grant table is still in use")]
    InUse,
    /// Version 1 has no room for such a frame number.
    #[error("frame {:#x} cannot be granted", .0.0)]
    FrameNumber(Gfn),
    /// Xen told an address that cannot be that of a page.
    #[error("no page lies at machine address {0:#x}")]
    BusAddress(u64),
}

fn reason(status: i16) -> &'static str {
    match status {
        -1 => " (not granted, not for writing, or no memory left for second-stage tables)",
        -2 => " (no such domain)",
        -3 => " (no such grant)",
        -8 => " (refused by the security policy)",
        -9 => " (not a page of RAM)",
        -10 => " (crosses a page)",
        -13 => " (out of space)",
        _ => "",
    }
}

/// The first page of our grant table.
pub struct GrantTable {
    page: SinglePage,
}

/// A page of ours that a domain may map for reading; no longer when dropped.
pub struct Grant<'a> {
    entry: &'a GrantEntry,
}

impl GrantTable {
    /// Takes over our grant table.
    ///
    /// # Safety
    /// The first page of our grant table must be mapped at `page`.
    #[must_use]
    pub unsafe fn new(page: SinglePage) -> Self {
        Self { page }
    }

    /// Lets `domain` read frame `frame` of ours. One grant at a time is all that is needed so far.
    ///
    /// # Errors
    /// [`GrantError::InUse`] when the last grant was never unmapped, [`GrantError::FrameNumber`].
    pub fn grant_read(&mut self, domain: DomainId, frame: Gfn) -> Result<Grant<'_>, GrantError> {
        let number = u32::try_from(frame.0).map_err(|_| GrantError::FrameNumber(frame))?;
        let table = NonNull::new(core::ptr::with_exposed_provenance_mut::<GrantEntry>(self.page.address()));
        let table = table.ok_or(GrantError::InUse)?;
        // SAFETY: the page is mapped while `self` lives (contract of `new`) and holds more entries than that; every
        // field that Xen changes is atomic.
        let entry = unsafe { table.add(grant::FIRST_FREE as usize).as_ref() };
        if entry.flags.load(Ordering::Relaxed) != 0 {
            return Err(GrantError::InUse);
        }
        entry.domain.store(domain.0, Ordering::Relaxed);
        entry.frame.store(number, Ordering::Relaxed);
        entry.flags.store(grant::PERMIT_ACCESS | grant::READ_ONLY, Ordering::Release);
        Ok(Grant { entry })
    }
}

impl Grant<'_> {
    /// By what the other domain names it.
    #[must_use]
    pub fn reference(&self) -> u32 {
        grant::FIRST_FREE
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        let unused = grant::PERMIT_ACCESS | grant::READ_ONLY;
        // Only as long as Xen says that nobody has it mapped; else the entry stays in use.
        let ended = self.entry.flags.compare_exchange(unused, 0, Ordering::AcqRel, Ordering::Relaxed);
        if let Err(flags) = ended {
            log::error!("a grant is still mapped (flags {flags:#x}) and stays");
        }
    }
}

/// A granted page that is to be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Entry in the table of who granted it.
    pub reference: u32,
    /// Where to map it.
    pub gfn: Gfn,
    /// For what. What is mapped for reading must not be written: the processor would try for ever.
    pub access: Access,
}

/// A granted page that is mapped. To unmap it takes both numbers, or Xen's books go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Where.
    pub gfn: Gfn,
    /// What Xen calls the mapping.
    pub handle: u32,
    /// Address of the page in the machine.
    pub bus_address: u64,
}

/// Granted pages that are mapped, or unmapped, by one hypercall.
pub const MAP_BATCH: usize = 16;

/// Maps up to [`MAP_BATCH`] pages that `domain` granted, by one hypercall, and tells of each in order how it went. Only
/// `mm/singles.rs` calls this.
pub fn map(domain: DomainId, wanted: &[Wanted], mut tell: impl FnMut(Wanted, Result<Mapped, GrantError>)) {
    const OPERATION: &str = "map a granted page";
    let request = |wanted: &Wanted| MapGrant {
        host_address: wanted.gfn.address() as u64,
        flags: grant::MAP_HOST | if wanted.access == Access::Read { grant::MAP_READ_ONLY } else { 0 },
        reference: wanted.reference,
        domain: domain.0,
        status: grant::STATUS_GENERAL_ERROR,
        ..MapGrant::default()
    };
    let mut requests = [MapGrant::default(); MAP_BATCH];
    requests.iter_mut().zip(wanted).for_each(|(place, wanted)| *place = request(wanted));
    let address = requests.as_mut_ptr().expose_provenance() as u64;
    let count = wanted.len().min(MAP_BATCH) as u64;
    // SAFETY: GNTTABOP_map_grant_ref reads and writes `count` gnttab_map_grant_ref (grant_table.h).
    let called =
        unsafe { call(number::GRANT_TABLE_OP, [grant::MAP_GRANT_REF, address, count, 0, 0], OPERATION) };
    for (request, wanted) in requests.iter().zip(wanted) {
        // When the call failed in the middle, those before that are mapped.
        let (handle, bus_address) = (request.handle, request.bus_address);
        let mapped = Mapped { gfn: wanted.gfn, handle, bus_address };
        tell(*wanted, outcome(request.status, called, OPERATION).map(|()| mapped));
    }
}

/// Unmaps up to [`MAP_BATCH`] pages by one hypercall, and tells of each in order how it went: one that failed may still be
/// mapped.
pub fn unmap(mapped: &[Mapped], mut tell: impl FnMut(Mapped, Result<(), GrantError>)) {
    const OPERATION: &str = "unmap a granted page";
    let request = |mapped: &Mapped| UnmapGrant {
        host_address: mapped.gfn.address() as u64,
        handle: mapped.handle,
        status: grant::STATUS_GENERAL_ERROR,
        ..UnmapGrant::default()
    };
    let mut requests = [UnmapGrant::default(); MAP_BATCH];
    requests.iter_mut().zip(mapped).for_each(|(place, mapped)| *place = request(mapped));
    let address = requests.as_mut_ptr().expose_provenance() as u64;
    let count = mapped.len().min(MAP_BATCH) as u64;
    // SAFETY: GNTTABOP_unmap_grant_ref reads and writes `count` gnttab_unmap_grant_ref (grant_table.h).
    let called =
        unsafe { call(number::GRANT_TABLE_OP, [grant::UNMAP_GRANT_REF, address, count, 0, 0], OPERATION) };
    for (request, mapped) in requests.iter().zip(mapped) {
        tell(*mapped, outcome(request.status, called, OPERATION));
    }
}

fn outcome(
    status: i16,
    called: Result<u64, HypercallError>,
    operation: &'static str,
) -> Result<(), GrantError> {
    match (status, called) {
        (grant::STATUS_OKAY, _) => Ok(()),
        (_, Err(error)) => Err(error.into()),
        (status, Ok(_)) => Err(GrantError::Status { operation, status }),
    }
}

/// Bytes of a granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedBytes {
    /// Entry in the table of who granted it.
    pub reference: u32,
    /// The first one's place in the page.
    pub offset: u16,
    /// How many; they end in the same page.
    pub length: u16,
}

/// Copies that are made by one hypercall.
pub const COPY_BATCH: usize = 32;

/// Copies between pages that a domain granted and memory of ours, which must be RAM of our own, at its own address: the
/// heap, the stack, frames of the allocator; never a mapped page. Nothing is mapped for it, and no TLB flushed.
pub struct Copies<'a> {
    domain: DomainId,
    requests: SmallVec<[CopyGrant; COPY_BATCH]>,
    failed: Option<(u32, GrantError)>,
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> Copies<'a> {
    /// No copies yet.
    #[must_use]
    pub fn new(domain: DomainId) -> Self {
        Self { domain, requests: SmallVec::new(), failed: None, memory: PhantomData }
    }

    /// Copies granted bytes to `to`, now or by [`Self::finish`]; as many as both have.
    pub fn read(&mut self, from: GrantedBytes, to: &'a mut [u8]) {
        let address = to.as_mut_ptr().expose_provenance();
        self.add(from, address, to.len(), Access::Read);
    }

    /// Copies `from` to granted bytes, now or by [`Self::finish`]; as many as both have.
    pub fn write(&mut self, to: GrantedBytes, from: &'a [u8]) {
        let address = from.as_ptr().expose_provenance();
        self.add(to, address, from.len(), Access::Write);
    }

    /// Makes the copies that are not made yet.
    ///
    /// # Errors
    /// The first grant that could not be copied from or to, and why. Others may have been copied.
    pub fn finish(mut self) -> Result<(), (u32, GrantError)> {
        self.run();
        self.failed.map_or(Ok(()), Err)
    }

    /// Adds a copy between granted bytes and `length` bytes at `address`, which live as long as `'a`. A copy crosses no
    /// page on either side.
    fn add(&mut self, granted: GrantedBytes, address: usize, length: usize, access: Access) {
        let (mut done, all) = (0, length.min(granted.length.into()));
        while done < all {
            let own = address + done;
            let bytes = (all - done).min(PAGE_BYTES - own % PAGE_BYTES);
            let theirs = CopySide {
                page: granted.reference.into(),
                domain: self.domain.0,
                offset: granted.offset.saturating_add(done as u16),
            };
            let ours = CopySide {
                page: Gfn::containing(own).0,
                domain: DOMID_SELF,
                offset: (own % PAGE_BYTES) as u16,
            };
            let (source, destination, flags) = match access {
                Access::Read => (theirs, ours, grant::COPY_SOURCE_GRANTED),
                Access::Write => (ours, theirs, grant::COPY_DESTINATION_GRANTED),
            };
            if self.requests.len() == COPY_BATCH {
                self.run();
            }
            let status = grant::STATUS_GENERAL_ERROR;
            self.requests.push(CopyGrant { source, destination, length: bytes as u16, flags, status });
            done += bytes;
        }
    }

    fn run(&mut self) {
        const OPERATION: &str = "copy a granted page";
        if self.requests.is_empty() {
            return;
        }
        let address = self.requests.as_mut_ptr().expose_provenance() as u64;
        let count = self.requests.len() as u64;
        // SAFETY: GNTTABOP_copy reads and writes `count` gnttab_copy (grant_table.h). What it reads and writes of our
        // memory is borrowed by us for as long as `self` lives.
        let called = unsafe { call(number::GRANT_TABLE_OP, [grant::COPY, address, count, 0, 0], OPERATION) };
        for request in &self.requests {
            if let (Err(error), None) = (outcome(request.status, called, OPERATION), self.failed) {
                let is_read = request.flags & grant::COPY_SOURCE_GRANTED != 0;
                let theirs = if is_read { request.source } else { request.destination };
                self.failed = Some((theirs.page as u32, error));
            }
        }
        self.requests.clear();
    }
}

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
