//! Text out through the PV console, without ever waiting for who reads it.
//!
//! What does not fit the shared ring is kept in a small backlog; what does not fit that is counted, and the count
//! written in its place once there is room. Input is ignored: a full input ring harms nobody.
//!
//! Layout: `struct xencons_interface` in xen/include/public/io/console.h, in the page that the parameter
//! CONSOLE_PFN of HVMOP_get_param names. Neighbours: [`super::store::byte_ring`] moves the bytes; the log sink and the
//! panic handler write. Nothing here logs: it would come back here. An index that lies looks like a full ring.

use super::store::byte_ring::ByteRing;
use core::fmt::{self, Write};
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32};

const INPUT_BYTES: usize = 1024;
const OUTPUT_BYTES: usize = 2048;
/// Kept for a slow reader.
const BACKLOG_BYTES: usize = 4096;
/// More than the note about lost bytes can take.
const NOTE_BYTES: usize = 64;

/// `struct xencons_interface` (console.h); the rest of its page is unused.
#[repr(C)]
pub struct ConsolePage {
    input: [AtomicU8; INPUT_BYTES],
    output: [AtomicU8; OUTPUT_BYTES],
    input_consumer: AtomicU32,
    input_producer: AtomicU32,
    output_consumer: AtomicU32,
    output_producer: AtomicU32,
}

const _: () = {
    assert!(offset_of!(ConsolePage, output) == 1024);
    assert!(offset_of!(ConsolePage, input_consumer) == 3072);
    assert!(offset_of!(ConsolePage, input_producer) == 3076);
    assert!(offset_of!(ConsolePage, output_consumer) == 3080);
    assert!(offset_of!(ConsolePage, output_producer) == 3084);
    assert!(size_of::<ConsolePage>() == 3088);
};

/// The writing end. `notify` sends an event on the console's channel (CONSOLE_EVTCHN).
///
/// As [`fmt::Write`] it puts a carriage return before each line feed, which `xl console` needs; [`Self::write`] takes
/// bytes as they are. The position in the ring is kept in the page alone, so a panic handler that cannot get
/// hold of the writer may make a second one; only the first one's backlog is out of its reach.
pub struct ConsoleRing<Notify: Fn()> {
    page: &'static ConsolePage,
    notify: Notify,
    backlog: Backlog,
    /// Bytes that found no place since the last note about it.
    lost_bytes: u64,
}

impl<Notify: Fn()> ConsoleRing<Notify> {
    /// The console in `page`.
    ///
    /// # Safety
    /// `page` is a 4 KiB page of this domain's RAM, mapped at that address as normal write-back memory for the
    /// rest of the program's life, and touched by nothing in this program but console rings.
    pub unsafe fn at(page: NonNull<u8>, notify: Notify) -> Self {
        // SAFETY: the caller promises a mapped page, so aligned and long enough for a `ConsolePage`, for 'static.
        // The type has only atomics, for which any bits are valid and which others may change at any time.
        Self::new(unsafe { page.cast::<ConsolePage>().as_ref() }, notify)
    }

    /// The console in `page`.
    pub const fn new(page: &'static ConsolePage, notify: Notify) -> Self {
        Self { page, notify, backlog: Backlog::EMPTY, lost_bytes: 0 }
    }

    /// Writes bytes as they are: to the ring, or to the backlog, or nowhere, but never waits.
    pub fn write(&mut self, bytes: &[u8]) {
        let moved = self.flush() | self.put(bytes);
        self.notify_if(moved);
    }

    /// Moves on what is kept. To be called when the console's event channel fires.
    pub fn pump(&mut self) {
        let moved = self.flush();
        self.notify_if(moved);
    }

    /// Writes bytes as they are, and waits for room for them, `spins` rounds at most in all. For the panic
    /// handler. Returns the rounds left; at 0 the rest is kept or lost as with [`Self::write`].
    pub fn write_blocking_bounded(&mut self, bytes: &[u8], spins: u32) -> u32 {
        let mut left = spins;
        let mut rest = bytes;
        loop {
            let mut moved = self.flush();
            if self.backlog.is_empty() {
                let count = self.produce(rest);
                moved |= count > 0;
                rest = rest.get(count..).unwrap_or_default();
            }
            self.notify_if(moved);
            if rest.is_empty() && self.backlog.is_empty() && self.lost_bytes == 0 {
                return left;
            }
            if left == 0 {
                let moved = self.put(rest);
                self.notify_if(moved);
                return 0;
            }
            left -= 1;
            core::hint::spin_loop();
        }
    }

    /// To the ring if nothing is before it, else to the backlog; whether the ring changed.
    fn put(&mut self, bytes: &[u8]) -> bool {
        let sent = if self.backlog.is_empty() { self.produce(bytes) } else { 0 };
        let rest = bytes.get(sent..).unwrap_or_default();
        // Once bytes are lost, so is what follows, until the note stands between.
        let kept = if self.lost_bytes == 0 { self.backlog.push(rest) } else { 0 };
        self.lost_bytes += rest.len().saturating_sub(kept) as u64;
        sent > 0
    }

    /// Moves the backlog to the ring, with a note behind it when bytes were lost; whether the ring changed.
    fn flush(&mut self) -> bool {
        let mut moved = self.flush_backlog();
        if self.lost_bytes > 0 && self.backlog.room() >= BACKLOG_BYTES / 2 + NOTE_BYTES {
            let lost_bytes = core::mem::take(&mut self.lost_bytes);
            // Cannot fail: the room was looked at.
            let _ = write!(self.backlog, "\r\n[{lost_bytes} bytes lost]\r\n");
            moved |= self.flush_backlog();
        }
        moved
    }

    fn flush_backlog(&mut self) -> bool {
        let mut moved = false;
        while !self.backlog.is_empty() {
            let count = self.produce(self.backlog.front());
            if count == 0 {
                break;
            }
            self.backlog.drop_front(count);
            moved = true;
        }
        moved
    }

    fn produce(&self, bytes: &[u8]) -> usize {
        let page = self.page;
        ByteRing::new(&page.output, &page.output_consumer, &page.output_producer).produce(bytes).unwrap_or(0)
    }

    fn notify_if(&self, moved: bool) {
        if moved {
            (self.notify)();
        }
    }
}

impl<Notify: Fn()> Write for ConsoleRing<Notify> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut moved = self.flush();
        each_piece(text, |piece| moved |= self.put(piece));
        self.notify_if(moved);
        Ok(())
    }
}

/// Gives `take` the text with a carriage return before each line feed.
fn each_piece(text: &str, mut take: impl FnMut(&[u8])) {
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => {
                take(line.as_bytes());
                take(b"\r\n");
            }
            None => take(line.as_bytes()),
        }
    }
}

/// A queue of bytes in place: there may be no heap yet, or no more.
struct Backlog {
    bytes: [u8; BACKLOG_BYTES],
    start: usize,
    length: usize,
}

impl Backlog {
    const EMPTY: Self = Self { bytes: [0; BACKLOG_BYTES], start: 0, length: 0 };

    fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn room(&self) -> usize {
        BACKLOG_BYTES - self.length
    }

    /// Takes what fits, and returns how much that was.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        for &byte in bytes.iter().take(count) {
            if let Some(place) = self.bytes.get_mut((self.start + self.length) % BACKLOG_BYTES) {
                *place = byte;
            }
            self.length += 1;
        }
        count
    }

    /// The oldest bytes, as far as they lie in one piece.
    fn front(&self) -> &[u8] {
        let end = (self.start + self.length).min(BACKLOG_BYTES);
        self.bytes.get(self.start..end).unwrap_or_default()
    }

    fn drop_front(&mut self, count: usize) {
        self.start = (self.start + count) % BACKLOG_BYTES;
        self.length = self.length.saturating_sub(count);
    }
}

impl Write for Backlog {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.push(text.as_bytes()) == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
#[path = "console_ring_tests.rs"]
mod tests;
