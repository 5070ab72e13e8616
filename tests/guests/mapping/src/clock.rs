//! Time, in ticks of the generic timer: cheap to read, unlike nanoseconds.

use arm_sysregs::el0::accessors::{read_cntfrq_el0, read_cntvct_el0};
use kernel::arch::timer::now_ns;
use kernel::xen::sched;

/// How long Dom0 gets to take a line from the console, so that it does not do so while something is measured.
pub const TO_READ_A_LINE_NS: u64 = 20_000_000;
/// How long Dom0 gets to come to rest after the creation of a domain.
pub const TO_SETTLE_NS: u64 = 300_000_000;

/// The ticks so far.
pub fn ticks() -> u64 {
    read_cntvct_el0().bits()
}

/// Ticks in a second.
pub fn hz() -> u64 {
    read_cntfrq_el0().bits()
}

/// Lets a few instructions pass, another number for each `seed`. A tick is 16 instructions long: if all that is measured began at
/// the same place in one, it would be rounded the same way each time.
pub fn drift(seed: u32) {
    for _ in 0..seed % 16 {
        core::hint::spin_loop();
    }
}

/// Gives the processor to whoever wants it for a while.
pub fn rest(duration_ns: u64) {
    let end_ns = now_ns() + duration_ns;
    while now_ns() < end_ns {
        sched::yield_processor();
    }
    kernel::logger::pump();
}
