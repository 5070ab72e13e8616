//! A guest's access to a register, until the driver domain's answer.

use anyhow::{Context, Result};

use super::{Benchmark, GUEST, Records, Report, Table, number};
use crate::bed::Lab;

/// What the project aims at for an access to a register.
const TARGET_NS: f64 = 10_500.0;
/// What it has been measured to cost with a backend that is a program of Linux.
const LINUX_NS: f64 = 28_800.0;

/// See the module.
pub struct Ioreq;

impl Benchmark for Ioreq {
    fn name(&self) -> &'static str {
        "ioreq"
    }

    fn lab(&self, mut lab: Lab) -> Lab {
        // What guests say through Xen's console, a release Xen drops by default.
        lab.xen_arguments.push("guest_loglvl=all".to_owned());
        lab
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let mut table = Table::new(&[
            "one access, virtual ns",
            "median",
            "mean",
            "least",
            "most",
            "guest+Xen",
            "driver+Xen",
        ]);
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
        table.row("to reach", [number(TARGET_NS, 0)]);
        table.row("with a program of Linux", [number(LINUX_NS, 0)]);
        let mut report = Report::default();
        report.table("", table);
        report.say(
            "(Linux has a runstate area, which Xen updates at each switch to and from it; the bare guest has none)",
        );
        report.remark(&format!("{GUEST} of 100; the loop is taken off"));
        report.remark("bare     no operating system, 1 vCPU, 256 MiB, MMU off; rounds of 1000");
        Ok(report)
    }
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
