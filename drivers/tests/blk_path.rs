//! The whole path of a block request, with virtio-drivers' block driver as the guest.

mod common;

use common::ModelDisk;
use common::model_disk::pattern;
use common::virtio_guest::DrivenGuest;
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, RespStatus};

/// The rings: three pins that live as long as the queue.
const RING_PINS: usize = 3;

#[test]
fn driver_sees_capacity() {
    let guest = DrivenGuest::new(&ModelDisk::new(64));
    assert_eq!(guest.driver.capacity(), 64);
    assert!(!guest.driver.readonly());
}

#[test]
fn sector_is_read() {
    let mut guest = DrivenGuest::new(&ModelDisk::new(64));
    let mut sector = [0; 512];
    guest.driver.read_blocks(5, &mut sector).unwrap();
    assert_eq!(sector, core::array::from_fn(|byte| pattern(5, byte)));
}

#[test]
fn sector_is_written() {
    let disk = ModelDisk::new(64);
    let mut guest = DrivenGuest::new(&disk);
    guest.driver.write_blocks(63, &[0xa5; 512]).unwrap();
    assert_eq!(disk.content(63, 512), [0xa5; 512]);
}

#[test]
fn many_pages_go_there_and_back() {
    let disk = ModelDisk::new(4096);
    let mut guest = DrivenGuest::new(&disk);
    let written: Vec<u8> = (0..600 * 512).map(|byte| (byte % 251) as u8).collect();
    let mut read = vec![0; written.len()];
    guest.driver.write_blocks(100, &written).unwrap();
    guest.driver.read_blocks(100, &mut read).unwrap();
    assert_eq!(read, written);
    assert_eq!(disk.content(99, 512), (0..512).map(|byte| pattern(99, byte)).collect::<Vec<_>>());
    assert_eq!(disk.content(700, 512), (0..512).map(|byte| pattern(700, byte)).collect::<Vec<_>>());
}

#[test]
fn flush_is_answered() {
    let disk = ModelDisk::new(64);
    let mut guest = DrivenGuest::new(&disk);
    guest.driver.flush().unwrap();
    assert_eq!(*disk.asked.borrow(), [drivers::block::Operation::Flush]);
}

#[test]
fn serial_is_told() {
    let mut guest = DrivenGuest::new(&ModelDisk::new(64));
    let mut id = [0xff; 20];
    let length = guest.driver.device_id(&mut id).unwrap();
    assert_eq!(&id[..length], b"model-disk");
}

#[test]
fn read_past_end_reports_ioerr() {
    let mut guest = DrivenGuest::new(&ModelDisk::new(64));
    assert_eq!(guest.driver.read_blocks(63, &mut [0; 1024]), Err(Error::IoError));
    assert_eq!(guest.driver.read_blocks(64, &mut [0; 512]), Err(Error::IoError));
}

#[test]
fn write_to_read_only_disk_reports_ioerr() {
    let disk = ModelDisk::read_only(64);
    let mut guest = DrivenGuest::new(&disk);
    assert!(guest.driver.readonly());
    assert_eq!(guest.driver.write_blocks(0, &[0; 512]), Err(Error::IoError));
    assert!(disk.asked.borrow().is_empty());
}

#[test]
fn broken_disk_reports_ioerr_and_recovers() {
    let disk = ModelDisk::new(64);
    let mut guest = DrivenGuest::new(&disk);
    disk.broken.set(true);
    assert_eq!(guest.driver.read_blocks(0, &mut [0; 512]), Err(Error::IoError));
    disk.broken.set(false);
    assert_eq!(guest.driver.read_blocks(0, &mut [0; 512]), Ok(()));
}

#[test]
fn requests_in_flight_are_one_batch_with_one_interrupt() {
    let DrivenGuest { mut driver, registers, line, memory } = DrivenGuest::new(&ModelDisk::new(64));
    let mut requests = [(); 4].map(|()| (BlkReq::default(), BlkResp::default(), [0; 512]));
    registers.lazy.set(true);
    let tokens: Vec<u16> = (requests.iter_mut().enumerate())
        .map(|(sector, (request, response, data))| {
            // SAFETY: nothing touches the buffers before the completion below.
            unsafe { driver.read_blocks_nb(sector, request, data, response) }.unwrap()
        })
        .collect();
    assert_eq!(driver.peek_used(), None);

    let edges_before = line.edges();
    registers.work();

    assert_eq!(line.edges(), edges_before + 1);
    assert_eq!(registers.device.borrow().device().counters().batches, 1);
    assert!(memory.prefetched() > 0);
    for (sector, (token, (request, response, data))) in tokens.into_iter().zip(&mut requests).enumerate() {
        // SAFETY: the buffers are those of the request.
        unsafe { driver.complete_read_blocks(token, request, data, response) }.unwrap();
        assert_eq!(response.status(), RespStatus::OK);
        assert_eq!(data[0], pattern(sector, 0));
    }
}

#[test]
fn nothing_but_the_rings_stays_pinned() {
    let mut guest = DrivenGuest::new(&ModelDisk::new(64));
    guest.driver.read_blocks(0, &mut [0; 4096]).unwrap();
    guest.driver.write_blocks(0, &[0; 4096]).unwrap();
    assert_eq!(guest.memory.pins(), RING_PINS);
    drop(guest.driver);
    assert_eq!(guest.memory.pins(), 0);
}

#[test]
fn ring_indices_wrap() {
    let mut guest = DrivenGuest::new(&ModelDisk::new(64));
    let mut sector = [0; 512];
    for round in 0..70_000 {
        guest.driver.read_blocks(round % 64, &mut sector).unwrap();
        assert_eq!(sector[1], pattern(round % 64, 1));
    }
}

#[test]
fn driver_comes_back_after_a_reset() {
    let disk = ModelDisk::new(64);
    drop(DrivenGuest::new(&disk).driver);
    let mut again = DrivenGuest::new(&disk);
    assert_eq!(again.driver.read_blocks(0, &mut [0; 512]), Ok(()));
}
