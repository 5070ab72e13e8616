//! The volume that guests are served in tests: an ext4 file system of real files, with the list of their checksums inside.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::tool;

/// Folders of the packages with many files of many sizes; together well below the image's size, so that a guest can write too.
const FOLDERS: [&str; 3] =
    ["usr/lib/aarch64-linux-gnu/perl-base", "usr/lib/aarch64-linux-gnu/gconv", "usr/share/doc"];
const SIZE: &str = "64M";
const LEAST_FILES: usize = 1000;
/// The same image on every machine: fixed identifiers and times.
const IDENTIFIER: &str = "6f1f8a3e-5d0c-4b6e-9a51-7a1c1f3b2d40";
const TIME: u64 = 1_750_000_000;

/// The image.
pub fn build(cache: &Cache, packages: &Path) -> Result<PathBuf> {
    let inputs = [include_bytes!("data_image.rs").as_slice(), packages.as_os_str().as_encoded_bytes()];
    let entry = cache.entry("data-image", "making the data image", &inputs, |work| {
        let content = work.join("content");
        fs::create_dir_all(&content)?;
        for folder in FOLDERS {
            tool::run(Command::new("cp").arg("-a").arg(packages.join(folder)).arg(&content))?;
        }
        let mut files = Vec::new();
        collect(&content, &mut files)?;
        files.sort();
        if files.len() < LEAST_FILES {
            bail!(
                "only {} files where at least {LEAST_FILES} were expected: add a folder to FOLDERS",
                files.len()
            );
        }
        let lines = files
            .iter()
            .map(|file| Ok(format!("{}  {}\n", checksum(file)?, file.strip_prefix(&content)?.display())));
        let sums = content.join("SHA256SUMS");
        fs::write(&sums, lines.collect::<Result<String>>()?)?;
        let time = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(TIME));
        for path in [&sums, &content] {
            File::open(path)?.set_times(time)?;
        }
        let mut format = Command::new("mke2fs");
        format.args(["-q", "-t", "ext4", "-L", "data", "-U", IDENTIFIER, "-E"]);
        format.arg(format!("root_owner=0:0,hash_seed={IDENTIFIER},lazy_itable_init=0,lazy_journal_init=0"));
        format.arg("-d").arg(&content).arg(work.join("data.img")).arg(SIZE);
        tool::run(format.env("E2FSPROGS_FAKE_TIME", TIME.to_string()))?;
        fs::remove_dir_all(content).context("cannot remove the image's source")
    })?;
    Ok(entry.join("data.img"))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            collect(&path, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn checksum(file: &Path) -> Result<String> {
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect())
}
