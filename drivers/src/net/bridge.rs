//! The bridge: learns which port an address is behind, and hands frames to the inboxes of other ports.
//!
//! ```text
//!   port.send ──> is its source allowed? ──> learned ──> whose is its destination?
//!                  └──> refused                           ├──> one port: wanted? ──> its inbox ──> port.receive
//!                                                         └──> a group, or unknown: flooded, within a limit
//! ```
//! A frame costs the same however many stations there are. Stations are learned by address alone: one that has the same
//! address in two VLANs is behind one port. VLAN tags pass as they are; a port may be asked to filter them. A sender that can
//! wait does, for a bounded time, when the inbox is full that its frame is for; else the frame is lost.
//!
//! | file | job |
//! |---|---|
//! | `port` | a port as its holder sees it, its settings and counters |
//! | `stations` | which port an address is behind |
//! | `inbox` | what waits for a port; how all share the buffers |
//! | `flood` | how much a port may have flooded |
//! | `guard` | what does not come to our endpoint |
//! | `patience` | how long a full inbox has senders wait |

mod flood;
mod guard;
mod inbox;
mod patience;
mod port;
#[cfg(test)]
mod properties;
mod stations;
#[cfg(test)]
mod tests;

pub use guard::Guard;
pub use port::{Port, PortCounters, PortError, PortKind, PortSettings};

use super::MacAddress;
use super::frame::{Frame, FramePool, WIRE_BYTES_MAX};
use super::headers::Addresses;
use alloc::rc::Rc;
use core::cell::RefCell;
use guard::Origin;
use inbox::{Borrowed, Inbox, pool_limits};
use port::{Held, State};
use slab::Slab;
use stations::Stations;

/// Most ports. With all, the table of stations is less than 64 KiB: 16 bytes a station.
pub const PORTS_MAX: usize = 32;
/// Stations behind a guest: itself, and what it may run inside.
const STATIONS_OF_GUEST: usize = 64;
/// Stations behind the uplink.
const STATIONS_OF_UPLINK: usize = 1024;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// The bridge.
pub struct Bridge {
    pool: FramePool,
    ports: Slab<State>,
    stations: Stations,
    borrowed: Borrowed,
    uplink: Option<usize>,
    /// When the bridge was used last.
    now_ns: u64,
}

/// A bridge that many hold on to.
pub type SharedBridge = Rc<RefCell<Bridge>>;

impl Bridge {
    /// A bridge without ports. Entries of its tables are told apart with the help of the secret `seed`.
    #[must_use]
    pub fn new(seed: u64) -> SharedBridge {
        Rc::new(RefCell::new(Self {
            pool: FramePool::new(pool_limits(0)),
            ports: Slab::new(),
            stations: Stations::new(seed),
            borrowed: Borrowed::default(),
            uplink: None,
            now_ns: 0,
        }))
    }

    /// Adds a port, which is closed at first: nothing is put into its inbox.
    ///
    /// # Errors
    /// [`PortError`].
    pub fn add(bridge: &SharedBridge, settings: PortSettings) -> Result<Port, PortError> {
        let this = &mut *bridge.borrow_mut();
        if this.ports.len() >= PORTS_MAX {
            return Err(PortError::Full(PORTS_MAX));
        }
        if let Some(address) = settings.address {
            // It is the newcomer's by right: another may have taken it on.
            this.take_back(address);
            this.check_own(address, None)?;
        }
        let inbox = Inbox::new().map_err(|_| PortError::NoMemory)?;
        let stations = match settings.kind {
            PortKind::Guest | PortKind::Endpoint => STATIONS_OF_GUEST,
            PortKind::Uplink => STATIONS_OF_UPLINK,
        };
        let (address, kind) = (settings.address, settings.kind);
        let key = this.ports.insert(State::new(settings, inbox));
        this.pool.set_limits(pool_limits(this.ports.len()));
        if this.stations.add(key, address, stations).is_err() {
            this.remove(key);
            return Err(PortError::NoMemory);
        }
        if kind == PortKind::Uplink {
            this.uplink = Some(key);
            this.stations.prefer(key);
        }
        Ok(Port { bridge: bridge.clone(), pool: this.pool.clone(), key })
    }

    /// The buffers of all frames.
    #[must_use]
    pub fn pool(&self) -> &FramePool {
        &self.pool
    }

    /// Calls `look` with the settings and counters of each port.
    pub fn for_each_port(&self, mut look: impl FnMut(&PortSettings, &PortCounters)) {
        self.ports.iter().for_each(|(_, port)| look(&port.settings, &port.counters));
    }

    /// The network behind the uplink may have lost what it learned: guests are asked to announce themselves.
    pub fn announce(&mut self) {
        self.ports
            .iter_mut()
            .for_each(|(_, port)| port.must_announce = port.settings.kind == PortKind::Guest);
    }

    /// Gives a port that has an address of its own another one. Returns false if that is not its to have.
    fn set_address(&mut self, key: usize, address: MacAddress) -> bool {
        let now_s = u32::try_from(self.now_ns / NS_PER_SECOND).unwrap_or(u32::MAX);
        let is_elsewhere = self.stations.find(address, now_s).is_some_and(|holder| holder != key);
        if is_elsewhere || self.check_own(address, Some(key)).is_err() {
            return false;
        }
        let Some(port) = self.ports.get_mut(key) else { return false };
        if port.given.is_none() || port.settings.is_pinned && port.given != Some(address) {
            return false;
        }
        port.settings.address = Some(address);
        self.stations.set_own(key, address);
        true
    }

    /// Gives a port its first address again, which stayed its own.
    fn reset_address(&mut self, key: usize) {
        if let Some(port) = self.ports.get_mut(key)
            && let Some(given) = port.given.filter(|given| port.settings.address != Some(*given))
        {
            port.settings.address = Some(given);
            self.stations.set_own(key, given);
        }
    }

    /// Nobody keeps an address that is not the first it had.
    fn take_back(&mut self, address: MacAddress) {
        let is_taken = |port: &State| port.settings.address == Some(address) && port.given != Some(address);
        let taken = self.ports.iter().find(|(_, port)| is_taken(port));
        if let Some((key, port)) = taken {
            log::warn!("{}: gives the address {address} back, which is another's", port.settings.name);
            self.reset_address(key);
        }
    }

    /// The station `source` was heard at a port. Returns false if it cannot be there. A guest that has taken on the address of a
    /// station outside while that was silent has to give it back.
    fn learn(&mut self, from: usize, source: MacAddress, now_s: u32) -> bool {
        if self.stations.learn(from, source, now_s) {
            return true;
        }
        if self.uplink != Some(from) {
            return false;
        }
        self.take_back(source);
        self.stations.learn(from, source, now_s)
    }

    /// Whether an address can be a port's own, if that is not the port `except`.
    fn check_own(&self, address: MacAddress, except: Option<usize>) -> Result<(), PortError> {
        if !address.is_station() {
            return Err(PortError::NotAStation(address));
        }
        let has_it = |port: &State| port.given == Some(address) || port.settings.address == Some(address);
        match self.ports.iter().find(|(key, other)| Some(*key) != except && has_it(other)) {
            Some((_, other)) => Err(PortError::Duplicate(address, other.settings.name.clone())),
            None => Ok(()),
        }
    }

    fn remove(&mut self, key: usize) {
        if let Some(mut port) = self.ports.try_remove(key) {
            port.clear(&mut self.borrowed);
            self.stations.remove(key);
            self.uplink = self.uplink.filter(|uplink| *uplink != key);
            self.pool.set_limits(pool_limits(self.ports.len()));
            // What the others need they make again: nothing stays of who has gone.
            self.pool.release_idle();
        }
    }

    /// By when [`Self::release`] is to be called, if senders wait.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let held = self.ports.iter().filter_map(|(_, port)| port.held);
        // Who waits for nobody any more goes on at once.
        held.map(|held| self.ports.get(held.by).and_then(|by| by.patience.end_ns()).unwrap_or(0)).min()
    }

    /// Lets senders go on that have waited for long enough. Returns whether there were any.
    pub fn release(&mut self, now_ns: u64) -> bool {
        if self.ports.iter().all(|(_, port)| port.held.is_none()) {
            // So it is nearly always, and this is asked at each turn.
            return false;
        }
        (0..PORTS_MAX).fold(false, |released, key| {
            let was_held = self.ports.get(key).is_some_and(|port| port.held.is_some());
            released | (was_held && !self.is_held(key, now_ns))
        })
    }

    /// Whether a port has to wait before it sends again.
    fn is_held(&mut self, from: usize, now_ns: u64) -> bool {
        self.now_ns = now_ns;
        let Some(held) = self.ports.get(from).and_then(|sender| sender.held) else { return false };
        let is_held = self.ports.get_mut(held.by).is_some_and(|receiver| receiver.holds(&held, now_ns));
        if !is_held && let Some(sender) = self.ports.get_mut(from) {
            sender.held = None;
        }
        is_held
    }

    /// Returns false if the sender is to wait: then nothing has happened.
    fn send(&mut self, from: usize, frame: &Frame, now_ns: u64, when_full: WhenFull) -> bool {
        self.now_ns = now_ns;
        let is_sent = self.forward(from, frame, now_ns, when_full);
        if is_sent && let Some(sender) = self.ports.get_mut(from) {
            sender.counters.frames_in += 1;
            sender.counters.bytes_in += u64::try_from(frame.bytes().len()).unwrap_or(0);
        }
        is_sent
    }

    fn forward(&mut self, from: usize, frame: &Frame, now_ns: u64, when_full: WhenFull) -> bool {
        let now_s = u32::try_from(now_ns / NS_PER_SECOND).unwrap_or(u32::MAX);
        let Some(sender) = self.ports.get(from) else { return true };
        let addresses = Addresses::of(frame.bytes())
            .filter(|addresses| is_allowed(&sender.settings, frame, addresses.source));
        // Its own address needs no learning: most frames have it.
        let needs_learning =
            addresses.as_ref().is_some_and(|addresses| sender.settings.address != Some(addresses.source));
        let addresses =
            addresses.filter(|addresses| !needs_learning || self.learn(from, addresses.source, now_s));
        let Some(sender) = self.ports.get_mut(from) else { return true };
        let Some(addresses) = addresses else {
            sender.counters.refused += 1;
            return true;
        };
        if is_reserved(addresses.destination) {
            sender.counters.dropped_reserved += 1;
        } else if addresses.destination.is_group() {
            self.flood(from, frame, &addresses, now_ns);
        } else {
            match self.stations.find(addresses.destination, now_s) {
                Some(to) => return self.hand_over(from, to, frame, &addresses, when_full),
                None => self.flood(from, frame, &addresses, now_ns),
            }
        }
        true
    }

    /// To one port, if that is another. Returns false if the sender is to wait.
    fn hand_over(
        &mut self,
        from: usize,
        to: usize,
        frame: &Frame,
        addresses: &Addresses,
        when_full: WhenFull,
    ) -> bool {
        if from == to {
            return true;
        }
        let origin = self.origin(from);
        let Some((sender, receiver)) = self.ports.get2_mut(from, to) else { return true };
        if sender.settings.is_isolated && receiver.settings.is_isolated {
            sender.counters.dropped_isolated += 1;
        } else if !receiver.admits(frame, origin) {
            sender.refuse_claim();
        } else if when_full == WhenFull::Wait
            && receiver.must_wait(frame, addresses, &mut self.borrowed, self.now_ns)
        {
            sender.held = Some(Held { by: to, until_frames: receiver.waiting() / 2 });
            return false;
        } else {
            receiver.offer(frame, addresses, &mut self.borrowed);
        }
        true
    }

    /// To all other ports that want it, if the sender has not had too much flooded.
    fn flood(&mut self, from: usize, frame: &Frame, addresses: &Addresses, now_ns: u64) {
        let origin = self.origin(from);
        let Some(sender) = self.ports.get_mut(from) else { return };
        if !sender.flood.allows(now_ns) {
            sender.counters.flood_limited += 1;
            return;
        }
        let is_isolated = sender.settings.is_isolated;
        let is_group = addresses.destination.is_group();
        let (mut copies, mut is_claim) = (0, false);
        for (key, port) in &mut self.ports {
            let may_have_it = key != from
                && !(is_isolated && port.settings.is_isolated)
                && (is_group || port.may_have_strangers());
            if may_have_it && !port.admits(frame, origin) {
                is_claim = true;
            } else {
                copies += u64::from(may_have_it && port.offer(frame, addresses, &mut self.borrowed));
            }
        }
        if let Some(sender) = self.ports.get_mut(from) {
            sender.counters.copies_flooded += copies;
            sender.flood.charge(copies, now_ns);
            if is_claim {
                sender.refuse_claim();
            }
        }
    }

    /// Where frames of the port `from` come from.
    fn origin(&self, from: usize) -> Origin {
        let is_guest = self.ports.get(from).is_some_and(|port| port.settings.kind == PortKind::Guest);
        if is_guest && self.uplink.is_some() { Origin::Inside } else { Origin::Outside }
    }
}

/// What is done with a frame for one port whose inbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenFull {
    Lose,
    /// The sender keeps it, as long as the receiver may have it wait.
    Wait,
}

/// Whether a port may send such a frame, as far as that does not depend on others.
fn is_allowed(sender: &PortSettings, frame: &Frame, source: MacAddress) -> bool {
    let is_pinned_elsewhere = sender.is_pinned && sender.address.is_some_and(|own| own != source);
    let fits = frame.bytes().len() <= WIRE_BYTES_MAX || frame.offload().segmentation.is_some();
    source.is_station() && !is_pinned_elsewhere && fits
}

/// Whether it is one of 01:80:c2:00:00:00 to 0f, which no bridge forwards (IEEE 802.1D, 7.12.6).
fn is_reserved(destination: MacAddress) -> bool {
    matches!(destination.0, [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00..=0x0f])
}
