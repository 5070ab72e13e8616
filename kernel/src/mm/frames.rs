//! Which of our RAM is free: a bitmap over each bank, runs of frames handed out as values, the highest first: the heap
//! grows from below.
//!
//! Single frames may be lent to the balloon ([`super::balloon`]), which takes them out of our physmap. They are counted
//! apart, and a run that is not to be had otherwise says which of them have to come back.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use drivers::volume::ram::Storage;

use super::address::Gfn;
use crate::limits::{BLOCK_BYTES, PAGE_BYTES};
use crate::restart::watchdog;

const BITS: usize = u64::BITS as usize;

/// Bytes zeroed between two signs of life.
const ZERO_AT_ONCE: usize = 16 << 20;

/// Frames of a block so large that no border of one lies in any bank.
const ANYWHERE: usize = 1 << 52;

/// The frames of our RAM.
#[derive(Default)]
pub struct FrameAllocator {
    banks: Vec<Bank>,
    /// Which are lent, for the next life of this kernel: a bit for each, bank after bank.
    notes: Option<&'static [AtomicU64]>,
}

struct Bank {
    first: Gfn,
    count: usize,
    free: usize,
    /// One bit a frame, set when taken or lent.
    taken: Vec<u64>,
    /// One bit a frame, set when lent.
    lent: Vec<u64>,
    /// No frame from this one on is free.
    free_end: usize,
}

/// A free frame that the allocator has lent; it comes back by [`FrameAllocator::take_back`].
#[derive(Debug, PartialEq, Eq)]
pub struct LentFrame(Gfn);

impl LentFrame {
    /// Which one.
    #[must_use]
    pub fn gfn(&self) -> Gfn {
        self.0
    }

    /// One that was lent before, and of which only the number was kept.
    pub(super) fn again(gfn: Gfn) -> Self {
        Self(gfn)
    }
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
        let words = count.div_ceil(BITS);
        self.banks.push(Bank {
            first,
            count,
            free: count,
            taken: vec![0; words],
            lent: vec![0; words],
            free_end: count,
        });
    }

    /// Notes in `notes` from now on which frames are lent. Returns those that an earlier life noted: taken, and lent.
    pub fn noted_in(&mut self, notes: &'static [AtomicU64]) -> Vec<LentFrame> {
        self.notes = Some(notes);
        let mut lent = Vec::new();
        let words = notes.iter().map(|word| word.load(Ordering::Relaxed));
        let bits = words.enumerate().flat_map(|(index, word)| {
            (0..BITS).filter(move |bit| word >> bit & 1 != 0).map(move |bit| index * BITS + bit)
        });
        for place in bits {
            let mut first = 0;
            for bank in &mut self.banks {
                if let Some(index) = place.checked_sub(first).filter(|index| *index < bank.count)
                    && !bank.is_taken(index)
                {
                    bank.lend_this(index);
                    lent.push(LentFrame(Gfn(bank.first.0 + index as u64)));
                }
                first += bank.count;
            }
        }
        lent
    }

    fn note(&self, gfn: Gfn, is_lent: bool) {
        let Some(notes) = self.notes else { return };
        let mut first = 0;
        for bank in &self.banks {
            let index = gfn.0.wrapping_sub(bank.first.0) as usize;
            if index < bank.count {
                let (word, bit) = ((first + index) / BITS, 1 << ((first + index) % BITS));
                if let Some(word) = notes.get(word) {
                    let old = word.load(Ordering::Relaxed);
                    word.store(if is_lent { old | bit } else { old & !bit }, Ordering::Relaxed);
                }
            }
            first += bank.count;
        }
    }

    /// All frames that it knows of.
    #[must_use]
    pub fn total(&self) -> usize {
        self.banks.iter().map(|bank| bank.count).sum()
    }

    /// Frames that are lent.
    #[must_use]
    pub fn lent(&self) -> usize {
        let count = |bank: &Bank| bank.lent.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        self.banks.iter().map(count).sum()
    }

    /// Lends the highest free frame.
    #[must_use]
    pub fn lend(&mut self) -> Option<LentFrame> {
        let lent = self.banks.iter_mut().rev().find_map(Bank::lend)?;
        // Before Xen has it.
        self.note(lent.gfn(), true);
        Some(lent)
    }

    /// Takes a lent frame back.
    // By value: whoever gives it back has it no longer.
    #[allow(clippy::needless_pass_by_value)]
    pub fn take_back(&mut self, frame: LentFrame) {
        if let Some((bank, index)) = self.bank_of(frame.gfn()) {
            bank.take_back(index);
            self.note(frame.gfn(), false);
        }
    }

    /// Where `count` frames next to each other would be free if those among them that are lent came back, but for those in
    /// `staying`. As a range of frame numbers.
    #[must_use]
    pub fn find_with_lent(
        &mut self,
        count: usize,
        staying: impl Iterator<Item = Gfn> + Clone,
    ) -> Option<Range<Gfn>> {
        // Taken, and not lent, for the time of the search.
        staying.clone().for_each(|gfn| self.set_lent(gfn, false));
        let fits = |bank: &Bank| {
            let start = bank.find(count, ANYWHERE, |taken, lent| taken & !lent)?;
            let first = Gfn(bank.first.0 + start as u64);
            Some(first..Gfn(first.0 + count as u64))
        };
        let found = self.banks.iter().rev().find_map(fits);
        staying.for_each(|gfn| self.set_lent(gfn, true));
        found
    }

    /// Whether the frames of the byte range `range` are all RAM, and free or lent.
    #[must_use]
    pub fn is_free_or_lent(&self, range: &Range<usize>) -> bool {
        let Some((bank, mut frames)) = self.locate(range) else { return false };
        let Some(bank) = self.banks.get(bank) else { return false };
        frames.all(|frame| !bank.is_taken(frame) || bank.is_lent(frame))
    }

    fn set_lent(&mut self, gfn: Gfn, lent: bool) {
        if let Some((bank, index)) = self.bank_of(gfn) {
            set(&mut bank.lent, index, lent);
        }
    }

    /// The bank that a frame is in, and which of its frames it is.
    fn bank_of(&mut self, gfn: Gfn) -> Option<(&mut Bank, usize)> {
        self.banks.iter_mut().find_map(|bank| {
            let index = gfn.0.checked_sub(bank.first.0)? as usize;
            (index < bank.count).then_some((bank, index))
        })
    }

    /// Frames that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.banks.iter().map(|bank| bank.free).sum()
    }

    /// Takes `count` frames next to each other, or none.
    #[must_use]
    pub fn take(owner: &Rc<RefCell<Self>>, count: usize) -> Option<FrameRun> {
        Self::take_within(owner, count, ANYWHERE)
    }

    /// Takes `count` frames next to each other that lie in one block of [`BLOCK_BYTES`], or none.
    #[must_use]
    pub fn take_within_block(owner: &Rc<RefCell<Self>>, count: usize) -> Option<FrameRun> {
        Self::take_within(owner, count, BLOCK_BYTES / PAGE_BYTES)
    }

    fn take_within(owner: &Rc<RefCell<Self>>, count: usize, block: usize) -> Option<FrameRun> {
        let mut allocator = owner.borrow_mut();
        let fits = |(index, bank): (usize, &Bank)| Some((index, bank.find(count, block, |taken, _| taken)?));
        let (index, start) = allocator.banks.iter().enumerate().rev().find_map(fits)?;
        let bank = allocator.banks.get_mut(index)?;
        Some(bank.take(owner.clone(), index, start, count))
    }

    /// Takes the frames that hold the byte range `range`, if all of them are RAM and free.
    #[must_use]
    pub fn take_at(owner: &Rc<RefCell<Self>>, range: &Range<usize>) -> Option<FrameRun> {
        let mut allocator = owner.borrow_mut();
        let (index, frames) = allocator.locate(range)?;
        let bank = allocator.banks.get_mut(index)?;
        let free = frames.clone().all(|frame| !bank.is_taken(frame));
        free.then(|| bank.take(owner.clone(), index, frames.start, frames.len()))
    }

    /// Makes a run again of what [`FrameRun::leak`] returned. None when those frames are not taken.
    #[must_use]
    pub fn reclaim(owner: &Rc<RefCell<Self>>, range: &Range<usize>) -> Option<FrameRun> {
        let allocator = owner.borrow();
        let (bank, frames) = allocator.locate(range)?;
        let taken =
            frames.clone().all(|frame| allocator.banks.get(bank).is_some_and(|bank| bank.is_taken(frame)));
        let address = Gfn::containing(range.start).address();
        taken.then(|| FrameRun {
            owner: owner.clone(),
            bank,
            start: frames.start,
            count: frames.len(),
            address,
        })
    }

    /// The bank and the frames in it that hold the byte range `range`.
    fn locate(&self, range: &Range<usize>) -> Option<(usize, Range<usize>)> {
        let first = Gfn::containing(range.start);
        let end = Gfn::containing(range.end.checked_next_multiple_of(PAGE_BYTES)?);
        let within = |bank: &Bank| first >= bank.first && end.0 <= bank.first.0 + bank.count as u64;
        let index = self.banks.iter().position(within)?;
        let start = self.banks.get(index)?.first.0;
        Some((index, (first.0 - start) as usize..(end.0 - start) as usize))
    }
}

fn set(words: &mut [u64], index: usize, value: bool) {
    if let Some(word) = words.get_mut(index / BITS) {
        let bit = 1 << (index % BITS);
        *word = if value { *word | bit } else { *word & !bit };
    }
}

impl Bank {
    fn is_taken(&self, index: usize) -> bool {
        self.taken.get(index / BITS).is_none_or(|word| word >> (index % BITS) & 1 != 0)
    }

    fn mark(&mut self, range: Range<usize>, taken: bool) {
        if !taken {
            self.free_end = self.free_end.max(range.end);
        }
        range.for_each(|index| set(&mut self.taken, index, taken));
    }

    fn lend(&mut self) -> Option<LentFrame> {
        let index = (0..self.free_end).rev().find(|index| !self.is_taken(*index));
        self.free_end = index.unwrap_or(0);
        let index = index?;
        self.lend_this(index);
        Some(LentFrame(Gfn(self.first.0 + index as u64)))
    }

    fn lend_this(&mut self, index: usize) {
        set(&mut self.taken, index, true);
        set(&mut self.lent, index, true);
        self.free -= 1;
    }

    fn is_lent(&self, index: usize) -> bool {
        self.lent.get(index / BITS).is_some_and(|word| word >> (index % BITS) & 1 != 0)
    }

    fn take_back(&mut self, index: usize) {
        set(&mut self.lent, index, false);
        self.mark(index..index + 1, false);
        self.free += 1;
    }

    /// First frame of the highest `count` free ones next to each other, in one aligned block of `block` frames. `word`
    /// makes of the words of taken and lent frames the one that says which are not free.
    fn find(&self, count: usize, block: usize, word: fn(u64, u64) -> u64) -> Option<usize> {
        if count == 0 || count > block {
            return None;
        }
        let base = self.first.0 as usize;
        // The frames from `start` to `end` are free.
        let (mut start, mut end) = (self.count, self.count);
        while start > 0 {
            let last = start - 1;
            let left = last % BITS + 1;
            let word = word(*self.taken.get(last / BITS)?, *self.lent.get(last / BITS)?) << (BITS - left);
            let free = (word.leading_zeros() as usize).min(left);
            start -= free;
            while end - start >= count {
                let border = ((base + end - 1) / block * block).saturating_sub(base);
                if end - count >= border {
                    return Some(end - count);
                }
                end = border.max(start);
            }
            if free < left {
                start -= ((word << free).leading_ones() as usize).min(left - free);
                end = start;
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

    /// Keeps the frames taken without the value; see [`FrameAllocator::reclaim`]. Returns where they lie.
    pub fn leak(mut self) -> Range<usize> {
        let range = self.address..self.address + self.bytes();
        // Dropping it gives nothing back then.
        self.count = 0;
        range
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
    /// `bytes` zeroed bytes in `run`; none when it is too small.
    #[must_use]
    pub fn zeroed(run: FrameRun, bytes: usize) -> Option<Self> {
        let mut storage = Self::kept(run, bytes)?;
        for part in storage.bytes_mut().chunks_mut(ZERO_AT_ONCE) {
            part.fill(0);
            watchdog::turned();
        }
        Some(storage)
    }

    /// `bytes` bytes in `run`, as they are; none when it is too small.
    #[must_use]
    pub fn kept(run: FrameRun, bytes: usize) -> Option<Self> {
        (bytes <= run.bytes()).then_some(Self { run, offset: 0, length: bytes })
    }

    /// Addresses of its bytes.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        let start = self.run.address + self.offset;
        start..start + self.length
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
    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = BLOCK_BYTES / PAGE_BYTES;
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
        assert_eq!(second.address() + second.bytes(), first.address());
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
    #[test]
    fn a_run_within_a_block_does_not_cross_its_border() {
        let frames = allocator(3 * BLOCK);
        let first = FrameAllocator::take(&frames, 10).unwrap();
        let whole = FrameAllocator::take_within_block(&frames, BLOCK).unwrap();
        assert_eq!(whole.address(), BASE + BLOCK_BYTES);
        let rest = FrameAllocator::take_within_block(&frames, BLOCK - 10).unwrap();
        assert_eq!(rest.address() + rest.bytes(), first.address());
        assert!(FrameAllocator::take_within_block(&frames, BLOCK + 1).is_none());
    }

    #[test]
    fn blocks_are_those_of_the_addresses_and_not_of_the_bank() {
        let mut frames = FrameAllocator::default();
        frames.add_bank(&(BASE - 4 * PAGE_BYTES..BASE + 8 * PAGE_BYTES));
        let frames = Rc::new(RefCell::new(frames));
        let held = FrameAllocator::take_within_block(&frames, 5).unwrap();
        assert_eq!(held.address(), BASE + 3 * PAGE_BYTES);
        assert_eq!(FrameAllocator::take_within_block(&frames, 4).unwrap().address(), BASE - 4 * PAGE_BYTES);
    }

    #[test]
    fn lent_frames_are_taken_and_counted_until_they_come_back() {
        let frames = allocator(4);
        let lent: Vec<_> = (0..3).map(|_| frames.borrow_mut().lend().unwrap()).collect();
        assert_eq!((frames.borrow().free(), frames.borrow().lent(), frames.borrow().total()), (1, 3, 4));
        assert!(FrameAllocator::take(&frames, 2).is_none());
        let first = Gfn::containing(BASE);
        assert_eq!(frames.borrow_mut().find_with_lent(4, core::iter::empty()), Some(first..Gfn(first.0 + 4)));
        let last = FrameAllocator::take(&frames, 1).unwrap();
        assert_eq!(frames.borrow_mut().lend(), None);
        assert_eq!(frames.borrow_mut().find_with_lent(4, core::iter::empty()), None);
        lent.into_iter().for_each(|frame| frames.borrow_mut().take_back(frame));
        drop(last);
        assert_eq!((frames.borrow().free(), frames.borrow().lent()), (4, 0));
    }

    #[test]
    fn a_leaked_run_stays_taken_until_it_is_reclaimed() {
        let frames = allocator(8);
        let range = FrameAllocator::take(&frames, 3).unwrap().leak();
        let last = BASE + 5 * PAGE_BYTES..BASE + 8 * PAGE_BYTES;
        assert_eq!((range.clone(), frames.borrow().free()), (last, 5));
        drop(FrameAllocator::reclaim(&frames, &range).unwrap());
        assert_eq!(frames.borrow().free(), 8);
        assert!(FrameAllocator::reclaim(&frames, &range).is_none());
        assert!(FrameAllocator::reclaim(&frames, &(0..PAGE_BYTES)).is_none());
    }

    proptest! {
        /// What is found is the last place that a frame by frame search finds.
        #[test]
        fn the_last_fit_is_found(
            taken in prop::collection::vec(prop::bool::weighted(0.2), 1..400),
            offset in 0..16_u64,
            count in 0..40_usize,
            block in 1..70_usize,
        ) {
            let mut bank = Bank {
                first: Gfn(offset),
                count: taken.len(),
                free: 0,
                taken: vec![0; taken.len().div_ceil(BITS)],
                lent: vec![0; taken.len().div_ceil(BITS)],
                free_end: 0,
            };
            for (frame, _) in taken.iter().enumerate().filter(|(_, taken)| **taken) {
                bank.mark(frame..frame + 1, true);
            }
            let of_block = |frame: usize| (offset as usize + frame) / block;
            let fits = |start: &usize| {
                count > 0 && !taken[*start..start + count].contains(&true)
                    && of_block(*start) == of_block(start + count - 1)
            };
            let expected = (0..(taken.len() + 1).saturating_sub(count)).rev().find(fits);
            prop_assert_eq!(bank.find(count, block, |taken, _| taken), expected);
        }
    }
}
