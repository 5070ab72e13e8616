//! Giving the processor away, and ending this domain.

use super::abi::{SchedPoll, number, sched};
use super::event::Port;
use super::hypercall::{call, call_until_interrupt};
use super::tally;

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

/// Sleeps until one of `ports` or an interrupt of a device is pending; returns at once when one is already, so that none
/// is slept through.
///
/// Xen takes at most [`sched::POLL_PORTS_MAX`] ports and refuses longer lists: then this only yields.
pub fn sleep_until_event(ports: &[Port]) {
    let poll = SchedPoll { ports: ports.as_ptr().cast(), count: ports.len() as u32, timeout_ns: 0 };
    poll.ports.expose_provenance();
    let argument = (&raw const poll).expose_provenance() as u64;
    tally::count_sleep();
    // SAFETY: SCHEDOP_poll reads one sched_poll and `count` port numbers (sched.h); a Port is a u32.
    let result = unsafe { call_until_interrupt(number::SCHED_OP, [sched::POLL, argument], "sleep") };
    if result.is_err() {
        yield_processor();
    }
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
