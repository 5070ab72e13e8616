//! The partitions of a physical disk: its GUID partition table (UEFI 2.10, chapter 5), read and never written.
//!
//! | file | job |
//! |---|---|
//! | `gpt` | which copy of the table counts, and which sectors a [`Part`] of the disk is |
//! | [`header`] | one header: checked, and compared with the other copy |
//! | [`entries`] | one array of entries: taken in steps, checked, and kept when used |
//! | `reader` | blocks of the disk, through one small buffer |
//!
//! A table is there twice, at the start and at the end of the disk. The primary counts; the backup does when the primary
//! is bad for any reason, and a log line says why. A primary whose backup is bad or says something else counts as well,
//! after a log line.
//!
//! The protective MBR is required (5.2.3), whatever the headers say: a disk that was given another kind of table keeps
//! the old GPT behind it, and its partitions would be in the middle of somebody's data. As in Linux, one entry of type
//! 0xEE that starts at block 1 suffices: other entries beside it (a "hybrid" MBR) and its size are not looked at.
//!
//! What is wrong with one partition is an error when somebody names that partition, and no sooner: the others work on.
//! Attributes (5.3.3) are not looked at, nor is the read-only bit (60) of Microsoft's partition types: the `access=` of
//! a disk says who may write.

pub mod entries;
pub mod header;
mod reader;

use super::spec::Part;
use crate::block::{Geometry, VolumeError};
use alloc::string::String;
use alloc::vec::Vec;
use entries::Entry;
use gpt_disk_types::{MasterBootRecord, MbrPartitionRecord};
use header::{Header, HeaderError};
pub use reader::STEP_BYTES;
use reader::{Blocks, Reader};

/// Where the primary header is (5.3.2).
const PRIMARY_LBA: u64 = 1;
/// The type of the entry of a protective MBR (5.2.3, table 5.4).
const GPT_PROTECTIVE: u8 = 0xEE;

/// Reads of a whole disk, as the partition table needs them.
#[allow(async_fn_in_trait, reason = "there is one thread: no future needs to be Send")]
pub trait ReadSectors {
    /// Fills `out` with what is on the disk from `sector` on, in sectors of 512 bytes. Asked for are whole logical
    /// blocks inside the disk, at most [`STEP_BYTES`] bytes of them.
    async fn read(&self, sector: u64, out: &mut [u8]) -> Result<(), VolumeError>;

    /// What the log calls this disk.
    fn name(&self) -> &str {
        "disk"
    }
}

/// Sectors in a row, of 512 bytes whatever the disk's blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectorRange {
    /// The first.
    pub first: u64,
    /// How many.
    pub sectors: u64,
}

/// Why a partition cannot be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The specification allows it; nothing that we know has it.
    #[error("the disk's logical blocks of {0} bytes are not supported, only 512 to 4096")]
    BlockSize(u32),
    /// Nor can it hold a table.
    #[error("the disk is too small for a partition table: {0} logical blocks")]
    TooSmall(u64),
    /// No RAM for the buffer.
    #[error("no RAM to read the partition table")]
    NoRam,
    /// Block 0.
    #[error("the disk's first block cannot be read: {0}")]
    Unreadable(VolumeError),
    /// No protective MBR.
    #[error(
        "the disk has no GPT: its first sector is not a protective MBR (0x55AA, an entry of type 0xEE at block 1)"
    )]
    NotGpt,
    /// Neither copy of the table is good.
    #[error("the disk's GPT is damaged: its primary copy: {primary}; its backup: {backup}")]
    Damaged {
        /// What is wrong with the header at block 1 or its array.
        primary: HeaderError,
        /// What is wrong with the header in the last block or its array.
        backup: HeaderError,
    },
    /// No such number.
    #[error("there is no partition {number}; there are: {there}")]
    NoNumber {
        /// What was asked for.
        number: u32,
        /// Some of the partitions, for people.
        there: String,
    },
    /// No such label.
    #[error("there is no partition labelled '{label}'; there are: {there}")]
    NoLabel {
        /// What was asked for.
        label: String,
        /// Some of the partitions, for people.
        there: String,
    },
    /// Several partitions have it.
    #[error("partitions {first} and {second} are both labelled '{label}': name one by part=NUMBER")]
    Ambiguous {
        /// What was asked for.
        label: String,
        /// One that has it.
        first: u32,
        /// Another one.
        second: u32,
    },
    /// It ends before it starts.
    #[error("partition {0} ends before it starts")]
    Backwards(u32),
    /// It leaves what the header allows.
    #[error("partition {0} is not inside the blocks that the table has for partitions")]
    Outside(u32),
    /// Two partitions share blocks.
    #[error("partition {number} overlaps partition {other}")]
    Overlap {
        /// What was asked for.
        number: u32,
        /// The other one.
        other: u32,
    },
}

/// What a good table says. Keeps the used entries, at most [`entries::USED_MAX`].
#[derive(Clone, Debug)]
pub struct Table {
    sectors: u64,
    blocks: Blocks,
    header: Header,
    entries: Vec<Entry>,
}

/// Reads the table of `disk`.
///
/// # Errors
/// [`TableError`], when there is no table, or no good one.
pub async fn read_table(disk: &impl ReadSectors, geometry: &Geometry) -> Result<Table, TableError> {
    let blocks = Blocks::new(geometry)?;
    let mut reader = Reader::new(disk, blocks)?;

    let first_block = reader.read(0, 1).await.map_err(TableError::Unreadable)?;
    if !is_protective(first_block) {
        return Err(TableError::NotGpt);
    }
    let last_lba = blocks.count - 1;
    let (header, entries) = match reader.copy(PRIMARY_LBA).await {
        Ok(copy) => {
            let backup = reader.header(last_lba).await;
            if let Some(doubt) = copy.0.doubt_about(&backup) {
                log::warn!("{}: the backup of its partition table is of no use: {doubt}", disk.name());
            }
            copy
        }
        Err(primary) => match reader.copy(last_lba).await {
            Ok(copy) => {
                log::warn!("{}: its partition table is bad, its backup is used: {primary}", disk.name());
                copy
            }
            Err(backup) => return Err(TableError::Damaged { primary, backup }),
        },
    };
    Ok(Table { sectors: geometry.sectors, blocks, header, entries })
}

impl Table {
    /// The sectors of a partition.
    ///
    /// # Errors
    /// [`TableError`], when there is no such partition, or something is wrong with it.
    pub fn partition(&self, part: &Part) -> Result<SectorRange, TableError> {
        let entry = match part {
            Part::Whole => return Ok(SectorRange { first: 0, sectors: self.sectors }),
            Part::Number(number) => self.numbered(*number)?,
            Part::Label(label) => self.labelled(label)?,
        };
        self.check(entry)?;
        let sectors = (entry.last - entry.first + 1) * self.blocks.sectors;
        Ok(SectorRange { first: entry.first * self.blocks.sectors, sectors })
    }

    fn numbered(&self, number: u32) -> Result<&Entry, TableError> {
        let found = self.entries.iter().find(|entry| entry.number == number);
        found.ok_or_else(|| TableError::NoNumber { number, there: entries::list(&self.entries) })
    }

    fn labelled(&self, label: &str) -> Result<&Entry, TableError> {
        let mut found = self.entries.iter().filter(|entry| entry.label.is(label));
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry),
            (Some(one), Some(other)) => {
                Err(TableError::Ambiguous { label: label.into(), first: one.number, second: other.number })
            }
            (None, _) => {
                Err(TableError::NoLabel { label: label.into(), there: entries::list(&self.entries) })
            }
        }
    }

    /// The rules of 5.3.3 for the blocks of an entry, and that no other entry has any of them.
    fn check(&self, entry: &Entry) -> Result<(), TableError> {
        let number = entry.number;
        if entry.first > entry.last {
            return Err(TableError::Backwards(number));
        }
        if entry.first < self.header.first_usable || entry.last > self.header.last_usable {
            return Err(TableError::Outside(number));
        }
        let overlaps = |other: &&Entry| {
            let is_range = other.first <= other.last;
            is_range && other.number != number && other.first <= entry.last && entry.first <= other.last
        };
        match self.entries.iter().find(overlaps) {
            Some(other) => Err(TableError::Overlap { number, other: other.number }),
            None => Ok(()),
        }
    }
}

/// Whether the first block of a disk says that the disk has a GPT (5.2.3).
fn is_protective(block: &[u8]) -> bool {
    let record = block.get(..size_of::<MasterBootRecord>());
    let Some(Ok(record)) = record.map(bytemuck::try_pod_read_unaligned::<MasterBootRecord>) else {
        return false;
    };
    let covers = |partition: &MbrPartitionRecord| {
        partition.os_indicator == GPT_PROTECTIVE && u64::from(partition.starting_lba.to_u32()) == PRIMARY_LBA
    };
    record.signature == [0x55, 0xAA] && record.partitions.iter().any(covers)
}

#[cfg(test)]
#[path = "gpt_bed.rs"]
mod bed;
#[cfg(test)]
#[path = "gpt_header_tests.rs"]
mod header_tests;
#[cfg(test)]
#[path = "gpt_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "gpt_tests.rs"]
mod tests;
