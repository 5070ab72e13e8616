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

    fn resume(&mut self, accepted: Features) {
        self.get_mut().resume(accepted);
    }

    fn reset(&mut self) {
        self.get_mut().reset();
    }

    fn has_work(&self) -> bool {
        self.get().has_work()
    }

    fn is_polled(&self, index: QueueIndex) -> bool {
        self.get().is_polled(index)
    }

    fn take_config_change(&mut self) -> bool {
        self.get_mut().take_config_change()
    }

    fn serve(&mut self, index: QueueIndex, queue: &mut Queue<SharedPinned>, memory: &SharedMemory) -> Served {
        self.get_mut().serve(index, queue, memory)
    }
}

#[cfg(test)]
mod tests {
    use drivers::net::MacAddress;
    use drivers::net::bridge::{Bridge, Port, PortKind, PortSettings, SharedBridge};
    use drivers::net::offload::Offload;
    use drivers::virtio::net::config::{CTRL_VLAN, CTRL_VQ};

    use super::*;

    const GUEST: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const STATION: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    fn port(bridge: &SharedBridge, address: MacAddress) -> Port {
        let settings = PortSettings {
            name: "dom3/net0".into(),
            kind: PortKind::Guest,
            address: Some(address),
            is_pinned: false,
            is_isolated: false,
        };
        Bridge::add(bridge, settings).unwrap()
    }

    #[test]
    fn a_nic_that_goes_on_under_this_kernel_is_asked_to_and_gets_frames_of_all_vlans() {
        let bridge = Bridge::new(1);
        let station = port(&bridge, STATION);
        let mut model = Model::Nic(Box::new(NetDevice::new("dom3/net0".into(), port(&bridge, GUEST))));
        model.resume(Features::VERSION_1 | CTRL_VQ | CTRL_VLAN);
        let tagged = [&GUEST.0[..], &STATION.0, &[0x81, 0, 0, 5, 0x88, 0xb5], &[0; 50]].concat();
        let mut blank = station.blank(tagged.len()).unwrap();
        blank.bytes_mut().copy_from_slice(&tagged);
        station.send(&blank.finish(Offload::default()), 0);
        assert_eq!(bridge.borrow().pool().in_use(), 1);
    }

    #[test]
    fn a_nics_control_queue_is_not_polled() {
        let bridge = Bridge::new(1);
        let model = Model::Nic(Box::new(NetDevice::new("dom3/net0".into(), port(&bridge, GUEST))));
        assert_eq!([0, 1, 2].map(|index| model.is_polled(QueueIndex(index))), [true, true, false]);
    }
}
