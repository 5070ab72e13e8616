//! What a driver domain takes, and a Linux in its place: files, time to start, least memory, memory as its guests' memory grows.

use anyhow::Result;

use super::{Benchmark, Records, Report};
use crate::bed::partitions::Partition;
use crate::bed::{Content, Lab, PhysicalDisk};

/// Memory of the served guest.
const SERVED_MIB: [u32; 5] = [256, 512, 1024, 2048, 4096];
/// A process of Linux maps it in pieces of this.
const PIECE_MIB: u32 = 64;
/// And all at once, where that works.
const WHOLE_MIB: [u32; 2] = [1024, 2048];
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
            ("PIECE_MIB", PIECE_MIB.to_string()),
            ("WHOLE_MIB", list(&WHOLE_MIB)),
        ]
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let mut report = Report::default();
        report.say(&records.text());
        Ok(report)
    }
}
