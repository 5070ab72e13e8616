//! Physical devices, driven through the crate `virtio-drivers`.
//!
//! | file | job |
//! |---|---|
//! | [`block`] | virtio disks |
//! | [`slots`] | the memory that a device and its driver share |

pub mod block;
pub mod slots;
