//! Requests that are carried out in pieces: a read or write that is larger than the volume takes at a time, or for which
//! too few pages can be pinned.
//!
//! The pieces are under way together, as far as there is room; the rest follows as operations complete. Only one request
//! at a time is cut up.

use super::{Pending, Requests, Running, tag};
use crate::block::{Begun, Operation, SECTOR_BYTES};
use crate::guest::{GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use crate::virtio::blk::request::{HEADER_BYTES, Request, Status};
use crate::virtio::chain::{Chain, slice};
use crate::virtio::queue::{QueueError, Used};

/// A piece that cannot be pinned gets no smaller than this, or a block: then there are no slots at all.
const LEAST_PIECE_BYTES: u32 = 4096;

/// A request in the course of being cut into pieces.
pub struct Cut {
    /// Which.
    pub pending: usize,
    /// Bytes begun.
    done: u32,
    /// Most bytes in a piece.
    most: u32,
}

impl<P: PinnedMemory> Requests<P> {
    /// Starts a request that is not pinned as a whole.
    pub(super) fn start_large<M: GuestMemory<Pinned = P>>(
        &mut self,
        chain: &Chain,
        data_bytes: u32,
        regions: &[GuestRegion],
        memory: &M,
    ) -> Result<Option<Used>, QueueError> {
        let mut pending = match self.pin_status(chain, data_bytes, regions, memory)? {
            Ok(pending) => pending,
            Err(used) => return Ok(Some(used)),
        };
        slice(regions, 0, HEADER_BYTES, &mut self.piece);
        let header = memory.pin_split(&self.piece, HEADER_BYTES);
        if self.under_way() && matches!(header, Err(MemoryError::Exhausted)) {
            return Err(MemoryError::Exhausted.into());
        }
        match self.read_large(chain, header) {
            Ok(row) => pending.row = row,
            Err(status) => {
                pending.status = status;
                return Ok(Some(self.answer(&pending)));
            }
        }
        self.cut_regions.clear();
        self.cut_regions.extend_from_slice(regions);
        let most = self.geometry.transfer_bytes_max;
        self.cut = Some(Cut { pending: self.pending.insert(pending), done: 0, most });
        Ok(self.go_on_cutting(memory))
    }

    /// Answers a request some of whose memory is not there.
    pub(super) fn start_unreachable<M: GuestMemory<Pinned = P>>(
        &mut self,
        chain: &Chain,
        data_bytes: u32,
        regions: &[GuestRegion],
        memory: &M,
        error: &MemoryError,
    ) -> Result<Option<Used>, QueueError> {
        Ok(Some(match self.pin_status(chain, data_bytes, regions, memory)? {
            Ok(mut pending) => {
                pending.status = self.refused(error);
                self.answer(&pending)
            }
            Err(used) => used,
        }))
    }

    /// Pins the status byte by itself. If it is not there, all that is left to tell comes back.
    fn pin_status<M: GuestMemory<Pinned = P>>(
        &mut self,
        chain: &Chain,
        data_bytes: u32,
        regions: &[GuestRegion],
        memory: &M,
    ) -> Result<Result<Pending<P>, Used>, QueueError> {
        slice(regions, chain.bytes() - 1, 1, &mut self.piece);
        match memory.pin(&self.piece) {
            Ok(pinned) => Ok(Ok(Pending::new(chain, data_bytes, pinned, 0))),
            // Ours: the guest would take whatever its status byte held for our answer.
            Err(MemoryError::Exhausted) => Err(MemoryError::Exhausted.into()),
            // The guest's: it gets nothing back but the chain.
            Err(error) => {
                let _ = self.refused(&error);
                self.counters.errors += 1;
                Ok(Err(Used { id: chain.head, length: 0 }))
            }
        }
    }

    /// Begins more pieces of the request that is cut up. Returns what to tell the guest if it is done by that.
    pub fn go_on_cutting<M: GuestMemory<Pinned = P>>(&mut self, memory: &M) -> Option<Used> {
        let mut cut = self.cut.take()?;
        loop {
            let pending = self.pending.get_mut(cut.pending)?;
            let (first, length, is_read) = match pending.row.request {
                Request::Read { sector, length } => (sector, length, true),
                Request::Write { sector, length } => (sector, length, false),
                _ => return None,
            };
            if cut.done >= length || pending.status != Status::Ok {
                // The last piece has begun: what is left of the row is the flush.
                pending.row.step = 1;
                break;
            }
            if self.volume.room() == 0 {
                self.cut = Some(cut);
                return None;
            }
            let bytes = (length - cut.done).min(cut.most);
            slice(&self.cut_regions, pending.row.data_at + cut.done, bytes, &mut self.piece);
            let pinned = match memory.pin_split(&self.piece, if is_read { 0 } else { bytes }) {
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
                Operation::Read { sector, length: bytes }
            } else {
                Operation::Write { sector, length: bytes }
            };
            cut.done += bytes;
            let running = self.running.vacant_entry();
            match self.volume.begin(tag(running.key()), operation, &pinned, 0) {
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
}
