//! Where the headers of a frame begin and end, by our own look at it. Nothing here trusts a length that it did not check.

use super::MacAddress;
use super::frame::{ETHERNET_BYTES, VLAN_BYTES};
use super::offload::{HEADER_BYTES_MAX, SegmentedProtocol};

/// Tag of a customer's VLAN, the ordinary sort (IEEE 802.1Q).
const CUSTOMER_TAG: u16 = 0x8100;
/// Tag of a provider's VLAN, around the former (IEEE 802.1ad).
const SERVICE_TAG: u16 = 0x88a8;
/// Tags that are looked through.
const TAGS_MAX: usize = 2;
/// Where the first kind is, behind two addresses.
pub(super) const FIRST_KIND: usize = 12;
/// The bits of a tag that number a VLAN.
const VLAN_BITS: u16 = 0xfff;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const IPV4_BYTES_MIN: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES_MIN: usize = 20;

const TCP: u8 = 6;
/// Hop-by-hop options, routing, destination options (RFC 8200, section 4). Fragments and what is authenticated cannot be cut.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
/// Each of them once, and destination options twice (RFC 8200, section 4.1); and as many again.
const EXTENSIONS_MAX: usize = 8;

/// What a bridge looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub destination: MacAddress,
    pub source: MacAddress,
    /// The VLAN, if the frame has a tag that names one: 0 only says how urgent it is.
    pub vlan: Option<u16>,
}

impl Addresses {
    /// None if the frame is too short to have them.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<ETHERNET_BYTES>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *header;
        let vlan = match word(bytes, FIRST_KIND)? {
            CUSTOMER_TAG => word(bytes, ETHERNET_BYTES).map(|tag| tag & VLAN_BITS).filter(|vlan| *vlan != 0),
            _ => None,
        };
        Some(Self {
            destination: MacAddress([d0, d1, d2, d3, d4, d5]),
            source: MacAddress([s0, s1, s2, s3, s4, s5]),
            vlan,
        })
    }
}

/// Where the headers of a TCP segment in a frame begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpSegment {
    pub protocol: SegmentedProtocol,
    /// The IP header.
    pub network: usize,
    /// The TCP header.
    pub transport: usize,
    /// The first byte behind all headers: at most [`HEADER_BYTES_MAX`].
    pub payload: usize,
}

impl TcpSegment {
    /// None if the frame is no whole TCP segment, its IP header says another length than it has, or its headers are too long.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let (kind, network) = behind_tags(bytes)?;
        let (protocol, transport) = match kind {
            IPV4 => (SegmentedProtocol::Tcp4, behind_ipv4(bytes, network)?),
            IPV6 => (SegmentedProtocol::Tcp6, behind_ipv6(bytes, network)?),
            _ => return None,
        };
        // Data offset, in words of four bytes (RFC 9293, 3.1).
        let tcp_bytes = usize::from(byte(bytes, transport + 12)? >> 4) * 4;
        let payload = transport + tcp_bytes;
        let fits = tcp_bytes >= TCP_BYTES_MIN && payload <= bytes.len().min(HEADER_BYTES_MAX);
        fits.then_some(Self { protocol, network, transport, payload })
    }
}

/// The kind of what is in the frame, and where that begins, behind at most [`TAGS_MAX`] tags.
pub(super) fn behind_tags(bytes: &[u8]) -> Option<(u16, usize)> {
    let mut at = FIRST_KIND;
    for _ in 0..TAGS_MAX {
        if !matches!(word(bytes, at)?, CUSTOMER_TAG | SERVICE_TAG) {
            break;
        }
        at += VLAN_BYTES;
    }
    Some((word(bytes, at)?, at + 2))
}

/// Where TCP begins in an IPv4 packet (RFC 791, 3.1).
fn behind_ipv4(bytes: &[u8], at: usize) -> Option<usize> {
    let first = byte(bytes, at)?;
    let header_bytes = usize::from(first & 0xf) * 4;
    let total_bytes = usize::from(word(bytes, at + 2)?);
    // All but "don't fragment", and a bit without a meaning.
    let is_fragment = word(bytes, at + 6)? & 0x3fff != 0;
    let is_whole = first >> 4 == 4
        && header_bytes >= IPV4_BYTES_MIN
        && at + total_bytes == bytes.len()
        && !is_fragment
        && byte(bytes, at + 9)? == TCP;
    is_whole.then_some(at + header_bytes)
}

/// Where TCP begins in an IPv6 packet (RFC 8200, sections 3 and 4).
fn behind_ipv6(bytes: &[u8], at: usize) -> Option<usize> {
    let payload_bytes = usize::from(word(bytes, at + 4)?);
    if byte(bytes, at)? >> 4 != 6 || at + IPV6_BYTES + payload_bytes != bytes.len() {
        return None;
    }
    let mut next = byte(bytes, at + 6)?;
    let mut at = at + IPV6_BYTES;
    for _ in 0..EXTENSIONS_MAX {
        if !EXTENSIONS.contains(&next) {
            break;
        }
        next = byte(bytes, at)?;
        at += (usize::from(byte(bytes, at + 1)?) + 1) * 8;
    }
    (next == TCP).then_some(at)
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// The 16-bit number at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}
