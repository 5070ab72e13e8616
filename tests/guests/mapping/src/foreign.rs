//! Pages of the target mapped and unmapped by hand, past the kernel's own books.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::error::Error;

use kernel::mm::address::Gfn;
use kernel::xen::DomainId;
use kernel::xen::memory::{REMOVE_BATCH, map_foreign, remove, remove_many};

use crate::target::{self, Page};

/// Maps pages of the target. Keeps its work space, so that mapping takes no memory.
pub struct Mapper {
    domain: DomainId,
    frames: Vec<u64>,
    own: Vec<u64>,
    errors: Vec<i32>,
}

impl Mapper {
    pub fn new(domain: DomainId) -> Self {
        Self { domain, frames: Vec::new(), own: Vec::new(), errors: Vec::new() }
    }

    /// Maps pages at frame numbers from `first` on, all of them holes, by one hypercall.
    pub fn map(&mut self, pages: &[Page], first: Gfn) -> Result<(), Box<dyn Error>> {
        let Self { domain, frames, own, errors } = self;
        frames.clear();
        frames.extend(pages.iter().map(|page| target::frame(*page).0));
        own.clear();
        own.extend((first.0..).take(pages.len()));
        errors.clear();
        errors.resize(pages.len(), 0);
        map_foreign(*domain, frames, own, errors)?;
        if errors.iter().any(|error| *error != 0) {
            return Err("a page cannot be mapped".into());
        }
        Ok(())
    }

    /// Unmaps `count` pages from `first` on. Returns by how many hypercalls.
    pub fn unmap(&mut self, first: Gfn, count: usize) -> Result<u64, Box<dyn Error>> {
        if count == 1 {
            remove(first.0)?;
            return Ok(1);
        }
        self.own.clear();
        self.own.extend((first.0..).take(count));
        let mut calls = 0;
        for batch in self.own.chunks(REMOVE_BATCH) {
            let mut results = [0; REMOVE_BATCH];
            remove_many(batch, &mut results)?;
            calls += 1;
            if results.iter().any(|result| *result != 0) {
                return Err("a page cannot be unmapped".into());
            }
        }
        Ok(calls)
    }
}
