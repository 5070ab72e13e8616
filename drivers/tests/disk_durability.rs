//! When a write is durable (virtio 1.2, 5.2.6.2): with the guest's flush, or, for a guest without that, when it is told
//! to be done.

mod common;

use common::disk_bed::{DISCARD, DiskBed, DiskGuest, FLUSH_ALL, IN, IOERR, NONE, OK};
use drivers::block::Operation;
use drivers::drive::DriveError;
use drivers::fake::drive::FakeDisk;
use drivers::virtio::Features;
use drivers::volume::registry::Access;
use drivers::volume::spec::Part;

/// A guest that did not negotiate the flush command.
fn guest_without_flush(bed: &DiskBed) -> DiskGuest {
    DiskGuest::new(bed.open(Part::Whole, Access::ReadWrite).unwrap(), Features::empty())
}

fn durable(bed: &DiskBed, sector: usize) -> u8 {
    bed.fake.state().durable[sector * 512]
}

#[test]
fn a_write_is_durable_after_the_guests_flush() {
    let bed = DiskBed::new(64, 4);
    let mut guest = bed.guest();
    guest.put_write(0, 3, 512, 9);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.status(0), durable(&bed, 3)), (OK, 0));
    guest.put(1, FLUSH_ALL, 0, 0);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.status(1), durable(&bed, 3)), (OK, 9));
}

#[test]
fn a_flush_waits_for_the_disk() {
    let bed = DiskBed::new(64, 4);
    let mut guest = bed.guest();
    guest.put(0, FLUSH_ALL, 0, 0);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    assert_eq!((guest.status(0), bed.at_device()), (NONE, 1));
}

#[test]
fn a_disk_without_a_cache_is_not_flushed() {
    let fake = FakeDisk::new(64, 4);
    fake.state().facts.has_cache = false;
    let bed = DiskBed::over(fake);
    let mut guest = guest_without_flush(&bed);
    guest.put_write(0, 3, 512, 9);
    // A guest that asks all the same.
    guest.put(1, FLUSH_ALL, 0, 0);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.carry_out(0, &mut [&mut guest]);
    assert_eq!((guest.status(0), guest.status(1)), (OK, OK));
    assert_eq!(bed.fake.state().carried_out, [Operation::Write { sector: 3, length: 512 }]);
}

#[test]
fn without_the_flush_command_a_write_is_told_when_it_is_durable() {
    let bed = DiskBed::new(64, 4);
    let mut guest = guest_without_flush(&bed);
    guest.put_write(0, 3, 512, 9);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.carry_out(0, &mut [&mut guest]);
    assert_eq!((guest.status(0), durable(&bed, 3)), (NONE, 0));
    bed.carry_out(0, &mut [&mut guest]);
    assert_eq!((guest.status(0), durable(&bed, 3)), (OK, 9));
}

#[test]
fn without_the_flush_command_a_large_write_is_flushed_once_after_its_last_piece() {
    let bed = DiskBed::new(64, 2);
    let mut guest = guest_without_flush(&bed);
    guest.put_write(0, 0, 0x3000, 9);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.status(0), durable(&bed, 23)), (OK, 9));
    let flushes = bed.fake.state().carried_out.iter().filter(|command| **command == Operation::Flush).count();
    assert_eq!((flushes, bed.fake.state().carried_out.len()), (1, 4));
}

#[test]
fn without_the_flush_command_a_discard_is_flushed_once_after_its_last_range() {
    let bed = DiskBed::new(64, 2);
    let mut guest = guest_without_flush(&bed);
    guest.put_ranges(0, DISCARD, &[(0, 1), (8, 1)]);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.status(0), OK);
    assert_eq!(bed.fake.state().carried_out[2..], [Operation::Flush]);
}

#[test]
fn without_the_flush_command_a_read_is_not_flushed() {
    let bed = DiskBed::new(64, 2);
    let mut guest = guest_without_flush(&bed);
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!(bed.fake.state().carried_out.len(), 1);
}

#[test]
fn a_write_whose_flush_fails_reports_ioerr() {
    let bed = DiskBed::new(64, 2);
    let mut guest = guest_without_flush(&bed);
    guest.put_write(0, 3, 512, 9);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.carry_out(0, &mut [&mut guest]);
    bed.fake.state().errors.push_back(DriveError::Io);
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.status(0), IOERR);
}

#[test]
fn a_write_that_failed_is_not_flushed() {
    let bed = DiskBed::new(64, 2);
    let mut guest = guest_without_flush(&bed);
    bed.fake.state().errors.push_back(DriveError::Io);
    guest.put_write(0, 3, 512, 9);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.status(0), bed.fake.state().carried_out.len()), (IOERR, 1));
}

/// More writes are done at a time than are answered in one batch; their slots are free before their flushes have begun.
#[test]
fn flushes_find_slots_though_new_requests_wait() {
    let bed = DiskBed::new(256, 42);
    let mut guest = guest_without_flush(&bed);
    (0..85).for_each(|n| guest.put_write(n, n.into(), 512, 9));
    guest.kick();
    bed.turn(&mut [&mut guest]);
    // The first 32 are at their flush, the others are still to be written.
    (0..32).for_each(|_| bed.fake.carry_out(0));
    bed.turn(&mut [&mut guest]);
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.statuses(85), [OK; 85]);
}
