//! Lies about grants.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::error::Error;

use kernel::bring_up::Foundation;
use kernel::limits::PAGE_BYTES;
use kernel::mm::address::Gfn;
use kernel::xen::DomainId;

use crate::disk::{ACCESS_PLATFORM, Buffer};
use crate::memory::Memory;
use crate::options::Options;
use crate::session::{Kind, Session, TABLE};
use by_hand::grants::{GRANT, Grants, NEVER_GRANTED, Right, granted};
use by_hand::registers::FIRST_DEVICE;
use by_hand::ring::{Descriptor, NEXT, WRITE};

const PAGE: u32 = PAGE_BYTES as u32;
/// A domain that is there, and is not the driver domain.
const ANOTHER_DOMAIN: DomainId = DomainId(0);
/// A page of data for lies.
const DATA: usize = 2;

/// Tells them all.
pub fn tell(session: &mut Session, foundation: &Foundation, options: &Options) -> Result<(), Box<dyn Error>> {
    let agreed = session.disk.negotiate(session.features() & !ACCESS_PLATFORM);
    log::info!("rogue: without ACCESS_PLATFORM: {}", if agreed { "accepted" } else { "refused" });
    session.restart();
    log::info!("rogue: honest: {}", session.honest());
    never_granted(session);
    granted_otherwise(session, foundation, options.backend);
    mixed(session);
    parts(session);
    rings(session);
    Ok(())
}

/// Data that nobody may reach.
fn never_granted(session: &mut Session) {
    let own = session.pages.address(Session::data(DATA));
    for (name, address, length) in [
        ("bogus reference", granted(NEVER_GRANTED), PAGE),
        ("reference 0", granted(0), PAGE),
        ("reference beyond the table", granted(NEVER_GRANTED + 1), PAGE),
        ("largest reference", granted(u32::MAX), PAGE),
        ("reference of more than 32 bits", GRANT | 1 << 45, PAGE),
        ("plain address", own, PAGE),
        ("plain address of a hole", session.nowhere[1], PAGE),
        ("last page", u64::MAX - u64::from(PAGE) + 1, PAGE),
        ("wraps around", u64::MAX - u64::from(PAGE) + 1, 2 * PAGE),
    ] {
        for kind in Kind::BOTH {
            session.case(&format!("{name}, {}", kind.name()), |session| {
                session.request(kind, 0, &[Session::at(address, length, kind)])
            });
        }
    }
}

/// Grants that do not permit what they are named for.
fn granted_otherwise(session: &mut Session, foundation: &Foundation, backend: DomainId) {
    let own = session.pages.frame(Session::data(DATA) / PAGE_BYTES);
    let hole = Gfn::containing(foundation.unpopulated.end);
    let registers = Gfn::containing(FIRST_DEVICE);
    for (name, domain, frame) in [
        ("granted to another domain", ANOTHER_DOMAIN, own),
        ("grant of a hole", backend, hole),
        ("grant of registers", backend, registers),
        ("grant of the last frame", backend, Gfn(u32::MAX.into())),
    ] {
        for kind in Kind::BOTH {
            session.case(&format!("{name}, {}", kind.name()), |session| {
                let reference = grants(session).grant(domain, frame, kind.right());
                session.request(kind, 0, &[Session::at(granted(reference), PAGE, kind)])
            });
        }
    }
    for kind in Kind::BOTH {
        session.case(&format!("revoked, {}", kind.name()), |session| {
            let data = session.page(DATA, kind);
            let reference = grants(session).mark() - 1;
            grants(session).revoke(reference);
            session.request(kind, 0, &[data])
        });
        session.case(&format!("granted for reading, {}", kind.name()), |session| {
            let reference = grants(session).grant(backend, own, Right::Read);
            session.request(kind, 0, &[Session::at(granted(reference), PAGE, kind)])
        });
        session.case(&format!("granted for writing, {}", kind.name()), |session| {
            let reference = grants(session).grant(backend, own, Right::Write);
            session.request(kind, 0, &[Session::at(granted(reference), PAGE, kind)])
        });
    }
}

/// Data of which a part can be reached.
fn mixed(session: &mut Session) {
    let own = session.pages.address(Session::data(DATA + 1));
    for kind in Kind::BOTH {
        session.case(&format!("granted and plain, {}", kind.name()), |session| {
            let data = [session.page(DATA, kind), Session::at(own, PAGE, kind)];
            session.request(kind, 0, &data)
        });
        session.case(&format!("two pages, the second not granted, {}", kind.name()), |session| {
            let (header, status) = (session.header(0, kind, 0), session.status(0));
            // The grant of it is the last one.
            let data = Buffer { length: 2 * PAGE, ..session.page(DATA, kind) };
            vec![header, data, status]
        });
        session.case(&format!("two pages, both granted, {}", kind.name()), |session| {
            let data = Buffer { length: 2 * PAGE, ..session.page(DATA, kind) };
            session.page(DATA + 1, kind);
            session.request(kind, 0, &[data])
        });
    }
}

/// Parts of a request other than its data.
fn parts(session: &mut Session) {
    let bogus = session.nowhere[0];
    session.case("header not granted", |session| {
        let (data, status) = (session.page(DATA, Kind::Read), session.status(0));
        vec![Buffer { address: bogus, length: 16, flags: 0 }, data, status]
    });
    session.case("status not granted", |session| {
        let (header, data) = (session.header(0, Kind::Read, 0), session.page(DATA, Kind::Read));
        session.status(0);
        vec![header, data, Buffer { address: bogus, length: 1, flags: WRITE }]
    });
    session.case("status granted for reading", |session| {
        let (header, data) = (session.header(0, Kind::Read, 0), session.page(DATA, Kind::Read));
        vec![header, data, session.status_for(0, Right::Read)]
    });
    session.case("table granted", |session| {
        let data = session.page(DATA, Kind::Read);
        let chain = session.request(Kind::Read, 0, &[data]);
        vec![table_of(session, &chain)]
    });
    session.case("table not granted", |_| vec![Session::table(bogus, 3)]);
}

/// Rings that may not be used as rings are.
fn rings(session: &mut Session) {
    let answer = session
        .restart_with(|memory, ring, rings| rings[2] = memory.reach(ring, 2 * PAGE_BYTES, Right::Read));
    session.conclude("used ring granted for reading", answer);
    let answer = session.restart_with(|memory, ring, rings| rings[0] = memory.reach(ring, 0, Right::Write));
    session.conclude("descriptors granted for writing", answer);
    let answer = session.restart_with(|_, _, rings| rings[2] += u64::from(PAGE) - 4);
    session.conclude("used ring runs out of its grant", answer);
}

fn grants(session: &mut Session) -> &mut Grants {
    match &mut session.memory {
        Memory::Granted { grants, .. } => grants,
        Memory::Shared => panic!("rogue: no grants where all memory is shared"),
    }
}

/// Puts a chain into a table.
fn table_of(session: &mut Session, chain: &[Buffer]) -> Buffer {
    let last = chain.len() as u16 - 1;
    let descriptors: Vec<Descriptor> = (0..)
        .zip(chain)
        .map(|(index, buffer)| Descriptor {
            address: buffer.address,
            length: buffer.length,
            flags: buffer.flags | if index < last { NEXT } else { 0 },
            next: index + 1,
        })
        .collect();
    for (offset, descriptor) in (TABLE..).step_by(by_hand::ring::DESCRIPTOR_BYTES).zip(&descriptors) {
        session.pages.write(offset, &descriptor.bytes());
    }
    let address = session.memory.reach(&session.pages, TABLE, Right::Read);
    Session::table(address, chain.len())
}
