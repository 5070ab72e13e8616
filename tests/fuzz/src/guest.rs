//! A guest that writes registers and rings by hand, by the rules or not, for any device model.

use crate::input::{Address, Length};
use crate::memory::{BASE, Change, Memory, PinnedRing};
use arbitrary::Arbitrary;
use drivers::guest::InterruptLine;
use drivers::virtio::mmio::{MmioDevice, Progress, Width};
use drivers::virtio::{Device, Features};

// Register offsets, written down a second time on purpose: the fuzzer should not share the device's mistakes.
const DRIVER_FEATURES: u32 = 0x20;
const DRIVER_FEATURES_SEL: u32 = 0x24;
const QUEUE_SEL: u32 = 0x30;
const QUEUE_NUM: u32 = 0x38;
const QUEUE_READY: u32 = 0x44;
const QUEUE_NOTIFY: u32 = 0x50;
const STATUS: u32 = 0x70;
const QUEUE_DESC: u32 = 0x80;
const QUEUE_DRIVER: u32 = 0x90;
const QUEUE_DEVICE: u32 = 0xa0;

/// Registers that say which queues there are, and where.
const SETTINGS: core::ops::Range<u32> = QUEUE_SEL..QUEUE_DEVICE + 8;

/// Flags of descriptors.
pub const NEXT: u16 = 1;
/// The device may write it.
pub const WRITE: u16 = 2;
/// It is a table.
pub const INDIRECT: u16 = 4;

/// Pins that a queue has as long as it is ready.
pub const RING_PINS: usize = 3;
/// Most queues of a device.
const QUEUES: usize = 3;
/// Where indirect tables are: 64 of them, eight entries each.
const TABLES: u64 = BASE + 0x6000;
/// Where buffers are, by the rules.
pub const DATA: u64 = BASE + 0x8000;
/// Calls of `process` after which all must be done that rings can hold.
const ENOUGH_CALLS: usize = 20_000;

/// What a guest does.
#[derive(Arbitrary, Debug)]
pub enum Act {
    /// Writes a register.
    Register { number: u8, value: u32 },
    /// Any access.
    Access { offset: u16, width: u8, value: u64, is_write: bool },
    /// Brings the driver up, from a reset on, without the features of `less` and with queues of these sizes.
    Start { less: u32, sizes: [u8; QUEUES] },
    /// Back to the beginning.
    Reset,
    /// Writes a descriptor.
    Descriptor { queue: u8, index: u8, buffer: Buffer, flags: u8, next: u8 },
    /// Writes an entry of an indirect table.
    Entry { table: u8, index: u8, buffer: Buffer, flags: u8, next: u8 },
    /// Makes a head available so many times.
    Publish { queue: u8, head: u8, times: u8 },
    /// Moves the available index.
    Jump { queue: u8, by: u16 },
    /// Makes a chain by the rules of these buffers, and makes it available.
    Chain { queue: u8, buffers: Vec<(Buffer, bool)>, is_indirect: bool },
    /// Writes memory.
    Poke { address: Address, bytes: [u8; 8] },
    /// Kicks.
    Kick { queue: u8 },
    /// The kernel looks.
    Process,
    /// The kernel looks, and will look again.
    Poll,
    /// A page goes.
    Hole { address: Address },
    /// All pages are back.
    FillHoles,
    /// So many pins are to be had.
    Pins { most: u8 },
    /// Places are copied together.
    CopyTogether { together: bool },
    /// The other CPU.
    Change(Change),
}

/// A buffer.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Buffer {
    /// Where it is.
    pub address: Address,
    /// Its bytes.
    pub length: Length,
}

/// An interrupt line that leads nowhere.
pub struct Line;

impl InterruptLine for Line {
    fn raise(&self) {}
}

#[derive(Clone, Copy, Default)]
struct Ring {
    size: u16,
    next: u16,
    free: u16,
}

/// The guest and its device.
pub struct Guest<D> {
    /// The registers.
    pub device: MmioDevice<D, Memory, Line>,
    /// Its memory.
    pub memory: Memory,
    rings: [Ring; QUEUES],
    offered: Features,
    largest: Vec<u16>,
    tables: u8,
    /// All acts are about this queue.
    only: Option<usize>,
    /// The rings are where they were put by [`Self::start`].
    has_own_rings: bool,
}

impl<D: Device<Memory>> Guest<D> {
    /// A guest whose driver is up.
    pub fn running(device: D) -> Self {
        let memory = Memory::default();
        let (offered, largest) = (device.features(), device.queue_sizes().to_vec());
        let device = MmioDevice::new(device, memory.clone(), Line, Features::empty());
        let rings = Default::default();
        let (tables, only, has_own_rings) = (0, None, true);
        let mut guest = Self { device, memory, rings, offered, largest, tables, only, has_own_rings };
        guest.start(Features::empty(), [6; QUEUES]);
        guest
    }

    /// From now on all acts are about this queue.
    pub fn keep_to(&mut self, queue: Option<usize>) {
        self.only = queue;
    }

    fn write(&mut self, offset: u32, value: u32) {
        let _ = self.device.write(offset, Width::Four, value.into());
    }

    fn write_address(&mut self, offset: u32, address: u64) {
        self.write(offset, (address & 0xffff_ffff) as u32);
        self.write(offset + 4, (address >> 32) as u32);
    }

    /// Resets the device.
    pub fn reset(&mut self) {
        self.write(STATUS, 0);
        self.memory.forget_buffers();
        assert_eq!(self.memory.pins(), 0, "pins are left after a reset");
    }

    fn start(&mut self, less: Features, sizes: [u8; QUEUES]) {
        self.reset();
        let accepted = self.offered - (less - Features::VERSION_1);
        self.write(STATUS, 1 | 2);
        for (half, bits) in [accepted.bits() as u32, (accepted.bits() >> 32) as u32].into_iter().zip(0..) {
            self.write(DRIVER_FEATURES_SEL, bits);
            self.write(DRIVER_FEATURES, half);
        }
        self.write(STATUS, 1 | 2 | 8);
        for (queue, size) in sizes.into_iter().enumerate().take(self.largest.len()) {
            let size = (1 << (size % 9)).min(self.largest[queue]);
            self.rings[queue] = Ring { size, ..Ring::default() };
            self.memory.poke(available(queue), &[0; 0xc00]);
            self.write(QUEUE_SEL, queue as u32);
            self.write(QUEUE_NUM, size.into());
            self.write_address(QUEUE_DESC, descriptors(queue));
            self.write_address(QUEUE_DRIVER, available(queue));
            self.write_address(QUEUE_DEVICE, used(queue));
            self.write(QUEUE_READY, 1);
        }
        self.write(STATUS, 1 | 2 | 4 | 8);
        self.has_own_rings = true;
    }

    fn queue(&self, number: u8) -> usize {
        self.only.unwrap_or(usize::from(number) % self.largest.len())
    }

    /// Does as it is told.
    pub fn act(&mut self, act: Act) {
        match act {
            Act::Register { number, value } => {
                let offset = u32::from(number) % 0x42 * 4;
                self.has_own_rings &= !SETTINGS.contains(&offset);
                self.write(offset, value);
                if offset == STATUS && value == 0 {
                    self.memory.forget_buffers();
                }
            }
            Act::Access { offset, width, value, is_write } => {
                let width = [Width::One, Width::Two, Width::Four, Width::Eight][usize::from(width % 4)];
                if is_write {
                    self.has_own_rings &= !SETTINGS.contains(&offset.into());
                    let _ = self.device.write(offset.into(), width, value);
                } else {
                    let read = self.device.read(offset.into(), width);
                    assert!(width == Width::Eight || read >> (8 * width as u32) == 0);
                }
            }
            Act::Start { less, sizes } => self.start(Features::from_bits_retain(less.into()), sizes),
            Act::Reset => self.reset(),
            Act::Descriptor { queue, index, buffer, flags, next } => {
                let table = descriptors(self.queue(queue));
                self.describe(table, index.into(), buffer, flags.into(), next.into());
            }
            Act::Entry { table, index, buffer, flags, next } => {
                let table = table_at(table);
                self.describe(table, index.into(), buffer, flags.into(), next.into());
            }
            Act::Publish { queue, head, times } => {
                let queue = self.queue(queue);
                (0..=times % 64).for_each(|_| self.publish(queue, head.into()));
            }
            Act::Jump { queue, by } => {
                let queue = self.queue(queue);
                self.rings[queue].next = self.rings[queue].next.wrapping_add(by);
                self.memory.poke(available(queue) + 2, &self.rings[queue].next.to_le_bytes());
            }
            Act::Chain { queue, buffers, is_indirect } => {
                let buffers: Vec<_> = buffers
                    .iter()
                    .map(|(buffer, writable)| (buffer.address.0, buffer.length.0, *writable))
                    .collect();
                self.chain(self.queue(queue), &buffers, is_indirect);
            }
            Act::Poke { address, bytes } => self.memory.poke(address.0, &bytes),
            Act::Kick { queue } => self.kick(self.queue(queue)),
            Act::Process => drop(self.device.process()),
            Act::Poll => drop(self.device.poll()),
            Act::Hole { address } => self.memory.punch_hole(address.0),
            Act::FillHoles => self.memory.fill_holes(),
            Act::Pins { most } => self.memory.set_pins_max(most.into()),
            Act::CopyTogether { together } => self.memory.set_copies_together(together),
            Act::Change(change) => self.memory.add_change(change),
        }
    }

    fn describe(&self, table: u64, index: u16, buffer: Buffer, flags: u16, next: u16) {
        self.set_descriptor(table, index, (buffer.address.0, buffer.length.0), flags, next);
    }

    fn set_descriptor(&self, table: u64, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&buffer.0.to_le_bytes());
        raw[8..12].copy_from_slice(&buffer.1.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.poke(table + u64::from(index) * 16, &raw);
    }

    /// Makes a chain of buffers, and makes it available; the bool says that the device may write.
    pub fn chain(&mut self, queue: usize, buffers: &[(u64, u32, bool)], is_indirect: bool) {
        let size = self.rings[queue].size.max(1);
        let first = self.rings[queue].free % size;
        let (table, wrap) = if is_indirect {
            self.tables = self.tables.wrapping_add(1);
            let bytes = buffers.len() as u32 * 16;
            let table = table_at(self.tables);
            self.set_descriptor(descriptors(queue), first, (table, bytes), INDIRECT, 0);
            self.rings[queue].free = first + 1;
            (table, u16::MAX)
        } else {
            self.rings[queue].free = (first + buffers.len() as u16) % size;
            (descriptors(queue), size)
        };
        let start = if is_indirect { 0 } else { first };
        for (place, (address, length, writable)) in (0..).zip(buffers) {
            let next = if usize::from(place) + 1 < buffers.len() { NEXT } else { 0 };
            let write = if *writable { WRITE } else { 0 };
            let index = (start + place) % wrap;
            self.set_descriptor(table, index, (*address, *length), next | write, (index + 1) % wrap);
        }
        self.publish(queue, first);
    }

    fn publish(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let slot = u64::from(ring.next % ring.size.max(1));
        ring.next = ring.next.wrapping_add(1);
        let next = ring.next;
        self.memory.poke(available(queue) + 4 + slot * 2, &head.to_le_bytes());
        self.memory.poke(available(queue) + 2, &next.to_le_bytes());
    }

    /// Kicks.
    pub fn kick(&mut self, queue: usize) {
        self.write(QUEUE_NOTIFY, queue as u32);
    }

    /// Lets all queues be served until nothing is left to do; `tend` does the work of whatever is below the device.
    pub fn finish(&mut self, mut tend: impl FnMut()) {
        self.memory.settle();
        let mut kicked = None;
        for _ in 0..ENOUGH_CALLS {
            tend();
            let progress = self.work();
            if progress == Progress::default() && !self.device.has_work() {
                // Buffers may lie over a ring, and move its index: nobody kicks for that.
                let now = self.available_indices();
                if kicked.as_ref() == Some(&now) {
                    return;
                }
                kicked = Some(now);
                (0..self.largest.len()).for_each(|queue| self.kick(queue));
            }
        }
        panic!("there is always something to do");
    }

    /// Where the available rings are said to end.
    fn available_indices(&self) -> Vec<[u8; 2]> {
        self.memory.rings().chunks(RING_PINS).map(|rings| self.memory.peek(rings[1].address + 2)).collect()
    }

    /// What the kernel does for it at each turn, the last look before a sleep included.
    pub fn work(&mut self) -> Progress {
        let _ = self.device.poll();
        let progress = self.device.process();
        assert!(self.memory.pins() <= RING_PINS * QUEUES + 300, "requests without bound");
        progress
    }

    /// Of each queue, how many chains were made available and not given back; none when nobody serves them, or they are not where
    /// they should be.
    #[must_use]
    pub fn unanswered(&self) -> Option<Vec<u16>> {
        let rings = self.memory.rings();
        let unanswered = |rings: &[PinnedRing]| {
            let available = u16::from_le_bytes(self.memory.peek(rings[1].address + 2));
            available.wrapping_sub(rings[2].index)
        };
        let is_known = self.device.is_running() && self.has_own_rings;
        is_known.then(|| rings.chunks(RING_PINS).map(unanswered).collect())
    }
}

fn descriptors(queue: usize) -> u64 {
    BASE + queue as u64 * 0x2000
}

fn available(queue: usize) -> u64 {
    descriptors(queue) + 0x1000
}

fn used(queue: usize) -> u64 {
    descriptors(queue) + 0x1400
}

fn table_at(number: u8) -> u64 {
    TABLES + u64::from(number % 64) * 0x80
}
