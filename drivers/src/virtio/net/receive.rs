//! The receive queue (virtio 1.2, 5.1.6.3 and 5.1.6.4): frames from the port's inbox into the guest's buffers.
//!
//! A frame that the guest cannot take as it is goes to it in pieces; a piece, with the header before it, is in one chain, or,
//! with VIRTIO_NET_F_MRG_RXBUF, in as many as it needs, of which the guest learns together. While buffers wait and no frame
//! does, no kick is wanted. When they run out, the frame under way stays here and the others in the inbox, until the
//! guest kicks.

use super::config::{MRG_RXBUF, capabilities};
use super::header::{HEADER_BYTES, Header};
use super::{Common, Record};
use crate::guest::{GuestAddress, GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use crate::net::bridge::Port;
use crate::net::frame::{Frame, WIRE_BYTES_MAX};
use crate::net::offload::{Capabilities, HEADER_BYTES_MAX, Piece, pieces};
use crate::virtio::Served;
use crate::virtio::batch::{Batch, Bounds};
use crate::virtio::chain::slice;
use crate::virtio::queue::{MAX_BATCH, Queue, QueueError, Used};
use alloc::vec::Vec;
use zerocopy::IntoBytes;

/// A call ends when it has delivered so many bytes, ...
const ENOUGH_BYTES: usize = 192 << 10;
/// ... or so many pieces.
const ENOUGH_PIECES: usize = 64;

/// The receive queue's side of a device.
#[derive(Default)]
pub struct Receive {
    /// The frame under way, and how many of its pieces are done.
    current: Option<(Frame, usize)>,
    /// Chains that were left waiting because they are too few for it.
    kept: u16,
    /// There are buffers, and no kick will be heard.
    is_stocked: bool,
    /// Work space: the part of the buffers that a piece goes to.
    part: Vec<GuestRegion>,
}

/// Why a call ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// No frame waits.
    NoFrame,
    /// The chains that wait are too few.
    NoBuffers,
    /// The others have their turn.
    Enough,
}

/// Where a piece can go.
enum Place {
    /// To the next so many chains.
    Chains(usize),
    /// To those that will come.
    Later,
    /// Nowhere: there will never be more room.
    Nowhere,
}

impl Receive {
    /// Whether frames wait for which there may be buffers: else the guest kicks when it has some.
    pub fn has_work(&self, port: &Port) -> bool {
        self.is_stocked && (self.current.is_some() || port.waiting() > 0)
    }

    /// Delivers frames that wait, a bounded number.
    ///
    /// # Errors
    /// The rings are out of reach or their index is wrong.
    pub fn serve<M: GuestMemory>(
        &mut self,
        queue: &mut Queue<M::Pinned>,
        memory: &M,
        common: &mut Common,
    ) -> Result<Served, QueueError> {
        if self.is_stocked && !self.has_work(&common.port) {
            return Ok(Served { is_stocked: true, kept: self.kept, ..Served::default() });
        }
        let waiting = queue.waiting()?;
        if waiting <= self.kept {
            // Nothing has come.
            self.is_stocked = false;
            return Ok(Served { kept: waiting, ..Served::default() });
        }
        common.batch.clear();
        common.batch.done.clear();
        let Common { port, accepted, batch, record } = common;
        let mut delivery = Delivery {
            queue,
            memory,
            port,
            batch,
            record,
            receiver: capabilities(*accepted),
            is_mergeable: accepted.contains(MRG_RXBUF),
            used: 0,
            part: &mut self.part,
            requests: 0,
        };
        let end = delivery.deliver_all(&mut self.current);
        let unused = delivery.put_back();
        delivery.publish()?;
        let requests = delivery.requests;
        let interrupt = queue.wants_interrupt()?;
        let (end, broken) = match end {
            Ok(end) => (end, None),
            Err(error) => (End::NoBuffers, Some(error)),
        };
        // Of those that came meanwhile none was looked at.
        self.kept = if end == End::NoBuffers { unused } else { 0 };
        self.is_stocked = end != End::NoBuffers && queue.waiting()? > 0;
        Ok(Served {
            requests,
            interrupt,
            more: end == End::Enough && self.is_stocked,
            is_stocked: self.is_stocked,
            kept: self.kept,
            broken,
            ..Served::default()
        })
    }
}

/// One call.
struct Delivery<'a, M: GuestMemory> {
    queue: &'a mut Queue<M::Pinned>,
    memory: &'a M,
    port: &'a Port,
    batch: &'a mut Batch,
    record: &'a mut Record,
    receiver: Capabilities,
    is_mergeable: bool,
    /// How many chains of the batch are used.
    used: usize,
    part: &'a mut Vec<GuestRegion>,
    /// Chains done.
    requests: u32,
}

impl<M: GuestMemory> Delivery<'_, M> {
    fn deliver_all(&mut self, current: &mut Option<(Frame, usize)>) -> Result<End, QueueError> {
        let mut work_space = [0; HEADER_BYTES_MAX];
        let (mut bytes, mut count) = (0, 0);
        loop {
            let Some((frame, index)) = current.take().or_else(|| Some((self.port.receive()?, 0))) else {
                return Ok(End::NoFrame);
            };
            let pieces = pieces(frame.bytes(), frame.offload(), self.receiver);
            if let Some(piece) = pieces.piece(index, &mut work_space) {
                let is_enough = bytes >= ENOUGH_BYTES || count >= ENOUGH_PIECES;
                let end = if is_enough { Some(End::Enough) } else { self.deliver(&piece)? };
                if let Some(end) = end {
                    *current = Some((frame, index));
                    return Ok(end);
                }
                bytes += length_of(&piece);
                count += 1;
            }
            if index + 1 < pieces.count() {
                *current = Some((frame, index + 1));
            }
        }
    }

    /// Delivers a piece, or drops it, unless it has to wait.
    fn deliver(&mut self, piece: &Piece<'_>) -> Result<Option<End>, QueueError> {
        let bytes = HEADER_BYTES + length_of(piece);
        match self.find_place(bytes)? {
            Place::Later => return Ok(Some(End::NoBuffers)),
            Place::Nowhere => self.record.counters.receive_drops += 1,
            Place::Chains(count) => match self.write(piece, count) {
                Ok(()) => {
                    self.record.counters.frames_received += 1;
                    self.record.counters.bytes_received += length_of(piece) as u64;
                    self.use_chains(count, bytes)?;
                }
                // Ours: the buffers are as good as they were.
                Err(MemoryError::Exhausted) => self.record.counters.receive_drops += 1,
                Err(error) => {
                    self.record.refuse(&error);
                    self.use_chains(count, 0)?;
                }
            },
        }
        Ok(None)
    }

    /// Finds a place for a header and a piece, `bytes` together; more chains are taken as needed.
    fn find_place(&mut self, bytes: usize) -> Result<Place, QueueError> {
        loop {
            let free = self.batch.chains.get(self.used..).unwrap_or_default();
            if let (false, Some(next)) = (self.is_mergeable, free.first()) {
                let fits = bytes <= next.writable_bytes as usize;
                return Ok(if fits { Place::Chains(1) } else { Place::Nowhere });
            }
            let mut room = 0;
            let enough = free.iter().position(|chain| {
                room += chain.writable_bytes as usize;
                room >= bytes
            });
            if let Some(last) = enough {
                return Ok(Place::Chains(last + 1));
            }
            let free = free.len();
            let waiting = self.queue.waiting()?;
            if waiting == 0 {
                let is_all = free >= usize::from(self.queue.size());
                return Ok(if is_all { Place::Nowhere } else { Place::Later });
            }
            if !self.take_more(waiting, bytes - room)? {
                return Ok(Place::Nowhere);
            }
        }
    }

    /// Takes chains for the `missing` bytes of a piece, and for the frames that wait behind it. Returns whether there was
    /// room for any.
    fn take_more(&mut self, waiting: u16, missing: usize) -> Result<bool, QueueError> {
        self.batch.forget(core::mem::take(&mut self.used));
        let had = self.batch.chains.len();
        let frames = self.port.waiting().min(MAX_BATCH);
        let wanted = missing + frames * (HEADER_BYTES + WIRE_BYTES_MAX);
        let chains = u16::try_from(wanted.div_ceil(WIRE_BYTES_MAX)).unwrap_or(u16::MAX);
        let bounds = Bounds {
            chains: waiting.min(chains),
            bytes: u32::try_from(wanted).unwrap_or(u32::MAX),
            large_bytes: u32::MAX,
        };
        let taken = self.batch.take(self.queue, self.memory, bounds);
        let new = self.batch.chains.get(had..).unwrap_or_default();
        for chain in new {
            if chain.readable_bytes > 0 {
                return Err(QueueError::NotWritable);
            }
            if (chain.writable_bytes as usize) < HEADER_BYTES {
                return Err(QueueError::NoHeader);
            }
        }
        if let [first, _, ..] = new
            && let Some(regions) = self.batch.regions.get(first.regions.start..)
        {
            self.memory.prefetch(regions);
        }
        taken.map(|()| !new.is_empty())
    }

    /// Writes a header and a piece to the next `count` chains.
    fn write(&mut self, piece: &Piece<'_>, count: usize) -> Result<(), MemoryError> {
        let chains = self.batch.chains.get(self.used..self.used + count).unwrap_or_default();
        let (Some(first), Some(last)) = (chains.first(), chains.last()) else { return Ok(()) };
        let regions = self.batch.regions.get(first.regions.start..last.regions.end).unwrap_or_default();
        let buffers = if self.is_mergeable { count } else { 1 };
        let header = Header::new(piece.offload, self.receiver, u16::try_from(buffers).unwrap_or(u16::MAX));
        let parts = [header.as_bytes(), piece.front, piece.rest];
        if self.memory.write_together(Scattered::new(regions, parts)) {
            return Ok(());
        }
        let bytes = u32::try_from(HEADER_BYTES + length_of(piece)).unwrap_or(u32::MAX);
        self.part.clear();
        self.part.try_reserve(regions.len()).map_err(|_| MemoryError::Exhausted)?;
        slice(regions, 0, bytes, self.part);
        let pinned = self.memory.pin(self.part)?;
        let mut at = 0;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            pinned.write(at, part)?;
            at += u32::try_from(part.len()).unwrap_or(0);
        }
        Ok(())
    }

    /// The next `count` chains are done, `bytes` having been written to them, one after the other.
    fn use_chains(&mut self, count: usize, bytes: usize) -> Result<(), QueueError> {
        if self.batch.done.len() + count > self.batch.done.capacity() {
            self.publish()?;
        }
        let mut left = u32::try_from(bytes).unwrap_or(u32::MAX);
        for chain in self.batch.chains.iter().skip(self.used).take(count) {
            let length = left.min(chain.writable_bytes);
            left -= length;
            self.batch.done.push(Used { id: chain.head, length });
        }
        self.used += count;
        Ok(())
    }

    /// Tells the guest of all that is done. The chains of a piece are never told apart.
    fn publish(&mut self) -> Result<(), QueueError> {
        if self.batch.done.is_empty() {
            return Ok(());
        }
        self.requests =
            self.requests.saturating_add(u32::try_from(self.batch.done.len()).unwrap_or(u32::MAX));
        let published = self.queue.complete(&self.batch.done);
        self.batch.done.clear();
        published
    }

    /// Puts the chains back that were not used, and says how many they are.
    fn put_back(&mut self) -> u16 {
        let unused = self.batch.chains.get(self.used..).unwrap_or_default();
        self.queue.put_back(unused);
        u16::try_from(unused.len()).unwrap_or(0)
    }
}

/// Bytes in several parts, each with its place in a run of guest regions.
struct Scattered<'a> {
    regions: core::slice::Iter<'a, GuestRegion>,
    /// What is left of the region under way.
    address: u64,
    left: u32,
    parts: core::array::IntoIter<&'a [u8], 3>,
    /// What is left of the part under way.
    part: &'a [u8],
}

impl<'a> Scattered<'a> {
    fn new(regions: &'a [GuestRegion], parts: [&'a [u8]; 3]) -> Self {
        Self { regions: regions.iter(), address: 0, left: 0, parts: parts.into_iter(), part: &[] }
    }
}

impl<'a> Iterator for Scattered<'a> {
    type Item = (GuestAddress, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.part.is_empty() {
            self.part = self.parts.next()?;
        }
        if self.left == 0 {
            let region = self.regions.next()?;
            (self.address, self.left) = (region.address.0, region.length);
        }
        let length = self.left.min(u32::try_from(self.part.len()).unwrap_or(u32::MAX));
        let part = self.part.split_off(..length as usize)?;
        let address = GuestAddress(self.address);
        self.address = self.address.saturating_add(length.into());
        self.left -= length;
        Some((address, part))
    }
}

fn length_of(piece: &Piece<'_>) -> usize {
    piece.front.len() + piece.rest.len()
}
