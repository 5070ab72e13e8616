//! `sys_clock_gettime` over std, for test binaries that link no kernel.

use hermit_abi::{clockid_t, timespec};
use std::time::Instant;

std::thread_local! {
    static START: Instant = Instant::now();
}

/// Time since this thread first asked.
///
/// # Safety
/// `time` is valid for a write.
#[allow(unsafe_code, reason = "the symbol that hermit-abi declares")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sys_clock_gettime(_clock: clockid_t, time: *mut timespec) -> i32 {
    let elapsed = START.with(Instant::elapsed);
    let now = timespec {
        tv_sec: elapsed.as_secs().try_into().unwrap(),
        tv_nsec: elapsed.subsec_nanos().try_into().unwrap(),
    };
    // SAFETY: the caller promises that `time` is valid for a write.
    unsafe { time.write(now) };
    0
}
