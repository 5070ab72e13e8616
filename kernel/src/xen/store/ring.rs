//! The page that xenstored and this domain share, as a pair of byte rings.
//!
//! Layout and meaning: `struct xenstore_domain_interface` in xen/include/public/io/xs_wire.h and
//! docs/misc/xenstore-ring.txt. Neighbours: [`super::byte_ring`] moves the bytes, `client` makes
//! messages of them.
//!
//! The only unsafe code of the client is here: believing that an address is that page.

use super::byte_ring::{BadIndex, ByteRing};
use crate::arch::whole::Whole;
use crate::restart::words::Word;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Bytes each way (XENSTORE_RING_SIZE).
pub const RING_BYTES: usize = 1024;

/// Longest message, its header included (XENSTORE_PAYLOAD_MAX and `struct xsd_sockmsg`).
const MESSAGE_BYTES_MAX: usize = 4096 + 16;

/// Bytes of a message's header.
const HEADER_BYTES: usize = 16;

/// `connection`: the server has not (yet, or again) taken up this ring (XENSTORE_RECONNECT).
const RECONNECT: u32 = 1;
/// `server_features`: the server tells in `error` why it gave up (XENSTORE_SERVER_FEATURE_ERROR).
const FEATURE_ERROR: u32 = 1 << 1;

/// `struct xenstore_domain_interface` (xs_wire.h); the rest of its page is unused.
#[repr(C)]
pub struct RingPage {
    pub(super) requests: [AtomicU8; RING_BYTES],
    pub(super) replies: [AtomicU8; RING_BYTES],
    pub(super) request_consumer: AtomicU32,
    pub(super) request_producer: AtomicU32,
    pub(super) reply_consumer: AtomicU32,
    pub(super) reply_producer: AtomicU32,
    pub(super) server_features: AtomicU32,
    pub(super) connection: AtomicU32,
    pub(super) error: AtomicU32,
}

const _: () = {
    assert!(offset_of!(RingPage, replies) == 1024);
    assert!(offset_of!(RingPage, request_consumer) == 2048);
    assert!(offset_of!(RingPage, request_producer) == 2052);
    assert!(offset_of!(RingPage, reply_consumer) == 2056);
    assert!(offset_of!(RingPage, reply_producer) == 2060);
    assert!(offset_of!(RingPage, server_features) == 2064);
    assert!(offset_of!(RingPage, connection) == 2068);
    assert!(offset_of!(RingPage, error) == 2072);
    assert!(size_of::<RingPage>() == 2076);
};

/// What the page says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It serves the ring.
    Ready,
    /// It has not connected yet (a domain made by Xen itself, "dom0less") or is reconnecting: wait, send nothing.
    Absent,
    /// It gave the ring up, with this XENSTORE_ERROR_ number (1 communication, 2 indices, 3 protocol).
    Failed(u32),
}

/// This domain's end of the ring.
pub struct Ring {
    page: &'static RingPage,
    /// The producer index at which the latest request ends, for the next life of this kernel.
    note: Option<&'static Word>,
}

impl Ring {
    /// The ring at `page`, the frame that the parameter STORE_PFN of HVMOP_get_param names.
    ///
    /// # Safety
    /// `page` is a 4 KiB page of this domain's RAM, mapped at that address as normal write-back memory for the
    /// rest of the program's life, and touched by nothing else in this program.
    #[must_use]
    pub unsafe fn at(page: NonNull<u8>) -> Self {
        // SAFETY: the caller promises a mapped page, so aligned and long enough for a `RingPage`, for 'static. The
        // type has only atomics, for which any bits are valid and which others may change at any time.
        Self::new(unsafe { page.cast::<RingPage>().as_ref() })
    }

    /// The ring in `page`.
    #[must_use]
    pub fn new(page: &'static RingPage) -> Self {
        Self { page, note: None }
    }

    /// The same, with the end of the latest request noted in `note`, as an earlier life of this kernel may have done.
    #[must_use]
    pub fn noted_in(mut self, note: &'static Word) -> Self {
        self.note = Some(note);
        self
    }

    /// Moves the first part of a request to the server, at least its header, and notes where it will end; or nothing.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn begin_request(&mut self, bytes: &[u8]) -> Result<usize, BadIndex> {
        // What was sent and what is noted go together.
        let _whole = Whole::begin();
        let start = self.page.request_producer.load(Ordering::Relaxed);
        let used = start.wrapping_sub(self.page.request_consumer.load(Ordering::Relaxed)) as usize;
        if RING_BYTES.saturating_sub(used) < HEADER_BYTES.min(bytes.len()) {
            // A header that is cut in two could not be completed by anybody else.
            return self.send(&[]);
        }
        let count = self.send(bytes)?;
        self.note.inspect(|note| note.set(start.wrapping_add(bytes.len() as u32).into()));
        Ok(count)
    }

    /// Bytes of an earlier life's last request that the server still waits for, and a number that it has not used; none when
    /// nobody was here before.
    #[must_use]
    pub fn left_over(&self) -> Option<(usize, u32)> {
        let end = self.note?.get()? as u32;
        let left = end.wrapping_sub(self.page.request_producer.load(Ordering::Relaxed)) as usize;
        // A request is never longer; an end that was passed is far away.
        // Each life sends something, so the next one's is another.
        Some((if left <= MESSAGE_BYTES_MAX { left } else { 0 }, end.wrapping_mul(0x9e37_79b1)))
    }

    /// Whether the server is there. Sending to one that is not is lost effort.
    #[must_use]
    pub fn server_state(&self) -> ServerState {
        let error = self.page.error.load(Ordering::Relaxed);
        if error != 0 && self.page.server_features.load(Ordering::Relaxed) & FEATURE_ERROR != 0 {
            return ServerState::Failed(error);
        }
        if self.page.connection.load(Ordering::Acquire) == RECONNECT {
            return ServerState::Absent;
        }
        ServerState::Ready
    }

    /// Moves what fits of `bytes` to the server. Notify it when the result is not 0.
    ///
    /// # Errors
    /// [`BadIndex`]: the server's index lies.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, BadIndex> {
        let page = self.page;
        ByteRing::new(&page.requests, &page.request_consumer, &page.request_producer).produce(bytes)
    }

    /// Takes what has come from the server. Notify it when the result is not 0: it may wait for room.
    ///
    /// # Errors
    /// [`BadIndex`]: the server's index lies.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, BadIndex> {
        self.incoming().consume(buffer)
    }

    /// Drops what was sent to whoever used the ring before us, and returns how many bytes it was.
    pub fn discard_stale(&mut self) -> u32 {
        self.incoming().discard()
    }

    fn incoming(&self) -> ByteRing<'static, RING_BYTES> {
        ByteRing::new(&self.page.replies, &self.page.reply_consumer, &self.page.reply_producer)
    }
}
