//! The interrupt line of one device to its guest.

use drivers::guest::InterruptLine;

use crate::xen::DomainId;
use crate::xen::dm;

/// An edge-triggered shared interrupt of a guest.
pub struct GuestInterrupt {
    domain: DomainId,
    irq: u32,
}

impl GuestInterrupt {
    /// Interrupt `irq` (a GIC INTID) of `domain`.
    #[must_use]
    pub fn new(domain: DomainId, irq: u32) -> Self {
        Self { domain, irq }
    }
}

impl InterruptLine for GuestInterrupt {
    fn raise(&self) {
        if let Err(error) = dm::raise_irq(self.domain, self.irq) {
            // The guest is on its way out; its teardown comes through xenstore.
            log::debug!("{}: {error}", self.domain);
        }
    }
}
