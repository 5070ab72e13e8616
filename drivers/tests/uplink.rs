//! The uplink between a NIC and the bridge: what comes in, what goes out, and what is done when either cannot go on.

use drivers::fake::nic::FakeNic;
use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, Port, PortCounters, PortKind, PortSettings, SharedBridge};
use drivers::net::filter::Filter;
use drivers::net::offload::Offload;
use drivers::net::uplink::Uplink;

#[path = "common/clock.rs"]
mod clock;

const GUEST: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);
const OUTSIDE: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

struct Bed {
    nic: FakeNic,
    uplink: Uplink,
    guest: Port,
    bridge: SharedBridge,
}

fn port(bridge: &SharedBridge, kind: PortKind, address: Option<MacAddress>) -> Port {
    let settings = PortSettings { name: "port".into(), kind, address, is_pinned: false, is_isolated: false };
    Bridge::add(bridge, settings).unwrap()
}

impl Bed {
    fn new(room: usize) -> Self {
        let bridge = Bridge::new(1);
        let guest = port(&bridge, PortKind::Guest, Some(GUEST));
        guest.set_filter(Some(Filter::default()));
        let nic = FakeNic::new(room);
        let port = port(&bridge, PortKind::Uplink, None);
        let uplink = Uplink::new("uplink".into(), Box::new(nic.clone()), port, bridge.clone());
        Self { nic, uplink, guest, bridge }
    }

    /// Of the uplink's port.
    fn counters(&self) -> PortCounters {
        let mut found = PortCounters::default();
        self.bridge.borrow().for_each_port(|settings, counters| {
            if settings.kind == PortKind::Uplink {
                found = *counters;
            }
        });
        found
    }

    fn send(&self, bytes: &[u8]) {
        let mut blank = self.guest.blank(bytes.len()).unwrap();
        blank.bytes_mut().copy_from_slice(bytes);
        self.guest.send(&blank.finish(Offload::default()), 0);
    }
}

/// A frame of so many bytes.
fn frame(destination: MacAddress, source: MacAddress, length: usize) -> Vec<u8> {
    let mut frame = [&destination.0[..], &source.0, &[0x88, 0xb5]].concat();
    frame.resize(length, 7);
    frame
}

#[test]
fn what_comes_from_outside_reaches_the_guest_as_it_was() {
    let mut bed = Bed::new(4);
    let sent = frame(GUEST, OUTSIDE, 1514);
    bed.nic.put(&sent);
    assert!(bed.uplink.poll(0));
    assert_eq!(bed.guest.receive().unwrap().bytes(), sent);
    assert!(!bed.uplink.poll(0));
    assert_eq!((bed.counters().frames_in, bed.counters().bytes_in), (1, 1514));
}

#[test]
fn what_a_guest_sends_reaches_the_outside() {
    let mut bed = Bed::new(4);
    let sent = frame(OUTSIDE, GUEST, 60);
    bed.send(&sent);
    assert!(bed.uplink.poll(0));
    assert_eq!(bed.nic.take_sent(), [sent]);
}

#[test]
fn what_the_nic_has_no_room_for_waits_in_order() {
    let mut bed = Bed::new(1);
    let frames: Vec<_> = (60..63).map(|length| frame(OUTSIDE, GUEST, length)).collect();
    frames.iter().for_each(|frame| bed.send(frame));
    bed.uplink.poll(0);
    assert!(bed.uplink.has_backlog());
    // Nothing to do before the NIC has sent something: that is what it is asked to tell.
    assert!(!bed.uplink.settle());
    assert_eq!(bed.nic.wanted(), (true, true));
    bed.nic.set_room(8);
    assert!(bed.uplink.poll(0));
    assert_eq!(bed.nic.take_sent(), frames);
    assert!(!bed.uplink.has_backlog());
}

#[test]
fn what_came_since_the_last_turn_keeps_us_awake() {
    let mut bed = Bed::new(4);
    assert!(!bed.uplink.settle());
    bed.send(&frame(OUTSIDE, GUEST, 60));
    assert!(bed.uplink.settle());
    bed.uplink.poll(0);
    bed.nic.put(&frame(GUEST, OUTSIDE, 60));
    assert!(bed.uplink.settle());
}

#[test]
fn frames_that_are_too_large_or_none_are_counted_and_lost() {
    let mut bed = Bed::new(4);
    bed.nic.put(&frame(GUEST, OUTSIDE, 9000));
    bed.uplink.poll(0);
    assert!(bed.guest.receive().is_none());
    assert_eq!(bed.counters().refused, 1);
    bed.send(&frame(OUTSIDE, GUEST, 9000));
    bed.uplink.poll(0);
    // The bridge does not take it.
    assert_eq!((bed.nic.take_sent().len(), bed.guest.counters().refused), (0, 1));
}

#[test]
fn a_turn_is_bounded() {
    let mut bed = Bed::new(4);
    (0..1000).for_each(|_| bed.nic.put(&frame(OUTSIDE, OUTSIDE, 60)));
    bed.uplink.poll(0);
    assert!(bed.counters().frames_in < 200);
}

#[test]
fn a_broken_nic_takes_no_frames_and_keeps_none() {
    let mut bed = Bed::new(4);
    bed.nic.break_down();
    assert!(!bed.uplink.poll(0));
    (0..100).for_each(|_| bed.send(&frame(OUTSIDE, GUEST, 60)));
    assert!(!bed.uplink.poll(0));
    assert!(!bed.uplink.settle() && !bed.uplink.is_watched());
}

#[test]
fn a_nic_that_breaks_while_frames_wait_for_it_is_watched_no_more() {
    let mut bed = Bed::new(1);
    (0..2).for_each(|_| bed.send(&frame(OUTSIDE, GUEST, 60)));
    bed.uplink.poll(0);
    assert!(bed.uplink.has_backlog());
    bed.nic.break_down();
    bed.uplink.interrupt();
    bed.uplink.poll(0);
    assert!(!bed.uplink.is_watched());
}

#[test]
fn guests_announce_themselves_when_the_link_comes_back() {
    let mut bed = Bed::new(4);
    bed.nic.set_link(false);
    bed.uplink.interrupt();
    assert!(!bed.guest.take_announcement());
    bed.nic.set_link(true);
    bed.uplink.interrupt();
    assert!(bed.guest.take_announcement() && !bed.guest.take_announcement());
}

#[test]
fn it_is_watched_for_a_while_after_traffic() {
    const SECOND: u64 = 1_000_000_000;
    let mut bed = Bed::new(4);
    bed.uplink.poll(SECOND);
    assert!(!bed.uplink.is_watched());
    bed.nic.put(&frame(GUEST, OUTSIDE, 60));
    bed.uplink.poll(2 * SECOND);
    assert!(bed.uplink.is_watched());
    bed.uplink.poll(3 * SECOND - 1);
    assert!(bed.uplink.is_watched());
    bed.uplink.poll(3 * SECOND);
    assert!(!bed.uplink.is_watched());
    // A frame whose interrupt was lost is found by a look.
    bed.send(&frame(OUTSIDE, GUEST, 60));
    bed.uplink.poll(4 * SECOND);
    bed.nic.put(&frame(GUEST, OUTSIDE, 60));
    assert!(bed.uplink.is_watched() && bed.uplink.poll(4 * SECOND + SECOND / 10));
}
