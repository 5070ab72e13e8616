//! Commands to an NBD server, one that is good, one that is not, and one that goes away and comes back.

mod common;

use common::disk_bed::{DISCARD, DiskGuest, FLUSH_ALL, IN, IOERR, NONE, OK, WRITE_ZEROES};
use common::nbd_bed::{NbdBed, SECOND};
use common::nbd_server::{
    Asked, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES, ESHUTDOWN, HAS_FLAGS, NbdServer,
    READ_ONLY, SEND_FLUSH, SEND_FUA,
};
use drivers::virtio::Features;
use drivers::volume::registry::Access;

fn bed() -> NbdBed {
    NbdBed::new(NbdServer::new(512))
}

fn asked(kind: u16, flags: u16, offset: u64, length: u32) -> Asked {
    Asked { kind, flags, offset, length }
}

#[test]
fn commands_are_the_servers() {
    let bed = bed();
    let mut guest = bed.guest();
    guest.put_write(0, 3, 1024, 7);
    guest.put(1, IN, 3, 512);
    guest.put(2, FLUSH_ALL, 0, 0);
    guest.put_ranges(3, DISCARD, &[(8, 2)]);
    guest.put_ranges(4, WRITE_ZEROES, &[(4, 1)]);
    guest.kick();
    bed.turns(10, &mut [&mut guest]);
    assert_eq!(guest.statuses(5), [OK; 5]);
    assert_eq!(guest.data(1, 512), [7; 512]);
    let mut carried_out = bed.server.state().carried_out.clone();
    carried_out.sort_by_key(|asked| asked.kind);
    let expected = [
        asked(CMD_READ, 0, 1536, 512),
        asked(CMD_WRITE, 0, 1536, 1024),
        asked(CMD_FLUSH, 0, 0, 0),
        asked(CMD_TRIM, 0, 4096, 1024),
        // NBD_CMD_FLAG_NO_HOLE
        asked(CMD_WRITE_ZEROES, 2, 2048, 512),
    ];
    assert_eq!(carried_out, expected);
}

#[test]
fn without_flush_every_write_is_made_durable() {
    let bed = bed();
    bed.server.state().flags = HAS_FLAGS | SEND_FUA;
    let volume = bed.open("nbd:10.0.0.1/disk", Access::ReadWrite).unwrap();
    let mut guest = DiskGuest::new(volume, Features::empty());
    guest.put_write(0, 3, 512, 7);
    guest.put(1, FLUSH_ALL, 0, 0);
    guest.kick();
    bed.turns(5, &mut [&mut guest]);
    assert_eq!(guest.statuses(2), [OK; 2]);
    assert_eq!(bed.server.state().carried_out, [asked(CMD_WRITE, 1, 1536, 512)]);
}

#[test]
fn large_requests_pass_a_byte_at_a_time() {
    let bed = bed();
    bed.server.state().chunk = 1;
    let mut guest = bed.guest();
    guest.put_write(0, 1, 0x2000, 9);
    guest.kick();
    bed.turns(20_000, &mut [&mut guest]);
    guest.put(1, IN, 0, 0x4000);
    guest.kick();
    bed.turns(20_000, &mut [&mut guest]);
    assert_eq!(guest.statuses(2), [OK; 2]);
    let read = guest.data(1, 0x4000);
    assert!(read[..512].iter().all(|byte| *byte == 0) && read[512..][..0x2000].iter().all(|byte| *byte == 9));
}

#[test]
fn replies_come_in_any_order() {
    let bed = bed();
    (0..8).for_each(|n| bed.server.state().bytes[n * 512] = u8::try_from(n).unwrap());
    let mut guest = bed.guest();
    bed.server.state().is_prompt = false;
    (0..8).for_each(|n| guest.put(n, IN, n.into(), 512));
    guest.kick();
    bed.turns(2, &mut [&mut guest]);
    for index in [5, 0, 5, 1, 2, 0, 1, 0] {
        bed.server.answer(index);
    }
    bed.turns(2, &mut [&mut guest]);
    assert_eq!(guest.statuses(8), [OK; 8]);
    (0..8).for_each(|n| assert_eq!(guest.data(n, 1), [u8::try_from(n).unwrap()]));
}

#[test]
fn an_error_concerns_one_command() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.server.state().errors.extend([5, 28, 22, 0]);
    (0..4).for_each(|n| guest.put(n, IN, n.into(), 512));
    guest.kick();
    bed.turns(3, &mut [&mut guest]);
    let mut statuses = guest.statuses(4);
    statuses.sort_unstable();
    assert_eq!((statuses, bed.server.state().connections), (vec![OK, IOERR, IOERR, IOERR], 1));
}

/// Any bit of magic number or cookie: the connection is made again, and the guest sees none of it.
#[test]
fn a_server_that_breaks_the_protocol_is_left_and_asked_again() {
    for place in [0, 3, 8, 9, 14, 15] {
        let bed = bed();
        let mut guest = bed.guest();
        bed.server.state().flips.push_back(place);
        guest.put_write(0, 3, 512, 7);
        guest.kick();
        bed.sleep(SECOND, &mut [&mut guest]);
        assert_eq!((guest.status(0), bed.server.state().connections), (OK, 2), "{place}");
    }
}

#[test]
fn a_server_that_always_breaks_the_protocol_is_asked_seldom_and_not_for_ever() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.server.state().flips.extend([0; 1000]);
    guest.put_write(0, 3, 512, 7);
    guest.kick();
    bed.sleep(29 * SECOND, &mut [&mut guest]);
    assert_eq!(guest.status(0), NONE);
    bed.sleep(2 * SECOND, &mut [&mut guest]);
    assert_eq!(guest.status(0), IOERR);
    let connections = bed.server.state().connections;
    assert!((10..25).contains(&connections), "{connections}");
}

#[test]
fn a_server_that_goes_down_gets_the_command_again_when_it_is_back() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.server.state().errors.push_back(ESHUTDOWN);
    guest.put_write(0, 3, 512, 7);
    guest.kick();
    bed.sleep(SECOND, &mut [&mut guest]);
    assert_eq!((guest.status(0), bed.server.state().connections), (OK, 2));
    assert_eq!(bed.server.state().bytes[3 * 512], 7);
}

#[test]
fn a_connection_that_breaks_at_any_byte_loses_nothing() {
    for cut in 1..60 {
        let bed = bed();
        bed.server.state().bytes[5 * 512] = 3;
        let mut guest = bed.guest();
        bed.server.state().chunk = 10;
        bed.server.state().cut_in = Some(cut * 10);
        bed.server.state().cut_out = Some(cut * 9);
        guest.put_write(0, 3, 512, 7);
        guest.put(1, IN, 5, 512);
        guest.put(2, FLUSH_ALL, 0, 0);
        guest.kick();
        bed.sleep(SECOND, &mut [&mut guest]);
        bed.turns(500, &mut [&mut guest]);
        assert_eq!(guest.statuses(3), [OK; 3], "{cut}");
        assert_eq!((bed.server.state().bytes[3 * 512], guest.data(1, 1)), (7, vec![3]));
    }
}

#[test]
fn requests_wait_for_a_server_that_is_restarted() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.server.state().is_prompt = false;
    (0..4).for_each(|n| guest.put_write(n, n.into(), 512, 7));
    guest.kick();
    bed.turns(2, &mut [&mut guest]);
    bed.server.answer(0);
    bed.server.kill();
    bed.sleep(20 * SECOND, &mut [&mut guest]);
    assert_eq!(guest.statuses(4).iter().filter(|status| **status == NONE).count(), 4);
    bed.server.state().is_up = true;
    bed.server.state().is_prompt = true;
    bed.sleep(3 * SECOND, &mut [&mut guest]);
    assert_eq!((guest.statuses(4), bed.server.state().connections), (vec![OK; 4], 2));
    (0..4).for_each(|n| assert_eq!(bed.server.state().bytes[n * 512], 7));
}

#[test]
fn requests_fail_when_the_server_stays_away_and_work_when_it_is_back() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.server.kill();
    guest.put_write(0, 3, 512, 7);
    guest.kick();
    bed.sleep(29 * SECOND, &mut [&mut guest]);
    assert_eq!(guest.status(0), NONE);
    bed.sleep(2 * SECOND, &mut [&mut guest]);
    assert_eq!((guest.status(0), guest.pins()), (IOERR, 0));
    // At once: it is known to be away.
    guest.put(1, IN, 0, 512);
    guest.kick();
    bed.turns(3, &mut [&mut guest]);
    assert_eq!(guest.status(1), IOERR);
    bed.server.state().is_up = true;
    bed.sleep(3 * SECOND, &mut [&mut guest]);
    guest.put(2, IN, 0, 512);
    guest.kick();
    bed.turns(3, &mut [&mut guest]);
    assert_eq!(guest.status(2), OK);
    // What had failed was not sent later.
    assert_eq!(bed.server.state().carried_out, [asked(CMD_READ, 0, 0, 512)]);
}

#[test]
fn a_server_that_says_nothing_is_asked_on_another_connection() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.server.state().is_prompt = false;
    guest.put_write(0, 3, 512, 7);
    guest.kick();
    bed.turns(2, &mut [&mut guest]);
    assert_eq!(bed.server.waiting(), 1);
    bed.server.state().is_prompt = true;
    bed.sleep(14 * SECOND, &mut [&mut guest]);
    assert_eq!((guest.status(0), bed.server.state().connections), (NONE, 1));
    bed.sleep(2 * SECOND, &mut [&mut guest]);
    assert_eq!((guest.status(0), bed.server.state().connections), (OK, 2));
}

#[test]
fn an_idle_connection_is_made_again_before_it_is_needed() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.sleep(100 * SECOND, &mut [&mut guest]);
    assert_eq!((bed.server.state().connections, bed.disks.deadline_ns()), (1, None));
    bed.server.cut();
    bed.sleep(SECOND, &mut [&mut guest]);
    assert_eq!(bed.server.state().connections, 2);
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.turns(3, &mut [&mut guest]);
    assert_eq!(guest.status(0), OK);
}

fn comes_back(change: impl Fn(&NbdServer)) -> (u8, NbdBed) {
    let bed = bed();
    let mut guest = bed.guest();
    bed.server.cut();
    change(&bed.server);
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.sleep(SECOND, &mut [&mut guest]);
    let status = guest.status(0);
    drop(guest);
    bed.turns(2, &mut []);
    (status, bed)
}

#[test]
fn an_export_that_comes_back_as_another_is_not_served() {
    assert_eq!(comes_back(|server| server.state().bytes.truncate(100 * 512)).0, IOERR);
    assert_eq!(comes_back(|server| server.state().flags |= READ_ONLY).0, IOERR);
    assert_eq!(comes_back(|server| server.state().flags &= !SEND_FLUSH).0, IOERR);
    assert_eq!(comes_back(|server| server.state().sizes = Some((4096, 1 << 20))).0, IOERR);
}

#[test]
fn an_export_that_comes_back_larger_is_served() {
    assert_eq!(comes_back(|server| server.state().bytes.resize(600 * 512, 0)).0, OK);
}

#[test]
fn an_export_that_was_another_can_be_opened_anew() {
    let (status, bed) = comes_back(|server| server.state().bytes.truncate(100 * 512));
    assert_eq!((status, bed.open_disks()), (IOERR, 0));
    assert!(bed.open("nbd:10.0.0.1/disk", Access::ReadWrite).is_ok());
}

#[test]
fn after_a_reset_nothing_is_sent_again() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.server.state().is_prompt = false;
    guest.put_write(0, 3, 512, 1);
    guest.kick();
    bed.turns(2, &mut [&mut guest]);
    guest.start();
    guest.put_write(0, 3, 512, 2);
    guest.kick();
    bed.turns(2, &mut [&mut guest]);
    assert_eq!(bed.server.waiting(), 1);
    bed.server.cut();
    bed.server.state().is_prompt = true;
    bed.sleep(SECOND, &mut [&mut guest]);
    assert_eq!((guest.status(0), bed.server.state().bytes[3 * 512]), (OK, 2));
    assert_eq!(bed.server.state().carried_out.len(), 1);
}
