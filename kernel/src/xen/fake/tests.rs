//! The fake keeps Xen's rules: otherwise the tests that stand on it prove nothing.

use super::*;
use crate::xen::dm::{self, RangeChange};
use crate::xen::memory;

const GUEST: DomainId = DomainId(3);
const BASE: u64 = 0x200_0000;

fn xen() -> FakeXen {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    xen.populate(GUEST, 0x40000..0x40010);
    xen
}

/// Maps frame `guest_frame` of the guest at frame `gfn` of ours.
fn map(guest_frame: u64, gfn: u64) -> i32 {
    let mut errors = [1];
    memory::map_foreign(GUEST, &[guest_frame], &[gfn], &mut errors).unwrap();
    errors[0]
}

#[test]
fn a_mapped_page_is_the_guests_memory_itself() {
    let xen = xen();
    let mut window = xen.window(1);
    assert!(window.grow(|_| ()));
    let at: *mut u8 = ptr::with_exposed_provenance_mut(window.address(0));
    assert_eq!(map(0x40001, Gfn::containing(window.address(0)).0), 0);
    xen.write_guest(GUEST, 0x4000_1fff, &[7, 8]);
    // SAFETY: the page was mapped just now.
    let seen = unsafe {
        at.write_volatile(9);
        at.add(0xfff).read_volatile()
    };
    assert_eq!((seen, xen.read_guest(GUEST, 0x4000_1000)), (7, [9]));
}

#[test]
fn each_page_has_an_error_of_its_own() {
    let _xen = xen();
    let mut errors = [1; 3];
    memory::map_foreign(GUEST, &[0x40000, 0x50000, 0x40001], &[1, 2, 3], &mut errors).unwrap();
    assert_eq!(errors, [0, -Errno::EINVAL.0, 0]);
}

#[test]
fn unknown_domain_is_esrch_and_a_denied_one_eacces() {
    let xen = xen();
    let mut errors = [1];
    memory::map_foreign(DomainId(9), &[0x40000], &[1], &mut errors).unwrap();
    assert_eq!(errors, [-Errno::ESRCH.0]);
    xen.deny(GUEST);
    assert_eq!(map(0x40000, 1), -Errno::EACCES.0);
}

#[test]
fn mapping_over_ram_loses_it() {
    let xen = xen();
    xen.place_ram(5);
    assert_eq!(map(0x40000, 5), 0);
    assert_eq!(xen.leaks(), [Leak::RamLost { gfn: 5 }]);
}

#[test]
fn mapping_over_another_page_drops_that_reference() {
    let xen = xen();
    assert_eq!((map(0x40000, 5), map(0x40001, 5)), (0, 0));
    assert_eq!((xen.references(GUEST), xen.leaks()), (1, Vec::new()));
}

#[test]
fn mapping_over_itself_keeps_the_guest_a_zombie_for_good() {
    let xen = xen();
    assert_eq!((map(0x40000, 5), map(0x40000, 5)), (0, 0));
    memory::remove(5).unwrap();
    xen.destroy(GUEST);
    assert_eq!(xen.leaks(), [Leak::MappedOverItself { gfn: 5, domain: 3 }]);
    assert!(xen.exists(GUEST));
}

#[test]
fn a_destroyed_guest_stays_until_its_last_page_is_unmapped() {
    let xen = xen();
    assert_eq!(map(0x40000, 5), 0);
    xen.destroy(GUEST);
    assert!(xen.exists(GUEST));
    memory::remove(5).unwrap();
    assert!(!xen.exists(GUEST));
}

#[test]
fn tables_are_made_for_2_mib_each_and_never_come_back() {
    let xen = xen();
    xen.set_pool(1);
    assert_eq!((map(0x40000, 512), map(0x40001, 1023), map(0x40002, 1024)), (0, 0, -Errno::ENOENT.0));
    memory::remove(512).unwrap();
    memory::remove(1023).unwrap();
    assert_eq!(map(0x40002, 1024), -Errno::ENOENT.0);
}

#[test]
fn unmapping_a_hole_is_enoent() {
    let _xen = xen();
    assert_eq!(memory::remove(5).unwrap_err().errno, Errno::ENOENT);
}

#[test]
fn an_access_without_a_server_is_a_data_abort() {
    let xen = xen();
    assert!(!xen.load(GUEST, 0, BASE, 4));
}

#[test]
fn ranges_of_one_server_do_not_overlap() {
    let xen = xen();
    let server = dm::create_ioreq_server(GUEST).unwrap();
    let claim = |first, last| dm::change_range(GUEST, server, RangeChange::Claim, first, last);
    claim(BASE, BASE + 0x1ff).unwrap();
    assert_eq!(claim(BASE + 0x1ff, BASE + 0x3ff).unwrap_err().errno, Errno(17));
    claim(BASE + 0x200, BASE + 0x3ff).unwrap();
    assert_eq!(xen.claimed(GUEST).len(), 2);
}

#[test]
fn operations_on_a_destroyed_guest_say_that_it_is_gone() {
    let xen = xen();
    let server = dm::create_ioreq_server(GUEST).unwrap();
    assert_eq!(map(0x40000, 5), 0);
    xen.destroy(GUEST);
    assert_eq!(dm::destroy_ioreq_server(GUEST, server).unwrap_err().errno, Errno::ENOENT);
    memory::remove(5).unwrap();
    assert_eq!(dm::destroy_ioreq_server(GUEST, server).unwrap_err().errno, Errno::ESRCH);
}

#[test]
fn interrupts_are_those_that_the_guest_has() {
    let xen = xen();
    dm::raise_irq(GUEST, 33).unwrap();
    assert_eq!(dm::raise_irq(GUEST, 64).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(xen.edges(GUEST, 33), 1);
}

#[test]
fn a_refused_call_is_refused_once() {
    let xen = xen();
    xen.refuse(Call::CountVcpus, 1, Errno::ENOSYS);
    let answers = [dm::vcpus(GUEST), dm::vcpus(GUEST), dm::vcpus(GUEST)].map(|answer| answer.ok());
    assert_eq!((answers, xen.calls(Call::CountVcpus)), ([Some(1), None, Some(1)], 3));
}
