//! The driver of virtio disks, on our own device model: the disk behind it is made of host memory.

mod common;

use common::ModelDisk;
use common::model_disk::pattern;
use common::virtual_disk::{VirtualDisk, finish_all, finished, read_at};
use drivers::block::Operation;
use drivers::drive::{Drive, DriveError, Finished};
use drivers::hardware::block::SLOTS_MAX;

const READ: Operation = Operation::Read { sector: 3, length: 1024 };

fn disk() -> VirtualDisk {
    VirtualDisk::new(ModelDisk::new(256), 8)
}

#[test]
fn facts_are_those_of_the_device() {
    let facts = disk().drive.facts();
    assert_eq!((facts.sectors, facts.block_bytes, facts.slots, facts.buffer_bytes), (256, 512, 8, 64 << 10));
    assert_eq!((facts.read_only, facts.has_cache), (false, true));
    assert_eq!((facts.discard_sectors_max, facts.write_zeroes_sectors_max), (512, 512));
}

#[test]
fn a_read_only_disk_says_so() {
    let facts = VirtualDisk::new(ModelDisk::read_only(64), 1).drive.facts();
    assert_eq!((facts.read_only, facts.discard_sectors_max), (true, 0));
}

#[test]
fn sectors_are_read_into_the_buffer() {
    let mut disk = disk();
    assert_eq!(finished(&mut disk.drive, 5, READ), Ok(()));
    assert_eq!(disk.drive.buffer(5)[..1024], disk.model.content(3, 1024));
}

#[test]
fn the_buffer_is_written_to_sectors() {
    let mut disk = disk();
    disk.drive.buffer(0)[..1024].fill(9);
    assert_eq!(finished(&mut disk.drive, 0, Operation::Write { sector: 7, length: 1024 }), Ok(()));
    assert_eq!(disk.model.content(7, 1024), [9; 1024]);
    assert_eq!(disk.model.content(9, 1)[0], pattern(9, 0));
}

#[test]
fn a_whole_buffer_goes_both_ways() {
    let mut disk = disk();
    disk.drive.buffer(0).fill(9);
    assert_eq!(finished(&mut disk.drive, 0, Operation::Write { sector: 0, length: 64 << 10 }), Ok(()));
    assert_eq!(finished(&mut disk.drive, 1, Operation::Read { sector: 0, length: 64 << 10 }), Ok(()));
    assert_eq!(disk.drive.buffer(1), vec![9; 64 << 10]);
}

#[test]
fn flush_discard_and_write_zeroes_reach_the_disk() {
    let mut disk = disk();
    assert_eq!(finished(&mut disk.drive, 0, Operation::Flush), Ok(()));
    assert_eq!(finished(&mut disk.drive, 0, Operation::Discard { sector: 1, sectors: 2 }), Ok(()));
    assert_eq!(finished(&mut disk.drive, 0, Operation::WriteZeroes { sector: 5, sectors: 6 }), Ok(()));
    let asked = [
        Operation::Flush,
        Operation::Discard { sector: 1, sectors: 2 },
        Operation::WriteZeroes { sector: 5, sectors: 6 },
    ];
    assert_eq!(*disk.model.asked.borrow(), asked);
}

#[test]
fn errors_of_the_disk_are_told() {
    let mut disk = disk();
    disk.model.broken.set(true);
    assert_eq!(finished(&mut disk.drive, 0, READ), Err(DriveError::Io));
    disk.model.broken.set(false);
    assert_eq!(finished(&mut disk.drive, 0, READ), Ok(()));
}

#[test]
fn what_the_disk_does_not_know_is_unsupported() {
    let mut disk = VirtualDisk::new(ModelDisk { discard_sectors_max: 0, ..ModelDisk::new(64) }, 1);
    let discard = Operation::Discard { sector: 1, sectors: 2 };
    assert_eq!(finished(&mut disk.drive, 0, discard), Err(DriveError::Unsupported));
}

#[test]
fn a_taken_slot_is_neither_filled_nor_submitted() {
    let mut disk = disk();
    assert_eq!(disk.drive.submit(2, READ), Ok(()));
    assert_eq!(disk.drive.buffer(2), []);
    assert_eq!(disk.drive.submit(2, READ), Err(DriveError::Busy));
    assert_eq!(disk.drive.submit(8, READ), Err(DriveError::Busy));
    assert_eq!(disk.drive.buffer(8), []);
}

#[test]
fn the_device_is_told_by_the_kick() {
    let mut disk = disk();
    disk.drive.submit(0, READ).unwrap();
    assert_eq!(disk.drive.next_finished(), Ok(None));
    disk.drive.kick();
    assert_eq!(disk.drive.next_finished(), Ok(Some(Finished { slot: 0, result: Ok(()) })));
    assert_eq!(disk.drive.next_finished(), Ok(None));
}

#[test]
fn all_slots_are_under_way_together() {
    let mut disk = VirtualDisk::new(ModelDisk::new(256), usize::MAX);
    let slots = 0..u16::try_from(SLOTS_MAX).unwrap();
    assert_eq!(disk.drive.facts().slots, slots.end);
    slots.clone().for_each(|slot| disk.drive.submit(slot, read_at(slot)).unwrap());
    disk.drive.kick();
    assert_eq!(finish_all(&mut disk.drive), slots.map(|slot| (slot, Ok(()))).collect::<Vec<_>>());
    assert_eq!(disk.drive.buffer(41)[0], pattern(41, 0));
}

#[test]
fn descriptors_are_used_again_and_again() {
    let mut disk = disk();
    (0..500_u16).for_each(|round| {
        assert_eq!(finished(&mut disk.drive, round % 8, read_at(round % 256)), Ok(()));
        assert_eq!(disk.drive.buffer(round % 8)[1], pattern(usize::from(round % 256), 1));
    });
}

#[test]
fn interrupts_come_when_they_are_wanted() {
    let mut disk = disk();
    assert!(!disk.drive.want_interrupts(false));
    assert_eq!(finished(&mut disk.drive, 0, READ), Ok(()));
    assert_eq!(disk.line.edges(), 0);
    assert!(!disk.drive.want_interrupts(true));
    assert_eq!(finished(&mut disk.drive, 0, READ), Ok(()));
    assert_eq!(disk.line.edges(), 1);
    assert_eq!(disk.drive.acknowledge_interrupt(), Ok(()));
}

#[test]
fn what_is_finished_already_is_told_when_interrupts_are_asked_for() {
    let mut disk = disk();
    assert!(!disk.drive.want_interrupts(false));
    disk.drive.submit(0, READ).unwrap();
    disk.drive.kick();
    assert!(disk.drive.want_interrupts(true));
}

#[test]
fn large_blocks_are_known() {
    let facts = VirtualDisk::new(ModelDisk { block_bytes: 4096, ..ModelDisk::new(65) }, 1).drive.facts();
    assert_eq!((facts.block_bytes, facts.sectors, facts.buffer_bytes), (4096, 64, 64 << 10));
}
