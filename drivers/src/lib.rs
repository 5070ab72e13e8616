//! Device models that guests talk to, and the volumes behind them. Knows nothing of Xen.
//!
//! | module | job |
//! |---|---|
//! | [`guest`] | traits the kernel implements: guest memory, interrupt line |
//! | [`virtio`] | register file, queues, device models |
//! | [`block`] | what a device model asks of storage |
//! | [`volume`] | storage in RAM |
//! | [`sys`] | the hermit-abi seam: time, entropy, console, abort |
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod block;
pub mod guest;
