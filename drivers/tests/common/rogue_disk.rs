//! A disk that does what the test says: its registers are fields, its answers are written by hand.

use super::virtio_guest::{GuestHal, host_memory};
use drivers::block::Operation;
use drivers::drive::Drive;
use drivers::fake::FakeGuestMemory;
use drivers::hardware::SetUpError;
use drivers::hardware::block::VirtioDisk;
use std::cell::RefCell;
use std::rc::Rc;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const VERSION_1: u64 = 1 << 32;
pub const SIZE_MAX: u64 = 1 << 1;
pub const BLK_SIZE: u64 = 1 << 6;
/// Bytes of configuration space up to the block size, that included.
const CONFIG_BYTES: usize = 0x18;

pub struct State {
    pub features: u64,
    pub refused: DeviceStatus,
    pub queue_size_max: u32,
    pub is_queue_used: bool,
    pub config: Vec<u8>,
    pub status: DeviceStatus,
    pub interrupts: InterruptStatus,
    pub kicks: usize,
    rings: [PhysAddr; 3],
    used: u16,
}

/// Clones are handles of the same disk.
#[derive(Clone)]
pub struct RogueDisk(pub Rc<RefCell<State>>);

impl RogueDisk {
    /// A disk of 64 sectors that could be a good one.
    pub fn new() -> Self {
        let state = State {
            features: VERSION_1,
            refused: DeviceStatus::empty(),
            queue_size_max: 256,
            is_queue_used: false,
            config: vec![0; CONFIG_BYTES],
            status: DeviceStatus::empty(),
            interrupts: InterruptStatus::empty(),
            kicks: 0,
            rings: [0; 3],
            used: 0,
        };
        let disk = Self(Rc::new(RefCell::new(state)));
        disk.set_config(0, 64);
        disk
    }

    /// One that offers `features` too, with `value` at `offset` of its configuration space.
    pub fn with(features: u64, offset: usize, value: u32) -> Self {
        let disk = Self::new();
        disk.0.borrow_mut().features |= features;
        disk.set_config(offset, value);
        disk
    }

    fn set_config(&self, offset: usize, value: u32) {
        self.0.borrow_mut().config[offset..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// Its driver.
    pub fn set_up(&self) -> std::result::Result<VirtioDisk<GuestHal, Self>, SetUpError> {
        VirtioDisk::new(self.clone(), 4)
    }

    /// Its driver, with a read of a sector under way in slot 0, which has token 0.
    pub fn reading(&self) -> VirtioDisk<GuestHal, Self> {
        let mut drive = self.set_up().unwrap();
        drive.submit(0, Operation::Read { sector: 0, length: 512 }).unwrap();
        drive.kick();
        drive
    }

    fn memory() -> FakeGuestMemory {
        host_memory()
    }

    /// Says that a chain was used, whether it was or not.
    pub fn use_chain(&self, token: u32) {
        self.use_chain_with(token, 513);
    }

    /// The same, and says that it has written so many bytes.
    pub fn use_chain_with(&self, token: u32, written: u32) {
        let mut state = self.0.borrow_mut();
        let place = state.rings[2] + 4 + u64::from(state.used % 128) * 8;
        Self::memory().poke(place, &token.to_le_bytes()).unwrap();
        Self::memory().poke(place + 4, &written.to_le_bytes()).unwrap();
        state.used = state.used.wrapping_add(1);
        Self::memory().poke(state.rings[2] + 2, &state.used.to_le_bytes()).unwrap();
    }

    /// Moves the used index by as much.
    pub fn jump(&self, count: u16) {
        let mut state = self.0.borrow_mut();
        state.used = state.used.wrapping_add(count);
        Self::memory().poke(state.rings[2] + 2, &state.used.to_le_bytes()).unwrap();
    }

    /// Sets the flags of the used ring.
    pub fn set_flags(&self, flags: u16) {
        Self::memory().poke(self.0.borrow().rings[2], &flags.to_le_bytes()).unwrap();
    }

    /// Writes a status byte where descriptor `index` says.
    pub fn write_status(&self, index: u64, status: u8) {
        let mut address = [0; 8];
        Self::memory().peek(self.0.borrow().rings[0] + index * 16, &mut address).unwrap();
        Self::memory().poke(u64::from_le_bytes(address), &[status]).unwrap();
    }
}

impl Transport for RogueDisk {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn read_device_features(&mut self) -> u64 {
        self.0.borrow().features
    }
    fn write_driver_features(&mut self, _features: u64) {}
    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        self.0.borrow().queue_size_max
    }
    fn notify(&mut self, _queue: u16) {
        self.0.borrow_mut().kicks += 1;
    }
    fn get_status(&self) -> DeviceStatus {
        let state = self.0.borrow();
        state.status.difference(state.refused)
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.0.borrow_mut().status = status;
    }
    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, _queue: u16, _size: u32, desc: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.0.borrow_mut().rings = [desc, driver, device];
    }
    fn queue_unset(&mut self, _queue: u16) {}
    fn queue_used(&mut self, _queue: u16) -> bool {
        self.0.borrow().is_queue_used
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        core::mem::replace(&mut self.0.borrow_mut().interrupts, InterruptStatus::empty())
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let state = self.0.borrow();
        let bytes = state.config.get(offset..).and_then(|rest| rest.get(..size_of::<T>()));
        bytes.and_then(|bytes| T::read_from_bytes(bytes).ok()).ok_or(Error::ConfigSpaceTooSmall)
    }
    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _offset: usize, _value: T) -> Result<()> {
        unreachable!("a block driver writes no configuration")
    }
}
