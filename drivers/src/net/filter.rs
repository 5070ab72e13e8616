//! What frames a port wants: the receive mode and the tables of a virtio-net driver (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3).

use super::MacAddress;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Most addresses in each table; a driver that names more gets all frames of that sort.
pub const ADDRESSES_MAX: usize = 64;
/// Numbers of VLANs.
pub const VLANS: usize = 4096;

/// What a port wants. By default its own address, groups not filtered by address, and broadcasts.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Everything.
    pub promiscuous: bool,
    /// All groups.
    pub all_multicast: bool,
    /// All stations.
    pub all_unicast: bool,
    /// No groups but broadcast.
    pub no_multicast: bool,
    /// No stations.
    pub no_unicast: bool,
    /// No broadcasts.
    pub no_broadcast: bool,
    /// Stations wanted, beside the port's own.
    pub unicast: Vec<MacAddress>,
    /// Groups wanted.
    pub multicast: Vec<MacAddress>,
    /// A bit for each VLAN that is wanted, if they are filtered: then frames without a tag are wanted, too.
    pub vlans: Option<Box<[u64; VLANS / 64]>>,
}

impl Filter {
    /// Whether a port whose own address is `own` wants a frame for `destination`, in VLAN `vlan` if it has a tag.
    #[must_use]
    pub fn accepts(&self, own: Option<MacAddress>, destination: MacAddress, vlan: Option<u16>) -> bool {
        let in_vlan = match (vlan, &self.vlans) {
            (Some(vlan), Some(wanted)) => {
                let word = wanted.get(usize::from(vlan) / 64).copied().unwrap_or(0);
                word >> (vlan % 64) & 1 != 0
            }
            _ => true,
        };
        let for_us = match destination {
            MacAddress::BROADCAST => !self.no_broadcast,
            group if group.is_group() => {
                self.all_multicast || (!self.no_multicast && self.multicast.contains(&group))
            }
            station => {
                !self.no_unicast
                    && (self.all_unicast || own == Some(station) || self.unicast.contains(&station))
            }
        };
        in_vlan && (self.promiscuous || for_us)
    }
}
