//! The pager as device models use it: regions, announced for a batch, pinned for each request, read by a list of pieces.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::error::Error;

use drivers::guest::{GuestMemory, GuestRegion, PinnedMemory};
use kernel::mm::foreign::Pager;
use kernel::mm::physmap::Window;
use kernel::mm::pinned::ForeignMemory;
use kernel::xen::DomainId;

use super::{Counts, Way, pinned};
use crate::target::{self, Page};

pub struct Devices {
    domain: DomainId,
    pager: Rc<RefCell<Pager>>,
    memory: ForeignMemory,
    /// Kept, as devices do.
    regions: Vec<GuestRegion>,
}

impl Devices {
    pub fn new(domain: DomainId, window: Window) -> Self {
        let pager = Rc::new(RefCell::new(Pager::new(window)));
        let memory = ForeignMemory::new(pager.clone(), domain);
        Self { domain, pager, memory, regions: Vec::new() }
    }
}

impl Way for Devices {
    fn read(&mut self, pages: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>> {
        self.regions.clear();
        self.regions.extend(pages.iter().zip(&*parts).map(|(page, part)| target::region(*page, part.len())));
        if pages.len() > 1 {
            self.memory.prefetch(&self.regions);
        }
        for (region, part) in self.regions.iter().zip(parts) {
            self.memory.pin(core::slice::from_ref(region))?.read(0, part)?;
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        pinned::counts(&self.pager.borrow())
    }

    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        pinned::leave(&mut self.pager.borrow_mut(), self.domain)
    }
}
