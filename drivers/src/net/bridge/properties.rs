//! The bridge held against a simple one, which remembers everything in a map.

use super::tests::{all, frame, guest, own, taken, uplink};
use super::*;
use crate::net::filter::Filter;
use proptest::prelude::*;
use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

const PORTS: usize = 5;
const AGE_MAX_S: u64 = 300;

#[derive(Clone, Debug)]
enum Step {
    Send {
        from: usize,
        source: u8,
        destination: u8,
        count: usize,
    },
    Wait {
        seconds: u64,
    },
    Open {
        port: usize,
        promiscuous: bool,
    },
    Close {
        port: usize,
    },
    Replace {
        port: usize,
        is_pinned: bool,
        is_isolated: bool,
    },
    /// So many addresses that are nobody else's.
    FloodAddresses {
        from: usize,
    },
}

struct ModelPort {
    settings: PortSettings,
    /// None if it is closed.
    promiscuous: Option<bool>,
}

#[derive(Default)]
struct Model {
    ports: Vec<ModelPort>,
    /// Port, and when it was heard there.
    stations: HashMap<[u8; 6], (usize, u64)>,
}

impl Model {
    fn own(&self, address: MacAddress) -> Option<usize> {
        self.ports.iter().position(|port| port.settings.address == Some(address))
    }

    /// The ports that get the frame.
    fn send(&mut self, from: usize, source: MacAddress, destination: MacAddress, now_s: u64) -> Vec<usize> {
        let sender = &self.ports[from].settings;
        let is_strange = sender.is_pinned && sender.address.is_some_and(|own| own != source);
        if source.is_group() || is_strange || self.own(source).is_some_and(|owner| owner != from) {
            return vec![];
        }
        // Port 0 is the uplink, which comes before guests.
        let is_outside =
            |(port, heard_s): &(usize, u64)| *port == 0 && from != 0 && now_s - heard_s <= AGE_MAX_S;
        if self.stations.get(&source.0).is_some_and(is_outside) && self.own(source) != Some(from) {
            return vec![];
        }
        self.stations.insert(source.0, (from, now_s));
        let heard = self.stations.get(&destination.0).filter(|(_, heard_s)| now_s - heard_s <= AGE_MAX_S);
        let known = self.own(destination).or(heard.map(|(port, _)| *port));
        let is_wanted = |to: &usize| {
            let port = &self.ports[*to];
            *to != from
                && !(sender.is_isolated && port.settings.is_isolated)
                && port.promiscuous.is_some_and(|all| {
                    all || destination == MacAddress::BROADCAST || port.settings.address == Some(destination)
                })
        };
        match known {
            Some(to) => vec![to].into_iter().filter(is_wanted).collect(),
            None => {
                let is_single = |to: &usize| self.ports[*to].settings.is_pinned && *to != 0;
                let group = destination.is_group();
                (0..PORTS).filter(is_wanted).filter(|to| group || !is_single(to)).collect()
            }
        }
    }
}

/// Ports' own addresses, some that belong to nobody, and broadcast.
fn address(number: u8) -> MacAddress {
    match number {
        0..20 => own(number),
        _ => MacAddress::BROADCAST,
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let port = || 0..PORTS;
    let send = (port(), 0..21_u8, 0..21_u8, 1..4_usize)
        .prop_map(|(from, source, destination, count)| Step::Send { from, source, destination, count });
    let step = prop_oneof![
        12 => send,
        3 => prop_oneof![0..5_u64, 280..320_u64].prop_map(|seconds| Step::Wait { seconds }),
        1 => (port(), any::<bool>()).prop_map(|(port, promiscuous)| Step::Open { port, promiscuous }),
        1 => port().prop_map(|port| Step::Close { port }),
        1 => (port(), any::<bool>(), any::<bool>())
            .prop_map(|(port, is_pinned, is_isolated)| Step::Replace { port, is_pinned, is_isolated }),
        1 => (1..PORTS).prop_map(|from| Step::FloodAddresses { from }),
    ];
    prop::collection::vec(step, 0..120)
}

/// Port 0 is the uplink.
fn settings(port: usize, is_pinned: bool, is_isolated: bool) -> PortSettings {
    let settings = if port == 0 { uplink() } else { guest(u8::try_from(port).unwrap()) };
    PortSettings { is_pinned, is_isolated, ..settings }
}

fn filter(promiscuous: bool) -> Filter {
    if promiscuous { all() } else { Filter::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_go_where_the_simple_bridge_sends_them(seed: u64, steps in steps()) {
        let (bridge, mut model) = (Bridge::new(seed), Model::default());
        let mut ports = Vec::new();
        for port in 0..PORTS {
            let settings = settings(port, false, false);
            let added = Bridge::add(&bridge, settings.clone()).unwrap();
            added.set_filter(Some(filter(true)));
            ports.push(added);
            model.ports.push(ModelPort { settings, promiscuous: Some(true) });
        }
        let mut now_s = 1000;
        for step in steps {
            match step {
                Step::Send { from, source, destination, count } => {
                    let (source, destination) = (address(source), address(destination));
                    let expected = model.send(from, source, destination, now_s);
                    for _ in 0..count {
                        let frame = frame(&ports[from], destination, source, 60);
                        ports[from].send(&frame, now_s * NS_PER_SECOND);
                    }
                    let got: Vec<_> = ports.iter().map(taken).collect();
                    let expected: Vec<_> =
                        (0..PORTS).map(|port| if expected.contains(&port) { count } else { 0 }).collect();
                    prop_assert_eq!(got, expected);
                }
                Step::Wait { seconds } => now_s += seconds,
                Step::Open { port, promiscuous } => {
                    ports[port].set_filter(Some(filter(promiscuous)));
                    model.ports[port].promiscuous = Some(promiscuous);
                }
                Step::Close { port } => {
                    ports[port].set_filter(None);
                    model.ports[port].promiscuous = None;
                }
                Step::Replace { port, is_pinned, is_isolated } => {
                    let settings = settings(port, is_pinned, is_isolated);
                    let is_duplicate = Bridge::add(&bridge, settings.clone()).is_err();
                    prop_assert_eq!(is_duplicate, port != 0);
                    // It is dropped before another has its address.
                    let spare = PortSettings { address: None, ..settings.clone() };
                    ports[port] = Bridge::add(&bridge, spare).unwrap();
                    ports[port] = Bridge::add(&bridge, settings.clone()).unwrap();
                    model.ports[port] = ModelPort { settings, promiscuous: None };
                    model.stations.retain(|_, (behind, _)| *behind != port);
                }
                Step::FloodAddresses { from } => {
                    for number in 0..200_u8 {
                        let strange = MacAddress([6, u8::try_from(from).unwrap(), 0, 0, 1, number]);
                        let frame = frame(&ports[from], own(u8::try_from(from).unwrap()), strange, 60);
                        ports[from].send(&frame, now_s * NS_PER_SECOND);
                    }
                    // It has no more than it may; what it had learned before may be lost, so the simple bridge forgets
                    // it, and so does this one, in time.
                    prop_assert!(bridge.borrow().stations.held(ports[from].key) <= STATIONS_OF_GUEST);
                    now_s += AGE_MAX_S + 1;
                    model.stations.clear();
                }
            }
        }
        ports.clear();
        let bridge = bridge.borrow();
        prop_assert_eq!((bridge.pool().in_use(), bridge.borrowed), (0, Borrowed::default()));
    }

    #[test]
    fn a_flood_of_addresses_makes_nobody_else_unknown(
        seed: u64, stations in prop::collection::vec(any::<[u8; 4]>(), 1..63),
        flood in prop::collection::vec(any::<[u8; 4]>(), 0..2000),
    ) {
        let bridge = Bridge::new(seed);
        let [a, b, c] = [1, 2, 3].map(|number| Bridge::add(&bridge, guest(number)).unwrap());
        c.set_filter(Some(all()));
        let address = |kind, [x, y, z, w]: [u8; 4]| MacAddress([kind, 0, x, y, z, w]);
        for station in &stations {
            a.send(&frame(&a, own(1), address(6, *station), 60), NS_PER_SECOND);
        }
        for station in flood {
            b.send(&frame(&b, own(2), address(10, station), 60), 2 * NS_PER_SECOND);
        }
        for station in stations {
            b.send(&frame(&b, address(6, station), own(2), 60), 3 * NS_PER_SECOND);
        }
        // It would have been flooded.
        prop_assert_eq!(c.waiting(), 0);
    }
}
