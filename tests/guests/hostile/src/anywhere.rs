//! Addresses and lengths that a device must not trust.

use core::ops::Range;

use by_hand::grants::{GRANT, granted};
use by_hand::registers::FIRST_DEVICE;
use by_hand::ring::{DESCRIPTOR_BYTES, Descriptor, INDIRECT, NEXT, SIZE, WRITE};
use kernel::bring_up::Foundation;
use kernel::device_tree::InterruptController::{V2, V3};
use kernel::limits::PAGE_BYTES;

use crate::device::{DATA_PAGES, Device};
use crate::random::Random;

const PAGE: u64 = PAGE_BYTES as u64;

/// Where there is nothing for a device.
pub struct Nowhere {
    distributor: u64,
    hole: u64,
    ram: Range<u64>,
}

impl Nowhere {
    pub fn new(foundation: &Foundation) -> Self {
        let (V2 { distributor, .. } | V3 { distributor, .. }) = foundation.machine.interrupt_controller;
        let ram = foundation.machine.memory.first().cloned().unwrap_or_default();
        Self { distributor, hole: foundation.unpopulated.end as u64, ram }
    }

    /// Registers, holes, grants of others, the ends of the address space; sometimes memory behind our own end.
    pub fn address(&self, random: &mut Random) -> u64 {
        let within = random.any() % PAGE;
        match random.below(10) {
            0 => self.hole + random.any() % (1 << 30),
            1 => self.distributor,
            2 => FIRST_DEVICE as u64 + within,
            3 => within,
            4 => 1 << 39 | within,
            5 => granted(random.any() as u32) | within,
            6 => GRANT | random.any(),
            7 => u64::MAX - random.any() % (2 * PAGE),
            8 => self.ram.end - random.any() % (2 * PAGE),
            _ => random.any(),
        }
    }
}

/// An address that is in the device's own memory more often than not.
pub fn address(device: &Device, nowhere: &Nowhere, random: &mut Random) -> u64 {
    if random.once_in(3) {
        nowhere.address(random)
    } else {
        device.data.address(random.below(DATA_PAGES * PAGE_BYTES))
    }
}

/// Lengths: those that requests have, none, odd ones, and more than there is.
pub fn length(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => 0,
        1 => random.any() as u32,
        2 => u32::MAX - random.below(32) as u32,
        3 => 16,
        4 => 1,
        5 => random.below(64) as u32,
        6 => random.of(&[512, 4096, 8192, 65536, 1 << 20]),
        _ => random.below(3 * PAGE_BYTES) as u32,
    }
}

/// A descriptor that says anything; every other one could be right.
pub fn descriptor(device: &Device, nowhere: &Nowhere, random: &mut Random) -> Descriptor {
    let mut flags = random.of(&[0, WRITE, NEXT, NEXT, NEXT | WRITE, NEXT | WRITE]);
    if random.once_in(8) {
        flags |= INDIRECT;
    }
    if random.once_in(32) {
        flags = random.any() as u16;
    }
    let length = if flags & INDIRECT != 0 && !random.once_in(3) {
        (DESCRIPTOR_BYTES * random.below(300)) as u32
    } else {
        length(random)
    };
    let next = if random.once_in(16) { random.any() as u16 } else { random.below(SIZE.into()) as u16 };
    Descriptor { address: address(device, nowhere, random), length, flags, next }
}
