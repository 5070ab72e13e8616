//! A device of ours: queues, memory, how it is started.

use alloc::vec::Vec;
use core::fmt;

use by_hand::grants::{Grants, Right, granted};
use by_hand::pages::Pages;
use by_hand::registers::{self as register, Registers};
use by_hand::ring::{Descriptor, NEXT, Ring, SIZE};
use kernel::bring_up::Foundation;
use kernel::limits::PAGE_BYTES;
use kernel::xen::DomainId;

use crate::random::Random;

pub const INDIRECT_DESC: u64 = 1 << 28;
pub const VERSION_1: u64 = 1 << 32;
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// virtio-net: the control queue is there.
const CTRL_VQ: u64 = 1 << 17;
const PROBE: u32 = register::ACKNOWLEDGE | register::DRIVER;

/// Queues of a NIC (virtio 1.2, 5.1.2).
pub const RECEIVE: usize = 0;
pub const TRANSMIT: usize = 1;
pub const CONTROL: usize = 2;

/// Pages for what requests consist of.
pub const DATA_PAGES: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nic,
    Disk,
}

impl Kind {
    /// By the number of the kind (virtio 1.2, 5).
    fn of(registers: Registers) -> Option<Self> {
        match registers.read(register::DEVICE_ID) {
            1 => Some(Self::Nic),
            2 => Some(Self::Disk),
            _ => None,
        }
    }

    /// Sizes of its queues; that of a NIC for commands may not be larger.
    fn queues(self) -> &'static [u16] {
        match self {
            Self::Nic => &[SIZE, SIZE, SIZE / 2],
            Self::Disk => &[SIZE],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nic => "NIC",
            Self::Disk => "disk",
        })
    }
}

/// Pages that the device can reach: by their addresses, or by grants, the first of which this is.
pub struct Shown {
    pub pages: Pages,
    first: Option<u32>,
}

impl Shown {
    fn new(pages: Pages, granting: Option<(&mut Grants, DomainId)>) -> Self {
        let first = granting.map(|(grants, backend)| {
            let first = grants.mark();
            for page in 0..pages.count() {
                grants.grant(backend, pages.frame(page), Right::Write);
            }
            first
        });
        Self { pages, first }
    }

    /// By what the device reaches a byte.
    pub fn address(&self, offset: usize) -> u64 {
        address(&self.pages, self.first, offset)
    }
}

fn address(pages: &Pages, first: Option<u32>, offset: usize) -> u64 {
    match first {
        None => pages.address(offset),
        Some(first) => granted(first + (offset / PAGE_BYTES) as u32) | (offset % PAGE_BYTES) as u64,
    }
}

/// A part of a request, as a descriptor tells it.
#[derive(Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub length: u32,
    /// But for NEXT.
    pub flags: u16,
}

/// A queue of a device.
pub struct Queue {
    pub ring: Ring,
    /// By what the device reaches its pages.
    first: Option<u32>,
}

impl Queue {
    /// Where the device finds its three rings.
    pub fn addresses(&self) -> [u64; 3] {
        [0, 1, 2].map(|ring| address(&self.ring.pages, self.first, ring * PAGE_BYTES))
    }

    /// Offers a chain, which takes the descriptors from `first` on.
    pub fn offer(&mut self, first: u16, chain: &[Buffer]) {
        let last = first + chain.len() as u16 - 1;
        for (index, buffer) in (first..).zip(chain) {
            let flags = buffer.flags | if index < last { NEXT } else { 0 };
            let Buffer { address, length, .. } = *buffer;
            self.ring.describe(index, &Descriptor { address, length, flags, next: index + 1 });
        }
        self.ring.offer(first);
    }
}

/// A device.
pub struct Device {
    pub registers: Registers,
    pub kind: Kind,
    pub queues: Vec<Queue>,
    pub data: Shown,
    /// All that it offers.
    offered: u64,
    /// What makes it work.
    needed: u64,
    /// What we take when it is started.
    features: u64,
}

impl Device {
    /// The device that `xl` made as number `index`; none when there are not so many.
    pub fn find(
        index: usize,
        foundation: &Foundation,
        grants: &mut Grants,
        backend: DomainId,
    ) -> Result<Option<Self>, &'static str> {
        let registers = Registers::nth(index);
        if !registers.is_virtio() {
            return Ok(None);
        }
        let Some(kind) = Kind::of(registers) else { return Ok(None) };
        let halves = [0, 1].map(|select| {
            registers.write(register::DEVICE_FEATURES_SELECT, select);
            u64::from(registers.read(register::DEVICE_FEATURES)) << (32 * select)
        });
        let offered = halves[0] | halves[1];
        let needed = offered & (VERSION_1 | ACCESS_PLATFORM | INDIRECT_DESC | CTRL_VQ);
        let is_granted = offered & ACCESS_PLATFORM != 0;
        let mut queues = Vec::new();
        for size in kind.queues() {
            let ring = Ring::new(foundation, *size)?;
            let first = grants.mark();
            if is_granted {
                (0..ring.pages.count()).for_each(|page| {
                    grants.grant(backend, ring.pages.frame(page), Right::Write);
                });
            }
            queues.push(Queue { ring, first: is_granted.then_some(first) });
        }
        let pages = Pages::take(foundation, DATA_PAGES)?;
        let data = Shown::new(pages, is_granted.then_some((grants, backend)));
        Ok(Some(Self { registers, kind, queues, data, offered, needed, features: needed }))
    }

    /// Whether it reaches only what it is granted.
    pub fn is_granted(&self) -> bool {
        self.offered & ACCESS_PLATFORM != 0
    }

    /// From the next start on we take any of the features that it offers, with those that make it work.
    pub fn take_any_features(&mut self, random: &mut Random) {
        self.features = self.needed | self.offered & (random.any() | random.any());
    }

    /// From the next start on we take no more than makes it work.
    pub fn take_few_features(&mut self) {
        self.features = self.needed;
    }

    /// Resets the device, and starts it as a driver does.
    pub fn restart(&mut self) {
        let features = self.features;
        self.negotiate(features);
        for index in 0..self.queues.len() {
            let rings = self.queues[index].addresses();
            self.set_queue(index, self.queues[index].ring.size.into(), rings);
        }
        self.ready();
    }

    /// Resets the device, and offers it features.
    pub fn negotiate(&mut self, features: u64) {
        self.registers.write(register::STATUS, 0);
        for queue in &mut self.queues {
            queue.ring.clear();
        }
        self.registers.write(register::STATUS, register::ACKNOWLEDGE);
        self.registers.write(register::STATUS, PROBE);
        for (select, bits) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.registers.write(register::DRIVER_FEATURES_SELECT, select);
            self.registers.write(register::DRIVER_FEATURES, bits);
        }
        self.registers.write(register::STATUS, PROBE | register::FEATURES_OK);
    }

    /// Tells where the rings of a queue are.
    pub fn set_queue(&self, index: usize, size: u32, rings: [u64; 3]) {
        self.registers.write(register::QUEUE_SELECT, index as u32);
        self.registers.write(register::QUEUE_SIZE, size);
        for (offset, address) in register::QUEUE_RINGS.into_iter().zip(rings) {
            self.registers.write(offset, address as u32);
            self.registers.write(offset + 4, (address >> 32) as u32);
        }
        self.registers.write(register::QUEUE_READY, 1);
    }

    /// The last step of a start.
    pub fn ready(&self) {
        self.registers.write(register::STATUS, PROBE | register::FEATURES_OK | register::DRIVER_OK);
    }

    /// Starts it again if it does not run.
    pub fn ensure_running(&mut self) {
        let status = self.registers.read(register::STATUS);
        if status & register::DRIVER_OK == 0 || status & register::NEEDS_RESET != 0 {
            self.restart();
        }
    }

    /// Lets the device see what was offered.
    pub fn kick(&self, queue: usize) {
        self.queues[queue].ring.publish();
        self.registers.write(register::QUEUE_NOTIFY, queue as u32);
    }
}
