//! A guest made of host memory, for tests: RAM with holes, pins that are counted, an interrupt line that counts. And a
//! disk, in [`drive`], a NIC, in [`nic`], and words whose stores are heard, in [`steps`].
//!
//! The memory is atomics behind a shared handle, so a test may play the guest through raw pointers while a device model
//! reads and writes: as with a real guest, neither side ever owns it.

pub mod drive;
pub mod nic;
pub mod steps;

use crate::guest::{
    Access, GuestAddress, GuestMemory, GuestRegion, InterruptLine, MemoryError, PinnedMemory,
};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicU8, Ordering};
use smallvec::SmallVec;

/// Bytes in a page.
pub const PAGE_BYTES: u64 = 4096;
const PAGE: usize = 4096;
/// Where the index is in a used ring, the only ring that a device writes (virtio 1.2, 2.7.8).
const USED_INDEX: u32 = 2;

struct Inner {
    base: u64,
    /// One page more than the guest has, so that its memory can start at a page's start in the host.
    pages: Box<[[AtomicU8; PAGE]]>,
    skipped: usize,
    length: usize,
    holes: RefCell<Vec<u64>>,
    largest_pin: Cell<u32>,
    pins: Cell<usize>,
    most_pins: Cell<usize>,
    most_pins_at_publication: Cell<usize>,
    prefetched: Cell<usize>,
    copies_together: Cell<bool>,
    other_cpu: RefCell<Option<Rc<OtherCpu>>>,
}

/// What the guest's other CPU does right after a device model copied bytes: it is told their address and number.
pub type OtherCpu = dyn Fn(&FakeGuestMemory, u64, usize);

/// The memory of a guest. Clones are handles of the same memory.
#[derive(Clone)]
pub struct FakeGuestMemory(Rc<Inner>);

impl FakeGuestMemory {
    /// A guest with `pages` pages of zeroes, the first at address `base`.
    #[must_use]
    pub fn new(base: u64, pages: usize) -> Self {
        let held: Box<_> = (0..=pages).map(|_| [const { AtomicU8::new(0) }; PAGE]).collect();
        Self(Rc::new(Inner {
            base,
            skipped: held.as_flattened().as_ptr().align_offset(PAGE),
            length: pages * PAGE,
            pages: held,
            holes: RefCell::default(),
            largest_pin: Cell::new(u32::MAX),
            pins: Cell::default(),
            most_pins: Cell::default(),
            most_pins_at_publication: Cell::default(),
            prefetched: Cell::default(),
            copies_together: Cell::default(),
            other_cpu: RefCell::default(),
        }))
    }

    /// Takes away the page that holds `address`, as a guest that balloons does.
    pub fn punch_hole(&self, address: u64) {
        self.0.holes.borrow_mut().push(address / PAGE_BYTES);
    }

    /// From now on slots are short: what has more bytes than this cannot be pinned.
    pub fn set_largest_pin(&self, bytes: u32) {
        self.0.largest_pin.set(bytes);
    }

    /// From now on several places are copied together, as granted memory is.
    pub fn copy_together(&self) {
        self.0.copies_together.set(true);
    }

    /// How many pins live.
    #[must_use]
    pub fn pins(&self) -> usize {
        self.0.pins.get()
    }

    /// How many pins lived at most at a time.
    #[must_use]
    pub fn most_pins(&self) -> usize {
        self.0.most_pins.get()
    }

    /// How many pins lived at most while the index of a ring was moved.
    #[must_use]
    pub fn most_pins_at_publication(&self) -> usize {
        self.0.most_pins_at_publication.get()
    }

    /// How many regions were announced.
    #[must_use]
    pub fn prefetched(&self) -> usize {
        self.0.prefetched.get()
    }

    /// Lets the guest act between any two reads of a device model.
    pub fn set_other_cpu(&self, other_cpu: impl Fn(&FakeGuestMemory, u64, usize) + 'static) {
        *self.0.other_cpu.borrow_mut() = Some(Rc::new(other_cpu));
    }

    /// The host's address of the guest's first byte, for a test that plays the guest. Valid while a handle lives.
    #[must_use]
    pub fn host_base(&self) -> *mut u8 {
        self.0.cells(self.0.base, 1).and_then(<[_]>::first).map_or(core::ptr::null_mut(), AtomicU8::as_ptr)
    }

    /// Copies guest bytes, as the guest itself.
    ///
    /// # Errors
    /// Outside the memory.
    pub fn peek(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let cells = self.0.cells(address, out.len()).ok_or(MemoryError::NotMapped(address))?;
        out.iter_mut().zip(cells).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
        Ok(())
    }

    /// Writes guest bytes, as the guest itself.
    ///
    /// # Errors
    /// Outside the memory.
    pub fn poke(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        let cells = self.0.cells(address, data.len()).ok_or(MemoryError::NotMapped(address))?;
        cells.iter().zip(data).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
        Ok(())
    }

    fn check(&self, region: &GuestRegion) -> Result<(), MemoryError> {
        let Some(last) = region.length.checked_sub(1) else { return Ok(()) };
        let first = region.address.0;
        let unmapped = MemoryError::NotMapped(first);
        self.0.cells(first, region.length as usize).ok_or(unmapped)?;
        let pages = first / PAGE_BYTES..=(first + u64::from(last)) / PAGE_BYTES;
        if self.0.holes.borrow().iter().any(|hole| pages.contains(hole)) {
            return Err(unmapped);
        }
        Ok(())
    }
}

impl Inner {
    fn cells(&self, address: u64, length: usize) -> Option<&[AtomicU8]> {
        let start = usize::try_from(address.checked_sub(self.base)?).ok()?;
        self.pages
            .as_flattened()
            .get(self.skipped..)?
            .get(..self.length)?
            .get(start..start.checked_add(length)?)
    }
}

impl GuestMemory for FakeGuestMemory {
    type Pinned = FakePinned;

    fn pin(&self, regions: &[GuestRegion]) -> Result<FakePinned, MemoryError> {
        self.pin_split(regions, 0)
    }

    fn pin_ring(&self, ring: GuestRegion, access: Access) -> Result<FakePinned, MemoryError> {
        self.pin_split(&[ring], if access == Access::Read { ring.length } else { 0 })
    }

    fn pin_split(&self, regions: &[GuestRegion], readable_bytes: u32) -> Result<FakePinned, MemoryError> {
        let mut length = 0_u32;
        for region in regions {
            self.check(region)?;
            length = length.checked_add(region.length).ok_or(MemoryError::Exhausted)?;
        }
        if length > self.0.largest_pin.get() {
            return Err(MemoryError::Exhausted);
        }
        self.0.pins.set(self.0.pins.get() + 1);
        self.0.most_pins.set(self.0.most_pins.get().max(self.0.pins.get()));
        let regions = SmallVec::from_slice(regions);
        Ok(FakePinned { memory: self.clone(), regions, length, writable_from: readable_bytes })
    }

    fn read_together<'a>(&self, mut reads: impl Iterator<Item = (GuestAddress, &'a mut [u8])>) -> bool {
        self.0.copies_together.get() && reads.all(|(address, out)| self.read(address, out).is_ok())
    }

    fn write_together<'a>(&self, mut writes: impl Iterator<Item = (GuestAddress, &'a [u8])>) -> bool {
        let write = |(address, data): (GuestAddress, &[u8])| {
            let length = u32::try_from(data.len()).map_err(|_| MemoryError::OutOfRange)?;
            self.pin(&[GuestRegion { address, length }])?.write(0, data)
        };
        self.0.copies_together.get() && writes.all(|part| write(part).is_ok())
    }

    fn prefetch(&self, regions: &[GuestRegion]) {
        self.0.prefetched.set(self.0.prefetched.get() + regions.len());
    }
}

/// Pinned regions of a [`FakeGuestMemory`].
pub struct FakePinned {
    memory: FakeGuestMemory,
    regions: SmallVec<[GuestRegion; 8]>,
    length: u32,
    writable_from: u32,
}

impl Drop for FakePinned {
    fn drop(&mut self) {
        let pins = &self.memory.0.pins;
        pins.set(pins.get() - 1);
    }
}

impl FakePinned {
    /// Calls `copy` for each run of bytes of the range, with the run's address and its place in the range.
    fn for_each_run(
        &self,
        offset: u32,
        length: usize,
        mut copy: impl FnMut(u64, usize, &[AtomicU8]),
    ) -> Result<(), MemoryError> {
        let length = u32::try_from(length).map_err(|_| MemoryError::OutOfRange)?;
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(MemoryError::OutOfRange);
        }
        let (mut skip, mut done) = (offset, 0);
        for region in &self.regions {
            let run = region.length.saturating_sub(skip).min(length - done);
            if run > 0 {
                let address = region.address.0 + u64::from(skip);
                let cells = self.memory.0.cells(address, run as usize).ok_or(MemoryError::OutOfRange)?;
                copy(address, done as usize, cells);
            }
            skip = skip.saturating_sub(region.length);
            done += run;
        }
        Ok(())
    }

    fn check_writable(&self, offset: u32) -> Result<(), MemoryError> {
        if offset < self.writable_from { Err(MemoryError::OutOfRange) } else { Ok(()) }
    }
}

impl PinnedMemory for FakePinned {
    fn len(&self) -> u32 {
        self.length
    }

    fn read(&self, offset: u32, out: &mut [u8]) -> Result<(), MemoryError> {
        let other_cpu = self.memory.0.other_cpu.borrow().clone();
        self.for_each_run(offset, out.len(), |address, place, cells| {
            let to = out.iter_mut().skip(place);
            to.zip(cells).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
            if let Some(act) = &other_cpu {
                act(&self.memory, address, cells.len());
            }
        })
    }

    fn write(&self, offset: u32, data: &[u8]) -> Result<(), MemoryError> {
        self.check_writable(offset)?;
        self.for_each_run(offset, data.len(), |_, place, cells| {
            let from = data.iter().skip(place);
            cells.iter().zip(from).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
        })
    }

    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError> {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError> {
        let memory = &self.memory.0;
        let mut old = [0; 2];
        self.for_each_run(offset, 2, |_, _, cells| {
            old.iter_mut().zip(cells).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
        })?;
        if offset == USED_INDEX && u16::from_le_bytes(old) != value {
            memory.most_pins_at_publication.update(|most| most.max(memory.pins.get()));
        }
        self.write(offset, &value.to_le_bytes())
    }
}

/// An interrupt line that counts. Clones are handles of the same line.
#[derive(Clone, Debug, Default)]
pub struct FakeLine(Rc<Cell<usize>>);

impl FakeLine {
    /// Edges raised so far.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.0.get()
    }
}

impl InterruptLine for FakeLine {
    fn raise(&self) {
        self.0.set(self.0.get() + 1);
    }
}
