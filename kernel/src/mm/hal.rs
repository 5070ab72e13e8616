//! What `virtio-drivers` asks of us: the one pool of memory for devices.

use core::ptr::{self, NonNull};

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use super::dma::{DeviceWrote, DmaPool};
use crate::arch::single_core::SingleCore;

static POOL: SingleCore<Option<DmaPool>> = SingleCore::new(None);

/// A bus address at which no machine has memory (the largest are 52 bits wide): a device that is given it fails the
/// request.
const UNREACHABLE: PhysAddr = 1 << 63;

/// Gives the drivers their memory. Before this, every allocation fails.
pub fn init(pool: DmaPool) {
    if let Some(mut place) = POOL.try_borrow() {
        *place = Some(pool);
    }
}

/// Bytes of the pool that are free.
#[must_use]
pub fn free_bytes() -> usize {
    POOL.try_borrow().and_then(|pool| pool.as_ref().map(DmaPool::free_bytes)).unwrap_or(0)
}

/// The kernel, for drivers of physical devices.
#[derive(Debug)]
pub struct KernelHal;

// SAFETY: allocations are whole, zeroed pages of the pool, which gives no page twice and is never dropped.
unsafe impl Hal for KernelHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // Address 0 is how the trait says that there is no memory.
        with_pool(|pool| pool.allocate(pages)).flatten().unwrap_or((0, NonNull::dangling()))
    }

    unsafe fn dma_dealloc(_bus_address: PhysAddr, address: NonNull<u8>, pages: usize) -> i32 {
        let _ = with_pool(|pool| pool.free(address, pages));
        // Anything else would be a panic in the caller.
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _size: usize) -> NonNull<u8> {
        NonNull::new(ptr::with_exposed_provenance_mut(address as usize)).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        // SAFETY: the trait's contract.
        let shared = with_pool(|pool| unsafe { pool.share(buffer) }).flatten();
        shared.unwrap_or_else(|| {
            log::warn!("dma: no memory to copy {} bytes for a device", buffer.len());
            UNREACHABLE
        })
    }

    unsafe fn unshare(bus_address: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let wrote = match direction {
            BufferDirection::DriverToDevice => DeviceWrote::No,
            BufferDirection::DeviceToDriver | BufferDirection::Both => DeviceWrote::Yes,
        };
        // SAFETY: the trait's contract.
        let _ = with_pool(|pool| unsafe { pool.unshare(bus_address, buffer, wrote) });
    }
}

fn with_pool<T>(work: impl FnOnce(&mut DmaPool) -> T) -> Option<T> {
    POOL.try_borrow().and_then(|mut pool| pool.as_mut().map(work))
}
