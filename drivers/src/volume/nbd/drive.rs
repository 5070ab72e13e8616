//! An export as a drive: commands go out in the order in which they were submitted, replies come in any.
//!
//! ```text
//!   submit ──> to be sent ──> at the server ── reply ──> finished
//!                  └── the connection breaks ──> to be sent again; or, if it is forgotten, finished
//! ```
//! The server is the outside: whatever does not fit what we know of our commands ends the connection.

use super::export::Export;
use super::link::Link;
use super::wire::{REQUEST_MAGIC, Request, SIMPLE_REPLY_MAGIC, SimpleReply, command, error};
use super::{NbdError, SILENCE_NS};
use crate::block::{Operation, SECTOR_BYTES};
use crate::connection::ConnectionState;
use crate::drive::{Drive, DriveError, DriveFacts, Finished, LinkStatus};
use crate::volume::ram::Storage;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a slot's buffer, at most.
pub const BUFFER_BYTES: u32 = 64 << 10;
/// How often at most it is looked for more bytes in one go.
const RECEIVES_MAX: usize = 64;
/// Bits of a cookie that are the slot; the others count.
const SLOT_BITS: u32 = 16;

/// A command in a slot.
#[derive(Clone, Copy)]
struct Command {
    cookie: u64,
    operation: Operation,
    /// All of it was sent on the connection that there is.
    is_sent: bool,
    /// Nobody waits for it any more.
    is_forgotten: bool,
    /// Of a flush: the writes that were answered before it.
    covers: u64,
}

/// What is coming from the server.
enum Incoming {
    Reply { bytes: [u8; size_of::<SimpleReply>()], came: usize },
    Data { slot: u16, came: usize, length: usize },
}

const NOTHING: Incoming = Incoming::Reply { bytes: [0; _], came: 0 };

/// A drive over a [`Link`].
pub struct NbdDrive {
    link: Link,
    export: Export,
    facts: DriveFacts,
    buffers: Box<dyn Storage>,
    slots: Vec<Option<Command>>,
    to_send: VecDeque<u16>,
    /// Bytes of the first of them that were sent.
    sent: usize,
    incoming: Incoming,
    finished: VecDeque<Finished>,
    /// Commands submitted so far.
    commands: u64,
    now_ns: u64,
    /// When the server last said something, or had nothing to say.
    heard_ns: u64,
    /// Writes that were answered, and how many of them are durable.
    answered_writes: u64,
    durable_writes: u64,
    is_broken: bool,
}

impl NbdDrive {
    /// The drive that `export` is, over the link that has just come up. `buffers` are divided among as many slots as fit.
    #[must_use]
    pub fn new(mut link: Link, export: Export, buffers: Box<dyn Storage>) -> Self {
        // It has shown the export.
        link.works();
        let buffer_bytes = export.facts(0, BUFFER_BYTES).buffer_bytes;
        let slots = buffers.bytes().len() / (buffer_bytes as usize).max(1);
        let slots = u16::try_from(slots).unwrap_or(u16::MAX);
        Self {
            link,
            export,
            facts: export.facts(slots, BUFFER_BYTES),
            buffers,
            slots: alloc::vec![None; slots.into()],
            to_send: VecDeque::with_capacity(slots.into()),
            sent: 0,
            incoming: NOTHING,
            finished: VecDeque::with_capacity(slots.into()),
            commands: 0,
            now_ns: 0,
            heard_ns: 0,
            answered_writes: 0,
            durable_writes: 0,
            is_broken: false,
        }
    }

    /// Sends and receives what can be, and looks after the connection.
    fn pump(&mut self) -> Result<(), NbdError> {
        let Some(connection) = self.link.connection() else { return Ok(()) };
        // Asked first: what came before the end counts, and a server may be quick to end after it.
        let has_ended = connection.state() == ConnectionState::Closed;
        self.receive()?;
        self.send();
        let is_silent = self.now_ns >= self.heard_ns.saturating_add(SILENCE_NS);
        match () {
            () if has_ended => Err(NbdError::Ended),
            () if is_silent && self.is_busy() => Err(NbdError::Silent),
            () => Ok(()),
        }
    }

    fn is_busy(&self) -> bool {
        self.slots.iter().any(Option::is_some)
    }

    /// The link has come up again: what is still wanted is sent again, in the old order.
    fn resume(&mut self, export: &Export) {
        if !export.can_replace(&self.export) {
            log::error!("{}: {}", self.link.name(), NbdError::Changed);
            self.is_broken = true;
            if let Some(connection) = self.link.connection() {
                connection.close();
            }
            return;
        }
        (self.sent, self.incoming, self.heard_ns) = (0, NOTHING, self.now_ns);
        self.to_send.clear();
        let mut again: Vec<(u64, u16)> = Vec::with_capacity(self.slots.len());
        for (slot, place) in (0..).zip(&mut self.slots) {
            match place {
                Some(command) if command.is_forgotten => {
                    *place = None;
                    self.finished.push_back(Finished { slot, result: Err(DriveError::Silent) });
                }
                Some(command) => {
                    command.is_sent = false;
                    again.push((command.cookie, slot));
                }
                None => {}
            }
        }
        again.sort_unstable();
        self.to_send.extend(again.iter().map(|(_, slot)| *slot));
        let not_durable = self.answered_writes - self.durable_writes;
        let in_doubt = if self.facts.has_cache { not_durable } else { 0 };
        self.link.resumed(again.len() as u64, in_doubt);
    }

    /// Sends as much as there is room for.
    fn send(&mut self) {
        while let (Some(slot), Some(connection)) = (self.to_send.front().copied(), self.link.connection()) {
            let Some(Some(command)) = self.slots.get_mut(usize::from(slot)) else {
                self.to_send.pop_front();
                continue;
            };
            let header = request(command, self.export.writes_through());
            let header = header.as_bytes();
            let data = match command.operation {
                Operation::Write { length, .. } => {
                    let start = usize::from(slot) * self.facts.buffer_bytes as usize;
                    let buffer = self.buffers.bytes().get(start..).unwrap_or_default();
                    buffer.get(..length as usize).unwrap_or_default()
                }
                _ => &[],
            };
            while self.sent < header.len() + data.len() {
                let part = match self.sent.checked_sub(header.len()) {
                    Some(sent) => data.get(sent..),
                    None => header.get(self.sent..),
                };
                let part = part.unwrap_or_default();
                let sent = connection.send(part).min(part.len());
                if sent == 0 {
                    return;
                }
                self.sent += sent;
            }
            command.is_sent = true;
            command.covers = self.answered_writes;
            self.sent = 0;
            self.to_send.pop_front();
        }
    }

    /// Takes what came, up to a bound.
    fn receive(&mut self) -> Result<(), NbdError> {
        for _ in 0..RECEIVES_MAX {
            let Some(connection) = self.link.connection() else { return Ok(()) };
            let (room, so_far) = match &mut self.incoming {
                Incoming::Reply { bytes, came } => (bytes.get_mut(*came..), came),
                Incoming::Data { slot, came, length } => {
                    let start = usize::from(*slot) * self.facts.buffer_bytes as usize;
                    let buffer = self.buffers.bytes_mut().get_mut(start..);
                    (buffer.and_then(|buffer| buffer.get_mut(*came..*length)), came)
                }
            };
            let room = room.unwrap_or_default();
            let received = connection.receive(room).min(room.len());
            if received == 0 {
                return Ok(());
            }
            *so_far += received;
            self.heard_ns = self.now_ns;
            match self.incoming {
                Incoming::Reply { bytes, came } if came == bytes.len() => {
                    self.incoming = NOTHING;
                    self.replied(&bytes)?;
                }
                Incoming::Data { slot, came, length } if came == length => {
                    self.incoming = NOTHING;
                    self.finish(slot, Ok(()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A reply came, but for the data of a read.
    fn replied(&mut self, bytes: &[u8]) -> Result<(), NbdError> {
        let reply = SimpleReply::read_from_bytes(bytes).map_err(|_| NbdError::Protocol("a short reply"))?;
        if reply.magic.get() != SIMPLE_REPLY_MAGIC {
            return Err(NbdError::Protocol("a reply without its magic number"));
        }
        let cookie = reply.cookie.get();
        let slot = u16::try_from(cookie & ((1 << SLOT_BITS) - 1)).unwrap_or(u16::MAX);
        let command = match self.slots.get(usize::from(slot)) {
            Some(Some(command)) if command.cookie == cookie && command.is_sent => *command,
            _ => return Err(NbdError::Protocol("a reply to no command")),
        };
        let result = match (reply.error.get(), command.operation) {
            (0, Operation::Read { length, .. }) if length > 0 => {
                self.incoming = Incoming::Data { slot, came: 0, length: length as usize };
                return Ok(());
            }
            (0, _) => Ok(()),
            (error::SHUTDOWN, _) => return Err(NbdError::ShuttingDown),
            (error::NOT_SUPPORTED, _) => Err(DriveError::Unsupported),
            (error, operation) => {
                log::debug!("{}: {operation:?}: error {error}", self.link.name());
                Err(DriveError::Io)
            }
        };
        self.finish(slot, result);
        Ok(())
    }

    fn finish(&mut self, slot: u16, result: Result<(), DriveError>) {
        let Some(command) = self.slots.get_mut(usize::from(slot)).and_then(Option::take) else { return };
        self.link.works();
        match command.operation {
            Operation::Read { .. } => {}
            Operation::Flush if result.is_ok() => {
                self.durable_writes = self.durable_writes.max(command.covers);
            }
            _ => self.answered_writes += u64::from(result.is_ok()),
        }
        self.finished.push_back(Finished { slot, result });
    }
}

impl Drive for NbdDrive {
    fn facts(&self) -> DriveFacts {
        self.facts
    }

    fn buffer(&mut self, slot: u16) -> &mut [u8] {
        let bytes = self.facts.buffer_bytes as usize;
        match self.slots.get(usize::from(slot)) {
            Some(None) => {
                let buffer = self.buffers.bytes_mut().get_mut(usize::from(slot) * bytes..);
                buffer.and_then(|buffer| buffer.get_mut(..bytes)).unwrap_or_default()
            }
            _ => &mut [],
        }
    }

    fn submit(&mut self, slot: u16, operation: Operation) -> Result<(), DriveError> {
        if self.is_broken {
            return Err(DriveError::Broken);
        }
        if !self.is_busy() {
            self.heard_ns = self.now_ns;
        }
        let place = self.slots.get_mut(usize::from(slot)).ok_or(DriveError::Busy)?;
        if place.is_some() {
            return Err(DriveError::Busy);
        }
        self.commands += 1;
        let cookie = self.commands << SLOT_BITS | u64::from(slot);
        *place = Some(Command { cookie, operation, is_sent: false, is_forgotten: false, covers: 0 });
        self.to_send.push_back(slot);
        Ok(())
    }

    fn kick(&mut self) {
        self.send();
    }

    fn next_finished(&mut self) -> Result<Option<Finished>, DriveError> {
        if self.is_broken { Err(DriveError::Broken) } else { Ok(self.finished.pop_front()) }
    }

    fn want_interrupts(&mut self, wanted: bool) -> bool {
        if wanted {
            // The network may have been looked at after us.
            self.tend(self.now_ns);
        }
        self.is_broken || !self.finished.is_empty()
    }

    fn acknowledge_interrupt(&mut self) -> Result<(), DriveError> {
        Ok(())
    }

    fn forget(&mut self, slot: u16) {
        if let Some(Some(command)) = self.slots.get_mut(usize::from(slot)) {
            command.is_forgotten = true;
        }
    }

    fn tend(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        if self.is_broken {
            return;
        }
        if let Some(Ok(export)) = self.link.tend(now_ns) {
            self.resume(&export);
        }
        if let Err(error) = self.pump() {
            self.link.fail(now_ns, error);
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        let is_awaited = self.is_busy() && self.link.status().is_up;
        let silent_ns = is_awaited.then(|| self.heard_ns.saturating_add(SILENCE_NS));
        if self.is_broken { None } else { self.link.deadline_ns().into_iter().chain(silent_ns).min() }
    }

    fn link_status(&self) -> Option<LinkStatus> {
        let status = self.link.status();
        Some(LinkStatus { is_up: status.is_up && !self.is_broken, ..status })
    }
}

impl Drop for NbdDrive {
    /// The server hears that this is the end, unless it is in the middle of a command.
    fn drop(&mut self) {
        if let Some(connection) = self.link.connection().filter(|_| self.sent == 0) {
            connection.send(message(command::DISCONNECT, 0, 0, 0, 0).as_bytes());
        }
    }
}

/// What the server hears of a command.
fn request(command: &Command, writes_through: bool) -> Request {
    let of_sectors = |sectors: u32| u32::try_from(u64::from(sectors) * SECTOR_BYTES).unwrap_or(u32::MAX);
    let durable = if writes_through { command::FLAG_FUA } else { 0 };
    let (kind, flags, sector, length) = match command.operation {
        Operation::Read { sector, length } => (command::READ, 0, sector, length),
        Operation::Write { sector, length } => (command::WRITE, durable, sector, length),
        Operation::Flush => (command::FLUSH, 0, 0, 0),
        Operation::Discard { sector, sectors } => (command::TRIM, durable, sector, of_sectors(sectors)),
        Operation::WriteZeroes { sector, sectors } => {
            // As of a disk that must not give up the sectors (virtio 1.2, 5.2.6: no unmap).
            (command::WRITE_ZEROES, durable | command::FLAG_NO_HOLE, sector, of_sectors(sectors))
        }
    };
    message(kind, flags, command.cookie, sector.saturating_mul(SECTOR_BYTES), length)
}

fn message(kind: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Request {
    Request {
        magic: REQUEST_MAGIC.into(),
        flags: flags.into(),
        kind: kind.into(),
        cookie: cookie.into(),
        offset: offset.into(),
        length: length.into(),
    }
}
