//! The driver of virtio NICs (virtio 1.2, 5.1), over `virtio-drivers`' transport and queue.
//!
//! That crate's own `VirtIONet` does not do here: it takes one frame at a time and has no say in interrupts. A frame is
//! copied once each way, between the NIC's buffer and one of the bridge: guests' pages are never the device's, which
//! without an IOMMU could not be kept from what else is near. The device's offloads are not used.
//!
//! As in [`super::block`], the queues are used without the event index.
#![allow(unsafe_code)]

use super::SetUpError;
use super::slots::Slots;
use crate::net::MacAddress;
use crate::net::frame::WIRE_BYTES_MAX;
use crate::nic::{Nic, NicError};
use crate::virtio::Features;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use virtio_drivers::Hal;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport};

/// VIRTIO_NET_F_MAC: the device has an address.
const MAC: Features = Features::from_bits_retain(1 << 5);
/// VIRTIO_NET_F_STATUS: it tells whether there is a network behind it.
const STATUS: Features = Features::from_bits_retain(1 << 16);
/// Where the status is in the configuration space (virtio 1.2, 5.1.4), behind the address.
const STATUS_AT: usize = 6;
/// VIRTIO_NET_S_LINK_UP
const LINK_UP: u16 = 1;

/// Numbers of the queues (virtio 1.2, 5.1.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// Descriptors of each queue, one a frame: so many buffers each way.
pub const SLOTS_MAX: usize = 64;
/// Bytes before each frame (virtio 1.2, 5.1.6): all zero, as we leave nothing to the device.
const HEADER_BYTES: usize = 12;
/// Bytes of a buffer.
pub const BUFFER_BYTES: usize = 2048;
const _: () = assert!(HEADER_BYTES + WIRE_BYTES_MAX <= BUFFER_BYTES);

/// Who writes the buffers of a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Device,
    Us,
}

/// One queue and its buffers.
struct Lane<H: Hal> {
    index: u16,
    writer: Writer,
    /// Large, and the stack is small.
    queue: Box<VirtQueue<H, SLOTS_MAX>>,
    slots: Slots<H>,
    /// The slot of each token of the queue, and how many bytes of its buffer the device was given.
    under_way: Vec<Option<(u16, usize)>>,
    /// Slots that are ours.
    free: Vec<u16>,
    must_kick: bool,
}

impl<H: Hal> Lane<H> {
    fn new<T: Transport>(
        transport: &mut T,
        index: u16,
        writer: Writer,
        slots_max: usize,
    ) -> Result<Self, SetUpError> {
        let queue = VirtQueue::new(transport, index, false, false).map_err(|error| match error {
            virtio_drivers::Error::DmaError => SetUpError::Memory,
            _ => SetUpError::Queue,
        })?;
        let slots = Slots::new(slots_max.clamp(1, SLOTS_MAX), BUFFER_BYTES).ok_or(SetUpError::Memory)?;
        let free = (0..slots.len()).filter_map(|slot| u16::try_from(slot).ok()).collect();
        let under_way = alloc::vec![None; SLOTS_MAX];
        Ok(Self { index, writer, queue: Box::new(queue), slots, under_way, free, must_kick: false })
    }

    /// The buffer of a slot that is ours.
    fn buffer(&mut self, slot: u16) -> &mut [u8] {
        self.slots.parts(slot.into()).map(|parts| parts.buffer).unwrap_or_default()
    }

    /// Hands the first `length` bytes of a slot's buffer to the device.
    fn give(&mut self, slot: u16, length: usize) -> Result<(), NicError> {
        let buffer = self.slots.parts(slot.into()).ok_or(NicError::Broken)?.buffer;
        let (buffer, _) = buffer.split_at_mut(length.min(BUFFER_BYTES));
        // SAFETY: the slot's memory stays where it is; from here on it is noted as the device's, so that nobody gets at
        // it before the token has been popped.
        let token = unsafe {
            match self.writer {
                Writer::Device => self.queue.add(&[], &mut [buffer]),
                Writer::Us => self.queue.add(&[buffer], &mut []),
            }
        };
        let token = token.map_err(|_| NicError::Broken)?;
        self.slots.set_at_device(slot.into(), true);
        *self.under_way.get_mut(usize::from(token)).ok_or(NicError::Broken)? = Some((slot, length));
        self.must_kick = true;
        Ok(())
    }

    /// Takes back a slot that the device is done with, and how many bytes it says to have written there.
    fn take(&mut self) -> Result<Option<(u16, usize)>, NicError> {
        let Some(token) = self.queue.peek_used() else { return Ok(None) };
        let known = self.under_way.get_mut(usize::from(token)).and_then(Option::take);
        // A token that is not under way: the device made it up, or used it twice.
        let (slot, length) = known.ok_or(NicError::Broken)?;
        // SAFETY: only the queue uses these parts, for their addresses.
        let parts = unsafe { self.slots.parts_at_device(slot.into()) }.ok_or(NicError::Broken)?;
        let (buffer, _) = parts.buffer.split_at_mut(length.min(BUFFER_BYTES));
        // SAFETY: the same buffer as in `give`: it follows from slot and length.
        let popped = unsafe {
            match self.writer {
                Writer::Device => self.queue.pop_used(token, &[], &mut [buffer]),
                Writer::Us => self.queue.pop_used(token, &[buffer], &mut []),
            }
        };
        let written = popped.map_err(|_| NicError::Broken)?;
        self.slots.set_at_device(slot.into(), false);
        // What is beyond was never the device's to write.
        Ok(Some((slot, (written as usize).min(length))))
    }

    fn kick<T: Transport>(&mut self, transport: &mut T) {
        if core::mem::take(&mut self.must_kick) {
            // The index before the question: the device says that it wants to be told, then looks at the index.
            fence(Ordering::SeqCst);
            if self.queue.should_notify() {
                transport.notify(self.index);
            }
        }
    }

    fn want_interrupts(&mut self, wanted: bool) -> bool {
        self.queue.set_dev_notify(wanted);
        // Our wish before the look: the device moves its index, then looks at our wish.
        fence(Ordering::SeqCst);
        self.queue.can_pop()
    }
}

/// A virtio NIC.
pub struct VirtioNic<H: Hal, T: Transport> {
    transport: T,
    receive: Lane<H>,
    transmit: Lane<H>,
    address: MacAddress,
    has_status: bool,
    is_broken: bool,
}

impl<H: Hal, T: Transport> VirtioNic<H, T> {
    /// Brings the device up, with at most `slots_max` buffers each way.
    ///
    /// # Errors
    /// [`SetUpError`].
    pub fn new(mut transport: T, slots_max: usize) -> Result<Self, SetUpError> {
        let features = transport.begin_init(Features::VERSION_1 | MAC | STATUS);
        if !features.contains(Features::VERSION_1) {
            return Err(SetUpError::Legacy);
        }
        if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
            return Err(SetUpError::Features);
        }
        let address = if features.contains(MAC) { transport.read_config_space(0).ok() } else { None };
        let address = MacAddress(address.unwrap_or_default());
        let receive = Lane::new(&mut transport, RECEIVE, Writer::Device, slots_max)?;
        let mut transmit = Lane::new(&mut transport, TRANSMIT, Writer::Us, slots_max)?;
        transmit.want_interrupts(false);
        transport.finish_init();
        let has_status = features.contains(STATUS);
        let mut nic = Self { transport, receive, transmit, address, has_status, is_broken: false };
        while let Some(slot) = nic.receive.free.pop() {
            nic.receive.give(slot, BUFFER_BYTES).map_err(|_| SetUpError::Queue)?;
        }
        nic.kick();
        Ok(nic)
    }

    /// How many buffers there are each way.
    #[must_use]
    pub fn slots(&self) -> (usize, usize) {
        (self.receive.slots.len(), self.transmit.slots.len())
    }

    /// Notes whether nothing more is to be sent to the device.
    fn note<R>(&mut self, result: Result<R, NicError>) -> Result<R, NicError> {
        self.is_broken |= matches!(result, Err(NicError::Broken));
        result
    }

    fn receive_one(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<bool, NicError> {
        let Some((slot, written)) = self.receive.take()? else { return Ok(false) };
        if let Some(frame) = self.receive.buffer(slot).get(HEADER_BYTES..written) {
            take(frame);
        }
        self.receive.give(slot, BUFFER_BYTES)?;
        Ok(true)
    }

    fn transmit_one(&mut self, front: &[u8], rest: &[u8]) -> Result<(), NicError> {
        while let Some((slot, _)) = self.transmit.take()? {
            self.transmit.free.push(slot);
        }
        let length = HEADER_BYTES + front.len() + rest.len();
        let slot = self.transmit.free.last().copied().ok_or(NicError::Busy)?;
        let Some(buffer) = self.transmit.buffer(slot).get_mut(..length) else {
            // Too large for any network: it is not sent.
            return Ok(());
        };
        let (header, frame) = buffer.split_at_mut(HEADER_BYTES);
        header.fill(0);
        let (first, second) = frame.split_at_mut(front.len());
        first.copy_from_slice(front);
        second.copy_from_slice(rest);
        self.transmit.free.pop();
        self.transmit.give(slot, length)
    }
}

impl<H: Hal, T: Transport> Nic for VirtioNic<H, T> {
    fn address(&self) -> MacAddress {
        self.address
    }

    fn link_is_up(&self) -> bool {
        let status = if self.has_status { self.transport.read_config_space(STATUS_AT).ok() } else { None };
        !self.is_broken && status.is_none_or(|status: u16| status & LINK_UP != 0)
    }

    fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<bool, NicError> {
        if self.is_broken {
            return Err(NicError::Broken);
        }
        let received = self.receive_one(take);
        self.note(received)
    }

    fn transmit(&mut self, front: &[u8], rest: &[u8]) -> Result<(), NicError> {
        if self.is_broken {
            return Err(NicError::Broken);
        }
        let transmitted = self.transmit_one(front, rest);
        self.note(transmitted)
    }

    fn kick(&mut self) {
        if !self.is_broken {
            self.receive.kick(&mut self.transport);
            self.transmit.kick(&mut self.transport);
        }
    }

    fn want_interrupts(&mut self, wanted: bool, also_sent: bool) -> bool {
        let received = self.receive.want_interrupts(wanted);
        let sent = self.transmit.want_interrupts(wanted && also_sent);
        received || also_sent && sent
    }

    fn acknowledge_interrupt(&mut self) -> Result<(), NicError> {
        let reason = self.transport.ack_interrupt();
        let is_configuration = reason.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT);
        if is_configuration && self.transport.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET) {
            return self.note(Err(NicError::Broken));
        }
        Ok(())
    }
}
