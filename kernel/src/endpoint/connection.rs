//! Connections to servers, over the endpoint that all share.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::net::SocketAddrV4;

use drivers::connection::{Connection, ConnectionState};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration;
use smoltcp::wire::IpEndpoint;

use super::Endpoint;

/// Bytes of a connection's buffer for what comes: what may be under way to us.
const RECEIVE_BYTES: usize = 64 << 10;
/// Bytes of its buffer for what is sent.
const SEND_BYTES: usize = 64 << 10;
/// A server that is silent for so long is asked whether it is there ...
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// ... and given up when it has not answered anything for so long.
const TIMEOUT: Duration = Duration::from_secs(8);
/// In how much time a server must have taken the last that is sent to it.
const LEAVING_NS: u64 = 8_000_000_000;
/// First of the ports that are ours to choose from (RFC 6335, 6), and how many there are.
const FIRST_PORT: u16 = 49152;
const PORTS: u16 = 16384;

/// Who connects: as soon as there is an address to connect from.
pub struct Dialler {
    /// Of sockets that are to be connected, the servers.
    waiting: Vec<(SocketHandle, SocketAddrV4)>,
    /// Of sockets whose connections were dropped, until when they may stay to send the last: set at the first look at them.
    leaving: Vec<(SocketHandle, Option<u64>)>,
    /// Sockets of connections; in the other lists there is room for all of them.
    sockets: Vec<SocketHandle>,
    random: u64,
}

impl Dialler {
    /// Nothing to connect yet. Ports are drawn from the secret `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { waiting: Vec::new(), leaving: Vec::new(), sockets: Vec::new(), random: seed }
    }

    /// Begins to connect all that wait for it. Returns whether there were any. To be called when we have an address.
    pub fn dial(&mut self, interface: &mut Interface, sockets: &mut SocketSet<'static>) -> bool {
        let waiting = core::mem::take(&mut self.waiting);
        for (handle, server) in &waiting {
            let port = self.unused_port(sockets);
            let socket = sockets.get_mut::<Socket<'_>>(*handle);
            // What was left of an earlier connection.
            socket.abort();
            let remote = IpEndpoint::from(*server);
            if let Err(error) = socket.connect(interface.context(), remote, port) {
                // Tried again and again by who wants it, and told there.
                log::debug!("endpoint: no connection to {server}: {error}");
            }
        }
        let dialled = !waiting.is_empty();
        self.waiting = waiting;
        self.waiting.clear();
        dialled
    }

    /// Removes the sockets of dropped connections that have sent all, or had their time. To be called when what there was to
    /// send is sent.
    pub fn clear_away(&mut self, sockets: &mut SocketSet<'static>, now_ns: u64) {
        self.leaving.retain_mut(|(handle, until_ns)| {
            let until_ns = *until_ns.get_or_insert(now_ns.saturating_add(LEAVING_NS));
            // Else our end of the connection was not acknowledged. What the server sends from then on is answered by a reset.
            let has_left = matches!(
                sockets.get::<Socket<'_>>(*handle).state(),
                State::FinWait2 | State::TimeWait | State::Closed
            );
            let is_over = has_left || now_ns >= until_ns;
            if is_over {
                sockets.remove(*handle);
                self.sockets.retain(|socket| socket != handle);
            }
            !is_over
        });
    }

    /// Whether no socket of a dropped connection is left.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.leaving.is_empty()
    }

    /// When the time of a dropped connection is over.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.leaving.iter().filter_map(|(_, until_ns)| *until_ns).min()
    }

    fn cancel(&mut self, handle: SocketHandle) {
        self.waiting.retain(|(waiting, _)| *waiting != handle);
    }

    /// A port that none of our connections has. There are more ports than sockets could fit in our RAM.
    fn unused_port(&mut self, sockets: &SocketSet<'static>) -> u16 {
        loop {
            let port = FIRST_PORT + (self.random() % u64::from(PORTS)) as u16;
            let is_used = |handle: &SocketHandle| {
                let endpoint = sockets.get::<Socket<'_>>(*handle).local_endpoint();
                endpoint.is_some_and(|endpoint| endpoint.port == port)
            };
            if !self.sockets.iter().any(is_used) {
                return port;
            }
        }
    }

    /// `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// A connection to a server over our endpoint. When it is dropped, its socket stays until the server has all that was sent,
/// and knows that it is the end: some serve nobody else before.
pub struct EndpointConnection {
    endpoint: Rc<RefCell<Endpoint>>,
    socket: SocketHandle,
    server: SocketAddrV4,
}

impl EndpointConnection {
    /// A connection to `server` that is still closed; none when there is no memory for its buffers.
    #[must_use]
    pub fn new(endpoint: &Rc<RefCell<Endpoint>>, server: SocketAddrV4) -> Option<Self> {
        let mut this = endpoint.borrow_mut();
        let (receive, send) = (zeroed(RECEIVE_BYTES)?, zeroed(SEND_BYTES)?);
        if crate::mm::heap_is_low() {
            return None;
        }
        let mut socket = Socket::new(SocketBuffer::new(receive), SocketBuffer::new(send));
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(TIMEOUT));
        let known = this.dialler.sockets.len();
        this.dialler.sockets.try_reserve(1).ok()?;
        this.dialler.waiting.try_reserve(known + 1).ok()?;
        this.dialler.leaving.try_reserve(known + 1).ok()?;
        let socket = this.sockets.add(socket);
        this.dialler.sockets.push(socket);
        drop(this);
        Some(Self { endpoint: endpoint.clone(), socket, server })
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut Socket<'static>) -> R) -> R {
        use_it(self.endpoint.borrow_mut().sockets.get_mut(self.socket))
    }

    /// From now on the endpoint has something to send.
    fn touch(&self) {
        self.endpoint.borrow_mut().touched = true;
    }
}

impl Connection for EndpointConnection {
    fn open(&mut self) {
        self.close();
        self.endpoint.borrow_mut().dialler.waiting.push((self.socket, self.server));
    }

    fn close(&mut self) {
        self.with(Socket::abort);
        self.endpoint.borrow_mut().dialler.cancel(self.socket);
        self.touch();
    }

    fn state(&self) -> ConnectionState {
        if self.endpoint.borrow().dialler.waiting.iter().any(|(waiting, _)| *waiting == self.socket) {
            return ConnectionState::Opening;
        }
        self.with(|socket| match socket.state() {
            State::SynSent | State::SynReceived => ConnectionState::Opening,
            State::Established => ConnectionState::Open,
            // The server has ended its side: open until all that it sent is received.
            State::CloseWait if socket.can_recv() => ConnectionState::Open,
            _ => ConnectionState::Closed,
        })
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let sent = self.with(|socket| socket.send_slice(bytes).unwrap_or(0));
        if sent > 0 {
            self.touch();
        }
        sent
    }

    fn receive(&mut self, bytes: &mut [u8]) -> usize {
        let received = self.with(|socket| socket.recv_slice(bytes).unwrap_or(0));
        if received > 0 {
            // The server may have waited for the room.
            self.touch();
        }
        received
    }
}

impl Drop for EndpointConnection {
    fn drop(&mut self) {
        self.with(Socket::close);
        let mut endpoint = self.endpoint.borrow_mut();
        endpoint.dialler.cancel(self.socket);
        endpoint.dialler.leaving.push((self.socket, None));
        endpoint.touched = true;
    }
}

fn zeroed(bytes: usize) -> Option<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).ok()?;
    buffer.resize(bytes, 0);
    Some(buffer)
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
