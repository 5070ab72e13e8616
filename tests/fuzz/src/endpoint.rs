//! This domain as a station: any frames, those of DHCP and ARP among them, and connections of a second stack to its HTTP server.

use crate::input::steps;
use arbitrary::{Arbitrary, Unstructured};
use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, Port, PortKind, PortSettings, SharedBridge};
use drivers::net::filter::Filter;
use drivers::net::offload::Offload;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use kernel::endpoint::Endpoint;
use kernel::endpoint::addressing::{Addressing, Lease, parse};
use kernel::endpoint::phy::Wire;
use kernel::endpoint::request::{self, HEAD_BYTES_MAX};
use kernel::endpoint::status::{DeviceKind, DeviceStatus, GuestStatus, Status};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr};

const OURS: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);
const THEIRS: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 2]);
const OUR_IP: [u8; 4] = [10, 0, 0, 5];
const THEIR_IP: [u8; 4] = [10, 0, 0, 9];
const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// More calls than the endpoint ever has to do in a row.
const ENOUGH_CALLS: usize = 10_000;
const CLIENTS: usize = 6;

struct Bed {
    bridge: SharedBridge,
    endpoint: Endpoint,
    now_ns: u64,
}

fn port(bridge: &SharedBridge, name: &str, kind: PortKind, address: MacAddress) -> Port {
    let settings = PortSettings {
        name: name.into(),
        kind,
        address: Some(address),
        is_pinned: false,
        is_isolated: false,
    };
    Bridge::add(bridge, settings).expect("a free address")
}

/// A status with one of everything, and a name with all that has to be escaped somewhere.
fn status() -> Status {
    let name = "a\"b\\c\n<d>&'{}=,#";
    let blk = drivers::virtio::blk::Counters { reads: 41, ..Default::default() };
    let device = |kind| DeviceStatus { domain: 3, name: name.into(), kind, registers: Default::default() };
    Status {
        version: "1.2.3",
        uptime_ns: 61 * SECOND,
        guests: vec![GuestStatus { domain: 3, slots: 17 }],
        devices: vec![
            device(DeviceKind::Disk(blk)),
            device(DeviceKind::Nic(Some(THEIRS), Default::default())),
        ],
        ..Status::default()
    }
}

impl Bed {
    fn new(addressing: Addressing) -> Self {
        let bridge = Bridge::new(1);
        let port = port(&bridge, "endpoint", PortKind::Endpoint, OURS);
        let now_ns = 5 * SECOND;
        let endpoint = Endpoint::new(port, addressing, Box::new(|| Ok(status())), 42, now_ns);
        Self { bridge, endpoint: endpoint.expect("a port with an address"), now_ns }
    }

    /// Polls until there is nothing to do now.
    fn settle(&mut self) {
        for _ in 0..ENOUGH_CALLS {
            if !self.endpoint.poll(self.now_ns) && !self.endpoint.has_work() {
                return;
            }
        }
        panic!("the endpoint never comes to rest");
    }
}

fn instant(now_ns: u64) -> Instant {
    Instant::from_micros((now_ns / 1000) as i64)
}

#[derive(Arbitrary, Debug)]
enum FrameStep {
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

    fn frame(&self, step: &FrameStep) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        let link = PacketBuilder::ethernet2(THEIRS.0, OURS.0);
        match step {
            FrameStep::Raw(bytes) => {
                frame = [&OURS.0[..], &THEIRS.0, bytes].concat();
            }
            FrameStep::Arp { is_reply, from, to, address } => {
                let operation = if *is_reply { ArpOperation::REPLY } else { ArpOperation::REQUEST };
                let to = to.unwrap_or(self.ip);
                let address = address.unwrap_or(THEIRS.0);
                let (hardware, network) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
                let arp = ArpPacket::new(hardware, network, operation, &address, from, &OURS.0, &to).ok()?;
                link.arp(arp).write_to_vec(&mut frame).ok()?;
            }
            FrameStep::Icmp { kind, code, from, payload } => {
                let from = match from {
                    Source::Usual => THEIR_IP,
                    Source::Other(other) => *other,
                };
                let ip = link.ipv4(from, self.ip, 64);
                ip.icmpv4_raw(*kind, *code, [0, 1, 0, 2]).write_to_vec(&mut frame, payload).ok()?;
            }
            FrameStep::Udp { from, to, payload } => {
                link.ipv4(THEIR_IP, self.ip, 64).udp(*from, *to).write_to_vec(&mut frame, payload).ok()?;
            }
            FrameStep::Tcp { from, to, flags, sequence, acknowledged, window, payload } => {
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
            FrameStep::Dhcp { kind, address, server, mask, router, lease_s, options, wrong_id } => {
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
            FrameStep::Damaged { at, byte } => {
                frame.clone_from(&self.last);
                *frame.get_mut(usize::from(*at))? = *byte;
            }
            FrameStep::Sleep { .. } | FrameStep::SleepLong { .. } => return None,
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
    for step in steps::<FrameStep>(input) {
        match step {
            FrameStep::Sleep { ms } => bed.now_ns += u64::from(ms) * MS,
            FrameStep::SleepLong { minutes } => bed.now_ns += u64::from(minutes) * 60 * SECOND,
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

#[derive(Arbitrary, Debug)]
enum Step {
    Connect { client: u8 },
    Say { client: u8, words: Vec<u8> },
    SayRaw { client: u8, bytes: Vec<u8> },
    Read { client: u8, bytes: u16 },
    Close { client: u8 },
    Abort { client: u8 },
    Run { ms: u8 },
    Sleep { seconds: u8 },
}

const WORDS: [&str; 16] = [
    "GET ",
    "/",
    "/metrics",
    " HTTP/1.1\r\n",
    "\r\n",
    "Host: a\r\n",
    "HEAD ",
    "POST ",
    " HTTP/1.0\r\n",
    "?x=1",
    "a",
    "Connection: keep-alive\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "A: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n",
    "\0",
];

struct Client {
    socket: SocketHandle,
    said: Vec<u8>,
    heard: Vec<u8>,
}

struct Web {
    bed: Bed,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    clients: [Option<Client>; CLIENTS],
    next_port: u16,
}

impl Web {
    fn new() -> Self {
        let Ok(Some(addressing)) = parse("10.0.0.5/24") else { panic!("a good address") };
        let bed = Bed::new(addressing);
        let mut wire = Wire::new(port(&bed.bridge, "peer", PortKind::Uplink, THEIRS));
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(THEIRS.0)));
        let mut interface = Interface::new(config, &mut wire, instant(bed.now_ns));
        let [a, b, c, d] = THEIR_IP;
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(Ipv4Address::new(a, b, c, d), 24)));
        });
        let sockets = SocketSet::new(Vec::new());
        Self { bed, wire, interface, sockets, clients: Default::default(), next_port: 1000 }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.bed.settle();
            self.wire.set_time(self.bed.now_ns);
            self.interface.poll(instant(self.bed.now_ns), &mut self.wire, &mut self.sockets);
            self.bed.settle();
            self.bed.now_ns += MS;
        }
    }

    fn connect(&mut self, number: usize) {
        if let Some(client) = self.clients[number].take() {
            self.sockets.remove(client.socket);
        }
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let socket = self.sockets.add(Socket::new(buffer(), buffer()));
        self.next_port += 1;
        let [a, b, c, d] = OUR_IP;
        let remote = (IpAddress::v4(a, b, c, d), 80);
        let context = self.interface.context();
        let connecting = self.sockets.get_mut::<Socket<'_>>(socket).connect(context, remote, self.next_port);
        connecting.expect("a port of its own");
        self.clients[number] = Some(Client { socket, said: Vec::new(), heard: Vec::new() });
        self.run(2);
    }

    fn with(&mut self, number: u8, use_it: impl FnOnce(&mut Client, &mut Socket<'static>)) {
        if let Some(client) = &mut self.clients[usize::from(number) % CLIENTS] {
            use_it(client, self.sockets.get_mut(client.socket));
        }
    }

    fn say(&mut self, number: u8, bytes: &[u8]) {
        self.with(number, |client, socket| {
            if socket.may_send() {
                let said = socket.send_slice(bytes).unwrap_or(0);
                client.said.extend_from_slice(&bytes[..said]);
            }
        });
        self.run(1);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Connect { client } => self.connect(usize::from(client) % CLIENTS),
            Step::Say { client, words } => {
                let words = words.iter().take(64).map(|word| WORDS[usize::from(word % 16)]);
                self.say(client, words.collect::<String>().as_bytes());
            }
            Step::SayRaw { client, bytes } => self.say(client, &bytes),
            Step::Read { client, bytes } => self.with(client, |client, socket| {
                let most = usize::from(bytes);
                let _ = socket.recv(|part| {
                    let part = &part[..part.len().min(most)];
                    client.heard.extend_from_slice(part);
                    (part.len(), ())
                });
            }),
            Step::Close { client } => self.with(client, |_, socket| socket.close()),
            Step::Abort { client } => self.with(client, |_, socket| socket.abort()),
            Step::Run { ms } => self.run(u64::from(ms % 16)),
            Step::Sleep { seconds } => {
                self.bed.now_ns += u64::from(seconds % 64) * SECOND;
                self.run(1);
            }
        }
    }

    /// Reads on until the server has ended the connection, or it takes too long. Returns whether it has.
    fn read_all(&mut self, number: usize) -> bool {
        for _ in 0..200 {
            let mut has_ended = true;
            self.with(number as u8, |client, socket| {
                while socket.can_recv() {
                    let _ = socket.recv(|part| (part.len(), client.heard.extend_from_slice(part)));
                }
                has_ended = matches!(socket.state(), State::CloseWait);
            });
            if has_ended {
                return true;
            }
            self.run(5);
        }
        false
    }
}

/// What an answer must be to what was said.
fn judge(client: &Client, is_whole: bool) {
    let Client { said, heard, .. } = client;
    if heard.is_empty() {
        return;
    }
    assert!(b"HTTP/1.1 ".starts_with(&heard[..heard.len().min(9)]), "an answer that is none");
    let Some(end) = heard.windows(4).position(|part| part == b"\r\n\r\n") else {
        assert!(!is_whole, "an answer without an end");
        return;
    };
    let head = String::from_utf8_lossy(&heard[..end]);
    let body_bytes = heard.len() - end - 4;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).expect("the body's length");
    assert!(body_bytes <= length, "more than was said");
    let wish = request::read(&said[..said.len().min(HEAD_BYTES_MAX)], said.len() >= HEAD_BYTES_MAX);
    let wish = wish.expect("an answer to a request that is not over");
    assert!(!is_whole || body_bytes == if wish.head_only { 0 } else { length }, "not all of the answer");
}

/// Clients of the HTTP server.
pub fn http(data: &[u8]) {
    // A longer beginning says the same.
    let head = &data[..data.len().min(HEAD_BYTES_MAX - 1)];
    let judged = request::read(head, false);
    for part in 1..8 {
        let earlier = request::read(&head[..head.len() * part / 8], false);
        assert!(earlier.is_none() || earlier == judged, "it changes its mind");
    }
    let mut web = Web::new();
    web.connect(0);
    steps(Unstructured::new(data)).for_each(|step| web.step(step));
    for number in 0..CLIENTS {
        let is_open = web.clients[number].is_some() && web.read_all(number);
        if let Some(client) = &web.clients[number] {
            judge(client, is_open);
        }
    }
    // Whoever was slow is out after some time, and others get their turn.
    web.clients.iter_mut().for_each(|client| {
        if let Some(client) = client.take() {
            web.sockets.remove(client.socket);
        }
    });
    web.run(2);
    web.bed.now_ns += 60 * SECOND;
    web.run(2);
    web.bed.now_ns += 60 * SECOND;
    web.run(2);
    web.connect(0);
    web.run(5);
    web.say(0, b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(web.read_all(0), "a good request is not answered");
    let client = web.clients[0].as_ref().expect("it has connected");
    assert!(client.heard.starts_with(b"HTTP/1.1 200 OK\r\n"));
    judge(client, true);
    let Web { bed, wire, .. } = web;
    drop((bed.endpoint, wire));
    assert_eq!(bed.bridge.borrow().pool().in_use(), 0, "a buffer is lost");
}
