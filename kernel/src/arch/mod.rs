//! The CPU: one register family or device a file.
//!
//! Interrupts are masked but for the one hypercall that sleeps (`sleep.S`), which they end and nothing else: events end
//! it without one (see [`crate::xen::event`]), and which device it was is asked of the [`gic`] afterwards, by polling.
//! So there is no interrupt handler that does anything, no preemption, and nothing to lock.

pub mod copy;
pub mod single_core;
pub mod ticks;
pub mod view_tables;
pub mod whole;

#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod exception;
#[cfg(target_os = "none")]
pub mod gic;
#[cfg(target_os = "none")]
pub mod mmu;
#[cfg(target_os = "none")]
pub mod probe;
#[cfg(target_os = "none")]
pub mod sleep;
#[cfg(target_os = "none")]
pub mod timer;
#[cfg(target_os = "none")]
pub mod view_mmu;
