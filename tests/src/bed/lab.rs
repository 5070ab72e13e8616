//! The lab: one boot of Xen and Dom0 that runs one script and brings back what it made.
//!
//! The script's output comes over a port of its own, so that no message of Xen or Linux is between its lines; the console of the
//! machine goes to a log. What the script leaves in `$OUT`, and the consoles of its guests, come back on a disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::disk;
use super::machine::{Machine, lines_of};
use super::physical_disk::{Content, PhysicalDisk};
use super::physical_nic::{self, PhysicalNic};
use super::qemu::{self, Console};
use crate::host::{Host, Service};
use crate::setup::Parts;
use crate::setup::xen::Flavour;

/// How long Xen and Dom0 may take before the script starts.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long Dom0 may take to end a script that is told to, and to hand over its results.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Starts the lines that Dom0's side writes, not the script.
const MARK: &str = "\u{1}bed ";
/// Starts the lines by which a script asks the host for something.
const REQUEST: &str = "\u{1}host ";

/// The machine to boot.
#[derive(Clone, Debug)]
pub struct Lab {
    /// Names the folder of this run's logs and results, `target/bed/NAME`.
    pub name: String,
    /// Which Xen.
    pub xen: Flavour,
    /// The machine's memory, in QEMU's form.
    pub memory: String,
    /// Dom0's memory, in Xen's form.
    pub dom0_memory: String,
    /// The version of the interrupt controller, 2 or 3.
    pub gic: u8,
    /// The processor's model.
    pub cpu: String,
    /// How many processors; one in a deterministic run.
    pub processors: u32,
    /// Time is counted in instructions: two runs of the same script agree.
    pub deterministic: bool,
    /// The first eight virtio transports are not Dom0's, to be passed through: always so with physical disks or NICs.
    pub passthrough: bool,
    /// The physical disks.
    pub disks: Vec<PhysicalDisk>,
    /// The physical NICs, on the transports behind the disks'.
    pub nics: Vec<PhysicalNic>,
    /// What the host has running for the machine.
    pub services: Vec<Service>,
    /// More of QEMU's block nodes, as `-blockdev` takes them: see `physical_disk.rs`. `{folder}` is the run's folder.
    pub block_nodes: Vec<String>,
    /// Names of files in the run's folder that are there, and empty, when QEMU starts: for block nodes that keep a log.
    pub empty_files: Vec<String>,
    /// More of Xen's command line.
    pub xen_arguments: Vec<String>,
    /// More of QEMU's command line.
    pub qemu_arguments: Vec<String>,
}

/// What to do in Dom0.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The script, for bash.
    pub script: PathBuf,
    /// A folder that the script finds as `/files`, where it starts.
    pub files: Option<PathBuf>,
    /// Files that it finds in `/bed`.
    pub bed_files: Vec<PathBuf>,
    /// Variables that the script sees.
    pub environment: Vec<(String, String)>,
    /// How long the script may run.
    pub time_limit: Duration,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The script ended with this status.
    Exit(i32),
    /// The script did not end in its time.
    TimedOut,
    /// Dom0 did not get as far as the script.
    NoBoot,
    /// The machine stopped under the script: Xen or Dom0 crashed.
    MachineStopped,
    /// The machine was stopped under the script, as was asked for.
    PowerCut,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// What the script left in `$OUT`; in `console/`, the guests' consoles.
    pub results: PathBuf,
    /// Everything that the machine's console showed.
    pub log: PathBuf,
    /// From QEMU's start to the script's.
    pub boot_time: Duration,
    /// From the script's start to its end.
    pub script_time: Duration,
    /// The images of the physical disks, as the run left them.
    pub disk_images: Vec<PathBuf>,
    /// Keeps the run's folder from the next run.
    _lock: File,
}

impl Default for Lab {
    fn default() -> Self {
        Self {
            name: "lab".into(),
            xen: Flavour::Debug,
            memory: "4G".into(),
            dom0_memory: "768M".into(),
            gic: 3,
            cpu: "cortex-a57".into(),
            processors: 1,
            deterministic: false,
            passthrough: false,
            disks: Vec::new(),
            nics: Vec::new(),
            services: Vec::new(),
            block_nodes: Vec::new(),
            empty_files: Vec::new(),
            xen_arguments: Vec::new(),
            qemu_arguments: Vec::new(),
        }
    }
}

impl Lab {
    /// How many processors the machine really has.
    pub fn cpus(&self) -> u32 {
        if self.deterministic { 1 } else { self.processors }
    }

    /// Adds two disks that take no time and keep nothing, so that a deterministic run stays so: a physical one, and one with the serial
    /// number `dom0` for Dom0.
    #[must_use]
    pub fn with_timeless_disks(mut self, bytes: u64) -> Self {
        const DOM0_TRANSPORT: u32 = 16;
        self.disks.push(PhysicalDisk { transport: 0, content: Content::Empty(0), options: String::new() });
        self.block_nodes.push(format!("driver=null-co,node-name=disk0,size={bytes},read-zeroes=on"));
        self.qemu_arguments.extend(
            [
                "-blockdev",
                &format!("driver=null-co,node-name=timeless,size={bytes},read-zeroes=on"),
                "-device",
                &format!("virtio-blk-device,drive=timeless,serial=dom0,bus=virtio-mmio-bus.{DOM0_TRANSPORT}"),
            ]
            .map(str::to_owned),
        );
        self.with_kicks_served_at_once()
    }

    /// Adds two wires with a NIC at each end, which take a virtual µs, so that a deterministic run stays so: from a physical NIC of the driver
    /// domain to one of Dom0's, and between two of Dom0's. Dom0's are known by their addresses.
    #[must_use]
    pub fn with_timeless_wires(mut self) -> Self {
        const DOM0_NICS: [(u32, u32, &str); 3] =
            [(17, 0, "52:54:00:00:01:00"), (18, 1, "52:54:00:00:01:01"), (19, 1, "52:54:00:00:01:02")];
        self.nics.push(physical_nic::timeless());
        for (transport, wire, mac) in DOM0_NICS {
            self.qemu_arguments.extend(physical_nic::timeless_of_dom0(transport, wire, mac));
        }
        self.with_kicks_served_at_once()
    }

    /// A kick is served at once, not by another thread of QEMU's some time later.
    fn with_kicks_served_at_once(mut self) -> Self {
        self.qemu_arguments.extend(["-global", "virtio-mmio.ioeventfd=off"].map(str::to_owned));
        self
    }

    /// Whether the first eight transports are kept from Dom0.
    pub fn has_passthrough(&self) -> bool {
        self.passthrough || !self.disks.is_empty() || !self.nics.is_empty()
    }

    /// Boots, runs `job`, and gives each line of its output to `line` as it comes.
    pub fn run(
        &self,
        parts: &Parts,
        workspace: &Path,
        job: &Job,
        mut line: impl FnMut(&str),
    ) -> Result<Outcome> {
        self.run_until_cut(parts, workspace, job, |_, text| {
            line(text);
            None
        })
    }

    /// As [`Lab::run`], but `line` is given the run's folder, too, and when it gives back a time, the machine is stopped dead that much
    /// later. What it still said until then comes to `line`.
    pub fn run_until_cut(
        &self,
        parts: &Parts,
        workspace: &Path,
        job: &Job,
        mut line: impl FnMut(&Path, &str) -> Option<Duration>,
    ) -> Result<Outcome> {
        let (folder, lock) = self.folder()?;
        let mut host = self.start_host(parts, workspace, &folder)?;
        let disks = self.make_disks(parts, workspace, &folder, job, &host)?;
        let disk_images = self.make_physical_disks(&folder, parts)?;
        let start = Instant::now();
        let mut machine =
            Machine(qemu::start(self, parts, &folder, &disks, &disk_images, &host, Console::Log)?);
        let output = lines_of(machine.0.stdout.take().context("QEMU has no output")?);
        let mut outcome = Outcome {
            ending: Ending::NoBoot,
            results: folder.join("out"),
            log: folder.join("serial.log"),
            boot_time: Duration::ZERO,
            script_time: Duration::ZERO,
            disk_images,
            _lock: lock,
        };
        let mut deadline = start + BOOT_LIMIT;
        let mut told_to_stop = false;
        let mut cut = None;
        loop {
            let end = cut.map_or(deadline, |cut| deadline.min(cut));
            match output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(text) if text.starts_with(REQUEST) => {
                    machine.say(&host.answer(&text[REQUEST.len()..]));
                }
                Ok(text) => match text.strip_prefix(MARK) {
                    Some("start") => {
                        outcome.boot_time = start.elapsed();
                        outcome.ending = Ending::TimedOut;
                        deadline = Instant::now() + job.time_limit;
                    }
                    Some(message) => {
                        let Some(status) = message.strip_prefix("exit ") else {
                            bail!("Dom0 sent what is not known: {message}");
                        };
                        if !told_to_stop {
                            outcome.ending =
                                Ending::Exit(status.parse().context("Dom0 sent a status that is no number")?);
                        }
                        break;
                    }
                    None => {
                        let delay = line(&folder, &text);
                        cut = cut.or_else(|| delay.map(|delay| Instant::now() + delay));
                    }
                },
                Err(RecvTimeoutError::Timeout) if cut.is_some_and(|cut| cut <= Instant::now()) => {
                    outcome.ending = Ending::PowerCut;
                    break;
                }
                Err(RecvTimeoutError::Timeout) if outcome.ending == Ending::TimedOut && !told_to_stop => {
                    told_to_stop = true;
                    deadline = Instant::now() + END_LIMIT;
                    machine.say("stop\n");
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    if outcome.ending != Ending::NoBoot {
                        outcome.ending = Ending::MachineStopped;
                    }
                    break;
                }
            }
        }
        drop(machine);
        match outcome.ending {
            Ending::NoBoot => qemu_must_be_content(&folder)?,
            Ending::PowerCut => output.iter().for_each(|text| {
                line(&folder, &text);
            }),
            _ => {}
        }
        outcome.script_time = start.elapsed().saturating_sub(outcome.boot_time);
        disk::unpack_results(&folder.join("results.img"), &outcome.results)?;
        for image in ["results.img", "files.img", "job.img"] {
            // They are large, and what was in them is in `out` now.
            let _ = fs::remove_file(folder.join(image));
        }
        Ok(outcome)
    }

    /// Boots to a shell of Dom0 on the terminal.
    pub fn shell(&self, parts: &Parts, workspace: &Path, job: &Job) -> Result<()> {
        let (folder, _lock) = self.folder()?;
        let host = self.start_host(parts, workspace, &folder)?;
        let disks = self.make_disks(parts, workspace, &folder, job, &host)?;
        let disk_images = self.make_physical_disks(&folder, parts)?;
        println!("Dom0 comes up in about 10 s. Leave by `exit`, or Ctrl-A x to stop the machine.");
        let mut machine =
            Machine(qemu::start(self, parts, &folder, &disks, &disk_images, &host, Console::Terminal)?);
        let status = machine.0.wait().context("cannot wait for QEMU")?;
        if status.success() { Ok(()) } else { qemu_must_be_content(&folder) }
    }

    fn start_host(&self, parts: &Parts, workspace: &Path, folder: &Path) -> Result<Host> {
        Host::start(&self.services, !self.nics.is_empty(), &parts.promtool, workspace, folder)
    }

    /// This run's own folder, locked: two runs of one name at a time get different ones.
    fn folder(&self) -> Result<(PathBuf, File)> {
        let bed = crate::image::target_folder()?.join("bed");
        for number in 1..100 {
            let name = if number == 1 { self.name.clone() } else { format!("{}-{number}", self.name) };
            let folder = bed.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            let lock = File::create(folder.join(".lock"))?;
            if lock.try_lock().is_ok() {
                let results = folder.join("out");
                if results.exists() {
                    fs::remove_dir_all(&results)?;
                }
                return Ok((folder, lock));
            }
        }
        bail!("a hundred runs named {} at a time: give one another name", self.name)
    }

    fn make_physical_disks(&self, folder: &Path, parts: &Parts) -> Result<Vec<PathBuf>> {
        for (number, disk) in self.disks.iter().enumerate() {
            if self.disks[..number].iter().any(|other| other.transport == disk.transport) {
                bail!("two disks are on transport {}: give one another number", disk.transport);
            }
        }
        for name in &self.empty_files {
            File::create(folder.join(name)).with_context(|| format!("cannot make an empty {name}"))?;
        }
        self.disks.iter().map(|disk| disk.make_image(folder, parts)).collect()
    }

    fn make_disks(
        &self,
        parts: &Parts,
        workspace: &Path,
        folder: &Path,
        job: &Job,
        host: &Host,
    ) -> Result<Vec<(&'static str, PathBuf)>> {
        let results = folder.join("results.img");
        disk::for_results(&results)?;
        let mut disks = vec![("bed", parts.bed_disk.clone()), ("results", results)];
        let staging = folder.join("job");
        if staging.exists() {
            fs::remove_dir_all(&staging)?;
        }
        fs::create_dir_all(&staging)?;
        let own = ["bed.sh", "work.sh", "session.sh"].map(|name| workspace.join("tests/dom0").join(name));
        for file in own.iter().chain(&job.bed_files) {
            let name = file.file_name().with_context(|| format!("{} is no file", file.display()))?;
            if staging.join(name).exists() {
                bail!("two files are named {} for /bed in Dom0: rename {}", name.display(), file.display());
            }
            fs::copy(file, staging.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        if job.script.as_os_str().is_empty() {
            fs::write(staging.join("script.sh"), "")?;
        } else {
            fs::copy(&job.script, staging.join("script.sh"))
                .with_context(|| format!("cannot read the script {}", job.script.display()))?;
        }
        let passthrough = self.has_passthrough().then(|| ("PASSTHROUGH".to_owned(), "yes".to_owned()));
        let variables = passthrough
            .into_iter()
            .chain(host.environment())
            .chain(job.environment.iter().cloned())
            .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")));
        fs::write(staging.join("job.env"), variables.collect::<String>())?;
        let image = folder.join("job.img");
        disk::from_folder(&staging, &image)?;
        disks.push(("job", image));
        if let Some(files) = &job.files {
            let image = folder.join("files.img");
            disk::from_folder(files, &image)?;
            disks.push(("files", image));
        }
        Ok(disks)
    }
}

/// Fails with what QEMU complained of, if it did.
fn qemu_must_be_content(folder: &Path) -> Result<()> {
    let text = fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
    let complaints: Vec<&str> = text.lines().filter(|line| line.starts_with("qemu-system-")).collect();
    if !complaints.is_empty() {
        bail!("QEMU says:\n{}", complaints.join("\n"));
    }
    Ok(())
}
