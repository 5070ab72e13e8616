//! The pattern of `tests/guest/pattern.c`: another one at each place and for each key.

/// Bytes of a word.
pub const WORD_BYTES: u64 = 8;

/// The pattern's word at `index`: splitmix64.
pub fn word(key: u64, index: u64) -> u64 {
    let mut x = ((key << 56) ^ index).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn word_is_that_of_splitmix64() {
        // The first output of the generator with seed 0.
        assert_eq!(word(0, 0), 0xe220_a839_7b1d_cdaf);
    }
}
