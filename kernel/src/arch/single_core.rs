//! A static that can be changed, on a machine with one core and no interrupt handler that uses one.

use core::cell::{RefCell, RefMut};

/// A global value of a kernel that runs on one vCPU, and which interrupts do not touch, but for the last words of a kernel.
///
/// Access is checked: a second access while the first lasts (a log line from inside the logger, say) gets `None`.
pub struct SingleCore<T>(RefCell<T>);

// SAFETY: the kernel runs on one vCPU and starts no threads, and the handler of its one interrupt uses atomics alone, or
// never returns, so the cell is only ever used by one thread of execution. Exceptions end the kernel, but for those of `probe.S`, which borrow nothing, and those of a
// copy in a view, whose handler runs as if the copy had called it: it finds a borrow that its caller holds, and fails.
#[cfg(target_os = "none")]
unsafe impl<T> Sync for SingleCore<T> {}

// SAFETY: on the host no static of this type is used from more than one thread: hosted tests do not touch the
// globals of the running kernel.
#[cfg(not(target_os = "none"))]
unsafe impl<T> Sync for SingleCore<T> {}

impl<T> SingleCore<T> {
    /// A global with its first value.
    pub const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// The value, unless it is in use already.
    pub fn try_borrow(&self) -> Option<RefMut<'_, T>> {
        self.0.try_borrow_mut().ok()
    }
}
