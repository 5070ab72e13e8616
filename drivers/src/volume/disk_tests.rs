//! A disk among its users, on a drive that answers when told to.

use super::*;
use crate::block::{Begun, Operation};
use crate::drive::TIME_LIMIT_NS;
use crate::fake::drive::FakeDisk;
use std::boxed::Box;
use std::string::ToString;

const READ: Operation = Operation::Read { sector: 0, length: 512 };
const WRITE: Operation = Operation::Write { sector: 8, length: 512 };

fn disk(slots: u16) -> (FakeDisk, Disk) {
    let fake = FakeDisk::new(1024, slots);
    fake.state().is_prompt = false;
    let disk = Disk::new("blk0".to_string(), Box::new(fake.drive()));
    (fake, disk)
}

fn begin(disk: &mut Disk, client: ClientKey, operation: Operation) -> Begun {
    disk.begin(client, Tag(7), operation, |buffer| {
        buffer.fill(1);
        Ok(())
    })
}

#[test]
fn users_share_the_slots() {
    let (_, mut disk) = disk(8);
    let first = disk.open(0..1024);
    assert_eq!(disk.room(first), 8);
    let second = disk.open(0..1024);
    assert_eq!((disk.room(first), disk.room(second)), (4, 4));
    assert_eq!(begin(&mut disk, first, READ), Begun::Pending);
    assert_eq!((disk.room(first), disk.room(second)), (3, 4));
}

#[test]
fn the_device_is_told_once_of_many_commands() {
    let (fake, mut disk) = disk(8);
    let client = disk.open(0..1024);
    assert_eq!(begin(&mut disk, client, READ), Begun::Pending);
    assert_eq!(begin(&mut disk, client, WRITE), Begun::Pending);
    disk.kick();
    disk.kick();
    assert_eq!(fake.state().kicks, 1);
}

#[test]
fn a_slot_is_free_when_what_was_read_is_taken() {
    let (fake, mut disk) = disk(1);
    let client = disk.open(0..1024);
    fake.state().bytes[0] = 9;
    assert_eq!(begin(&mut disk, client, READ), Begun::Pending);
    fake.carry_out_all();
    assert!(disk.poll(0));
    assert_eq!(disk.room(client), 0);
    let done = disk.next_done(client).unwrap();
    let mut first = 0;
    let took = disk.finish(done.outcome, |bytes| {
        first = bytes[0];
        Ok(())
    });
    assert_eq!((took, first, disk.room(client)), (Ok(()), 9, 1));
}

#[test]
fn an_error_concerns_one_command() {
    let (fake, mut disk) = disk(8);
    let client = disk.open(0..1024);
    fake.state().errors.push_back(DriveError::Io);
    assert_eq!(begin(&mut disk, client, WRITE), Begun::Pending);
    assert_eq!(begin(&mut disk, client, WRITE), Begun::Pending);
    fake.carry_out_all();
    disk.poll(0);
    let outcomes = [(); 2].map(|()| disk.next_done(client).unwrap().outcome);
    assert_eq!(outcomes, [Err(DriveError::Io.into()), Ok(None)]);
    assert_eq!((disk.counters().errors, disk.room(client)), (1, 8));
}

#[test]
fn a_disk_that_does_not_answer_fails_everything_until_it_does() {
    let (fake, mut disk) = disk(8);
    let client = disk.open(0..1024);
    disk.poll(5);
    assert_eq!(begin(&mut disk, client, WRITE), Begun::Pending);
    assert_eq!(disk.deadline_ns(), Some(5 + TIME_LIMIT_NS));
    assert!(!disk.poll(4 + TIME_LIMIT_NS));
    assert!(disk.poll(5 + TIME_LIMIT_NS));
    assert_eq!(disk.next_done(client).unwrap().outcome, Err(DriveError::Silent.into()));
    assert_eq!(begin(&mut disk, client, READ), Begun::Done(Err(DriveError::Silent.into())));
    fake.carry_out_all();
    disk.poll(6 + TIME_LIMIT_NS);
    assert_eq!((disk.room(client), disk.deadline_ns()), (8, None));
    assert_eq!(begin(&mut disk, client, READ), Begun::Pending);
}

#[test]
fn a_domain_that_was_paused_gives_its_disk_the_time_anew() {
    let (fake, mut disk) = disk(8);
    let client = disk.open(0..1024);
    disk.poll(5);
    assert_eq!(begin(&mut disk, client, WRITE), Begun::Pending);
    let back_ns = 3 * TIME_LIMIT_NS;
    assert!(!disk.poll(back_ns));
    assert_eq!((disk.next_done(client), disk.deadline_ns()), (None, Some(back_ns + TIME_LIMIT_NS)));
    assert_eq!(begin(&mut disk, client, WRITE), Begun::Pending);
    fake.carry_out_all();
    assert!(disk.poll(back_ns + 1));
    let outcomes = [(); 2].map(|()| disk.next_done(client).unwrap().outcome);
    assert_eq!(outcomes, [Ok(None), Ok(None)]);
    // The time is over once all the same.
    assert_eq!(begin(&mut disk, client, WRITE), Begun::Pending);
    disk.poll(back_ns + 2 * TIME_LIMIT_NS);
    assert!(disk.poll(back_ns + 3 * TIME_LIMIT_NS));
    assert_eq!(disk.next_done(client).unwrap().outcome, Err(DriveError::Silent.into()));
}

#[test]
fn what_is_begun_later_is_not_overtaken_by_an_abandoned_write() {
    let (fake, mut disk) = disk(8);
    let (here, elsewhere) = (disk.open(0..16), disk.open(16..32));
    assert_eq!(begin(&mut disk, here, WRITE), Begun::Pending);
    disk.close(here);
    let next = disk.open(0..16);
    assert_eq!((disk.room(next), disk.room(elsewhere)), (0, 4));
    fake.carry_out_all();
    disk.poll(0);
    assert_eq!((disk.room(next), disk.next_done(next)), (4, None));
}

#[test]
fn a_disk_out_of_order_fails_all_at_once() {
    let (fake, mut disk) = disk(8);
    let client = disk.open(0..1024);
    assert_eq!(begin(&mut disk, client, READ), Begun::Pending);
    fake.state().is_broken = true;
    assert!(disk.poll(0));
    assert_eq!(disk.next_done(client).unwrap().outcome, Err(DriveError::Broken.into()));
    assert_eq!(begin(&mut disk, client, READ), Begun::Done(Err(DriveError::Broken.into())));
    assert_eq!((disk.settle(), disk.deadline_ns()), (false, None));
}

#[test]
fn cancelled_reads_free_their_slots() {
    let (fake, mut disk) = disk(2);
    let client = disk.open(0..1024);
    assert_eq!(begin(&mut disk, client, READ), Begun::Pending);
    assert_eq!(begin(&mut disk, client, READ), Begun::Pending);
    fake.carry_out(0);
    disk.poll(0);
    disk.cancel(client);
    assert_eq!(disk.room(client), 1);
    fake.carry_out(0);
    disk.poll(0);
    assert_eq!((disk.room(client), disk.next_done(client)), (2, None));
}

#[test]
fn more_users_than_slots_take_turns() {
    let (fake, mut disk) = disk(1);
    let (first, second) = (disk.open(0..1024), disk.open(0..1024));
    assert_eq!(disk.room(first), 1);
    assert_eq!(begin(&mut disk, first, WRITE), Begun::Pending);
    assert_eq!(disk.room(second), 0);
    fake.carry_out_all();
    disk.poll(0);
    // The first is quicker to ask again.
    assert_eq!((disk.room(first), disk.room(second)), (0, 1));
    assert_eq!(begin(&mut disk, second, WRITE), Begun::Pending);
    fake.carry_out_all();
    disk.poll(0);
    assert_eq!((disk.room(first), disk.room(second)), (1, 0));
}

#[test]
fn a_disk_with_nothing_to_do_wakes_nobody() {
    let (fake, mut disk) = disk(2);
    let client = disk.open(0..1024);
    assert_eq!(begin(&mut disk, client, WRITE), Begun::Pending);
    assert_eq!(disk.deadline_ns(), Some(TIME_LIMIT_NS));
    fake.carry_out_all();
    disk.poll(1);
    assert_eq!(disk.deadline_ns(), None);
}
