//! The Debian disk after a guest ran from it (`tests/xen/debian_from_disk.sh`).

use anyhow::{Context, Result, bail};

use super::Evidence;
use super::compare;
use super::file_system::{FileSystem, checksum, table_must_be_clean};
use crate::setup::debian_disk::DEBIAN;

/// How the guest tells what it wrote: `wrote SUM PATH`, perhaps behind a prompt.
const WROTE: &str = "guest: wrote ";
const GUEST: &str = "debian";

/// The file system is clean, the files that the guest wrote are what it says, and the disk is as before but for its partition.
pub fn check(evidence: &Evidence) -> Result<Vec<String>> {
    let image = evidence.image(0)?;
    table_must_be_clean(image)?;
    let file_system = FileSystem::new(image, &DEBIAN);
    let state = file_system.must_be_clean()?;
    let console = evidence.console(GUEST)?;
    let mut verified = 0;
    for line in console.lines().filter_map(|line| Some(line.split_once(WROTE)?.1)) {
        let (sum, path) =
            line.split_once(' ').with_context(|| format!("the guest's console says `{line}`"))?;
        if checksum(&file_system.read(path)?) != sum {
            bail!("{path} is not what the guest wrote");
        }
        verified += 1;
    }
    if verified == 0 {
        bail!("the guest does not say what it wrote");
    }
    compare::must_be_same(&evidence.originals()?[0], image, &[DEBIAN.range_bytes()])?;
    Ok(vec![
        "the partition table has no fault".into(),
        state,
        format!("{verified} files of the guest with the right SHA-256"),
        "no byte outside of the partition was changed".into(),
    ])
}
