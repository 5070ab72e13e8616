//! All devices, the interrupt controller, and the alarm.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::Device;
use crate::arch::gic::{Gic, GicError, Interrupt};
use crate::arch::timer::{now_ns, set_alarm_ns};
use crate::limits::LOOK_AGAIN_NS;
use crate::xen::sched::yield_processor;

/// The devices, the interrupt controller, and the alarm.
pub struct Devices {
    gic: Gic,
    alarm: Interrupt,
    /// With their interrupts; what is no device of the machine, such as our endpoint, has none.
    devices: Vec<(Option<Interrupt>, Rc<dyn Device>)>,
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
        self.devices.push((Some(interrupt), device));
        Ok(())
    }

    /// Adds what is to be polled as a device is, and has no interrupt.
    pub fn add_without_interrupt(&mut self, device: Rc<dyn Device>) {
        self.devices.push((None, device));
    }

    /// Takes all interrupts that are pending.
    pub fn take_interrupts(&mut self) {
        // Bounded: one that cannot be silenced must not keep the loop from all else.
        for _ in 0..=self.devices.len() {
            let Some(interrupt) = self.gic.take() else { break };
            // Before the device is told: it may interrupt again from then on, and an edge at an interrupt that is still
            // active waits in QEMU's GICv2 until something else happens. Where levels count, it comes once too often.
            self.gic.end(interrupt);
            if interrupt == self.alarm {
                // It would be pending again at once.
                set_alarm_ns(None);
            }
            let concerned = self.devices.iter().filter(|(of, _)| *of == Some(interrupt));
            concerned.for_each(|(_, device)| device.interrupt());
        }
    }

    /// Takes what the devices have done. Returns whether there was anything.
    pub fn poll(&self, now_ns: u64) -> bool {
        self.devices.iter().fold(false, |done, (_, device)| device.poll(now_ns) | done)
    }

    /// Tells the devices what was begun since the last call.
    pub fn kick(&self) {
        self.devices.iter().for_each(|(_, device)| device.kick());
    }

    /// Makes all interrupt us, and sets the alarm, before a sleep. Returns whether there is something to do instead.
    ///
    /// As long as a device with an interrupt has something to do the alarm is never far: interrupts have been seen to get lost (QEMU's
    /// GICv2 with two processors).
    pub fn settle(&self) -> bool {
        let look_again_ns = now_ns().saturating_add(LOOK_AGAIN_NS);
        let deadlines = self.devices.iter().filter_map(|(interrupt, device)| {
            let deadline_ns = device.deadline_ns()?;
            Some(if interrupt.is_some() { deadline_ns.min(look_again_ns) } else { deadline_ns })
        });
        set_alarm_ns(deadlines.min());
        self.devices.iter().fold(false, |done, (_, device)| device.settle() | done)
    }

    /// Lets the devices end what goes out to others: [`super::leave`].
    pub fn leave(&self) {
        let devices: Vec<&dyn Device> = self.devices.iter().map(|(_, device)| &**device).collect();
        super::leave(&devices, || {
            yield_processor();
            now_ns()
        });
    }
}
