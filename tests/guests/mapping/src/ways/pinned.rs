//! The pager: pages are pinned for a request, what is missing in a batch is mapped by one hypercall, over pages that are not in use.

use alloc::boxed::Box;
use core::error::Error;

use kernel::limits::PAGE_BYTES;
use kernel::mm::foreign::{Pager, PinnedSlots};
use kernel::mm::physmap::Window;
use kernel::xen::DomainId;

use super::{Counts, Way, copy_from};
use crate::target::{self, Page};

pub struct Pinned {
    domain: DomainId,
    pager: Pager,
}

impl Pinned {
    /// With slots in `window`.
    pub fn new(domain: DomainId, window: Window) -> Self {
        Self { domain, pager: Pager::new(window) }
    }
}

impl Way for Pinned {
    fn read(&mut self, pages: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>> {
        if pages.len() > 1 {
            self.pager.prefetch(self.domain, pages.iter().map(|page| target::frame(*page)));
        }
        let mut slots = PinnedSlots::new();
        for (page, part) in pages.iter().zip(parts) {
            let end = page + part.len().div_ceil(PAGE_BYTES) as Page;
            slots.clear();
            self.pager.pin(self.domain, &(*page..end).map(target::frame), &mut slots)?;
            for (slot, piece) in slots.iter().zip(part.chunks_mut(PAGE_BYTES)) {
                // SAFETY: a pinned slot stays mapped.
                unsafe { copy_from(self.pager.address(*slot), piece) };
                self.pager.unpin(*slot);
            }
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        counts(&self.pager)
    }

    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        leave(&mut self.pager, self.domain)
    }
}

/// What a pager has done so far. To replace a page takes one flush, to fill a hole none.
pub fn counts(pager: &Pager) -> Counts {
    let counters = pager.counters();
    Counts {
        misses: counters.misses,
        hypercalls: counters.map_calls,
        flushes: counters.evictions,
        ..Counts::default()
    }
}

/// Unmaps all, and makes RAM again of slots that are out of it.
pub fn leave(pager: &mut Pager, domain: DomainId) -> Result<(), Box<dyn Error>> {
    pager.forget(domain);
    let ballooned = pager.window().ballooned();
    pager.give_back(ballooned).map_err(|_| "Xen does not give our RAM back")?;
    if pager.mapped() > 0 || pager.window().ballooned() > 0 {
        return Err("the window is not empty at the end".into());
    }
    Ok(())
}
