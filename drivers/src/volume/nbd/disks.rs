//! The exports that are open: found by server and name, shared by their users, and driven by the loop.
//!
//! ```text
//!   opening ── the link is up, and there is RAM ──> open ── the last user goes ──> closing ── idle ──> gone
//!      └ refused, or too late ──> failed                       <── another comes ──┘
//! ```
//! What the last user left at the server is waited for before the server hears that this is the end: on another
//! connection, nothing would keep it from overtaking what comes later.

use super::drive::{BUFFER_BYTES, NbdDrive};
use super::export::Export;
use super::link::Link;
use super::{NbdError, TIME_LIMIT_NS};
use crate::block::SECTOR_BYTES;
use crate::connection::Connection;
use crate::volume::disk::Disk;
use crate::volume::ram::Storage;
use crate::volume::registry::{AllocateRam, OpenError, Purpose};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::net::SocketAddrV4;
use core::task::{Context, Poll, Waker};
use slab::Slab;

/// In how much time a server must have shown the export. A guest waits for it, and xl for the guest: less than xl's 10 s.
const OPENING_LIMIT_NS: u64 = 8_000_000_000;
/// How long what the last user left at a server is waited for.
const CLOSING_LIMIT_NS: u64 = TIME_LIMIT_NS;
/// Commands that a server gets at a time, and if there is no RAM for them, at least.
const SLOTS_MAX: u32 = 8;
/// See [`SLOTS_MAX`].
const SLOTS_MIN: u32 = 1;

/// Makes a connection to a server, not opened yet; none when there is no network, or no room for another.
pub type Connect = dyn Fn(SocketAddrV4) -> Option<Box<dyn Connection>>;

/// The exports that are open. Clones are handles of the same.
#[derive(Clone)]
pub struct NetworkDisks(Rc<RefCell<Exports>>);

struct Exports {
    connect: Box<Connect>,
    entries: Slab<Entry>,
    /// The time of the last [`NetworkDisks::poll`].
    now_ns: u64,
}

struct Entry {
    server: SocketAddrV4,
    export_name: String,
    state: State,
    users: usize,
    /// When the opening, or the closing, must be over; set at the first look at it.
    until_ns: Option<u64>,
    /// Woken when the opening is over.
    wakers: Vec<Waker>,
}

enum State {
    Opening {
        link: Link,
        last_error: NbdError,
    },
    /// The link is up.
    Ready {
        link: Link,
        export: Export,
    },
    Failed(NbdError),
    Open(Rc<RefCell<Disk>>),
}

impl NetworkDisks {
    /// None so far; `connect` makes the connections to come.
    #[must_use]
    pub fn new(connect: Box<Connect>) -> Self {
        Self(Rc::new(RefCell::new(Exports { connect, entries: Slab::new(), now_ns: 0 })))
    }

    /// Opens an export. Its drive takes its buffers from `allocate`.
    ///
    /// # Errors
    /// [`OpenError::NoNetwork`], [`OpenError::Network`], [`OpenError::NoRam`].
    pub(in crate::volume) async fn open(
        &self,
        server: SocketAddrV4,
        export_name: &str,
        allocate: &AllocateRam,
    ) -> Result<(ExportUser, Rc<RefCell<Disk>>), OpenError> {
        let user = self.enter(server, export_name)?;
        let disk = poll_fn(|context| user.poll_open(context, allocate)).await?;
        Ok((user, disk))
    }

    /// Another user of an export, which may have to be opened first.
    fn enter(&self, server: SocketAddrV4, export_name: &str) -> Result<ExportUser, OpenError> {
        let exports = &mut *self.0.borrow_mut();
        // One that is out of order is made anew when all have left it.
        exports.entries.retain(|_, entry| entry.users > 0 || !entry.is_broken());
        let mut entries = exports.entries.iter_mut();
        let known = entries.find(|(_, entry)| entry.server == server && entry.export_name == export_name);
        let key = match known {
            Some((key, entry)) => {
                entry.users += 1;
                if matches!(entry.state, State::Open(_)) {
                    entry.until_ns = None;
                }
                key
            }
            None => {
                let connection = (exports.connect)(server).ok_or(OpenError::NoNetwork)?;
                let name = format!("nbd:{server}/{export_name}");
                let link = Link::new(name, export_name.to_string(), connection);
                exports.entries.insert(Entry {
                    server,
                    export_name: export_name.to_string(),
                    state: State::Opening { link, last_error: NbdError::Unreachable },
                    users: 1,
                    until_ns: None,
                    wakers: Vec::new(),
                })
            }
        };
        Ok(ExportUser { disks: self.clone(), key })
    }

    /// Takes what the servers have answered, and gives up what took too long. Returns whether there was anything.
    pub fn poll(&self, now_ns: u64) -> bool {
        let mut done = false;
        let exports = &mut *self.0.borrow_mut();
        exports.now_ns = now_ns;
        exports.entries.retain(|_, entry| {
            done |= entry.poll(now_ns);
            !entry.is_over(now_ns)
        });
        done
    }

    /// Sends what was begun since the last call.
    pub fn kick(&self) {
        self.for_each(Disk::kick);
    }

    /// Looks once more for what came, before a sleep; what comes later must end the sleep. Returns whether there is
    /// something to do instead.
    pub fn settle(&self) -> bool {
        let exports = &mut *self.0.borrow_mut();
        let now_ns = exports.now_ns;
        exports.entries.iter_mut().fold(false, |busy, (_, entry)| entry.settle(now_ns) | busy)
    }

    /// When [`Self::poll`] must be called even if nothing comes over the network.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.0.borrow().entries.iter().filter_map(|(_, entry)| entry.deadline_ns()).min()
    }

    /// Whether no export is open, nor being opened, nor being closed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().entries.is_empty()
    }

    /// Shows every disk that is open.
    pub fn for_each(&self, mut see: impl FnMut(&mut Disk)) {
        for (_, entry) in &self.0.borrow().entries {
            if let State::Open(disk) = &entry.state {
                see(&mut disk.borrow_mut());
            }
        }
    }
}

impl Entry {
    fn poll(&mut self, now_ns: u64) -> bool {
        let (link, last_error) = match &mut self.state {
            State::Open(disk) => return disk.borrow_mut().poll(now_ns),
            State::Opening { link, last_error } => (link, last_error),
            State::Ready { .. } | State::Failed(_) => return false,
        };
        let until_ns = *self.until_ns.get_or_insert(now_ns.saturating_add(OPENING_LIMIT_NS));
        let news = link.tend(now_ns);
        if let Some(Err(error)) = news {
            *last_error = error;
        }
        let outcome = match news {
            Some(Ok(export)) => Ok(export),
            Some(Err(error)) if !error.may_pass() => Err(error),
            _ if now_ns >= until_ns => Err(*last_error),
            _ => return false,
        };
        self.wakers.drain(..).for_each(Waker::wake);
        let last = core::mem::replace(&mut self.state, State::Failed(NbdError::Silent));
        self.state = match (outcome, last) {
            (Ok(export), State::Opening { link, .. }) => State::Ready { link, export },
            (Err(error), _) => State::Failed(error),
            (Ok(_), last) => last,
        };
        true
    }

    fn settle(&mut self, now_ns: u64) -> bool {
        match &self.state {
            State::Open(disk) => disk.borrow_mut().settle(),
            _ => self.poll(now_ns),
        }
    }

    fn is_broken(&self) -> bool {
        matches!(&self.state, State::Open(disk) if disk.borrow().is_broken())
    }

    /// Whether nobody needs it any more.
    fn is_over(&mut self, now_ns: u64) -> bool {
        if self.users > 0 {
            return false;
        }
        let until_ns = *self.until_ns.get_or_insert(now_ns.saturating_add(CLOSING_LIMIT_NS));
        match &self.state {
            State::Open(disk) => disk.borrow().is_idle() || self.is_broken() || now_ns >= until_ns,
            _ => true,
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        let own_ns = self.until_ns.unwrap_or(0);
        match &self.state {
            State::Opening { link, .. } => Some(link.deadline_ns().unwrap_or(own_ns).min(own_ns)),
            State::Open(disk) if self.users == 0 => {
                Some(disk.borrow().deadline_ns().unwrap_or(own_ns).min(own_ns))
            }
            State::Open(disk) => disk.borrow().deadline_ns(),
            State::Ready { .. } | State::Failed(_) => None,
        }
    }

    /// Makes a disk of the link that is up.
    fn make_disk(&mut self, allocate: &AllocateRam) -> Result<Rc<RefCell<Disk>>, OpenError> {
        let last = core::mem::replace(&mut self.state, State::Failed(NbdError::Ended));
        let State::Ready { link, export } = last else { return Err(NbdError::Ended.into()) };
        let buffer_bytes = export.facts(0, BUFFER_BYTES).buffer_bytes;
        let buffers = allocate_buffers(buffer_bytes, allocate)?;
        let name = link.name().to_string();
        let disk = Disk::new(name, Box::new(NbdDrive::new(link, export, buffers)));
        let facts = disk.facts();
        log::info!(
            "{}: {} KiB in blocks of {}, {}, {} commands at a time",
            disk.name(),
            facts.sectors / (1024 / SECTOR_BYTES),
            facts.block_bytes,
            if facts.read_only { "read-only" } else { "writable" },
            facts.slots,
        );
        if export.tail_bytes() > 0 {
            log::warn!(
                "{}: its last {} bytes fill no block and are not part of the volume",
                disk.name(),
                export.tail_bytes(),
            );
        }
        let disk = Rc::new(RefCell::new(disk));
        self.state = State::Open(disk.clone());
        self.until_ns = None;
        Ok(disk)
    }
}

fn allocate_buffers(buffer_bytes: u32, allocate: &AllocateRam) -> Result<Box<dyn Storage>, OpenError> {
    let mut slots = SLOTS_MAX;
    loop {
        let bytes = u64::from(slots) * u64::from(buffer_bytes);
        match allocate(bytes, Purpose::Buffers) {
            Some(storage) => return Ok(storage),
            None if slots <= SLOTS_MIN => return Err(OpenError::NoRam(bytes)),
            None => slots /= 2,
        }
    }
}

/// A user of an export; dropping it leaves the export.
pub(in crate::volume) struct ExportUser {
    disks: NetworkDisks,
    key: usize,
}

impl ExportUser {
    /// Which export, among those that are open.
    pub(in crate::volume) fn key(&self) -> usize {
        self.key
    }

    fn poll_open(
        &self,
        context: &Context<'_>,
        allocate: &AllocateRam,
    ) -> Poll<Result<Rc<RefCell<Disk>>, OpenError>> {
        let mut exports = self.disks.0.borrow_mut();
        let Some(entry) = exports.entries.get_mut(self.key) else {
            return Poll::Ready(Err(NbdError::Ended.into()));
        };
        match &entry.state {
            State::Opening { .. } => {
                if !entry.wakers.iter().any(|known| known.will_wake(context.waker())) {
                    entry.wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
            State::Ready { .. } => Poll::Ready(entry.make_disk(allocate)),
            State::Failed(error) => Poll::Ready(Err((*error).into())),
            State::Open(disk) => Poll::Ready(Ok(disk.clone())),
        }
    }
}

impl Drop for ExportUser {
    fn drop(&mut self) {
        let mut exports = self.disks.0.borrow_mut();
        if let Some(entry) = exports.entries.get_mut(self.key) {
            entry.users -= 1;
            if entry.users == 0 && !matches!(entry.state, State::Open(_)) {
                exports.entries.try_remove(self.key);
            }
        }
    }
}
