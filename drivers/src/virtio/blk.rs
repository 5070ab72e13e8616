//! The virtio-blk device model (virtio 1.2, 5.2): drains the queue, carries requests out on a [`Volume`].
//!
//! Every request that has a byte for its status is answered: with an error when it makes no sense, when its memory
//! is not there, when the volume fails. Only a request without that byte, or a malformed chain, ends the queue.
//!
//! | file | job |
//! |---|---|
//! | [`config`] | features and configuration space |
//! | [`request`] | bytes to a checked request |

pub mod config;
pub mod request;

use super::batch::{Batch, LARGE_BYTES};
use super::chain::{Chain, MAX_SEGMENTS, slice};
use super::complaints::Complaints;
use super::queue::{Queue, QueueError, Used};
use super::{Device, Features, QueueIndex, Served};
use crate::block::{Geometry, Operation, SECTOR_BYTES, Volume};
use crate::guest::{GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use crate::sys;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use config::{Config, MAX_RANGES};
use request::{HEADER_BYTES, Header, ID_BYTES, RANGE_BYTES, RangeKind, Request, Status};
use zerocopy::IntoBytes;

const QUEUE_SIZES: [u16; 1] = [super::queue::MAX_SIZE];

/// What a device did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards and write-zeroes.
    pub discards: u64,
    /// Bytes read by the guest.
    pub bytes_read: u64,
    /// Bytes written by the guest.
    pub bytes_written: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Batches of requests.
    pub batches: u64,
    /// Time spent on batches.
    pub busy_ns: u64,
    /// The longest time spent on one.
    pub longest_batch_ns: u64,
}

/// A virtio-blk device.
pub struct BlockDevice<P> {
    name: String,
    id: [u8; ID_BYTES as usize],
    volume: Box<dyn Volume<P>>,
    geometry: Geometry,
    config: Config,
    counters: Counters,
    batch: Batch,
    piece: Vec<GuestRegion>,
    complaints: Complaints,
}

impl<P: PinnedMemory> BlockDevice<P> {
    /// A device over `volume`. Log lines start with `name`; `serial` is what VIRTIO_BLK_T_GET_ID tells the guest, of which
    /// the first 20 bytes count.
    #[must_use]
    pub fn new(name: String, serial: &str, volume: Box<dyn Volume<P>>) -> Self {
        let mut id = [0; ID_BYTES as usize];
        id.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        let geometry = volume.geometry();
        Self {
            name,
            id,
            volume,
            geometry,
            config: Config::new(geometry),
            counters: Counters::default(),
            batch: Batch::default(),
            piece: Vec::with_capacity(MAX_SEGMENTS),
            complaints: Complaints::default(),
        }
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn serve_batch<M: GuestMemory<Pinned = P>>(
        &mut self,
        queue: &mut Queue<P>,
        memory: &M,
        batch: &mut Batch,
    ) -> Result<Served, QueueError> {
        let waiting = queue.waiting()?;
        if waiting == 0 {
            return Ok(Served::default());
        }
        let start_ns = sys::now_ns();
        let mut broken = batch.fill(queue, memory, waiting).err();
        for chain in &batch.chains {
            let regions = batch.regions.get(chain.regions.clone()).unwrap_or_default();
            match self.answer(chain, regions, memory) {
                Ok(length) => batch.done.push(Used { id: chain.head, length }),
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        queue.complete(&batch.done)?;
        let interrupt = queue.wants_interrupt()?;
        self.count_batch(sys::now_ns().saturating_sub(start_ns));
        let requests = batch.done.len();
        Ok(Served {
            requests: u32::try_from(requests).unwrap_or(u32::MAX),
            interrupt,
            more: requests < usize::from(waiting),
            broken,
        })
    }

    /// Carries one request out and writes its status; returns how many bytes were written from the start of the
    /// writable part on. When this returns, none of the request's pages is pinned.
    fn answer<M: GuestMemory<Pinned = P>>(
        &mut self,
        chain: &Chain,
        regions: &[GuestRegion],
        memory: &M,
    ) -> Result<u32, QueueError> {
        let data_bytes = chain.writable_bytes.checked_sub(1).ok_or(QueueError::NoStatus)?;
        let whole = (chain.bytes() <= LARGE_BYTES).then(|| memory.pin(regions));
        let outcome = match &whole {
            Some(Ok(pinned)) => self.carry_out(chain, pinned),
            Some(Err(error)) => self.refuse(error),
            None => self.carry_out_large(chain, regions, memory),
        };
        let (status, data_written) = match outcome {
            Ok(written) => (Status::Ok, written),
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

    /// Carries out a request that is pinned as a whole. Returns the data bytes written to the guest.
    fn carry_out(&mut self, chain: &Chain, pinned: &P) -> Result<u32, Status> {
        let request = self.read_request(chain, pinned)?;
        match request {
            Request::Read { sector, length } => {
                self.execute(Operation::Read { sector, offset: chain.readable_bytes, length }, pinned)?;
                Ok(length)
            }
            Request::Write { sector, length } => {
                self.execute(Operation::Write { sector, offset: HEADER_BYTES, length }, pinned)?;
                Ok(0)
            }
            Request::Flush => {
                self.execute(Operation::Flush, pinned)?;
                Ok(0)
            }
            Request::GetId { length } => {
                let id = self.id.get(..length as usize).unwrap_or_default();
                pinned.write(chain.readable_bytes, id).or_else(|error| self.refuse(&error))?;
                Ok(length)
            }
            Request::Discard { count } => self.execute_ranges(count, RangeKind::Discard, pinned),
            Request::WriteZeroes { count } => self.execute_ranges(count, RangeKind::WriteZeroes, pinned),
        }
    }

    /// Carries out a read or write that is too large to be pinned as a whole.
    fn carry_out_large<M: GuestMemory<Pinned = P>>(
        &mut self,
        chain: &Chain,
        regions: &[GuestRegion],
        memory: &M,
    ) -> Result<u32, Status> {
        slice(regions, 0, HEADER_BYTES, &mut self.piece);
        let pinned = memory.pin(&self.piece).or_else(|error| self.refuse(&error))?;
        let request = self.read_request(chain, &pinned)?;
        drop(pinned);
        let (first, length, data) = match request {
            Request::Read { sector, length } => (sector, length, chain.readable_bytes),
            Request::Write { sector, length } => (sector, length, HEADER_BYTES),
            _ => return Err(Status::IoError),
        };
        let mut sector = first;
        let mut done = 0;
        while done < length {
            let piece_bytes = (length - done).min(LARGE_BYTES);
            slice(regions, data + done, piece_bytes, &mut self.piece);
            let pinned = memory.pin(&self.piece).or_else(|error| self.refuse(&error))?;
            let operation = match request {
                Request::Read { .. } => Operation::Read { sector, offset: 0, length: piece_bytes },
                _ => Operation::Write { sector, offset: 0, length: piece_bytes },
            };
            self.execute(operation, &pinned)?;
            sector += u64::from(piece_bytes) / SECTOR_BYTES;
            done += piece_bytes;
        }
        Ok(if matches!(request, Request::Read { .. }) { length } else { 0 })
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
    fn execute_ranges(&mut self, count: u32, kind: RangeKind, pinned: &P) -> Result<u32, Status> {
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
        Ok(0)
    }

    fn execute(&mut self, operation: Operation, pinned: &P) -> Result<(), Status> {
        if let Err(error) = self.volume.execute(operation, pinned) {
            return self.refuse(&error);
        }
        let counters = &mut self.counters;
        match operation {
            Operation::Read { length, .. } => {
                counters.reads += 1;
                counters.bytes_read += u64::from(length);
            }
            Operation::Write { length, .. } => {
                counters.writes += 1;
                counters.bytes_written += u64::from(length);
            }
            Operation::Flush => counters.flushes += 1,
            Operation::Discard { .. } | Operation::WriteZeroes { .. } => counters.discards += 1,
        }
        Ok(())
    }

    /// An error answer, with a line in the log for the first since the reset.
    fn refuse<T>(&mut self, reason: &dyn core::fmt::Display) -> Result<T, Status> {
        if self.complaints.may_speak() {
            log::warn!("{}: request failed: {reason} (said once per reset)", self.name);
        }
        Err(Status::IoError)
    }

    fn count_batch(&mut self, duration_ns: u64) {
        let counters = &mut self.counters;
        counters.batches += 1;
        counters.busy_ns = counters.busy_ns.wrapping_add(duration_ns);
        counters.longest_batch_ns = counters.longest_batch_ns.max(duration_ns);
    }
}

impl<M: GuestMemory> Device<M> for BlockDevice<M::Pinned> {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> u32 {
        config::DEVICE_ID
    }

    fn features(&self) -> Features {
        config::features(self.geometry)
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u32, out: &mut [u8]) {
        let rest = self.config.as_bytes().get(offset as usize..).unwrap_or_default();
        out.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }

    fn reset(&mut self) {
        self.complaints.reset();
    }

    fn serve(&mut self, _index: QueueIndex, queue: &mut Queue<M::Pinned>, memory: &M) -> Served {
        let mut batch = core::mem::take(&mut self.batch);
        let served = self.serve_batch(queue, memory, &mut batch);
        self.batch = batch;
        served.unwrap_or_else(|error| Served { broken: Some(error), ..Served::default() })
    }
}
