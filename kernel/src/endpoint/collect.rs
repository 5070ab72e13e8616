//! Gathers the status from the kernel's tables.

use alloc::collections::TryReserveError;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use drivers::net::bridge::SharedBridge;
use drivers::virtio::Device;
use drivers::volume::disk::Disk;
use drivers::volume::nbd::disks::NetworkDisks;

use super::status::{
    DeviceKind, DeviceStatus, DiskStatus, FramePoolStatus, GuestStatus, MemoryStatus, PagerStatus,
    PortStatus, Status, StatusSource,
};
use crate::guest::memory::SharedMemory;
use crate::guest::model::Model;
use crate::guest::table::GuestTable;
use crate::guest::{Guest, GuestDevice};
use crate::limits::PAGE_BYTES;
use crate::mm::frames::FrameAllocator;

/// Where all there is to tell is found. None of it may be borrowed mutably while [`super::Endpoint::poll`] is called.
pub struct Collector {
    /// Guests, their devices, and the pager.
    pub guests: Rc<RefCell<GuestTable>>,
    /// Ports, and buffers for frames.
    pub bridge: SharedBridge,
    /// Physical disks.
    pub disks: Vec<Rc<RefCell<Disk>>>,
    /// Disks on other machines.
    pub network_disks: NetworkDisks,
    /// Our RAM.
    pub frames: Rc<RefCell<FrameAllocator>>,
    /// Tells how many bytes of the heap are free.
    pub heap_free: fn() -> usize,
    /// Tells the time since this domain was started.
    pub now_ns: fn() -> u64,
}

impl StatusSource for Collector {
    fn status(&self) -> Result<Status, TryReserveError> {
        let guests = self.guests.borrow();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_ns: (self.now_ns)(),
            guests: guests_of(&guests)?,
            devices: devices_of(&guests)?,
            ports: self.ports()?,
            frame_pool: self.frame_pool(),
            disks: self.disks()?,
            pager: pager(&guests),
            memory: self.memory(),
        })
    }
}

impl Collector {
    fn ports(&self) -> Result<Vec<PortStatus>, TryReserveError> {
        let mut ports = Vec::new();
        let mut result = Ok(());
        self.bridge.borrow().for_each_port(|settings, counters| {
            if result.is_ok() {
                result = text(&settings.name)
                    .and_then(|name| push(&mut ports, PortStatus { name, counters: *counters }));
            }
        });
        result.map(|()| ports)
    }

    fn frame_pool(&self) -> FramePoolStatus {
        let bridge = self.bridge.borrow();
        let pool = bridge.pool();
        FramePoolStatus { bytes: pool.bytes(), in_use: pool.in_use(), exhausted: pool.exhausted() }
    }

    fn disks(&self) -> Result<Vec<DiskStatus>, TryReserveError> {
        let mut disks = Vec::new();
        for disk in &self.disks {
            push(&mut disks, disk_of(&disk.borrow())?)?;
        }
        let mut result = Ok(());
        self.network_disks.for_each(|disk| {
            if result.is_ok() {
                result = disk_of(disk).and_then(|status| push(&mut disks, status));
            }
        });
        result.map(|()| disks)
    }

    fn memory(&self) -> MemoryStatus {
        let frames = self.frames.borrow();
        MemoryStatus {
            total_bytes: (frames.total() - frames.lent()) * PAGE_BYTES,
            frames_free_bytes: frames.free() * PAGE_BYTES,
            heap_free_bytes: (self.heap_free)(),
        }
    }
}

fn guests_of(table: &GuestTable) -> Result<Vec<GuestStatus>, TryReserveError> {
    let pager = table.pager().borrow();
    let mut guests = Vec::new();
    for guest in table.iter() {
        push(&mut guests, GuestStatus { domain: guest.domain(), slots: pager.held(guest.domain()) })?;
    }
    Ok(guests)
}

fn devices_of(table: &GuestTable) -> Result<Vec<DeviceStatus>, TryReserveError> {
    let mut devices = Vec::new();
    for guest in table.iter() {
        for (_, device) in guest.models() {
            push(&mut devices, device_of(guest, device)?)?;
        }
    }
    Ok(devices)
}

fn device_of(guest: &Guest, device: &GuestDevice) -> Result<DeviceStatus, TryReserveError> {
    let model = device.device();
    Ok(DeviceStatus {
        domain: guest.domain(),
        name: text(Device::<SharedMemory>::name(model))?,
        kind: match model {
            Model::Disk(disk) => DeviceKind::Disk(*disk.counters()),
            Model::Nic(nic) => DeviceKind::Nic(nic.port().address(), *nic.counters()),
        },
        registers: *device.counters(),
    })
}

fn disk_of(disk: &Disk) -> Result<DiskStatus, TryReserveError> {
    Ok(DiskStatus { name: text(disk.name())?, counters: *disk.counters(), link: disk.link_status() })
}

fn pager(guests: &GuestTable) -> PagerStatus {
    let pager = guests.pager().borrow();
    PagerStatus {
        slots: pager.usable(),
        mapped: pager.mapped(),
        pinned: pager.pinned(),
        counters: pager.counters(),
    }
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), TryReserveError> {
    list.try_reserve(1)?;
    list.push(item);
    Ok(())
}

fn text(name: &str) -> Result<String, TryReserveError> {
    let mut text = String::new();
    text.try_reserve_exact(name.len())?;
    text.push_str(name);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use std::vec;

    use drivers::net::bridge::{Bridge, PortKind};
    use drivers::virtio::blk::BlockDevice;
    use drivers::volume::ram::RamVolume;

    use super::*;
    use crate::endpoint::bed::{OURS, bridge_port};
    use crate::guest::DeviceId;
    use crate::guest::memory::Sharing;
    use crate::xen::DomainId;
    use crate::xen::fake::FakeXen;

    #[test]
    fn all_that_there_is_is_told() {
        let xen = FakeXen::new();
        let domain = DomainId(3);
        xen.add_domain(domain, 1);
        let mut table = GuestTable::new(xen.single_pages(), xen.pager(128));
        let guest = table.find_or_add(domain).unwrap();
        let volume = Box::new(RamVolume(vec![0_u8; 4096]));
        let block = BlockDevice::new("dom3/xvda".into(), "serial", volume);
        let model = Model::Disk(Box::new(block));
        guest.attach(DeviceId::Disk(51712), 0x200_0000, 33, Sharing::Foreign, model).unwrap();
        let bridge = Bridge::new(1);
        let _port = bridge_port(&bridge, "endpoint", PortKind::Endpoint, OURS);
        let mut frames = FrameAllocator::default();
        frames.add_bank(&(0x4000_0000..0x4010_0000));
        let collector = Collector {
            guests: Rc::new(RefCell::new(table)),
            bridge,
            disks: Vec::new(),
            network_disks: NetworkDisks::new(Box::new(|_| None)),
            frames: Rc::new(RefCell::new(frames)),
            heap_free: || 77,
            now_ns: || 5,
        };
        let status = collector.status().unwrap();
        let [device] = &status.devices[..] else { panic!("{:?}", status.devices) };
        assert_eq!((device.domain, &*device.name, status.guests[0].domain), (domain, "dom3/xvda", domain));
        assert_eq!((&*status.ports[0].name, status.uptime_ns), ("endpoint", 5));
        assert_eq!((status.memory.total_bytes, status.memory.heap_free_bytes), (1 << 20, 77));
        assert_eq!(status.pager.slots, 128);
    }
}
