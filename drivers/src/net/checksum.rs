//! The Internet checksum (RFC 1071): the ones' complement of the ones' complement sum of all 16-bit words.
//!
//! Eight bytes a step, in two sums that never overflow: two additions for eight bytes, no carry to wait for. On a core that
//! does two of them at once that is about a fifth of a nanosecond for each byte of eight, less than copying them takes.

/// Bytes that one step takes: the loop's own cost is shared by four words.
const STEP: usize = 32;

/// The ones' complement sum of `bytes`, which begin at an even place; a last odd byte is the upper half of a word.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    let (mut lower, mut upper) = (0_u64, 0_u64);
    let mut add = |word: [u8; 8]| {
        // Any order of bytes does for the sum, if the result is turned in the end (RFC 1071, section 2 B).
        let word = u64::from_le_bytes(word);
        lower += word & 0xffff_ffff;
        upper += word >> 32;
    };
    for step in steps {
        step.as_chunks::<8>().0.iter().for_each(|word| add(*word));
    }
    let (words, tail) = rest.as_chunks::<8>();
    words.iter().for_each(|word| add(*word));
    let mut last = [0; 8];
    last.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
    add(last);
    fold(lower + upper).swap_bytes()
}

/// The sum of two sums.
#[must_use]
pub fn add(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    // With a carry `sum` is at most 0xfffe.
    sum + u16::from(carry)
}

/// The checksum for a `sum`. Zero is written as 0xffff, which is the same number to whoever adds it up: for UDP, zero means
/// that there is no checksum (RFC 768), and others do not mind.
#[must_use]
pub fn finish(sum: u16) -> u16 {
    match !sum {
        0 => 0xffff,
        checksum => checksum,
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn word_by_word(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0, |sum, word| {
            let low = word.get(1).copied().unwrap_or(0);
            add(sum, u16::from_be_bytes([word[0], low]))
        })
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn the_longest_run_of_ones_does_not_overflow() {
        assert_eq!(sum(&[0xff; 65_553]), add(0xffff, 0xff00));
    }

    #[test]
    fn no_checksum_is_zero() {
        assert_eq!((finish(0xffff), finish(0), finish(0x1234)), (0xffff, 0xffff, 0xedcb));
    }

    proptest! {
        #[test]
        fn many_bytes_at_a_time_are_as_two_at_a_time(bytes: Vec<u8>) {
            prop_assert_eq!(sum(&bytes), word_by_word(&bytes));
        }
    }
}
