//! The driver of virtio disks (virtio 1.2, 5.2), over `virtio-drivers`' transport and queue.
//!
//! That crate's own `VirtIOBlk` does not do here: its queue takes 16 requests, flush blocks, it knows neither discard
//! nor the logical block size, and its buffers are the caller's. Its `VirtQueue` is used without the event index, of
//! which the comparison in `should_notify` (0.13.0) forgets that indices wrap around; flags do as well for a queue that
//! is looked at before each sleep.
#![allow(unsafe_code)]

use super::SetUpError;
use super::slots::{Parts, Slots};
use crate::block::{Operation, SECTOR_BYTES};
use crate::drive::{Drive, DriveError, DriveFacts, Finished, TIME_LIMIT_NS};
use crate::virtio::Features;
use crate::virtio::blk::config::{self, Config};
use crate::virtio::blk::request::{self, Header, RawRange};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};
use virtio_drivers::Hal;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

const QUEUE: u16 = 0;
/// Descriptors of the queue.
const QUEUE_SIZE: usize = 128;
/// A command takes at most so many: header, data, status.
const DESCRIPTORS_PER_COMMAND: usize = 3;
/// A disk that does not say has blocks of one sector.
const LEAST_BLOCK_BYTES: u32 = 512;
/// Times that the capacity is read before it changes in the middle of each.
const CAPACITY_TRIES: usize = 8;
/// Bytes of a slot's buffer: the largest transfer. Larger ones cost less a byte, but leave fewer slots.
pub const BUFFER_BYTES: u32 = 64 << 10;
/// So many commands always fit.
pub const SLOTS_MAX: usize = QUEUE_SIZE / DESCRIPTORS_PER_COMMAND;

/// A virtio disk.
pub struct VirtioDisk<H: Hal, T: Transport> {
    transport: T,
    /// Large, and the stack is small.
    queue: Box<VirtQueue<H, QUEUE_SIZE>>,
    slots: Slots<H>,
    facts: DriveFacts,
    /// The slot of each token of the queue, and the command in it.
    under_way: Vec<Option<(u16, Operation)>>,
    is_broken: bool,
}

impl<H: Hal, T: Transport> VirtioDisk<H, T> {
    /// Brings the device up, with at most `slots_max` slots.
    ///
    /// # Errors
    /// [`SetUpError`].
    pub fn new(mut transport: T, slots_max: usize) -> Result<Self, SetUpError> {
        let wanted = Features::VERSION_1
            | config::RO
            | config::BLK_SIZE
            | config::FLUSH
            | config::SIZE_MAX
            | config::DISCARD
            | config::WRITE_ZEROES;
        let features = transport.begin_init(wanted);
        if !features.contains(Features::VERSION_1) {
            return Err(SetUpError::Legacy);
        }
        if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
            return Err(SetUpError::Features);
        }
        let mut facts = read_facts(&transport, features)?;
        let queue = VirtQueue::new(&mut transport, QUEUE, false, false).map_err(|error| match error {
            virtio_drivers::Error::DmaError => SetUpError::Memory,
            _ => SetUpError::Queue,
        })?;
        let slots =
            Slots::new(slots_max.clamp(1, SLOTS_MAX), BUFFER_BYTES as usize).ok_or(SetUpError::Memory)?;
        facts.slots = u16::try_from(slots.len()).unwrap_or(u16::MAX);
        transport.finish_init();
        let under_way = alloc::vec![None; QUEUE_SIZE];
        Ok(Self { transport, queue: Box::new(queue), slots, facts, under_way, is_broken: false })
    }

    /// Nothing more is sent to the device.
    fn break_down<R>(&mut self) -> Result<R, DriveError> {
        self.is_broken = true;
        Err(DriveError::Broken)
    }
}

/// Reads the configuration space, and checks what is used of it.
fn read_facts<T: Transport>(transport: &T, features: Features) -> Result<DriveFacts, SetUpError> {
    let read = |offset| transport.read_config_space::<u32>(offset).unwrap_or(0);
    let read_if = |feature, offset| if features.contains(feature) { read(offset) } else { 0 };
    // In two halves: what is changed in between is told by the generation.
    let capacity = offset_of!(Config, capacity);
    transport.read_config_space::<u32>(capacity).map_err(|_| SetUpError::Configuration("there is none"))?;
    let read_capacity = || {
        let before = transport.read_config_generation();
        let sectors = u64::from(read(capacity + 4)) << 32 | u64::from(read(capacity));
        (before == transport.read_config_generation()).then_some(sectors)
    };
    let sectors = (0..CAPACITY_TRIES).find_map(|_| read_capacity());
    let sectors = sectors.ok_or(SetUpError::Configuration("it never stays as it is"))?;
    let block_bytes = match read_if(config::BLK_SIZE, offset_of!(Config, blk_size)) {
        0 => LEAST_BLOCK_BYTES,
        bytes => bytes,
    };
    if !block_bytes.is_power_of_two() || !(LEAST_BLOCK_BYTES..=BUFFER_BYTES).contains(&block_bytes) {
        return Err(SetUpError::Configuration("its block size is no power of two from 512 to 64 KiB"));
    }
    let buffer_bytes = match read_if(config::SIZE_MAX, offset_of!(Config, size_max)) {
        0 => BUFFER_BYTES,
        bytes => bytes.min(BUFFER_BYTES) / block_bytes * block_bytes,
    };
    if buffer_bytes == 0 {
        return Err(SetUpError::Configuration("no block fits its largest buffer"));
    }
    let blocks = u64::from(block_bytes) / SECTOR_BYTES;
    Ok(DriveFacts {
        sectors: sectors / blocks * blocks,
        block_bytes,
        read_only: features.contains(config::RO),
        has_cache: features.contains(config::FLUSH),
        discard_sectors_max: read_if(config::DISCARD, offset_of!(Config, max_discard_sectors)),
        write_zeroes_sectors_max: read_if(config::WRITE_ZEROES, offset_of!(Config, max_write_zeroes_sectors)),
        slots: 0,
        buffer_bytes,
        time_limit_ns: TIME_LIMIT_NS,
    })
}

/// What a command looks like to the device.
struct Form {
    header: Header,
    /// Bytes of the buffer that it reads.
    readable: usize,
    /// Bytes of the buffer that it writes.
    writable: usize,
}

impl Form {
    fn of(operation: Operation) -> Self {
        let range_bytes = request::RANGE_BYTES as usize;
        let (kind, sector, readable, writable) = match operation {
            Operation::Read { sector, length } => (request::T_IN, sector, 0, length as usize),
            Operation::Write { sector, length } => (request::T_OUT, sector, length as usize, 0),
            Operation::Flush => (request::T_FLUSH, 0, 0, 0),
            Operation::Discard { .. } => (request::T_DISCARD, 0, range_bytes, 0),
            Operation::WriteZeroes { .. } => (request::T_WRITE_ZEROES, 0, range_bytes, 0),
        };
        let header = Header { kind: U32::new(kind), sector: U64::new(sector), ..Header::default() };
        Self { header, readable, writable }
    }
}

/// A status that no device writes: so a status never written shows.
const NO_STATUS: u8 = 0xff;

/// Hands the buffers of a command to `use_them`, those the device reads and those it writes.
fn with_buffers<R>(
    parts: Parts<'_>,
    form: &Form,
    use_them: impl for<'a> FnOnce(&'a [&'a [u8]], &'a mut [&'a mut [u8]]) -> R,
) -> R {
    let Parts { header, buffer, status } = parts;
    match (form.readable, form.writable) {
        (0, 0) => use_them(&[header], &mut [status]),
        (0, length) => {
            let (data, _) = buffer.split_at_mut(length.min(BUFFER_BYTES as usize));
            use_them(&[header], &mut [data, status])
        }
        (length, _) => {
            let (data, _) = buffer.split_at(length.min(BUFFER_BYTES as usize));
            use_them(&[header, data], &mut [status])
        }
    }
}

impl<H: Hal, T: Transport> Drive for VirtioDisk<H, T> {
    fn facts(&self) -> DriveFacts {
        self.facts
    }

    fn buffer(&mut self, slot: u16) -> &mut [u8] {
        self.slots.parts(slot.into()).map(|parts| parts.buffer).unwrap_or_default()
    }

    fn submit(&mut self, slot: u16, operation: Operation) -> Result<(), DriveError> {
        if self.is_broken {
            return Err(DriveError::Broken);
        }
        let form = Form::of(operation);
        let parts = self.slots.parts(slot.into()).ok_or(DriveError::Busy)?;
        parts.header.copy_from_slice(form.header.as_bytes());
        parts.status.fill(NO_STATUS);
        if let Operation::Discard { sector, sectors } | Operation::WriteZeroes { sector, sectors } = operation
        {
            let range = RawRange::new(sector, sectors);
            parts.buffer.iter_mut().zip(range.as_bytes()).for_each(|(to, from)| *to = *from);
        }
        // SAFETY: the slot's memory stays where it is; from here on it is noted as the device's, so that nobody gets at
        // it before the token has been popped.
        let token = with_buffers(parts, &form, |inputs, outputs| unsafe { self.queue.add(inputs, outputs) });
        let token = token.map_err(|_| DriveError::Busy)?;
        self.slots.set_at_device(slot.into(), true);
        match self.under_way.get_mut(usize::from(token)) {
            Some(place) => *place = Some((slot, operation)),
            None => return self.break_down(),
        }
        Ok(())
    }

    fn kick(&mut self) {
        // The index before the question: the device says that it wants to be told, then looks at the index.
        fence(Ordering::SeqCst);
        if !self.is_broken && self.queue.should_notify() {
            self.transport.notify(QUEUE);
        }
    }

    fn next_finished(&mut self) -> Result<Option<Finished>, DriveError> {
        if self.is_broken {
            return Err(DriveError::Broken);
        }
        let Some(token) = self.queue.peek_used() else { return Ok(None) };
        let known = self.under_way.get_mut(usize::from(token)).and_then(Option::take);
        // A token that is not under way: the device made it up, or used it twice.
        let Some((slot, operation)) = known else { return self.break_down() };
        let form = Form::of(operation);
        // SAFETY: only the queue uses these parts, for their addresses.
        let Some(parts) = (unsafe { self.slots.parts_at_device(slot.into()) }) else {
            return self.break_down();
        };
        // SAFETY: the same buffers as in `submit`: they follow from slot and command.
        let popped = with_buffers(parts, &form, |inputs, outputs| unsafe {
            self.queue.pop_used(token, inputs, outputs)
        });
        let Ok(written) = popped else { return self.break_down() };
        self.slots.set_at_device(slot.into(), false);
        let status = self.slots.parts(slot.into()).and_then(|parts| parts.status.first().copied());
        // What the device says it wrote, less the status: the rest of the buffer is somebody else's old data.
        let is_whole = (written as usize).saturating_sub(1) >= form.writable;
        let result = match status {
            Some(status) if status == request::Status::Ok as u8 && is_whole => Ok(()),
            Some(status) if status == request::Status::Unsupported as u8 => Err(DriveError::Unsupported),
            _ => Err(DriveError::Io),
        };
        Ok(Some(Finished { slot, result }))
    }

    fn want_interrupts(&mut self, wanted: bool) -> bool {
        self.queue.set_dev_notify(wanted);
        // Our wish before the look: the device moves its index, then looks at our wish.
        fence(Ordering::SeqCst);
        self.queue.can_pop()
    }

    fn acknowledge_interrupt(&mut self) -> Result<(), DriveError> {
        let reason = self.transport.ack_interrupt();
        let is_configuration = reason.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT);
        if is_configuration && self.transport.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET) {
            return self.break_down();
        }
        Ok(())
    }
}
