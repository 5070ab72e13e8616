//! `cargo xtask setup`

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::{image, setup};

/// Makes all that is missing.
pub fn run() -> Result<ExitCode> {
    let start = Instant::now();
    setup::everything(&image::workspace()?)?;
    println!("the test bed is ready ({:.1} s)", start.elapsed().as_secs_f32());
    Ok(ExitCode::SUCCESS)
}
