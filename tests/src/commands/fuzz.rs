//! `cargo xtask fuzz`: tries inputs on the parsers that guests and others reach, keeps the good ones, tells which lines they reach.

use std::fmt::Write;
use std::fs;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::bench::{Table, number, text};
use crate::fuzz::campaign::{self, Totals};
use crate::fuzz::coverage::{self, Lines};
use crate::fuzz::{Fuzzer, corpus};
use crate::setup;

/// Which, and for how long.
#[derive(Args)]
pub struct Options {
    /// Only this target [default: one after the other]
    target: Option<String>,
    /// Minutes for each
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Write the smallest inputs that reach everything to tests/fuzz/corpus, instead of looking for new ones
    #[arg(long)]
    minimise: bool,
    /// Count the lines that the inputs reach, and write tests/results/fuzz.md, instead of looking for new ones
    #[arg(long, conflicts_with = "minimise")]
    coverage: bool,
}

const RESULTS: &str = "tests/results/fuzz.md";

const INTRODUCTION: &str = "# What the fuzzer has tried

`cargo xtask fuzz` runs the targets of `tests/fuzz` by libFuzzer, without a sanitizer (the code is safe Rust), with assertions and overflow
checks on, at most 512 MiB of memory and 5 s for an input. What must hold is told at the head of each target's file. Edges are those
of the target and all that it calls. A finding is a run that ended with an input that fails, in the code or in the target itself; what
the code's were is told in its tests.
";

const COVERAGE: &str = "
Lines of the fuzzed modules that the corpus reaches, by the compiler's counters:
";

/// Runs the fuzzer, or tells what it has done.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::toolchain()?;
    let fuzzer = if options.coverage { Fuzzer::open()? } else { Fuzzer::build()? };
    let mut targets = fuzzer.targets()?;
    if let Some(only) = &options.target {
        targets.retain(|name| name == only);
        if targets.is_empty() {
            bail!("there is no target {only}; there are: {}", fuzzer.targets()?.join(", "));
        }
    }
    if options.coverage {
        return tell_coverage(&fuzzer);
    }
    if options.minimise {
        targets.iter().try_for_each(|name| corpus::minimise(&fuzzer, name))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut findings = Vec::new();
    for name in &targets {
        println!("{name} ...");
        findings.extend(campaign::run(&fuzzer, name, seconds(options.minutes))?);
    }
    println!("\n{}", totals_table(&fuzzer, &targets).text());
    for finding in &findings {
        println!("fails: {}", finding.display());
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of minutes, rounded")]
fn seconds(minutes: f64) -> u64 {
    (minutes * 60.0).clamp(1.0, 1e6) as u64
}

fn tell_coverage(fuzzer: &Fuzzer) -> Result<ExitCode> {
    let targets = fuzzer.targets()?;
    let lines = coverage::measure(fuzzer)?;
    let mut text = INTRODUCTION.to_owned();
    write!(text, "\n```\n{}```\n", totals_table(fuzzer, &targets).text())?;
    text.push_str(COVERAGE);
    write!(text, "\n```\n{}```\n", lines_table(&lines).text())?;
    println!("{text}");
    fs::write(fuzzer.workspace.join(RESULTS), text)?;
    Ok(ExitCode::SUCCESS)
}

fn totals_table(fuzzer: &Fuzzer, targets: &[String]) -> Table {
    let mut table = Table::new(&[
        "target",
        "CPU minutes",
        "executions",
        "per second",
        "inputs kept",
        "edges",
        "findings",
    ]);
    for name in targets {
        let Totals { cpu_s, executions, findings, edges, inputs } = campaign::totals(fuzzer, name);
        #[expect(clippy::cast_precision_loss, reason = "a rate, rounded")]
        let rate = executions as f64 / cpu_s.max(1.0);
        table.row(
            name,
            [
                number(cpu_s / 60.0, 1),
                text(&executions),
                number(rate, 0),
                text(&inputs),
                text(&edges),
                text(&findings),
            ],
        );
    }
    table
}

fn lines_table(lines: &[Lines]) -> Table {
    let mut table = Table::new(&["module", "lines", "reached", "%"]);
    let share = |reached: u32, all: u32| number(100.0 * f64::from(reached) / f64::from(all.max(1)), 1);
    for Lines { file, all, reached } in lines {
        table.row(file, [text(all), text(reached), share(*reached, *all)]);
    }
    let (all, reached) =
        lines.iter().fold((0, 0), |(all, reached), lines| (all + lines.all, reached + lines.reached));
    table.row("all", [text(&all), text(&reached), share(reached, all)]);
    table
}
