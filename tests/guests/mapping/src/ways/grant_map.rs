//! Granted pages are mapped for a request, or for a batch of them, and unmapped after it, as their owner wants them back.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::error::Error;
use core::ops::Range;

use drivers::guest::Access;
use kernel::mm::address::Gfn;
use kernel::xen::DomainId;
use kernel::xen::grant::{MAP_BATCH, Mapped, Wanted, map, unmap};

use super::{Counts, Way, copy_from, pieces};
use crate::target::{self, Page};

pub struct GrantMap {
    domain: DomainId,
    first: Gfn,
    counts: Counts,
    /// Work space, kept as a backend would.
    wanted: Vec<Wanted>,
    mapped: Vec<Mapped>,
}

impl GrantMap {
    pub fn new(domain: DomainId, window: &Range<usize>) -> Self {
        let first = Gfn::containing(window.start);
        Self { domain, first, counts: Counts::default(), wanted: Vec::new(), mapped: Vec::new() }
    }
}

impl Way for GrantMap {
    fn read(&mut self, pages: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>> {
        let Self { domain, first, counts, wanted, mapped } = self;
        wanted.clear();
        let all = pages.iter().zip(&mut *parts).flat_map(|(page, part)| pieces(*page, part));
        for (index, (page, _)) in (first.0..).zip(all) {
            wanted.push(Wanted { reference: target::reference(page), gfn: Gfn(index), access: Access::Read });
        }
        mapped.clear();
        let mut result = Ok(());
        for batch in wanted.chunks(MAP_BATCH) {
            counts.hypercalls += 1;
            map(*domain, batch, |_, page| match page {
                Ok(page) => mapped.push(page),
                Err(error) => result = Err(error),
            });
        }
        result?;
        let all = pages.iter().zip(&mut *parts).flat_map(|(page, part)| pieces(*page, part));
        for (page, (_, piece)) in mapped.iter().zip(all) {
            // SAFETY: mapped just now.
            unsafe { copy_from(page.gfn.address(), piece) };
        }
        for batch in mapped.chunks(MAP_BATCH) {
            counts.hypercalls += 1;
            unmap(batch, |_, unmapped| result = result.and(unmapped));
        }
        counts.misses += pages.len() as u64;
        counts.flushes += mapped.len() as u64;
        Ok(result?)
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
