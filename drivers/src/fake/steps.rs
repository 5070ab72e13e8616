//! Words in memory of whose every store a test hears before it happens: so it can end a kernel between any two.

use core::cell::Cell;
use core::sync::atomic::{self, Ordering};

std::thread_local! {
    static HEARD: Cell<fn()> = const { Cell::new(|| ()) };
}

/// From now on `act` is called before each store that this thread does to such a word.
pub fn before_stores(act: fn()) {
    HEARD.set(act);
}

macro_rules! word {
    ($name:ident, $value:ty) => {
        /// The word of the same name of [`core::sync::atomic`].
        #[derive(Debug)]
        #[repr(transparent)]
        pub struct $name(atomic::$name);

        impl $name {
            /// A word that holds `value`.
            #[must_use]
            pub const fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            /// Its value.
            pub fn load(&self, order: Ordering) -> $value {
                self.0.load(order)
            }

            /// Stores a value, after the test has heard of it.
            pub fn store(&self, value: $value, order: Ordering) {
                HEARD.get()();
                self.0.store(value, order);
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicU64, u64);
