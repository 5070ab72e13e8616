//! The split virtqueue (virtio 1.2, 2.7), device side: pop heads, push used elements, decide on notifications.
//!
//! The rings stay pinned from QueueReady to the reset. The guest writes to them from other CPUs while we read:
//! every field is copied once and the copy is checked. Layout, for a queue of `n` descriptors:
//!
//! | ring | bytes | align | content |
//! |---|---|---|---|
//! | descriptors | 16 n | 16 | address u64, length u32, flags u16, next u16 |
//! | available | 6 + 2 n | 2 | flags u16, index u16, head u16 × n, `used_event` u16 |
//! | used | 6 + 8 n | 4 | flags u16, index u16, (id u32, length u32) × n, `avail_event` u16 |
//!
//! Neighbours: [`super::mmio`] makes the queue, [`super::batch`] and the device models drive it.

use super::Features;
use super::chain::{Chain, Descriptor};
use super::handover::{InFlight, Listed};
use crate::guest::{Access, GuestAddress, GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use smallvec::SmallVec;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

/// The largest queue we offer. One indirect request of a full queue fills at most a page with its table.
pub const MAX_SIZE: u16 = 256;

/// Most heads popped, and used elements pushed, in one go.
pub const MAX_BATCH: usize = 32;

const DESCRIPTOR_BYTES: u32 = 16;
const HEAD_BYTES: u32 = 2;
const USED_ELEMENT_BYTES: u32 = 8;
/// Both rings begin with flags and index.
const FLAGS: u32 = 0;
const INDEX: u32 = 2;
const ENTRIES: u32 = 4;
/// VIRTQ_AVAIL_F_NO_INTERRUPT (virtio 1.2, 2.7.6)
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY (virtio 1.2, 2.7.8)
const NO_NOTIFY: u16 = 1;

/// The guest broke a rule after which the ring cannot be trusted: the device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The available index is further ahead than the queue is long.
    #[error("available index runs {0} ahead")]
    IndexTooFarAhead(u16),
    /// A head, or a `next`, names a descriptor that the table does not have.
    #[error("descriptor {0} is outside its table")]
    NoSuchDescriptor(u16),
    /// The chain has more descriptors than a queue, or loops.
    #[error("descriptor chain too long or looping")]
    ChainTooLong,
    /// The buffers of the chain, or one of them, are larger than can be addressed.
    #[error("descriptor length wraps around")]
    LengthWraps,
    /// A device-readable descriptor after a device-writable one.
    #[error("readable descriptor after a writable one")]
    ReadableAfterWritable,
    /// An indirect table that is nested, chained on, not negotiated, empty or not a whole number of descriptors.
    #[error("malformed indirect descriptor")]
    BadIndirect,
    /// A request without a byte to write its status to.
    #[error("request without room for its status")]
    NoStatus,
    /// Buffers of a frame without room for the header before it.
    #[error("buffers without room for a frame's header")]
    NoHeader,
    /// A buffer that is to be filled, which the device may only read.
    #[error("readable descriptor where a frame is to be received")]
    NotWritable,
    /// A ring or an indirect table cannot be reached.
    #[error("ring: {0}")]
    Memory(#[from] MemoryError),
}

/// Why a queue could not be made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Not a power of two from 1 to the largest size offered.
    #[error("queue size {0} is not a power of two within the limit")]
    Size(u32),
    /// A ring is not aligned as the specification wants.
    #[error("ring at {0:#x} is misaligned")]
    Misaligned(u64),
    /// The rings cannot be pinned.
    #[error("rings: {0}")]
    Memory(#[from] MemoryError),
    /// What is written down of the requests under way cannot be believed.
    #[error("the requests under way are not known any more")]
    NotKnown,
    /// What is offered now is not what the driver accepted.
    #[error("the device is not what it was")]
    OtherFeatures,
}

/// What the guest wrote to the queue's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// Number of descriptors.
    pub size: u32,
    /// Guest address of the descriptor table.
    pub descriptors: u64,
    /// Guest address of the available ring ("driver area").
    pub available: u64,
    /// Guest address of the used ring ("device area").
    pub used: u64,
}

/// Tells the driver that the chain starting at `id` is done, `length` bytes having been written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The head.
    pub id: u16,
    /// Bytes written from the chain's first writable byte on.
    pub length: u32,
}

#[derive(Clone, Copy, Default, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct UsedElement {
    id: U32,
    length: U32,
}

/// Heads popped together.
pub type Heads = SmallVec<[u16; MAX_BATCH]>;

/// A queue that is ready, over its pinned rings.
#[derive(Clone, Debug)]
pub struct Queue<P> {
    size: u16,
    descriptors: P,
    available: P,
    used: P,
    next_available: u16,
    next_used: u16,
    /// The used index up to which the last interrupt decision was made.
    decided_used: u16,
    features: Features,
    kicks_suppressed: bool,
    in_flight: Option<&'static InFlight>,
    /// Of a queue that was taken over: heads that are off the available ring and are to be taken again, the first one last.
    again: Option<Vec<u16>>,
}

impl<P: PinnedMemory> Queue<P> {
    /// Pins the rings that `settings` name. The heads under way are kept in `in_flight`, too, for a successor.
    ///
    /// # Errors
    /// [`SetupError`] when the settings are not legal, or not to be had.
    pub fn new<M: GuestMemory<Pinned = P>>(
        settings: QueueSettings,
        largest: u16,
        features: Features,
        memory: &M,
        in_flight: Option<&'static InFlight>,
    ) -> Result<Self, SetupError> {
        let queue = Self::pinned(settings, largest, features, memory, in_flight)?;
        in_flight.inspect(|in_flight| in_flight.begin(0));
        Ok(queue)
    }

    /// Takes over a queue that another kernel had got from [`Self::new`]: the heads that it took and did not give back are
    /// taken again, in the order of the ring, before those that wait there.
    ///
    /// # Errors
    /// As [`Self::new`]; [`SetupError::NotKnown`].
    pub fn resume<M: GuestMemory<Pinned = P>>(
        settings: QueueSettings,
        largest: u16,
        features: Features,
        memory: &M,
        in_flight: &'static InFlight,
    ) -> Result<Self, SetupError> {
        let (mut heads, noted) = in_flight.read().ok_or(SetupError::NotKnown)?;
        let mut queue = Self::pinned(settings, largest, features, memory, Some(in_flight))?;
        // The guest can write here what it likes: it is its own requests that are then done twice, or never.
        let published = queue.used.load_u16(INDEX)?;
        // Some of the heads given back may be off the list already: their number says nothing.
        let is_possible = published.wrapping_sub(noted) <= queue.size;
        queue.next_used = if is_possible { published } else { noted };
        for index in 0..queue.next_used.wrapping_sub(noted) {
            let mut id = U16::ZERO;
            let slot = u32::from(queue.slot(noted.wrapping_add(index)));
            queue.used.read(ENTRIES + slot * USED_ELEMENT_BYTES, id.as_mut_bytes())?;
            heads.retain(|head| *head != id.get());
            in_flight.remove(id.get());
        }
        in_flight.note(queue.next_used);
        queue.next_available = queue.next_used.wrapping_add(count(heads.len()));
        queue.decided_used = queue.next_used;
        // Who knows what was asked for: the next wish is told in any case.
        queue.kicks_suppressed = true;
        queue.again = Some(queue.last_first(&mut heads)?);
        Ok(queue)
    }

    /// `heads`, all of which were taken, in the order of the ring, the last one first.
    fn last_first(&self, heads: &mut Listed) -> Result<Vec<u16>, SetupError> {
        let mut again = Vec::new();
        again.try_reserve_exact(self.size.into()).map_err(|_| MemoryError::Exhausted)?;
        for back in 1..=self.size {
            let mut head = U16::ZERO;
            let slot = u32::from(self.slot(self.next_available.wrapping_sub(back)));
            self.available.read(ENTRIES + slot * HEAD_BYTES, head.as_mut_bytes())?;
            if let Some(index) = heads.iter().position(|listed| *listed == head.get()) {
                again.push(heads.swap_remove(index));
            }
        }
        // Those before them: the guest needs their places again when later ones were given back.
        again.extend(heads.drain(..).filter(|head| *head < self.size));
        Ok(again)
    }

    fn pinned<M: GuestMemory<Pinned = P>>(
        settings: QueueSettings,
        largest: u16,
        features: Features,
        memory: &M,
        in_flight: Option<&'static InFlight>,
    ) -> Result<Self, SetupError> {
        let size = match u16::try_from(settings.size) {
            Ok(size) if size.is_power_of_two() && size <= largest.min(MAX_SIZE) => size,
            _ => return Err(SetupError::Size(settings.size)),
        };
        let ring = |address: u64, access: Access, align: u64, header: u32, entry: u32| {
            if !address.is_multiple_of(align) {
                return Err(SetupError::Misaligned(address));
            }
            let length = header + entry * u32::from(size);
            Ok(memory.pin_ring(GuestRegion { address: GuestAddress(address), length }, access)?)
        };
        Ok(Self {
            size,
            descriptors: ring(settings.descriptors, Access::Read, 16, 0, DESCRIPTOR_BYTES)?,
            available: ring(settings.available, Access::Read, 2, ENTRIES + 2, HEAD_BYTES)?,
            used: ring(settings.used, Access::Write, 4, ENTRIES + 2, USED_ELEMENT_BYTES)?,
            next_available: 0,
            next_used: 0,
            decided_used: 0,
            features,
            kicks_suppressed: false,
            in_flight,
            again: None,
        })
    }

    /// Number of descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Whether descriptors may refer to tables.
    #[must_use]
    pub fn has_indirect(&self) -> bool {
        self.features.contains(Features::INDIRECT_DESC)
    }

    /// How many heads wait. What the guest wrote before it published them is visible afterwards.
    ///
    /// # Errors
    /// The index runs further ahead than the queue is long.
    #[inline]
    pub fn waiting(&self) -> Result<u16, QueueError> {
        let index = self.available.load_u16(INDEX)?;
        // Pairs with the driver's barrier between filling the ring and moving the index.
        self.available.fence(Ordering::Acquire);
        let waiting = index.wrapping_sub(self.next_available);
        if waiting > self.size {
            return Err(QueueError::IndexTooFarAhead(waiting));
        }
        Ok(waiting.saturating_add(self.to_take_again()))
    }

    fn to_take_again(&self) -> u16 {
        self.again.as_ref().map_or(0, |again| count(again.len()))
    }

    /// Copies the next heads, at most `count` (which [`Self::waiting`] allowed) and [`MAX_BATCH`], without
    /// taking them: [`Self::take`] does. May be fewer.
    ///
    /// # Errors
    /// The ring is out of reach. Whether the heads exist shows when their descriptors are copied.
    pub fn peek(&self, count: u16, heads: &mut Heads) -> Result<(), QueueError> {
        let mut raw = [U16::ZERO; MAX_BATCH];
        let count = usize::from(count).min(MAX_BATCH);
        if let Some(again) = self.again.as_ref().filter(|again| !again.is_empty()) {
            heads.clear();
            heads.extend(again.iter().rev().take(count).copied());
            return Ok(());
        }
        let start = self.slot(self.next_available);
        let until_end = usize::from(self.size - start);
        let copied = raw.get_mut(..count).unwrap_or_default();
        let (first, wrapped) = copied.split_at_mut(until_end.min(count));
        self.available.read(ENTRIES + u32::from(start) * HEAD_BYTES, first.as_mut_bytes())?;
        if !wrapped.is_empty() {
            self.available.read(ENTRIES, wrapped.as_mut_bytes())?;
        }
        heads.clear();
        heads.extend(copied.iter().map(|head| head.get()));
        Ok(())
    }

    /// Takes `heads`, the first ones that [`Self::peek`] found, off the available ring.
    pub fn take(&mut self, heads: &[u16]) {
        match self.again.as_mut().filter(|again| !again.is_empty()) {
            // They are on the list.
            Some(again) => again.truncate(again.len().saturating_sub(heads.len())),
            None => {
                if let Some(in_flight) = self.in_flight {
                    heads.iter().for_each(|head| in_flight.insert(*head));
                }
                self.next_available = self.next_available.wrapping_add(count(heads.len()));
            }
        }
    }

    /// Puts back what [`Self::take`] took last: the heads of these chains.
    #[inline]
    pub fn put_back(&mut self, chains: &[Chain]) {
        let heads = chains.iter().rev().map(|chain| chain.head);
        if let Some(again) = &mut self.again {
            again.extend(heads);
            return;
        }
        if let Some(in_flight) = self.in_flight {
            heads.for_each(|head| in_flight.remove(head));
        }
        self.next_available = self.next_available.wrapping_sub(count(chains.len()));
    }

    /// Copies descriptor `index` of the queue's own table.
    ///
    /// # Errors
    /// The table has no such descriptor.
    pub fn descriptor(&self, index: u16) -> Result<Descriptor, QueueError> {
        if index >= self.size {
            return Err(QueueError::NoSuchDescriptor(index));
        }
        Descriptor::read(&self.descriptors, index)
    }

    /// Gives chains back to the driver: all elements, then one store of the index.
    ///
    /// # Errors
    /// The used ring is out of reach.
    pub fn complete(&mut self, done: &[Used]) -> Result<(), QueueError> {
        for done in done.chunks(MAX_BATCH) {
            let element =
                |used: &Used| UsedElement { id: U32::new(used.id.into()), length: U32::new(used.length) };
            let elements: SmallVec<[UsedElement; MAX_BATCH]> = done.iter().map(element).collect();
            let start = self.slot(self.next_used);
            let until_end = usize::from(self.size - start);
            let (first, wrapped) = elements.split_at(until_end.min(elements.len()));
            self.used.write(ENTRIES + u32::from(start) * USED_ELEMENT_BYTES, first.as_bytes())?;
            if !wrapped.is_empty() {
                self.used.write(ENTRIES, wrapped.as_bytes())?;
            }
            self.next_used = self.next_used.wrapping_add(u16::try_from(done.len()).unwrap_or(0));
        }
        // The elements, and all data written for them, before the index that publishes them.
        self.used.fence(Ordering::Release);
        self.used.store_u16(INDEX, self.next_used)?;
        if let Some(in_flight) = self.in_flight {
            // After the index: what the guest was told of is never done again.
            core::sync::atomic::compiler_fence(Ordering::SeqCst);
            done.iter().for_each(|done| in_flight.remove(done.id));
            in_flight.note(self.next_used);
        }
        Ok(())
    }

    /// How many were completed since [`Self::wants_interrupt`] was asked.
    #[must_use]
    pub fn untold(&self) -> u16 {
        self.next_used.wrapping_sub(self.decided_used)
    }

    /// Whether the driver wants an interrupt for what was completed since the last call (virtio 1.2, 2.7.7).
    ///
    /// # Errors
    /// The available ring is out of reach.
    pub fn wants_interrupt(&mut self) -> Result<bool, QueueError> {
        let (old, new) = (self.decided_used, self.next_used);
        self.decided_used = new;
        if old == new {
            return Ok(false);
        }
        // The index before the question: the driver stores its answer, then looks at the index.
        self.used.fence(Ordering::SeqCst);
        if self.features.contains(Features::EVENT_IDX) {
            let used_event = self.available.load_u16(ENTRIES + u32::from(self.size) * HEAD_BYTES)?;
            return Ok(new.wrapping_sub(used_event).wrapping_sub(1) < new.wrapping_sub(old));
        }
        Ok(self.available.load_u16(FLAGS)? & NO_INTERRUPT == 0)
    }

    /// Asks the driver not to kick, because we will look at the ring anyway (virtio 1.2, 2.7.9).
    ///
    /// # Errors
    /// The used ring is out of reach.
    #[inline]
    pub fn suppress_kicks(&mut self) -> Result<(), QueueError> {
        // With the event index, silence is what the driver keeps until `enable_kicks` moves the event on.
        if !self.features.contains(Features::EVENT_IDX) && !self.kicks_suppressed {
            self.used.store_u16(FLAGS, NO_NOTIFY)?;
        }
        self.kicks_suppressed = true;
        Ok(())
    }

    /// Asks the driver to kick for the next head behind the `kept` ones that are left waiting, and says whether heads came
    /// before it could hear that: then there will be no kick for them.
    ///
    /// # Errors
    /// A ring is out of reach or its index is wrong.
    pub fn enable_kicks(&mut self, kept: u16) -> Result<bool, QueueError> {
        if self.features.contains(Features::EVENT_IDX) {
            let avail_event = ENTRIES + u32::from(self.size) * USED_ELEMENT_BYTES;
            // Those that are to be taken again are off the ring.
            let kept = kept.saturating_sub(self.to_take_again());
            self.used.store_u16(avail_event, self.next_available.wrapping_add(kept))?;
        } else if self.kicks_suppressed {
            self.used.store_u16(FLAGS, 0)?;
        }
        self.kicks_suppressed = false;
        // Our wish before the look: the driver moves the index, then looks at our wish.
        self.used.fence(Ordering::SeqCst);
        Ok(self.waiting()? != kept)
    }

    /// Place of a free-running index in the ring.
    fn slot(&self, index: u16) -> u16 {
        index & (self.size - 1)
    }
}

/// A number of heads, of which there are never more than a queue is long.
fn count(heads: usize) -> u16 {
    u16::try_from(heads).unwrap_or(u16::MAX)
}
