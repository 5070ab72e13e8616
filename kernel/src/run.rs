//! The event loop, the only endless loop: take events, answer vCPUs, do bounded work, and sleep when there is none.
//!
//! A kick is answered in [`GuestTable::serve`] before its work is done in [`GuestTable::work`]. From then on the
//! device is active: the loop looks at its queues by itself and the guest does not kick, which would cost it a trap
//! and two switches of vCPUs. When nothing came for [`POLL_NS`], the devices settle (kicks are wanted again), and
//! the loop sleeps. Interrupts of physical devices are taken before and after a sleep.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use crate::arch::timer::now_ns;
use crate::devices::Devices;
use crate::guest::table::GuestTable;
use crate::limits::POLL_NS;
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
    /// The physical devices.
    pub devices: Devices,
    /// The connection to xenstored, and its port.
    pub store: (Store, Port),
    /// The port of the console.
    pub console: Port,
    /// The control plane.
    pub control: ControlPlane,
}

impl Loop {
    /// Runs until this domain is to end.
    pub fn run(mut self) -> ShutdownReason {
        let mut news = true;
        let mut quiet_since_ns = None;
        loop {
            if core::mem::take(&mut news)
                && let Some(reason) = self.poll_control()
            {
                return reason;
            }
            let worked = self.guests.borrow_mut().work();
            let served = self.events.any(self.highest_port());
            if served {
                news = self.take_events();
            }
            let now_ns = now_ns();
            if worked || served {
                quiet_since_ns = None;
            }
            let quiet_ns = now_ns.saturating_sub(*quiet_since_ns.get_or_insert(now_ns));
            if worked || news {
                // There may be more of the same.
            } else if quiet_ns < POLL_NS {
                sched::yield_processor();
            } else if self.guests.borrow_mut().settle() {
                self.sleep();
            }
        }
    }

    fn highest_port(&self) -> Port {
        self.guests.borrow().highest_port().max(self.store.1).max(self.console)
    }

    /// Handles what the pending bits say. Returns whether xenstore has news.
    fn take_events(&mut self) -> bool {
        let mut news = false;
        let highest = self.highest_port();
        let mut guests = self.guests.borrow_mut();
        self.events.take(highest, |port| {
            if port == self.store.1 {
                news = true;
            } else if port == self.console {
                crate::logger::pump();
            } else {
                guests.serve(port);
            }
        });
        news
    }

    fn poll_control(&mut self) -> Option<ShutdownReason> {
        self.store.0.pump();
        // Everything the control plane waits for comes through xenstore, so it is polled whenever that has news.
        match self.control.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => None,
            Poll::Ready(Ok(reason)) => Some(reason),
            Poll::Ready(Err(error)) => {
                log::error!("xenstore: {error}: this domain cannot go on without it");
                Some(ShutdownReason::Crash)
            }
        }
    }

    /// Sleeps until an event comes, an interrupt, or a device's time is over; not at all if one is there already.
    fn sleep(&mut self) {
        if self.devices.take_interrupts() {
            return;
        }
        self.devices.set_alarm();
        let mut ports: SmallVec<[Port; POLL_PORTS_MAX]> = SmallVec::new();
        ports.extend([self.store.1, self.console]);
        ports.extend(self.guests.borrow().ports());
        sched::sleep_until_event(&ports);
        self.devices.take_interrupts();
    }
}
