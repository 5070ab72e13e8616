//! `cargo xtask hostile`: the boot test `hostile.sh` for as long as one likes, with a seed of one's own.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::test::run_boot_tests;
use crate::{boot_tests, image};

/// The script, in `tests/xen`.
const SCRIPT: &str = "hostile";

/// Which lives, and how long.
#[derive(Args)]
pub struct Options {
    /// How long new lives begin [default: one life for each word of --attacks]
    #[arg(long)]
    minutes: Option<u64>,
    /// The seed of the first life; the next has the next one
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// What a life chooses from, as names with commas between, or `all`; several words are as many lives: `tests/guests/hostile/src/attacks.rs`
    #[arg(long, default_value = "all")]
    attacks: String,
    /// Milliseconds of the machine that a life takes at most
    #[arg(long, default_value_t = 2000)]
    life: u32,
    /// Each life goes on until it is destroyed
    #[arg(long)]
    stay: bool,
    /// What the honest guest must have left, in percent of what it has beside a neighbour that only spins
    #[arg(long)]
    least: Option<u32>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut tests = boot_tests::find(&image::workspace()?)?;
    tests.retain(|test| test.name == SCRIPT);
    let test = tests.first_mut().context("tests/xen/hostile.sh is not there")?;
    test.time_limit += Duration::from_secs(options.minutes.unwrap_or_default() * 60);
    test.is_shown = true;
    let least = options.least.map(|percent| percent.to_string());
    let variables = [
        ("SEED", Some(options.seed.to_string())),
        ("LIVES", Some("1".into())),
        ("MINUTES", options.minutes.map(|minutes| minutes.to_string())),
        ("ATTACKS", Some(options.attacks.clone())),
        ("LIFE_MS", Some(options.life.to_string())),
        ("MORE", options.stay.then(|| "end=stay".into())),
        ("LEAST_PERCENT", least),
    ];
    let environment: Vec<_> =
        variables.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    run_boot_tests(&tests, &environment)
}
