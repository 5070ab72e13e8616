//! Xen itself: upstream and unpatched, from Debian's copy of its source, built twice.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::apt::{Apt, SUITE};
use super::kernel_build::KernelBuild;
use crate::cache::Cache;
use crate::tool;

/// The release that the Dom0 tools of the suite belong to.
pub const RELEASE: &str = "4.20";

/// The archive that the tests were last run with, and its hash. The newest one takes its place when the mirror has it no more.
const KNOWN_ARCHIVE: (&str, &str) = (
    "xen_4.20.3+127-gc42374a105.orig.tar.xz",
    "SHA256:df0831854a55a8f31cb3cb85036f2edc928e2ef098d77f815f5714bfafac68f3",
);

/// What the driver domain needs of Xen beside the defaults: IOREQ servers for guests on Arm, and FLASK to say who may have one. The
/// policy is a module of the boot, not built in.
const CONFIG: &str = "\
CONFIG_EXPERT=y
CONFIG_UNSUPPORTED=y
CONFIG_IOREQ_SERVER=y
CONFIG_XSM=y
CONFIG_XSM_FLASK=y
CONFIG_XSM_FLASK_AVC_STATS=y
# CONFIG_XSM_FLASK_POLICY is not set
CONFIG_XSM_SILO=y
";

/// Which Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flavour {
    /// With assertions and every guest's debug console: for tests.
    Debug,
    /// As it is deployed: for benchmarks.
    Release,
}

impl Flavour {
    /// The flavour's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// The unpacked source tree.
pub fn source(cache: &Cache) -> Result<PathBuf> {
    let entry = cache.entry("xen-source", "fetching Xen's source", &[SUITE.as_bytes(), RELEASE.as_bytes()], |work| {
        let apt = Apt::open(cache)?;
        let archive = work.join("xen.tar");
        let (name, hash) = KNOWN_ARCHIVE;
        if apt.fetch(&apt.known_archive("xen", name, hash), &archive).is_err() {
            let file = apt.source_archive("xen")?;
            if !file.name.starts_with(&format!("xen_{RELEASE}.")) {
                bail!("{SUITE} has {}, but the bed is made for Xen {RELEASE}: change RELEASE and the package names together", file.name);
            }
            apt.fetch(&file, &archive)?;
        }
        tool::run(Command::new("tar").arg("-xf").arg(&archive).args(["--strip-components=1", "-C"]).arg(work))?;
        fs::remove_file(archive).context("cannot remove the unpacked archive")
    })?;
    Ok(entry)
}

/// The hypervisor's image of `flavour`.
pub fn build(cache: &Cache, flavour: Flavour) -> Result<PathBuf> {
    let source = source(cache)?;
    let debug = match flavour {
        Flavour::Debug => "CONFIG_DEBUG=y\n",
        Flavour::Release => "# CONFIG_DEBUG is not set\n",
    };
    let config = format!("{CONFIG}{debug}");
    let name = format!("xen-{}", flavour.name());
    let title = format!("building Xen {RELEASE} ({})", flavour.name());
    let inputs = [config.as_bytes(), source.as_os_str().as_encoded_bytes()];
    let entry = cache.entry(&name, &title, &inputs, |work| {
        // The build writes among its sources: it gets a copy.
        let tree = work.join("tree");
        tool::run(Command::new("cp").arg("-r").arg(&source).arg(&tree))?;
        let folder = tree.join("xen");
        fs::write(folder.join(".config"), &config)?;
        let build = KernelBuild { name: "Xen", folder: &folder, architecture: "XEN_TARGET_ARCH" };
        build.make(&["olddefconfig"])?;
        build.check(&config)?;
        build.make_in_parallel(&[])?;
        fs::rename(tree.join("xen/xen"), work.join("xen"))?;
        fs::rename(tree.join("xen/xen-syms"), work.join("xen-syms"))?;
        fs::remove_dir_all(tree).context("cannot remove the build's tree")
    })?;
    Ok(entry.join("xen"))
}
