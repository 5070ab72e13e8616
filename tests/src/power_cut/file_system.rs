//! The file system of a replayed disk: its journal is carried out, then nothing may be wrong with it, and the files must be there.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::sha256;
use crate::tool;

/// Checks the ext4 file system in `volume` and the `files` (name and SHA-256) in its root; says in a sentence each what is wrong.
pub fn check(volume: &[u8], files: &[(&str, &str)], work: &Path) -> Result<Vec<String>> {
    let image = work.join("files.img");
    fs::write(&image, volume).with_context(|| format!("cannot write {}", image.display()))?;
    let journal = tool::run(Command::new("e2fsck").args(["-y", "-E", "journal_only"]).arg(&image));
    let state = journal.and_then(|()| tool::run(Command::new("e2fsck").args(["-f", "-n"]).arg(&image)));
    if let Err(error) = state {
        return Ok(vec![format!("{error:#}")]);
    }
    let folder = work.join("files");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut complaints = Vec::new();
    let request = format!("rdump / {}", folder.display());
    tool::run(Command::new("debugfs").args(["-R", &request]).arg(&image))?;
    for (name, sum) in files {
        match fs::read(folder.join(name)) {
            Ok(content) if sha256(&content) == *sum => {}
            Ok(_) => complaints.push(format!("the file {name} has another content")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                complaints.push(format!("the file {name} is not there"));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read the file {name}")),
        }
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with one file, `name`.
    fn volume(work: &Path, name: &str, content: &str) -> Vec<u8> {
        let (source, image) = (work.join("source"), work.join("source.img"));
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join(name), content).unwrap();
        let mut format = Command::new("mke2fs");
        tool::run(format.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&source).arg(&image).arg("4M")).unwrap();
        fs::read(image).unwrap()
    }

    #[test]
    fn a_file_is_there_whole_or_it_is_told() {
        let work = std::env::temp_dir().join(format!("file-system-{}", std::process::id()));
        let mut volume = volume(&work, "one", "content");
        let sum = sha256(b"content");
        let other = sha256(b"another");
        assert!(check(&volume, &[("one", &sum)], &work).unwrap().is_empty());
        assert_eq!(check(&volume, &[("one", &other), ("two", &sum)], &work).unwrap().len(), 2);
        volume[1024..2048].fill(0);
        assert_eq!(check(&volume, &[], &work).unwrap().len(), 1);
        fs::remove_dir_all(work).unwrap();
    }
}
