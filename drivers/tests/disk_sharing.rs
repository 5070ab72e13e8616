//! Guests that share a physical disk: each stays on its own sectors, and gets its part of the disk's slots.

mod common;

use common::disk_bed::{DiskBed, DiskGuest, FLUSH_ALL, IN, IOERR, NONE, OK, OUT};
use common::gpt_image::write_table;
use common::{QUEUE_READY, STATUS};
use drivers::block::Operation;
use drivers::virtio::Features;
use drivers::virtio::blk::config::FLUSH;
use drivers::volume::registry::Access;
use drivers::volume::spec::{Part, VolumeSpec};
use std::pin::pin;
use std::task::{Context, Waker};

/// A disk with a partition of 32 sectors from 8 on, and one of 40 sectors behind it.
fn bed(slots: u16) -> DiskBed {
    let bed = DiskBed::new(128, slots);
    write_table(&mut bed.fake.state().bytes, &[(8, 39), (40, 79)]);
    bed
}

/// Two guests, one for each partition.
fn guests(bed: &DiskBed) -> (DiskGuest, DiskGuest) {
    let guests = (bed.guest_of_partition(1), bed.guest_of_partition(2));
    bed.fake.state().carried_out.clear();
    guests
}

fn flood(guest: &mut DiskGuest) {
    (0..85).for_each(|n| guest.put(n, IN, 0, 512));
    guest.kick();
}

#[test]
fn a_partition_begins_with_sector_0() {
    let bed = bed(4);
    let (mut first, mut second) = guests(&bed);
    first.put_write(0, 0, 512, 1);
    second.put_write(0, 39, 512, 2);
    first.kick();
    second.kick();
    bed.finish(&mut [&mut first, &mut second]);
    let bytes = bed.fake.state().bytes.clone();
    assert_eq!((bytes[8 * 512], bytes[79 * 512]), (1, 2));
}

#[test]
fn a_partition_tells_its_own_size() {
    let (first, second) = guests(&bed(4));
    assert_eq!((first.guest.read(common::CONFIG), second.guest.read(common::CONFIG)), (32, 40));
}

#[test]
fn no_request_reaches_beyond_its_partition() {
    let bed = bed(4);
    let (mut first, _second) = guests(&bed);
    first.put(0, IN, 32, 512);
    first.put(1, OUT, 31, 1024);
    first.put(2, OUT, u64::MAX - 7, 512);
    first.put_ranges(3, common::disk_bed::DISCARD, &[(31, 2)]);
    first.put(4, IN, 31, 512);
    first.kick();
    bed.finish(&mut [&mut first]);
    assert_eq!(first.statuses(5), [IOERR, IOERR, IOERR, IOERR, OK]);
    assert_eq!(bed.fake.state().carried_out, [Operation::Read { sector: 39, length: 512 }]);
}

#[test]
fn a_flood_leaves_the_other_guest_its_slots() {
    let bed = bed(8);
    let (mut first, mut second) = guests(&bed);
    flood(&mut first);
    bed.turn(&mut [&mut first, &mut second]);
    assert_eq!(bed.at_device(), 4);
    second.put(0, IN, 0, 512);
    second.kick();
    bed.turn(&mut [&mut first, &mut second]);
    assert_eq!(bed.at_device(), 5);
    bed.carry_out(4, &mut [&mut first, &mut second]);
    assert_eq!((second.status(0), first.given_back()), (OK, vec![]));
}

#[test]
fn a_flood_before_the_other_guest_came_ends_with_its_answers() {
    let bed = bed(4);
    let mut first = bed.guest_of_partition(1);
    flood(&mut first);
    bed.turn(&mut [&mut first]);
    assert_eq!(bed.at_device(), 4);
    let volume = bed.open_among(Part::Number(2), Access::ReadWrite, &mut [&mut first]).unwrap();
    let mut second = DiskGuest::new(volume, FLUSH);
    flood(&mut first);
    second.put(0, FLUSH_ALL, 0, 0);
    second.put(1, IN, 0, 512);
    second.kick();
    bed.turn(&mut [&mut first, &mut second]);
    bed.fake.carry_out_all();
    bed.turn(&mut [&mut first, &mut second]);
    bed.fake.carry_out_all();
    bed.turn(&mut [&mut first, &mut second]);
    assert_eq!(second.statuses(2), [OK, OK]);
}

/// The only slot is somebody else's, so the guest has nothing under way, and may not kick: it must be looked at again.
#[test]
fn who_waits_for_anothers_slot_is_not_forgotten() {
    let bed = bed(1);
    let (mut first, mut second) = guests(&bed);
    first.put(0, IN, 0, 512);
    first.kick();
    second.put(0, IN, 0, 512);
    second.kick();
    bed.turn(&mut [&mut first, &mut second]);
    assert_eq!((bed.at_device(), second.status(0)), (1, NONE));
    bed.finish(&mut [&mut first, &mut second]);
    assert_eq!((first.status(0), second.status(0)), (OK, OK));
}

#[test]
fn resets_do_not_win_more_than_the_share_of_slots() {
    let bed = bed(8);
    let (mut first, mut second) = guests(&bed);
    flood(&mut first);
    bed.turn(&mut [&mut first, &mut second]);
    first.start();
    flood(&mut first);
    bed.turn(&mut [&mut first, &mut second]);
    assert_eq!(bed.at_device(), 4);
}

/// Between the write and the flush of a guest without the flush command, another guest takes the slot.
#[test]
fn a_request_in_several_steps_survives_a_lack_of_slots() {
    let bed = bed(1);
    let mut first = bed.guest_of_partition(1);
    let volume = bed.open(Part::Number(2), Access::ReadWrite).unwrap();
    let mut second = DiskGuest::new(volume, Features::empty());
    second.put_write(0, 0, 512, 1);
    second.kick();
    bed.turn(&mut [&mut first, &mut second]);
    first.put(0, IN, 0, 512);
    first.kick();
    bed.carry_out(0, &mut [&mut first, &mut second]);
    assert_eq!((bed.at_device(), second.status(0)), (1, NONE));
    bed.finish(&mut [&mut first, &mut second]);
    assert_eq!((first.status(0), second.status(0)), (OK, OK));
    assert_eq!(bed.fake.state().durable[40 * 512], 1);
}

/// All slots belong to a guest that has stopped its queue, with their answers not taken.
#[test]
fn a_guest_that_stops_its_queue_keeps_no_slots_from_the_other() {
    let bed = bed(4);
    let mut first = bed.guest_of_partition(1);
    flood(&mut first);
    bed.turn(&mut [&mut first]);
    let _ = first.guest.write(QUEUE_READY, 0);
    let mut second = bed.guest_of_partition(2);
    second.put(0, IN, 0, 512);
    second.kick();
    bed.finish(&mut [&mut first, &mut second]);
    assert_eq!(second.status(0), OK);
}

#[test]
fn a_guest_that_failed_keeps_no_slots_from_the_other() {
    let bed = bed(4);
    let mut first = bed.guest_of_partition(1);
    flood(&mut first);
    bed.turn(&mut [&mut first]);
    let _ = first.guest.write(STATUS, 1 | 2 | 4 | 8 | 128);
    let mut second = bed.guest_of_partition(2);
    second.put(0, IN, 0, 512);
    second.kick();
    bed.finish(&mut [&mut first, &mut second]);
    assert_eq!(second.status(0), OK);
}

/// The reader of the partition table waits for less long than guests do.
#[test]
fn an_opening_that_gives_up_fails_nobody_else() {
    let bed = bed(4);
    let mut guest = bed.guest_of_partition(1);
    let spec = VolumeSpec::Disk { disk: 0, part: Part::Number(2) };
    let mut opening = pin!(bed.registry.open(&spec, Access::ReadWrite, 0));
    let context = &mut Context::from_waker(Waker::noop());
    assert!(opening.as_mut().poll(context).is_pending());
    bed.pass(5_000_000_000);
    bed.turn(&mut [&mut guest]);
    assert!(opening.as_mut().poll(context).is_ready());
    guest.put(0, IN, 0, 512);
    guest.kick();
    bed.finish(&mut [&mut guest]);
    assert_eq!(guest.status(0), OK);
}

#[test]
fn who_asked_and_began_nothing_is_not_waited_for() {
    let bed = bed(1);
    let (mut first, mut second) = guests(&bed);
    first.put(0, IN, 99_999, 512);
    first.kick();
    bed.finish(&mut [&mut first, &mut second]);
    assert_eq!(first.status(0), IOERR);
    second.put(0, IN, 0, 512);
    second.kick();
    bed.finish(&mut [&mut first, &mut second]);
    assert_eq!(second.status(0), OK);
    second.put(1, IN, 0, 512);
    second.kick();
    bed.finish(&mut [&mut first, &mut second]);
    assert_eq!(second.status(1), OK);
}

#[test]
fn a_slow_command_is_its_own_guests_trouble() {
    let bed = bed(8);
    let (mut first, mut second) = guests(&bed);
    first.put_ranges(0, common::disk_bed::DISCARD, &[(0, 8)]);
    first.kick();
    bed.turn(&mut [&mut first, &mut second]);
    for n in 0..20 {
        second.put(n, IN, 0, 512);
        second.kick();
        bed.turn(&mut [&mut first, &mut second]);
        bed.pass(1_000_000_000);
        bed.carry_out(1, &mut [&mut first, &mut second]);
        assert_eq!(second.status(n), OK);
    }
    assert_eq!(first.status(0), IOERR);
    second.put(20, IN, 0, 512);
    second.kick();
    bed.turn(&mut [&mut first, &mut second]);
    bed.carry_out(1, &mut [&mut first, &mut second]);
    assert_eq!(second.status(20), OK);
}
