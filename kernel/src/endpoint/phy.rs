//! The stack's wire: a port of the bridge.
//!
//! Frames that came with something left to do are completed and cut here, so that the stack sees what would be on a
//! wire. Nothing is ever refused to it: when there is no buffer, a frame is lost, as on a wire.

use alloc::vec::Vec;

use drivers::net::bridge::{Guard, Port};
use drivers::net::filter::Filter;
use drivers::net::frame::{ETHERNET_BYTES, Frame, MTU, WIRE_BYTES_MAX};
use drivers::net::offload::{Capabilities, HEADER_BYTES_MAX, Offload, pieces};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

/// The wire.
pub struct Wire {
    port: Port,
    now_ns: u64,
    /// A frame of which not all pieces were handed over, and the next of them.
    current: Option<(Frame, usize)>,
    /// What a piece of two parts is joined in.
    joined: Vec<u8>,
    /// What is written when there is no buffer.
    lost: Vec<u8>,
    /// Whoever wants to connect to this TCP port is not heard: no socket is left for it. An answer would be a refusal; without
    /// one, they ask again after a second.
    deaf_to: Option<u16>,
}

impl Wire {
    /// The wire behind `port`, which gets frames from now on.
    #[must_use]
    pub fn new(port: Port) -> Self {
        port.set_filter(Some(Filter::default()));
        Self {
            port,
            now_ns: 0,
            current: None,
            joined: alloc::vec![0; WIRE_BYTES_MAX],
            lost: alloc::vec![0; ETHERNET_BYTES + MTU],
            deaf_to: None,
        }
    }

    /// What is sent from now on is sent at `now_ns`.
    pub fn set_time(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Whether nobody new is heard at a TCP port.
    pub fn set_deaf_to(&mut self, port: Option<u16>) {
        self.deaf_to = port;
    }

    /// From now on nothing comes in the names in `guard`. What waits already stays.
    pub fn set_guard(&self, guard: Guard) {
        self.port.set_guard(guard);
    }

    /// Drops what waits.
    pub fn forget(&mut self) {
        self.current = None;
        while self.port.receive().is_some() {}
    }

    /// Whether frames wait.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.current.is_some() || self.port.waiting() > 0
    }
}

impl Device for Wire {
    type RxToken<'a> = Arrival<'a>;
    type TxToken<'a> = Departure<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrival<'_>, Departure<'_>)> {
        let (frame, index) = match self.current.take() {
            Some(current) => current,
            None => (self.port.receive()?, 0),
        };
        let mut header = [0; HEADER_BYTES_MAX];
        let all = pieces(frame.bytes(), frame.offload(), Capabilities::default());
        let (front, rest) =
            all.piece(index, &mut header).map_or((&[][..], &[][..]), |piece| (piece.front, piece.rest));
        self.joined.clear();
        // What no wire carries is handed over as nothing, which the stack ignores.
        if front.len() + rest.len() <= self.joined.capacity() {
            self.joined.extend_from_slice(front);
            self.joined.extend_from_slice(rest);
        }
        if self.deaf_to.is_some_and(|port| is_opening(&self.joined, port)) {
            self.joined.clear();
        }
        if index + 1 < all.count() {
            self.current = Some((frame, index + 1));
        }
        let departure = Departure { port: &self.port, lost: &mut self.lost, now_ns: self.now_ns };
        Some((Arrival(&self.joined), departure))
    }

    fn transmit(&mut self, _: Instant) -> Option<Departure<'_>> {
        Some(Departure { port: &self.port, lost: &mut self.lost, now_ns: self.now_ns })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET_BYTES + MTU;
        capabilities
    }
}

/// A frame that came.
pub struct Arrival<'a>(&'a [u8]);

impl RxToken for Arrival<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

/// The right to send a frame.
pub struct Departure<'a> {
    port: &'a Port,
    lost: &'a mut [u8],
    now_ns: u64,
}

impl TxToken for Departure<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        match self.port.blank(length) {
            Some(mut blank) => {
                // Not all of it is sure to be written, and it held a frame of a guest's.
                blank.bytes_mut().fill(0);
                let result = write(blank.bytes_mut());
                self.port.send(&blank.finish(Offload::default()), self.now_ns);
                result
            }
            // The stack sends nothing longer than it was told a frame can be.
            None => write(self.lost.get_mut(..length).unwrap_or_default()),
        }
    }
}

/// Whether a frame asks for a TCP connection to `port`.
fn is_opening(frame: &[u8], port: u16) -> bool {
    let tcp = || {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let is_ip = ethernet.ethertype() == EthernetProtocol::Ipv4;
        let ip = is_ip.then(|| Ipv4Packet::new_checked(ethernet.payload()).ok())??;
        let is_tcp = ip.next_header() == IpProtocol::Tcp && ip.frag_offset() == 0;
        let tcp = is_tcp.then(|| TcpPacket::new_checked(ip.payload()).ok())??;
        Some(tcp.dst_port() == port && tcp.syn() && !tcp.ack() && !tcp.rst())
    };
    tcp().unwrap_or(false)
}
