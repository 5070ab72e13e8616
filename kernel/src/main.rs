//! Bring-up, in order, and the panic handler.
#![cfg_attr(target_os = "none", no_std, no_main)]
// usize is 64 bits wherever the kernel runs.
#![allow(clippy::cast_possible_truncation)]

#[cfg(target_os = "none")]
mod bare;

/// The kernel only runs as a domain; on the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {}
