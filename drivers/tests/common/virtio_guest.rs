//! virtio-drivers as the guest: its `Transport` over our registers, its `Hal` over a guest's memory, on one thread.

use super::{
    CONFIG, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DEVICE_ID, DRIVER_FEATURES, DRIVER_FEATURES_SEL,
    INTERRUPT_ACK, INTERRUPT_STATUS, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_NUM,
    QUEUE_NUM_MAX, QUEUE_READY, QUEUE_SEL, STATUS,
};
use drivers::block::Volume;
use drivers::fake::{FakeGuestMemory, FakeLine, FakePinned};
use drivers::virtio::blk::BlockDevice;
use drivers::virtio::mmio::{Effect, MmioDevice, Width};
use drivers::virtio::{Device, Features};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const BASE: u64 = 0x4000_0000;
const PAGES: usize = 4096;

struct Ram {
    memory: FakeGuestMemory,
    used: Vec<bool>,
}

std::thread_local! {
    /// The memory of this test's guest; each test runs on a thread of its own.
    static RAM: RefCell<Ram> =
        RefCell::new(Ram { memory: FakeGuestMemory::new(BASE, PAGES), used: vec![false; PAGES] });
}

impl Ram {
    fn allocate(&mut self, pages: usize) -> usize {
        let first = self.used.windows(pages).position(|run| run.iter().all(|used| !used)).unwrap();
        self.used[first..][..pages].fill(true);
        first
    }

    fn free(&mut self, address: u64, pages: usize) {
        let first = usize::try_from(address - BASE).unwrap() / PAGE_SIZE;
        self.used[first..][..pages].fill(false);
    }
}

fn address_of(page: usize) -> u64 {
    BASE + (page * PAGE_SIZE) as u64
}

/// Pages that a buffer needs when its copy keeps its place in the page.
fn pages_for(buffer: NonNull<[u8]>) -> (usize, usize) {
    let offset = buffer.cast::<u8>().addr().get() % PAGE_SIZE;
    (offset, (offset + buffer.len()).div_ceil(PAGE_SIZE))
}

pub struct GuestHal;

// SAFETY: pages come from one live allocation, page-aligned, each handed out once until it is given back.
unsafe impl Hal for GuestHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        RAM.with_borrow_mut(|ram| {
            let page = ram.allocate(pages);
            ram.memory.poke(address_of(page), &vec![0; pages * PAGE_SIZE]).unwrap();
            let host = NonNull::new(ram.memory.host_base()).unwrap();
            // SAFETY: the page lies inside the memory that `host` starts.
            (address_of(page), unsafe { host.add(page * PAGE_SIZE) })
        })
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, pages: usize) -> i32 {
        RAM.with_borrow_mut(|ram| ram.free(paddr, pages));
        0
    }

    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("only PCI asks for it")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let (offset, pages) = pages_for(buffer);
        RAM.with_borrow_mut(|ram| {
            let address = address_of(ram.allocate(pages)) + offset as u64;
            // SAFETY: the caller promises a valid buffer that nobody else touches during the call.
            ram.memory.poke(address, unsafe { buffer.as_ref() }).unwrap();
            address
        })
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let (offset, pages) = pages_for(buffer);
        RAM.with_borrow_mut(|ram| {
            if direction != BufferDirection::DriverToDevice {
                // SAFETY: the caller promises a valid buffer that nobody else touches during the call.
                ram.memory.peek(paddr, unsafe { buffer.as_mut() }).unwrap();
            }
            ram.free(paddr - offset as u64, pages);
        });
    }
}

/// Our registers as virtio-drivers' transport. The kernel's part is played in [`Transport::notify`].
pub struct Registers<D = BlockDevice<FakePinned>> {
    pub device: Rc<RefCell<MmioDevice<D, FakeGuestMemory, FakeLine>>>,
    /// Notifications wait for [`Registers::work`] instead of being served at once.
    pub lazy: Rc<Cell<bool>>,
}

impl<D> Clone for Registers<D> {
    fn clone(&self) -> Self {
        Self { device: self.device.clone(), lazy: self.lazy.clone() }
    }
}

impl<D: Device<FakeGuestMemory>> Registers<D> {
    /// The registers of a device.
    pub fn new(device: D, memory: &FakeGuestMemory, line: &FakeLine) -> Self {
        let device = MmioDevice::new(device, memory.clone(), line.clone(), Features::empty());
        Self { device: Rc::new(RefCell::new(device)), lazy: Rc::default() }
    }

    fn read(&self, offset: u32) -> u32 {
        self.device.borrow().read(offset, Width::Four).try_into().unwrap()
    }

    fn write(&self, offset: u32, value: u32) {
        let effect = self.device.borrow_mut().write(offset, Width::Four, value.into());
        if effect == Effect::Work && !self.lazy.get() {
            self.work();
        }
    }

    fn write_address(&self, offset: u32, address: u64) {
        self.write(offset, (address & 0xffff_ffff) as u32);
        self.write(offset + 4, (address >> 32) as u32);
    }

    /// What the kernel does once it has answered the vCPU.
    pub fn work(&self) {
        while self.device.borrow_mut().process().more {}
    }
}

impl<D: Device<FakeGuestMemory>> Transport for Registers<D> {
    fn device_type(&self) -> DeviceType {
        DeviceType::try_from(self.read(DEVICE_ID)).unwrap()
    }

    fn read_device_features(&mut self) -> u64 {
        self.write(DEVICE_FEATURES_SEL, 0);
        let low = self.read(DEVICE_FEATURES);
        self.write(DEVICE_FEATURES_SEL, 1);
        u64::from(self.read(DEVICE_FEATURES)) << 32 | u64::from(low)
    }

    fn write_driver_features(&mut self, features: u64) {
        self.write(DRIVER_FEATURES_SEL, 0);
        self.write(DRIVER_FEATURES, (features & 0xffff_ffff) as u32);
        self.write(DRIVER_FEATURES_SEL, 1);
        self.write(DRIVER_FEATURES, (features >> 32) as u32);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.write(QUEUE_SEL, queue.into());
        self.read(QUEUE_NUM_MAX)
    }

    fn notify(&mut self, queue: u16) {
        self.write(QUEUE_NOTIFY, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.read(STATUS))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(STATUS, status.bits());
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, queue: u16, size: u32, desc: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.write(QUEUE_SEL, queue.into());
        self.write(QUEUE_NUM, size);
        self.write_address(QUEUE_DESC, desc);
        self.write_address(QUEUE_DRIVER, driver);
        self.write_address(QUEUE_DEVICE, device);
        self.write(QUEUE_READY, 1);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.write(QUEUE_SEL, queue.into());
        self.write(QUEUE_READY, 0);
        assert_eq!(self.read(QUEUE_READY), 0);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.write(QUEUE_SEL, queue.into());
        self.read(QUEUE_READY) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let reasons = self.read(INTERRUPT_STATUS);
        self.write(INTERRUPT_ACK, reasons);
        InterruptStatus::from_bits_truncate(reasons)
    }

    fn read_config_generation(&self) -> u32 {
        self.read(0xfc)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        // What is no number is read byte by byte (virtio 1.2, 4.2.2.2).
        let width = Width::from_bytes(bytes.len() as u64).unwrap_or(Width::One);
        for (place, part) in bytes.chunks_mut(width as usize).enumerate() {
            let offset = u32::try_from(offset + place).unwrap();
            let read = self.device.borrow().read(CONFIG + offset, width);
            part.copy_from_slice(&read.to_le_bytes()[..width as usize]);
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _offset: usize, _value: T) -> Result<()> {
        unreachable!("no driver writes configuration")
    }
}

/// The memory of this test's guest.
pub fn host_memory() -> FakeGuestMemory {
    RAM.with_borrow(|ram| ram.memory.clone())
}

/// The registers of a disk with this volume.
pub fn registers_of(
    volume: Box<dyn Volume<FakePinned>>,
    memory: &FakeGuestMemory,
    line: &FakeLine,
) -> Registers {
    let block = BlockDevice::new("dom3/xvda".into(), "model-disk", volume);
    Registers::new(block, memory, line)
}

/// A guest with a block driver that is up.
pub struct DrivenGuest {
    pub driver: VirtIOBlk<GuestHal, Registers>,
    pub registers: Registers,
    pub memory: FakeGuestMemory,
    pub line: FakeLine,
}

impl DrivenGuest {
    pub fn new(disk: &super::ModelDisk) -> Self {
        Self::over(Box::new(disk.clone()))
    }

    pub fn over(volume: Box<dyn Volume<FakePinned>>) -> Self {
        let memory = host_memory();
        let line = FakeLine::default();
        let registers = registers_of(volume, &memory, &line);
        let driver = VirtIOBlk::new(registers.clone()).unwrap();
        Self { driver, registers, memory, line }
    }
}
