//! A kernel that hangs: a timer interrupt, which is never kept back, finds that the loop does not turn.
//!
//! The interrupt comes every [`TICK_NS`] while there is work. One that ends a sleep is the last one until there is work again:
//! an idle domain is left alone. Time in which this domain does not run does not count: each tick is set when the one before
//! was taken, and a loop needs next to no time for a turn.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
    /// The timer is set.
    is_set: AtomicBool,
}

static WATCH: Watch = Watch::new();

/// The next interrupt ends this life.
#[cfg(target_os = "none")]
static BITES: AtomicBool = AtomicBool::new(false);

impl Watch {
    const fn new() -> Self {
        Self {
            turns: AtomicU32::new(0),
            seen: AtomicU32::new(0),
            stuck: AtomicU32::new(0),
            is_set: AtomicBool::new(false),
        }
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
    if !WATCH.is_set.load(Ordering::Relaxed) {
        set(TICK_NS);
    }
}

/// The interrupt ended a sleep: it was for nothing, and there is none until the loop has slept enough.
#[cfg(target_os = "none")]
pub fn slept() {
    if BITES.load(Ordering::Relaxed) {
        bite(0);
    }
    stop();
}

/// No more interrupts.
#[cfg(target_os = "none")]
pub fn stop() {
    crate::arch::timer::set_watchdog_ns(None);
    WATCH.is_set.store(false, Ordering::Relaxed);
}

/// Ends this life after so long, whatever it does then.
#[cfg(target_os = "none")]
pub fn bite_after_ns(after_ns: u64) {
    BITES.store(true, Ordering::Relaxed);
    set(after_ns);
}

fn set(after_ns: u64) {
    WATCH.is_set.store(true, Ordering::Relaxed);
    #[cfg(target_os = "none")]
    crate::arch::timer::set_watchdog_ns(Some(after_ns));
    #[cfg(not(target_os = "none"))]
    let _ = after_ns;
}

/// Takes the interrupt, which came at address `at` of the kernel.
#[cfg(target_os = "none")]
pub fn interrupt(at: u64) {
    // Nothing else is let through; if it is none at all, there is nothing to do.
    if crate::arch::gic::take_urgent().is_none() {
        return;
    }
    if BITES.load(Ordering::Relaxed) || WATCH.look() {
        bite(at);
    }
    set(TICK_NS);
}

#[cfg(target_os = "none")]
fn bite(at: u64) -> ! {
    let place = at.wrapping_sub(boot::image::layout().text.start as u64);
    let what = if BITES.load(Ordering::Relaxed) { "as asked" } else { "the loop does not turn" };
    crate::logger::emergency(format_args!("WATCHDOG {what}: at image + {place:#x}"));
    super::again()
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
