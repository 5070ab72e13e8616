//! Single pages are mapped while their values live, and never over each other.

use alloc::vec::Vec;

use super::*;
use crate::limits::PAGE_BYTES;
use crate::xen::fake::{Call, FakeXen};

const GUEST: DomainId = DomainId(3);
const RAM: u64 = 0x40000;

fn xen() -> FakeXen {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    xen.populate(GUEST, RAM..RAM + 512);
    xen
}

#[test]
fn a_single_page_is_mapped_while_it_lives() {
    let xen = xen();
    let pages = xen.single_pages();
    let page = SinglePages::map_shared_info(&pages).unwrap();
    assert_eq!((pages.borrow().mapped(), xen.mapped()), (1, 1));
    drop(page);
    assert_eq!((pages.borrow().mapped(), xen.mapped()), (0, 0));
}

#[test]
fn a_single_page_that_is_refused_takes_no_frame_number() {
    let xen = xen();
    let pages = xen.single_pages();
    xen.refuse(Call::MapSharedInfo, 0, Errno::ENOENT);
    assert_eq!(SinglePages::map_shared_info(&pages).err().map(|error| error.errno), Some(Errno::ENOENT));
    assert_eq!((pages.borrow().mapped(), xen.mapped()), (0, 0));
}

#[test]
fn single_pages_are_reused_and_never_overlap() {
    let xen = xen();
    let pages = xen.single_pages();
    let [first, second] = [(); 2].map(|()| SinglePages::map_shared_info(&pages).unwrap());
    let address = first.address();
    assert_eq!(second.address(), address + PAGE_BYTES);
    drop(first);
    assert_eq!(SinglePages::map_shared_info(&pages).unwrap().address(), address);
}

#[test]
fn single_pages_run_out() {
    let xen = xen();
    let pages = xen.single_pages();
    let mapped: Vec<_> = (0..SINGLE_PAGES).map(|_| SinglePages::map_shared_info(&pages).unwrap()).collect();
    let error = SinglePages::map_shared_info(&pages).err().unwrap();
    assert_eq!((error.errno, xen.calls(Call::MapSharedInfo)), (Errno::ENOMEM, SINGLE_PAGES));
    drop(mapped);
    assert_eq!(xen.mapped(), 0);
}

#[test]
fn a_frame_number_that_stays_mapped_is_never_used_again() {
    let xen = xen();
    let pages = xen.single_pages();
    let page = SinglePages::map_shared_info(&pages).unwrap();
    let address = page.address();
    xen.refuse(Call::Unmap, 0, Errno::EPERM);
    drop(page);
    assert_eq!(SinglePages::map_shared_info(&pages).unwrap().address(), address + PAGE_BYTES);
}
