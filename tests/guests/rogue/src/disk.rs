//! The device brought up, and chains given to it.

use kernel::arch::timer::now_ns;
use kernel::xen::sched::yield_processor;

use crate::answer::Answer;
use by_hand::registers::{self as register, Registers};
use by_hand::ring::{Descriptor, NEXT, Ring, SIZE};

pub const INDIRECT_DESC: u64 = 1 << 28;
pub const VERSION_1: u64 = 1 << 32;
pub const ACCESS_PLATFORM: u64 = 1 << 33;

/// How long the device may take.
const PATIENCE_NS: u64 = 20_000_000_000;
const PROBE: u32 = register::ACKNOWLEDGE | register::DRIVER;

/// The disk.
pub struct Disk {
    registers: Registers,
    pub ring: Ring,
    /// Chains that came back so far.
    seen: u16,
}

/// A part of a request, as a descriptor tells it.
#[derive(Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub length: u32,
    /// But for NEXT.
    pub flags: u16,
}

impl Disk {
    pub fn new(ring: Ring) -> Result<Self, &'static str> {
        let registers = Registers::nth(0);
        if !registers.is_virtio() {
            return Err("there is no disk");
        }
        Ok(Self { registers, ring, seen: 0 })
    }

    /// Resets the device, and offers it `features`. Returns whether it agrees.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.registers.write(register::STATUS, 0);
        self.ring.clear();
        self.seen = 0;
        self.registers.write(register::STATUS, register::ACKNOWLEDGE);
        self.registers.write(register::STATUS, PROBE);
        for (select, bits) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.registers.write(register::DRIVER_FEATURES_SELECT, select);
            self.registers.write(register::DRIVER_FEATURES, bits);
        }
        self.registers.write(register::STATUS, PROBE | register::FEATURES_OK);
        self.registers.read(register::STATUS) & register::FEATURES_OK != 0
    }

    /// Tells where the rings are, and starts the device.
    pub fn start(&mut self, rings: [u64; 3]) {
        self.registers.write(register::QUEUE_SELECT, 0);
        self.registers.write(register::QUEUE_SIZE, SIZE.into());
        for (offset, address) in register::QUEUE_RINGS.into_iter().zip(rings) {
            self.registers.write(offset, address as u32);
            self.registers.write(offset + 4, (address >> 32) as u32);
        }
        self.registers.write(register::QUEUE_READY, 1);
        self.registers.write(register::STATUS, PROBE | register::FEATURES_OK | register::DRIVER_OK);
    }

    /// Whether the device has had enough.
    pub fn needs_reset(&self) -> bool {
        self.registers.read(register::STATUS) & register::NEEDS_RESET != 0
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

    /// Lets the device see what was offered.
    pub fn kick(&self) {
        self.ring.publish();
        self.registers.write(register::QUEUE_NOTIFY, 0);
    }

    /// Waits until the device has given back all that was offered. What happens instead is the error.
    pub fn wait(&mut self) -> Result<(), Answer> {
        let end_ns = now_ns() + PATIENCE_NS;
        while self.ring.used() != self.ring.offered {
            if self.needs_reset() {
                return Err(Answer::NeedsReset);
            }
            if now_ns() > end_ns {
                return Err(Answer::Nothing);
            }
            yield_processor();
        }
        self.seen = self.ring.offered;
        self.registers.write(register::INTERRUPT_ACK, self.registers.read(register::INTERRUPT_STATUS));
        Ok(())
    }

    /// Bytes that the device says to have written to the chain given back last.
    pub fn written(&self) -> u32 {
        self.ring.used_entry(self.seen.wrapping_sub(1)).1
    }
}
