//! Device models that guests talk to, and the volumes behind them. Knows nothing of Xen.
//!
//! | module | job |
//! |---|---|
//! | [`guest`] | traits the kernel implements: guest memory, interrupt line |
//! | [`virtio`] | register file, queues, device models |
//! | [`block`] | what a device model asks of storage |
//! | [`drive`] | what storage asks of a physical disk's driver |
//! | [`net`] | Ethernet frames, and the bridge |
//! | [`nic`] | what the bridge asks of a physical NIC's driver |
//! | [`connection`] | what storage on another machine asks of the network |
//! | [`volume`] | storage in RAM and on physical disks, and the names and opening rules of volumes |
//! | [`hardware`] | drivers of physical devices |
//! | [`sys`] | the hermit-abi seam: what a driver asks of any OS |
//! | `fake` | guests and interrupt lines made of host memory (feature `fakes`) |
//!
//! A request's way: [`virtio::mmio`] (register write, interrupt) → [`virtio::batch`] over [`virtio::queue`] and
//! [`virtio::chain`] (heads popped, chains walked) → [`virtio::blk`] (parsed, carried out) → [`block::Volume`]; if that is
//! on a physical disk, → [`volume::disk`] (slots) → [`drive::Drive`].
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

extern crate alloc;
#[cfg(any(test, feature = "fakes"))]
extern crate std;

pub mod block;
pub mod connection;
pub mod drive;
#[cfg(any(test, feature = "fakes"))]
pub mod fake;
pub mod guest;
pub mod hardware;
pub mod net;
pub mod nic;
pub mod sys;
pub mod virtio;
pub mod volume;

#[cfg(test)]
#[path = "../tests/common/clock.rs"]
mod test_clock;
