//! `sys_clock_gettime` by a clock that a target sets, so that the same bytes always do the same.

use hermit_abi::{clockid_t, timespec};
use std::cell::Cell;

std::thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
}

/// It is so late from now on.
pub fn set(now_ns: u64) {
    NOW_NS.set(now_ns);
}

/// What [`set`] said last.
///
/// # Safety
/// `time` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sys_clock_gettime(_clock: clockid_t, time: *mut timespec) -> i32 {
    let now_ns = NOW_NS.get();
    let (seconds, rest) = (now_ns / 1_000_000_000, now_ns % 1_000_000_000);
    let now = timespec {
        tv_sec: seconds.try_into().unwrap_or(i64::MAX),
        tv_nsec: i32::try_from(rest).unwrap_or(0),
    };
    // SAFETY: the caller promises that `time` is valid for a write.
    unsafe { time.write(now) };
    0
}
