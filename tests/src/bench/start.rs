//! The start of the driver domain and of a guest's disk; the least memory for one in RAM.

use anyhow::Result;

use super::{Benchmark, Records, Report, Table, number, text};

const MEMORIES_MIB: &str = "8 7 6 5 4 3 2 1";

/// See the module.
pub struct Start;

impl Benchmark for Start {
    fn name(&self) -> &'static str {
        "start"
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("MEMORIES", MEMORIES_MIB.to_owned())]
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let mut table = Table::new(&["virtual ms", "first", "least", "most"]);
        for (title, name, key, unit) in [
            ("driver domain: xl create to data/ready", "driver-domain", "ready_us", 1e3),
            ("  of which its own instructions", "driver-domain", "cpu_ns", 1e6),
            ("guest: xl create to its disk's state 2", "guest", "connected_us", 1e3),
            ("  of which after xl's first backend node", "guest", "backend_us", 1e3),
            ("  of which the driver domain's instructions", "guest", "cpu_ns", 1e6),
            ("guest: xl create as a whole, paused", "guest", "xl_us", 1e3),
        ] {
            let values = records
                .all(None, name)
                .iter()
                .map(|record| record.number(key))
                .collect::<Result<Vec<_>>>()?;
            let first = values.first().copied().unwrap_or(f64::NAN);
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            table.row(title, [first, least, most].map(|value| number(value / unit, 2)));
        }
        let mut memory = Table::new(&["memory=, MiB", "serves ram:1M", "pages"]);
        for record in records.all(None, "memory") {
            memory.row(record.text("mib"), ["serves", "pages"].map(|key| text(record.text(key))));
        }
        let mut report = Report::default();
        report.table("", table);
        report.table("", memory);
        // What a memory= that is too small leads to.
        let complaint = records
            .other_lines()
            .filter_map(|line| line.strip_prefix("# "))
            .find(|line| line.contains("rror"));
        report.say(&complaint.map(|line| format!("({line})")).unwrap_or_default());
        report.remark("starts   each five times over, the driver domain with 16 MiB");
        report.remark(
            "guest    Debian's cloud kernel, 1 vCPU, 256 MiB; for memory=, it writes the whole disk, drops its caches, and compares",
        );
        Ok(report)
    }
}
