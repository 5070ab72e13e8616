//! Event channels, two-level: binding, sending, and the pending bits in the shared info page.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::DomainId;
use super::abi::{AllocUnbound, BindInterdomain, DOMID_SELF, EventStatus, SharedInfo, event, number};
use super::hypercall::{Errno, HypercallError, call};

/// Ports that a domain can have (`EVTCHN_2L_NR_CHANNELS`).
const PORTS_MAX: u32 = 4096;

/// A local event channel port.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u32);

/// Notifies the other end of `port`. A vanished peer is no error.
pub fn send(port: Port) {
    let argument = port.0;
    let address = (&raw const argument).expose_provenance() as u64;
    // SAFETY: EVTCHNOP_send reads one u32 (evtchn_send, event_channel.h).
    let _ = unsafe { call(number::EVENT_CHANNEL_OP, [event::SEND, address, 0, 0, 0], "send event") };
}

/// The number of this domain: that of the only domain that may bind to a port made for "ourselves".
///
/// # Errors
/// Xen's answer.
pub fn own_domain() -> Result<DomainId, HypercallError> {
    const OPERATION: &str = "ask for our own number";
    let mut port = AllocUnbound { domain: DOMID_SELF, remote_domain: DOMID_SELF, port: 0 };
    let address = (&raw mut port).expose_provenance() as u64;
    // SAFETY: EVTCHNOP_alloc_unbound reads and writes one evtchn_alloc_unbound (event_channel.h).
    unsafe { call(number::EVENT_CHANNEL_OP, [event::ALLOC_UNBOUND, address, 0, 0, 0], OPERATION)? };
    let port = BoundPort(Port(port.port));
    let status = status(port.port())?;
    if status.status == event::STATUS_UNBOUND {
        Ok(DomainId(status.remote_domain))
    } else {
        Err(HypercallError { operation: OPERATION, errno: Errno::EINVAL })
    }
}

/// Asks Xen what a port of ours is.
fn status(port: Port) -> Result<EventStatus, HypercallError> {
    let mut status = EventStatus { domain: DOMID_SELF, port: port.0, ..EventStatus::default() };
    let address = (&raw mut status).expose_provenance() as u64;
    // SAFETY: EVTCHNOP_status reads and writes one evtchn_status (event_channel.h).
    unsafe {
        call(number::EVENT_CHANNEL_OP, [event::STATUS, address, 0, 0, 0], "ask what an event channel is")?
    };
    Ok(status)
}

/// Our ports, and what Xen tells of them. One that is closed, and so has no label, it may refuse to tell of.
fn statuses() -> impl Iterator<Item = (Port, EventStatus)> {
    let asked = (1..PORTS_MAX).map(|port| (Port(port), status(Port(port))));
    let is_port = |status: &Result<EventStatus, HypercallError>| {
        status.as_ref().err().is_none_or(|error| error.errno != Errno::EINVAL)
    };
    let there = asked.take_while(move |(_, status)| is_port(status));
    there.filter_map(|(port, status)| Some((port, status.ok()?)))
}

/// How many ports of ours are open, by Xen's books. A hypercall for each there can be: for people who ask.
#[must_use]
pub fn open_ports() -> usize {
    statuses().filter(|(_, status)| status.status != event::STATUS_CLOSED).count()
}

/// The ports of ours that are bound to ports of other domains, with those; and, with port 0, those that are bound to nothing any
/// more since the other domain went, or yet. A hypercall for each port there can be.
pub fn bound_ports() -> impl Iterator<Item = (Port, DomainId, u32)> {
    statuses().filter_map(|(port, status)| {
        let [_, low, high] = status.rest;
        let remote = match status.status {
            event::STATUS_INTERDOMAIN => u32::from(low) | u32::from(high) << 16,
            event::STATUS_UNBOUND => 0,
            _ => return None,
        };
        Some((port, DomainId(status.remote_domain), remote))
    })
}

/// A port bound to a port of another domain; closed when dropped.
#[derive(Debug)]
pub struct BoundPort(Port);

impl BoundPort {
    /// Binds a new local port to `remote_port` of `domain`. Its first event may be spurious.
    ///
    /// # Errors
    /// Xen's answer: no such port, the policy refuses, or all ports of this domain are in use.
    pub fn bind(domain: DomainId, remote_port: u32) -> Result<Self, HypercallError> {
        let mut bind = BindInterdomain { remote_domain: domain.0, remote_port, local_port: 0 };
        let address = (&raw mut bind).expose_provenance() as u64;
        // SAFETY: EVTCHNOP_bind_interdomain reads and writes one evtchn_bind_interdomain (event_channel.h).
        unsafe {
            call(number::EVENT_CHANNEL_OP, [event::BIND_INTERDOMAIN, address, 0, 0, 0], "bind event channel")?
        };
        Ok(Self(Port(bind.local_port)))
    }

    /// Takes over a port that an earlier life of this kernel bound.
    #[must_use]
    pub fn adopt(port: Port) -> Self {
        Self(port)
    }

    /// The local port.
    #[must_use]
    pub fn port(&self) -> Port {
        self.0
    }
}

impl Drop for BoundPort {
    fn drop(&mut self) {
        let argument = self.0.0;
        let address = (&raw const argument).expose_provenance() as u64;
        // SAFETY: EVTCHNOP_close reads one u32 (evtchn_close, event_channel.h).
        let _ = unsafe {
            call(number::EVENT_CHANNEL_OP, [event::CLOSE, address, 0, 0, 0], "close event channel")
        };
    }
}

/// The pending bits of this domain, shared with Xen.
///
/// All ports stay masked: an event then sets its bit and ends a [`super::sched::sleep_until_event`], and that is all
/// that Xen does for it. Unmasked, each would also raise an interrupt that we would only throw away.
pub struct PendingEvents {
    shared: NonNull<SharedInfo>,
}

impl PendingEvents {
    /// Takes over the shared info page mapped at `shared` and masks all ports.
    ///
    /// # Safety
    /// Xen's shared info page must be mapped there, writable, for as long as the value lives.
    pub unsafe fn new(shared: NonNull<SharedInfo>) -> Self {
        let events = Self { shared };
        for word in &events.shared().evtchn_mask {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        events
    }

    fn shared(&self) -> &SharedInfo {
        // SAFETY: mapped by the contract of `new`; every field that Xen changes is atomic.
        unsafe { self.shared.as_ref() }
    }

    /// The words with the bits of ports up to `highest`.
    fn words(&self, highest: Port) -> &[AtomicU64] {
        let words = &self.shared().evtchn_pending;
        words.get(..=(highest.0 / u64::BITS) as usize).unwrap_or(words)
    }

    /// Whether an event waits on a port up to `highest`.
    #[must_use]
    pub fn any(&self, highest: Port) -> bool {
        self.words(highest).iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Takes the ports up to `highest` whose event bit is set, clears the bits, and hands each to `handle`.
    pub fn take(&self, highest: Port, mut handle: impl FnMut(Port)) {
        for (index, word) in self.words(highest).iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                handle(Port(index as u32 * u64::BITS + bit));
            }
        }
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
