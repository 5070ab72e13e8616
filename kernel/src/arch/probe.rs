//! A look at a register that may not be there.

use boot::ExceptionFrame;

core::arch::global_asm!(include_str!("probe.S"), options(raw));

/// Exception class of a data abort of our own (Arm ARM, D24.2.40).
const DATA_ABORT: u64 = 0x25;

unsafe extern "C" {
    fn probe_register(address: u64) -> u64;
    static probe_load: u8;
    static probe_failed: u8;
}

/// Reads a register of 32 bits; none when Xen has nothing mapped there.
///
/// # Safety
/// `address` must be aligned, mapped in our own tables as device memory, and harmless to read.
#[must_use]
pub unsafe fn read_register(address: u64) -> Option<u32> {
    // SAFETY: the caller's contract; an abort is caught by `resume`.
    u32::try_from(unsafe { probe_register(address) }).ok()
}

/// If the exception is the abort of a look, lets the look fail instead. Returns whether it was.
pub fn resume(frame: &mut ExceptionFrame) -> bool {
    let is_abort = frame.esr >> 26 == DATA_ABORT;
    let is_look = is_abort && frame.elr == (&raw const probe_load).addr() as u64;
    if is_look {
        frame.elr = (&raw const probe_failed).addr() as u64;
    }
    is_look
}
