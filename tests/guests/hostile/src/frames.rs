//! Frames with lying headers, from thousands of addresses; commands that are none.

use by_hand::ring::{SIZE, WRITE};
use kernel::limits::PAGE_BYTES;

use crate::device::{Buffer, CONTROL, Device, Kind, RECEIVE, TRANSMIT};
use crate::honest::mac;
use crate::life::Guest;
use crate::random::Random;

const HEADER_BYTES: usize = 12;
/// Where frames lie in the device's data: each has half a page.
const FRAME_ROOM: usize = PAGE_BYTES / 2;
const FRAMES: usize = 48;
/// A frame is one descriptor; two are left for each.
const FRAMES_AT_ONCE: u16 = SIZE / 2;

/// Headers that name segments, checksums and buffers that there are not, before frames of any kind.
pub fn lying_headers(guest: &mut Guest, random: &mut Random) {
    send(guest, random, |frame, random| {
        random.fill(&mut frame[..HEADER_BYTES]);
        // Fewer of the flags and kinds that there are not.
        if !random.once_in(4) {
            frame[0] = random.of(&[0, 1, 1, 2, 3]);
            frame[1] = random.of(&[0, 1, 3, 4, 5, 0x81]);
            let header_bytes = random.below(200) as u16;
            let segment = random.of(&[0, 1, 8, 536, 1460, 65535]);
            let start = random.of(&[0, 14, 34, 34, 1500, 65535]);
            let offset = random.of(&[0, 6, 16, 16, 1500, 65535]);
            for (at, value) in [(2, header_bytes), (4, segment), (6, start), (8, offset)] {
                frame[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
            }
        }
        ethernet(frame, random);
        if random.once_in(8) { random.below(80) } else { random.below(FRAME_ROOM) }
    });
}

/// Each frame from another source.
pub fn many_addresses(guest: &mut Guest, random: &mut Random) {
    send(guest, random, |frame, random| {
        frame[..HEADER_BYTES].fill(0);
        ethernet(frame, random);
        random.fill(&mut frame[18..24]);
        // Of one station, not of a group.
        frame[18] = frame[18] & 0xfc | 2;
        HEADER_BYTES + 60
    });
}

/// Frames that are right, for everybody.
pub fn broadcasts(guest: &mut Guest, random: &mut Random) {
    send(guest, random, |frame, random| {
        frame[..HEADER_BYTES].fill(0);
        ethernet(frame, random);
        frame[12..18].fill(0xff);
        HEADER_BYTES + random.of(&[60, 1514])
    });
}

/// Destination, source and kind; and what looks like the headers of IP and TCP.
fn ethernet(frame: &mut [u8], random: &mut Random) {
    if random.once_in(2) {
        frame[12..18].fill(0xff);
    } else {
        random.fill(&mut frame[12..18]);
    }
    let kind = random.of(&[[0x08, 0x00], [0x08, 0x06], [0x86, 0xdd], [0x81, 0x00], [0x12, 0x34], [0, 0]]);
    frame[24..26].copy_from_slice(&kind);
    random.fill(&mut frame[26..80]);
    if random.once_in(2) {
        frame[26] = 0x45;
        frame[35] = random.of(&[6, 17, 1]);
    }
}

/// Sends frames that `fill` makes; it returns how many bytes they have, header included.
fn send(guest: &mut Guest, random: &mut Random, fill: impl Fn(&mut [u8], &mut Random) -> usize) {
    let Some((device, _)) = guest.of_kind(Kind::Nic, random) else { return };
    if random.once_in(8) {
        device.take_any_features(random);
        device.restart();
    }
    device.ensure_running();
    keep_receiving(device);
    let own = mac(device);
    let ring = &device.queues[TRANSMIT].ring;
    if ring.offered.wrapping_sub(ring.used()) >= FRAMES_AT_ONCE {
        // It gives nothing back, or we have lied about it.
        device.kick(TRANSMIT);
        device.restart();
    }
    for index in 0..FRAMES {
        let mut frame = [0; 96];
        frame[18..24].copy_from_slice(&own);
        let length = fill(&mut frame, random);
        let at = PAGE_BYTES + index * FRAME_ROOM;
        device.data.pages.write(at, &frame);
        let address = device.data.address(at);
        device.queues[TRANSMIT].offer(index as u16, &[Buffer { address, length: length as u32, flags: 0 }]);
    }
    device.kick(TRANSMIT);
}

/// Gives the device buffers to receive into, and does not look at what comes.
fn keep_receiving(device: &mut Device) {
    let address = device.data.address(30 * PAGE_BYTES);
    let ring = &device.queues[RECEIVE].ring;
    if ring.offered.wrapping_sub(ring.used()) < SIZE / 2 {
        for index in 0..SIZE / 2 {
            let buffer = Buffer { address, length: FRAME_ROOM as u32, flags: WRITE };
            device.queues[RECEIVE].offer(index, &[buffer]);
        }
        device.kick(RECEIVE);
    }
}

/// Commands of the control queue: right ones, and any bytes.
pub fn commands(guest: &mut Guest, random: &mut Random) {
    let Some((device, _)) = guest.of_kind(Kind::Nic, random) else { return };
    if random.once_in(8) {
        device.take_any_features(random);
        device.restart();
    }
    device.ensure_running();
    for command in 0..16_u16 {
        let mut bytes = [0; 512];
        random.fill(&mut bytes);
        if !random.once_in(4) {
            bytes[0] = random.below(6) as u8;
            bytes[1] = random.below(6) as u8;
        }
        if random.once_in(2) {
            // A table of addresses: how many.
            let entries = if random.once_in(4) { random.any() as u32 } else { random.below(90) as u32 };
            bytes[2..6].copy_from_slice(&entries.to_le_bytes());
        }
        let at = PAGE_BYTES + usize::from(command) * bytes.len();
        device.data.pages.write(at, &bytes);
        let any = random.below(bytes.len()) as u32;
        let length = random.of(&[2, 3, 4, 6, 10, any]);
        let chain = [
            Buffer { address: device.data.address(at), length: length.min(2), flags: 0 },
            Buffer { address: device.data.address(at + 2), length: length.saturating_sub(2), flags: 0 },
            Buffer { address: device.data.address(0), length: 1, flags: WRITE },
        ];
        let parts = random.of(&[3, 3, 3, 3, 2, 1]);
        device.queues[CONTROL].offer(command * 4, &chain[..parts]);
    }
    device.kick(CONTROL);
}
