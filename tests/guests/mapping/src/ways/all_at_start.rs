//! All of the target's memory is mapped at the start, and stays: address space and second-stage tables for all of it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::error::Error;
use core::ops::Range;

use kernel::mm::address::Gfn;
use kernel::xen::DomainId;

use super::{Counts, Way, copy_from, pieces};
use crate::foreign::Mapper;
use crate::target::{FIRST_PAGE, PAGES, Page};

pub struct AllAtStart {
    mapper: Mapper,
    first: Gfn,
    counts: Counts,
}

/// Pages that are mapped by one hypercall.
const MAP_BATCH: usize = 256;

impl AllAtStart {
    /// `space` has room for all of the memory of `domain`.
    pub fn new(domain: DomainId, space: &Range<usize>) -> Result<Self, Box<dyn Error>> {
        let mapper = Mapper::new(domain);
        let mut all = Self { mapper, first: Gfn::containing(space.start), counts: Counts::default() };
        let pages: Vec<Page> = (FIRST_PAGE..PAGES).collect();
        for batch in pages.chunks(MAP_BATCH) {
            let first = batch.first().copied().unwrap_or_default();
            let first = all.gfn(first);
            all.mapper.map(batch, first)?;
        }
        Ok(all)
    }

    fn gfn(&self, page: Page) -> Gfn {
        Gfn(self.first.0 + u64::from(page))
    }
}

impl Way for AllAtStart {
    fn read(&mut self, pages: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>> {
        for (page, part) in pages.iter().zip(parts) {
            for (page, piece) in pieces(*page, part) {
                // SAFETY: mapped, and not unmapped before the end.
                unsafe { copy_from(self.gfn(page).address(), piece) };
            }
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        let first = self.gfn(FIRST_PAGE);
        self.mapper.unmap(first, (PAGES - FIRST_PAGE) as usize).map(drop)
    }
}
