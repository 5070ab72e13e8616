//! The physical NIC that is the bridge's uplink: brought up, and driven by the loop.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::RefCell;

use drivers::hardware::net::{BUFFER_BYTES, VirtioNic};
use drivers::net::bridge::{Bridge, PortKind, PortSettings, SharedBridge};
use drivers::net::uplink::Uplink;
use drivers::nic::Nic;
use virtio_drivers::transport::{DeviceType, Transport};

use super::transport::PhysicalDevice;
use super::{Device, Devices};
use crate::limits::NIC_DMA_SHARE;
use crate::mm::hal::{self, KernelHal};

/// The name of the uplink's port.
const NAME: &str = "uplink";

/// An uplink among the loop's devices.
struct UplinkDevice(RefCell<Uplink>);

impl Device for UplinkDevice {
    fn interrupt(&self) {
        self.0.borrow_mut().interrupt();
    }

    fn poll(&self, now_ns: u64) -> bool {
        self.0.borrow_mut().poll(now_ns)
    }

    fn kick(&self) {
        self.0.borrow_mut().kick();
    }

    fn settle(&self) -> bool {
        self.0.borrow_mut().settle()
    }

    fn deadline_ns(&self) -> Option<u64> {
        // At no certain time: before long.
        self.0.borrow().is_watched().then_some(u64::MAX)
    }
}

/// Brings up the NIC among `physical` devices, if there is one, as a port of `bridge`, and gives the other devices back. With
/// more than one, only the first is used: two would make a loop wherever they are in one network.
#[must_use]
pub fn bring_up(
    physical: Vec<PhysicalDevice>,
    bridge: &SharedBridge,
    devices: &mut Devices,
) -> Vec<PhysicalDevice> {
    let is_nic = |device: &PhysicalDevice| device.transport.device_type() == DeviceType::Network;
    let (nics, others): (Vec<_>, Vec<_>) = physical.into_iter().partition(is_nic);
    let mut nics = nics.into_iter();
    if let Some(nic) = nics.next() {
        let interrupt = nic.interrupt.0;
        if let Err(error) = bring_up_one(nic, bridge, devices) {
            log::error!("{NAME}, interrupt {interrupt}: it cannot be used: {error}");
        }
    }
    for nic in nics {
        log::error!("a second NIC, interrupt {}, is not used: there is one uplink", nic.interrupt.0);
    }
    others
}

#[inline(never)]
fn bring_up_one(
    device: PhysicalDevice,
    bridge: &SharedBridge,
    devices: &mut Devices,
) -> Result<(), Box<dyn core::error::Error>> {
    let slots_max = hal::free_bytes() / NIC_DMA_SHARE / (2 * BUFFER_BYTES);
    let nic = VirtioNic::<KernelHal, _>::new(device.transport, slots_max)?;
    let settings = PortSettings {
        name: NAME.to_string(),
        kind: PortKind::Uplink,
        address: None,
        is_pinned: false,
        is_isolated: false,
    };
    let port = Bridge::add(bridge, settings)?;
    let (incoming, outgoing) = nic.slots();
    log::info!(
        "{NAME}: a NIC with address {}, link {}, {incoming} buffers in and {outgoing} out, interrupt {}",
        nic.address(),
        if nic.link_is_up() { "up" } else { "down" },
        device.interrupt.0,
    );
    let uplink = Uplink::new(NAME.to_string(), Box::new(nic), port, bridge.clone());
    devices.add(device.interrupt, Rc::new(UplinkDevice(RefCell::new(uplink))))?;
    Ok(())
}
