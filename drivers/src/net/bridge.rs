//! The bridge: learns which port an address is behind, and hands frames to the inboxes of other ports.

use super::MacAddress;
use super::filter::Filter;
use super::frame::{Blank, Frame, FramePool, PoolLimits};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::RefCell;
use slab::Slab;

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
    /// Only frames from its own address are taken from it.
    pub is_pinned: bool,
    /// It exchanges frames only with ports that are not isolated.
    pub is_isolated: bool,
}

/// Why there is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Another port has the address.
    #[error("the address {0} is already that of {1}")]
    Duplicate(MacAddress, String),
    /// There are as many ports as there may be.
    #[error("the bridge has no port left: it has {0}")]
    Full(usize),
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
    /// Frames out, lost because the inbox was full.
    pub dropped_full: u64,
    /// Frames in, lost for lack of a buffer.
    pub dropped_no_buffer: u64,
    /// Frames in, refused for what they are: too short, from an address that is not the port's or nobody's.
    pub refused: u64,
    /// Frames in that were not flooded because there were too many.
    pub flood_limited: u64,
}

/// The bridge.
pub struct Bridge {
    pool: FramePool,
    ports: Slab<State>,
}

struct State {
    settings: PortSettings,
    filter: Filter,
    is_open: bool,
    inbox: VecDeque<Frame>,
    counters: PortCounters,
    must_announce: bool,
}

/// A bridge that many hold on to.
pub type SharedBridge = Rc<RefCell<Bridge>>;

impl Bridge {
    /// A bridge without ports. Entries of its tables are told apart with the help of the secret `seed`.
    #[must_use]
    pub fn new(seed: u64) -> SharedBridge {
        let _ = seed;
        let pool = FramePool::new(PoolLimits { small: 512, large: 24 });
        Rc::new(RefCell::new(Self { pool, ports: Slab::new() }))
    }

    /// Adds a port, which is closed at first: nothing is put into its inbox.
    ///
    /// # Errors
    /// [`PortError`].
    pub fn add(bridge: &SharedBridge, settings: PortSettings) -> Result<Port, PortError> {
        let mut this = bridge.borrow_mut();
        if let Some(address) = settings.address
            && let Some((_, other)) =
                this.ports.iter().find(|(_, other)| other.settings.address == Some(address))
        {
            return Err(PortError::Duplicate(address, other.settings.name.clone()));
        }
        let pool = this.pool.clone();
        let key = this.ports.insert(State {
            settings,
            filter: Filter::default(),
            is_open: false,
            inbox: VecDeque::new(),
            counters: PortCounters::default(),
            must_announce: false,
        });
        Ok(Port { bridge: bridge.clone(), pool, key })
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

    fn send(&mut self, from: usize, frame: &Frame, _now_ns: u64) {
        for (key, port) in &mut self.ports {
            if key != from && port.is_open {
                port.inbox.push_back(frame.clone());
            }
        }
    }
}

/// One port of a bridge, held by what is at its other side; dropping it removes the port.
pub struct Port {
    bridge: SharedBridge,
    pool: FramePool,
    key: usize,
}

impl Port {
    /// A buffer for a frame of `bytes` bytes that is to be sent; none when it would be too long, or all are in use, which is counted.
    #[must_use]
    pub fn blank(&self, bytes: usize) -> Option<Blank> {
        let blank = self.pool.blank(bytes);
        if blank.is_none() {
            self.with(|port| port.counters.dropped_no_buffer += 1);
        }
        blank
    }

    /// Sends a frame from this port to where it belongs; never back.
    pub fn send(&self, frame: &Frame, now_ns: u64) {
        self.bridge.borrow_mut().send(self.key, frame, now_ns);
    }

    /// Takes the next frame for this port.
    #[must_use]
    pub fn receive(&self) -> Option<Frame> {
        self.with(|port| port.inbox.pop_front()).flatten()
    }

    /// Puts a frame back that [`Self::receive`] has given.
    pub fn put_back(&self, frame: Frame) {
        self.with(|port| port.inbox.push_front(frame));
    }

    /// How many frames wait for this port.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.with(|port| port.inbox.len()).unwrap_or(0)
    }

    /// Lets frames come with `filter`, or, with none, closes the port: what waits is dropped.
    pub fn set_filter(&self, filter: Option<Filter>) {
        self.with(|port| {
            port.is_open = filter.is_some();
            if !port.is_open {
                port.inbox.clear();
            }
            port.filter = filter.unwrap_or_default();
        });
    }

    /// Whether the guest behind this port is asked to announce itself; asked once.
    #[must_use]
    pub fn take_announcement(&self) -> bool {
        self.with(|port| core::mem::take(&mut port.must_announce)).unwrap_or(false)
    }

    /// What went over it.
    #[must_use]
    pub fn counters(&self) -> PortCounters {
        self.with(|port| port.counters).unwrap_or_default()
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> Option<MacAddress> {
        self.with(|port| port.settings.address).flatten()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.with(|port| port.settings.name.clone()).unwrap_or_default()
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut State) -> R) -> Option<R> {
        self.bridge.borrow_mut().ports.get_mut(self.key).map(use_it)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.bridge.borrow_mut().ports.try_remove(self.key);
    }
}
