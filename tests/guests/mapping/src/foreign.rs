//! Pages of the target mapped and unmapped by hand, from a frame number of ours on, past the kernel's own books.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::error::Error;

use kernel::mm::address::Gfn;
use kernel::xen::DomainId;
use kernel::xen::memory::{REMOVE_BATCH, map_foreign, remove, remove_many};

use crate::target::{self, Page};

/// Pages that are mapped by one hypercall.
pub const MAP_BATCH: usize = 256;

/// Maps up to [`MAP_BATCH`] pages at frame numbers from `first` on, all of them holes, by one hypercall.
pub fn map(domain: DomainId, pages: &[Page], first: Gfn) -> Result<(), Box<dyn Error>> {
    let (mut frames, mut own, mut errors) = ([0; MAP_BATCH], [0; MAP_BATCH], [0; MAP_BATCH]);
    let places = frames.iter_mut().zip(&mut own);
    for ((index, page), (frame, own)) in (first.0..).zip(pages).zip(places) {
        *frame = target::frame(*page).0;
        *own = index;
    }
    let count = pages.len().min(MAP_BATCH);
    map_foreign(domain, &frames[..count], &own[..count], &mut errors[..count])?;
    if errors.iter().any(|error| *error != 0) {
        return Err("a page cannot be mapped".into());
    }
    Ok(())
}

/// Unmaps `count` pages from `first` on. Returns by how many hypercalls.
pub fn unmap(first: Gfn, count: usize) -> Result<u64, Box<dyn Error>> {
    if count == 1 {
        remove(first.0)?;
        return Ok(1);
    }
    let own: Vec<u64> = (first.0..).take(count).collect();
    let mut calls = 0;
    for batch in own.chunks(REMOVE_BATCH) {
        let mut results = [0; REMOVE_BATCH];
        remove_many(batch, &mut results)?;
        calls += 1;
        if results.iter().any(|result| *result != 0) {
            return Err("a page cannot be unmapped".into());
        }
    }
    Ok(calls)
}
