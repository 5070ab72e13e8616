//! A guest's memory, in the way that its device was described with: all of it, or what the guest grants.

use core::ops::Deref;

use drivers::guest::{Access, GuestAddress, GuestMemory, GuestRegion, MemoryError, PinnedMemory};

use crate::mm::granted::{GrantedMemory, GrantedPinned};
use crate::mm::pinned::{ForeignMemory, ForeignPinned};

/// How a device reaches its guest's memory: xenstore's `grant_usage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All of it, by its frame numbers.
    Foreign,
    /// Only what the guest grants.
    Granted,
}

/// Memory that is foreign or granted: one of the two for a device's life.
pub enum SharedMemory {
    /// See [`Sharing::Foreign`].
    Foreign(ForeignMemory),
    /// See [`Sharing::Granted`].
    Granted(GrantedMemory),
}

/// Pinned regions of either.
pub enum SharedPinned {
    /// See [`Sharing::Foreign`].
    Foreign(ForeignPinned),
    /// See [`Sharing::Granted`].
    Granted(GrantedPinned),
}

impl GuestMemory for SharedMemory {
    type Pinned = SharedPinned;

    #[inline]
    fn pin(&self, regions: &[GuestRegion]) -> Result<SharedPinned, MemoryError> {
        match self {
            Self::Foreign(memory) => memory.pin(regions).map(SharedPinned::Foreign),
            Self::Granted(memory) => memory.pin(regions).map(SharedPinned::Granted),
        }
    }

    #[inline]
    fn pin_split(&self, regions: &[GuestRegion], readable_bytes: u32) -> Result<SharedPinned, MemoryError> {
        match self {
            Self::Foreign(memory) => memory.pin_split(regions, readable_bytes).map(SharedPinned::Foreign),
            Self::Granted(memory) => memory.pin_split(regions, readable_bytes).map(SharedPinned::Granted),
        }
    }

    fn pin_ring(&self, ring: GuestRegion, access: Access) -> Result<SharedPinned, MemoryError> {
        match self {
            Self::Foreign(memory) => memory.pin_ring(ring, access).map(SharedPinned::Foreign),
            Self::Granted(memory) => memory.pin_ring(ring, access).map(SharedPinned::Granted),
        }
    }

    #[inline]
    fn read(&self, address: GuestAddress, out: &mut [u8]) -> Result<(), MemoryError> {
        match self {
            Self::Foreign(memory) => memory.read(address, out),
            Self::Granted(memory) => memory.read(address, out),
        }
    }

    fn read_together<'a>(&self, reads: impl Iterator<Item = (GuestAddress, &'a mut [u8])>) -> bool {
        match self {
            Self::Foreign(memory) => memory.read_together(reads),
            Self::Granted(memory) => memory.read_together(reads),
        }
    }

    fn write_together<'a>(&self, writes: impl Iterator<Item = (GuestAddress, &'a [u8])>) -> bool {
        match self {
            Self::Foreign(memory) => memory.write_together(writes),
            Self::Granted(memory) => memory.write_together(writes),
        }
    }

    #[inline]
    fn prefetch(&self, regions: &[GuestRegion]) {
        match self {
            Self::Foreign(memory) => memory.prefetch(regions),
            Self::Granted(memory) => memory.prefetch(regions),
        }
    }
}

impl Deref for SharedPinned {
    type Target = dyn PinnedMemory;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Foreign(pinned) => &**pinned,
            Self::Granted(pinned) => &**pinned,
        }
    }
}
