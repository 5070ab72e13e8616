//! A kernel that hangs: a timer interrupt, which is never kept back, finds that the loop does not turn.
//!
//! The interrupt comes every [`TICK_NS`] while there is work. One that ends a sleep is the last one until there is work again:
//! an idle domain is left alone. Time in which this domain does not run does not count: each tick is set when the one before
//! was taken, and a loop needs next to no time for a turn.

use core::sync::atomic::{AtomicU32, Ordering};

#[cfg(target_os = "none")]
use core::sync::atomic::{AtomicBool, AtomicU64};

#[cfg(target_os = "none")]
use super::End;
#[cfg(target_os = "none")]
use crate::arch::timer::{now_ns, set_watchdog_ns};

/// From one look to the next.
pub const TICK_NS: u64 = 200_000_000;
/// Looks in a row at a loop that did not turn, after which it hangs: for a second.
pub const PATIENCE: u32 = 5;

/// What the interrupt and the loop know of each other.
#[derive(Debug)]
pub struct Watch {
    /// Turns of the loop.
    turns: AtomicU32,
    /// Of these, how many there were at the last look.
    seen: AtomicU32,
    /// Looks in a row that found no more.
    stuck: AtomicU32,
}

static WATCH: Watch = Watch::new();

/// The timer is set.
#[cfg(target_os = "none")]
static IS_SET: AtomicBool = AtomicBool::new(false);
/// An end was asked for, and its time has come.
#[cfg(target_os = "none")]
static BITES: AtomicBool = AtomicBool::new(false);
/// So often it comes again if it does not come while a device is being served.
#[cfg(target_os = "none")]
static TRIES_LEFT: AtomicU32 = AtomicU32::new(0);
#[cfg(target_os = "none")]
const TRIES: u32 = 1000;
/// It is to come in the work that there is from [`BITE_FROM_NS`] on.
#[cfg(target_os = "none")]
static BITES_SOON: AtomicBool = AtomicBool::new(false);
#[cfg(target_os = "none")]
static BITE_FROM_NS: AtomicU64 = AtomicU64::new(0);
/// Within this time of an end's being due it comes: a turn of the loop, and what the interrupt costs.
#[cfg(target_os = "none")]
const TURN_NS: u64 = 20_000;

impl Watch {
    const fn new() -> Self {
        Self { turns: AtomicU32::new(0), seen: AtomicU32::new(0), stuck: AtomicU32::new(0) }
    }

    fn turned(&self) {
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// A look. Returns whether the loop hangs.
    #[must_use]
    pub fn look(&self) -> bool {
        let turns = self.turns.load(Ordering::Relaxed);
        let is_stuck = self.seen.swap(turns, Ordering::Relaxed) == turns;
        let stuck = if is_stuck { self.stuck.load(Ordering::Relaxed) + 1 } else { 0 };
        self.stuck.store(stuck, Ordering::Relaxed);
        stuck >= PATIENCE
    }
}

/// The loop turns, or what takes long makes headway.
pub fn turned() {
    WATCH.turned();
}

/// How often it has.
#[must_use]
pub fn turns() -> u32 {
    WATCH.turns.load(Ordering::Relaxed)
}

/// The loop has work: from now on it is looked at.
#[cfg(target_os = "none")]
#[inline]
pub fn watch() {
    let is_due = BITES_SOON.load(Ordering::Relaxed) && now_ns() >= BITE_FROM_NS.load(Ordering::Relaxed);
    if is_due {
        BITES_SOON.store(false, Ordering::Relaxed);
        BITES.store(true, Ordering::Relaxed);
    }
    if is_due || !IS_SET.load(Ordering::Relaxed) {
        set(if BITES.load(Ordering::Relaxed) { dice() % TURN_NS } else { TICK_NS });
    }
}

/// A number that nobody foresees: the low bits of the time are as good as dice.
#[cfg(target_os = "none")]
fn dice() -> u64 {
    now_ns().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// The interrupt ended a sleep: it was for nothing, and there is none until the loop has slept enough.
#[cfg(target_os = "none")]
pub fn slept() {
    if BITES.load(Ordering::Relaxed) && TRIES_LEFT.load(Ordering::Relaxed) == 0 {
        bite(None);
    }
    stop();
}

/// No more interrupts.
#[cfg(target_os = "none")]
pub fn stop() {
    set_watchdog_ns(None);
    IS_SET.store(false, Ordering::Relaxed);
}

/// Ends this life at some instruction of the work that there is after some time, `most_ns` at most: as the dice fall at whatever
/// it is, or while a device is being served.
#[cfg(target_os = "none")]
pub fn bite_within_ns(most_ns: u64) {
    TRIES_LEFT.store(if dice().is_multiple_of(2) { 0 } else { TRIES }, Ordering::Relaxed);
    BITE_FROM_NS.store(now_ns() + dice() % most_ns, Ordering::Relaxed);
    BITES_SOON.store(true, Ordering::Relaxed);
}

/// Hangs, until the interrupt finds it. Whoever calls serves no device, so none is blamed.
#[cfg(target_os = "none")]
pub fn hang() -> ! {
    watch();
    loop {
        core::hint::spin_loop();
    }
}

#[cfg(target_os = "none")]
fn set(after_ns: u64) {
    IS_SET.store(true, Ordering::Relaxed);
    set_watchdog_ns(Some(after_ns));
}

/// Takes the interrupt, which came at address `at` of the kernel.
#[cfg(target_os = "none")]
pub fn interrupt(at: u64) {
    // Nothing else is let through; if it is none at all, there is nothing to do.
    if crate::arch::gic::take_urgent().is_none() || !IS_SET.load(Ordering::Relaxed) {
        return;
    }
    if BITES.load(Ordering::Relaxed) {
        let left = TRIES_LEFT.load(Ordering::Relaxed);
        if left == 0 || super::is_serving() {
            bite(Some(at));
        }
        TRIES_LEFT.store(left - 1, Ordering::Relaxed);
        set(dice() % TURN_NS);
        return;
    }
    if WATCH.look() {
        bite(Some(at));
    }
    set(TICK_NS);
}

#[cfg(target_os = "none")]
fn bite(at: Option<u64>) -> ! {
    // None: in a sleep.
    let place = at.map_or(0, |at| at.wrapping_sub(boot::image::layout().text.start as u64));
    let (what, end) = match BITES.load(Ordering::Relaxed) {
        true => ("as asked", End::Asked),
        false => ("the loop does not turn", End::Fault),
    };
    let work = if super::is_serving() { ", serving a device" } else { "" };
    crate::logger::emergency(format_args!("WATCHDOG {what}: at image + {place:#x}{work}"));
    super::again(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_turns_once_in_a_while_does_not_hang() {
        let watch = Watch::new();
        watch.turned();
        for _ in 0..20 {
            assert!((1..PATIENCE).all(|_| !watch.look()));
            watch.turned();
        }
    }

    #[test]
    fn a_loop_that_does_not_turn_hangs() {
        let watch = Watch::new();
        watch.turned();
        let looks = (1..).find(|_| watch.look());
        assert_eq!(looks, Some(PATIENCE + 1));
    }
}
