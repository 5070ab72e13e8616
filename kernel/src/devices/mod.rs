//! Physical devices, as the loop sees them: interrupts, and when to look even without one.
//!
//! | file | what |
//! |---|---|
//! | [`transport`] | virtio transports that were passed through to us |
//!
//! An interrupt means "look at that device", and so does the end of a device's time; the device finds out by itself what
//! there is to do. A device need not be looked at for each of its interrupts: one that was looked at anyway while the
//! loop was busy has nothing to do then.

pub mod transport;

use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::arch::gic::{Gic, GicError, Interrupt};
use crate::arch::timer::{now_ns, set_alarm_ns};

/// A device that is looked at when it asks for it.
pub trait Device {
    /// Its interrupt came, or the time that it named: deals with what there is. Called with no work of guests under
    /// way, from the loop.
    fn look(&self);

    /// By when it is to be looked at even without an interrupt, in the clock of [`now_ns`].
    fn deadline_ns(&self) -> Option<u64> {
        None
    }
}

/// The devices, the interrupt controller, and the alarm.
pub struct Devices {
    gic: Gic,
    alarm: Interrupt,
    devices: Vec<(Interrupt, Rc<dyn Device>)>,
}

impl Devices {
    /// No devices yet; `alarm` is the interrupt of the virtual timer.
    ///
    /// # Errors
    /// [`GicError`] when there is no such interrupt.
    pub fn new(mut gic: Gic, alarm: Interrupt) -> Result<Self, GicError> {
        set_alarm_ns(None);
        gic.enable(alarm)?;
        Ok(Self { gic, alarm, devices: Vec::new() })
    }

    /// Adds a device, and lets its interrupt come.
    ///
    /// # Errors
    /// [`GicError`] when there is no such interrupt.
    pub fn add(&mut self, interrupt: Interrupt, device: Rc<dyn Device>) -> Result<(), GicError> {
        self.gic.enable(interrupt)?;
        self.devices.push((interrupt, device));
        Ok(())
    }

    /// Takes all interrupts that are pending, and looks at their devices. Returns whether there were any.
    pub fn take_interrupts(&mut self) -> bool {
        let mut taken = false;
        while let Some(interrupt) = self.gic.take() {
            taken = true;
            if interrupt == self.alarm {
                // It would be pending again at once.
                set_alarm_ns(None);
                self.look_at_late_ones();
            } else {
                let concerned = self.devices.iter().filter(|(of, _)| *of == interrupt);
                concerned.for_each(|(_, device)| device.look());
            }
            self.gic.end(interrupt);
        }
        taken
    }

    fn look_at_late_ones(&self) {
        let now_ns = now_ns();
        for (_, device) in &self.devices {
            if device.deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now_ns) {
                device.look();
            }
        }
    }

    /// Sets the alarm to the first deadline of a device, or to none: to be called before each sleep.
    pub fn set_alarm(&self) {
        set_alarm_ns(self.devices.iter().filter_map(|(_, device)| device.deadline_ns()).min());
    }
}
