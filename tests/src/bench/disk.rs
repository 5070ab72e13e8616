//! Requests to a disk, of the driver domain and of Linux' own backend.

use std::path::PathBuf;

use anyhow::Result;

use super::plot::{self, AXIS, Dots, Figure};
use super::{Benchmark, GUEST, Records, Report, Table, counted, distance, linux_backend, number};
use crate::bed::Lab;

const VOLUME_BYTES: u64 = 8 << 20;
/// Enough for 32 requests of 1 MiB at places of their own.
const DISK_BYTES: u64 = 64 << 20;
/// Enough for the volume.
const MEMORY_MIB: u32 = 24;

/// What a case is called in the table of disks in RAM, and by `blkbench.c`.
const IN_RAM: [(&str, &str); 17] = [
    ("4 KiB random read, depth 1", "read-4k-1"),
    ("  depth 8, submitted together", "read-4k-8-batched"),
    ("  depth 16, submitted singly", "read-4k-16-single"),
    ("  depth 32, submitted singly", "read-4k-32-single"),
    ("  depth 32, submitted together", "read-4k-32-batched"),
    ("  depth 32, together, 2048 buffers", "read-4k-32-batched-spread"),
    ("4 KiB sequential read, depth 1", "read-4k-sequential-1"),
    ("  depth 32, submitted together", "read-4k-sequential-32-batched"),
    ("4 KiB random write, depth 1", "write-4k-1"),
    ("  each with an fsync", "write-fsync-4k-1"),
    ("  depth 32, submitted singly", "write-4k-32-single"),
    ("  depth 32, submitted together", "write-4k-32-batched"),
    ("64 KiB sequential read, depth 1", "read-64k-1"),
    ("  depth 8, submitted together", "read-64k-8-batched"),
    ("64 KiB sequential write, depth 1", "write-64k-1"),
    ("1 MiB sequential read, depth 1", "read-1m-1"),
    ("1 MiB sequential write, depth 1", "write-1m-1"),
];

/// Copies of the guest's own, which no request of that size can be cheaper than.
const COPIES: [(&str, &str); 3] = [("4 KiB", "copy-4k"), ("64 KiB", "copy-64k"), ("1 MiB", "copy-1m")];

/// The same for physical disks.
const PHYSICAL: [(&str, &str); 12] = [
    ("4 KiB random read, depth 1", "read-4k-1"),
    ("  depth 32, submitted singly", "read-4k-32-single"),
    ("  depth 32, submitted together", "read-4k-32-batched"),
    ("4 KiB random write, depth 1", "write-4k-1"),
    ("  each with an fsync", "write-fsync-4k-1"),
    ("  depth 32, submitted singly", "write-4k-32-single"),
    ("  depth 32, submitted together", "write-4k-32-batched"),
    ("64 KiB sequential read, depth 1", "read-64k-1"),
    ("1 MiB sequential read, depth 1", "read-1m-1"),
    ("  depth 32", "read-1m-32"),
    ("1 MiB sequential write, depth 1", "write-1m-1"),
    ("  depth 32", "write-1m-32"),
];

/// See the module.
pub struct Disk;

impl Benchmark for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn lab(&self, lab: Lab) -> Lab {
        lab.with_timeless_disks(DISK_BYTES)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DRIVER_DOMAIN_MEMORY", MEMORY_MIB.to_string()),
            ("VOLUME_BYTES", VOLUME_BYTES.to_string()),
            ("DISK_BYTES", DISK_BYTES.to_string()),
            ("CASES", names(&COPIES) + "," + &names(&IN_RAM)),
            ("PROCESS_CASES", names(&linux_backend::CASES)),
            ("DISK_CASES", names(&PHYSICAL)),
        ]
    }

    fn bed_files(&self) -> Result<Vec<PathBuf>> {
        Ok(vec![linux_backend::build()?])
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let mut report = Report::default();
        let (in_ram, physical) = (in_ram(records)?, physical(records)?);
        let dots = |table, headings: &[&str], title| Figure::Dots(Dots::of(table, headings, title, AXIS));
        report.picture(
            "disk.svg",
            plot::svg(&[
                dots(&in_ram, &["ours", "blkback", "floor"], "A request to a disk in RAM"),
                dots(&physical, &["ours", "blkback", "Dom0 alone"], "A request to a physical disk"),
            ]),
        );
        report.table("Disks in RAM", in_ram);
        report.table("Physical disks", physical);
        report.say("(each domain with what Xen does for it)");
        report.table("Disks in RAM, beside a process of Linux in Dom0", linux_backend::table(records)?);
        if let Some(table) = distance::table(records, "ours", &IN_RAM)? {
            report.table("From the floor to ours, disks in RAM", table);
        }
        report.table("A copy by the guest, memcpy", copies(records)?);
        for (title, guest, cases) in [
            ("What the driver domain counted, disks in RAM", "ours", IN_RAM.as_slice()),
            ("The same, physical disks", "ours-disk", &PHYSICAL),
        ] {
            if let Some(table) = counted::table(records, guest, cases)? {
                report.table(title, table);
            }
        }
        report.remark(&format!("{GUEST}; O_DIRECT, no I/O scheduler"));
        report.remark(&format!(
            "in RAM   content compared before and after; ours: {MEMORY_MIB} MiB for the driver domain, target=ram:{VOLUME_BYTES}; \
             blkback: Linux' xen-blkback in Dom0 on brd; floor: brd in the guest itself, no backend; brd has no cache to flush, and says so"
        ));
        report.remark(distance::REMARK);
        report.remark(linux_backend::REMARK);
        report.remark(
            "physical virtio-blk devices of QEMU that take no time and keep nothing (null-co, served in the very write that kicks them): \
             what is seen is software alone; ours: target=blk0; blkback: on such a disk of Dom0; Dom0 alone: the same program in Dom0, no \
             guest, no backend",
        );
        Ok(report)
    }
}

fn in_ram(records: &Records) -> Result<Table> {
    let mut table = Table::new(&[
        "one request, virtual µs",
        "ours",
        "guest",
        "driver",
        "blkback",
        "guest",
        "Dom0",
        "floor",
        "ours-floor",
        "ours/blkback",
    ]);
    for (title, name) in IN_RAM {
        let ours = cost(records, "ours", name, "driver-domain")?;
        let theirs = cost(records, "blkback", name, "0")?;
        let floor = median_us(records, "floor", name)?;
        let times = [&ours.parts()[..], &theirs.parts(), &[floor, ours.all - floor]].concat();
        let times = times.into_iter().map(|value| number(value, 1));
        table.row(title, times.chain([number(ours.all / theirs.all, 2)]));
    }
    Ok(table)
}

fn copies(records: &Records) -> Result<Table> {
    let mut table = Table::new(&["one copy, virtual µs", ""]);
    for (title, name) in COPIES {
        table.row(title, [number(median_us(records, "floor", name)?, 2)]);
    }
    Ok(table)
}

fn physical(records: &Records) -> Result<Table> {
    let mut table = Table::new(&[
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
    for (title, name) in PHYSICAL {
        let ours = cost(records, "ours-disk", name, "driver-domain")?;
        let theirs = cost(records, "blkback-disk", name, "0")?;
        let alone = median_us(records, "dom0", name)?;
        let times = [&ours.parts()[..], &theirs.parts(), &[alone]].concat();
        let times = times.into_iter().map(|value| number(value, 1));
        table
            .row(title, times.chain([ours.all / theirs.all, ours.all / alone].map(|value| number(value, 2))));
    }
    Ok(table)
}

/// The cases' names, as `blkbench.c` takes them.
pub fn names(cases: &[(&str, &str)]) -> String {
    cases.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

/// What the guest measured for a request, µs.
pub fn median_us(records: &Records, guest: &str, name: &str) -> Result<f64> {
    Ok(records.one(Some(guest), name)?.number("median_ns")? / 1000.0)
}

/// The µs of one request.
pub struct Cost {
    /// Everything together.
    pub all: f64,
    /// The guest's, with what Xen does for it.
    pub guest: f64,
    /// The same of its backend.
    pub backend: f64,
}

impl Cost {
    /// All of it, and its parts.
    pub fn parts(&self) -> [f64; 3] {
        [self.all, self.guest, self.backend]
    }
}

/// What a request of `guest` costs, of which the domain `backend` does its part.
pub fn cost(records: &Records, guest: &str, name: &str, backend: &str) -> Result<Cost> {
    let requests = records.one(Some(guest), name)?.number("requests")?;
    let used_us =
        |domain: &str| Ok::<f64, anyhow::Error>(records.used_ns(guest, name, domain)? / requests / 1000.0);
    Ok(Cost { all: median_us(records, guest, name)?, guest: used_us(guest)?, backend: used_us(backend)? })
}
