//! A split queue (virtio 1.2, 2.7), driver side, filled by hand: nothing is checked, so that it can lie.

use core::sync::atomic::Ordering;

use kernel::bring_up::Foundation;
use kernel::limits::PAGE_BYTES;

use crate::pages::Pages;

/// The most descriptors that fit a page of ours with ease.
pub const SIZE: u16 = 128;
/// Flag of a descriptor: the chain goes on.
pub const NEXT: u16 = 1;
/// The device writes there.
pub const WRITE: u16 = 2;
/// There are more descriptors there.
pub const INDIRECT: u16 = 4;

/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: usize = 16;
/// Of the available ring: we never want an interrupt.
const NO_INTERRUPT: u16 = 1;
const INDEX: usize = 2;
const ENTRIES: usize = 4;
/// Each ring has a page: first the descriptors, then the available ring, ...
pub const AVAILABLE: usize = PAGE_BYTES;
/// ... then the used ring.
pub const USED: usize = 2 * PAGE_BYTES;
/// Pages of all three.
pub const PAGES: usize = 3;

/// The three rings.
pub struct Ring {
    /// Where they lie.
    pub pages: Pages,
    /// Descriptors: no more than [`SIZE`].
    pub size: u16,
    /// Chains made available so far.
    pub offered: u16,
}

/// One entry of a descriptor table.
#[derive(Clone, Copy)]
pub struct Descriptor {
    /// Where the buffer is.
    pub address: u64,
    /// Its bytes.
    pub length: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// The descriptor behind it.
    pub next: u16,
}

impl Descriptor {
    /// As it lies in memory.
    #[must_use]
    pub fn bytes(&self) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

impl Ring {
    /// Takes pages for it.
    ///
    /// # Errors
    /// There are none.
    pub fn new(foundation: &Foundation, size: u16) -> Result<Self, &'static str> {
        Ok(Self { pages: Pages::take(foundation, PAGES)?, size: size.min(SIZE), offered: 0 })
    }

    /// As a device that was reset wants it.
    pub fn clear(&mut self) {
        self.pages.fill(0, PAGES * PAGE_BYTES, 0);
        self.pages.word(AVAILABLE).store(NO_INTERRUPT, Ordering::Relaxed);
        self.offered = 0;
    }

    /// Puts an entry into the descriptor table.
    pub fn describe(&self, index: u16, descriptor: &Descriptor) {
        self.pages.write(usize::from(index) * DESCRIPTOR_BYTES, &descriptor.bytes());
    }

    /// Puts a head into the available ring; [`Self::publish`] lets the device see it.
    pub fn offer(&mut self, head: u16) {
        let slot = usize::from(self.offered % self.size);
        self.pages.word(AVAILABLE + ENTRIES + slot * 2).store(head, Ordering::Relaxed);
        self.offered = self.offered.wrapping_add(1);
    }

    /// Lets the device see what was offered.
    pub fn publish(&self) {
        self.pages.word(AVAILABLE + INDEX).store(self.offered, Ordering::Release);
    }

    /// Chains that the device has given back so far.
    #[must_use]
    pub fn used(&self) -> u16 {
        self.pages.load(USED + INDEX)
    }

    /// Head, and bytes written, of the chain given back as number `index`.
    #[must_use]
    pub fn used_entry(&self, index: u16) -> (u32, u32) {
        let mut bytes = [0; 8];
        self.pages.read(USED + ENTRIES + usize::from(index % self.size) * bytes.len(), &mut bytes);
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (word(0), word(4))
    }
}
