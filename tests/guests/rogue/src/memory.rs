//! Our memory as the device sees it: by frame numbers, or by grants.

use kernel::limits::PAGE_BYTES;
use kernel::mm::address::Gfn;
use kernel::xen::DomainId;

use by_hand::grants::{Grants, Right, granted};
use by_hand::pages::Pages;

pub enum Memory {
    /// The device may reach all of it.
    Shared,
    /// The device may reach what it is granted.
    Granted {
        grants: Grants,
        /// To whom.
        backend: DomainId,
        /// What is granted before this stays so until a reset: the rings.
        rings_end: u32,
    },
}

impl Memory {
    /// The address by which the device reaches bytes that lie in one page.
    pub fn reach(&mut self, pages: &Pages, offset: usize, right: Right) -> u64 {
        let own = pages.address(offset);
        let Self::Granted { grants, backend, .. } = self else { return own };
        let reference = grants.grant(*backend, Gfn::containing(own as usize), right);
        granted(reference) | (own % PAGE_BYTES as u64)
    }

    /// Takes back what was granted for requests. Returns how much of it is still in use, which must be nothing once the device
    /// has told that they are done.
    pub fn take_back(&mut self) -> usize {
        let Self::Granted { grants, rings_end, .. } = self else { return 0 };
        grants.take_back(*rings_end)
    }

    /// Takes back what was granted for rings, after a reset, likewise.
    pub fn take_rings_back(&mut self) -> usize {
        let Self::Granted { grants, rings_end, .. } = self else { return 0 };
        *rings_end = kernel::xen::abi::grant::FIRST_FREE;
        grants.take_back(*rings_end)
    }

    /// What was granted so far are rings.
    pub fn keep_rings(&mut self) {
        if let Self::Granted { grants, rings_end, .. } = self {
            *rings_end = grants.mark();
        }
    }
}
