//! The slots of one guest: a ring with a clock's hand.
//!
//! A slot is taken out at the hand only, and put in behind it, where the hand comes last; so one link a slot is enough.

use super::slot::{NONE, Slot};
use crate::mm::physmap::SlotIndex;
use crate::xen::DomainId;

/// A guest that has slots or devices.
#[derive(Debug)]
pub struct Holder {
    /// Which guest.
    pub domain: DomainId,
    /// Its devices.
    pub devices: usize,
    /// Slots in the ring.
    pub count: usize,
    /// The slot before the one that the hand points to; [`NONE`] when there are none.
    pub hand: u32,
    /// Some are neither pinned nor found any more: they hold what the guest has given back.
    pub stale: bool,
}

impl Holder {
    pub fn new(domain: DomainId) -> Self {
        Self { domain, devices: 0, count: 0, hand: NONE, stale: false }
    }

    /// The slot that the hand points to; [`NONE`] when there are none.
    pub fn first(&self, slots: &[Slot]) -> u32 {
        slots.get(self.hand as usize).map_or(NONE, |state| state.ring)
    }

    /// Puts a slot, which is in no ring, behind the hand.
    pub fn join(&mut self, slots: &mut [Slot], slot: SlotIndex) {
        let slot = slot as u32;
        let first = self.first(slots);
        if let Some(state) = slots.get_mut(slot as usize) {
            state.ring = if first == NONE { slot } else { first };
        }
        if let Some(hand) = slots.get_mut(self.hand as usize) {
            hand.ring = slot;
        }
        self.hand = slot;
        self.count += 1;
    }

    /// Takes out the next slot that is neither pinned nor used lately; two turns find one if there is any. Calls `hide` for
    /// slots that are shown and lose their mark.
    pub fn take_victim(&mut self, slots: &mut [Slot], hide: impl Fn(SlotIndex)) -> Option<SlotIndex> {
        for _ in 0..2 * self.count {
            let slot = self.first(slots);
            let state = slots.get_mut(slot as usize)?;
            if state.is_pinned() {
                self.hand = slot;
                continue;
            }
            if state.is_shown() {
                state.set_shown(false);
                hide(slot as usize);
            }
            if !state.take_referenced() {
                let next = core::mem::replace(&mut state.ring, NONE);
                self.count -= 1;
                if slot == self.hand {
                    self.hand = NONE;
                } else {
                    slots.get_mut(self.hand as usize)?.ring = next;
                }
                return Some(slot as usize);
            }
            self.hand = slot;
        }
        None
    }
}
