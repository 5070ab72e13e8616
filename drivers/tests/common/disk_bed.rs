//! Guests with many requests under way on a physical disk that answers when told to, and the kernel's loop.

use super::{
    AVAILABLE, DATA, DESCRIPTORS, Guest, HEADER, INDIRECT, QUEUE_NOTIFY, STATUS, STATUS_BYTE, TABLE, USED,
    header,
};
use drivers::fake::drive::FakeDisk;
use drivers::virtio::Features;
use drivers::virtio::blk::config::FLUSH;
use drivers::virtio::mmio::Effect;
use drivers::volume::disk::Disk;
use drivers::volume::registry::{Access, OpenError, OpenVolume, Registry};
use drivers::volume::spec::{Part, VolumeSpec};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH_ALL: u32 = 4;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
/// No answer yet.
pub const NONE: u8 = 0xff;

/// The rings: three pins that live as long as the queue.
pub const RING_PINS: usize = 3;
/// Bytes for the data of each request.
pub const DATA_BYTES: u64 = 0x8000;
/// Descriptors of the queue, three for each request.
pub const QUEUE_SIZE: u16 = 256;
const NO_NOTIFY: u16 = 1;
/// More turns of the loop than anything takes that ends.
const ENOUGH_TURNS: usize = 10_000;

/// A disk and who may open it.
pub struct DiskBed {
    pub fake: FakeDisk,
    pub disk: Rc<RefCell<Disk>>,
    pub registry: Registry,
    pub now_ns: Cell<u64>,
}

impl DiskBed {
    /// A disk of zeroes that answers when told to.
    pub fn new(sectors: u64, slots: u16) -> Self {
        Self::over(FakeDisk::new(sectors, slots))
    }

    pub fn over(fake: FakeDisk) -> Self {
        fake.state().is_prompt = false;
        let disk = Rc::new(RefCell::new(Disk::new("blk0".into(), Box::new(fake.drive()))));
        let registry =
            Registry::new(None, vec![Some(disk.clone())], Box::new(|_, _| None), Box::new(|_| None));
        Self { fake, disk, registry, now_ns: Cell::default() }
    }

    /// Opens a part of the disk; the disk answers meanwhile.
    pub fn open(&self, part: Part, access: Access) -> Result<OpenVolume, OpenError> {
        self.open_among(part, access, &mut [])
    }

    /// Likewise, while these guests are served.
    pub fn open_among(
        &self,
        part: Part,
        access: Access,
        guests: &mut [&mut DiskGuest],
    ) -> Result<OpenVolume, OpenError> {
        let spec = VolumeSpec::Disk { disk: 0, part };
        let mut opening = pin!(self.registry.open(&spec, access, 0));
        let mut turns = (0..ENOUGH_TURNS).map(|_| {
            let polled = opening.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            self.disk.borrow_mut().kick();
            self.fake.carry_out_all();
            self.turn(guests);
            polled
        });
        match turns.find(Poll::is_ready) {
            Some(Poll::Ready(opened)) => opened,
            _ => panic!("the opening never ends"),
        }
    }

    /// A guest that has all of the disk, and flushes.
    pub fn guest(&self) -> DiskGuest {
        self.guest_with(FLUSH)
    }

    /// A guest that has all of the disk, with these features.
    pub fn guest_with(&self, features: Features) -> DiskGuest {
        DiskGuest::new(self.open(Part::Whole, Access::ReadWrite).unwrap(), features)
    }

    /// A guest that has partition `number`, and flushes.
    pub fn guest_of_partition(&self, number: u32) -> DiskGuest {
        DiskGuest::new(self.open(Part::Number(number), Access::ReadWrite).unwrap(), FLUSH)
    }

    /// One turn of the kernel's loop.
    pub fn turn(&self, guests: &mut [&mut DiskGuest]) {
        self.disk.borrow_mut().poll(self.now_ns.get());
        guests.iter_mut().for_each(|guest| guest.work());
        self.disk.borrow_mut().kick();
    }

    /// Turns of the loop until nothing is at the device, each followed by the device's answers.
    pub fn finish(&self, guests: &mut [&mut DiskGuest]) {
        for _ in 0..ENOUGH_TURNS {
            self.turn(guests);
            if self.fake.state().at_device.is_empty() {
                return;
            }
            self.fake.carry_out_all();
        }
        panic!("it never ends");
    }

    /// The device carries out the command that waits there `index`-th, and the loop turns.
    pub fn carry_out(&self, index: usize, guests: &mut [&mut DiskGuest]) {
        self.fake.carry_out(index);
        self.turn(guests);
    }

    /// Time goes on.
    pub fn pass(&self, time_ns: u64) {
        self.now_ns.set(self.now_ns.get() + time_ns);
    }

    /// Commands at the device.
    pub fn at_device(&self) -> usize {
        self.fake.state().at_device.len()
    }
}

/// A guest whose request `n` has descriptors, header, data and status byte of its own.
pub struct DiskGuest {
    pub guest: Guest,
    features: Features,
    /// The kernel looks at it.
    active: bool,
}

impl DiskGuest {
    /// A guest with this volume, its driver up with these features.
    pub fn new(volume: OpenVolume, features: Features) -> Self {
        let mut disk_guest = Self {
            guest: Guest::over(Box::new(volume)),
            features: features | Features::VERSION_1,
            active: false,
        };
        disk_guest.start();
        disk_guest
    }

    /// Resets the device and brings the driver up.
    pub fn start(&mut self) {
        self.guest.negotiate(self.features);
        self.guest.set_queue(QUEUE_SIZE, DESCRIPTORS, AVAILABLE, USED);
        self.active = self.guest.write(STATUS, 1 | 2 | 4 | 8) == Effect::Work;
    }

    /// Resets the device, and leaves it at that.
    pub fn reset(&mut self) {
        let _ = self.guest.write(STATUS, 0);
        self.active = false;
    }

    /// What the kernel does for it at each turn, including a look that could be the last for long.
    pub fn work(&mut self) {
        for _ in 0..ENOUGH_TURNS {
            if !self.active {
                return;
            }
            let _ = self.guest.device.poll();
            let progress = self.guest.device.process();
            let busy = progress.requests > 0 || progress.more;
            self.active = busy || progress.under_way;
            if !busy {
                return;
            }
        }
        panic!("it spins");
    }

    /// Writes request `n`, whose data has `length` bytes, and makes it available.
    pub fn put(&mut self, n: u16, kind: u32, sector: u64, length: u32) {
        self.put_pieces(n, kind, sector, &[(data(n), length)]);
    }

    /// Likewise, with data in several places.
    pub fn put_pieces(&mut self, n: u16, kind: u32, sector: u64, pieces: &[(u64, u32)]) {
        let place = u64::from(n);
        let header_at = HEADER + place * 16;
        self.guest.memory.poke(header_at, &header(kind, sector)).unwrap();
        self.guest.memory.poke(STATUS_BYTE + place, &[NONE]).unwrap();
        let mut buffers = vec![(header_at, 16, false)];
        buffers.extend(pieces.iter().map(|(address, length)| (*address, *length, kind == IN)));
        buffers.push((STATUS_BYTE + place, 1, true));
        self.guest.set_chain(DESCRIPTORS, n * 3, &buffers);
        self.guest.put_head(0, n * 3);
        self.guest.publish(1);
    }

    /// Writes request `n`, one buffer of data and its descriptors in a table, and makes it available.
    pub fn put_indirect(&mut self, n: u16, kind: u32, sector: u64, length: u32) {
        let place = u64::from(n);
        let (header_at, table) = (HEADER + place * 16, TABLE + place * 48);
        self.guest.memory.poke(header_at, &header(kind, sector)).unwrap();
        self.guest.memory.poke(STATUS_BYTE + place, &[NONE]).unwrap();
        let buffers = [(header_at, 16, false), (data(n), length, kind == IN), (STATUS_BYTE + place, 1, true)];
        self.guest.set_chain(table, 0, &buffers);
        self.guest.set_descriptor(DESCRIPTORS, n * 3, (table, 48), INDIRECT, 0);
        self.guest.put_head(0, n * 3);
        self.guest.publish(1);
    }

    /// Makes request `n` available that writes `value` everywhere.
    pub fn put_write(&mut self, n: u16, sector: u64, length: u32, value: u8) {
        self.fill(n, &vec![value; length as usize]);
        self.put(n, OUT, sector, length);
    }

    /// Makes request `n` available that discards, or zeroes, ranges.
    pub fn put_ranges(&mut self, n: u16, kind: u32, ranges: &[(u64, u32)]) {
        let raw = ranges.iter().flat_map(|(sector, sectors)| {
            [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &[0; 4]].concat()
        });
        let raw: Vec<u8> = raw.collect();
        self.fill(n, &raw);
        self.put(n, kind, 0, raw.len().try_into().unwrap());
    }

    /// Kicks, if the device wants that.
    pub fn kick(&mut self) {
        if self.guest.peek_u16(USED) & NO_NOTIFY == 0 {
            self.active |= self.guest.write(QUEUE_NOTIFY, 0) == Effect::Work;
        }
    }

    /// Fills the data of request `n`.
    pub fn fill(&self, n: u16, bytes: &[u8]) {
        self.guest.memory.poke(data(n), bytes).unwrap();
    }

    /// The data of request `n`.
    pub fn data(&self, n: u16, length: usize) -> Vec<u8> {
        self.guest.bytes(data(n), length)
    }

    /// The status byte of request `n`.
    pub fn status(&self, n: u16) -> u8 {
        self.guest.bytes(STATUS_BYTE + u64::from(n), 1)[0]
    }

    /// The status bytes of the first `count` requests.
    pub fn statuses(&self, count: usize) -> Vec<u8> {
        self.guest.bytes(STATUS_BYTE, count)
    }

    /// The requests that were given back since the start, in that order.
    pub fn given_back(&self) -> Vec<u16> {
        (0..self.guest.used_index())
            .map(|place| u16::try_from(self.guest.used(place).0).unwrap() / 3)
            .collect()
    }

    /// Pins of requests under way.
    pub fn pins(&self) -> usize {
        self.guest.memory.pins() - RING_PINS
    }
}

/// Where request `n` has its data.
pub fn data(n: u16) -> u64 {
    DATA + u64::from(n) * DATA_BYTES
}
