//! Lies about the queue itself, after which the device trusts nothing of it: it needs a reset.

use alloc::vec;

use crate::answer::Answer;
use crate::session::{Kind, Session};
use by_hand::ring::{Descriptor, NEXT, SIZE, WRITE};

/// Tells them all.
pub fn tell(session: &mut Session) {
    places(session);
    indices(session);
    chains(session);
}

/// Rings where none can be.
fn places(session: &mut Session) {
    let nowhere = session.nowhere.clone();
    for (ring, name) in ["descriptors", "available ring", "used ring"].into_iter().enumerate() {
        let answer = session.restart_with(|_, _, rings| rings[ring] = nowhere[ring % nowhere.len()]);
        session.conclude(&alloc::format!("{name} out of reach"), answer);
    }
    let answer = session.restart_with(|_, _, rings| rings[0] += 8);
    session.conclude("descriptors misaligned", answer);
}

/// Indices out of range.
fn indices(session: &mut Session) {
    session.disk.ring.offered += SIZE + 1;
    session.disk.kick();
    let answer = outcome(session);
    session.conclude("available index runs ahead", answer);

    session.disk.ring.offer(SIZE);
    session.disk.kick();
    let answer = outcome(session);
    session.conclude("head outside of the table", answer);
}

/// Chains without an end, or without a status.
fn chains(session: &mut Session) {
    let address = session.pages.address(0);
    session.disk.ring.describe(0, &Descriptor { address, length: 16, flags: NEXT, next: 0 });
    session.disk.ring.offer(0);
    session.disk.kick();
    let answer = outcome(session);
    session.conclude("endless chain", answer);

    session.case("no place for a status", |session| vec![session.header(0, Kind::Read, 0)]);
    session.case("readable after writable", |session| {
        let (status, header) = (session.status(0), session.header(0, Kind::Read, 0));
        vec![status, header]
    });
    session.case("a table of no entries", |session| {
        let table = Session::table(session.pages.address(0), 0);
        vec![table]
    });
    session.case("4 GiB", |session| {
        let data = crate::disk::Buffer { address: 0, length: u32::MAX, flags: WRITE };
        session.request(Kind::Read, 0, &[data, data])
    });
}

/// What the device says to a queue that cannot be.
fn outcome(session: &mut Session) -> Answer {
    session.disk.wait().err().unwrap_or(Answer::OK)
}
