//! Our grant table, its first page: who may reach which page of ours.

use core::ptr::with_exposed_provenance;
use core::sync::atomic::Ordering;

use kernel::limits::PAGE_BYTES;
use kernel::mm::address::Gfn;
use kernel::xen::DomainId;
use kernel::xen::abi::{GrantEntry, grant};
use kernel::xen::hypercall::HypercallError;
use kernel::xen::memory::map_grant_table;

/// What an address that is a grant has set (Linux, `drivers/xen/grant-dma-ops.c`).
pub const GRANT: u64 = 1 << 63;
/// A reference that is in the table, and that we never grant.
pub const NEVER_GRANTED: u32 = grant::ENTRIES as u32 - 1;

/// The address of the first byte of a granted page.
#[must_use]
pub fn granted(reference: u32) -> u64 {
    GRANT | (u64::from(reference) * PAGE_BYTES as u64)
}

/// What the other domain may do with a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
}

/// Our grant table.
pub struct Grants {
    page: Gfn,
    /// The next entry to be used: those before it are granted, or were.
    next: u32,
}

impl Grants {
    /// Maps the table at `page`, a hole.
    ///
    /// # Errors
    /// Xen's answer.
    pub fn new(page: Gfn) -> Result<Self, HypercallError> {
        map_grant_table(page.0)?;
        Ok(Self { page, next: grant::FIRST_FREE })
    }

    /// Lets `domain` reach `frame`. Returns the reference: always the one after the last.
    pub fn grant(&mut self, domain: DomainId, frame: Gfn, right: Right) -> u32 {
        let reference = self.next;
        self.next += 1;
        let entry = self.entry(reference);
        let read_only = if right == Right::Read { grant::READ_ONLY } else { 0 };
        entry.domain.store(domain.0, Ordering::Relaxed);
        entry.frame.store(frame.0 as u32, Ordering::Relaxed);
        entry.flags.store(grant::PERMIT_ACCESS | read_only, Ordering::Release);
        reference
    }

    /// Where the next grants begin: what is granted from now on can be taken back with [`Self::take_back`].
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.next
    }

    /// Takes back what was granted since a mark. Returns how many are still in use by the other domain; they stay.
    pub fn take_back(&mut self, mark: u32) -> usize {
        let in_use = (mark..self.next).filter(|reference| !self.revoke(*reference)).count();
        self.next = mark;
        in_use
    }

    /// Takes one grant back; false if it is in use.
    pub fn revoke(&self, reference: u32) -> bool {
        let flags = &self.entry(reference).flags;
        let granted = flags.load(Ordering::Relaxed) & !(grant::READING | grant::WRITING);
        flags.compare_exchange(granted, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn entry(&self, reference: u32) -> &GrantEntry {
        let reference = reference as usize;
        assert!(reference < grant::ENTRIES, "by hand: its grant table is full");
        let address = self.page.address() + reference * size_of::<GrantEntry>();
        // SAFETY: the table was mapped by `new` for good, and the entry lies in its first page; all fields are atomic.
        unsafe { &*with_exposed_provenance(address) }
    }
}
