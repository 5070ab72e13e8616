//! The virtio-blk device model (virtio 1.2, 5.2): drains the queue, carries requests out on a [`Volume`].
//!
//! Every request that has a byte for its status is answered: with an error when it makes no sense, when its memory
//! is not there, when the volume fails. Only a request without that byte, or a malformed chain, ends the queue.
//!
//! | file | job |
//! |---|---|
//! | [`config`] | features and configuration space |
//! | [`request`] | bytes to a checked request |
//! | `requests` | requests carried out, until they are answered |

pub mod config;
pub mod request;
mod requests;

use super::batch::{Batch, Bounds};
use super::queue::{MAX_BATCH, Queue, QueueError};
use super::{Device, Features, QueueIndex, Served};
use crate::block::Volume;
use crate::guest::{GuestMemory, MemoryError, PinnedMemory};
use crate::sys;
use alloc::boxed::Box;
use alloc::string::String;
use config::Config;
use request::Request;
use requests::Requests;

const QUEUE_SIZES: [u16; 1] = [super::queue::MAX_SIZE];

/// No further request is taken once those of a batch have this many bytes.
const ENOUGH_BYTES: u32 = 1 << 20;

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

impl Counters {
    fn count_batch(&mut self, duration_ns: u64) {
        self.batches += 1;
        self.busy_ns = self.busy_ns.wrapping_add(duration_ns);
        self.longest_batch_ns = self.longest_batch_ns.max(duration_ns);
    }

    fn count(&mut self, request: Request) {
        match request {
            Request::Read { length, .. } => {
                self.reads += 1;
                self.bytes_read += u64::from(length);
            }
            Request::Write { length, .. } => {
                self.writes += 1;
                self.bytes_written += u64::from(length);
            }
            Request::Flush => self.flushes += 1,
            Request::Discard { .. } | Request::WriteZeroes { .. } => self.discards += 1,
            Request::GetId { .. } => {}
        }
    }
}

/// A virtio-blk device.
pub struct BlockDevice<P> {
    config: Config,
    requests: Requests<P>,
    batch: Batch,
}

impl<P: PinnedMemory> BlockDevice<P> {
    /// A device over `volume`. Log lines start with `name`; `serial` is what VIRTIO_BLK_T_GET_ID tells the guest, of which
    /// the first 20 bytes count.
    #[must_use]
    pub fn new(name: String, serial: &str, volume: Box<dyn Volume<P>>) -> Self {
        let config = Config::new(volume.geometry());
        Self { config, requests: Requests::new(name, serial, volume), batch: Batch::default() }
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.requests.counters
    }

    fn serve_batch<M: GuestMemory<Pinned = P>>(
        &mut self,
        queue: &mut Queue<P>,
        memory: &M,
    ) -> Result<Served, QueueError> {
        let batch = &mut self.batch;
        let requests = &mut self.requests;
        batch.done.clear();
        if requests.under_way() {
            while batch.done.len() < MAX_BATCH
                && let Some(answered) = requests.finish_next()
            {
                batch.done.extend(answered);
            }
            while batch.done.len() < MAX_BATCH
                && let Some(answered) = requests.go_on_next()
            {
                batch.done.extend(answered);
            }
            batch.done.extend(requests.go_on_cutting(memory));
        }
        let waiting = queue.waiting()?;
        // Not asked for nothing: who asks is in the row for a slot.
        let room = if waiting == 0 { 0 } else { u16::try_from(requests.room()).unwrap_or(u16::MAX) };
        if batch.done.is_empty() && waiting.min(room) == 0 {
            let stalled = waiting > 0;
            return Ok(Served { stalled, under_way: stalled || requests.under_way(), ..Served::default() });
        }
        let start_ns = sys::now_ns();
        let bounds = Bounds {
            chains: waiting.min(room),
            bytes: ENOUGH_BYTES,
            large_bytes: requests.whole_bytes_max(),
        };
        let mut broken = batch.fill(queue, memory, bounds).err();
        let mut started = 0;
        for chain in &batch.chains {
            // One that could not be pinned as a whole leaves no room for the others.
            if requests.room() == 0 {
                break;
            }
            let regions = batch.regions.get(chain.regions.clone()).unwrap_or_default();
            match requests.start(chain, regions, memory) {
                Ok(answered) => batch.done.extend(answered),
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
            started += 1;
        }
        queue.put_back(batch.chains.get(started..).unwrap_or_default());
        // Our own requests hold pins, and will give them back.
        let exhausted = broken == Some(QueueError::Memory(MemoryError::Exhausted)) && requests.under_way();
        if exhausted {
            broken = None;
        }
        queue.complete(&batch.done)?;
        let interrupt = queue.wants_interrupt()?;
        requests.counters.count_batch(sys::now_ns().saturating_sub(start_ns));
        let waits = started < usize::from(waiting);
        let stalled = waits && (exhausted || requests.room() == 0);
        Ok(Served {
            requests: u32::try_from(batch.done.len()).unwrap_or(u32::MAX),
            interrupt,
            more: waits && !stalled,
            stalled,
            under_way: stalled || requests.under_way(),
            broken,
            ..Served::default()
        })
    }
}

impl<M: GuestMemory> Device<M> for BlockDevice<M::Pinned> {
    fn name(&self) -> &str {
        &self.requests.name
    }

    fn id(&self) -> u32 {
        config::DEVICE_ID
    }

    fn features(&self) -> Features {
        config::features(self.requests.geometry)
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u32, out: &mut [u8]) {
        self.config.read(offset, out);
    }

    fn read_refused_config(&self, offset: u32, out: &mut [u8]) {
        Config::refused().read(offset, out);
    }

    fn write_config(&mut self, _offset: u32, _data: &[u8]) {}

    fn activate(&mut self, accepted: Features) {
        self.requests.write_through = self.requests.geometry.has_cache && !accepted.contains(config::FLUSH);
    }

    fn resume(&mut self, accepted: Features) {
        Device::<M>::activate(self, accepted);
    }

    fn reset(&mut self) {
        self.requests.cancel();
        self.requests.complaints.reset();
    }

    fn has_work(&self) -> bool {
        false
    }

    fn is_polled(&self, _index: QueueIndex) -> bool {
        true
    }

    fn take_config_change(&mut self) -> bool {
        false
    }

    fn serve(&mut self, _index: QueueIndex, queue: &mut Queue<M::Pinned>, memory: &M) -> Served {
        let served = self.serve_batch(queue, memory);
        served.unwrap_or_else(|error| Served { broken: Some(error), ..Served::default() })
    }
}
