//! Where devices find our pages: the address of a page in the machine.
//!
//! A device without IOMMU reads and writes memory by addresses of the machine, which Xen keeps to itself, with one
//! exception: whoever maps a granted page is told. So we grant a page to ourselves, map it, take the address, and
//! undo both. (With an IOMMU that Xen has set up, a device uses our own addresses: another implementor of
//! [`BusAddresses`], in another file.)

use alloc::rc::Rc;
use core::cell::RefCell;

use drivers::guest::Access;

use super::address::Gfn;
use super::singles::SinglePages;
use crate::limits::PAGE_BYTES;
use crate::xen::DomainId;
use crate::xen::event::own_domain;
use crate::xen::grant::{GrantError, GrantTable};
use crate::xen::hypercall::HypercallError;

/// Tells where devices find pages of ours.
pub trait BusAddresses {
    /// The address by which devices reach the first byte of our page `frame`. It holds as long as the page is RAM
    /// of ours.
    ///
    /// # Errors
    /// There is none, or none that could be learnt.
    fn bus_address(&mut self, frame: Gfn) -> Result<u64, GrantError>;
}

/// Machine addresses, learnt by granting our pages to ourselves.
pub struct SelfGrants {
    own: DomainId,
    table: GrantTable,
    pages: Rc<RefCell<SinglePages>>,
}

impl SelfGrants {
    /// Gets ready: maps our grant table for as long as the value lives.
    ///
    /// # Errors
    /// Xen's answer.
    pub fn new(pages: &Rc<RefCell<SinglePages>>) -> Result<Self, HypercallError> {
        // Xen refuses DOMID_SELF in a grant.
        Ok(Self { own: own_domain()?, table: SinglePages::map_grant_table(pages)?, pages: pages.clone() })
    }
}

impl BusAddresses for SelfGrants {
    fn bus_address(&mut self, frame: Gfn) -> Result<u64, GrantError> {
        let grant = self.table.grant_read(self.own, frame)?;
        // Dropped, that is unmapped, before the grant is.
        let wanted = [(grant.reference(), Access::Read)];
        let mapped = SinglePages::map_granted(&self.pages, self.own, &wanted).map_err(|(_, error)| error)?;
        let address = mapped.iter().next().map_or(0, |page| page.bus_address);
        let plausible = address != 0 && address % PAGE_BYTES as u64 == 0;
        plausible.then_some(address).ok_or(GrantError::BusAddress(address))
    }
}
