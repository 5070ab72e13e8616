//! Requests carried out: memory pinned, the volume asked, the status byte written, memory given back.
//!
//! ```text
//!   start ──> answered                        all was done at once, or refused
//!        └──> pending ──> finish_next ──> its next operation, or answered
//!        └──> cut: pieces are begun as there is room ──> pending
//! ```
//!
//! | file | job |
//! |---|---|
//! | [`row`] | what a request asks for: a row of operations, one after the other |
//! | [`cut`] | requests that are carried out in pieces |

pub mod cut;
pub mod row;

use super::Counters;
use super::request::{HEADER_BYTES, ID_BYTES, Status};
use crate::block::{Begun, Geometry, Tag, Volume, VolumeError};
use crate::guest::{GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use crate::virtio::chain::{Chain, MAX_SEGMENTS};
use crate::virtio::complaints::Complaints;
use crate::virtio::queue::{QueueError, Used};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use cut::Cut;
use row::Row;
use slab::Slab;

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
    row: Row,
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

impl<P> Pending<P> {
    fn new(chain: &Chain, data_bytes: u32, pinned: P, status_at: u32) -> Self {
        Self {
            head: chain.head,
            row: Row::default(),
            status: Status::Ok,
            outstanding: 0,
            pinned,
            status_at,
            data_bytes,
        }
    }
}

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

impl<P: PinnedMemory> Requests<P> {
    pub fn new(name: String, serial: &str, volume: Box<dyn Volume<P>>) -> Self {
        let mut id = [0; ID_BYTES as usize];
        id.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        // Not grown in the middle of things, when there may be no memory for it. A volume that is done at once has none.
        let under_way = Some(volume.room()).filter(|room| *room <= MAX_SEGMENTS).unwrap_or(0);
        Self {
            name,
            geometry: volume.geometry(),
            counters: Counters::default(),
            complaints: Complaints::default(),
            write_through: false,
            id,
            volume,
            pending: Slab::with_capacity(under_way),
            running: Slab::with_capacity(under_way),
            waiting: VecDeque::with_capacity(under_way),
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
        let whole = (chain.bytes() <= self.whole_bytes_max())
            .then(|| memory.pin_split(regions, chain.readable_bytes));
        match whole {
            Some(Ok(pinned)) => {
                Ok(self.start_whole(chain, Pending::new(chain, data_bytes, pinned, status_at)))
            }
            // In one piece, once our other requests have given their pins back.
            Some(Err(MemoryError::Exhausted)) if self.under_way() => Err(MemoryError::Exhausted.into()),
            Some(Err(MemoryError::Exhausted)) | None => self.start_large(chain, data_bytes, regions, memory),
            Some(Err(error)) => self.start_unreachable(chain, data_bytes, regions, memory, &error),
        }
    }

    /// Starts a request that is pinned as a whole.
    fn start_whole(&mut self, chain: &Chain, mut pending: Pending<P>) -> Option<Used> {
        if let Err(status) = self.read_whole(chain, &mut pending) {
            pending.status = status;
        }
        self.go_on(pending)
    }

    /// Begins the next operations of a request with none under way, until one has to be waited for: [`Self::go_on`]
    /// keeps it then.
    fn advance(&mut self, pending: &mut Pending<P>) -> Advance {
        while let Some(operation) = pending.row.next(self.write_through)
            && pending.status == Status::Ok
        {
            if self.volume.room() == 0 {
                return Advance::NoRoom;
            }
            pending.row.step += 1;
            let running = self.running.vacant_entry();
            match self.volume.begin(tag(running.key()), operation, &pending.pinned, pending.row.data_at) {
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

    /// Goes on with a request of which the volume has no operation. Returns what to tell the guest if it is done; else
    /// it is kept until it is its turn again.
    #[inline]
    fn go_on(&mut self, mut pending: Pending<P>) -> Option<Used> {
        let advance = self.advance(&mut pending);
        if advance == Advance::Done {
            return Some(self.answer(&pending));
        }
        // The very key that a running operation was given.
        let key = self.pending.insert(pending);
        if advance == Advance::NoRoom {
            self.waiting.push_back(key);
        }
        None
    }

    /// Begins the next operation of a request that found no room before. Returns whether there was one and is room now,
    /// and what to tell the guest if it is done by that.
    pub fn go_on_next(&mut self) -> Option<Option<Used>> {
        if self.waiting.is_empty() || self.volume.room() == 0 {
            return None;
        }
        let key = self.waiting.pop_front()?;
        let pending = self.pending.try_remove(key)?;
        Some(self.go_on(pending))
    }

    /// Takes an operation that the volume has done, if there is one. Returns whether there was, and what to tell the
    /// guest if its request is done by that.
    pub fn finish_next(&mut self) -> Option<Option<Used>> {
        let done = self.volume.next_done()?;
        let running = self.running.try_remove(done.tag.0 as usize)?;
        let pending = self.pending.get_mut(running.pending)?;
        let result = match &running.piece {
            Some(piece) => self.volume.finish(done, piece, 0),
            None => self.volume.finish(done, &pending.pinned, pending.row.data_at),
        };
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
    #[inline]
    fn go_on_if_idle(&mut self, key: usize) -> Option<Used> {
        let is_cut = self.cut.as_ref().is_some_and(|cut| cut.pending == key);
        if is_cut || self.pending.get(key)?.outstanding > 0 {
            return None;
        }
        let pending = self.pending.try_remove(key)?;
        self.go_on(pending)
    }

    /// Writes the status of a request that is done, and says how many bytes were written from the start of its writable
    /// part on.
    #[inline]
    fn answer(&mut self, pending: &Pending<P>) -> Used {
        let Pending { head, ref row, status, ref pinned, status_at, data_bytes, .. } = *pending;
        let data_written = match status {
            Status::Ok => {
                self.counters.count(row.request);
                row.request.bytes_told()
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
