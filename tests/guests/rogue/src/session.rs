//! A case: a lie, what came back, and an honest request, which must be served after it as if nothing had been.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::error::Error;

use kernel::bring_up::Foundation;
use kernel::limits::PAGE_BYTES;
use kernel::logger;
use kernel::mm::address::Gfn;

use crate::answer::{Answer, UNTOUCHED};
use crate::disk::{ACCESS_PLATFORM, Buffer, Disk, INDIRECT_DESC, VERSION_1};
use crate::memory::Memory;
use crate::options::{Lies, Options};
use by_hand::grants::{Grants, NEVER_GRANTED, Right, granted};
use by_hand::pages::Pages;
use by_hand::ring::{INDIRECT, Ring, SIZE, WRITE};

/// What requests consist of lies in these pages.
const HEADERS: usize = 0;
const STATUSES: usize = PAGE_BYTES;
pub const TABLE: usize = 2 * PAGE_BYTES;
const DATA: usize = 3 * PAGE_BYTES;
/// Pages for data.
const DATA_PAGES: usize = 24;
/// The distance of headers of different requests, and of their status bytes.
const SLOT_BYTES: usize = 64;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read = 0,
    Write = 1,
}

impl Kind {
    pub const BOTH: [Self; 2] = [Self::Read, Self::Write];

    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// What the device must be able to do with the data.
    pub fn right(self) -> Right {
        match self {
            Self::Read => Right::Write,
            Self::Write => Right::Read,
        }
    }

    /// How a buffer of data is described.
    pub fn flags(self) -> u16 {
        match self {
            Self::Read => WRITE,
            Self::Write => 0,
        }
    }
}

/// The device, and what it is told of our memory.
pub struct Session {
    pub disk: Disk,
    pub memory: Memory,
    pub pages: Pages,
    /// Addresses that the device cannot reach.
    pub nowhere: Vec<u64>,
    /// Grants that were in use when they were not to be.
    pub in_use: usize,
    /// Honest rounds so far.
    pub rounds: u64,
}

impl Session {
    /// Finds the disk; it is not started yet.
    pub fn new(foundation: &Foundation, options: &Options) -> Result<Self, Box<dyn Error>> {
        let disk = Disk::new(Ring::new(foundation, SIZE)?)?;
        let grants = Grants::new(Gfn::containing(foundation.unpopulated.start))?;
        let hole = foundation.unpopulated.end as u64;
        let (memory, nowhere) = match options.lies {
            Lies::Memory => (Memory::Shared, [hole, 1 << 39, granted(NEVER_GRANTED)]),
            Lies::Grants => {
                let rings_end = grants.mark();
                let memory = Memory::Granted { grants, backend: options.backend, rings_end };
                (memory, [granted(NEVER_GRANTED), hole, granted(u32::MAX)])
            }
        };
        let pages = Pages::take(foundation, DATA / PAGE_BYTES + DATA_PAGES)?;
        Ok(Self { disk, memory, pages, nowhere: nowhere.into(), in_use: 0, rounds: 0 })
    }

    /// The features that make the device work.
    pub fn features(&self) -> u64 {
        let platform = if matches!(self.memory, Memory::Shared) { 0 } else { ACCESS_PLATFORM };
        VERSION_1 | INDIRECT_DESC | platform
    }

    /// Resets the device, and starts it anew.
    pub fn restart(&mut self) {
        self.restart_with(|_, _, _| {});
    }

    /// Likewise, with addresses of the rings that `change` has changed. Returns whether the device accepts them.
    pub fn restart_with(&mut self, change: impl FnOnce(&mut Memory, &Pages, &mut [u64; 3])) -> Answer {
        let agreed = self.disk.negotiate(self.features());
        self.in_use += self.memory.take_rings_back();
        let ring = &self.disk.ring.pages;
        let mut rings = [(0, Right::Read), (1, Right::Read), (2, Right::Write)]
            .map(|(page, right)| self.memory.reach(ring, page * PAGE_BYTES, right));
        change(&mut self.memory, ring, &mut rings);
        self.memory.keep_rings();
        self.disk.start(rings);
        if agreed && !self.disk.needs_reset() { Answer::OK } else { Answer::NeedsReset }
    }

    /// An honest header; requests that are under way together have different `slot`s.
    pub fn header(&mut self, slot: usize, kind: Kind, sector: u64) -> Buffer {
        let offset = HEADERS + slot * SLOT_BYTES;
        self.pages.write(offset, &(kind as u64).to_le_bytes());
        self.pages.write(offset + 8, &sector.to_le_bytes());
        Buffer { address: self.memory.reach(&self.pages, offset, Right::Read), length: 16, flags: 0 }
    }

    /// An honest place for the status, which nobody has written yet.
    pub fn status(&mut self, slot: usize) -> Buffer {
        self.status_for(slot, Right::Write)
    }

    /// A place for the status, with which the device may do only this.
    pub fn status_for(&mut self, slot: usize, right: Right) -> Buffer {
        let offset = STATUSES + slot * SLOT_BYTES;
        self.pages.write(offset, &[UNTOUCHED]);
        Buffer { address: self.memory.reach(&self.pages, offset, right), length: 1, flags: WRITE }
    }

    /// What is there.
    pub fn answer(&self, slot: usize) -> Answer {
        let mut status = [0];
        self.pages.read(STATUSES + slot * SLOT_BYTES, &mut status);
        Answer::Status(status[0])
    }

    /// The offset of a page of data.
    pub fn data(page: usize) -> usize {
        assert!(page < DATA_PAGES, "rogue: no such page of data");
        DATA + page * PAGE_BYTES
    }

    /// An honest page of data.
    pub fn page(&mut self, page: usize, kind: Kind) -> Buffer {
        let address = self.memory.reach(&self.pages, Self::data(page), kind.right());
        Self::at(address, PAGE_BYTES as u32, kind)
    }

    /// Data anywhere.
    pub fn at(address: u64, length: u32, kind: Kind) -> Buffer {
        Buffer { address, length, flags: kind.flags() }
    }

    /// A request with these data, else honest.
    pub fn request(&mut self, kind: Kind, sector: u64, data: &[Buffer]) -> Vec<Buffer> {
        let mut chain = alloc::vec![self.header(0, kind, sector)];
        chain.extend(data);
        chain.push(self.status(0));
        chain
    }

    /// A descriptor that names a table.
    pub fn table(address: u64, descriptors: usize) -> Buffer {
        Buffer { address, length: (descriptors * by_hand::ring::DESCRIPTOR_BYTES) as u32, flags: INDIRECT }
    }

    /// Gives the device a chain alone, and takes all back that was granted for it as soon as it is done.
    pub fn ask(&mut self, chain: &[Buffer]) -> Answer {
        self.disk.offer(0, chain);
        self.disk.kick();
        let waited = self.disk.wait();
        self.in_use += self.memory.take_back();
        waited.err().unwrap_or_else(|| self.answer(0))
    }

    /// Tells a lie, and what comes of it.
    pub fn case(&mut self, name: &str, lie: impl FnOnce(&mut Self) -> Vec<Buffer>) {
        let chain = lie(self);
        let answer = self.ask(&chain);
        self.conclude(name, answer);
    }

    /// Tells what came of a lie, and whether the device is as good as ever.
    pub fn conclude(&mut self, name: &str, answer: Answer) {
        if matches!(answer, Answer::NeedsReset | Answer::Nothing) {
            self.restart();
        }
        let next = self.honest();
        let in_use = core::mem::take(&mut self.in_use);
        match self.memory {
            Memory::Shared => log::info!("rogue: {name}: {answer}; next: {next}"),
            Memory::Granted { .. } => log::info!("rogue: {name}: {answer}; next: {next}; in use: {in_use}"),
        }
        logger::pump();
    }
}
