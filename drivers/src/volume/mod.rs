//! Volumes: what a disk's `target=` names, who may open it, and storage in the driver domain's own RAM.
//!
//! | file | job |
//! |---|---|
//! | [`spec`] | the grammar of `target=` |
//! | [`registry`] | opening rules: one writer, or any number of readers |
//! | [`ram`] | the volume itself |
//! | [`gpt`] | the partitions of a physical disk |

pub mod gpt;
pub mod ram;
pub mod registry;
pub mod spec;
