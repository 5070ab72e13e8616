//! A disk, here or on another machine, shared by the volumes on it: whose command is in which slot, and until when it must be answered.
//!
//! ```text
//!   free ── begin ──> at the device ── next_finished ──> free; or, if it holds what was read, done ── finish ──> free
//!                       └ time is over, or cancel ──> abandoned ── next_finished ──> free
//! ```
//! An abandoned slot still belongs to the device: its buffer is not used again before the device has answered. While an
//! abandoned command may still write to sectors of a volume, that volume begins nothing: what it begins later must not
//! be overtaken.
//!
//! Each open volume may use an equal share of the slots, so that no guest can keep the others from the disk; with more
//! volumes than slots, they take turns.
//!
//! Neighbours: `trouble` has what is done when a user goes away or the device fails, [`super::disk_volume`] is a volume on
//! it, [`super::disk_reader`] reads partition tables.

mod trouble;

use crate::block::{Begun, Done, Operation, Tag, VolumeError};
use crate::drive::{Drive, DriveError, DriveFacts, LinkStatus};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Range;
use core::task::Waker;
use slab::Slab;
use trouble::written;

/// What a disk did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands begun.
    pub commands: u64,
    /// Times that the device was told of new commands.
    pub kicks: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Commands answered with an error.
    pub errors: u64,
    /// Commands not answered in time.
    pub late: u64,
}

/// Whose commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKey(usize);

/// What one user of the disk has.
struct Client {
    /// The sectors that it may touch.
    sectors: Range<u64>,
    /// Slots that it holds.
    held: usize,
    /// The turn in which it asked for a slot when there were fewer slots than users; 0 if it has got one since.
    asked: Cell<u64>,
    /// Number of its last command among all commands.
    last_command: u64,
    /// Its commands that are done, in order.
    done: VecDeque<Done>,
}

/// A slot that is taken.
#[derive(Clone)]
struct Taken {
    holder: Holder,
    tag: Tag,
    operation: Operation,
    begun_ns: u64,
}

/// Who has a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// The device, which works for a user.
    Device(ClientKey),
    /// The device, for nobody any more.
    Abandoned {
        /// Who began it, and is still there: it counts as theirs, or resets would win more than a share of the slots.
        of: Option<ClientKey>,
    },
    /// A user, who has not yet taken what was read.
    User(ClientKey),
}

/// A look at a disk comes no later than this after [`Disk::deadline_ns`], as long as this domain runs.
const AWAY_NS: u64 = 1_000_000_000;

/// A disk.
pub struct Disk {
    name: String,
    drive: Box<dyn Drive>,
    facts: DriveFacts,
    slots: Vec<Option<Taken>>,
    free: Vec<u16>,
    clients: Slab<Client>,
    /// Abandoned commands that may still write.
    abandoned_writes: usize,
    /// It has answered nothing for [`DriveFacts::time_limit_ns`].
    is_silent: bool,
    /// When it last answered.
    last_answer_ns: u64,
    is_broken: bool,
    must_kick: bool,
    interrupts_wanted: bool,
    /// The time of the last [`Self::poll`], and its number.
    now_ns: u64,
    turn: u64,
    /// No command at the device has to be answered earlier.
    next_deadline_ns: u64,
    counters: Counters,
    /// Woken when a command is done or a slot is free, or at the deadline.
    wakers: Vec<Waker>,
    wake_deadline_ns: u64,
}

impl Disk {
    /// A disk called `name` in the log, such as `blk0`.
    #[must_use]
    pub fn new(name: String, drive: Box<dyn Drive>) -> Self {
        let facts = drive.facts();
        Self {
            name,
            drive,
            facts,
            slots: alloc::vec![None; facts.slots.into()],
            free: (0..facts.slots).rev().collect(),
            clients: Slab::new(),
            abandoned_writes: 0,
            is_silent: false,
            last_answer_ns: 0,
            is_broken: false,
            must_kick: false,
            interrupts_wanted: false,
            now_ns: 0,
            turn: 2,
            next_deadline_ns: u64::MAX,
            counters: Counters::default(),
            wakers: Vec::new(),
            wake_deadline_ns: u64::MAX,
        }
    }

    /// Its name in the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size and abilities.
    #[must_use]
    pub fn facts(&self) -> DriveFacts {
        self.facts
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The connection that it is behind, if it is on another machine.
    #[must_use]
    pub fn link_status(&self) -> Option<LinkStatus> {
        self.drive.link_status()
    }

    /// Takes what the device has finished, and gives up what took too long. Returns whether there was anything.
    pub fn poll(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.now_ns) > AWAY_NS {
            self.allow_for_absence(now_ns);
        }
        self.now_ns = now_ns;
        self.turn += 1;
        if core::mem::take(&mut self.interrupts_wanted) && !self.is_broken {
            // As long as this is called, none is needed.
            self.drive.want_interrupts(false);
        }
        if !self.is_broken {
            self.drive.tend(now_ns);
        }
        let mut done = false;
        while !self.is_broken {
            match self.drive.next_finished() {
                Ok(None) => break,
                Ok(Some(finished)) => {
                    self.finished(finished.slot, finished.result);
                    done = true;
                }
                Err(_) => {
                    self.break_down();
                    done = true;
                }
            }
        }
        if now_ns >= self.next_deadline_ns {
            done |= self.give_up_late(now_ns);
        }
        if done || now_ns >= self.wake_deadline_ns {
            self.wake_all();
        }
        done
    }

    /// Tells the device what was begun since the last call.
    pub fn kick(&mut self) {
        if core::mem::take(&mut self.must_kick) {
            self.counters.kicks += 1;
            self.drive.kick();
        }
    }

    /// Asks for interrupts before a sleep. Returns whether there is something to do instead.
    pub fn settle(&mut self) -> bool {
        self.interrupts_wanted = true;
        !self.is_broken && self.drive.want_interrupts(true)
    }

    /// Takes note of an interrupt.
    pub fn interrupt(&mut self) {
        self.counters.interrupts += 1;
        // Always: it would stay pending.
        if self.drive.acknowledge_interrupt().is_err() {
            self.break_down();
        }
    }

    /// When [`Self::poll`] must be called even if no interrupt comes; none if nothing is under way.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let of_commands = if self.is_idle() { u64::MAX } else { self.next_deadline_ns };
        let of_drive = if self.is_broken { None } else { self.drive.deadline_ns() };
        let earliest = of_commands.min(self.wake_deadline_ns).min(of_drive.unwrap_or(u64::MAX));
        Some(earliest).filter(|deadline| *deadline != u64::MAX)
    }

    /// Whether nothing is at the device, and nobody has still to take what was read.
    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Whether all commands fail for good.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The time of the last [`Self::poll`].
    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// A new user of `sectors`.
    pub(super) fn open(&mut self, sectors: Range<u64>) -> ClientKey {
        let client = Client { sectors, held: 0, asked: Cell::new(0), last_command: 0, done: VecDeque::new() };
        ClientKey(self.clients.insert(client))
    }

    /// A user is gone; what it has at the device is abandoned.
    pub(super) fn close(&mut self, client: ClientKey) {
        self.cancel(client);
        self.clients.try_remove(client.0);
        for taken in self.slots.iter_mut().flatten() {
            if let Holder::Abandoned { of } = &mut taken.holder {
                of.take_if(|of| *of == client);
            }
        }
    }

    /// How many commands a user may begin now.
    pub(super) fn room(&self, client: ClientKey) -> usize {
        if self.is_broken || self.is_silent {
            // Each fails at once: better than to wait for what may never come.
            return usize::MAX;
        }
        let Some(user) = self.clients.get(client.0) else { return 0 };
        if self.abandoned_writes > 0 && self.is_awaited(&user.sectors) {
            return 0;
        }
        match self.slots.len() / self.clients.len().max(1) {
            0 => usize::from(user.held == 0 && self.has_its_turn(user)),
            share => share.saturating_sub(user.held).min(self.free.len()),
        }
    }

    /// With more users than slots: whether one of the free slots is for `user`, who asks. Those come first whose last
    /// command lies furthest back.
    fn has_its_turn(&self, user: &Client) -> bool {
        user.asked.set(self.turn);
        // Who has not asked since the turn before wants nothing any more.
        let is_ahead = |(_, other): &(usize, &Client)| {
            other.asked.get() + 1 >= self.turn && other.last_command < user.last_command
        };
        self.clients.iter().filter(is_ahead).count() < self.free.len()
    }

    /// Wakes `waker` when a command, whosever it is, is done next, and at `deadline_ns` at the latest.
    pub(super) fn wake_when_done(&mut self, waker: &Waker, deadline_ns: u64) {
        self.wake_deadline_ns = self.wake_deadline_ns.min(deadline_ns);
        if !self.wakers.iter().any(|known| known.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }

    fn wake_all(&mut self) {
        self.wake_deadline_ns = u64::MAX;
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Begins a command; `fill` puts what is to be written into the buffer.
    pub(super) fn begin(
        &mut self,
        client: ClientKey,
        tag: Tag,
        operation: Operation,
        fill: impl FnOnce(&mut [u8]) -> Result<(), VolumeError>,
    ) -> Begun {
        if self.is_broken {
            return Begun::Done(Err(DriveError::Broken.into()));
        }
        if self.is_silent {
            return Begun::Done(Err(DriveError::Silent.into()));
        }
        let (Some(user), Some(slot)) = (self.clients.get_mut(client.0), self.free.pop()) else {
            return Begun::Done(Err(DriveError::Busy.into()));
        };
        let filled = match operation {
            Operation::Write { length, .. } => match self.drive.buffer(slot).get_mut(..length as usize) {
                Some(buffer) => fill(buffer),
                None => Err(VolumeError::OutOfRange),
            },
            _ => Ok(()),
        };
        if let Err(error) = filled.and_then(|()| Ok(self.drive.submit(slot, operation)?)) {
            self.free.push(slot);
            return Begun::Done(Err(error));
        }
        user.held += 1;
        user.asked.set(0);
        user.last_command = self.counters.commands + 1;
        let deadline_ns = self.now_ns.saturating_add(self.facts.time_limit_ns);
        self.next_deadline_ns = self.next_deadline_ns.min(deadline_ns);
        self.must_kick = true;
        self.counters.commands += 1;
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = Some(Taken { holder: Holder::Device(client), tag, operation, begun_ns: self.now_ns });
        }
        Begun::Pending
    }

    /// The next command of a user that is done.
    pub(super) fn next_done(&mut self, client: ClientKey) -> Option<Done> {
        self.clients.get_mut(client.0)?.done.pop_front()
    }

    /// Ends a command with this outcome ([`Done`]); `take` gets what was read.
    pub(super) fn finish(
        &mut self,
        outcome: Result<Option<u16>, VolumeError>,
        take: impl FnOnce(&[u8]) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let Some(slot) = outcome? else { return Ok(()) };
        let result = match self.slots.get(usize::from(slot)) {
            Some(Some(Taken { operation: Operation::Read { length, .. }, .. })) => {
                take(self.drive.buffer(slot).get(..*length as usize).unwrap_or_default())
            }
            _ => Ok(()),
        };
        self.release(slot);
        result
    }

    fn taken(&mut self, slot: u16) -> Option<&mut Taken> {
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    fn holder(&self, slot: u16) -> Option<Holder> {
        self.slots.get(usize::from(slot))?.as_ref().map(|taken| taken.holder)
    }

    /// Makes a slot free that the device is done with.
    fn release(&mut self, slot: u16) {
        let Some(taken) = self.slots.get_mut(usize::from(slot)).and_then(Option::take) else { return };
        self.free.push(slot);
        self.wake_all();
        match taken.holder {
            Holder::Device(owner) | Holder::User(owner) => self.count_held(owner),
            Holder::Abandoned { of } => {
                of.into_iter().for_each(|owner| self.count_held(owner));
                self.abandoned_writes -= usize::from(written(taken.operation).is_some());
            }
        }
    }

    fn count_held(&mut self, owner: ClientKey) {
        if let Some(user) = self.clients.get_mut(owner.0) {
            user.held -= 1;
        }
    }

    /// Tells a user that a command is done.
    fn tell(&mut self, owner: ClientKey, tag: Tag, outcome: Result<Option<u16>, DriveError>) {
        if let Some(user) = self.clients.get_mut(owner.0) {
            user.done.push_back(Done { tag, outcome: outcome.map_err(VolumeError::from) });
        }
    }

    /// The device has answered the command in `slot`.
    fn finished(&mut self, slot: u16, result: Result<(), DriveError>) {
        self.last_answer_ns = self.now_ns;
        if core::mem::take(&mut self.is_silent) {
            log::warn!("{}: it answers again", self.name);
        }
        let Some(taken) = self.taken(slot) else { return };
        let (tag, operation) = (taken.tag, taken.operation);
        let Holder::Device(owner) = taken.holder else { return self.release(slot) };
        if result.is_ok() && matches!(operation, Operation::Read { .. }) {
            taken.holder = Holder::User(owner);
            return self.tell(owner, tag, Ok(Some(slot)));
        }
        if let Err(error) = result {
            self.counters.errors += 1;
            log::debug!("{}: {operation:?}: {error}", self.name);
        }
        self.release(slot);
        self.tell(owner, tag, result.map(|()| None));
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
