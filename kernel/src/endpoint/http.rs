//! The HTTP server: a few sockets, each for one request at a time, and a time limit for everything a client does.
//!
//! ```text
//!   listening ── SYN ──> head awaited ── head complete ──> reply sent in portions ── close ──> client's end awaited ──> listening
//!                          └ 10 s, or 3 s without an ACK ──────└ 30 s in all ──────────────────└──> aborted ──> listening
//! ```
//! Who comes when no socket listens is not refused but not heard ([`super::phy`]), and asks again by itself. The head is
//! judged where it lies, in the socket's buffer; a client's bytes after it are thrown away. A reply is on the heap once, and
//! no more than `PAGES_MAX` of them are.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::request::{self, HEAD_BYTES_MAX, Refusal, Resource, Wish};
use super::status::{Status, StatusSource};
use super::{metrics, page};

/// Where it listens.
pub const PORT: u16 = 80;
/// Clients at a time.
const SOCKETS: usize = 4;
/// Bytes of a socket's buffer for what is sent.
const SEND_BYTES: usize = 4096;
/// Pages and metrics in memory at a time. A client waits for its turn as long as it has time.
const PAGES_MAX: usize = 2;
/// Most bytes of one.
const PAGE_BYTES_MAX: usize = 64 << 10;

const SECOND_NS: u64 = 1_000_000_000;
/// For the handshake: who forges addresses never completes it.
const HANDSHAKE_NS: u64 = 3 * SECOND_NS;
/// For the head of the request, from the first segment on.
const HEAD_NS: u64 = 10 * SECOND_NS;
/// For all.
const VISIT_NS: u64 = 30 * SECOND_NS;

/// The server.
pub struct HttpServer {
    slots: [Slot; SOCKETS],
}

struct Slot {
    socket: SocketHandle,
    visit: Option<Visit>,
}

/// A client at a socket.
struct Visit {
    begun_ns: u64,
    is_connected: bool,
    reply: Option<Reply>,
}

/// An answer, and how much of it the socket has taken.
struct Reply {
    bytes: Vec<u8>,
    sent: usize,
    is_page: bool,
}

impl Visit {
    fn deadline_ns(&self) -> u64 {
        let limit_ns = match (self.is_connected, &self.reply) {
            (false, _) => HANDSHAKE_NS,
            (true, None) => HEAD_NS,
            (true, Some(_)) => VISIT_NS,
        };
        self.begun_ns.saturating_add(limit_ns)
    }
}

impl HttpServer {
    /// A server that listens.
    #[must_use]
    pub fn new(sockets: &mut SocketSet<'static>) -> Self {
        let slots = core::array::from_fn(|_| {
            let received = SocketBuffer::new(alloc::vec![0; HEAD_BYTES_MAX]);
            let sent = SocketBuffer::new(alloc::vec![0; SEND_BYTES]);
            Slot { socket: sockets.add(Socket::new(received, sent)), visit: None }
        });
        let server = Self { slots };
        server.listen(sockets);
        server
    }

    /// Whether a socket is left for a new client.
    #[must_use]
    pub fn has_room(&self, sockets: &SocketSet<'static>) -> bool {
        self.slots.iter().any(|slot| sockets.get::<Socket<'_>>(slot.socket).state() == State::Listen)
    }

    /// Lets sockets that are done with their clients listen again. To be called when what they had to send is sent.
    pub fn listen(&self, sockets: &mut SocketSet<'static>) {
        for slot in &self.slots {
            let socket = sockets.get_mut::<Socket<'_>>(slot.socket);
            if socket.state() == State::Closed {
                // Cannot fail: it is closed, and the port is not 0.
                let _ = socket.listen(PORT);
            }
        }
    }

    /// When a client's time is over.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.slots.iter().filter_map(|slot| slot.visit.as_ref()).map(Visit::deadline_ns).min()
    }

    /// Does for each client what can be done now. Returns whether that was anything.
    pub fn serve(
        &mut self,
        sockets: &mut SocketSet<'static>,
        source: &dyn StatusSource,
        now_ns: u64,
    ) -> bool {
        let is_page = |slot: &&Slot| {
            slot.visit.as_ref().and_then(|visit| visit.reply.as_ref()).is_some_and(|reply| reply.is_page)
        };
        let mut pages_left = PAGES_MAX.saturating_sub(self.slots.iter().filter(is_page).count());
        self.slots.iter_mut().fold(false, |done, slot| {
            slot.serve(sockets.get_mut(slot.socket), source, &mut pages_left, now_ns) | done
        })
    }
}

impl Slot {
    fn serve(
        &mut self,
        socket: &mut Socket<'static>,
        source: &dyn StatusSource,
        pages_left: &mut usize,
        now_ns: u64,
    ) -> bool {
        match socket.state() {
            State::Listen | State::Closed => return self.visit.take().is_some(),
            // Both sides have said that they are done. Who comes next should not wait for stray segments of theirs.
            State::TimeWait => {
                socket.abort();
                let _ = socket.listen(PORT);
                self.visit = None;
                return true;
            }
            _ => {}
        }
        let visit = self.visit.get_or_insert(Visit { begun_ns: now_ns, is_connected: false, reply: None });
        visit.is_connected |= socket.state() != State::SynReceived;
        if visit.deadline_ns() <= now_ns {
            socket.abort();
            self.visit = None;
            return true;
        }
        match &mut visit.reply {
            None if visit.is_connected => {
                visit.reply = answer(socket, source, pages_left);
                visit.reply.is_some() || socket.state() == State::Closed
            }
            None => false,
            Some(reply) => reply.send(socket),
        }
    }
}

impl Reply {
    /// Sends what there is room for, and ends our side after the last byte. Returns whether that was anything.
    fn send(&mut self, socket: &mut Socket<'static>) -> bool {
        // A client with more to say is not to be told by a reset, which could take the reply from it.
        let heard = socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap_or(0);
        if self.bytes.is_empty() {
            return heard > 0;
        }
        let left = self.bytes.get(self.sent..).unwrap_or_default();
        let sent = socket.send_slice(left).unwrap_or(left.len());
        self.sent += sent;
        if self.sent == self.bytes.len() {
            socket.close();
            self.bytes = Vec::new();
            self.is_page = false;
        }
        heard + sent > 0
    }
}

/// The answer to what a client has sent so far; none when more has to come, when it is not its turn, or when it will not say
/// more, which ends the connection.
fn answer(socket: &mut Socket<'static>, source: &dyn StatusSource, pages_left: &mut usize) -> Option<Reply> {
    let head = socket.peek(HEAD_BYTES_MAX).unwrap_or_default();
    let wish = request::read(head, head.len() == HEAD_BYTES_MAX);
    let Some(wish) = wish else {
        if !matches!(socket.state(), State::Established) {
            socket.abort();
        }
        return None;
    };
    let Ok(resource) = wish.about else { return reply(wish, None) };
    *pages_left = pages_left.checked_sub(1)?;
    let status = if crate::mm::heap_is_low() { None } else { source.status().ok() };
    let page = status.and_then(|status| reply(wish, Some((resource, &status))));
    // Many pages at a time, which clients are slow to take, must not take what the kernel itself may need.
    page.filter(|_| !crate::mm::heap_is_low()).or_else(|| reply(Refusal::Unavailable.into(), None))
}

/// Pages load nothing, and run nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Writes an answer. None if there is no memory for it.
fn reply(wish: Wish, page: Option<(Resource, &Status)>) -> Option<Reply> {
    let (line, kind, more) = describe(wish.about);
    let body = |out: &mut dyn Write| match page {
        Some((Resource::Page, status)) => page::write(status, out),
        Some((Resource::Metrics, status)) => metrics::write(status, out),
        None => writeln!(out, "{line}"),
    };
    let mut body_bytes = Length(0);
    body(&mut body_bytes).ok()?;
    let head = |out: &mut dyn Write| {
        write!(
            out,
            "HTTP/1.1 {line}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Security-Policy: {POLICY}\r\n{more}\r\n",
            body_bytes.0,
        )
    };
    let mut bytes = Length(0);
    head(&mut bytes).ok()?;
    if !wish.head_only {
        bytes.0 += body_bytes.0;
    }
    let mut text = Text(Vec::new());
    (bytes.0 <= PAGE_BYTES_MAX).then(|| text.0.try_reserve_exact(bytes.0).ok())??;
    head(&mut text).ok()?;
    if !wish.head_only {
        body(&mut text).ok()?;
    }
    Some(Reply { bytes: text.0, sent: 0, is_page: page.is_some() })
}

/// Status line, type of the body, and header fields that come on top (RFC 9110, 15).
fn describe(about: Result<Resource, Refusal>) -> (&'static str, &'static str, &'static str) {
    const PLAIN: &str = "text/plain; charset=utf-8";
    match about {
        Ok(Resource::Page) => ("200 OK", "text/html; charset=utf-8", ""),
        Ok(Resource::Metrics) => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", ""),
        Err(Refusal::Malformed) => ("400 Bad Request", PLAIN, ""),
        Err(Refusal::NotFound) => ("404 Not Found", PLAIN, ""),
        Err(Refusal::NotAllowed) => ("405 Method Not Allowed", PLAIN, "Allow: GET, HEAD\r\n"),
        Err(Refusal::TargetTooLong) => ("414 URI Too Long", PLAIN, ""),
        Err(Refusal::HeadTooLarge) => ("431 Request Header Fields Too Large", PLAIN, ""),
        Err(Refusal::Unavailable) => ("503 Service Unavailable", PLAIN, "Retry-After: 5\r\n"),
    }
}

/// How long a text is.
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// A text in the room that was made for it.
struct Text(Vec<u8>);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.0.capacity() - self.0.len() {
            return Err(fmt::Error);
        }
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
