//! Volumes: what a disk's `target=` names, who may open it, and what is behind it: our own RAM, or physical disks.
//!
//! | file | job |
//! |---|---|
//! | [`spec`] | the grammar of `target=` |
//! | [`registry`] | opening rules: one writer, or any number of readers |
//! | [`ram`] | volumes in RAM |
//! | [`disk`] | a physical disk: slots, their users, time limits |
//! | [`disk_volume`] | volumes on it |
//! | [`disk_reader`] | reads of it for ourselves |
//! | [`gpt`] | its partition table |

pub mod disk;
pub mod disk_reader;
pub mod disk_volume;
pub mod gpt;
pub mod ram;
pub mod registry;
pub mod spec;
