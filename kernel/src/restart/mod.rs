//! A kernel that ends by a fault of its own begins again in the same domain, and goes on.
//!
//! The domain stays what it is for Xen, the toolstack and the guests: same number, same event channels, ioreq servers and
//! paths in xenstore. Guests notice a pause. Everything in the kernel is made anew, from data as it was at the first start
//! (`boot/src/entry.S`), but for the handover [`area`]; RAM of volumes stays where it is.
//!
//! ```text
//!   panic, fault ── again ──> entry.S: data and BSS as at the start ──> bring_up: begin, devices silenced, RAM that is
//!   in use left alone ──> ioreq servers adopted, their guests' vCPUs wait ──> xenstore: watches made again, each device
//!   attached as it was ──> requests under way are done again, vCPUs answered
//! ```
//!
//! | file | what |
//! |---|---|
//! | `mod` | whether there is another life, and how one begins |
//! | [`area`] | what a life leaves for the next |
//! | [`words`] | how it is written |
//! | [`blame`] | whose device was being served |
//! | [`watchdog`] | a kernel that hangs |
//!
//! Requests under way: `drivers::virtio::handover`.

pub mod area;
pub mod blame;
pub mod watchdog;
pub mod words;

use area::Area;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

/// What the log calls it.
const NAME: &str = "restart";

/// A life that ends sooner after it began to serve is a short one: so is one that hangs at once, which takes the watchdog a second.
const SHORT_US: u64 = 1_500_000;
/// So many short lives in a row, and this domain ends: it would not serve anybody.
const SHORT_LIVES_MAX: u64 = 32;

/// A crash that was asked for comes within this time.
pub const CRASH_WITHIN_NS: u64 = 20_000_000;

/// Which life of this kernel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// `xl` has just made this domain.
    First,
    /// This kernel ended by a fault of its own, or somebody wished it.
    Again,
}

impl Life {
    /// As `entry.S` says it.
    #[must_use]
    pub fn from_entry(again: usize) -> Self {
        if again == 0 { Self::First } else { Self::Again }
    }
}

/// Why a life of this kernel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a fault, maybe of what it served at the time.
    Fault,
    /// Somebody wished it.
    Asked,
}

/// Address of the handover area once there may be another life: what [`again`] needs when nothing else can be trusted.
static AREA: AtomicUsize = AtomicUsize::new(0);

/// What was asked for.
static ASKED: AtomicU8 = AtomicU8::new(NOTHING);
const NOTHING: u8 = 0;
const RESTART: u8 = 1;
const CRASH: u8 = 2;
const HANG: u8 = 3;

/// Whether [`ask_for_crash`] and [`ask_for_hang`] are heard.
static MAY_CRASH: AtomicBool = AtomicBool::new(false);

/// Asks for another life at the next turn of the loop.
pub fn ask() {
    ASKED.store(RESTART, Ordering::Relaxed);
}

/// Asks for a crash at some instruction within the next [`CRASH_WITHIN_NS`], for tests. Returns whether the command line allows
/// it.
pub fn ask_for_crash() -> bool {
    ask_for_fault(CRASH)
}

/// Asks for a loop that does not turn any more, for tests. Returns whether the command line allows it.
pub fn ask_for_hang() -> bool {
    ask_for_fault(HANG)
}

fn ask_for_fault(which: u8) -> bool {
    let may = MAY_CRASH.load(Ordering::Relaxed);
    if may {
        ASKED.store(which, Ordering::Relaxed);
    }
    may
}

/// Does what was asked for.
#[cfg(target_os = "none")]
pub fn check() {
    match ASKED.load(Ordering::Relaxed) {
        NOTHING => {}
        CRASH => {
            ASKED.store(NOTHING, Ordering::Relaxed);
            watchdog::bite_within_ns(CRASH_WITHIN_NS);
        }
        HANG => watchdog::hang(),
        _ => again(End::Asked),
    }
}

/// A life begins.
pub fn begin(area: &Area, life: Life, device_tree: usize) {
    if life == Life::First {
        area.clear();
    }
    let root = area.root;
    root.device_tree.set(device_tree as u64);
    if life == Life::Again {
        // What it has is known to be good for a life.
        remember(area);
    }
}

/// From here on a fault begins another life, and ends the domain no more. Tells of the one before, if there was one.
pub fn allow(area: &Area, life: Life, may_crash: bool) {
    if life == Life::Again {
        let restarts = area.root.restarts.get().unwrap_or(0) + 1;
        area.root.restarts.set(restarts);
        log::warn!("{NAME}: this kernel begins again and goes on, for the {restarts}. time");
        blame::assign(area);
    }
    MAY_CRASH.store(may_crash, Ordering::Relaxed);
    remember(area);
}

fn remember(area: &Area) {
    AREA.store(core::ptr::from_ref(area.root).expose_provenance(), Ordering::Relaxed);
}

/// Guests are served from now on.
pub fn serving(area: &Area, now_us: u64) {
    area.root.serving_since_us.set(now_us);
}

/// What the area begins with, once it is remembered.
fn root() -> Option<&'static area::Root> {
    let address = AREA.load(Ordering::Relaxed);
    let root = core::ptr::NonNull::new(core::ptr::with_exposed_provenance_mut::<area::Root>(address))?;
    // SAFETY: `remember` stored the address of a root that lives for good; it is made of atomics.
    Some(unsafe { root.as_ref() })
}

/// Whether a device is being served just now.
#[cfg(target_os = "none")]
fn is_serving() -> bool {
    root().is_some_and(|root| root.served.get().is_some())
}

/// This life ends: where the device tree is, if there is to be another one. None before [`allow`], when the area is damaged, and
/// after too many short lives in a row.
#[must_use]
pub fn another_life(end: End, now_us: u64) -> Option<usize> {
    let root = root()?;
    let device_tree = root.device_tree.get()?;
    root.ended_us.set(now_us);
    let served_us = root.serving_since_us.get().map_or(0, |since_us| now_us.saturating_sub(since_us));
    root.serving_since_us.clear();
    root.served_us.set(served_us);
    if end == End::Asked {
        root.served.clear();
    }
    let short_lives = if served_us < SHORT_US { root.short_lives.get().unwrap_or(0) + 1 } else { 0 };
    root.short_lives.set(short_lives);
    (short_lives <= SHORT_LIVES_MAX).then_some(device_tree as usize)
}

/// Ends this life, and begins the next one, or ends this domain.
#[cfg(target_os = "none")]
pub fn again(end: End) -> ! {
    use crate::xen::sched::{ShutdownReason, shutdown};
    match another_life(end, crate::arch::timer::now_ns() / 1000) {
        // SAFETY: what `kernel_main` was given, and `begin` noted. `bring_up` silences the devices before RAM is used anew.
        Some(device_tree) => unsafe { boot::start_again(device_tree) },
        None => {
            crate::devices::transport::reset_all();
            shutdown(ShutdownReason::Crash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one test: what [`another_life`] looks at is there once.
    #[test]
    fn a_kernel_that_ends_soon_again_and_again_ends_its_domain_and_who_asks_for_it_is_not_blamed() {
        let area = area::tests::area();
        assert_eq!(another_life(End::Fault, 0), None, "before it is allowed");
        begin(&area, Life::First, 0x4800_0000);
        allow(&area, Life::First, false);
        let mut now_us = 0;
        let mut lives_of = |us: u64| {
            serving(&area, now_us);
            now_us += us;
            another_life(End::Fault, now_us)
        };
        for _ in 0..SHORT_LIVES_MAX {
            assert_eq!(lives_of(SHORT_US - 1), Some(0x4800_0000));
        }
        // One that lasts makes good for all before it.
        assert_eq!(lives_of(SHORT_US), Some(0x4800_0000));
        for _ in 0..SHORT_LIVES_MAX {
            assert!(lives_of(SHORT_US - 1).is_some());
        }
        assert_eq!(lives_of(SHORT_US - 1), None);

        let entry = area.occupy(&area::tests::place(crate::guest::DeviceId::Disk(1))).unwrap();
        for (end, times) in [(End::Asked, 0), (End::Fault, 1)] {
            core::mem::forget(blame::Served::new(area, entry));
            let _ = another_life(end, now_us);
            blame::assign(&area);
            assert_eq!(entry.blame.get(), Some(times), "{end:?}");
        }
    }
}
