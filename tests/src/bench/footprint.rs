//! What a driver domain takes, and a Linux in its place: files, time to start, least memory, memory as its guests' memory grows.

use anyhow::{Context, Result};

use super::plot::{self, Figure, Line, LogAxis, Series};
use super::records::Record;
use super::{Benchmark, Records, Report, Table, code, number, text};
use crate::bed::partitions::Partition;
use crate::bed::{Content, Lab, PhysicalDisk};
use crate::image;

/// Memory of the served guest.
const SERVED_MIB: [u32; 5] = [256, 512, 1024, 2048, 4096];
/// A process of Linux maps it in pieces of this where it cannot be mapped in one.
const PIECE_MIB: u32 = 64;
/// Of the Linux in our place, when it is seen growing.
const LINUX_MIB: u32 = 128;
/// Of each partition of the physical disk.
const PARTITION_SECTORS: u64 = 32768;
/// One for each of four guests.
const PARTITIONS: [Partition; 4] =
    [partition("set1", 0), partition("set2", 1), partition("set3", 2), partition("set4", 3)];

const fn partition(label: &'static str, number: u64) -> Partition {
    Partition { label, start: 2048 + number * PARTITION_SECTORS, sectors: PARTITION_SECTORS }
}

/// See the module.
pub struct Footprint;

impl Benchmark for Footprint {
    fn name(&self) -> &'static str {
        "footprint"
    }

    fn lab(&self, mut lab: Lab) -> Lab {
        lab.memory = "8G".into();
        let bytes = (4 * PARTITION_SECTORS + 2 * 2048) * 512;
        let content = Content::Partitioned(bytes, &PARTITIONS);
        lab.disks.push(PhysicalDisk { transport: 0, content, options: String::new() });
        lab
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let list = |values: &[u32]| values.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        vec![
            ("SERVED_MIB", list(&SERVED_MIB)),
            ("LINUX_MIB", LINUX_MIB.to_string()),
            ("PIECE_MIB", PIECE_MIB.to_string()),
        ]
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let mut report = Report::default();
        report.table("A driver domain, and a Linux in its place", domains(records)?);
        report.table("What is taken as the memory of the one guest grows, KiB", growth(records)?);
        report.say(
            "(ours, xen-blkback: a guest has had all its memory reached by its disk; mapped: a process in Dom0 has mapped all of it, as backends \
             for virtio do that are programs of Linux. `in all`: its domain; `in use`: its domain less MemAvailable; `more`: since before. \
             `kept`: when all is unmapped again)",
        );
        report.say(&refused(records));
        report.table("Code that a guest can reach, without tests and comments", reachable()?);
        report.remark(&format!(
            "Linux    Debian's cloud kernel with cma=0; its initramfs has xen-blkback, xen-netback, brd, bridge, and one static program in place of \
             `xl devd`, shell and tools ({})",
            "tests/bench/linux_driver_domain.c",
        ));
        report.remark(
            "guests   Debian's cloud kernel, 1 vCPU, 256 MiB, a disk of 1 MiB in the backend's RAM and a NIC; served means: while all are there, each \
             writes its disk, drops its caches, compares, and has an answer from the backend's own address. Physical: each on a partition of one disk",
        );
        report.remark(
            "least    one MiB less was tried and was not enough; starts: the median of three, ours with 16 MiB, Linux with 256 MiB",
        );
        report.remark(
            "grown    ours with 8 MiB, Linux with 128 MiB; what was mapped for a smaller guest is used again: each row is what all has taken up to there",
        );
        report.picture("footprint.svg", picture(records)?);
        Ok(report)
    }
}

/// The median of the numbers at `key` of all results called `name` of `kind`.
fn of_kind(records: &Records, name: &str, kind: &str, key: &str) -> Result<f64> {
    let all = records.all(None, name);
    let of_kind = all.iter().filter(|record| record.text("kind") == kind);
    let mut values = of_kind.map(|record| record.number(key)).collect::<Result<Vec<_>>>()?;
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().with_context(|| format!("the run has no {name} of {kind}"))
}

fn domains(records: &Records) -> Result<Table> {
    let mut table = Table::new(&["", "ours", "Linux", "ours/Linux"]);
    let mut row = |title: &str, ours: f64, theirs: f64, digits| {
        table.row(title, [number(ours, digits), number(theirs, digits), number(ours / theirs, 4)]);
    };
    let files = records.all(None, "file");
    let kib = |what: &str| {
        let file = files.iter().find(|record| record.text("what") == what);
        file.with_context(|| format!("no file {what}"))?.number("bytes").map(|bytes| bytes / 1024.0)
    };
    let theirs = kib("linux-kernel")? + kib("linux-initramfs")?;
    row("files: image; kernel and initramfs, KiB", kib("ours")?, theirs, 0);
    for (title, key, unit) in [
        ("from xl unpause to serving, virtual ms", "ready_us", 1e3),
        ("  of which its own instructions, million", "cpu_ns", 1e6),
    ] {
        let [ours, theirs] = ["ours", "linux"].map(|kind| of_kind(records, "start", kind, key));
        row(title, ours? / unit, theirs? / unit, 1);
    }
    let least = |kind: &str, guests: &str| {
        let all = records.all(None, "least");
        let found = all.iter().find(|record| record.text("kind") == kind && record.text("guests") == guests);
        found.with_context(|| format!("no least memory of {kind} for {guests}"))?.number("mib")
    };
    for (title, guests) in [("least memory= for one guest, MiB", "1"), ("  for four", "4")] {
        row(title, least("ours", guests)?, least("linux", guests)?, 0);
    }
    for (title, guests) in [("  for one on a physical disk", "1"), ("  for four on a physical disk", "4")] {
        table.row(title, [number(least("disk", guests)?, 0)]);
    }
    Ok(table)
}

/// What is taken when a guest of `mib` is served, in KiB.
struct Taken {
    /// All of our domain.
    ours: f64,
    ours_more: f64,
    /// What xen-blkback's domain has in use.
    blkback: f64,
    blkback_more: f64,
    /// Of Dom0, by a process that maps all; what Xen takes for that; and what Dom0 still misses when nothing is mapped any more.
    mapped: f64,
    xen: f64,
    kept: f64,
}

fn taken(records: &Records, mib: u32) -> Result<Taken> {
    let is_of = |record: &Record| record.text("mib") == mib.to_string();
    let served = |kind: &str| {
        let of_kind = |record: &Record| is_of(record) && record.text("kind") == kind;
        let found = records.all(None, "served").into_iter().find(of_kind);
        found.with_context(|| format!("no guest of {mib} MiB was served by {kind}"))
    };
    let (ours, blkback) = (served("ours")?, served("linux")?);
    let mapped = records.all(None, "mapped");
    let before = mapped.first().context("nothing was mapped")?.number("before_kib")?;
    let last = mapped.iter().rposition(is_of).with_context(|| format!("no guest of {mib} MiB was mapped"))?;
    let xen_pages = mapped[..=last].iter().map(|record| record.number("xen_pages")).sum::<Result<f64>>()?;
    Ok(Taken {
        ours: 4.0 * ours.number("after_pages")?,
        ours_more: 4.0
            * (ours.number("after_pages")? - ours.number("before_pages")? + ours.number("xen_pages")?),
        blkback: f64::from(LINUX_MIB) * 1024.0 - blkback.number("after_kib")?,
        blkback_more: blkback.number("before_kib")? - blkback.number("after_kib")?
            + 4.0 * blkback.number("xen_pages")?,
        mapped: before - mapped[last].number("during_kib")?,
        xen: 4.0 * xen_pages,
        kept: before - mapped[last].number("after_kib")?,
    })
}

fn growth(records: &Records) -> Result<Table> {
    let mut table = Table::new(&[
        "the guest's memory",
        "ours, in all",
        "more",
        "xen-blkback, in use",
        "more",
        "mapped: Linux, more",
        "Xen, more",
        "kept",
    ]);
    for mib in SERVED_MIB {
        let taken = taken(records, mib)?;
        let cells = [
            taken.ours,
            taken.ours_more,
            taken.blkback,
            taken.blkback_more,
            taken.mapped,
            taken.xen,
            taken.kept + taken.xen,
        ];
        table.row(&format!("{mib} MiB"), cells.map(|kib| number(kib, 0)));
    }
    Ok(table)
}

/// What could not be mapped in one piece.
fn refused(records: &Records) -> String {
    let all = records.all(None, "mapped");
    let refused = all.iter().filter(|record| !record.text("error").is_empty());
    refused
        .map(|record| {
            format!(
                "(a process of Linux cannot map {} MiB in pieces of {}: {} after {})\n",
                record.text("mib"),
                record.text("piece"),
                record.text("error"),
                record.text("mapped_mib"),
            )
        })
        .collect()
}

fn reachable() -> Result<Table> {
    let workspace = image::workspace()?;
    let mut table = Table::new(&["crate", "lines", "unsafe blocks"]);
    let mut all = code::Code::default();
    for (name, roots) in [("drivers", &["lib.rs"] as &[&str]), ("kernel", &["lib.rs", "main.rs"])] {
        let mut code = code::Code::default();
        for root in roots {
            code += code::count(&workspace.join(name).join("src").join(root))?;
        }
        table.row(name, [text(&code.lines), text(&code.unsafe_blocks)]);
        all += code;
    }
    table.row("both", [text(&all.lines), text(&all.unsafe_blocks)]);
    Ok(table)
}

/// What is taken, over the memory of the guest.
fn picture(records: &Records) -> Result<String> {
    const MIB: f64 = 1024.0;
    let mut series = [
        "ours: its whole domain",
        "Linux, all mapped: more than before",
        "Linux, xen-blkback: its domain, in use",
    ]
    .map(|title| Series { title: title.to_owned(), points: Vec::new() });
    for mib in SERVED_MIB {
        let taken = taken(records, mib)?;
        let values = [taken.ours, taken.mapped + taken.xen, taken.blkback];
        for (series, kib) in series.iter_mut().zip(values) {
            series.points.push((f64::from(mib), kib / MIB));
        }
    }
    let values = series.iter().flat_map(|series| series.points.iter().map(|(_, up)| *up));
    let up = LogAxis::around(values, "MiB taken, logarithmic");
    let across = LogAxis {
        from: f64::from(SERVED_MIB[0]),
        to: f64::from(SERVED_MIB[SERVED_MIB.len() - 1]),
        title: "memory of the guest, logarithmic".to_owned(),
    };
    let line = Line {
        title: "Memory taken to serve one guest, as the guest's grows".to_owned(),
        across,
        up,
        tick: |mib| if mib < MIB { format!("{mib} MiB") } else { format!("{} GiB", mib / MIB) },
        series: series.into(),
    };
    Ok(plot::svg(&[Figure::Line(line)]))
}
