//! Volumes that are being opened. One takes as long as its disk or its server does; meanwhile all else goes on.
//!
//! ```text
//!   begin ── poll ──> Opened: xenstore is read again, for it may say something else by now
//!     └ cancel, when the device goes or is to be another ──> nothing is left of it
//! ```
//! There is one for a device at most.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use drivers::volume::registry::{OpenError, OpenVolume};

use super::Backend;
use super::disk::DiskWish;

/// What an opening ends with.
pub type Outcome = Result<OpenVolume, OpenError>;

/// An opening on its way.
pub type OpeningVolume = Pin<Box<dyn Future<Output = Outcome>>>;

/// The openings that are on their way.
#[derive(Default)]
pub struct Openings(RefCell<Vec<Opening>>);

struct Opening {
    backend: Backend,
    wish: DiskWish,
    volume: OpeningVolume,
}

/// An opening that is over.
pub struct Opened {
    /// For which device.
    pub backend: Backend,
    /// What the device was to be.
    pub wish: DiskWish,
    /// What came of it.
    pub outcome: Outcome,
}

impl Openings {
    /// Whether a device that is to be this is on its way.
    pub fn has(&self, backend: Backend, wish: &DiskWish) -> bool {
        self.0.borrow().iter().any(|opening| opening.backend == backend && opening.wish == *wish)
    }

    /// Begins an opening for a device, in the place of an earlier one.
    pub fn begin(&self, backend: Backend, wish: DiskWish, volume: OpeningVolume) {
        self.cancel(backend);
        self.0.borrow_mut().push(Opening { backend, wish, volume });
    }

    /// Ends the opening for a device, if there is one.
    pub fn cancel(&self, backend: Backend) {
        self.0.borrow_mut().retain(|opening| opening.backend != backend);
    }

    /// The next opening that is over.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<Opened> {
        let mut openings = self.0.borrow_mut();
        let over = openings.iter_mut().enumerate().find_map(|(index, opening)| {
            match opening.volume.as_mut().poll(context) {
                Poll::Ready(outcome) => Some((index, outcome)),
                Poll::Pending => None,
            }
        });
        let Some((index, outcome)) = over else { return Poll::Pending };
        let Opening { backend, wish, .. } = openings.swap_remove(index);
        Poll::Ready(Opened { backend, wish, outcome })
    }

    /// The devices for which volumes are being opened.
    pub fn backends(&self) -> Vec<Backend> {
        self.0.borrow().iter().map(|opening| opening.backend).collect()
    }
}
