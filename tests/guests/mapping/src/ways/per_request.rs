//! Pages are mapped for a request, or for a batch of them, and unmapped after it.

use alloc::boxed::Box;
use core::error::Error;
use core::ops::Range;

use kernel::mm::address::Gfn;
use kernel::xen::DomainId;

use super::{Counts, Way, copy_from};
use crate::foreign::Mapper;
use crate::target::Page;

pub struct PerRequest {
    mapper: Mapper,
    first: Gfn,
    counts: Counts,
}

impl PerRequest {
    pub fn new(domain: DomainId, window: &Range<usize>) -> Self {
        Self { mapper: Mapper::new(domain), first: Gfn::containing(window.start), counts: Counts::default() }
    }
}

impl Way for PerRequest {
    /// Requests of a page each.
    fn read(&mut self, pages: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>> {
        self.mapper.map(pages, self.first)?;
        for (gfn, (_, part)) in (self.first.0..).zip(pages.iter().zip(parts)) {
            // SAFETY: mapped just now.
            unsafe { copy_from(Gfn(gfn).address(), part) };
        }
        self.counts.hypercalls += 1 + self.mapper.unmap(self.first, pages.len())?;
        self.counts.misses += pages.len() as u64;
        self.counts.flushes += pages.len() as u64;
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
