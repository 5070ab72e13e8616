//! Memory that physical devices read and write: one run of our frames that is contiguous in the machine, too.
//!
//! Xen gives RAM in blocks of 2 MiB where it can, so a run inside one block is expected to be contiguous; nothing
//! is done with it before every page of it was found to be. Rings and buffers of drivers are whole pages of the pool.
//! Anything else that is shared with a device is copied through pages of the pool.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ptr::{self, NonNull};

use super::address::Gfn;
use super::bus::BusAddresses;
use super::frames::{FrameAllocator, FrameRun};
use crate::arch::copy;
use crate::limits::{DMA_POOL_BYTES, DMA_POOL_SHARE, DMA_POOL_TRIES, PAGE_BYTES};
use crate::xen::grant::GrantError;

/// Why there is no memory for devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// Give the domain more.
    #[error("too little RAM is free for it in any one block of 2 MiB: give this domain more memory=")]
    NoRam,
    /// Xen does not tell where our pages lie in the machine.
    #[error("where our pages lie in the machine cannot be learnt: {0}")]
    NoBusAddress(#[from] GrantError),
    /// The machine's memory is too fragmented.
    #[error("no free RAM of this domain is contiguous in the machine: try more memory=")]
    NotContiguous,
}

/// The memory that devices reach.
pub struct DmaPool {
    /// Which pages of the pool are free.
    frames: Rc<RefCell<FrameAllocator>>,
    /// All of the pool.
    run: FrameRun,
    /// Where it starts for devices.
    bus_address: u64,
}

impl DmaPool {
    /// Takes frames for the pool, as many as [`DMA_POOL_BYTES`] and the free RAM allow, and zeroes them.
    ///
    /// # Errors
    /// [`DmaError`]; nothing is taken then.
    pub fn new(
        owner: &Rc<RefCell<FrameAllocator>>,
        addresses: &mut impl BusAddresses,
    ) -> Result<Self, DmaError> {
        let most = owner.borrow().free() / DMA_POOL_SHARE * PAGE_BYTES;
        let mut error = DmaError::NoRam;
        for bytes in DMA_POOL_BYTES.into_iter().filter(|bytes| *bytes <= most) {
            // Runs with gaps: kept meanwhile, so that the next one is another.
            let mut unfit: Vec<FrameRun> = Vec::new();
            while unfit.len() < DMA_POOL_TRIES
                && let Some(run) = FrameAllocator::take_within_block(owner, bytes / PAGE_BYTES)
            {
                if let Some(bus_address) = contiguous(&run, addresses)? {
                    return Ok(Self::over(run, bus_address));
                }
                error = DmaError::NotContiguous;
                unfit.push(run);
            }
        }
        Err(error)
    }

    fn over(run: FrameRun, bus_address: u64) -> Self {
        zero(run.address(), run.bytes());
        let mut frames = FrameAllocator::default();
        frames.add_bank(&(run.address()..run.address() + run.bytes()));
        Self { frames: Rc::new(RefCell::new(frames)), run, bus_address }
    }

    /// Address of its first byte for us.
    #[must_use]
    pub fn address(&self) -> usize {
        self.run.address()
    }

    /// Address of its first byte for devices.
    #[must_use]
    pub fn bus_address(&self) -> u64 {
        self.bus_address
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.run.bytes()
    }

    /// What of it is free.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.frames.borrow().free() * PAGE_BYTES
    }

    /// Takes `pages` zeroed pages next to each other: their address for devices and for us. None when there are not as
    /// many.
    #[must_use]
    pub fn allocate(&mut self, pages: usize) -> Option<(u64, NonNull<u8>)> {
        let run = FrameAllocator::take(&self.frames, pages)?;
        let start = NonNull::new(ptr::with_exposed_provenance_mut(run.address()))?;
        let bus_address = self.inside(run.address(), run.bytes())?;
        zero(run.address(), run.bytes());
        run.leak();
        Some((bus_address, start))
    }

    /// Gives back what [`Self::allocate`] gave.
    pub fn free(&mut self, start: NonNull<u8>, pages: usize) {
        let start = start.addr().get();
        match FrameAllocator::reclaim(&self.frames, &(start..start + pages * PAGE_BYTES)) {
            Some(run) => drop(run),
            None => log::error!("dma: {pages} pages at {start:#x} come back, which were never given"),
        }
    }

    /// Address for devices of `length` bytes at `start`, if they lie in the pool.
    fn inside(&self, start: usize, length: usize) -> Option<u64> {
        let offset = start.checked_sub(self.run.address())?;
        let fits = offset.checked_add(length)? <= self.run.bytes();
        fits.then(|| self.bus_address + offset as u64)
    }

    /// Where the device finds `buffer`, or a copy of it, until [`Self::unshare`]. None when there are no pages for a
    /// copy.
    ///
    /// # Safety
    /// `buffer` must be valid for reads, and nothing else may write it meanwhile.
    #[must_use]
    pub unsafe fn share(&mut self, buffer: NonNull<[u8]>) -> Option<u64> {
        let start = buffer.cast::<u8>();
        if let Some(bus_address) = self.inside(start.addr().get(), buffer.len()) {
            return Some(bus_address);
        }
        let (bus_address, copy) = self.allocate(buffer.len().div_ceil(PAGE_BYTES))?;
        // A buffer that is only written by the device is copied as well: the device may write less than all of it.
        // SAFETY: the pages are ours and at least as long; the caller vouches for the buffer.
        unsafe { copy::to_shared(copy.as_ptr(), buffer.as_ref()) };
        Some(bus_address)
    }

    /// Ends [`Self::share`], which returned `bus_address` for this `buffer`; what the device `wrote` is in it then.
    ///
    /// # Safety
    /// `buffer` must be valid for reads, and for writes if the device `wrote`; nothing else may use it meanwhile.
    pub unsafe fn unshare(&mut self, bus_address: u64, mut buffer: NonNull<[u8]>, wrote: DeviceWrote) {
        if self.inside(buffer.cast::<u8>().addr().get(), buffer.len()).is_some() {
            return;
        }
        let offset = bus_address.checked_sub(self.bus_address).unwrap_or(u64::MAX);
        let copy = usize::try_from(offset).ok().and_then(|offset| self.run.address().checked_add(offset));
        let Some(copy) = copy.filter(|copy| self.inside(*copy, buffer.len()).is_some()) else { return };
        let Some(copy) = NonNull::new(ptr::with_exposed_provenance_mut(copy)) else { return };
        if wrote == DeviceWrote::Yes {
            // SAFETY: the copy lies in the pool, as was checked; the caller vouches for the buffer.
            unsafe { copy::from_shared(copy.as_ptr(), buffer.as_mut()) };
        }
        self.free(copy, buffer.len().div_ceil(PAGE_BYTES));
    }
}

/// Whether a device may have written what was shared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceWrote {
    /// It may have.
    Yes,
    /// It was to read only.
    No,
}

/// Address of `run` for devices, if each page there comes right after the one before.
fn contiguous(run: &FrameRun, addresses: &mut impl BusAddresses) -> Result<Option<u64>, GrantError> {
    let first = Gfn::containing(run.address());
    let start = addresses.bus_address(first)?;
    for page in 1..(run.bytes() / PAGE_BYTES) as u64 {
        let expected = start.checked_add(page * PAGE_BYTES as u64);
        if expected != Some(addresses.bus_address(Gfn(first.0 + page))?) {
            return Ok(None);
        }
    }
    Ok(Some(start))
}

/// Zeroes frames of ours.
fn zero(address: usize, bytes: usize) {
    // SAFETY: only called for frames taken from a frame allocator and given to nobody yet: RAM of ours, mapped.
    unsafe { copy::zero(ptr::with_exposed_provenance_mut(address), bytes) }
}

#[cfg(test)]
#[path = "dma_tests.rs"]
mod tests;
