//! Slots out of our RAM that are made RAM again, when somebody needs it ([`crate::mm::ram`]).

use core::ops::Range;

use super::slot::NONE;
use super::{BEYOND_ALL, Pager};
use crate::limits::SLOTS_PER_DEVICE_MIN;
use crate::mm::address::Gfn;
use crate::mm::physmap::NoRam;
use crate::xen::memory::REMOVE_BATCH;

impl Pager {
    /// Makes RAM again of up to `count` slots that are out of it: empty ones first, then those least needed, from whoever
    /// has most.
    ///
    /// # Errors
    /// [`NoRam`]: Xen has none; hardly more pages are unmapped then than were made RAM.
    pub fn give_back(&mut self, count: usize) -> Result<(), NoRam> {
        let mut left = count - self.give_empty_back(count, |_| true)?;
        for is_used in [false, true] {
            let mut last = BEYOND_ALL;
            while let Some((count, holder)) = self.richest_below(last) {
                last = (count, holder);
                while left > 0 {
                    let mut portion = left.min(REMOVE_BATCH);
                    self.sweep(holder, |pager, slot| {
                        let state = pager.slots.get(slot).copied().unwrap_or_default();
                        let leaves = portion > 0
                            && pager.window.is_ballooned(slot)
                            && !state.is_pinned()
                            && (is_used || !state.is_referenced());
                        portion -= usize::from(leaves);
                        leaves
                    });
                    let given = self.give_empty_back(left, |_| true)?;
                    left -= given;
                    if given == 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes RAM again of the slots at these frame numbers, as far as they are not pinned and Xen has RAM.
    pub fn give_range_back(&mut self, frames: &Range<Gfn>) {
        for holder in 0..self.holders.len() {
            self.sweep(holder, |pager, slot| {
                let within = pager.window.gfn(slot).is_some_and(|gfn| frames.contains(&gfn));
                within && !pager.is_pinned(slot)
            });
        }
        // What is still not RAM shows when the frames are taken.
        let _ = self.give_empty_back(usize::MAX, |gfn| frames.contains(&gfn));
    }

    /// The frame numbers that are out of our RAM, and pinned.
    pub fn pinned_ram(&self) -> impl Iterator<Item = Gfn> + Clone + '_ {
        let slots = (0..self.slots.len()).filter(|slot| self.is_pinned(*slot));
        slots.filter(|slot| self.window.is_ballooned(*slot)).filter_map(|slot| self.window.gfn(slot))
    }

    /// Slots that the devices there are cannot do without.
    #[must_use]
    pub fn least_usable(&self) -> usize {
        self.holders.iter().map(|holder| holder.devices).sum::<usize>() * SLOTS_PER_DEVICE_MIN
    }

    /// Makes RAM again of at most `most` empty slots that are out of it and where `wanted` says so. Returns how many.
    fn give_empty_back(&mut self, most: usize, wanted: impl Fn(Gfn) -> bool) -> Result<usize, NoRam> {
        let (mut given, mut result) = (0, Ok(()));
        let mut slot = core::mem::replace(&mut self.empty, NONE);
        while let Some(state) = self.slots.get(slot as usize) {
            let next = state.next;
            let place = slot as usize;
            let is_wanted = result.is_ok()
                && given < most
                && self.window.is_ballooned(place)
                && self.window.gfn(place).is_some_and(&wanted);
            if is_wanted {
                result = self.window.give_back(place);
            }
            if is_wanted && result.is_ok() {
                given += 1;
            } else {
                self.add_empty(place);
            }
            slot = next;
        }
        result.map(|()| given)
    }
}
