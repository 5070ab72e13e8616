use super::super::bed::{NASTY, example};
use super::*;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads a sample as Prometheus does (its text format, version 0.0.4).
fn series(line: &str) -> Series {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let name: String = line.chars().take_while(is_name).collect();
    let mut rest = &line[name.len()..];
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let label: String = rest.chars().take_while(is_name).collect();
            assert!(!label.is_empty(), "{line}");
            rest = rest[label.len()..].strip_prefix("=\"").unwrap();
            let mut value = String::new();
            loop {
                let mut characters = rest.chars();
                let (character, escaped) = match characters.next().unwrap() {
                    '\\' => (characters.next().unwrap(), true),
                    plain => (plain, false),
                };
                rest = characters.as_str();
                match (character, escaped) {
                    ('n', true) => value.push('\n'),
                    ('\\' | '"', true) => value.push(character),
                    (other, true) => panic!("\\{other} in {line}"),
                    ('"', false) => break,
                    (plain, false) => value.push(plain),
                }
            }
            assert_eq!(labels.insert(label, value), None, "{line}");
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
    Series { name, labels, value }
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    write(status, &mut text).unwrap();
    text
}

/// All series, if families are in one piece, with what describes them first.
fn read(text: &str) -> Vec<Series> {
    assert!(text.ends_with('\n'));
    let mut families: Vec<(String, String)> = Vec::new();
    let mut described = None;
    let mut all: Vec<Series> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(!help.is_empty());
                assert!(families.iter().all(|(known, _)| known != name), "{name} twice");
                described = Some(name);
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(described, Some(name));
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                families.push((name.into(), kind.into()));
            }
            _ => {
                let series = series(line);
                assert_eq!(series.name, families.last().unwrap().0);
                let is_same = |other: &&Series| other.name == series.name && other.labels == series.labels;
                assert!(all.iter().find(is_same).is_none(), "{line} twice");
                all.push(series);
            }
        }
    }
    all
}

fn find(all: &[Series], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels: BTreeMap<_, _> = labels.iter().map(|(a, b)| (String::from(*a), String::from(*b))).collect();
    let name = alloc::format!("driver_domain_{name}");
    all.iter().find(|series| series.name == name && series.labels == labels).map(|series| series.value)
}

#[test]
fn prometheus_finds_every_number() {
    let all = read(&text(&example()));
    let device = ("device", "dom3/xvda");
    assert_eq!(find(&all, "info", &[("version", "1.2.3")]), Some(1.0));
    assert_eq!(find(&all, "guests", &[]), Some(2.0));
    assert_eq!(find(&all, "guest_pager_slots", &[("guest", "dom3")]), Some(17.0));
    let reads = [("guest", "dom3"), device, ("operation", "read")];
    assert_eq!(find(&all, "device_requests_total", &reads), Some(41.0));
    assert_eq!(find(&all, "device_busy_seconds_total", &[("guest", "dom3"), device]), Some(1.5));
    assert_eq!(find(&all, "device_kicks_total", &[("guest", "dom3"), ("device", "dom3/net0")]), Some(7.0));
    assert_eq!(find(&all, "memory_free_bytes", &[("kind", "heap")]), Some(0.0));
}

#[test]
fn a_connection_is_counted_where_there_is_one() {
    let all = read(&text(&example()));
    let export = [("disk", "nbd:10.0.0.9:10809/disk")];
    assert_eq!(find(&all, "disk_connected", &export), Some(1.0));
    assert_eq!(find(&all, "disk_reconnects_total", &export), Some(5.0));
    assert_eq!(find(&all, "disk_replayed_total", &export), Some(23.0));
    assert_eq!(find(&all, "disk_errors_total", &export), Some(0.0));
    assert_eq!(find(&all, "disk_connected", &[("disk", "blk0")]), None);
}

#[test]
fn a_name_with_anything_in_it_is_one_label() {
    let all = read(&text(&example()));
    let labels = [("port", NASTY), ("direction", "out"), ("reason", "full")];
    assert_eq!(find(&all, "port_drops_total", &labels), Some(0.0));
}

#[test]
fn a_domain_without_guests_has_metrics_too() {
    assert_eq!(find(&read(&text(&Status::default())), "guests", &[]), Some(0.0));
}
