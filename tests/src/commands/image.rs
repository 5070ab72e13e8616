//! `cargo xtask image`

use std::process::ExitCode;

use anyhow::Result;

use crate::{image, setup};

/// Builds the driver domain and the device tree of its devices, and says where they are.
pub fn run() -> Result<ExitCode> {
    setup::toolchain()?;
    let image = image::build()?;
    println!("{} ({} KiB)", image.flat.display(), std::fs::metadata(&image.flat)?.len() / 1024);
    println!("{}", image::passthrough_tree()?.display());
    Ok(ExitCode::SUCCESS)
}
