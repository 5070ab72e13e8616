//! Steps that belong together: the watchdog does not end the kernel between them.
//!
//! Its interrupt comes most readily at the return of a hypercall, which is just where what Xen did is to be noted for the next
//! life ([`crate::restart::area`]).

/// While it lives, no interrupt is taken. For a few hypercalls at most: a hang is not seen meanwhile.
#[must_use = "what follows is whole only while this lives"]
pub struct Whole {
    /// Interrupts were masked already.
    #[cfg(target_os = "none")]
    was_masked: bool,
}

impl Whole {
    /// Begins such steps. They may be parts of others.
    #[cfg(target_os = "none")]
    pub fn begin() -> Self {
        let was_masked = super::sleep::interrupts_are_masked();
        super::sleep::mask_interrupts();
        Self { was_masked }
    }

    /// On a host nothing interrupts, but for tests.
    #[cfg(not(target_os = "none"))]
    pub fn begin() -> Self {
        #[cfg(test)]
        tests::DEPTH.with(|depth| depth.set(depth.get() + 1));
        Self {}
    }
}

#[cfg(test)]
impl Drop for Whole {
    fn drop(&mut self) {
        tests::DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// What tests know of it.
#[cfg(test)]
pub mod tests {
    use core::cell::Cell;

    std::thread_local! {
        pub(super) static DEPTH: Cell<usize> = const { Cell::new(0) };
    }

    /// Whether this thread is between steps that belong together.
    pub fn is_whole() -> bool {
        DEPTH.with(Cell::get) > 0
    }
}

#[cfg(target_os = "none")]
impl Drop for Whole {
    fn drop(&mut self) {
        if !self.was_masked {
            super::sleep::unmask_interrupts();
        }
    }
}
