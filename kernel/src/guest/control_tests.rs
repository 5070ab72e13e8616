//! The life of disks in xenstore: they appear, are served, and go away, as libxl writes it.

use alloc::format;
use alloc::string::ToString;

use super::plane::{DISK, Disk, INITRD_SECTORS, Plane};
use super::*;
use crate::restart::area::tests::area;
use crate::xen::sched::ShutdownReason;
use crate::xen::store::StoreError;
use crate::xen::store::tests::fake::HOME;

const OTHER: Disk = Disk { guest: B, ..DISK };
const SECOND: Disk = Disk { index: 1, target: "ram:8K", ..DISK };

fn other_and_second(plane: &Plane) {
    OTHER.add(plane);
    SECOND.add(plane);
    plane.settle();
}

#[test]
fn a_domain_that_is_ready_says_so() {
    let plane = Plane::new();
    assert_eq!(plane.value("data/ready").as_deref(), Some("1"));
    assert_eq!(plane.value("control/feature-poweroff").as_deref(), Some("1"));
    assert_eq!((plane.value("data/error"), plane.result()), (None, None));
}

/// A domain in whose earlier life [`DISK`] was attached, as the handover area has it.
fn with_held_disk() -> Plane {
    let plane = Plane::stopped(Vec::new());
    let id = DeviceId::Disk(51712);
    let place = Place { domain: A, id, base: DISK.base(), irq: IRQ, is_granted: false };
    let entry = area().occupy(&place).unwrap();
    let mut table = plane.bed.table.borrow_mut();
    let guest = table.find_or_add(A).unwrap();
    guest.server.change_range(RangeChange::Claim, place.base, place.base + DEVICE_BYTES - 1).unwrap();
    guest.held.push(entry);
    drop(table);
    DISK.add(&plane);
    plane
}

#[test]
fn a_disk_of_an_earlier_life_that_was_not_answered_is_answered() {
    let plane = with_held_disk();
    assert_eq!(DISK.state(&plane).as_deref(), Some("1"));
    plane.settle();
    assert!(DISK.is_served(&plane));
}

#[test]
fn a_disk_of_an_earlier_life_is_served_again() {
    let plane = with_held_disk();
    plane.store.borrow_mut().write(&format!("{HOME}{}", DISK.node("state")), "2");
    plane.settle();
    assert!(DISK.is_served(&plane));
}

#[test]
fn a_question_is_answered_and_taken_away() {
    let plane = DISK.added();
    // To hang is not allowed by the command line.
    for letter in ["m", "?", "h", "w", "m"] {
        plane.store.borrow_mut().write(&format!("{HOME}control/sysrq"), letter);
        plane.settle();
        assert_eq!(plane.value("control/sysrq").as_deref(), Some(""));
    }
    assert!(DISK.is_served(&plane));
}

#[test]
fn complaints_about_the_command_line_are_shown() {
    let plane = Plane::stopped(Vec::from(["one".to_string(), "two".to_string()]));
    plane.settle();
    assert_eq!(plane.value("data/error").as_deref(), Some("one; two"));
}

#[test]
fn a_disk_is_served_before_its_state_says_so() {
    let plane = Plane::new();
    plane.watch(&DISK.node("state"));
    DISK.add(&plane);
    plane.settle();
    assert_eq!(*plane.history.borrow(), [Some("1".to_string()), Some("2".to_string())]);
    assert!(DISK.is_served(&plane));
    assert_eq!(DISK.error(&plane), None);
}

#[test]
fn a_disk_has_the_size_of_its_target_and_its_own_interrupt() {
    let plane = DISK.added();
    assert_eq!(plane.bed.load(A, 0, BASE + 0x100, 8), 32);
    assert_eq!(Driver::started(&plane.bed, A, BASE).run(WRITE, 31), 0);
    assert_eq!(plane.bed.xen.edges(A, IRQ), 1);
}

#[test]
fn disks_that_were_there_before_us_are_found() {
    let plane = Plane::stopped(Vec::new());
    DISK.add(&plane);
    OTHER.add(&plane);
    plane.settle();
    assert!(DISK.is_served(&plane) && OTHER.is_served(&plane));
}

#[test]
fn two_disks_of_a_guest_share_its_server() {
    let plane = DISK.added();
    SECOND.add(&plane);
    plane.settle();
    assert!(DISK.is_served(&plane) && SECOND.is_served(&plane));
    assert_eq!((plane.bed.xen.servers(A), plane.bed.load(A, 0, SECOND.base() + 0x100, 8)), (1, 16));
}

#[test]
fn disks_are_found_when_events_were_lost() {
    let plane = DISK.added();
    other_and_second(&plane);
    let noise = |n| plane.store.borrow_mut().write(&format!("{HOME}backend/vif/{n}/0/state"), "1");
    (0..300).for_each(noise);
    plane.settle();
    assert!(OTHER.is_served(&plane) && SECOND.is_served(&plane));
}

#[test]
fn the_initrd_is_a_disk() {
    let disk = Disk { target: "initrd", ..DISK };
    let plane = disk.added();
    assert_eq!(plane.bed.load(A, 0, BASE + 0x100, 8), INITRD_SECTORS);
    assert_eq!(Driver::started(&plane.bed, A, BASE).run(READ, 0), 0);
    assert_eq!(plane.bed.xen.read_guest(A, DATA), [7; 512]);
}

#[test]
fn a_read_only_disk_may_be_shared_and_not_be_written() {
    let disk = Disk { target: "initrd", mode: "r", ..DISK };
    let plane = disk.added();
    let other = Disk { guest: B, ..disk };
    other.add(&plane);
    plane.settle();
    assert!(disk.is_served(&plane) && other.is_served(&plane));
    assert_eq!(Driver::started(&plane.bed, A, BASE).run(WRITE, 0), 1);
}

#[test]
fn a_disk_taken_offline_is_closed_then_removed() {
    let plane = DISK.added();
    plane.watch(&DISK.node("state"));
    plane.write(&DISK.node("online"), "0");
    assert_eq!(*plane.history.borrow(), [Some("2".to_string()), Some("6".to_string()), None]);
    assert_eq!(plane.value(&DISK.path()), None);
    // Xen's xenstored lets only xl remove what is above.
    assert_eq!(plane.value("backend/virtio_disk/3").as_deref(), Some(""));
}

#[test]
fn a_disk_that_is_closing_is_closed_then_removed() {
    let plane = DISK.added();
    plane.watch(&DISK.node("state"));
    plane.write(&DISK.node("state"), "5");
    assert_eq!(*plane.history.borrow(), [Some("5".to_string()), Some("6".to_string()), None]);
}

#[test]
fn the_last_disk_of_a_guest_takes_everything_along() {
    let plane = DISK.added();
    Driver::started(&plane.bed, A, BASE).run(READ, 0);
    plane.write(&DISK.node("state"), "5");
    assert_eq!(plane.bed.left(A), (0, 0, 0, 0));
    plane.bed.xen.destroy(A);
    assert!(!plane.bed.xen.exists(A));
}

#[test]
fn one_disk_of_two_leaves_the_other_served() {
    let plane = DISK.added();
    other_and_second(&plane);
    plane.write(&DISK.node("online"), "0");
    assert!(SECOND.is_served(&plane) && OTHER.is_served(&plane));
    assert_eq!((plane.value(&DISK.path()), plane.bed.xen.claimed(A).len()), (None, 1));
}

#[test]
fn a_disk_whose_directory_is_gone_is_taken_away() {
    let plane = DISK.added();
    plane.store.borrow_mut().remove(&format!("{HOME}{}", DISK.path()));
    plane.settle();
    assert_eq!((plane.bed.left(A), DISK.state(&plane)), ((0, 0, 0, 0), None));
}

#[test]
fn a_guest_whose_directory_is_gone_is_taken_away() {
    let plane = DISK.added();
    SECOND.add(&plane);
    plane.settle();
    plane.store.borrow_mut().remove(&format!("{HOME}backend/virtio_disk/3"));
    plane.settle();
    assert_eq!(plane.bed.left(A), (0, 0, 0, 0));
}

#[test]
fn a_disk_whose_directory_went_while_events_were_lost_is_taken_away() {
    let plane = DISK.added();
    OTHER.add(&plane);
    plane.settle();
    let noise = |n| plane.store.borrow_mut().write(&format!("{HOME}backend/vif/{n}/0/state"), "1");
    (0..300).for_each(noise);
    plane.store.borrow_mut().remove(&format!("{HOME}{}", DISK.path()));
    plane.settle();
    assert!(OTHER.is_served(&plane) && plane.bed.xen.servers(A) == 0);
}

#[test]
fn a_guest_destroyed_first_goes_with_its_disk() {
    let plane = DISK.added();
    Driver::started(&plane.bed, A, BASE).run(READ, 0);
    plane.bed.xen.destroy(A);
    plane.write(&DISK.node("online"), "0");
    assert!(!plane.bed.xen.exists(A));
    assert_eq!(plane.value(&DISK.path()), None);
}

#[test]
fn a_volume_is_free_again_when_its_disk_is_gone() {
    let disk = Disk { target: "initrd", ..DISK };
    let plane = disk.added();
    plane.write(&disk.node("online"), "0");
    let next = Disk { guest: B, ..disk };
    next.add(&plane);
    plane.settle();
    assert!(next.is_served(&plane));
}

#[test]
fn a_disk_may_come_back_under_the_same_name() {
    let plane = DISK.added();
    plane.write(&DISK.node("online"), "0");
    DISK.add(&plane);
    plane.settle();
    assert!(DISK.is_served(&plane));
}

#[test]
fn a_disk_that_left_before_it_was_served_is_closed() {
    let disk = Disk { changed: ("online", Some("0")), ..DISK };
    let plane = disk.added();
    assert_eq!((plane.value(&disk.path()), plane.bed.left(A)), (None, (0, 0, 0, 0)));
}

#[test]
fn a_poweroff_is_acknowledged() {
    let plane = Plane::new();
    plane.write("control/shutdown", "poweroff");
    assert_eq!(plane.value("control/shutdown").as_deref(), Some(""));
    assert_eq!(plane.result(), Some(Ok(ShutdownReason::PowerOff)));
}

#[test]
fn a_reboot_is_acknowledged() {
    let plane = Plane::new();
    plane.write("control/shutdown", "reboot");
    assert_eq!(plane.value("control/shutdown").as_deref(), Some(""));
    assert_eq!(plane.result(), Some(Ok(ShutdownReason::Reboot)));
}

#[test]
fn an_end_of_another_kind_is_left_alone() {
    let plane = Plane::new();
    plane.write("control/shutdown", "suspend");
    assert_eq!(plane.value("control/shutdown").as_deref(), Some("suspend"));
    assert_eq!(plane.result(), None);
}

#[test]
fn a_connection_that_breaks_ends_the_control_plane() {
    let plane = Plane::new();
    plane.store.borrow_mut().send(2, 1, &[0; 4097]);
    plane.settle();
    plane.settle();
    assert_eq!(plane.result(), Some(Err(StoreError::Disconnected)));
}

#[test]
fn a_disk_whose_answer_cannot_be_written_is_taken_on_at_the_next_look() {
    let plane = Plane::new();
    plane.store.borrow_mut().conflicts = u32::MAX;
    DISK.add(&plane);
    plane.settle();
    assert_eq!((DISK.state(&plane).as_deref(), plane.bed.xen.servers(A)), (Some("1"), 0));
    plane.store.borrow_mut().conflicts = 0;
    plane.write(&DISK.node("state"), "1");
    assert!(DISK.is_served(&plane));
}
