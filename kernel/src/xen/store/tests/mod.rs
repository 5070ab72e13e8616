//! The client against a small xenstored ([`fake`]), over a page of rings as on the real thing.
//!
//! The bed here is driven by notifications alone: a side that forgets to send one hangs the test.

mod calls;
pub(crate) mod fake;
mod faults;
mod lives;
mod requests;
mod transactions;
mod watches;

use super::ring::RingPage;
use super::*;
use alloc::format;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::Cell;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Waker;
use fake::{Fake, HOME, page_starting_at};

struct Bed {
    page: &'static RingPage,
    store: Store,
    fake: RefCell<Fake>,
    /// The server's event is pending.
    server_notified: Rc<Cell<bool>>,
}

impl Bed {
    fn new() -> Self {
        Self::starting_at(0)
    }

    fn starting_at(index: u32) -> Self {
        let page = page_starting_at(index);
        let server_notified = Rc::new(Cell::new(false));
        let flag = server_notified.clone();
        let store = Store::new(Ring::new(page), move || flag.set(true));
        Self { page, store, fake: RefCell::new(Fake::new(page)), server_notified }
    }

    /// The other domain runs until it can do no more, then we do; whether it was notified at all.
    fn turn(&self) -> bool {
        if !self.server_notified.take() {
            return false;
        }
        let mut notified_us = false;
        while self.fake.borrow_mut().serve() {
            notified_us = true;
        }
        if notified_us {
            self.store.pump();
        }
        true
    }

    fn settle(&self) {
        while self.turn() {}
    }

    /// The other domain does something by itself.
    fn server_does(&self, work: impl FnOnce(&mut Fake)) {
        work(&mut self.fake.borrow_mut());
        self.server_notified.set(true);
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = core::pin::pin!(future);
        loop {
            if let Poll::Ready(result) = poll_once(future.as_mut()) {
                return result;
            }
            assert!(self.turn(), "nobody was notified, and the future still waits");
        }
    }

    /// How many of fifty requests a server that does not answer gets to see. It does answer them in the end.
    fn most_in_flight(&self) -> usize {
        self.fake.borrow_mut().holding = true;
        let mut reads: Vec<_> = (0..50).map(|_| Box::pin(self.store.read("nothing"))).collect();
        assert!(reads.iter_mut().all(|read| poll_once(read.as_mut()).is_pending()));
        self.settle();
        let seen = self.fake.borrow().held.len();
        self.server_does(|fake| fake.holding = false);
        self.settle();
        assert!(
            reads.iter_mut().all(|read| poll_once(read.as_mut()) == Poll::Ready(Err(StoreError::NotFound)))
        );
        seen
    }

    fn slots_in_use(&self) -> usize {
        self.store.with(|connection| connection.slots_in_use())
    }

    fn value(&self, path: &str) -> Option<String> {
        self.fake
            .borrow()
            .value(&format!("{HOME}{path}"))
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    /// Makes so many children of a node; their names in order.
    fn fill(&self, path: &str, children: usize) -> Vec<String> {
        let names: Vec<String> = (0..children).map(|n| format!("child-number-{n:04}")).collect();
        names.iter().for_each(|name| self.fake.borrow_mut().write(&format!("{HOME}{path}/{name}"), ""));
        names
    }

    fn next_event(&self) -> Result<WatchEvent, StoreError> {
        self.run(self.store.next_event())
    }
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn changed(path: &str, token: &str) -> Result<WatchEvent, StoreError> {
    Ok(WatchEvent::Changed { path: path.into(), token: token.into() })
}

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
