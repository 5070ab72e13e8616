//! Requests to a disk, of the driver domain and of Linux' own backend.

use std::path::PathBuf;

use anyhow::Result;

use super::{Benchmark, GUEST, Records, Report, Table, linux_backend, number};
use crate::bed::Lab;

const VOLUME_BYTES: u64 = 8 << 20;
/// Enough for 32 requests of 1 MiB at places of their own.
const DISK_BYTES: u64 = 64 << 20;
/// Enough for the volume.
const MEMORY_MIB: u32 = 24;

/// What a case is called in the table of disks in RAM, and by `blkbench.c`.
const IN_RAM: [(&str, &str); 11] = [
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
];

/// The same for physical disks.
const PHYSICAL: [(&str, &str); 10] = [
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
        ]
    }

    fn bed_files(&self) -> Result<Vec<PathBuf>> {
        Ok(vec![linux_backend::build()?])
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let mut report = Report::default();
        report.table("Disks in RAM", in_ram(records)?);
        report.table("Physical disks", physical(records)?);
        report.say("(each domain with what Xen does for it)");
        report.remark(&format!("{GUEST}; O_DIRECT, no I/O scheduler"));
        report.remark(&format!(
            "in RAM   content compared before and after; ours: {MEMORY_MIB} MiB for the driver domain, target=ram:{VOLUME_BYTES}; \
             blkback: Linux' xen-blkback in Dom0 on brd"
        ));
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
        "ours/blkback",
    ]);
    for (title, name) in IN_RAM {
        let ours = cells(records, "ours", name, "driver-domain")?;
        let theirs = cells(records, "blkback", name, "0")?;
        let times = ours.iter().chain(&theirs).map(|&value| number(value, 1));
        table.row(title, times.chain([number(ours[0] / theirs[0], 2)]));
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
        let ours = cells(records, "ours-disk", name, "driver-domain")?;
        let theirs = cells(records, "blkback-disk", name, "0")?;
        let alone = records.one(Some("dom0"), name)?.number("median_ns")? / 1000.0;
        let times = ours.iter().chain(&theirs).chain([&alone]).map(|&value| number(value, 1));
        table.row(title, times.chain([ours[0] / theirs[0], ours[0] / alone].map(|value| number(value, 2))));
    }
    Ok(table)
}

/// The µs of one request: all, the guest's, its backend's.
fn cells(records: &Records, guest: &str, name: &str, backend: &str) -> Result<[f64; 3]> {
    let record = records.one(Some(guest), name)?;
    let requests = record.number("requests")?;
    let used_us =
        |domain: &str| Ok::<f64, anyhow::Error>(records.used_ns(guest, name, domain)? / requests / 1000.0);
    Ok([record.number("median_ns")? / 1000.0, used_us(guest)?, used_us(backend)?])
}
