//! What the block layer asks of a disk's driver: a [`Drive`].
//!
//! A drive has a fixed number of slots. A slot carries one command at a time, and owns a buffer that the device reads
//! and writes, by DMA or over the network, and no guest ever sees. Whose command is in which slot is for [`crate::volume::disk`] to know.
//!
//! ```text
//!   free ── (buffer filled) ── submit ──> at the device ── next_done ──> free, its buffer holds what was read
//! ```
//! Neighbours: [`crate::hardware::block`] is the driver of virtio disks, [`crate::volume::nbd`] of those on other machines,
//! `fake` has one that fails on demand.

use crate::block::{Geometry, Operation, SECTOR_BYTES};
use core::ops::Range;

/// What a drive is and can do. Constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveFacts {
    /// Size in sectors of [`crate::block::SECTOR_BYTES`].
    pub sectors: u64,
    /// Logical block size in bytes.
    pub block_bytes: u32,
    /// It refuses writes.
    pub read_only: bool,
    /// It has a cache that must be flushed; else what it has completed is durable.
    pub has_cache: bool,
    /// Most sectors in a discard, 0 for none.
    pub discard_sectors_max: u32,
    /// Most sectors in a write-zeroes, 0 for none.
    pub write_zeroes_sectors_max: u32,
    /// Commands that it takes at a time.
    pub slots: u16,
    /// Bytes of a slot's buffer, a multiple of the block size.
    pub buffer_bytes: u32,
    /// In how much time it must answer a command.
    pub time_limit_ns: u64,
}

/// In how much time a disk of this machine must answer a command. Most answer in milliseconds, and one that repairs a
/// sector in seconds; Linux gives a SCSI disk 30 s.
pub const TIME_LIMIT_NS: u64 = 20_000_000_000;

impl DriveFacts {
    /// What a volume of `sectors` of this drive looks like.
    #[must_use]
    pub fn geometry(&self, sectors: Range<u64>, read_only: bool) -> Geometry {
        Geometry {
            sectors: sectors.end.saturating_sub(sectors.start),
            block_bytes: self.block_bytes,
            read_only,
            has_cache: self.has_cache,
            transfer_bytes_max: self.buffer_bytes,
            discard_sectors_max: self.range_sectors(self.discard_sectors_max),
            write_zeroes_sectors_max: self.range_sectors(self.write_zeroes_sectors_max),
        }
    }

    /// What guests may discard or zero at a time: no more than a disk does in the time of a large transfer, for others
    /// wait meanwhile.
    fn range_sectors(&self, most: u32) -> u32 {
        let block_sectors = (u64::from(self.block_bytes) / SECTOR_BYTES).max(1);
        let most = u64::from(most.min(RANGE_SECTORS_MAX)) / block_sectors * block_sectors;
        u32::try_from(most).unwrap_or(0)
    }
}

/// 8 MiB.
const RANGE_SECTORS_MAX: u32 = 16384;

/// Why a drive did not carry out a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriveError {
    /// It answered with an error.
    #[error("I/O error")]
    Io,
    /// It does not know the command.
    #[error("the command is not supported")]
    Unsupported,
    /// It did not answer in time, to this command or to an earlier one.
    #[error("no answer within the time limit")]
    Silent,
    /// It broke its own protocol, asks to be reset, or is gone: nothing more is sent to it.
    #[error("the disk is out of order")]
    Broken,
    /// Ours: all slots are taken.
    #[error("no free slot")]
    Busy,
}

/// A command that a drive has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its slot, free again.
    pub slot: u16,
    /// What came of it.
    pub result: Result<(), DriveError>,
}

/// How the connection to a disk on another machine is, and was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Commands can pass.
    pub is_up: bool,
    /// Times that it was made again.
    pub reconnects: u64,
    /// Commands that were sent again, on another connection than before.
    pub replayed: u64,
}

/// A physical disk, or one on another machine.
pub trait Drive {
    /// Size and abilities.
    fn facts(&self) -> DriveFacts;

    /// The buffer of a slot; empty while the device may touch it.
    fn buffer(&mut self, slot: u16) -> &mut [u8];

    /// Hands an operation to the device, which need not look at it before [`Self::kick`]. A transfer is with the start of
    /// the slot's buffer, and fits it.
    ///
    /// # Errors
    /// [`DriveError::Busy`] when the slot is taken or does not exist; [`DriveError::Broken`].
    fn submit(&mut self, slot: u16, operation: Operation) -> Result<(), DriveError>;

    /// Lets the device know of what was submitted since the last call.
    fn kick(&mut self);

    /// Takes the next command that the device has finished.
    ///
    /// # Errors
    /// [`DriveError::Broken`]: whatever is at the device stays there for good.
    fn next_finished(&mut self) -> Result<Option<Finished>, DriveError>;

    /// Asks for an interrupt for what is finished from now on, or for none. Returns whether something is finished
    /// already, for which there may be no interrupt.
    fn want_interrupts(&mut self, wanted: bool) -> bool;

    /// Takes note of an interrupt.
    ///
    /// # Errors
    /// [`DriveError::Broken`] when the device says that it needs a reset.
    fn acknowledge_interrupt(&mut self) -> Result<(), DriveError>;

    /// Nobody waits for the command in `slot` any more. If the drive can be sure that the device will do nothing about it
    /// from now on, it may let the command finish with an error.
    fn forget(&mut self, slot: u16) {
        let _ = slot;
    }

    /// Does what a drive does by itself, such as to look after a connection. Called at each turn of the loop.
    fn tend(&mut self, now_ns: u64) {
        let _ = now_ns;
    }

    /// When [`Self::tend`] must be called even if no interrupt comes.
    fn deadline_ns(&self) -> Option<u64> {
        None
    }

    /// The connection that it is behind, if it is on another machine.
    fn link_status(&self) -> Option<LinkStatus> {
        None
    }
}
