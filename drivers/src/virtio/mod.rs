//! virtio as a device sees it: the words shared by the transport, the queues and the device models.
//!
//! | file | job |
//! |---|---|
//! | [`mmio`] | the virtio-mmio transport, version 2, over the offsets in `registers` |
//! | [`status`] | the status machine |
//! | [`queue`] | split virtqueue, device side |
//! | [`chain`] | one descriptor chain to guest regions |
//! | [`batch`] | all requests drained in one go |
//! | [`handover`] | what a kernel leaves for the one that goes on |
//! | [`blk`] | the block device model |
//! | [`net`] | the network device model |
//! | `complaints` | how often a guest can make us write a log line |

pub mod batch;
pub mod blk;
pub mod chain;
pub(crate) mod complaints;
pub mod handover;
pub mod mmio;
pub mod net;
pub mod queue;
mod registers;
pub mod status;

use crate::guest::GuestMemory;
use queue::{Queue, QueueError};

bitflags::bitflags! {
    /// Feature bits of the transport and the ring (virtio 1.2, 6). Device models add their own.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// VIRTIO_F_INDIRECT_DESC: a descriptor may refer to a table of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// VIRTIO_F_EVENT_IDX: both sides name the index at which they want to hear from the other.
        const EVENT_IDX = 1 << 29;
        /// VIRTIO_F_VERSION_1: not legacy. A driver that lacks it is refused.
        const VERSION_1 = 1 << 32;
        /// VIRTIO_F_ACCESS_PLATFORM: addresses go through the platform's IOMMU; on Xen they are grants.
        const ACCESS_PLATFORM = 1 << 33;
        // The device models' own bits.
        const _ = !0;
    }
}

/// Which queue of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueIndex(pub u16);

/// What a device model did in one call of [`Device::serve`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests completed.
    pub requests: u32,
    /// The guest wants to be told.
    pub interrupt: bool,
    /// It was not asked whether it does: that can wait until there is nothing else to do.
    pub owes_interrupt: bool,
    /// Requests were seen waiting that this call did not get to.
    pub more: bool,
    /// Requests wait for which there is no room before others are done.
    pub stalled: bool,
    /// What waits in the queue is buffers for later: no kick is wanted for more of them.
    pub is_stocked: bool,
    /// Chains left waiting, too few for what is to be done: a kick is wanted for the next one behind them.
    pub kept: u16,
    /// Something below has to finish first, for requests that were begun or are stalled: call again when it may have.
    pub under_way: bool,
    /// The guest broke the queue's rules: nothing more comes from it until the device is reset.
    pub broken: Option<QueueError>,
}

/// A device model: what the transport needs to know of it.
pub trait Device<M: GuestMemory> {
    /// The name that its log lines start with, as in `dom3/xvda`.
    fn name(&self) -> &str;

    /// Device ID (virtio 1.2, 5).
    fn id(&self) -> u32;

    /// Features it offers, the ring's among them.
    fn features(&self) -> Features;

    /// The largest size of each of its queues: powers of two up to [`queue::MAX_SIZE`].
    fn queue_sizes(&self) -> &[u16];

    /// Reads configuration space at `offset` into `out`, which holds zeroes: bytes past its end stay so.
    fn read_config(&self, offset: u32, out: &mut [u8]);

    /// What the configuration reads as to a driver whose rings were refused: what makes it give the device up. A driver that
    /// does not look for DEVICE_NEEDS_RESET would wait for its first request for ever.
    fn read_refused_config(&self, offset: u32, out: &mut [u8]);

    /// The guest writes configuration space. Most devices have nothing writable there.
    fn write_config(&mut self, offset: u32, data: &[u8]);

    /// The guest is ready (DRIVER_OK) with the features it `accepted`.
    fn activate(&mut self, accepted: Features);

    /// The guest goes on with a device that another kernel served, with the features it `accepted`.
    fn resume(&mut self, accepted: Features);

    /// The guest reset the device.
    fn reset(&mut self);

    /// Whether something has come for the guest from elsewhere: then it is served though it did not kick.
    fn has_work(&self) -> bool;

    /// Whether a queue is looked at again and again while the guest has work for us. If not, it is served when the guest kicks.
    fn is_polled(&self, index: QueueIndex) -> bool;

    /// Whether configuration space has changed since this was asked last: the guest is told.
    fn take_config_change(&mut self) -> bool;

    /// Serves a bounded amount of work from a queue.
    fn serve(&mut self, index: QueueIndex, queue: &mut Queue<M::Pinned>, memory: &M) -> Served;
}
