//! A disk as a machine has it: a partition table, a Debian that boots, the data image, and room between and behind them.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::Apt;
use super::debian_root;
use crate::bed::partitions::{self, Partition};
use crate::cache::Cache;
use crate::tool;

/// The system: a guest's `/`.
pub const DEBIAN: Partition = Partition { label: "debian", start: 2048, sectors: (384 << 11) + 5 };
/// The data image, and a bit more. It begins at no multiple of a page.
pub const DATA: Partition =
    Partition { label: "data", start: DEBIAN.start + DEBIAN.sectors + 10, sectors: (64 << 11) + 3 };
/// One sector.
const LAST: Partition = Partition { label: "last", start: DATA.start + DATA.sectors, sectors: 1 };
/// All of them.
pub const PARTITIONS: [Partition; 3] = [DEBIAN, DATA, LAST];
/// No multiple of a page either.
const DISK_SECTORS: u64 = LAST.start + LAST.sectors + 36;

/// The same identifiers on every machine.
const IDENTIFIER: &str = "c0ffee11-3b6a-4f0e-8d2c-52a1d9e4b701";

/// The image of the disk.
pub fn build(cache: &Cache, workspace: &Path, data_image: &Path) -> Result<PathBuf> {
    let own_files = workspace.join("tests/debian");
    let mut own_content = Vec::new();
    read_all(&own_files, &mut own_content)?;
    let root_inputs = debian_root::inputs();
    let inputs = [
        include_bytes!("debian_disk.rs").as_slice(),
        root_inputs.as_bytes(),
        &own_content,
        data_image.as_os_str().as_encoded_bytes(),
    ];
    let entry = cache.entry("debian-disk", "making a disk with Debian", &inputs, |work| {
        let root = debian_root::build(&Apt::open(cache)?, &own_files, work)?;
        let disk = work.join("disk.img");
        File::create(&disk)?.set_len(DISK_SECTORS * partitions::SECTOR_BYTES)?;
        partitions::write_table(&disk, &PARTITIONS)?;
        make_file_system(&root, &disk)?;
        copy_into(data_image, &disk, DATA.start_bytes())?;
        fs::remove_dir_all(root).context("cannot remove the image's source")
    })?;
    Ok(entry.join("disk.img"))
}

/// Makes the file system of `root` in its partition of `disk`. All files are root's, whoever made them.
fn make_file_system(root: &Path, disk: &Path) -> Result<()> {
    let mut format = Command::new("unshare");
    if fs::metadata(root)?.uid() == 0 {
        format = Command::new("mke2fs");
    } else {
        format.args(["--map-root-user", "mke2fs"]);
    }
    let options = format!(
        "offset={},root_owner=0:0,hash_seed={IDENTIFIER},lazy_itable_init=0,lazy_journal_init=0",
        DEBIAN.start_bytes()
    );
    format.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-L",
        DEBIAN.label,
        "-U",
        IDENTIFIER,
        "-E",
        &options,
        "-d",
    ]);
    let blocks = DEBIAN.bytes() / 4096;
    tool::run(format.arg(root).arg(disk).arg(blocks.to_string()))
}

/// Copies `file` into `disk` at `place`.
fn copy_into(file: &Path, disk: &Path, place: u64) -> Result<()> {
    let mut to = File::options().write(true).open(disk)?;
    to.seek(SeekFrom::Start(place))?;
    io::copy(&mut File::open(file)?, &mut to)
        .with_context(|| format!("cannot copy {} to {}", file.display(), disk.display()))?;
    Ok(())
}

/// Names and content of all below `folder`, in one piece.
fn read_all(folder: &Path, content: &mut Vec<u8>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        content.extend(path.file_name().unwrap_or_default().as_encoded_bytes());
        content.push(0);
        if path.is_symlink() {
            content.extend(fs::read_link(&path)?.as_os_str().as_encoded_bytes());
        } else if path.is_dir() {
            read_all(&path, content)?;
        } else {
            content.extend(fs::read(&path)?);
        }
        content.push(0);
    }
    Ok(())
}
