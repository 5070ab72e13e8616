//! Disks: what xenstore says of one, how its volume is opened, and how it is attached.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Display;
use core::task::{Context, Poll, Waker};

use drivers::virtio::blk::BlockDevice;
use drivers::volume::registry::Access;
use drivers::volume::spec::VolumeSpec;

use super::nodes::{Nodes, Place};
use super::openings::{Opened, OpeningVolume};
use super::{Backend, Control};
use crate::guest::DeviceId;
use crate::guest::identity::Target;
use crate::guest::model::Model;
use crate::restart::area::key;

/// What a disk is to be.
#[derive(Clone, PartialEq, Eq)]
pub struct DiskWish {
    target: String,
    volume: VolumeSpec,
    access: Access,
    /// Its name in the guest, such as `xvda`.
    device: String,
    place: Place,
}

impl DiskWish {
    fn read(backend: Backend, nodes: &Nodes) -> Result<Self, String> {
        let (target, device) = (nodes.need("params")?, nodes.need("dev")?);
        let access = if nodes.need("mode")? == "r" { Access::ReadOnly } else { Access::ReadWrite };
        let place = nodes.place(format!("{}/{device}", backend.guest), parse_base)?;
        let parts = Target::parse(target).map_err(|error| refusal(target, &error))?;
        let volume = VolumeSpec::parse(parts.volume).map_err(|error| refusal(target, &error))?;
        Ok(Self { target: target.to_string(), volume, access, device: device.to_string(), place })
    }
}

impl Control {
    /// Attaches a disk, or says what is wrong with it; pending when its volume has to be opened first, of which `opened`
    /// will tell.
    pub(super) fn attach_disk(
        &self,
        backend: Backend,
        nodes: &Nodes,
        opened: Option<Opened>,
    ) -> Poll<Result<(), String>> {
        let wish = DiskWish::read(backend, nodes)?;
        self.check_room(backend.guest, wish.place.sharing)?;
        let outcome = match opened {
            Some(opened) if opened.wish == wish => opened.outcome,
            _ => {
                if self.openings.has(backend, &wish) {
                    return Poll::Pending;
                }
                // Whatever the device was to be before.
                self.openings.cancel(backend);
                let mut opening = self.opening(backend, &wish);
                // Most volumes need nobody to be waited for; the others are asked again, by who waits for them.
                match opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => {
                        self.openings.begin(backend, wish, opening);
                        return Poll::Pending;
                    }
                }
            }
        };
        let DiskWish { target, device, place, .. } = wish;
        let volume = outcome.map_err(|error| refusal(&target, &error))?;
        let block = BlockDevice::new(place.name.clone(), &device, Box::new(volume));
        self.attach(backend, &place, Model::Disk(Box::new(block)), &format_args!("'{target}'"))?;
        Poll::Ready(Ok(()))
    }

    fn opening(&self, backend: Backend, wish: &DiskWish) -> OpeningVolume {
        let (volumes, volume, access) = (self.volumes.clone(), wish.volume.clone(), wish.access);
        let opener = key(backend.guest, DeviceId::Disk(backend.number));
        Box::pin(async move { volumes.open(&volume, access, opener).await })
    }
}

fn refusal(target: &str, reason: &dyn Display) -> String {
    format!("target '{target}': {reason}")
}

/// libxl writes a disk's base in decimal (`libxl_disk.c`).
fn parse_base(base: &str) -> Result<u64, String> {
    base.parse().map_err(|_| format!("base '{base}' is not a decimal number"))
}
