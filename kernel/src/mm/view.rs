//! Map on fault: a guest's whole memory as one range of addresses, in which a page appears when it is touched.
//!
//! The byte at guest address `a` is at `base(view) + a`, in the upper half of our address space. A page that is not there
//! yet is a data abort; [`Views::fault`], called from it, asks the [`Pager`] for the page and its neighbours, shows at
//! that address the slots that they are in, and the access is made again. When the page cannot be had, the copy that
//! wanted it fails. So a copy that finds its pages looks nothing up, pins nothing and calls nobody.
//!
//! Rules:
//! - **Nobody may hold a borrow of the pager, or of the heap, while it touches a view**: the fault needs both. One that
//!   finds the pager borrowed makes the copy fail.
//! - A page is seen only while its slot is found by it: the pager hides it before ([`Viewer`]).
//! - Views never pin, but in a copy that has faulted: the last two pages that it faulted for stay until it is done, and
//!   so do the tables on the way to them. An access across a border needs both pages at once; else one might push out
//!   the other for ever.
//! - A view for reading is so in stage 1: a store is refused, whether the page is there or not. In stage 2 alone it
//!   would never end: Xen lets the access be made again.
//! - Armv8.0 does not tell which pages were used. So the pager's clock hides a page when it takes its mark; the next use
//!   is a fault without a hypercall. Tables are seen to be used by faults alone ([`crate::arch::view_tables`]).

use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Range;

use drivers::guest::{GuestAddress, MemoryError};
use smallvec::SmallVec;

use super::address::GuestFrame;
use super::foreign::{Pager, PinnedSlots, Viewer};
use super::physmap::ForeignPage;
pub use crate::arch::view_tables::Access;
use crate::arch::view_tables::{TABLE_SPAN, Tables, Translation, UPPER_HALF};
use crate::limits::PAGE_BYTES;
use crate::xen::DomainId;

/// Addresses of one view: from there on a guest can have no RAM (Xen's public/arch-arm.h, GUEST_RAM1).
pub const VIEW_BYTES: usize = 1 << 40;
/// Views that there can be: no address of one is the last of all.
const VIEWS_MAX: usize = usize::MAX / VIEW_BYTES - UPPER_HALF / VIEW_BYTES;
/// Pages that one instruction of a copy may need in a view.
const PAGES_AT_ONCE: usize = 2;

/// What views ask of the CPU.
pub trait Mmu: Translation {
    /// Copies from the view address `address` to `out`; false when a page of it could not be had.
    ///
    /// # Safety
    /// The addresses lie in one view. Nothing is borrowed that a fault needs, or it fails.
    unsafe fn read(&self, address: usize, out: &mut [u8]) -> bool;

    /// Copies `data` to the view address `address`, likewise.
    ///
    /// # Safety
    /// As [`Self::read`].
    unsafe fn write(&self, address: usize, data: &[u8]) -> bool;
}

/// What views have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Accesses to pages that were not shown.
    pub faults: u64,
    /// Of these, how many made the pager call the hypervisor.
    pub map_faults: u64,
    /// Of these, how many failed.
    pub failures: u64,
    /// Pages hidden because their slot was wanted, or to see whether they are still used.
    pub hidden: u64,
    /// Page tables taken from one place to serve at another.
    pub table_reclaims: u64,
}

/// All views, on one pager.
pub struct Views<M: Mmu> {
    mmu: M,
    pager: Weak<RefCell<Pager>>,
    /// How many page tables there may be.
    tables: usize,
    state: RefCell<State>,
    /// The copy under way has faulted: there may be pins, and a reason why it failed.
    faulted: Cell<bool>,
}

#[derive(Default)]
struct State {
    views: Vec<Option<Entry>>,
    /// From the first view on.
    tables: Option<Tables>,
    /// What the copy under way faulted for last: slots, pinned for it, and addresses in the view.
    held: SmallVec<[(u32, usize); PAGES_AT_ONCE]>,
    failure: Option<MemoryError>,
    counters: Counters,
}

impl State {
    /// Takes out what is held longest, if there is no place for more.
    fn older(&mut self) -> Option<u32> {
        (self.held.len() == PAGES_AT_ONCE).then(|| self.held.remove(0).0)
    }
}

/// A view: of what, and for how many.
#[derive(Clone, Copy)]
struct Entry {
    domain: DomainId,
    access: Access,
    fault_around: usize,
    users: usize,
}

/// First address of a view.
const fn base(index: usize) -> usize {
    UPPER_HALF + index * VIEW_BYTES
}

impl<M: Mmu> Views<M> {
    /// None yet; at most `tables` page tables, taken from the heap for the first. There must be one of these on
    /// a CPU.
    #[must_use]
    pub fn new(pager: &Rc<RefCell<Pager>>, mmu: M, tables: usize) -> Rc<Self>
    where
        M: 'static,
    {
        let state = RefCell::default();
        let views =
            Rc::new(Self { mmu, pager: Rc::downgrade(pager), tables, state, faulted: Cell::default() });
        pager.borrow_mut().set_viewer(views.clone());
        views
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let state = self.state.borrow();
        Counters { table_reclaims: state.tables.as_ref().map_or(0, Tables::reclaimed), ..state.counters }
    }

    /// Page tables in use.
    #[must_use]
    pub fn tables_used(&self) -> usize {
        self.state.borrow().tables.as_ref().map_or(0, Tables::used)
    }

    /// Brings the page at a view address, which an access wanted and did not find. Returns whether the access is to be
    /// made again; else it fails.
    ///
    /// Runs in an exception: whatever is borrowed then stays so, and makes it fail.
    pub fn fault(&self, address: usize, is_store: bool) -> bool {
        self.faulted.set(true);
        let result = self.bring(address, is_store);
        if let (Err(error), Ok(mut state)) = (result, self.state.try_borrow_mut()) {
            state.counters.failures += 1;
            state.failure = Some(error);
        }
        result.is_ok()
    }

    fn bring(&self, address: usize, is_store: bool) -> Result<(), MemoryError> {
        let distance = address.checked_sub(UPPER_HALF).ok_or(MemoryError::OutOfRange)?;
        let (index, guest_address) = (distance / VIEW_BYTES, distance % VIEW_BYTES);
        let refused = MemoryError::NotMapped(guest_address as u64);
        let entry = {
            let mut state = self.state.try_borrow_mut().map_err(|_| refused)?;
            state.counters.faults += 1;
            *state.views.get(index).and_then(Option::as_ref).ok_or(refused)?
        };
        if is_store && entry.access == Access::ReadOnly {
            return Err(MemoryError::OutOfRange);
        }
        let pager = self.pager.upgrade().ok_or(refused)?;
        let mut pager = pager.try_borrow_mut().map_err(|_| refused)?;
        // The access may need the page that the last fault was for, but none before.
        let older = self.state.try_borrow_mut().map_err(|_| refused)?.older();
        if let Some(slot) = older {
            pager.unpin(slot);
        }

        // The page and its neighbours into slots, the page first. Pages may get hidden by that, so nothing of ours is
        // borrowed meanwhile.
        let page = guest_address / PAGE_BYTES;
        let first = page - page % entry.fault_around;
        let block = first..first + entry.fault_around;
        let frame = |page: usize| GuestFrame(page as u64);
        let foreign = |page: usize| ForeignPage::new(entry.domain, frame(page));
        let calls = pager.counters().map_calls;
        if !foreign(page).is_some_and(|page| pager.holds(page)) {
            let neighbours = block.clone().filter(|neighbour| *neighbour != page);
            pager.prefetch(entry.domain, core::iter::once(page).chain(neighbours).map(frame));
        }
        let mut slots = PinnedSlots::new();
        let pinned = pager.pin(entry.domain, &core::iter::once(frame(page)), &mut slots);
        let has_called = pager.counters().map_calls != calls;

        let mut state = self.state.try_borrow_mut().map_err(|_| refused)?;
        let State { tables, held, counters, .. } = &mut *state;
        counters.map_faults += u64::from(has_called);
        pinned?;
        held.extend(slots.iter().map(|slot| (*slot, address)));

        // And into view.
        let tables = tables.as_mut().ok_or(refused)?;
        let kept: SmallVec<[usize; PAGES_AT_ONCE]> = held.iter().map(|(_, address)| *address).collect();
        if !tables.make_way(address, &kept, &self.mmu) {
            return Err(MemoryError::Exhausted);
        }
        for page in block {
            if let Some(slot) = foreign(page).and_then(|page| pager.show(page)) {
                tables.set(base(index) + page * PAGE_BYTES, slot, entry.access, &self.mmu);
            }
        }
        self.mmu.publish();
        Ok(())
    }

    /// After a copy that has faulted: nothing is held for it any more. Returns why it failed, if it did.
    #[cold]
    fn settle(&self) -> Option<MemoryError> {
        self.faulted.set(false);
        let mut state = self.state.borrow_mut();
        if let (false, Some(pager)) = (state.held.is_empty(), self.pager.upgrade()) {
            let mut pager = pager.borrow_mut();
            state.held.drain(..).for_each(|(slot, _)| pager.unpin(slot));
        }
        state.failure.take()
    }

    /// The place of a view, a new one if there is none like it.
    fn open(&self, wanted: Entry) -> Result<usize, MemoryError> {
        let mut state = self.state.borrow_mut();
        if state.tables.is_none() {
            let tables = Tables::new(self.tables).ok_or(MemoryError::Exhausted)?;
            self.mmu.start(tables.root());
            state.tables = Some(tables);
        }
        let views = &mut state.views;
        for (index, entry) in views.iter_mut().enumerate() {
            if let Some(entry) = entry
                && (entry.domain, entry.access, entry.fault_around)
                    == (wanted.domain, wanted.access, wanted.fault_around)
            {
                entry.users += 1;
                return Ok(index);
            }
        }
        let index = views.iter().position(Option::is_none).unwrap_or(views.len());
        if index == VIEWS_MAX || index == views.len() && views.try_reserve(1).is_err() {
            return Err(MemoryError::Exhausted);
        }
        match views.get_mut(index) {
            Some(place) => *place = Some(wanted),
            None => views.push(Some(wanted)),
        }
        Ok(index)
    }

    /// One user less; without any, nothing is shown there any more.
    fn close(&self, index: usize) {
        let mut state = self.state.borrow_mut();
        let State { views, tables, .. } = &mut *state;
        let Some(place) = views.get_mut(index) else { return };
        if let Some(entry) = place {
            entry.users -= 1;
            if entry.users > 0 {
                return;
            }
        }
        let closed = place.take();
        if let Some(tables) = tables {
            tables.clear_all(&(base(index)..base(index + 1)), &self.mmu);
        }
        drop(state);
        if let Some(Entry { domain, .. }) = closed {
            log::debug!("{domain}: view closed; all views so far: {:?}", self.counters());
        }
    }
}

impl<M: Mmu> Viewer for Views<M> {
    fn hide(&self, page: ForeignPage) {
        let offset = page.frame().0 as usize * PAGE_BYTES;
        let mut state = self.state.borrow_mut();
        let State { views, tables: Some(tables), counters, .. } = &mut *state else { return };
        for (index, entry) in views.iter().enumerate() {
            if entry.is_some_and(|entry| entry.domain == page.domain()) && offset < VIEW_BYTES {
                counters.hidden += u64::from(tables.clear(base(index) + offset, &self.mmu));
            }
        }
    }
}

/// A view of one guest's memory. Views of the same memory in the same way are one.
pub struct View<M: Mmu> {
    views: Rc<Views<M>>,
    index: usize,
}

impl<M: Mmu> View<M> {
    /// The memory of `domain`. A fault maps the aligned block of `fault_around` pages (a power of two is made of it, up
    /// to a table's 512).
    ///
    /// # Errors
    /// [`MemoryError::Exhausted`] when there is no memory for page tables, or no place for one more.
    pub fn new(
        views: &Rc<Views<M>>,
        domain: DomainId,
        access: Access,
        fault_around: usize,
    ) -> Result<Self, MemoryError> {
        let fault_around = fault_around.clamp(1, TABLE_SPAN / PAGE_BYTES).next_power_of_two();
        let index = views.open(Entry { domain, access, fault_around, users: 1 })?;
        Ok(Self { views: views.clone(), index })
    }

    /// Copies guest bytes from `address` on to `out`. The pager must not be borrowed.
    ///
    /// # Errors
    /// [`MemoryError`] when a page cannot be had; `out` is then unspecified.
    pub fn read(&self, address: GuestAddress, out: &mut [u8]) -> Result<(), MemoryError> {
        let place = self.place(address, out.len())?;
        // SAFETY: `place` checked that all of it lies in this view.
        let done = unsafe { self.views.mmu.read(place.start, out) };
        self.conclude(done, address)
    }

    /// Copies `data` to guest bytes from `address` on. The pager must not be borrowed.
    ///
    /// # Errors
    /// [`MemoryError`] when a page cannot be had, or [`MemoryError::OutOfRange`] when the view is for reading; a part may
    /// have been written in the first case.
    pub fn write(&self, address: GuestAddress, data: &[u8]) -> Result<(), MemoryError> {
        let place = self.place(address, data.len())?;
        // SAFETY: as in `read`.
        let done = unsafe { self.views.mmu.write(place.start, data) };
        self.conclude(done, address)
    }

    /// Where the bytes are, which must lie in what a view has.
    fn place(&self, address: GuestAddress, length: usize) -> Result<Range<usize>, MemoryError> {
        let start = address.0 as usize;
        let end = start.checked_add(length).filter(|end| *end <= VIEW_BYTES);
        end.map(|end| base(self.index) + start..base(self.index) + end)
            .ok_or(MemoryError::NotMapped(address.0))
    }

    fn conclude(&self, done: bool, address: GuestAddress) -> Result<(), MemoryError> {
        let failure = if self.views.faulted.get() { self.views.settle() } else { None };
        if done { Ok(()) } else { Err(failure.unwrap_or(MemoryError::NotMapped(address.0))) }
    }
}

impl<M: Mmu> Drop for View<M> {
    fn drop(&mut self) {
        self.views.close(self.index);
    }
}

#[cfg(target_os = "none")]
mod running {
    use super::{Pager, Rc, RefCell, Views};
    use crate::arch::single_core::SingleCore;
    use crate::arch::view_mmu::Hardware;

    static VIEWS: SingleCore<Option<Rc<Views<Hardware>>>> = SingleCore::new(None);

    /// Makes the views of this domain possible, on its pager, with so many page tables. Those on another pager must be
    /// gone.
    pub fn init(pager: &Rc<RefCell<Pager>>, tables: usize) {
        if let Some(mut views) = VIEWS.try_borrow() {
            *views = Some(Views::new(pager, Hardware, tables));
        }
    }

    /// The views of this domain.
    #[must_use]
    pub fn running() -> Option<Rc<Views<Hardware>>> {
        VIEWS.try_borrow()?.clone()
    }

    /// [`Views::fault`] of the views of this domain.
    pub fn fault(address: usize, is_store: bool) -> bool {
        running().is_some_and(|views| views.fault(address, is_store))
    }
}
#[cfg(target_os = "none")]
pub use running::{fault, init, running};

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
