//! The memory of a hostile guest: it changes between any two reads of the device, has holes, and keeps account of what the
//! device may write.
//!
//! The device may write the used rings that are pinned, and the buffers that descriptors gave it, as it has read these itself: every
//! 16 bytes that it was given count as a descriptor. After [`Memory::forget_buffers`], which goes with a reset, it may write
//! nothing until it has read descriptors again.

use crate::input::{Address, PAGE};
use arbitrary::Arbitrary;
use drivers::guest::{Access, GuestAddress, GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// Where guest memory begins.
pub const BASE: u64 = 0x4000_0000;
/// Pages of it.
pub const PAGES: u64 = 40;

const DESCRIPTOR_BYTES: usize = 16;
const WRITE: u16 = 2;
/// Where a ring has its index.
const INDEX: u32 = 2;

/// What the guest's other CPU does after the device has read so many times more.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Change {
    after_reads: u8,
    address: Address,
    bytes: [u8; 4],
}

/// A ring that is pinned.
#[derive(Clone, Copy, Debug)]
pub struct PinnedRing {
    key: usize,
    /// Where it is.
    pub address: u64,
    /// The index as the device has stored it last, in a ring that it writes.
    pub index: u16,
}

#[derive(Default)]
struct Account {
    buffers: Vec<Range<u64>>,
    rings: Vec<PinnedRing>,
    rings_made: usize,
}

struct Inner {
    bytes: RefCell<Vec<u8>>,
    holes: RefCell<Vec<u64>>,
    pins: Cell<usize>,
    pins_max: Cell<usize>,
    copies_together: Cell<bool>,
    changes: RefCell<VecDeque<Change>>,
    account: RefCell<Account>,
}

/// Guest memory. Clones are handles of the same.
#[derive(Clone)]
pub struct Memory(Rc<Inner>);

impl Default for Memory {
    fn default() -> Self {
        Self(Rc::new(Inner {
            bytes: RefCell::new(vec![0; (PAGES * PAGE) as usize]),
            holes: RefCell::default(),
            pins: Cell::default(),
            pins_max: Cell::new(usize::MAX),
            copies_together: Cell::default(),
            changes: RefCell::default(),
            account: RefCell::default(),
        }))
    }
}

impl Memory {
    /// Adds something for the other CPU to do.
    pub fn add_change(&self, change: Change) {
        self.0.changes.borrow_mut().push_back(change);
    }

    /// The other CPU does nothing any more.
    pub fn settle(&self) {
        self.0.changes.borrow_mut().clear();
        self.0.pins_max.set(usize::MAX);
    }

    /// Whether it is now as any look at it finds it.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.0.changes.borrow().is_empty() && self.0.pins_max.get() == usize::MAX
    }

    /// Whether all of `length` bytes from `address` on is there.
    #[must_use]
    pub fn has(&self, address: u64, length: u32) -> bool {
        self.check(&GuestRegion { address: GuestAddress(address), length }).is_ok()
    }

    /// Takes away the page of `address`.
    pub fn punch_hole(&self, address: u64) {
        self.0.holes.borrow_mut().push(address / PAGE);
    }

    /// Gives all pages back.
    pub fn fill_holes(&self) {
        self.0.holes.borrow_mut().clear();
    }

    /// From now on so many pins are to be had.
    pub fn set_pins_max(&self, most: usize) {
        self.0.pins_max.set(most);
    }

    /// Whether several places are copied together, as granted memory is.
    pub fn set_copies_together(&self, together: bool) {
        self.0.copies_together.set(together);
    }

    /// Pins that live.
    #[must_use]
    pub fn pins(&self) -> usize {
        self.0.pins.get()
    }

    /// The rings that are pinned; those of a queue follow each other: descriptors, available, used.
    #[must_use]
    pub fn rings(&self) -> Vec<PinnedRing> {
        self.0.account.borrow().rings.clone()
    }

    /// Lets the device write there.
    pub fn give(&self, address: u64, length: u32) {
        self.0.account.borrow_mut().buffers.push(address..address + u64::from(length));
    }

    /// The device has no business in any buffer that it was given before.
    pub fn forget_buffers(&self) {
        self.0.account.borrow_mut().buffers.clear();
    }

    /// Writes as the guest itself; nothing outside of its memory.
    pub fn poke(&self, address: u64, data: &[u8]) {
        let mut bytes = self.0.bytes.borrow_mut();
        if let Some(place) = range(address, data.len()).and_then(|range| bytes.get_mut(range)) {
            place.copy_from_slice(data);
        }
    }

    /// Reads as the guest itself; zeroes outside of its memory.
    #[must_use]
    pub fn peek<const LENGTH: usize>(&self, address: u64) -> [u8; LENGTH] {
        let bytes = self.0.bytes.borrow();
        let place = range(address, LENGTH).and_then(|range| bytes.get(range));
        place.and_then(|place| place.try_into().ok()).unwrap_or([0; LENGTH])
    }

    fn check(&self, region: &GuestRegion) -> Result<(), MemoryError> {
        let Some(last) = region.length.checked_sub(1) else { return Ok(()) };
        let first = region.address.0;
        let is_inside =
            range(first, region.length as usize).is_some_and(|range| range.end <= (PAGES * PAGE) as usize);
        let holes = self.0.holes.borrow();
        let has_hole = || {
            let pages = first / PAGE..=(first + u64::from(last)) / PAGE;
            holes.iter().any(|hole| pages.contains(hole))
        };
        if is_inside && !has_hole() { Ok(()) } else { Err(MemoryError::NotMapped(first)) }
    }

    fn pin_all(
        &self,
        regions: &[GuestRegion],
        writable_from: u32,
        ring: Option<usize>,
    ) -> Result<Pinned, MemoryError> {
        let mut length = 0_u32;
        for region in regions {
            self.check(region)?;
            length = length.checked_add(region.length).ok_or(MemoryError::Exhausted)?;
        }
        if self.0.pins.get() >= self.0.pins_max.get() {
            return Err(MemoryError::Exhausted);
        }
        self.0.pins.set(self.0.pins.get() + 1);
        let regions = SmallVec::from_slice(regions);
        Ok(Pinned { memory: self.clone(), regions, length, writable_from, ring })
    }

    /// The device was given these bytes.
    fn was_read(&self, bytes: &[u8]) {
        let mut account = self.0.account.borrow_mut();
        for raw in bytes.as_chunks::<DESCRIPTOR_BYTES>().0 {
            let [a, b, c, d, e, f, g, h, i, j, k, l, flags_low, flags_high, ..] = *raw;
            if u16::from_le_bytes([flags_low, flags_high]) & WRITE != 0 {
                let start = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                let end = start.saturating_add(u32::from_le_bytes([i, j, k, l]).into());
                account.buffers.push(start..end);
            }
        }
        drop(account);
        let due = {
            let mut changes = self.0.changes.borrow_mut();
            match changes.front_mut() {
                Some(Change { after_reads: 0, .. }) => changes.pop_front(),
                Some(change) => {
                    change.after_reads -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some(change) = due {
            self.poke(change.address.0, &change.bytes);
        }
    }

    /// The device writes there.
    fn will_be_written(&self, address: u64, length: u64) {
        let end = address + length;
        let account = self.0.account.borrow();
        let may = account.buffers.iter().any(|buffer| buffer.start <= address && end <= buffer.end);
        assert!(may, "the device writes {address:#x}..{end:#x}, which no descriptor has given it");
    }
}

fn range(address: u64, length: usize) -> Option<Range<usize>> {
    let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
    Some(start..start.checked_add(length)?)
}

impl GuestMemory for Memory {
    type Pinned = Pinned;

    fn pin(&self, regions: &[GuestRegion]) -> Result<Pinned, MemoryError> {
        self.pin_all(regions, 0, None)
    }

    fn pin_ring(&self, ring: GuestRegion, access: Access) -> Result<Pinned, MemoryError> {
        let key = self.0.account.borrow().rings_made;
        let writable_from = if access == Access::Read { ring.length } else { 0 };
        let pinned = self.pin_all(&[ring], writable_from, Some(key))?;
        let mut account = self.0.account.borrow_mut();
        account.rings_made += 1;
        account.rings.push(PinnedRing { key, address: ring.address.0, index: 0 });
        Ok(pinned)
    }

    fn pin_split(&self, regions: &[GuestRegion], readable_bytes: u32) -> Result<Pinned, MemoryError> {
        self.pin_all(regions, readable_bytes, None)
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

    fn prefetch(&self, _regions: &[GuestRegion]) {}
}

/// Pinned regions.
pub struct Pinned {
    memory: Memory,
    regions: SmallVec<[GuestRegion; 8]>,
    length: u32,
    writable_from: u32,
    /// Which ring, if it is one.
    ring: Option<usize>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let Inner { pins, account, .. } = &*self.memory.0;
        pins.set(pins.get() - 1);
        if let Some(key) = self.ring {
            account.borrow_mut().rings.retain(|ring| ring.key != key);
        }
    }
}

impl Pinned {
    /// Calls `see` with each run of bytes of the range: its address, and its place in the range.
    fn for_each_run(
        &self,
        offset: u32,
        length: usize,
        mut see: impl FnMut(u64, Range<usize>),
    ) -> Result<(), MemoryError> {
        let length = u32::try_from(length).map_err(|_| MemoryError::OutOfRange)?;
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(MemoryError::OutOfRange);
        }
        let (mut skip, mut done) = (offset, 0);
        for region in &self.regions {
            let run = region.length.saturating_sub(skip).min(length - done);
            if run > 0 {
                see(region.address.0 + u64::from(skip), done as usize..(done + run) as usize);
            }
            skip = skip.saturating_sub(region.length);
            done += run;
        }
        Ok(())
    }
}

impl PinnedMemory for Pinned {
    fn len(&self) -> u32 {
        self.length
    }

    fn read(&self, offset: u32, out: &mut [u8]) -> Result<(), MemoryError> {
        {
            let bytes = self.memory.0.bytes.borrow();
            self.for_each_run(offset, out.len(), |address, part| {
                let from = range(address, part.len()).and_then(|range| bytes.get(range));
                if let (Some(to), Some(from)) = (out.get_mut(part), from) {
                    to.copy_from_slice(from);
                }
            })?;
        }
        self.memory.was_read(out);
        Ok(())
    }

    fn write(&self, offset: u32, data: &[u8]) -> Result<(), MemoryError> {
        if offset < self.writable_from {
            return Err(MemoryError::OutOfRange);
        }
        self.for_each_run(offset, data.len(), |address, part| {
            if self.ring.is_none() {
                self.memory.will_be_written(address, part.len() as u64);
            }
            self.memory.poke(address, data.get(part).unwrap_or_default());
        })
    }

    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError> {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError> {
        if let (INDEX, Some(key)) = (offset, self.ring) {
            let mut account = self.memory.0.account.borrow_mut();
            let ring = account.rings.iter_mut().find(|ring| ring.key == key);
            ring.into_iter().for_each(|ring| ring.index = value);
        }
        self.write(offset, &value.to_le_bytes())
    }
}
