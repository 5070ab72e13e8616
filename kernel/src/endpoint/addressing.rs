//! Where our own address comes from: what `ip=` on the command line says.

use alloc::format;
use alloc::string::String;
use core::fmt;

use smoltcp::wire::{Ipv4Address, Ipv4Cidr};

/// Where the address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// A DHCP server on the network.
    Dhcp,
    /// The command line.
    Static(Lease),
}

/// An address that is ours, and the way out of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address, and how much of it names the network.
    pub address: Ipv4Cidr,
    /// Who forwards what goes elsewhere.
    pub gateway: Option<Ipv4Address>,
}

impl Lease {
    /// An address that a station can have, and a gateway that can be one; none otherwise. The stack panics at others.
    #[must_use]
    pub fn checked(address: Ipv4Cidr, gateway: Option<Ipv4Address>) -> Option<Self> {
        let of_network = is_station(address.address()) && (1..=32).contains(&address.prefix_len());
        let of_gateway = gateway.is_none_or(|gateway| is_station(gateway) && gateway != address.address());
        (of_network && of_gateway && address.broadcast() != Some(address.address()))
            .then_some(Self { address, gateway })
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, ", gateway {gateway}"))
    }
}

/// Whether a single station can have it.
pub(super) fn is_station(address: Ipv4Address) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback())
}

/// Reads `dhcp`, `off` (which is none), `10.0.0.5/24` or `10.0.0.5/24,gateway=10.0.0.1`.
///
/// # Errors
/// A sentence for whoever wrote it.
pub fn parse(value: &str) -> Result<Option<Addressing>, String> {
    match value {
        "off" => Ok(None),
        "dhcp" => Ok(Some(Addressing::Dhcp)),
        _ => {
            let expected =
                "expected dhcp, off, or an address such as 10.0.0.5/24 or 10.0.0.5/24,gateway=10.0.0.1";
            let lease = lease_of(value).ok_or_else(|| format!("option 'ip={value}': {expected}"))?;
            Ok(Some(Addressing::Static(lease)))
        }
    }
}

fn lease_of(value: &str) -> Option<Lease> {
    let (network, gateway) = match value.split_once(',') {
        Some((network, more)) => (network, Some(more.strip_prefix("gateway=")?.parse().ok()?)),
        None => (value, None),
    };
    let (address, prefix) = network.split_once('/')?;
    let prefix = prefix.bytes().all(|digit| digit.is_ascii_digit()).then(|| prefix.parse::<u8>().ok())??;
    // The constructor panics at a longer one.
    let address = (prefix <= 32).then_some(Ipv4Cidr::new(address.parse().ok()?, prefix.min(32)))?;
    Lease::checked(address, gateway)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_address_reads_as_it_is_written() {
        let lease = |text| match parse(text) {
            Ok(Some(Addressing::Static(lease))) => lease.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(lease("10.0.0.5/24"), "10.0.0.5/24");
        assert_eq!(lease("10.0.0.5/24,gateway=10.0.0.1"), "10.0.0.5/24, gateway 10.0.0.1");
        assert_eq!((parse("dhcp"), parse("off")), (Ok(Some(Addressing::Dhcp)), Ok(None)));
    }

    #[test]
    fn what_no_station_can_have_is_refused_in_a_sentence() {
        for text in [
            "",
            "on",
            "10.0.0.5",
            "10.0.0.5/",
            "10.0.0.5/33",
            "10.0.0.5/300",
            "10.0.0.5/+8",
            "10.0.0.5/0",
            "10.0.0.255/24",
            "0.0.0.0/8",
            "224.0.0.1/8",
            "127.0.0.1/8",
            "255.255.255.255/32",
            "10.0.0.5/24,gateway=",
            "10.0.0.5/24,gateway=0.0.0.0",
            "10.0.0.5/24,gateway=10.0.0.5",
            "10.0.0.5/24,gateway=10.0.0.1,dns=10.0.0.1",
            "10.0.0.5/24,10.0.0.1",
        ] {
            let sentence = parse(text).unwrap_err();
            assert!(sentence.starts_with(&format!("option 'ip={text}': expected ")), "{sentence}");
        }
    }
}
