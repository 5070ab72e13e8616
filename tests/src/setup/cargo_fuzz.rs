//! cargo-fuzz, from its release.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::cache::Cache;
use crate::tool;

const VERSION: &str = "0.13.2";

/// The program.
pub fn build(cache: &Cache) -> Result<PathBuf> {
    let entry = cache.entry("cargo-fuzz", "building cargo-fuzz", &[VERSION.as_bytes()], |work| {
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--locked", "--quiet", "--version", VERSION, "--target-dir"]);
        cargo.arg(work.join("target")).arg("--root").arg(work).arg("cargo-fuzz");
        tool::run(&mut cargo)?;
        Ok(std::fs::remove_dir_all(work.join("target"))?)
    })?;
    Ok(entry.join("bin/cargo-fuzz"))
}
