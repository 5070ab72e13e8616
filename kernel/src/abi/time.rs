//! Time for drivers.

use hermit_abi::{CLOCK_MONOTONIC, clockid_t, errno::EINVAL, timespec};

const NS_PER_S: u64 = 1_000_000_000;

/// `clock_gettime` of hermit-abi.
///
/// # Safety
/// `time` must point to a `timespec` that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sys_clock_gettime(clock: clockid_t, time: *mut timespec) -> i32 {
    if clock != CLOCK_MONOTONIC || time.is_null() {
        return -EINVAL;
    }
    let now_ns = crate::arch::timer::now_ns();
    let now = timespec { tv_sec: (now_ns / NS_PER_S) as i64, tv_nsec: (now_ns % NS_PER_S) as i32 };
    // SAFETY: the caller's contract.
    unsafe { time.write(now) };
    0
}
