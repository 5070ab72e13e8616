//! Giving the processor away, and ending this domain.

use super::abi::{number, sched};
use super::hypercall::call;

/// How this domain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// Orderly end.
    PowerOff,
    /// Orderly end, to be started again by the tool stack.
    Reboot,
    /// A fault of our own.
    Crash,
}

/// Lets another vCPU run on this processor; returns when it is our turn again.
pub fn yield_processor() {
    // SAFETY: no pointers.
    let _ = unsafe { call(number::SCHED_OP, [sched::YIELD, 0, 0, 0, 0], "yield") };
}

/// Ends this domain.
pub fn shutdown(reason: ShutdownReason) -> ! {
    let reason: u32 = match reason {
        ShutdownReason::PowerOff => sched::REASON_POWEROFF,
        ShutdownReason::Reboot => sched::REASON_REBOOT,
        ShutdownReason::Crash => sched::REASON_CRASH,
    };
    let argument = &raw const reason;
    loop {
        // SAFETY: SCHEDOP_shutdown reads one u32 (sched_shutdown, sched.h).
        let _ = unsafe {
            call(
                number::SCHED_OP,
                [sched::SHUTDOWN, argument.expose_provenance() as u64, 0, 0, 0],
                "shutdown",
            )
        };
    }
}
