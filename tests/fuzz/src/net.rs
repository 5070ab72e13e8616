//! A NIC: registers, its three queues, and a bridge with two other stations. Chains and commands are given back, or the device does not
//! run any more; only buffers that descriptors gave are written; no pin and no frame's buffer is left; and after a reset good frames and
//! commands do well.

use crate::guest::{Act, DATA, Guest};
use crate::input::steps;
use crate::packet::{Damage, Network, Packet, address};
use arbitrary::{Arbitrary, Unstructured};
use drivers::net::bridge::{Bridge, Port, PortKind, PortSettings, SharedBridge};
use drivers::net::filter::Filter;
use drivers::net::offload::{Allegation, Offload, PartialChecksum, SegmentedProtocol};
use drivers::virtio::net::NetDevice;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CONTROL: usize = 2;
const HEADER_BYTES: usize = 12;
const SECOND: u64 = 1_000_000_000;

#[derive(Arbitrary, Debug)]
enum Step {
    Guest(Act),
    /// A frame by the rules, but for what its header says.
    Send {
        packet: Packet,
        damage: Damage,
        header: Header,
        cuts: [u16; 3],
        is_indirect: bool,
    },
    /// Buffers by the rules.
    Buffers {
        count: u8,
        bytes: u16,
        pieces: u8,
        is_indirect: bool,
    },
    /// A command.
    Command {
        class: u8,
        command: u8,
        data: Vec<u8>,
        cuts: [u16; 3],
        answer_bytes: u8,
    },
    /// A table of addresses.
    Table {
        unicast: Vec<u8>,
        multicast: Vec<u8>,
    },
    /// A station sends.
    Deliver {
        peer: u8,
        packet: Packet,
        segment_bytes: Option<u16>,
        times: u8,
    },
    /// A station takes what came.
    Take {
        peer: u8,
        frames: u8,
    },
    PeerFilter {
        peer: u8,
        flags: Option<u8>,
    },
    Announce,
    Turn,
    Sleep,
}

#[derive(Arbitrary, Debug)]
struct Header {
    is_usual: bool,
    segment_bytes: u16,
    raw: [u8; HEADER_BYTES],
}

struct Bed {
    guest: Guest<NetDevice>,
    bridge: SharedBridge,
    peers: [Port; 2],
    next: u64,
    now_ns: u64,
}

fn port(bridge: &SharedBridge, number: u8) -> Port {
    let settings = PortSettings {
        name: format!("dom{number}/net0"),
        kind: if number == 3 { PortKind::Uplink } else { PortKind::Guest },
        address: (number != 3).then(|| address(number)),
        is_pinned: false,
        is_isolated: false,
    };
    Bridge::add(bridge, settings).expect("a free address")
}

fn everything() -> Filter {
    Filter { promiscuous: true, ..Filter::default() }
}

impl Bed {
    fn new(only: Option<usize>) -> Self {
        let bridge = Bridge::new(7);
        let mut guest = Guest::running(NetDevice::new("dom1/net0".into(), port(&bridge, 1)));
        guest.keep_to(only);
        let peers = [2, 3].map(|number| port(&bridge, number));
        peers.iter().for_each(|peer| peer.set_filter(Some(everything())));
        Self { guest, bridge, peers, next: 0, now_ns: SECOND }
    }

    /// Somewhere for the next chain's bytes.
    fn place(&mut self) -> u64 {
        self.next += 1;
        DATA + self.next % 8 * 0x800
    }

    fn send(&mut self, header: &[u8], frame: &[u8], cuts: &[u16], is_indirect: bool) {
        let at = self.place();
        let bytes = [header, frame].concat();
        self.guest.memory.poke(at, &bytes);
        self.guest.chain(TRANSMIT, &cut(at, bytes.len(), cuts), is_indirect);
    }

    /// Makes receive buffers available. Returns where the last is.
    fn buffers(&mut self, count: u8, bytes: u32, pieces: u8, is_indirect: bool) -> u64 {
        let mut at = 0;
        for _ in 0..count {
            at = self.place();
            let piece = bytes / u32::from(pieces);
            let buffers: Vec<_> =
                (0..u64::from(pieces)).map(|number| (at + number * u64::from(piece), piece, true)).collect();
            self.guest.chain(RECEIVE, &buffers, is_indirect);
        }
        at
    }

    /// Makes a command available. Returns where its answer is.
    fn command(&mut self, data: &[u8], cuts: &[u16], answer_bytes: u8) -> u64 {
        let at = self.place();
        self.guest.memory.poke(at, data);
        let answer = at + 0x700;
        self.guest.memory.poke(answer, &[0xff]);
        let mut buffers = cut(at, data.len(), cuts);
        buffers.push((answer, answer_bytes.into(), true));
        self.guest.chain(CONTROL, &buffers, false);
        answer
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Guest(act) => self.guest.act(act),
            Step::Send { packet, damage, header, cuts, is_indirect } => {
                let mut frame = if header.is_usual { packet.partial() } else { packet.frame() };
                damage.apply(&mut frame);
                let raw = if header.is_usual { usual(&packet, header.segment_bytes) } else { header.raw };
                self.send(&raw, &frame, &cuts, is_indirect);
                self.guest.kick(TRANSMIT);
            }
            Step::Buffers { count, bytes, pieces, is_indirect } => {
                self.buffers(count % 64, bytes.into(), pieces % 8 + 1, is_indirect);
                self.guest.kick(RECEIVE);
            }
            Step::Command { class, command, data, cuts, answer_bytes } => {
                self.command(&[&[class % 6, command % 8], &data[..]].concat(), &cuts, answer_bytes % 3);
                self.guest.kick(CONTROL);
            }
            Step::Table { unicast, multicast } => {
                let mut data = vec![1, 0];
                for numbers in [unicast, multicast] {
                    data.extend((numbers.len() as u32).to_le_bytes());
                    data.extend(numbers.iter().flat_map(|number| address(*number).0));
                }
                self.command(&data, &[], 1);
                self.guest.kick(CONTROL);
            }
            Step::Deliver { peer, packet, segment_bytes, times } => {
                self.deliver(peer, &packet, segment_bytes, times % 64 + 1);
            }
            Step::Take { peer, frames } => {
                let peer = &self.peers[usize::from(peer % 2)];
                (0..frames).for_each(|_| drop(peer.receive()));
            }
            Step::PeerFilter { peer, flags } => {
                let peer = &self.peers[usize::from(peer % 2)];
                let flag = |bit: u8| flags.unwrap_or(0) >> bit & 1 != 0;
                let filter = Filter {
                    promiscuous: flag(0),
                    all_multicast: flag(1),
                    no_unicast: flag(2),
                    no_broadcast: flag(3),
                    ..Filter::default()
                };
                peer.set_filter(flags.map(|_| filter));
            }
            Step::Announce => self.bridge.borrow_mut().announce(),
            Step::Turn => drop(self.guest.work()),
            Step::Sleep => self.now_ns += SECOND,
        }
    }

    /// A station sends a frame so many times, with all that an honest one leaves to the receiver.
    fn deliver(&self, peer: u8, packet: &Packet, segment_bytes: Option<u16>, times: u8) {
        let peer = &self.peers[usize::from(peer % 2)];
        let frame = if segment_bytes.is_some() { packet.partial() } else { packet.frame() };
        let allegation = segment_bytes.and_then(|bytes| alleged(packet, bytes)).unwrap_or_default();
        let Ok(offload) = Offload::check(allegation, &frame) else { return };
        for _ in 0..times {
            let Some(mut blank) = peer.blank(frame.len()) else { return };
            blank.bytes_mut().copy_from_slice(&frame);
            peer.send(&blank.finish(offload), self.now_ns);
        }
    }

    /// Everything is answered but buffers that wait for frames.
    fn finish(&mut self) {
        let peers = &self.peers;
        self.guest.finish(|| peers.iter().for_each(|peer| while peer.receive().is_some() {}));
        // A queue may be left out.
        if let Some([_, transmit, control]) = self.guest.unanswered().as_deref() {
            assert_eq!((*transmit, *control), (0, 0), "chains are never given back");
        }
        assert_eq!(self.guest.memory.pins(), self.guest.memory.rings().len(), "a pin is kept");
    }

    /// After a reset the device is as good as new.
    fn end(mut self) {
        self.guest.reset();
        for peer in &self.peers {
            while peer.receive().is_some() {}
            peer.set_filter(Some(everything()));
        }
        assert_eq!(self.bridge.borrow().pool().in_use(), 0, "a buffer is lost");
        self.guest.memory.fill_holes();
        self.guest.keep_to(None);
        self.guest.act(Act::Start { less: 0, sizes: [6; 3] });
        let [to, from] = [1, 2].map(|number| address(number).0);
        let frame = [&to[..], &from, &[0x88, 0xb5], &[7; 46]].concat();
        let at = self.buffers(1, 2048, 1, false);
        let packet = Packet {
            to: 2,
            from: 1,
            tags: Vec::new(),
            network: Network::None,
            sequence: 0,
            flags: 0,
            option_words: 0,
            payload: 46,
        };
        self.send(&[0; HEADER_BYTES], &packet.frame(), &[], false);
        let answer = self.command(&[0, 0, 1], &[], 1);
        (0..3).for_each(|queue| self.guest.kick(queue));
        let _ = self.guest.work();
        let arrived = self.peers[0].receive().map(|frame| frame.bytes().to_vec());
        assert_eq!(arrived, Some(packet.frame()), "a good frame does not arrive");
        assert_eq!(self.guest.memory.peek(answer), [0], "a good command fails");
        let mut blank = self.peers[0].blank(frame.len()).expect("a buffer");
        blank.bytes_mut().copy_from_slice(&frame);
        self.peers[0].send(&blank.finish(Offload::default()), self.now_ns);
        self.finish();
        let received: [u8; 60] = self.guest.memory.peek(at + HEADER_BYTES as u64);
        assert_eq!(received[..], frame, "a good frame is not received");
        let (memory, bridge) = (self.guest.memory.clone(), self.bridge.clone());
        drop(self);
        assert_eq!((memory.pins(), bridge.borrow().pool().in_use()), (0, 0));
    }
}

/// What one alleges who sends the packet uncut.
fn alleged(packet: &Packet, segment_bytes: u16) -> Option<Allegation> {
    let protocol = match packet.network {
        Network::None => return None,
        Network::V4 { .. } => SegmentedProtocol::Tcp4,
        Network::V6 { .. } => SegmentedProtocol::Tcp6,
    };
    let checksum = Some(PartialChecksum { start: packet.transport() as u16, offset: 16 });
    Some(Allegation { checksum, segmentation: Some((protocol, segment_bytes)), is_verified: false })
}

/// The header that goes with it (virtio 1.2, 5.1.6).
fn usual(packet: &Packet, segment_bytes: u16) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0] = 1;
    header[1] = match packet.network {
        Network::None => 0,
        Network::V4 { .. } => 1,
        Network::V6 { .. } => 4,
    };
    header[2..4].copy_from_slice(&(packet.transport() as u16).to_le_bytes());
    header[4..6].copy_from_slice(&segment_bytes.to_le_bytes());
    header[6..8].copy_from_slice(&(packet.transport() as u16).to_le_bytes());
    header[8..10].copy_from_slice(&16_u16.to_le_bytes());
    header
}

/// Cuts a run of readable bytes into buffers.
fn cut(start: u64, length: usize, cuts: &[u16]) -> Vec<(u64, u32, bool)> {
    let mut places: Vec<_> = cuts.iter().map(|cut| usize::from(*cut) % (length + 1)).collect();
    places.extend([0, length]);
    places.sort_unstable();
    places.windows(2).map(|ends| (start + ends[0] as u64, (ends[1] - ends[0]) as u32, false)).collect()
}

fn net(data: &[u8], only: usize) {
    let mut input = Unstructured::new(data);
    let Ok(keeps) = input.arbitrary::<u8>() else { return };
    let mut bed = Bed::new((keeps % 4 > 0).then_some(only));
    steps(input).for_each(|step| bed.step(step));
    bed.finish();
    bed.end();
}

/// Mostly frames from the guest.
pub fn net_transmit(data: &[u8]) {
    net(data, TRANSMIT);
}

/// Mostly frames to the guest.
pub fn net_receive(data: &[u8]) {
    net(data, RECEIVE);
}

/// Mostly commands.
pub fn net_control(data: &[u8]) {
    net(data, CONTROL);
}
