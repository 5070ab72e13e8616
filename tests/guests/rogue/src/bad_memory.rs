//! Lies about addresses, where the device reaches all our memory by frame numbers.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use core::error::Error;

use kernel::bring_up::Foundation;
use kernel::device_tree::InterruptController::{V2, V3};
use kernel::limits::{PAGE_BYTES, SINGLE_PAGES};
use kernel::xen::abi::hvm;
use kernel::xen::hvm::parameter;
use kernel::xen::memory::{decrease_reservation, populate};

use crate::disk::{ACCESS_PLATFORM, Buffer};
use crate::honest::ZEROES;
use crate::session::{Kind, Session};
use by_hand::grants::GRANT;
use by_hand::registers::FIRST_DEVICE;
use by_hand::ring::WRITE;

const PAGE: u32 = PAGE_BYTES as u32;
/// Magic pages that follow that of the console (Xen, `xg_dom_arm.c`): nobody uses this one here.
const MONITOR_PAGE_AFTER_CONSOLE: u64 = 2;

/// Tells them all.
pub fn tell(session: &mut Session, foundation: &Foundation) -> Result<(), Box<dyn Error>> {
    let agreed = session.disk.negotiate(session.features() | ACCESS_PLATFORM);
    log::info!("rogue: ACCESS_PLATFORM, not offered: {}", if agreed { "accepted" } else { "refused" });
    session.restart();
    log::info!("rogue: honest: {}", session.honest());
    unreachable(session, foundation);
    own_pages_of_xen(session, foundation)?;
    parts(session);
    given_back(session)
}

/// Data where there is no memory.
fn unreachable(session: &mut Session, foundation: &Foundation) {
    let (V2 { distributor, .. } | V3 { distributor, .. }) = foundation.machine.interrupt_controller;
    for (name, address, length) in [
        ("hole", session.nowhere[0], PAGE),
        ("distributor", distributor, PAGE),
        ("registers of the disk", FIRST_DEVICE as u64, PAGE),
        ("address 0", 0, PAGE),
        ("beyond all memory", 1 << 39, PAGE),
        ("beyond all frames", (1 << 63) - u64::from(PAGE), PAGE),
        ("grant", GRANT | 8 << 12, PAGE),
        ("last page", u64::MAX - u64::from(PAGE) + 1, PAGE),
        ("wraps around", u64::MAX - u64::from(PAGE) + 1, 2 * PAGE),
        ("2 GiB", session.nowhere[0], 2 << 30),
    ] {
        for kind in Kind::BOTH {
            session.case(&format!("{name}, {}", kind.name()), |session| {
                session.request(kind, 0, &[Session::at(address, length, kind)])
            });
        }
    }
}

/// Data in pages that Xen and Dom0 share with us: memory of ours like any other, which we could write ourselves.
fn own_pages_of_xen(session: &mut Session, foundation: &Foundation) -> Result<(), Box<dyn Error>> {
    let page = u64::from(PAGE);
    let console = parameter(hvm::PARAM_CONSOLE_PFN)?;
    let store = parameter(hvm::PARAM_STORE_PFN)?;
    // Where `bring_up` maps it: the first page of the region.
    let shared_info = foundation.unpopulated.start - SINGLE_PAGES * PAGE_BYTES;
    // Where `Session` maps it.
    let grant_table = foundation.unpopulated.start;
    for (name, address, kind) in [
        // What the console and xenstore are in the middle of is not to be overwritten.
        ("console page", console * page, Kind::Write),
        ("xenstore page", store * page, Kind::Write),
        ("magic page", (console + MONITOR_PAGE_AFTER_CONSOLE) * page, Kind::Write),
        ("magic page", (console + MONITOR_PAGE_AFTER_CONSOLE) * page, Kind::Read),
        ("shared info", shared_info as u64, Kind::Write),
        ("shared info", shared_info as u64, Kind::Read),
        ("grant table", grant_table as u64, Kind::Write),
        ("grant table", grant_table as u64, Kind::Read),
    ] {
        // What is written goes where nothing is read, what is read is zeroes.
        let sector = ZEROES + if kind == Kind::Write { 4096 } else { 0 };
        session.case(&format!("{name}, {}", kind.name()), |session| {
            session.request(kind, sector, &[Session::at(address, PAGE, kind)])
        });
    }
    Ok(())
}

/// Parts of a request other than its data.
fn parts(session: &mut Session) {
    let hole = session.nowhere[0];
    session.case("header in a hole", |session| {
        let (data, status) = (session.page(2, Kind::Read), session.status(0));
        vec![Buffer { address: hole, length: 16, flags: 0 }, data, status]
    });
    session.case("status in a hole", |session| {
        let (header, data) = (session.header(0, Kind::Read, 0), session.page(2, Kind::Read));
        session.status(0);
        vec![header, data, Buffer { address: hole, length: 1, flags: WRITE }]
    });
    session.case("second buffer in a hole", |session| {
        let data = [session.page(2, Kind::Read), Session::at(hole, PAGE, Kind::Read)];
        session.request(Kind::Read, 0, &data)
    });
    session.case("table in a hole", |_| vec![Session::table(hole, 3)]);
}

/// A page that the driver domain has mapped is given back to Xen, named all the same, and taken again.
fn given_back(session: &mut Session) -> Result<(), Box<dyn Error>> {
    const BEFORE: usize = 2;
    const GIVEN: usize = 3;
    let frame = session.pages.frame(Session::data(GIVEN) / PAGE_BYTES).0;
    let request = |session: &mut Session, kind| {
        let data = session.page(GIVEN, kind);
        session.request(kind, ZEROES, &[data])
    };
    session.case("page before it is given back, read", |session| request(session, Kind::Read));
    if decrease_reservation(&[frame])? != 1 {
        return Err("Xen does not take a page back".into());
    }
    for kind in Kind::BOTH {
        session.case(&format!("page given back, {}", kind.name()), |session| request(session, kind));
        session.case(&format!("memory and page given back, {}", kind.name()), |session| {
            let data = Buffer { length: 2 * PAGE, ..session.page(BEFORE, kind) };
            session.request(kind, ZEROES, &[data])
        });
    }
    if populate(&[frame])? != 1 {
        return Err("Xen does not give a page again".into());
    }
    session.pages.fill(Session::data(GIVEN), PAGE_BYTES, 0xaa);
    session.case("page taken again, read", |session| request(session, Kind::Read));
    let is_zero = session.holds(GIVEN, &[0; PAGE_BYTES]);
    log::info!("rogue: content of that page: {}", if is_zero { "right" } else { "wrong" });
    Ok(())
}
