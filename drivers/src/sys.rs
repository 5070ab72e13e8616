//! The hermit-abi seam: what a driver asks of any operating system. The only file that names `hermit_abi`.
//!
//! The kernel defines these `sys_*` symbols; tests link a shim over std (`tests/common/clock.rs`). Memory,
//! interrupts and DMA do not pass here: hermit-abi has no words for them, see [`crate::guest`].
//!
//! | here | hermit-abi symbol | who asks |
//! |---|---|---|
//! | [`now_ns`] | `sys_clock_gettime` | [`crate::virtio::blk`], for its time counters |
#![allow(unsafe_code)]

use hermit_abi::{CLOCK_MONOTONIC, clock_gettime, timespec};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Monotonic time in nanoseconds from some fixed point; 0 if the system has no clock.
#[must_use]
#[inline]
pub fn now_ns() -> u64 {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid `timespec` that lives through the call, which writes nothing else.
    let failed = unsafe { clock_gettime(CLOCK_MONOTONIC, &raw mut now) } != 0;
    if failed {
        return 0;
    }
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(NS_PER_SECOND).wrapping_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
