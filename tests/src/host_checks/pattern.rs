//! The patterns of `tests/guest/pattern.c`, and whether each disk holds them and nothing else (`tests/xen/three_disks.sh`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Evidence;
use super::compare;
use super::file_system::table_must_be_clean;
use crate::boot_tests::TWO_PARTITIONS;
use crate::pattern::{WORD_BYTES, word};

/// What each guest writes.
const BYTES: u64 = 64 << 20;
const PIECE_BYTES: u64 = 1 << 20;

/// Where each guest writes: its key, its disk, the place there.
const GUESTS: [(u64, usize, u64); 3] =
    [(1, 0, TWO_PARTITIONS[0].start_bytes()), (2, 0, TWO_PARTITIONS[1].start_bytes()), (3, 1, 0)];

/// Each place holds its own pattern, and all else is as it was.
pub fn check(evidence: &Evidence) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (key, disk, place) in GUESTS {
        must_be_there(evidence.image(disk)?, place, key)?;
        lines.push(format!("disk {disk} holds the 64 MiB of guest {key} at byte {place}"));
    }
    table_must_be_clean(evidence.image(0)?)?;
    for (disk, original) in evidence.originals()?.iter().enumerate() {
        let own = GUESTS.iter().filter(|guest| guest.1 == disk);
        let written: Vec<_> = own.map(|(_, _, place)| *place..*place + BYTES).collect();
        compare::must_be_same(original, evidence.image(disk)?, &written)?;
        lines.push(format!("disk {disk} has no other byte changed"));
    }
    Ok(lines)
}

/// Fails when the pattern of `key` is not in `image` at `place`.
fn must_be_there(image: &Path, place: u64, key: u64) -> Result<()> {
    let mut file = File::open(image).with_context(|| format!("cannot read {}", image.display()))?;
    file.seek(SeekFrom::Start(place))?;
    let mut piece = vec![0; usize::try_from(PIECE_BYTES)?];
    for start in (0..BYTES).step_by(piece.len()) {
        file.read_exact(&mut piece)?;
        let words = (start / WORD_BYTES..).flat_map(|index| word(key, index).to_le_bytes());
        if let Some(wrong) = piece.iter().zip(words).position(|(found, expected)| *found != expected) {
            let wrong = place + start + u64::try_from(wrong)?;
            bail!("{} has not the pattern of guest {key} at byte {wrong:#x}", image.display());
        }
    }
    Ok(())
}
