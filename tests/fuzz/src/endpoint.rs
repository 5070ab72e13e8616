//! This domain as a station, and any frames, those of DHCP and ARP among them: it comes to rest, and its address is one.

use crate::endpoint_bed::{Bed, MS, OUR_IP, OURS, SECOND, THEIR_IP, THEIRS, port};
use crate::input::steps;
use arbitrary::{Arbitrary, Unstructured};
use drivers::net::bridge::{Port, PortKind};
use drivers::net::filter::Filter;
use drivers::net::offload::Offload;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use kernel::endpoint::addressing::{Lease, parse};

#[derive(Arbitrary, Debug)]
enum Step {
    Raw(Vec<u8>),
    Arp {
        is_reply: bool,
        from: [u8; 4],
        to: Option<[u8; 4]>,
        address: Option<[u8; 6]>,
    },
    Icmp {
        kind: u8,
        code: u8,
        from: Source,
        payload: Vec<u8>,
    },
    Udp {
        from: u16,
        to: u16,
        payload: Vec<u8>,
    },
    Tcp {
        from: u8,
        to: Option<u16>,
        flags: u8,
        sequence: i8,
        acknowledged: i8,
        window: u16,
        payload: Vec<u8>,
    },
    Dhcp {
        kind: u8,
        address: [u8; 4],
        server: [u8; 4],
        mask: u8,
        router: Option<[u8; 4]>,
        lease_s: u32,
        options: Vec<u8>,
        wrong_id: bool,
    },
    Damaged {
        at: u8,
        byte: u8,
    },
    Sleep {
        ms: u16,
    },
    SleepLong {
        minutes: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Source {
    Usual,
    Other([u8; 4]),
}

/// What a station hears of the endpoint.
#[derive(Default)]
struct Heard {
    transaction: [u8; 4],
    sequence: u32,
    acknowledged: u32,
}

struct Station {
    port: Port,
    heard: Heard,
    ip: [u8; 4],
    last: Vec<u8>,
}

impl Station {
    fn send(&mut self, bed: &Bed, frame: &[u8]) {
        self.last = frame.to_vec();
        let Some(mut blank) = self.port.blank(frame.len()) else { return };
        blank.bytes_mut().copy_from_slice(frame);
        self.port.send(&blank.finish(Offload::default()), bed.now_ns);
    }

    fn listen(&mut self) {
        while let Some(frame) = self.port.receive() {
            let bytes = frame.bytes();
            assert!(bytes.len() >= 14 && bytes[6..12] == OURS.0, "from another address than ours");
            assert!(bytes.len() <= 1514, "a frame too long for a wire");
            let part = |at: usize| bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
            let word = |at: usize| part(at).map_or(0, u32::from_be_bytes);
            match (bytes.get(12..14), bytes.get(23), bytes.get(36..38)) {
                (Some([8, 0]), Some(17), Some([0, 67])) => {
                    self.heard.transaction = part(46).unwrap_or_default();
                }
                (Some([8, 0]), Some(6), _) => {
                    self.heard.acknowledged = word(42);
                    let header = usize::from(bytes.get(46).copied().unwrap_or(0) >> 4) * 4;
                    let payload = u32::from(u16::from_be_bytes([bytes[16], bytes[17]]))
                        .saturating_sub(20 + header as u32);
                    let flags = bytes.get(47).copied().unwrap_or(0);
                    let counted = payload + u32::from(flags & 1 != 0) + u32::from(flags & 2 != 0);
                    self.heard.sequence = word(38).wrapping_add(counted);
                }
                _ => {}
            }
        }
    }

    fn frame(&self, step: &Step) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        let link = PacketBuilder::ethernet2(THEIRS.0, OURS.0);
        match step {
            Step::Raw(bytes) => {
                frame = [&OURS.0[..], &THEIRS.0, bytes].concat();
            }
            Step::Arp { is_reply, from, to, address } => {
                let operation = if *is_reply { ArpOperation::REPLY } else { ArpOperation::REQUEST };
                let to = to.unwrap_or(self.ip);
                let address = address.unwrap_or(THEIRS.0);
                let (hardware, network) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
                let arp = ArpPacket::new(hardware, network, operation, &address, from, &OURS.0, &to).ok()?;
                link.arp(arp).write_to_vec(&mut frame).ok()?;
            }
            Step::Icmp { kind, code, from, payload } => {
                let from = match from {
                    Source::Usual => THEIR_IP,
                    Source::Other(other) => *other,
                };
                let ip = link.ipv4(from, self.ip, 64);
                ip.icmpv4_raw(*kind, *code, [0, 1, 0, 2]).write_to_vec(&mut frame, payload).ok()?;
            }
            Step::Udp { from, to, payload } => {
                link.ipv4(THEIR_IP, self.ip, 64).udp(*from, *to).write_to_vec(&mut frame, payload).ok()?;
            }
            Step::Tcp { from, to, flags, sequence, acknowledged, window, payload } => {
                let next = self.heard.acknowledged.wrapping_add_signed((*sequence).into());
                let ip = link.ipv4(THEIR_IP, self.ip, 64);
                let mut tcp = ip.tcp(2000 + u16::from(*from % 8), to.unwrap_or(80), next, *window);
                let flag = |bit: u8| flags >> bit & 1 != 0;
                if flag(0) {
                    tcp = tcp.fin();
                }
                if flag(1) {
                    tcp = tcp.syn();
                }
                if flag(2) {
                    tcp = tcp.rst();
                }
                if flag(3) {
                    tcp = tcp.psh();
                }
                if flag(4) {
                    tcp = tcp.ack(self.heard.sequence.wrapping_add_signed((*acknowledged).into()));
                }
                tcp.write_to_vec(&mut frame, payload).ok()?;
            }
            Step::Dhcp { kind, address, server, mask, router, lease_s, options, wrong_id } => {
                let mut message = vec![2, 1, 6, 0];
                message.extend(if *wrong_id { [7; 4] } else { self.heard.transaction });
                message.extend([0; 8]);
                message.extend(address);
                message.extend([0; 8]);
                message.extend(OURS.0);
                message.resize(236, 0);
                message.extend([
                    0x63,
                    0x82,
                    0x53,
                    0x63,
                    53,
                    1,
                    [2, 5, 6, *kind][usize::from(kind % 4)],
                    54,
                    4,
                ]);
                message.extend(server);
                message.extend([51, 4]);
                message.extend(lease_s.to_be_bytes());
                message.extend([1, 4]);
                message.extend((!0_u32).checked_shl(u32::from(*mask % 33)).unwrap_or(0).to_be_bytes());
                if let Some(router) = router {
                    message.extend([3, 4]);
                    message.extend(router);
                }
                message.extend(options);
                message.push(255);
                let ip = link.ipv4(*server, [255; 4], 64);
                ip.udp(67, 68).write_to_vec(&mut frame, &message).ok()?;
            }
            Step::Damaged { at, byte } => {
                frame.clone_from(&self.last);
                *frame.get_mut(usize::from(*at))? = *byte;
            }
            Step::Sleep { .. } | Step::SleepLong { .. } => return None,
        }
        Some(frame)
    }
}

/// Whatever frames come, the endpoint comes to rest, and its address is one.
pub fn endpoint(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(by_dhcp) = input.arbitrary::<bool>() else { return };
    let ip = if by_dhcp { "dhcp" } else { "10.0.0.5/24,gateway=10.0.0.9" };
    let Ok(Some(addressing)) = parse(ip) else { return };
    let mut bed = Bed::new(addressing);
    let port = port(&bed.bridge, "peer", PortKind::Uplink, THEIRS);
    port.set_filter(Some(Filter { promiscuous: true, ..Filter::default() }));
    let mut station = Station { port, heard: Heard::default(), ip: OUR_IP, last: Vec::new() };
    bed.settle();
    station.listen();
    for step in steps::<Step>(input) {
        match step {
            Step::Sleep { ms } => bed.now_ns += u64::from(ms) * MS,
            Step::SleepLong { minutes } => bed.now_ns += u64::from(minutes) * 60 * SECOND,
            _ => {
                if let Some(frame) = station.frame(&step) {
                    station.send(&bed, &frame);
                }
            }
        }
        bed.settle();
        station.listen();
        if let Some(lease) = bed.endpoint.address() {
            assert!(Lease::checked(lease.address, lease.gateway).is_some(), "an address of no station");
            station.ip = lease.address.address().octets();
        }
    }
    drop(bed.endpoint);
    assert_eq!(bed.bridge.borrow().pool().in_use(), 0, "a buffer is lost");
}
