//! The commands of `cargo xtask`, one file each.

pub mod bench;
pub mod dom0;
pub mod image;
pub mod setup;
