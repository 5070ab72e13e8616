//! A hypercall that an interrupt ends.

core::arch::global_asm!(include_str!("sleep.S"), options(raw));

unsafe extern "C" {
    fn hypercall_or_interrupt(first: u64, second: u64, number: u64) -> i64;
}

/// Makes hypercall `number` with interrupts unmasked; does not make it when one is pending already.
///
/// Returns Xen's answer, or `first` if it was not made.
///
/// # Safety
/// As [`crate::xen::hypercall::call`].
pub unsafe fn hypercall_unmasked(number: u64, first: u64, second: u64) -> i64 {
    // SAFETY: the caller vouches for the arguments; the handler of an interrupt changes nothing but where this goes on.
    unsafe { hypercall_or_interrupt(first, second, number) }
}

/// Lets interrupts be taken at any instruction from now on: those that the interrupt controller lets through.
pub fn unmask_interrupts() {
    // SAFETY: what is taken runs on a stack of its own and leaves all registers as they were.
    unsafe { core::arch::asm!("msr daifclr, #2", options(nostack)) }
}

/// Whether no interrupt is taken.
#[must_use]
pub fn interrupts_are_masked() -> bool {
    const INTERRUPTS: u64 = 1 << 7;
    let flags: u64;
    // SAFETY: only reads.
    unsafe { core::arch::asm!("mrs {}, daif", out(reg) flags, options(nomem, nostack)) }
    flags & INTERRUPTS != 0
}

/// Lets no interrupt be taken.
pub fn mask_interrupts() {
    // SAFETY: changes nothing else.
    unsafe { core::arch::asm!("msr daifset, #2", options(nostack)) }
}
