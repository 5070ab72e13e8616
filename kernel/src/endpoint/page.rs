//! The status as a page for people, which loads itself again.

use core::fmt::{self, Write};

use super::status::{DeviceKind, DeviceStatus, Status};

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta http-equiv=\"refresh\" content=\"5\"><meta name=\"viewport\" content=\"width=device-width\">\
<title>driver domain</title><style>\
body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222;background:#fff}\
h1{font-size:1.4em}h2{font-size:1.1em;margin:1.5em 0 .3em}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
th{font-weight:600;background:#f4f4f4}td:first-child,th:first-child{text-align:left}.bad{color:#b00}\
</style></head><body>\n";

/// Writes the page.
///
/// # Errors
/// Those of `out`.
pub fn write(status: &Status, out: &mut dyn Write) -> fmt::Result {
    let Status { version, uptime_ns, guests, devices, ports, frame_pool, disks, pager, memory } = status;
    out.write_str(HEAD)?;
    write!(out, "<h1>driver domain {}</h1>\n<p>Up for {}.", Escaped(version), Duration(*uptime_ns))?;
    out.write_str(" The same numbers and more: <a href=\"/metrics\">metrics</a>.</p>\n")?;

    table(out, "Guests", &["guest", "devices", "pages mapped"], guests, |guest, out| {
        let its_devices = devices.iter().filter(|device| device.domain == guest.domain).count();
        write!(out, "<td>{}<td>{its_devices}<td>{}", guest.domain, guest.slots)
    })?;
    let columns = ["device", "kind", "reads", "writes", "in", "out", "errors", "kicks", "interrupts"];
    table(out, "Devices", &columns, devices, device)?;
    let columns = ["port", "frames in", "in", "frames out", "out", "lost"];
    table(out, "Network", &columns, ports, |port, out| {
        let counters = &port.counters;
        let lost =
            [counters.dropped_full, counters.dropped_no_buffer, counters.refused, counters.flood_limited];
        write!(out, "<td>{}<td>{}", Escaped(&port.name), counters.frames_in)?;
        write!(out, "<td>{}<td>{}", Bytes(counters.bytes_in), counters.frames_out)?;
        write!(out, "<td>{}{}", Bytes(counters.bytes_out), Errors(lost.iter().sum()))
    })?;
    table(
        out,
        "Disks",
        &["disk", "commands", "interrupts", "late", "errors", "connection", "made again"],
        disks,
        |disk, out| {
            let counters = &disk.counters;
            write!(out, "<td>{}<td>{}", Escaped(&disk.name), counters.commands)?;
            write!(out, "<td>{}<td>{}{}", counters.interrupts, counters.late, Errors(counters.errors))?;
            match disk.link {
                Some(link) if link.is_up => write!(out, "<td>up<td>{}", link.reconnects),
                Some(link) => write!(out, "<td class=\"bad\">down<td>{}", link.reconnects),
                None => out.write_str("<td><td>"),
            }
        },
    )?;
    out.write_str("<h2>Memory</h2>\n<table>\n")?;
    let mut fact = |name: &str, value: fmt::Arguments<'_>| writeln!(out, "<tr><td>{name}<td>{value}");
    fact("RAM", format_args!("{}", Bytes(memory.total_bytes as u64)))?;
    fact("free pages", format_args!("{}", Bytes(memory.frames_free_bytes as u64)))?;
    fact("free on the heap", format_args!("{}", Bytes(memory.heap_free_bytes as u64)))?;
    fact("buffers for frames", format_args!("{}", Bytes(frame_pool.bytes as u64)))?;
    let done = &pager.counters;
    fact("guests' pages mapped", format_args!("{} of {}", pager.mapped, pager.slots))?;
    fact("of them in use", format_args!("{}", pager.pinned))?;
    fact("pages found mapped", format_args!("{}", done.hits))?;
    fact("pages mapped", format_args!("{} by {} hypercalls", done.misses, done.map_calls))?;
    fact("of them in place of others", format_args!("{}", done.evictions))?;
    out.write_str("</table>\n</body></html>\n")
}

fn device(device: &DeviceStatus, out: &mut dyn Write) -> fmt::Result {
    write!(out, "<td>{}<td>{}", Escaped(&device.name), device.kind)?;
    match &device.kind {
        DeviceKind::Disk(disk) => {
            write!(out, "<td>{}<td>{}", disk.reads, disk.writes)?;
            write!(out, "<td>{}<td>{}", Bytes(disk.bytes_read), Bytes(disk.bytes_written))?;
            write!(out, "{}", Errors(disk.errors))?;
        }
        DeviceKind::Nic(_, nic) => {
            write!(out, "<td>{}<td>{}", nic.frames_received, nic.frames_sent)?;
            write!(out, "<td>{}<td>{}", Bytes(nic.bytes_received), Bytes(nic.bytes_sent))?;
            write!(out, "{}", Errors(nic.errors))?;
        }
    }
    write!(out, "<td>{}<td>{}", device.registers.kicks, device.registers.interrupts)
}

/// Writes a table with a row for each of `items`, or nothing when there are none.
fn table<T>(
    out: &mut dyn Write,
    title: &str,
    columns: &[&str],
    items: &[T],
    row: impl Fn(&T, &mut dyn Write) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(out, "<h2>{title}</h2>\n<table>\n<tr>")?;
    columns.iter().try_for_each(|column| write!(out, "<th>{column}"))?;
    for item in items {
        out.write_str("\n<tr>")?;
        row(item, out)?;
    }
    out.write_str("\n</table>\n")
}

/// A cell with a number that should be zero.
struct Errors(u64);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<td{}>{}", if self.0 == 0 { "" } else { " class=\"bad\"" }, self.0)
    }
}

/// Bytes in the largest unit of which there are ten or more.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match UNITS.iter().find(|(shift, _)| self.0 >> shift >= 10) {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// A time, to the second.
struct Duration(u64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000_000_000;
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
        if days > 0 {
            write!(f, "{days} d ")?;
        }
        write!(f, "{} h {:02} min {:02} s", hours % 24, minutes % 60, seconds % 60)
    }
}

/// Text in which nothing is markup.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use std::vec;

    use crate::endpoint::status::PortStatus;

    #[test]
    fn a_name_is_never_markup() {
        let port = PortStatus { name: "<script>'\"&".into(), ..PortStatus::default() };
        let status = Status { ports: vec![port], ..Status::default() };
        let mut page = String::new();
        write(&status, &mut page).unwrap();
        assert!(page.contains("&lt;script&gt;&#39;&quot;&amp;"), "{page}");
        assert!(!page.contains("<script"));
    }

    #[test]
    fn devices_have_the_names_that_they_have_everywhere() {
        let mut page = String::new();
        write(&crate::endpoint::bed::example(), &mut page).unwrap();
        for cell in ["<td>dom3<td>", "<td>dom3/xvda<td>", "<td>dom3/net0<td>", "<td>up<td>5"] {
            assert!(page.contains(cell), "{cell}: {page}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let bytes = |bytes| Bytes(bytes).to_string();
        assert_eq!((bytes(0), bytes(10239), bytes(10240)), ("0 B".into(), "10239 B".into(), "10 KiB".into()));
        assert_eq!(bytes(u64::MAX), "16777215 TiB");
        assert_eq!(Duration(90_061_000_000_000).to_string(), "1 d 1 h 01 min 01 s");
    }
}
