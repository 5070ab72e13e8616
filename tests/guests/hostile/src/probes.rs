//! Every register at every width and offset.

use by_hand::registers::{DEVICE_BYTES, QUEUE_NOTIFY, STATUS, WINDOW};

use crate::access::access;
use crate::life::Guest;
use crate::random::Random;

const ACCESSES: usize = 200;

/// Accesses of all kinds.
pub fn registers(guest: &mut Guest, random: &mut Random) {
    for _ in 0..ACCESSES {
        let base = random.below(guest.devices.len()) * DEVICE_BYTES;
        let offset = match random.below(8) {
            // Behind our devices, too: nobody is there.
            0 => random.below(WINDOW.len()),
            1 => base + random.below(DEVICE_BYTES),
            2 => base + random.of(&[STATUS, QUEUE_NOTIFY]),
            3 => base + DEVICE_BYTES - 1 - random.below(8),
            _ => base + random.below(DEVICE_BYTES / 4) * 4,
        };
        let value = if random.once_in(2) { random.any() } else { random.below(16) as u64 };
        guest.faults += u64::from(!access(offset, random.below(usize::MAX), value));
    }
}
