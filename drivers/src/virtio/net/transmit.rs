//! The transmit queue (virtio 1.2, 5.1.6.2): frames copied out of the guest, checked, and sent to the bridge.
//!
//! Header and frame are copied once, those of all chains together where that costs less. A frame that must not be sent is
//! dropped and its chain done all the same: only a chain without room for a header, or a malformed one, ends the queue.
//! Writable buffers of a chain are nothing to us: they stay as they are.
//!
//! A frame for a port that has no place for it at the moment stays in the guest's ring, with all behind it, for as long as the
//! bridge has them wait. Then it is copied and checked anew: nothing of it is kept.
//!
//! That a frame is sent is news to nobody: the guest gets its buffer back with the next interrupt that it has, most often for
//! an answer. An interrupt for that alone comes when [`OWED_MAX`] frames are sent, when none has followed for
//! [`PATIENCE_NS`], or when there is nothing else to do.

use super::Common;
use super::header::{HEADER_BYTES, Header, HeaderError};
use crate::guest::{GuestAddress, GuestMemory, GuestRegion, MemoryError};
use crate::net::frame::{Blank, ETHERNET_BYTES, FRAME_BYTES_MAX, Frame, WIRE_BYTES_MAX, is_large};
use crate::net::offload::{Offload, OffloadError};
use crate::sys;
use crate::virtio::batch::Bounds;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{MAX_BATCH, Queue, QueueError, Used};
use crate::virtio::{Features, Served};
use alloc::vec::Vec;

/// No further frame is taken in a call once those taken have this many bytes.
const ENOUGH_BYTES: u32 = 192 << 10;

/// So many frames that were sent are told of at once: a guest never waits with a ring that is half full.
const OWED_MAX: u16 = 64;
/// Fewer are told of when none has followed for so long: a guest that may have few frames under way waits for them.
const PATIENCE_NS: u64 = 150_000;

/// Lengths that a frame can have here.
const LENGTHS: core::ops::RangeInclusive<usize> = ETHERNET_BYTES..=FRAME_BYTES_MAX;

/// Large buffers that a call uses: others need some, too, and receivers have their turn in between.
const LARGE_BUFFERS: usize = 4;

/// How many of `chains`, from the first on, do with [`LARGE_BUFFERS`].
fn few_large(chains: &[Chain]) -> usize {
    let mut large = 0;
    let fits = |chain: &&Chain| {
        large += usize::from(is_large((chain.readable_bytes as usize).saturating_sub(HEADER_BYTES)));
        large <= LARGE_BUFFERS
    };
    chains.iter().take_while(fits).count()
}

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Refusal {
    #[error("a frame of {0} bytes")]
    Length(usize),
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("{0}")]
    Offload(#[from] OffloadError),
    #[error("{0}")]
    Memory(#[from] MemoryError),
}

/// A frame that is being copied.
struct Draft {
    header: [u8; HEADER_BYTES],
    length: usize,
    /// None if it is dropped.
    blank: Option<Blank>,
}

impl Draft {
    /// Room for the frame of `chain`, if it has a length that frames have, from whoever gives buffers for so many bytes.
    fn new(chain: &Chain, buffer: impl FnOnce(usize) -> Option<Blank>) -> Self {
        let length = (chain.readable_bytes as usize).saturating_sub(HEADER_BYTES);
        let blank = if LENGTHS.contains(&length) { buffer(length) } else { None };
        Self { header: [0; HEADER_BYTES], length, blank }
    }

    /// Whether it is dropped for want of a buffer alone.
    fn lacks_buffer(&self) -> bool {
        self.blank.is_none() && LENGTHS.contains(&self.length)
    }

    /// Where the bytes of its chain go, which has its buffers in `regions`.
    fn parts<'a>(&'a mut self, chain: &Chain, regions: &'a [GuestRegion]) -> Parts<'a> {
        let (header, frame) = match &mut self.blank {
            Some(blank) => (self.header.as_mut_slice(), blank.bytes_mut()),
            None => Default::default(),
        };
        let regions = regions.get(chain.regions.clone()).unwrap_or_default();
        Parts { regions: regions.iter(), address: 0, left: 0, header, frame }
    }

    /// The frame, if a driver that `accepted` these features may send it, and there was a buffer for it.
    fn finish(self, accepted: Features) -> Result<Option<Frame>, Refusal> {
        let length = self.length;
        let Some(blank) = self.blank else {
            return if LENGTHS.contains(&length) { Ok(None) } else { Err(Refusal::Length(length)) };
        };
        let allegation = Header::from(self.header).allegation(accepted)?;
        if length > WIRE_BYTES_MAX && allegation.segmentation.is_none() {
            return Err(Refusal::Length(length));
        }
        let offload = Offload::check(allegation, blank.bytes())?;
        Ok(Some(blank.finish(offload)))
    }
}

/// The stretches of guest memory that a chain's bytes are in, each with its place with us.
struct Parts<'a> {
    regions: core::slice::Iter<'a, GuestRegion>,
    /// What is left of the region under way.
    address: u64,
    left: u32,
    /// What is left to be filled.
    header: &'a mut [u8],
    frame: &'a mut [u8],
}

impl<'a> Iterator for Parts<'a> {
    type Item = (GuestAddress, &'a mut [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let to = if self.header.is_empty() { &mut self.frame } else { &mut self.header };
        if to.is_empty() {
            return None;
        }
        if self.left == 0 {
            let region = self.regions.next()?;
            (self.address, self.left) = (region.address.0, region.length);
        }
        let length = self.left.min(u32::try_from(to.len()).unwrap_or(u32::MAX));
        let part = to.split_off_mut(..length as usize)?;
        let address = GuestAddress(self.address);
        self.address = self.address.saturating_add(length.into());
        self.left -= length;
        Some((address, part))
    }
}

/// The transmit queue's side of a device.
pub struct Transmit {
    /// Work space: a draft for each chain of a batch.
    drafts: Vec<Draft>,
    /// When the last one was sent.
    sent_ns: u64,
}

impl Default for Transmit {
    fn default() -> Self {
        Self { drafts: Vec::with_capacity(MAX_BATCH), sent_ns: 0 }
    }
}

impl Transmit {
    /// Sends frames that wait in the queue, a bounded number.
    ///
    /// # Errors
    /// The rings are out of reach or their index is wrong.
    pub fn serve<M: GuestMemory>(
        &mut self,
        queue: &mut Queue<M::Pinned>,
        memory: &M,
        common: &mut Common,
    ) -> Result<Served, QueueError> {
        let waiting = queue.waiting()?;
        let is_held = waiting > 0 && common.port.is_held(sys::now_ns());
        if waiting == 0 || is_held {
            let is_late = queue.untold() > 0 && sys::now_ns().saturating_sub(self.sent_ns) >= PATIENCE_NS;
            let interrupt = is_late && queue.wants_interrupt()?;
            let served = Served { interrupt, owes_interrupt: queue.untold() > 0, ..Served::default() };
            return Ok(Served { stalled: is_held, under_way: is_held, ..served });
        }
        let bounds = Bounds { chains: waiting, bytes: ENOUGH_BYTES, large_bytes: u32::MAX };
        common.batch.clear();
        common.batch.done.clear();
        let mut broken = common.batch.take(queue, memory, bounds).err();
        let has_header = |chain: &&Chain| chain.readable_bytes as usize >= HEADER_BYTES;
        let well_formed = common.batch.chains.iter().take_while(has_header).count();
        if well_formed < common.batch.chains.len() {
            broken = Some(QueueError::NoHeader);
        }
        let whole = few_large(common.batch.chains.get(..well_formed).unwrap_or_default());
        let is_held = !self.send_all(memory, common, whole);
        let sent = common.batch.done.len();
        if sent < well_formed {
            // What is wrong behind them shows when it is their turn.
            queue.put_back(common.batch.chains.get(sent..).unwrap_or_default());
            broken = None;
        }
        queue.complete(&common.batch.done)?;
        let interrupt = queue.untold() >= OWED_MAX && queue.wants_interrupt()?;
        Ok(Served {
            requests: u32::try_from(sent).unwrap_or(u32::MAX),
            interrupt,
            owes_interrupt: queue.untold() > 0,
            more: !is_held && sent < usize::from(waiting),
            stalled: is_held,
            under_way: is_held,
            broken,
            ..Served::default()
        })
    }

    /// Copies the frames of the first `count` chains of the batch, as many as there are buffers for, and sends those that may be
    /// sent. Returns false if it left off at one that has to wait.
    fn send_all<M: GuestMemory>(&mut self, memory: &M, common: &mut Common, count: usize) -> bool {
        let Common { port, accepted, batch, record, .. } = common;
        let (regions, done) = (&batch.regions, &mut batch.done);
        let chains = batch.chains.get(..count).unwrap_or_default();
        self.drafts.clear();
        for chain in chains {
            // Only the first one is dropped for want of a buffer: the others have their turn after it.
            let is_first = self.drafts.is_empty();
            let buffer = |bytes| if is_first { port.blank(bytes) } else { port.blank_if_any(bytes) };
            let draft = Draft::new(chain, buffer);
            if !is_first && draft.lacks_buffer() {
                break;
            }
            self.drafts.push(draft);
        }
        let drafts = self.drafts.iter_mut().zip(chains);
        let read_all = memory.read_together(drafts.flat_map(|(draft, chain)| draft.parts(chain, regions)));
        let now_ns = sys::now_ns();
        self.sent_ns = now_ns;
        for (mut draft, chain) in self.drafts.drain(..).zip(chains) {
            let read = if read_all {
                Ok(())
            } else {
                draft.parts(chain, regions).try_for_each(|(address, part)| memory.read(address, part))
            };
            match read.map_err(Refusal::from).and_then(|()| draft.finish(*accepted)) {
                Ok(Some(frame)) => {
                    if !port.send_or_wait(&frame, now_ns) {
                        return false;
                    }
                    record.counters.frames_sent += 1;
                    record.counters.bytes_sent += frame.bytes().len() as u64;
                }
                Ok(None) => record.counters.send_drops += 1,
                Err(reason) => record.refuse(&reason),
            }
            done.push(Used { id: chain.head, length: 0 });
        }
        true
    }
}
