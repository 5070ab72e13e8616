//! The virtio-mmio transport, version 2 (virtio 1.2, 4.2): a device model's register file.
//!
//! The kernel traps a guest's access and brings it here. A write never does the work it asks for: it says that there
//! is [`Effect::Work`], the kernel lets the vCPU go on, and calls [`MmioDevice::process`] then.
//!
//! Registers are 32 bits wide, at offsets that are multiples of 4; any other access to them, a write to a read-only
//! one and a read of a write-only one do nothing and read as 0. Configuration space takes every width and offset.
//!
//! Neighbours: [`super::status`] decides on writes to the status register, [`super::queue`] takes over a queue that is
//! made ready, [`super::blk`] and [`super::net`] are device models behind the registers.

use super::complaints::Complaints;
use super::handover::{DeviceHandover, Saved};
use super::queue::{Queue, QueueSettings, SetupError};
pub use super::registers::Width;
use super::registers::{self as register, half, set_high, set_low};
use super::status::{Status, Step, step};
use super::{Device, Features, QueueIndex};
use crate::guest::{GuestMemory, InterruptLine, MemoryError};
use alloc::vec::Vec;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"DRVD");

bitflags::bitflags! {
    /// Reasons for an interrupt (virtio 1.2, 4.2.2, InterruptStatus).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Interrupts: u32 {
        /// A queue has used buffers.
        const USED = 1;
        /// Configuration, or the status, changed.
        const CONFIG = 2;
    }
}

/// What the kernel has to do after a register write, when it has answered the vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// Call [`MmioDevice::process`] soon.
    Work,
}

/// What a call of [`MmioDevice::process`] or [`MmioDevice::poll`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// Requests completed.
    pub requests: u32,
    /// There is more to do: call again, after the others had their turn.
    pub more: bool,
    /// Requests are begun and not done: [`MmioDevice::poll`] finds out when they are.
    pub under_way: bool,
}

/// What went over a device's registers and interrupt line since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Writes to QueueNotify.
    pub kicks: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Resets by the guest.
    pub resets: u64,
    /// Times that the device came to need a reset.
    pub breakdowns: u64,
}

/// What shows that a guest's driver cannot work with the platform's features, such as [`Features::ACCESS_PLATFORM`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformTrouble {
    /// It did not accept them all.
    #[error("the driver did not accept the features that the platform needs")]
    FeaturesRefused,
    /// It accepted them and does as if it had not.
    #[error("the driver has a ring at {0:#x}, no address that the platform translates")]
    Untranslated(u64),
}

#[derive(Clone, Debug)]
struct QueueSlot<P> {
    largest: u16,
    settings: QueueSettings,
    ready: Option<Queue<P>>,
    /// The guest kicked, or we left off with its kicks suppressed.
    pending: bool,
}

/// Whether a queue that was emptied asks for kicks again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kicks {
    Enable,
    Suppress,
}

/// A device model `D` behind virtio-mmio registers, for a guest with memory `M` and interrupt line `I`.
#[derive(Clone, Debug)]
pub struct MmioDevice<D, M: GuestMemory, I> {
    device: D,
    memory: M,
    line: I,
    offered: Features,
    /// Those of the platform, without which a driver is refused.
    platform: Features,
    accepted: Features,
    /// The guest accepted features above bit 63, of which we offer none.
    accepted_unknown: bool,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
    queues: Vec<QueueSlot<M::Pinned>>,
    status: Status,
    interrupts: Interrupts,
    counters: Counters,
    complaints: Complaints,
    trouble: Option<PlatformTrouble>,
    /// Since the last reset: the driver cannot work with the platform, and may not look at the status.
    rings_refused: bool,
    config_generation: u32,
    trouble_complaints: Complaints,
    handover: Option<&'static DeviceHandover>,
}

impl<D: Device<M>, M: GuestMemory, I: InterruptLine> MmioDevice<D, M, I> {
    /// Puts registers before `device`, which offers its own features and those of the `platform`, such as
    /// [`Features::ACCESS_PLATFORM`]: these a driver must accept.
    pub fn new(device: D, memory: M, line: I, platform: Features) -> Self {
        let slot = |largest: &u16| QueueSlot {
            largest: *largest,
            settings: QueueSettings::default(),
            ready: None,
            pending: false,
        };
        let queues = device.queue_sizes().iter().map(slot).collect();
        let offered = device.features() | platform;
        Self {
            device,
            memory,
            line,
            offered,
            platform,
            accepted: Features::empty(),
            accepted_unknown: false,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
            queues,
            status: Status::empty(),
            interrupts: Interrupts::empty(),
            counters: Counters::default(),
            complaints: Complaints::default(),
            trouble: None,
            rings_refused: false,
            config_generation: 0,
            trouble_complaints: Complaints::default(),
            handover: None,
        }
    }

    /// Keeps in `handover` what a successor of this kernel needs to go on with the device.
    #[must_use]
    pub fn kept_in(mut self, handover: &'static DeviceHandover) -> Self {
        self.handover = Some(handover);
        self.save();
        self
    }

    /// Goes on where the device stopped that another kernel kept in `handover`. Its guest is told that something came, in case
    /// the other was about to; a device of which too little is known needs a reset. [`Self::process`] is to be called.
    #[must_use]
    pub fn resumed_from(mut self, handover: &'static DeviceHandover) -> Self {
        self.handover = Some(handover);
        let resumed = match handover.saved() {
            Some(saved) => self.resume(&saved, handover),
            None => Err(SetupError::NotKnown),
        };
        match resumed {
            Ok(()) if self.status.is_running() => {
                self.device.resume(self.accepted);
                self.look_at_all_queues();
                self.interrupt(Interrupts::USED);
            }
            Ok(()) => {}
            Err(error) => {
                // So that its driver is told.
                self.status.insert(Status::DRIVER_OK);
                self.break_down(&error);
            }
        }
        if self.status.contains(Status::DEVICE_NEEDS_RESET) {
            self.interrupt(Interrupts::CONFIG);
        }
        self.save();
        self
    }

    fn resume(&mut self, saved: &Saved, handover: &'static DeviceHandover) -> Result<(), SetupError> {
        self.status = Status::from_bits_truncate(saved.status);
        self.accepted = Features::from_bits_retain(saved.accepted);
        self.accepted_unknown = saved.accepted_unknown;
        self.rings_refused = saved.rings_refused;
        self.device_features_select = saved.device_features_select;
        self.driver_features_select = saved.driver_features_select;
        self.queue_select = saved.queue_select;
        // What the other kernel wanted to tell by it may be forgotten.
        self.config_generation = saved.config_generation.wrapping_add(1);
        for ((slot, (settings, ready)), in_flight) in
            self.queues.iter_mut().zip(&saved.queues).zip(&handover.queues)
        {
            slot.settings = *settings;
            if *ready && !self.offered.contains(self.accepted) {
                return Err(SetupError::OtherFeatures);
            }
            if *ready {
                let queue = Queue::resume(*settings, slot.largest, self.accepted, &self.memory, in_flight)?;
                slot.ready = Some(queue);
            }
        }
        Ok(())
    }

    /// Writes the registers down for a successor.
    fn save(&self) {
        let Some(handover) = self.handover else { return };
        let mut saved = Saved {
            status: self.status.bits(),
            accepted: self.accepted.bits(),
            accepted_unknown: self.accepted_unknown,
            rings_refused: self.rings_refused,
            device_features_select: self.device_features_select,
            driver_features_select: self.driver_features_select,
            queue_select: self.queue_select,
            config_generation: self.config_generation,
            ..Saved::default()
        };
        for (place, slot) in saved.queues.iter_mut().zip(&self.queues) {
            *place = (slot.settings, slot.ready.is_some());
        }
        handover.save(&saved);
    }

    /// The device model.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// What went over its registers.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Why the last driver that tried cannot work with the platform; none once one can. A guest can bring it up only so
    /// often as it can make us write a log line.
    pub fn platform_trouble(&self) -> Option<PlatformTrouble> {
        self.trouble
    }

    /// Whether the guest's driver is up and queues are served.
    pub fn is_running(&self) -> bool {
        self.status.is_running()
    }

    /// Whether something has come for the guest from elsewhere: [`Self::process`] is to be called though it did not kick.
    pub fn has_work(&self) -> bool {
        self.status.is_running() && self.device.has_work()
    }

    /// Answers a guest's read at `offset` of the register file.
    #[inline]
    pub fn read(&self, offset: u32, width: Width) -> u64 {
        if let Some(offset) = offset.checked_sub(register::CONFIG) {
            let mut bytes = [0; 8];
            let out = bytes.get_mut(..width as usize).unwrap_or_default();
            if self.rings_refused {
                self.device.read_refused_config(offset, out);
            } else {
                self.device.read_config(offset, out);
            }
            return u64::from_le_bytes(bytes);
        }
        if width != Width::Four {
            return 0;
        }
        u64::from(match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.device.id(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => half(self.offered.bits(), self.device_features_select),
            register::QUEUE_SIZE_MAX => self.selected().map_or(0, |queue| queue.largest.into()),
            register::QUEUE_READY => self.selected().map_or(0, |queue| queue.ready.is_some().into()),
            register::INTERRUPT_STATUS => self.interrupts.bits(),
            register::STATUS => self.status.bits(),
            register::SHARED_MEMORY_LENGTH_LOW..=register::SHARED_MEMORY_BASE_HIGH
                if offset.is_multiple_of(4) =>
            {
                u32::MAX
            }
            register::CONFIG_GENERATION => self.config_generation,
            _ => 0,
        })
    }

    /// Takes a guest's write of the low `width` bytes of `value` at `offset` of the register file.
    pub fn write(&mut self, offset: u32, width: Width, value: u64) -> Effect {
        let bytes = value.to_le_bytes();
        if let Some(offset) = offset.checked_sub(register::CONFIG) {
            self.device.write_config(offset, bytes.get(..width as usize).unwrap_or_default());
            return Effect::None;
        }
        let [b0, b1, b2, b3, ..] = bytes;
        let value = u32::from_le_bytes([b0, b1, b2, b3]);
        match (offset, width) {
            (_, Width::One | Width::Two | Width::Eight) => Effect::None,
            (register::QUEUE_NOTIFY, _) => self.notify(value),
            (register::STATUS, _) => {
                let effect = self.write_status(value);
                self.save();
                effect
            }
            (register::INTERRUPT_ACK, _) => {
                self.interrupts.remove(Interrupts::from_bits_truncate(value));
                Effect::None
            }
            _ => {
                self.configure(offset, value);
                self.save();
                Effect::None
            }
        }
    }

    /// Serves what waits in the queues that the guest kicked, or in any if something came for it, a bounded amount, and asks
    /// for kicks again where all is done. Raises at most one interrupt per queue.
    pub fn process(&mut self) -> Progress {
        self.serve_queues(Kicks::Enable)
    }

    /// Serves what waits in any queue that is polled, without asking for kicks there: for a kernel that will look again by itself. The
    /// last look must be [`Self::process`].
    pub fn poll(&mut self) -> Progress {
        self.serve_queues(Kicks::Suppress)
    }

    fn serve_queues(&mut self, kicks: Kicks) -> Progress {
        if self.status.is_running() {
            if self.device.has_work() || kicks == Kicks::Suppress {
                self.look_at_polled_queues();
            }
            if self.device.take_config_change() {
                self.config_generation = self.config_generation.wrapping_add(1);
                self.save();
                self.interrupt(Interrupts::CONFIG);
            }
        }
        let mut progress = Progress::default();
        for index in 0..self.queues.len() {
            if self.status.is_running() {
                let of_queue = self.serve_queue(index, kicks);
                progress.requests += of_queue.requests;
                progress.more |= of_queue.more;
                progress.under_way |= of_queue.under_way;
            }
        }
        progress
    }

    fn look_at_all_queues(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.pending = queue.ready.is_some());
    }

    fn look_at_polled_queues(&mut self) {
        for (index, queue) in (0..).map(QueueIndex).zip(&mut self.queues) {
            queue.pending |= queue.ready.is_some() && self.device.is_polled(index);
        }
    }

    fn serve_queue(&mut self, index: usize, kicks: Kicks) -> Progress {
        let Some(QueueSlot { ready: Some(queue), pending: pending @ true, .. }) = self.queues.get_mut(index)
        else {
            return Progress::default();
        };
        let number = QueueIndex(u16::try_from(index).unwrap_or(u16::MAX));
        let kicks = if self.device.is_polled(number) { kicks } else { Kicks::Enable };
        let served = self.device.serve(number, queue, &self.memory);
        let mut more = Ok(served.more);
        if served.broken.is_none() {
            if served.more || served.stalled || kicks == Kicks::Suppress {
                more = queue.suppress_kicks().map(|()| served.more);
            } else if served.is_stocked {
                more = queue.suppress_kicks().map(|()| false);
                *pending = false;
            } else {
                more = queue.enable_kicks(served.kept);
                *pending = more == Ok(true);
            }
        }
        let rests = kicks == Kicks::Enable && !served.more && served.broken.is_none();
        let told = match served.owes_interrupt && rests {
            true => queue.wants_interrupt(),
            false => Ok(served.interrupt),
        };
        if told == Ok(true) {
            self.interrupt(Interrupts::USED);
        }
        match (served.broken, told.and(more)) {
            (Some(error), _) | (None, Err(error)) => {
                self.break_down(&error);
                Progress { requests: served.requests, ..Progress::default() }
            }
            (None, Ok(more)) => Progress { requests: served.requests, more, under_way: served.under_way },
        }
    }

    fn notify(&mut self, index: u32) -> Effect {
        self.counters.kicks += 1;
        match self.queues.get_mut(index as usize) {
            Some(queue) if self.status.is_running() && queue.ready.is_some() => {
                queue.pending = true;
                Effect::Work
            }
            _ => Effect::None,
        }
    }

    fn write_status(&mut self, written: u32) -> Effect {
        let was_running = self.status.is_running();
        match step(self.status, written, self.features_agree()) {
            Step::Ignored => Effect::None,
            Step::Reset => {
                self.reset();
                Effect::None
            }
            Step::To(status) => {
                let refused =
                    written & Status::FEATURES_OK.bits() != 0 && !status.contains(Status::FEATURES_OK);
                if refused && !self.accepted.contains(self.platform) {
                    self.note_trouble(PlatformTrouble::FeaturesRefused);
                }
                self.status = status;
                if was_running && !status.is_running() {
                    // What is under way would never be answered.
                    self.device.reset();
                }
                if was_running || !status.is_running() {
                    return Effect::None;
                }
                self.device.activate(self.accepted);
                // A driver may have filled a queue before: it is looked at once without a kick.
                self.look_at_all_queues();
                Effect::Work
            }
        }
    }

    fn features_agree(&self) -> bool {
        let fit = self.offered.contains(self.accepted) && !self.accepted_unknown;
        fit && self.accepted.contains(self.platform | Features::VERSION_1)
    }

    /// Back to the beginning; all queues are unpinned.
    fn reset(&mut self) {
        self.device.reset();
        self.complaints.reset();
        self.trouble_complaints.reset();
        for queue in &mut self.queues {
            queue.settings = QueueSettings::default();
            queue.ready = None;
            queue.pending = false;
        }
        self.accepted = Features::empty();
        self.accepted_unknown = false;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.queue_select = 0;
        self.status = Status::empty();
        if core::mem::take(&mut self.rings_refused) {
            self.config_generation = self.config_generation.wrapping_add(1);
        }
        self.interrupts = Interrupts::empty();
        self.counters.resets += 1;
    }

    /// Writes to registers that say how the device is to be used.
    fn configure(&mut self, offset: u32, value: u32) {
        match offset {
            register::DEVICE_FEATURES_SELECT => self.device_features_select = value,
            register::DRIVER_FEATURES_SELECT => self.driver_features_select = value,
            register::DRIVER_FEATURES if self.status.is_negotiating() => self.accept(value),
            register::QUEUE_SELECT => self.queue_select = value,
            register::QUEUE_READY => self.write_queue_ready(value),
            _ if self.status.is_configuring() => self.configure_queue(offset, value),
            _ => {}
        }
    }

    fn accept(&mut self, bits: u32) {
        let accepted = self.accepted.bits();
        let (low, high) = (half(accepted, 0), half(accepted, 1));
        let (low, high) = match self.driver_features_select {
            0 => (bits, high),
            1 => (low, bits),
            _ => {
                self.accepted_unknown |= bits != 0;
                (low, high)
            }
        };
        self.accepted = Features::from_bits_retain(u64::from(low) | u64::from(high) << 32);
    }

    fn configure_queue(&mut self, offset: u32, value: u32) {
        let Some(QueueSlot { settings, ready: None, .. }) = self.selected_mut() else { return };
        match offset {
            register::QUEUE_SIZE => settings.size = value,
            register::QUEUE_DESCRIPTORS_LOW => set_low(&mut settings.descriptors, value),
            register::QUEUE_DESCRIPTORS_HIGH => set_high(&mut settings.descriptors, value),
            register::QUEUE_AVAILABLE_LOW => set_low(&mut settings.available, value),
            register::QUEUE_AVAILABLE_HIGH => set_high(&mut settings.available, value),
            register::QUEUE_USED_LOW => set_low(&mut settings.used, value),
            register::QUEUE_USED_HIGH => set_high(&mut settings.used, value),
            _ => {}
        }
    }

    fn write_queue_ready(&mut self, value: u32) {
        let (may_start, accepted) = (self.status.is_configuring(), self.accepted);
        let index = self.queue_select as usize;
        let queue = self.queues.get_mut(index);
        let made = match (queue, value) {
            (Some(queue), 0) => {
                queue.pending = false;
                if queue.ready.take().is_some() {
                    // What is under way would never be answered.
                    self.device.reset();
                }
                Ok(())
            }
            (Some(queue), 1) if may_start && queue.ready.is_none() => {
                let in_flight = self.handover.and_then(|handover| handover.queues.get(index));
                Queue::new(queue.settings, queue.largest, accepted, &self.memory, in_flight)
                    .map(|made| queue.ready = Some(made))
                    .inspect(|()| self.trouble = None)
            }
            _ => Ok(()),
        };
        if let Err(error) = made {
            if let SetupError::Memory(MemoryError::Untranslated(address)) = error {
                self.rings_refused = true;
                self.config_generation = self.config_generation.wrapping_add(1);
                self.note_trouble(PlatformTrouble::Untranslated(address));
            }
            self.break_down(&error);
        }
    }

    fn note_trouble(&mut self, trouble: PlatformTrouble) {
        if self.trouble_complaints.may_speak() {
            self.trouble = Some(trouble);
        }
    }

    /// Stops the device until the guest resets it (virtio 1.2, 2.1.2).
    fn break_down(&mut self, reason: &dyn core::fmt::Display) {
        if self.complaints.may_speak() {
            log::warn!("{}: needs reset: {reason}", self.device.name());
        }
        let was_running = self.status.is_running();
        self.status.insert(Status::DEVICE_NEEDS_RESET);
        // What is under way would never be answered: it need not hold what others could use.
        self.device.reset();
        self.counters.breakdowns += 1;
        self.save();
        if was_running {
            self.interrupt(Interrupts::CONFIG);
        }
    }

    fn interrupt(&mut self, reason: Interrupts) {
        self.interrupts.insert(reason);
        self.counters.interrupts += 1;
        self.line.raise();
    }

    fn selected(&self) -> Option<&QueueSlot<M::Pinned>> {
        self.queues.get(self.queue_select as usize)
    }

    fn selected_mut(&mut self) -> Option<&mut QueueSlot<M::Pinned>> {
        self.queues.get_mut(self.queue_select as usize)
    }
}
