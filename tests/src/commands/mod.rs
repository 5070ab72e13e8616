//! The commands of `cargo xtask`, one file each.

pub mod bench;
pub mod check;
pub mod dom0;
pub mod fuzz;
pub mod image;
pub mod run;
pub mod setup;
pub mod size;
pub mod test;
