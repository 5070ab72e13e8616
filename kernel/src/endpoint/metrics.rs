//! The status in Prometheus' text format, version 0.0.4: families of samples, each family in one place.

use core::fmt::{self, Write};

use drivers::drive::LinkStatus;

use super::status::{DeviceKind, DeviceStatus, DiskStatus, GuestStatus, PortStatus, Status};
use Kind::{Counter, Gauge};
use Value::{Count, Nanoseconds};

/// What sort of number a family holds.
#[derive(Clone, Copy)]
enum Kind {
    /// Only grows, until this domain is restarted.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A number.
#[derive(Clone, Copy)]
enum Value {
    /// Of things.
    Count(u64),
    /// Shown in seconds.
    Nanoseconds(u64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Count(count) => write!(f, "{count}"),
            Nanoseconds(ns) => write!(f, "{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000),
        }
    }
}

/// What numbers of one name are there for each `T`.
struct Family<T: 'static> {
    /// Follows `driver_domain_`.
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: &'static [Sample<T>],
}

/// A label of the sample's own, or nothing, and its value; none where a `T` has no such number.
type Sample<T> = (&'static str, fn(&T) -> Option<Value>);

const fn family<T>(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: &'static [Sample<T>],
) -> Family<T> {
    Family { name, help, kind, samples }
}

const GLOBAL: &[Family<Status>] = &[
    family("uptime_seconds", Gauge, "Time since this domain was started.", &[("", |s| time(s.uptime_ns))]),
    family("guests", Gauge, "Domains that are served.", &[("", |s| size(s.guests.len()))]),
    family("pager_slots", Gauge, "Pages of guests that can be mapped.", &[("", |s| size(s.pager.slots))]),
    family("pager_slots_mapped", Gauge, "Pages that are mapped.", &[("", |s| size(s.pager.mapped))]),
    family("pager_slots_pinned", Gauge, "Pages that are in use now.", &[("", |s| size(s.pager.pinned))]),
    family("pager_hits_total", Counter, "Pages found mapped.", &[("", |s| count(s.pager.counters.hits))]),
    family(
        "pager_misses_total",
        Counter,
        "Pages that had to be mapped.",
        &[("", |s| count(s.pager.counters.misses))],
    ),
    family(
        "pager_evictions_total",
        Counter,
        "Pages that were mapped in place of another.",
        &[("", |s| count(s.pager.counters.evictions))],
    ),
    family(
        "pager_hypercalls_total",
        Counter,
        "Hypercalls that mapped pages.",
        &[("", |s| count(s.pager.counters.map_calls))],
    ),
    family(
        "pager_failures_total",
        Counter,
        "Pages that could not be mapped.",
        &[("", |s| count(s.pager.counters.failures))],
    ),
    family(
        "pager_unmapped_total",
        Counter,
        "Pages that were unmapped.",
        &[("", |s| count(s.pager.counters.unmapped))],
    ),
    family("memory_bytes", Gauge, "RAM of this domain.", &[("", |s| size(s.memory.total_bytes))]),
    family(
        "memory_free_bytes",
        Gauge,
        "RAM of this domain that is free.",
        &[
            ("kind=\"frames\"", |s| size(s.memory.frames_free_bytes)),
            ("kind=\"heap\"", |s| size(s.memory.heap_free_bytes)),
        ],
    ),
    family(
        "frame_pool_bytes",
        Gauge,
        "RAM taken for Ethernet frames.",
        &[("", |s| size(s.frame_pool.bytes))],
    ),
    family("frame_pool_in_use", Gauge, "Buffers that hold a frame.", &[("", |s| size(s.frame_pool.in_use))]),
    family(
        "frame_pool_exhausted_total",
        Counter,
        "Times that there was no buffer for a frame.",
        &[("", |s| count(s.frame_pool.exhausted))],
    ),
];

const OF_GUEST: &[Family<GuestStatus>] = &[family(
    "guest_pager_slots",
    Gauge,
    "Pages of the guest that are mapped.",
    &[("", |guest| size(guest.slots))],
)];

const OF_DEVICE: &[Family<DeviceStatus>] = &[
    family(
        "device_requests_total",
        Counter,
        "Requests of the guest; frames that it sent and received.",
        &[
            ("operation=\"read\"", |device| of_disk(device, |disk| Count(disk.reads))),
            ("operation=\"write\"", |device| of_disk(device, |disk| Count(disk.writes))),
            ("operation=\"flush\"", |device| of_disk(device, |disk| Count(disk.flushes))),
            ("operation=\"discard\"", |device| of_disk(device, |disk| Count(disk.discards))),
            ("operation=\"send\"", |device| of_nic(device, |nic| Count(nic.frames_sent))),
            ("operation=\"receive\"", |device| of_nic(device, |nic| Count(nic.frames_received))),
            ("operation=\"control\"", |device| of_nic(device, |nic| Count(nic.commands))),
        ],
    ),
    family(
        "device_bytes_total",
        Counter,
        "Bytes that the guest read or wrote, sent or received.",
        &[
            ("operation=\"read\"", |device| of_disk(device, |disk| Count(disk.bytes_read))),
            ("operation=\"write\"", |device| of_disk(device, |disk| Count(disk.bytes_written))),
            ("operation=\"send\"", |device| of_nic(device, |nic| Count(nic.bytes_sent))),
            ("operation=\"receive\"", |device| of_nic(device, |nic| Count(nic.bytes_received))),
        ],
    ),
    family(
        "device_errors_total",
        Counter,
        "Requests answered with an error, frames and commands refused.",
        &[
            ("kind=\"disk\"", |device| of_disk(device, |disk| Count(disk.errors))),
            ("kind=\"nic\"", |device| of_nic(device, |nic| Count(nic.errors))),
        ],
    ),
    family(
        "device_drops_total",
        Counter,
        "Frames that the guest did not send or receive, for lack of buffers.",
        &[
            ("operation=\"send\"", |device| of_nic(device, |nic| Count(nic.send_drops))),
            ("operation=\"receive\"", |device| of_nic(device, |nic| Count(nic.receive_drops))),
        ],
    ),
    family(
        "device_batches_total",
        Counter,
        "Batches of requests.",
        &[("", |device| of_disk(device, |disk| Count(disk.batches)))],
    ),
    family(
        "device_busy_seconds_total",
        Counter,
        "Time spent on batches of requests.",
        &[("", |device| of_disk(device, |disk| Nanoseconds(disk.busy_ns)))],
    ),
    family(
        "device_longest_batch_seconds",
        Gauge,
        "The longest time spent on one batch.",
        &[("", |device| of_disk(device, |disk| Nanoseconds(disk.longest_batch_ns)))],
    ),
    family(
        "device_kicks_total",
        Counter,
        "Times that the guest told of new requests.",
        &[("", |device| count(device.registers.kicks))],
    ),
    family(
        "device_interrupts_total",
        Counter,
        "Interrupts raised in the guest.",
        &[("", |device| count(device.registers.interrupts))],
    ),
    family("device_resets_total", Counter, "Resets by the guest.", &[("", |d| count(d.registers.resets))]),
    family(
        "device_breakdowns_total",
        Counter,
        "Times that the device came to need a reset.",
        &[("", |device| count(device.registers.breakdowns))],
    ),
];

const OF_PORT: &[Family<PortStatus>] = &[
    family(
        "port_frames_total",
        Counter,
        "Frames from the port into the bridge, and out of it.",
        &[
            ("direction=\"in\"", |port| count(port.counters.frames_in)),
            ("direction=\"out\"", |port| count(port.counters.frames_out)),
        ],
    ),
    family(
        "port_bytes_total",
        Counter,
        "Bytes from the port into the bridge, and out of it.",
        &[
            ("direction=\"in\"", |port| count(port.counters.bytes_in)),
            ("direction=\"out\"", |port| count(port.counters.bytes_out)),
        ],
    ),
    family(
        "port_drops_total",
        Counter,
        "Frames that were lost.",
        &[
            ("direction=\"in\",reason=\"no_buffer\"", |port| count(port.counters.dropped_no_buffer)),
            ("direction=\"in\",reason=\"refused\"", |port| count(port.counters.refused)),
            ("direction=\"in\",reason=\"flood\"", |port| count(port.counters.flood_limited)),
            ("direction=\"out\",reason=\"full\"", |port| count(port.counters.dropped_full)),
        ],
    ),
];

const OF_DISK: &[Family<DiskStatus>] = &[
    family("disk_commands_total", Counter, "Commands begun.", &[("", |disk| count(disk.counters.commands))]),
    family(
        "disk_kicks_total",
        Counter,
        "Times that the disk was told of new commands.",
        &[("", |disk| count(disk.counters.kicks))],
    ),
    family(
        "disk_interrupts_total",
        Counter,
        "Interrupts of the disk.",
        &[("", |disk| count(disk.counters.interrupts))],
    ),
    family(
        "disk_errors_total",
        Counter,
        "Commands answered with an error.",
        &[("", |disk| count(disk.counters.errors))],
    ),
    family(
        "disk_late_total",
        Counter,
        "Commands not answered in time.",
        &[("", |disk| count(disk.counters.late))],
    ),
    family(
        "disk_connected",
        Gauge,
        "Whether there is a connection to the NBD server.",
        &[("", |disk| of_link(disk, |link| u64::from(link.is_up)))],
    ),
    family(
        "disk_reconnects_total",
        Counter,
        "Times that the connection to the NBD server was made again.",
        &[("", |disk| of_link(disk, |link| link.reconnects))],
    ),
    family(
        "disk_replayed_total",
        Counter,
        "Commands that were sent again on another connection.",
        &[("", |disk| of_link(disk, |link| link.replayed))],
    ),
];

#[allow(clippy::unnecessary_wraps, reason = "the form of a sample")]
fn count(value: u64) -> Option<Value> {
    Some(Count(value))
}

fn size(value: usize) -> Option<Value> {
    count(value as u64)
}

#[allow(clippy::unnecessary_wraps, reason = "the form of a sample")]
fn time(ns: u64) -> Option<Value> {
    Some(Nanoseconds(ns))
}

fn of_disk(device: &DeviceStatus, number: fn(&drivers::virtio::blk::Counters) -> Value) -> Option<Value> {
    match &device.kind {
        DeviceKind::Disk(counters) => Some(number(counters)),
        DeviceKind::Nic(..) => None,
    }
}

fn of_nic(device: &DeviceStatus, number: fn(&drivers::virtio::net::Counters) -> Value) -> Option<Value> {
    match &device.kind {
        DeviceKind::Nic(_, counters) => Some(number(counters)),
        DeviceKind::Disk(_) => None,
    }
}

fn of_link(disk: &DiskStatus, number: fn(&LinkStatus) -> u64) -> Option<Value> {
    disk.link.as_ref().and_then(|link| count(number(link)))
}

/// Writes the metrics.
///
/// # Errors
/// Those of `out`.
pub fn write(status: &Status, out: &mut dyn Write) -> fmt::Result {
    head(out, "info", Gauge, "The program that runs here.")?;
    writeln!(out, "driver_domain_info{{version=\"{}\"}} 1", Escaped(status.version))?;
    write_families(out, GLOBAL, core::slice::from_ref(status), |_, _| Ok(()))?;
    write_families(out, OF_GUEST, &status.guests, |guest, out| write!(out, "guest=\"{}\"", guest.domain))?;
    write_families(out, OF_DEVICE, &status.devices, |device, out| {
        write!(out, "guest=\"{}\",device=\"{}\"", device.domain, Escaped(&device.name))
    })?;
    write_families(out, OF_PORT, &status.ports, |port, out| write!(out, "port=\"{}\"", Escaped(&port.name)))?;
    write_families(out, OF_DISK, &status.disks, |disk, out| write!(out, "disk=\"{}\"", Escaped(&disk.name)))
}

fn head(out: &mut dyn Write, name: &str, kind: Kind, help: &str) -> fmt::Result {
    let kind = match kind {
        Counter => "counter",
        Gauge => "gauge",
    };
    writeln!(out, "# HELP driver_domain_{name} {help}\n# TYPE driver_domain_{name} {kind}")
}

/// Writes families, each with the samples of all `items`, which `labels` names.
fn write_families<T>(
    out: &mut dyn Write,
    families: &[Family<T>],
    items: &[T],
    labels: fn(&T, &mut dyn Write) -> fmt::Result,
) -> fmt::Result {
    for family in families {
        head(out, family.name, family.kind, family.help)?;
        for item in items {
            for (own_label, value) in family.samples {
                let Some(value) = value(item) else { continue };
                write!(out, "driver_domain_{}", family.name)?;
                let mut braces = Braces { out: &mut *out, written: false };
                labels(item, &mut braces)?;
                if !own_label.is_empty() {
                    braces.write_str(if braces.written { "," } else { "" })?;
                    braces.write_str(own_label)?;
                }
                let close = if braces.written { "}" } else { "" };
                writeln!(out, "{close} {value}")?;
            }
        }
    }
    Ok(())
}

/// Opens the braces of labels before the first.
struct Braces<'a> {
    out: &'a mut dyn Write,
    written: bool,
}

impl Write for Braces<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.is_empty() && !core::mem::replace(&mut self.written, true) {
            self.out.write_str("{")?;
        }
        self.out.write_str(text)
    }
}

/// A label's value: backslash, quotation mark and line feed are escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
