//! The machine's physical NICs: virtio-net devices of QEMU, on the transports behind those of the physical disks.
//!
//! At the other end is QEMU's user network: 10.0.2.0/24, in which the host's own loopback is 10.0.2.2, and addresses are given by DHCP from
//! 10.0.2.15 on, the first one to whoever asks first.

/// Who has the address that a port of the host leads to: the first that asks for one, which is the driver domain.
const ENDPOINT: &str = "10.0.2.15:80";

/// One NIC.
#[derive(Clone, Debug, Default)]
pub struct PhysicalNic {
    /// More options of QEMU's device: `mrg_rxbuf=off`.
    pub options: String,
}

impl PhysicalNic {
    /// QEMU's arguments for NIC `number` on `transport`. What connects to `endpoint_port` on the host's loopback comes to [`ENDPOINT`].
    pub fn arguments(&self, number: usize, transport: u32, endpoint_port: Option<u16>) -> [String; 4] {
        let forward =
            endpoint_port.map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-{ENDPOINT}")).unwrap_or_default();
        let mut device = format!(
            "virtio-net-device,netdev=nic{number},mac=52:54:00:00:00:{number:02x},bus=virtio-mmio-bus.{transport}"
        );
        if !self.options.is_empty() {
            device.push(',');
            device.push_str(&self.options);
        }
        ["-netdev".into(), format!("user,id=nic{number},ipv6=off{forward}"), "-device".into(), device]
    }
}

#[cfg(test)]
mod tests {
    use super::PhysicalNic;

    #[test]
    fn a_port_of_the_host_leads_to_the_first_address() {
        let nic = PhysicalNic { options: "mrg_rxbuf=off".into() };
        let arguments = nic.arguments(1, 3, Some(4000));
        assert_eq!(arguments[1], "user,id=nic1,ipv6=off,hostfwd=tcp:127.0.0.1:4000-10.0.2.15:80");
        assert!(
            arguments[3].contains("netdev=nic1,")
                && arguments[3].ends_with(",bus=virtio-mmio-bus.3,mrg_rxbuf=off")
        );
    }
}
