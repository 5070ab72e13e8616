//! The control queue, configuration space and announcements.

mod common;

use common::net_bed::{DATA, GUEST, NetGuest, RING_PINS, STATION, frame, without};
use common::{CONFIG, DEVICE_ID, INTERRUPT_ACK, INTERRUPT_STATUS, QUEUE_NOTIFY, STATUS};
use drivers::net::MacAddress;
use drivers::net::filter::ADDRESSES_MAX;
use drivers::net::offload::Offload;
use drivers::virtio::Features;
use drivers::virtio::mmio::{Progress, Width};
use drivers::virtio::net::config::{
    CTRL_MAC_ADDR, CTRL_RX, CTRL_RX_EXTRA, CTRL_VLAN, CTRL_VQ, GUEST_ANNOUNCE, features,
};

const OK: u8 = 0;
const ERROR: u8 = 1;
const CONFIG_GENERATION: u32 = 0xfc;
const ANNOUNCE: u64 = 2;

const GROUP: MacAddress = MacAddress([1, 0, 0x5e, 0, 0, 5]);
const OTHER_GROUP: MacAddress = MacAddress([1, 0, 0x5e, 0, 0, 6]);

/// A guest whose filter is on, and that has buffers.
fn guest() -> NetGuest {
    let mut guest = NetGuest::with_features(without(CTRL_VLAN));
    guest.post_buffers(200, 2048);
    guest.kick(0);
    assert_eq!(guest.command(&[&[0, 0], &[0]]), OK);
    guest
}

fn receives(guest: &mut NetGuest, frame: &[u8]) -> bool {
    while guest.received().is_some() {}
    guest.deliver(frame, Offload::default());
    guest.work();
    guest.received().is_some_and(|(_, received)| received == frame)
}

fn receives_for(guest: &mut NetGuest, to: MacAddress) -> bool {
    receives(guest, &frame(to, STATION, 60))
}

fn table(addresses: &[MacAddress]) -> Vec<u8> {
    let mut table = u32::try_from(addresses.len()).unwrap().to_le_bytes().to_vec();
    addresses.iter().for_each(|address| table.extend(address.0));
    table
}

fn stations(count: u8) -> Vec<MacAddress> {
    (0..count).map(|number| MacAddress([2, 0, 0, 0, 0, number])).collect()
}

fn tagged(vlan: u16) -> Vec<u8> {
    let mut frame = frame(GUEST, STATION, 60);
    frame.splice(12..12, [0x81, 0, (vlan >> 8) as u8, (vlan & 0xff) as u8]);
    frame
}

#[test]
fn configuration_is_as_the_specification_wants() {
    let guest = NetGuest::running();
    assert_eq!(guest.read(DEVICE_ID), 1);
    let bytes: Vec<_> = (0..16).map(|at| guest.device.read(CONFIG + at, Width::One)).collect();
    assert_eq!(bytes, [0, 0x16, 0x3e, 0, 0, 1, 1, 0, 1, 0, 0xdc, 5, 0, 0, 0, 0]);
    assert_eq!(features().bits(), 0x1_30bf_99ab);
}

#[test]
fn everything_comes_until_the_driver_speaks() {
    let mut guest = NetGuest::with_features(without(CTRL_VLAN));
    guest.post_buffers(10, 2048);
    guest.kick(0);
    for to in [GUEST, GROUP, MacAddress::BROADCAST] {
        assert!(receives_for(&mut guest, to));
    }
}

#[test]
fn groups_are_filtered_by_the_table() {
    let mut guest = guest();
    assert_eq!(guest.command(&[&[1, 0], &table(&[]), &table(&[GROUP])]), OK);
    assert!(receives_for(&mut guest, GROUP));
    assert!(!receives_for(&mut guest, OTHER_GROUP));
    assert!(receives_for(&mut guest, GUEST) && receives_for(&mut guest, MacAddress::BROADCAST));
    // A table takes the place of the one before.
    assert_eq!(guest.command(&[&[1, 0], &table(&[]), &table(&[OTHER_GROUP])]), OK);
    assert!(!receives_for(&mut guest, GROUP) && receives_for(&mut guest, OTHER_GROUP));
}

#[test]
fn modes_go_on_and_off() {
    let mut guest = guest();
    assert!(!receives_for(&mut guest, GROUP));
    for (mode, to, when_on) in [
        (0, GROUP, true),
        (1, GROUP, true),
        (3, GUEST, true),
        (4, GUEST, false),
        (5, MacAddress::BROADCAST, false),
    ] {
        let when_off = if mode == 3 { true } else { !when_on };
        assert_eq!(guest.command(&[&[0, mode], &[1]]), OK);
        assert_eq!(receives_for(&mut guest, to), when_on, "mode {mode} on");
        assert_eq!(guest.command(&[&[0, mode], &[0]]), OK);
        assert_eq!(receives_for(&mut guest, to), when_off, "mode {mode} off");
    }
    assert_eq!(guest.command(&[&[0, 2], &[1]]), OK);
}

#[test]
fn a_table_that_is_too_long_means_all_of_the_sort() {
    let mut guest = guest();
    let groups = |count| vec![OTHER_GROUP; count];
    assert_eq!(guest.command(&[&[1, 0], &table(&[]), &table(&groups(ADDRESSES_MAX))]), OK);
    assert!(!receives_for(&mut guest, GROUP));
    assert_eq!(guest.command(&[&[1, 0], &table(&stations(100)), &table(&groups(ADDRESSES_MAX + 1))]), OK);
    assert!(receives_for(&mut guest, GROUP));
    assert_eq!(guest.command(&[&[1, 0], &table(&[]), &table(&[])]), OK);
    assert!(!receives_for(&mut guest, GROUP));
}

#[test]
fn vlans_are_filtered_when_negotiated() {
    let mut guest = NetGuest::running();
    guest.post_buffers(100, 2048);
    guest.kick(0);
    assert!(receives_for(&mut guest, GUEST));
    assert!(!receives(&mut guest, &tagged(5)));
    // A tag of VLAN 0 is a priority and no VLAN.
    assert!(receives(&mut guest, &tagged(0)));
    for vlan in [5_u16, 63, 64, 4095] {
        assert_eq!(guest.command(&[&[2, 0], &vlan.to_le_bytes()]), OK);
        assert!(receives(&mut guest, &tagged(vlan)), "{vlan}");
        assert!(!receives(&mut guest, &tagged(vlan ^ 1)));
        assert_eq!(guest.command(&[&[2, 1], &vlan.to_le_bytes()]), OK);
        assert!(!receives(&mut guest, &tagged(vlan)));
    }
    assert_eq!(guest.command(&[&[2, 0], &4096_u16.to_le_bytes()]), ERROR);
    assert_eq!(guest.command(&[&[2, 0], &u16::MAX.to_le_bytes()]), ERROR);
}

#[test]
fn without_the_feature_vlans_pass() {
    let mut guest = guest();
    assert!(receives(&mut guest, &tagged(5)));
}

#[test]
fn a_reset_forgets_the_filter() {
    let mut guest = guest();
    assert_eq!(guest.command(&[&[0, 4], &[1]]), OK);
    assert!(!receives_for(&mut guest, GUEST));
    guest.start(without(CTRL_VLAN), [256, 256, 64]);
    guest.post_buffers(10, 2048);
    guest.kick(0);
    assert!(receives_for(&mut guest, GUEST) && receives_for(&mut guest, GROUP));
}

#[test]
fn commands_that_make_no_sense_are_answered_with_an_error() {
    let mut guest = guest();
    let mut too_many = vec![0xff; 3];
    too_many.extend([0x7f, 0, 0]);
    let commands: [&[&[u8]]; 17] = [
        &[],
        &[&[0]],
        &[&[0, 0]],
        &[&[0, 0], &[0, 0]],
        &[&[0, 6], &[0]],
        &[&[1, 0]],
        &[&[1, 0], &[0, 0, 0, 0]],
        &[&[1, 0], &[0, 0, 0, 0], &[0, 0, 0]],
        &[&[1, 0], &[0, 0, 0, 0], &[0, 0, 0, 0], &[0]],
        &[&[1, 0], &[1, 0, 0, 0], &[0, 0, 0, 0]],
        &[&[1, 0], &too_many, &[0, 0, 0, 0]],
        &[&[1, 1], &GROUP.0],
        &[&[2, 0], &[1, 0]],
        &[&[3, 1]],
        &[&[4, 0], &[1, 0]],
        &[&[0xff, 0xff]],
        &[&[1, 0], &[0; 5000]],
    ];
    for command in commands {
        assert_eq!(guest.command(command), ERROR, "{command:?}");
    }
    assert_eq!(guest.counters().errors, 17);
    assert!(!guest.needs_reset());
    assert_eq!(guest.memory.pins(), RING_PINS);
    assert_eq!(guest.command(&[&[0, 1], &[1]]), OK);
}

#[test]
fn commands_that_were_not_negotiated_are_answered_with_an_error() {
    let commands: [(Features, &[&[u8]]); 5] = [
        (CTRL_RX, &[&[0, 0], &[1]]),
        (CTRL_RX, &[&[1, 0], &[0; 4], &[0; 4]]),
        (CTRL_RX_EXTRA, &[&[0, 4], &[1]]),
        (CTRL_VLAN, &[&[2, 0], &[1, 0]]),
        (GUEST_ANNOUNCE, &[&[3, 0]]),
    ];
    for (feature, command) in commands {
        assert_eq!(NetGuest::running().command(command), OK);
        assert_eq!(NetGuest::with_features(without(feature)).command(command), ERROR);
        assert_eq!(NetGuest::with_features(without(CTRL_VQ)).command(command), ERROR);
    }
}

#[test]
fn a_command_is_taken_in_any_shape() {
    let mut guest = guest();
    let bytes = [&[1, 0][..], &table(&[]), &table(&[GROUP])].concat();
    let parts: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(guest.command(&parts), OK);
    assert!(receives_for(&mut guest, GROUP) && !receives_for(&mut guest, OTHER_GROUP));
    assert_eq!(guest.take_used(2).last().map(|used| used.1), Some(1));
}

#[test]
fn a_command_without_room_for_the_answer_ends_the_queue() {
    let mut guest = guest();
    guest.post(2, &[(DATA, 3, false)]);
    guest.kick(2);
    assert!(guest.needs_reset());
}

#[test]
fn a_command_or_an_answer_in_a_hole_is_survived() {
    let mut guest = guest();
    guest.take_used(2);
    guest.memory.punch_hole(DATA + 0x10_0000);
    guest.memory.poke(DATA, &[0xff]).unwrap();
    guest.post(2, &[(DATA + 0x10_0000, 3, false), (DATA, 1, true)]);
    guest.post(2, &[(DATA, 2, false), (DATA + 0x10_0000, 1, true)]);
    guest.kick(2);
    let lengths: Vec<_> = guest.take_used(2).into_iter().map(|(_, length)| length).collect();
    assert_eq!(lengths, [1, 0]);
    assert_eq!(guest.bytes(DATA, 1), [ERROR]);
    assert!(!guest.needs_reset());
}

#[test]
fn a_kick_is_wanted_for_each_command_while_other_queues_are_polled() {
    let mut guest = guest();
    let ack = DATA;
    for count in 1..=3 {
        guest.memory.poke(ack, &[0xff]).unwrap();
        guest.memory.poke(DATA + 0x2000, &[3, 9]).unwrap();
        guest.post(2, &[(DATA + 0x2000, 2, false), (ack, 1, true)]);
        let _ = guest.device.poll();
        assert_eq!(guest.bytes(ack, 1), [0xff], "not looked at");
        guest.write(QUEUE_NOTIFY, 2);
        let _ = guest.device.poll();
        assert_eq!(guest.bytes(ack, 1), [ERROR]);
        // One command was carried out before.
        assert_eq!(guest.avail_event(2), 1 + count);
    }
}

#[test]
fn the_guest_is_asked_to_announce_itself_until_it_answers() {
    let mut guest = NetGuest::running();
    let status = |guest: &NetGuest| guest.device.read(CONFIG + 6, Width::Two);
    let (generation, edges) = (guest.read(CONFIG_GENERATION), guest.line.edges());
    guest.bridge.borrow_mut().announce();
    assert!(guest.device.has_work());
    assert_eq!(guest.device.process(), Progress::default());
    assert_eq!(guest.read(INTERRUPT_STATUS), 2);
    assert_eq!(guest.line.edges(), edges + 1);
    assert_ne!(guest.read(CONFIG_GENERATION), generation);
    assert_eq!(status(&guest), 1 | ANNOUNCE);
    guest.write(INTERRUPT_ACK, 2);
    assert!(!guest.device.has_work());
    let _ = guest.device.poll();
    assert_eq!((guest.line.edges(), guest.counters().announcements), (edges + 1, 1));
    assert_eq!(guest.command(&[&[3, 0]]), OK);
    assert_eq!(status(&guest), 1);
}

#[test]
fn who_cannot_announce_is_not_asked() {
    let mut guest = NetGuest::with_features(without(GUEST_ANNOUNCE));
    guest.bridge.borrow_mut().announce();
    assert!(!guest.device.has_work());
    guest.work();
    assert_eq!(guest.read(INTERRUPT_STATUS), 0);
}

#[test]
fn a_driver_that_is_not_up_has_no_work() {
    let mut guest = NetGuest::running();
    guest.bridge.borrow_mut().announce();
    guest.write(STATUS, 0);
    assert!(!guest.device.has_work());
    assert_eq!(guest.device.process(), Progress::default());
}

const NEW: MacAddress = MacAddress([2, 0, 0, 0, 0, 77]);

fn set_address(guest: &mut NetGuest, address: MacAddress) -> u8 {
    guest.command(&[&[1, 1], &address.0])
}

fn address_in_configuration(guest: &NetGuest) -> MacAddress {
    MacAddress([0, 1, 2, 3, 4, 5].map(|at| guest.device.read(CONFIG + at, Width::One).try_into().unwrap()))
}

#[test]
fn a_guest_takes_on_another_address_until_it_is_reset() {
    let mut guest = guest();
    assert!(!receives_for(&mut guest, NEW));
    assert_eq!((set_address(&mut guest, NEW), address_in_configuration(&guest)), (OK, NEW));
    assert!(receives_for(&mut guest, NEW) && !receives_for(&mut guest, GUEST));
    // What it sends is its own, and nobody else's.
    guest.send([0; 12], &frame(STATION, NEW, 60));
    assert_eq!(guest.arrived().len(), 1);
    guest.deliver(&frame(GUEST, NEW, 60), Offload::default());
    assert_eq!(guest.peer.counters().refused, 1);
    guest.start(without(CTRL_VLAN), [256, 256, 64]);
    assert_eq!(address_in_configuration(&guest), GUEST);
    guest.post_buffers(200, 2048);
    guest.kick(0);
    assert_eq!(guest.command(&[&[0, 0], &[0]]), OK);
    assert!(receives_for(&mut guest, GUEST) && !receives_for(&mut guest, NEW));
}

#[test]
fn addresses_that_it_cannot_have_are_refused() {
    let mut guest = guest();
    guest.deliver(&frame(GUEST, NEW, 60), Offload::default());
    for address in [STATION, NEW, GROUP, MacAddress::BROADCAST, MacAddress([0; 6])] {
        assert_eq!(set_address(&mut guest, address), ERROR, "{address}");
    }
    assert_eq!(guest.command(&[&[1, 1], &[2, 0, 0, 0, 0]]), ERROR);
    assert_eq!((set_address(&mut guest, GUEST), address_in_configuration(&guest)), (OK, GUEST));
    let mut without_it = NetGuest::with_features(without(CTRL_MAC_ADDR));
    assert_eq!(set_address(&mut without_it, NEW), ERROR);
}
