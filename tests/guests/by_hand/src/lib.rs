//! Virtio devices driven by hand, without a driver's good sense: what the guests that lie (`rogue`, `hostile`) have in common.
//!
//! | file | what |
//! |---|---|
//! | `pages` | memory that the device reads and writes |
//! | `registers` | a device's registers |
//! | `ring` | a split queue, filled by hand |
//! | `grants` | our grant table |
#![cfg_attr(target_os = "none", no_std)]
// usize is 64 bits wherever this runs.
#![allow(clippy::cast_possible_truncation)]

#[cfg(target_os = "none")]
pub mod grants;
#[cfg(target_os = "none")]
pub mod pages;
#[cfg(target_os = "none")]
pub mod registers;
#[cfg(target_os = "none")]
pub mod ring;
