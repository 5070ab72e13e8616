//! The pager: makes pages of guests reachable through the slots of the [`Window`].
//!
//! - Lookup of (domain, frame) is O(1) in a table as large as the window, whatever the guests' size.
//! - A miss takes a victim by CLOCK over unpinned slots and maps over it: nothing is unmapped to make room, because
//!   each unmap flushes the TLB of all our CPUs. All misses of a call are one hypercall.
//! - A pinned slot keeps its page until the pin is given back.
//! - Pages are unmapped when their guest goes away or gave pages back (`IOREQ_TYPE_INVALIDATE`).
//! - A page may be shown in a view ([`super::view`]) without a pin. It is hidden there before its slot is found by another
//!   page, or by none.

use alloc::rc::Rc;
use alloc::vec::Vec;

use drivers::guest::MemoryError;
use smallvec::SmallVec;

use super::address::GuestFrame;
use super::physmap::{ForeignPage, MAP_BATCH, SlotIndex, Window};
use crate::limits::PAGE_BYTES;
use crate::xen::DomainId;
use crate::xen::hypercall::Errno;

/// End of a chain in the lookup table.
const NONE: u32 = u32::MAX;
/// Slots covered by one second-stage table of Xen's.
const SLOTS_PER_TABLE: usize = 512;

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
}

#[derive(Clone, Copy)]
struct Slot {
    /// The page this slot can be found by. Not always what the window holds: a page may be on its way in, or not be
    /// found any more.
    page: Option<ForeignPage>,
    /// Next slot of the same hash.
    next: u32,
    /// Users of the page right now.
    pins: u32,
    /// Used since the clock's hand last passed.
    referenced: bool,
    /// Perhaps to be seen in a view. Only while `page` is some and `referenced` is true: the hand that takes the mark away
    /// hides the page, so that its next use is a fault, which costs no hypercall and sets the mark again.
    shown: bool,
}

/// Who shows pages in views.
pub trait Viewer {
    /// Hides a page, if it is to be seen anywhere: its slot is about to hold another. Called while the pager is borrowed.
    fn hide(&self, page: ForeignPage);
}

/// Guests' pages in slots.
pub struct Pager {
    window: Window,
    slots: Vec<Slot>,
    /// First slot of each hash; a power of two of them.
    heads: Vec<u32>,
    hash_bits: u32,
    hand: SlotIndex,
    /// Slots in use, from the start of the window; fewer than all once Xen has no memory for our tables.
    usable: usize,
    counters: Counters,
    /// Devices among which the slots are shared.
    sharers: usize,
    /// Pages to be mapped by the next hypercall, each pinned once meanwhile.
    moves: Vec<(SlotIndex, ForeignPage)>,
    viewer: Option<Rc<dyn Viewer>>,
}

impl Pager {
    /// A pager over an empty window.
    #[must_use]
    pub fn new(window: Window) -> Self {
        let count = window.len();
        let hashes = count.max(2).next_power_of_two();
        let mut moves = Vec::new();
        moves.reserve_exact(MAP_BATCH);
        Self {
            slots: alloc::vec![Slot { page: None, next: NONE, pins: 0, referenced: false, shown: false }; count],
            heads: alloc::vec![NONE; hashes],
            hash_bits: hashes.trailing_zeros(),
            hand: 0,
            usable: count,
            counters: Counters::default(),
            sharers: 0,
            window,
            moves,
            viewer: None,
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

    /// Slots that may be used: all, or fewer once Xen had no memory for our page tables.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.usable
    }

    /// Slots that each device may pin.
    #[must_use]
    pub fn share(&self) -> usize {
        self.usable / self.sharers.max(1)
    }

    /// From now on the slots are shared with one device more.
    pub fn sharer_came(&mut self) {
        self.sharers += 1;
    }

    /// From now on the slots are shared with one device less.
    pub fn sharer_left(&mut self) {
        self.sharers = self.sharers.saturating_sub(1);
    }

    /// Slots that hold a page.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.window.mapped()
    }

    /// Slots that are pinned.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.slots.iter().filter(|slot| slot.pins > 0).count()
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
            let usable = self.usable;
            let result = frames.clone().try_for_each(|frame| {
                let slot = self.find_or_assign(domain, frame)?;
                self.hold(slot);
                slots.push(slot as u32);
                Ok(())
            });
            let mapped = self.map_assigned(domain);
            let Err(error) = result.and(mapped) else { return Ok(()) };
            for slot in slots.drain(start..) {
                self.unpin(slot);
            }
            // Xen had no memory for one of our tables: the window is smaller now, try with what is left of it.
            if self.usable == usable || self.usable == 0 {
                return Err(error);
            }
        }
    }

    /// Maps those pages of `domain` that are missing. A hint: failure shows when they are pinned.
    pub fn prefetch(&mut self, domain: DomainId, frames: impl Iterator<Item = GuestFrame>) {
        for frame in frames {
            if self.find_or_assign(domain, frame).is_err() {
                break;
            }
        }
        let _ = self.map_assigned(domain);
    }

    /// Gives one pin of a slot back.
    pub fn unpin(&mut self, slot: u32) {
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.pins = slot.pins.saturating_sub(1);
        }
    }

    /// Gives one pin of the slot that holds `address` back.
    pub fn unpin_at(&mut self, address: usize) {
        self.unpin((address.wrapping_sub(self.window.address(0)) / PAGE_BYTES) as u32);
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
        let state = self.slots.get_mut(slot).filter(|state| state.referenced)?;
        state.shown = true;
        Some(self.window.address(slot))
    }

    /// Unmaps all pages of `domain` that are not pinned, and finds none of them again. Returns how many are pinned.
    pub fn forget(&mut self, domain: DomainId) -> usize {
        let mut kept = 0;
        let mut victims: SmallVec<[SlotIndex; 64]> = SmallVec::new();
        for slot in 0..self.window.len() {
            if self.window.page(slot).is_none_or(|page| page.domain() != domain) {
                continue;
            }
            // Not to be found any more, pinned or not: the guest may have another page at this frame by now.
            self.unlist(slot);
            if self.slots.get(slot).is_some_and(|state| state.pins > 0) {
                kept += 1;
                continue;
            }
            victims.push(slot);
            if victims.len() == victims.inline_size() {
                self.window.unmap(&victims);
                victims.clear();
            }
        }
        self.window.unmap(&victims);
        kept
    }

    /// The slot of a page, found or newly assigned; an assigned one is mapped by [`Self::map_assigned`].
    fn find_or_assign(&mut self, domain: DomainId, frame: GuestFrame) -> Result<SlotIndex, MemoryError> {
        let not_mapped = MemoryError::NotMapped(frame.0.wrapping_mul(PAGE_BYTES as u64));
        let page = ForeignPage::new(domain, frame).ok_or(not_mapped)?;
        if let Some(slot) = self.find(page) {
            self.counters.hits += 1;
            return Ok(slot);
        }
        self.counters.misses += 1;
        if self.moves.len() == MAP_BATCH {
            self.map_assigned(domain)?;
        }
        let slot = self.victim().ok_or(MemoryError::Exhausted)?;
        self.unlist(slot);
        if self.window.page(slot) == Some(page) {
            // It was forgotten while pinned, so what is in the slot is the page that the guest had there before.
            self.window.unmap(&[slot]);
        }
        self.list(slot, page);
        // Held until it is mapped: it must not become the next victim of its own batch.
        self.hold(slot);
        self.moves.push((slot, page));
        Ok(slot)
    }

    /// Maps what [`Self::find_or_assign`] assigned. Slots that could not be mapped are not found any more.
    fn map_assigned(&mut self, domain: DomainId) -> Result<(), MemoryError> {
        if self.moves.is_empty() {
            return Ok(());
        }
        let moves = core::mem::take(&mut self.moves);
        let evictions = moves.iter().filter(|(slot, _)| self.window.page(*slot).is_some()).count();
        let mut failures: SmallVec<[(SlotIndex, Errno); 4]> = SmallVec::new();
        let call = self.window.map(domain, &moves, |slot, result| {
            if let Err(errno) = result {
                failures.push((slot, errno));
            }
        });
        if let Err(error) = call {
            log::debug!("pager: {domain}: {error}");
            failures.extend(moves.iter().map(|(slot, _)| (*slot, error.errno)));
        }
        self.counters.map_calls += 1;
        self.counters.evictions += evictions as u64;
        self.counters.failures += failures.len() as u64;
        for (slot, _) in &moves {
            self.unpin(*slot as u32);
        }
        let mut result = Ok(());
        for (slot, errno) in failures {
            if result.is_ok() {
                let address =
                    self.slots.get(slot).and_then(|state| state.page).map_or(0, |page| page.frame().0);
                result = Err(self.failure(slot, errno, address.wrapping_mul(PAGE_BYTES as u64)));
            }
            self.unlist(slot);
        }
        self.moves = moves;
        self.moves.clear();
        result
    }

    fn failure(&mut self, slot: SlotIndex, errno: Errno, address: u64) -> MemoryError {
        match errno {
            Errno::ENOMEM => MemoryError::Exhausted,
            Errno::ENOENT => {
                let usable = slot / SLOTS_PER_TABLE * SLOTS_PER_TABLE;
                if usable < self.usable {
                    self.usable = usable;
                    self.hand = 0;
                    log::warn!(
                        "pager: Xen has no memory left for our page tables (p2m pool): window reduced to {} pages; \
                         shadow_memory= in the domain's configuration gives more",
                        self.usable
                    );
                }
                MemoryError::Exhausted
            }
            _ => MemoryError::NotMapped(address),
        }
    }

    fn find(&self, page: ForeignPage) -> Option<SlotIndex> {
        let mut slot = *self.heads.get(page.hash(self.hash_bits))?;
        while let Some(state) = self.slots.get(slot as usize) {
            if state.page == Some(page) {
                return Some(slot as usize);
            }
            slot = state.next;
        }
        None
    }

    fn hold(&mut self, slot: SlotIndex) {
        if let Some(state) = self.slots.get_mut(slot) {
            state.referenced = true;
            state.pins += 1;
        }
    }

    /// The next slot that is neither pinned nor used lately; two turns of the clock find one if there is any.
    fn victim(&mut self) -> Option<SlotIndex> {
        for _ in 0..2 * self.usable {
            let slot = self.hand;
            self.hand = if slot + 1 < self.usable { slot + 1 } else { 0 };
            let Some(state) = self.slots.get_mut(slot).filter(|_| slot < self.usable) else { continue };
            if state.pins == 0 {
                if !state.referenced {
                    return Some(slot);
                }
                state.referenced = false;
                self.hide(slot);
            }
        }
        None
    }

    fn list(&mut self, slot: SlotIndex, page: ForeignPage) {
        let Some(head) = self.heads.get_mut(page.hash(self.hash_bits)) else { return };
        if let Some(state) = self.slots.get_mut(slot) {
            state.page = Some(page);
            state.next = *head;
            *head = slot as u32;
        }
    }

    /// Hides the page that a slot is found by, if it is shown.
    fn hide(&mut self, slot: SlotIndex) {
        let Some(state) = self.slots.get_mut(slot) else { return };
        if core::mem::take(&mut state.shown)
            && let (Some(page), Some(viewer)) = (state.page, &self.viewer)
        {
            viewer.hide(page);
        }
    }

    fn unlist(&mut self, slot: SlotIndex) {
        self.hide(slot);
        let Some(state) = self.slots.get_mut(slot) else { return };
        let Some(page) = state.page.take() else { return };
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

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod tests;
