//! The machine's physical NICs: virtio-net devices of QEMU, on the transports behind those of the physical disks.
//!
//! At the other end is QEMU's user network, 10.0.2.0/24, in which the host's own loopback is 10.0.2.2, and addresses are given by DHCP from
//! 10.0.2.15 on, the first one to whoever asks first; or another NIC of the same machine, so that a deterministic run stays so.

/// Who has the address that a port of the host leads to: the first that asks for one, which is the driver domain.
const ENDPOINT: &str = "10.0.2.15:80";

/// One NIC.
#[derive(Clone, Debug, Default)]
pub struct PhysicalNic {
    /// More options of QEMU's device: `mrg_rxbuf=off`.
    pub options: String,
    /// What is at the other end.
    pub network: Network,
}

/// What a NIC is connected to.
#[derive(Clone, Debug, Default)]
pub enum Network {
    /// QEMU's user network.
    #[default]
    User,
    /// The wire of that number, between NICs of this machine.
    Wire(u32),
}

impl Network {
    /// QEMU's netdev of that name. What connects to `endpoint_port` on the host's loopback comes to [`ENDPOINT`].
    fn netdev(&self, name: &str, endpoint_port: Option<u16>) -> String {
        let forward = |port| format!(",hostfwd=tcp:127.0.0.1:{port}-{ENDPOINT}");
        match self {
            Self::User => {
                format!("user,id={name},ipv6=off{}", endpoint_port.map(forward).unwrap_or_default())
            }
            Self::Wire(number) => format!("hubport,id={name},hubid={number}"),
        }
    }
}

/// What is sent is on the wire a virtual µs after the kick: otherwise QEMU would send it when another of its threads comes to it.
const TIMELESS: &str = "tx=timer,x-txtimer=1000";

/// A NIC of the driver domain's on wire 0.
pub fn timeless() -> PhysicalNic {
    PhysicalNic { options: TIMELESS.into(), network: Network::Wire(0) }
}

/// QEMU's arguments for such a NIC of Dom0's.
pub fn timeless_of_dom0(transport: u32, wire: u32, mac: &str) -> [String; 4] {
    let name = format!("dom0-{transport}");
    let device =
        format!("virtio-net-device,netdev={name},mac={mac},bus=virtio-mmio-bus.{transport},{TIMELESS}");
    ["-netdev".into(), Network::Wire(wire).netdev(&name, None), "-device".into(), device]
}

impl PhysicalNic {
    /// QEMU's arguments for NIC `number` on `transport`. What connects to `endpoint_port` on the host's loopback comes to [`ENDPOINT`].
    pub fn arguments(&self, number: usize, transport: u32, endpoint_port: Option<u16>) -> [String; 4] {
        let mut device = format!(
            "virtio-net-device,netdev=nic{number},mac=52:54:00:00:00:{number:02x},bus=virtio-mmio-bus.{transport}"
        );
        if !self.options.is_empty() {
            device.push(',');
            device.push_str(&self.options);
        }
        let netdev = self.network.netdev(&format!("nic{number}"), endpoint_port);
        ["-netdev".into(), netdev, "-device".into(), device]
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, PhysicalNic, timeless};

    #[test]
    fn a_port_of_the_host_leads_to_the_first_address() {
        let nic = PhysicalNic { options: "mrg_rxbuf=off".into(), network: Network::User };
        let arguments = nic.arguments(1, 3, Some(4000));
        assert_eq!(arguments[1], "user,id=nic1,ipv6=off,hostfwd=tcp:127.0.0.1:4000-10.0.2.15:80");
        assert!(
            arguments[3].contains("netdev=nic1,")
                && arguments[3].ends_with(",bus=virtio-mmio-bus.3,mrg_rxbuf=off")
        );
    }

    #[test]
    fn a_wire_stays_in_the_machine() {
        assert_eq!(timeless().arguments(0, 0, Some(4000))[1], "hubport,id=nic0,hubid=0");
    }
}
