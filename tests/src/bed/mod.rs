//! The machine: Xen and Dom0 in QEMU, scripts into it and results out of it.

mod device_tree;
pub mod disk;
mod file_sets;
mod lab;
pub mod partitions;
pub mod physical_disk;
mod qemu;

pub use lab::{Ending, Job, Lab, Outcome};
pub use physical_disk::{Content, PhysicalDisk};
