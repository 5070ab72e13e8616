//! `cargo xtask bench`: what the driver domain costs, in instructions. There is no pass or fail: it prints tables.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::bench::{
    self, Benchmark, Disk, Footprint, Ioreq, Mapping, Net, Profile, Report, Scale, Start, Table, number, text,
};

/// Which, and where.
#[derive(Args)]
pub struct Options {
    /// Only this one
    #[arg(value_enum, default_value = "all")]
    which: Which,
    /// So many runs; numbers are then medians, with their spread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// The processor's model
    #[arg(long, default_value = "cortex-a57")]
    cpu: String,
    /// More of Xen's command line, such as sched=credit
    #[arg(long = "xen-arg", allow_hyphen_values = true)]
    xen_arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// One after the other
    All,
    /// A guest's access to a register, until the driver domain's answer
    Ioreq,
    /// Requests to a disk, of the driver domain and of Linux' own backend
    Disk,
    /// Packets between guests, over the driver domain's bridge and over Linux' own
    Net,
    /// Where the instructions of a request and of a packet are executed
    Profile,
    /// The start of the driver domain and of a guest's disk
    Start,
    /// What a driver domain takes, and a Linux in its place: files, least memory, memory as its guests' memory grows
    Footprint,
    /// The cost of a request as guests become more, their memory grows, and the window shrinks
    Scale,
    /// Ways of reaching guests' memory
    Mapping,
}

const ALL: [(Which, &dyn Benchmark); 8] = [
    (Which::Ioreq, &Ioreq),
    (Which::Disk, &Disk),
    (Which::Net, &Net),
    (Which::Profile, &Profile),
    (Which::Start, &Start),
    (Which::Footprint, &Footprint),
    (Which::Scale, &Scale),
    (Which::Mapping, &Mapping),
];

/// Runs the benchmarks.
pub fn run(options: &Options) -> Result<ExitCode> {
    let chosen = bench::Options {
        cpu: options.cpu.clone(),
        xen_arguments: options.xen_arguments.clone(),
        repeat: options.repeat,
    };
    let mut summary = Table::new(&["", "ours over theirs", "theirs"]);
    for (which, benchmark) in ALL {
        if options.which == which || options.which == Which::All {
            summarise(&mut summary, benchmark.name(), &bench::run(benchmark, &chosen)?);
        }
    }
    if options.which == Which::All {
        print!("\nAll ratios\n\n{}", summary.text());
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds the ratios of a report to the table of all of them.
fn summarise(summary: &mut Table, benchmark: &str, report: &Report) {
    for (title, table) in report.tables() {
        for (name, peer, ratio) in table.ratios() {
            let place = if title.is_empty() { benchmark.to_owned() } else { format!("{benchmark}, {title}") };
            summary.row(&format!("{place}: {name}"), [number(ratio, 2), text(peer)]);
        }
    }
}
