//! One header of a partition table: 92 bytes of a block, believed when all of it holds (UEFI 2.10, 5.3.2).

use super::PRIMARY_LBA;
use super::reader::{Blocks, STEP_BYTES};
use crate::block::VolumeError;
use gpt_disk_types::crc::{Crc, Digest};
use gpt_disk_types::{Crc32, GptHeader, GptPartitionEntry, Guid};

/// Most entries that an array may have. Usual are 128.
pub const ENTRIES_MAX: u32 = 1024;
/// Most bytes that an array may have. Usual are 16 KiB.
pub const ARRAY_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a header that are not reserved, the least that its size may be.
const HEADER_BYTES: usize = size_of::<GptHeader>();
/// Where its own checksum lies, which counts as zeroes in it.
const CHECKSUM_START: usize = core::mem::offset_of!(GptHeader, header_crc32);
const CHECKSUM_END: usize = CHECKSUM_START + size_of::<Crc32>();
/// The least size of an entry; others are powers of two of it.
const ENTRY_BYTES: usize = size_of::<GptPartitionEntry>();

static CRC: Crc<u32> = Crc::<u32>::new(&Crc32::ALGORITHM);

/// Why a copy of the table does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The disk says so.
    #[error("the header cannot be read: {0}")]
    Unreadable(VolumeError),
    /// Most likely there is no header.
    #[error("there is no header at block {0}")]
    Signature(u64),
    /// A successor that we do not know.
    #[error("revision {0:#x} is not 1.x")]
    Revision(u32),
    /// Less than the fields, or more than a block.
    #[error("the header has an impossible size of {0} bytes")]
    Size(u32),
    /// Damaged.
    #[error("the header's checksum is wrong")]
    Checksum,
    /// A header that was written for another place.
    #[error("the header at block {at} says that it is the one of block {says}")]
    Place {
        /// Where it was read.
        at: u64,
        /// Where it should be.
        says: u64,
    },
    /// Not 128 times a power of two, or too large for us.
    #[error("entries of {0} bytes are not supported")]
    EntrySize(u32),
    /// None, or too many for us.
    #[error("an array of {0} entries is not supported")]
    EntryCount(u32),
    /// The blocks for partitions are not on the disk, or are those of a header.
    #[error(
        "the blocks for partitions, {first} to {last}, do not fit the disk of {blocks} blocks and its headers"
    )]
    Usable {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
        /// How many the disk has.
        blocks: u64,
    },
    /// The array is not on the disk, or is among the blocks for partitions.
    #[error("the array of entries at block {0} is not where it may be")]
    ArrayPlace(u64),
    /// The disk says so.
    #[error("the array of entries cannot be read: {0}")]
    ArrayUnreadable(VolumeError),
    /// Damaged.
    #[error("the checksum of the array of entries is wrong")]
    ArrayChecksum,
    /// More than we keep.
    #[error("there are {0} partitions, and only {max} are supported", max = super::entries::USED_MAX)]
    TooManyUsed(usize),
    /// No RAM to keep the entries.
    #[error("no RAM for the partitions")]
    NoRam,
}

/// A header that is in order: its array and the blocks for partitions are on the disk, and apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// First block of the array.
    pub array_lba: u64,
    /// Bytes of the array, at most [`ARRAY_BYTES_MAX`].
    pub array_bytes: usize,
    /// Bytes of one entry, a divisor of [`STEP_BYTES`].
    pub entry_bytes: usize,
    /// The array's checksum.
    pub array_checksum: u32,
    /// First block that a partition may have.
    pub first_usable: u64,
    /// Last block that a partition may have, at least `first_usable` and inside the disk.
    pub last_usable: u64,
    /// Where the other header should be.
    alternate_lba: u64,
    /// Last block of the disk.
    last_lba: u64,
    disk: Guid,
}

/// Why the backup would not do in the primary's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The disk has not the size that it had when it was partitioned.
    #[error(
        "it should be at block {should}, and the disk's last is {last}: the disk was made larger or smaller"
    )]
    Resized {
        /// Where the primary says that it is.
        should: u64,
        /// Where it belongs.
        last: u64,
    },
    /// It does not count.
    #[error("{0}")]
    Bad(HeaderError),
    /// Good, with other content.
    #[error("it says something else about the {0}")]
    Different(&'static str),
}

impl Header {
    /// Judges the block that was read at `lba`.
    pub(super) fn check(block: &[u8], lba: u64, blocks: Blocks) -> Result<Self, HeaderError> {
        let raw = block.get(..HEADER_BYTES).map(bytemuck::try_pod_read_unaligned::<GptHeader>);
        let Some(Ok(raw)) = raw else { return Err(HeaderError::Size(0)) };
        if !raw.is_signature_valid() {
            return Err(HeaderError::Signature(lba));
        }
        if raw.revision.major() != 1 {
            return Err(HeaderError::Revision(raw.revision.0.to_u32()));
        }
        if checksum(block, raw.header_size.to_u32())? != raw.header_crc32.0.to_u32() {
            return Err(HeaderError::Checksum);
        }
        if raw.my_lba.to_u64() != lba {
            return Err(HeaderError::Place { at: lba, says: raw.my_lba.to_u64() });
        }
        let (array_bytes, entry_bytes) = array_size(&raw)?;
        let header = Self {
            array_lba: raw.partition_entry_lba.to_u64(),
            array_bytes,
            entry_bytes,
            array_checksum: raw.partition_entry_array_crc32.0.to_u32(),
            first_usable: raw.first_usable_lba.to_u64(),
            last_usable: raw.last_usable_lba.to_u64(),
            alternate_lba: raw.alternate_lba.to_u64(),
            last_lba: blocks.count.saturating_sub(1),
            disk: raw.disk_guid,
        };
        header.check_places(lba, blocks)?;
        Ok(header)
    }

    /// Partitions must be on the disk, and must not have blocks of the table, nor a block where a header is looked for:
    /// their guests would write a table of their own.
    fn check_places(&self, lba: u64, blocks: Blocks) -> Result<(), HeaderError> {
        let (first, last) = (self.first_usable, self.last_usable);
        let has_header = |block: u64| (first..=last).contains(&block);
        let headers = [0, PRIMARY_LBA, self.last_lba, lba, self.alternate_lba];
        if first > last || last > self.last_lba || headers.into_iter().any(has_header) {
            return Err(HeaderError::Usable { first, last, blocks: blocks.count });
        }
        let array_blocks = self.array_bytes.div_ceil(blocks.bytes) as u64;
        let end = self.array_lba.checked_add(array_blocks).filter(|end| *end <= blocks.count);
        let apart = end.is_some_and(|end| end <= first || self.array_lba > last);
        if apart && self.array_lba > PRIMARY_LBA {
            Ok(())
        } else {
            Err(HeaderError::ArrayPlace(self.array_lba))
        }
    }

    /// Of a primary: what speaks against what was found in the last block. The backup's array is not read for this.
    pub(super) fn doubt_about(&self, backup: &Result<Self, HeaderError>) -> Option<Doubt> {
        if self.alternate_lba != self.last_lba {
            return Some(Doubt::Resized { should: self.alternate_lba, last: self.last_lba });
        }
        let backup = match backup {
            Ok(backup) => backup,
            Err(error) => return Some(Doubt::Bad(*error)),
        };
        let usable = |header: &Self| (header.first_usable, header.last_usable);
        let array = |header: &Self| (header.array_bytes, header.entry_bytes, header.array_checksum);
        if backup.disk != self.disk {
            Some(Doubt::Different("disk's GUID"))
        } else if usable(backup) != usable(self) {
            Some(Doubt::Different("blocks for partitions"))
        } else if array(backup) != array(self) {
            Some(Doubt::Different("partitions"))
        } else if backup.alternate_lba != PRIMARY_LBA {
            Some(Doubt::Different("place of the primary"))
        } else {
            None
        }
    }
}

/// A checksum of the table, to be fed.
pub(super) fn digest() -> Digest<'static, u32> {
    CRC.digest()
}

/// The checksum of a header of so many bytes.
fn checksum(block: &[u8], size: u32) -> Result<u32, HeaderError> {
    let bytes = usize::try_from(size).ok().filter(|bytes| *bytes >= HEADER_BYTES);
    let header = bytes.and_then(|bytes| block.get(..bytes)).ok_or(HeaderError::Size(size))?;
    let mut digest = digest();
    digest.update(header.get(..CHECKSUM_START).unwrap_or_default());
    digest.update(&[0; CHECKSUM_END - CHECKSUM_START]);
    digest.update(header.get(CHECKSUM_END..).unwrap_or_default());
    Ok(digest.finalize())
}

/// Bytes of the array and of an entry.
fn array_size(raw: &GptHeader) -> Result<(usize, usize), HeaderError> {
    let (count, size) = (raw.number_of_partition_entries.to_u32(), raw.size_of_partition_entry.to_u32());
    let sound = |bytes: &usize| (ENTRY_BYTES..=STEP_BYTES).contains(bytes) && bytes.is_power_of_two();
    let entry_bytes = usize::try_from(size).ok().filter(sound).ok_or(HeaderError::EntrySize(size))?;
    let entries = usize::try_from(count).ok().filter(|_| (1..=ENTRIES_MAX).contains(&count));
    let array_bytes = entries.and_then(|entries| entries.checked_mul(entry_bytes));
    let array_bytes = array_bytes.filter(|bytes| *bytes <= ARRAY_BYTES_MAX);
    Ok((array_bytes.ok_or(HeaderError::EntryCount(count))?, entry_bytes))
}
