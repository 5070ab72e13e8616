//! `cargo xtask`: the one tool of the project. It makes the test bed and runs all that is built on it.

#![forbid(unsafe_code)]

mod bed;
mod bench;
mod boot_tests;
mod cache;
mod commands;
mod fuzz;
mod host;
mod host_checks;
mod image;
mod pattern;
mod power_cut;
mod progress;
#[cfg(test)]
mod security;
mod setup;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests and measures the driver domain")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make all that the bed needs: programs, the Rust target, Xen, Dom0, guests. The other commands do this first, too
    Setup,
    /// The main job, once: serve an image to a stock guest that verifies and changes it, and leave nothing behind
    Run {
        /// A shell of Dom0 on this terminal, with all in place, instead of the job
        #[arg(long)]
        shell: bool,
    },
    /// Formatting, lints, documentation, places of unsafe code
    Check,
    /// The tests of the host, then the boot tests on Xen
    Test(commands::test::TestOptions),
    /// The boot tests that count cycles, with many cycles
    Soak(commands::test::SoakOptions),
    /// A hostile guest beside an honest one, life after life: the boot test `hostile` for longer
    Hostile(commands::hostile::Options),
    /// What it costs, in instructions: register accesses, disk requests, starts
    Bench(commands::bench::Options),
    /// Try inputs on what guests and others reach, and keep the good ones
    Fuzz(commands::fuzz::Options),
    /// The image's size by section and module, against the budget of README.md
    Size,
    /// Build the driver domain's image
    Image,
    /// Boot Xen and Dom0, and run a script or a shell there
    Dom0(Box<commands::dom0::Options>),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => commands::setup::run(),
        Command::Run { shell } => commands::run::run(shell),
        Command::Check => commands::check::run(),
        Command::Test(options) => commands::test::run(&options),
        Command::Soak(options) => commands::test::soak(&options),
        Command::Hostile(options) => commands::hostile::run(&options),
        Command::Bench(options) => commands::bench::run(&options),
        Command::Fuzz(options) => commands::fuzz::run(&options),
        Command::Size => commands::size::run(),
        Command::Image => commands::image::run(),
        Command::Dom0(options) => commands::dom0::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
