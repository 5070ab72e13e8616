//! Volumes: what a disk's `target=` names, who may open it, and what is behind it: our own RAM, physical disks, or disks on
//! other machines.
//!
//! | file | job |
//! |---|---|
//! | [`spec`] | the grammar of `target=` |
//! | [`registry`] | opening rules: one writer, or any number of readers |
//! | [`ram`] | volumes in RAM |
//! | [`disk`] | a disk: slots, their users, time limits |
//! | [`disk_volume`] | volumes on it |
//! | [`disk_reader`] | reads of it for ourselves |
//! | [`gpt`] | its partition table |
//! | [`nbd`] | disks on other machines |

pub mod disk;
pub mod disk_reader;
pub mod disk_volume;
pub mod gpt;
pub mod nbd;
pub mod ram;
pub mod registry;
pub mod spec;
