//! Who may open a physical disk and its partitions, and how long that takes.

mod common;

use common::disk_bed::{DiskBed, IN, OK};
use common::gpt_image::write_table;
use drivers::block::VolumeError;
use drivers::drive::{DriveError, TIME_LIMIT_NS};
use drivers::volume::gpt::TableError;
use drivers::volume::registry::{Access, OpenError, OpenVolume};
use drivers::volume::spec::{Part, VolumeSpec};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const READ_LIMIT_NS: u64 = 5_000_000_000;
const FIRST: Part = Part::Number(1);
const SECOND: Part = Part::Number(2);

fn bed() -> DiskBed {
    let bed = DiskBed::new(128, 4);
    write_table(&mut bed.fake.state().bytes, &[(8, 39), (40, 79)]);
    bed
}

fn write(bed: &DiskBed, part: Part) -> Result<OpenVolume, OpenError> {
    bed.open(part, Access::ReadWrite)
}

fn read(bed: &DiskBed, part: Part) -> Result<OpenVolume, OpenError> {
    bed.open(part, Access::ReadOnly)
}

#[test]
fn partitions_are_written_side_by_side() {
    let bed = bed();
    let _first = write(&bed, FIRST).unwrap();
    assert!(write(&bed, SECOND).is_ok());
}

#[test]
fn a_partition_has_one_writer() {
    let bed = bed();
    let _writer = write(&bed, FIRST).unwrap();
    assert_eq!(write(&bed, FIRST).unwrap_err(), OpenError::BeingWritten);
    assert_eq!(read(&bed, FIRST).unwrap_err(), OpenError::BeingWritten);
}

#[test]
fn the_whole_disk_and_a_partition_exclude_each_other() {
    let bed = bed();
    let partition = write(&bed, SECOND).unwrap();
    assert_eq!(read(&bed, Part::Whole).unwrap_err(), OpenError::BeingWritten);
    drop(partition);
    let _whole = write(&bed, Part::Whole).unwrap();
    assert_eq!(read(&bed, SECOND).unwrap_err(), OpenError::BeingWritten);
}

#[test]
fn readers_share_the_disk_and_its_partitions() {
    let bed = bed();
    let _whole = read(&bed, Part::Whole).unwrap();
    let _partition = read(&bed, FIRST).unwrap();
    assert!(read(&bed, FIRST).is_ok());
    assert_eq!(write(&bed, SECOND).unwrap_err(), OpenError::BeingRead);
}

#[test]
fn a_partition_that_is_not_there_is_refused() {
    let refused = write(&bed(), Part::Number(3)).unwrap_err();
    assert!(matches!(refused, OpenError::Table(TableError::NoNumber { number: 3, .. })), "{refused}");
}

#[test]
fn a_disk_that_is_not_there_is_refused() {
    let bed = bed();
    let spec = VolumeSpec::Disk { disk: 1, part: Part::Whole };
    let opening = pin!(bed.registry.open(&spec, Access::ReadOnly, 0));
    let Poll::Ready(opened) = opening.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("there is nothing to wait for")
    };
    assert_eq!(opened.unwrap_err(), OpenError::NoDisk(1, 1));
}

#[test]
fn a_read_only_disk_is_not_opened_for_writing() {
    let fake = drivers::fake::drive::FakeDisk::new(64, 4);
    fake.state().facts.read_only = true;
    let bed = DiskBed::over(fake);
    assert_eq!(write(&bed, Part::Whole).unwrap_err(), OpenError::ReadOnlyDisk);
    assert!(read(&bed, Part::Whole).is_ok());
}

#[test]
fn closing_lets_the_next_one_in() {
    let bed = bed();
    drop(write(&bed, Part::Whole).unwrap());
    assert!(write(&bed, FIRST).is_ok());
}

#[test]
fn a_table_written_by_the_last_owner_counts() {
    let bed = bed();
    drop(write(&bed, Part::Whole).unwrap());
    write_table(&mut bed.fake.state().bytes, &[(8, 19)]);
    let volume = write(&bed, FIRST).unwrap();
    assert_eq!(drivers::block::Volume::<drivers::fake::FakePinned>::geometry(&volume).sectors, 12);
}

#[test]
fn what_is_under_way_at_closing_ends_before_the_next_owner_begins() {
    let bed = bed();
    let mut last = bed.guest();
    last.put_write(0, 3, 512, 1);
    last.kick();
    bed.turn(&mut [&mut last]);
    drop(last);
    let mut next = bed.guest();
    bed.fake.state().bytes[3 * 512] = 9;
    next.put(0, IN, 3, 512);
    next.kick();
    bed.finish(&mut [&mut next]);
    assert_eq!((next.status(0), next.data(0, 1)), (OK, vec![9]));
}

#[test]
fn a_dropped_opening_leaves_nothing_behind() {
    let bed = bed();
    let spec = VolumeSpec::Disk { disk: 0, part: FIRST };
    let mut opening = Box::pin(bed.registry.open(&spec, Access::ReadWrite, 0));
    assert!(opening.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(opening);
    assert!(write(&bed, Part::Whole).is_ok());
}

#[test]
fn an_opening_does_not_wait_for_a_silent_disk_for_ever() {
    let bed = bed();
    let spec = VolumeSpec::Disk { disk: 0, part: FIRST };
    let mut opening = pin!(bed.registry.open(&spec, Access::ReadWrite, 0));
    let context = &mut Context::from_waker(Waker::noop());
    assert!(opening.as_mut().poll(context).is_pending());
    bed.disk.borrow_mut().poll(READ_LIMIT_NS - 1);
    assert!(opening.as_mut().poll(context).is_pending());
    bed.disk.borrow_mut().poll(READ_LIMIT_NS);
    let Poll::Ready(Err(refused)) = opening.as_mut().poll(context) else { panic!("it still waits") };
    let silent = VolumeError::Drive(DriveError::Silent);
    assert_eq!(refused, OpenError::Table(TableError::Unreadable(silent)));
}

#[test]
fn a_disk_that_answers_again_can_be_opened() {
    let bed = bed();
    let spec = VolumeSpec::Disk { disk: 0, part: FIRST };
    let mut opening = Box::pin(bed.registry.open(&spec, Access::ReadWrite, 0));
    assert!(opening.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    bed.disk.borrow_mut().poll(READ_LIMIT_NS);
    bed.disk.borrow_mut().poll(TIME_LIMIT_NS);
    drop(opening);
    assert!(matches!(write(&bed, SECOND), Err(OpenError::Table(TableError::Unreadable(_)))));
    assert!(write(&bed, FIRST).is_ok());
}

/// The disk answers once and never again: what comes after is not waited for one by one.
#[test]
fn an_opening_waits_once_for_a_silent_disk() {
    let bed = bed();
    let spec = VolumeSpec::Disk { disk: 0, part: FIRST };
    let mut opening = pin!(bed.registry.open(&spec, Access::ReadWrite, 0));
    let context = &mut Context::from_waker(Waker::noop());
    assert!(opening.as_mut().poll(context).is_pending());
    bed.fake.carry_out_all();
    bed.disk.borrow_mut().poll(0);
    assert!(opening.as_mut().poll(context).is_pending());
    bed.disk.borrow_mut().poll(READ_LIMIT_NS);
    assert!(matches!(opening.as_mut().poll(context), Poll::Ready(Err(OpenError::Table(_)))));
}

#[test]
fn a_slow_answer_gives_an_opening_no_more_time() {
    let bed = bed();
    let spec = VolumeSpec::Disk { disk: 0, part: FIRST };
    let mut opening = pin!(bed.registry.open(&spec, Access::ReadWrite, 0));
    let context = &mut Context::from_waker(Waker::noop());
    assert!(opening.as_mut().poll(context).is_pending());
    bed.fake.carry_out_all();
    bed.disk.borrow_mut().poll(READ_LIMIT_NS - 1);
    assert!(opening.as_mut().poll(context).is_pending());
    bed.disk.borrow_mut().poll(READ_LIMIT_NS);
    assert!(matches!(opening.as_mut().poll(context), Poll::Ready(Err(OpenError::Table(_)))));
}
