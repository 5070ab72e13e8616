//! Pending bits as Xen sets them, and ports that close themselves.

use alloc::vec::Vec;

use super::*;
use crate::mm::singles::{SinglePage, SinglePages};
use crate::xen::dm;
use crate::xen::fake::{Call, FakeXen};
use crate::xen::hypercall::Errno;

const GUEST: DomainId = DomainId(3);
const ALL: Port = Port(4095);

/// The pending bits of a fresh domain, and what keeps them mapped.
fn pending(xen: &FakeXen) -> (PendingEvents, SinglePage) {
    let page = SinglePages::map_shared_info(&xen.single_pages()).unwrap();
    let shared = NonNull::new(core::ptr::with_exposed_provenance_mut(page.address())).unwrap();
    // SAFETY: mapped just now; the page is handed out together with its user.
    (unsafe { PendingEvents::new(shared) }, page)
}

fn take(events: &PendingEvents, highest: Port) -> Vec<u32> {
    let mut ports = Vec::new();
    events.take(highest, |port| ports.push(port.0));
    ports
}

#[test]
fn ports_of_all_words_are_taken_lowest_first() {
    let xen = FakeXen::new();
    let (events, _page) = pending(&xen);
    [4095, 64, 1, 63].into_iter().for_each(|port| xen.raise(Port(port)));
    assert!(events.any(ALL));
    assert_eq!(take(&events, ALL), [1, 63, 64, 4095]);
}

#[test]
fn words_beyond_the_highest_port_are_left_alone() {
    let xen = FakeXen::new();
    let (events, _page) = pending(&xen);
    xen.raise(Port(64));
    assert!(!events.any(Port(63)) && events.any(Port(64)));
    assert_eq!((take(&events, Port(63)), take(&events, Port(64))), (Vec::new(), Vec::from([64])));
}

#[test]
fn a_port_that_cannot_be_stands_for_all() {
    let xen = FakeXen::new();
    let (events, _page) = pending(&xen);
    xen.raise(ALL);
    assert_eq!(take(&events, Port(u32::MAX)), [4095]);
}

#[test]
fn an_event_is_taken_once() {
    let xen = FakeXen::new();
    let (events, _page) = pending(&xen);
    xen.raise(Port(5));
    assert_eq!(
        (take(&events, ALL), events.any(ALL), take(&events, ALL)),
        (Vec::from([5]), false, Vec::new())
    );
}

#[test]
fn an_event_that_comes_while_others_are_handled_is_not_lost() {
    let xen = FakeXen::new();
    let (events, _page) = pending(&xen);
    xen.raise(Port(5));
    events.take(ALL, |port| xen.raise(port));
    assert!(events.any(ALL));
    assert_eq!(take(&events, ALL), [5]);
}

#[test]
fn a_dropped_port_is_closed_and_may_be_bound_again() {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    dm::create_ioreq_server(GUEST).unwrap();
    let bound = BoundPort::bind(GUEST, 1).unwrap();
    assert_eq!(BoundPort::bind(GUEST, 1).unwrap_err().errno, Errno::EINVAL);
    drop(bound);
    assert_eq!(xen.open_ports(), 0);
    assert!(BoundPort::bind(GUEST, 1).is_ok());
}

#[test]
fn sending_to_a_port_that_is_not_open_is_no_error() {
    let xen = FakeXen::new();
    send(Port(77));
    assert_eq!(xen.calls(Call::Send), 1);
}

#[test]
fn open_ports_are_those_that_are_not_closed() {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    dm::create_ioreq_server(GUEST).unwrap();
    let _made_and_closed = own_domain().unwrap();
    assert_eq!(open_ports(), 0);
    let bound = BoundPort::bind(GUEST, 1).unwrap();
    assert_eq!((open_ports(), xen.open_ports()), (1, 1));
    drop(bound);
    assert_eq!(open_ports(), 0);
}

#[test]
fn ports_are_told_with_what_they_are_bound_to() {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    let server = crate::xen::ioreq::IoreqServer::new(GUEST, &xen.single_pages()).unwrap();
    let port = server.ports().next().unwrap();
    let remote = xen.slot(GUEST, 0, 0).event_port;
    assert_eq!(bound_ports().collect::<Vec<_>>(), [(port, GUEST, remote)]);
    // Of one that is closed we are told nothing.
    assert_eq!(status(Port(port.0 + 1)).err().map(|error| error.errno), Some(Errno::EACCES));
    xen.destroy(GUEST);
    assert!(bound_ports().map(|(port, _, remote)| (port, remote)).eq([(port, 0)]));
}
