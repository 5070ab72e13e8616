//! What a virtio-blk device model asks of the storage behind it: a [`Volume`].
//!
//! Neighbours: [`crate::virtio::blk`] makes the requests, [`crate::volume`] serves them.

use crate::guest::PinnedMemory;

/// Bytes in a sector, the unit of virtio-blk (virtio 1.2, 5.2.6), whatever the volume's own block size is.
pub const SECTOR_BYTES: u64 = 512;

/// What a volume is and can do. Constant while the volume is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in sectors of [`SECTOR_BYTES`].
    pub sectors: u64,
    /// Logical block size in bytes: a power of two, at least [`SECTOR_BYTES`].
    pub block_bytes: u32,
    /// Writes, discards and write-zeroes are refused.
    pub read_only: bool,
}

/// One validated piece of work for a volume. Sector ranges lie inside the volume; buffers lie inside `memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Volume to guest: `length` bytes from `sector` on, to `offset` of the pinned memory.
    Read {
        /// First sector.
        sector: u64,
        /// First byte in the pinned memory.
        offset: u32,
        /// Bytes, a multiple of [`SECTOR_BYTES`].
        length: u32,
    },
    /// Guest to volume, fields as for `Read`.
    Write {
        /// First sector.
        sector: u64,
        /// First byte in the pinned memory.
        offset: u32,
        /// Bytes, a multiple of [`SECTOR_BYTES`].
        length: u32,
    },
    /// Everything completed before this is durable when this completes.
    Flush,
    /// The content of these sectors is no longer needed; they read as zeroes afterwards.
    Discard {
        /// First sector.
        sector: u64,
        /// Number of sectors.
        sectors: u32,
    },
    /// These sectors read as zeroes afterwards.
    WriteZeroes {
        /// First sector.
        sector: u64,
        /// Number of sectors.
        sectors: u32,
    },
}

/// Why a volume could not do an operation; the guest sees VIRTIO_BLK_S_IOERR (virtio 1.2, 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// The range is not inside the volume.
    #[error("beyond the end of the volume")]
    OutOfRange,
    /// The volume is open read-only.
    #[error("volume is read-only")]
    ReadOnly,
    /// The guest buffer could not be reached.
    #[error("guest memory: {0}")]
    Memory(#[from] crate::guest::MemoryError),
}

/// Storage of a fixed size. `P` is the pinned guest memory that reads and writes copy to and from.
pub trait Volume<P: PinnedMemory> {
    /// Size and abilities.
    fn geometry(&self) -> Geometry;

    /// Carries out `operation`; `memory` holds the bytes that a read fills or a write takes.
    ///
    /// # Errors
    /// [`VolumeError`]; a write may then have reached a part of its sectors.
    fn execute(&mut self, operation: Operation, memory: &P) -> Result<(), VolumeError>;
}
