//! The driver of virtio disks, on disks that keep no rules: nothing worse comes of it than an error.

mod common;

use common::rogue_disk::{BLK_SIZE, RogueDisk, SIZE_MAX};
use drivers::block::{Operation, VolumeError};
use drivers::drive::{Drive, DriveError, Finished};
use drivers::hardware::SetUpError;
use drivers::hardware::block::VirtioDisk;
use std::ptr::NonNull;
use virtio_drivers::transport::{DeviceStatus, InterruptStatus};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
/// The status byte of a read is its third buffer.
const STATUS_OF_READ: u64 = 2;

fn answer(result: Result<(), DriveError>) -> Result<Option<Finished>, DriveError> {
    Ok(Some(Finished { slot: 0, result }))
}

/// What comes of a read that the disk answers with `status`.
fn read_answered_with(status: u8) -> Result<Option<Finished>, DriveError> {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.write_status(STATUS_OF_READ, status);
    disk.use_chain(0);
    drive.next_finished()
}

#[test]
fn status_bytes_are_told_apart() {
    assert_eq!(read_answered_with(OK), answer(Ok(())));
    assert_eq!(read_answered_with(IOERR), answer(Err(DriveError::Io)));
    assert_eq!(read_answered_with(UNSUPP), answer(Err(DriveError::Unsupported)));
    assert_eq!(read_answered_with(77), answer(Err(DriveError::Io)));
}

#[test]
fn a_status_that_was_never_written_is_an_error() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.use_chain(0);
    assert_eq!(drive.next_finished(), answer(Err(DriveError::Io)));
}

#[test]
fn a_status_of_the_command_before_does_not_count() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.write_status(STATUS_OF_READ, OK);
    disk.use_chain(0);
    assert_eq!(drive.next_finished(), answer(Ok(())));
    drive.submit(0, Operation::Read { sector: 0, length: 512 }).unwrap();
    disk.use_chain(0);
    assert_eq!(drive.next_finished(), answer(Err(DriveError::Io)));
}

#[test]
fn a_read_that_wrote_less_than_all_of_it_is_an_error() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.write_status(STATUS_OF_READ, OK);
    disk.use_chain_with(0, 512);
    assert_eq!(drive.next_finished(), answer(Err(DriveError::Io)));
}

#[test]
fn a_token_that_is_not_under_way_breaks_the_disk() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.use_chain(1);
    assert_eq!(drive.next_finished(), Err(DriveError::Broken));
    assert_eq!(drive.next_finished(), Err(DriveError::Broken));
    assert_eq!(drive.submit(1, Operation::Flush), Err(DriveError::Broken));
}

#[test]
fn a_token_that_no_queue_has_breaks_the_disk() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.use_chain(u32::MAX);
    assert_eq!(drive.next_finished(), Err(DriveError::Broken));
}

#[test]
fn a_token_used_twice_breaks_the_disk() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.use_chain(0);
    disk.use_chain(0);
    assert_eq!(drive.next_finished(), answer(Err(DriveError::Io)));
    assert_eq!(drive.next_finished(), Err(DriveError::Broken));
}

#[test]
fn an_index_that_jumps_breaks_the_disk() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.use_chain(0);
    disk.jump(300);
    assert_eq!(drive.next_finished(), answer(Err(DriveError::Io)));
    assert_eq!(drive.next_finished(), Err(DriveError::Broken));
}

#[test]
fn a_broken_disk_is_told_nothing_more() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.use_chain(1);
    assert_eq!(drive.next_finished(), Err(DriveError::Broken));
    drive.kick();
    assert_eq!(disk.0.borrow().kicks, 1);
}

#[test]
fn the_buffer_of_a_command_that_never_ends_stays_with_the_disk() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.use_chain(1);
    assert_eq!(drive.next_finished(), Err(DriveError::Broken));
    assert_eq!(drive.buffer(0), []);
}

#[test]
fn a_disk_that_asks_for_a_reset_is_broken() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.0.borrow_mut().status.insert(DeviceStatus::DEVICE_NEEDS_RESET);
    disk.0.borrow_mut().interrupts = InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT;
    assert_eq!(drive.acknowledge_interrupt(), Err(DriveError::Broken));
    assert_eq!(drive.next_finished(), Err(DriveError::Broken));
}

#[test]
fn a_change_of_configuration_breaks_nothing() {
    let disk = RogueDisk::new();
    let mut drive = disk.reading();
    disk.0.borrow_mut().interrupts = InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT;
    assert_eq!(drive.acknowledge_interrupt(), Ok(()));
    assert_eq!(drive.next_finished(), Ok(None));
}

#[test]
fn a_disk_that_wants_no_kicks_gets_none() {
    let disk = RogueDisk::new();
    let mut drive = disk.set_up().unwrap();
    disk.set_flags(1);
    drive.submit(0, Operation::Flush).unwrap();
    drive.kick();
    assert_eq!(disk.0.borrow().kicks, 0);
}

fn refusal(disk: &RogueDisk) -> Option<SetUpError> {
    disk.set_up().err()
}

#[test]
fn a_legacy_disk_is_refused() {
    let disk = RogueDisk::new();
    disk.0.borrow_mut().features = 0;
    assert_eq!(refusal(&disk), Some(SetUpError::Legacy));
}

#[test]
fn a_disk_that_refuses_its_own_features_is_refused() {
    let disk = RogueDisk::new();
    disk.0.borrow_mut().refused = DeviceStatus::FEATURES_OK;
    assert_eq!(refusal(&disk), Some(SetUpError::Features));
}

#[test]
fn a_queue_that_cannot_be_had_is_refused() {
    let small = RogueDisk::new();
    small.0.borrow_mut().queue_size_max = 64;
    assert_eq!(refusal(&small), Some(SetUpError::Queue));
    let used = RogueDisk::new();
    used.0.borrow_mut().is_queue_used = true;
    assert_eq!(refusal(&used), Some(SetUpError::Queue));
}

#[test]
fn a_disk_without_configuration_is_refused() {
    let disk = RogueDisk::new();
    disk.0.borrow_mut().config.clear();
    assert!(matches!(refusal(&disk), Some(SetUpError::Configuration(_))));
}

/// Whether blocks of so many bytes are accepted, and as what.
fn block_bytes(bytes: u32) -> Option<u32> {
    RogueDisk::with(BLK_SIZE, 0x14, bytes).set_up().ok().map(|drive| drive.facts().block_bytes)
}

#[test]
fn block_sizes_are_powers_of_two_that_fit_a_buffer() {
    assert_eq!([0, 512, 4096, 65536].map(block_bytes), [Some(512), Some(512), Some(4096), Some(65536)]);
    assert_eq!([1, 256, 513, 4095, 131_072, u32::MAX].map(block_bytes), [None; 6]);
}

/// How long a transfer may be when the disk says that a buffer may have so many bytes.
fn buffer_bytes(size_max: u32) -> Option<u32> {
    RogueDisk::with(SIZE_MAX, 0x08, size_max).set_up().ok().map(|drive| drive.facts().buffer_bytes)
}

#[test]
fn transfers_are_whole_blocks_within_the_largest_buffer() {
    let known = [0, 512, 1000, 65537, u32::MAX].map(buffer_bytes);
    assert_eq!(known, [Some(65536), Some(512), Some(512), Some(65536), Some(65536)]);
    assert_eq!(buffer_bytes(511), None);
}

#[test]
fn the_largest_disk_is_no_overflow() {
    let disk = RogueDisk::new();
    disk.0.borrow_mut().config[..8].fill(0xff);
    assert_eq!(disk.set_up().unwrap().facts().sectors, u64::MAX);
}

/// There is no memory that devices reach.
struct NoMemory;

// SAFETY: it gives no memory at all, and is asked for nothing else.
unsafe impl Hal for NoMemory {
    fn dma_alloc(_pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        (0, NonNull::dangling())
    }
    unsafe fn dma_dealloc(_paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        unreachable!("there was nothing to give back")
    }
    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("only PCI asks for it")
    }
    unsafe fn share(_buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        unreachable!("nothing was submitted")
    }
    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {
        unreachable!("nothing was submitted")
    }
}

#[test]
fn without_memory_there_is_no_disk() {
    let refused = VirtioDisk::<NoMemory, _>::new(RogueDisk::new(), 4).err();
    assert_eq!(refused, Some(SetUpError::Memory));
}

#[test]
fn the_guests_error_names_the_disks() {
    let error = VolumeError::from(DriveError::Broken);
    assert_eq!(error.to_string(), "disk: the disk is out of order");
}
