//! What is built once and kept outside of the project: `$XDG_CACHE_HOME/xen-driver-domain`, else `~/.cache/xen-driver-domain`.
//!
//! An entry is a folder whose name holds a hash of all that went into it. It is built under a temporary name and renamed when it
//! is complete, so an interrupted build leaves nothing that looks ready; two commands at the same time build it once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::progress;

/// The folder that holds the entries.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache, making its folder when this is the first use.
    pub fn open() -> Result<Self> {
        let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => std::env::home_dir()
                .context("no home folder: set XDG_CACHE_HOME to a folder that may hold 2 GB")?
                .join(".cache"),
        };
        let root = base.join("xen-driver-domain");
        fs::create_dir_all(&root).with_context(|| {
            format!("cannot make {}: set XDG_CACHE_HOME to a folder that you may write", root.display())
        })?;
        Ok(Self { root })
    }

    /// Where the entries lie.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the entry `name` made of `inputs`; when it is not there yet, `build` fills it, shown under `title`.
    pub fn entry(
        &self,
        name: &str,
        title: &str,
        inputs: &[&[u8]],
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let entry = self.root.join(format!("{name}-{}", key(inputs)));
        if entry.is_dir() {
            return Ok(entry);
        }
        let _lock = self.lock(name)?;
        if entry.is_dir() {
            return Ok(entry);
        }
        let work = self.root.join(format!(".building-{name}"));
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| {
                format!("cannot remove {}, left by an interrupted run: remove it by hand", work.display())
            })?;
        }
        fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        progress::step(title, || build(&work)).with_context(|| format!("{title} failed"))?;
        fs::rename(&work, &entry).with_context(|| format!("cannot name {} as complete", entry.display()))?;
        Ok(entry)
    }

    /// Waits until no other command works on `name`; released when dropped.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join(format!(".lock-{name}"));
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(lock)
    }
}

/// A short name for the exact content of `inputs`.
pub fn key(inputs: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update(u64::try_from(input.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(input);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn key_tells_apart_where_an_input_ends() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
