//! Physical devices, driven through the crate `virtio-drivers`.
//!
//! | file | job |
//! |---|---|
//! | [`block`] | virtio disks |
//! | [`net`] | virtio NICs |
//! | [`slots`] | the memory that a device and its driver share |

pub mod block;
pub mod net;
pub mod slots;

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetUpError {
    /// It is not a virtio 1.x device.
    #[error(
        "it is a legacy device, and virtio 1.0 or later is needed (QEMU: -global virtio-mmio.force-legacy=false)"
    )]
    Legacy,
    /// It refuses the features that we chose among its own.
    #[error("it refuses the features offered by itself")]
    Features,
    /// Its configuration makes no sense.
    #[error("its configuration makes no sense: {0}")]
    Configuration(&'static str),
    /// A queue of its cannot be set up.
    #[error("a queue of its is too small or in use")]
    Queue,
    /// We lack memory that devices can reach.
    #[error("no DMA memory left for it: give this domain more by memory=")]
    Memory,
}
