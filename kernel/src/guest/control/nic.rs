//! NICs: what xenstore says of one, its address, and how it is attached.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};

use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, PortKind, PortSettings};
use drivers::virtio::net::NetDevice;

use super::nodes::Nodes;
use super::{Backend, Control, Kind, tolerate};
use crate::guest::identity::Nic;
use crate::guest::model::Model;
use crate::xen::DomainId;
use crate::xen::store::StoreError;

impl Control {
    /// Attaches a NIC, or says what is wrong with it.
    pub(super) async fn attach_nic(
        &self,
        backend: Backend,
        nodes: &Nodes,
    ) -> Result<Result<(), String>, StoreError> {
        let first_target = self.first_target(backend.guest).await?;
        let attached = self.attach_nic_of(backend, nodes, first_target.as_deref());
        if let Ok(address) = &attached {
            let node = address_node(backend);
            // It is served all the same.
            tolerate(&node, self.store.write(&node, &address.to_string()).await)?;
        }
        Ok(attached.map(drop))
    }

    fn attach_nic_of(
        &self,
        backend: Backend,
        nodes: &Nodes,
        first_target: Option<&str>,
    ) -> Result<MacAddress, String> {
        let (guest, number) = (backend.guest, backend.number);
        let nic = Nic { guest, number, kind: nodes.need("type")?, first_target };
        let place = nodes.place(format!("{guest}/net{number}"), parse_base)?;
        self.check_room(guest, place.sharing)?;
        let options = &self.network.options;
        let address = nic.address(&self.network.seed, &options.given)?;
        let settings = PortSettings {
            name: place.name.clone(),
            kind: PortKind::Guest,
            address: Some(address),
            is_pinned: options.pinned.has(address),
            is_isolated: options.isolated.has(address),
        };
        let port = Bridge::add(&self.network.bridge, settings).map_err(|error| error.to_string())?;
        let model = Model::Nic(Box::new(NetDevice::new(place.name.clone(), port)));
        self.attach(backend, &place, model, &format_args!("a NIC with address {address}"))?;
        Ok(address)
    }

    /// `target=` of the guest's first disk that is ours, in the order of the disks' numbers.
    async fn first_target(&self, guest: DomainId) -> Result<Option<String>, StoreError> {
        let directory = format!("{}/{}", Kind::VirtioDisk.directory(), guest.0);
        let disks = self.list(&directory).await?;
        let first = disks.iter().filter_map(|disk| disk.parse().ok()).min();
        match first {
            Some(number) => self.get(Backend { kind: Kind::VirtioDisk, guest, number }, "params").await,
            None => Ok(None),
        }
    }
}

/// Where a NIC's address is shown, in a directory of ours that others can read.
pub(super) fn address_node(backend: Backend) -> String {
    format!("data/nic/{}-{}", backend.guest.0, backend.number)
}

/// libxl writes a base of `virtio=` in hexadecimal (`libxl_virtio.c`).
fn parse_base(base: &str) -> Result<u64, String> {
    let digits = base.strip_prefix("0x").unwrap_or(base);
    u64::from_str_radix(digits, 16).map_err(|_| format!("base '{base}' is not a hexadecimal number"))
}
