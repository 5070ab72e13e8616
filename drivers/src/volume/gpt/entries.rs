//! The array of entries of a partition table (UEFI 2.10, 5.3.3): taken step by step, and only what is used is kept.

use super::super::spec::LABEL_UNITS;
use super::header::{Header, HeaderError, digest};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use gpt_disk_types::crc::Digest;
use gpt_disk_types::{GptPartitionEntry, GptPartitionType};

/// Most partitions that a disk may have; an array has room for more.
pub const USED_MAX: usize = 128;
/// Most partitions that an error lists.
const LISTED_MAX: usize = 8;

/// A used entry. Nothing about its blocks is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the array, from 1 on.
    pub number: u32,
    /// First block.
    pub first: u64,
    /// Last block.
    pub last: u64,
    /// Its name.
    pub label: Label,
}

/// The name of a partition: UTF-16 up to the first zero or the end. It may be anything, also no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label([u16; LABEL_UNITS]);

impl Label {
    /// Whether this is the name, exactly.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.units().eq(name.encode_utf16())
    }

    fn new(bytes: &[u8; 2 * LABEL_UNITS]) -> Self {
        let mut units = [0; LABEL_UNITS];
        for (unit, pair) in units.iter_mut().zip(bytes.as_chunks().0) {
            *unit = u16::from_le_bytes(*pair);
        }
        Self(units)
    }

    fn units(&self) -> impl Iterator<Item = u16> {
        self.0.into_iter().take_while(|unit| *unit != 0)
    }
}

impl core::fmt::Display for Label {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        char::decode_utf16(self.units()).try_for_each(|unit| {
            let letter = unit.unwrap_or(char::REPLACEMENT_CHARACTER);
            // It goes to the console and to xenstore.
            out.write_char(if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter })
        })
    }
}

/// What there is, for people: the first few partitions.
pub(super) fn list(entries: &[Entry]) -> String {
    let name = |entry: &Entry| match format!("{}", entry.label) {
        label if label.is_empty() => format!("{}", entry.number),
        label => format!("{} '{label}'", entry.number),
    };
    let names: Vec<String> = entries.iter().take(LISTED_MAX).map(name).collect();
    match entries.len() {
        0 => "none".into(),
        1..=LISTED_MAX => names.join(", "),
        count => format!("{} and {} more", names.join(", "), count - LISTED_MAX),
    }
}

/// An array on its way from the disk.
pub(super) struct Array {
    missing_bytes: usize,
    entry_bytes: usize,
    checksum: u32,
    digest: Digest<'static, u32>,
    number: u32,
    used: usize,
    entries: Vec<Entry>,
}

impl Array {
    pub(super) fn new(header: &Header) -> Self {
        Self {
            missing_bytes: header.array_bytes,
            entry_bytes: header.entry_bytes,
            checksum: header.array_checksum,
            digest: digest(),
            number: 0,
            used: 0,
            entries: Vec::new(),
        }
    }

    pub(super) fn missing_bytes(&self) -> usize {
        self.missing_bytes
    }

    /// Takes the next bytes: whole entries. What is behind the array's end is left alone.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), HeaderError> {
        let bytes = bytes.get(..self.missing_bytes).unwrap_or(bytes);
        self.missing_bytes = self.missing_bytes.saturating_sub(bytes.len());
        self.digest.update(bytes);
        for entry in bytes.chunks_exact(self.entry_bytes) {
            self.number += 1;
            self.take_entry(entry)?;
        }
        Ok(())
    }

    /// The used entries, once there is nothing missing and the checksum is right.
    pub(super) fn finish(self) -> Result<Vec<Entry>, HeaderError> {
        if self.digest.finalize() != self.checksum {
            return Err(HeaderError::ArrayChecksum);
        }
        if self.used > USED_MAX {
            return Err(HeaderError::TooManyUsed(self.used));
        }
        Ok(self.entries)
    }

    fn take_entry(&mut self, bytes: &[u8]) -> Result<(), HeaderError> {
        let raw = bytes
            .get(..size_of::<GptPartitionEntry>())
            .map(bytemuck::try_pod_read_unaligned::<GptPartitionEntry>);
        let Some(Ok(raw)) = raw else { return Ok(()) };
        if { raw.partition_type_guid } == GptPartitionType::UNUSED {
            return Ok(());
        }
        // Of a damaged array, which the checksum will tell, or one that is too large, no more than we can keep.
        self.used += 1;
        if self.used <= USED_MAX {
            self.entries.try_reserve(1).map_err(|_| HeaderError::NoRam)?;
            self.entries.push(Entry {
                number: self.number,
                first: raw.starting_lba.to_u64(),
                last: raw.ending_lba.to_u64(),
                label: Label::new(&raw.name.0),
            });
        }
        Ok(())
    }
}
