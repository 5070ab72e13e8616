//! The whole path of a frame, with virtio-drivers' network driver as the guests, on one bridge.

mod common;

use common::virtio_guest::{GuestHal, Registers, host_memory};
use drivers::fake::{FakeGuestMemory, FakeLine};
use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, PortKind, PortSettings, SharedBridge};
use drivers::virtio::net::NetDevice;
use virtio_drivers::device::net::{TxBuffer, VirtIONet};

const SIZE: usize = 16;
/// Three times as many frames as there are buffers.
const MANY: u8 = 48;
const BUFFER_BYTES: usize = 2048;
/// Two devices of three queues; virtio-drivers makes two, of three rings each.
const RING_PINS: usize = 2 * 2 * 3;

struct Station {
    driver: VirtIONet<GuestHal, Registers<NetDevice>, SIZE>,
    registers: Registers<NetDevice>,
    memory: FakeGuestMemory,
    line: FakeLine,
    address: MacAddress,
}

impl Station {
    fn new(bridge: &SharedBridge, number: u8) -> Self {
        let address = MacAddress([0, 0x16, 0x3e, 0, 0, number]);
        let settings = PortSettings {
            name: format!("dom{number}/net0"),
            kind: PortKind::Guest,
            address: Some(address),
            is_pinned: false,
            is_isolated: false,
        };
        let port = Bridge::add(bridge, settings).unwrap();
        let device = NetDevice::new(format!("dom{number}/net0"), port);
        let (memory, line) = (host_memory(), FakeLine::default());
        let registers = Registers::new(device, &memory, &line);
        let driver = VirtIONet::new(registers.clone(), BUFFER_BYTES).unwrap();
        Self { driver, registers, memory, line, address }
    }

    fn send(&mut self, to: MacAddress, payload: &[u8]) -> Vec<u8> {
        let mut frame = [to.0, self.address.0].concat();
        frame.extend([0x88, 0xb5]);
        frame.extend(payload);
        self.driver.send(TxBuffer::from(&frame)).unwrap();
        frame
    }

    /// What the kernel does for a device for which something has come.
    fn work(&self) {
        if self.registers.device.borrow().has_work() {
            self.registers.work();
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.work();
        let buffer = self.driver.receive().ok()?;
        let packet = buffer.packet().to_vec();
        self.driver.recycle_rx_buffer(buffer).unwrap();
        Some(packet)
    }
}

fn pair() -> (SharedBridge, Station, Station) {
    let bridge = Bridge::new(1);
    let (one, two) = (Station::new(&bridge, 1), Station::new(&bridge, 2));
    (bridge, one, two)
}

#[test]
fn driver_sees_its_address() {
    let (_, one, two) = pair();
    assert_eq!((one.driver.mac_address(), two.driver.mac_address()), (one.address.0, two.address.0));
}

#[test]
fn frames_go_there_and_back() {
    let (bridge, mut one, mut two) = pair();
    for length in [0, 1, 46, 100, 1486, 1500] {
        let ping = one.send(two.address, &vec![0x5a; length]);
        assert_eq!(two.receive(), Some(ping));
        let pong = two.send(one.address, &vec![0xa5; length]);
        assert_eq!(one.receive(), Some(pong));
    }
    assert_eq!((one.receive(), two.receive()), (None, None));
    assert_eq!(bridge.borrow().pool().in_use(), 0);
    let counters = *one.registers.device.borrow().device().counters();
    assert_eq!((counters.frames_sent, counters.frames_received, counters.errors), (6, 6, 0));
    assert_eq!(counters.bytes_sent, 6 * 14 + 1 + 46 + 100 + 1486 + 1500);
}

#[test]
fn nothing_but_the_rings_stays_pinned() {
    let (_bridge, mut one, mut two) = pair();
    let memory = one.memory.clone();
    one.send(two.address, b"hello");
    assert!(two.receive().is_some());
    assert_eq!(memory.pins(), RING_PINS);
    drop((one, two));
    assert_eq!(memory.pins(), 0);
}

#[test]
fn frames_that_wait_are_one_batch_with_one_interrupt() {
    let (_, mut one, mut two) = pair();
    let sent: Vec<_> = (0..10).map(|byte| one.send(two.address, &[byte; 64])).collect();
    let before = two.line.edges();
    two.work();
    assert_eq!(two.line.edges(), before + 1);
    let received: Vec<_> = (0..10).map_while(|_| two.receive()).collect();
    assert_eq!(received, sent);
}

#[test]
fn frames_without_a_buffer_wait_for_one() {
    let (bridge, mut one, mut two) = pair();
    let sent: Vec<_> = (0..MANY).map(|byte| one.send(two.address, &[byte; 64])).collect();
    two.work();
    assert!(!two.registers.device.borrow().has_work());
    assert_eq!(bridge.borrow().pool().in_use(), 2 * SIZE);
    // Each buffer that comes back is filled at once: the device hears the kick.
    let received: Vec<_> = (0..MANY).map_while(|_| two.receive()).collect();
    assert_eq!(received, sent);
    assert_eq!(two.receive(), None);
}

#[test]
fn ring_indices_wrap() {
    let (bridge, mut one, mut two) = pair();
    for round in 0..70_000_u32 {
        let sent = one.send(two.address, &round.to_le_bytes());
        assert_eq!(two.receive(), Some(sent));
    }
    assert_eq!(bridge.borrow().pool().in_use(), 0);
}

#[test]
fn driver_comes_back_after_a_reset() {
    let (bridge, mut one, two) = pair();
    let Station { driver, registers, memory, line, address } = two;
    one.send(address, b"lost");
    drop(driver);
    assert_eq!(bridge.borrow().pool().in_use(), 0);
    let driver = VirtIONet::new(registers.clone(), BUFFER_BYTES).unwrap();
    let mut two = Station { driver, registers, memory, line, address };
    let sent = one.send(address, b"found");
    assert_eq!(two.receive(), Some(sent));
}
