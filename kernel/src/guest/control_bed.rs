//! The control plane's bed: xenstore with the toolstack at its other end, and disks as libxl describes them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::cell::Cell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use drivers::connection::{Connection, ConnectionState};
use drivers::volume::nbd::disks::NetworkDisks;
use drivers::volume::ram::Storage;
use drivers::volume::registry::{Purpose, Registry};

use super::*;
use crate::endpoint::Endpoint;
use crate::guest::control::{Control, Network, OwnMemory};
use crate::mm::frames::FrameAllocator;
use crate::options::NetworkOptions;
use crate::xen::sched::ShutdownReason;
use crate::xen::store::tests::fake::{Fake, HOME, page_starting_at};
use crate::xen::store::{Ring, Store, StoreError};
use drivers::net::bridge::Bridge;

/// Sectors of the initrd, each byte of it 7.
pub const INITRD_SECTORS: u64 = 24;

std::thread_local! {
    static HEAP_FREE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// From now on so many bytes of heap are free.
pub fn set_heap_free(bytes: usize) {
    HEAP_FREE.set(bytes);
}

type Running = Pin<Box<dyn Future<Output = Result<ShutdownReason, StoreError>>>>;

/// An NBD server that is slow to be reached, and a disk of 16 KiB then.
#[derive(Clone)]
pub struct Server {
    pub state: Rc<Cell<ConnectionState>>,
    /// What was sent to it, on all connections.
    pub heard: Rc<RefCell<Vec<u8>>>,
}

impl Server {
    fn new() -> Self {
        Self { state: Rc::new(Cell::new(ConnectionState::Opening)), heard: Rc::default() }
    }

    fn connection(&self) -> Box<dyn Connection> {
        // Of the handshake without answers to options, as it needs no look at what is asked: flags for no zeroes, then
        // size and abilities.
        let greeting = [&b"NBDMAGICIHAVEOPT"[..], &[0, 2], &16384_u64.to_be_bytes(), &[0, 1]].concat();
        Box::new(ToServer { server: self.clone(), to_say: greeting, was_asked: false })
    }

    /// Connections that there are.
    pub fn connections(&self) -> usize {
        // The bed and the closure that connects have a handle, too.
        Rc::strong_count(&self.state) - 2
    }
}

struct ToServer {
    server: Server,
    to_say: Vec<u8>,
    /// It has heard which export is wanted.
    was_asked: bool,
}

impl Connection for ToServer {
    fn open(&mut self) {}

    fn close(&mut self) {}

    fn state(&self) -> ConnectionState {
        self.server.state.get()
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        self.server.heard.borrow_mut().extend_from_slice(bytes);
        self.was_asked = true;
        bytes.len()
    }

    fn receive(&mut self, bytes: &mut [u8]) -> usize {
        // Size and abilities are an answer.
        const ANSWER_BYTES: usize = 10;
        let kept_back = if self.was_asked { 0 } else { ANSWER_BYTES };
        let count = bytes.len().min(self.to_say.len().saturating_sub(kept_back));
        bytes[..count].copy_from_slice(&self.to_say[..count]);
        self.to_say.drain(..count);
        count
    }
}

/// A driver domain with its control plane, and the toolstack at the other end of xenstore.
pub struct Plane {
    pub bed: Bed,
    pub store: RefCell<Fake>,
    /// The server of `nbd:`, and the exports of it that are open.
    pub server: Server,
    pub exports: NetworkDisks,
    now_ns: Cell<u64>,
    client: Store,
    /// The server's event is pending.
    notified: Rc<Cell<bool>>,
    control: RefCell<Running>,
    result: Cell<Option<Result<ShutdownReason, StoreError>>>,
    /// Values of [`Plane::watched`] in the order in which they were seen.
    pub history: RefCell<Vec<Option<String>>>,
    watched: RefCell<String>,
}

impl Plane {
    /// A driver domain that has not run yet, with an initrd and at most 64 KiB for volumes in RAM.
    pub fn stopped(complaints: Vec<String>) -> Self {
        Self::with_endpoint(complaints, None)
    }

    /// Likewise, with an address on the network.
    pub fn with_endpoint(complaints: Vec<String>, endpoint: Option<Rc<RefCell<Endpoint>>>) -> Self {
        let bed = Bed::new();
        let page = page_starting_at(0);
        let notified = Rc::new(Cell::new(false));
        let flag = notified.clone();
        let client = Store::new(Ring::new(page), move || flag.set(true));
        let allocate = |bytes: u64, _: Purpose| {
            (bytes <= 64 << 10).then(|| Box::new(vec![0_u8; bytes as usize]) as Box<dyn Storage>)
        };
        let initrd = vec![7_u8; INITRD_SECTORS as usize * 512];
        let server = Server::new();
        let to_server = server.clone();
        let connect = move |_| Some(to_server.connection());
        let volumes =
            Registry::new(Some(Box::new(initrd)), Vec::new(), Box::new(allocate), Box::new(connect));
        let exports = volumes.network_disks();
        let frames = Rc::new(RefCell::new(FrameAllocator::default()));
        let own_memory = OwnMemory { frames, heap_free: || HEAP_FREE.get(), special_pages: 0 };
        let network = Network {
            bridge: Bridge::new(0),
            seed: String::new(),
            options: NetworkOptions::default(),
            endpoint,
        };
        let control = Control::new(client.clone(), bed.table.clone(), volumes, network, own_memory);
        Self {
            bed,
            store: RefCell::new(Fake::new(page)),
            server,
            exports,
            now_ns: Cell::new(0),
            client,
            notified,
            control: RefCell::new(Box::pin(control.run(complaints))),
            result: Cell::new(None),
            history: RefCell::default(),
            watched: RefCell::default(),
        }
    }

    /// A driver domain that is ready.
    pub fn new() -> Self {
        let plane = Self::stopped(Vec::new());
        plane.settle();
        plane
    }

    /// Lets both sides run until neither has news for the other.
    pub fn settle(&self) {
        loop {
            self.client.pump();
            let mut context = Context::from_waker(Waker::noop());
            if self.result.get().is_none()
                && let Poll::Ready(result) = self.control.borrow_mut().as_mut().poll(&mut context)
            {
                self.result.set(Some(result));
            }
            let moved = self.store.borrow_mut().serve();
            self.history.borrow_mut().push(self.value(&self.watched.borrow()));
            if !moved && !self.notified.take() {
                break;
            }
        }
        self.history.borrow_mut().dedup();
    }

    /// So many milliseconds pass.
    pub fn pass(&self, ms: u64) {
        for _ in 0..ms {
            self.now_ns.set(self.now_ns.get() + 1_000_000);
            self.exports.poll(self.now_ns.get());
            self.settle();
        }
    }

    pub fn result(&self) -> Option<Result<ShutdownReason, StoreError>> {
        self.result.get()
    }

    /// Notes each value of a node from now on.
    pub fn watch(&self, path: &str) {
        *self.watched.borrow_mut() = path.to_string();
        self.history.borrow_mut().clear();
    }

    pub fn value(&self, path: &str) -> Option<String> {
        let store = self.store.borrow();
        store.value(&format!("{HOME}{path}")).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    /// The toolstack writes, and we react.
    pub fn write(&self, path: &str, value: &str) {
        self.store.borrow_mut().write(&format!("{HOME}{path}"), value);
        self.settle();
    }
}

/// A disk in a guest's configuration.
#[derive(Clone, Copy)]
pub struct Disk {
    pub guest: DomainId,
    pub target: &'static str,
    pub mode: &'static str,
    /// Position among the guest's virtio devices.
    pub index: u64,
    /// A node that is written otherwise, or left out.
    pub changed: (&'static str, Option<&'static str>),
}

/// A disk of guest A that is in order.
pub const DISK: Disk = Disk { guest: A, target: "ram:16K", mode: "w", index: 0, changed: ("", None) };

impl Disk {
    /// xvda is 51712, xvdb 16 more.
    pub fn path(&self) -> String {
        format!("backend/virtio_disk/{}/{}", self.guest.0, 51712 + 16 * self.index)
    }

    pub fn node(&self, leaf: &str) -> String {
        format!("{}/{leaf}", self.path())
    }

    pub fn base(&self) -> u64 {
        BASE + self.index * DEVICE_BYTES
    }

    /// Writes what libxl writes about it, in libxl's order.
    pub fn add(&self, plane: &Plane) {
        let frontend = format!("/local/domain/{}/device/virtio_disk/51712", self.guest.0);
        let (id, base) = (self.guest.0.to_string(), self.base().to_string());
        let (irq, name) =
            ((u64::from(IRQ) + self.index).to_string(), format!("xvd{}", ['a', 'b'][self.index as usize]));
        let nodes = [
            ("frontend", &*frontend),
            ("params", self.target),
            ("frontend-id", &*id),
            ("online", "1"),
            ("removable", "0"),
            ("bootable", "1"),
            ("state", "1"),
            ("dev", &*name),
            ("type", "standalone"),
            ("mode", self.mode),
            ("device-type", "disk"),
            ("discard-enable", "1"),
            ("specification", "virtio"),
            ("transport", "mmio"),
            ("base", &*base),
            ("irq", &*irq),
            ("grant_usage", "0"),
        ];
        for (leaf, value) in nodes {
            let value = if leaf == self.changed.0 { self.changed.1 } else { Some(value) };
            if let Some(value) = value {
                plane.store.borrow_mut().write(&format!("{HOME}{}", self.node(leaf)), value);
            }
        }
    }

    /// A domain in which this disk was added and looked at.
    pub fn added(self) -> Plane {
        let plane = Plane::new();
        self.add(&plane);
        plane.settle();
        plane
    }

    pub fn state(&self, plane: &Plane) -> Option<String> {
        plane.value(&self.node("state"))
    }

    pub fn error(&self, plane: &Plane) -> Option<String> {
        plane.value(&self.node("error"))
    }

    pub fn is_served(&self, plane: &Plane) -> bool {
        self.state(plane).as_deref() == Some("2") && plane.bed.load(self.guest, 0, self.base(), 4) == MAGIC
    }
}
