//! The machine's physical disks: virtio-blk devices of QEMU on transports that Dom0 leaves to the driver domain.
//!
//! Disk N is on transport N, and its file is QEMU's block node `diskN`. When one of the lab's own block nodes is named `diskN`, a filter
//! for instance, the device uses that one, and the node of the file is `imageN`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::file_sets;
use super::partitions::{self, Partition};
use crate::setup::Parts;
use crate::tool;

/// The transports of one page of registers: they are passed through together.
pub const TRANSPORTS: u32 = 8;

/// One disk.
#[derive(Clone, Debug)]
pub struct PhysicalDisk {
    /// Its transport, below [`TRANSPORTS`].
    pub transport: u32,
    /// What it holds when the machine starts.
    pub content: Content,
    /// More options of QEMU's device: `serial=a,logical_block_size=4096`.
    pub options: String,
}

/// What a disk holds when the machine starts.
#[derive(Clone, Debug)]
pub enum Content {
    /// This file itself: what is written stays in it.
    File(PathBuf),
    /// So many zero bytes, in the run's folder.
    Empty(u64),
    /// A copy of the disk with Debian and the data image, in the run's folder.
    Debian,
    /// So many bytes with these partitions, all else zero, in the run's folder.
    Partitioned(u64, &'static [Partition]),
    /// So many partitions with file systems, so many bytes of files in each, in the run's folder.
    FileSets(usize, u64),
}

impl PhysicalDisk {
    /// Makes the disk's image for a run in `folder`, and gives its path.
    pub fn make_image(&self, folder: &Path, parts: &Parts) -> Result<PathBuf> {
        if self.transport >= TRANSPORTS {
            bail!("disk {} is one too many: a machine has 0 to {}", self.transport, TRANSPORTS - 1);
        }
        let image = image(folder, self.transport);
        match &self.content {
            Content::File(file) => {
                return std::path::absolute(file)
                    .ok()
                    .filter(|file| file.exists())
                    .with_context(|| format!("there is no image {}", file.display()));
            }
            Content::Empty(bytes) => make_empty(&image, *bytes)?,
            Content::Debian => {
                let mut copy = Command::new("cp");
                copy.args(["--sparse=always", "--reflink=auto"]);
                tool::run(copy.arg(&parts.debian_disk).arg(&image))?;
            }
            Content::Partitioned(bytes, partitions) => {
                make_empty(&image, *bytes)?;
                partitions::write_table(&image, partitions)?;
            }
            Content::FileSets(count, bytes) => file_sets::make_disk(&image, *count, *bytes)?,
        }
        Ok(image)
    }

    /// QEMU's arguments for the file of this disk. `own_nodes` are the lab's own block nodes, in QEMU's form.
    pub fn node(&self, image: &Path, own_nodes: &[String]) -> [String; 2] {
        let number = self.transport;
        let top = format!("node-name=disk{number}");
        let is_filtered = own_nodes.iter().any(|node| node.split(',').any(|option| option == top));
        let name = if is_filtered { "image" } else { "disk" };
        let file = image.display().to_string().replace(',', ",,");
        // Flushes end here: the host's own disk is not what is tested.
        let options = "cache.direct=off,cache.no-flush=on,discard=unmap";
        let node =
            format!("driver=raw,node-name={name}{number},{options},file.driver=file,file.filename={file}");
        ["-blockdev".into(), node]
    }

    /// QEMU's arguments for the device.
    pub fn device(&self) -> [String; 2] {
        let number = self.transport;
        let mut device = format!("virtio-blk-device,drive=disk{number},bus=virtio-mmio-bus.{number}");
        if !self.options.is_empty() {
            device.push(',');
            device.push_str(&self.options);
        }
        ["-device".into(), device]
    }
}

/// Makes `image`, a disk of so many zero bytes.
pub fn make_empty(image: &Path, bytes: u64) -> Result<()> {
    // Truncated: nothing of an earlier run is in it.
    let file = File::create(image).with_context(|| format!("cannot write {}", image.display()))?;
    file.set_len(bytes).context("cannot make a sparse file for a disk")
}

/// Where the image of disk `number` is, of a run in `folder`, unless it is a file from elsewhere.
pub fn image(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("disk{number}.img"))
}

#[cfg(test)]
mod tests {
    use super::{Content, Path, PhysicalDisk};

    #[test]
    fn device_uses_the_own_node_that_has_the_disks_name() {
        let disk = PhysicalDisk { transport: 1, content: Content::Empty(512), options: String::new() };
        let image = Path::new("/run/disk1.img");
        let plain = disk.node(image, &["driver=throttle,node-name=disk10,file=image10".into()]);
        let filtered = disk.node(image, &["driver=throttle,node-name=disk1,file=image1".into()]);
        assert!(plain[1].contains(",node-name=disk1,"));
        assert!(filtered[1].contains(",node-name=image1,"));
        assert!(disk.device()[1].contains("drive=disk1,bus=virtio-mmio-bus.1"));
    }
}
