//! `cargo xtask bench`: what the driver domain costs, in instructions. There is no pass or fail: it prints tables.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::bed::{Content, Lab, PhysicalDisk};
use crate::bench::{Measured, Records, Table, deterministic, mapping, measure, net, number};

/// Which, and where.
#[derive(Args)]
pub struct Options {
    /// Only this one [default: all]
    #[arg(value_enum)]
    which: Option<Which>,
    /// The processor's model
    #[arg(long, default_value = "cortex-a57")]
    cpu: String,
    /// More of Xen's command line, such as sched=credit
    #[arg(long = "xen-arg", allow_hyphen_values = true)]
    xen_arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// A guest's access to a register, until the driver domain's answer
    Ioreq,
    /// Requests to a disk, of the driver domain and of Linux' own backend
    Disk,
    /// Packets between guests, over the driver domain's bridge and over Linux' own
    Net,
    /// The start of the driver domain and of a guest's disk; the least memory for one in RAM
    Start,
    /// The least memory for one guest and for four, on partitions of a physical disk
    Memory,
    /// Ways of reaching guests' memory
    Mapping,
}

/// What the project aims at for an access to a register.
const IOREQ_TARGET_NS: f64 = 10_500.0;
/// What it has been measured to cost with a backend that is a program of Linux.
const IOREQ_LINUX_NS: f64 = 28_800.0;

const VOLUME_BYTES: u64 = 8 << 20;
/// Enough for 32 requests of 1 MiB at places of their own.
const DISK_BYTES: u64 = 64 << 20;
/// Enough for the volume.
const DISK_MEMORY_MIB: u32 = 24;
const MEMORIES_MIB: &str = "8 7 6 5 4 3 2 1";
const DISK_MEMORIES_MIB: &str = "8 5 4 3 2";
/// Four guests, and what each reads.
const FILE_SETS: Content = Content::FileSets(4, 48 << 20);

const GUEST: &str = "guest    Debian's cloud kernel, 1 vCPU, 256 MiB, idle for 1 s before; one request is the median of rounds";

impl Options {
    /// The machine to measure on.
    fn lab(&self, name: &str, more_xen_arguments: &[String]) -> Lab {
        deterministic(name, &self.cpu, [&self.xen_arguments, more_xen_arguments].concat())
    }

    fn measure(&self, name: &str, environment: &[(&str, String)]) -> Result<Measured> {
        measure(name, self.lab(name, &[]), environment, &[])
    }

    /// As [`Self::measure`], with what guests say through Xen's console, which a release Xen drops by default.
    fn measure_with_console(&self, name: &str) -> Result<Measured> {
        measure(name, self.lab(name, &["guest_loglvl=all".to_owned()]), &[], &[])
    }
}

/// Runs the benchmarks.
pub fn run(options: &Options) -> Result<ExitCode> {
    let wanted = |which| options.which.is_none_or(|only| only == which);
    if wanted(Which::Ioreq) {
        ioreq(options)?;
    }
    if wanted(Which::Disk) {
        disk(options)?;
    }
    if wanted(Which::Net) {
        nics(options)?;
    }
    if wanted(Which::Start) {
        start(options)?;
    }
    if wanted(Which::Memory) {
        memory(options)?;
    }
    if wanted(Which::Mapping) {
        mappings(options)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ioreq(options: &Options) -> Result<()> {
    let measured = options.measure_with_console("ioreq")?;
    let records = &measured.records;
    let mut table =
        Table::new(&["one access, virtual ns", "median", "mean", "least", "most", "guest+Xen", "driver+Xen"]);
    table.row("bare guest, read of the magic number", bare_cells(records)?.map(|value| number(value, 0)));
    for (title, name) in
        [("Linux guest, the same read", "magic"), ("  QueueNotify, device not running", "notify")]
    {
        let record = records.one(None, name)?;
        let requests = record.number("requests")?;
        let mut cells = Vec::new();
        for key in ["median_ns", "mean_ns", "least_ns", "most_ns"] {
            cells.push(number(record.number(key)?, 0));
        }
        for domain in ["guest", "driver-domain"] {
            cells.push(number(records.used_ns("guest", name, domain)? / requests, 0));
        }
        table.row(title, cells);
    }
    table.row("to reach", [number(IOREQ_TARGET_NS, 0)]);
    table.row("with a program of Linux", [number(IOREQ_LINUX_NS, 0)]);
    let text = format!(
        "{}(Linux has a runstate area, which Xen updates at each switch to and from it; the bare guest has none)\n",
        table.text()
    );
    measured.publish(
        &text,
        &format!(
            "{GUEST} of 100; the loop is taken off\nbare     no operating system, 1 vCPU, 256 MiB, MMU off; rounds of 1000"
        ),
    )
}

/// The ns of one access by the bare guest: median, mean, least, most; its own and the driver domain's share.
fn bare_cells(records: &Records) -> Result<[f64; 6]> {
    const GUEST: &str = "bare";
    const ROUND: &str = "round";
    let mut accesses = 0.0;
    let mut each = Vec::new();
    for record in records.all(Some(GUEST), ROUND) {
        let in_round = record.number("accesses")?;
        let ticks = record.number("magic_ticks")? - record.number("loop_ticks")?;
        each.push(ticks * 1e9 / record.number("hz")? / in_round);
        accesses += in_round;
    }
    // The first round only warms up.
    let each = each.get_mut(1..).filter(|each| !each.is_empty()).context("the bare guest said nothing")?;
    each.sort_by(f64::total_cmp);
    let mean = each.iter().sum::<f64>() / each.iter().map(|_| 1.0).sum::<f64>();
    let share = |domain: &str| Ok::<f64, anyhow::Error>(records.used_ns(GUEST, ROUND, domain)? / accesses);
    Ok([each[each.len() / 2], mean, each[0], each[each.len() - 1], share(GUEST)?, share("driver-domain")?])
}

fn disk(options: &Options) -> Result<()> {
    let environment = [
        ("DRIVER_DOMAIN_MEMORY", DISK_MEMORY_MIB.to_string()),
        ("VOLUME_BYTES", VOLUME_BYTES.to_string()),
        ("DISK_BYTES", DISK_BYTES.to_string()),
    ];
    let lab = options.lab("disk", &[]).with_timeless_disks(DISK_BYTES);
    let measured = measure("disk", lab, &environment, &[])?;
    let mut table = Table::new(&[
        "one request, virtual µs",
        "ours",
        "guest",
        "driver",
        "blkback",
        "guest",
        "Dom0",
        "ours/blkback",
    ]);
    for (title, name) in [
        ("4 KiB random read, depth 1", "read-4k-1"),
        ("  depth 32, submitted singly", "read-4k-32-single"),
        ("  depth 32, submitted together", "read-4k-32-batched"),
        ("  depth 32, together, 2048 buffers", "read-4k-32-batched-spread"),
        ("4 KiB random write, depth 1", "write-4k-1"),
        ("  depth 32, submitted singly", "write-4k-32-single"),
        ("  depth 32, submitted together", "write-4k-32-batched"),
        ("64 KiB sequential read", "read-64k-1"),
        ("64 KiB sequential write", "write-64k-1"),
        ("1 MiB sequential read", "read-1m-1"),
        ("1 MiB sequential write", "write-1m-1"),
    ] {
        let ours = disk_cells(&measured, "ours", name, "driver-domain")?;
        let theirs = disk_cells(&measured, "blkback", name, "0")?;
        let cells = ours.iter().chain(&theirs).map(|&value| number(value, 1));
        table.row(title, cells.chain([number(ours[0] / theirs[0], 2)]));
    }
    let mut physical = Table::new(&[
        "one request, virtual µs",
        "ours",
        "guest",
        "driver",
        "blkback",
        "guest",
        "Dom0",
        "Dom0 alone",
        "ours/blkback",
        "ours/alone",
    ]);
    for (title, name) in [
        ("4 KiB random read, depth 1", "read-4k-1"),
        ("  depth 32, submitted singly", "read-4k-32-single"),
        ("  depth 32, submitted together", "read-4k-32-batched"),
        ("4 KiB random write, depth 1", "write-4k-1"),
        ("  depth 32, submitted singly", "write-4k-32-single"),
        ("  depth 32, submitted together", "write-4k-32-batched"),
        ("1 MiB sequential read, depth 1", "read-1m-1"),
        ("  depth 32", "read-1m-32"),
        ("1 MiB sequential write, depth 1", "write-1m-1"),
        ("  depth 32", "write-1m-32"),
    ] {
        let ours = disk_cells(&measured, "ours-disk", name, "driver-domain")?;
        let theirs = disk_cells(&measured, "blkback-disk", name, "0")?;
        let alone = measured.records.one(Some("dom0"), name)?.number("median_ns")? / 1000.0;
        let cells = ours.iter().chain(&theirs).chain([&alone]).map(|&value| number(value, 1));
        physical
            .row(title, cells.chain([ours[0] / theirs[0], ours[0] / alone].map(|value| number(value, 2))));
    }
    let text = format!(
        "Disks in RAM\n\n{}\nPhysical disks\n\n{}(each domain with what Xen does for it)\n",
        table.text(),
        physical.text()
    );
    measured.publish(
        &text,
        &format!(
            "{GUEST}; O_DIRECT, no I/O scheduler\n\
             in RAM   content compared before and after; ours: {DISK_MEMORY_MIB} MiB for the driver domain, target=ram:{VOLUME_BYTES}; \
             blkback: Linux' xen-blkback in Dom0 on brd\n\
             physical virtio-blk devices of QEMU that take no time and keep nothing (null-co, served in the very write that kicks them): \
             what is seen is software alone; ours: target=blk0; blkback: on such a disk of Dom0; Dom0 alone: the same program in Dom0, no \
             guest, no backend"
        ),
    )
}

/// The µs of one request: all, the guest's, its backend's.
fn disk_cells(measured: &Measured, guest: &str, name: &str, backend: &str) -> Result<[f64; 3]> {
    let record = measured.records.one(Some(guest), name)?;
    let requests = record.number("requests")?;
    let used_us = |domain: &str| {
        Ok::<f64, anyhow::Error>(measured.records.used_ns(guest, name, domain)? / requests / 1000.0)
    };
    Ok([record.number("median_ns")? / 1000.0, used_us(guest)?, used_us(backend)?])
}

fn nics(options: &Options) -> Result<()> {
    let measured = options.measure("net", &[])?;
    measured.publish(
        &net::text(&measured.records)?,
        &format!(
            "{GUEST}\n\
             ours     virtio= of both guests, in one bridge; the driver domain with 16 MiB and no uplink: what is beyond it is not measured\n\
             netback  vif= of both guests, Linux' xen-netback and bridge in Dom0\n\
             content  compared in a first round that is not timed; of ping and of one byte always"
        ),
    )
}

fn start(options: &Options) -> Result<()> {
    let measured = options.measure("start", &[("MEMORIES", MEMORIES_MIB.to_owned())])?;
    let records = &measured.records;
    let mut table = Table::new(&["virtual ms", "first", "least", "most"]);
    for (title, name, key, unit) in [
        ("driver domain: xl create to data/ready", "driver-domain", "ready_us", 1e3),
        ("  of which its own instructions", "driver-domain", "cpu_ns", 1e6),
        ("guest: xl create to its disk's state 2", "guest", "connected_us", 1e3),
        ("  of which after xl's first backend node", "guest", "backend_us", 1e3),
        ("  of which the driver domain's instructions", "guest", "cpu_ns", 1e6),
        ("guest: xl create as a whole, paused", "guest", "xl_us", 1e3),
    ] {
        let values =
            records.all(None, name).iter().map(|record| record.number(key)).collect::<Result<Vec<_>>>()?;
        let first = values.first().copied().unwrap_or(f64::NAN);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        table.row(title, [first, least, most].map(|value| number(value / unit, 2)));
    }
    let mut memory = Table::new(&["memory=, MiB", "serves ram:1M", "pages"]);
    for record in records.all(None, "memory") {
        memory.row(record.text("mib"), ["serves", "pages"].map(|key| record.text(key).to_owned()));
    }
    // What a memory= that is too small leads to.
    let complaint =
        records.other_lines().filter_map(|line| line.strip_prefix("# ")).find(|line| line.contains("rror"));
    let complaint = complaint.map(|line| format!("({line})\n")).unwrap_or_default();
    measured.publish(
        &format!("{}\n{}{complaint}", table.text(), memory.text()),
        "starts   each five times over, the driver domain with 16 MiB\nguest    Debian's cloud kernel, 1 vCPU, 256 MiB; \
         for memory=, it writes the whole disk, drops its caches, and compares",
    )
}

fn memory(options: &Options) -> Result<()> {
    let mut lab = options.lab("memory", &[]);
    // Nothing is timed here, and counting instructions is slow.
    lab.deterministic = false;
    lab.memory = "8G".into();
    lab.disks.push(PhysicalDisk { transport: 0, content: FILE_SETS, options: String::new() });
    let measured = measure("memory", lab, &[("MEMORIES", DISK_MEMORIES_MIB.to_owned())], &[])?;
    let records = measured.records.all(None, "memory");
    let mut table = Table::new(&["memory=, MiB", "serves 1 guest", "4 guests"]);
    for mib in DISK_MEMORIES_MIB.split(' ') {
        let answer = |guests: &str| {
            let mut tried = records.iter();
            let found = tried.find(|record| record.text("guests") == guests && record.text("mib") == mib);
            found.map_or("-", |record| record.text("serves")).to_owned()
        };
        table.row(mib, ["1", "4"].map(answer));
    }
    let complaints: String = measured.records.other_lines().map(|line| format!("{line}\n")).collect();
    measured.publish(
        &format!("{}\n{complaints}", table.text()),
        "guests   Debian's cloud kernel, 1 vCPU, 1 GiB, each on a partition of one physical disk; while all are there, each reads files \
         past its page cache, writes one, and finds all as it must be",
    )
}

fn mappings(options: &Options) -> Result<()> {
    let measured = measure("mapping", options.lab("mapping", &[]), &[], &["mapping"])?;
    let records = &measured.records;
    let picture = measured.keep_picture("mapping.svg", &mapping::picture(records)?)?;
    measured.publish(
        &mapping::text(records)?,
        &format!(
            "target   no operating system, 64 MiB, each page with a pattern of its own: all that is read is compared, outside of the \
             measured time\n\
             flushes  of Xen, of all of our TLB entries, counted by rule: 1 for each page replaced or unmapped; in virtual time one costs a \
             single instruction, hence the weights\n\
             own      invalidations by ourselves, of what a view showed of a page or by a page table; not weighed\n\
             hits     no hypercall was needed; a fault may have been\n\
             picture  {}",
            picture.display()
        ),
    )
}
