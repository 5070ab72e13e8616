//! Files into Dom0 and out of it: disks made of folders, and a disk that comes back holding an archive.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tool;

/// Room beside the content: for what a script writes there, and for the file system itself.
const SPARE_BYTES: u64 = 512 << 20;
/// No archive of results is larger. The file is sparse: it takes what was written.
const RESULT_BYTES: u64 = 16 << 30;

/// Makes `image`, an ext4 file system that holds what is in `folder`.
pub fn from_folder(folder: &Path, image: &Path) -> Result<()> {
    let size = size_of(folder)?;
    let kibibytes = (size + size / 16 + SPARE_BYTES) / 1024;
    let mut format = Command::new("mke2fs");
    format.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d"]);
    tool::run(format.arg(folder).arg(image).arg(format!("{kibibytes}k")))
        .context("a disk for Dom0 could not be made")
}

/// Makes `image`, an empty disk for results.
pub fn for_results(image: &Path) -> Result<()> {
    let file = File::create(image).with_context(|| format!("cannot write {}", image.display()))?;
    file.set_len(RESULT_BYTES).context("cannot make a sparse file for the results")
}

/// Unpacks the archive on the disk `image` into `folder`; `false` when there is none.
pub fn unpack_results(image: &Path, folder: &Path) -> Result<bool> {
    let file = File::open(image).with_context(|| format!("cannot read {}", image.display()))?;
    fs::create_dir_all(folder)?;
    let mut archive = tar::Archive::new(file);
    let mut found = false;
    for entry in archive.entries()? {
        let mut entry = entry.context("the archive of results is damaged")?;
        entry.unpack_in(folder)?;
        found = true;
    }
    Ok(found)
}

fn size_of(path: &Path) -> Result<u64> {
    let facts = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !facts.is_dir() {
        return Ok(facts.len());
    }
    let mut size = 4096;
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.exists() {
            size += size_of(&path)?;
        }
    }
    Ok(size)
}
