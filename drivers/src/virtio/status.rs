//! The device status machine (virtio 1.2, 2.1 and 3.1.1), a pure function of what is and what the guest asks.
//!
//! ```text
//!            ACKNOWLEDGE        DRIVER             FEATURES_OK            DRIVER_OK
//!   reset ───────────► found ─────────► negotiating ─────────► configuring ────────► running
//!     ▲                                     │  ▲                                        │
//!     │                                     └──┘ features refused: FEATURES_OK          │ a queue is broken
//!     │                                          reads back as 0                        ▼
//!     └────────────────────────── write of 0, from everywhere ──────────────────── needs reset
//! ```
//! FAILED may be added anywhere and stops the device. A driver never takes a bit back, and only the device sets
//! DEVICE_NEEDS_RESET.

bitflags::bitflags! {
    /// Device status bits (virtio 1.2, 2.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status: u32 {
        /// The guest has seen the device.
        const ACKNOWLEDGE = 1;
        /// The guest has a driver for it.
        const DRIVER = 2;
        /// The driver is set up; the device may work.
        const DRIVER_OK = 4;
        /// Both agree on the features.
        const FEATURES_OK = 8;
        /// The device met an error that only a reset ends.
        const DEVICE_NEEDS_RESET = 64;
        /// The guest has given up on the device.
        const FAILED = 128;
    }
}

impl Status {
    /// Whether queues are served.
    #[must_use]
    pub fn is_running(self) -> bool {
        self.contains(Self::DRIVER_OK) && !self.intersects(Self::DEVICE_NEEDS_RESET.union(Self::FAILED))
    }

    /// Whether the driver may choose features.
    #[must_use]
    pub fn is_negotiating(self) -> bool {
        self.contains(Self::DRIVER) && !self.intersects(Self::FEATURES_OK.union(Self::FAILED))
    }

    /// Whether the driver may set up queues: features are agreed, the device is not yet running.
    #[must_use]
    pub fn is_configuring(self) -> bool {
        let past = Self::DRIVER_OK.union(Self::DEVICE_NEEDS_RESET).union(Self::FAILED);
        self.contains(Self::FEATURES_OK) && !self.intersects(past)
    }
}

/// What a write to the status register leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The device starts over.
    Reset,
    /// The status becomes this.
    To(Status),
    /// The write breaks the rules and changes nothing.
    Ignored,
}

const FOUND: u32 = Status::ACKNOWLEDGE.bits();
const NEGOTIATING: u32 = FOUND | Status::DRIVER.bits();
const CONFIGURING: u32 = NEGOTIATING | Status::FEATURES_OK.bits();
const RUNNING: u32 = CONFIGURING | Status::DRIVER_OK.bits();

/// The step from `current` when the guest writes `written`; `features_agree` says whether the features it
/// accepted are all offered and enough.
#[must_use]
pub fn step(current: Status, written: u32, features_agree: bool) -> Step {
    let theirs = Status::all().difference(Status::DEVICE_NEEDS_RESET);
    let asked = Status::from_bits_truncate(written).intersection(theirs);
    let next = asked.union(current.intersection(Status::DEVICE_NEEDS_RESET));
    match asked.bits() & RUNNING {
        _ if written == 0 => Step::Reset,
        _ if !next.contains(current) => Step::Ignored,
        FOUND | NEGOTIATING => Step::To(next),
        CONFIGURING if features_agree => Step::To(next),
        CONFIGURING => Step::To(next.difference(Status::FEATURES_OK)),
        RUNNING if current.contains(Status::FEATURES_OK) => Step::To(next),
        0 => Step::To(next),
        _ => Step::Ignored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Status = Status::from_bits_retain(CONFIGURING);

    #[test]
    fn linux_order_of_bits_reaches_running() {
        assert_eq!(step(Status::empty(), 1, true), Step::To(Status::ACKNOWLEDGE));
        assert_eq!(step(Status::ACKNOWLEDGE, 3, true), Step::To(Status::from_bits_retain(3)));
        assert_eq!(step(Status::from_bits_retain(3), 11, true), Step::To(CONFIGURED));
        assert_eq!(step(CONFIGURED, 15, true), Step::To(Status::from_bits_retain(15)));
    }

    #[test]
    fn disagreed_features_read_back_without_features_ok() {
        assert_eq!(step(Status::from_bits_retain(3), 11, false), Step::To(Status::from_bits_retain(3)));
    }

    #[test]
    fn driver_ok_without_features_ok_is_ignored() {
        assert_eq!(step(Status::from_bits_retain(3), 7, true), Step::Ignored);
        assert_eq!(step(Status::from_bits_retain(3), 15, true), Step::Ignored);
    }

    #[test]
    fn a_bit_is_never_taken_back() {
        assert_eq!(step(CONFIGURED, 3, true), Step::Ignored);
    }

    #[test]
    fn guest_can_neither_set_nor_clear_needs_reset() {
        let broken = Status::from_bits_retain(15 | 64);
        assert_eq!(step(broken, 15, true), Step::To(broken));
        assert_eq!(step(CONFIGURED, 15 | 64, true), Step::To(Status::from_bits_retain(15)));
    }

    #[test]
    fn zero_resets_from_everywhere() {
        assert_eq!(step(Status::all(), 0, false), Step::Reset);
    }

    #[test]
    fn failed_stops_a_running_device() {
        let failed = Status::from_bits_retain(15 | 128);
        assert_eq!(step(Status::from_bits_retain(15), 15 | 128, true), Step::To(failed));
        assert!(!failed.is_running());
    }
}
