//! Memory shared with a device: for each slot a header, a status byte and a buffer, at places that never change.
//!
//! One contiguous piece of DMA memory, allocated once. The buffers come first, then the headers:
//!
//! | bytes | content |
//! |---|---|
//! | size of a buffer × n | buffers |
//! | 64 × n | header (16 bytes), 16 unused, status (1), unused: a cache line each, so that no line is shared by two slots |
//!
//! While a slot is at the device, the device reads and writes it at any time: then nothing here makes a reference to it
//! but the driver's queue, which only takes its address. A device that goes on to write after it has answered is trusted
//! not to: without an IOMMU it could write anywhere.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use alloc::vec::Vec;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

const RECORD_BYTES: usize = 64;
const STATUS_AT: usize = 32;

/// The slots of a device.
pub struct Slots<H: Hal> {
    bus_address: PhysAddr,
    start: NonNull<u8>,
    pages: usize,
    buffer_bytes: usize,
    at_device: Vec<bool>,
    hal: core::marker::PhantomData<H>,
}

/// What the queue is given for a command: memory of one slot.
pub struct Parts<'a> {
    /// What the device reads first.
    pub header: &'a mut [u8],
    /// Data.
    pub buffer: &'a mut [u8],
    /// What the device writes last.
    pub status: &'a mut [u8],
}

impl<H: Hal> Slots<H> {
    /// So many slots, at least one, or as many as there is memory for, with buffers of so many bytes.
    #[must_use]
    pub fn new(most: usize, buffer_bytes: usize) -> Option<Self> {
        (1..=most).rev().find_map(|count| Self::exactly(count, buffer_bytes))
    }

    fn exactly(count: usize, buffer_bytes: usize) -> Option<Self> {
        let pages = (count * (buffer_bytes + RECORD_BYTES)).div_ceil(PAGE_SIZE);
        let (bus_address, start) = H::dma_alloc(pages, BufferDirection::Both);
        let slots = || {
            let at_device = alloc::vec![false; count];
            Self { bus_address, start, pages, buffer_bytes, at_device, hal: core::marker::PhantomData }
        };
        (bus_address != 0).then(slots)
    }

    /// Number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at_device.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at_device.is_empty()
    }

    /// The memory of a slot that is ours, not the device's.
    pub fn parts(&mut self, slot: usize) -> Option<Parts<'_>> {
        match self.at_device.get(slot) {
            // SAFETY: the device is done with the slot, or has never had it.
            Some(false) => Some(unsafe { self.parts_of(slot) }),
            _ => None,
        }
    }

    /// The memory of a slot that the device has, for the queue, which names it by address.
    ///
    /// # Safety
    /// As long as the device may write the slot, its bytes are not to be read or written through what this returns.
    pub unsafe fn parts_at_device(&mut self, slot: usize) -> Option<Parts<'_>> {
        match self.at_device.get(slot) {
            // SAFETY: the caller's contract.
            Some(true) => Some(unsafe { self.parts_of(slot) }),
            _ => None,
        }
    }

    /// Notes who has a slot.
    pub fn set_at_device(&mut self, slot: usize, at_device: bool) {
        if let Some(known) = self.at_device.get_mut(slot) {
            *known = at_device;
        }
    }

    /// # Safety
    /// The slot must exist, and nobody else may access it while the parts live.
    unsafe fn parts_of(&mut self, slot: usize) -> Parts<'_> {
        let buffer = slot * self.buffer_bytes;
        let record = self.at_device.len() * self.buffer_bytes + slot * RECORD_BYTES;
        // SAFETY: all three lie inside the allocation and do not overlap each other or another slot's; the caller sees
        // to it that nobody else accesses them, and `self` is borrowed as long as they live.
        unsafe {
            let part =
                |offset, length| core::slice::from_raw_parts_mut(self.start.add(offset).as_ptr(), length);
            Parts {
                header: part(record, crate::virtio::blk::request::HEADER_BYTES as usize),
                buffer: part(buffer, self.buffer_bytes),
                status: part(record + STATUS_AT, 1),
            }
        }
    }
}

impl<H: Hal> Drop for Slots<H> {
    fn drop(&mut self) {
        if self.at_device.contains(&true) {
            // The device may still write there: the memory is lost rather than used for something else.
            return;
        }
        // SAFETY: allocated in `exactly` with the same values, and no slot is at the device.
        unsafe { H::dma_dealloc(self.bus_address, self.start, self.pages) };
    }
}
