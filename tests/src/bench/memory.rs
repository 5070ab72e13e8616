//! The least memory for one guest and for four, on partitions of a physical disk.

use anyhow::Result;

use super::{Benchmark, Records, Report, Table, text};
use crate::bed::{Content, Lab, PhysicalDisk};

const MEMORIES_MIB: &str = "8 5 4 3 2";
/// Four guests, and what each reads.
const FILE_SETS: Content = Content::FileSets(4, 48 << 20);

/// See the module.
pub struct Memory;

impl Benchmark for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn lab(&self, mut lab: Lab) -> Lab {
        // Nothing is timed here, and counting instructions is slow.
        lab.deterministic = false;
        lab.memory = "8G".into();
        lab.disks.push(PhysicalDisk { transport: 0, content: FILE_SETS, options: String::new() });
        lab
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("MEMORIES", MEMORIES_MIB.to_owned())]
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let tries = records.all(None, "memory");
        let mut table = Table::new(&["memory=, MiB", "serves 1 guest", "4 guests"]);
        for mib in MEMORIES_MIB.split(' ') {
            let answer = |guests: &str| {
                let mut tried = tries.iter();
                let found = tried.find(|record| record.text("guests") == guests && record.text("mib") == mib);
                text(found.map_or("-", |record| record.text("serves")))
            };
            table.row(mib, ["1", "4"].map(answer));
        }
        let mut report = Report::default();
        report.table("", table);
        report.say(&records.other_lines().map(|line| format!("{line}\n")).collect::<String>());
        report.remark(
            "guests   Debian's cloud kernel, 1 vCPU, 1 GiB, each on a partition of one physical disk; while all are there, each reads files \
             past its page cache, writes one, and finds all as it must be",
        );
        Ok(report)
    }
}
