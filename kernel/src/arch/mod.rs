//! The CPU: one register family or device a file.
//!
//! Interrupts stay masked for the whole life of the kernel: events end a sleep without one (see
//! [`crate::xen::event`]), and interrupts of physical devices are to be asked for by polling [`gic`]. So there is no
//! interrupt handler, no preemption, and nothing to lock.

pub mod copy;
pub mod single_core;

#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod exception;
#[cfg(target_os = "none")]
pub mod gic;
#[cfg(target_os = "none")]
pub mod mmu;
#[cfg(target_os = "none")]
pub mod timer;
