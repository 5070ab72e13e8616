//! The endpoint's bed: a bridge with the endpoint at one port.

use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, Port, PortKind, PortSettings, SharedBridge};
use kernel::endpoint::Endpoint;
use kernel::endpoint::addressing::Addressing;
use kernel::endpoint::status::{DeviceKind, DeviceStatus, GuestStatus, Status};
use smoltcp::time::Instant;

pub const OURS: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);
pub const THEIRS: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 2]);
pub const OUR_IP: [u8; 4] = [10, 0, 0, 5];
pub const THEIR_IP: [u8; 4] = [10, 0, 0, 9];
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MS;
/// More calls than the endpoint ever has to do in a row.
const ENOUGH_CALLS: usize = 10_000;

pub struct Bed {
    pub bridge: SharedBridge,
    pub endpoint: Endpoint,
    pub now_ns: u64,
}

/// A port with this address.
pub fn port(bridge: &SharedBridge, name: &str, kind: PortKind, address: MacAddress) -> Port {
    let settings = PortSettings {
        name: name.into(),
        kind,
        address: Some(address),
        is_pinned: false,
        is_isolated: false,
    };
    Bridge::add(bridge, settings).expect("a free address")
}

/// A status with one of everything, and a name with all that has to be escaped somewhere.
fn status() -> Status {
    let name = "a\"b\\c\n<d>&'{}=,#";
    let blk = drivers::virtio::blk::Counters { reads: 41, ..Default::default() };
    let device = |kind| DeviceStatus { domain: 3, name: name.into(), kind, registers: Default::default() };
    Status {
        version: "1.2.3",
        uptime_ns: 61 * SECOND,
        guests: vec![GuestStatus { domain: 3, slots: 17 }],
        devices: vec![
            device(DeviceKind::Disk(blk)),
            device(DeviceKind::Nic(Some(THEIRS), Default::default())),
        ],
        ..Status::default()
    }
}

impl Bed {
    pub fn new(addressing: Addressing) -> Self {
        let bridge = Bridge::new(1);
        let port = port(&bridge, "endpoint", PortKind::Endpoint, OURS);
        let now_ns = 5 * SECOND;
        let endpoint = Endpoint::new(port, addressing, Box::new(|| Ok(status())), 42, now_ns);
        Self { bridge, endpoint: endpoint.expect("a port with an address"), now_ns }
    }

    /// Polls until there is nothing to do now.
    pub fn settle(&mut self) {
        for _ in 0..ENOUGH_CALLS {
            if !self.endpoint.poll(self.now_ns) && !self.endpoint.has_work() {
                return;
            }
        }
        panic!("the endpoint never comes to rest");
    }
}

/// The time as the stack has it.
pub fn instant(now_ns: u64) -> Instant {
    Instant::from_micros((now_ns / 1000) as i64)
}
