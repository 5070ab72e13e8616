//! `cargo xtask`: the one tool of the project. It makes the test bed and runs all that is built on it.

mod bed;
mod bench;
mod cache;
mod commands;
mod image;
mod progress;
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
    /// Make all that the bed needs: programs, the Rust target, Xen, Dom0, guests. The other commands do this first, too.
    Setup,
    /// What it costs, in instructions: register accesses, disk requests, starts
    Bench(commands::bench::Options),
    /// Build the driver domain's image.
    Image,
    /// Boot Xen and Dom0, and run a script or a shell there.
    Dom0(commands::dom0::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => commands::setup::run(),
        Command::Bench(options) => commands::bench::run(&options),
        Command::Image => commands::image::run(),
        Command::Dom0(options) => commands::dom0::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
