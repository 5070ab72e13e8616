//! Partition tables (GPT) of disk images: where we put the partitions is known here, so nothing has to be read back.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tool;

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
