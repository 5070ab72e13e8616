//! The event loop, the only endless loop: take events, answer vCPUs, do bounded work, and sleep when there is none.
//!
//! A kick is answered in [`GuestTable::serve`] before its work is done in [`GuestTable::work`]. Under load the loop
//! never sleeps; before it does, it gives the processor away a few times, since the next request often follows the
//! answer to the last at once.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::arch::cpu;
use crate::arch::gic::Gic;
use crate::guest::table::GuestTable;
use crate::limits::YIELDS_BEFORE_SLEEP;
use crate::xen::event::{PendingEvents, Port};
use crate::xen::sched::{self, ShutdownReason};
use crate::xen::store::{Store, StoreError};

/// The future that follows xenstore.
pub type ControlPlane = Pin<Box<dyn Future<Output = Result<ShutdownReason, StoreError>>>>;

/// What the loop turns on.
pub struct Loop {
    /// Pending bits of our event channels.
    pub events: PendingEvents,
    /// The interrupt controller.
    pub gic: Gic,
    /// The guests.
    pub guests: Rc<RefCell<GuestTable>>,
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
        let mut yields = 0;
        let mut news = true;
        loop {
            if core::mem::take(&mut news)
                && let Some(reason) = self.poll_control()
            {
                return reason;
            }
            let more = self.guests.borrow_mut().work();
            if self.events.any() {
                news = self.take_events();
                yields = 0;
            } else if more {
                yields = 0;
            } else if yields < YIELDS_BEFORE_SLEEP {
                yields += 1;
                sched::yield_processor();
            } else {
                self.sleep();
            }
        }
    }

    /// Handles what the pending bits say. Returns whether xenstore has news.
    fn take_events(&mut self) -> bool {
        let mut news = false;
        let mut guests = self.guests.borrow_mut();
        self.events.take(|port| {
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

    /// Sleeps until an interrupt comes, unless an event came before.
    fn sleep(&mut self) {
        // Interrupts only wake; what they mean is read from the pending bits.
        while let Some(interrupt) = self.gic.take() {
            self.gic.end(interrupt);
        }
        if !self.events.any() {
            cpu::wait_for_interrupt();
        }
    }
}
