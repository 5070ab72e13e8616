//! Guests on exports of an NBD server, and the kernel's loop.

use super::disk_bed::DiskGuest;
use super::nbd_server::NbdServer;
use drivers::connection::Connection;
use drivers::virtio::blk::config::FLUSH;
use drivers::volume::nbd::disks::NetworkDisks;
use drivers::volume::ram::Storage;
use drivers::volume::registry::{Access, OpenError, OpenVolume, Purpose, Registry};
use drivers::volume::spec::VolumeSpec;
use std::cell::{Cell, RefCell};
use std::net::SocketAddrV4;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// More turns of the loop than anything takes that ends.
const ENOUGH_TURNS: usize = 100_000;
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MS;

pub struct NbdBed {
    pub server: NbdServer,
    pub registry: Registry,
    pub disks: NetworkDisks,
    pub now_ns: Cell<u64>,
    /// RAM that buffers may take at a time.
    pub ram: Rc<Cell<u64>>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A registry that has nothing but exports, and RAM for buffers.
pub fn registry(
    connect: impl Fn(SocketAddrV4) -> Option<Box<dyn Connection>> + 'static,
    ram: Rc<Cell<u64>>,
) -> Registry {
    let allocate = move |bytes: u64, _: Purpose| -> Option<Box<dyn Storage>> {
        (bytes <= ram.get()).then(|| Box::new(vec![0_u8; bytes.try_into().unwrap()]) as _)
    };
    Registry::new(None, Vec::new(), Box::new(allocate), Box::new(connect))
}

impl NbdBed {
    pub fn new(server: NbdServer) -> Self {
        let ram = Rc::new(Cell::new(u64::MAX));
        let clients = RefCell::new(server.clone());
        let registry = registry(move |_| Some(clients.borrow().connection()), ram.clone());
        // Some time after the start, as in life.
        let now_ns = Cell::new(100 * SECOND);
        Self { server, disks: registry.network_disks(), registry, now_ns, ram }
    }

    /// Opens `target`; each turn of the loop takes a millisecond.
    pub fn open(&self, target: &str, access: Access) -> Result<OpenVolume, OpenError> {
        let spec = VolumeSpec::parse(target).unwrap();
        let mut opening = pin!(self.registry.open(&spec, access, 0));
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(woken.clone());
        for _ in 0..ENOUGH_TURNS {
            if woken.0.swap(false, Ordering::Relaxed)
                && let Poll::Ready(opened) = opening.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return opened;
            }
            self.pass(MS);
            self.turn(&mut []);
        }
        panic!("the opening never ends");
    }

    /// A guest that has all of the export, and flushes.
    pub fn guest(&self) -> DiskGuest {
        DiskGuest::new(self.open("nbd:10.0.0.1/disk", Access::ReadWrite).unwrap(), FLUSH)
    }

    /// One turn of the kernel's loop.
    pub fn turn(&self, guests: &mut [&mut DiskGuest]) {
        self.disks.poll(self.now_ns.get());
        guests.iter_mut().for_each(|guest| guest.work());
        self.disks.kick();
    }

    /// So many turns of a millisecond.
    pub fn turns(&self, count: usize, guests: &mut [&mut DiskGuest]) {
        for _ in 0..count {
            self.pass(MS);
            self.turn(guests);
        }
    }

    /// So much time, the loop asleep until something comes or it has to wake up.
    pub fn sleep(&self, time_ns: u64, guests: &mut [&mut DiskGuest]) {
        let until_ns = self.now_ns.get() + time_ns;
        for _ in 0..ENOUGH_TURNS {
            let passed = self.server.state().passed;
            self.turn(guests);
            if self.now_ns.get() >= until_ns {
                return;
            }
            if self.server.state().passed > passed {
                self.pass(MS);
                continue;
            }
            let deadline_ns = self.disks.deadline_ns().unwrap_or(until_ns);
            self.now_ns.set(deadline_ns.clamp(self.now_ns.get(), until_ns));
        }
        panic!("it does not sleep");
    }

    pub fn pass(&self, time_ns: u64) {
        self.now_ns.set(self.now_ns.get() + time_ns);
    }

    /// Exports that are open.
    pub fn open_disks(&self) -> usize {
        let mut count = 0;
        self.disks.for_each(|_| count += 1);
        count
    }
}
