//! Descriptors, tables and headers rewritten while they are in flight: whoever reads them twice finds two things.

use by_hand::ring::DESCRIPTOR_BYTES;
use kernel::limits::PAGE_BYTES;

use crate::anywhere::descriptor;
use crate::chains::plausible;
use crate::device::DATA_PAGES;
use crate::life::Guest;
use crate::random::Random;

const WORDS: usize = 400;

/// Offers requests that are right, and rewrites them as soon as the device knows of them. The second vCPU does the same all the time.
pub fn in_flight(guest: &mut Guest, random: &mut Random) {
    let (device, nowhere) = guest.any(random);
    device.ensure_running();
    let queue = random.below(device.queues.len());
    for request in 0..device.queues[queue].ring.size / 8 {
        let chain = plausible(device, queue, random);
        device.queues[queue].offer(request * 8, &chain);
    }
    device.kick(queue);
    for _ in 0..WORDS {
        if random.once_in(2) {
            let entry = descriptor(device, nowhere, random);
            let index = random.below(device.queues[queue].ring.size.into()) as u16;
            device.queues[queue].ring.describe(index, &entry);
        } else {
            // Headers are in the first page, tables far behind it.
            let page = if random.once_in(2) { 0 } else { random.below(DATA_PAGES) };
            let place = page * PAGE_BYTES + random.below(PAGE_BYTES / DESCRIPTOR_BYTES) * DESCRIPTOR_BYTES;
            device.data.pages.write(place, &random.any().to_le_bytes());
        }
    }
    device.kick(queue);
}
