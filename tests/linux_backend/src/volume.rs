//! The block device of Dom0 that the disk is on: read and written by Linux, from and to the guest's pages, as `main.c` has it open.

use drivers::block::{Begun, Geometry, Operation, SECTOR_BYTES, Tag, Volume, VolumeError};
use smallvec::SmallVec;

use crate::host::{Piece, transfer};
use crate::memory::Pinned;

/// Most bytes in one system call: those of a request, in a piece for each of their pages.
const TRANSFER_BYTES_MAX: u32 = 1 << 20;

/// The device.
pub struct DeviceVolume {
    /// Its size.
    pub bytes: u64,
}

impl Volume<Pinned> for DeviceVolume {
    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: self.bytes / SECTOR_BYTES,
            block_bytes: 512,
            read_only: false,
            has_cache: false,
            transfer_bytes_max: TRANSFER_BYTES_MAX,
            discard_sectors_max: 0,
            write_zeroes_sectors_max: 0,
        }
    }

    fn begin(&mut self, _tag: Tag, operation: Operation, memory: &Pinned, offset: u32) -> Begun {
        let (sector, length, is_write) = match operation {
            Operation::Read { sector, length } => (sector, length, false),
            Operation::Write { sector, length } => (sector, length, true),
            // What is told done is in the RAM of a RAM disk.
            _ => return Begun::Done(Ok(())),
        };
        let mut pieces: SmallVec<[Piece; 256]> = SmallVec::new();
        let found = memory.for_each_run(offset, length as usize, |start, _, bytes| {
            pieces.push(Piece { start, bytes });
        });
        let done = found.is_ok() && transfer(is_write, &pieces, length, sector * SECTOR_BYTES);
        Begun::Done(if done { Ok(()) } else { Err(VolumeError::OutOfRange) })
    }
}
