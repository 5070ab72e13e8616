//! What the loop drives beside devices of the machine: the bridge, our endpoint, and disks on other machines.

use alloc::rc::Rc;
use core::cell::RefCell;

use drivers::net::bridge::SharedBridge;
use drivers::volume::nbd::disks::NetworkDisks;

use super::Device;
use crate::endpoint::Endpoint;

/// The bridge among the loop's devices: guests that wait for a receiver of their frames do not wait for ever.
pub struct BridgeDevice(pub SharedBridge);

impl Device for BridgeDevice {
    fn interrupt(&self) {}

    fn poll(&self, now_ns: u64) -> bool {
        self.0.borrow_mut().release(now_ns)
    }

    fn kick(&self) {}

    fn settle(&self) -> bool {
        false
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.0.borrow().deadline_ns()
    }
}

/// Our endpoint among the loop's devices.
pub struct EndpointDevice(pub Rc<RefCell<Endpoint>>);

impl Device for EndpointDevice {
    fn interrupt(&self) {}

    fn poll(&self, now_ns: u64) -> bool {
        self.0.borrow_mut().poll(now_ns)
    }

    fn kick(&self) {}

    fn settle(&self) -> bool {
        self.0.borrow().has_work()
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.0.borrow().deadline_ns()
    }
}

impl Device for NetworkDisks {
    fn interrupt(&self) {}

    fn poll(&self, now_ns: u64) -> bool {
        Self::poll(self, now_ns)
    }

    fn kick(&self) {
        Self::kick(self);
    }

    fn settle(&self) -> bool {
        Self::settle(self)
    }

    fn deadline_ns(&self) -> Option<u64> {
        Self::deadline_ns(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::net::MacAddress;
    use drivers::net::bridge::{Bridge, Port, PortKind, PortSettings};
    use drivers::net::filter::Filter;
    use drivers::net::offload::Offload;

    fn port(bridge: &SharedBridge, number: u8) -> Port {
        let settings = PortSettings {
            name: "guest".into(),
            kind: PortKind::Guest,
            address: Some(MacAddress([2, 0, 0, 0, 0, number])),
            is_pinned: false,
            is_isolated: false,
        };
        let port = Bridge::add(bridge, settings).unwrap();
        port.set_filter(Some(Filter::default()));
        port
    }

    #[test]
    fn the_loop_wakes_when_a_guest_has_waited_for_long_enough() {
        let bridge = Bridge::new(1);
        let (sender, _receiver) = (port(&bridge, 1), port(&bridge, 2));
        let device = BridgeDevice(bridge.clone());
        assert_eq!((device.poll(5), device.deadline_ns()), (false, None));
        let mut blank = sender.blank(60).unwrap();
        blank.bytes_mut()[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        let frame = blank.finish(Offload::default());
        while sender.send_or_wait(&frame, 5) {}
        let end_ns = device.deadline_ns().unwrap();
        assert!(!device.poll(end_ns - 1) && device.deadline_ns() == Some(end_ns));
        assert!(device.poll(end_ns) && device.deadline_ns().is_none());
    }
}
