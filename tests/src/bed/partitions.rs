//! Partition tables (GPT) of disk images: where we put the partitions is known here, so nothing has to be read back.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tool;

/// Bytes of a sector, for tables and tools.
pub const SECTOR_BYTES: u64 = 512;
/// The disk and its partitions get identifiers that end with their number: the same image on every machine.
const IDENTIFIER: &str = "8c2e5a60-47d1-4c39-b0f5-0000000000";

/// One partition, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name in the table: a disk's `label=`.
    pub label: &'static str,
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub sectors: u64,
}

impl Partition {
    /// Where it begins, in bytes.
    pub const fn start_bytes(&self) -> u64 {
        self.start * SECTOR_BYTES
    }

    /// How long it is, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.sectors * SECTOR_BYTES
    }

    /// All of it, in bytes.
    pub fn range_bytes(&self) -> Range<u64> {
        self.start_bytes()..self.start_bytes() + self.bytes()
    }
}

/// Writes the table of `partitions` into `image`, whose size is the disk's.
pub fn write_table(image: &Path, partitions: &[Partition]) -> Result<()> {
    let mut table = Command::new("sgdisk");
    // No alignment but a sector's: partitions are where we want them.
    table.args(["--clear", "--set-alignment=1"]).arg(format!("--disk-guid={IDENTIFIER}00"));
    for (number, partition) in (1..).zip(partitions) {
        let end = partition.start + partition.sectors - 1;
        table
            .arg(format!("--new={number}:{}:{end}", partition.start))
            .arg(format!("--change-name={number}:{}", partition.label))
            .arg(format!("--partition-guid={number}:{IDENTIFIER}{number:02}"));
    }
    tool::run(table.arg(image)).with_context(|| format!("{} gets no partition table", image.display()))
}
