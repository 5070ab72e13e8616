//! One request carried out: its memory pinned, the volume asked, the status byte written, its memory given back.

use super::Counters;
use super::config::MAX_RANGES;
use super::request::{self, HEADER_BYTES, Header, ID_BYTES, RANGE_BYTES, RangeKind, Request, Status};
use crate::block::{Geometry, Operation, SECTOR_BYTES, Volume};
use crate::guest::{GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use crate::virtio::batch::LARGE_BYTES;
use crate::virtio::chain::{Chain, MAX_SEGMENTS, slice};
use crate::virtio::complaints::Complaints;
use crate::virtio::queue::QueueError;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use zerocopy::IntoBytes;

/// A piece of a request that cannot be pinned gets no smaller than this: then there are no slots at all.
const LEAST_PIECE_BYTES: u32 = 4096;

/// The volume behind a device, and what answering its requests takes.
pub struct Disk<P> {
    pub name: String,
    pub geometry: Geometry,
    pub counters: Counters,
    pub complaints: Complaints,
    id: [u8; ID_BYTES as usize],
    volume: Box<dyn Volume<P>>,
    piece: Vec<GuestRegion>,
}

impl<P: PinnedMemory> Disk<P> {
    pub fn new(name: String, serial: &str, volume: Box<dyn Volume<P>>) -> Self {
        let mut id = [0; ID_BYTES as usize];
        id.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        Self {
            name,
            geometry: volume.geometry(),
            counters: Counters::default(),
            complaints: Complaints::default(),
            id,
            volume,
            piece: Vec::with_capacity(MAX_SEGMENTS),
        }
    }

    /// Carries one request out and writes its status; returns how many bytes were written from the start of the
    /// writable part on. When this returns, none of the request's pages is pinned.
    pub fn answer<M: GuestMemory<Pinned = P>>(
        &mut self,
        chain: &Chain,
        regions: &[GuestRegion],
        memory: &M,
    ) -> Result<u32, QueueError> {
        let data_bytes = chain.writable_bytes.checked_sub(1).ok_or(QueueError::NoStatus)?;
        let whole = (chain.bytes() <= LARGE_BYTES).then(|| memory.pin(regions));
        let outcome = match &whole {
            Some(Ok(pinned)) => self.carry_out(chain, pinned),
            Some(Err(MemoryError::Exhausted)) | None => self.carry_out_in_pieces(chain, regions, memory),
            Some(Err(error)) => self.refuse(error),
        };
        let (status, data_written) = match outcome {
            Ok(request) => {
                self.counters.count(request);
                (Status::Ok, request.bytes_told())
            }
            Err(status) => (status, 0),
        };
        self.counters.errors += u64::from(status != Status::Ok);
        let status_byte = [status as u8];
        let status_written = match whole {
            Some(Ok(pinned)) => pinned.write(chain.bytes() - 1, &status_byte),
            _ => {
                slice(regions, chain.bytes() - 1, 1, &mut self.piece);
                memory.pin(&self.piece).and_then(|pinned| pinned.write(0, &status_byte))
            }
        };
        match status_written {
            // Ours: the guest would take whatever its status byte held for our answer.
            Err(MemoryError::Exhausted) => Err(MemoryError::Exhausted.into()),
            // The guest's: it gets nothing back but the chain.
            Err(_) => Ok(0),
            Ok(()) => Ok(data_written + u32::from(data_written == data_bytes)),
        }
    }

    /// Carries out a request that is pinned as a whole.
    fn carry_out(&mut self, chain: &Chain, pinned: &P) -> Result<Request, Status> {
        let request = self.read_request(chain, pinned)?;
        let data = chain.readable_bytes;
        match request {
            Request::Read { sector, length } => {
                self.execute(Operation::Read { sector, offset: data, length }, pinned)?;
            }
            Request::Write { sector, length } => {
                self.execute(Operation::Write { sector, offset: HEADER_BYTES, length }, pinned)?;
            }
            Request::Flush => self.execute(Operation::Flush, pinned)?,
            Request::GetId { length } => {
                let id = self.id.get(..length as usize).unwrap_or_default();
                pinned.write(data, id).or_else(|error| self.refuse(&error))?;
            }
            Request::Discard { count } => self.execute_ranges(count, RangeKind::Discard, pinned)?,
            Request::WriteZeroes { count } => self.execute_ranges(count, RangeKind::WriteZeroes, pinned)?,
        }
        Ok(request)
    }

    /// Carries out a read or write that is too large to be pinned as a whole, or for which too few slots are free: in
    /// pieces, which get smaller while they do not fit.
    fn carry_out_in_pieces<M: GuestMemory<Pinned = P>>(
        &mut self,
        chain: &Chain,
        regions: &[GuestRegion],
        memory: &M,
    ) -> Result<Request, Status> {
        slice(regions, 0, HEADER_BYTES, &mut self.piece);
        let pinned = memory.pin(&self.piece).or_else(|error| self.refuse(&error))?;
        let request = self.read_request(chain, &pinned)?;
        drop(pinned);
        let (mut sector, length, data) = match request {
            Request::Read { sector, length } => (sector, length, chain.readable_bytes),
            Request::Write { sector, length } => (sector, length, HEADER_BYTES),
            _ => return self.refuse(&"too large for what it is"),
        };
        let mut most = LARGE_BYTES;
        let mut done = 0;
        while done < length {
            let bytes = (length - done).min(most);
            slice(regions, data + done, bytes, &mut self.piece);
            let pinned = match memory.pin(&self.piece) {
                Err(MemoryError::Exhausted) if most > LEAST_PIECE_BYTES => {
                    most /= 2;
                    continue;
                }
                pinned => pinned.or_else(|error| self.refuse(&error))?,
            };
            let operation = match request {
                Request::Read { .. } => Operation::Read { sector, offset: 0, length: bytes },
                _ => Operation::Write { sector, offset: 0, length: bytes },
            };
            self.execute(operation, &pinned)?;
            sector += u64::from(bytes) / SECTOR_BYTES;
            done += bytes;
        }
        Ok(request)
    }

    /// Copies and checks what is asked for; `pinned` starts with the header.
    fn read_request(&mut self, chain: &Chain, pinned: &P) -> Result<Request, Status> {
        let Some(readable_data) = chain.readable_bytes.checked_sub(HEADER_BYTES) else {
            return self.refuse(&"request without a whole header");
        };
        let mut header = Header::default();
        pinned.read(0, header.as_mut_bytes()).or_else(|error| self.refuse(&error))?;
        request::parse(header, readable_data, chain.writable_bytes - 1, self.geometry)
    }

    /// All ranges are checked before the first is carried out.
    fn execute_ranges(&mut self, count: u32, kind: RangeKind, pinned: &P) -> Result<(), Status> {
        let mut bytes = [0; (MAX_RANGES * RANGE_BYTES) as usize];
        let bytes = bytes.get_mut(..(count * RANGE_BYTES) as usize).unwrap_or_default();
        pinned.read(HEADER_BYTES, bytes).or_else(|error| self.refuse(&error))?;
        let ranges = request::ranges(bytes);
        for raw in ranges {
            request::parse_range(*raw, kind, self.geometry)?;
        }
        for raw in ranges {
            let range = request::parse_range(*raw, kind, self.geometry)?;
            let (sector, sectors) = (range.sector, range.sectors);
            let operation = match kind {
                RangeKind::Discard => Operation::Discard { sector, sectors },
                RangeKind::WriteZeroes => Operation::WriteZeroes { sector, sectors },
            };
            self.execute(operation, pinned)?;
        }
        Ok(())
    }

    fn execute(&mut self, operation: Operation, pinned: &P) -> Result<(), Status> {
        self.volume.execute(operation, pinned).or_else(|error| self.refuse(&error))
    }

    /// An error answer, with a line in the log for the first since the reset.
    fn refuse<T>(&mut self, reason: &dyn core::fmt::Display) -> Result<T, Status> {
        if self.complaints.may_speak() {
            log::warn!("{}: request failed: {reason} (said once per reset)", self.name);
        }
        Err(Status::IoError)
    }
}
