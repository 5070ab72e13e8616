//! Ethernet frames and the bridge between the ports of guests, the uplink and this domain's own endpoint.
//!
//! ```text
//!   port.blank ──> bytes copied out of the sender, once ──> port.send ──> Bridge ──> the inboxes of other ports
//!                                                                                     └──> port.receive ──> copied into the receiver, once
//! ```
//! A frame is copied once out of its sender's memory and once into each receiver's; between the two it is in a buffer of
//! ours, which no guest can reach: what is checked stays as it was checked.
//!
//! | file | job |
//! |---|---|
//! | `mod` | addresses |
//! | [`frame`] | frames, and the pool of buffers for them |
//! | `headers` | where the headers of a frame begin |
//! | `checksum` | the Internet checksum |
//! | [`offload`] | what a sender left to the receiver: checksums, segmentation |
//! | [`bridge`] | which port gets a frame |
//! | [`filter`] | what of it a port wants |
//! | [`uplink`] | a physical NIC at a port |
//!
//! Neighbours: [`crate::virtio::net`] is a guest's port, [`crate::hardware::net`] drives the uplink.

pub mod bridge;
mod checksum;
pub mod filter;
pub mod frame;
mod headers;
pub mod offload;
pub mod uplink;

/// An Ethernet address (IEEE 802, EUI-48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it is a group's, broadcast included.
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0.first().is_some_and(|octet| octet & 1 != 0)
    }

    /// Whether a station can have it: neither a group's nor zero.
    #[must_use]
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }

    /// Reads `00:16:3e:01:02:03`, in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next()?;
            let is_plain = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *octet = if is_plain { u8::from_str_radix(part, 16).ok()? } else { return None };
        }
        parts.next().is_none().then_some(Self(octets))
    }
}

impl core::fmt::Display for MacAddress {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_address_reads_as_it_is_written() {
        let text = "00:16:3e:0a:bc:ff";
        let address = MacAddress::parse(text).map(|address| address.to_string());
        assert_eq!(address.as_deref(), Some(text));
        assert_eq!(MacAddress::parse("00:16:3E:0A:BC:FF"), MacAddress::parse(text));
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in [
            "",
            "00:16:3e:0a:bc",
            "00:16:3e:0a:bc:ff:00",
            "0:16:3e:0a:bc:ff",
            "+0:16:3e:0a:bc:ff",
            "00-16-3e-0a-bc-ff",
        ] {
            assert_eq!(MacAddress::parse(text), None, "{text}");
        }
    }
}
