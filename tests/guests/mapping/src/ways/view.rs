//! Map on fault: the target's memory as one range of addresses; the page that an access does not find comes by a data abort.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::error::Error;

use kernel::arch::view_mmu::Hardware;
use kernel::mm::foreign::Pager;
use kernel::mm::physmap::Window;
use kernel::mm::view::{self, Access, View, Views};
use kernel::xen::DomainId;

use super::{Counts, Way, pinned};
use crate::target::{self, Page};

/// Page tables for all of the target's memory, with room to spare.
pub const ENOUGH_TABLES: usize = 64;

pub struct OnFault {
    domain: DomainId,
    pager: Rc<RefCell<Pager>>,
    views: Rc<Views<Hardware>>,
    view: View<Hardware>,
}

impl OnFault {
    /// A fault maps an aligned block of `fault_around` pages. There are no more than `tables` page tables.
    pub fn new(
        domain: DomainId,
        window: Window,
        fault_around: usize,
        tables: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let pager = Rc::new(RefCell::new(Pager::new(window)));
        view::init(&pager, tables);
        let views = view::running().ok_or("there are no views")?;
        let view = View::new(&views, domain, Access::ReadOnly, fault_around)?;
        Ok(Self { domain, pager, views, view })
    }
}

impl Way for OnFault {
    fn read(&mut self, pages: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>> {
        for (page, part) in pages.iter().zip(parts) {
            self.view.read(target::region(*page, part.len()).address, part)?;
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        let counters = self.views.counters();
        Counts {
            misses: counters.map_faults,
            faults: counters.faults,
            own_flushes: counters.hidden + counters.table_reclaims,
            ..pinned::counts(&self.pager.borrow())
        }
    }

    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        pinned::leave(&mut self.pager.borrow_mut(), self.domain)
    }
}
