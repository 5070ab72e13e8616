//! What a request costs as guests become more, as their memory grows, and as the window shrinks against the pages in use.

use anyhow::{Context, Result};

use super::disk::{self, Cost};
use super::plot::{self, Figure, Line, LogAxis, Series};
use super::{Benchmark, Records, Report, Table, number};
use crate::bed::Lab;

const VOLUME_BYTES: u64 = 8 << 20;
const GUEST_COUNTS: [u32; 4] = [1, 2, 4, 8];
const MEMORIES_MIB: [u32; 3] = [256, 1024, 4096];
/// Buffers of 4 KiB, spread over half of the guest's memory.
const MEMORY_BUFFERS: u32 = 2048;
/// The least that there can be, and its pages.
const WINDOW: &str = "2M";
const WINDOW_PAGES: f64 = 512.0;
const WINDOW_BUFFERS: [u32; 8] = [256, 448, 576, 768, 1024, 2048, 8192, 32768];

/// What a case is called in the tables, and by `blkbench.c`.
const GUEST_CASES: [(&str, &str); 3] = [
    ("4 KiB random read, depth 1", "read-4k-1"),
    ("4 KiB random read, depth 32, together", "read-4k-32-batched"),
    ("64 KiB sequential read, depth 1", "read-64k-1"),
];

/// The same for buffers at random places; the number of buffers comes behind the name.
const MEMORY_CASES: [(&str, &str); 2] = [
    ("4 KiB random read, depth 1", "read-4k-1-anywhere"),
    ("4 KiB random read, depth 32, together", "read-4k-32-batched-anywhere"),
];

/// A backend as the script names it, and the domain that it is.
const OURS: Side = Side { name: "ours", backend: "driver-domain" };
const BLKBACK: Side = Side { name: "blkback", backend: "0" };

struct Side {
    name: &'static str,
    backend: &'static str,
}

/// See the module.
pub struct Scale;

impl Benchmark for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn lab(&self, mut lab: Lab) -> Lab {
        lab.memory = "8G".into();
        lab
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("VOLUME_BYTES", VOLUME_BYTES.to_string()),
            ("GUEST_COUNTS", words(&GUEST_COUNTS, " ")),
            ("GUEST_CASES", disk::names(&GUEST_CASES)),
            ("MEMORIES", words(&MEMORIES_MIB, " ")),
            ("MEMORY_CASES", disk::names(&MEMORY_CASES)),
            ("MEMORY_BUFFERS", MEMORY_BUFFERS.to_string()),
            ("WINDOW", WINDOW.to_owned()),
            ("WINDOW_BUFFERS", words(&WINDOW_BUFFERS, ",")),
        ]
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let mut report = Report::default();
        report.picture("scale.svg", plot::svg(&[over_guests(records)?, over_pages(records)?]));
        report.table("Guests at once, each with a disk of its own", guests(records)?);
        report.say("(the processor time of all guests and the backend, for each request of any of them)");
        report.table("One guest, with 2048 buffers spread over half of its memory", memories(records)?);
        report.table("One guest, with more and more pages in use", windows(records)?);
        report.say(&format!(
            "(the window has {WINDOW_PAGES} pages; each miss that takes another's place makes Xen flush our TLB entries, which costs a single \
             instruction on this machine)"
        ));
        report.remark(
            "guests   Debian's cloud kernel, 1 vCPU, 192 MiB where several are there at once, 512 MiB for the window; all begin each case together; \
             O_DIRECT, no I/O scheduler, disks in RAM as for `bench disk`, content compared before and after",
        );
        report.remark(
            "buffers  of 4 KiB, evenly spread over half of the guest's memory; each request takes one at random",
        );
        Ok(report)
    }
}

fn words(numbers: &[u32], between: &str) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(between)
}

impl Side {
    /// The µs of one request of any of so many guests at once.
    fn of_guests(&self, records: &Records, count: u32, name: &str) -> Result<Cost> {
        let stage = format!("{}-guests-{count}", self.name);
        let each = records.one(Some(&format!("{}-guest1", self.name)), name)?.number("requests")?;
        let requests = each * f64::from(count);
        let mut guests_ns = 0.0;
        for number in 1..=count {
            guests_ns += records.used_ns(&stage, name, &format!("{}-guest{number}", self.name))?;
        }
        let backend_ns = records.used_ns(&stage, name, self.backend)?;
        let [guest, backend] = [guests_ns, backend_ns].map(|ns| ns / requests / 1000.0);
        Ok(Cost { all: guest + backend, guest, backend })
    }

    /// The µs of one request of a guest with so much memory.
    fn of_memory(&self, records: &Records, mib: u32, name: &str) -> Result<Cost> {
        let guest = format!("{}-memory-{mib}", self.name);
        disk::cost(records, &guest, &format!("{name}-{MEMORY_BUFFERS}"), self.backend)
    }
}

/// A table of both sides beside each other, with a row for each case and each of `values`.
fn beside(
    cases: &[(&str, &str)],
    values: &[u32],
    unit: &str,
    cost: impl Fn(&Side, u32, &str) -> Result<Cost>,
) -> Result<Table> {
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
    for (title, name) in cases {
        for (index, value) in values.iter().enumerate() {
            let title =
                if index == 0 { format!("{title}: {value} {unit}") } else { format!("  {value} {unit}") };
            let (ours, theirs) = (cost(&OURS, *value, name)?, cost(&BLKBACK, *value, name)?);
            let times = [ours.parts(), theirs.parts()].concat();
            let cells = times.into_iter().map(|value| number(value, 1));
            table.row(&title, cells.chain([number(ours.all / theirs.all, 2)]));
        }
    }
    Ok(table)
}

fn guests(records: &Records) -> Result<Table> {
    beside(&GUEST_CASES, &GUEST_COUNTS, "at once", |side, count, name| side.of_guests(records, count, name))
}

fn memories(records: &Records) -> Result<Table> {
    beside(&MEMORY_CASES, &MEMORIES_MIB, "MiB", |side, mib, name| side.of_memory(records, mib, name))
}

/// What a request of the guest with the small window costs, µs, and how many pages had to be mapped for it.
fn of_window(records: &Records, name: &str, buffers: u32) -> Result<(f64, f64)> {
    const GUEST: &str = "ours-window";
    let name = format!("{name}-{buffers}");
    let requests = records.one(Some(GUEST), &name)?.number("requests")?;
    let counted = records.counted(GUEST, &name);
    let misses = counted.get("misses").context("the driver domain did not tell its misses")?;
    Ok((disk::cost(records, GUEST, &name, OURS.backend)?.all, misses / requests))
}

fn windows(records: &Records) -> Result<Table> {
    let mut table =
        Table::new(&["pages in use", "misses a request", "depth 1, µs", "misses", "depth 32, together, µs"]);
    for buffers in WINDOW_BUFFERS {
        let mut cells = Vec::new();
        for (_, name) in MEMORY_CASES {
            let (us, misses) = of_window(records, name, buffers)?;
            cells.extend([number(misses, 3), number(us, 1)]);
        }
        table.row(&buffers.to_string(), cells);
    }
    Ok(table)
}

fn over_guests(records: &Records) -> Result<Figure> {
    let mut series = Vec::new();
    for (title, name) in &GUEST_CASES[..2] {
        for side in [OURS, BLKBACK] {
            let point = |count: u32| Ok((f64::from(count), side.of_guests(records, count, name)?.all));
            let points = GUEST_COUNTS.into_iter().map(point).collect::<Result<_>>()?;
            series.push(Series { title: format!("{}, {}", side.name, depth(title)), points });
        }
    }
    Ok(line("A 4 KiB read, by guests at once", 1.0, 8.0, "guests at once", series))
}

fn over_pages(records: &Records) -> Result<Figure> {
    let mut series = Vec::new();
    for (title, name) in MEMORY_CASES {
        let point = |buffers: u32| Ok((f64::from(buffers), of_window(records, name, buffers)?.0));
        let points = WINDOW_BUFFERS.into_iter().map(point).collect::<Result<_>>()?;
        series.push(Series { title: depth(title).to_owned(), points });
    }
    let title = format!("pages in use, at random; the window has {WINDOW_PAGES}");
    Ok(line("A 4 KiB read, by pages in use", 256.0, 32768.0, &title, series))
}

/// The end of a case's title.
fn depth(title: &str) -> &str {
    title.split_once(", ").map_or(title, |(_, depth)| depth)
}

fn line(title: &str, from: f64, to: f64, across: &str, series: Vec<Series>) -> Figure {
    let values = series.iter().flat_map(|series| series.points.iter().map(|(_, up)| *up));
    Figure::Line(Line {
        title: title.to_owned(),
        across: LogAxis { from, to, title: across.to_owned() },
        up: LogAxis::around(values, "virtual µs, logarithmic"),
        tick: |value| value.to_string(),
        series,
    })
}
