//! Physical devices, as the loop sees them: interrupts, and when to look even without one.
//!
//! | file | what |
//! |---|---|
//! | `all` | all devices, the interrupt controller, and the alarm |
//! | `disk` | disks |
//! | `uplink` | the NIC that leads to the network outside |
//! | [`network`] | the bridge, our endpoint, and disks on other machines |
//! | `transport` | virtio transports that were passed through to us |
//!
//! At each turn that looks at everything the loop polls the devices, lets the guests work, and kicks the devices, once for all that the guests
//! have begun. Interrupts only end a sleep: what there is to do is found by polling.

#[cfg(target_os = "none")]
mod all;
#[cfg(target_os = "none")]
pub mod disk;
pub mod network;
#[cfg(target_os = "none")]
pub mod transport;
#[cfg(target_os = "none")]
pub mod uplink;

#[cfg(target_os = "none")]
pub use all::Devices;

/// How long servers have to hear that this domain ends: `xl` waits for that.
const LEAVING_NS: u64 = 1_000_000_000;

/// A device that the loop drives.
pub trait Device {
    /// Its interrupt came.
    fn interrupt(&self) {}

    /// Takes what it has done, and gives up what it should have. Returns whether there was anything.
    fn poll(&self, now_ns: u64) -> bool;

    /// Tells it what was begun since the last call.
    fn kick(&self) {}

    /// Makes it interrupt us for what it does from now on. Returns whether it has done something already.
    fn settle(&self) -> bool;

    /// By when it is to be polled even without an interrupt, in the clock of `arch::timer::now_ns`.
    fn deadline_ns(&self) -> Option<u64>;

    /// Whether nobody outside has still to hear from it that it is not used any more.
    fn has_left(&self) -> bool {
        true
    }
}

/// Lets `devices` end what goes out to others, for a moment at most by this clock. To be called when nothing uses them any
/// more.
pub fn leave(devices: &[&dyn Device], mut now_ns: impl FnMut() -> u64) {
    let until_ns = now_ns().saturating_add(LEAVING_NS);
    loop {
        let now_ns = now_ns();
        for device in devices {
            device.poll(now_ns);
            device.kick();
        }
        if devices.iter().all(|device| device.has_left()) {
            return;
        }
        if now_ns >= until_ns {
            log::warn!("some servers do not hear that this domain ends");
            return;
        }
    }
}
