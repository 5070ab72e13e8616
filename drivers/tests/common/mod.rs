//! A guest for tests: its memory, the registers of a disk, and a queue whose rings are written by hand.
#![allow(dead_code, reason = "each test binary uses its part")]

mod clock;
pub mod crash;
pub mod disk_bed;
pub mod gpt_image;
pub mod hostile;
pub mod lanes;
pub mod linux_ring;
pub mod model_disk;
pub mod nbd_bed;
pub mod nbd_process;
pub mod nbd_server;
pub mod net_bed;
pub mod rogue_disk;
pub mod scheduled_memory;
pub mod virtio_guest;
pub mod virtual_disk;
pub mod weak_memory;

use drivers::block::Volume;
use drivers::fake::{FakeGuestMemory, FakeLine, FakePinned};
use drivers::virtio::Features;
use drivers::virtio::blk::BlockDevice;
use drivers::virtio::mmio::{Effect, MmioDevice, Progress, Width};
pub use model_disk::ModelDisk;

pub type Device = MmioDevice<BlockDevice<FakePinned>, FakeGuestMemory, FakeLine>;

// Register offsets, written down a second time on purpose: tests should not share the device's mistakes.
pub const DEVICE_ID: u32 = 0x08;
pub const DEVICE_FEATURES: u32 = 0x10;
pub const DEVICE_FEATURES_SEL: u32 = 0x14;
pub const DRIVER_FEATURES: u32 = 0x20;
pub const DRIVER_FEATURES_SEL: u32 = 0x24;
pub const QUEUE_SEL: u32 = 0x30;
pub const QUEUE_NUM_MAX: u32 = 0x34;
pub const QUEUE_NUM: u32 = 0x38;
pub const QUEUE_READY: u32 = 0x44;
pub const QUEUE_NOTIFY: u32 = 0x50;
pub const INTERRUPT_STATUS: u32 = 0x60;
pub const INTERRUPT_ACK: u32 = 0x64;
pub const STATUS: u32 = 0x70;
pub const QUEUE_DESC: u32 = 0x80;
pub const QUEUE_DRIVER: u32 = 0x90;
pub const QUEUE_DEVICE: u32 = 0xa0;
pub const CONFIG: u32 = 0x100;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const NEEDS_RESET: u32 = 64;

/// Where the hand-made guest keeps things.
pub const BASE: u64 = 0x4000_0000;
pub const PAGES: usize = 1024;
pub const DESCRIPTORS: u64 = BASE;
pub const AVAILABLE: u64 = BASE + 0x1000;
pub const USED: u64 = BASE + 0x2000;
pub const HEADER: u64 = BASE + 0x4000;
pub const STATUS_BYTE: u64 = BASE + 0x5000;
pub const TABLE: u64 = BASE + 0x6000;
pub const DATA: u64 = BASE + 0x10000;
pub const SIZE: u16 = 16;

pub const RING_FEATURES: Features =
    Features::VERSION_1.union(Features::INDIRECT_DESC).union(Features::EVENT_IDX);

pub struct Guest {
    pub device: Device,
    pub memory: FakeGuestMemory,
    pub line: FakeLine,
    pub disk: ModelDisk,
    pub size: u16,
    next: u16,
    features: Features,
}

impl Guest {
    /// A guest that has found the device and not touched it.
    pub fn cold(disk: &ModelDisk) -> Self {
        Self { disk: disk.clone(), ..Self::over(Box::new(disk.clone())) }
    }

    /// Likewise, over any volume.
    pub fn over(volume: Box<dyn Volume<FakePinned>>) -> Self {
        Self::on_platform(Features::empty(), volume)
    }

    /// Likewise, on a platform that needs these features.
    pub fn on_platform(platform: Features, volume: Box<dyn Volume<FakePinned>>) -> Self {
        let memory = FakeGuestMemory::new(BASE, PAGES);
        let line = FakeLine::default();
        let block = BlockDevice::new("dom3/xvda".into(), "model", volume);
        let device = MmioDevice::new(block, memory.clone(), line.clone(), platform);
        let features = Features::empty();
        Self { device, memory, line, disk: ModelDisk::new(0), size: SIZE, next: 0, features }
    }

    /// A guest whose driver is up, with all ring features.
    pub fn running(disk: &ModelDisk) -> Self {
        let mut guest = Self::cold(disk);
        guest.start(RING_FEATURES);
        guest
    }

    pub fn read(&self, offset: u32) -> u32 {
        self.device.read(offset, Width::Four).try_into().unwrap()
    }

    pub fn write(&mut self, offset: u32, value: u32) -> Effect {
        self.device.write(offset, Width::Four, value.into())
    }

    fn write_address(&mut self, offset: u32, address: u64) {
        let _ = self.write(offset, (address & 0xffff_ffff) as u32);
        let _ = self.write(offset + 4, (address >> 32) as u32);
    }

    /// The driver's way up to FEATURES_OK, in Linux's order of accesses, with rings of zeroes.
    pub fn negotiate(&mut self, features: Features) {
        let _ = self.write(STATUS, 0);
        self.memory.poke(AVAILABLE, &[0; 0x2000]).unwrap();
        let _ = self.write(STATUS, 1);
        let _ = self.write(STATUS, 1 | 2);
        let _ = self.write(DRIVER_FEATURES_SEL, 1);
        let _ = self.write(DRIVER_FEATURES, (features.bits() >> 32) as u32);
        let _ = self.write(DRIVER_FEATURES_SEL, 0);
        let _ = self.write(DRIVER_FEATURES, (features.bits() & 0xffff_ffff) as u32);
        let _ = self.write(STATUS, 1 | 2 | 8);
        self.features = features;
        self.next = 0;
    }

    pub fn set_queue(&mut self, size: u16, descriptors: u64, available: u64, used: u64) {
        let _ = self.write(QUEUE_SEL, 0);
        let _ = self.write(QUEUE_NUM, size.into());
        self.write_address(QUEUE_DESC, descriptors);
        self.write_address(QUEUE_DRIVER, available);
        self.write_address(QUEUE_DEVICE, used);
        let _ = self.write(QUEUE_READY, 1);
        self.size = size;
    }

    pub fn start(&mut self, features: Features) {
        self.negotiate(features);
        self.set_queue(SIZE, DESCRIPTORS, AVAILABLE, USED);
        let _ = self.write(STATUS, 1 | 2 | 4 | 8);
        self.work();
    }

    /// What the kernel does after a write that has an effect.
    pub fn work(&mut self) {
        while self.device.process() != (Progress { requests: 0, more: false, ..Progress::default() }) {}
    }

    pub fn poke_u16(&self, address: u64, value: u16) {
        self.memory.poke(address, &value.to_le_bytes()).unwrap();
    }

    pub fn peek_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(peek(&self.memory, address))
    }

    fn peek_u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(peek(&self.memory, address))
    }

    /// Writes entry `index` of a descriptor table.
    pub fn set_descriptor(&self, table: u64, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        self.memory.poke(table + u64::from(index) * 16, &descriptor(buffer, flags, next)).unwrap();
    }

    /// Chains buffers from entry `first` of `table` on; the bool says that the device may write.
    pub fn set_chain(&self, table: u64, first: u16, buffers: &[(u64, u32, bool)]) {
        for (place, (address, length, writable)) in buffers.iter().enumerate() {
            let index = first + u16::try_from(place).unwrap();
            let next = if place + 1 < buffers.len() { NEXT } else { 0 };
            let write = if *writable { WRITE } else { 0 };
            self.set_descriptor(table, index, (*address, *length), next | write, index + 1);
        }
    }

    pub fn set_header(&self, kind: u32, sector: u64) {
        self.memory.poke(HEADER, &header(kind, sector)).unwrap();
    }

    /// Writes a header, and a chain from descriptor 0 on: header, `data`, status byte (preset to 0xff).
    pub fn set_request(&self, kind: u32, sector: u64, data: &[(u64, u32, bool)]) {
        self.set_header(kind, sector);
        self.memory.poke(STATUS_BYTE, &[0xff]).unwrap();
        let mut buffers = vec![(HEADER, 16, false)];
        buffers.extend_from_slice(data);
        buffers.push((STATUS_BYTE, 1, true));
        self.set_chain(DESCRIPTORS, 0, &buffers);
    }

    /// Puts a head on the available ring without moving the index.
    pub fn put_head(&self, ahead: u16, head: u16) {
        let slot = u64::from(self.next.wrapping_add(ahead) % self.size);
        self.poke_u16(AVAILABLE + 4 + slot * 2, head);
    }

    /// Moves the available index by `count`.
    pub fn publish(&mut self, count: u16) {
        self.next = self.next.wrapping_add(count);
        self.poke_u16(AVAILABLE + 2, self.next);
    }

    /// Makes one head available, kicks and lets the kernel work.
    pub fn submit(&mut self, head: u16) {
        self.put_head(0, head);
        self.publish(1);
        self.kick();
    }

    pub fn kick(&mut self) {
        let _ = self.write(QUEUE_NOTIFY, 0);
        self.work();
    }

    /// Asks to be interrupted at used index `event`.
    pub fn set_used_event(&self, event: u16) {
        self.poke_u16(AVAILABLE + 4 + u64::from(self.size) * 2, event);
    }

    pub fn avail_event(&self) -> u16 {
        self.peek_u16(USED + 4 + u64::from(self.size) * 8)
    }

    /// The index of the used ring.
    pub fn used_index(&self) -> u16 {
        self.peek_u16(USED + 2)
    }

    /// Entry `place` of the used ring: id and length.
    pub fn used(&self, place: u16) -> (u32, u32) {
        let entry = USED + 4 + u64::from(place % self.size) * 8;
        (self.peek_u32(entry), self.peek_u32(entry + 4))
    }

    pub fn status_byte(&self) -> u8 {
        u8::from_le_bytes(peek(&self.memory, STATUS_BYTE))
    }

    pub fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.peek(address, &mut bytes).unwrap();
        bytes
    }

    pub fn needs_reset(&self) -> bool {
        self.read(STATUS) & NEEDS_RESET != 0
    }
}

pub fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..4].copy_from_slice(&kind.to_le_bytes());
    raw[8..].copy_from_slice(&sector.to_le_bytes());
    raw
}

/// Cuts a run of bytes into buffers at the given places.
pub fn cut(start: u64, length: usize, cuts: &[usize], writable: bool) -> Vec<(u64, u32, bool)> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (length + 1)).collect();
    places.extend([0, length]);
    places.sort_unstable();
    let piece =
        |ends: &[usize]| (start + ends[0] as u64, u32::try_from(ends[1] - ends[0]).unwrap(), writable);
    places.windows(2).map(piece).collect()
}

/// An entry of a descriptor table.
pub fn descriptor(buffer: (u64, u32), flags: u16, next: u16) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&buffer.0.to_le_bytes());
    raw[8..12].copy_from_slice(&buffer.1.to_le_bytes());
    raw[12..14].copy_from_slice(&flags.to_le_bytes());
    raw[14..].copy_from_slice(&next.to_le_bytes());
    raw
}

/// Some bytes of a guest's memory.
pub fn peek<const BYTES: usize>(memory: &FakeGuestMemory, address: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    memory.peek(address, &mut bytes).unwrap();
    bytes
}
