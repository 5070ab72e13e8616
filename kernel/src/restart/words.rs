//! Words that a crash may have left half-written, or overwritten, and that say so.

use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

/// 48 bits of value and 16 of check, changed by one store. Memory of zeroes, as Xen gives it, is none.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Word(AtomicU64);

const VALUE_BITS: u32 = 48;
const VALUE: u64 = (1 << VALUE_BITS) - 1;

impl Word {
    /// Writes a value, of which the low 48 bits count.
    pub fn set(&self, value: u64) {
        let value = value & VALUE;
        // In the order of the program, as an interrupt sees it.
        compiler_fence(Ordering::SeqCst);
        self.0.store(value | check(value) << VALUE_BITS, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// A value that nobody believes, for good.
    pub fn damage(&self) {
        self.0.store(VALUE | !check(VALUE) << VALUE_BITS, Ordering::Relaxed);
    }

    /// No value.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The value, if there is one that can be believed.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        let word = self.0.load(Ordering::Relaxed);
        let value = word & VALUE;
        (word >> VALUE_BITS == check(value)).then_some(value)
    }

    /// Whether something was written that cannot be believed.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.get().is_none() && self.0.load(Ordering::Relaxed) != 0
    }
}

/// 16 bits, not 0 for 0.
fn check(value: u64) -> u64 {
    (value ^ 0x5bd1_e995_9d3b).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> VALUE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_back_and_nothing_is_no_value() {
        let word = Word::default();
        assert_eq!((word.get(), word.is_damaged()), (None, false));
        for value in [0, 1, VALUE, 0x1234_5678_9abc] {
            word.set(value);
            assert_eq!(word.get(), Some(value));
        }
        word.damage();
        assert!(word.is_damaged());
        word.clear();
        assert_eq!((word.get(), word.is_damaged()), (None, false));
    }

    #[test]
    fn a_wrong_bit_is_found() {
        for bit in 0..64 {
            let word = Word::default();
            word.set(0x0bad_cafe_f00d);
            word.0.fetch_xor(1 << bit, Ordering::Relaxed);
            assert!(word.is_damaged(), "bit {bit}");
        }
    }
}
