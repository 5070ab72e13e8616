//! A small Linux for guests that grant their pages to the backend of their disk (`grant_usage=1`): Debian's kernels are built without
//! `XEN_VIRTIO`, so this one is made of Debian's source, with little more in it than a test's guest needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{Apt, SUITE};
use super::kernel_build::KernelBuild;
use crate::cache::Cache;
use crate::tool;

/// The package of the source, which has the same name on every architecture, and the archive in it.
const PACKAGE: &str = "linux-source-6.12";
const ARCHIVE: &str = "usr/src/linux-source-6.12.tar.xz";

/// What of the archive is not unpacked: two thirds of its bytes, and nothing that a Makefile or a Kconfig file asks for.
const LEFT_OUT: &[&str] = &[
    "*.json",
    "*.rst",
    "*.yaml",
    "*/arch/[!a]*/*.[chS]",
    "*/boot/dts/*.dts*",
    "*/drivers/accel/*.[ch]",
    "*/drivers/gpu/*.[ch]",
    "*/drivers/infiniband/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/net/*/*.[ch]",
    "*/drivers/scsi/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/sound/*.[ch]",
    "*/tools/perf/*",
    "*/tools/testing/*",
];

/// Its Image.
pub fn build(cache: &Cache, workspace: &Path) -> Result<PathBuf> {
    let config = workspace.join("tests/guest/grants.config");
    let wanted = fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    // Not this file: a word more in it is no reason for minutes of building.
    let inputs = [SUITE.as_bytes(), PACKAGE.as_bytes(), wanted.as_bytes()];
    let title = "building a small Linux that grants its pages (some minutes)";
    let entry = cache.entry("granting-kernel", title, &inputs, |work| {
        let tree = work.join("tree");
        unpack(&Apt::open(cache)?, work, &tree)?;
        let build = KernelBuild { name: "Linux", folder: &tree, architecture: "ARCH" };
        build.make(&[&format!("KCONFIG_ALLCONFIG={}", config.display()), "allnoconfig"])?;
        build.check(&wanted)?;
        build.make_in_parallel(&["Image"])?;
        fs::rename(tree.join("arch/arm64/boot/Image"), work.join("Image"))?;
        fs::rename(tree.join(".config"), work.join("config"))?;
        fs::remove_dir_all(tree).context("cannot remove the build's tree")
    })?;
    Ok(entry.join("Image"))
}

/// Puts the source to `tree`; `work` is for what is in between.
fn unpack(apt: &Apt, work: &Path, tree: &Path) -> Result<()> {
    let package = work.join("package");
    apt.unpack(SUITE, &[PACKAGE.to_owned()], &package)?;
    fs::create_dir_all(tree)?;
    let mut tar = Command::new("tar");
    tar.arg("-xJf").arg(package.join(ARCHIVE)).args(["--strip-components=1", "-C"]).arg(tree);
    tar.args(LEFT_OUT.iter().map(|pattern| format!("--exclude={pattern}")));
    tool::run(&mut tar)?;
    fs::remove_dir_all(package).context("cannot remove the unpacked package")
}
