//! Requests under way when something goes wrong: resets, broken queues, a disk that is silent or breaks down, no slots
//! for guest memory. Nobody waits for ever, nothing is told twice, everything is given back.

mod common;

use common::disk_bed::{DISCARD, DiskBed, FLUSH_ALL, IN, IOERR, NONE, OK, OUT, data};
use common::{QUEUE_READY, RING_FEATURES, STATUS};
use drivers::drive::TIME_LIMIT_NS;
use drivers::fake::drive::FakeDisk;
use drivers::volume::registry::Access;
use drivers::volume::spec::Part;

const FAILED: u32 = 128;

#[test]
fn after_a_reset_nothing_is_given_back() {
    let bed = DiskBed::new(128, 8);
    let mut guest = bed.guest();
    (0..4).for_each(|n| guest.put(n, IN, n.into(), 512));
    guest.put_write(4, 9, 0x8000, 1);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.reset();
    assert_eq!(guest.guest.memory.pins(), 0);
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.given_back(), guest.statuses(5)), (vec![], vec![NONE; 5]));
    assert_eq!(guest.data(0, 512), [0; 512]);
}

#[test]
fn after_a_reset_the_slots_come_back_with_the_answers() {
    let bed = DiskBed::new(64, 2);
    let mut guest = bed.guest();
    (0..4).for_each(|n| guest.put(n, IN, n.into(), 512));
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.start();
    (0..4).for_each(|n| guest.put(n, IN, n.into(), 512));
    guest.kick();
    bed.turn(&mut [&mut guest]);
    assert_eq!(bed.at_device(), 2);
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.given_back(), guest.statuses(4)), (vec![0, 1, 2, 3], vec![OK; 4]));
}

#[test]
fn answers_taken_before_a_reset_are_not_told_after_it() {
    let bed = DiskBed::new(64, 2);
    let mut guest = bed.guest();
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.fake.carry_out_all();
    bed.disk.borrow_mut().poll(0);
    guest.start();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.given_back(), guest.pins()), (vec![], 0));
}

#[test]
fn a_write_begun_after_a_reset_is_not_overtaken() {
    let bed = DiskBed::new(64, 8);
    let mut guest = bed.guest();
    guest.put_write(0, 3, 512, 1);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.start();
    guest.put_write(0, 3, 512, 2);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    assert_eq!(bed.at_device(), 1);
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.status(0), bed.fake.state().bytes[3 * 512]), (OK, 2));
}

#[test]
fn a_discard_begun_before_a_reset_does_not_go_on() {
    let bed = DiskBed::new(64, 8);
    let mut guest = bed.guest();
    guest.put_ranges(0, DISCARD, &[(0, 1), (8, 1)]);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.start();
    bed.finish(&mut [&mut guest]);
    assert_eq!(bed.fake.state().carried_out.len(), 1);
}

/// What a guest left at a silent disk must not keep it waiting for ever.
#[test]
fn a_disk_silent_since_before_a_reset_fails_what_comes_after() {
    let bed = DiskBed::new(64, 8);
    let mut guest = bed.guest();
    guest.put_write(0, 3, 512, 1);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.start();
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.pass(TIME_LIMIT_NS);
    bed.turn(&mut [&mut guest]);
    assert_eq!(guest.status(0), IOERR);
}

#[test]
fn a_broken_queue_gives_everything_back() {
    let bed = DiskBed::new(64, 8);
    let mut guest = bed.guest();
    (0..4).for_each(|n| guest.put(n, IN, n.into(), 512));
    guest.put(4, OUT, 0, 0x8000);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.guest.publish(1000);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    assert!(guest.guest.needs_reset());
    assert_eq!(guest.pins(), 0);
    bed.finish(&mut [&mut guest]);
    guest.start();
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.given_back(), guest.status(0)), (vec![0], OK));
}

/// A guest that stops its queue, without a reset, must not keep slots from others.
#[test]
fn a_queue_that_is_stopped_keeps_no_slots() {
    let bed = DiskBed::new(64, 2);
    let mut guest = bed.guest();
    (0..2).for_each(|n| guest.put(n, IN, n.into(), 512));
    guest.kick();
    bed.turn(&mut [&mut guest]);
    let _ = guest.guest.write(QUEUE_READY, 0);
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.guest.memory.pins(), 0);
    assert!(bed.open(Part::Whole, Access::ReadOnly).is_err());
    guest.start();
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.status(0), OK);
}

#[test]
fn a_device_given_up_by_its_guest_keeps_no_pins() {
    let bed = DiskBed::new(64, 2);
    let mut guest = bed.guest();
    (0..2).for_each(|n| guest.put(n, IN, n.into(), 512));
    guest.kick();
    bed.turn(&mut [&mut guest]);
    let _ = guest.guest.write(STATUS, 1 | 2 | 4 | 8 | FAILED);
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.pins(), 0);
}

#[test]
fn a_silent_disk_reports_ioerr_and_recovers() {
    let bed = DiskBed::new(64, 2);
    let mut guest = bed.guest();
    (0..3).for_each(|n| guest.put_write(n, n.into(), 512, 1));
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.pass(TIME_LIMIT_NS - 1);
    bed.turn(&mut [&mut guest]);
    assert_eq!(guest.statuses(3), [NONE; 3]);
    bed.pass(1);
    bed.turn(&mut [&mut guest]);
    assert_eq!((guest.statuses(3), guest.pins()), (vec![IOERR; 3], 0));
    bed.fake.carry_out_all();
    bed.turn(&mut [&mut guest]);
    guest.put(3, IN, 0, 512);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.status(3), guest.given_back()), (OK, vec![0, 1, 2, 3]));
}

#[test]
fn a_large_request_on_a_silent_disk_fails_once() {
    let bed = DiskBed::new(64, 2);
    let mut guest = bed.guest();
    guest.put(0, IN, 0, 0x8000);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.pass(TIME_LIMIT_NS);
    bed.turn(&mut [&mut guest]);
    assert_eq!((guest.status(0), guest.given_back(), guest.pins()), (IOERR, vec![0], 0));
}

#[test]
fn a_disk_that_breaks_down_fails_everything_at_once() {
    let bed = DiskBed::new(64, 2);
    let mut guest = bed.guest();
    guest.put(0, FLUSH_ALL, 0, 0);
    guest.put(1, IN, 0, 0x8000);
    (2..5).for_each(|n| guest.put_write(n, 0, 512, 1));
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.fake.state().is_broken = true;
    bed.turn(&mut [&mut guest]);
    assert_eq!((guest.statuses(5), guest.pins()), (vec![IOERR; 5], 0));
    assert_eq!(guest.given_back().len(), 5);
}

#[test]
fn requests_that_find_no_pin_are_served_in_small_pieces() {
    let bed = DiskBed::new(64, 4);
    bed.fake.state().bytes.fill(7);
    let mut guest = bed.guest();
    guest.guest.memory.set_largest_pin(4096);
    (0..3).for_each(|n| guest.put(n, IN, 0, 4096));
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.statuses(3), guest.pins()), (vec![OK; 3], 0));
    assert_eq!(guest.data(2, 4096), [7; 4096]);
}

/// Two requests of one batch find no pin for their data while another is under way.
#[test]
fn every_request_that_has_to_wait_for_pins_is_answered() {
    let bed = DiskBed::new(64, 8);
    bed.fake.state().bytes.fill(7);
    let mut guest = bed.guest();
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.guest.memory.set_largest_pin(1024);
    guest.put(1, IN, 0, 4096);
    guest.put(2, IN, 8, 4096);
    guest.put(3, IN, 8, 512);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.guest.memory.set_largest_pin(u32::MAX);
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.statuses(4), guest.pins()), (vec![OK; 4], 0));
    assert_eq!(guest.guest.bytes(data(1), 8 * 512), [7; 4096]);
}

#[test]
fn nothing_breaks_while_our_own_requests_hold_all_pins() {
    let bed = DiskBed::new(64, 8);
    let mut guest = bed.guest();
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.guest.memory.set_largest_pin(0);
    guest.put(1, FLUSH_ALL, 0, 0);
    guest.put_ranges(2, DISCARD, &[(0, 1)]);
    guest.put_write(3, 8, 4096, 7);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    assert_eq!((guest.statuses(4), guest.guest.needs_reset()), (vec![NONE; 4], false));
    guest.guest.memory.set_largest_pin(u32::MAX);
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.statuses(4), guest.pins()), (vec![OK; 4], 0));
}

#[test]
fn a_table_that_finds_no_pin_waits_for_our_own_requests() {
    let bed = DiskBed::new(64, 8);
    let mut guest = bed.guest_with(RING_FEATURES);
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    guest.guest.memory.set_largest_pin(0);
    guest.put_indirect(1, IN, 0, 512);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    assert!(!guest.guest.needs_reset());
    guest.guest.memory.set_largest_pin(u32::MAX);
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.statuses(2), guest.pins()), (vec![OK; 2], 0));
}

/// A block is the least that can be transferred, so there is nothing smaller to try.
#[test]
fn large_blocks_that_find_no_pin_report_ioerr() {
    let fake = FakeDisk::new(64, 2);
    fake.state().facts.block_bytes = 8192;
    fake.state().facts.buffer_bytes = 8192;
    let bed = DiskBed::over(fake);
    let mut guest = bed.guest();
    guest.guest.memory.set_largest_pin(4096);
    guest.put(0, IN, 0, 8192);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.status(0), guest.pins()), (IOERR, 0));
}
