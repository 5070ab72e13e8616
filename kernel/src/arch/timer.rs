//! The generic timer: monotonic time.

use arm_sysregs::el0::accessors::{read_cntfrq_el0, read_cntvct_el0};

const NS_PER_S: u64 = 1_000_000_000;

/// Nanoseconds since the counter started; never goes back.
#[must_use]
pub fn now_ns() -> u64 {
    let ticks = read_cntvct_el0().bits();
    let hz = read_cntfrq_el0().bits().max(1);
    // In two parts: ticks times 10^9 would overflow after a few minutes.
    ticks / hz * NS_PER_S + ticks % hz * NS_PER_S / hz
}
