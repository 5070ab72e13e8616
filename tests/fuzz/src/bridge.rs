//! A bridge with five ports: who may hear whom, and where all buffers are in the end.

use crate::input::steps;
use crate::packet::{Damage, Packet, address};
use arbitrary::{Arbitrary, Unstructured};
use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, Port, PortKind, PortSettings, SharedBridge};
use drivers::net::filter::Filter;
use drivers::net::offload::Offload;

const PORTS: usize = 5;
const SECOND: u64 = 1_000_000_000;
/// More buffers than so many ports can ever have.
const FRAMES_MAX: usize = 300;
/// Kind of a frame that says who sent it.
const MARKED: [u8; 2] = [0x88, 0xb6];

#[derive(Arbitrary, Debug)]
enum Step {
    /// A frame from so many addresses, counted up.
    Send {
        port: u8,
        packet: Packet,
        damage: Damage,
        times: u8,
        is_counted: bool,
    },
    Receive {
        port: u8,
        frames: u8,
    },
    PutBack {
        port: u8,
    },
    Sleep {
        seconds: u16,
    },
    Filter {
        port: u8,
        flags: Option<u8>,
        unicast: Vec<u8>,
        multicast: Vec<u8>,
        vlan: Option<u16>,
    },
    Replace {
        port: u8,
        is_pinned: bool,
        is_isolated: bool,
        has_address: bool,
    },
    Duplicate {
        port: u8,
    },
    Announce,
}

struct Bed {
    bridge: SharedBridge,
    ports: Vec<Option<(Port, PortSettings, bool)>>,
    now_ns: u64,
}

fn settings(port: usize, is_pinned: bool, is_isolated: bool, has_address: bool) -> PortSettings {
    let kind = match port {
        0 => PortKind::Uplink,
        4 => PortKind::Endpoint,
        _ => PortKind::Guest,
    };
    PortSettings {
        name: format!("port{port}"),
        kind,
        address: (port != 0 && has_address).then(|| address(port as u8)),
        is_pinned,
        is_isolated,
    }
}

impl Bed {
    fn new() -> Self {
        let bridge = Bridge::new(7);
        let mut bed = Self { bridge, ports: Vec::new(), now_ns: 1000 * SECOND };
        bed.ports.resize_with(PORTS, || None);
        for port in 0..PORTS {
            bed.add(port, false, false, true);
            bed.open(port);
        }
        bed
    }

    fn add(&mut self, port: usize, is_pinned: bool, is_isolated: bool, has_address: bool) {
        self.ports[port] = None;
        let settings = settings(port, is_pinned, is_isolated, has_address);
        let added = Bridge::add(&self.bridge, settings.clone()).expect("a free address");
        self.ports[port] = Some((added, settings, false));
    }

    fn open(&mut self, port: usize) {
        if let Some((port, _, is_open)) = &mut self.ports[port] {
            port.set_filter(Some(Filter { promiscuous: true, ..Filter::default() }));
            *is_open = true;
        }
    }

    fn port(&self, number: usize) -> &(Port, PortSettings, bool) {
        self.ports[number].as_ref().expect("no port is ever left out")
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send { port, packet, damage, times, is_counted } => {
                let port = usize::from(port) % PORTS;
                let mut frame = packet.frame();
                damage.apply(&mut frame);
                let untagged = packet.tags.is_empty() && frame.len() >= 16;
                if untagged {
                    // Its sender, for the receivers' eyes.
                    frame[12..14].copy_from_slice(&MARKED);
                    frame[14] = port as u8;
                    frame[15] = u8::from(self.port(port).1.is_isolated);
                }
                for time in 0..=times {
                    if is_counted && frame.len() > 11 {
                        frame[10] = frame[10].wrapping_add(1);
                        frame[11] = time;
                    }
                    self.send(port, &frame);
                }
            }
            Step::Receive { port, frames } => {
                let port = usize::from(port) % PORTS;
                (0..frames).for_each(|_| self.receive(port));
            }
            Step::PutBack { port } => {
                let (port, ..) = self.port(usize::from(port) % PORTS);
                if let Some(frame) = port.receive() {
                    port.put_back(frame);
                }
            }
            Step::Sleep { seconds } => self.now_ns += u64::from(seconds) * SECOND / 16,
            Step::Filter { port, flags, unicast, multicast, vlan } => {
                let number = usize::from(port) % PORTS;
                let flag = |bit: u8| flags.unwrap_or(0) >> bit & 1 != 0;
                let addresses = |numbers: &[u8]| numbers.iter().map(|number| address(*number)).collect();
                let filter = flags.map(|_| Filter {
                    promiscuous: flag(0),
                    all_multicast: flag(1),
                    all_unicast: flag(2),
                    no_multicast: flag(3),
                    no_unicast: flag(4),
                    no_broadcast: flag(5),
                    unicast: addresses(&unicast),
                    multicast: addresses(&multicast),
                    vlans: vlan.map(|vlan| {
                        let mut vlans = Box::new([0; 64]);
                        vlans[usize::from(vlan % 4096) / 64] |= 1 << (vlan % 64);
                        vlans
                    }),
                });
                if let Some((port, _, is_open)) = &mut self.ports[number] {
                    *is_open = filter.is_some();
                    port.set_filter(filter);
                }
            }
            Step::Replace { port, is_pinned, is_isolated, has_address } => {
                self.add(usize::from(port) % PORTS, is_pinned, is_isolated, has_address);
            }
            Step::Duplicate { port } => {
                let settings = self.port(usize::from(port) % PORTS).1.clone();
                let has_address = settings.address.is_some();
                assert_eq!(Bridge::add(&self.bridge, settings).is_err(), has_address);
            }
            Step::Announce => self.bridge.borrow_mut().announce(),
        }
        assert!(self.bridge.borrow().pool().in_use() <= FRAMES_MAX, "buffers without bound");
    }

    fn send(&self, port: usize, frame: &[u8]) {
        let (port, ..) = self.port(port);
        let Some(mut blank) = port.blank(frame.len()) else { return };
        blank.bytes_mut().copy_from_slice(frame);
        port.send(&blank.finish(Offload::default()), self.now_ns);
    }

    /// Takes a frame, and asks whether it may have come here.
    fn receive(&self, number: usize) {
        let (port, own, is_open) = self.port(number);
        assert!(*is_open || port.waiting() == 0, "a closed port has frames");
        let Some(frame) = port.receive() else { return };
        let bytes = frame.bytes();
        assert!(bytes.len() >= 14);
        let (to, from) = (station(bytes, 0), station(bytes, 6));
        assert!(from.is_station(), "from nobody");
        assert!(to.0[..5] != [1, 0x80, 0xc2, 0, 0] || to.0[5] > 15, "a reserved address");
        if bytes[12..14] != MARKED || bytes.len() < 16 {
            return;
        }
        let (sender, was_isolated) = (usize::from(bytes[14]), bytes[15] != 0);
        assert_ne!(sender, number, "a frame came back");
        assert!(!(was_isolated && own.is_isolated), "from one isolated port to another");
        let sender = &self.port(sender).1;
        let is_anothers = |(_, other, _): &(Port, PortSettings, bool)| {
            other.address == Some(from) && other.name != sender.name
        };
        // Ports change while frames wait: only what cannot have changed since is asked.
        let mut others = self.ports.iter().flatten();
        assert!(sender.address != Some(from) || !others.any(is_anothers));
    }
}

fn station(bytes: &[u8], at: usize) -> MacAddress {
    MacAddress(bytes[at..at + 6].try_into().expect("six bytes"))
}

/// A bridge whose ports send and receive what `data` says.
pub fn bridge(data: &[u8]) {
    let mut bed = Bed::new();
    for step in steps(Unstructured::new(data)) {
        bed.step(step);
    }
    for port in 0..PORTS {
        while bed.port(port).0.waiting() > 0 {
            bed.receive(port);
        }
    }
    assert_eq!(bed.bridge.borrow().pool().in_use(), 0, "a buffer is lost");
    // Whatever was learned and limited, stations with addresses of their own can talk.
    bed.add(1, true, false, true);
    bed.add(2, false, false, true);
    bed.open(2);
    bed.now_ns += 600 * SECOND;
    let [to, from] = [2, 1].map(|number| address(number).0);
    bed.send(1, &[&to[..], &from, &MARKED, &[1, 0], &[0; 40]].concat());
    assert_eq!(bed.port(2).0.waiting(), 1, "a good frame is lost");
    let bridge = bed.bridge.clone();
    drop(bed);
    assert_eq!((bridge.borrow().pool().in_use(), bridge.borrow().pool().bytes()), (0, 0));
}
