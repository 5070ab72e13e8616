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
    fn poll(&self, now_ns: u64) -> bool {
        self.0.borrow_mut().release(now_ns)
    }

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
    fn poll(&self, now_ns: u64) -> bool {
        self.0.borrow_mut().poll(now_ns)
    }

    fn settle(&self) -> bool {
        self.0.borrow().has_work()
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.0.borrow().deadline_ns()
    }

    fn has_left(&self) -> bool {
        self.0.borrow().has_left()
    }
}

impl Device for NetworkDisks {
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

    fn has_left(&self) -> bool {
        self.is_empty()
    }
}
