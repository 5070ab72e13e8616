//! Blocks of a disk, read for its partition table through one small buffer.

use super::entries::{self, Entry};
use super::header::{Header, HeaderError};
use super::{ReadSectors, TableError};
use crate::block::{Geometry, SECTOR_BYTES, VolumeError};
use alloc::vec::Vec;

/// Bytes of the one buffer that everything is read through; at most this many are a logical block or an entry.
pub const STEP_BYTES: usize = 4096;
/// A protective MBR, the two headers: the least that a disk must hold to be asked for more.
const BLOCKS_MIN: u64 = 3;

/// The size of a disk in logical blocks, the unit of everything in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    /// How many there are; a tail that fills none is not counted.
    pub(super) count: u64,
    /// Bytes of one: a power of two from [`SECTOR_BYTES`] to [`STEP_BYTES`].
    pub(super) bytes: usize,
    /// Sectors of one.
    pub(super) sectors: u64,
}

impl Blocks {
    pub(super) fn new(geometry: &Geometry) -> Result<Self, TableError> {
        let sectors = u64::from(geometry.block_bytes) / SECTOR_BYTES;
        let bytes = usize::try_from(geometry.block_bytes).ok();
        let sound = |bytes: &usize| sectors > 0 && *bytes <= STEP_BYTES && bytes.is_power_of_two();
        let bytes = bytes.filter(sound).ok_or(TableError::BlockSize(geometry.block_bytes))?;
        match geometry.sectors / sectors {
            count @ BLOCKS_MIN.. => Ok(Self { count, bytes, sectors }),
            count => Err(TableError::TooSmall(count)),
        }
    }
}

/// A disk and the buffer to read it through.
pub(super) struct Reader<'a, D> {
    disk: &'a D,
    blocks: Blocks,
    buffer: Vec<u8>,
}

impl<'a, D: ReadSectors> Reader<'a, D> {
    pub(super) fn new(disk: &'a D, blocks: Blocks) -> Result<Self, TableError> {
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(STEP_BYTES).map_err(|_| TableError::NoRam)?;
        buffer.resize(STEP_BYTES, 0);
        Ok(Self { disk, blocks, buffer })
    }

    /// Reads so many blocks, at most a buffer full.
    pub(super) async fn read(&mut self, lba: u64, count: usize) -> Result<&[u8], VolumeError> {
        let inside = lba.checked_add(count as u64).is_some_and(|end| end <= self.blocks.count);
        let out = count.checked_mul(self.blocks.bytes).and_then(|bytes| self.buffer.get_mut(..bytes));
        let out = out.filter(|_| inside).ok_or(VolumeError::OutOfRange)?;
        self.disk.read(lba * self.blocks.sectors, out).await?;
        Ok(out)
    }

    /// The header at `lba`.
    pub(super) async fn header(&mut self, lba: u64) -> Result<Header, HeaderError> {
        let blocks = self.blocks;
        let block = self.read(lba, 1).await.map_err(HeaderError::Unreadable)?;
        Header::check(block, lba, blocks)
    }

    /// One copy of the table: the header at `lba` and its array.
    pub(super) async fn copy(&mut self, lba: u64) -> Result<(Header, Vec<Entry>), HeaderError> {
        let header = self.header(lba).await?;
        let entries = self.entries(&header).await?;
        Ok((header, entries))
    }

    async fn entries(&mut self, header: &Header) -> Result<Vec<Entry>, HeaderError> {
        let block_bytes = self.blocks.bytes;
        let mut array = entries::Array::new(header);
        let mut lba = header.array_lba;
        while array.missing_bytes() > 0 {
            let count = array.missing_bytes().min(STEP_BYTES).div_ceil(block_bytes);
            let bytes = self.read(lba, count).await.map_err(HeaderError::ArrayUnreadable)?;
            array.take(bytes)?;
            lba += count as u64;
        }
        array.finish()
    }
}
