//! The endpoint's bed: a bridge with the endpoint at one port, and at another a station that is a second stack, or frames
//! made by hand.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use drivers::drive::LinkStatus;
use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, Port, PortKind, PortSettings, SharedBridge};
use drivers::net::offload::Offload;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use super::Endpoint;
use super::addressing::{Addressing, parse};
use super::phy::Wire;
use super::status::{DeviceKind, DeviceStatus, DiskStatus, GuestStatus, PortStatus, Status};
use crate::xen::DomainId;

pub const OURS: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);
pub const THEIRS: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 2]);
pub const OUR_IP: Ipv4Address = Ipv4Address::new(10, 0, 0, 5);
pub const THEIR_IP: Ipv4Address = Ipv4Address::new(10, 0, 0, 9);
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MS;

/// A name with all that has to be escaped somewhere.
pub const NASTY: &str = "a\"b\\c\n<d>&'{}=,#";

/// A status with one of everything.
pub fn example() -> Status {
    let device = |name: &str, kind| DeviceStatus {
        domain: DomainId(3),
        name: name.into(),
        kind,
        registers: drivers::virtio::mmio::Counters { kicks: 7, ..Default::default() },
    };
    let link = Some(LinkStatus { is_up: true, reconnects: 5, replayed: 23 });
    let disk = drivers::virtio::blk::Counters { reads: 41, busy_ns: 1_500_000_000, ..Default::default() };
    Status {
        version: "1.2.3",
        uptime_ns: 61_000_000_001,
        guests: Vec::from([
            GuestStatus { domain: DomainId(3), slots: 17 },
            GuestStatus { domain: DomainId(4), slots: 0 },
        ]),
        devices: Vec::from([
            device("dom3/xvda", DeviceKind::Disk(disk)),
            device("dom3/net0", DeviceKind::Nic(Some(THEIRS), Default::default())),
            device(NASTY, DeviceKind::Disk(disk)),
        ]),
        ports: Vec::from([PortStatus { name: NASTY.into(), ..Default::default() }]),
        disks: Vec::from([
            DiskStatus { name: "blk0".into(), ..Default::default() },
            DiskStatus { name: "nbd:10.0.0.9:10809/disk".into(), link, ..Default::default() },
        ]),
        ..Status::default()
    }
}

pub fn bridge_port(bridge: &SharedBridge, name: &str, kind: PortKind, address: MacAddress) -> Port {
    let settings = PortSettings {
        name: name.into(),
        kind,
        address: Some(address),
        is_pinned: false,
        is_isolated: false,
    };
    Bridge::add(bridge, settings).unwrap()
}

pub struct Bed {
    pub bridge: SharedBridge,
    pub endpoint: Rc<RefCell<Endpoint>>,
    pub now_ns: u64,
}

impl Bed {
    /// An endpoint with what `ip=` says.
    pub fn new(ip: &str) -> Self {
        Self::with_status(ip, example())
    }

    pub fn with_status(ip: &str, status: Status) -> Self {
        let bridge = Bridge::new(1);
        let port = bridge_port(&bridge, "endpoint", PortKind::Endpoint, OURS);
        let addressing: Addressing = parse(ip).unwrap().unwrap();
        let source = Box::new(move || Ok(status.clone()));
        let now_ns = 5 * SECOND;
        let endpoint = Endpoint::new(port, addressing, source, 42, now_ns).unwrap();
        Self { bridge, endpoint: Rc::new(RefCell::new(endpoint)), now_ns }
    }

    /// Polls until there is nothing to do now.
    pub fn settle(&self) {
        let mut endpoint = self.endpoint.borrow_mut();
        for _ in 0..10_000 {
            let done = endpoint.poll(self.now_ns);
            if !done && !endpoint.has_work() {
                return;
            }
        }
        panic!("the endpoint never comes to rest");
    }

    pub fn pool_in_use(&self) -> usize {
        self.bridge.borrow().pool().in_use()
    }
}

/// Sends a frame made by hand.
pub fn send(port: &Port, bytes: &[u8]) {
    let mut blank = port.blank(bytes.len()).unwrap();
    blank.bytes_mut().copy_from_slice(bytes);
    port.send(&blank.finish(Offload::default()), 0);
}

/// A station with a stack of its own.
pub struct Peer {
    pub wire: Wire,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    next_port: u16,
    /// Of sockets that are made from now on.
    pub buffer_bytes: usize,
}

impl Peer {
    pub fn new(bed: &Bed) -> Self {
        let mut wire = Wire::new(bridge_port(&bed.bridge, "peer", PortKind::Uplink, THEIRS));
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(THEIRS.0)));
        let mut interface = Interface::new(config, &mut wire, super::instant(bed.now_ns));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(THEIR_IP, 24))).unwrap();
        });
        Self { wire, interface, sockets: SocketSet::new(Vec::new()), next_port: 1000, buffer_bytes: 64 << 10 }
    }

    pub fn socket(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(alloc::vec![0; self.buffer_bytes]);
        self.sockets.add(Socket::new(buffer(), buffer()))
    }

    pub fn tcp(&mut self, socket: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(socket)
    }

    /// Begins to connect to the endpoint.
    pub fn connect(&mut self, port: u16) -> SocketHandle {
        let socket = self.socket();
        self.next_port += 1;
        let remote = (IpAddress::Ipv4(OUR_IP), port);
        let context = self.interface.context();
        self.sockets.get_mut::<Socket<'_>>(socket).connect(context, remote, self.next_port).unwrap();
        socket
    }

    /// Lets both sides run for `ns`, in steps of a millisecond.
    pub fn run(&mut self, bed: &mut Bed, ns: u64) {
        self.run_until(bed, ns, |_| false);
    }

    /// Lets both sides run for `ns` at most, until `done`. Returns whether it was.
    pub fn run_until(&mut self, bed: &mut Bed, ns: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end_ns = bed.now_ns + ns;
        while bed.now_ns < end_ns {
            bed.settle();
            self.interface.poll(super::instant(bed.now_ns), &mut self.wire, &mut self.sockets);
            bed.settle();
            if done(self) {
                return true;
            }
            bed.now_ns += MS;
        }
        false
    }

    /// Runs until the endpoint has ended the connection, and returns all that it sent.
    pub fn read_all(&mut self, bed: &mut Bed, socket: SocketHandle, ns: u64) -> Option<String> {
        let mut bytes = Vec::new();
        let ended = self.run_until(bed, ns, |peer| {
            let socket = peer.tcp(socket);
            while socket.can_recv() {
                socket.recv(|part| (part.len(), bytes.extend_from_slice(part))).unwrap();
            }
            matches!(socket.state(), State::CloseWait | State::Closed)
        });
        self.tcp(socket).close();
        self.run(bed, 5 * MS);
        ended.then(|| String::from_utf8(bytes).unwrap())
    }

    /// Makes a request, and returns what is answered within 35 s.
    pub fn fetch(&mut self, bed: &mut Bed, request: &str) -> Option<String> {
        let socket = self.connect(80);
        let mut rest = request.as_bytes();
        self.run_until(bed, 10 * SECOND, |peer| peer.tcp(socket).may_send());
        while !rest.is_empty() && self.tcp(socket).may_send() {
            let sent = self.tcp(socket).send_slice(rest).unwrap();
            rest = &rest[sent..];
            if sent == 0 {
                self.run(bed, MS);
            }
        }
        self.read_all(bed, socket, 35 * SECOND)
    }
}
