//! Pages are mapped for a request, or for a batch of them, and unmapped after it.

use alloc::boxed::Box;
use core::error::Error;
use core::ops::Range;

use kernel::mm::address::Gfn;
use kernel::xen::DomainId;
use kernel::xen::memory::{REMOVE_BATCH, map_foreign, remove, remove_many};

use super::{Counts, Way, copy_from};
use crate::measure::BATCH_MAX;
use crate::target::{self, Page};

pub struct PerRequest {
    domain: DomainId,
    first: Gfn,
    counts: Counts,
}

impl PerRequest {
    pub fn new(domain: DomainId, window: &Range<usize>) -> Self {
        Self { domain, first: Gfn::containing(window.start), counts: Counts::default() }
    }

    fn unmap(&mut self, own: &[u64]) -> Result<(), Box<dyn Error>> {
        if let [one] = own {
            self.counts.hypercalls += 1;
            return Ok(remove(*one)?);
        }
        for batch in own.chunks(REMOVE_BATCH) {
            let mut results = [0; REMOVE_BATCH];
            remove_many(batch, &mut results)?;
            self.counts.hypercalls += 1;
            if results.iter().any(|result| *result != 0) {
                return Err("a page cannot be unmapped".into());
            }
        }
        Ok(())
    }
}

impl Way for PerRequest {
    fn read(&mut self, pages: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>> {
        let count = pages.len();
        let (mut frames, mut own, mut errors) = ([0; BATCH_MAX], [0; BATCH_MAX], [0; BATCH_MAX]);
        for (index, page) in pages.iter().enumerate() {
            frames[index] = target::frame(*page).0;
            own[index] = self.first.0 + index as u64;
        }
        let own = &own[..count];
        map_foreign(self.domain, &frames[..count], own, &mut errors[..count])?;
        if errors.iter().any(|error| *error != 0) {
            return Err("a page cannot be mapped".into());
        }
        for (own, part) in own.iter().zip(parts) {
            // SAFETY: mapped just now.
            unsafe { copy_from(Gfn(*own).address(), part) };
        }
        self.counts.hypercalls += 1;
        self.counts.misses += count as u64;
        self.counts.flushes += count as u64;
        self.unmap(own)
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
