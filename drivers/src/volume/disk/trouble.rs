//! What a disk does when a user goes away, or the device does not do its work.

use super::{ClientKey, Disk, Holder, TIME_LIMIT_NS};
use crate::block::{Operation, SECTOR_BYTES};
use crate::drive::DriveError;
use core::ops::Range;
use core::task::Waker;

impl Disk {
    /// Abandons all that a user has begun.
    pub(in super::super) fn cancel(&mut self, client: ClientKey) {
        for slot in 0..self.facts.slots {
            match self.holder(slot) {
                Some(Holder::Device(owner)) if owner == client => self.abandon(slot, false),
                Some(Holder::User(owner)) if owner == client => self.release(slot),
                _ => {}
            }
        }
        if let Some(user) = self.clients.get_mut(client.0) {
            user.asks.set(false);
            user.done.clear();
        }
    }

    /// Fails the commands whose time is over. Their slots stay with the device, which is silent when it has not answered
    /// within [`TIME_LIMIT_NS`], whoever still waits for the answer.
    pub(super) fn give_up_late(&mut self, now_ns: u64) -> bool {
        let was_silent = self.silent;
        let mut any = false;
        self.next_deadline_ns = u64::MAX;
        for slot in 0..self.facts.slots {
            let Some(taken) = self.taken(slot) else { continue };
            let (tag, begun_ns) = (taken.tag, taken.begun_ns);
            let silent_ns = begun_ns.saturating_add(TIME_LIMIT_NS);
            let is_silent = silent_ns <= now_ns;
            let deadline_ns = match &mut taken.holder {
                Holder::Device(owner) => {
                    let owner = *owner;
                    let limit_ns = self.clients.get(owner.0).map_or(TIME_LIMIT_NS, |user| user.time_limit_ns);
                    let limit_ns = begun_ns.saturating_add(limit_ns);
                    if limit_ns > now_ns {
                        limit_ns
                    } else {
                        self.abandon(slot, is_silent);
                        self.tell(owner, tag, Err(DriveError::Silent));
                        any = true;
                        silent_ns
                    }
                }
                Holder::Abandoned { is_silent: known, .. } => {
                    if is_silent && !core::mem::replace(known, true) {
                        self.silent += 1;
                        any = true;
                    }
                    silent_ns
                }
                Holder::User(_) => continue,
            };
            if deadline_ns > now_ns {
                self.next_deadline_ns = self.next_deadline_ns.min(deadline_ns);
            }
        }
        let late = self.silent - was_silent;
        self.counters.silent += late as u64;
        if late > 0 && was_silent == 0 {
            log::error!("{}: no answer to {late} commands in time; all fail until it answers", self.name);
        }
        any
    }

    /// Fails all commands, now and for good. Their slots stay with the device.
    pub(super) fn break_down(&mut self) {
        if self.is_broken {
            return;
        }
        self.is_broken = true;
        self.next_deadline_ns = u64::MAX;
        log::error!("{}: the disk is out of order; all its commands fail from now on", self.name);
        for slot in 0..self.facts.slots {
            let Some(taken) = self.taken(slot) else { continue };
            let tag = taken.tag;
            if let Holder::Device(owner) = taken.holder {
                self.abandon(slot, false);
                self.tell(owner, tag, Err(DriveError::Broken));
            }
        }
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Leaves a slot to the device.
    fn abandon(&mut self, slot: u16, is_silent: bool) {
        let Some(taken) = self.taken(slot) else { return };
        let Holder::Device(owner) = taken.holder else { return };
        taken.holder = Holder::Abandoned { of: Some(owner), is_silent };
        let may_write = written(taken.operation).is_some();
        self.abandoned_writes += usize::from(may_write);
        self.silent += usize::from(is_silent);
    }

    /// Whether an abandoned command may still write to one of `sectors`.
    pub(super) fn is_awaited(&self, sectors: &Range<u64>) -> bool {
        self.slots.iter().flatten().any(|taken| {
            matches!(taken.holder, Holder::Abandoned { .. })
                && written(taken.operation)
                    .is_some_and(|range| range.start < sectors.end && sectors.start < range.end)
        })
    }
}

/// The sectors that a command may change.
pub(super) fn written(operation: Operation) -> Option<Range<u64>> {
    match operation {
        Operation::Write { sector, length } => Some(sector..sector + u64::from(length) / SECTOR_BYTES),
        Operation::Discard { sector, sectors } | Operation::WriteZeroes { sector, sectors } => {
            Some(sector..sector + u64::from(sectors))
        }
        Operation::Read { .. } | Operation::Flush => None,
    }
}
