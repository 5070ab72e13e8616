//! The xenstore side of guests' life: devices appear under `backend` and go away again.
//!
//! ```text
//!   state 1, written by xl ── attach ──> state 2: xl goes on to start the guest
//!                             └ refused ──> error = "one sentence"; xl gives up after 10 s and destroys the guest
//!   online 0 or state 5, written by xl ── detach ──> state 6, then the directory is removed: xl waits for both
//! ```
//!
//! A driver that cannot work with grants, where the disk is given with `grant_usage=1`, shows only when the guest runs: then
//! `error` is written, too, and goes when a driver can.
//!
//! libxl does not wait for state 2 of a NIC: what is known of one is read in one go, and its registers are claimed as soon as
//! that is there. README.md says what a user can do about the rest.
//!
//! Runs as one future that the run loop polls when xenstore has news, so that a slow xenstored delays nobody's I/O. A volume
//! that takes long to open delays no other device.
//!
//! | file | what |
//! |---|---|
//! | `control` | xenstore watched, devices brought to the state that it asks for |
//! | `news` | what it waits for, and what it tells of this domain |
//! | `nodes` | what it says of a device |
//! | `disk` | a disk: its volume is opened, and it is attached |
//! | `openings` | volumes that are being opened: nobody else waits for them |
//! | `nic` | a NIC, and its address |
//! | `placing` | devices put where their guests find them, and taken away |
//! | `report` | what is told of our memory |

mod disk;
mod news;
mod nic;
mod nodes;
mod openings;
mod placing;
mod report;

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt::Display;
use core::task::Poll;

use drivers::net::bridge::SharedBridge;
use drivers::volume::registry::Registry;

use super::Guest;
use super::backend::{Backend, Kind};
use super::table::GuestTable;
use crate::endpoint::Endpoint;
use crate::options::NetworkOptions;
use crate::xen::sched::ShutdownReason;
use crate::xen::store::{Store, StoreError, WatchEvent};
use news::News;
use nodes::Nodes;
use openings::{Opened, Openings};
pub use report::OwnMemory;
use report::QUESTION;

/// Where the tool stack asks this domain to end.
const SHUTDOWN: &str = "control/shutdown";
/// Round trips through xenstored for which a closed device stays visible: each needs Dom0 to run, as does libxl.
const CLOSED_ROUND_TRIPS: usize = 64;

/// Why the other kinds are refused.
const NOT_VBD: &str = "this backend speaks virtio only: add specification=virtio to the disk";
const NOT_VIF: &str = "this backend speaks virtio only: give the NIC by virtio=, not by vif=";

/// Backend states that matter here (`io/xenbus.h`).
mod state {
    pub const INITIALISING: &str = "1";
    pub const INIT_WAIT: &str = "2";
    pub const CLOSING: &str = "5";
    pub const CLOSED: &str = "6";
}

/// The control plane.
pub struct Control {
    store: Store,
    guests: Rc<RefCell<GuestTable>>,
    volumes: Rc<Registry>,
    openings: Openings,
    network: Network,
    own_memory: OwnMemory,
}

/// What NICs need.
pub struct Network {
    /// The bridge that they are ports of.
    pub bridge: SharedBridge,
    /// What derived addresses depend on.
    pub seed: String,
    /// What the command line says of them.
    pub options: NetworkOptions,
    /// Our own station, if there is one.
    pub endpoint: Option<Rc<RefCell<Endpoint>>>,
}

impl Control {
    /// The control plane of `guests`, who may open `volumes`.
    #[must_use]
    pub fn new(
        store: Store,
        guests: Rc<RefCell<GuestTable>>,
        volumes: Registry,
        network: Network,
        own_memory: OwnMemory,
    ) -> Self {
        let volumes = Rc::new(volumes);
        Self { store, guests, volumes, openings: Openings::default(), network, own_memory }
    }

    /// Follows xenstore until this domain is to end. `complaints` about the command line are shown there too.
    ///
    /// # Errors
    /// [`StoreError`] when the connection itself is broken, or when it cannot say that this domain is ready.
    pub async fn run(self, complaints: Vec<String>) -> Result<ShutdownReason, StoreError> {
        self.store.reset_watches().await?;
        self.store.watch("backend", "backend").await?;
        if !self.served().is_empty() {
            // Guests wait for what an earlier life of this kernel had attached.
            tolerate(&"scan", self.scan().await)?;
        }
        self.store.watch(SHUTDOWN, "shutdown").await?;
        self.store.watch(QUESTION, "question").await?;
        for feature in ["control/feature-poweroff", "control/feature-reboot"] {
            self.store.write(feature, "1").await?;
        }
        if !complaints.is_empty() {
            self.store.write("data/error", &complaints.join("; ")).await?;
        }
        self.store.write("data/ready", "1").await?;
        log::info!("ready");
        loop {
            let event = match self.next().await? {
                News::Store(event) => event,
                News::Driver(news) => {
                    self.tell_trouble(&news).await?;
                    continue;
                }
                News::Volume(opened) => {
                    self.look_at(opened.backend, Some(opened)).await?;
                    continue;
                }
                News::Address(lease) => {
                    self.tell_address(lease).await?;
                    continue;
                }
            };
            match event {
                WatchEvent::Changed { path, .. } if path == SHUTDOWN => {
                    if let Some(reason) = self.shutdown().await? {
                        return Ok(reason);
                    }
                }
                WatchEvent::Changed { path, .. } if path == QUESTION => {
                    tolerate(&QUESTION, self.answer_question().await)?;
                }
                WatchEvent::Changed { path, .. } => match Backend::from_path(&path) {
                    // A device's nodes are written together, so one of them is enough to begin at.
                    Some((backend, "state")) => self.look_at(backend, None).await?,
                    Some((backend, "" | "online")) => {
                        tolerate(&backend, self.retire_if_asked(backend).await)?;
                    }
                    Some(_) => {}
                    None => tolerate(&"scan", self.scan().await)?,
                },
                WatchEvent::Rescan => {
                    tolerate(&"scan", self.scan().await)?;
                    if let Some(reason) = self.shutdown().await? {
                        return Ok(reason);
                    }
                }
            }
        }
    }

    async fn shutdown(&self) -> Result<Option<ShutdownReason>, StoreError> {
        let reason = match self.store.read(SHUTDOWN).await.as_deref() {
            Ok("poweroff" | "halt") => ShutdownReason::PowerOff,
            Ok("reboot") => ShutdownReason::Reboot,
            Err(StoreError::Disconnected) => return Err(StoreError::Disconnected),
            _ => return Ok(None),
        };
        log::info!("asked to end: {reason:?}");
        // The empty value is the acknowledgement that xl waits for.
        tolerate(&SHUTDOWN, self.store.write(SHUTDOWN, "").await)?;
        Ok(Some(reason))
    }

    /// Looks at every device there is, and takes those away that are no longer there.
    async fn scan(&self) -> Result<(), StoreError> {
        let mut listed = Vec::new();
        for kind in Kind::ALL {
            let directory = kind.directory();
            for guest in self.list(&directory).await? {
                for device in self.list(&format!("{directory}/{guest}")).await? {
                    if let Some((backend, _)) = Backend::from_path(&format!("{directory}/{guest}/{device}")) {
                        self.look_at(backend, None).await?;
                        listed.push(backend);
                    }
                }
            }
        }
        for backend in self.served().into_iter().chain(self.openings.backends()) {
            if !listed.contains(&backend) {
                self.look_at(backend, None).await?;
            }
        }
        Ok(())
    }

    fn served(&self) -> Vec<Backend> {
        let guests = self.guests.borrow();
        let devices = |guest: &Guest| {
            let domain = guest.domain();
            let devices = guest.devices().chain(guest.held()).chain(guest.abandoned());
            devices.map(move |id| Backend::of(domain, id)).collect::<Vec<_>>()
        };
        guests.iter().flat_map(devices).collect()
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, StoreError> {
        match self.store.directory(path).await {
            Err(StoreError::NotFound) => Ok(Vec::new()),
            other => other,
        }
    }

    async fn get(&self, backend: Backend, leaf: &str) -> Result<Option<String>, StoreError> {
        match self.store.read(&backend.node(leaf)).await {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// [`Self::reconcile`], of which a failure concerns this device alone: it stays as it is.
    async fn look_at(&self, backend: Backend, opened: Option<Opened>) -> Result<(), StoreError> {
        tolerate(&backend, self.reconcile(backend, opened).await)
    }

    /// Brings a device to the state that xenstore asks for. Its volume may have been opened for that.
    async fn reconcile(&self, backend: Backend, opened: Option<Opened>) -> Result<(), StoreError> {
        let nodes = self.read_nodes(backend).await?;
        let state = self.retire(backend, &nodes).await?;
        let is_held = self.is_held(backend);
        // What an earlier life of this kernel had attached is in the state that follows, if it came to say so.
        let is_answered = is_held && state == Some(state::INIT_WAIT);
        let waits = if is_answered { state::INIT_WAIT } else { state::INITIALISING };
        if state != Some(waits) || self.is_attached(backend) {
            return Ok(());
        }
        let attached = match backend.kind {
            Kind::VirtioDisk => match self.attach_disk(backend, &nodes, opened) {
                Poll::Ready(attached) => attached,
                // We come back when its volume is open.
                Poll::Pending => return Ok(()),
            },
            Kind::Virtio => self.attach_nic(backend, &nodes).await?,
            Kind::Vbd => Err(NOT_VBD.to_string()),
            Kind::Vif => Err(NOT_VIF.to_string()),
        };
        let told = nodes.get("error");
        if attached.is_err() {
            self.openings.cancel(backend);
        }
        match attached {
            Ok(()) => {
                if told.is_some() {
                    self.remove(&backend.node("error")).await?;
                }
                if is_answered {
                    // What xl has written since, it tells us by our watch.
                    return Ok(());
                }
                let answered = self.answer(backend, waits, "state", state::INIT_WAIT).await;
                if !matches!(answered, Ok(true)) {
                    // It went while we were at it, or the answer could not be written: the next look tries again.
                    self.give_up(backend).await?;
                }
                answered.map(drop)
            }
            // Said once: each write brings us an event, and enough events another scan.
            Err(reason) if told == Some(&reason) => Ok(()),
            Err(reason) => {
                log::error!("{backend}: refused: {reason}");
                if is_held {
                    self.abandon(backend);
                }
                self.answer(backend, waits, "error", &reason).await.map(drop)
            }
        }
    }

    async fn retire_if_asked(&self, backend: Backend) -> Result<(), StoreError> {
        let nodes = self.read_nodes(backend).await?;
        self.retire(backend, &nodes).await.map(drop)
    }

    /// Reads what there is of a device, in one round trip.
    async fn read_nodes(&self, backend: Backend) -> Result<Nodes, StoreError> {
        let leaves = backend.kind.leaves();
        let paths: Vec<String> = leaves.iter().map(|leaf| backend.node(leaf)).collect();
        Ok(Nodes::new(leaves, self.store.read_together(&paths).await?))
    }

    /// Gives a device up if it is gone or asked to close; else returns its state.
    async fn retire<'a>(&self, backend: Backend, nodes: &'a Nodes) -> Result<Option<&'a str>, StoreError> {
        let state = nodes.get("state").map(String::as_str);
        let offline = nodes.get("online").is_some_and(|online| online == "0");
        let closing = offline || state == Some(state::CLOSING);
        if state.is_none() || closing {
            self.give_up(backend).await?;
        }
        if state.is_some() && closing {
            self.close(backend).await?;
            return Ok(None);
        }
        Ok(state)
    }

    /// Takes a device away from its guest, if it has it or is to have it, with what we told of it.
    async fn give_up(&self, backend: Backend) -> Result<(), StoreError> {
        self.openings.cancel(backend);
        if self.detach(backend) && backend.kind == Kind::Virtio {
            self.remove(&nic::address_node(backend)).await?;
        }
        Ok(())
    }

    /// Writes a node of a device that is still in `state`; else leaves it alone, so that a directory that xl has
    /// removed meanwhile stays removed. Returns whether it was written.
    async fn answer(
        &self,
        backend: Backend,
        state: &str,
        leaf: &str,
        value: &str,
    ) -> Result<bool, StoreError> {
        let written = self.store.transaction(async |transaction| {
            let waits = transaction.read(&backend.node("state")).await? == state;
            if waits {
                transaction.write(&backend.node(leaf), value).await?;
            }
            Ok(waits)
        });
        match written.await {
            Err(StoreError::NotFound) => Ok(false),
            other => other,
        }
    }

    /// Tells xl that a device is closed, and removes its directory: xl waits for one after the other.
    async fn close(&self, backend: Backend) -> Result<(), StoreError> {
        tolerate(&backend, self.store.write(&backend.node("state"), state::CLOSED).await)?;
        // libxl takes a directory that goes before it saw state 6 for a failure, and nothing tells us when it has.
        for _ in 0..CLOSED_ROUND_TRIPS {
            self.get(backend, "state").await?;
        }
        // The directories above are xl's to remove.
        self.remove(&backend.directory()).await
    }

    async fn remove(&self, path: &str) -> Result<(), StoreError> {
        tolerate(&path, self.store.remove(path).await)
    }
}

/// Passes on only what ends the control plane: a broken connection. Other failures are told, and concern `what` alone.
fn tolerate(what: &dyn Display, result: Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Err(StoreError::Disconnected) => Err(StoreError::Disconnected),
        Err(error) => {
            log::warn!("{what}: xenstore: {error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
