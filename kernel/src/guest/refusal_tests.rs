//! Disks that are refused: one sentence in xenstore, nothing left behind, and everybody else served on.

use alloc::string::String;

use super::plane::{DISK, Disk, Plane, set_heap_free};
use super::*;
use crate::limits::HEAP_HEADROOM_BYTES;
use crate::xen::fake::Call;
use crate::xen::hypercall::Errno;

const INITRD: Disk = Disk { target: "initrd", ..DISK };
const OF_B: Disk = Disk { guest: B, ..DISK };

/// The sentence with which a disk is refused, where nothing else is.
fn refusal(disk: Disk) -> String {
    let plane = disk.added();
    assert_eq!((disk.state(&plane).as_deref(), plane.bed.left(disk.guest)), (Some("1"), (0, 0, 0, 0)));
    disk.error(&plane).unwrap()
}

/// The sentence with which guest A's disk is refused when Xen refuses calls of a kind.
fn refusal_by_xen(call: Call, passing: usize, errno: Errno) -> String {
    let plane = Plane::new();
    plane.bed.xen.refuse_all(call, passing, errno);
    DISK.add(&plane);
    plane.settle();
    assert_eq!((DISK.state(&plane).as_deref(), plane.bed.left(A)), (Some("1"), (0, 0, 0, 0)));
    DISK.error(&plane).unwrap()
}

#[test]
fn an_unknown_target_is_named() {
    let sentence = refusal(Disk { target: "nvme0", ..DISK });
    assert!(sentence.contains("target 'nvme0'") && sentence.contains("ram:SIZE"), "{sentence}");
}

#[test]
fn a_refused_disk_leaves_other_guests_alone() {
    let plane = OF_B.added();
    let bad = Disk { target: "nvme0", ..DISK };
    bad.add(&plane);
    plane.settle();
    assert!(OF_B.is_served(&plane) && bad.error(&plane).is_some());
}

#[test]
fn a_refused_disk_leaves_the_guests_other_disk_alone() {
    let plane = DISK.added();
    let bad = Disk { target: "nvme0", index: 1, ..DISK };
    bad.add(&plane);
    plane.settle();
    assert!(DISK.is_served(&plane));
    assert_eq!((bad.state(&plane).as_deref(), plane.bed.xen.claimed(A).len()), (Some("1"), 1));
}

#[test]
fn a_refused_disk_can_be_closed() {
    let disk = Disk { target: "nvme0", ..DISK };
    let plane = disk.added();
    plane.write(&disk.node("state"), "5");
    assert_eq!(plane.value(&disk.path()), None);
}

#[test]
fn a_volume_open_elsewhere_is_refused() {
    let plane = INITRD.added();
    let second = Disk { guest: B, ..INITRD };
    second.add(&plane);
    plane.settle();
    let sentence = second.error(&plane).unwrap();
    assert!(sentence.contains("target 'initrd'") && sentence.contains("open for writing"), "{sentence}");
    assert!(INITRD.is_served(&plane) && plane.bed.xen.servers(B) == 0);
}

#[test]
fn more_ram_than_there_is_is_refused() {
    let sentence = refusal(Disk { target: "ram:1G", ..DISK });
    assert!(sentence.contains("no RAM"), "{sentence}");
}

#[test]
fn a_node_that_is_missing_is_named() {
    assert!(refusal(Disk { changed: ("params", None), ..DISK }).contains("no params"));
    assert!(refusal(Disk { changed: ("base", None), ..DISK }).contains("no base"));
    assert!(refusal(Disk { changed: ("transport", None), ..DISK }).contains("no transport"));
}

#[test]
fn another_transport_is_refused() {
    let sentence = refusal(Disk { changed: ("transport", Some("pci")), ..DISK });
    assert!(sentence.contains("'pci'"), "{sentence}");
}

#[test]
fn a_base_that_is_no_decimal_number_is_refused() {
    assert!(refusal(Disk { changed: ("base", Some("0x2000000")), ..DISK }).contains("0x2000000"));
    assert!(refusal(Disk { changed: ("irq", Some("-1")), ..DISK }).contains("-1"));
}

#[test]
fn a_base_at_the_end_of_all_addresses_is_refused() {
    let sentence = refusal(Disk { changed: ("base", Some("18446744073709551615")), ..DISK });
    assert!(sentence.contains("claim guest addresses"), "{sentence}");
}

#[test]
fn two_disks_at_one_base_are_refused_and_the_first_lives() {
    let plane = DISK.added();
    let second = Disk { index: 1, changed: ("base", Some("33554432")), ..DISK };
    second.add(&plane);
    plane.settle();
    assert!(second.error(&plane).is_some() && DISK.is_served(&plane));
}

#[test]
fn a_heap_that_is_nearly_full_refuses_a_disk() {
    set_heap_free(HEAP_HEADROOM_BYTES - 1);
    assert!(refusal(DISK).contains("memory="));
}

#[test]
fn a_heap_with_just_enough_room_takes_a_disk() {
    set_heap_free(HEAP_HEADROOM_BYTES);
    assert!(DISK.is_served(&DISK.added()));
}

#[test]
fn a_guest_that_the_policy_denies_is_refused_with_advice() {
    let plane = Plane::new();
    plane.bed.xen.deny(A);
    DISK.add(&plane);
    OF_B.add(&plane);
    plane.settle();
    let sentence = DISK.error(&plane).unwrap();
    assert!(sentence.contains("xsm=flask") && sentence.contains("EACCES"), "{sentence}");
    assert!(OF_B.is_served(&plane));
}

#[test]
fn a_guest_that_is_not_there_is_refused() {
    let sentence = refusal(Disk { guest: DomainId(99), ..DISK });
    assert!(sentence.contains("count vCPUs"), "{sentence}");
}

#[test]
fn a_xen_without_ioreq_servers_is_named() {
    assert!(refusal_by_xen(Call::CreateServer, 0, Errno::ENOSYS).contains("CONFIG_IOREQ_SERVER"));
}

#[test]
fn a_xen_without_memory_for_our_tables_is_named() {
    assert!(refusal_by_xen(Call::MapResource, 0, Errno::ENOENT).contains("shadow_memory="));
}

#[test]
fn a_refusal_by_xen_at_any_step_leaves_nothing() {
    assert!(!refusal_by_xen(Call::SetServerState, 0, Errno::EPERM).is_empty());
    assert!(!refusal_by_xen(Call::BindPort, 1, Errno::EPERM).is_empty());
    assert!(!refusal_by_xen(Call::ClaimRange, 0, Errno::EPERM).is_empty());
}

#[test]
fn a_refusal_by_xen_gives_the_volume_back() {
    let plane = Plane::new();
    plane.bed.xen.refuse_all(Call::ClaimRange, 0, Errno::EPERM);
    INITRD.add(&plane);
    plane.settle();
    plane.bed.xen.allow_all();
    let next = Disk { guest: B, ..INITRD };
    next.add(&plane);
    plane.settle();
    assert!(INITRD.error(&plane).is_some() && next.is_served(&plane));
}

#[test]
fn a_refused_disk_is_looked_at_again_when_it_changes() {
    let plane = Plane::new();
    plane.bed.xen.refuse_all(Call::ClaimRange, 0, Errno::EPERM);
    DISK.add(&plane);
    plane.settle();
    plane.bed.xen.allow_all();
    plane.write(&DISK.node("state"), "1");
    assert!(DISK.is_served(&plane));
}

#[test]
fn names_that_are_no_disks_are_ignored() {
    let plane = DISK.added();
    plane.write("backend/virtio_disk/x/51712/state", "1");
    plane.write("backend/virtio_disk/4/y/state", "1");
    plane.write("backend/virtio_disk/70000/51712/state", "1");
    plane.write("backend/vif/4/0/state", "1");
    assert!(DISK.is_served(&plane));
    assert_eq!((plane.bed.table.borrow().len(), plane.result()), (1, None));
}

#[test]
fn a_device_of_another_protocol_is_refused_and_can_go() {
    let plane = Plane::new();
    plane.write("backend/vbd/3/768/state", "1");
    assert!(plane.value("backend/vbd/3/768/error").unwrap().contains("specification=virtio"));
    plane.write("backend/vbd/3/768/online", "0");
    assert_eq!(plane.value("backend/vbd/3/768"), None);
}
