//! Grants, version 1: pages of ours that a domain may map, and granted pages mapped by us.
//!
//! So far we are our own and only peer: see [`crate::mm::bus`].

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::DomainId;
use super::abi::{GrantEntry, MapGrant, UnmapGrant, grant, number};
use super::hypercall::{HypercallError, call};
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
        -2 => " (no such domain)",
        -3 => " (no such grant)",
        -8 => " (refused by the security policy)",
        -9 => " (not a page of RAM)",
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

/// A granted page just mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// What Xen calls the mapping.
    pub handle: u32,
    /// Address of the page in the machine.
    pub bus_address: u64,
}

/// Maps what `domain` granted as `reference` at frame `gfn` of ours, for reading. Only `mm/physmap.rs` calls this.
///
/// # Errors
/// Xen's answer; it never leaves anything mapped.
pub fn map_read_only(domain: DomainId, reference: u32, gfn: Gfn) -> Result<Mapped, GrantError> {
    const OPERATION: &str = "map a granted page";
    let mut request = MapGrant {
        host_address: gfn.address() as u64,
        flags: grant::MAP_HOST | grant::MAP_READ_ONLY,
        reference,
        domain: domain.0,
        status: grant::STATUS_GENERAL_ERROR,
        ..MapGrant::default()
    };
    let address = (&raw mut request).expose_provenance() as u64;
    // SAFETY: GNTTABOP_map_grant_ref reads and writes one gnttab_map_grant_ref (grant_table.h).
    unsafe { call(number::GRANT_TABLE_OP, [grant::MAP_GRANT_REF, address, 1, 0, 0], OPERATION)? };
    match request.status {
        grant::STATUS_OKAY => Ok(Mapped { handle: request.handle, bus_address: request.bus_address }),
        status => Err(GrantError::Status { operation: OPERATION, status }),
    }
}

/// Undoes [`map_read_only`]: `gfn` and `handle` are those of that mapping, or Xen's books go wrong.
///
/// # Errors
/// Xen's answer; the page may still be mapped.
pub fn unmap(gfn: Gfn, handle: u32) -> Result<(), GrantError> {
    const OPERATION: &str = "unmap a granted page";
    let mut request = UnmapGrant {
        host_address: gfn.address() as u64,
        handle,
        status: grant::STATUS_GENERAL_ERROR,
        ..UnmapGrant::default()
    };
    let address = (&raw mut request).expose_provenance() as u64;
    // SAFETY: GNTTABOP_unmap_grant_ref reads and writes one gnttab_unmap_grant_ref (grant_table.h).
    unsafe { call(number::GRANT_TABLE_OP, [grant::UNMAP_GRANT_REF, address, 1, 0, 0], OPERATION)? };
    match request.status {
        grant::STATUS_OKAY => Ok(()),
        status => Err(GrantError::Status { operation: OPERATION, status }),
    }
}

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
