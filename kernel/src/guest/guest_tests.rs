//! Guests' life against a small Xen: the bed, a driver by hand, and the files of tests that use them.
//!
//! | file | what |
//! |---|---|
//! | `dispatch_tests` | from a vCPU's access to the device, the work, and the teardown |
//! | `granted_tests` | the same of a guest that grants its memory page by page |
//! | `control_bed` | the bed with xenstore |
//! | `control_tests` | disks come and go in xenstore |
//! | `refusal_tests` | disks that are refused, and what that leaves |
//! | `nic_tests` | NICs in xenstore |
//! | `life_tests` | random lives of guests and disks |
//! | `lives_bed` | the bed that outlives a life of this kernel |
//! | `lives_tests` | lives of this kernel, one after the other |

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use drivers::virtio::blk::BlockDevice;
use drivers::volume::ram::RamVolume;

use super::table::GuestTable;
use super::*;
use crate::xen::fake::{FakeXen, Outcome};

#[path = "control_tests.rs"]
mod control;
#[path = "dispatch_tests.rs"]
mod dispatch;
#[path = "granted_tests.rs"]
mod granted;
#[path = "life_tests.rs"]
mod life;
#[path = "lives_tests.rs"]
mod lives;
#[path = "lives_bed.rs"]
mod lives_bed;
#[path = "nic_tests.rs"]
mod nic;
#[path = "opening_tests.rs"]
mod opening;
#[path = "control_bed.rs"]
mod plane;
#[path = "refusal_tests.rs"]
mod refusal;

const A: DomainId = DomainId(3);
const B: DomainId = DomainId(4);
/// First device's registers in every guest, and its interrupt.
const BASE: u64 = 0x200_0000;
const IRQ: u32 = 33;
/// First byte of every guest's RAM.
const RAM: u64 = 0x4000_0000;
const RAM_PAGES: u64 = 64;
const MAGIC: u64 = 0x7472_6976;

/// Register offsets (virtio 1.2, 4.2.2), a second time on purpose.
mod register {
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x24;
    pub const QUEUE_SIZE: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESCRIPTORS: u64 = 0x80;
    pub const QUEUE_AVAILABLE: u64 = 0x90;
    pub const QUEUE_USED: u64 = 0xa0;
}

/// Formats every log line, so that a line that cannot be written is found, and shows none.
struct Formatter;

impl log::Log for Formatter {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let _ = alloc::format!("{}", record.args());
    }
    fn flush(&self) {}
}

/// A driver domain and its guests.
struct Bed {
    xen: FakeXen,
    table: Rc<RefCell<GuestTable>>,
}

impl Bed {
    /// Two guests with two vCPUs each, not served yet.
    fn new() -> Self {
        let _ = log::set_logger(&Formatter);
        log::set_max_level(log::LevelFilter::Trace);
        let xen = FakeXen::new();
        for domain in [A, B] {
            xen.add_domain(domain, 2);
            xen.populate(domain, RAM / 4096..RAM / 4096 + RAM_PAGES);
        }
        let table = Rc::new(RefCell::new(GuestTable::new(xen.single_pages(), xen.pager(128))));
        Self { xen, table }
    }

    /// Gives a guest a disk of so many sectors of zeroes.
    fn attach(&self, domain: DomainId, id: u32, base: u64, sectors: usize) -> Result<(), HypercallError> {
        self.attach_shared_by(Sharing::Foreign, domain, id, base, sectors)
    }

    fn attach_shared_by(
        &self,
        sharing: Sharing,
        domain: DomainId,
        id: u32,
        base: u64,
        sectors: usize,
    ) -> Result<(), HypercallError> {
        let mut table = self.table.borrow_mut();
        let guest = table.find_or_add(domain)?;
        let volume = Box::new(RamVolume(vec![0_u8; sectors * 512]));
        let block = Model::Disk(Box::new(BlockDevice::new("disk".into(), "serial", volume)));
        guest.attach(DeviceId::Disk(id), base, IRQ + id, sharing, block)
    }

    /// A bed whose first guest has a disk at [`BASE`].
    fn with_disk() -> Self {
        let bed = Self::new();
        bed.attach(A, 0, BASE, 8).unwrap();
        bed
    }

    /// Answers all vCPUs that notified us, as the loop does.
    fn serve(&self) {
        self.table.borrow_mut().begin_turn();
        self.xen.take_events().into_iter().for_each(|port| self.table.borrow_mut().serve(port));
    }

    /// Works until nothing is left, and sleeps.
    fn work(&self) {
        let mut table = self.table.borrow_mut();
        while table.work() != Work::None || !table.settle() {}
    }

    /// A vCPU loads from a register.
    fn load(&self, domain: DomainId, vcpu: usize, address: u64, width: u32) -> u64 {
        assert!(self.xen.load(domain, vcpu, address, width), "data abort in the guest");
        self.serve();
        match self.xen.outcome(domain, vcpu) {
            Outcome::Answered(value) => value,
            other => panic!("{other:?}"),
        }
    }

    /// A vCPU stores to a register.
    fn store(&self, domain: DomainId, vcpu: usize, address: u64, value: u64) {
        assert!(self.xen.store(domain, vcpu, address, 4, value), "data abort in the guest");
        self.serve();
        assert!(matches!(self.xen.outcome(domain, vcpu), Outcome::Answered(_)));
    }

    /// Servers of the guest, pages mapped, ports open and slots pinned.
    fn left(&self, domain: DomainId) -> (usize, usize, usize, usize) {
        let pinned = self.table.borrow().pager().borrow().pinned();
        (self.xen.servers(domain), self.xen.mapped(), self.xen.open_ports(), pinned)
    }
}

/// Where the driver keeps its things.
const DESCRIPTORS: u64 = RAM;
const AVAILABLE: u64 = RAM + 0x1000;
const USED: u64 = RAM + 0x2000;
const HEADER: u64 = RAM + 0x3000;
const DATA: u64 = RAM + 0x4000;
const STATUS_BYTE: u64 = RAM + 0x5000;
const TABLE: u64 = RAM + 0x8000;
const QUEUE_SIZE: u16 = 8;
const READ: u32 = 0;
const WRITE: u32 = 1;

/// A virtio-blk driver by hand: one request of one sector at a time, from vCPU 0.
struct Driver<'a> {
    bed: &'a Bed,
    domain: DomainId,
    base: u64,
    submitted: u16,
    /// It names its memory by grants, which the test makes.
    grants: bool,
    /// It may use indirect descriptors.
    indirect: bool,
}

/// Page `n` of the RAM of a driver that uses grants has the reference that is `n` more.
const FIRST_REFERENCE: u32 = 100;

impl<'a> Driver<'a> {
    fn new(bed: &'a Bed, domain: DomainId, base: u64) -> Self {
        Self { bed, domain, base, submitted: 0, grants: false, indirect: false }
    }

    /// A driver that is up.
    fn started(bed: &'a Bed, domain: DomainId, base: u64) -> Self {
        let driver = Self::new(bed, domain, base);
        driver.start(DESCRIPTORS);
        bed.work();
        driver
    }

    fn start(&self, descriptors: u64) {
        self.set(register::STATUS, 0);
        self.write(AVAILABLE, &[0; 0x2000]);
        self.set(register::STATUS, 1);
        self.set(register::STATUS, 3);
        self.set(register::DRIVER_FEATURES_SELECT, 0);
        self.set(register::DRIVER_FEATURES, u64::from(self.indirect) << 28);
        self.set(register::DRIVER_FEATURES_SELECT, 1);
        self.set(register::DRIVER_FEATURES, if self.grants { 3 } else { 1 });
        self.set(register::STATUS, 11);
        self.set(register::QUEUE_SIZE, QUEUE_SIZE.into());
        self.set_address(register::QUEUE_DESCRIPTORS, descriptors);
        self.set_address(register::QUEUE_AVAILABLE, AVAILABLE);
        self.set_address(register::QUEUE_USED, USED);
        self.set(register::QUEUE_READY, 1);
        self.set(register::STATUS, 15);
    }

    fn set(&self, register: u64, value: u64) {
        self.bed.store(self.domain, 0, self.base + register, value);
    }

    fn set_address(&self, register: u64, address: u64) {
        let address = self.told(address);
        self.set(register, address & 0xffff_ffff);
        self.set(register + 4, address >> 32);
    }

    /// By what the device is told of memory of ours.
    fn told(&self, address: u64) -> u64 {
        let grant = |address| (1 << 63) | (address - RAM + u64::from(FIRST_REFERENCE) * 4096);
        if self.grants { grant(address) } else { address }
    }

    fn status(&self) -> u64 {
        self.bed.load(self.domain, 0, self.base + register::STATUS, 4)
    }

    fn write(&self, address: u64, data: &[u8]) {
        self.bed.xen.write_guest(self.domain, address, data);
    }

    fn word(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.bed.xen.read_guest(self.domain, address))
    }

    fn descriptor(&self, index: u16, address: u64, length: u32, flags: u16) {
        let mut raw = Vec::from(self.told(address).to_le_bytes());
        raw.extend(length.to_le_bytes());
        raw.extend(flags.to_le_bytes());
        raw.extend((index + 1).to_le_bytes());
        self.write(DESCRIPTORS + u64::from(index) * 16, &raw);
    }

    /// Makes a request of one sector available without a kick.
    fn publish(&mut self, kind: u32, sector: u64) {
        let mut header = Vec::from(kind.to_le_bytes());
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.write(HEADER, &header);
        self.write(STATUS_BYTE, &[0xff]);
        self.descriptor(0, HEADER, 16, 1);
        self.descriptor(1, DATA, 512, if kind == READ { 1 | 2 } else { 1 });
        self.descriptor(2, STATUS_BYTE, 1, 2);
        self.submitted += 1;
        self.write(AVAILABLE + 2, &self.submitted.to_le_bytes());
    }

    fn kick(&self) {
        self.set(register::QUEUE_NOTIFY, 0);
    }

    /// Carries a request out; its status.
    fn run(&mut self, kind: u32, sector: u64) -> u8 {
        self.publish(kind, sector);
        self.kick();
        self.bed.work();
        assert_eq!(self.used(), self.submitted);
        let [status] = self.bed.xen.read_guest(self.domain, STATUS_BYTE);
        status
    }

    /// Requests completed.
    fn used(&self) -> u16 {
        self.word(USED + 2)
    }

    /// Whether the device asks not to be kicked.
    fn kicks_suppressed(&self) -> bool {
        self.word(USED) == 1
    }
}
