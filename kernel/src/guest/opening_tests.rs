//! Volumes that take long to open: nobody else waits for them, and whatever xenstore says meanwhile holds.

use alloc::format;

use drivers::connection::ConnectionState;

use super::plane::{DISK, Disk, Plane};
use super::*;
use crate::devices::{Device, leave};
use crate::endpoint::bed::Bed as EndpointBed;
use crate::xen::store::tests::fake::HOME;

const SLOW: Disk = Disk { target: "nbd:10.0.0.9/disk", ..DISK };
const OTHER: Disk = Disk { guest: B, ..DISK };
/// NBD_CMD_DISC, after the magic number of a request and its flags.
const GOODBYE: [u8; 8] = [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 2];

/// A domain in which the slow disk is being opened.
fn opening() -> Plane {
    let plane = SLOW.added();
    plane.pass(3);
    assert_eq!((SLOW.state(&plane).as_deref(), plane.server.connections()), (Some("1"), 1));
    plane
}

fn accept(plane: &Plane) {
    plane.server.state.set(ConnectionState::Open);
    plane.pass(5);
}

#[test]
fn a_slow_disk_is_served_when_its_server_is_there() {
    let plane = opening();
    accept(&plane);
    assert!(SLOW.is_served(&plane));
    assert_eq!(plane.bed.load(A, 0, BASE + 0x100, 8), 32);
}

#[test]
fn others_come_and_go_while_a_disk_is_opened() {
    let plane = opening();
    OTHER.add(&plane);
    plane.settle();
    assert!(OTHER.is_served(&plane));
    plane.write(&OTHER.node("online"), "0");
    assert_eq!((plane.value(&OTHER.path()), plane.bed.left(B)), (None, (0, 0, 0, 0)));
    let second = Disk { index: 1, ..DISK };
    second.add(&plane);
    plane.settle();
    assert!(second.is_served(&plane));
    accept(&plane);
    assert!(SLOW.is_served(&plane) && second.is_served(&plane));
}

#[test]
fn two_slow_disks_are_opened_at_the_same_time() {
    let plane = opening();
    let other = Disk { guest: B, target: "nbd:10.0.0.9/other", ..DISK };
    other.add(&plane);
    plane.pass(3);
    assert_eq!(plane.server.connections(), 2);
    accept(&plane);
    assert!(SLOW.is_served(&plane) && other.is_served(&plane));
}

#[test]
fn a_server_that_never_comes_is_a_refusal() {
    let plane = opening();
    plane.pass(8100);
    let reason = SLOW.error(&plane).unwrap();
    assert!(reason.starts_with("target 'nbd:10.0.0.9/disk': the server cannot be reached"), "{reason}");
    assert_eq!(plane.server.connections(), 0);
}

#[test]
fn a_disk_that_goes_is_opened_no_further() {
    for end in ["offline", "closing", "removed", "unseen"] {
        let plane = opening();
        match end {
            "offline" => plane.write(&SLOW.node("online"), "0"),
            "closing" => plane.write(&SLOW.node("state"), "5"),
            "removed" => plane.store.borrow_mut().remove(&format!("{HOME}{}", SLOW.path())),
            _ => {
                let noise =
                    |n| plane.store.borrow_mut().write(&format!("{HOME}backend/vif/{n}/0/state"), "1");
                (0..300).for_each(noise);
                plane.store.borrow_mut().remove(&format!("{HOME}{}", SLOW.path()));
            }
        }
        plane.settle();
        assert_eq!((plane.server.connections(), plane.value(&SLOW.path())), (0, None), "{end}");
        accept(&plane);
        assert_eq!((plane.bed.left(A), plane.value(&SLOW.path())), ((0, 0, 0, 0), None), "{end}");
    }
}

#[test]
fn a_disk_that_becomes_another_meanwhile_is_the_other() {
    let plane = opening();
    plane.store.borrow_mut().remove(&format!("{HOME}{}", SLOW.path()));
    DISK.add(&plane);
    plane.settle();
    assert!(DISK.is_served(&plane) && plane.server.connections() == 0);
}

/// The toolstack was as quick as the server: what was opened is not what is asked for any more.
#[test]
fn what_xenstore_says_last_counts() {
    let plane = opening();
    plane.server.state.set(ConnectionState::Open);
    plane.exports.poll(20_000_000);
    plane.exports.poll(21_000_000);
    let smaller = Disk { target: "ram:8K", ..DISK };
    smaller.add(&plane);
    plane.settle();
    assert!(smaller.is_served(&plane));
    assert_eq!(plane.bed.load(A, 0, BASE + 0x100, 8), 16);
    plane.pass(3);
    assert_eq!(plane.server.connections(), 0);
}

#[test]
fn events_meanwhile_do_not_open_it_again() {
    let plane = opening();
    for _ in 0..5 {
        plane.write(&SLOW.node("state"), "1");
        plane.pass(2);
    }
    assert_eq!(plane.server.connections(), 1);
    accept(&plane);
    assert!(SLOW.is_served(&plane));
}

#[test]
fn a_shutdown_does_not_wait_for_an_opening() {
    let plane = opening();
    plane.write("control/shutdown", "poweroff");
    assert!(plane.result().is_some());
    assert_eq!(plane.server.connections(), 0);
}

#[test]
fn a_server_hears_that_this_domain_ends() {
    let plane = opening();
    accept(&plane);
    plane.write("control/shutdown", "poweroff");
    let heard = plane.server.heard.borrow().len();
    plane.bed.table.borrow_mut().clear();
    let mut turns = 0;
    leave(&[&plane.exports as &dyn Device], || {
        turns += 1;
        turns * 1_000_000
    });
    assert_eq!(plane.server.heard.borrow()[heard..][..8], GOODBYE);
    assert!(plane.server.connections() == 0 && turns < 10, "{turns} turns");
}

#[test]
fn our_address_is_shown() {
    let endpoint = EndpointBed::new("10.0.0.5/24");
    let plane = Plane::with_endpoint(Vec::new(), Some(endpoint.endpoint.clone()));
    plane.settle();
    assert_eq!(plane.value("data/ip").as_deref(), Some("10.0.0.5"));
    endpoint.endpoint.borrow_mut().lose_address();
    plane.settle();
    assert_eq!(plane.value("data/ip"), None);
}
