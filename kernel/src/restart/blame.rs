//! Whose device was being served when this kernel ended: who ends it again and again is served no more.

use super::area::{Area, DeviceEntry};
use crate::xen::DomainId;

/// A device that ended this kernel so often needs a reset by its guest: what it has in its rings is not done again.
pub const FORGET_REQUESTS_AT: u64 = 3;
/// A guest whose devices ended it so often has none any more.
pub const GIVE_UP_AT: u64 = 6;
/// A life that serves for so long, in microseconds, makes good for what was blamed before: ten minutes.
const FORGIVE_AFTER_US: u64 = 600_000_000;

/// What is said of such a one.
pub const GIVEN_UP: &str = "go on with a device that ended this kernel again and again";

/// Whether the devices of a guest have ended this kernel too often.
#[must_use]
pub fn is_given_up(area: &Area, domain: DomainId) -> bool {
    let its = area.devices.iter().filter(|entry| entry.place().is_some_and(|place| place.domain == domain));
    its.map(|entry| entry.blame.get().unwrap_or(GIVE_UP_AT)).sum::<u64>() >= GIVE_UP_AT
}

/// While it lives, a device is being served.
pub struct Served(Area);

impl Served {
    /// The device of `entry` is being served.
    #[must_use]
    pub fn new(area: Area, entry: &DeviceEntry) -> Self {
        area.root.served.set(area.index(entry));
        Self(area)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.root.served.clear();
    }
}

/// At the beginning of a life: blames the device that the last one served when it ended, and lets go of what cannot be served.
pub fn assign(area: &Area) {
    let served = area.root.served.get().and_then(|index| area.devices.get(index as usize));
    area.root.served.clear();
    if area.root.served_us.get().unwrap_or(0) >= FORGIVE_AFTER_US {
        area.devices.iter().for_each(|entry| entry.blame.set(0));
    }
    let Some((entry, place)) = served.and_then(|entry| Some((entry, entry.place()?))) else { return };
    let times = entry.blame.get().unwrap_or(0) + 1;
    entry.blame.set(times);
    log::warn!("{}: it was serving {:?} of {}, for the {times}. time", super::NAME, place.id, place.domain);
    if times >= FORGET_REQUESTS_AT {
        entry.device.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::super::area::tests::{GUEST, area, place};
    use super::*;
    use crate::guest::DeviceId;
    use drivers::virtio::handover::Saved;

    /// The kernel ends while it serves the device of `entry`, and begins again.
    fn end_while_serving(area: &Area, entry: &DeviceEntry) {
        core::mem::forget(Served::new(*area, entry));
        assign(area);
    }

    #[test]
    fn only_who_was_being_served_is_blamed() {
        let area = area();
        let [one, other] = [1, 2].map(|number| area.occupy(&place(DeviceId::Disk(number))).unwrap());
        drop(Served::new(area, other));
        assign(&area);
        end_while_serving(&area, one);
        assign(&area);
        assert_eq!((one.blame.get(), other.blame.get()), (Some(1), Some(0)));
    }

    #[test]
    fn what_ends_the_kernel_three_times_is_not_done_again() {
        let area = area();
        let [one, other] = [1, 2].map(|number| area.occupy(&place(DeviceId::Disk(number))).unwrap());
        [one, other].iter().for_each(|entry| entry.device.save(&Saved::default()));
        for _ in 1..FORGET_REQUESTS_AT {
            end_while_serving(&area, one);
            assert!(one.device.saved().is_some());
        }
        end_while_serving(&area, one);
        assert_eq!((one.device.saved(), other.device.saved()), (None, Some(Saved::default())));
    }

    #[test]
    fn a_life_that_serves_for_long_forgives() {
        let area = area();
        let [one, other] = [1, 2].map(|number| area.occupy(&place(DeviceId::Disk(number))).unwrap());
        (1..FORGET_REQUESTS_AT).for_each(|_| end_while_serving(&area, one));
        area.root.served_us.set(FORGIVE_AFTER_US);
        end_while_serving(&area, other);
        assert_eq!((one.blame.get(), other.blame.get()), (Some(0), Some(1)));
        area.root.served_us.set(FORGIVE_AFTER_US - 1);
        end_while_serving(&area, other);
        assert_eq!((one.blame.get(), other.blame.get()), (Some(0), Some(2)));
    }

    #[test]
    fn what_ends_the_kernel_six_times_is_given_up() {
        let area = area();
        let entry = area.occupy(&place(DeviceId::Disk(1))).unwrap();
        for _ in 0..GIVE_UP_AT {
            assert!(!is_given_up(&area, GUEST));
            end_while_serving(&area, entry);
        }
        assert!(is_given_up(&area, GUEST));
    }
}
