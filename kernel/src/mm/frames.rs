//! Which of our RAM is free: a bitmap over each bank, runs of frames handed out as values.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;

use drivers::volume::ram::Storage;

use super::address::Gfn;
use crate::limits::PAGE_BYTES;

const BITS: usize = u64::BITS as usize;

/// The frames of our RAM.
#[derive(Default)]
pub struct FrameAllocator {
    banks: Vec<Bank>,
}

struct Bank {
    first: Gfn,
    count: usize,
    free: usize,
    /// One bit a frame, set when taken.
    taken: Vec<u64>,
}

/// Frames next to each other, ours until dropped.
pub struct FrameRun {
    owner: Rc<RefCell<FrameAllocator>>,
    bank: usize,
    start: usize,
    count: usize,
    address: usize,
}

impl FrameAllocator {
    /// Adds all whole frames of the byte range `range`, which must be RAM.
    pub fn add_bank(&mut self, range: &Range<usize>) {
        let first = Gfn::containing(range.start.next_multiple_of(PAGE_BYTES));
        let count = Gfn::containing(range.end).0.saturating_sub(first.0) as usize;
        self.banks.push(Bank { first, count, free: count, taken: vec![0; count.div_ceil(BITS)] });
    }

    /// Frames that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.banks.iter().map(|bank| bank.free).sum()
    }

    /// Takes `count` frames next to each other, or none.
    #[must_use]
    pub fn take(owner: &Rc<RefCell<Self>>, count: usize) -> Option<FrameRun> {
        let mut allocator = owner.borrow_mut();
        let fits = |(index, bank): (usize, &Bank)| Some((index, bank.find(count)?));
        let (index, start) = allocator.banks.iter().enumerate().find_map(fits)?;
        let bank = allocator.banks.get_mut(index)?;
        Some(bank.take(owner.clone(), index, start, count))
    }

    /// Takes the frames that hold the byte range `range`, if all of them are RAM and free.
    #[must_use]
    pub fn take_at(owner: &Rc<RefCell<Self>>, range: &Range<usize>) -> Option<FrameRun> {
        let mut allocator = owner.borrow_mut();
        let (first, end) =
            (Gfn::containing(range.start), Gfn::containing(range.end.next_multiple_of(PAGE_BYTES)));
        let within = |bank: &Bank| first >= bank.first && end.0 <= bank.first.0 + bank.count as u64;
        let index = allocator.banks.iter().position(within)?;
        let bank = allocator.banks.get_mut(index)?;
        let (start, count) = ((first.0 - bank.first.0) as usize, (end.0 - first.0) as usize);
        let free = (start..start + count).all(|frame| !bank.is_taken(frame));
        free.then(|| bank.take(owner.clone(), index, start, count))
    }
}

impl Bank {
    fn is_taken(&self, index: usize) -> bool {
        self.taken.get(index / BITS).is_none_or(|word| word >> (index % BITS) & 1 != 0)
    }

    fn mark(&mut self, range: Range<usize>, taken: bool) {
        for index in range {
            if let Some(word) = self.taken.get_mut(index / BITS) {
                let bit = 1 << (index % BITS);
                *word = if taken { *word | bit } else { *word & !bit };
            }
        }
    }

    /// First frame of `count` free ones next to each other.
    fn find(&self, count: usize) -> Option<usize> {
        if count == 0 {
            return None;
        }
        let mut length = 0;
        for index in 0..self.count {
            length = if self.is_taken(index) { 0 } else { length + 1 };
            if length == count {
                return Some(index + 1 - count);
            }
        }
        None
    }

    fn take(
        &mut self,
        owner: Rc<RefCell<FrameAllocator>>,
        bank: usize,
        start: usize,
        count: usize,
    ) -> FrameRun {
        self.mark(start..start + count, true);
        self.free -= count;
        FrameRun { owner, bank, start, count, address: self.first.address() + start * PAGE_BYTES }
    }
}

impl FrameRun {
    /// Address of the first byte.
    #[must_use]
    pub fn address(&self) -> usize {
        self.address
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.count * PAGE_BYTES
    }
}

impl Drop for FrameRun {
    fn drop(&mut self) {
        if let Some(bank) = self.owner.borrow_mut().banks.get_mut(self.bank) {
            bank.mark(self.start..self.start + self.count, false);
            bank.free += self.count;
        }
    }
}

/// The sectors of a volume in RAM: our own frames, which no guest can see.
pub struct RamStorage {
    run: FrameRun,
    offset: usize,
    length: usize,
}

impl RamStorage {
    /// `bytes` zeroed bytes, or nothing when there are not as many frames next to each other.
    #[must_use]
    pub fn zeroed(owner: &Rc<RefCell<FrameAllocator>>, bytes: u64) -> Option<Self> {
        let length = usize::try_from(bytes).ok()?;
        let run = FrameAllocator::take(owner, length.div_ceil(PAGE_BYTES))?;
        let mut storage = Self { run, offset: 0, length };
        storage.bytes_mut().fill(0);
        Some(storage)
    }

    /// What lies in the byte range `range` already, if those frames are ours and free.
    #[must_use]
    pub fn existing(owner: &Rc<RefCell<FrameAllocator>>, range: &Range<usize>) -> Option<Self> {
        let run = FrameAllocator::take_at(owner, range)?;
        Some(Self { run, offset: range.start % PAGE_BYTES, length: range.len() })
    }
}

impl Storage for RamStorage {
    fn bytes(&self) -> &[u8] {
        let start = core::ptr::with_exposed_provenance(self.run.address + self.offset);
        // SAFETY: the run's frames are RAM of ours, mapped at their address, and nobody else's while it lives.
        unsafe { core::slice::from_raw_parts(start, self.length) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let start = core::ptr::with_exposed_provenance_mut(self.run.address + self.offset);
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(start, self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: usize = 0x4000_0000;

    fn allocator(frames: usize) -> Rc<RefCell<FrameAllocator>> {
        let mut allocator = FrameAllocator::default();
        allocator.add_bank(&(BASE..BASE + frames * PAGE_BYTES));
        Rc::new(RefCell::new(allocator))
    }

    #[test]
    fn runs_do_not_overlap_and_come_back() {
        let frames = allocator(100);
        let first = FrameAllocator::take(&frames, 70).unwrap();
        let second = FrameAllocator::take(&frames, 30).unwrap();
        assert_eq!(second.address(), first.address() + first.bytes());
        assert!(FrameAllocator::take(&frames, 1).is_none());
        drop(first);
        assert_eq!(frames.borrow().free(), 70);
        assert!(FrameAllocator::take(&frames, 71).is_none());
        assert!(FrameAllocator::take(&frames, 70).is_some());
    }

    #[test]
    fn partial_frames_at_the_edges_are_left_out() {
        let mut frames = FrameAllocator::default();
        frames.add_bank(&(0x1001..0x4fff));
        assert_eq!(frames.free(), 2);
    }

    #[test]
    fn nothing_is_not_a_run() {
        assert!(FrameAllocator::take(&allocator(4), 0).is_none());
    }

    #[test]
    fn a_run_does_not_span_banks() {
        let frames = allocator(4);
        frames.borrow_mut().add_bank(&(BASE + 4 * PAGE_BYTES..BASE + 10 * PAGE_BYTES));
        assert!(FrameAllocator::take(&frames, 7).is_none());
        assert_eq!(FrameAllocator::take(&frames, 6).unwrap().address(), BASE + 4 * PAGE_BYTES);
    }

    #[test]
    fn a_range_is_taken_once_and_with_whole_frames() {
        let frames = allocator(8);
        let range = BASE + 0x1800..BASE + 0x2800;
        let held = FrameAllocator::take_at(&frames, &range).unwrap();
        assert_eq!((held.address(), held.bytes()), (BASE + 0x1000, 2 * PAGE_BYTES));
        assert!(FrameAllocator::take_at(&frames, &range).is_none());
        assert!(FrameAllocator::take_at(&frames, &(BASE + 0x7000..BASE + 0x9000)).is_none());
    }
}
