//! What a disk does when a user goes away, or the device does not do its work.

use super::{AWAY_NS, ClientKey, Disk, Holder, Taken};
use crate::block::{Operation, SECTOR_BYTES};
use crate::drive::DriveError;
use core::ops::Range;

impl Disk {
    /// Abandons all that a user has begun.
    pub(in super::super) fn cancel(&mut self, client: ClientKey) {
        for slot in 0..self.facts.slots {
            match self.holder(slot) {
                Some(Holder::Device(owner)) if owner == client => self.abandon(slot),
                Some(Holder::User(owner)) if owner == client => self.release(slot),
                _ => {}
            }
        }
        if let Some(user) = self.clients.get_mut(client.0) {
            user.asked.set(0);
            user.done.clear();
        }
    }

    /// When this look comes long after it was due, this domain did not run: it was paused, and the clock went on. What the
    /// device was not told of, and answers that were not looked for, are not its fault: all commands get their time anew.
    pub(super) fn allow_for_absence(&mut self, now_ns: u64) {
        if self.deadline_ns().is_none_or(|due_ns| now_ns.saturating_sub(due_ns) <= AWAY_NS) {
            return;
        }
        self.slots.iter_mut().flatten().for_each(|taken| taken.begun_ns = now_ns);
    }

    /// Fails the commands whose time is over; their slots stay with the device. When it has answered nothing at all for
    /// [`DriveFacts::time_limit_ns`](crate::drive::DriveFacts), it is silent.
    pub(super) fn give_up_late(&mut self, now_ns: u64) -> bool {
        let limit_ns = self.facts.time_limit_ns;
        let (mut late, mut is_silent) = (0, false);
        self.next_deadline_ns = u64::MAX;
        for slot in 0..self.facts.slots {
            let Some(Taken { holder, tag, begun_ns, .. }) = self.taken(slot).cloned() else { continue };
            if matches!(holder, Holder::User(_)) {
                continue;
            }
            let silent_ns = begun_ns.max(self.last_answer_ns).saturating_add(limit_ns);
            is_silent |= silent_ns <= now_ns;
            let mut deadline_ns = silent_ns;
            if let Holder::Device(owner) = holder {
                deadline_ns = begun_ns.saturating_add(limit_ns);
                if deadline_ns <= now_ns {
                    late += 1;
                    self.abandon(slot);
                    self.tell(owner, tag, Err(DriveError::Silent));
                    deadline_ns = silent_ns;
                }
            }
            if deadline_ns > now_ns {
                self.next_deadline_ns = self.next_deadline_ns.min(deadline_ns);
            }
        }
        self.counters.late += late;
        if is_silent && !core::mem::replace(&mut self.is_silent, true) {
            log::error!("{}: it has stopped answering; all its commands fail until it does", self.name);
        } else if late > 0 && !is_silent {
            log::warn!("{}: {late} commands took too long and failed", self.name);
        }
        late > 0 || is_silent
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
                self.abandon(slot);
                self.tell(owner, tag, Err(DriveError::Broken));
            }
        }
        self.wake_all();
    }

    /// Leaves a slot to the device.
    fn abandon(&mut self, slot: u16) {
        let Some(taken) = self.taken(slot) else { return };
        let Holder::Device(owner) = taken.holder else { return };
        taken.holder = Holder::Abandoned { of: Some(owner) };
        let may_write = written(taken.operation).is_some();
        self.abandoned_writes += usize::from(may_write);
        self.drive.forget(slot);
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
