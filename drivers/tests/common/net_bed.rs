//! A guest with a network card whose rings are written by hand, and a station on the same bridge.

use super::{
    DRIVER_FEATURES, DRIVER_FEATURES_SEL, INDIRECT, NEEDS_RESET, NEXT, QUEUE_DESC, QUEUE_DEVICE,
    QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_NUM, QUEUE_READY, QUEUE_SEL, STATUS, WRITE, cut, descriptor, peek,
};
use drivers::fake::{FakeGuestMemory, FakeLine};
use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, Port, PortKind, PortSettings, SharedBridge};
use drivers::net::filter::Filter;
use drivers::net::offload::Offload;
use drivers::virtio::Features;
use drivers::virtio::mmio::{MmioDevice, Progress, Width};
use drivers::virtio::net::NetDevice;
use drivers::virtio::net::config::{self, features};

pub const BASE: u64 = 0x4000_0000;
const PAGES: usize = 1024;
/// Where buffers are.
pub const DATA: u64 = BASE + 0x10_0000;
pub const HEADER_BYTES: usize = 12;
/// Rings of three queues that are mapped as long as they are ready.
pub const RING_PINS: usize = 9;

pub const GUEST: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);
pub const STATION: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 2]);

/// A queue, as the guest knows it.
pub struct Ring {
    number: u16,
    pub size: u16,
    /// The next free descriptor: each chain takes new ones, and the first again after the last.
    free: u16,
    pub next: u16,
    seen: u16,
}

impl Ring {
    fn new(number: u16, size: u16) -> Self {
        Self { number, size, free: 0, next: 0, seen: 0 }
    }

    pub fn descriptors(&self) -> u64 {
        BASE + u64::from(self.number) * 0x1_0000
    }

    pub fn available(&self) -> u64 {
        self.descriptors() + 0x2000
    }

    pub fn used(&self) -> u64 {
        self.descriptors() + 0x3000
    }

    /// Where indirect tables are: one of 16 entries for each descriptor, and then a long one.
    pub fn table(&self, index: u16) -> u64 {
        self.descriptors() + 0x4000 + u64::from(index) * 0x100
    }
}

pub struct NetGuest {
    pub device: MmioDevice<NetDevice, FakeGuestMemory, FakeLine>,
    pub memory: FakeGuestMemory,
    pub line: FakeLine,
    pub bridge: SharedBridge,
    /// The other station.
    pub peer: Port,
    pub receive: Ring,
    pub transmit: Ring,
    pub control: Ring,
    features: Features,
}

/// The features of a guest that is neither Linux nor anything: those of the ring, and these.
pub fn with(more: Features) -> Features {
    Features::VERSION_1 | Features::INDIRECT_DESC | Features::EVENT_IDX | more
}

pub fn port(bridge: &SharedBridge, name: &str, address: MacAddress) -> Port {
    let settings = PortSettings {
        name: name.into(),
        kind: PortKind::Guest,
        address: Some(address),
        is_pinned: false,
        is_isolated: false,
    };
    Bridge::add(bridge, settings).unwrap()
}

impl NetGuest {
    /// A guest that has found the device and not touched it.
    pub fn cold() -> Self {
        let bridge = Bridge::new(1);
        let peer = port(&bridge, "dom9/net0", STATION);
        peer.set_filter(Some(Filter { promiscuous: true, ..Filter::default() }));
        let net = NetDevice::new("dom3/net0".into(), port(&bridge, "dom3/net0", GUEST));
        let (memory, line) = (FakeGuestMemory::new(BASE, PAGES), FakeLine::default());
        let device = MmioDevice::new(net, memory.clone(), line.clone(), Features::empty());
        let [receive, transmit, control] =
            [(0, 256), (1, 256), (2, 64)].map(|(number, size)| Ring::new(number, size));
        Self { device, memory, line, bridge, peer, receive, transmit, control, features: Features::empty() }
    }

    /// A guest that accepts all there is.
    pub fn running() -> Self {
        Self::with_features(features())
    }

    pub fn with_features(features: Features) -> Self {
        let mut guest = Self::cold();
        guest.start(features, [256, 256, 64]);
        guest
    }

    /// Likewise, of whose memory several places are copied together, as granted memory is.
    pub fn granting(features: Features) -> Self {
        let mut guest = Self::cold();
        guest.memory.copy_together();
        guest.start(features, [256, 256, 64]);
        guest
    }

    pub fn read(&self, offset: u32) -> u32 {
        self.device.read(offset, Width::Four).try_into().unwrap()
    }

    pub fn write(&mut self, offset: u32, value: u32) {
        let _ = self.device.write(offset, Width::Four, value.into());
    }

    fn write_address(&mut self, offset: u32, address: u64) {
        self.write(offset, (address & 0xffff_ffff) as u32);
        self.write(offset + 4, (address >> 32) as u32);
    }

    /// The driver's way up, with rings of zeroes of these sizes; a queue of size 0 is left out.
    pub fn start(&mut self, features: Features, sizes: [u16; 3]) {
        self.write(STATUS, 0);
        self.write(STATUS, 1 | 2);
        self.write(DRIVER_FEATURES_SEL, 1);
        self.write(DRIVER_FEATURES, (features.bits() >> 32) as u32);
        self.write(DRIVER_FEATURES_SEL, 0);
        self.write(DRIVER_FEATURES, (features.bits() & 0xffff_ffff) as u32);
        self.write(STATUS, 1 | 2 | 8);
        self.features = features;
        let [receive, transmit, control] = [0, 1, 2].map(|number| {
            let size = sizes[usize::from(number)];
            let ring = Ring::new(number, size);
            self.memory.poke(ring.descriptors(), &[0; 0x4000]).unwrap();
            if size > 0 {
                self.write(QUEUE_SEL, number.into());
                self.write(QUEUE_NUM, size.into());
                self.write_address(QUEUE_DESC, ring.descriptors());
                self.write_address(QUEUE_DRIVER, ring.available());
                self.write_address(QUEUE_DEVICE, ring.used());
                self.write(QUEUE_READY, 1);
            }
            ring
        });
        (self.receive, self.transmit, self.control) = (receive, transmit, control);
        self.write(STATUS, 1 | 2 | 4 | 8);
        self.work();
    }

    /// What the kernel does while there is something to do, a bounded number of times. Returns how many.
    pub fn work(&mut self) -> usize {
        for calls in 1..1000 {
            let progress = self.device.process();
            assert!(self.memory.pins() <= RING_PINS);
            if progress == Progress::default() && !self.device.has_work() {
                return calls;
            }
        }
        panic!("there is always something to do");
    }

    pub fn needs_reset(&self) -> bool {
        self.read(STATUS) & NEEDS_RESET != 0
    }

    pub fn kick(&mut self, queue: u16) {
        self.write(QUEUE_NOTIFY, queue.into());
        self.work();
    }

    pub fn peek_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(peek(&self.memory, address))
    }

    pub fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.peek(address, &mut bytes).unwrap();
        bytes
    }

    pub fn ring(&mut self, queue: u16) -> &mut Ring {
        match queue {
            0 => &mut self.receive,
            1 => &mut self.transmit,
            _ => &mut self.control,
        }
    }

    /// The index up to which the guest wants to be asked for kicks.
    pub fn avail_event(&mut self, queue: u16) -> u16 {
        let ring = self.ring(queue);
        let address = ring.used() + 4 + u64::from(ring.size) * 8;
        self.peek_u16(address)
    }

    /// The flags of the used ring.
    pub fn used_flags(&mut self, queue: u16) -> u16 {
        let address = self.ring(queue).used();
        self.peek_u16(address)
    }

    pub fn used_index(&mut self, queue: u16) -> u16 {
        let address = self.ring(queue).used() + 2;
        self.peek_u16(address)
    }

    /// Writes entry `index` of a descriptor table.
    pub fn set_descriptor(&self, table: u64, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        self.memory.poke(table + u64::from(index) * 16, &descriptor(buffer, flags, next)).unwrap();
    }

    /// Makes a chain of these buffers available without a kick; the bool says that the device may write. Returns its head.
    pub fn post(&mut self, queue: u16, buffers: &[(u64, u32, bool)]) -> u16 {
        let (size, table) = (self.ring(queue).size, self.ring(queue).descriptors());
        let first = self.ring(queue).free;
        let count = u16::try_from(buffers.len()).unwrap();
        for (place, (address, length, writable)) in (0..).zip(buffers) {
            let next = if place + 1 < count { NEXT } else { 0 };
            let write = if *writable { WRITE } else { 0 };
            let index = (first + place) % size;
            self.set_descriptor(table, index, (*address, *length), next | write, (index + 1) % size);
        }
        self.ring(queue).free = (first + count) % size;
        self.publish(queue, first);
        first
    }

    /// Likewise, by an indirect table.
    pub fn post_indirect(&mut self, queue: u16, buffers: &[(u64, u32, bool)]) -> u16 {
        let (size, descriptors) = (self.ring(queue).size, self.ring(queue).descriptors());
        let first = self.ring(queue).free;
        let table = self.ring(queue).table(first);
        for (place, (address, length, writable)) in (0..).zip(buffers) {
            let next = if usize::from(place) + 1 < buffers.len() { NEXT } else { 0 };
            let write = if *writable { WRITE } else { 0 };
            self.set_descriptor(table, place, (*address, *length), next | write, place + 1);
        }
        let bytes = u32::try_from(buffers.len()).unwrap() * 16;
        self.set_descriptor(descriptors, first, (table, bytes), INDIRECT, 0);
        self.ring(queue).free = (first + 1) % size;
        self.publish(queue, first);
        first
    }

    /// Makes a head available.
    pub fn publish(&mut self, queue: u16, head: u16) {
        let ring = self.ring(queue);
        let slot = ring.available() + 4 + u64::from(ring.next % ring.size) * 2;
        ring.next = ring.next.wrapping_add(1);
        let (index, next) = (ring.available() + 2, ring.next);
        self.memory.poke(slot, &head.to_le_bytes()).unwrap();
        self.memory.poke(index, &next.to_le_bytes()).unwrap();
    }

    /// What the device is done with since this was asked last: head and length.
    pub fn take_used(&mut self, queue: u16) -> Vec<(u16, u32)> {
        let index = self.used_index(queue);
        let mut taken = Vec::new();
        while self.ring(queue).seen != index {
            let ring = self.ring(queue);
            let entry = ring.used() + 4 + u64::from(ring.seen % ring.size) * 8;
            ring.seen = ring.seen.wrapping_add(1);
            let raw = self.bytes(entry, 8);
            let [id, length] =
                [0, 4].map(|at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().unwrap()));
            taken.push((u16::try_from(id).unwrap(), length));
        }
        taken
    }

    /// Posts `count` receive buffers of so many bytes, one after the other from `DATA` on.
    pub fn post_buffers(&mut self, count: u16, bytes: u32) {
        for _ in 0..count {
            let address = DATA + u64::from(self.receive.free) * 0x1000;
            self.post(0, &[(address, bytes, true)]);
        }
    }

    /// The next piece that was received in buffers of [`Self::post_buffers`]: header and frame.
    pub fn received(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut bytes, mut left) = (Vec::new(), 1);
        while left > 0 {
            let before = self.receive.seen;
            let all = self.take_used(0);
            let Some((head, length)) = all.first().copied() else { break };
            self.receive.seen = before.wrapping_add(1);
            let part = self.bytes(DATA + u64::from(head) * 0x1000, length as usize);
            bytes.extend(part);
            if left == 1 && bytes.len() == length as usize && bytes.len() >= HEADER_BYTES {
                left = u16::from_le_bytes([bytes[10], bytes[11]]);
            }
            left = left.saturating_sub(1);
        }
        (!bytes.is_empty()).then(|| {
            (bytes[..HEADER_BYTES.min(bytes.len())].to_vec(), bytes.split_off(HEADER_BYTES.min(bytes.len())))
        })
    }

    /// Sends a chain's bytes, header and frame, in buffers that are cut at the given places.
    pub fn post_sent(&mut self, bytes: &[u8], cuts: &[usize]) -> u16 {
        let address = DATA + u64::from(self.transmit.free) * 0x1000;
        self.memory.poke(address, bytes).unwrap();
        self.post(1, &cut(address, bytes.len(), cuts, false))
    }

    /// Sends header and frame, and lets the kernel work.
    pub fn send(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) -> u16 {
        let head = self.post_sent(&[&header, frame].concat(), &[]);
        self.kick(1);
        head
    }

    /// Frames that the station got.
    pub fn arrived(&self) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| self.peer.receive()).map(|frame| frame.bytes().to_vec()).collect()
    }

    /// The station sends a frame to the guest.
    pub fn deliver(&self, frame: &[u8], offload: Offload) {
        let mut blank = self.peer.blank(frame.len()).unwrap();
        blank.bytes_mut().copy_from_slice(frame);
        self.peer.send(&blank.finish(offload), 1);
    }

    /// Carries out a control command whose parts are buffers of their own. Returns the answer.
    pub fn command(&mut self, parts: &[&[u8]]) -> u8 {
        let mut buffers = Vec::new();
        for (part, place) in parts.iter().zip(0..) {
            let address = DATA + 0x2000 * place;
            self.memory.poke(address, part).unwrap();
            buffers.push((address, u32::try_from(part.len()).unwrap(), false));
        }
        let ack = DATA + 0x2000 * parts.len() as u64;
        self.memory.poke(ack, &[0xff]).unwrap();
        buffers.push((ack, 1, true));
        self.post(2, &buffers);
        self.kick(2);
        self.bytes(ack, 1)[0]
    }

    pub fn counters(&self) -> drivers::virtio::net::Counters {
        *self.device.device().counters()
    }

    /// Buffers of frames that are in use anywhere.
    pub fn frames_in_use(&self) -> usize {
        self.bridge.borrow().pool().in_use()
    }
}

/// A frame of so many bytes, of no protocol that anybody looks into.
pub fn frame(to: MacAddress, from: MacAddress, length: usize) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[0x88, 0xb5]].concat();
    frame.extend((0..length.saturating_sub(14)).map(|byte| u8::try_from(byte % 251).unwrap()));
    frame
}

/// A TCP segment over IPv4 with so many bytes of payload, whose checksum is left to the receiver.
pub fn tcp_frame(to: MacAddress, from: MacAddress, payload: usize) -> Vec<u8> {
    let length = u16::try_from(20 + 20 + payload).unwrap();
    let mut frame = [&to.0[..], &from.0, &[0x08, 0x00]].concat();
    let mut ip = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut tcp = [0x13, 0x88, 0x14, 0x51, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
    let mut pseudo = [&ip[12..], &[0, 6]].concat();
    pseudo.extend((length - 20).to_be_bytes());
    tcp[16..18].copy_from_slice(&sum(&pseudo).to_be_bytes());
    frame.extend(ip);
    frame.extend(tcp);
    frame.extend((0..payload).map(|byte| u8::try_from(byte % 251).unwrap()));
    frame
}

/// The one's complement sum (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// A header before a TCP segment of [`tcp_frame`] that is to be cut into pieces of so many bytes; not, for 0.
pub fn tcp_header(segment_bytes: u16) -> [u8; HEADER_BYTES] {
    let mut header = [1, u8::from(segment_bytes > 0), 54, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    header[4..6].copy_from_slice(&segment_bytes.to_le_bytes());
    header
}

/// All that a Linux guest accepts but for what the test is about.
pub fn without(less: Features) -> Features {
    features() - less
}

pub const NO_MERGING: Features = config::MRG_RXBUF;
