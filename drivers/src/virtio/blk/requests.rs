//! Requests carried out: memory pinned, the volume asked, the status byte written, memory given back.
//!
//! A request is one operation or a row of them, each begun when the one before is done:
//!
//! | request | operations |
//! |---|---|
//! | read | one read |
//! | write | one write; and a flush, if the guest did without the flush command (virtio 1.2, 5.2.6.2) |
//! | discard, write-zeroes | one for each range; and a flush likewise |
//!
//! A read or write that is larger than the volume takes at a time is cut into pieces that are under way together, as far
//! as there is room; the rest follows as operations complete. Only one request at a time is cut up in that way.

use super::Counters;
use super::config::MAX_RANGES;
use super::request::{self, HEADER_BYTES, Header, ID_BYTES, RANGE_BYTES, RangeKind, Request, Status};
use crate::block::{Begun, Geometry, Operation, SECTOR_BYTES, Tag, Volume, VolumeError};
use crate::guest::{GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use crate::virtio::chain::{Chain, MAX_SEGMENTS, slice};
use crate::virtio::complaints::Complaints;
use crate::virtio::queue::{QueueError, Used};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use slab::Slab;
use zerocopy::IntoBytes;

/// A piece of a request that cannot be pinned gets no smaller than this: then there are no slots at all.
const LEAST_PIECE_BYTES: u32 = 4096;

/// Volume and requests of a device.
pub struct Requests<P> {
    pub name: String,
    pub geometry: Geometry,
    pub counters: Counters,
    pub complaints: Complaints,
    /// The guest does not flush: a write is durable when it is told to be done.
    pub write_through: bool,
    id: [u8; ID_BYTES as usize],
    volume: Box<dyn Volume<P>>,
    /// Requests of which the volume has operations.
    pending: Slab<Pending<P>>,
    /// These operations. Their keys are the tags.
    running: Slab<Running<P>>,
    /// Requests whose next operation found no room.
    waiting: VecDeque<usize>,
    /// The request of which not all pieces are begun.
    cut: Option<Cut>,
    /// Its buffers.
    cut_regions: Vec<GuestRegion>,
    /// Work space.
    piece: Vec<GuestRegion>,
}

/// A request under way.
struct Pending<P> {
    head: u16,
    request: Request,
    /// Of a discard or write-zeroes.
    ranges: Option<Box<Ranges>>,
    /// The next operation in its row.
    step: u32,
    status: Status,
    /// Operations that the volume has.
    outstanding: u32,
    /// All of the request, or its status byte.
    pinned: P,
    /// Where in it the status byte is.
    status_at: u32,
    /// Bytes that it may write, less the status.
    data_bytes: u32,
}

/// The ranges of a discard or write-zeroes, checked.
type Ranges = [request::SectorRange; MAX_RANGES as usize];

struct Running<P> {
    pending: usize,
    /// The memory of a piece; else it is the request's.
    piece: Option<P>,
}

/// How far a request came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advance {
    /// Nothing is left to do but to answer.
    Done,
    /// The volume has an operation of it.
    Begun,
    /// The volume has no room for its next operation: somebody else was quicker to take the slot of the one before.
    NoRoom,
}

/// A request in the course of being cut into pieces.
struct Cut {
    pending: usize,
    /// Bytes begun.
    done: u32,
    /// Where its data begins in the buffers.
    data: u32,
    /// Most bytes in a piece.
    most: u32,
}

impl<P: PinnedMemory> Requests<P> {
    pub fn new(name: String, serial: &str, volume: Box<dyn Volume<P>>) -> Self {
        let mut id = [0; ID_BYTES as usize];
        id.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        Self {
            name,
            geometry: volume.geometry(),
            counters: Counters::default(),
            complaints: Complaints::default(),
            write_through: false,
            id,
            volume,
            pending: Slab::new(),
            running: Slab::new(),
            waiting: VecDeque::new(),
            cut: None,
            cut_regions: Vec::with_capacity(MAX_SEGMENTS),
            piece: Vec::with_capacity(MAX_SEGMENTS),
        }
    }

    /// How many requests more may be started now.
    pub fn room(&self) -> usize {
        if self.cut.is_some() || !self.waiting.is_empty() { 0 } else { self.volume.room() }
    }

    /// The most bytes with which a request is pinned as a whole, header and status included.
    pub fn whole_bytes_max(&self) -> u32 {
        self.geometry.transfer_bytes_max.saturating_add(HEADER_BYTES + 1)
    }

    /// Whether the volume has operations of ours.
    pub fn under_way(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Forgets all requests; none will be answered.
    pub fn cancel(&mut self) {
        self.volume.cancel();
        self.cut = None;
        self.waiting.clear();
        self.running.clear();
        self.pending.clear();
    }

    /// Starts a request. Returns what to tell the guest, if it is done already.
    pub fn start<M: GuestMemory<Pinned = P>>(
        &mut self,
        chain: &Chain,
        regions: &[GuestRegion],
        memory: &M,
    ) -> Result<Option<Used>, QueueError> {
        let data_bytes = chain.writable_bytes.checked_sub(1).ok_or(QueueError::NoStatus)?;
        let status_at = chain.bytes() - 1;
        let blank = |pinned, status_at| Pending {
            head: chain.head,
            request: Request::Flush,
            ranges: None,
            step: 0,
            status: Status::Ok,
            outstanding: 0,
            pinned,
            status_at,
            data_bytes,
        };
        let whole = (chain.bytes() <= self.whole_bytes_max()).then(|| memory.pin(regions));
        let refused = match whole {
            Some(Ok(pinned)) => return Ok(self.start_whole(chain, blank(pinned, status_at))),
            // In one piece, once our other requests have given their pins back.
            Some(Err(MemoryError::Exhausted)) if self.under_way() => {
                return Err(MemoryError::Exhausted.into());
            }
            Some(Err(MemoryError::Exhausted)) | None => None,
            Some(Err(error)) => Some(error),
        };
        // What remains reaches the status byte by itself.
        slice(regions, status_at, 1, &mut self.piece);
        let mut pending = match memory.pin(&self.piece) {
            Ok(pinned) => blank(pinned, 0),
            // Ours: the guest would take whatever its status byte held for our answer.
            Err(MemoryError::Exhausted) => return Err(MemoryError::Exhausted.into()),
            // The guest's: it gets nothing back but the chain.
            Err(error) => {
                let _ = self.refuse::<()>(&error);
                self.counters.errors += 1;
                return Ok(Some(Used { id: chain.head, length: 0 }));
            }
        };
        if let Some(error) = refused {
            pending.status = self.refused(&error);
            return Ok(Some(self.answer(&pending)));
        }
        slice(regions, 0, HEADER_BYTES, &mut self.piece);
        let header = memory.pin(&self.piece);
        if self.under_way() && matches!(header, Err(MemoryError::Exhausted)) {
            return Err(MemoryError::Exhausted.into());
        }
        match self.read_large(chain, header) {
            Ok(request) => pending.request = request,
            Err(status) => {
                pending.status = status;
                return Ok(Some(self.answer(&pending)));
            }
        }
        let data = match pending.request {
            Request::Read { .. } => chain.readable_bytes,
            _ => HEADER_BYTES,
        };
        self.cut_regions.clear();
        self.cut_regions.extend_from_slice(regions);
        let most = self.geometry.transfer_bytes_max;
        self.cut = Some(Cut { pending: self.pending.insert(pending), done: 0, data, most });
        Ok(self.go_on_cutting(memory))
    }

    /// Starts a request that is pinned as a whole.
    fn start_whole(&mut self, chain: &Chain, mut pending: Pending<P>) -> Option<Used> {
        if let Err(status) = self.read_whole(chain, &mut pending) {
            pending.status = status;
        }
        match self.advance(&mut pending) {
            Advance::Done => Some(self.answer(&pending)),
            advance => self.keep(pending, advance),
        }
    }

    /// Copies and checks what a request that is pinned as a whole asks for.
    fn read_whole(&mut self, chain: &Chain, pending: &mut Pending<P>) -> Result<(), Status> {
        pending.request = self.read_request(chain, &pending.pinned)?;
        match pending.request {
            Request::GetId { length } => {
                let id = self.id.get(..length as usize).unwrap_or_default();
                pending.pinned.write(chain.readable_bytes, id).or_else(|error| self.refuse(&error))
            }
            Request::Discard { count } => {
                pending.ranges = Some(self.read_ranges(count, RangeKind::Discard, &pending.pinned)?);
                Ok(())
            }
            Request::WriteZeroes { count } => {
                pending.ranges = Some(self.read_ranges(count, RangeKind::WriteZeroes, &pending.pinned)?);
                Ok(())
            }
            Request::Read { .. } | Request::Write { .. } | Request::Flush => Ok(()),
        }
    }

    /// Copies and checks what a request asks for that is too large to be pinned as a whole, or for which too few slots
    /// are free.
    fn read_large(&mut self, chain: &Chain, header: Result<P, MemoryError>) -> Result<Request, Status> {
        let pinned = match header {
            Ok(pinned) => pinned,
            Err(error) => return self.refuse(&error),
        };
        match self.read_request(chain, &pinned)? {
            request @ (Request::Read { .. } | Request::Write { .. }) => Ok(request),
            _ => self.refuse(&"too large for what it is"),
        }
    }

    /// Copies and checks the header; `pinned` starts with it.
    fn read_request(&mut self, chain: &Chain, pinned: &P) -> Result<Request, Status> {
        let Some(readable_data) = chain.readable_bytes.checked_sub(HEADER_BYTES) else {
            return self.refuse(&"request without a whole header");
        };
        let mut header = Header::default();
        pinned.read(0, header.as_mut_bytes()).or_else(|error| self.refuse(&error))?;
        request::parse(header, readable_data, chain.writable_bytes - 1, self.geometry)
    }

    /// All ranges are checked before the first is carried out.
    fn read_ranges(&mut self, count: u32, kind: RangeKind, pinned: &P) -> Result<Box<Ranges>, Status> {
        let mut bytes = [0; (MAX_RANGES * RANGE_BYTES) as usize];
        let bytes = bytes.get_mut(..(count * RANGE_BYTES) as usize).unwrap_or_default();
        pinned.read(HEADER_BYTES, bytes).or_else(|error| self.refuse(&error))?;
        let mut ranges = Box::new(Ranges::default());
        for (range, raw) in ranges.iter_mut().zip(request::ranges(bytes)) {
            *range = request::parse_range(*raw, kind, self.geometry)?;
        }
        Ok(ranges)
    }

    /// The operation at `step` of a request's row.
    fn operation(&self, pending: &Pending<P>) -> Option<Operation> {
        let step = pending.step;
        let flush_at = |end| (step == end && self.write_through).then_some(Operation::Flush);
        let range = |count| pending.ranges.as_ref()?.get(step as usize).filter(|_| step < count);
        match pending.request {
            Request::Read { sector, length } => {
                let offset = pending.status_at.saturating_sub(pending.data_bytes);
                (step == 0).then_some(Operation::Read { sector, offset, length })
            }
            Request::Write { sector, length } if step == 0 => {
                Some(Operation::Write { sector, offset: HEADER_BYTES, length })
            }
            Request::Write { .. } => flush_at(1),
            Request::Flush => (step == 0).then_some(Operation::Flush),
            Request::GetId { .. } => None,
            Request::Discard { count } => range(count)
                .map(|range| Operation::Discard { sector: range.sector, sectors: range.sectors })
                .or_else(|| flush_at(count)),
            Request::WriteZeroes { count } => range(count)
                .map(|range| Operation::WriteZeroes { sector: range.sector, sectors: range.sectors })
                .or_else(|| flush_at(count)),
        }
    }

    /// Begins the next operations of a request with none under way, until one has to be waited for. It is then to be
    /// kept, see [`Self::keep`].
    fn advance(&mut self, pending: &mut Pending<P>) -> Advance {
        while let Some(operation) = self.operation(pending).filter(|_| pending.status == Status::Ok) {
            if self.volume.room() == 0 {
                return Advance::NoRoom;
            }
            pending.step += 1;
            let running = self.running.vacant_entry();
            match self.volume.begin(tag(running.key()), operation, &pending.pinned) {
                Begun::Done(result) => pending.status = self.status(result),
                Begun::Pending => {
                    pending.outstanding = 1;
                    running.insert(Running { pending: self.pending.vacant_key(), piece: None });
                    return Advance::Begun;
                }
            }
        }
        Advance::Done
    }

    /// Keeps a request, right after it was advanced, until it is its turn again.
    fn keep(&mut self, pending: Pending<P>, advance: Advance) -> Option<Used> {
        let key = self.pending.insert(pending);
        if advance == Advance::NoRoom {
            self.waiting.push_back(key);
        }
        None
    }

    /// Goes on with a request of which the volume has no operation. Returns what to tell the guest if it is done.
    fn go_on(&mut self, key: usize) -> Option<Used> {
        let mut pending = self.pending.try_remove(key)?;
        match self.advance(&mut pending) {
            Advance::Done => Some(self.answer(&pending)),
            advance => self.keep(pending, advance),
        }
    }

    /// Begins the next operation of a request that found no room before. Returns whether there was one and is room now,
    /// and what to tell the guest if it is done by that.
    pub fn go_on_next(&mut self) -> Option<Option<Used>> {
        if self.waiting.is_empty() || self.volume.room() == 0 {
            return None;
        }
        let key = self.waiting.pop_front()?;
        Some(self.go_on(key))
    }

    /// Begins more pieces of the request that is cut up. Returns what to tell the guest if it is done by that.
    pub fn go_on_cutting<M: GuestMemory<Pinned = P>>(&mut self, memory: &M) -> Option<Used> {
        let mut cut = self.cut.take()?;
        loop {
            let pending = self.pending.get_mut(cut.pending)?;
            let (first, length, is_read) = match pending.request {
                Request::Read { sector, length } => (sector, length, true),
                Request::Write { sector, length } => (sector, length, false),
                _ => return None,
            };
            if cut.done >= length || pending.status != Status::Ok {
                // The last piece has begun: what is left of the row is the flush.
                pending.step = 1;
                break;
            }
            if self.volume.room() == 0 {
                self.cut = Some(cut);
                return None;
            }
            let bytes = (length - cut.done).min(cut.most);
            slice(&self.cut_regions, cut.data + cut.done, bytes, &mut self.piece);
            let pinned = match memory.pin(&self.piece) {
                Ok(pinned) => pinned,
                Err(MemoryError::Exhausted)
                    if cut.most > LEAST_PIECE_BYTES.max(self.geometry.block_bytes) =>
                {
                    cut.most = (cut.most / 2).next_multiple_of(self.geometry.block_bytes);
                    continue;
                }
                // Our own operations hold the slots, and will give them back.
                Err(MemoryError::Exhausted) if !self.running.is_empty() => {
                    self.cut = Some(cut);
                    return None;
                }
                Err(error) => {
                    let status = self.refused(&error);
                    if let Some(pending) = self.pending.get_mut(cut.pending) {
                        pending.status = status;
                    }
                    continue;
                }
            };
            let sector = first + u64::from(cut.done) / SECTOR_BYTES;
            let operation = if is_read {
                Operation::Read { sector, offset: 0, length: bytes }
            } else {
                Operation::Write { sector, offset: 0, length: bytes }
            };
            cut.done += bytes;
            let running = self.running.vacant_entry();
            match self.volume.begin(tag(running.key()), operation, &pinned) {
                Begun::Done(Ok(())) => {}
                Begun::Done(result) => {
                    let status = self.status(result);
                    if let Some(pending) = self.pending.get_mut(cut.pending) {
                        pending.status = status;
                    }
                }
                Begun::Pending => {
                    running.insert(Running { pending: cut.pending, piece: Some(pinned) });
                    if let Some(pending) = self.pending.get_mut(cut.pending) {
                        pending.outstanding += 1;
                    }
                }
            }
        }
        self.go_on_if_idle(cut.pending)
    }

    /// Takes an operation that the volume has done, if there is one. Returns whether there was, and what to tell the
    /// guest if its request is done by that.
    pub fn finish_next(&mut self) -> Option<Option<Used>> {
        let done = self.volume.next_done()?;
        let running = self.running.try_remove(done.tag.0 as usize)?;
        let pending = self.pending.get_mut(running.pending)?;
        let memory = running.piece.as_ref().unwrap_or(&pending.pinned);
        let result = self.volume.finish(done, memory);
        pending.outstanding -= 1;
        if result.is_err() {
            let status = self.status(result);
            if let Some(pending) = self.pending.get_mut(running.pending) {
                pending.status = status;
            }
        }
        Some(self.go_on_if_idle(running.pending))
    }

    /// The next operation of a request, if it has none under way and all its pieces have begun.
    fn go_on_if_idle(&mut self, key: usize) -> Option<Used> {
        let is_cut = self.cut.as_ref().is_some_and(|cut| cut.pending == key);
        if is_cut || self.pending.get(key)?.outstanding > 0 {
            return None;
        }
        self.go_on(key)
    }

    /// Writes the status of a request that is done, and says how many bytes were written from the start of its writable
    /// part on.
    fn answer(&mut self, pending: &Pending<P>) -> Used {
        let Pending { head, request, status, ref pinned, status_at, data_bytes, .. } = *pending;
        let data_written = match status {
            Status::Ok => {
                self.counters.count(request);
                request.bytes_told()
            }
            _ => {
                self.counters.errors += 1;
                0
            }
        };
        let length = match pinned.write(status_at, &[status as u8]) {
            Ok(()) => data_written + u32::from(data_written == data_bytes),
            Err(_) => 0,
        };
        Used { id: head, length }
    }

    fn status(&mut self, result: Result<(), VolumeError>) -> Status {
        match result {
            Ok(()) => Status::Ok,
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&mut self, reason: &dyn core::fmt::Display) -> Status {
        self.refuse::<()>(reason).err().unwrap_or(Status::IoError)
    }

    /// An error answer, with a line in the log for the first since the reset.
    fn refuse<T>(&mut self, reason: &dyn core::fmt::Display) -> Result<T, Status> {
        if self.complaints.may_speak() {
            log::warn!("{}: request failed: {reason} (said once per reset)", self.name);
        }
        Err(Status::IoError)
    }
}

/// Keys are small: there are no more operations than slots at the volume.
fn tag(key: usize) -> Tag {
    Tag(u32::try_from(key).unwrap_or(u32::MAX))
}
