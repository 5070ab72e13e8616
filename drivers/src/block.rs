//! What a virtio-blk device model asks of the storage behind it: a [`Volume`].
//!
//! ```text
//!   begin ──> Done(result)                       storage in RAM
//!        └──> Pending ──> next_done ──> finish   a physical disk
//! ```
//! Neighbours: [`crate::virtio::blk`] makes the operations, [`crate::volume`] serves them.

use crate::guest::PinnedMemory;

/// Bytes in a sector, the unit of virtio-blk (virtio 1.2, 5.2.6), whatever the volume's own block size is.
pub const SECTOR_BYTES: u64 = 512;

/// What a volume is and can do. Constant while the volume is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in sectors of [`SECTOR_BYTES`].
    pub sectors: u64,
    /// Logical block size in bytes: a power of two, at least [`SECTOR_BYTES`]. Reads and writes are whole blocks.
    pub block_bytes: u32,
    /// Writes, discards and write-zeroes are refused.
    pub read_only: bool,
    /// What has been completed may be lost until a flush.
    pub has_cache: bool,
    /// Most bytes in one read or write, a multiple of the block size. Device models split larger requests.
    pub transfer_bytes_max: u32,
    /// Most sectors in one discard; 0 when there is no such operation.
    pub discard_sectors_max: u32,
    /// Most sectors in one write-zeroes; 0 when there is no such operation.
    pub write_zeroes_sectors_max: u32,
}

/// One validated piece of work, for a volume or for the drive below it. Sectors lie inside of it and are whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sectors to memory.
    Read {
        /// First sector.
        sector: u64,
        /// Bytes, a multiple of [`SECTOR_BYTES`].
        length: u32,
    },
    /// Memory to sectors.
    Write {
        /// First sector.
        sector: u64,
        /// Bytes, a multiple of [`SECTOR_BYTES`].
        length: u32,
    },
    /// Everything completed before this is durable when this completes.
    Flush,
    /// The content of these sectors is no longer needed: what they read as afterwards is the volume's choice.
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
    /// The physical disk refused.
    #[error("disk: {0}")]
    Drive(#[from] crate::drive::DriveError),
}

/// Names an operation of a device model from [`Volume::begin`] to [`Volume::finish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u32);

/// What became of an operation at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Begun {
    /// It is done already, or cannot be.
    Done(Result<(), VolumeError>),
    /// [`Volume::next_done`] will name it.
    Pending,
}

/// An operation that is done; it must go to [`Volume::finish`], which gives back what it took.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Done {
    /// Which operation.
    pub tag: Tag,
    /// What came of it; of a read, where the volume keeps its bytes.
    pub outcome: Result<Option<u16>, VolumeError>,
}

/// Storage of a fixed size. `P` is the pinned guest memory that reads and writes copy to and from.
pub trait Volume<P: PinnedMemory> {
    /// Size and abilities.
    fn geometry(&self) -> Geometry;

    /// How many operations more may be begun now.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Begins `operation`. What a write takes is at `offset` of `memory`, and is copied before this returns; a failed
    /// write may have reached a part of its sectors. What is read goes there, now or in [`Self::finish`].
    fn begin(&mut self, tag: Tag, operation: Operation, memory: &P, offset: u32) -> Begun;

    /// The next operation that is done.
    fn next_done(&mut self) -> Option<Done> {
        None
    }

    /// Tells the outcome of an operation and, of a read, copies its bytes to `offset` of `memory`.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn finish(&mut self, done: Done, memory: &P, offset: u32) -> Result<(), VolumeError> {
        let _ = (memory, offset);
        done.outcome.map(drop)
    }

    /// Forgets all operations under way: none of them will be told. What was begun of them may still happen, but before
    /// anything that is begun later.
    fn cancel(&mut self) {}
}
