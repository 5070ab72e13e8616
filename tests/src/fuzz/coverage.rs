//! Which lines of the fuzzed modules the corpus reaches, by the compiler's own counters.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::Fuzzer;
use crate::cache::Cache;
use crate::setup::LlvmTools;
use crate::{image, progress, tool};

/// The modules that parse what others send, or decide on it: files, and folders, which end with a slash.
const MODULES: &[&str] = &[
    "drivers/src/virtio/queue.rs",
    "drivers/src/virtio/chain.rs",
    "drivers/src/virtio/batch.rs",
    "drivers/src/virtio/mmio.rs",
    "drivers/src/virtio/status.rs",
    "drivers/src/virtio/blk.rs",
    "drivers/src/virtio/blk/",
    "drivers/src/virtio/net.rs",
    "drivers/src/virtio/net/",
    "drivers/src/net/bridge.rs",
    "drivers/src/net/bridge/",
    "drivers/src/net/filter.rs",
    "drivers/src/net/frame.rs",
    "drivers/src/net/headers.rs",
    "drivers/src/net/offload.rs",
    "drivers/src/net/offload/",
    "drivers/src/net/checksum.rs",
    "drivers/src/volume/gpt.rs",
    "drivers/src/volume/gpt/",
    "drivers/src/volume/nbd/",
    "drivers/src/volume/spec.rs",
    "kernel/src/device_tree.rs",
    "kernel/src/options.rs",
    "kernel/src/endpoint/addressing.rs",
    "kernel/src/endpoint/http.rs",
    "kernel/src/endpoint/mod.rs",
    "kernel/src/endpoint/phy.rs",
    "kernel/src/endpoint/request.rs",
    "kernel/src/xen/store/",
];

/// Lines of a file.
pub struct Lines {
    /// The file, from the project's root on.
    pub file: String,
    /// Lines of code.
    pub all: u32,
    /// Of them, those that were reached.
    pub reached: u32,
}

/// Replays the corpora, and counts.
pub fn measure(fuzzer: &Fuzzer) -> Result<Vec<Lines>> {
    let tools = LlvmTools::find(&Cache::open()?)?;
    let folder = image::target_folder()?.join("coverage");
    let profiles = folder.join("profiles");
    if profiles.exists() {
        fs::remove_dir_all(&profiles)?;
    }
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&fuzzer.workspace).args(["build", "--quiet", "-p", "fuzz", "--bin", "replay"]);
    cargo.arg("--target-dir").arg(&folder).env("RUSTFLAGS", "-C instrument-coverage");
    // Its build scripts are instrumented, too.
    cargo.env("LLVM_PROFILE_FILE", folder.join("build-scripts.profraw"));
    progress::step("building the targets to count lines", || tool::run(&mut cargo))?;
    let replay = folder.join("debug/replay");
    for name in fuzzer.targets()? {
        let mut command = Command::new(&replay);
        command.arg(&name).arg(fuzzer.corpus(&name)?);
        command.env("LLVM_PROFILE_FILE", profiles.join(format!("{name}.profraw")));
        tool::run(&mut command)?;
    }
    let profile = folder.join("all.profdata");
    tool::run(
        tools.command("llvm-profdata").args(["merge", "-sparse"]).arg(&profiles).arg("-o").arg(&profile),
    )?;
    let report =
        tool::text(tools.command("llvm-cov").arg("report").arg(&replay).arg("-instr-profile").arg(&profile))?;
    let lines = read(&report);
    (!lines.is_empty()).then_some(lines).context("llvm-cov tells nothing of the fuzzed modules")
}

/// The fuzzed modules in a report: file, then regions, functions and lines, each as all, missed and a share.
fn read(report: &str) -> Vec<Lines> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let file = words.next()?;
        let place = ["drivers/src/", "kernel/src/"].iter().find_map(|folder| file.find(folder))?;
        let file = file[place..].to_owned();
        let (all, missed): (u32, u32) = (words.nth(6)?.parse().ok()?, words.next()?.parse().ok()?);
        let is_fuzzed =
            MODULES.iter().any(|module| file == *module || module.ends_with('/') && file.starts_with(module));
        (is_fuzzed && all > 0).then_some(Lines { file, all, reached: all - missed })
    };
    report.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_report_is_read() {
        let report = "Filename  Regions  Missed Regions  Cover  Functions  Missed Functions  Executed  Lines  Missed Lines  Cover\n\
             ---\n\
             x/drivers/src/virtio/queue.rs  10  2  80.00%  3  1  66.67%  30  4  86.67%  0  0  -\n\
             x/drivers/src/virtio/blk/request.rs  1  0  100.00%  1  0  100.00%  5  0  100.00%  0  0  -\n\
             x/drivers/src/hardware/net.rs  1  0  100.00%  1  0  100.00%  5  0  100.00%  0  0  -\n";
        let found: Vec<_> =
            read(report).into_iter().map(|lines| (lines.file, lines.all, lines.reached)).collect();
        let expected = [("drivers/src/virtio/queue.rs", 30, 26), ("drivers/src/virtio/blk/request.rs", 5, 5)];
        assert_eq!(found, expected.map(|(file, all, reached)| (file.to_owned(), all, reached)));
    }
}
