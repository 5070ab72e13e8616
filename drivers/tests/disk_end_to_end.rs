//! All layers at once: virtio-drivers' block driver as the guest, our device model, a volume on a disk, our driver of
//! virtio disks, and behind that our device model once more, on host memory.

mod common;

use common::ModelDisk;
use common::virtio_guest::DrivenGuest;
use common::virtual_disk::VirtualDisk;
use drivers::virtio::blk::Counters;
use drivers::volume::disk::Disk;
use drivers::volume::registry::{Access, OpenVolume, Registry};
use drivers::volume::spec::{Part, VolumeSpec};
use proptest::prelude::*;
use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, RespStatus};

const SECTORS: usize = 512;

/// A guest on a disk, and the disk.
struct Bed {
    guest: DrivenGuest,
    disk: Rc<RefCell<Disk>>,
    model: ModelDisk,
}

/// All of a disk.
fn open(disk: &Rc<RefCell<Disk>>) -> OpenVolume {
    let registry = Registry::new(None, vec![Some(disk.clone())], Box::new(|_, _| None), Box::new(|_| None));
    let whole = VolumeSpec::Disk { disk: 0, part: Part::Whole };
    let opening = pin!(registry.open(&whole, Access::ReadWrite, 0));
    let Poll::Ready(opened) = opening.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits for a whole disk")
    };
    opened.unwrap()
}

impl Bed {
    fn new(slots: usize) -> Self {
        let model = ModelDisk::new(SECTORS);
        let physical = VirtualDisk::new(model.clone(), slots);
        let disk = Rc::new(RefCell::new(Disk::new("blk0".into(), Box::new(physical.drive))));
        let guest = DrivenGuest::over(Box::new(open(&disk)));
        guest.registers.lazy.set(true);
        Self { guest, disk, model }
    }

    /// The kernel's loop, until the guest has an answer.
    fn work(&mut self) {
        while self.guest.driver.peek_used().is_none() {
            self.turn();
        }
    }

    fn turn(&self) {
        self.disk.borrow_mut().poll(0);
        let _ = self.guest.registers.device.borrow_mut().poll();
        self.disk.borrow_mut().kick();
    }

    fn read(&mut self, sector: usize, data: &mut [u8]) -> Result<(), Error> {
        let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
        // SAFETY: nothing touches the buffers before the completion below.
        let token = unsafe { self.guest.driver.read_blocks_nb(sector, &mut request, data, &mut response) }?;
        self.work();
        // SAFETY: the buffers are those of the request.
        unsafe { self.guest.driver.complete_read_blocks(token, &request, data, &mut response) }
    }

    fn write(&mut self, sector: usize, data: &[u8]) -> Result<(), Error> {
        let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
        // SAFETY: nothing touches the buffers before the completion below.
        let token = unsafe { self.guest.driver.write_blocks_nb(sector, &mut request, data, &mut response) }?;
        self.work();
        // SAFETY: the buffers are those of the request.
        unsafe { self.guest.driver.complete_write_blocks(token, &request, data, &mut response) }
    }

    fn counters(&self) -> Counters {
        *self.guest.registers.device.borrow().device().counters()
    }
}

#[test]
fn a_sector_goes_all_the_way() {
    let mut bed = Bed::new(4);
    let mut sector = [0; 512];
    bed.write(7, &[9; 512]).unwrap();
    bed.read(7, &mut sector).unwrap();
    assert_eq!((sector, bed.model.content(7, 512)), ([9; 512], vec![9; 512]));
}

#[test]
fn a_large_request_is_cut_for_the_disk() {
    let mut bed = Bed::new(1);
    let written: Vec<u8> = (0..400 * 512).map(|byte| (byte % 251) as u8).collect();
    let mut read = vec![0; written.len()];
    bed.write(100, &written).unwrap();
    bed.read(100, &mut read).unwrap();
    assert_eq!(read, written);
    assert_eq!((bed.disk.borrow().counters().commands, bed.counters().writes), (8, 1));
}

#[test]
fn an_error_of_the_disk_comes_all_the_way() {
    let mut bed = Bed::new(4);
    bed.model.broken.set(true);
    assert_eq!(bed.read(0, &mut [0; 512]), Err(Error::IoError));
    bed.model.broken.set(false);
    assert_eq!(bed.read(0, &mut [0; 512]), Ok(()));
}

#[test]
fn many_reads_are_under_way_together() {
    let mut bed = Bed::new(8);
    let mut requests = [(); 4].map(|()| (BlkReq::default(), BlkResp::default(), [0; 512]));
    let tokens: Vec<u16> = (requests.iter_mut().enumerate())
        .map(|(sector, (request, response, data))| {
            // SAFETY: nothing touches the buffers before the completion below.
            unsafe { bed.guest.driver.read_blocks_nb(sector, request, data, response) }.unwrap()
        })
        .collect();
    bed.turn();
    assert_eq!((bed.disk.borrow().counters().commands, bed.disk.borrow().counters().kicks), (4, 1));
    bed.turn();
    for (sector, (token, (request, response, data))) in tokens.into_iter().zip(&mut requests).enumerate() {
        // SAFETY: the buffers are those of the request.
        unsafe { bed.guest.driver.complete_read_blocks(token, request, data, response) }.unwrap();
        assert_eq!((response.status(), data[..].to_vec()), (RespStatus::OK, bed.model.content(sector, 512)));
    }
}

/// A transfer: whether it writes, its first sector, its sectors, and what it writes.
fn transfer() -> impl Strategy<Value = (bool, usize, usize, u8)> {
    (any::<bool>(), 0..SECTORS, 1..300_usize, any::<u8>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_is_an_array_of_bytes(slots in 1..5_usize, transfers in prop::collection::vec(transfer(), 1..12)) {
        let mut bed = Bed::new(slots);
        let mut reference = bed.model.bytes.borrow().clone();
        for (writes, sector, sectors, value) in transfers {
            let range = sector * 512..(sector + sectors) * 512;
            let mut data = vec![value; sectors * 512];
            let result = if writes { bed.write(sector, &data) } else { bed.read(sector, &mut data) };
            prop_assert_eq!(result.is_ok(), range.end <= reference.len());
            if result.is_ok() && writes {
                reference[range].copy_from_slice(&data);
            } else if result.is_ok() {
                prop_assert!(reference[range] == data);
            }
        }
        prop_assert!(*bed.model.bytes.borrow() == reference);
    }
}
