//! The way of an access to its device and of a kick to its work, and what is left when a guest goes.

use super::*;
use crate::limits::ACCESSES_PER_TURN;
use crate::xen::event::Port;
use crate::xen::fake::{Call, Slot};

const CROWD: DomainId = DomainId(5);

#[test]
fn a_register_is_read_at_its_device() {
    let bed = Bed::with_disk();
    assert_eq!((bed.load(A, 0, BASE, 4), bed.load(A, 0, BASE + 8, 4)), (MAGIC, 2));
}

#[test]
fn two_devices_of_a_guest_are_told_apart_by_address() {
    let bed = Bed::with_disk();
    bed.attach(A, 1, BASE + DEVICE_BYTES, 16).unwrap();
    let capacities = [BASE, BASE + DEVICE_BYTES].map(|base| bed.load(A, 0, base + 0x100, 8));
    assert_eq!(capacities, [8, 16]);
}

#[test]
fn the_same_address_in_two_guests_is_two_devices() {
    let bed = Bed::with_disk();
    bed.attach(B, 0, BASE, 16).unwrap();
    assert_eq!((bed.load(A, 0, BASE + 0x100, 8), bed.load(B, 0, BASE + 0x100, 8)), (8, 16));
}

#[test]
fn every_vcpu_is_answered() {
    let bed = Bed::with_disk();
    assert!(bed.xen.load(A, 0, BASE, 4) && bed.xen.load(A, 1, BASE + 8, 4));
    bed.serve();
    assert_eq!(bed.xen.outcome(A, 0), Outcome::Answered(MAGIC));
    assert_eq!(bed.xen.outcome(A, 1), Outcome::Answered(2));
}

/// A bed with a third guest that has a disk and so many vCPUs, each of which loads from its first register.
fn with_crowd(vcpus: u32) -> Bed {
    let bed = Bed::with_disk();
    bed.xen.add_domain(CROWD, vcpus);
    bed.attach(CROWD, 0, BASE, 8).unwrap();
    assert!((0..vcpus as usize).all(|vcpu| bed.xen.load(CROWD, vcpu, BASE, 4)));
    bed
}

#[test]
fn vcpus_beyond_a_guests_turn_are_answered_in_the_next_one() {
    let bed = with_crowd(40);
    let mut waiting: Vec<usize> = (0..40).collect();
    for left in [40 - ACCESSES_PER_TURN, 40 - 2 * ACCESSES_PER_TURN, 0] {
        // Others have turns of their own.
        assert_eq!(bed.load(A, 0, BASE, 4), MAGIC);
        waiting.retain(|vcpu| bed.xen.outcome(CROWD, *vcpu) != Outcome::Answered(MAGIC));
        assert_eq!(waiting.len(), left);
    }
    assert!(!bed.table.borrow_mut().begin_turn(), "somebody waits still");
}

#[test]
fn vcpus_that_wait_for_a_turn_are_answered_though_their_device_goes() {
    let bed = with_crowd(20);
    bed.serve();
    bed.table.borrow_mut().find(CROWD).unwrap().detach(DeviceId::Disk(0));
    bed.serve();
    assert!((0..20).all(|vcpu| bed.xen.outcome(CROWD, vcpu) != Outcome::Waiting));
}

#[test]
fn a_claimed_address_without_a_device_is_answered() {
    let bed = Bed::with_disk();
    let hole = BASE + 2 * DEVICE_BYTES;
    let claim = |guest: &mut Guest| guest.server.change_range(RangeChange::Claim, hole, hole + 0x1ff);
    claim(bed.table.borrow_mut().find(A).unwrap()).unwrap();
    bed.store(A, 0, hole, 1);
    assert_eq!(bed.load(A, 0, hole, 4), 0);
}

#[test]
fn an_access_of_odd_width_is_answered() {
    let bed = Bed::with_disk();
    bed.xen.request(A, 0, 0, Slot { address: BASE, size: 3, state: 1 | 1 << 5, kind: 1, ..Slot::default() });
    bed.serve();
    let answer = bed.xen.slot(A, 0, 0);
    assert_eq!((answer.state & 0xf, answer.data), (3, 0));
}

#[test]
fn an_unknown_request_is_answered() {
    let bed = Bed::with_disk();
    bed.xen.request(A, 0, 1, Slot { state: 1, kind: 77, ..Slot::default() });
    bed.serve();
    assert_eq!(bed.xen.slot(A, 0, 1).state, 3);
}

#[test]
fn a_port_of_nobody_is_ignored() {
    let bed = Bed::with_disk();
    bed.table.borrow_mut().serve(Port(500));
    bed.table.borrow_mut().serve(Port(u32::MAX));
}

#[test]
fn a_kick_is_answered_before_its_work_is_done() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.publish(READ, 0);
    driver.kick();
    assert_eq!((driver.used(), bed.xen.edges(A, IRQ)), (0, 0));
    bed.work();
    assert_eq!((driver.used(), bed.xen.edges(A, IRQ)), (1, 1));
}

#[test]
fn what_was_written_is_read_back() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.write(DATA, &[0x5a; 512]);
    assert_eq!(driver.run(WRITE, 7), 0);
    driver.write(DATA, &[0; 512]);
    assert_eq!(driver.run(READ, 7), 0);
    assert_eq!(bed.xen.read_guest(A, DATA), [0x5a; 512]);
}

#[test]
fn a_sector_beyond_the_end_is_an_error_of_that_request() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    assert_eq!((driver.run(READ, 8), driver.run(READ, 7)), (1, 0));
}

#[test]
fn a_request_into_memory_that_is_not_there_is_an_error_of_that_request() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    bed.xen.balloon_out(A, DATA / 4096..DATA / 4096 + 1);
    assert_eq!((driver.run(READ, 0), driver.status() & 64), (1, 0));
}

#[test]
fn an_active_device_needs_no_kick() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.publish(READ, 0);
    driver.kick();
    let _ = bed.table.borrow_mut().work();
    assert!(driver.kicks_suppressed());
    driver.publish(READ, 1);
    let _ = bed.table.borrow_mut().work();
    assert_eq!(driver.used(), 2);
}

#[test]
fn a_settled_device_wants_kicks_again() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.run(READ, 0);
    assert!(!driver.kicks_suppressed());
    assert_eq!(driver.run(READ, 1), 0);
}

#[test]
fn a_request_that_came_just_before_settling_is_served() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.publish(READ, 0);
    driver.kick();
    let _ = bed.table.borrow_mut().work();
    driver.publish(READ, 1);
    assert!(!bed.table.borrow_mut().settle());
    assert_eq!(driver.used(), 2);
    assert!(bed.table.borrow_mut().settle());
}

#[test]
fn without_a_kick_there_is_no_work() {
    let bed = Bed::with_disk();
    assert_eq!(bed.table.borrow_mut().work(), Work::None);
    assert!(bed.table.borrow_mut().settle());
}

#[test]
fn pages_given_back_are_unmapped_but_for_the_rings() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.run(READ, 0);
    let before = bed.xen.references(A);
    bed.xen.invalidate(A, 1);
    bed.serve();
    assert!(matches!(bed.xen.outcome(A, 1), Outcome::Answered(_)));
    bed.table.borrow().pager().borrow_mut().drop_stale();
    // Header, data and status byte went; three rings and the ioreq page stay.
    assert_eq!((before, bed.xen.references(A)), (7, 4));
    assert_eq!(driver.run(READ, 0), 0);
}

#[test]
fn a_guest_whose_rings_are_nowhere_breaks_only_its_own_device() {
    let bed = Bed::with_disk();
    bed.attach(B, 0, BASE, 8).unwrap();
    let bad = Driver::new(&bed, A, BASE);
    bad.start(0x1000);
    assert_eq!(bad.status() & 64, 64);
    assert_eq!(Driver::started(&bed, B, BASE).run(READ, 0), 0);
}

#[test]
fn requests_go_to_their_own_guests_memory() {
    let bed = Bed::with_disk();
    bed.attach(B, 0, BASE, 8).unwrap();
    let (mut of_a, mut of_b) = (Driver::started(&bed, A, BASE), Driver::started(&bed, B, BASE));
    of_a.write(DATA, &[1; 512]);
    of_b.write(DATA, &[2; 512]);
    assert_eq!((of_a.run(WRITE, 0), of_b.run(WRITE, 0), of_a.run(READ, 0)), (0, 0, 0));
    assert_eq!((bed.xen.read_guest(A, DATA), bed.xen.read_guest(B, DATA)), ([1; 512], [2; 512]));
    assert_eq!((bed.xen.edges(A, IRQ), bed.xen.edges(B, IRQ)), (2, 1));
}

#[test]
fn a_second_device_at_the_same_address_is_refused_and_the_first_lives() {
    let bed = Bed::with_disk();
    let error = bed.attach(A, 1, BASE + 0x100, 16).unwrap_err();
    assert_eq!((error.errno.0, bed.load(A, 0, BASE + 0x100, 8)), (17, 8));
}

#[test]
fn a_detached_device_takes_its_range_along_and_leaves_the_other() {
    let bed = Bed::with_disk();
    bed.attach(A, 1, BASE + DEVICE_BYTES, 16).unwrap();
    bed.table.borrow_mut().find(A).unwrap().detach(DeviceId::Disk(0));
    assert!(!bed.xen.load(A, 0, BASE, 4));
    assert_eq!(bed.load(A, 0, BASE + DEVICE_BYTES, 4), MAGIC);
}

#[test]
fn a_removed_guest_leaves_nothing() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.run(READ, 0);
    bed.table.borrow_mut().remove(A);
    assert_eq!(bed.left(A), (0, 0, 0, 0));
    bed.xen.destroy(A);
    assert!(!bed.xen.exists(A));
}

#[test]
fn a_destroyed_guest_goes_when_it_is_removed() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.run(READ, 0);
    bed.xen.destroy(A);
    assert!(bed.xen.exists(A));
    bed.table.borrow_mut().remove(A);
    assert!(!bed.xen.exists(A));
    assert_eq!(bed.left(A), (0, 0, 0, 0));
}

#[test]
fn a_guest_with_the_number_of_one_that_is_gone_gets_its_own_memory() {
    let bed = Bed::with_disk();
    let mut gone = Driver::started(&bed, A, BASE);
    gone.write(DATA, &[1; 512]);
    gone.run(WRITE, 0);
    bed.xen.destroy(A);
    bed.table.borrow_mut().remove(A);
    assert!(!bed.xen.exists(A));
    bed.xen.add_domain(A, 2);
    bed.xen.populate(A, RAM / 4096..RAM / 4096 + RAM_PAGES);
    bed.attach(A, 0, BASE, 8).unwrap();
    let mut next = Driver::started(&bed, A, BASE);
    next.write(DATA, &[2; 512]);
    assert_eq!(next.run(WRITE, 0), 0);
    next.write(DATA, &[0; 512]);
    assert_eq!(next.run(READ, 0), 0);
    assert_eq!(bed.xen.read_guest(A, DATA), [2; 512]);
}

#[test]
fn removing_a_guest_leaves_the_other_served() {
    let bed = Bed::with_disk();
    bed.attach(B, 0, BASE, 8).unwrap();
    let mut driver = Driver::started(&bed, B, BASE);
    bed.table.borrow_mut().remove(A);
    assert_eq!((driver.run(READ, 0), bed.xen.leaks().len()), (0, 0));
}

#[test]
fn a_guest_in_the_middle_of_work_can_be_removed() {
    let bed = Bed::with_disk();
    let mut driver = Driver::started(&bed, A, BASE);
    driver.publish(READ, 0);
    driver.kick();
    bed.table.borrow_mut().remove(A);
    bed.work();
    assert_eq!((bed.left(A), driver.used()), ((0, 0, 0, 0), 0));
}

#[test]
fn ports_of_a_removed_guest_serve_the_next_one() {
    let bed = Bed::with_disk();
    bed.table.borrow_mut().remove(A);
    bed.attach(B, 0, BASE, 16).unwrap();
    assert_eq!((bed.load(B, 1, BASE + 0x100, 8), bed.xen.open_ports()), (16, 2));
    assert_eq!(bed.table.borrow().ports().count(), 2);
}

#[test]
fn removing_who_is_not_served_does_nothing() {
    let bed = Bed::with_disk();
    bed.table.borrow_mut().remove(B);
    assert_eq!(bed.table.borrow().len(), 1);
    assert_eq!(bed.load(A, 0, BASE, 4), MAGIC);
}

#[test]
fn the_highest_port_covers_all_vcpus() {
    let bed = Bed::with_disk();
    bed.attach(B, 0, BASE, 8).unwrap();
    let table = bed.table.borrow();
    assert_eq!(table.ports().count(), 4);
    assert!(table.ports().all(|port| port <= table.highest_port()));
}

#[test]
fn a_guest_that_cannot_be_served_is_not_in_the_table() {
    let bed = Bed::new();
    bed.xen.refuse(Call::BindPort, 1, crate::xen::hypercall::Errno::EPERM);
    assert!(bed.attach(A, 0, BASE, 8).is_err());
    assert_eq!((bed.table.borrow().len(), bed.left(A)), (0, (0, 0, 0, 0)));
}

#[test]
fn a_removed_guest_has_no_ports_to_wait_for() {
    let bed = Bed::with_disk();
    bed.attach(B, 0, BASE, 8).unwrap();
    bed.table.borrow_mut().remove(A);
    assert_eq!(bed.table.borrow().ports().count(), 2);
}
