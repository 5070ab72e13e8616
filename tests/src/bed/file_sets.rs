//! A disk whose partitions `set1`, `set2`, … each hold an ext4 file system with many megabytes of files and nothing else.
//!
//! One after the other, in the order of their names, the files of set N hold the pattern of key N: `pattern verify-files N /mnt/*`. None of
//! them is sparse.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::partitions::{self, Partition, SECTOR_BYTES};
use super::physical_disk::make_empty;
use crate::pattern::{WORD_BYTES, word};
use crate::{progress, tool};

const LABELS: [&str; 4] = ["set1", "set2", "set3", "set4"];
/// The files of a set have these sizes, over and over: most of the data is in large ones, and not all end with a page.
const FILE_BYTES: [u64; 4] = [4096 + 8, 60 << 10, (1 << 20) - 16, 15 << 20];
/// Partitions begin at multiples of this, and before the first is the table.
const ALIGNMENT: u64 = 1 << 20;
const PIECE_WORDS: u64 = 8192;

/// Makes `image`, with `count` sets of `bytes` each.
pub fn make_disk(image: &Path, count: usize, bytes: u64) -> Result<()> {
    if count > LABELS.len() {
        bail!("a disk with {count} sets: it has room for {}", LABELS.len());
    }
    // A file system needs a little for itself.
    let size = (bytes + bytes / 64 + (8 << 20)).next_multiple_of(ALIGNMENT);
    let partitions: Vec<Partition> = (0..)
        .zip(&LABELS[..count])
        .map(|(number, &label)| Partition {
            label,
            start: (ALIGNMENT + number * size) / SECTOR_BYTES,
            sectors: size / SECTOR_BYTES,
        })
        .collect();
    let end = partitions.last().map_or(0, |last| last.range_bytes().end);
    make_empty(image, end + ALIGNMENT)?;
    partitions::write_table(image, &partitions)?;
    let title = format!("making {count} file systems with {} MiB of files each", bytes >> 20);
    progress::step(&title, || (1..).zip(&partitions).try_for_each(|(key, set)| fill(image, set, key, bytes)))
}

/// Makes the file system with the set `key` in its partition.
fn fill(image: &Path, partition: &Partition, key: u64, bytes: u64) -> Result<()> {
    let content = image.with_extension("content");
    make_files(&content, key, bytes)?;
    let mut format = Command::new("mke2fs");
    format.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-i", "65536", "-E"]);
    format.arg(format!("root_owner=0:0,lazy_itable_init=0,offset={}", partition.start_bytes()));
    format.arg("-d").arg(&content).arg(image).arg(format!("{}k", partition.bytes() / 1024));
    let formatted = tool::run(&mut format);
    fs::remove_dir_all(&content).context("cannot remove the source of a file system")?;
    formatted.with_context(|| format!("{} gets no file system", partition.label))
}

/// Fills `folder` with files of `bytes` in all.
fn make_files(folder: &Path, key: u64, bytes: u64) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let mut index = 0;
    let mut left = bytes / WORD_BYTES;
    for (number, size) in FILE_BYTES.iter().cycle().enumerate() {
        if left == 0 {
            break;
        }
        let words = left.min(size / WORD_BYTES);
        write_file(&folder.join(format!("{number:05}")), key, index, words)
            .with_context(|| format!("cannot write the files of set {key} to {}", folder.display()))?;
        index += words;
        left -= words;
    }
    Ok(())
}

/// Writes `words` words of the pattern, from `start` on.
fn write_file(path: &Path, key: u64, start: u64, words: u64) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut piece = Vec::new();
    let end = start + words;
    for place in (start..end).step_by(usize::try_from(PIECE_WORDS)?) {
        piece.clear();
        for index in place..end.min(place + PIECE_WORDS) {
            piece.extend_from_slice(&word(key, index).to_le_bytes());
        }
        file.write_all(&piece)?;
    }
    Ok(file.flush()?)
}
