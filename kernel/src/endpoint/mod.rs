//! This domain as a station of its own on the bridge: an address, ping, HTTP for those who watch it, and TCP connections to
//! servers that hold volumes. Nothing can be changed over the network.
//!
//! | file | what |
//! |---|---|
//! | `mod` | [`Endpoint`]: the stack, and when it has to be looked at |
//! | [`addressing`] | where its address comes from |
//! | [`phy`] | its wire: a port of the bridge |
//! | [`http`], [`request`] | the HTTP server, and what is asked of it |
//! | [`status`], [`collect`] | what there is to tell, and where it is found |
//! | [`metrics`], [`page`] | told to Prometheus, and to people |
//! | [`connection`] | connections to servers |
//!
//! The stack is smoltcp. Whatever comes over the network it answers at once or drops: there are as many sockets as we made,
//! each with buffers of fixed size. It heeds neither fragments nor IPv6. In the name of its gateway, its servers and the DHCP
//! server it hears nothing from guests where there is an uplink ([`Guard`]).

pub mod addressing;
pub mod collect;
pub mod connection;
pub mod http;
pub mod metrics;
pub mod page;
pub mod phy;
pub mod request;
pub mod status;

use alloc::boxed::Box;
use core::task::{Context, Poll, Waker};

use drivers::net::bridge::{Guard, Port};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use addressing::{Addressing, Lease, is_station};
use connection::Dialler;
use http::HttpServer;
use phy::Wire;
use status::StatusSource;

/// Frames taken in one turn.
const FRAMES_PER_TURN: usize = 32;
/// Rounds of sending in one turn: each sends a segment of each socket at most.
const ROUNDS_PER_TURN: usize = 16;
/// Turns in a row in which the stack may send all it wants although nobody asked for anything: enough for all that connections to servers
/// have in their buffers.
const UNASKED_TURNS: u32 = 4;
/// When the stack wants to send and nothing goes, or goes on and on (smoltcp 0.14 probes a window of zero without end where our side
/// of the connection is over), it is tried again after so long.
const STUCK_NS: u64 = 1_000_000;
/// Changes of the address by DHCP that are logged: whoever plays the server decides how many there are.
const CHANGES_LOGGED: u32 = 64;

/// This domain on the bridge.
pub struct Endpoint {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    lease: Option<Lease>,
    changes: u32,
    has_news: bool,
    /// Who waits for a change of the address.
    waiting: Option<Waker>,
    server: HttpServer,
    source: Box<dyn StatusSource>,
    dialler: Dialler,
    /// There is something to do even if no frame came.
    touched: bool,
    /// When there is something to do by itself.
    due_ns: Option<u64>,
    /// Turns in a row in which something was sent that nobody asked for.
    unasked: u32,
}

impl Endpoint {
    /// A station behind `port`, which must have an address, or there is none. What it cannot let others guess it draws from
    /// the secret `seed`.
    #[must_use]
    pub fn new(
        port: Port,
        addressing: Addressing,
        source: Box<dyn StatusSource>,
        seed: u64,
        now_ns: u64,
    ) -> Option<Self> {
        let address = port.address().filter(|address| address.is_station())?;
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(address.0)));
        config.random_seed = seed;
        let mut wire = Wire::new(port);
        let interface = Interface::new(config, &mut wire, instant(now_ns));
        let mut sockets = SocketSet::new(alloc::vec::Vec::new());
        let server = HttpServer::new(&mut sockets);
        let dhcp = (addressing == Addressing::Dhcp).then(|| sockets.add(dhcpv4::Socket::new()));
        let mut this = Self {
            wire,
            interface,
            sockets,
            dhcp,
            lease: None,
            changes: 0,
            has_news: false,
            waiting: None,
            server,
            source,
            dialler: Dialler::new(seed),
            touched: true,
            due_ns: None,
            unasked: 0,
        };
        if let Addressing::Static(lease) = addressing {
            this.set_lease(Some(lease), "by the command line");
        }
        // Without an address, too: no guest is the DHCP server where there is a network outside.
        this.guard();
        Some(this)
    }

    /// Our address, if we have one now.
    #[cfg(test)]
    pub fn address(&self) -> Option<Lease> {
        self.lease
    }

    /// As when a lease is over.
    #[cfg(test)]
    pub fn lose_address(&mut self) {
        self.set_lease(None, "by the test");
    }

    /// Our address, when it has changed since this last told it. For one task.
    pub fn poll_news(&mut self, context: &Context<'_>) -> Poll<Option<Lease>> {
        if core::mem::take(&mut self.has_news) {
            return Poll::Ready(self.lease);
        }
        self.waiting = Some(context.waker().clone());
        Poll::Pending
    }

    /// Whether [`Self::poll`] has something to do whatever the time is.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.touched || self.wire.has_frames()
    }

    /// Whether the servers of all connections that were dropped have heard of it.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.dialler.has_left()
    }

    /// By when [`Self::poll`] is to be called even if no frame comes.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// Does what there is to do, a bounded amount. Returns whether that was anything.
    pub fn poll(&mut self, now_ns: u64) -> bool {
        if !self.has_work() && self.due_ns.is_none_or(|due_ns| now_ns < due_ns) {
            return false;
        }
        let now = instant(now_ns);
        let touched = core::mem::take(&mut self.touched);
        self.wire.set_time(now_ns);
        let received = self.receive(now);
        self.follow_dhcp();
        let served = self.server.serve(&mut self.sockets, &*self.source, now_ns);
        let sent = self.send(now);
        self.server.listen(&mut self.sockets);
        if self.dialler.clear_away(&mut self.sockets, now_ns) {
            self.guard();
        }
        let dialled = self.lease.is_some() && self.dialler.dial(&mut self.interface, &mut self.sockets);
        // What was begun may go on at once: a page that waits for its turn, the first segment to a server.
        self.touched = served || dialled;
        let asked = touched || received || served || dialled;
        self.unasked = if asked { 0 } else { self.unasked.saturating_add(sent.into()) };
        let done = received || served || sent || dialled;
        let of_stack = self.interface.poll_at(now, &self.sockets);
        let of_stack = of_stack.map(|at| u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000));
        let earliest_ns =
            if done && self.unasked < UNASKED_TURNS { 0 } else { now_ns.saturating_add(STUCK_NS) };
        let of_stack = of_stack.map(|due_ns| due_ns.max(earliest_ns));
        self.due_ns =
            [of_stack, self.server.deadline_ns(), self.dialler.deadline_ns()].into_iter().flatten().min();
        done
    }

    fn receive(&mut self, now: Instant) -> bool {
        for taken in 0..FRAMES_PER_TURN {
            let has_room = self.server.has_room(&self.sockets);
            self.wire.set_deaf_to((!has_room).then_some(http::PORT));
            let result = self.interface.poll_ingress_single(now, &mut self.wire, &mut self.sockets);
            if matches!(result, PollIngressSingleResult::None) {
                return taken > 0;
            }
        }
        true
    }

    fn send(&mut self, now: Instant) -> bool {
        let rounds = if self.unasked < UNASKED_TURNS { ROUNDS_PER_TURN } else { 1 };
        for round in 0..rounds {
            let result = self.interface.poll_egress(now, &mut self.wire, &mut self.sockets);
            if matches!(result, PollResult::None) {
                return round > 0;
            }
        }
        true
    }

    /// Takes what the DHCP server says.
    fn follow_dhcp(&mut self) {
        let Some(dhcp) = self.dhcp else { return };
        let socket = self.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp);
        let told = match socket.poll() {
            Some(dhcpv4::Event::Configured(config)) => {
                Some((config.server.address, config.address, config.router))
            }
            Some(dhcpv4::Event::Deconfigured) => None,
            None => return,
        };
        let lease = told.and_then(|(server, address, router)| {
            if !is_station(server) {
                // The lease would be renewed there: the stack panics at an address that nothing can be sent to.
                socket.reset();
                return None;
            }
            // A gateway that can be none is no reason to do without an address.
            Lease::checked(address, router).or_else(|| Lease::checked(address, None))
        });
        self.set_lease(lease, "by DHCP");
    }

    fn set_lease(&mut self, lease: Option<Lease>, origin: &str) {
        if lease == self.lease {
            return;
        }
        self.changes = self.changes.saturating_add(1);
        if self.changes <= CHANGES_LOGGED {
            match lease {
                Some(lease) => log::info!("endpoint: {lease}, {origin}"),
                None => log::warn!("endpoint: its address was lost"),
            }
        }
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            if let Some(lease) = lease {
                // There is room for one.
                let _ = addresses.push(IpCidr::Ipv4(lease.address));
            }
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = lease.and_then(|lease| lease.gateway) {
            // There is room for one.
            let _ = routes.add_default_ipv4_route(gateway);
        }
        self.lease = lease;
        self.has_news = true;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        self.rely();
    }

    /// There is somebody new on whom we rely: what was heard in that name before is forgotten.
    fn rely(&mut self) {
        self.guard();
        self.wire.forget();
        // Forgets all neighbours.
        self.interface.update_ip_addrs(|_| ());
    }

    /// Tells the bridge who we are, and on whom we rely: in these names nothing is to come from guests.
    fn guard(&self) {
        let gateway = self.lease.and_then(|lease| lease.gateway);
        self.wire.set_guard(Guard {
            own: self.lease.map(|lease| lease.address.address()),
            relied_on: gateway.into_iter().chain(self.dialler.servers()).collect(),
        });
    }
}

/// The time as the stack has it.
fn instant(now_ns: u64) -> Instant {
    Instant::from_micros(i64::try_from(now_ns / 1000).unwrap_or(i64::MAX))
}

#[cfg(test)]
pub(crate) mod bed;
#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
