//! Guest memory whose every access by a device is a moment at which the guest may do something first: the search says what.

use super::linux_ring::{
    AVAIL_EVENT, AVAIL_INDEX, AVAIL_RING, DATA, USED_EVENT, USED_FLAGS, USED_RING, World, is_guarded,
};
use drivers::guest::{GuestMemory, GuestRegion, InterruptLine, MemoryError, PinnedMemory};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::atomic::Ordering;

// Where things are.
pub const DESCRIPTORS: u64 = 0x1000;
pub const AVAILABLE: u64 = 0x2000;
const HEADS: u64 = AVAILABLE + 4;
pub const USED: u64 = 0x3000;
const ELEMENTS: u64 = USED + 4;
pub const REQUESTS: u64 = 0x4000;

/// Something that the device might do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Acquire or release fences are not there.
    NoFence(Ordering),
    /// The full fence that comes after an access to this word is not there.
    NoFullFence(usize),
    /// Having asked for kicks, it does not look whether something has come.
    NoSecondLook,
    /// It looks first, and asks for kicks then.
    LookBeforeWish,
    /// The used index is moved before the elements are there.
    IndexBeforeElements,
}

/// The world, and the order in which things happen in it.
pub struct Search {
    pub world: World,
    mistake: Option<Mistake>,
    /// Choices made, each out of so many, in the call of the device that is under way.
    pub path: Vec<(usize, usize)>,
    position: usize,
    /// All that the device could know in this call.
    known: u64,
    /// Situations that were met before.
    pub met: HashSet<u64>,
    /// What comes now was met before, on another way.
    pub is_pruned: bool,
    /// The device starts, and the guest does nothing.
    pub is_starting: bool,
    /// The device's last access, and stores that come too late by [`Self::mistake`].
    last: Option<usize>,
    /// The available index, as the device saw it last.
    index: u64,
    late: Vec<(usize, u64)>,
}

impl Search {
    /// The device is called, who knows `known`, and what is chosen first is what was chosen on this path.
    pub fn begin(&mut self, world: World, path: Vec<(usize, usize)>, known: impl Hash) {
        (self.world, self.path, self.position) = (world, path, 0);
        (self.is_pruned, self.last, self.known) = (false, None, 0);
        self.late.clear();
        self.note(known);
    }

    /// One of so many ways to go on.
    fn choose(&mut self, ways: usize) -> usize {
        if ways == 1 {
            return 0;
        }
        if self.position == self.path.len() {
            self.path.push((0, ways));
        }
        self.position += 1;
        self.path[self.position - 1].0
    }

    /// The driver does what it likes before the device goes on.
    fn let_driver_run(&mut self) -> Result<(), MemoryError> {
        while !self.is_starting && !self.is_pruned {
            let ways = self.world.ways();
            if ways == 0 {
                break;
            }
            if self.position == self.path.len() {
                let mut hasher = DefaultHasher::new();
                self.known.hash(&mut hasher);
                self.world.hash(&mut hasher);
                self.is_pruned = !self.met.insert(hasher.finish());
                if self.is_pruned {
                    break;
                }
            }
            match self.choose(1 + ways) {
                0 => break,
                way => self.world.go_on(way - 1),
            }
        }
        if self.is_pruned { Err(MemoryError::OutOfRange) } else { Ok(()) }
    }

    fn note(&mut self, fact: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.known, fact).hash(&mut hasher);
        self.known = hasher.finish();
    }

    fn load(&mut self, word: usize) -> Result<u64, MemoryError> {
        let asked_for_kicks = matches!(self.last, Some(AVAIL_EVENT | USED_FLAGS));
        if self.mistake == Some(Mistake::NoSecondLook) && word == AVAIL_INDEX && asked_for_kicks {
            return Ok(self.index);
        }
        if self.is_pruned {
            return Err(MemoryError::OutOfRange);
        }
        if !is_guarded(word) {
            self.let_driver_run()?;
        }
        let ways = self.world.memory.readable(&self.world.device, word);
        let age = self.choose(ways);
        let value = self.world.memory.load(&mut self.world.device, word, age);
        self.note(value);
        self.last = Some(word);
        if word == AVAIL_INDEX {
            self.index = value;
        }
        self.store_late()?;
        Ok(value)
    }

    fn store(&mut self, word: usize, value: u64) -> Result<(), MemoryError> {
        self.last = Some(word);
        let is_late = match self.mistake {
            Some(Mistake::LookBeforeWish) => word == AVAIL_EVENT || word == USED_FLAGS && value == 0,
            Some(Mistake::IndexBeforeElements) => (USED_RING..AVAIL_EVENT).contains(&word),
            _ => false,
        };
        if is_late && !self.is_starting {
            self.late.push((word, value));
            return Ok(());
        }
        self.store_now(word, value)?;
        self.store_late()
    }

    fn store_now(&mut self, word: usize, value: u64) -> Result<(), MemoryError> {
        if self.is_pruned {
            return Err(MemoryError::OutOfRange);
        }
        self.world.memory.store(&mut self.world.device, word, value);
        self.note(word);
        Ok(())
    }

    fn store_late(&mut self) -> Result<(), MemoryError> {
        std::mem::take(&mut self.late).into_iter().try_for_each(|(word, value)| self.store_now(word, value))
    }

    fn fence(&mut self, ordering: Ordering) {
        let is_full = ordering == Ordering::SeqCst;
        let is_missing = match self.mistake {
            Some(Mistake::NoFence(kind)) => kind == ordering,
            Some(Mistake::NoFullFence(word)) => is_full && self.last == Some(word),
            _ => false,
        };
        if is_missing || is_full && self.let_driver_run().is_err() {
            return;
        }
        self.world.memory.fence(&mut self.world.device, ordering);
        self.note(ordering);
    }
}

/// The guest's memory, and where all that is chosen is chosen; and the size of the queue.
#[derive(Clone)]
pub struct Shared(pub Rc<RefCell<Search>>, u16);

impl Shared {
    pub fn new(world: World, size: u16, mistake: Option<Mistake>) -> Self {
        let search = Search {
            world,
            mistake,
            path: Vec::new(),
            position: 0,
            known: 0,
            met: HashSet::new(),
            is_pruned: false,
            is_starting: true,
            last: None,
            index: 0,
            late: Vec::new(),
        };
        Self(Rc::new(RefCell::new(search)), size)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// The word at an address, and its bytes.
fn word_at(address: u64, size: u16) -> (usize, usize) {
    let index = |start: u64, bytes: u64| usize::try_from((address - start) / bytes).unwrap();
    let events = [HEADS + 2 * u64::from(size), ELEMENTS + 8 * u64::from(size)];
    match address {
        _ if address == events[0] => (USED_EVENT, 2),
        _ if address == events[1] => (AVAIL_EVENT, 2),
        AVAILABLE..HEADS => (index(AVAILABLE, 2), 2),
        HEADS..USED => (AVAIL_RING + index(HEADS, 2), 2),
        USED..ELEMENTS => (USED_FLAGS + index(USED, 2), 2),
        ELEMENTS..REQUESTS => (USED_RING + index(ELEMENTS, 8), 8),
        _ => (DATA + index(REQUESTS, 8), 8),
    }
}

impl GuestMemory for Shared {
    type Pinned = Pinned;

    fn pin(&self, regions: &[GuestRegion]) -> Result<Pinned, MemoryError> {
        let [region] = regions else { return Err(MemoryError::OutOfRange) };
        Ok(Pinned { memory: self.clone(), region: *region })
    }

    fn prefetch(&self, _: &[GuestRegion]) {}
}

#[derive(Clone, Debug)]
pub struct Pinned {
    memory: Shared,
    region: GuestRegion,
}

impl Pinned {
    fn word_at(&self, offset: u32, done: usize) -> (usize, usize) {
        word_at(self.region.address.0 + u64::from(offset) + done as u64, self.memory.1)
    }
}

impl PinnedMemory for Pinned {
    fn len(&self) -> u32 {
        self.region.length
    }

    fn read(&self, offset: u32, out: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < out.len() {
            let (word, bytes) = self.word_at(offset, done);
            let value = self.memory.0.borrow_mut().load(word)?;
            out[done..done + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            done += bytes;
        }
        Ok(())
    }

    fn write(&self, offset: u32, data: &[u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        let mut search = self.memory.0.borrow_mut();
        // At the start there are 65534 of them.
        while done < data.len() && !search.is_starting {
            let (word, bytes) = self.word_at(offset, done);
            let mut value = [0; 8];
            value[..bytes].copy_from_slice(&data[done..done + bytes]);
            search.store(word, u64::from_le_bytes(value))?;
            done += bytes;
        }
        Ok(())
    }

    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError> {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError> {
        let (word, _) = self.word_at(offset, 0);
        self.memory.0.borrow_mut().store(word, value.into())
    }

    fn fence(&self, ordering: Ordering) {
        self.memory.0.borrow_mut().fence(ordering);
    }
}

impl InterruptLine for Shared {
    fn raise(&self) {
        self.0.borrow_mut().world.raise();
    }
}
