//! Memory that the device reads and writes while we do: never behind a Rust reference, but for single words.

use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU16, Ordering};

use kernel::arch::copy;
use kernel::bring_up::Foundation;
use kernel::limits::PAGE_BYTES;
use kernel::mm::address::Gfn;
use kernel::mm::frames::{FrameAllocator, FrameRun};

/// Pages next to each other.
pub struct Pages(FrameRun);

impl Pages {
    /// Takes `count` of our pages.
    ///
    /// # Errors
    /// There are not so many.
    pub fn take(foundation: &Foundation, count: usize) -> Result<Self, &'static str> {
        FrameAllocator::take(&foundation.frames, count).map(Self).ok_or("no memory for pages")
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.bytes() / PAGE_BYTES
    }

    /// Address of a byte.
    #[must_use]
    pub fn address(&self, offset: usize) -> u64 {
        self.check(offset, 0) as u64
    }

    /// The frame of page `page`.
    #[must_use]
    pub fn frame(&self, page: usize) -> Gfn {
        Gfn::containing(self.check(page * PAGE_BYTES, 0))
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, data: &[u8]) {
        let address = self.check(offset, data.len());
        // SAFETY: the bytes are RAM of ours that nobody borrows.
        unsafe { copy::to_shared(with_exposed_provenance_mut(address), data) };
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let address = self.check(offset, out.len());
        // SAFETY: as for `write`.
        unsafe { copy::from_shared(with_exposed_provenance(address), out) };
    }

    /// The same byte all over whole pages.
    pub fn fill(&self, offset: usize, length: usize, byte: u8) {
        let page = [byte; PAGE_BYTES];
        (offset..offset + length).step_by(PAGE_BYTES).for_each(|at| self.write(at, &page));
    }

    /// A word that the other side changes, too, or looks at.
    #[must_use]
    pub fn word(&self, offset: usize) -> &AtomicU16 {
        let address = self.check(offset, size_of::<u16>());
        // SAFETY: the bytes are RAM of ours, aligned if the offset is even, and only used as an atomic word.
        unsafe { &*with_exposed_provenance::<AtomicU16>(address) }
    }

    /// The word, and after it all that was written before it.
    #[must_use]
    pub fn load(&self, offset: usize) -> u16 {
        self.word(offset).load(Ordering::Acquire)
    }

    /// The address of `length` bytes, which must be ours.
    fn check(&self, offset: usize, length: usize) -> usize {
        assert!(offset + length <= self.0.bytes(), "by hand: outside of its own pages");
        self.0.address() + offset
    }
}
