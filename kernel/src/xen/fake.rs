//! A small Xen for hosted tests, behind [`super::hypercall`]: rules and error numbers are those of Xen 4.20 on Arm.
//!
//! | file | part |
//! |---|---|
//! | `machine` | frames of memory, and our physmap as real addresses of this process |
//! | `physmap` | what our frame numbers hold; leaks are recorded |
//! | `domains` | other domains, and zombies |
//! | `ioreq` | device model operations, and vCPUs that wait |
//! | `events` | event channels |
//! | `grants` | grant tables, and granted pages that we map or copy |
//!
//! One per test: it answers the hypercalls of the thread that made it, until the next one is made.

mod domains;
mod events;
mod grants;
mod ioreq;
mod machine;
mod physmap;
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use core::ptr;

pub use self::grants::OWN_DOMAIN;
pub use self::ioreq::{Outcome, Slot};
use super::DomainId;
use super::abi::{self, DOMID_SELF, MulticallEntry, number};
use super::event::Port;
use super::hypercall::{self, Arguments, Errno};
use crate::arch::whole;
use crate::limits::{FRAMES_HIGH, PAGE_BYTES, SINGLE_PAGES};
use crate::mm::address::Gfn;
use crate::mm::balloon::Balloon;
use crate::mm::foreign::Pager;
use crate::mm::frames::FrameAllocator;
use crate::mm::physmap::{Unpopulated, Window};
use crate::mm::singles::SinglePages;
use domains::Domain;
use grants::{Grants, GuestGrant};
use machine::{Frame, Machine};
use physmap::Entry;

/// Kinds of hypercalls, as tests count and refuse them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    MapSharedInfo,
    MapGrantTable,
    MapForeign,
    MapResource,
    Unmap,
    Decrease,
    Populate,
    MapGrant,
    UnmapGrant,
    CopyGrant,
    Multicall,
    CountVcpus,
    CreateServer,
    SetServerState,
    DestroyServer,
    ClaimRange,
    ReleaseRange,
    RaiseInterrupt,
    BindPort,
    AllocatePort,
    Send,
    ClosePort,
}

/// Something that only the end of a domain brings back, or not even that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leak {
    /// A page of our RAM was replaced or unmapped: it is ours still, and out of reach.
    RamLost { gfn: u64 },
    /// A page of our RAM went back to Xen with what was in it.
    DataGivenAway { gfn: u64 },
    /// A foreign page was mapped over itself: its owner can never go away.
    MappedOverItself { gfn: u64, domain: u16 },
    /// A granted page was unmapped or replaced behind the back of the grant table.
    GrantLost { gfn: u64 },
}

/// A kind of calls to be refused: first some pass, then so many are refused.
struct Refusal {
    kind: Call,
    passing: usize,
    refused: usize,
    error: Errno,
}

struct Xen {
    machine: Machine,
    physmap: BTreeMap<u64, Entry>,
    shared_info: Frame,
    /// Pages that are nobody's.
    heap: Vec<Frame>,
    grants: Grants,
    /// Second-stage tables that exist, by what they cover, and how many there can be.
    tables: BTreeSet<u64>,
    pool: usize,
    domains: BTreeMap<u16, Domain>,
    /// Our event ports, with the domain and port at the other end.
    ports: BTreeMap<u32, Option<(u16, u32)>>,
    pending: BTreeSet<u32>,
    /// Ports of other domains that got an event of ours.
    notified: BTreeSet<(u16, u32)>,
    /// The server that a vCPU waits for.
    waits: BTreeMap<(u16, usize), u16>,
    calls: BTreeMap<Call, usize>,
    refusals: Vec<Refusal>,
    leaks: Vec<Leak>,
}

impl Xen {
    /// # Safety
    /// As for the hypercalls: pointers among the arguments are good.
    unsafe fn call(&mut self, number: u64, arguments: Arguments) -> i64 {
        let [a0, a1, a2, ..] = arguments;
        if number == number::MEMORY_OP && a0 == abi::memory::CURRENT_RESERVATION {
            let ram = self.physmap.values().filter(|entry| matches!(entry, Entry::Ram(_)));
            return i64::try_from(ram.count()).unwrap();
        }
        if number == number::MEMORY_OP
            && matches!(a0, abi::memory::DECREASE_RESERVATION | abi::memory::POPULATE_PHYSMAP)
        {
            // SAFETY: the caller's contract.
            return unsafe { self.change_reservation(a0, a1) };
        }
        // SAFETY: the caller's contract.
        negative(unsafe {
            match number {
                number::MEMORY_OP => {
                    let kind = match a0 {
                        abi::memory::ADD_TO_PHYSMAP => Self::kind_of_space(a1),
                        abi::memory::ADD_TO_PHYSMAP_BATCH => Call::MapForeign,
                        abi::memory::ACQUIRE_RESOURCE => Call::MapResource,
                        _ => Call::Unmap,
                    };
                    self.record(kind).and_then(|()| self.memory_op(a0, a1))
                }
                number::MULTICALL => self.record(Call::Multicall).map(|()| self.multicall(a0, a1)),
                number::GRANT_TABLE_OP => self.grant_table_op(a0, a1, a2),
                number::EVENT_CHANNEL_OP => self.event_channel_op(a0, a1),
                number::DM_OP => self.dm_op(a0, a1, a2),
                _ => Err(Errno::ENOSYS),
            }
        })
    }

    /// # Safety
    /// `argument` is the address of an `AddToPhysmap`.
    unsafe fn kind_of_space(argument: u64) -> Call {
        let request = ptr::with_exposed_provenance(usize::try_from(argument).unwrap());
        // SAFETY: the caller's contract.
        let request: &abi::AddToPhysmap = unsafe { &*request };
        match request.space {
            abi::memory::SPACE_GRANT_TABLE => Call::MapGrantTable,
            _ => Call::MapSharedInfo,
        }
    }

    /// # Safety
    /// `entries` is the address of `count` entries whose own pointers are good.
    unsafe fn multicall(&mut self, entries: u64, count: u64) {
        let entries = ptr::with_exposed_provenance_mut(usize::try_from(entries).unwrap());
        // SAFETY: the caller's contract.
        let entries: &mut [MulticallEntry] =
            unsafe { core::slice::from_raw_parts_mut(entries, usize::try_from(count).unwrap()) };
        for entry in entries {
            let [a0, a1, a2, a3, a4, _] = entry.args;
            // SAFETY: the caller's contract.
            entry.result = unsafe { self.call(entry.op, [a0, a1, a2, a3, a4]) };
        }
    }

    /// Counts a call, and refuses it when the test wants so.
    fn record(&mut self, kind: Call) -> Result<(), Errno> {
        *self.calls.entry(kind).or_default() += 1;
        let mut refusals = self.refusals.iter_mut();
        let Some(refusal) = refusals.find(|refusal| refusal.kind == kind && refusal.refused > 0) else {
            return Ok(());
        };
        if refusal.passing > 0 {
            refusal.passing -= 1;
            return Ok(());
        }
        refusal.refused -= 1;
        Err(refusal.error)
    }

    /// A domain that we may have to do with.
    fn permitted(&mut self, id: u16) -> Result<&mut Domain, Errno> {
        assert_ne!(id, DOMID_SELF, "the operation takes another domain's number");
        let domain = self.domains.get_mut(&id).ok_or(Errno::ESRCH)?;
        if domain.denied { Err(Errno::EACCES) } else { Ok(domain) }
    }
}

fn negative(result: Result<(), Errno>) -> i64 {
    result.map_or_else(|error| -i64::from(error.0), |()| 0)
}

/// A handle to the Xen of this thread.
#[derive(Clone)]
pub struct FakeXen(Rc<RefCell<Xen>>);

/// Bytes of our physmap that are holes: frame numbers for single pages, then room for windows.
const SPACE_BYTES: usize = 32 << 20;

impl FakeXen {
    /// Makes one and installs it.
    pub fn new() -> Self {
        let mut machine = Machine::new(SPACE_BYTES);
        let shared_info = machine.allocate();
        let grants = Grants::new(machine.allocate());
        let xen = Rc::new(RefCell::new(Xen {
            machine,
            physmap: BTreeMap::new(),
            shared_info,
            heap: Vec::new(),
            grants,
            tables: BTreeSet::new(),
            pool: usize::MAX,
            domains: BTreeMap::new(),
            ports: BTreeMap::new(),
            pending: BTreeSet::new(),
            notified: BTreeSet::new(),
            waits: BTreeMap::new(),
            calls: BTreeMap::new(),
            refusals: Vec::new(),
            leaks: Vec::new(),
        }));
        let xen = Self(xen);
        xen.install(|| {});
        xen
    }

    /// Answers the hypercalls of this thread, and calls `step` before and after each that changes something and is not in the
    /// midst of steps that belong together.
    pub fn install(&self, step: impl Fn() + 'static) {
        let answering = self.0.clone();
        hypercall::fake::install(move |number, arguments| {
            // One that only asks makes no difference.
            let asks = number == number::EVENT_CHANNEL_OP && arguments[0] == abi::event::STATUS;
            let is_step = !asks && !whole::tests::is_whole();
            if is_step {
                step();
            }
            // SAFETY: only `hypercall::call` calls, whose contract is that of the hypercalls.
            let result = unsafe { answering.borrow_mut().call(number, arguments) };
            if is_step {
                step();
            }
            result
        });
    }

    /// The addresses of our physmap's holes.
    pub fn space(&self) -> Range<usize> {
        self.0.borrow().machine.space()
    }

    /// Our frame numbers for single pages.
    pub fn single_pages(&self) -> Rc<RefCell<SinglePages>> {
        let first = Gfn::containing(self.0.borrow().machine.space().start);
        Rc::new(RefCell::new(SinglePages::new(first)))
    }

    /// A window of so many pages, 2 MiB aligned.
    pub fn window(&self, pages: usize) -> Window {
        self.mixed_window(pages, pages, Rc::default())
    }

    /// A window of so many slots, so many of them unpopulated and 2 MiB aligned, the others out of `frames`.
    pub fn mixed_window(
        &self,
        slots: usize,
        unpopulated: usize,
        frames: Rc<RefCell<FrameAllocator>>,
    ) -> Window {
        let start = self.0.borrow().machine.space().start + SINGLE_PAGES * PAGE_BYTES;
        let region = Unpopulated::new(&(start..start + unpopulated * PAGE_BYTES));
        Window::new(slots, region, Balloon::new(frames))
    }

    /// A pager over such a window.
    pub fn pager(&self, pages: usize) -> Rc<RefCell<Pager>> {
        Rc::new(RefCell::new(Pager::new(self.window(pages))))
    }

    /// From now on so many tables can be made, each for 2 MiB of frame numbers.
    pub fn set_pool(&self, tables: usize) {
        let mut xen = self.0.borrow_mut();
        xen.pool = xen.tables.len() + tables;
    }

    /// How many tables there are.
    pub fn tables(&self) -> usize {
        self.0.borrow().tables.len()
    }

    /// Makes a domain without RAM.
    pub fn add_domain(&self, id: DomainId, vcpus: u32) {
        let fresh = self.0.borrow_mut().domains.insert(id.0, Domain::new(vcpus)).is_none();
        assert!(fresh, "{id} is there already");
    }

    /// Gives a domain RAM at frame numbers of its own.
    pub fn populate(&self, id: DomainId, frames: Range<u64>) {
        let mut xen = self.0.borrow_mut();
        frames.for_each(|frame| xen.populate(id.0, frame));
    }

    /// The domain gives pages back; tell the servers by [`Self::invalidate`].
    pub fn balloon_out(&self, id: DomainId, frames: Range<u64>) {
        let mut xen = self.0.borrow_mut();
        xen.domain(id.0).ram.retain(|frame, _| !frames.contains(frame));
    }

    /// Destroys a domain; it stays as a zombie while pages of it are held.
    pub fn destroy(&self, id: DomainId) {
        self.0.borrow_mut().destroy(id.0);
    }

    /// Whether there is such a domain, dying or not.
    pub fn exists(&self, id: DomainId) -> bool {
        self.0.borrow().domains.contains_key(&id.0)
    }

    /// From now on the policy refuses us whatever concerns the domain.
    pub fn deny(&self, id: DomainId) {
        self.0.borrow_mut().domain(id.0).denied = true;
    }

    /// Refuses one call of a kind, after `passing` of them.
    pub fn refuse(&self, kind: Call, passing: usize, error: Errno) {
        self.0.borrow_mut().refusals.push(Refusal { kind, passing, refused: 1, error });
    }

    /// Refuses every call of a kind, after `passing` of them, until [`Self::allow_all`].
    pub fn refuse_all(&self, kind: Call, passing: usize, error: Errno) {
        self.0.borrow_mut().refusals.push(Refusal { kind, passing, refused: usize::MAX, error });
    }

    /// Refuses nothing any more.
    pub fn allow_all(&self) {
        self.0.borrow_mut().refusals.clear();
    }

    /// Calls of a kind so far.
    pub fn calls(&self, kind: Call) -> usize {
        self.0.borrow().calls.get(&kind).copied().unwrap_or(0)
    }

    /// What is lost for good.
    pub fn leaks(&self) -> Vec<Leak> {
        self.0.borrow().leaks.clone()
    }

    /// Makes frame `gfn` of ours RAM.
    pub fn place_ram(&self, gfn: u64) {
        self.0.borrow_mut().physmap.insert(gfn, Entry::Ram(None));
    }

    /// Gives us `pages` pages of RAM, each full of other people's data, behind all windows.
    pub fn own_ram(&self, pages: usize) -> Rc<RefCell<FrameAllocator>> {
        let mut xen = self.0.borrow_mut();
        let end = xen.machine.space().end;
        let range = end - pages * PAGE_BYTES..end;
        for gfn in Gfn::containing(range.start).0..Gfn::containing(range.end).0 {
            let frame = xen.machine.allocate();
            xen.machine.write(frame, 0, &[0xaa; PAGE_BYTES]);
            xen.machine.show(gfn, Some(frame));
            xen.physmap.insert(gfn, Entry::Ram(Some(frame)));
        }
        let mut frames = FrameAllocator::default();
        frames.add_bank(&range);
        Rc::new(RefCell::new(frames))
    }

    /// Gives us RAM of which the balloon can spare so many pages; the others are book-keeping only.
    pub fn ram_to_spare(&self, pages: usize) -> Rc<RefCell<FrameAllocator>> {
        let spared = self.own_ram(pages).borrow_mut().find_with_lent(pages, core::iter::empty()).unwrap();
        (0..FRAMES_HIGH as u64).for_each(|gfn| self.place_ram(gfn));
        let mut frames = FrameAllocator::default();
        frames.add_bank(&(0..FRAMES_HIGH * PAGE_BYTES));
        frames.add_bank(&(spared.start.address()..spared.end.address()));
        Rc::new(RefCell::new(frames))
    }

    /// Our RAM is there page by page, with tables of its own.
    pub fn break_up(&self, frames: &Rc<RefCell<FrameAllocator>>) {
        let mut xen = self.0.borrow_mut();
        let total = frames.borrow().total();
        let range = frames.borrow_mut().find_with_lent(total, core::iter::empty()).unwrap();
        (range.start.0..range.end.0).for_each(|gfn| assert!(xen.take_table(gfn)));
    }

    /// Somebody else takes all but so many of the pages that are nobody's.
    pub fn leave_free(&self, pages: usize) {
        self.0.borrow_mut().heap.truncate(pages);
    }

    /// What our frame numbers hold: RAM, pages of others, grants, and what is the hypervisor's.
    pub fn census(&self) -> [usize; 4] {
        let mut census = [0; 4];
        for entry in self.0.borrow().physmap.values() {
            census[match entry {
                Entry::Ram(_) => 0,
                Entry::Foreign { .. } => 1,
                Entry::Grant(_) => 2,
                Entry::SharedInfo | Entry::GrantTable => 3,
            }] += 1;
        }
        census
    }

    /// Makes frame `gfn` of ours RAM that lies at `bus_address` in the machine.
    pub fn place_ram_at(&self, gfn: u64, bus_address: u64) {
        self.place_ram(gfn);
        self.0.borrow_mut().grants.place(gfn, bus_address);
    }

    /// Granted pages that we have mapped.
    pub fn grant_mappings(&self) -> usize {
        self.0.borrow().grants.mapped()
    }

    /// A domain grants a page of its to us.
    pub fn grant(&self, id: DomainId, reference: u32, frame: u64, read_only: bool) {
        self.grant_to(DomainId(OWN_DOMAIN), id, reference, frame, read_only);
    }

    /// A domain grants a page of its to somebody. Nobody changes a grant that is mapped.
    pub fn grant_to(&self, to: DomainId, id: DomainId, reference: u32, frame: u64, read_only: bool) {
        let mut xen = self.0.borrow_mut();
        let old = xen.domain(id.0).grants.insert(reference, GuestGrant::new(to.0, frame, read_only));
        assert!(old.is_none_or(|old| !old.is_mapped()), "{id}: grant {reference} is still mapped");
    }

    /// A domain takes a grant back, which Xen lets it do unless it is mapped. Returns whether it could.
    pub fn revoke(&self, id: DomainId, reference: u32) -> bool {
        let mut xen = self.0.borrow_mut();
        let grants = &mut xen.domain(id.0).grants;
        if grants.get(&reference).is_some_and(GuestGrant::is_mapped) {
            return false;
        }
        grants.remove(&reference);
        true
    }

    /// From now on so many granted pages can be mapped at a time.
    pub fn set_grant_mappings_max(&self, mappings: usize) {
        self.0.borrow_mut().grants.mappings_max = mappings;
    }

    /// The page of another domain that is mapped at an address of ours.
    pub fn foreign_page(&self, address: usize) -> Option<(DomainId, u64)> {
        match self.0.borrow().physmap.get(&Gfn::containing(address).0) {
            Some(Entry::Foreign { domain, guest_frame: Some(frame), .. }) => {
                Some((DomainId(*domain), *frame))
            }
            _ => None,
        }
    }

    /// Frame numbers of ours that are not holes.
    pub fn mapped(&self) -> usize {
        self.0.borrow().physmap.len()
    }

    /// Pages of a domain that we hold.
    pub fn references(&self, id: DomainId) -> usize {
        self.0.borrow().domains.get(&id.0).map_or(0, |domain| domain.references)
    }

    /// Writes guest memory as the guest.
    pub fn write_guest(&self, id: DomainId, address: u64, data: &[u8]) {
        self.0.borrow_mut().for_each_piece(id.0, address, data.len(), |xen, frame, offset, at, bytes| {
            xen.machine.write(frame, offset, &data[at..at + bytes]);
        });
    }

    /// Reads guest memory as the guest.
    pub fn read_guest<const BYTES: usize>(&self, id: DomainId, address: u64) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        self.0.borrow_mut().for_each_piece(id.0, address, BYTES, |xen, frame, offset, at, bytes| {
            xen.machine.read(frame, offset, &mut out[at..at + bytes]);
        });
        out
    }

    /// Ioreq servers of a domain.
    pub fn servers(&self, id: DomainId) -> usize {
        self.0.borrow().domains.get(&id.0).map_or(0, |domain| domain.servers.len())
    }

    /// Addresses claimed in a domain, first and last.
    pub fn claimed(&self, id: DomainId) -> Vec<(u64, u64)> {
        let mut xen = self.0.borrow_mut();
        let mut ranges: Vec<_> =
            xen.domain(id.0).servers.values().flat_map(|server| &server.ranges).copied().collect();
        ranges.sort_unstable();
        ranges
    }

    /// Edges that an interrupt of a domain has seen.
    pub fn edges(&self, id: DomainId, interrupt: u32) -> usize {
        self.0.borrow_mut().domain(id.0).edges.get(&interrupt).copied().unwrap_or(0)
    }

    /// Event ports of ours that are open.
    pub fn open_ports(&self) -> usize {
        self.0.borrow().ports.len()
    }

    /// An event for us out of nowhere.
    pub fn raise(&self, port: Port) {
        self.0.borrow_mut().raise(port.0);
    }

    /// Takes the ports that have an event for us, lowest first.
    pub fn take_events(&self) -> Vec<Port> {
        core::mem::take(&mut self.0.borrow_mut().pending).into_iter().map(Port).collect()
    }

    /// A vCPU loads `width` bytes; whether a server takes it, else the guest gets a data abort.
    pub fn load(&self, id: DomainId, vcpu: usize, address: u64, width: u32) -> bool {
        let state = abi::ioreq::DIRECTION_READ;
        self.0.borrow_mut().access(id.0, vcpu, Slot { address, size: width, state, ..Slot::default() })
    }

    /// A vCPU stores `width` bytes; likewise.
    pub fn store(&self, id: DomainId, vcpu: usize, address: u64, width: u32, data: u64) -> bool {
        self.0.borrow_mut().access(id.0, vcpu, Slot { address, size: width, data, ..Slot::default() })
    }

    /// The guest gave pages back: its vCPU waits for every server.
    pub fn invalidate(&self, id: DomainId, vcpu: usize) {
        self.0.borrow_mut().invalidate(id.0, vcpu);
    }

    /// Puts any request into a vCPU's slot.
    pub fn request(&self, id: DomainId, server: u16, vcpu: usize, request: Slot) {
        self.0.borrow_mut().request(id.0, server, vcpu, request);
    }

    /// What a vCPU's slot holds.
    pub fn slot(&self, id: DomainId, server: u16, vcpu: usize) -> Slot {
        self.0.borrow_mut().slot(id.0, server, vcpu)
    }

    /// How the last access of a vCPU stands.
    pub fn outcome(&self, id: DomainId, vcpu: usize) -> Outcome {
        self.0.borrow_mut().outcome(id.0, vcpu)
    }
}
