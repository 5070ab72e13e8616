//! The pager: makes pages of guests reachable through the slots of the [`Window`].
//!
//! - Lookup of (domain, frame) is O(1) in a table as large as the window, whatever the guests' size.
//! - A miss maps over a page that is not needed: nothing is unmapped to make room, because each unmap flushes the TLB of
//!   all our CPUs. All misses of a call are one hypercall.
//! - The slots of each guest are a ring with a clock's hand. A guest that has its fair share takes slots from itself, and
//!   one that has less from whoever has most: who scans all its memory wears out its own slots only.
//! - A pinned slot keeps its page until the pin is given back.
//! - A page may be shown in a view ([`super::view`]) without a pin. It is hidden there before its slot holds another, and
//!   when the hand takes its mark away: so its next use is a fault, which costs no hypercall and sets the mark again.
//! - Pages are unmapped when their guest goes away or gave pages back (`IOREQ_TYPE_INVALIDATE`), and when we need the RAM
//!   that a slot is made of.
//!
//! | file | job |
//! |---|---|
//! | `slot` | what is known of a slot |
//! | `holder` | the slots of a guest, and which of them goes first |
//! | `reclaim` | slots that are made RAM again |

use alloc::rc::Rc;
use alloc::vec::Vec;

use drivers::guest::MemoryError;
use smallvec::SmallVec;

use super::address::GuestFrame;
use super::physmap::{ForeignPage, MAP_BATCH, SlotIndex, Window};
use crate::limits::{LEFT_OVER_PORTION, PAGE_BYTES, SLOTS_PER_DEVICE_MIN, STALE_PORTION};
use crate::restart::watchdog;
use crate::xen::DomainId;
use crate::xen::hypercall::Errno;
use crate::xen::memory::REMOVE_BATCH;

mod holder;
mod reclaim;
mod slot;

use holder::Holder;
use slot::{NONE, Slot};

/// Behind which every guest comes that has slots.
const BEYOND_ALL: (usize, usize) = (usize::MAX, usize::MAX);

/// Slots pinned for one user. Small requests need no memory from the heap.
pub type PinnedSlots = SmallVec<[u32; 4]>;

/// What the pager has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pages found in a slot.
    pub hits: u64,
    /// Pages that had to be mapped.
    pub misses: u64,
    /// Of these, how many replaced another page.
    pub evictions: u64,
    /// Hypercalls that mapped pages.
    pub map_calls: u64,
    /// Pages that could not be mapped.
    pub failures: u64,
    /// Pages that were unmapped.
    pub unmapped: u64,
}

/// Who shows pages in views ([`super::view`]).
pub trait Viewer {
    /// Hides a page, if it is to be seen anywhere: its slot is about to hold another. Called while the pager is borrowed.
    fn hide(&self, page: ForeignPage);
}

/// Pages of one guest that are looked up, and mapped, together.
struct Pass {
    domain: DomainId,
    /// Nobody waits for the pages: they are no reason to take from a guest what is its fair share.
    is_hint: bool,
    /// The slots of the first page and of the last one so far: where a request ends is often in the page that it begins in, and pages that
    /// follow each other were often mapped one after the other.
    ends: [SlotIndex; 2],
    /// The first page that could not be mapped.
    failure: Option<MemoryError>,
    /// The window has become smaller.
    shrunk: bool,
}

impl Pass {
    fn new(domain: DomainId, is_hint: bool) -> Self {
        Self { domain, is_hint, ends: [NONE as usize; 2], failure: None, shrunk: false }
    }

    /// A page is in `slot`, or will be.
    #[inline]
    fn found(&mut self, slot: SlotIndex) {
        let first = if self.ends[0] == NONE as usize { slot } else { self.ends[0] };
        self.ends = [first, slot];
    }
}

/// Guests' pages in slots.
pub struct Pager {
    window: Window,
    slots: Vec<Slot>,
    /// First slot of each hash; a power of two of them.
    heads: Vec<u32>,
    hash_bits: u32,
    /// First of the slots that hold nothing.
    empty: u32,
    holders: Vec<Holder>,
    /// Of these, how many have devices.
    guests: usize,
    viewer: Option<Rc<dyn Viewer>>,
    counters: Counters,
    /// Work space of [`Self::map_assigned`], with room for a whole batch: guests can bring it about at any time.
    failures: Vec<(SlotIndex, ForeignPage, Errno)>,
}

impl Pager {
    /// A pager over an empty window.
    #[must_use]
    pub fn new(window: Window) -> Self {
        let count = window.capacity();
        let hashes = count.max(2).next_power_of_two();
        let mut failures = Vec::new();
        failures.reserve_exact(MAP_BATCH);
        Self {
            slots: alloc::vec![Slot::default(); count],
            heads: alloc::vec![NONE; hashes],
            hash_bits: hashes.trailing_zeros(),
            empty: NONE,
            holders: Vec::new(),
            guests: 0,
            viewer: None,
            counters: Counters::default(),
            failures,
            window,
        }
    }

    /// From now on `viewer` hides what [`Self::show`] lets be seen.
    pub fn set_viewer(&mut self, viewer: Rc<dyn Viewer>) {
        self.viewer = Some(viewer);
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Where the pages are.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Slots that may be used: all, or fewer once Xen had no memory for our page tables.
    #[must_use]
    #[inline]
    pub fn usable(&self) -> usize {
        self.window.usable()
    }

    /// Slots that a guest keeps whatever others do.
    #[inline]
    fn fair_share(&self) -> usize {
        self.window.usable() / self.guests.max(1)
    }

    /// Slots that each device of a guest may pin.
    #[must_use]
    pub fn share(&self, domain: DomainId) -> usize {
        let devices = self.holder_of(domain).map_or(1, |of| of.devices);
        self.fair_share() / devices.max(1)
    }

    /// Whether a guest may have a device more: each device must have what it cannot do without.
    #[must_use]
    pub fn has_room_for_device(&self, domain: DomainId) -> bool {
        let of_guest = self.holder_of(domain).map_or(0, |of| of.devices);
        let guests = self.guests + usize::from(of_guest == 0);
        let most = self.holders.iter().map(|holder| holder.devices).max().unwrap_or(0).max(of_guest + 1);
        self.usable() / guests / most >= SLOTS_PER_DEVICE_MIN
    }

    /// From now on a guest has a device more.
    pub fn device_came(&mut self, domain: DomainId) {
        let holder = self.holder(domain);
        if let Some(holder) = self.holders.get_mut(holder) {
            self.guests += usize::from(holder.devices == 0);
            holder.devices += 1;
        }
    }

    /// From now on a guest has a device less.
    pub fn device_left(&mut self, domain: DomainId) {
        let holder = self.holder(domain);
        if let Some(holder) = self.holders.get_mut(holder) {
            self.guests -= usize::from(holder.devices == 1);
            holder.devices = holder.devices.saturating_sub(1);
        }
        self.dismiss(holder);
    }

    /// Slots that hold a page.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.window.mapped()
    }

    /// Slots that a guest has.
    #[must_use]
    pub fn held(&self, domain: DomainId) -> usize {
        self.holder_of(domain).map_or(0, |holder| holder.count)
    }

    /// Slots that are pinned.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_pinned()).count()
    }

    /// Address of the first byte of a slot.
    #[must_use]
    pub fn address(&self, slot: u32) -> usize {
        self.window.address(slot as usize)
    }

    /// Pins pages of `domain`, mapping those that are missing. The slots are appended to `slots` in order.
    ///
    /// # Errors
    /// All or nothing: on error nothing is pinned and `slots` is as it was.
    pub fn pin(
        &mut self,
        domain: DomainId,
        frames: &(impl Iterator<Item = GuestFrame> + Clone),
        slots: &mut PinnedSlots,
    ) -> Result<(), MemoryError> {
        let start = slots.len();
        loop {
            let mut pass = Pass::new(domain, false);
            let result = frames.clone().try_for_each(|frame| {
                let slot = self.find_or_assign(&mut pass, frame)?;
                if let Some(state) = self.slots.get_mut(slot) {
                    state.pin();
                }
                slots.push(slot as u32);
                Ok(())
            });
            self.map_assigned(&mut pass);
            let Err(error) = result.and(pass.failure.map_or(Ok(()), Err)) else { return Ok(()) };
            for slot in slots.drain(start..) {
                self.unpin(slot);
            }
            // Xen had no memory for one of our tables: the window is smaller now, try with what is left of it.
            if !pass.shrunk || self.usable() == 0 {
                return Err(error);
            }
        }
    }

    /// Maps those pages of `domain` that are missing. A hint: failure shows when they are pinned.
    pub fn prefetch(&mut self, domain: DomainId, frames: impl Iterator<Item = GuestFrame>) {
        let mut pass = Pass::new(domain, true);
        for frame in frames {
            let Ok(slot) = self.find_or_assign(&mut pass, frame) else { break };
            if let Some(state) = self.slots.get_mut(slot) {
                state.reference();
            }
        }
        self.map_assigned(&mut pass);
    }

    /// Gives one pin of a slot back.
    #[inline]
    pub fn unpin(&mut self, slot: u32) {
        let Some(state) = self.slots.get_mut(slot as usize) else { return };
        state.unpin();
        if !state.is_listed() && !state.is_pinned() {
            self.note_stale(slot as usize);
        }
    }

    /// Whether a page is in a slot.
    #[must_use]
    pub fn holds(&self, page: ForeignPage) -> bool {
        self.find(page).is_some()
    }

    /// Lets a page be seen in a view, until the viewer is told to hide it. Returns its address, if it is in a slot and was
    /// used lately.
    pub fn show(&mut self, page: ForeignPage) -> Option<usize> {
        let slot = self.find(page)?;
        let state = self.slots.get_mut(slot).filter(|state| state.is_referenced())?;
        state.set_shown(true);
        Some(self.window.address(slot))
    }

    /// Unmaps all pages of `domain` that are not pinned, and finds none of them again. Returns how many are pinned.
    pub fn forget(&mut self, domain: DomainId) -> usize {
        let holder = self.holder(domain);
        let mut kept = 0;
        self.sweep(holder, |pager, slot| {
            // Not to be found any more, pinned or not: the guest may have another page at this frame by now.
            pager.conceal(slot);
            let pinned = pager.is_pinned(slot);
            kept += usize::from(pinned);
            !pinned
        });
        self.dismiss(holder);
        // Some of what an earlier life of this kernel left may be its pages.
        while self.window.clean(REMOVE_BATCH) {
            watchdog::turned();
        }
        kept
    }

    /// Unmaps some of the pages that an earlier life of this kernel left. Returns whether there are more.
    pub fn clean(&mut self) -> bool {
        self.window.clean(LEFT_OVER_PORTION)
    }

    /// Finds no page of `domain` again: the guest may have other pages at their frames by now. They are unmapped, those that
    /// are pinned when they are no longer, by [`Self::drop_stale`].
    pub fn distrust(&mut self, domain: DomainId) {
        let holder = self.holder(domain);
        self.sweep(holder, |pager, slot| {
            pager.conceal(slot);
            false
        });
        if let Some(holder) = self.holders.get_mut(holder) {
            holder.stale = true;
        }
    }

    /// Unmaps some of the pages that their guest gave back, as far as they are not pinned. Costs nothing when there are none.
    pub fn drop_stale(&mut self) {
        let mut left = STALE_PORTION;
        while let Some(holder) = self.holders.iter().position(|holder| holder.stale) {
            self.sweep(holder, |pager, slot| {
                let is_stale = pager.slots.get(slot).is_some_and(Slot::is_stale) && left > 0;
                left -= usize::from(is_stale);
                is_stale
            });
            if left == 0 {
                // There may be more, for the next time.
                return;
            }
            self.holders.get_mut(holder).into_iter().for_each(|of| of.stale = false);
            self.dismiss(holder);
        }
    }

    /// The slot of a page, which is mapped there, or will be by [`Self::map_assigned`].
    #[inline]
    fn find_or_assign(&mut self, pass: &mut Pass, frame: GuestFrame) -> Result<SlotIndex, MemoryError> {
        let not_mapped = MemoryError::NotMapped(frame.0.wrapping_mul(PAGE_BYTES as u64));
        let page = ForeignPage::new(pass.domain, frame).ok_or(not_mapped)?;
        let [first, last] = pass.ends;
        let slot = if self.is_found_at(last.wrapping_add(1), page) {
            last.wrapping_add(1)
        } else if self.is_found_at(first, page) {
            first
        } else if let Some(slot) = self.find(page) {
            slot
        } else {
            let slot = self.assign(pass, page)?;
            pass.found(slot);
            return Ok(slot);
        };
        self.counters.hits += 1;
        pass.found(slot);
        Ok(slot)
    }

    /// A slot for a page that is in none.
    fn assign(&mut self, pass: &mut Pass, page: ForeignPage) -> Result<SlotIndex, MemoryError> {
        self.counters.misses += 1;
        if self.window.is_full() {
            self.map_assigned(pass);
            pass.failure.map_or(Ok(()), Err)?;
        }
        let slot = self.acquire(pass).ok_or(MemoryError::Exhausted)?;
        self.leave_slot(slot);
        let replaces = self.window.page(slot).is_some();
        if !self.window.begin(slot, page) {
            self.settle(slot);
            return Err(MemoryError::Exhausted);
        }
        self.counters.evictions += u64::from(replaces);
        self.list(slot);
        Ok(slot)
    }

    /// Maps what [`Self::find_or_assign`] assigned: until then these slots are in no ring. Those that could not be mapped
    /// are what they were before.
    fn map_assigned(&mut self, pass: &mut Pass) {
        if self.window.begun() == 0 {
            return;
        }
        self.counters.map_calls += 1;
        let mut failures = core::mem::take(&mut self.failures);
        let holder = self.holder(pass.domain);
        let (slots, holder) = (&mut self.slots, self.holders.get_mut(holder));
        // Not reached: it was made just now.
        let Some(holder) = holder else { return };
        let shrunk = self.window.commit(pass.domain, |slot, page, result| match result {
            Ok(()) => holder.join(slots, slot),
            Err(errno) => failures.push((slot, page, errno)),
        });
        self.counters.failures += failures.len() as u64;
        for (slot, page, errno) in &failures {
            pass.failure.get_or_insert(match *errno {
                Errno::ENOMEM | Errno::ENOENT => MemoryError::Exhausted,
                _ => MemoryError::NotMapped(page.frame().0.wrapping_mul(PAGE_BYTES as u64)),
            });
            self.unlist_as(*slot, *page);
        }
        for (slot, _, _) in failures.drain(..) {
            self.settle(slot);
        }
        self.failures = failures;
        if shrunk {
            pass.shrunk = true;
            log::warn!(
                "pager: Xen has no memory left for our page tables (p2m pool): window reduced to {} pages; \
                 shadow_memory= in the domain's configuration gives more",
                self.usable()
            );
        }
    }

    /// A slot for a page of the pass's guest, taken out of wherever it was.
    fn acquire(&mut self, pass: &Pass) -> Option<SlotIndex> {
        if let Some(slot) = self.take_empty() {
            return Some(slot);
        }
        let (slots, empty) = (&mut self.slots, &mut self.empty);
        if self.window.grow(|slot| push(slots, empty, slot)) {
            return self.take_empty();
        }
        let own = self.holder(pass.domain);
        let has = self.holders.get(own)?.count + self.window.begun();
        let share = self.fair_share();
        // Who has less than its share takes from those who have more, ...
        let above = if has < share { self.victim_of_richest(share) } else { None };
        let slot = above.or_else(|| self.victim(own));
        // ... and for what is waited for, from anybody: pins are limited elsewhere.
        if slot.is_some() || pass.is_hint { slot } else { self.victim_of_richest(0) }
    }

    /// A slot of the richest guest that can spare one, among those who have more than `least`.
    fn victim_of_richest(&mut self, least: usize) -> Option<SlotIndex> {
        let mut last = BEYOND_ALL;
        while let Some((count, holder)) = self.richest_below(last).filter(|(count, _)| *count > least) {
            let slot = self.victim(holder);
            if slot.is_some() {
                return slot;
            }
            last = (count, holder);
        }
        None
    }

    /// The guest with most slots behind `last`, in the order of that: how many it has, and where it is.
    fn richest_below(&self, last: (usize, usize)) -> Option<(usize, usize)> {
        let holders = self.holders.iter().enumerate().map(|(index, holder)| (holder.count, index));
        holders.filter(|place| *place < last).max()
    }

    /// The next slot of a guest that is neither pinned nor used lately, taken out of its ring; two turns find one if
    /// there is any.
    fn victim(&mut self, holder: usize) -> Option<SlotIndex> {
        let (viewer, window) = (self.viewer.as_deref(), &self.window);
        self.holders.get_mut(holder)?.take_victim(&mut self.slots, |slot| hide(viewer, window, slot))
    }

    /// Takes those slots out of a guest's ring, and unmaps them, where `leaves(self, slot)` says so.
    fn sweep(&mut self, holder: usize, mut leaves: impl FnMut(&mut Self, SlotIndex) -> bool) {
        let Some(of) = self.holders.get_mut(holder) else { return };
        let (count, mut slot) = (of.count, of.first(&self.slots));
        (of.count, of.hand) = (0, NONE);
        let mut leaving: SmallVec<[SlotIndex; REMOVE_BATCH]> = SmallVec::new();
        for _ in 0..count {
            let next = self.slots.get(slot as usize).map_or(NONE, |state| state.ring);
            if leaves(self, slot as usize) {
                self.leave_slot(slot as usize);
                leaving.push(slot as usize);
                if leaving.len() == REMOVE_BATCH {
                    self.unmap(&leaving);
                    leaving.clear();
                }
            } else if let Some(of) = self.holders.get_mut(holder) {
                of.join(&mut self.slots, slot as usize);
            }
            slot = next;
        }
        self.unmap(&leaving);
    }

    /// Unmaps slots that are in no ring and cannot be found.
    fn unmap(&mut self, slots: &[SlotIndex]) {
        self.window.unmap(slots);
        for slot in slots {
            self.counters.unmapped += 1;
            if let Some(state) = self.slots.get_mut(*slot) {
                state.set_was_listed(false);
            }
            self.settle(*slot);
        }
    }

    /// Puts a slot that is in no ring where it belongs by what it holds.
    fn settle(&mut self, slot: SlotIndex) {
        let Some(page) = self.window.page(slot) else {
            if !self.window.abandon(slot) {
                self.add_empty(slot);
            }
            return;
        };
        let was_listed = self.slots.get(slot).is_some_and(Slot::was_listed);
        // A page that had to go may have been asked for later in the same pass: it is found there then, and stale here.
        let is_elsewhere = was_listed && self.find(page).is_some();
        if was_listed && !is_elsewhere {
            self.list(slot);
        }
        let holder = self.holder(page.domain());
        if let Some(holder) = self.holders.get_mut(holder) {
            holder.join(&mut self.slots, slot);
            holder.stale |= is_elsewhere;
        }
    }

    /// The page of a slot, which is in no ring any more, is neither found nor shown from now on.
    fn leave_slot(&mut self, slot: SlotIndex) {
        let Some(state) = self.slots.get_mut(slot) else { return };
        let listed = state.is_listed();
        state.set_was_listed(listed);
        self.conceal(slot);
    }

    /// The page of a slot is neither found nor shown from now on.
    fn conceal(&mut self, slot: SlotIndex) {
        let Some(state) = self.slots.get_mut(slot) else { return };
        if state.is_shown() {
            state.set_shown(false);
            hide(self.viewer.as_deref(), &self.window, slot);
        }
        self.unlist(slot);
    }

    fn note_stale(&mut self, slot: SlotIndex) {
        if let Some(page) = self.window.page(slot)
            && let Some(holder) = self.holders.iter_mut().find(|holder| holder.domain == page.domain())
        {
            holder.stale = true;
        }
    }

    fn is_pinned(&self, slot: SlotIndex) -> bool {
        self.slots.get(slot).is_some_and(Slot::is_pinned)
    }

    fn holder_of(&self, domain: DomainId) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.domain == domain)
    }

    /// Where the ring of a guest is, made if there is none.
    fn holder(&mut self, domain: DomainId) -> usize {
        let known = self.holders.iter().position(|holder| holder.domain == domain);
        known.unwrap_or_else(|| {
            self.holders.push(Holder::new(domain));
            self.holders.len() - 1
        })
    }

    /// Forgets a guest that has neither devices nor slots.
    fn dismiss(&mut self, holder: usize) {
        if self.holders.get(holder).is_some_and(|of| of.devices == 0 && of.count == 0) {
            self.holders.swap_remove(holder);
        }
    }

    fn add_empty(&mut self, slot: SlotIndex) {
        push(&mut self.slots, &mut self.empty, slot);
    }

    fn take_empty(&mut self) -> Option<SlotIndex> {
        let slot = self.empty as usize;
        self.empty = core::mem::replace(&mut self.slots.get_mut(slot)?.next, NONE);
        Some(slot)
    }

    /// Whether [`Self::find`] would find a page in `slot`.
    #[inline]
    fn is_found_at(&self, slot: SlotIndex, page: ForeignPage) -> bool {
        self.window.page(slot) == Some(page) && self.slots.get(slot).is_some_and(Slot::is_listed)
    }

    #[inline]
    fn find(&self, page: ForeignPage) -> Option<SlotIndex> {
        let mut slot = *self.heads.get(page.hash(self.hash_bits))?;
        while let Some(state) = self.slots.get(slot as usize) {
            if self.window.page(slot as usize) == Some(page) {
                return Some(slot as usize);
            }
            slot = state.next;
        }
        None
    }

    /// Lets a slot be found by what it holds, or is to hold.
    fn list(&mut self, slot: SlotIndex) {
        let Some(page) = self.window.page(slot) else { return };
        let Some(head) = self.heads.get_mut(page.hash(self.hash_bits)) else { return };
        if let Some(state) = self.slots.get_mut(slot) {
            state.set_listed(true);
            state.next = *head;
            *head = slot as u32;
        }
    }

    fn unlist(&mut self, slot: SlotIndex) {
        if let Some(page) = self.window.page(slot) {
            self.unlist_as(slot, page);
        }
    }

    fn unlist_as(&mut self, slot: SlotIndex, page: ForeignPage) {
        let Some(state) = self.slots.get_mut(slot).filter(|state| state.is_listed()) else { return };
        state.set_listed(false);
        let next = core::mem::replace(&mut state.next, NONE);
        let Some(head) = self.heads.get_mut(page.hash(self.hash_bits)) else { return };
        if *head == slot as u32 {
            *head = next;
            return;
        }
        let mut previous = *head as usize;
        while let Some(state) = self.slots.get_mut(previous) {
            if state.next == slot as u32 {
                state.next = next;
                return;
            }
            previous = state.next as usize;
        }
    }
}

/// Hides what a slot holds.
fn hide(viewer: Option<&dyn Viewer>, window: &Window, slot: SlotIndex) {
    if let (Some(viewer), Some(page)) = (viewer, window.page(slot)) {
        viewer.hide(page);
    }
}

/// Adds a slot to the empty ones.
fn push(slots: &mut [Slot], empty: &mut u32, slot: SlotIndex) {
    if let Some(state) = slots.get_mut(slot) {
        state.next = core::mem::replace(empty, slot as u32);
    }
}

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "foreign_exhaustive_tests.rs"]
mod exhaustive_tests;
