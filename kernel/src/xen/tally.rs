//! How often Xen was asked for what, and vCPUs were answered, since this life began. Told when `xl sysrq` asks: a hypercall costs more
//! than most of what is done between two.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::abi::number;

/// Hypercalls, by their number (xen.h).
static CALLS: [AtomicU64; number::HIGHEST + 1] = [const { AtomicU64::new(0) }; number::HIGHEST + 1];
/// Of those of the scheduler, how many were to sleep.
static SLEEPS: AtomicU64 = AtomicU64::new(0);
/// Accesses of vCPUs that were answered.
static ACCESSES: AtomicU64 = AtomicU64::new(0);

/// A hypercall is made.
#[inline]
pub fn count_call(number: u64) {
    if let Some(calls) = CALLS.get(number as usize) {
        add_one(calls);
    }
}

/// The hypercall that was counted last is a sleep, if it is made at all.
pub fn count_sleep() {
    add_one(&SLEEPS);
}

/// An access is answered.
pub fn count_access() {
    add_one(&ACCESSES);
}

/// There is one thread, and no interrupt that comes back counts.
#[inline]
fn add_one(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// All of it, as `key=value` pairs.
pub struct Tally;

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |number: u64| CALLS.get(number as usize).map_or(0, |calls| calls.load(Ordering::Relaxed));
        let (accesses, sleeps) = (ACCESSES.load(Ordering::Relaxed), SLEEPS.load(Ordering::Relaxed));
        write!(f, "accesses={accesses} sleeps={sleeps}")?;
        for (name, number) in [
            ("sched_op", number::SCHED_OP),
            ("event_channel_op", number::EVENT_CHANNEL_OP),
            ("dm_op", number::DM_OP),
            ("memory_op", number::MEMORY_OP),
            ("grant_table_op", number::GRANT_TABLE_OP),
            ("multicall", number::MULTICALL),
        ] {
            write!(f, " {name}={}", of(number))?;
        }
        Ok(())
    }
}
