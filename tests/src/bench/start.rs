//! The start of the driver domain and of a guest's disk.

use anyhow::Result;

use super::{Benchmark, Records, Report, Table, number};

/// See the module.
pub struct Start;

impl Benchmark for Start {
    fn name(&self) -> &'static str {
        "start"
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
        let mut report = Report::default();
        report.table("", table);
        report.remark("starts   each five times over, the driver domain with 16 MiB");
        Ok(report)
    }
}
