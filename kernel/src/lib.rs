//! The operating system of the driver domain: one vCPU, one run loop, no preemption.
//!
//! | module | job |
//! |---|---|
//! | `bring_up` | what happens once, in every image |
//! | [`restart`] | the next life of this kernel in the same domain: what it finds, and when it begins |
//! | [`run`] | the loop: events in, work done, sleep |
//! | [`guest`] | a guest's life: its ioreq server, its devices, dispatch, teardown |
//! | [`devices`] | physical devices: interrupts and deadlines |
//! | [`endpoint`] | this domain on the network: its address, HTTP, connections to servers |
//! | [`xen`] | hypercalls, event channels, xenstore, console |
//! | [`mm`] | our frames, our physmap, the pager for guests' pages |
//! | [`arch`] | the CPU: exceptions, page tables, interrupt controller, timer |
//! | [`abi`] | the hermit-abi calls that drivers make |
//! | [`device_tree`], [`options`] | what `xl` told us |
#![no_std]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]
// usize is 64 bits wherever the kernel runs, and a slot, port or vCPU number fits the type that Xen gives it.
#![allow(clippy::cast_possible_truncation)]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(target_os = "none")]
pub mod abi;
pub mod arch;
#[cfg(target_os = "none")]
pub mod bring_up;
pub mod device_tree;
pub mod devices;
pub mod endpoint;
pub mod guest;
pub mod limits;
#[cfg(target_os = "none")]
pub mod logger;
pub mod mm;
pub mod options;
pub mod restart;
#[cfg(target_os = "none")]
pub mod run;
pub mod xen;

#[cfg(test)]
#[path = "../../drivers/tests/common/clock.rs"]
mod test_clock;
