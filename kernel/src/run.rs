//! The event loop, the only endless loop: take events, answer vCPUs, do bounded work, and sleep when there is none.
//!
//! A turn that answers vCPUs, when the last one that looked for work left none, does nothing else, and gives them the processor:
//! when the next turn looks, there may be more of a guest's work. There are no more than [`SHORT_TURNS`] in a row.
//!
//! From its kick on a device is active: the loop looks at its queues by itself and the guest does not kick, which would cost it
//! a trap and two switches of vCPUs. When it has looked for [`POLL_NS`] and nothing came, the devices settle (kicks are wanted again), and the
//! loop sleeps. Physical devices are polled at each turn that looks at everything, and asked for interrupts before a sleep.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use crate::arch::timer::now_ns;
use crate::devices::Devices;
use crate::guest::Work;
use crate::guest::table::GuestTable;
use crate::limits::{LOOK_NS, POLL_ELAPSED_NS, POLL_NS, SHORT_TURNS};
use crate::mm::heap::Growth;
use crate::mm::ram::Ram;
use crate::mm::volumes::RamVolumes;
use crate::restart::{self, watchdog};
use crate::xen::abi::sched::POLL_PORTS_MAX;
use crate::xen::event::{PendingEvents, Port};
use crate::xen::sched::{self, ShutdownReason};
use crate::xen::store::{Store, StoreError};

/// The future that follows xenstore.
pub type ControlPlane = Pin<Box<dyn Future<Output = Result<ShutdownReason, StoreError>>>>;

/// What the loop turns on.
pub struct Loop {
    /// Pending bits of our event channels.
    pub events: PendingEvents,
    /// The guests.
    pub guests: Rc<RefCell<GuestTable>>,
    /// Our RAM, which guests' pages and the heap share.
    pub ram: Ram,
    /// The physical devices.
    pub devices: Devices,
    /// The connection to xenstored, and its port.
    pub store: (Store, Port),
    /// The port of the console.
    pub console: Port,
    /// The control plane.
    pub control: ControlPlane,
    /// What an earlier life of this kernel left, until all of it is taken up.
    pub resumption: Option<Resumption>,
}

/// For how long there was nothing to do.
#[derive(Default)]
struct Quiet {
    /// When the first look found nothing, and the last one; 0 before.
    since_ns: u64,
    until_ns: u64,
    /// What was ours of the time between them: a guest that has the processor may be about to have more for us.
    own_ns: u64,
}

impl Quiet {
    /// A look found nothing.
    fn looked(&mut self, now_ns: u64) {
        if self.since_ns == 0 {
            self.since_ns = now_ns;
        } else {
            self.own_ns += now_ns.saturating_sub(self.until_ns).min(LOOK_NS);
        }
        self.until_ns = now_ns;
    }

    /// Whether to sleep now. A guest that keeps the processor may have nothing for us at all, while others are to wake us at once.
    fn is_long(&self) -> bool {
        self.own_ns >= POLL_NS || self.until_ns.saturating_sub(self.since_ns) >= POLL_ELAPSED_NS
    }
}

/// What an earlier life of this kernel left, and when it ended.
pub struct Resumption {
    /// When, in microseconds.
    pub ended_us: u64,
    /// RAM of its volumes.
    pub volumes: Rc<RamVolumes>,
}

impl Loop {
    /// Runs until this domain is to end.
    pub fn run(mut self) -> ShutdownReason {
        let news = Arc::new(News(AtomicBool::new(true)));
        let waker = Waker::from(news.clone());
        let (mut quiet, mut short_turns_left) = (Quiet::default(), 0);
        self.devices.watch();
        loop {
            watchdog::turned();
            restart::check();
            if self.take_events(&news) {
                quiet = Quiet::default();
                watchdog::watch();
                if short_turns_left > 0 && !news.is_there() {
                    // Whoever was answered goes on, and may have more for us then.
                    short_turns_left -= 1;
                    sched::yield_processor();
                    continue;
                }
            }
            let now_ns = now_ns();
            // First: what is begun in this turn is begun now.
            let done = self.devices.poll(now_ns);
            if news.take()
                && let Some(reason) = self.poll_control(&waker)
            {
                self.leave();
                return reason;
            }
            let work = {
                let mut guests = self.guests.borrow_mut();
                let had_waited = guests.begin_turn();
                guests.work().max(if had_waited { Work::Left } else { Work::None })
            };
            short_turns_left = if work == Work::Left { 0 } else { SHORT_TURNS };
            let tends = self.ram.tend(&mut Growth);
            self.end_resumption();
            self.devices.kick();
            if done || work != Work::None {
                quiet = Quiet::default();
                watchdog::watch();
            } else {
                quiet.looked(now_ns);
            }
            if work == Work::Left || tends || news.is_there() {
                // There is more of the same.
            } else if !quiet.is_long() {
                sched::yield_processor();
            } else if self.guests.borrow_mut().settle() {
                self.sleep();
            }
        }
    }

    /// Once every device of an earlier life is taken up, or given up: what nobody asked for again goes.
    fn end_resumption(&mut self) {
        if self.resumption.is_some()
            && self.guests.borrow().iter().all(|guest| guest.held().next().is_none())
            && let Some(resumption) = self.resumption.take()
        {
            resumption.volumes.forget_rest();
            let pause_us = (now_ns() / 1000).saturating_sub(resumption.ended_us);
            log::info!("restart: every device goes on, {pause_us} us after the last life ended");
        }
    }

    /// Ends in order: the guests' volumes are closed, and servers that had some of them are told.
    fn leave(&mut self) {
        watchdog::stop();
        self.guests.borrow_mut().clear();
        self.devices.leave();
    }

    #[inline]
    fn highest_port(&self) -> Port {
        self.guests.borrow().highest_port().max(self.store.1).max(self.console)
    }

    /// Handles what the pending bits say, if anything.
    fn take_events(&mut self, news: &Arc<News>) -> bool {
        let highest = self.highest_port();
        if !self.events.any(highest) {
            return false;
        }
        let mut guests = self.guests.borrow_mut();
        self.events.take(highest, |port| {
            if port == self.store.1 {
                news.wake_by_ref();
            } else if port == self.console {
                crate::logger::pump();
            } else {
                guests.serve(port);
            }
        });
        true
    }

    /// Lets the control plane go on: when xenstore has news, or when something else that it waits for has woken it.
    fn poll_control(&mut self, waker: &Waker) -> Option<ShutdownReason> {
        self.store.0.pump();
        match self.control.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Pending => None,
            Poll::Ready(Ok(reason)) => Some(reason),
            Poll::Ready(Err(error)) => {
                log::error!("xenstore: {error}: this domain cannot go on without it");
                Some(ShutdownReason::Crash)
            }
        }
    }

    /// Sleeps until an event or an interrupt comes, or a device's time is over; not at all if there is something to do.
    fn sleep(&mut self) {
        // Guests that settled may have begun something.
        self.devices.kick();
        if self.devices.settle() {
            return;
        }
        let mut ports: SmallVec<[Port; POLL_PORTS_MAX]> = SmallVec::new();
        ports.extend([self.store.1, self.console]);
        ports.extend(self.guests.borrow().ports());
        self.devices.sleep(|| sched::sleep_until_event(&ports));
    }
}

/// Whether the control plane has to be polled.
struct News(AtomicBool);

impl News {
    fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
