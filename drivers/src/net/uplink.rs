//! The uplink: a physical NIC at a port of the bridge.
//!
//! What comes from outside is copied once out of the NIC's buffer, what goes there once into it; large segments that
//! guests left uncut are cut, and checksums completed, on the way ([`super::offload`]). Frames that the NIC has no buffer for
//! stay in the port's inbox, which is bounded.

use super::bridge::{Port, SharedBridge};
use super::filter::Filter;
use super::frame::{Frame, WIRE_BYTES_MAX};
use super::offload::{Capabilities, HEADER_BYTES_MAX, Offload, pieces};
use crate::nic::{Nic, NicError};
use crate::sys;
use alloc::boxed::Box;
use alloc::string::String;

/// Most frames taken from the NIC, and from the inbox, in one turn: others wait meanwhile.
const FRAMES_PER_TURN: usize = 64;

/// What an uplink did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came from outside.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames sent there, after they were cut.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames from outside that were lost for lack of a buffer, or are none of Ethernet.
    pub received_lost: u64,
    /// Frames that are too large for a network even when cut.
    pub too_large: u64,
    /// Interrupts taken.
    pub interrupts: u64,
}

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
    counters: Counters,
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
            counters: Counters::default(),
            is_broken: false,
        }
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether there is a network behind it.
    #[must_use]
    pub fn link_is_up(&self) -> bool {
        self.link_is_up && !self.is_broken
    }

    /// The NIC's interrupt came.
    pub fn interrupt(&mut self) {
        self.counters.interrupts += 1;
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
    pub fn poll(&mut self) -> bool {
        if self.is_broken {
            while self.port.receive().is_some() {}
            return false;
        }
        if self.wants_interrupts {
            self.wants_interrupts = false;
            self.nic.want_interrupts(false, false);
        }
        self.receive() | self.send()
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

    fn receive(&mut self) -> bool {
        let now_ns = sys::now_ns();
        let mut came = false;
        for _ in 0..FRAMES_PER_TURN {
            let (port, counters) = (&self.port, &mut self.counters);
            let received = self.nic.receive(&mut |bytes| {
                if let Some(mut blank) = Some(bytes.len())
                    .filter(|length| *length <= WIRE_BYTES_MAX)
                    .and_then(|length| port.blank(length))
                {
                    blank.bytes_mut().copy_from_slice(bytes);
                    counters.received += 1;
                    counters.received_bytes += bytes.len() as u64;
                    port.send(&blank.finish(Offload::default()), now_ns);
                } else {
                    counters.received_lost += 1;
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
            let bytes = piece.front.len() + piece.rest.len();
            if bytes > WIRE_BYTES_MAX {
                self.counters.too_large += 1;
                continue;
            }
            self.nic.transmit(piece.front, piece.rest).map_err(|error| (error, index))?;
            self.counters.sent += 1;
            self.counters.sent_bytes += bytes as u64;
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
