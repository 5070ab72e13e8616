//! Runs of a target. What each was is kept beside the corpus, so that a campaign may have pauses.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};

use super::{Fuzzer, files};

/// What a target has had so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Seconds of a processor.
    pub cpu_s: f64,
    /// Inputs that were tried.
    pub executions: u64,
    /// Runs that ended with an input that fails.
    pub findings: u32,
    /// Edges of the control flow that are reached.
    pub edges: u32,
    /// Inputs that are kept.
    pub inputs: usize,
}

/// Runs a target for so many seconds, or until an input fails. Returns where that input is.
pub fn run(fuzzer: &Fuzzer, name: &str, seconds: u64) -> Result<Option<PathBuf>> {
    let _lock = fuzzer.lock(name)?;
    let corpus = fuzzer.corpus(name)?;
    let artifacts = fuzzer.findings()?.join(format!("{name}-"));
    let mut program = fuzzer.program(name)?;
    program
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}", artifacts.display()));
    program.args(["-len_control=20", "-print_final_stats=1"]).arg(&corpus);
    let cpu_before = children_cpu_s()?;
    let output = program.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let finding = text.lines().find_map(|line| line.split_once("Test unit written to "));
    let finding = finding.map(|(_, path)| PathBuf::from(path.trim()));
    if finding.is_none() && !output.status.success() {
        anyhow::bail!("{name} ended with {}:\n{}", output.status, last_lines(&text));
    }
    if finding.is_some() {
        println!("{}", last_lines(&text));
    }
    let cpu_s = children_cpu_s()? - cpu_before;
    let executions = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let executions: u64 = executions.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
    let line = format!("{cpu_s:.1} {executions} {} {}\n", u32::from(finding.is_some()), edges(&text));
    let runs = fuzzer.kept.join(format!("{name}.runs"));
    let before = fs::read_to_string(&runs).unwrap_or_default();
    fs::write(&runs, before + &line).context("cannot write to the cache")?;
    Ok(finding)
}

/// What a target has had so far.
pub fn totals(fuzzer: &Fuzzer, name: &str) -> Totals {
    let text = fs::read_to_string(fuzzer.kept.join(format!("{name}.runs"))).unwrap_or_default();
    Totals { inputs: files(&fuzzer.kept.join("corpus").join(name)), ..sum(&text) }
}

fn sum(runs: &str) -> Totals {
    runs.lines().fold(Totals::default(), |totals, line| {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        Totals {
            cpu_s: totals.cpu_s + next().parse().unwrap_or(0.0),
            executions: totals.executions + next().parse().unwrap_or(0),
            findings: totals.findings + next().parse().unwrap_or(0),
            edges: next().parse().unwrap_or(0),
            ..totals
        }
    })
}

/// The last number after `cov:` that libFuzzer tells.
fn edges(text: &str) -> u32 {
    let told = text.lines().rev().find_map(|line| line.split_once(" cov: "));
    let told = told.and_then(|(_, rest)| rest.split_whitespace().next());
    told.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn last_lines(text: &str) -> String {
    let told: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    told[told.len().saturating_sub(20)..].join("\n")
}

/// Processor time of all children that have ended (proc(5), /proc/pid/stat: cutime and cstime, in hundredths).
fn children_cpu_s() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat").context("there is no /proc")?;
    let behind_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::{Totals, edges, sum};

    #[test]
    fn runs_add_up() {
        let totals = sum("10.5 1000 0 40\n1.5 20 1 41\n");
        assert_eq!(totals, Totals { cpu_s: 12.0, executions: 1020, findings: 1, edges: 41, inputs: 0 });
    }

    #[test]
    fn the_last_coverage_counts() {
        assert_eq!(edges("#1 NEW cov: 3 ft: 4\n#2 DONE   cov: 71 ft: 9 corp: 1/2b\nstat::x: 1\n"), 71);
    }
}
