//! What of a device outlives the kernel that serves it, so that the next one in the same place goes on where it stopped.
//!
//! The guest does not know of the change: it will not tell again what it wrote to the registers, nor make requests
//! available again that were taken. So both are written down as they happen, in memory that a restart leaves alone:
//!
//! | what | when written | read back |
//! |---|---|---|
//! | registers, [`Saved`] | with each write that changes them, twice: one of the two is always whole | its check holds |
//! | heads taken and not given back, [`InFlight`] | as they are taken, by one store each | each word's check holds |
//!
//! Everything else is in the guest's rings. The end of a kernel can come between any two stores; what is read back is
//! right all the same, but that a request may be done again, as vhost-user's inflight area has it (QEMU's
//! docs/interop/vhost-user.rst, "Inflight I/O tracking").
//!
//! Neighbours: [`super::mmio`] saves and resumes registers, [`super::queue`] takes and gives back heads.

use super::queue::{MAX_SIZE, QueueSettings};
#[cfg(any(test, feature = "fakes"))]
use crate::fake::steps::{AtomicU32, AtomicU64};
use core::sync::atomic::Ordering;
#[cfg(not(any(test, feature = "fakes")))]
use core::sync::atomic::{AtomicU32, AtomicU64};
use smallvec::SmallVec;

/// Most queues that a device may have.
pub const QUEUES: usize = 3;

const HEADS_PER_WORD: u16 = 32;
const HEAD_WORDS: usize = (MAX_SIZE / HEADS_PER_WORD) as usize;
const WORDS_PER_QUEUE: usize = 4;
const SAVED_WORDS: usize = 4 + QUEUES * WORDS_PER_QUEUE;
/// In place of a check, which is never that.
const BEING_WRITTEN: u64 = 0;

/// One device's memory for its successor.
#[derive(Debug)]
pub struct DeviceHandover {
    /// The latest whole one counts.
    saved: [Copied; 2],
    /// The heads under way of each queue.
    pub queues: [InFlight; QUEUES],
}

/// The registers of a device, as the guest wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The status register.
    pub status: u32,
    /// The features accepted.
    pub accepted: u64,
    /// Features above bit 63 were accepted.
    pub accepted_unknown: bool,
    /// The driver's rings were refused.
    pub rings_refused: bool,
    /// DeviceFeaturesSel.
    pub device_features_select: u32,
    /// DriverFeaturesSel.
    pub driver_features_select: u32,
    /// QueueSel.
    pub queue_select: u32,
    /// ConfigGeneration.
    pub config_generation: u32,
    /// Each queue, and whether it is ready.
    pub queues: [(QueueSettings, bool); QUEUES],
}

/// Words and their check.
#[derive(Debug)]
struct Copied {
    words: [AtomicU64; SAVED_WORDS],
    check: AtomicU64,
}

impl Default for DeviceHandover {
    fn default() -> Self {
        Self {
            saved: [Copied::new(), Copied::new()],
            queues: [InFlight::new(), InFlight::new(), InFlight::new()],
        }
    }
}

impl DeviceHandover {
    /// Writes the registers down.
    pub fn save(&self, saved: &Saved) {
        let [one, two] = &self.saved;
        let (of_one, of_two) = (one.sequence(), two.sequence());
        if of_one.or(of_two).is_none() {
            // Whatever is there is not what we wrote.
            self.forget();
        }
        // Over the older one: whoever comes in between has the other.
        let (place, newest) = if of_one > of_two { (two, of_one) } else { (one, of_two) };
        place.store(newest.unwrap_or(0).wrapping_add(1), saved);
    }

    /// The registers as they were written down last; none when neither copy can be believed, or one has changed by itself: it
    /// may have been the latest.
    #[must_use]
    pub fn saved(&self) -> Option<Saved> {
        if self.saved.iter().any(Copied::is_damaged) {
            return None;
        }
        self.saved.iter().max_by_key(|copied| copied.sequence()).and_then(Copied::load)
    }

    /// Makes both copies such as nobody believes.
    pub fn forget(&self) {
        self.saved.iter().for_each(|copied| copied.check.store(BEING_WRITTEN, Ordering::Relaxed));
    }
}

impl Copied {
    const fn new() -> Self {
        Self { words: [const { AtomicU64::new(0) }; SAVED_WORDS], check: AtomicU64::new(BEING_WRITTEN) }
    }

    fn words(&self) -> [u64; SAVED_WORDS] {
        core::array::from_fn(|index| self.words.get(index).map_or(0, |word| word.load(Ordering::Relaxed)))
    }

    fn is_whole(&self) -> bool {
        self.check.load(Ordering::Relaxed) == check(&self.words())
    }

    /// Whether it is neither whole nor being written.
    fn is_damaged(&self) -> bool {
        self.check.load(Ordering::Relaxed) != BEING_WRITTEN && !self.is_whole()
    }

    /// Its number in the order of writing; none when it is not whole.
    fn sequence(&self) -> Option<u32> {
        let [first, ..] = self.words();
        self.is_whole().then_some(low(first >> 32))
    }

    fn store(&self, sequence: u32, saved: &Saved) {
        // Not whole from here ...
        self.check.store(BEING_WRITTEN, Ordering::Relaxed);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        let flags = u64::from(saved.accepted_unknown) << 8 | u64::from(saved.rings_refused) << 9;
        let head = [
            u64::from(sequence) << 32 | u64::from(saved.status & 0xff) | flags,
            saved.accepted,
            u64::from(saved.device_features_select) | u64::from(saved.driver_features_select) << 32,
            u64::from(saved.queue_select) | u64::from(saved.config_generation) << 32,
        ];
        let queues = saved.queues.iter().flat_map(|(queue, ready)| {
            let size = u64::from(queue.size) | u64::from(*ready) << 32;
            [size, queue.descriptors, queue.available, queue.used]
        });
        for (place, word) in self.words.iter().zip(head.into_iter().chain(queues)) {
            place.store(word, Ordering::Relaxed);
        }
        // ... to here.
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        self.check.store(check(&self.words()), Ordering::Relaxed);
    }

    fn load(&self) -> Option<Saved> {
        if !self.is_whole() {
            return None;
        }
        let words = self.words();
        let ([first, accepted, features_select, queue_select], rest) = words.split_first_chunk()?;
        let mut queues = rest.chunks_exact(WORDS_PER_QUEUE).map(|words| match *words {
            [size, descriptors, available, used] => {
                (QueueSettings { size: low(size), descriptors, available, used }, size >> 32 != 0)
            }
            _ => (QueueSettings::default(), false),
        });
        Some(Saved {
            status: low(*first) & 0xff,
            accepted: *accepted,
            accepted_unknown: first & 1 << 8 != 0,
            rings_refused: first & 1 << 9 != 0,
            device_features_select: low(*features_select),
            driver_features_select: low(features_select >> 32),
            queue_select: low(*queue_select),
            config_generation: low(queue_select >> 32),
            queues: core::array::from_fn(|_| queues.next().unwrap_or_default()),
        })
    }
}

/// The heads of a queue that were taken and not given back.
#[derive(Debug)]
pub struct InFlight {
    /// The bits of 32 heads, and above them their check: one store changes both.
    heads: [AtomicU64; HEAD_WORDS],
    /// The used index up to which the heads given back are off the list, and above it the same, inverted.
    noted: AtomicU32,
}

/// Heads on the list.
pub type Listed = SmallVec<[u16; 16]>;

impl InFlight {
    const fn new() -> Self {
        Self { heads: [const { AtomicU64::new(0) }; HEAD_WORDS], noted: AtomicU32::new(0) }
    }

    /// An empty list, for a queue whose used index is `noted`.
    pub fn begin(&self, noted: u16) {
        for (index, word) in self.heads.iter().enumerate() {
            word.store(sealed(index, 0), Ordering::Relaxed);
        }
        self.note(noted);
    }

    /// Puts `head` on the list. In the order of the ring: the end may come after any of them.
    pub fn insert(&self, head: u16) {
        self.change(head, |heads, bit| heads | bit);
    }

    /// Takes `head` off the list.
    pub fn remove(&self, head: u16) {
        self.change(head, |heads, bit| heads & !bit);
    }

    /// What was given back up to the used index `noted` is off the list.
    pub fn note(&self, noted: u16) {
        // After the changes of the list: the end may come between them.
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        self.noted.store(u32::from(noted) | u32::from(!noted) << 16, Ordering::Relaxed);
    }

    /// The list, and the used index up to which it holds; none when it cannot be believed.
    #[must_use]
    pub fn read(&self) -> Option<(Listed, u16)> {
        let noted = self.noted.load(Ordering::Relaxed);
        let [first, second, third, fourth] = noted.to_le_bytes();
        let (index, inverted) = (u16::from_le_bytes([first, second]), u16::from_le_bytes([third, fourth]));
        let mut listed = Listed::new();
        for (number, word) in self.heads.iter().enumerate() {
            let word = word.load(Ordering::Relaxed);
            let mut heads = low(word);
            if word != sealed(number, heads) {
                return None;
            }
            while heads != 0 {
                let bit = heads.trailing_zeros();
                heads &= heads - 1;
                listed.push(u16::try_from(number).ok()? * HEADS_PER_WORD + u16::try_from(bit).ok()?);
            }
        }
        (index == !inverted).then_some((listed, index))
    }

    fn change(&self, head: u16, change: fn(u32, u32) -> u32) {
        let index = usize::from(head / HEADS_PER_WORD);
        if let Some(word) = self.heads.get(index) {
            let heads = change(low(word.load(Ordering::Relaxed)), 1 << (head % HEADS_PER_WORD));
            word.store(sealed(index, heads), Ordering::Relaxed);
        }
    }
}

/// The low half of a word.
fn low(word: u64) -> u32 {
    let [b0, b1, b2, b3, ..] = word.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// Bits of heads with their check, which no word of zeroes has.
fn sealed(index: usize, heads: u32) -> u64 {
    let salt = u32::try_from(index).unwrap_or(0).wrapping_add(1).wrapping_mul(0x85eb_ca6b);
    u64::from(heads) | u64::from((heads ^ salt).wrapping_mul(0x9e37_79b1)) << 32
}

/// A check of words, never 0.
fn check(words: &[u64]) -> u64 {
    let mix = |sum: u64, word: &u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    words.iter().fold(0x6861_6e64_6f76_6572, mix) | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::steps::before_stores;
    use core::cell::Cell;
    use std::boxed::Box;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    fn saved(status: u32) -> Saved {
        let queue = QueueSettings { size: 256, descriptors: 1 << 40, available: 2 << 40, used: 3 << 40 };
        Saved {
            status,
            accepted: u64::MAX,
            accepted_unknown: true,
            rings_refused: false,
            device_features_select: 1,
            driver_features_select: 2,
            queue_select: 3,
            config_generation: 4,
            queues: [(queue, true), (QueueSettings::default(), false), (queue, false)],
        }
    }

    /// Ends `act` before its store number `stores`.
    fn end_after(stores: usize, act: impl FnOnce()) {
        std::thread_local! {
            static LEFT: Cell<usize> = const { Cell::new(0) };
        }
        LEFT.set(stores);
        before_stores(|| match LEFT.get().checked_sub(1) {
            Some(left) => LEFT.set(left),
            None => resume_unwind(Box::new(())),
        });
        let _ = catch_unwind(AssertUnwindSafe(act));
        before_stores(|| ());
    }

    fn words(handover: &DeviceHandover) -> impl Iterator<Item = &AtomicU64> {
        handover.saved.iter().flat_map(|copied| copied.words.iter().chain([&copied.check]))
    }

    fn flip(word: &AtomicU64, bit: usize) {
        word.store(word.load(Ordering::Relaxed) ^ 1 << bit, Ordering::Relaxed);
    }

    #[test]
    fn what_was_saved_last_is_read_back() {
        let handover = DeviceHandover::default();
        assert_eq!(handover.saved(), None);
        for status in 0..5 {
            handover.save(&saved(status));
            assert_eq!(handover.saved(), Some(saved(status)));
        }
        handover.forget();
        assert_eq!(handover.saved(), None);
    }

    #[test]
    fn whoever_comes_between_two_stores_finds_what_was_saved_before_or_what_is_saved() {
        for stores in 0..=SAVED_WORDS + 2 {
            let handover = DeviceHandover::default();
            handover.save(&saved(1));
            handover.save(&saved(2));
            end_after(stores, || handover.save(&saved(3)));
            let now = if stores < SAVED_WORDS + 2 { 2 } else { 3 };
            assert_eq!(handover.saved(), Some(saved(now)), "{stores} stores");
            handover.save(&saved(4));
            assert_eq!(handover.saved(), Some(saved(4)), "{stores} stores");
        }
    }

    #[test]
    fn memory_with_anything_in_it_will_do() {
        let handover = DeviceHandover::default();
        words(&handover).for_each(|word| word.store(0x5a5a, Ordering::Relaxed));
        assert_eq!(handover.saved(), None);
        handover.save(&saved(1));
        assert_eq!(handover.saved(), Some(saved(1)));
    }

    #[test]
    fn a_wrong_bit_anywhere_is_found() {
        let handover = DeviceHandover::default();
        handover.save(&saved(1));
        handover.save(&saved(2));
        for word in words(&handover) {
            for bit in 0..64 {
                flip(word, bit);
                assert_eq!(handover.saved(), None);
                flip(word, bit);
            }
        }
        assert_eq!(handover.saved(), Some(saved(2)));
    }

    #[test]
    fn the_list_holds_what_was_taken_and_not_given_back() {
        let list = InFlight::new();
        assert!(list.read().is_none(), "nobody began it");
        list.begin(65535);
        for head in [255, 0, 31, 32] {
            list.insert(head);
        }
        list.remove(31);
        list.note(0);
        let (heads, noted) = list.read().unwrap();
        assert_eq!((heads.as_slice(), noted), ([0, 32, 255].as_slice(), 0));
    }

    #[test]
    fn a_list_with_a_wrong_bit_is_not_believed() {
        for bit in 0..64 {
            let list = InFlight::new();
            list.begin(7);
            list.insert(3);
            flip(&list.heads[0], bit);
            assert!(list.read().is_none(), "bit {bit}");
        }
        let list = InFlight::new();
        list.begin(7);
        list.noted.store(list.noted.load(Ordering::Relaxed) ^ 1, Ordering::Relaxed);
        assert!(list.read().is_none());
    }
}
