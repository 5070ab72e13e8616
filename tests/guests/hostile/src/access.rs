//! One access to a register, which may fault.

core::arch::global_asm!(include_str!("access.S"), options(raw));

unsafe extern "C" {
    fn access_register(address: usize, kind: usize, value: u64) -> u64;
}

/// Kinds of accesses that `access.S` knows: loads and stores of all widths, pairs, and those that change their base.
const KINDS: usize = 16;
/// Bytes that one of them touches at most.
pub const BYTES_MAX: usize = 16;

/// An access of any of the kinds, at an address in the page of our devices' registers. Returns whether it worked.
pub fn access(offset: usize, kind: usize, value: u64) -> bool {
    let window = by_hand::registers::WINDOW;
    let offset = offset.min(window.len() - BYTES_MAX);
    // SAFETY: the page is mapped for good, and no memory; a fault is caught in `access.S`.
    unsafe { access_register(window.start + offset, kind % KINDS, value) == 0 }
}
