//! A disk: registers, rings, requests and the physical disk below. Every chain is given back, or the device does not run any more; only
//! buffers that descriptors gave are written, and none after a reset; no pin is left; and after a reset a good request does well.

use crate::clock;
use crate::guest::{Act, DATA, Guest};
use crate::input::{Address, Length, steps};
use crate::memory::Pinned;
use arbitrary::{Arbitrary, Unstructured};
use drivers::block::Volume;
use drivers::drive::DriveError;
use drivers::fake::drive::FakeDisk;
use drivers::virtio::blk::BlockDevice;
use drivers::volume::disk::Disk;
use drivers::volume::disk_volume::DiskVolume;
use drivers::volume::ram::RamVolume;
use std::cell::RefCell;
use std::rc::Rc;

const SECTORS: u64 = 256;
const SECOND: u64 = 1_000_000_000;
/// What the last request is for, and what must come of it.
const MARK: u8 = 0x5a;
const OK: u8 = 0;

#[derive(Arbitrary, Debug)]
struct Settings {
    slots: u8,
    is_ram: bool,
    is_prompt: bool,
    is_read_only: bool,
    has_cache: bool,
    block_shift: u8,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Guest(Act),
    /// A request by the rules, but for what it asks.
    Request {
        kind: u8,
        sector: u16,
        pieces: Vec<(Address, Length)>,
        is_written: bool,
        is_indirect: bool,
    },
    /// Ranges to be discarded or zeroed.
    Ranges {
        kind: u8,
        ranges: Vec<(u16, u16, u8)>,
    },
    CarryOut {
        index: u8,
    },
    Error {
        error: u8,
    },
    Sleep {
        seconds: u8,
    },
    Turn,
}

struct Bed {
    guest: Guest<BlockDevice<Pinned>>,
    fake: FakeDisk,
    disk: Rc<RefCell<Disk>>,
    now_ns: u64,
    requests: u64,
    is_ram: bool,
}

impl Bed {
    fn new(settings: &Settings) -> Self {
        let fake = FakeDisk::new(SECTORS, u16::from(settings.slots % 16) + 1);
        {
            let mut state = fake.state();
            state.is_prompt = settings.is_prompt;
            state.facts.read_only = settings.is_read_only;
            state.facts.has_cache = settings.has_cache;
            state.facts.block_bytes = 512 << (settings.block_shift % 4);
        }
        let disk = Rc::new(RefCell::new(Disk::new("blk0".into(), Box::new(fake.drive()))));
        let volume: Box<dyn Volume<Pinned>> = if settings.is_ram {
            Box::new(RamVolume(vec![0_u8; (SECTORS * 512) as usize]))
        } else {
            Box::new(DiskVolume::open(&disk, 0..SECTORS, settings.is_read_only))
        };
        let guest = Guest::running(BlockDevice::new("dom3/xvda".into(), "fuzz", volume));
        Self { guest, fake, disk, now_ns: SECOND, requests: 0, is_ram: settings.is_ram }
    }

    fn turn(&mut self) {
        clock::set(self.now_ns);
        self.disk.borrow_mut().poll(self.now_ns);
        let _ = self.guest.work();
        self.disk.borrow_mut().kick();
    }

    /// Makes a request available. Returns where its status byte is.
    fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32, bool)], is_indirect: bool) -> u64 {
        let header = DATA + self.requests % 32 * 64;
        self.requests += 1;
        let mut raw = [0; 16];
        raw[..4].copy_from_slice(&kind.to_le_bytes());
        raw[8..].copy_from_slice(&sector.to_le_bytes());
        self.guest.memory.poke(header, &raw);
        self.guest.memory.poke(header + 16, &[0xff]);
        let mut buffers = vec![(header, 16, false)];
        buffers.extend(data);
        buffers.push((header + 16, 1, true));
        self.guest.chain(0, &buffers, is_indirect);
        header + 16
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Guest(act) => self.guest.act(act),
            Step::Request { kind, sector, pieces, is_written, is_indirect } => {
                let data: Vec<_> = pieces
                    .iter()
                    .take(40)
                    .map(|(address, length)| (address.0, length.0, is_written))
                    .collect();
                self.request(u32::from(kind % 16), sector.into(), &data, is_indirect);
                self.guest.kick(0);
            }
            Step::Ranges { kind, ranges } => {
                let at = DATA + 0x1000;
                let count = ranges.len().min(8);
                for ((sector, sectors, flags), place) in ranges.iter().take(count).zip(0..) {
                    let mut raw = [0; 16];
                    raw[..2].copy_from_slice(&sector.to_le_bytes());
                    raw[8..10].copy_from_slice(&sectors.to_le_bytes());
                    raw[12] = *flags;
                    self.guest.memory.poke(at + place * 16, &raw);
                }
                let kind = [11, 13, 14][usize::from(kind % 3)];
                self.request(kind, 0, &[(at, count as u32 * 16, false)], false);
                self.guest.kick(0);
            }
            Step::CarryOut { index } => self.fake.carry_out(index.into()),
            Step::Error { error } => {
                let error = [DriveError::Io, DriveError::Unsupported][usize::from(error % 2)];
                self.fake.state().errors.push_back(error);
            }
            Step::Sleep { seconds } => self.now_ns += u64::from(seconds) * SECOND,
            Step::Turn => self.turn(),
        }
    }

    /// Everything is answered, and everything given back.
    fn finish(&mut self) {
        let Self { guest, fake, disk, now_ns, .. } = self;
        fake.state().errors.clear();
        guest.finish(|| {
            fake.carry_out_all();
            disk.borrow_mut().poll(*now_ns);
            disk.borrow_mut().kick();
            fake.carry_out_all();
            disk.borrow_mut().poll(*now_ns);
        });
        let unanswered = guest.unanswered().unwrap_or_default();
        assert!(unanswered.iter().all(|count| *count == 0), "{unanswered:?} are never answered");
        assert_eq!(guest.memory.pins(), guest.memory.rings().len(), "requests keep their pins");
    }

    /// After a reset the device is as good as new.
    fn end(mut self) {
        self.guest.reset();
        self.guest.memory.fill_holes();
        self.guest.act(Act::Start { less: 0, sizes: [6; 3] });
        let buffer = DATA + 0x4000;
        // What was begun before the reset may still happen, and does so first.
        self.finish();
        self.fake.state().bytes.fill(MARK);
        let status = self.request(0, 0, &[(buffer, 4096, true)], false);
        self.guest.kick(0);
        self.finish();
        assert_eq!(self.guest.memory.peek(status), [OK], "a good request fails");
        let read: [u8; 4096] = self.guest.memory.peek(buffer);
        // A volume in RAM has what was written to it.
        assert!(self.is_ram || read == [MARK; 4096], "a good request reads something else");
        let memory = self.guest.memory.clone();
        drop(self);
        assert_eq!(memory.pins(), 0);
    }
}

/// A disk whose guest, and physical disk, do what `data` says.
pub fn blk(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(settings) = input.arbitrary::<Settings>() else { return };
    let mut bed = Bed::new(&settings);
    steps(input).for_each(|step| bed.step(step));
    bed.finish();
    bed.end();
}
