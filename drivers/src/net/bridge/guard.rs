//! What our own endpoint takes, and from whom: with an uplink, all on whom it relies are behind that.
//!
//! A guest can write any IP address into its frames, its own Ethernet address being pinned or not: by ARP in a server's name it
//! would become the disk of others. So what comes from a guest in the name of one on whom the endpoint relies, or as a DHCP
//! server, does not get there. Without an uplink the servers are guests themselves, and nothing tells the true one.
//!
//! Tags are not looked through: the endpoint's stack does not heed frames that have some. Nor are fragments told apart, which
//! it takes for whole packets.

use crate::net::frame::ETHERNET_BYTES;
use crate::net::headers::{ARP, FIRST_KIND, IPV4, word};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Where an ARP packet names who sends it (RFC 826).
const ARP_SENDER: usize = ETHERNET_BYTES + 14;
/// Where an IPv4 packet says what is in it, and who sends it (RFC 791, 3.1).
const IPV4_PROTOCOL: usize = ETHERNET_BYTES + 9;
const IPV4_SOURCE: usize = ETHERNET_BYTES + 12;
const UDP: u8 = 17;
/// The port of DHCP clients (RFC 2131, 4.1).
const DHCP_CLIENT: u16 = 68;

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A guest, and there is an uplink.
    Inside,
    /// The uplink, or a guest when there is none.
    Outside,
}

/// In whose name nobody sends to a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// The port's own IP address: in its name comes nothing.
    pub own: Option<Ipv4Addr>,
    /// Those on whom it relies: in their names nothing comes from guests when there is an uplink, nor as from a DHCP server.
    pub relied_on: Vec<Ipv4Addr>,
}

impl Guard {
    /// Whether a frame from `origin` may come.
    pub(super) fn admits(&self, bytes: &[u8], origin: Origin) -> bool {
        let (source, is_dhcp) = match word(bytes, FIRST_KIND) {
            Some(ARP) => (ipv4_at(bytes, ARP_SENDER), false),
            Some(IPV4) => (ipv4_at(bytes, IPV4_SOURCE), is_for_dhcp_client(bytes)),
            _ => return true,
        };
        // What is too short is taken for nobody's by the stack, too.
        let Some(source) = source else { return true };
        let is_claim = origin == Origin::Inside && (is_dhcp || self.relied_on.contains(&source));
        Some(source) != self.own && !is_claim
    }
}

fn ipv4_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets))
}

fn is_for_dhcp_client(bytes: &[u8]) -> bool {
    let header_bytes = bytes.get(ETHERNET_BYTES).map_or(0, |first| usize::from(first & 0xf) * 4);
    bytes.get(IPV4_PROTOCOL) == Some(&UDP)
        && word(bytes, ETHERNET_BYTES + header_bytes + 2) == Some(DHCP_CLIENT)
}
