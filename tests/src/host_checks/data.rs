//! The data image in its partition, after a guest verified it and wrote to it (`tests/guest/verify-volume.sh`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Evidence;
use super::compare;
use super::file_system::{FileSystem, checksum, table_must_be_clean};
use crate::setup::debian_disk::DATA;

/// The file systems is clean, every file has its checksum, and the disk is as before but for this partition.
pub fn check(evidence: &Evidence) -> Result<Vec<String>> {
    let image = evidence.image(0)?;
    table_must_be_clean(image)?;
    let file_system = FileSystem::new(image, &DATA);
    let state = file_system.must_be_clean()?;
    let folder = evidence.outcome.results.join("data");
    file_system.extract(&folder)?;
    let mut verified = 0;
    for list in ["SHA256SUMS", "written.sum"] {
        verified += verify(&folder, list)?;
    }
    fs::remove_dir_all(&folder)?;
    compare::must_be_same(&evidence.originals()?[0], image, &[DATA.range_bytes()])?;
    Ok(vec![
        "the partition table has no fault".into(),
        state,
        format!("{verified} files with the right SHA-256"),
        "no byte outside of the partition was changed".into(),
    ])
}

/// Verifies the files that `list` in `folder` names; gives their number.
fn verify(folder: &Path, list: &str) -> Result<usize> {
    let text = fs::read_to_string(folder.join(list)).with_context(|| format!("there is no {list}"))?;
    for line in text.lines() {
        let (sum, path) = line.split_once("  ").with_context(|| format!("{list} has the line {line}"))?;
        let content = fs::read(folder.join(path)).with_context(|| format!("{path} cannot be read"))?;
        if checksum(&content) != sum {
            bail!("{path} is not what its checksum in {list} says");
        }
    }
    Ok(text.lines().count())
}
