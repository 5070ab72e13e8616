//! What a hostile guest writes to its descriptor tables, and what its other CPU does.

use drivers::fake::FakeGuestMemory;
use proptest::prelude::*;
use std::cell::Cell;

#[derive(Clone, Debug)]
pub struct RandomDescriptor {
    pub buffer: (u64, u32),
    pub flags: u16,
    pub next: u16,
}

/// A descriptor with such a buffer and such flags, whose next one is mostly in the table.
pub fn descriptor(
    buffer: impl Strategy<Value = (u64, u32)>,
    flags: impl Strategy<Value = u16>,
) -> impl Strategy<Value = RandomDescriptor> {
    let next = prop_oneof![20 => 0..16_u16, 1 => any::<u16>()];
    (buffer, flags, next).prop_map(|(buffer, flags, next)| RandomDescriptor { buffer, flags, next })
}

/// PROPTEST_CASES in the environment says how many cases; 256 otherwise.
pub fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// From now on the guest's other CPU writes here and there, at most `writes` times, to so many bytes from `base` on, as follows
/// from a seed.
pub fn scribble(memory: &FakeGuestMemory, seed: u64, base: u64, bytes: u64, writes: usize) {
    let state = Cell::new(seed | 1);
    let number = move || {
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.set(next);
        next
    };
    let left = Cell::new(writes);
    memory.set_other_cpu(move |memory, _, _| {
        if left.get() > 0 && number().is_multiple_of(4) {
            left.set(left.get() - 1);
            let address = base + number() % bytes;
            memory.poke(address, &number().to_le_bytes()[..1 + (number() % 8) as usize]).unwrap();
        }
    });
}
