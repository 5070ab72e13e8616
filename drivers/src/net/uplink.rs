//! The uplink: a physical NIC at a port of the bridge.
//!
//! What comes from outside is copied once out of the NIC's buffer, what goes there once into it; large segments that
//! guests left uncut are cut, and checksums completed, on the way ([`super::offload`]). Frames that the NIC has no buffer for
//! stay in the port's inbox, which is bounded.

use super::bridge::{Port, SharedBridge};
use super::filter::Filter;
use super::frame::Frame;
use super::offload::{Capabilities, HEADER_BYTES_MAX, Offload, pieces};
use crate::nic::{Nic, NicError};
use alloc::boxed::Box;
use alloc::string::String;

/// Most frames taken from the NIC, and from the inbox, in one turn: others wait meanwhile.
const FRAMES_PER_TURN: usize = 64;

/// For so long after the last frame it is looked at now and then even if no interrupt comes: one has been seen to get lost in
/// QEMU's GICv2 with two processors.
const WATCH_NS: u64 = 1_000_000_000;

/// A NIC at a port.
pub struct Uplink {
    name: String,
    nic: Box<dyn Nic>,
    port: Port,
    bridge: SharedBridge,
    /// A frame of which so many pieces are sent.
    unfinished: Option<(Frame, usize)>,
    link_is_up: bool,
    wants_interrupts: bool,
    /// When the last frame came or went, if that is not long ago.
    traffic_ns: Option<u64>,
    is_broken: bool,
}

impl Uplink {
    /// Joins `nic`, called `name` in the log, to a port of `bridge`.
    #[must_use]
    pub fn new(name: String, nic: Box<dyn Nic>, port: Port, bridge: SharedBridge) -> Self {
        let link_is_up = nic.link_is_up();
        port.set_filter(Some(Filter { promiscuous: true, ..Filter::default() }));
        Self {
            name,
            nic,
            port,
            bridge,
            unfinished: None,
            link_is_up,
            wants_interrupts: true,
            traffic_ns: None,
            is_broken: false,
        }
    }

    /// The NIC's interrupt came.
    pub fn interrupt(&mut self) {
        let acknowledged = self.nic.acknowledge_interrupt();
        self.note(acknowledged);
        let is_up = self.nic.link_is_up();
        if is_up != self.link_is_up {
            self.link_is_up = is_up;
            log::info!("{}: the link is {}", self.name, if is_up { "up" } else { "down" });
            if is_up {
                // Who is behind it now knows nothing of our guests.
                self.bridge.borrow_mut().announce();
            }
        }
    }

    /// Takes what came and sends what waits, a bounded number of frames. Returns whether there was anything.
    pub fn poll(&mut self, now_ns: u64) -> bool {
        if self.is_broken {
            while self.port.receive().is_some() {}
            (self.unfinished, self.traffic_ns) = (None, None);
            return false;
        }
        if self.wants_interrupts {
            self.wants_interrupts = false;
            self.nic.want_interrupts(false, false);
        }
        let done = self.receive(now_ns) | self.send();
        let is_recent = |traffic_ns: &u64| now_ns.saturating_sub(*traffic_ns) < WATCH_NS;
        self.traffic_ns = if done { Some(now_ns) } else { self.traffic_ns.filter(is_recent) };
        done
    }

    /// Tells the NIC what it was given.
    pub fn kick(&mut self) {
        self.nic.kick();
    }

    /// Makes the NIC interrupt us for what it does from now on. Returns whether it has done something already.
    pub fn settle(&mut self) -> bool {
        if self.is_broken {
            return false;
        }
        self.wants_interrupts = true;
        let may_send = self.unfinished.is_none() && self.port.waiting() > 0;
        let also_sent = self.has_backlog();
        self.nic.want_interrupts(true, also_sent) || may_send
    }

    /// Whether frames wait for a buffer of the NIC's.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Whether [`Self::poll`] is to be called before long even if no interrupt comes.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.has_backlog() || self.traffic_ns.is_some()
    }

    fn receive(&mut self, now_ns: u64) -> bool {
        let mut came = false;
        for _ in 0..FRAMES_PER_TURN {
            let port = &self.port;
            let received = self.nic.receive(&mut |bytes| {
                // The port counts what is lost.
                if let Some(mut blank) = port.blank(bytes.len()) {
                    blank.bytes_mut().copy_from_slice(bytes);
                    port.send(&blank.finish(Offload::default()), now_ns);
                }
            });
            match received {
                Ok(true) => came = true,
                Ok(false) => break,
                Err(error) => {
                    self.note(Err(error));
                    break;
                }
            }
        }
        came
    }

    fn send(&mut self) -> bool {
        let mut sent = false;
        for _ in 0..FRAMES_PER_TURN {
            let next = self.unfinished.take().or_else(|| self.port.receive().map(|frame| (frame, 0)));
            let Some((frame, done)) = next else { break };
            match self.send_from(&frame, done) {
                Ok(()) => sent = true,
                Err((NicError::Busy, at)) => {
                    sent |= at > done;
                    self.unfinished = Some((frame, at));
                    break;
                }
                Err((error, _)) => {
                    self.note(Err(error));
                    break;
                }
            }
        }
        sent
    }

    /// Sends the pieces of a frame from number `done` on; an error comes with the number of the piece that was not sent.
    fn send_from(&mut self, frame: &Frame, done: usize) -> Result<(), (NicError, usize)> {
        let all = pieces(frame.bytes(), frame.offload(), Capabilities::default());
        let mut header = [0; HEADER_BYTES_MAX];
        for index in done..all.count() {
            let Some(piece) = all.piece(index, &mut header) else { break };
            self.nic.transmit(piece.front, piece.rest).map_err(|error| (error, index))?;
        }
        Ok(())
    }

    fn note(&mut self, result: Result<(), NicError>) {
        if let Err(error @ NicError::Broken) = result
            && !self.is_broken
        {
            self.is_broken = true;
            log::error!("{}: {error}: nothing more goes over it", self.name);
        }
    }
}
