//! What a guest's device is: the models that we serve, as one type.

use alloc::boxed::Box;

use drivers::virtio::blk::BlockDevice;
use drivers::virtio::net::NetDevice;
use drivers::virtio::queue::Queue;
use drivers::virtio::{Device, Features, QueueIndex, Served};

use super::memory::{SharedMemory, SharedPinned};

/// A device model.
pub enum Model {
    /// A virtio-blk device.
    Disk(Box<BlockDevice<SharedPinned>>),
    /// A virtio-net device.
    Nic(Box<NetDevice>),
}

impl Model {
    fn get(&self) -> &dyn Device<SharedMemory> {
        match self {
            Self::Disk(disk) => &**disk,
            Self::Nic(nic) => &**nic,
        }
    }

    fn get_mut(&mut self) -> &mut dyn Device<SharedMemory> {
        match self {
            Self::Disk(disk) => &mut **disk,
            Self::Nic(nic) => &mut **nic,
        }
    }
}

/// What it did so far.
impl core::fmt::Debug for Model {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Disk(disk) => disk.counters().fmt(out),
            Self::Nic(nic) => nic.counters().fmt(out),
        }
    }
}

impl Device<SharedMemory> for Model {
    fn name(&self) -> &str {
        self.get().name()
    }

    fn id(&self) -> u32 {
        self.get().id()
    }

    fn features(&self) -> Features {
        self.get().features()
    }

    fn queue_sizes(&self) -> &[u16] {
        self.get().queue_sizes()
    }

    fn read_config(&self, offset: u32, out: &mut [u8]) {
        self.get().read_config(offset, out);
    }

    fn read_refused_config(&self, offset: u32, out: &mut [u8]) {
        self.get().read_refused_config(offset, out);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        self.get_mut().write_config(offset, data);
    }

    fn activate(&mut self, accepted: Features) {
        self.get_mut().activate(accepted);
    }

    fn reset(&mut self) {
        self.get_mut().reset();
    }

    fn has_work(&self) -> bool {
        self.get().has_work()
    }

    fn take_config_change(&mut self) -> bool {
        self.get_mut().take_config_change()
    }

    fn serve(&mut self, index: QueueIndex, queue: &mut Queue<SharedPinned>, memory: &SharedMemory) -> Served {
        self.get_mut().serve(index, queue, memory)
    }
}
