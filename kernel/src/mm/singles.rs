//! Single pages of others at frame numbers of ours: the hypervisor's, ioreq servers', granted ones.
//!
//! Each is a value that holds what undoes the mapping, and does so when dropped.

use alloc::rc::Rc;
use core::cell::RefCell;

use super::address::Gfn;
use crate::limits::SINGLE_PAGES;
use crate::xen::DomainId;
use crate::xen::dm::ServerId;
use crate::xen::grant::{self, GrantError, GrantTable};
use crate::xen::hypercall::{Errno, HypercallError};
use crate::xen::memory;

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

#[cfg(test)]
#[path = "singles_tests.rs"]
mod tests;
