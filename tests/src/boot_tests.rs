//! The boot tests: each is one script for Dom0, `tests/xen/NAME.sh`, which begins with what it promises and needs.
//!
//! ```text
//! # promise: One sentence, which holds if the script ends with status 0.
//! # time: 60                  seconds; the script fails when it takes longer
//! # xen: release              the default is debug
//! # clock: instructions       time is counted in instructions: limits hold however busy the host is
//! # gic: 2                    the default is 3
//! # memory: 8G                the default is 4G
//! # passthrough: yes          the first eight virtio transports are not Dom0's
//! # disk: empty 64M           a physical disk on the next transport; after its content, options of QEMU's device (serial=a,…)
//! # disk: two-partitions      another: TWO_PARTITIONS below
//! # disk: debian              another: setup/debian_disk.rs
//! # disk: file-sets 4 1126M   another: so many partitions with so much in files each: bed/file_sets.rs
//! # nic: user                a physical NIC on the transport behind the disks', in QEMU's user network; then options of its device
//! # service: http             a server on the host while the script runs: host/service.rs lists them; guests reach it at 10.0.2.2
//! # block-node: driver=foo,…  a block node of QEMU: bed/physical_disk.rs says how it comes before a disk
//! # power-cuts: 3             it is run so often, and the machine stopped dead in the middle of it: power_cut/mod.rs
//! # host: NAME                what the host checks afterwards, with the machine off: host_checks/mod.rs
//! # guest: NAME              a guest of our own, `tests/guests/NAME`, which is `/bed/NAME.img`
//! # with: large_guests        the script of another test, which this one reads from /bed
//! # alone: yes                it gets a machine of its own, as each test with physical disks does
//! # qemu: -device foo         more of QEMU's command line
//! # xen-argument: foo=bar     more of Xen's command line
//! ```
//!
//! Tests that need the same machine share one boot, one after the other; after each, what it left is cleared away and its logs are put
//! aside. When a test takes the machine down, the others get a new one.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bed::partitions::Partition;
use crate::bed::{Content, Ending, Job, Lab, Network, PhysicalDisk, PhysicalNic};
use crate::host_checks::{self, Evidence};
use crate::power_cut::{self, PowerCuts};
use crate::setup::Parts;
use crate::setup::xen::Flavour;

/// How long a script may take that does not say.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// What clearing up after a test may take.
const CLEAR_UP: Duration = Duration::from_secs(60);
/// Starts the lines by which `tests/dom0/tests.sh` reports.
const MARK: &str = "@test ";
/// How much of a failed test's output is shown.
const SHOWN_LINES: usize = 30;

/// The disk `two-partitions`: each has room for 64 MiB, and only the first begins at a multiple of a page.
pub const TWO_PARTITIONS: [Partition; 2] = [
    Partition { label: "first", start: 2048, sectors: (64 << 11) + 5 },
    Partition { label: "second", start: 2048 + (64 << 11) + 5 + 58, sectors: (64 << 11) + 3 },
];
const TWO_PARTITIONS_BYTES: u64 = 136 << 20;

/// One boot test.
#[derive(Clone, Debug)]
pub struct BootTest {
    /// The script's name.
    pub name: String,
    /// What holds if it passes.
    pub promise: String,
    /// When it counts as failed.
    pub time_limit: Duration,
    /// Whether `CYCLES` says how long it goes on.
    pub counts_cycles: bool,
    /// Whether what it says is shown as it comes.
    pub is_shown: bool,
    /// How often the power is cut, in a test of that.
    pub power_cuts: Option<u32>,
    /// Guests of our own that it needs: packages, each with a program of the same name.
    pub guests: Vec<String>,
    script: PathBuf,
    other_scripts: Vec<PathBuf>,
    machine: Lab,
    alone: bool,
    host_check: Option<host_checks::Check>,
}

/// All boot tests, by name.
pub fn find(workspace: &Path) -> Result<Vec<BootTest>> {
    let folder = workspace.join("tests/xen");
    let mut tests = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "sh") {
            tests.push(read(&path).with_context(|| format!("{} has a wrong head", path.display()))?);
        }
    }
    tests.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(tests)
}

fn read(script: &Path) -> Result<BootTest> {
    let text = fs::read_to_string(script)?;
    let name = script.file_stem().context("it has no name")?.to_string_lossy().into_owned();
    let mut test = BootTest {
        promise: String::new(),
        time_limit: TIME_LIMIT,
        counts_cycles: text.contains("CYCLES"),
        is_shown: false,
        power_cuts: None,
        guests: Vec::new(),
        script: script.to_owned(),
        other_scripts: Vec::new(),
        machine: Lab::default(),
        alone: false,
        host_check: None,
        name,
    };
    let head =
        text.lines().take_while(|line| line.starts_with('#')).filter_map(|line| line[1..].split_once(':'));
    for (key, value) in head.map(|(key, value)| (key.trim(), value.trim())) {
        match key {
            "promise" => value.clone_into(&mut test.promise),
            "time" => {
                test.time_limit =
                    Duration::from_secs(value.parse().context("`time` is a number of seconds")?);
            }
            "xen" if value == "release" => test.machine.xen = Flavour::Release,
            "xen" if value == "debug" => {}
            "gic" => test.machine.gic = value.parse().context("`gic` is 2 or 3")?,
            "memory" => value.clone_into(&mut test.machine.memory),
            "clock" if value == "instructions" => test.machine.deterministic = true,
            "passthrough" => test.machine.passthrough = value == "yes",
            "disk" => {
                let transport = u32::try_from(test.machine.disks.len())?;
                test.machine.disks.push(disk(transport, value)?);
                test.alone = true;
            }
            "nic" => {
                let options = value.strip_prefix("user").context("`nic` begins with `user`")?;
                test.machine
                    .nics
                    .push(PhysicalNic { options: options.trim().replace(' ', ","), network: Network::User });
                test.alone = true;
            }
            "service" => {
                test.machine.services.push(value.parse()?);
                test.alone = true;
            }
            "block-node" => test.machine.block_nodes.push(value.to_owned()),
            "power-cuts" => {
                test.power_cuts = Some(value.parse().context("`power-cuts` is a number")?);
                power_cut::log_writes(&mut test.machine);
            }
            "host" => test.host_check = Some(host_checks::find(value)?),
            "guest" => test.guests.push(value.to_owned()),
            "with" => {
                test.other_scripts.push(script.with_file_name(value).with_extension("sh"));
                test.alone = true;
            }
            "alone" => test.alone = value == "yes",
            "qemu" => test.machine.qemu_arguments.extend(value.split_whitespace().map(str::to_owned)),
            "xen-argument" => test.machine.xen_arguments.push(value.to_owned()),
            _ => bail!("`{key}: {value}` is not known; boot_tests.rs lists what is"),
        }
    }
    if test.promise.is_empty() {
        bail!("it promises nothing: add a line `# promise: …`");
    }
    Ok(test)
}

/// A disk as a test's head describes it.
fn disk(transport: u32, text: &str) -> Result<PhysicalDisk> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (content, options) = match words[..] {
        ["empty", size, ref options @ ..] => (Content::Empty(bytes(size)?), options),
        ["two-partitions", ref options @ ..] => {
            (Content::Partitioned(TWO_PARTITIONS_BYTES, &TWO_PARTITIONS), options)
        }
        ["debian", ref options @ ..] => (Content::Debian, options),
        ["file-sets", count, size, ref options @ ..] => (
            Content::FileSets(count.parse().context("`file-sets` begins with a number")?, bytes(size)?),
            options,
        ),
        _ => bail!("no disk is known as `{text}`; boot_tests.rs lists what is"),
    };
    Ok(PhysicalDisk { transport, content, options: options.join(",") })
}

/// A size as `64M`.
pub fn bytes(text: &str) -> Result<u64> {
    let units = [("K", 10), ("M", 20), ("G", 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let number: u64 = number.parse().with_context(|| format!("{text} is no size such as 64M"))?;
    Ok(number << shift)
}

/// Runs `tests`, prints a line for each, and counts those that passed and failed.
pub fn run(
    tests: &[BootTest],
    parts: &Parts,
    workspace: &Path,
    bed_files: &[PathBuf],
    environment: &[(String, String)],
) -> Result<(usize, usize)> {
    let mut passed = 0;
    for (number, group) in groups(tests).into_iter().enumerate() {
        let mut waiting: VecDeque<BootTest> = group.into();
        if let Some(count) = waiting[0].power_cuts {
            passed += usize::from(cut_power(&waiting[0], count, parts, workspace, bed_files)?);
            continue;
        }
        while !waiting.is_empty() {
            // Such a test is the only one of its machine.
            let host_check = waiting[0].host_check;
            let mut boot = Boot {
                results: Vec::new(),
                output: String::new(),
                running: None,
                is_checked_later: host_check.is_some(),
                is_shown: waiting[0].is_shown,
            };
            let lab = Lab { name: format!("test-{}", number + 1), ..waiting[0].machine.clone() };
            let job = job(&waiting, workspace, bed_files, environment)?;
            let outcome = lab.run(parts, workspace, &job, |line| boot.take(line))?;
            let folder = outcome.results.parent().context("results lie in no folder")?.to_owned();
            if let Some(name) = boot.running.take() {
                boot.output.push_str(&format!("the machine: {:?}\n", outcome.ending));
                boot.finish(&name, false, 0.0);
            } else if boot.results.is_empty() && outcome.ending != Ending::Exit(0) {
                // Not even one began: it is not the test's fault, and trying again would not help.
                bail!(
                    "the machine did not come to the first test ({:?}); its console: {}",
                    outcome.ending,
                    outcome.log.display()
                );
            }
            for mut result in boot.results {
                if let Some(check) = host_check {
                    let results = outcome.results.join(&result.name);
                    result.check(check, &Evidence { lab: &lab, outcome: &outcome, parts, results: &results });
                }
                passed += usize::from(result.passed);
                result.show(&folder)?;
                waiting.retain(|test| test.name != result.name);
                if result.passed {
                    remove_images(&outcome.disk_images)?;
                }
            }
        }
    }
    Ok((passed, tests.len() - passed))
}

/// Removes the images of physical disks, which are large, and the originals that they were compared with.
fn remove_images(images: &[PathBuf]) -> Result<()> {
    for image in images {
        let original =
            image.parent().into_iter().map(|folder| folder.join("originals")).find(|it| it.exists());
        if let Some(folder) = original {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::remove_file(image).with_context(|| format!("cannot remove {}", image.display()))?;
    }
    Ok(())
}

/// Runs a test of power cuts, which has a machine of its own.
fn cut_power(
    test: &BootTest,
    count: u32,
    parts: &Parts,
    workspace: &Path,
    bed_files: &[PathBuf],
) -> Result<bool> {
    let job = Job {
        script: test.script.clone(),
        bed_files: bed_files.to_vec(),
        time_limit: test.time_limit,
        ..Job::default()
    };
    let lab = Lab { name: test.name.clone(), ..test.machine.clone() };
    let start = Instant::now();
    let passed = PowerCuts { lab: &lab, job: &job, count }.run(parts, workspace)?;
    tell(&test.name, passed, start.elapsed().as_secs_f32());
    Ok(passed)
}

/// The tests that can share a boot.
fn groups(tests: &[BootTest]) -> Vec<Vec<BootTest>> {
    let mut groups: Vec<(String, Vec<BootTest>)> = Vec::new();
    for test in tests {
        let machine = if test.alone { test.name.clone() } else { format!("{:?}", test.machine) };
        match groups.iter_mut().find(|(key, _)| *key == machine) {
            Some((_, group)) => group.push(test.clone()),
            None => groups.push((machine, vec![test.clone()])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn job(
    tests: &VecDeque<BootTest>,
    workspace: &Path,
    bed_files: &[PathBuf],
    environment: &[(String, String)],
) -> Result<Job> {
    let mut list = String::new();
    for test in tests {
        write!(list, "{}:{} ", test.name, test.time_limit.as_secs())?;
    }
    let mut environment = environment.to_vec();
    environment.push(("TESTS".into(), list));
    let scripts = tests.iter().flat_map(|test| std::iter::once(&test.script).chain(&test.other_scripts));
    Ok(Job {
        script: workspace.join("tests/dom0/tests.sh"),
        files: None,
        bed_files: bed_files.iter().chain(scripts).cloned().collect(),
        environment,
        time_limit: tests.iter().map(|test| test.time_limit + CLEAR_UP).sum(),
    })
}

/// What one boot has shown so far.
struct Boot {
    results: Vec<TestResult>,
    output: String,
    running: Option<String>,
    is_checked_later: bool,
    is_shown: bool,
}

struct TestResult {
    name: String,
    passed: bool,
    seconds: f32,
    output: String,
}

impl Boot {
    /// Takes a line of the run: a report, or output of the test that runs.
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.strip_prefix(MARK).unwrap_or_default().split(' ').collect();
        match words[..] {
            ["begin", name] => {
                self.output.clear();
                self.running = Some(name.to_owned());
            }
            ["end", name, status, seconds] => {
                self.running = None;
                self.finish(name, status == "0", seconds.parse().unwrap_or_default());
            }
            _ => {
                if self.is_shown {
                    println!("{line}");
                }
                self.output.push_str(line);
                self.output.push('\n');
            }
        }
    }

    fn finish(&mut self, name: &str, passed: bool, seconds: f32) {
        let result =
            TestResult { name: name.to_owned(), passed, seconds, output: std::mem::take(&mut self.output) };
        if !self.is_checked_later {
            result.tell();
        }
        self.results.push(result);
    }
}

fn tell(name: &str, passed: bool, seconds: f32) {
    println!("test {name} ... {} ({seconds:.1} s)", if passed { "ok" } else { "FAILED" });
}

impl TestResult {
    fn tell(&self) {
        tell(&self.name, self.passed, self.seconds);
    }

    /// The host's part of the test, when Dom0's held.
    fn check(&mut self, check: host_checks::Check, evidence: &Evidence) {
        if self.passed {
            match check(evidence) {
                Ok(lines) => self.output.extend(lines.iter().map(|line| format!("host: {line}\n"))),
                Err(error) => {
                    self.passed = false;
                    let _ = writeln!(self.output, "host: {error:#}");
                }
            }
        }
        self.tell();
    }

    /// Saves the test's output beside the logs of its machine; shows the end of it when it failed.
    fn show(&self, folder: &Path) -> Result<()> {
        let log = folder.join(format!("{}.log", self.name));
        fs::write(&log, &self.output).with_context(|| format!("cannot write {}", log.display()))?;
        if !self.passed {
            let lines: Vec<&str> = self.output.lines().collect();
            println!("---- {}", self.name);
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                println!("{line}");
            }
            println!(
                "---- all of it: {}, the machine's console: {}",
                log.display(),
                folder.join("serial.log").display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::find;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// The functions that a script defines outside of those of a guest's job.
    fn functions(script: &Path) -> BTreeSet<String> {
        let text = fs::read_to_string(script).unwrap();
        text.lines().filter_map(|line| Some(line.strip_suffix("() {")?.to_owned())).collect()
    }

    /// bash takes the last one: `create` of a test once called itself by way of bed.sh until its time was over.
    #[test]
    fn no_script_redefines_a_function_of_the_bed() {
        let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let of_the_bed = functions(&workspace.join("tests/dom0/bed.sh"));
        assert!(of_the_bed.contains("start_driver_domain"));
        let scripts = find(workspace).unwrap().into_iter().map(|test| test.script);
        for script in scripts.chain([workspace.join("tests/dom0/work.sh")]) {
            let twice: Vec<_> = functions(&script).intersection(&of_the_bed).cloned().collect();
            assert!(twice.is_empty(), "{} redefines {twice:?}", script.display());
        }
    }
}
