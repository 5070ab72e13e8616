//! The connection to xenstored as a state machine without waiting: requests go in, replies and events come out.
//!
//! Each request has a slot from the moment it is submitted until its reply has been taken (or, when nobody wants
//! it any more, has come):
//!
//! ```text
//! submit -> Queued -> Sent -> Answered -> taken by poll_reply
//!              \        \---- abandoned: freed by the reply
//!               \------------ all answered with Disconnected when the connection breaks
//! ```
//!
//! Nothing here calls out: wakers and the wish to notify are collected in [`Effects`], and [`super::Store`] acts on
//! them when the state is no longer borrowed. Neighbours: [`super::ring`] below, [`super::Store`] above.

use super::error::StoreError;
use super::events::{EventQueue, WatchEvent};
use super::replies;
use super::ring::{RING_BYTES, Ring, ServerState};
use super::wire::{Assembler, Incoming, Message, Operation, RequestId};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt::Display;
use core::task::{Poll, Waker};

/// Requests sent and not answered at most. Xenstored stops to read a ring with more than 20 (quota "outstanding"),
/// and counts events that wait for room among them.
pub const IN_FLIGHT_MAX: usize = 16;

/// A byte that no path has, and that ends none.
const NONSENSE: u8 = 0xff;

/// What is to be done once the connection is not borrowed any more.
#[derive(Default)]
pub struct Effects {
    /// The server wants to know that the ring changed.
    pub notify: bool,
    /// Whose reply or event came.
    pub wake: Vec<Waker>,
    /// Wakers nobody needs; dropping one may run anything.
    pub retired: Vec<Waker>,
}

enum State {
    Queued,
    Sent,
    Answered(Result<Vec<u8>, StoreError>),
}

struct Slot {
    operation: Operation,
    state: State,
    /// Nobody waits for the reply.
    abandoned: bool,
    waker: Option<Waker>,
}

/// One end of the connection.
pub struct Connection {
    ring: Ring,
    assembler: Assembler,
    outbox: VecDeque<(RequestId, Vec<u8>)>,
    /// Bytes of the outbox's first message that are in the ring already.
    first_sent_bytes: usize,
    slots: BTreeMap<RequestId, Slot>,
    last_id: u32,
    in_flight: usize,
    events: EventQueue,
    event_waker: Option<Waker>,
    broken: bool,
    effects: Effects,
}

impl Connection {
    pub fn new(mut ring: Ring) -> Self {
        let stale_bytes = ring.discard_stale();
        if stale_bytes != 0 && ring.left_over().is_none() {
            log::info!("xenstore: {stale_bytes} bytes for a former user of the ring dropped");
        }
        let (mut outbox, mut assembler, mut last_id) = (VecDeque::new(), Assembler::default(), 0);
        if let Some((left, seed)) = ring.left_over() {
            // An earlier life of this kernel was cut off in the middle of a request, perhaps, and of a reply. The server
            // gets its request, whose rest makes no sense; our first one is to end all watches, and its reply is where we begin.
            if left > 0 {
                outbox.push_back((RequestId(0), alloc::vec![NONSENSE; left]));
            }
            last_id = seed | 1 << 31;
            assembler = Assembler::hunting(RequestId(last_id.wrapping_add(1)));
        }
        Self {
            ring,
            assembler,
            outbox,
            first_sent_bytes: 0,
            slots: BTreeMap::new(),
            last_id,
            in_flight: 0,
            events: EventQueue::default(),
            event_waker: None,
            broken: false,
            effects: Effects { notify: stale_bytes != 0, ..Effects::default() },
        }
    }

    /// Moves bytes both ways as far as the ring allows. Bounded: at most one ring's worth comes in.
    pub fn pump(&mut self) {
        if !self.is_ready() {
            return;
        }
        let mut buffer = [0; RING_BYTES];
        match self.ring.receive(&mut buffer) {
            Ok(count) => {
                self.effects.notify |= count > 0;
                self.take_in(buffer.get(..count).unwrap_or_default());
            }
            Err(error) => self.give_up(&error),
        }
        self.flush();
    }

    /// Queues a request and sends what the ring has room for.
    pub fn submit(&mut self, message: &Message) -> Result<RequestId, StoreError> {
        if self.broken {
            return Err(StoreError::Disconnected);
        }
        let id = self.free_id();
        let slot =
            Slot { operation: message.operation(), state: State::Queued, abandoned: false, waker: None };
        self.slots.insert(id, slot);
        self.outbox.push_back((id, message.encode(id)));
        self.flush();
        Ok(id)
    }

    /// The reply to `id` when it has come; its slot is free then.
    pub fn poll_reply(&mut self, id: RequestId, waker: &Waker) -> Poll<Result<Vec<u8>, StoreError>> {
        let Some(slot) = self.slots.get_mut(&id) else {
            return Poll::Ready(Err(StoreError::Protocol));
        };
        if let State::Answered(result) = &mut slot.state {
            let result = core::mem::replace(result, Ok(Vec::new()));
            self.slots.remove(&id);
            return Poll::Ready(result);
        }
        remember(&mut slot.waker, waker, &mut self.effects.retired);
        Poll::Pending
    }

    /// Nobody wants the reply to `id`. The request is sent all the same if it was not yet.
    pub fn abandon(&mut self, id: RequestId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.abandoned = true;
        self.effects.retired.extend(slot.waker.take());
        if let State::Answered(result) = &mut slot.state {
            let result = core::mem::replace(result, Ok(Vec::new()));
            let operation = slot.operation;
            self.slots.remove(&id);
            self.undo_abandoned(operation, &result);
        }
    }

    /// The next event when there is one.
    pub fn poll_event(&mut self, waker: &Waker) -> Poll<Result<WatchEvent, StoreError>> {
        if let Some(event) = self.events.pop() {
            return Poll::Ready(Ok(event));
        }
        if self.broken {
            return Poll::Ready(Err(StoreError::Disconnected));
        }
        remember(&mut self.event_waker, waker, &mut self.effects.retired);
        Poll::Pending
    }

    /// Events not taken yet.
    pub fn events(&mut self) -> &mut EventQueue {
        &mut self.events
    }

    /// What has come up to be done since the last call.
    pub fn take_effects(&mut self) -> Effects {
        core::mem::take(&mut self.effects)
    }

    fn is_ready(&mut self) -> bool {
        if self.broken {
            return false;
        }
        match self.ring.server_state() {
            ServerState::Ready => true,
            ServerState::Absent => false,
            ServerState::Failed(code) => {
                self.give_up(&format_args!("server reports error {code}"));
                false
            }
        }
    }

    /// Sends as much of the outbox as the ring and [`IN_FLIGHT_MAX`] allow.
    fn flush(&mut self) {
        if !self.is_ready() {
            return;
        }
        while let Some((id, bytes)) = self.outbox.front() {
            if self.first_sent_bytes == 0 && self.in_flight >= IN_FLIGHT_MAX {
                return;
            }
            let sent = match self.first_sent_bytes {
                0 => self.ring.begin_request(bytes),
                sent => self.ring.send(bytes.get(sent..).unwrap_or_default()),
            };
            let count = match sent {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) => return self.give_up(&error),
            };
            self.effects.notify = true;
            if self.first_sent_bytes == 0 {
                self.in_flight += 1;
            }
            self.first_sent_bytes += count;
            if self.first_sent_bytes < bytes.len() {
                return;
            }
            if let Some(slot) = self.slots.get_mut(id) {
                slot.state = State::Sent;
            }
            self.outbox.pop_front();
            self.first_sent_bytes = 0;
        }
    }

    fn take_in(&mut self, mut bytes: &[u8]) {
        loop {
            let was_hunting = self.assembler.is_hunting();
            let fed = self.assembler.feed(&mut bytes);
            if was_hunting && !self.assembler.is_hunting() {
                // What an earlier life asked for is answered.
                self.in_flight = 1;
            }
            match fed {
                Ok(Some(message)) if message.operation == Some(Operation::WatchEvent) => {
                    self.take_event(&message);
                }
                Ok(Some(message)) => self.take_reply(message),
                Ok(None) => return,
                Err(error) => return self.give_up(&error),
            }
        }
    }

    fn take_event(&mut self, message: &Incoming) {
        match replies::event(&message.payload) {
            Ok((path, token)) => self.events.push(path, token),
            Err(error) => {
                log::warn!("xenstore: watch event: {error}");
                self.events.demand_rescan();
            }
        }
        self.effects.wake.extend(self.event_waker.take());
    }

    fn take_reply(&mut self, message: Incoming) {
        let Incoming { operation, request, payload } = message;
        let Some(slot) = self.slots.get_mut(&request).filter(|slot| matches!(slot.state, State::Sent)) else {
            log::warn!("xenstore: reply to request {} that nobody made is ignored", request.0);
            return;
        };
        self.in_flight = self.in_flight.saturating_sub(1);
        let result = match operation {
            Some(Operation::Error) => Err(StoreError::from_reply(&payload)),
            Some(same) if same == slot.operation => Ok(payload),
            _ => Err(StoreError::Protocol),
        };
        if slot.abandoned {
            let operation = slot.operation;
            self.slots.remove(&request);
            self.undo_abandoned(operation, &result);
        } else {
            slot.state = State::Answered(result);
            self.effects.wake.extend(slot.waker.take());
        }
    }

    /// A transaction whose beginner has gone would stay open for ever: ends it.
    fn undo_abandoned(&mut self, operation: Operation, result: &Result<Vec<u8>, StoreError>) {
        let (Operation::TransactionStart, Ok(payload)) = (operation, result) else {
            return;
        };
        if let Ok(transaction) = replies::transaction(payload) {
            self.submit_unattended(&Message::abort(transaction));
        }
    }

    /// Queues a request whose reply nobody will want.
    pub fn submit_unattended(&mut self, message: &Message) {
        if let Ok(id) = self.submit(message) {
            self.abandon(id);
        }
    }

    /// The connection cannot be used any more; everybody who waits is told.
    fn give_up(&mut self, reason: &dyn Display) {
        log::error!("xenstore: connection is broken: {reason}");
        self.broken = true;
        self.outbox.clear();
        self.slots.retain(|_, slot| !slot.abandoned);
        for slot in self.slots.values_mut() {
            if !matches!(slot.state, State::Answered(_)) {
                slot.state = State::Answered(Err(StoreError::Disconnected));
            }
            self.effects.wake.extend(slot.waker.take());
        }
        self.effects.wake.extend(self.event_waker.take());
    }

    fn free_id(&mut self) -> RequestId {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = RequestId(self.last_id);
            if !self.slots.contains_key(&id) {
                return id;
            }
        }
    }
}

/// Puts `waker` into `place`, and what was there into `retired`.
fn remember(place: &mut Option<Waker>, waker: &Waker, retired: &mut Vec<Waker>) {
    if !place.as_ref().is_some_and(|old| old.will_wake(waker)) {
        retired.extend(place.replace(waker.clone()));
    }
}

#[cfg(test)]
impl Connection {
    pub fn slots_in_use(&self) -> usize {
        self.slots.len()
    }

    pub fn start_ids_at(&mut self, id: u32) {
        self.last_id = id;
    }
}
