//! A file system in a partition of an image, by the host's own tools: nothing is mounted.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::bed::partitions::Partition;
use crate::tool;

/// An ext4 file system.
pub struct FileSystem {
    /// As e2fsprogs name it: the image, and where in it.
    name: String,
}

impl FileSystem {
    /// The one in `partition` of `image`.
    pub fn new(image: &Path, partition: &Partition) -> Self {
        Self { name: format!("{}?offset={}", image.display(), partition.start_bytes()) }
    }

    /// Fails when e2fsck finds any fault; gives its last line.
    pub fn must_be_clean(&self) -> Result<String> {
        let text = tool::text(Command::new("e2fsck").args(["-f", "-n", &self.name]))?;
        if text.contains("recover") {
            bail!("the file system was not unmounted:\n{text}");
        }
        let last = text.lines().last().unwrap_or_default();
        // "data: 1267/16384 files (0.5% non-contiguous), 25299/65536 blocks"
        Ok(format!("e2fsck: {}", last.split_once(": ").map_or(last, |(_, facts)| facts)))
    }

    /// The content of the file `path`.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.debugfs(&format!("cat \"{path}\""))
    }

    /// Copies everything to `folder`.
    pub fn extract(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        self.debugfs(&format!("rdump / \"{}\"", folder.display())).map(|_| ())
    }

    fn debugfs(&self, request: &str) -> Result<Vec<u8>> {
        tool::output(Command::new("debugfs").args(["-R", request, &self.name]))
    }
}

/// Fails when the partition table of `image`, or its copy, has any fault.
pub fn table_must_be_clean(image: &Path) -> Result<()> {
    let text = tool::text(Command::new("sgdisk").arg("--verify").arg(image))?;
    if !text.contains("No problems found") {
        bail!("the partition table of {} is damaged:\n{text}", image.display());
    }
    Ok(())
}

/// As sha256sum writes it.
pub fn checksum(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
