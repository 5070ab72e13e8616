//! `log` onto the PV console ring, and a way to speak when all else fails.
//!
//! Before the ring is there, and in an emergency, lines also go out by CONSOLEIO_write, which a debug build of Xen
//! (or its FLASK policy) lets through.

use core::fmt::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};

use crate::arch::single_core::SingleCore;
use crate::xen::abi::number;
use crate::xen::console_ring::ConsoleRing;
use crate::xen::event::{self, Port};
use crate::xen::hypercall::call;

/// Turns of the wait for room in the ring before an emergency message is given up.
const EMERGENCY_PATIENCE: u32 = 1_000_000;
/// Longest line, its end included.
const LINE_BYTES: usize = 320;
const NS_PER_US: u64 = 1000;
const US_PER_S: u64 = 1_000_000;

type Notify = fn();

struct Logger;

static LOGGER: Logger = Logger;
static RING: SingleCore<Option<ConsoleRing<Notify>>> = SingleCore::new(None);
static PORT: SingleCore<Option<Port>> = SingleCore::new(None);

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let now_us = crate::arch::timer::now_ns() / NS_PER_US;
        let (seconds, fraction) = (now_us / US_PER_S, now_us % US_PER_S);
        let mut line = Line::default();
        let text = record.args();
        let _ = write!(line, "[{seconds:5}.{fraction:06}] {:5} {text}", record.level());
        match RING.try_borrow().as_deref_mut() {
            Some(Some(ring)) => ring.write(line.finish(b"\r\n")),
            _ => XenConsole::write(line.finish(b"\n")),
        }
    }

    fn flush(&self) {}
}

/// One line, put together before it goes out: each write to the ring is a hypercall. What is too long is cut.
struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; LINE_BYTES], length: 0 }
    }
}

impl Line {
    fn finish(&mut self, ending: &[u8]) -> &[u8] {
        self.length = self.length.min(LINE_BYTES - ending.len());
        self.append(ending);
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }

    fn append(&mut self, text: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.length).zip(text) {
            *place = *byte;
            self.length += 1;
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes());
        Ok(())
    }
}

/// CONSOLEIO_write: the hypervisor's own console, line by line with our domain number in front.
struct XenConsole;

impl XenConsole {
    fn write(text: &[u8]) {
        const CONSOLEIO_WRITE: u64 = 0;
        let address = text.as_ptr().expose_provenance() as u64;
        let arguments = [CONSOLEIO_WRITE, text.len() as u64, address, 0, 0];
        // SAFETY: CONSOLEIO_write reads `len` bytes of `text` (xen.h). A refusal has nowhere to be reported.
        let _ = unsafe { call(number::CONSOLE_IO, arguments, "write to Xen's console") };
    }
}

/// Starts logging, to Xen's console until [`attach`].
pub fn init() {
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}

/// Sends lines to the console ring from now on.
pub fn attach(ring: impl FnOnce(Notify) -> ConsoleRing<Notify>, port: Port) {
    if let (Some(mut slot), Some(mut slot_port)) = (RING.try_borrow(), PORT.try_borrow()) {
        *slot_port = Some(port);
        *slot = Some(ring(notify));
    }
}

fn notify() {
    if let Some(Some(port)) = PORT.try_borrow().as_deref() {
        event::send(*port);
    }
}

/// Writes out what did not fit so far: to be called when the console's event comes.
pub fn pump() {
    if let Some(Some(ring)) = RING.try_borrow().as_deref_mut() {
        ring.pump();
    }
}

/// Writes at once, waiting a bounded time for room: for the last words of a kernel.
pub fn emergency(text: fmt::Arguments<'_>) {
    let mut line = Line::default();
    let _ = line.write_fmt(text);
    let bytes = line.finish(b"\r\n");
    XenConsole::write(bytes);
    if let Some(Some(ring)) = RING.try_borrow().as_deref_mut() {
        ring.write_blocking_bounded(bytes, EMERGENCY_PATIENCE);
    }
}
