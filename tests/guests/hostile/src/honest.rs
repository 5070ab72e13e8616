//! Requests that must be served, whatever was before: after a reset.

use alloc::format;
use alloc::string::String;

use by_hand::registers as register;
use by_hand::ring::WRITE;
use kernel::arch::timer::now_ns;
use kernel::limits::PAGE_BYTES;
use kernel::xen::sched::yield_processor;

use crate::device::{Buffer, Device, Kind, RECEIVE, TRANSMIT};

/// How long the device may take.
const PATIENCE_NS: u64 = 20_000_000_000;
/// For an answer to a frame, which may be lost: then it is asked again.
const ANSWER_NS: u64 = 500_000_000;
const QUESTIONS: usize = 8;

/// Sectors of the disk that are written.
const SECTORS: u64 = 512;
const SECTORS_PER_PAGE: u64 = PAGE_BYTES as u64 / 512;

/// Where the parts of a request lie in the device's data.
const HEADER: usize = 0;
const STATUS: usize = 512;
const FROM: usize = PAGE_BYTES;
const TO: usize = 2 * PAGE_BYTES;
/// Buffers for frames to us.
const FRAMES: usize = 4 * PAGE_BYTES;
const FRAME_BYTES: usize = 2048;
const FRAME_BUFFERS: u16 = 32;
const NET_HEADER_BYTES: usize = 12;

const UNTOUCHED: u8 = 0xff;

/// The address of the driver domain's endpoint in the test, and ours.
const ENDPOINT: [u8; 4] = [10, 9, 0, 9];
const OWN: [u8; 4] = [10, 9, 0, 66];

/// What honest requests write is another pattern each time.
pub struct Honesty(u64);

impl Honesty {
    pub fn new(seed: u64) -> Self {
        Self(seed << 20)
    }

    /// Resets a device, and looks whether it works.
    pub fn check(&mut self, index: usize, device: &mut Device) -> Result<(), String> {
        self.0 += 1;
        let result = reset(device).and_then(|()| match device.kind {
            Kind::Disk => self.write_and_read(device),
            Kind::Nic => ask_who_has(device),
        });
        result.map_err(|error| format!("device {index}, a {}: {error}", device.kind))
    }

    /// Writes a page to the disk, and reads it back to another.
    fn write_and_read(&self, device: &mut Device) -> Result<(), String> {
        let expected = pattern(self.0);
        let sector = self.0 * SECTORS_PER_PAGE % SECTORS;
        device.data.pages.write(FROM, &expected);
        device.data.pages.fill(TO, PAGE_BYTES, 0);
        // A disk writes what it reads from us, and the other way round.
        for (operation, offset, flags) in [(1, FROM, 0), (0, TO, WRITE)] {
            device.data.pages.write(HEADER, &u64::to_le_bytes(operation));
            device.data.pages.write(HEADER + 8, &sector.to_le_bytes());
            device.data.pages.write(STATUS, &[UNTOUCHED]);
            let chain = [
                Buffer { address: device.data.address(HEADER), length: 16, flags: 0 },
                Buffer { address: device.data.address(offset), length: PAGE_BYTES as u32, flags },
                Buffer { address: device.data.address(STATUS), length: 1, flags: WRITE },
            ];
            device.queues[0].offer(0, &chain);
            device.kick(0);
            if !wait(PATIENCE_NS, || device.queues[0].ring.used() == device.queues[0].ring.offered) {
                return Err("no answer".into());
            }
            let mut status = [0];
            device.data.pages.read(STATUS, &mut status);
            if status != [0] {
                return Err(format!("status {}", status[0]));
            }
        }
        let mut found = [0; PAGE_BYTES];
        device.data.pages.read(TO, &mut found);
        if found == expected { Ok(()) } else { Err("wrong content".into()) }
    }
}

/// As a driver does it: the device says when it is reset.
fn reset(device: &mut Device) -> Result<(), String> {
    device.registers.write(register::STATUS, 0);
    if !wait(PATIENCE_NS, || device.registers.read(register::STATUS) == 0) {
        return Err("is not reset".into());
    }
    device.take_few_features();
    device.restart();
    let status = device.registers.read(register::STATUS);
    if status & register::DRIVER_OK == 0 || status & register::NEEDS_RESET != 0 {
        return Err(format!("does not start: status {status:#x}"));
    }
    Ok(())
}

/// Whether something holds in time.
fn wait(patience_ns: u64, mut holds: impl FnMut() -> bool) -> bool {
    let end_ns = now_ns() + patience_ns;
    while !holds() {
        if now_ns() > end_ns {
            return false;
        }
        yield_processor();
    }
    true
}

/// Asks who has the endpoint's address (ARP, RFC 826), and waits for its answer.
fn ask_who_has(device: &mut Device) -> Result<(), String> {
    for index in 0..FRAME_BUFFERS {
        let address = device.data.address(FRAMES + usize::from(index) * FRAME_BYTES);
        device.queues[RECEIVE].offer(index, &[Buffer { address, length: FRAME_BYTES as u32, flags: WRITE }]);
    }
    device.kick(RECEIVE);
    let mac = mac(device);
    let mut seen = 0;
    for _ in 0..QUESTIONS {
        let mut frame = [0; NET_HEADER_BYTES + 60];
        put(&mut frame, 12, &[0xff; 6]);
        put(&mut frame, 18, &mac);
        // ARP; of Ethernet and IPv4; a question.
        put(&mut frame, 24, &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        put(&mut frame, 34, &mac);
        put(&mut frame, 40, &OWN);
        put(&mut frame, 50, &ENDPOINT);
        device.data.pages.write(HEADER, &frame);
        let address = device.data.address(HEADER);
        device.queues[TRANSMIT].offer(0, &[Buffer { address, length: frame.len() as u32, flags: 0 }]);
        device.kick(TRANSMIT);
        if wait(ANSWER_NS, || has_answer(device, &mut seen)) {
            return Ok(());
        }
        let sent = &device.queues[TRANSMIT].ring;
        if sent.used() != sent.offered && !wait(PATIENCE_NS, || sent.used() == sent.offered) {
            return Err("a frame is not sent".into());
        }
    }
    Err(format!("no answer to a frame, {seen} others"))
}

/// Looks at the frames that came: is the answer among them? Their buffers are given to the device again.
fn has_answer(device: &mut Device, seen: &mut u16) -> bool {
    let mut found = false;
    while *seen != device.queues[RECEIVE].ring.used() {
        let (head, _) = device.queues[RECEIVE].ring.used_entry(*seen);
        *seen = seen.wrapping_add(1);
        let head = (head as u16).min(FRAME_BUFFERS - 1);
        let mut frame = [0; NET_HEADER_BYTES + 42];
        device.data.pages.read(FRAMES + usize::from(head) * FRAME_BYTES, &mut frame);
        found |= frame[24..26] == [0x08, 0x06] && frame[32..34] == [0, 2] && frame[40..44] == ENDPOINT;
        device.queues[RECEIVE].ring.offer(head);
        device.kick(RECEIVE);
    }
    found
}

/// Our address, as the device has it (virtio 1.2, 5.1.4).
pub fn mac(device: &Device) -> [u8; 6] {
    let low = device.registers.read(register::CONFIG).to_le_bytes();
    let high = device.registers.read(register::CONFIG + 4).to_le_bytes();
    [low[0], low[1], low[2], low[3], high[0], high[1]]
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The content of a page, another one for each `seed`.
fn pattern(seed: u64) -> [u8; PAGE_BYTES] {
    let mut bytes = [0; PAGE_BYTES];
    crate::random::Random::new(seed, 0).fill(&mut bytes);
    bytes
}
