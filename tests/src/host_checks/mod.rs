//! What the host looks at after a boot test, when the machine is off: the images of its physical disks, with tools that know nothing of
//! the driver domain. A test names its check in its head: `# host: NAME`.

mod compare;
mod data;
mod debian;
mod file_system;
mod pattern;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bed::{Lab, Outcome};
use crate::setup::Parts;
pub use data::check as data;

/// What a check looks at.
pub struct Evidence<'a> {
    /// The machine.
    pub lab: &'a Lab,
    /// Its run.
    pub outcome: &'a Outcome,
    /// What the test left in `$OUT`; the consoles of its guests in `console`.
    pub results: &'a Path,
    /// What the machine was made of.
    pub parts: &'a Parts,
}

/// A check: what it saw, in lines for the test's log; or why it does not hold.
pub type Check = fn(&Evidence) -> Result<Vec<String>>;

/// All of them.
const CHECKS: &[(&str, Check)] =
    &[("debian", debian::check), ("patterns", pattern::check), ("untouched", untouched)];

/// The check of that name.
pub fn find(name: &str) -> Result<Check> {
    let names = || CHECKS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    CHECKS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, check)| *check)
        .with_context(|| format!("the host has no check {name}; it has: {}", names()))
}

/// No byte of any disk is another than before.
fn untouched(evidence: &Evidence) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (disk, image) in evidence.originals()?.iter().zip(&evidence.outcome.disk_images) {
        compare::must_be_same(disk, image, &[])?;
        lines.push(format!("{} is as it was", image.display()));
    }
    Ok(lines)
}

impl Evidence<'_> {
    /// The image of disk `number`, as the run left it.
    fn image(&self, number: usize) -> Result<&Path> {
        let image = self.outcome.disk_images.get(number);
        image.map(PathBuf::as_path).with_context(|| format!("the machine had no disk {number}"))
    }

    /// What guest `name` said on its console.
    fn console(&self, name: &str) -> Result<String> {
        let log = self.results.join(format!("console/guest-{name}.log"));
        let bytes = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
    }

    /// The disks' images as they were before, made anew.
    fn originals(&self) -> Result<Vec<PathBuf>> {
        let run = self.outcome.log.parent().context("the run has no folder")?;
        let folder = run.join("originals");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        self.lab.disks.iter().map(|disk| disk.make_image(&folder, self.parts)).collect()
    }
}
