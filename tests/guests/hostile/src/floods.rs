//! Kicks, resets, and as many requests as there is room for.

use by_hand::registers::{self as register, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};
use by_hand::ring::{SIZE, WRITE};
use kernel::limits::PAGE_BYTES;

use crate::chains::plausible;
use crate::device::{Buffer, Kind};
use crate::life::Guest;
use crate::random::Random;

const KICKS: usize = 400;
const RESETS: usize = 40;
const RESTARTS: usize = 8;
/// Requests of a greedy guest: each has this many descriptors.
const GREEDY: u16 = SIZE / 4;
const GREEDY_BYTES: usize = 16 * PAGE_BYTES;

/// Kicks of all queues, and of some that there are not, with nothing to tell.
pub fn kicks(guest: &mut Guest, random: &mut Random) {
    for _ in 0..KICKS {
        let (device, _) = guest.any(random);
        let queue = if random.once_in(16) { random.any() as u32 } else { random.below(3) as u32 };
        device.registers.write(register::QUEUE_NOTIFY, queue);
    }
}

/// Status after status, in the middle of requests.
pub fn resets(guest: &mut Guest, random: &mut Random) {
    let (device, _) = guest.any(random);
    device.ensure_running();
    let queue = random.below(device.queues.len());
    for request in 0..device.queues[queue].ring.size / 8 {
        let chain = plausible(device, queue, random);
        device.queues[queue].offer(request * 8, &chain);
    }
    device.kick(queue);
    const RUNNING: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    for _ in 0..RESETS {
        let status = match random.below(4) {
            0 => 0,
            1 => RUNNING,
            2 => random.below(256) as u32,
            _ => random.any() as u32,
        };
        device.registers.write(register::STATUS, status);
    }
}

/// Starts a device as a driver does, gives it work, and resets it before it is done: again and again.
pub fn restarts(guest: &mut Guest, random: &mut Random) {
    let (device, _) = guest.any(random);
    for _ in 0..RESTARTS {
        device.take_any_features(random);
        device.restart();
        for queue in 0..device.queues.len() {
            for request in 0..device.queues[queue].ring.size / 8 {
                let chain = plausible(device, queue, random);
                device.queues[queue].offer(request * 8, &chain);
            }
            device.kick(queue);
        }
    }
    device.registers.write(register::STATUS, 0);
}

/// Nothing but requests that are right: large reads, as many as fit. It does not wait for them.
pub fn greed(guest: &mut Guest, random: &mut Random) {
    let Some((device, _)) = guest.of_kind(Kind::Disk, random) else { return };
    device.ensure_running();
    let used = device.queues[0].ring.used();
    let mut room = GREEDY.saturating_sub(device.queues[0].ring.offered.wrapping_sub(used));
    if device.queues[0].ring.offered.wrapping_sub(used) > SIZE {
        device.restart();
        room = GREEDY;
    }
    for _ in 0..room {
        let slot = device.queues[0].ring.offered % GREEDY;
        let header = usize::from(slot) * 64;
        let sector = random.below(1 << 13) as u64;
        device.data.pages.write(header, &[0; 8]);
        device.data.pages.write(header + 8, &sector.to_le_bytes());
        let chain = [
            Buffer { address: device.data.address(header), length: 16, flags: 0 },
            Buffer {
                address: device.data.address(8 * PAGE_BYTES),
                length: GREEDY_BYTES as u32,
                flags: WRITE,
            },
            Buffer { address: device.data.address(header + 32), length: 1, flags: WRITE },
        ];
        device.queues[0].offer(slot * 4, &chain);
    }
    device.kick(0);
}
