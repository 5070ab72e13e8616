//! A device as xenstore names it: `backend/KIND/GUEST/DEVICE` below our own directory (libxl, `libxl__device_kind`).

use alloc::format;
use alloc::string::String;

use super::DeviceId;
use crate::xen::DomainId;

/// What the tool stack can ask a backend for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A disk with `specification=virtio`.
    VirtioDisk,
    /// An entry of `virtio=`: a NIC, where it is one for us.
    Virtio,
    /// A disk of Xen's own protocol.
    Vbd,
    /// A network interface of Xen's own protocol.
    Vif,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::VirtioDisk, Self::Virtio, Self::Vbd, Self::Vif];

    const fn name(self) -> &'static str {
        match self {
            Self::VirtioDisk => "virtio_disk",
            Self::Virtio => "virtio",
            Self::Vbd => "vbd",
            Self::Vif => "vif",
        }
    }

    /// The directory with the guests that have devices of this kind.
    #[must_use]
    pub fn directory(self) -> String {
        format!("backend/{}", self.name())
    }

    /// What of a device of this kind is of interest.
    #[must_use]
    pub const fn leaves(self) -> &'static [&'static str] {
        match self {
            Self::VirtioDisk => &[
                "state",
                "online",
                "error",
                "params",
                "dev",
                "mode",
                "base",
                "irq",
                "grant_usage",
                "transport",
            ],
            Self::Virtio => &["state", "online", "error", "type", "base", "irq", "grant_usage", "transport"],
            Self::Vbd | Self::Vif => &["state", "online", "error"],
        }
    }
}

/// A device of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Which protocol.
    pub kind: Kind,
    /// Whose.
    pub guest: DomainId,
    /// Which of the guest's devices of that kind.
    pub number: u32,
}

impl Backend {
    /// Parses a path: the device, and what of it the path names.
    #[must_use]
    pub fn from_path(path: &str) -> Option<(Self, &str)> {
        let (kind, rest) = path.strip_prefix("backend/")?.split_once('/')?;
        let kind = Kind::ALL.into_iter().find(|candidate| candidate.name() == kind)?;
        let (guest, rest) = rest.split_once('/')?;
        let (device, leaf) = rest.split_once('/').unwrap_or((rest, ""));
        Some((Self { kind, guest: DomainId(guest.parse().ok()?), number: device.parse().ok()? }, leaf))
    }

    /// The device `id` of `guest`.
    #[must_use]
    pub fn of(guest: DomainId, id: DeviceId) -> Self {
        match id {
            DeviceId::Disk(number) => Self { kind: Kind::VirtioDisk, guest, number },
            DeviceId::Nic(number) => Self { kind: Kind::Virtio, guest, number },
        }
    }

    /// The device of the guest, if it is of a kind that we serve.
    #[must_use]
    pub fn id(self) -> Option<DeviceId> {
        match self.kind {
            Kind::VirtioDisk => Some(DeviceId::Disk(self.number)),
            Kind::Virtio => Some(DeviceId::Nic(self.number)),
            Kind::Vbd | Kind::Vif => None,
        }
    }

    /// Its own directory.
    #[must_use]
    pub fn directory(self) -> String {
        format!("{}/{}/{}", self.kind.directory(), self.guest.0, self.number)
    }

    /// A node of it.
    #[must_use]
    pub fn node(self, leaf: &str) -> String {
        format!("{}/{leaf}", self.directory())
    }
}

impl core::fmt::Display for Backend {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}/{}", self.guest, self.kind.name(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Backend = Backend { kind: Kind::VirtioDisk, guest: DomainId(7), number: 51712 };

    #[test]
    fn a_path_names_a_device_and_a_node_of_it() {
        assert_eq!(Backend::from_path("backend/virtio_disk/7/51712/state"), Some((DISK, "state")));
        assert_eq!(Backend::from_path("backend/virtio_disk/7/51712"), Some((DISK, "")));
        assert_eq!(Backend::from_path(&DISK.directory()), Some((DISK, "")));
    }

    #[test]
    fn what_names_no_device_is_none() {
        assert_eq!(Backend::from_path("backend"), None);
        assert_eq!(Backend::from_path("backend/virtio_disk/7"), None);
        assert_eq!(Backend::from_path("backend/virtio_disk/seven/0"), None);
        assert_eq!(Backend::from_path("backend/qdisk/7/0"), None);
        assert_eq!(Backend::from_path("data/virtio_disk/7/0"), None);
    }
}
