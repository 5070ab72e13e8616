//! The ways of reaching another domain's page, one file each.

pub mod all_at_start;
pub mod grant_copy;
pub mod grant_map;
pub mod guest_memory;
pub mod nothing;
pub mod per_request;
pub mod pinned;
pub mod view;

use alloc::boxed::Box;
use core::error::Error;
use core::ops::Sub;

use kernel::arch::copy;
use kernel::limits::PAGE_BYTES;

use crate::target::Page;

/// How requests are served.
pub trait Way {
    /// Reads what is at `pages[i]`, and after it, to `parts[i]`: one request each.
    fn read(&mut self, pages: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>>;

    /// What has been done so far.
    fn counts(&self) -> Counts;

    /// Leaves nothing mapped.
    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(())
    }
}

/// What has been done so far.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Pages that were not mapped when they were asked for.
    pub misses: u64,
    /// Data aborts, those of misses among them.
    pub faults: u64,
    pub hypercalls: u64,
    /// Flushes of the TLB by Xen, by rule: one for each valid entry of a second-stage table that is replaced or removed.
    pub flushes: u64,
    /// Entries of our own TLB that we invalidate.
    pub own_flushes: u64,
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            misses: self.misses - other.misses,
            faults: self.faults - other.faults,
            hypercalls: self.hypercalls - other.hypercalls,
            flushes: self.flushes - other.flushes,
            own_flushes: self.own_flushes - other.own_flushes,
        }
    }
}

/// The pages that a request touches, each with what of it goes where.
fn pieces<'a>(page: Page, part: &'a mut [u8]) -> impl Iterator<Item = (Page, &'a mut [u8])> + use<'a> {
    (page..).zip(part.chunks_mut(PAGE_BYTES))
}

/// Copies what is at `address` to `part`.
///
/// # Safety
/// As many bytes must be mapped there.
unsafe fn copy_from(address: usize, part: &mut [u8]) {
    // SAFETY: the caller's contract.
    unsafe { copy::from_shared(core::ptr::with_exposed_provenance(address), part) };
}
