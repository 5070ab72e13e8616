//! What the host looks at after a boot test, when the machine is off: the images of its physical disks, with tools that know nothing of
//! the driver domain. A test names its check in its head: `# host: NAME`.

mod compare;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::bed::{Lab, Outcome};

/// What a check looks at.
pub struct Evidence<'a> {
    /// The machine.
    pub lab: &'a Lab,
    /// Its run.
    pub outcome: &'a Outcome,
}

/// A check: what it saw, in lines for the test's log; or why it does not hold.
pub type Check = fn(&Evidence) -> Result<Vec<String>>;

/// All of them.
const CHECKS: &[(&str, Check)] = &[("untouched", untouched)];

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
        if let Some(place) = compare::first_difference(disk, image)? {
            bail!("{} was changed, first at byte {place:#x}", image.display());
        }
        lines.push(format!("{} is as it was", image.display()));
    }
    Ok(lines)
}

impl Evidence<'_> {
    /// The disks' images as they were before, made anew.
    fn originals(&self) -> Result<Vec<PathBuf>> {
        let run = self.outcome.log.parent().context("the run has no folder")?;
        let folder = run.join("originals");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        self.lab.disks.iter().map(|disk| disk.make_image(&folder)).collect()
    }
}
