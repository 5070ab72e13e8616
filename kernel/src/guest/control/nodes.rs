//! What xenstore says of a device, and where that puts it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::guest::memory::Sharing;

/// What xenstore says of a device.
pub struct Nodes {
    leaves: &'static [&'static str],
    values: Vec<Option<String>>,
}

impl Nodes {
    /// The values of `leaves`, in their order.
    pub fn new(leaves: &'static [&'static str], values: Vec<Option<String>>) -> Self {
        Self { leaves, values }
    }

    /// A node, if it is there.
    pub fn get(&self, leaf: &str) -> Option<&String> {
        let place = self.leaves.iter().position(|known| *known == leaf)?;
        self.values.get(place)?.as_ref()
    }

    /// A node that must be there.
    pub fn need(&self, leaf: &str) -> Result<&str, String> {
        let missing = || format!("xenstore has no {leaf} for this device");
        self.get(leaf).map(String::as_str).ok_or_else(missing)
    }

    /// Where the device goes, if it is virtio-mmio. How `base` is written depends on the device's kind.
    pub fn place(&self, name: String, parse_base: fn(&str) -> Result<u64, String>) -> Result<Place, String> {
        match self.need("transport")? {
            "mmio" => {}
            other => return Err(format!("transport '{other}' is not supported, only mmio")),
        }
        let base = parse_base(self.need("base")?)?;
        let irq = self.need("irq")?;
        let irq = irq.parse().map_err(|_| format!("irq '{irq}' is not a decimal number"))?;
        let sharing = if self.need("grant_usage")? == "0" { Sharing::Foreign } else { Sharing::Granted };
        Ok(Place { name, base, irq, sharing })
    }
}

/// Where a device goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name in the log, such as `dom3/xvda`.
    pub name: String,
    /// Where its registers are, in the guest.
    pub base: u64,
    /// Its interrupt, by its number.
    pub irq: u32,
    /// How the guest shares its memory with us.
    pub sharing: Sharing,
}
