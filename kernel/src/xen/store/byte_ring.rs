//! One direction of a ring that two domains share: bytes, and two indices that run freely.
//!
//! Xenstore has two of these in its page ([`super::ring`]), the PV console has one that matters
//! ([`crate::xen::console_ring`]). All of it is safe code: the page is seen as atomics, so that whatever the other
//! side does to it at any moment is at worst a wrong byte, and every index is taken modulo the size.
//!
//! An index of the other side is an allegation. When the two differ by more than the ring's size, one of
//! them is a lie, and nothing is moved.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};

/// The indices are further apart than the ring is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("producer index {producer:#x} and consumer index {consumer:#x} cannot both be true")]
pub struct BadIndex {
    /// What the producer index was.
    pub producer: u32,
    /// What the consumer index was.
    pub consumer: u32,
}

/// The view of one direction. `SIZE` is its length in bytes, a power of two.
pub struct ByteRing<'page, const SIZE: usize> {
    bytes: &'page [AtomicU8; SIZE],
    consumer: &'page AtomicU32,
    producer: &'page AtomicU32,
}

impl<'page, const SIZE: usize> ByteRing<'page, SIZE> {
    const SIZE_IS_POWER_OF_TWO: () = assert!(SIZE.is_power_of_two());

    /// A view of `bytes` with the indices that belong to them.
    pub fn new(
        bytes: &'page [AtomicU8; SIZE],
        consumer: &'page AtomicU32,
        producer: &'page AtomicU32,
    ) -> Self {
        let () = Self::SIZE_IS_POWER_OF_TWO;
        Self { bytes, consumer, producer }
    }

    /// Copies as much of `input` in as there is room for, and returns how much that was. When it is not 0, the
    /// other side wants a notification.
    ///
    /// # Errors
    /// [`BadIndex`]; nothing is moved then.
    pub fn produce(&self, input: &[u8]) -> Result<usize, BadIndex> {
        // Acquire: the other side has read the bytes it freed before they are written over.
        let consumer = self.consumer.load(Ordering::Acquire);
        let mut producer = self.producer.load(Ordering::Relaxed);
        let used = used::<SIZE>(consumer, producer)?;
        let count = input.len().min(SIZE - used);
        for &byte in input.iter().take(count) {
            if let Some(cell) = self.cell(producer) {
                cell.store(byte, Ordering::Relaxed);
            }
            producer = producer.wrapping_add(1);
        }
        publish(self.producer, producer, count);
        Ok(count)
    }

    /// Takes bytes out into `output`, and returns how many. When it is not 0, the other side wants a
    /// notification. What the other side adds meanwhile is left for the next call: it notifies us of that.
    ///
    /// # Errors
    /// [`BadIndex`]; nothing is moved then.
    pub fn consume(&self, output: &mut [u8]) -> Result<usize, BadIndex> {
        // Acquire: the bytes are read after the index that says they are there.
        let producer = self.producer.load(Ordering::Acquire);
        let mut consumer = self.consumer.load(Ordering::Relaxed);
        let count = used::<SIZE>(consumer, producer)?.min(output.len());
        for byte in output.iter_mut().take(count) {
            if let Some(cell) = self.cell(consumer) {
                *byte = cell.load(Ordering::Relaxed);
            }
            consumer = consumer.wrapping_add(1);
        }
        publish(self.consumer, consumer, count);
        Ok(count)
    }

    /// Throws away what is there to consume, and returns how many bytes that was by the indices' word, which is
    /// not checked.
    pub fn discard(&self) -> u32 {
        let producer = self.producer.load(Ordering::Acquire);
        let consumer = self.consumer.swap(producer, Ordering::AcqRel);
        producer.wrapping_sub(consumer)
    }

    fn cell(&self, index: u32) -> Option<&AtomicU8> {
        self.bytes.get(index as usize % SIZE)
    }
}

/// Bytes in the ring by the word of its indices.
fn used<const SIZE: usize>(consumer: u32, producer: u32) -> Result<usize, BadIndex> {
    let used = producer.wrapping_sub(consumer) as usize;
    if used > SIZE { Err(BadIndex { producer, consumer }) } else { Ok(used) }
}

/// Shows the other side an index that has moved by `count`, after everything that was done to the bytes.
fn publish(index: &AtomicU32, value: u32, count: usize) {
    if count > 0 {
        index.store(value, Ordering::Release);
        // The notification that follows is a hypercall; nothing promises that it is ordered after a store.
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    struct Memory {
        bytes: [AtomicU8; 16],
        consumer: AtomicU32,
        producer: AtomicU32,
    }

    impl Memory {
        fn starting_at(index: u32) -> Self {
            Self {
                bytes: core::array::from_fn(|_| AtomicU8::new(0xee)),
                consumer: AtomicU32::new(index),
                producer: AtomicU32::new(index),
            }
        }

        fn ring(&self) -> ByteRing<'_, 16> {
            ByteRing::new(&self.bytes, &self.consumer, &self.producer)
        }
    }

    fn take(ring: &ByteRing<'_, 16>, most: usize) -> Vec<u8> {
        let mut out = alloc::vec![0; most];
        let count = ring.consume(&mut out).unwrap();
        out.truncate(count);
        out
    }

    #[test]
    fn bytes_come_out_as_they_went_in_from_every_starting_index() {
        for start in (0..40).chain(u32::MAX - 40..=u32::MAX) {
            let memory = Memory::starting_at(start);
            let ring = memory.ring();
            assert_eq!(ring.produce(b"0123456789"), Ok(10));
            assert_eq!(take(&ring, 7), b"0123456");
            assert_eq!(ring.produce(b"abcdefghijklmnop"), Ok(13));
            assert_eq!(take(&ring, 99), b"789abcdefghijklm");
        }
    }

    #[test]
    fn full_ring_takes_nothing_and_empty_ring_gives_nothing() {
        let memory = Memory::starting_at(u32::MAX);
        let ring = memory.ring();
        assert_eq!(take(&ring, 5), b"");
        assert_eq!(ring.produce(&[1; 17]), Ok(16));
        assert_eq!(ring.produce(&[1; 1]), Ok(0));
    }

    #[test]
    fn index_that_lies_moves_nothing() {
        let memory = Memory::starting_at(0);
        memory.producer.store(17, Ordering::Relaxed);
        let lie = BadIndex { producer: 17, consumer: 0 };
        assert_eq!(memory.ring().consume(&mut [0; 4]), Err(lie));
        assert_eq!(memory.ring().produce(b"x"), Err(lie));
        assert_eq!(memory.producer.load(Ordering::Relaxed), 17);
    }

    #[test]
    fn consumer_ahead_of_producer_is_a_lie() {
        let memory = Memory::starting_at(5);
        memory.consumer.store(6, Ordering::Relaxed);
        assert!(memory.ring().produce(b"x").is_err());
    }

    #[test]
    fn discarding_empties_the_ring_whatever_the_indices_say() {
        let memory = Memory::starting_at(u32::MAX);
        memory.producer.store(99, Ordering::Relaxed);
        assert_eq!(memory.ring().discard(), 100);
        assert_eq!(take(&memory.ring(), 4), b"");
    }

    #[test]
    fn two_threads_agree_on_every_byte() {
        let memory = Memory::starting_at(u32::MAX - 1000);
        let sent: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let mut received = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    rest = &rest[memory.ring().produce(rest).unwrap()..];
                    std::thread::yield_now();
                }
            });
            while received.len() < sent.len() {
                received.extend(take(&memory.ring(), 9));
                std::thread::yield_now();
            }
        });
        assert_eq!(received, sent);
    }

    proptest! {
        #[test]
        fn ring_behaves_as_a_queue_of_bounded_length(
            start: u32,
            steps in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..24)), 0..60),
        ) {
            let memory = Memory::starting_at(start);
            let mut model = VecDeque::new();
            for (produce, bytes) in steps {
                if produce {
                    let count = memory.ring().produce(&bytes).unwrap();
                    prop_assert_eq!(count, bytes.len().min(16 - model.len()));
                    model.extend(&bytes[..count]);
                } else {
                    let out = take(&memory.ring(), bytes.len());
                    let expected: Vec<u8> = model.drain(..bytes.len().min(model.len())).collect();
                    prop_assert_eq!(out, expected);
                }
            }
        }

        #[test]
        fn any_indices_never_panic(consumer: u32, producer: u32) {
            let memory = Memory::starting_at(consumer);
            memory.producer.store(producer, Ordering::Relaxed);
            let _ = memory.ring().produce(&[1; 20]);
            let _ = memory.ring().consume(&mut [0; 20]);
            memory.ring().discard();
        }
    }
}
