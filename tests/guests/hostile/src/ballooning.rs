//! Pages given back to Xen while the device uses them, and taken again.

use by_hand::registers as register;
use kernel::limits::PAGE_BYTES;
use kernel::xen::memory::{decrease_reservation, populate};

use crate::chains::plausible;
use crate::device::DATA_PAGES;
use crate::life::Guest;
use crate::random::Random;

const KICKS: usize = 8;

/// Gives a page of a ring or of the data away in the middle of requests, kicks, and takes it again. We touch no page meanwhile: there
/// is none.
pub fn rings_away(guest: &mut Guest, random: &mut Random) {
    guest.second.rest();
    let (device, _) = guest.any(random);
    device.ensure_running();
    let queue = random.below(device.queues.len());
    for request in 0..device.queues[queue].ring.size / 8 {
        let chain = plausible(device, queue, random);
        device.queues[queue].offer(request * 8, &chain);
    }
    device.queues[queue].ring.publish();
    let kicks_before = random.once_in(2);
    if kicks_before {
        device.registers.write(register::QUEUE_NOTIFY, queue as u32);
    }
    let frame = if random.once_in(3) {
        device.data.pages.frame(random.below(DATA_PAGES))
    } else {
        device.queues[queue].ring.pages.frame(random.below(3))
    };
    // A granted page that is in use stays: Xen refuses, or takes it when the other domain lets go.
    if decrease_reservation(&[frame.0]) != Ok(1) {
        return;
    }
    for _ in 0..random.below(KICKS) {
        device.registers.write(register::QUEUE_NOTIFY, queue as u32);
    }
    if random.once_in(2) {
        // Rings where there is no memory.
        device.registers.write(register::STATUS, 0);
        let rings = device.queues[queue].addresses();
        device.registers.write(register::STATUS, register::ACKNOWLEDGE | register::DRIVER);
        device.set_queue(queue, device.queues[queue].ring.size.into(), rings);
        device.ready();
        device.registers.write(register::QUEUE_NOTIFY, queue as u32);
    }
    take_again(frame.0);
    if random.once_in(2) {
        device.data.pages.fill(0, PAGE_BYTES, 0);
        device.restart();
    }
}

/// Gets a page at a frame of ours: what is left of us needs it.
fn take_again(frame: u64) {
    while populate(&[frame]) != Ok(1) {
        kernel::xen::sched::yield_processor();
    }
}
