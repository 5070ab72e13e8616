//! Pages that we grant to ourselves, and what is left of it afterwards: nothing.

use super::*;
use crate::mm::bus::{BusAddresses, SelfGrants};
use crate::mm::singles::SinglePages;
use crate::xen::event::own_domain;
use crate::xen::fake::{Call, FakeXen};
use crate::xen::hypercall::Errno;

const FRAME: Gfn = Gfn(0x40005);
const PLACE: u64 = 0x1_3fa1_e000;

fn xen() -> FakeXen {
    let xen = FakeXen::new();
    xen.place_ram_at(FRAME.0, PLACE);
    xen
}

#[test]
fn we_learn_our_own_number_and_close_the_port() {
    let xen = xen();
    assert_eq!(own_domain(), Ok(DomainId(7)));
    assert_eq!(xen.open_ports(), 0);
}

#[test]
fn a_page_of_ours_has_a_machine_address_and_nothing_stays_mapped() {
    let xen = xen();
    let pages = xen.single_pages();
    let before = xen.mapped();
    let mut addresses = SelfGrants::new(&pages).unwrap();
    assert_eq!(addresses.bus_address(FRAME), Ok(PLACE));
    assert_eq!(addresses.bus_address(FRAME), Ok(PLACE));
    assert_eq!((xen.grant_mappings(), pages.borrow().mapped()), (0, 1));
    drop(addresses);
    assert_eq!((xen.mapped(), pages.borrow().mapped(), xen.leaks()), (before, 0, alloc::vec![]));
}

#[test]
fn a_page_that_is_no_ram_is_refused_by_its_status() {
    let xen = xen();
    let mut addresses = SelfGrants::new(&xen.single_pages()).unwrap();
    let refused = GrantError::Status { operation: "map a granted page", status: -9 };
    assert_eq!(addresses.bus_address(Gfn(0x50000)), Err(refused));
    assert_eq!(addresses.bus_address(FRAME), Ok(PLACE));
}

#[test]
fn a_refused_hypercall_leaves_the_entry_free() {
    let xen = xen();
    let mut addresses = SelfGrants::new(&xen.single_pages()).unwrap();
    xen.refuse(Call::MapGrant, 0, Errno::ENOSYS);
    assert!(matches!(addresses.bus_address(FRAME), Err(GrantError::Hypercall(_))));
    assert_eq!(addresses.bus_address(FRAME), Ok(PLACE));
}

#[test]
fn an_address_inside_a_page_or_none_is_not_believed() {
    let xen = xen();
    xen.place_ram_at(1, 0);
    xen.place_ram_at(2, PLACE + 8);
    let mut addresses = SelfGrants::new(&xen.single_pages()).unwrap();
    assert_eq!(addresses.bus_address(Gfn(1)), Err(GrantError::BusAddress(0)));
    assert_eq!(addresses.bus_address(Gfn(2)), Err(GrantError::BusAddress(PLACE + 8)));
}

#[test]
fn a_frame_number_beyond_version_1_is_refused() {
    let xen = xen();
    let mut addresses = SelfGrants::new(&xen.single_pages()).unwrap();
    let frame = Gfn(1 << 32);
    assert_eq!(addresses.bus_address(frame), Err(GrantError::FrameNumber(frame)));
}

#[test]
fn a_mapping_that_xen_keeps_takes_its_frame_number_and_its_entry_along() {
    let xen = xen();
    let pages = xen.single_pages();
    let mut addresses = SelfGrants::new(&pages).unwrap();
    xen.refuse(Call::UnmapGrant, 0, Errno::EPERM);
    assert_eq!(addresses.bus_address(FRAME), Ok(PLACE));
    assert_eq!((xen.grant_mappings(), pages.borrow().mapped()), (1, 2));
    assert_eq!(addresses.bus_address(FRAME), Err(GrantError::InUse));
}

#[test]
fn the_grant_table_is_at_one_place_at_a_time() {
    let xen = xen();
    let pages = xen.single_pages();
    let first = SinglePages::map_grant_table(&pages).unwrap();
    assert!(SinglePages::map_grant_table(&pages).is_err());
    drop(first);
    assert!(SinglePages::map_grant_table(&pages).is_ok());
    assert_eq!(xen.mapped(), 1);
}
