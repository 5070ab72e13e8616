//! Physical disks: brought up, and driven by the loop.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use drivers::block::SECTOR_BYTES;
use drivers::hardware::block::{BUFFER_BYTES, VirtioDisk};
use drivers::volume::disk::Disk;
use virtio_drivers::transport::{DeviceType, Transport};

use super::transport::PhysicalDevice;
use super::{Device, Devices};
use crate::mm::hal::{self, KernelHal};

/// A disk among the loop's devices.
struct DiskDevice(Rc<RefCell<Disk>>);

impl Device for DiskDevice {
    fn interrupt(&self) {
        self.0.borrow_mut().interrupt();
    }

    fn poll(&self, now_ns: u64) -> bool {
        self.0.borrow_mut().poll(now_ns)
    }

    fn kick(&self) {
        self.0.borrow_mut().kick();
    }

    fn settle(&self) -> bool {
        self.0.borrow_mut().settle()
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.0.borrow().deadline_ns()
    }
}

/// Brings up the disks among `physical` devices, with a line in the log for each; `blk0` is the first, whether it can be
/// used or not. What there is of memory for devices is divided among them equally.
#[must_use]
pub fn bring_up(physical: Vec<PhysicalDevice>, devices: &mut Devices) -> Vec<Option<Rc<RefCell<Disk>>>> {
    let is_disk = |device: &PhysicalDevice| device.transport.device_type() == DeviceType::Block;
    let found: Vec<PhysicalDevice> = physical.into_iter().filter(is_disk).collect();
    let count = found.len();
    let disks = found.into_iter().enumerate().map(|(number, device)| {
        let name = format!("blk{number}");
        let slots_max = hal::free_bytes() / BUFFER_BYTES as usize / (count - number);
        let interrupt = device.interrupt.0;
        bring_up_one(name.clone(), device, slots_max, devices)
            .inspect_err(|error| log::error!("{name}, interrupt {interrupt}: it cannot be used: {error}"))
            .ok()
    });
    disks.collect()
}

#[inline(never)]
fn bring_up_one(
    name: String,
    device: PhysicalDevice,
    slots_max: usize,
    devices: &mut Devices,
) -> Result<Rc<RefCell<Disk>>, Box<dyn core::error::Error>> {
    let drive = VirtioDisk::<KernelHal, _>::new(device.transport, slots_max)?;
    let disk = Disk::new(name, Box::new(drive));
    let facts = disk.facts();
    log::info!(
        "{}: {} KiB in blocks of {}, {}, {} commands at a time, interrupt {}",
        disk.name(),
        facts.sectors / (1024 / SECTOR_BYTES),
        facts.block_bytes,
        if facts.read_only { "read-only" } else { "writable" },
        facts.slots,
        device.interrupt.0,
    );
    let disk = Rc::new(RefCell::new(disk));
    devices.add(device.interrupt, Rc::new(DiskDevice(disk.clone())))?;
    Ok(disk)
}
