//! A port as whoever is at its other side holds it.

use super::flood::FloodLimit;
use super::guard::{Guard, Origin};
use super::inbox::{Borrowed, Inbox};
use super::patience::Patience;
use super::{SharedBridge, WhenFull};
use crate::net::MacAddress;
use crate::net::filter::Filter;
use crate::net::frame::{Blank, Frame, FramePool};
use crate::net::headers::Addresses;
use crate::virtio::complaints::Complaints;
use alloc::string::String;

/// What is at the other side of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A guest.
    Guest,
    /// A physical NIC, with a network behind it.
    Uplink,
    /// This domain itself.
    Endpoint,
}

/// What a port is.
#[derive(Clone, Debug)]
pub struct PortSettings {
    /// Its name in the log and in counters, such as `dom3/net0`.
    pub name: String,
    /// What is at its other side.
    pub kind: PortKind,
    /// Its own address, which no other port may have. None for the uplink.
    pub address: Option<MacAddress>,
    /// Only frames from its own address are taken from it, and, as nobody else can be there, frames for stations that nobody
    /// knows are not flooded to it. Means nothing without an address.
    pub is_pinned: bool,
    /// It exchanges frames only with ports that are not isolated.
    pub is_isolated: bool,
}

impl PortSettings {
    /// Whether there is nobody behind it but the station that has its address.
    fn is_single(&self) -> bool {
        self.address.is_some() && (self.is_pinned || self.kind == PortKind::Endpoint)
    }
}

/// Why there is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Another port has the address.
    #[error("the address {0} is already that of {1}")]
    Duplicate(MacAddress, String),
    /// A group's address, or zero.
    #[error("no station can have the address {0}")]
    NotAStation(MacAddress),
    /// There are as many ports as there may be.
    #[error("the bridge has no port left: it has {0}")]
    Full(usize),
    /// The heap has not so much left.
    #[error("no memory for a port")]
    NoMemory,
}

/// What went over a port. "In" is from the port into the bridge, "out" from the bridge to the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames in.
    pub frames_in: u64,
    /// Bytes in.
    pub bytes_in: u64,
    /// Frames put into its inbox.
    pub frames_out: u64,
    /// Bytes put into its inbox.
    pub bytes_out: u64,
    /// Copies that were made of frames in, to flood them.
    pub copies_flooded: u64,
    /// Frames out, lost because the inbox was full.
    pub dropped_full: u64,
    /// Frames out that its filter does not want, or that came while it was closed.
    pub dropped_filtered: u64,
    /// Frames in, lost for lack of a buffer.
    pub dropped_no_buffer: u64,
    /// Frames in for one station, lost because both ports are isolated.
    pub dropped_isolated: u64,
    /// Frames in for the bridge itself, such as those of the spanning tree: it has no use for them (IEEE 802.1D, 7.12.6).
    pub dropped_reserved: u64,
    /// Frames in, refused for what they are: too short or too long, from an address that is not the port's or nobody's.
    pub refused: u64,
    /// Frames in that were not flooded because there were too many.
    pub flood_limited: u64,
    /// Frames in that were kept from our endpoint because they are in the name of one on whom it relies, or its own.
    pub refused_claims: u64,
}

/// Why a sender waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// The port whose inbox is full.
    pub by: usize,
    /// It goes on when that has so few frames left: there is room for some at once.
    pub until_frames: usize,
}

/// What the bridge knows of a port.
pub(super) struct State {
    pub settings: PortSettings,
    pub counters: PortCounters,
    pub flood: FloodLimit,
    pub must_announce: bool,
    /// The address that it had at first.
    pub given: Option<MacAddress>,
    /// It waits before it sends more.
    pub held: Option<Held>,
    /// How long others wait for it.
    pub patience: Patience,
    guard: Option<Guard>,
    complaints: Complaints,
    filter: Filter,
    is_open: bool,
    inbox: Inbox,
}

impl State {
    /// A closed port.
    pub fn new(settings: PortSettings, inbox: Inbox) -> Self {
        Self {
            given: settings.address,
            settings,
            counters: PortCounters::default(),
            flood: FloodLimit::default(),
            must_announce: false,
            held: None,
            patience: Patience::default(),
            guard: None,
            complaints: Complaints::default(),
            filter: Filter::default(),
            is_open: false,
            inbox,
        }
    }

    /// Whether a frame from `origin` may come to this port.
    pub fn admits(&self, frame: &Frame, origin: Origin) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.admits(frame.bytes(), origin))
    }

    /// Whether a frame for a station that nobody knows may be for somebody behind this port.
    pub fn may_have_strangers(&self) -> bool {
        !self.settings.is_single()
    }

    /// Puts the frame into the inbox, if it is wanted and there is a place for it. Whether it is wanted.
    pub fn offer(&mut self, frame: &Frame, addresses: &Addresses, borrowed: &mut Borrowed) -> bool {
        if !self.wants(addresses) {
            self.counters.dropped_filtered += 1;
            return false;
        }
        if self.inbox.push(frame.clone(), borrowed) {
            self.counters.frames_out += 1;
            self.counters.bytes_out += u64::try_from(frame.bytes().len()).unwrap_or(0);
        } else {
            self.counters.dropped_full += 1;
        }
        true
    }

    /// Whether the sender of a frame for this port alone is to wait until there is a place for it.
    pub fn must_wait(
        &mut self,
        frame: &Frame,
        addresses: &Addresses,
        borrowed: &mut Borrowed,
        now_ns: u64,
    ) -> bool {
        !self.inbox.has_place(frame, borrowed) && self.wants(addresses) && self.patience.lasts(now_ns)
    }

    /// Whether a sender that waits for this port is to wait longer.
    pub fn holds(&mut self, held: &Held, now_ns: u64) -> bool {
        self.inbox.frames() > held.until_frames && self.patience.lasts(now_ns)
    }

    /// How many frames wait.
    pub fn waiting(&self) -> usize {
        self.inbox.frames()
    }

    /// Takes the next frame.
    pub fn take(&mut self, borrowed: &mut Borrowed, now_ns: u64) -> Option<Frame> {
        let frame = self.inbox.pop(borrowed)?;
        self.patience.earn(frame.bytes().len(), now_ns);
        Some(frame)
    }

    fn wants(&self, addresses: &Addresses) -> bool {
        let Addresses { destination, vlan, .. } = *addresses;
        self.is_open && self.filter.accepts(self.settings.address, destination, vlan)
    }

    /// Counts a frame from this port in the name of somebody else, with a line in the log for the first.
    pub fn refuse_claim(&mut self) {
        self.counters.refused_claims += 1;
        if self.complaints.may_speak() {
            let name = &self.settings.name;
            log::warn!(
                "{name}: kept from our endpoint what is in the name of one on whom it relies (said once)"
            );
        }
    }

    /// Drops what waits.
    pub fn clear(&mut self, borrowed: &mut Borrowed) {
        self.inbox.clear(borrowed);
    }
}

/// One port of a bridge, held by what is at its other side; dropping it removes the port.
pub struct Port {
    pub(super) bridge: SharedBridge,
    pub(super) pool: FramePool,
    pub(super) key: usize,
}

impl Port {
    /// A buffer for a frame of `bytes` bytes that is to be sent; none when it would be too long, or all are in use, which is counted.
    #[must_use]
    pub fn blank(&self, bytes: usize) -> Option<Blank> {
        let blank = self.blank_if_any(bytes);
        if blank.is_none() {
            self.with(|port, _| port.counters.dropped_no_buffer += 1);
        }
        blank
    }

    /// Likewise, for who can wait: it is not counted.
    #[must_use]
    pub fn blank_if_any(&self, bytes: usize) -> Option<Blank> {
        self.pool.blank(bytes)
    }

    /// Sends a frame from this port to where it belongs; never back.
    pub fn send(&self, frame: &Frame, now_ns: u64) {
        self.bridge.borrow_mut().send(self.key, frame, now_ns, WhenFull::Lose);
    }

    /// Likewise, unless the frame is for one port alone whose inbox is full: then it is not sent, false is returned, and the
    /// sender is to try again when [`Self::is_held`] says no. That is not long, and then the frame may be lost.
    #[must_use]
    pub fn send_or_wait(&self, frame: &Frame, now_ns: u64) -> bool {
        self.bridge.borrow_mut().send(self.key, frame, now_ns, WhenFull::Wait)
    }

    /// Whether a frame of this port waits, so that none is to be sent now. [`super::Bridge::deadline_ns`] tells until when.
    #[must_use]
    pub fn is_held(&self, now_ns: u64) -> bool {
        self.bridge.borrow_mut().is_held(self.key, now_ns)
    }

    /// Takes the next frame for this port. Whoever holds more than one at a time takes buffers that others count on.
    #[must_use]
    pub fn receive(&self) -> Option<Frame> {
        let bridge = &mut *self.bridge.borrow_mut();
        bridge.ports.get_mut(self.key)?.take(&mut bridge.borrowed, bridge.now_ns)
    }

    /// How many frames wait for this port.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.with(|port, _| port.waiting()).unwrap_or(0)
    }

    /// Lets frames come with `filter`, or, with none, closes the port: what waits is dropped.
    pub fn set_filter(&self, filter: Option<Filter>) {
        self.with(|port, borrowed| {
            port.is_open = filter.is_some();
            if !port.is_open {
                port.clear(borrowed);
                port.held = None;
            }
            port.filter = filter.unwrap_or_default();
        });
    }

    /// Keeps from this port what is in the name of one that `guard` names. What waits already stays.
    pub fn set_guard(&self, guard: Guard) {
        self.with(|port, _| port.guard = Some(guard));
    }

    /// Whether the guest behind this port is asked to announce itself; asked once.
    #[must_use]
    pub fn take_announcement(&self) -> bool {
        self.with(|port, _| core::mem::take(&mut port.must_announce)).unwrap_or(false)
    }

    /// What went over it.
    #[must_use]
    pub fn counters(&self) -> PortCounters {
        self.with(|port, _| port.counters).unwrap_or_default()
    }

    /// Gives it another address of its own, until [`Self::reset_address`]. Returns false if it cannot have that: it is pinned, the
    /// address is no station's or another port's, or was heard elsewhere lately.
    #[must_use]
    pub fn set_address(&self, address: MacAddress) -> bool {
        self.bridge.borrow_mut().set_address(self.key, address)
    }

    /// Gives it back the address that it had at first.
    pub fn reset_address(&self) {
        self.bridge.borrow_mut().reset_address(self.key);
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> Option<MacAddress> {
        self.with(|port, _| port.settings.address).flatten()
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut State, &mut Borrowed) -> R) -> Option<R> {
        let bridge = &mut *self.bridge.borrow_mut();
        bridge.ports.get_mut(self.key).map(|port| use_it(port, &mut bridge.borrowed))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.bridge.borrow_mut().remove(self.key);
    }
}
