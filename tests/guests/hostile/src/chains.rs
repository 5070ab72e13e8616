//! Descriptors, indices and rings that lie.

use alloc::vec::Vec;

use by_hand::ring::{AVAILABLE, DESCRIPTOR_BYTES, Descriptor, INDIRECT, SIZE, USED, WRITE};
use core::sync::atomic::Ordering;
use kernel::limits::PAGE_BYTES;

use crate::anywhere::{Nowhere, address, descriptor, length};
use crate::device::{Buffer, DATA_PAGES, Device, Kind};
use crate::life::Guest;
use crate::random::Random;

/// Chains that are offered together.
const HEADS: usize = 16;
/// Where parts of requests lie in a device's data, each in a page: tables of descriptors are behind them.
const TABLES: usize = 16 * PAGE_BYTES;
/// Offset of the index of a ring.
const INDEX: usize = 2;

/// Random descriptors and tables of them, random heads.
pub fn random_chains(guest: &mut Guest, random: &mut Random) {
    let (device, nowhere) = guest.any(random);
    device.ensure_running();
    let queue = random.below(device.queues.len());
    fill_descriptors(device, nowhere, queue, random);
    for _ in 0..random.below(HEADS) {
        let head = if random.once_in(16) { random.any() as u16 } else { random.below(SIZE.into()) as u16 };
        device.queues[queue].ring.offer(head);
    }
    device.kick(queue);
}

/// Fills the descriptor table of a queue with anything, and some pages of data as well: tables within tables.
fn fill_descriptors(device: &Device, nowhere: &Nowhere, queue: usize, random: &mut Random) {
    for index in 0..device.queues[queue].ring.size {
        let entry = descriptor(device, nowhere, random);
        device.queues[queue].ring.describe(index, &entry);
    }
    let page = TABLES + random.below(DATA_PAGES - TABLES / PAGE_BYTES) * PAGE_BYTES;
    for entry in 0..random.below(PAGE_BYTES / DESCRIPTOR_BYTES) {
        let bytes = descriptor(device, nowhere, random).bytes();
        device.data.pages.write(page + entry * DESCRIPTOR_BYTES, &bytes);
    }
}

/// Requests as a driver makes them, but for one thing or two.
pub fn lying_requests(guest: &mut Guest, random: &mut Random) {
    let (device, nowhere) = guest.any(random);
    device.ensure_running();
    let queue = random.below(device.queues.len());
    for request in 0..device.queues[queue].ring.size / 8 {
        let mut chain = plausible(device, queue, random);
        for _ in 0..random.below(3) {
            lie(&mut chain, device, nowhere, random);
        }
        if random.once_in(4) {
            chain = alloc::vec![as_table(&chain, device, random)];
        }
        device.queues[queue].offer(request * 8, &chain);
    }
    device.kick(queue);
}

/// A request that the device could serve: a disk's, or frames.
pub fn plausible(device: &Device, queue: usize, random: &mut Random) -> Vec<Buffer> {
    let slot = random.below(32) * 64;
    let data = device.data.address(PAGE_BYTES + random.below(12 * PAGE_BYTES));
    let header = device.data.address(slot);
    if device.kind == Kind::Nic {
        let flags = if queue == 0 { WRITE } else { 0 };
        let length = random.below(2048) as u32;
        return alloc::vec![
            Buffer { address: header, length: 12, flags },
            Buffer { address: data, length, flags },
        ];
    }
    // Read, write, flush, identity, discard, zeroes, and some that there are not.
    let operation = random.of(&[0, 0, 0, 1, 1, 1, 4, 8, 11, 13, 14, 255]);
    let sector = if random.once_in(8) { random.any() } else { random.below(1 << 14) as u64 };
    device.data.pages.write(slot, &u64::to_le_bytes(operation));
    device.data.pages.write(slot + 8, &sector.to_le_bytes());
    let flags = if operation == 1 || operation > 8 { 0 } else { WRITE };
    let length = random.of(&[512, 1024, 4096, 16, 20, 16384]);
    alloc::vec![
        Buffer { address: header, length: 16, flags: 0 },
        Buffer { address: data, length, flags },
        Buffer { address: device.data.address(slot + 32), length: 1, flags: WRITE },
    ]
}

/// Makes one thing of a chain wrong.
fn lie(chain: &mut Vec<Buffer>, device: &Device, nowhere: &Nowhere, random: &mut Random) {
    let which = random.below(chain.len());
    let buffer = &mut chain[which];
    match random.below(8) {
        0 => buffer.address = address(device, nowhere, random),
        1 => buffer.length = length(random),
        2 => buffer.flags ^= WRITE,
        // It ends where addresses end, or wraps.
        3 => buffer.address = u64::from(buffer.length).wrapping_neg().wrapping_add(random.below(3) as u64),
        4 => buffer.flags |= INDIRECT,
        5 => buffer.length = 0,
        6 => chain.swap(which, 0),
        _ => drop(chain.pop()),
    }
    if chain.is_empty() {
        chain.push(Buffer { address: nowhere.address(random), length: length(random), flags: 0 });
    }
}

/// Puts a chain into a table, whose length may be wrong.
fn as_table(chain: &[Buffer], device: &Device, random: &mut Random) -> Buffer {
    let at = TABLES + random.below(8) * PAGE_BYTES;
    for (index, buffer) in chain.iter().enumerate() {
        let flags = buffer.flags | u16::from(index + 1 < chain.len());
        let Buffer { address, length, .. } = *buffer;
        let entry = Descriptor { address, length, flags, next: index as u16 + 1 };
        device.data.pages.write(at + index * DESCRIPTOR_BYTES, &entry.bytes());
    }
    let length = (chain.len() * DESCRIPTOR_BYTES + random.of(&[0, 0, 0, 1, 8, 16, 15 * 16])) as u32;
    Buffer { address: device.data.address(at), length, flags: INDIRECT }
}

/// Indices that jump, heads that are not there or that are offered twice, a used ring that somebody else writes.
pub fn forged_indices(guest: &mut Guest, random: &mut Random) {
    let (device, _) = guest.any(random);
    device.ensure_running();
    let queue = random.below(device.queues.len());
    for _ in 0..random.below(8) {
        let chain = plausible(device, queue, random);
        let head = (random.below(8) * 8) as u16;
        device.queues[queue].offer(head, &chain);
        if random.once_in(2) {
            device.queues[queue].ring.offer(head);
        }
    }
    let ring = &mut device.queues[queue].ring;
    match random.below(5) {
        0 => ring.offered = ring.offered.wrapping_add(random.any() as u16),
        1 => ring.offered = ring.offered.wrapping_add(SIZE + 1),
        2 => ring.offered = ring.offered.wrapping_sub(1),
        3 => ring.offer(SIZE + random.below(1000) as u16),
        _ => ring.pages.word(USED + INDEX).store(random.any() as u16, Ordering::Relaxed),
    }
    ring.pages.word(AVAILABLE).store(random.below(4) as u16, Ordering::Relaxed);
    device.kick(queue);
    // Back again, as if nothing had been.
    let offered = device.queues[queue].ring.used();
    device.queues[queue].ring.offered = offered;
    device.kick(queue);
}

/// Rings at places where none can be, over each other, of sizes that there are not, of queues that there are not.
pub fn rings_anywhere(guest: &mut Guest, random: &mut Random) {
    let (device, nowhere) = guest.any(random);
    let features = random.any();
    device.negotiate(if random.once_in(3) { features } else { features | crate::device::VERSION_1 });
    if random.once_in(2) {
        device.take_any_features(random);
        device.restart();
        device.negotiate(crate::device::VERSION_1 | crate::device::INDIRECT_DESC | own_platform(device));
    }
    for queue in 0..device.queues.len() {
        let own = device.queues[queue].addresses();
        let rings = own.map(|own| match random.below(6) {
            0 => nowhere.address(random),
            1 => own + random.below(PAGE_BYTES) as u64,
            2 => device.queues[queue].addresses()[random.below(3)],
            3 => device.data.address(random.below(DATA_PAGES) * PAGE_BYTES),
            _ => own,
        });
        let size = random.of(&[0, 1, 3, 64, 128, 128, 128, 256, 257, 32768, 65535, u32::MAX]);
        let number = if random.once_in(8) { random.any() as usize } else { queue };
        device.set_queue(number, size, rings);
    }
    device.ready();
    for queue in 0..device.queues.len() {
        let head = random.below(SIZE.into()) as u16;
        device.queues[queue].ring.offer(head);
        device.kick(queue);
    }
}

fn own_platform(device: &Device) -> u64 {
    if device.is_granted() { crate::device::ACCESS_PLATFORM } else { 0 }
}
