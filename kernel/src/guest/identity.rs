//! The addresses of NICs.
//!
//! xl gives a NIC no address, so it gets one from the first of these that there is:
//!
//! | where | how | good for |
//! |---|---|---|
//! | the NIC's own entry | `virtio = [ "…,type=virtio,device1/00:16:3e:01:02:03,…" ]` | any guest: libxl looks only at how `type` begins |
//! | the guest's first disk | `target=blk0,mac=00:16:3e:01:02:03`, one `mac=` for each NIC | guests with a disk |
//! | our command line | `mac=00:16:3e:01:02:03@blk0`, `mac=…@blk0#1` for the second NIC | what only we configure |
//! | derived | 00:16:3e (Xen's) and 24 bits of a hash (SipHash-2-4, its key 0) of seed, first volume and number of the NIC | no configuration at all |
//!
//! A derived address is the same as long as seed and volume are: over reboots of guest and driver domain. A guest whose
//! first volume is no storage that lasts (`ram:`), or that has none, has nothing by which it could be known again: in
//! place of the volume stands the number of its domain, and the address is a new one for each domain.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::hash::Hasher;

use drivers::net::MacAddress;
use siphasher::sip::SipHasher24;

use crate::xen::DomainId;

/// What xl's `type=` of a NIC begins with: device 1 is a NIC (virtio 1.2, 5).
const NIC_TYPE: &str = "virtio,device1";
/// Before each address that a disk's `target=` gives.
const MAC: &str = ",mac=";
/// The first half of derived addresses, which is Xen's.
const XEN_PREFIX: [u8; 3] = [0x00, 0x16, 0x3e];

/// A disk's `target=`: the volume, and the addresses of its guest's NICs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Which volume the disk is.
    pub volume: &'a str,
    /// Addresses, in the order of the NICs.
    pub addresses: Vec<MacAddress>,
}

impl<'a> Target<'a> {
    /// Takes `target` apart.
    ///
    /// # Errors
    /// A sentence about what is no address.
    pub fn parse(target: &'a str) -> Result<Self, String> {
        let mut parts = target.split(MAC);
        let volume = parts.next().unwrap_or_default();
        Ok(Self { volume, addresses: parts.map(parse_station).collect::<Result<_, _>>()? })
    }
}

/// An address given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenAddress {
    /// The address.
    pub address: MacAddress,
    /// The first volume of the guest that it is for.
    pub volume: String,
    /// The number of the NIC.
    pub number: u32,
}

impl GivenAddress {
    /// Reads `ADDRESS@VOLUME` or `ADDRESS@VOLUME#NUMBER`; none when it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, place) = text.split_once('@')?;
        let (volume, number) = match place.rsplit_once('#') {
            Some((volume, number)) => (volume, number.parse().ok()?),
            None => (place, 0),
        };
        let address = MacAddress::parse(address).filter(|address| address.is_station())?;
        (!volume.is_empty()).then(|| Self { address, volume: volume.to_string(), number })
    }
}

/// A NIC, as far as its address depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Nic<'a> {
    /// Whose.
    pub guest: DomainId,
    /// Which of the guest's entries of `virtio=`.
    pub number: u32,
    /// xl's `type=`.
    pub kind: &'a str,
    /// `target=` of the guest's first disk that we serve, if there is one.
    pub first_target: Option<&'a str>,
}

impl Nic<'_> {
    /// Its address.
    ///
    /// # Errors
    /// It is no NIC, or what should be an address is none: a sentence about it.
    pub fn address(&self, seed: &str, given: &[GivenAddress]) -> Result<MacAddress, String> {
        if let Some(address) = self.own_address()? {
            return Ok(address);
        }
        let target = self.first_target.map(Target::parse).transpose()?;
        let volume = target.as_ref().map(|target| target.volume);
        let of_target = target.as_ref().and_then(|target| target.addresses.get(self.number as usize));
        let of_us = || {
            let is_for_it =
                |given: &&GivenAddress| Some(given.volume.as_str()) == volume && given.number == self.number;
            given.iter().find(is_for_it).map(|given| given.address)
        };
        Ok(of_target.copied().or_else(of_us).unwrap_or_else(|| self.derived(seed, volume)))
    }

    /// The address in its own entry.
    fn own_address(&self) -> Result<Option<MacAddress>, String> {
        match self.kind.strip_prefix(NIC_TYPE) {
            Some("") => Ok(None),
            Some(rest) if rest.starts_with('/') => parse_station(&rest[1..]).map(Some),
            _ => Err(format!(
                "type '{}' is not served by virtio=, only {NIC_TYPE}, a NIC; a disk is given by disk=",
                self.kind
            )),
        }
    }

    fn derived(&self, seed: &str, volume: Option<&str>) -> MacAddress {
        let lasting = volume.filter(|volume| !volume.starts_with("ram:"));
        let who = lasting.map_or_else(|| format!("\0{}", self.guest.0), ToString::to_string);
        derive(&[seed, &who, &self.number.to_string()])
    }
}

/// The address of our own endpoint.
#[must_use]
pub fn own_address(seed: &str) -> MacAddress {
    derive(&[seed])
}

fn derive(parts: &[&str]) -> MacAddress {
    let mut hasher = SipHasher24::new();
    for part in parts {
        hasher.write(part.as_bytes());
        // No part can end as another begins.
        hasher.write_u8(0xff);
    }
    let [a, b, c, d, e, f, g, h] = hasher.finish().to_le_bytes();
    let [x, y, z] = XEN_PREFIX;
    MacAddress([x, y, z, a ^ d ^ g, b ^ e ^ h, c ^ f])
}

fn parse_station(text: &str) -> Result<MacAddress, String> {
    MacAddress::parse(text)
        .filter(|address| address.is_station())
        .ok_or_else(|| format!("'{text}' is no address of a NIC, such as 00:16:3e:01:02:03"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);
    const TWO: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 2]);

    fn nic<'a>(kind: &'a str, first_target: Option<&'a str>) -> Nic<'a> {
        Nic { guest: DomainId(5), number: 0, kind, first_target }
    }

    fn address(nic: Nic<'_>) -> MacAddress {
        nic.address("seed", &[]).unwrap()
    }

    #[test]
    fn the_nearest_address_wins() {
        let given = [GivenAddress::parse("00:16:3e:00:00:02@blk0").unwrap()];
        let own = nic("virtio,device1/00:16:3e:00:00:01", Some("blk0,mac=00:16:3e:00:00:02"));
        assert_eq!(own.address("seed", &given), Ok(ONE));
        let of_target = nic(NIC_TYPE, Some("blk0,mac=00:16:3e:00:00:01"));
        assert_eq!(of_target.address("seed", &given), Ok(ONE));
        assert_eq!(nic(NIC_TYPE, Some("blk0")).address("seed", &given), Ok(TWO));
        assert_ne!(nic(NIC_TYPE, Some("blk1")).address("seed", &given), Ok(TWO));
    }

    #[test]
    fn each_nic_has_its_own_address() {
        let target = Some("blk0,mac=00:16:3e:00:00:01,mac=00:16:3e:00:00:02");
        assert_eq!(address(Nic { number: 1, ..nic(NIC_TYPE, target) }), TWO);
        let derived = |number| address(Nic { number, ..nic(NIC_TYPE, Some("blk0")) });
        assert_ne!(derived(0), derived(1));
        assert_ne!(derived(2), derived(1), "beyond the list it is derived, too");
    }

    #[test]
    fn a_derived_address_goes_with_seed_and_volume_alone() {
        let of = |guest, volume, seed: &str| {
            let nic = Nic { guest: DomainId(guest), ..nic(NIC_TYPE, Some(volume)) };
            nic.address(seed, &[]).unwrap()
        };
        assert_eq!(of(5, "blk0", "a"), of(6, "blk0", "a"));
        assert_ne!(of(5, "blk0", "a"), of(5, "blk0", "b"));
        assert_ne!(of(5, "blk0", "a"), of(5, "blk1", "a"));
        assert_eq!(of(5, "blk0", "a").0[..3], XEN_PREFIX);
        // What the README and operators' DHCP servers rely on: never to be changed.
        assert_eq!(of(5, "blk0", "a").to_string(), "00:16:3e:b9:01:49");
    }

    #[test]
    fn who_cannot_be_known_again_gets_an_address_for_its_domain() {
        let of = |guest, target| address(Nic { guest: DomainId(guest), ..nic(NIC_TYPE, target) });
        assert_ne!(of(5, Some("ram:1M")), of(6, Some("ram:1M")));
        assert_ne!(of(5, None), of(6, None));
        assert_eq!(of(5, None), of(5, None));
    }

    #[test]
    fn what_is_no_address_is_told() {
        for target in
            ["blk0,mac=", "blk0,mac=1", "blk0,mac=01:00:00:00:00:00", "blk0,mac=00:16:3e:00:00:01,x"]
        {
            let error = nic(NIC_TYPE, Some(target)).address("", &[]).unwrap_err();
            assert!(error.contains("is no address of a NIC"), "{target}: {error}");
        }
        for kind in
            ["virtio,device2", "virtio,device10", "virtio,device1/", "virtio,device1/x", "virtio,device"]
        {
            assert!(nic(kind, None).address("", &[]).is_err(), "{kind}");
        }
    }

    #[test]
    fn the_command_line_names_volume_and_nic() {
        let given = GivenAddress::parse("00:16:3e:00:00:01@nbd:10.0.0.1:10809/a#1").unwrap();
        assert_eq!((given.address, given.volume.as_str(), given.number), (ONE, "nbd:10.0.0.1:10809/a", 1));
        for text in ["", "00:16:3e:00:00:01", "00:16:3e:00:00:01@", "x@blk0", "00:16:3e:00:00:01@blk0#x"] {
            assert_eq!(GivenAddress::parse(text), None, "{text}");
        }
    }
}
