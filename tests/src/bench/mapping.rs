//! Ways of reaching guests' memory: costs out of the records, and the tables and the picture made of them.

use anyhow::{Context, Result};

use super::plot::{self, Dots, Figure, Line, LogAxis, Series};
use super::records::Record;
use super::{Benchmark, Records, Report, Table, number};

/// What a flush of the TLB is taken to cost in instructions: on this machine it costs one, on none that is made.
const WEIGHTS: [f64; 3] = [0.0, CHOSEN_WEIGHT, 10_000.0];
/// The one to choose by.
const CHOSEN_WEIGHT: f64 = 2000.0;

const PAGE_BYTES: u32 = 4096;
/// Least share of the target's pages that the random reads must have touched, or it is not a workload over its whole memory.
const TOUCHED_LEAST: f64 = 0.9;

/// Sizes of requests for grants.
const SIZES: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// The rows: title, the way's name, requests drained in one go.
const WAYS: [(&str, &str, u32); 17] = [
    ("(0) the copy alone, from memory of our own", "nothing", 1),
    ("(1) mapped and unmapped for each request", "map-per-request", 1),
    ("(1) for 32 requests together", "map-per-request", 32),
    ("(2) all mapped at the start", "map-all", 1),
    ("(3) mapped on fault, a single page", "view", 1),
    ("(3) with 32 page tables, 35 are needed", "view-few-tables", 1),
    ("(4) mapped on fault, 16 pages", "view-around", 1),
    ("(5) pinned, replaced in place", "pin", 1),
    ("(5) 32 requests together", "pin", 32),
    ("(5) as device models do it", "guest-memory", 1),
    ("(5) as they do it, 32 together", "guest-memory", 32),
    ("(6) as (5), slots out of our RAM", "pin-balloon", 1),
    ("(6) 32 requests together", "pin-balloon", 32),
    ("(7) grants mapped and unmapped", "grant-map", 1),
    ("(7) for 32 requests together", "grant-map", 32),
    ("(8) grants copied by Xen", "grant-copy", 1),
    ("(8) for 32 requests together", "grant-copy", 32),
];

const WORKLOADS: [(&str, &str); 3] = [
    ("whole", "(A) random pages of the whole memory, 16 times the window"),
    ("fitting", "(B) random pages of a working set of 3/4 of the window"),
    ("sequential", "(C) one page after the other, half the memory"),
];

/// What one request costs by one way.
struct Cost {
    ns: f64,
    misses: f64,
    faults: f64,
    hypercalls: f64,
    flushes: f64,
    own_flushes: f64,
    /// Share of the target's pages that were touched.
    touched: f64,
    /// Virtual ns before the first request.
    setup_ns: f64,
}

impl Cost {
    fn of(record: &Record) -> Result<Self> {
        let requests = record.number("requests")?;
        let each = |key: &str| Ok::<f64, anyhow::Error>(record.number(key)? / requests);
        let ns_per_tick = 1e9 / record.number("hz")?;
        Ok(Self {
            ns: each("ticks")? * ns_per_tick,
            misses: each("misses")?,
            faults: each("faults")?,
            hypercalls: each("hypercalls")?,
            flushes: each("flushes")?,
            own_flushes: each("own_flushes")?,
            touched: record.number("distinct")? / record.number("pages")?,
            setup_ns: record.number("setup_ticks")? * ns_per_tick,
        })
    }

    /// The cost when Xen's flush of the TLB costs `weight` instructions.
    fn at(&self, weight: f64) -> f64 {
        self.ns + weight * self.flushes
    }
}

fn cost(records: &Records, way: &str, workload: &str, batch: u32, bytes: u32) -> Result<Option<Cost>> {
    let (batch, bytes) = (batch.to_string(), bytes.to_string());
    records
        .all(None, "row")
        .iter()
        .find(|record| {
            [("way", way), ("workload", workload), ("batch", &batch), ("bytes", &bytes)]
                .iter()
                .all(|(key, value)| record.text(key) == *value)
        })
        .map(Cost::of)
        .transpose()
}

/// See the module.
pub struct Mapping;

impl Benchmark for Mapping {
    fn name(&self) -> &'static str {
        "mapping"
    }

    fn domains(&self) -> &'static [&'static str] {
        &["mapping"]
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let mut report = Report::default();
        for (workload, title) in WORKLOADS {
            report.table(title, workload_table(records, workload)?);
        }
        let touched = cost(records, "pin", "whole", 1, PAGE_BYTES)?.context("nothing was pinned")?.touched;
        anyhow::ensure!(touched >= TOUCHED_LEAST, "(A) touched only {touched:.3} of the target's pages");
        let all =
            cost(records, "map-all", "whole", 1, PAGE_BYTES)?.context("not all was mapped at the start")?;
        report.say(&format!(
            "\nIn (A) {:.1} % of the target's pages were touched. To map all at the start took {:.1} ms before the first request.",
            100.0 * touched,
            all.setup_ns / 1e6,
        ));
        report.table("Grants, by size", size_table(records)?);
        report.table("A page that is mapped already is pinned and unpinned", hit_table(records)?);
        report.remark(
            "target   no operating system, 64 MiB, each page with a pattern of its own: all that is read is compared, outside of the \
             measured time",
        );
        report.remark(
            "flushes  of Xen, of all of our TLB entries, counted by rule: 1 for each page replaced or unmapped; in virtual time one costs a \
             single instruction, hence the weights",
        );
        report.remark(
            "own      invalidations by ourselves, of what a view showed of a page or by a page table; not weighed",
        );
        report.remark("hits     no hypercall was needed; a fault may have been");
        report.picture("mapping.svg", picture(records)?);
        Ok(report)
    }
}

fn workload_table(records: &Records, workload: &str) -> Result<Table> {
    let mut table = Table::new(&[
        "one 4 KiB read, virtual ns",
        "flush 0",
        "flush 2000",
        "flush 10000",
        "hits, %",
        "misses",
        "faults",
        "hypercalls",
        "flushes",
        "own flushes",
    ]);
    for (title, way, batch) in WAYS {
        let Some(cost) = cost(records, way, workload, batch, PAGE_BYTES)? else { continue };
        let times = WEIGHTS.map(|weight| number(cost.at(weight), 0));
        let counts = [cost.misses, cost.faults, cost.hypercalls, cost.flushes, cost.own_flushes]
            .map(|value| number(value, 3));
        table.row(title, times.into_iter().chain([number(100.0 * (1.0 - cost.misses), 1)]).chain(counts));
    }
    Ok(table)
}

fn size_table(records: &Records) -> Result<Table> {
    let mut table = Table::new(&[
        "one request, virtual ns",
        "copied",
        "mapped, flush 0",
        "flush 2000",
        "flush 10000",
        "page mapped already",
    ]);
    for bytes in SIZES {
        let (Some(copied), Some(mapped), Some(all)) = (
            cost(records, "grant-copy", "whole", 1, bytes)?,
            cost(records, "grant-map", "whole", 1, bytes)?,
            cost(records, "map-all", "whole", 1, bytes)?,
        ) else {
            continue;
        };
        let cells = [copied.ns].into_iter().chain(WEIGHTS.map(|weight| mapped.at(weight))).chain([all.ns]);
        table.row(&format!("{bytes} bytes"), cells.map(|value| number(value, 0)));
    }
    Ok(table)
}

fn hit_table(records: &Records) -> Result<Table> {
    let mut table = Table::new(&["no hypercall, no flush", "virtual ns"]);
    let ns = |way: &str| -> Result<Option<f64>> {
        let hits = records.all(None, "hit");
        let Some(record) = hits.iter().find(|record| record.text("way") == way) else { return Ok(None) };
        Ok(Some(record.number("ticks")? * 1e9 / record.number("hz")? / record.number("requests")?))
    };
    let empty = ns("loop")?.context("the empty loop was not measured")?;
    for (title, way) in [
        ("by the pager", "pager"),
        ("as devices do, with a list of pieces", "guest-memory"),
        ("16 pages at once by the pager, each", "pager-16"),
    ] {
        if let Some(ns) = ns(way)? {
            let pages = if way == "pager-16" { 16.0 } else { 1.0 };
            table.row(title, [number((ns - empty) / pages, 0)]);
        }
    }
    Ok(table)
}

/// The picture, as SVG: every way on two workloads, and grants by size.
fn picture(records: &Records) -> Result<String> {
    let mut dots = Dots {
        title: "One 4 KiB read, with 2000 instructions for each flush of the TLB".to_owned(),
        axis: LogAxis {
            from: 500.0,
            to: 100_000.0,
            title: "virtual ns (instructions of the whole machine), logarithmic".to_owned(),
        },
        series: [&WORKLOADS[1], &WORKLOADS[0]].map(|(_, title)| (*title).to_owned()).to_vec(),
        rows: Vec::new(),
    };
    for (title, way, batch) in WAYS {
        let cost = |workload| cost(records, way, workload, batch, PAGE_BYTES);
        if let (Some(fitting), Some(whole)) = (cost("fitting")?, cost("whole")?) {
            dots.rows.push((title.to_owned(), vec![fitting.at(CHOSEN_WEIGHT), whole.at(CHOSEN_WEIGHT)]));
        }
    }
    let mut series = Vec::new();
    for (title, way, weight) in [
        ("copied", "grant-copy", 0.0),
        ("mapped and unmapped, flush 0", "grant-map", WEIGHTS[0]),
        ("mapped and unmapped, flush 2000", "grant-map", WEIGHTS[1]),
        ("mapped and unmapped, flush 10000", "grant-map", WEIGHTS[2]),
        ("foreign page, mapped already", "map-all", 0.0),
    ] {
        let mut points = Vec::new();
        for bytes in SIZES {
            if let Some(cost) = cost(records, way, "whole", 1, bytes)? {
                points.push((f64::from(bytes), cost.at(weight)));
            }
        }
        series.push(Series { title: title.to_owned(), points });
    }
    let line = Line {
        title: "Granted buffers: one request, by size".to_owned(),
        across: LogAxis { from: 512.0, to: 65_536.0, title: "bytes of the request, logarithmic".to_owned() },
        up: LogAxis { from: 100.0, to: 300_000.0, title: "virtual ns, logarithmic".to_owned() },
        tick: |bytes| if bytes < 1024.0 { format!("{bytes} B") } else { format!("{} KiB", bytes / 1024.0) },
        series,
    };
    Ok(plot::svg(&[Figure::Dots(dots), Figure::Line(line)]))
}
