use super::*;
use crate::net::filter::{Filter, VLANS};
use crate::net::frame::FRAME_BYTES_MAX;
use crate::net::offload::{Offload, Segmentation, SegmentedProtocol};
use std::boxed::Box;
use std::string::ToString;
use std::vec::Vec;

const NOW: u64 = 1_000_000_000;
const STRANGER: MacAddress = MacAddress([2, 0xff, 0, 0, 0, 1]);

pub fn own(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

pub fn guest(number: u8) -> PortSettings {
    PortSettings {
        name: std::format!("dom{number}/net0"),
        kind: PortKind::Guest,
        address: Some(own(number)),
        is_pinned: false,
        is_isolated: false,
    }
}

pub fn uplink() -> PortSettings {
    PortSettings { name: "uplink".to_string(), kind: PortKind::Uplink, address: None, ..guest(0) }
}

pub fn all() -> Filter {
    Filter { promiscuous: true, ..Filter::default() }
}

/// A bridge, and open ports.
fn open<const N: usize>(settings: [PortSettings; N]) -> (SharedBridge, [Port; N]) {
    let bridge = Bridge::new(3);
    let ports = settings.map(|settings| {
        let filter = if settings.kind == PortKind::Uplink { all() } else { Filter::default() };
        let port = Bridge::add(&bridge, settings).unwrap();
        port.set_filter(Some(filter));
        port
    });
    (bridge, ports)
}

pub fn frame(port: &Port, to: MacAddress, from: MacAddress, bytes: usize) -> Frame {
    let mut blank = port.blank(bytes).unwrap();
    blank.bytes_mut().fill(0);
    blank.bytes_mut()[..6].copy_from_slice(&to.0);
    blank.bytes_mut()[6..12].copy_from_slice(&from.0);
    blank.finish(Offload::default())
}

fn send(port: &Port, to: MacAddress, from: MacAddress) {
    port.send(&frame(port, to, from, 60), NOW);
}

/// Takes and counts what waits.
pub fn taken(port: &Port) -> usize {
    core::iter::from_fn(|| port.receive()).count()
}

#[test]
fn a_known_station_gets_its_frame_and_nobody_else() {
    let (_bridge, [a, b, c]) = open([guest(1), guest(2), uplink()]);
    send(&a, own(2), own(1));
    assert_eq!([&a, &b, &c].map(taken), [0, 1, 0]);
    assert_eq!((a.counters().frames_in, a.counters().bytes_in), (1, 60));
    assert_eq!((b.counters().frames_out, b.counters().bytes_out), (1, 60));
}

#[test]
fn an_unknown_station_is_looked_for_everywhere_until_it_is_heard() {
    let (_bridge, [a, b, c]) = open([guest(1), guest(2), uplink()]);
    b.set_filter(Some(all()));
    send(&a, STRANGER, own(1));
    assert_eq!([&a, &b, &c].map(taken), [0, 1, 1]);
    send(&c, own(1), STRANGER);
    send(&a, STRANGER, own(1));
    assert_eq!([&a, &b, &c].map(taken), [1, 0, 1]);
}

#[test]
fn a_broadcast_goes_to_all_others() {
    let (_bridge, [a, b, c]) = open([guest(1), guest(2), uplink()]);
    send(&a, MacAddress::BROADCAST, own(1));
    assert_eq!([&a, &b, &c].map(taken), [0, 1, 1]);
    assert_eq!(a.counters().copies_flooded, 2);
}

#[test]
fn no_frame_goes_back_to_its_port() {
    let (_bridge, [a, c]) = open([guest(1), uplink()]);
    send(&c, MacAddress::BROADCAST, STRANGER);
    send(&c, STRANGER, MacAddress([2, 0xff, 0, 0, 0, 2]));
    send(&a, own(1), own(1));
    assert_eq!([&a, &c].map(taken), [1, 0]);
}

#[test]
fn the_bridges_own_addresses_are_not_forwarded() {
    let (_bridge, [a, b]) = open([guest(1), guest(2)]);
    b.set_filter(Some(all()));
    send(&a, MacAddress([1, 0x80, 0xc2, 0, 0, 0]), own(1));
    send(&a, MacAddress([1, 0x80, 0xc2, 0, 0, 0xf]), own(1));
    assert_eq!((taken(&b), a.counters().dropped_reserved), (0, 2));
    send(&a, MacAddress([1, 0x80, 0xc2, 0, 0, 0x10]), own(1));
    assert_eq!(taken(&b), 1);
}

#[test]
fn nobody_sends_in_anothers_name() {
    let (_bridge, [a, b, c]) = open([guest(1), guest(2), uplink()]);
    send(&a, MacAddress::BROADCAST, own(2));
    send(&c, MacAddress::BROADCAST, own(2));
    assert_eq!([&a, &b, &c].map(taken), [0, 0, 0]);
    assert_eq!((a.counters().refused, c.counters().refused), (1, 1));
}

#[test]
fn what_no_station_sends_is_refused() {
    let (_bridge, [a, b]) = open([guest(1), guest(2)]);
    send(&a, own(2), MacAddress::BROADCAST);
    send(&a, own(2), MacAddress([0; 6]));
    a.send(&frame(&a, own(2), own(1), WIRE_BYTES_MAX + 1), NOW);
    a.send(&a.blank(13).unwrap().finish(Offload::default()), NOW);
    assert_eq!((taken(&b), a.counters().refused), (0, 4));
}

#[test]
fn a_frame_that_is_to_be_cut_may_be_long() {
    let (_bridge, [a, b]) = open([guest(1), guest(2)]);
    let segmentation =
        Some(Segmentation { protocol: SegmentedProtocol::Tcp4, segment_bytes: 1, header_bytes: 1 });
    let mut blank = a.blank(FRAME_BYTES_MAX).unwrap();
    blank.bytes_mut()[..12].copy_from_slice(&[own(2).0, own(1).0].concat());
    a.send(&blank.finish(Offload { segmentation, ..Offload::default() }), NOW);
    assert_eq!((b.waiting(), b.counters().bytes_out), (1, FRAME_BYTES_MAX as u64));
}

#[test]
fn a_pinned_port_has_one_station() {
    let (_bridge, [a, b]) = open([PortSettings { is_pinned: true, ..guest(1) }, guest(2)]);
    a.set_filter(Some(all()));
    send(&a, own(2), STRANGER);
    assert_eq!((taken(&b), a.counters().refused), (0, 1));
    send(&a, own(2), own(1));
    assert_eq!(taken(&b), 1);
    send(&b, STRANGER, own(2));
    assert_eq!(taken(&a), 0);
    send(&b, own(1), own(2));
    assert_eq!(taken(&a), 1);
}

#[test]
fn isolated_ports_meet_only_others() {
    let isolated = |number| PortSettings { is_isolated: true, ..guest(number) };
    let (_bridge, [a, b, c]) = open([isolated(1), isolated(2), uplink()]);
    b.set_filter(Some(all()));
    send(&a, own(2), own(1));
    send(&a, MacAddress::BROADCAST, own(1));
    send(&a, STRANGER, own(1));
    assert_eq!(([&a, &b, &c].map(taken), a.counters().dropped_isolated), ([0, 0, 2], 1));
    send(&c, own(2), STRANGER);
    send(&b, STRANGER, own(2));
    assert_eq!([&a, &b, &c].map(taken), [0, 1, 1]);
}

#[test]
fn a_closed_port_gets_nothing_and_keeps_nothing() {
    let (bridge, [a, b]) = open([guest(1), guest(2)]);
    send(&a, own(2), own(1));
    b.set_filter(None);
    assert_eq!((b.waiting(), bridge.borrow().pool().in_use()), (0, 0));
    send(&a, own(2), own(1));
    assert_eq!((b.waiting(), b.counters().dropped_filtered), (0, 1));
}

#[test]
fn a_port_gets_only_what_it_wants() {
    let (_bridge, [a, b]) = open([guest(1), guest(2)]);
    let mut vlans = Box::new([0; VLANS / 64]);
    vlans[1] = 1 << 6;
    b.set_filter(Some(Filter { vlans: Some(vlans), ..Filter::default() }));
    let tagged = |kind: [u8; 2], tag: [u8; 2]| {
        let mut blank = a.blank(60).unwrap();
        let header = [&own(2).0[..], &own(1).0, &kind, &tag].concat();
        blank.bytes_mut()[..16].copy_from_slice(&header);
        a.send(&blank.finish(Offload::default()), NOW);
        taken(&b)
    };
    assert_eq!(tagged([0x81, 0], [0xe0, 70]), 1);
    assert_eq!(tagged([0x81, 0], [0xe0, 71]), 0);
    // Urgent, in no VLAN; IPv4.
    assert_eq!(tagged([0x81, 0], [0xe0, 0]), 1);
    assert_eq!(tagged([8, 0], [0xe0, 71]), 1);
    assert_eq!(b.counters().dropped_filtered, 1);
}

#[test]
fn a_port_whose_guest_takes_nothing_loses_what_comes_and_harms_nobody() {
    let (bridge, [a, b, c]) = open([guest(1), guest(2), guest(3)]);
    (0..1000).for_each(|_| send(&a, own(2), own(1)));
    assert_eq!((b.waiting(), b.counters().dropped_full, a.counters().dropped_no_buffer), (72, 928, 0));
    (0..10).for_each(|_| send(&a, own(3), own(1)));
    assert_eq!((c.counters().dropped_full, taken(&c)), (0, 10));
    drop(b);
    assert_eq!((bridge.borrow().pool().in_use(), bridge.borrow().borrowed), (0, Borrowed::default()));
}

#[test]
fn whatever_others_hold_a_port_has_its_own_places() {
    let (bridge, ports) = open([1, 2, 3, 4, 5, 6].map(guest));
    let [a, b, c, d, e, f] = &ports;
    let flood = |to: u8, bytes| {
        for _ in 0..200 {
            let mut blank = a.blank(bytes).unwrap();
            blank.bytes_mut()[..12].copy_from_slice(&[own(to).0, own(1).0].concat());
            let segmentation =
                Some(Segmentation { protocol: SegmentedProtocol::Tcp4, segment_bytes: 1, header_bytes: 1 });
            a.send(&blank.finish(Offload { segmentation, ..Offload::default() }), NOW);
        }
    };
    let fill = |to, port: &Port| {
        flood(to, 60_000);
        let in_hand = port.receive().unwrap();
        flood(to, 60_000);
        flood(to, 60);
        in_hand
    };
    let in_hand = [(2, b), (3, c), (4, d), (5, e)].map(|(to, port)| fill(to, port));
    flood(6, 60);
    flood(6, 60_000);
    assert!(f.waiting() >= 17, "{}", f.waiting());
    assert!(bridge.borrow().pool().bytes() <= 3 << 19);
    assert_eq!((in_hand.len(), a.counters().dropped_no_buffer), (4, 0));
}

#[test]
fn a_storm_is_dropped_and_counted() {
    let (_bridge, [a, b, c]) = open([guest(1), guest(2), guest(3)]);
    (0..5000).for_each(|_| {
        send(&a, MacAddress::BROADCAST, own(1));
        let _ = (taken(&b), taken(&c));
    });
    assert_eq!((b.counters().frames_out, c.counters().frames_out), (2000, 2000));
    assert_eq!(a.counters().flood_limited, 3000);
    // What is for one, and what others send, is not touched.
    send(&a, own(2), own(1));
    send(&b, MacAddress::BROADCAST, own(2));
    assert_eq!([&a, &b, &c].map(taken), [1, 1, 1]);
}

#[test]
fn a_flooded_frame_is_in_memory_once() {
    let (bridge, [a, b, c]) = open([guest(1), guest(2), guest(3)]);
    send(&a, MacAddress::BROADCAST, own(1));
    assert_eq!((b.waiting(), c.waiting(), bridge.borrow().pool().in_use()), (1, 1, 1));
}

#[test]
fn a_port_that_is_gone_leaves_nothing() {
    let (bridge, [a, b]) = open([guest(1), guest(2)]);
    send(&b, own(1), STRANGER);
    assert_eq!(taken(&a), 1);
    drop(b);
    send(&a, own(2), own(1));
    let again = Bridge::add(&bridge, guest(2)).unwrap();
    again.set_filter(Some(all()));
    assert_eq!(again.waiting(), 0);
    send(&a, STRANGER, own(1));
    assert_eq!((taken(&again), again.counters().frames_out), (1, 1));
}

#[test]
fn the_pool_follows_the_ports() {
    let (bridge, [a, b]) = open([guest(1), guest(2)]);
    let blanks = |port: &Port| core::iter::from_fn(|| port.blank(60)).collect::<Vec<_>>().len();
    let with_two = blanks(&a);
    drop(b);
    assert_eq!((blanks(&a), with_two), (pool_limits(1).small, pool_limits(2).small));
    assert_eq!(bridge.borrow().pool().bytes(), pool_limits(1).small * 1536);
}

#[test]
fn an_address_is_had_once_and_only_by_a_station() {
    let (bridge, [_a]) = open([guest(1)]);
    let twice = Bridge::add(&bridge, guest(1)).err();
    assert_eq!(twice, Some(PortError::Duplicate(own(1), "dom1/net0".to_string())));
    let group = PortSettings { address: Some(MacAddress::BROADCAST), ..guest(2) };
    assert_eq!(Bridge::add(&bridge, group).err(), Some(PortError::NotAStation(MacAddress::BROADCAST)));
}

#[test]
fn ports_are_bounded_and_their_places_used_again() {
    let bridge = Bridge::new(3);
    let ports: Vec<_> = (0..32).map(|number| Bridge::add(&bridge, guest(number)).unwrap()).collect();
    assert_eq!(Bridge::add(&bridge, guest(99)).err(), Some(PortError::Full(PORTS_MAX)));
    drop(ports);
    assert!(Bridge::add(&bridge, guest(99)).is_ok());
}

#[test]
fn guests_are_asked_once_to_announce_themselves() {
    let (bridge, [a, c]) = open([guest(1), uplink()]);
    bridge.borrow_mut().announce();
    assert_eq!([&a, &a, &c].map(Port::take_announcement), [true, false, false]);
}

const GATEWAY: [u8; 4] = [10, 0, 0, 1];
const OUR_IP: [u8; 4] = [10, 0, 0, 5];
const GUEST_IP: [u8; 4] = [10, 0, 0, 7];

fn endpoint() -> PortSettings {
    PortSettings { kind: PortKind::Endpoint, ..guest(9) }
}

/// A frame with these bytes behind the addresses.
fn send_bytes(port: &Port, to: MacAddress, from: MacAddress, bytes: &[u8]) {
    let mut blank = port.blank(60).unwrap();
    blank.bytes_mut().fill(0);
    blank.bytes_mut()[..12].copy_from_slice(&[to.0, from.0].concat());
    blank.bytes_mut()[12..12 + bytes.len()].copy_from_slice(bytes);
    port.send(&blank.finish(Offload::default()), NOW);
}

/// ARP in the name of an address: a request is 1, a reply 2.
fn arp(operation: u8, sender: [u8; 4]) -> Vec<u8> {
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &own(1).0, &sender, &[0; 6], &OUR_IP].concat()
}

/// UDP to a port, behind so many words of options.
fn udp(source: [u8; 4], port: u16, options: u8) -> Vec<u8> {
    let mut bytes =
        [&[8, 0, 0x45 + options, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0][..], &source, &[255; 4]].concat();
    bytes.resize(bytes.len() + usize::from(options) * 4, 1);
    bytes.extend([0, 67]);
    bytes.extend(port.to_be_bytes());
    bytes
}

fn guard(port: &Port) {
    port.set_guard(Guard { own: Some(OUR_IP.into()), relied_on: Vec::from([GATEWAY.into()]) });
}

#[test]
fn no_guest_is_heard_as_one_on_whom_the_endpoint_relies() {
    let (_bridge, [a, b, c, endpoint]) = open([guest(1), guest(2), uplink(), endpoint()]);
    guard(&endpoint);
    let claims = [
        arp(1, GATEWAY),
        arp(2, GATEWAY),
        udp(GATEWAY, 53, 0),
        udp(GUEST_IP, 68, 0),
        udp([0; 4], 68, 0),
        udp(GUEST_IP, 68, 3),
    ];
    for (count, claim) in (1..).zip(&claims) {
        send_bytes(&a, own(9), own(1), claim);
        send_bytes(&a, MacAddress::BROADCAST, own(1), claim);
        assert_eq!([&b, &c, &endpoint].map(taken), [1, 1, 0], "{claim:?}");
        assert_eq!(a.counters().refused_claims, 2 * count);
        // From where they are they come.
        send_bytes(&c, own(9), STRANGER, claim);
        assert_eq!(taken(&endpoint), 1, "{claim:?}");
    }
    for honest in [arp(1, GUEST_IP), arp(2, GUEST_IP), udp(GUEST_IP, 53, 0), arp(1, [0; 4])] {
        send_bytes(&a, own(9), own(1), &honest);
        assert_eq!(taken(&endpoint), 1, "{honest:?}");
    }
    assert_eq!(a.counters().refused_claims, 2 * claims.len() as u64);
}

#[test]
fn without_an_uplink_servers_are_guests() {
    let (bridge, [a, endpoint]) = open([guest(1), endpoint()]);
    guard(&endpoint);
    for claim in [arp(2, GATEWAY), udp(GATEWAY, 53, 0), udp(GUEST_IP, 68, 0)] {
        send_bytes(&a, own(9), own(1), &claim);
        assert_eq!(taken(&endpoint), 1, "{claim:?}");
    }
    let uplink = Bridge::add(&bridge, uplink()).unwrap();
    send_bytes(&a, own(9), own(1), &arp(2, GATEWAY));
    assert_eq!(taken(&endpoint), 0);
    drop(uplink);
    send_bytes(&a, own(9), own(1), &arp(2, GATEWAY));
    assert_eq!(taken(&endpoint), 1);
}

#[test]
fn nothing_comes_to_the_endpoint_in_its_own_name() {
    let (_bridge, [a, c, endpoint]) = open([guest(1), uplink(), endpoint()]);
    guard(&endpoint);
    for claim in [arp(1, OUR_IP), udp(OUR_IP, 80, 0)] {
        send_bytes(&a, own(9), own(1), &claim);
        send_bytes(&c, own(9), STRANGER, &claim);
    }
    assert_eq!((taken(&endpoint), c.counters().refused_claims), (0, 2));
}

#[test]
fn no_guest_takes_the_place_of_a_station_outside() {
    let (_bridge, [a, b, c]) = open([guest(1), guest(2), uplink()]);
    send(&c, own(1), STRANGER);
    send(&a, MacAddress::BROADCAST, STRANGER);
    assert_eq!(a.counters().refused, 1);
    send(&b, STRANGER, own(2));
    assert_eq!([&a, &b, &c].map(taken), [1, 0, 1]);
}

const MS: u64 = 1_000_000;

/// Sends until the port is held, and says how many went.
fn send_until_held(port: &Port, to: MacAddress, from: MacAddress, now_ns: u64) -> usize {
    (0..1000).take_while(|_| port.send_or_wait(&frame(port, to, from, 60), now_ns)).count()
}

#[test]
fn a_sender_waits_for_who_takes_frames_and_none_is_lost() {
    let (bridge, [a, b]) = open([guest(1), guest(2)]);
    let mut now_ns = NOW;
    let mut sent = 0;
    for _ in 0..100 {
        sent += send_until_held(&a, own(2), own(1), now_ns);
        assert!(a.is_held(now_ns) && bridge.borrow().deadline_ns().is_some());
        now_ns += 5 * MS;
        assert!(a.is_held(now_ns));
        // Not at the first frame that is taken: then each would be waited for.
        assert!(b.receive().is_some());
        assert!(a.is_held(now_ns));
        taken(&b);
        assert!(!a.is_held(now_ns) && bridge.borrow().deadline_ns().is_none());
    }
    assert_eq!((b.counters().frames_out, a.counters().frames_in), (sent as u64, sent as u64));
    assert_eq!((b.counters().dropped_full, sent), (0, 7200));
}

#[test]
fn who_takes_nothing_holds_up_others_once() {
    let (bridge, [a, b, c]) = open([guest(1), guest(2), guest(3)]);
    send_until_held(&a, own(2), own(1), NOW);
    let end_ns = bridge.borrow().deadline_ns().unwrap();
    assert!((NOW + MS..=NOW + 10 * MS).contains(&end_ns));
    assert!(!bridge.borrow_mut().release(end_ns - 1) && a.is_held(end_ns - 1));
    assert!(bridge.borrow_mut().release(end_ns) && !a.is_held(end_ns));
    assert_eq!(bridge.borrow().deadline_ns(), None);
    for turn in 1..1000 {
        let now_ns = end_ns + turn * 100 * MS;
        assert!(a.send_or_wait(&frame(&a, own(2), own(1), 60), now_ns));
        assert!(c.send_or_wait(&frame(&c, own(2), own(3), 60), now_ns));
        assert!(a.send_or_wait(&frame(&a, own(3), own(1), 60), now_ns));
        assert_eq!(taken(&c), 1);
    }
    assert_eq!(b.counters().dropped_full, 2 * 999);
    // It takes some again: then others wait for it.
    taken(&b);
    let now_ns = end_ns + 1000 * 100 * MS;
    assert!(send_until_held(&a, own(2), own(1), now_ns) < 1000 && a.is_held(now_ns));
}

#[test]
fn who_takes_a_frame_now_and_then_slows_others_little() {
    let (bridge, [a, b]) = open([guest(1), guest(2)]);
    let (mut now_ns, mut waited_ns) = (NOW, 0);
    for _ in 0..1000 {
        send_until_held(&a, own(2), own(1), now_ns);
        if let Some(end_ns) = bridge.borrow().deadline_ns() {
            waited_ns += end_ns - now_ns;
            now_ns = end_ns;
        }
        assert!(!a.is_held(now_ns));
        assert!(b.receive().is_some());
        now_ns += MS;
    }
    assert!(waited_ns < 120 * MS, "{waited_ns}");
}

#[test]
fn nobody_waits_for_what_is_not_wanted_or_to_be_flooded() {
    let (bridge, [a, b, c]) = open([guest(1), guest(2), uplink()]);
    let goes = |port: &Port, to, from| {
        let count = (0..200).filter(|_| port.send_or_wait(&frame(port, to, from, 60), NOW)).count();
        assert_eq!((count, bridge.borrow().deadline_ns()), (200, None));
    };
    goes(&a, MacAddress::BROADCAST, own(1));
    goes(&a, STRANGER, own(1));
    assert!(b.counters().dropped_full > 0 && c.counters().dropped_full > 0);
    b.set_filter(None);
    goes(&a, own(2), own(1));
    // The uplink sends without waiting.
    b.set_filter(Some(Filter::default()));
    (0..200).for_each(|_| send(&c, own(2), STRANGER));
    assert_eq!(bridge.borrow().deadline_ns(), None);
}

#[test]
fn who_waits_goes_on_when_the_receiver_is_gone() {
    let (bridge, [a, b, c]) = open([guest(1), guest(2), guest(3)]);
    send_until_held(&a, own(2), own(1), NOW);
    drop(b);
    assert!(!a.is_held(NOW));
    send_until_held(&a, own(3), own(1), NOW);
    c.set_filter(None);
    assert!(!a.is_held(NOW));
    // Nor does one wait that is gone, or was reset.
    c.set_filter(Some(Filter::default()));
    send_until_held(&a, own(3), own(1), NOW);
    a.set_filter(None);
    assert!(!a.is_held(NOW) && bridge.borrow().deadline_ns().is_none());
    send_until_held(&a, own(3), own(1), NOW);
    drop(a);
    assert_eq!(bridge.borrow().deadline_ns(), None);
}

#[test]
fn a_pinned_port_keeps_its_address() {
    let (_bridge, [a]) = open([PortSettings { is_pinned: true, ..guest(1) }]);
    assert!(!a.set_address(STRANGER) && a.set_address(own(1)));
    assert_eq!(a.address(), Some(own(1)));
}

#[test]
fn an_address_that_was_taken_on_is_given_up_to_whose_it_is() {
    let (bridge, [a, b]) = open([guest(1), guest(2)]);
    assert!(a.set_address(own(3)) && !b.set_address(own(3)));
    // The first is still its own.
    assert!(!b.set_address(own(1)) && Bridge::add(&bridge, guest(1)).is_err());
    let c = Bridge::add(&bridge, guest(3)).unwrap();
    c.set_filter(Some(Filter::default()));
    assert_eq!(a.address(), Some(own(1)));
    send(&b, own(3), own(2));
    send(&b, own(1), own(2));
    assert_eq!([&a, &b, &c].map(taken), [1, 0, 1]);
    send(&a, own(2), own(3));
    assert_eq!((taken(&b), a.counters().refused), (0, 1));
}

#[test]
fn a_station_outside_that_was_silent_has_its_address_back_when_it_speaks() {
    let (_bridge, [a, b, c]) = open([guest(1), guest(2), uplink()]);
    assert!(a.set_address(STRANGER));
    send(&c, own(2), STRANGER);
    assert_eq!((a.address(), c.counters().refused, taken(&b)), (Some(own(1)), 0, 1));
    send(&b, STRANGER, own(2));
    assert_eq!([&a, &c].map(taken), [0, 1]);
    // An address that was given stays its port's.
    send(&c, own(2), own(1));
    assert_eq!((a.address(), c.counters().refused), (Some(own(1)), 1));
}

#[test]
fn who_waits_is_looked_at_even_if_the_receiver_has_just_taken_a_frame() {
    let (bridge, [a, b]) = open([guest(1), guest(2)]);
    send_until_held(&a, own(2), own(1), NOW);
    drop(b.receive());
    assert!(bridge.borrow().deadline_ns().is_some());
}
