//! The machine: Xen and Dom0 in QEMU, scripts into it and results out of it.

mod device_tree;
pub mod disk;
mod file_sets;
mod lab;
mod machine;
pub mod partitions;
pub mod physical_disk;
mod physical_nic;
mod qemu;

pub use lab::{Ending, Job, Lab, Outcome};
pub use physical_disk::{Content, PhysicalDisk};
pub use physical_nic::{Network, PhysicalNic};
