//! A guest's driver as Linux writes one (drivers/virtio/virtio_ring.c, and virtblk_done of virtio_blk.c), access by access.
//!
//! Requests are numbered. The driver sends so many, in batches of any size, waits for interrupts, and looks that each is
//! answered once and well. What it does under one lock is in one order; the kick is sent after the lock is released, and the
//! interrupt's register accesses are made without it, so both take as long as they like.

use super::weak_memory::{Cpu, Memory, View, WORDS};
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};

/// Most descriptors of the queue.
pub const MOST: u16 = 2;

// The words that are shared.
pub const AVAIL_FLAGS: usize = 0;
pub const AVAIL_INDEX: usize = 1;
pub const AVAIL_RING: usize = 2;
pub const USED_EVENT: usize = 4;
pub const USED_FLAGS: usize = 5;
pub const USED_INDEX: usize = 6;
pub const USED_RING: usize = 7;
pub const AVAIL_EVENT: usize = 9;
/// Of each descriptor, what is to be done, and then the answer.
pub const DATA: usize = 10;

/// Whether an index says who may look at a word: then it makes no difference when it is loaded, only which value is.
pub fn is_guarded(word: usize) -> bool {
    (AVAIL_RING..USED_EVENT).contains(&word) || (USED_RING..AVAIL_EVENT).contains(&word) || word >= DATA
}

/// What the device makes of a request's number.
pub fn answer_to(number: u64) -> u64 {
    number + 1000
}

/// Where the driver is. Each is followed by one access to shared memory, or one fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Nobody holds the lock.
    Rest,
    // virtqueue_add, virtqueue_kick_prepare
    Data,
    Head,
    Index,
    KickFence,
    KickLook,
    // vring_interrupt
    More,
    // virtqueue_disable_cb
    Disable,
    // virtqueue_get_buf
    Take,
    Element,
    Answer(u16),
    Event,
    EventFence,
    // virtqueue_enable_cb
    EnableFlags,
    EnableEvent,
    EnableFence,
    EnableLook,
}

/// The interrupt's way through the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handler {
    Idle,
    /// It reads InterruptStatus.
    Reads,
    /// It writes this to InterruptACK.
    Acknowledges(u32),
}

/// What the driver is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Habits {
    /// Descriptors of the queue.
    pub size: u16,
    /// VIRTIO_F_EVENT_IDX was accepted.
    pub event_index: bool,
    /// It also looks for answers when it is not told to.
    pub looks_unasked: bool,
}

/// The guest, and all that is between it and the device.
#[derive(Clone)]
pub struct World {
    pub memory: Memory,
    pub device: Cpu,
    guest: Cpu,
    habits: Habits,
    at: At,
    to_send: u64,
    next_number: u64,
    /// The number of the request that each descriptor has.
    under_way: [Option<u64>; MOST as usize],
    sending: u16,
    available: u16,
    added: u16,
    last_used: u16,
    interrupts_disabled: bool,
    event_triggered: bool,
    is_in_handler: bool,
    /// Kicks sent and not heard yet, and what their senders saw.
    pub kicks: u8,
    pub kicker: View,
    pub handler: Handler,
    /// An interrupt came while the handler of the last one ran.
    is_edge_latched: bool,
    /// The handler found out that the queue is meant, and what it saw.
    is_called_back: bool,
    pub handler_view: View,
    /// What went wrong.
    pub fault: Option<String>,
}

impl World {
    /// A guest that is to send so many requests, all before them, up to that index, being done.
    pub fn new(habits: Habits, requests: u64, index: u16) -> Self {
        let mut values = [0; WORDS];
        for word in [AVAIL_INDEX, USED_EVENT] {
            values[word] = index.into();
        }
        Self {
            memory: Memory::new(values),
            device: Cpu::default(),
            guest: Cpu::default(),
            habits,
            at: At::Rest,
            to_send: requests,
            next_number: 1,
            under_way: [None; MOST as usize],
            sending: 0,
            available: index,
            added: 0,
            last_used: index,
            interrupts_disabled: false,
            event_triggered: false,
            is_in_handler: false,
            kicks: 0,
            kicker: View::default(),
            handler: Handler::Idle,
            is_edge_latched: false,
            is_called_back: false,
            handler_view: View::default(),
            fault: None,
        }
    }

    pub fn hash(&self, hasher: &mut impl Hasher) {
        let nothing = View::default();
        let kicker = if self.kicks > 0 { &self.kicker } else { &nothing };
        let handler = if self.is_called_back { &self.handler_view } else { &nothing };
        self.memory.hash_for([&self.device, &self.guest], &[kicker, handler], hasher);
        (self.at, self.to_send, self.under_way, self.sending, self.available, self.added).hash(hasher);
        (self.last_used, self.interrupts_disabled, self.event_triggered, self.is_in_handler).hash(hasher);
        (self.kicks, self.handler, self.is_edge_latched, self.is_called_back).hash(hasher);
    }

    /// The driver begins, and sees what was done before.
    pub fn greet(&mut self, view: &View) {
        self.guest.hear(view);
    }

    /// The device raises its line.
    pub fn raise(&mut self) {
        match self.handler {
            Handler::Idle => self.handler = Handler::Reads,
            _ => self.is_edge_latched = true,
        }
    }

    /// The handler's acknowledgement has reached the device.
    pub fn acknowledged(&mut self, status: u32) {
        self.is_called_back |= status & 1 != 0;
        self.handler = if std::mem::take(&mut self.is_edge_latched) { Handler::Reads } else { Handler::Idle };
    }

    /// Whether the driver does nothing until it is told to, but for looks that it need not have.
    pub fn waits(&self) -> bool {
        let is_quiet = self.kicks == 0 && self.handler == Handler::Idle && !self.is_called_back;
        is_quiet && self.at == At::Rest && !self.may_send()
    }

    /// Whether all is sent and answered.
    pub fn is_done(&self) -> bool {
        self.to_send == 0 && self.under_way == [None; MOST as usize]
    }

    fn may_send(&self) -> bool {
        self.to_send > 0 && self.under_way[..self.habits.size.into()].contains(&None)
    }

    /// What the driver may begin when nobody holds the lock.
    fn beginnings(&self) -> impl Iterator<Item = At> {
        let looks = self.habits.looks_unasked && self.under_way != [None; MOST as usize];
        let beginnings = [(self.is_called_back, At::More), (self.may_send(), At::Data), (looks, At::Take)];
        beginnings.into_iter().filter_map(|(may, at)| may.then_some(at))
    }

    /// The word that is loaded next, if one is.
    fn loads(&self) -> Option<usize> {
        Some(match self.at {
            At::KickLook if self.habits.event_index => AVAIL_EVENT,
            At::KickLook => USED_FLAGS,
            At::More | At::Take | At::EnableLook => USED_INDEX,
            At::Element => USED_RING + usize::from(self.last_used % self.habits.size),
            At::Answer(head) => DATA + usize::from(head),
            _ => return None,
        })
    }

    /// In how many ways the driver may go on.
    pub fn ways(&self) -> usize {
        match (self.at, self.loads()) {
            (At::Rest, _) => self.beginnings().count(),
            // Kick, or add another first.
            (At::KickFence, _) => 1 + usize::from(self.may_send()),
            (_, Some(word)) => self.memory.readable(&self.guest, word),
            _ => 1,
        }
    }

    /// It goes on in one of them, up to where it makes a difference what the device does meanwhile. It makes none before a
    /// store: what is stored early may be read late.
    pub fn go_on(&mut self, way: usize) {
        self.take_step(way);
        loop {
            match (self.at, self.loads()) {
                (At::Rest | At::KickFence | At::EventFence | At::EnableFence, _) => return,
                (_, Some(word)) if !is_guarded(word) || self.ways() > 1 => return,
                _ => self.take_step(0),
            }
        }
    }

    fn take_step(&mut self, way: usize) {
        let loaded = self.loads().map_or(0, |word| self.memory.load(&mut self.guest, word, way));
        let index = (loaded & 0xffff) as u16;
        self.at = match self.at {
            At::Rest => self.begin(way),
            At::Data => {
                self.sending = u16::from(self.under_way[0].is_some());
                self.under_way[usize::from(self.sending)] = Some(self.next_number);
                self.store(DATA + usize::from(self.sending), self.next_number);
                self.to_send -= 1;
                self.next_number += 1;
                At::Head
            }
            At::Head => {
                self.store(AVAIL_RING + usize::from(self.available % self.habits.size), self.sending.into());
                self.memory.fence(&mut self.guest, Release);
                At::Index
            }
            At::Index => {
                self.available = self.available.wrapping_add(1);
                self.added += 1;
                self.store(AVAIL_INDEX, self.available.into());
                At::KickFence
            }
            At::KickFence if way == 1 => At::Data,
            At::KickFence => self.full_fence(At::KickLook),
            At::KickLook => {
                let added = std::mem::take(&mut self.added);
                let needs_kick = match self.habits.event_index {
                    true => self.available.wrapping_sub(index).wrapping_sub(1) < added,
                    false => index & 1 == 0,
                };
                if needs_kick {
                    self.kicks += 1;
                    self.kicker = self.guest.view;
                }
                At::Rest
            }
            At::More if index == self.last_used => At::Rest,
            At::More => {
                self.event_triggered = self.habits.event_index;
                self.is_in_handler = true;
                At::Disable
            }
            At::Disable => {
                let was_disabled = std::mem::replace(&mut self.interrupts_disabled, true);
                if !was_disabled && !self.event_triggered {
                    match self.habits.event_index {
                        true => self.store(USED_EVENT, 0),
                        false => self.store(AVAIL_FLAGS, 1),
                    }
                }
                At::Take
            }
            At::Take if index == self.last_used => {
                if self.is_in_handler {
                    At::EnableFlags
                } else {
                    At::Rest
                }
            }
            At::Take => {
                self.memory.fence(&mut self.guest, Acquire);
                let under_way = self.under_way.iter().flatten().count();
                self.check(usize::from(index.wrapping_sub(self.last_used)) <= under_way, "used index ahead");
                At::Element
            }
            At::Element => {
                let (head, number) = ((loaded & 0xffff_ffff) as usize, loaded >> 32);
                let is_known = self.under_way.get(head).is_some_and(|known| *known == Some(number));
                self.check(is_known, "given back what was not asked");
                At::Answer(u16::try_from(head % usize::from(MOST)).unwrap())
            }
            At::Answer(head) => {
                let number = self.under_way[usize::from(head)].take();
                self.check(number.map(answer_to) == Some(loaded), "not the answer");
                self.last_used = self.last_used.wrapping_add(1);
                if self.interrupts_disabled { At::Take } else { At::Event }
            }
            At::Event => {
                self.store(USED_EVENT, self.last_used.into());
                At::EventFence
            }
            At::EventFence => self.full_fence(At::Take),
            At::EnableFlags => {
                self.interrupts_disabled = false;
                self.event_triggered = false;
                if !self.habits.event_index {
                    self.store(AVAIL_FLAGS, 0);
                }
                At::EnableEvent
            }
            At::EnableEvent => {
                self.store(USED_EVENT, self.last_used.into());
                At::EnableFence
            }
            At::EnableFence => self.full_fence(At::EnableLook),
            At::EnableLook if index != self.last_used => At::Disable,
            At::EnableLook => {
                self.is_in_handler = false;
                At::Rest
            }
        };
    }

    fn begin(&mut self, way: usize) -> At {
        let begun = self.beginnings().nth(way).unwrap();
        if begun == At::More {
            self.is_called_back = false;
            self.guest.hear(&self.handler_view);
        }
        begun
    }

    fn store(&mut self, word: usize, value: u64) {
        self.memory.store(&mut self.guest, word, value);
    }

    fn full_fence(&mut self, then: At) -> At {
        self.memory.fence(&mut self.guest, SeqCst);
        then
    }

    pub fn check(&mut self, holds: bool, otherwise: &str) {
        if !holds && self.fault.is_none() {
            self.fault = Some(otherwise.into());
        }
    }
}
