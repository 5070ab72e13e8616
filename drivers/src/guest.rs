//! What a device model may ask of its guest: memory, and an interrupt line.
//!
//! The kernel implements these traits over foreign pages, `fake` over host memory. A guest
//! keeps running on its own vCPUs while a device model reads, so **nothing here ever hands out a Rust
//! reference to guest memory**: every access copies a value out or in, and the copy is what gets validated.

use core::ops::Deref;
use core::sync::atomic::Ordering;

/// An address in a guest's physical address space, in bytes, as the guest wrote it: an allegation, not a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestAddress(pub u64);

/// A range of guest memory as a guest described it. Proves nothing until [`GuestMemory::pin`] accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRegion {
    /// First byte.
    pub address: GuestAddress,
    /// Length in bytes.
    pub length: u32,
}

/// Why guest memory cannot be reached. The fault is the guest's unless the variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The guest has no RAM at a page of the region, or the region wraps around the address space.
    #[error("no guest memory at {0:#x}")]
    NotMapped(u64),
    /// The address is none of those that the platform translates, and it translates them all
    /// ([`Features::ACCESS_PLATFORM`](crate::virtio::Features::ACCESS_PLATFORM)).
    #[error("{0:#x} is no address that the platform translates")]
    Untranslated(u64),
    /// The access lies outside what was pinned, or writes to what was pinned for reading.
    #[error("access outside the pinned region")]
    OutOfRange,
    /// Ours: this device's share of the window is pinned, or all of it, or the hypervisor has no memory for our page
    /// tables.
    #[error("no free slot to map guest memory")]
    Exhausted,
}

/// What a device model does with guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It only reads.
    Read,
    /// It may write, and read.
    Write,
}

/// The memory of one guest.
///
/// A guest may let its device reach a page for reading only, and take a page back as soon as its request is done: so
/// [`Self::pin_split`] tells what will be written, and all that was pinned for a request is dropped before the guest is
/// told that it is done.
pub trait GuestMemory {
    /// Pinned guest pages.
    type Pinned: PinnedMemory;

    /// Makes `regions` reachable, seen as one run of bytes in the order given, until the result is dropped.
    ///
    /// # Errors
    /// All or nothing: [`MemoryError`] when any page of any region cannot be reached. An empty region, or an
    /// empty list, is fine and pins nothing. Where memory is not mapped but copied, a page that cannot be reached shows
    /// only when it is read or written.
    fn pin(&self, regions: &[GuestRegion]) -> Result<Self::Pinned, MemoryError>;

    /// [`Self::pin`], for regions of which the first `readable_bytes` bytes will only be read.
    ///
    /// # Errors
    /// As [`Self::pin`].
    fn pin_split(&self, regions: &[GuestRegion], readable_bytes: u32) -> Result<Self::Pinned, MemoryError> {
        let _ = readable_bytes;
        self.pin(regions)
    }

    /// [`Self::pin`], for a ring: it stays pinned for long, and is looked at often.
    ///
    /// # Errors
    /// As [`Self::pin`]; what cannot be reached shows now.
    fn pin_ring(&self, ring: GuestRegion, access: Access) -> Result<Self::Pinned, MemoryError> {
        let _ = access;
        self.pin(&[ring])
    }

    /// Copies guest bytes from `address` on to `out`, with nothing pinned: for small things that are read once.
    ///
    /// # Errors
    /// As [`Self::pin`]; `out` is then unspecified.
    fn read(&self, address: GuestAddress, out: &mut [u8]) -> Result<(), MemoryError> {
        self.read_by_pin(address, out)
    }

    /// The way of [`Self::read`] where there is no better one: by a pin that is given back at once.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_by_pin(&self, address: GuestAddress, out: &mut [u8]) -> Result<(), MemoryError> {
        let length = u32::try_from(out.len()).map_err(|_| MemoryError::OutOfRange)?;
        self.pin(&[GuestRegion { address, length }])?.read(0, out)
    }

    /// Copies guest bytes from several addresses, each as [`Self::read`] does, where that costs less together than one by
    /// one. Returns whether all were copied: if not, each is for the caller to read.
    fn read_together<'a>(&self, reads: impl Iterator<Item = (GuestAddress, &'a mut [u8])>) -> bool {
        let _ = reads;
        false
    }

    /// Copies bytes to several guest addresses, with nothing pinned, where that costs less than to pin them. Returns whether all
    /// were copied: if not, some may have been, and all are for the caller to write.
    fn write_together<'a>(&self, writes: impl Iterator<Item = (GuestAddress, &'a [u8])>) -> bool {
        let _ = writes;
        false
    }

    /// Says that `regions` will be pinned or read soon, so that all pages still missing are mapped by one hypercall.
    /// A hint: failure shows when they are pinned.
    fn prefetch(&self, regions: &[GuestRegion]);
}

/// Guest pages that stay reachable as long as this value lives; the guest may change their content at any time.
///
/// Offsets count bytes from the start of the first region. Dropping the value unpins the pages.
pub trait PinnedMemory {
    /// Bytes pinned in all.
    fn len(&self) -> u32;

    /// Whether nothing is pinned.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies guest bytes at `offset` to `out`.
    ///
    /// # Errors
    /// [`MemoryError`] when the range does not lie inside, or cannot be reached any more; `out` is then unspecified.
    fn read(&self, offset: u32, out: &mut [u8]) -> Result<(), MemoryError>;

    /// Copies `data` to guest bytes at `offset`.
    ///
    /// # Errors
    /// [`MemoryError`] when the range does not lie inside, or cannot be reached any more; a part may have been written.
    fn write(&self, offset: u32, data: &[u8]) -> Result<(), MemoryError>;

    /// Loads the little-endian half-word at the even `offset`, in one access: what a ring index needs.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`] when it does not lie inside one page of the region.
    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError>;

    /// Stores a little-endian half-word at the even `offset`, in one access.
    ///
    /// # Errors
    /// As [`Self::load_u16`].
    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError>;

    /// Orders our accesses to all guest memory before it and after it, as a fence of that `ordering` does. A method, so that
    /// memory made for tests can tell what is ordered and what is not.
    fn fence(&self, ordering: Ordering) {
        core::sync::atomic::fence(ordering);
    }
}

/// Whatever keeps guest pages pinned by holding on to something else.
impl<P> PinnedMemory for P
where
    P: Deref,
    P::Target: PinnedMemory,
{
    fn len(&self) -> u32 {
        (**self).len()
    }

    fn read(&self, offset: u32, out: &mut [u8]) -> Result<(), MemoryError> {
        (**self).read(offset, out)
    }

    fn write(&self, offset: u32, data: &[u8]) -> Result<(), MemoryError> {
        (**self).write(offset, data)
    }

    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError> {
        (**self).load_u16(offset)
    }

    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError> {
        (**self).store_u16(offset, value)
    }

    fn fence(&self, ordering: Ordering) {
        (**self).fence(ordering);
    }
}

/// The interrupt line of one device to its guest.
pub trait InterruptLine {
    /// Raises one edge. Cheap to call, costs a hypercall: the caller decides once per batch.
    fn raise(&self);
}
