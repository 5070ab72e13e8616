//! Kernels that end at any step, and the guest and the devices that they leave behind.
//!
//! A step is an access to guest memory, a command to a disk, an edge of the interrupt line, or a store to the handover. All
//! that a kernel had is dropped where it ends; the next one has the guest's memory, the handover and the access that
//! trapped and was not answered.

use super::{
    DRIVER_FEATURES, DRIVER_FEATURES_SEL, INDIRECT, INTERRUPT_ACK, INTERRUPT_STATUS, NEEDS_RESET, NEXT,
    QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_NUM, QUEUE_READY, QUEUE_SEL, STATUS, WRITE,
};
use drivers::block::Operation;
use drivers::drive::{Drive, DriveError, DriveFacts, Finished};
use drivers::fake::drive::FakeDrive;
use drivers::fake::steps::before_stores;
use drivers::fake::{FakeGuestMemory, FakeLine, FakePinned};
use drivers::guest::{Access, GuestMemory, GuestRegion, InterruptLine, MemoryError, PinnedMemory};
use drivers::virtio::handover::DeviceHandover;
use drivers::virtio::mmio::{Effect, MmioDevice, Width};
use drivers::virtio::{Device, Features};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

pub const BASE: u64 = 0x4000_0000;
/// Bytes that the rings of a queue have for themselves.
const RINGS_BYTES: u64 = 0x2000;
/// Where buffers are.
pub const BUFFERS: u64 = BASE + 4 * RINGS_BYTES;
const ENOUGH_TURNS: usize = 2000;

thread_local! {
    /// Steps until the kernel ends.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    static TAKEN: Cell<usize> = const { Cell::new(0) };
    /// When the kernels after it end, in steps of theirs.
    static NEXT_ENDS: RefCell<VecDeque<usize>> = const { RefCell::new(VecDeque::new()) };
}

/// What a kernel ends with.
struct End;

fn step() {
    TAKEN.set(TAKEN.get() + 1);
    match LEFT.get() {
        Some(0) => {
            LEFT.set(None);
            // No message: the hook for panics is not called.
            resume_unwind(Box::new(End));
        }
        left => LEFT.set(left.map(|left| left - 1)),
    }
}

/// From now on kernels end after so many steps each; those behind them live for ever.
pub fn end_after(steps: &[usize]) {
    TAKEN.set(0);
    NEXT_ENDS.set(steps.iter().copied().collect());
    LEFT.set(NEXT_ENDS.with_borrow_mut(VecDeque::pop_front));
    before_stores(step);
}

/// Steps since [`end_after`].
pub fn steps_taken() -> usize {
    TAKEN.get()
}

/// Whether all kernels have ended that were to.
pub fn all_ended() -> bool {
    LEFT.get().is_none()
}

#[derive(Clone)]
pub struct CrashMemory(pub FakeGuestMemory);
pub struct CrashPinned(FakePinned);

impl GuestMemory for CrashMemory {
    type Pinned = CrashPinned;

    fn pin(&self, regions: &[GuestRegion]) -> Result<CrashPinned, MemoryError> {
        self.0.pin(regions).map(CrashPinned)
    }

    fn pin_split(&self, regions: &[GuestRegion], readable: u32) -> Result<CrashPinned, MemoryError> {
        self.0.pin_split(regions, readable).map(CrashPinned)
    }

    fn pin_ring(&self, ring: GuestRegion, access: Access) -> Result<CrashPinned, MemoryError> {
        self.0.pin_ring(ring, access).map(CrashPinned)
    }

    fn prefetch(&self, regions: &[GuestRegion]) {
        self.0.prefetch(regions);
    }
}

impl PinnedMemory for CrashPinned {
    fn len(&self) -> u32 {
        self.0.len()
    }

    fn read(&self, offset: u32, out: &mut [u8]) -> Result<(), MemoryError> {
        step();
        self.0.read(offset, out)
    }

    /// The end may come in the middle.
    fn write(&self, offset: u32, data: &[u8]) -> Result<(), MemoryError> {
        step();
        let (first, rest) = data.split_at(data.len() / 2);
        self.0.write(offset, first)?;
        step();
        self.0.write(offset + u32::try_from(first.len()).unwrap(), rest)
    }

    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError> {
        step();
        self.0.load_u16(offset)
    }

    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError> {
        step();
        self.0.store_u16(offset, value)
    }
}

#[derive(Clone, Default)]
pub struct CrashLine(pub FakeLine);

impl InterruptLine for CrashLine {
    fn raise(&self) {
        step();
        self.0.raise();
    }
}

pub struct CrashDrive(pub FakeDrive);

impl Drive for CrashDrive {
    fn facts(&self) -> DriveFacts {
        self.0.facts()
    }
    fn buffer(&mut self, slot: u16) -> &mut [u8] {
        self.0.buffer(slot)
    }
    fn submit(&mut self, slot: u16, operation: Operation) -> Result<(), DriveError> {
        step();
        self.0.submit(slot, operation)
    }
    fn kick(&mut self) {
        step();
        self.0.kick();
    }
    fn next_finished(&mut self) -> Result<Option<Finished>, DriveError> {
        step();
        self.0.next_finished()
    }
    fn want_interrupts(&mut self, wanted: bool) -> bool {
        self.0.want_interrupts(wanted)
    }
    fn acknowledge_interrupt(&mut self) -> Result<(), DriveError> {
        self.0.acknowledge_interrupt()
    }
}

/// What is around a device: below it, and at the other end of it.
pub trait Machine {
    /// Pages of the guest.
    const PAGES: usize;
    type Model: Device<CrashMemory>;
    /// A kernel begins: all that the last one had is gone.
    fn boot(&mut self) -> Self::Model;
    /// Before the device is served.
    fn before(&mut self) {}
    /// After it was.
    fn after(&mut self) {}
    /// What happens outside of the kernel. Returns whether anything did.
    fn outside(&mut self) -> bool {
        false
    }
}

/// A queue as a driver that keeps to the rules knows it. `T` is what it knows of a chain.
pub struct DriverQueue<T> {
    number: u16,
    pub size: u16,
    event_index: bool,
    free: Vec<u16>,
    pub flying: BTreeMap<u16, (T, Vec<u16>)>,
    next: u16,
    kicked: u16,
    pub seen: u16,
}

impl<T> DriverQueue<T> {
    pub fn new(number: u16, size: u16, event_index: bool) -> Self {
        let free = (0..size).rev().collect();
        Self { number, size, event_index, free, flying: BTreeMap::new(), next: 0, kicked: 0, seen: 0 }
    }

    pub fn descriptors(&self) -> u64 {
        BASE + u64::from(self.number) * RINGS_BYTES
    }

    pub fn available(&self) -> u64 {
        self.descriptors() + 0x800
    }

    pub fn used(&self) -> u64 {
        self.descriptors() + 0xc00
    }

    fn table(&self, head: u16) -> u64 {
        self.descriptors() + 0x1000 + u64::from(head) * 64
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Makes a chain available. Returns whether there were descriptors for it.
    pub fn post(
        &mut self,
        memory: &FakeGuestMemory,
        buffers: &[(u64, u32, bool)],
        indirect: bool,
        what: T,
    ) -> bool {
        let count = if indirect { 1 } else { buffers.len() };
        if self.free.len() < count {
            return false;
        }
        let taken = self.free.split_off(self.free.len() - count);
        let write = |table: u64, at: u16, (address, length): (u64, u32), flags: u16, next: u16| {
            let mut raw = address.to_le_bytes().to_vec();
            raw.extend(length.to_le_bytes());
            raw.extend(flags.to_le_bytes());
            raw.extend(next.to_le_bytes());
            memory.poke(table + u64::from(at) * 16, &raw).unwrap();
        };
        let table = self.table(taken[0]);
        for (place, (address, length, writable)) in buffers.iter().enumerate() {
            let is_last = place + 1 == buffers.len();
            let flags = if is_last { 0 } else { NEXT } | if *writable { WRITE } else { 0 };
            let following = u16::try_from(place + 1).unwrap();
            match indirect {
                true => write(table, following - 1, (*address, *length), flags, following),
                false => {
                    let next = taken.get(place + 1).copied().unwrap_or(0);
                    write(self.descriptors(), taken[place], (*address, *length), flags, next);
                }
            }
        }
        if indirect {
            let bytes = u32::try_from(buffers.len() * 16).unwrap();
            write(self.descriptors(), taken[0], (table, bytes), INDIRECT, 0);
        }
        let slot = self.available() + 4 + u64::from(self.next % self.size) * 2;
        memory.poke(slot, &taken[0].to_le_bytes()).unwrap();
        self.next = self.next.wrapping_add(1);
        memory.poke(self.available() + 2, &self.next.to_le_bytes()).unwrap();
        self.flying.insert(taken[0], (what, taken));
        true
    }

    /// Whether the device wants a kick for what was posted since this was asked last (virtio 1.2, 2.7.13).
    pub fn wants_kick(&mut self, memory: &FakeGuestMemory) -> bool {
        let (old, new) = (self.kicked, self.next);
        self.kicked = new;
        if self.event_index {
            let event = peek_u16(memory, self.used() + 4 + u64::from(self.size) * 8);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            old != new && peek_u16(memory, self.used()) & 1 == 0
        }
    }

    /// What the device is done with, and how many bytes it says to have written.
    pub fn take_used(&mut self, memory: &FakeGuestMemory) -> Vec<(T, u32)> {
        let mut taken = Vec::new();
        loop {
            let index = peek_u16(memory, self.used() + 2);
            assert!(usize::from(index.wrapping_sub(self.seen)) <= self.flying.len(), "the used index leaps");
            while self.seen != index {
                let mut raw = [0; 8];
                memory.peek(self.used() + 4 + u64::from(self.seen % self.size) * 8, &mut raw).unwrap();
                let [id, length] = [0, 4].map(|at| u32::from_le_bytes(raw[at..at + 4].try_into().unwrap()));
                let head = u16::try_from(id).unwrap();
                let (what, descriptors) = self.flying.remove(&head).expect("answered twice, or never asked");
                self.free.extend(descriptors);
                self.seen = self.seen.wrapping_add(1);
                taken.push((what, length));
            }
            // The wish to be interrupted, and a look for what came before it.
            let event = self.available() + 4 + u64::from(self.size) * 2;
            memory.poke(event, &self.seen.to_le_bytes()).unwrap();
            if peek_u16(memory, self.used() + 2) == self.seen {
                return taken;
            }
        }
    }
}

pub fn peek_u16(memory: &FakeGuestMemory, address: u64) -> u16 {
    let mut bytes = [0; 2];
    memory.peek(address, &mut bytes).unwrap();
    u16::from_le_bytes(bytes)
}

pub type Kernel<M> = MmioDevice<<M as Machine>::Model, CrashMemory, CrashLine>;

/// A guest whose device is served by one kernel after the other.
pub struct World<M: Machine> {
    pub machine: M,
    pub memory: FakeGuestMemory,
    pub line: FakeLine,
    pub handover: &'static DeviceHandover,
    kernel: Option<Kernel<M>>,
    /// The kernel looks at the device.
    active: Rc<Cell<bool>>,
    edges_seen: usize,
    pub crashes: usize,
}

impl<M: Machine> World<M> {
    pub fn new(mut machine: M) -> Self {
        end_after(&[]);
        let handover: &DeviceHandover = Box::leak(Box::default());
        let (memory, line) = (FakeGuestMemory::new(BASE, M::PAGES), FakeLine::default());
        let model = machine.boot();
        let kernel =
            MmioDevice::new(model, CrashMemory(memory.clone()), CrashLine(line.clone()), Features::empty());
        let kernel = Some(kernel.kept_in(handover));
        Self { machine, memory, line, handover, kernel, active: Rc::default(), edges_seen: 0, crashes: 0 }
    }

    /// The kernel ends here.
    pub fn crash(&mut self) {
        self.kernel = None;
        self.crashes += 1;
        LEFT.set(NEXT_ENDS.with_borrow_mut(VecDeque::pop_front));
    }

    /// Does what a kernel does; if it ends meanwhile, the next one does it.
    pub fn attempt<R>(&mut self, act: impl Fn(&mut Kernel<M>, &mut M) -> R) -> R {
        loop {
            if let Some(result) = self.attempt_once(&act) {
                return result;
            }
        }
    }

    /// Does what a kernel does; none if it ended meanwhile.
    fn attempt_once<R>(&mut self, act: impl Fn(&mut Kernel<M>, &mut M) -> R) -> Option<R> {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut kernel = self.kernel.take().unwrap_or_else(|| {
                self.active.set(true);
                let (memory, line) = (CrashMemory(self.memory.clone()), CrashLine(self.line.clone()));
                let model = self.machine.boot();
                MmioDevice::new(model, memory, line, Features::empty()).resumed_from(self.handover)
            });
            let result = act(&mut kernel, &mut self.machine);
            self.kernel = Some(kernel);
            result
        }));
        match outcome {
            Ok(result) => return Some(result),
            Err(payload) if payload.is::<End>() => self.crash(),
            Err(payload) => resume_unwind(payload),
        }
        None
    }

    pub fn read(&mut self, offset: u32) -> u32 {
        self.attempt(|device, _| device.read(offset, Width::Four)).try_into().unwrap()
    }

    pub fn write(&mut self, offset: u32, value: u32) {
        let effect = self.attempt(|device, _| device.write(offset, Width::Four, value.into()));
        self.active.set(self.active.get() || effect == Effect::Work);
    }

    /// One turn of the kernel's loop, and what happens outside meanwhile. Returns whether anything did; if
    /// the kernel ends, it is for the next call to begin another.
    pub fn turn(&mut self) -> bool {
        let active = self.active.clone();
        let served = self.attempt_once(|device, machine| {
            machine.before();
            let (mut busy, mut under_way) = (false, false);
            if active.get() || device.has_work() {
                let polled = device.poll();
                let progress = device.process();
                busy = polled.requests + progress.requests > 0 || progress.more;
                under_way = progress.under_way;
            }
            machine.after();
            (busy, under_way)
        });
        let Some((busy, under_way)) = served else { return true };
        self.active.set(busy || under_way);
        self.machine.outside() || busy
    }

    /// Turns until nothing happens any more.
    pub fn settle(&mut self) {
        for _ in 0..ENOUGH_TURNS {
            if !self.turn() && self.kernel.is_some() && !self.turn() {
                return;
            }
        }
        panic!("it never ends");
    }

    /// Whether an edge came since this was asked last; the guest has acknowledged it then.
    pub fn is_interrupted(&mut self) -> bool {
        let edges = self.line.edges();
        if core::mem::replace(&mut self.edges_seen, edges) == edges {
            return false;
        }
        let status = self.read(INTERRUPT_STATUS);
        self.write(INTERRUPT_ACK, status);
        true
    }

    pub fn kick<T>(&mut self, queue: &mut DriverQueue<T>) {
        if queue.wants_kick(&self.memory) {
            self.write(QUEUE_NOTIFY, queue.number.into());
        }
    }

    pub fn needs_reset(&mut self) -> bool {
        self.read(STATUS) & NEEDS_RESET != 0
    }

    /// The driver's way up to FEATURES_OK.
    pub fn negotiate(&mut self, features: Features) {
        self.write(STATUS, 0);
        assert_eq!(self.read(STATUS), 0);
        for status in [1, 3] {
            self.write(STATUS, status);
        }
        for (half, bits) in [(1, features.bits() >> 32), (0, features.bits() & 0xffff_ffff)] {
            self.write(DRIVER_FEATURES_SEL, half);
            self.write(DRIVER_FEATURES, bits.try_into().unwrap());
        }
        self.write(STATUS, 11);
        assert_eq!(self.read(STATUS), 11);
    }

    /// The driver's way on: a queue of its device.
    pub fn set_queue<T>(&mut self, queue: &DriverQueue<T>) {
        self.memory.poke(queue.available(), &[0; 0x800]).unwrap();
        self.write(QUEUE_SEL, queue.number.into());
        assert_eq!(self.read(QUEUE_READY), 0);
        self.write(QUEUE_NUM, queue.size.into());
        let places = [
            (QUEUE_DESC, queue.descriptors()),
            (QUEUE_DRIVER, queue.available()),
            (QUEUE_DEVICE, queue.used()),
        ];
        for (register, address) in places {
            self.write(register, (address & 0xffff_ffff).try_into().unwrap());
            self.write(register + 4, (address >> 32).try_into().unwrap());
        }
        self.write(QUEUE_READY, 1);
        assert_eq!(self.read(QUEUE_READY), 1);
    }

    /// The driver is up.
    pub fn start(&mut self) {
        self.write(STATUS, 15);
        assert_eq!(self.read(STATUS), 15);
    }

    /// As if so many chains had gone through the queue before. The kernel ends by that.
    pub fn wind<T>(&mut self, queue: &mut DriverQueue<T>, index: u16) {
        self.handover.queues[usize::from(queue.number)].begin(index);
        let bytes = index.to_le_bytes();
        for place in [
            queue.available() + 2,
            queue.used() + 2,
            queue.available() + 4 + u64::from(queue.size) * 2,
            queue.used() + 4 + u64::from(queue.size) * 8,
        ] {
            self.memory.poke(place, &bytes).unwrap();
        }
        (queue.next, queue.kicked, queue.seen) = (index, index, index);
        self.crash();
        self.settle();
        let _ = self.is_interrupted();
    }
}
