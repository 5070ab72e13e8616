//! Requests of a guest on a physical disk: many under way, answered as the disk answers.

mod common;

use common::disk_bed::{
    DISCARD, DiskBed, DiskGuest, FLUSH_ALL, IN, IOERR, NONE, OK, OUT, RING_PINS, WRITE_ZEROES, data,
};
use drivers::block::Operation;
use drivers::drive::DriveError;
use drivers::fake::drive::FakeDisk;
use drivers::virtio::blk::config::FLUSH;
use drivers::volume::registry::Access;
use drivers::volume::spec::Part;

fn put_reads(guest: &mut DiskGuest, count: u16) {
    for n in 0..count {
        guest.put(n, IN, n.into(), 512);
    }
    guest.kick();
}

/// A disk whose sector `n` is full of `n`.
fn numbered(bed: &DiskBed) {
    let numbers = (0..).flat_map(|sector: usize| [sector.to_le_bytes()[0]; 512]);
    bed.fake.state().bytes.iter_mut().zip(numbers).for_each(|(to, number)| *to = number);
}

#[test]
fn requests_beyond_the_slots_wait_in_the_ring() {
    let bed = DiskBed::new(64, 4);
    let mut guest = bed.guest();
    put_reads(&mut guest, 10);
    bed.turn(&mut [&mut guest]);
    assert_eq!((bed.at_device(), guest.pins(), guest.given_back()), (4, 4, vec![]));
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.given_back(), Vec::from_iter(0..10));
    assert_eq!((guest.statuses(10), guest.pins()), (vec![OK; 10], 0));
}

#[test]
fn a_slot_that_becomes_free_takes_the_next_request() {
    let bed = DiskBed::new(64, 2);
    let mut guest = bed.guest();
    put_reads(&mut guest, 3);
    bed.turn(&mut [&mut guest]);
    bed.carry_out(1, &mut [&mut guest]);
    assert_eq!((guest.given_back(), bed.at_device()), (vec![1], 2));
}

#[test]
fn answers_may_come_in_any_order() {
    let bed = DiskBed::new(64, 8);
    numbered(&bed);
    let mut guest = bed.guest();
    put_reads(&mut guest, 8);
    bed.turn(&mut [&mut guest]);
    [7, 0, 3, 1, 3, 0, 0, 0].iter().for_each(|index| bed.fake.carry_out(*index));
    bed.turn(&mut [&mut guest]);
    assert_eq!(guest.given_back(), [7, 0, 4, 2, 6, 1, 3, 5]);
    assert_eq!(
        [0, 1, 2, 3, 4, 5, 6, 7].map(|n| guest.data(n, 512)),
        [0, 1, 2, 3, 4, 5, 6, 7].map(|n| vec![n; 512])
    );
}

#[test]
fn the_device_is_told_once_of_all_requests() {
    let bed = DiskBed::new(64, 8);
    let mut guest = bed.guest();
    put_reads(&mut guest, 8);
    bed.turn(&mut [&mut guest]);
    assert_eq!(bed.fake.state().kicks, 1);
}

#[test]
fn many_answers_make_one_interrupt() {
    let bed = DiskBed::new(64, 8);
    let mut guest = bed.guest();
    put_reads(&mut guest, 8);
    bed.turn(&mut [&mut guest]);
    bed.fake.carry_out_all();
    bed.turn(&mut [&mut guest]);
    assert_eq!(guest.guest.line.edges(), 1);
}

#[test]
fn a_full_queue_is_served_with_one_slot() {
    let bed = DiskBed::new(128, 1);
    numbered(&bed);
    let mut guest = bed.guest();
    put_reads(&mut guest, 85);
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.given_back(), Vec::from_iter(0..85));
    assert_eq!(guest.data(84, 512), [84; 512]);
}

#[test]
fn large_read_is_cut_with_one_slot() {
    let bed = DiskBed::new(128, 1);
    numbered(&bed);
    let mut guest = bed.guest();
    guest.put(0, IN, 3, 5 * 4096 + 512);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    assert_eq!(bed.at_device(), 1);
    bed.finish(&mut [&mut guest]);
    let whole = bed.fake.state().bytes[3 * 512..][..5 * 4096 + 512].to_vec();
    assert_eq!((guest.data(0, whole.len()), guest.given_back()), (whole, vec![0]));
    assert_eq!(guest.guest.used(0).1, 5 * 4096 + 512 + 1);
}

#[test]
fn large_write_is_cut_with_two_slots_answered_out_of_order() {
    let bed = DiskBed::new(128, 2);
    let mut guest = bed.guest();
    let written: Vec<u8> = (0..0x6000).map(|byte| (byte % 251) as u8).collect();
    guest.fill(0, &written);
    guest.put(0, OUT, 9, 0x6000);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    [1, 1, 0, 1, 0].iter().for_each(|index| bed.carry_out(*index, &mut [&mut guest]));
    assert_eq!(guest.status(0), NONE);
    bed.carry_out(0, &mut [&mut guest]);
    assert_eq!((guest.status(0), guest.pins()), (OK, 0));
    assert_eq!(bed.fake.state().bytes[9 * 512..][..0x6000], written);
}

#[test]
fn small_requests_follow_a_large_one() {
    let bed = DiskBed::new(128, 2);
    numbered(&bed);
    let mut guest = bed.guest();
    guest.put(0, IN, 0, 0x6000);
    guest.put(1, IN, 50, 512);
    guest.put(2, IN, 0, 0x6000);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.statuses(3), guest.data(1, 512)), (vec![OK; 3], vec![50; 512]));
}

#[test]
fn error_of_one_piece_fails_its_request_once() {
    let bed = DiskBed::new(128, 4);
    let mut guest = bed.guest();
    guest.put(0, IN, 0, 0x8000);
    guest.put(1, IN, 50, 512);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.fake.state().errors.push_back(DriveError::Io);
    bed.carry_out(2, &mut [&mut guest]);
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.given_back(), guest.statuses(2)), (vec![0, 1], vec![IOERR, OK]));
    assert_eq!((guest.guest.used(0).1, guest.pins()), (0, 0));
}

#[test]
fn a_failed_request_begins_no_more_pieces() {
    let bed = DiskBed::new(128, 1);
    let mut guest = bed.guest();
    guest.put(0, OUT, 0, 0x8000);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    bed.fake.state().errors.push_back(DriveError::Io);
    bed.finish(&mut [&mut guest]);
    assert_eq!((bed.fake.state().carried_out.len(), guest.status(0)), (1, IOERR));
}

#[test]
fn what_the_disk_does_not_support_reports_ioerr() {
    let bed = DiskBed::new(64, 4);
    let mut guest = bed.guest();
    bed.fake.state().errors.push_back(DriveError::Unsupported);
    guest.put(0, FLUSH_ALL, 0, 0);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.status(0), IOERR);
}

#[test]
fn ranges_are_carried_out_one_after_the_other() {
    let bed = DiskBed::new(64, 4);
    bed.fake.state().bytes.fill(7);
    let mut guest = bed.guest();
    guest.put_ranges(0, DISCARD, &[(1, 2), (8, 0), (10, 3)]);
    guest.put_ranges(1, WRITE_ZEROES, &[(20, 1)]);
    guest.kick();
    bed.turn(&mut [&mut guest]);
    let commands = bed.fake.state().at_device.iter().map(|(_, command, _)| *command).collect::<Vec<_>>();
    let first = Operation::Discard { sector: 1, sectors: 2 };
    assert_eq!(commands, [first, Operation::WriteZeroes { sector: 20, sectors: 1 }]);
    bed.finish(&mut [&mut guest]);
    assert_eq!(bed.fake.state().carried_out[2], Operation::Discard { sector: 10, sectors: 3 });
    assert_eq!(guest.statuses(2), [OK, OK]);
}

#[test]
fn a_range_after_a_failed_one_is_left_alone() {
    let bed = DiskBed::new(64, 4);
    let mut guest = bed.guest();
    bed.fake.state().errors.push_back(DriveError::Io);
    guest.put_ranges(0, WRITE_ZEROES, &[(1, 2), (10, 3)]);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((bed.fake.state().carried_out.len(), guest.status(0)), (1, IOERR));
}

#[test]
fn a_read_only_disk_takes_no_command_that_writes() {
    let bed = DiskBed::new(64, 4);
    let volume = bed.open(Part::Whole, Access::ReadOnly).unwrap();
    let mut guest = DiskGuest::new(volume, FLUSH);
    guest.put(0, OUT, 0, 512);
    guest.put_ranges(1, DISCARD, &[(0, 1)]);
    guest.put(2, IN, 0, 512);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.statuses(3), [IOERR, IOERR, OK]);
    assert_eq!(bed.fake.state().carried_out, [Operation::Read { sector: 0, length: 512 }]);
}

#[test]
fn large_blocks_are_told_and_kept_whole() {
    let fake = FakeDisk::new(64, 4);
    fake.state().facts.block_bytes = 4096;
    let bed = DiskBed::over(fake);
    let mut guest = bed.guest();
    assert_eq!(guest.guest.read(common::CONFIG + 0x14), 4096);
    guest.put(0, IN, 8, 0x6000);
    guest.put(1, IN, 4, 4096);
    guest.put(2, IN, 8, 512);
    guest.put_ranges(3, DISCARD, &[(8, 4)]);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.statuses(4), [OK, IOERR, IOERR, IOERR]);
}

#[test]
fn a_read_into_memory_that_went_away_frees_its_slot() {
    let bed = DiskBed::new(64, 1);
    let mut guest = bed.guest();
    guest.guest.memory.punch_hole(data(0));
    guest.put(0, IN, 0, 512);
    guest.put(1, IN, 0, 512);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!((guest.statuses(2), guest.guest.memory.pins()), (vec![IOERR, OK], RING_PINS));
}
