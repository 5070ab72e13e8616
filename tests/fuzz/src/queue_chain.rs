//! A queue and its chains, held against a walk by the words of the specification (virtio 1.2, 2.7), as long as the guest's memory
//! does not change meanwhile.

use crate::guest::{Act, Guest, INDIRECT, NEXT, WRITE};
use crate::input::steps;
use crate::memory::{Memory, Pinned};
use arbitrary::{Arbitrary, Unstructured};
use drivers::guest::GuestMemory;
use drivers::virtio::batch::{Batch, Bounds};
use drivers::virtio::queue::{MAX_BATCH, Queue, QueueError, Used};
use drivers::virtio::{Device, Features, QueueIndex, Served};

/// Most buffers of a chain: as many as the largest queue has descriptors.
const BUFFERS_MAX: usize = 256;
const NO_INTERRUPT: u16 = 1;

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    chains: u8,
    bytes: u16,
    large_bytes: u16,
    /// So many of a batch are put back, once.
    put_back: u8,
    length: u32,
}

/// A device that gives every chain back.
struct Sink {
    settings: Settings,
    accepted: Features,
    batch: Batch,
    next: u16,
    completed: u16,
    decided: u16,
}

/// What the specification makes of a chain; none when it cannot be told, for memory that is not there.
type Walked = Option<Result<Vec<(u64, u32, bool)>, ()>>;

struct Model<'a> {
    memory: &'a Memory,
    descriptors: u64,
    size: u16,
    has_indirect: bool,
}

impl Model<'_> {
    fn descriptor(&self, table: u64, index: u16) -> (u64, u32, u16, u16) {
        let raw: [u8; 16] = self.memory.peek(table + u64::from(index) * 16);
        let number = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().unwrap_or_default());
        let rest = number(8);
        (number(0), rest as u32, (rest >> 32) as u16, (rest >> 48) as u16)
    }

    fn walk(&self, head: u16) -> Walked {
        let (mut buffers, mut count) = (Vec::new(), 0);
        let (mut table, mut entries, mut index, mut is_nested) = (self.descriptors, self.size, head, false);
        loop {
            if index >= entries {
                return Some(Err(()));
            }
            let (address, length, flags, next) = self.descriptor(table, index);
            if flags & INDIRECT != 0 {
                let is_whole = length > 0 && length % 16 == 0 && length <= 16 * BUFFERS_MAX as u32;
                if is_nested || !self.has_indirect || flags & NEXT != 0 || !is_whole {
                    return Some(Err(()));
                }
                if !self.memory.has(address, length) {
                    return None;
                }
                (table, entries, index, is_nested) = (address, (length / 16) as u16, 0, true);
                continue;
            }
            count += 1;
            let is_readable_late =
                flags & WRITE == 0 && length > 0 && buffers.iter().any(|(_, _, writable)| *writable);
            let wraps = length > 0 && address.checked_add(u64::from(length) - 1).is_none();
            if count > BUFFERS_MAX || is_readable_late || wraps {
                return Some(Err(()));
            }
            if length > 0 {
                buffers.push((address, length, flags & WRITE != 0));
            }
            if buffers.iter().map(|(_, length, _)| u64::from(*length)).sum::<u64>() > u32::MAX.into() {
                return Some(Err(()));
            }
            if flags & NEXT == 0 {
                return Some(Ok(buffers));
            }
            index = next;
        }
    }
}

impl Sink {
    /// Takes chains, and compares them with what they should be.
    fn take(&mut self, queue: &mut Queue<Pinned>, memory: &Memory) -> Result<bool, QueueError> {
        let waiting = queue.waiting()?;
        let bounds = Bounds {
            chains: waiting.min(u16::from(self.settings.chains) + 1),
            bytes: u32::from(self.settings.bytes) * 64 + 1,
            large_bytes: u32::from(self.settings.large_bytes) * 16,
        };
        let is_calm = memory.is_calm();
        let filled = self.batch.fill(queue, memory, bounds);
        assert!(self.batch.chains.len() <= bounds.chains.into() && self.batch.chains.len() <= MAX_BATCH);
        assert!(self.batch.regions.len() <= 2 * BUFFERS_MAX);
        if is_calm {
            self.compare(queue, memory, filled);
        }
        let put_back = usize::from(core::mem::take(&mut self.settings.put_back)) % (MAX_BATCH + 1);
        let put_back = put_back.min(self.batch.chains.len());
        let kept = self.batch.chains.len() - put_back;
        queue.put_back(&self.batch.chains[kept..]);
        self.batch.chains.truncate(kept);
        self.next = self.next.wrapping_add(self.batch.chains.len() as u16);
        filled?;
        Ok(put_back > 0 || waiting > self.batch.chains.len() as u16)
    }

    fn compare(&self, queue: &Queue<Pinned>, memory: &Memory, filled: Result<(), QueueError>) {
        let [descriptors, available, _] = memory.rings()[..] else { panic!("a queue has three rings") };
        let has_indirect = self.accepted.contains(Features::INDIRECT_DESC);
        let (descriptors, size) = (descriptors.address, queue.size());
        let model = Model { memory, descriptors, size, has_indirect };
        let head_at = |ahead: u16| {
            let slot = u64::from(self.next.wrapping_add(ahead) % size);
            u16::from_le_bytes(memory.peek(available.address + 4 + slot * 2))
        };
        for (chain, ahead) in self.batch.chains.iter().zip(0..) {
            assert_eq!(chain.head, head_at(ahead));
            let regions = &self.batch.regions[chain.regions.clone()];
            let Some(expected) = model.walk(chain.head) else { continue };
            let expected = expected.expect("a malformed chain was taken");
            let found: Vec<_> = regions.iter().map(|region| (region.address.0, region.length)).collect();
            let buffers: Vec<_> = expected.iter().map(|(address, length, _)| (*address, *length)).collect();
            assert_eq!(found, buffers);
            let bytes = |wanted: bool| {
                let of_kind = expected.iter().filter(|(_, _, writable)| *writable == wanted);
                of_kind.map(|(_, length, _)| *length).sum::<u32>()
            };
            assert_eq!((chain.readable_bytes, chain.writable_bytes), (bytes(false), bytes(true)));
            if let Some(front) = chain.front {
                assert_eq!(front, memory.peek(buffers[0].0));
            }
        }
        // A head that does not exist ends the whole batch, a malformed chain what comes behind it.
        if let (Err(error), false) = (filled, matches!(filled, Err(QueueError::NoSuchDescriptor(_)))) {
            let refused = model.walk(head_at(self.batch.chains.len() as u16));
            assert!(!matches!(refused, Some(Ok(_))), "{error} of a good chain");
        }
    }

    fn serve_all(&mut self, queue: &mut Queue<Pinned>, memory: &Memory) -> Result<Served, QueueError> {
        let taken = self.take(queue, memory);
        let length = self.settings.length;
        let done: Vec<_> = self.batch.chains.iter().map(|chain| Used { id: chain.head, length }).collect();
        queue.complete(&done)?;
        let old = self.completed;
        self.completed = old.wrapping_add(done.len() as u16);
        let is_calm = memory.is_calm();
        let interrupt = queue.wants_interrupt()?;
        let [_, available, used] = memory.rings()[..] else { panic!("a queue has three rings") };
        assert_eq!(used.index, self.completed);
        if is_calm {
            assert_eq!(interrupt, self.is_told(memory, available.address, queue.size()));
        }
        self.decided = self.completed;
        let more = taken?;
        Ok(Served { requests: done.len() as u32, interrupt, more, ..Served::default() })
    }

    /// Whether the driver is to hear of what was completed since this was asked last (virtio 1.2, 2.7.7.2).
    fn is_told(&self, memory: &Memory, available: u64, size: u16) -> bool {
        let count = self.completed.wrapping_sub(self.decided);
        if self.accepted.contains(Features::EVENT_IDX) {
            let event = u16::from_le_bytes(memory.peek(available + 4 + u64::from(size) * 2));
            return (0..count).any(|place| self.decided.wrapping_add(place) == event);
        }
        count > 0 && u16::from_le_bytes(memory.peek(available)) & NO_INTERRUPT == 0
    }
}

impl Device<Memory> for Sink {
    fn name(&self) -> &'static str {
        "sink"
    }

    fn id(&self) -> u32 {
        42
    }

    fn features(&self) -> Features {
        Features::VERSION_1 | Features::INDIRECT_DESC | Features::EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        &[256]
    }

    fn read_config(&self, _offset: u32, _out: &mut [u8]) {}

    fn read_refused_config(&self, _: u32, _: &mut [u8]) {}

    fn write_config(&mut self, _: u32, _: &[u8]) {}

    fn activate(&mut self, accepted: Features) {
        self.accepted = accepted;
    }

    fn resume(&mut self, accepted: Features) {
        self.accepted = accepted;
    }

    fn reset(&mut self) {
        (self.next, self.completed, self.decided) = (0, 0, 0);
    }

    fn has_work(&self) -> bool {
        false
    }

    fn is_polled(&self, _: QueueIndex) -> bool {
        true
    }

    fn take_config_change(&mut self) -> bool {
        false
    }

    fn serve(
        &mut self,
        _index: QueueIndex,
        queue: &mut Queue<<Memory as GuestMemory>::Pinned>,
        memory: &Memory,
    ) -> Served {
        let served = self.serve_all(queue, memory);
        served.unwrap_or_else(|error| Served { broken: Some(error), ..Served::default() })
    }
}

/// A queue whose rings and tables are what `data` says.
pub fn queue_chain(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(settings) = input.arbitrary::<Settings>() else { return };
    let batch = Batch::default();
    let accepted = Features::empty();
    let mut guest = Guest::running(Sink { settings, accepted, batch, next: 0, completed: 0, decided: 0 });
    for act in steps::<Act>(input) {
        guest.act(act);
    }
    guest.finish(|| {});
    let unanswered = guest.unanswered().unwrap_or_default();
    assert!(unanswered.iter().all(|count| *count == 0), "{unanswered:?} are never answered");
    guest.reset();
}
