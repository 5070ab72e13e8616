//! `cargo xtask test` and `cargo xtask soak`: the host's tests, then the boot tests on Xen.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::boot_tests::{self, BootTest};
use crate::{image, setup, tool};

const SOAK_CYCLES: u32 = 200;
const SOAK_POWER_CUTS: u32 = 20;

/// Which tests.
#[derive(Args)]
pub struct TestOptions {
    /// Only the boot tests whose names contain this; the host's tests are left out
    filter: Option<String>,
    /// Only the tests that need no Xen
    #[arg(long)]
    host: bool,
    /// Only the tests on Xen
    #[arg(long, conflicts_with = "host")]
    boot: bool,
    /// Name the boot tests and their promises, and run nothing
    #[arg(long)]
    list: bool,
}

/// How long and how often.
#[derive(Args)]
pub struct SoakOptions {
    /// Only the tests whose names contain this [default: all that count cycles]
    filter: Option<String>,
    /// How many cycles of each [default: 200, and 20 power cuts]
    #[arg(long)]
    cycles: Option<u32>,
    /// Seconds that each may take
    #[arg(long, default_value_t = 7200)]
    time: u64,
}

/// Runs the tests.
pub fn run(options: &TestOptions) -> Result<ExitCode> {
    let workspace = image::workspace()?;
    let mut tests = boot_tests::find(&workspace)?;
    let filter = options.filter.clone().unwrap_or_default();
    tests.retain(|test| test.name.contains(&filter));
    if options.list {
        for test in &tests {
            println!("{:<34} {}", test.name, test.promise);
        }
        return Ok(ExitCode::SUCCESS);
    }
    setup::toolchain()?;
    if options.filter.is_none() && !options.boot {
        let mut cargo = Command::new("cargo");
        if !tool::succeeds(cargo.current_dir(&workspace).args([
            "test",
            "--workspace",
            "--features",
            "drivers/fakes",
            "--quiet",
        ]))? {
            bail!("the tests of the host failed: the boot tests are not begun");
        }
        println!("the tests of the host passed");
    }
    if options.host {
        return Ok(ExitCode::SUCCESS);
    }
    run_boot_tests(&tests, &[])
}

/// Runs the tests that count cycles, with many.
pub fn soak(options: &SoakOptions) -> Result<ExitCode> {
    let mut tests = boot_tests::find(&image::workspace()?)?;
    tests.retain(|test| {
        let is_long = test.counts_cycles || test.power_cuts.is_some();
        options.filter.as_ref().map_or(is_long, |filter| test.name.contains(filter))
    });
    for test in &mut tests {
        if let Some(count) = &mut test.power_cuts {
            // Each is a run of its own, which takes as long as ever.
            *count = options.cycles.unwrap_or(SOAK_POWER_CUTS);
        } else {
            test.time_limit = Duration::from_secs(options.time);
        }
    }
    let cycles = options.cycles.unwrap_or(SOAK_CYCLES).to_string();
    run_boot_tests(&tests, &[("SOAK".into(), "1".into()), ("CYCLES".into(), cycles)])
}

/// Runs these, their scripts with `environment`.
pub fn run_boot_tests(tests: &[BootTest], environment: &[(String, String)]) -> Result<ExitCode> {
    if tests.is_empty() {
        bail!("no boot test has such a name: `cargo xtask test --list` names them");
    }
    let workspace = image::workspace()?;
    let parts = setup::everything(&workspace)?;
    let mut bed_files = image::bed_files(&workspace)?;
    bed_files.push(image::build()?.flat);
    let guests: BTreeSet<&String> = tests.iter().flat_map(|test| &test.guests).collect();
    for guest in guests {
        bed_files.push(image::build_domain(guest, guest)?.flat);
    }
    let (passed, failed) = boot_tests::run(tests, &parts, &workspace, &bed_files, environment)?;
    println!("\n{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
