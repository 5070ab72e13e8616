//! Disks: what xenstore says of one, and how it is attached.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::fmt::Display;

use drivers::virtio::blk::BlockDevice;
use drivers::volume::registry::Access;
use drivers::volume::spec::VolumeSpec;

use super::{Backend, Control, Model, Nodes, Place};
use crate::guest::identity::Target;

impl Control {
    /// Attaches a disk, or says what is wrong with it.
    pub(super) async fn attach_disk(&self, backend: Backend, nodes: &Nodes) -> Result<(), String> {
        let (target, device) = (nodes.need("params")?, nodes.need("dev")?);
        let access = if nodes.need("mode")? == "r" { Access::ReadOnly } else { Access::ReadWrite };
        nodes.check_transport()?;
        let place = Place {
            name: format!("{}/{device}", backend.guest),
            base: parse_base(nodes.need("base")?)?,
            irq: nodes.irq()?,
            sharing: nodes.sharing()?,
        };
        self.check_room(backend.guest, place.sharing)?;
        let refusal = |reason: &dyn Display| format!("target '{target}': {reason}");
        let parts = Target::parse(target).map_err(|error| refusal(&error))?;
        let spec = VolumeSpec::parse(parts.volume).map_err(|error| refusal(&error))?;
        let volume = self.volumes.open(&spec, access).await.map_err(|error| refusal(&error))?;
        let block = BlockDevice::new(place.name.clone(), device, Box::new(volume));
        self.attach(backend, &place, Model::Disk(Box::new(block)), &format_args!("'{target}'"))
    }
}

/// libxl writes a disk's base in decimal (`libxl_disk.c`).
fn parse_base(base: &str) -> Result<u64, String> {
    base.parse().map_err(|_| format!("base '{base}' is not a decimal number"))
}
