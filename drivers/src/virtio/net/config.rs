//! What a virtio-net device says of itself: feature bits and configuration space (virtio 1.2, 5.1.3 and 5.1.4).

use crate::net::MacAddress;
use crate::net::frame::MTU;
use crate::net::offload::Capabilities;
use crate::virtio::Features;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

/// Device ID of a network card (virtio 1.2, 5.1.1).
pub const DEVICE_ID: u32 = 1;

/// VIRTIO_NET_F_CSUM: the driver may leave checksums to us.
pub const CSUM: Features = Features::from_bits_retain(1 << 0);
/// VIRTIO_NET_F_GUEST_CSUM: we may leave checksums to the driver.
pub const GUEST_CSUM: Features = Features::from_bits_retain(1 << 1);
/// VIRTIO_NET_F_MTU: `mtu` holds.
pub const DEVICE_MTU: Features = Features::from_bits_retain(1 << 3);
/// VIRTIO_NET_F_MAC: `mac` holds.
pub const MAC: Features = Features::from_bits_retain(1 << 5);
/// VIRTIO_NET_F_GUEST_TSO4: the driver takes TCP over IPv4 uncut.
pub const GUEST_TSO4: Features = Features::from_bits_retain(1 << 7);
/// VIRTIO_NET_F_GUEST_TSO6: the driver takes TCP over IPv6 uncut.
pub const GUEST_TSO6: Features = Features::from_bits_retain(1 << 8);
/// VIRTIO_NET_F_HOST_TSO4: the driver may send TCP over IPv4 uncut.
pub const HOST_TSO4: Features = Features::from_bits_retain(1 << 11);
/// VIRTIO_NET_F_HOST_TSO6: the driver may send TCP over IPv6 uncut.
pub const HOST_TSO6: Features = Features::from_bits_retain(1 << 12);
/// VIRTIO_NET_F_MRG_RXBUF: a frame may be in the buffers of several chains.
pub const MRG_RXBUF: Features = Features::from_bits_retain(1 << 15);
/// VIRTIO_NET_F_STATUS: `status` holds.
pub const STATUS: Features = Features::from_bits_retain(1 << 16);
/// VIRTIO_NET_F_CTRL_VQ: there is a control queue.
pub const CTRL_VQ: Features = Features::from_bits_retain(1 << 17);
/// VIRTIO_NET_F_CTRL_RX: it takes receive modes and address tables.
pub const CTRL_RX: Features = Features::from_bits_retain(1 << 18);
/// VIRTIO_NET_F_CTRL_VLAN: it takes a filter of VLANs.
pub const CTRL_VLAN: Features = Features::from_bits_retain(1 << 19);
/// VIRTIO_NET_F_CTRL_RX_EXTRA: it takes more receive modes.
pub const CTRL_RX_EXTRA: Features = Features::from_bits_retain(1 << 20);
/// VIRTIO_NET_F_GUEST_ANNOUNCE: the driver announces itself when asked.
pub const GUEST_ANNOUNCE: Features = Features::from_bits_retain(1 << 21);

/// VIRTIO_NET_F_CTRL_MAC_ADDR: the driver sets the address by a command.
pub const CTRL_MAC_ADDR: Features = Features::from_bits_retain(1 << 23);

/// Features that mean nothing without another (virtio 1.2, 5.1.3.1), and the other; `status` is where we ask for announcements.
const NEEDS: [(Features, Features); 10] = [
    (GUEST_TSO4, GUEST_CSUM),
    (GUEST_TSO6, GUEST_CSUM),
    (HOST_TSO4, CSUM),
    (HOST_TSO6, CSUM),
    (CTRL_RX, CTRL_VQ),
    (CTRL_VLAN, CTRL_VQ),
    (CTRL_RX_EXTRA, CTRL_VQ),
    (CTRL_MAC_ADDR, CTRL_VQ),
    (GUEST_ANNOUNCE, CTRL_VQ),
    (GUEST_ANNOUNCE, STATUS),
];

/// Bit of `status`: VIRTIO_NET_S_LINK_UP
const LINK_UP: u16 = 1;
/// Bit of `status`: VIRTIO_NET_S_ANNOUNCE
const ANNOUNCE: u16 = 2;

/// The features of every device. Its address is ours to give; the driver can ask for another.
#[must_use]
pub fn features() -> Features {
    let ring = Features::VERSION_1 | Features::INDIRECT_DESC | Features::EVENT_IDX;
    let offloads = CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6 | MRG_RXBUF;
    let control = CTRL_VQ | CTRL_RX | CTRL_VLAN | CTRL_RX_EXTRA | CTRL_MAC_ADDR | GUEST_ANNOUNCE;
    ring | offloads | control | DEVICE_MTU | MAC | STATUS
}

/// `accepted` without the features that lack another which they need.
#[must_use]
pub fn consistent(accepted: Features) -> Features {
    let lacks = |(_, needed): &&(Features, Features)| !accepted.contains(*needed);
    NEEDS.iter().filter(lacks).fold(accepted, |kept, (feature, _)| kept - *feature)
}

/// What a driver with these features does by itself.
#[must_use]
pub fn capabilities(accepted: Features) -> Capabilities {
    Capabilities {
        checksum: accepted.contains(GUEST_CSUM),
        tcp4: accepted.contains(GUEST_TSO4),
        tcp6: accepted.contains(GUEST_TSO6),
    }
}

/// Configuration space.
#[derive(Clone, Copy, Debug, Default, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Config {
    /// 0x00: its address
    mac: [u8; 6],
    /// 0x06: link, and whether to announce
    status: U16,
    /// 0x08: pairs of queues, without VIRTIO_NET_F_MQ
    max_virtqueue_pairs: U16,
    /// 0x0a: most bytes after the Ethernet header
    mtu: U16,
}

const _: () = assert!(size_of::<Config>() == 12);

impl Config {
    /// The configuration space of a device with this address, which asks the driver to announce itself, or not.
    #[must_use]
    pub fn new(address: Option<MacAddress>, is_announcing: bool) -> Self {
        Self {
            mac: address.map_or([0; 6], |address| address.0),
            status: U16::new(LINK_UP | if is_announcing { ANNOUNCE } else { 0 }),
            max_virtqueue_pairs: U16::new(1),
            mtu: U16::new(u16::try_from(MTU).unwrap_or(u16::MAX)),
        }
    }

    /// Copies the bytes from `offset` on to `out`, as far as there are any.
    pub fn read(&self, offset: u32, out: &mut [u8]) {
        let rest = self.as_bytes().get(offset as usize..).unwrap_or_default();
        out.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_its_ground_is_not_accepted() {
        assert_eq!(consistent(features()), features());
        assert_eq!(consistent(GUEST_TSO4 | HOST_TSO6 | CTRL_RX | MAC), MAC);
        assert_eq!(consistent(CTRL_VQ | GUEST_ANNOUNCE), CTRL_VQ);
        assert_eq!(consistent(CSUM | HOST_TSO4 | GUEST_TSO4), CSUM | HOST_TSO4);
    }
}
