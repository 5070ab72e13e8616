//! What fuzzed bytes are made into: mostly numbers near those that mean something.

use crate::memory::{BASE, PAGES};
use arbitrary::{Arbitrary, Result, Unstructured};
use std::fmt::Debug;
use std::sync::LazyLock;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Most steps that an input makes: one that is longer does nothing new.
const STEPS_MAX: usize = 160;

/// A guest address: mostly inside its memory.
#[derive(Clone, Copy, Debug)]
pub struct Address(pub u64);

impl<'a> Arbitrary<'a> for Address {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let kind: u8 = input.arbitrary()?;
        let page = BASE + u64::from(kind) % PAGES * PAGE;
        Ok(Self(match kind {
            0..=199 => page + u64::from(input.arbitrary::<u8>()?) * 16,
            200..=245 => page + u64::from(input.arbitrary::<u16>()?) % PAGE,
            _ => input.arbitrary()?,
        }))
    }
}

/// A length in bytes: mostly one that a header, a block or a frame has.
#[derive(Clone, Copy, Debug)]
pub struct Length(pub u32);

const LENGTHS: [u32; 24] = [
    1, 16, 512, 12, 0, 2, 4, 6, 10, 13, 17, 32, 48, 60, 64, 128, 256, 513, 1024, 1514, 1526, 2048, 4096, 4097,
];
const LARGE_LENGTHS: [u32; 8] =
    [0x8000, 0x1_0000, 0x1_0011, 0x2_0000, 0x10_0000, u32::MAX - 15, u32::MAX - 1, u32::MAX];

impl<'a> Arbitrary<'a> for Length {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let kind: u8 = input.arbitrary()?;
        Ok(Self(match kind {
            0..=191 => LENGTHS[usize::from(kind) % LENGTHS.len()],
            192..=231 => u32::from(input.arbitrary::<u16>()?),
            232..=247 => LARGE_LENGTHS[usize::from(kind) % LARGE_LENGTHS.len()],
            _ => input.arbitrary()?,
        }))
    }
}

/// Whether the steps of an input are to be told: what a person wants to know of one that fails.
static TRACE: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FUZZ_TRACE").is_some());

/// The steps that the bytes left make, one after the other.
pub fn steps<'a, S: Arbitrary<'a> + Debug>(mut input: Unstructured<'a>) -> impl Iterator<Item = S> {
    let mut count = 0;
    core::iter::from_fn(move || {
        count += 1;
        let goes_on = count <= STEPS_MAX && !input.is_empty();
        let step = goes_on.then(|| S::arbitrary(&mut input).ok()).flatten();
        if let (true, Some(step)) = (*TRACE, &step) {
            eprintln!("{step:?}");
        }
        step
    })
}
