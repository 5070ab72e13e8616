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
//! Runs as one future that the run loop polls when xenstore has news, so that a slow xenstored delays nobody's I/O.
//!
//! | file | what |
//! |---|---|
//! | `control` | xenstore watched, devices brought to the state that it asks for |
//! | `disk` | what it says of a disk, and the disk attached |
//! | `nic` | the same of a NIC |

mod disk;
mod nic;

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt::Display;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;

use log::Level;

use drivers::net::bridge::SharedBridge;
use drivers::volume::registry::Registry;

use super::backend::{Backend, Kind};
use super::memory::Sharing;
use super::model::Model;
use super::table::GuestTable;
use super::{DriverNews, Guest};
use crate::limits::HEAP_HEADROOM_BYTES;
use crate::mm::census::Census;
use crate::mm::frames::FrameAllocator;
use crate::options::NetworkOptions;
use crate::xen::DomainId;
use crate::xen::event::open_ports;
use crate::xen::hypercall::{Errno, HypercallError};
use crate::xen::sched::ShutdownReason;
use crate::xen::store::{Store, StoreError, WatchEvent};

/// Where the tool stack asks this domain to end.
const SHUTDOWN: &str = "control/shutdown";
/// Where `xl sysrq` writes a letter: what we are to tell on our console.
const QUESTION: &str = "control/sysrq";

/// Round trips through xenstored for which a closed device stays visible: each needs Dom0 to run, as does libxl.
const CLOSED_ROUND_TRIPS: usize = 64;

/// Xen's pool for our second-stage tables is exhausted.
const NO_PAGE_TABLES: &str =
    "Xen has no memory left for this domain's page tables: give it more by shadow_memory=";

/// What to do about too small a window.
const NO_WINDOW: &str = "the window for guests' pages is too small for another device: give the driver domain more by memory= \
                         or window=";

/// What to do about too little heap.
const NO_HEAP: &str = "the driver domain has no memory left for another device: give it more by memory=";

/// What to do about a driver that does not use grants.
const HOW_TO_USE_GRANTS: &str = "this device is shared by grants: give it grant_usage=0, or the guest a kernel with \
                                 CONFIG_XEN_VIRTIO=y";

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
    volumes: Registry,
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
}

/// What the driver domain has left of its own memory.
pub struct OwnMemory {
    /// Frames that are free.
    pub frames: Rc<RefCell<FrameAllocator>>,
    /// Tells how many bytes of the heap are free.
    pub heap_free: fn() -> usize,
    /// Pages of RAM that the device tree does not name: those of console and xenstore, and such.
    pub special_pages: usize,
}

/// What xenstore says of a device.
struct Nodes {
    leaves: &'static [&'static str],
    values: Vec<Option<String>>,
}

impl Nodes {
    fn get(&self, leaf: &str) -> Option<&String> {
        let place = self.leaves.iter().position(|known| *known == leaf)?;
        self.values.get(place)?.as_ref()
    }

    /// A node that must be there.
    fn need(&self, leaf: &str) -> Result<&str, String> {
        let missing = || format!("xenstore has no {leaf} for this device");
        self.get(leaf).map(String::as_str).ok_or_else(missing)
    }

    fn sharing(&self) -> Result<Sharing, String> {
        Ok(if self.need("grant_usage")? == "0" { Sharing::Foreign } else { Sharing::Granted })
    }

    /// The guest's interrupt, by its number.
    fn irq(&self) -> Result<u32, String> {
        let irq = self.need("irq")?;
        irq.parse().map_err(|_| format!("irq '{irq}' is not a decimal number"))
    }

    fn check_transport(&self) -> Result<(), String> {
        match self.need("transport")? {
            "mmio" => Ok(()),
            other => Err(format!("transport '{other}' is not supported, only mmio")),
        }
    }
}

/// Where a device goes.
struct Place {
    name: String,
    base: u64,
    irq: u32,
    sharing: Sharing,
}

/// What the control plane has to look at.
enum News {
    /// Xenstore changed.
    Store(WatchEvent),
    /// A guest's driver came up, or failed to.
    Driver(DriverNews),
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
        Self { store, guests, volumes, network, own_memory }
    }

    /// Follows xenstore until this domain is to end. `complaints` about the command line are shown there too.
    ///
    /// # Errors
    /// [`StoreError`] when the connection itself is broken, or when it cannot say that this domain is ready.
    pub async fn run(self, complaints: Vec<String>) -> Result<ShutdownReason, StoreError> {
        self.store.reset_watches().await?;
        self.store.watch("backend", "backend").await?;
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
                    Some((disk, "state")) => self.look_at(disk).await?,
                    Some((disk, "" | "online")) => tolerate(&disk, self.retire_if_asked(disk).await)?,
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

    async fn next(&self) -> Result<News, StoreError> {
        let mut event = pin!(self.store.next_event());
        poll_fn(|context| {
            if let Poll::Ready(news) = self.guests.borrow_mut().poll_news(context) {
                return Poll::Ready(Ok(News::Driver(news)));
            }
            event.as_mut().poll(context).map_ok(News::Store)
        })
        .await
    }

    /// Writes what a driver's trouble is, or removes what was written once it has none.
    async fn tell_trouble(&self, news: &DriverNews) -> Result<(), StoreError> {
        let disk = Backend::of(news.domain, news.device);
        let told = match news.trouble {
            Some(trouble) => {
                let sentence = format!("{trouble}: {HOW_TO_USE_GRANTS}");
                log::warn!("{disk}: {sentence}");
                self.answer(disk, state::INIT_WAIT, "error", &sentence).await.map(drop)
            }
            None => self.store.remove(&disk.node("error")).await,
        };
        tolerate(&disk, told)
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

    /// Tells on the console what `xl sysrq` asked for.
    async fn answer_question(&self) -> Result<(), StoreError> {
        let letter = match self.store.read(QUESTION).await {
            Err(StoreError::NotFound) => return Ok(()),
            other => other?,
        };
        match letter.as_str() {
            "" => return Ok(()),
            "m" => self.tell_memory(),
            other => log::info!("sysrq {other}: not known; m tells about memory"),
        }
        self.store.write(QUESTION, "").await
    }

    fn tell_memory(&self) {
        let guests = self.guests.borrow();
        let pager = guests.pager().borrow();
        self.tell_physmap(&guests);
        log::info!(
            "pager: {} slots, {} of them out of our RAM, {} mapped, {} pinned; {:?}",
            pager.usable(),
            pager.window().ballooned(),
            pager.mapped(),
            pager.pinned(),
            pager.counters(),
        );
        log::info!("xen: {} event channels open", open_ports());
        for guest in guests.iter() {
            log::info!("pager: {} has {} slots", guest.domain(), pager.held(guest.domain()));
        }
    }

    fn tell_physmap(&self, guests: &GuestTable) {
        let frames = self.own_memory.frames.borrow();
        let (pager, pages) = (guests.pager().borrow(), guests.pages().borrow());
        let census = Census::take(&frames, pager.window(), &pages, self.own_memory.special_pages);
        let level = if census.adds_up() { Level::Info } else { Level::Error };
        log::log!(level, "physmap: {census}");
    }

    /// Looks at every device there is, and takes those away that are no longer there.
    async fn scan(&self) -> Result<(), StoreError> {
        let mut listed = Vec::new();
        for kind in Kind::ALL {
            let directory = kind.directory();
            for guest in self.list(&directory).await? {
                for device in self.list(&format!("{directory}/{guest}")).await? {
                    if let Some((backend, _)) = Backend::from_path(&format!("{directory}/{guest}/{device}")) {
                        self.look_at(backend).await?;
                        listed.push(backend);
                    }
                }
            }
        }
        for disk in self.served() {
            if !listed.contains(&disk) {
                self.look_at(disk).await?;
            }
        }
        Ok(())
    }

    fn served(&self) -> Vec<Backend> {
        let guests = self.guests.borrow();
        let devices = |guest: &Guest| {
            let domain = guest.domain();
            guest.devices().map(move |id| Backend::of(domain, id)).collect::<Vec<_>>()
        };
        guests.iter().flat_map(devices).collect()
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, StoreError> {
        match self.store.directory(path).await {
            Err(StoreError::NotFound) => Ok(Vec::new()),
            other => other,
        }
    }

    async fn get(&self, disk: Backend, leaf: &str) -> Result<Option<String>, StoreError> {
        match self.store.read(&disk.node(leaf)).await {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// [`Self::reconcile`], of which a failure concerns this device alone: it stays as it is.
    async fn look_at(&self, disk: Backend) -> Result<(), StoreError> {
        tolerate(&disk, self.reconcile(disk).await)
    }

    /// Brings a device to the state that xenstore asks for.
    async fn reconcile(&self, backend: Backend) -> Result<(), StoreError> {
        let nodes = self.read_nodes(backend).await?;
        let state = self.retire(backend, &nodes).await?;
        if state != Some(state::INITIALISING) || self.is_attached(backend) {
            return Ok(());
        }
        let attached = match backend.kind {
            Kind::VirtioDisk => self.attach_disk(backend, &nodes).await,
            Kind::Virtio => self.attach_nic(backend, &nodes).await?,
            Kind::Vbd => Err(NOT_VBD.to_string()),
            Kind::Vif => Err(NOT_VIF.to_string()),
        };
        let told = nodes.get("error");
        match attached {
            Ok(()) => {
                if told.is_some() {
                    self.remove(&backend.node("error")).await?;
                }
                let answered = self.answer(backend, state::INITIALISING, "state", state::INIT_WAIT).await;
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
                self.answer(backend, state::INITIALISING, "error", &reason).await.map(drop)
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
        Ok(Nodes { leaves, values: self.store.read_together(&paths).await? })
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

    /// Takes a device away from its guest, if it has it, with what we told of it.
    async fn give_up(&self, backend: Backend) -> Result<(), StoreError> {
        if self.detach(backend) && backend.kind == Kind::Virtio {
            self.remove(&nic::address_node(backend)).await?;
        }
        Ok(())
    }

    fn is_attached(&self, backend: Backend) -> bool {
        let is_there = |id| self.guests.borrow_mut().find(backend.guest).is_some_and(|guest| guest.has(id));
        backend.id().is_some_and(is_there)
    }

    /// Writes a node of a device that is still in `state`; else leaves it alone, so that a directory that xl has
    /// removed meanwhile stays removed. Returns whether it was written.
    async fn answer(&self, disk: Backend, state: &str, leaf: &str, value: &str) -> Result<bool, StoreError> {
        let written = self.store.transaction(async |transaction| {
            let waits = transaction.read(&disk.node("state")).await? == state;
            if waits {
                transaction.write(&disk.node(leaf), value).await?;
            }
            Ok(waits)
        });
        match written.await {
            Err(StoreError::NotFound) => Ok(false),
            other => other,
        }
    }

    /// Whether the guest may have one more device.
    fn check_room(&self, guest: DomainId, sharing: Sharing) -> Result<(), String> {
        let is_foreign = sharing == Sharing::Foreign;
        if is_foreign && self.guests.borrow().pager().borrow().usable() == 0 {
            return Err(NO_PAGE_TABLES.to_string());
        }
        if is_foreign && !self.guests.borrow().pager().borrow().has_room_for_device(guest) {
            return Err(NO_WINDOW.to_string());
        }
        if (self.own_memory.heap_free)() < HEAP_HEADROOM_BYTES {
            return Err(NO_HEAP.to_string());
        }
        Ok(())
    }

    /// Puts a device model where its guest will find it. `what` it serves is for the log.
    fn attach(
        &self,
        backend: Backend,
        place: &Place,
        model: Model,
        what: &dyn Display,
    ) -> Result<(), String> {
        let Some(id) = backend.id() else { return Ok(()) };
        let mut guests = self.guests.borrow_mut();
        let guest = guests.find_or_add(backend.guest).map_err(|error| explain(&error))?;
        let device = guest.device(model, place.irq, place.sharing);
        let attached = guest.attach(id, place.base, device).map_err(|error| explain(&error));
        if attached.is_err() && guest.is_idle() {
            guests.remove(backend.guest);
        }
        attached?;
        log::info!(
            "{}: serving {what} at {:#x}, interrupt {}, memory {}",
            place.name,
            place.base,
            place.irq,
            if place.sharing == Sharing::Foreign { "foreign" } else { "granted" },
        );
        Ok(())
    }

    /// Takes a device out of its guest, and forgets the guest with its last one. Returns whether it was attached.
    fn detach(&self, disk: Backend) -> bool {
        let Some(id) = disk.id().filter(|_| self.is_attached(disk)) else { return false };
        let mut guests = self.guests.borrow_mut();
        let Some(guest) = guests.find(disk.guest) else { return false };
        guest.detach(id);
        if guest.is_idle() {
            guests.remove(disk.guest);
            log::info!(
                "{}: gone; left: {} guests, {} slots mapped, {} pinned, {} other pages, {} frames and {} bytes of heap free",
                disk.guest,
                guests.len(),
                guests.pager().borrow().mapped(),
                guests.pager().borrow().pinned(),
                guests.pages().borrow().mapped(),
                self.own_memory.frames.borrow().free(),
                (self.own_memory.heap_free)(),
            );
            self.tell_physmap(&guests);
        }
        true
    }

    /// Tells xl that a disk is closed, and removes its directory: xl waits for one after the other.
    async fn close(&self, disk: Backend) -> Result<(), StoreError> {
        tolerate(&disk, self.store.write(&disk.node("state"), state::CLOSED).await)?;
        // libxl takes a directory that goes before it saw state 6 for a failure, and nothing tells us when it has.
        for _ in 0..CLOSED_ROUND_TRIPS {
            self.get(disk, "state").await?;
        }
        // The directories above are xl's to remove.
        self.remove(&disk.directory()).await
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

/// A refusal by Xen in words that say what to do.
fn explain(error: &HypercallError) -> String {
    let advice = match error.errno {
        Errno::ENOSYS | Errno::EOPNOTSUPP => "this Xen has no ioreq servers: it needs CONFIG_IOREQ_SERVER=y",
        Errno::EPERM | Errno::EACCES => {
            "Xen's policy does not let this domain serve that guest: boot Xen with xsm=flask and the driver_domain \
             module, and give this domain seclabel='system_u:system_r:driver_domain_t'"
        }
        Errno::ENOENT => NO_PAGE_TABLES,
        Errno::ENOMEM => "Xen is out of memory, or this domain serves as many guests as it can",
        _ => return error.to_string(),
    };
    format!("{error}: {advice}")
}
