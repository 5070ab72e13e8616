//! Packets between guests, over the driver domain's bridge and over Linux' own: each case by both backends, and who of those that took part
//! used how much of it.

use anyhow::Result;

use super::plot::{self, AXIS, Dots, Figure};
use super::{Benchmark, GUEST, Records, Report, Table, counted, number};
use crate::bed::Lab;

/// See the module.
pub struct Net;

impl Benchmark for Net {
    fn name(&self) -> &'static str {
        "net"
    }

    fn lab(&self, lab: Lab) -> Lab {
        lab.with_timeless_wires()
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let mut report = Report::default();
        let (pairs, outside) = (guest_to_guest(records)?, guest_to_outside(records)?);
        let dots = |table, title| Figure::Dots(Dots::of(table, &["ours", "netback"], title, AXIS));
        report.picture(
            "net.svg",
            plot::svg(&[dots(&pairs, "From guest to guest"), dots(&outside, "From guest to outside")]),
        );
        report.table("Guest to guest", pairs);
        report.table(
            "Guest to Dom0, which has an address of its own on Linux' bridge",
            guest_to_dom0(records)?,
        );
        report.table("Guest to outside, over a physical NIC", outside);
        report.say("(each domain with what Xen does for it; UDP one way, from the guest to the other)");
        report.say(&losses(records)?);
        for (title, guest) in [
            ("What the driver domain counted, guest to guest", OURS.measurer),
            ("The same, guest to outside", OUTSIDE[0]),
        ] {
            if let Some(table) = counted::table(records, guest, &CASES)? {
                report.table(title, table);
            }
        }
        report.remark(GUEST);
        report.remark(
            "ours     virtio= of both guests, in one bridge; the driver domain with 16 MiB and, but for the outside, no uplink",
        );
        report.remark("netback  vif= of both guests, Linux' xen-netback and bridge in Dom0");
        report.remark(
            "outside  a network namespace of Dom0 with a NIC of its own, on both sides: its work is among Dom0's; a wire leads from there to the \
             driver domain's NIC, another to a NIC on Dom0's bridge. All NICs are virtio-net devices of QEMU without offloads, on which a frame \
             takes a virtual µs",
        );
        report.remark("content  compared in a first round that is not timed; of ping and of one byte always");
        Ok(report)
    }
}

/// The two guests of a pair and the backend between them, as the script names them.
struct Pair {
    measurer: &'static str,
    peer: &'static str,
    backend: &'static str,
}

const OURS: Pair = Pair { measurer: "ours", peer: "ours-peer", backend: "driver-domain" };
const NETBACK: Pair = Pair { measurer: "netback", peer: "netback-peer", backend: "0" };
/// A guest with Dom0 itself at the other end of the bridge.
const WITH_DOM0: &str = "netback-dom0";
/// A guest with a station beyond a physical NIC, by the driver domain and by Linux.
const OUTSIDE: [&str; 2] = ["ours-outside", "netback-outside"];

/// What a case is called in the tables and by `netbench.c`.
const CASES: [(&str, &str); 6] = [
    ("ping of 64 bytes, round trip", "ping-64"),
    ("TCP, one byte, round trip", "tcp-1"),
    ("UDP of 64 bytes, a packet", "udp-64"),
    ("UDP of 1400 bytes, a packet", "udp-1400"),
    ("TCP, 64 KiB to the other", "tcp-to"),
    ("TCP, 64 KiB from the other", "tcp-from"),
];

fn guest_to_guest(records: &Records) -> Result<Table> {
    let mut table = Table::new(&[
        "one case, virtual µs",
        "ours",
        "guest",
        "other",
        "driver",
        "netback",
        "guest",
        "other",
        "Dom0",
        "ours/netback",
    ]);
    for (title, name) in CASES {
        let ours = OURS.cells(records, name)?;
        let theirs = NETBACK.cells(records, name)?;
        let cells = ours.iter().chain(&theirs).map(|&value| number(value, 1));
        table.row(title, cells.chain([number(ours[0] / theirs[0], 2)]));
    }
    Ok(table)
}

fn guest_to_dom0(records: &Records) -> Result<Table> {
    let mut table = Table::new(&["one case, virtual µs", "netback", "guest", "Dom0"]);
    for (title, name) in CASES {
        let cells = cells_of(records, WITH_DOM0, name, &[WITH_DOM0, "0"])?;
        table.row(title, cells.iter().map(|&value| number(value, 1)));
    }
    Ok(table)
}

fn losses(records: &Records) -> Result<String> {
    let mut losses = String::new();
    for (title, name) in CASES {
        for guest in [OURS.measurer, NETBACK.measurer, WITH_DOM0, OUTSIDE[0], OUTSIDE[1]] {
            let record = records.one(Some(guest), name)?;
            if record.text("lost") != "0" {
                losses += &format!(
                    "({title}, {guest}: {} lost, {} delivered, the cost of all is told per delivered one)\n",
                    record.text("lost"),
                    record.text("requests"),
                );
            }
        }
    }
    Ok(losses)
}

fn guest_to_outside(records: &Records) -> Result<Table> {
    let mut table = Table::new(&[
        "one case, virtual µs",
        "ours",
        "guest",
        "driver",
        "Dom0",
        "netback",
        "guest",
        "Dom0",
        "ours/netback",
    ]);
    let [ours, theirs] = OUTSIDE;
    for (title, name) in CASES {
        let ours = cells_of(records, ours, name, &[ours, "driver-domain", "0"])?;
        let theirs = cells_of(records, theirs, name, &[theirs, "0"])?;
        let cells = ours.iter().chain(&theirs).map(|&value| number(value, 1));
        table.row(title, cells.chain([number(ours[0] / theirs[0], 2)]));
    }
    Ok(table)
}

impl Pair {
    /// The µs of one request: all, the measuring guest's, the other's, the backend's.
    fn cells(&self, records: &Records, name: &str) -> Result<Vec<f64>> {
        cells_of(records, self.measurer, name, &[self.measurer, self.peer, self.backend])
    }
}

/// The µs of one request that `guest` measured: all, and each domain's.
fn cells_of(records: &Records, guest: &str, name: &str, domains: &[&str]) -> Result<Vec<f64>> {
    let record = records.one(Some(guest), name)?;
    let requests = record.number("requests")?;
    let mut cells = vec![record.number("median_ns")? / 1000.0];
    for domain in domains {
        cells.push(records.used_ns(guest, name, domain)? / requests / 1000.0);
    }
    Ok(cells)
}
