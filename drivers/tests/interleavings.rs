//! The rules of rings and notifications against a guest that runs at the same time, in every order that there is.
//!
//! The transport and the queue are the real ones, under a device that answers each request at once, and are driven as the
//! kernel's loop does. Beside them runs Linux's driver, access by access, over memory that is as weakly ordered as Arm's
//! ([`common::weak_memory`]). Every order of accesses and every value that a load may have is tried; the indices pass from
//! 65535 to 0 on the way. Whatever happens, each request is answered once and well, and nobody sleeps before all are: a
//! kick or an interrupt that is due comes.
//!
//! That the search would find what it is there for is tested, too: each barrier left out, each look at the other side's
//! index left out, and each pair of accesses in the wrong order makes it find a fault ([`Mistake`]).
//! The same was tried on the queue's own code: without any one of its four fences, its second look for heads or its clearing
//! of NO_NOTIFY, with an event one too far, and with the interrupt's range one too short, these tests fail.

mod common;

use common::linux_ring::{AVAIL_EVENT, Habits, Handler, MOST, USED_FLAGS, USED_INDEX, World, answer_to};
use common::scheduled_memory::{AVAILABLE, DESCRIPTORS, Mistake, Pinned, REQUESTS, Shared, USED};
use common::{
    DRIVER_FEATURES, DRIVER_FEATURES_SEL, INTERRUPT_ACK, INTERRUPT_STATUS, QUEUE_DESC, QUEUE_DEVICE,
    QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_NUM, QUEUE_READY, STATUS,
};
use drivers::guest::{GuestAddress, GuestMemory, GuestRegion, PinnedMemory};
use drivers::virtio::mmio::{Effect, MmioDevice, Width};
use drivers::virtio::queue::{Heads, Queue, QueueError, Used};
use drivers::virtio::{Device, Features, QueueIndex, Served};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering;

/// The index from which on we look: two requests later it is 0.
const FIRST_INDEX: u16 = u16::MAX - 1;

/// A device that answers each request at once.
#[derive(Clone, Debug)]
struct Echo {
    features: Features,
    /// Most requests that it takes at a time.
    most: u16,
    /// It tells the guest when there is nothing else to do.
    tells_late: bool,
    /// The number of the last request.
    number: u64,
}

impl Echo {
    fn answer(&mut self, queue: &mut Queue<Pinned>, memory: &Shared) -> Result<Served, QueueError> {
        if memory.0.borrow().is_starting {
            queue.take(&[0; FIRST_INDEX as usize]);
            queue.complete(&vec![Used { id: 0, length: 0 }; FIRST_INDEX.into()])?;
            let _ = queue.wants_interrupt()?;
            return Ok(Served::default());
        }
        let waiting = queue.waiting()?;
        if waiting == 0 {
            return Ok(Served { owes_interrupt: self.tells_late, ..Served::default() });
        }
        let mut heads = Heads::new();
        queue.peek(waiting.min(self.most), &mut heads)?;
        let mut done = Vec::new();
        for head in &heads {
            let address = GuestAddress(REQUESTS + 8 * u64::from(head % MOST));
            let mut number = [0; 8];
            memory.read(address, &mut number)?;
            let number = u64::from_le_bytes(number);
            self.number += 1;
            memory.0.borrow_mut().world.check(number == self.number, "another request than was sent");
            let pinned = memory.pin(&[GuestRegion { address, length: 8 }])?;
            pinned.write(0, &answer_to(number).to_le_bytes())?;
            done.push(Used { id: *head, length: number.try_into().unwrap() });
        }
        let taken = u16::try_from(heads.len()).unwrap();
        queue.take(&heads);
        queue.complete(&done)?;
        let interrupt = !self.tells_late && queue.wants_interrupt()?;
        Ok(Served {
            requests: taken.into(),
            interrupt,
            owes_interrupt: self.tells_late,
            more: taken < waiting,
            ..Served::default()
        })
    }
}

impl Device<Shared> for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn id(&self) -> u32 {
        0
    }

    fn features(&self) -> Features {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[MOST]
    }

    fn read_config(&self, _: u32, _: &mut [u8]) {}

    fn read_refused_config(&self, _: u32, _: &mut [u8]) {}

    fn write_config(&mut self, _: u32, _: &[u8]) {}

    fn activate(&mut self, _: Features) {}

    fn resume(&mut self, _: Features) {}

    fn reset(&mut self) {}

    fn has_work(&self) -> bool {
        false
    }

    fn is_polled(&self, _: QueueIndex) -> bool {
        true
    }

    fn take_config_change(&mut self) -> bool {
        false
    }

    fn serve(&mut self, _: QueueIndex, queue: &mut Queue<Pinned>, memory: &Shared) -> Served {
        let served = self.answer(queue, memory);
        served.unwrap_or_else(|error| Served { broken: Some(error), ..Served::default() })
    }
}

/// The kernel's side.
#[derive(Clone)]
struct Kernel {
    device: MmioDevice<Echo, Shared, Shared>,
    /// It looks at the device by itself.
    active: bool,
}

/// A moment at which the kernel's loop may do one thing or another.
#[derive(Clone)]
struct Moment {
    kernel: Kernel,
    world: World,
}

/// What the kernel may do.
#[derive(Clone, Copy, Debug, Hash)]
enum Turn {
    Kick,
    Handler(Handler),
    /// `Guest::work`
    Work,
    /// `Guest::settle`: this may be the last look for long.
    Settle,
}

impl Moment {
    fn turns(&self) -> Vec<Turn> {
        let mut turns = Vec::new();
        turns.extend((self.world.kicks > 0).then_some(Turn::Kick));
        turns.extend((self.world.handler != Handler::Idle).then_some(Turn::Handler(self.world.handler)));
        turns.extend(if self.kernel.active { &[Turn::Work, Turn::Settle][..] } else { &[] });
        turns
    }
}

impl Kernel {
    fn take(&mut self, turn: Turn, shared: &Shared) {
        match turn {
            Turn::Kick => {
                {
                    let world = &mut shared.0.borrow_mut().world;
                    world.kicks -= 1;
                    let kicker = world.kicker;
                    world.device.hear(&kicker);
                }
                self.active |= self.device.write(QUEUE_NOTIFY, Width::Four, 0) == Effect::Work;
            }
            Turn::Handler(Handler::Acknowledges(status)) => {
                let _ = self.device.write(INTERRUPT_ACK, Width::Four, status.into());
                let world = &mut shared.0.borrow_mut().world;
                world.acknowledged(status);
                world.handler_view = world.device.view;
            }
            Turn::Handler(_) => {
                let status = self.device.read(INTERRUPT_STATUS, Width::Four).try_into().unwrap();
                shared.0.borrow_mut().world.handler = Handler::Acknowledges(status);
            }
            Turn::Work => {
                let _ = self.device.poll();
            }
            Turn::Settle => {
                let progress = self.device.process();
                self.active = progress.requests > 0 || progress.more || progress.under_way;
            }
        }
    }

    /// What it is like.
    fn hash(&self) -> u64 {
        let mut hashing = DefaultHasher::new();
        // What only counts makes no difference.
        let text = format!("{:?}", self.device);
        let (before, after) = text.split_once("counters:").unwrap();
        before.hash(&mut hashing);
        after.split_once('}').unwrap().1.hash(&mut hashing);
        self.active.hash(&mut hashing);
        hashing.finish()
    }
}

/// Who takes part.
#[derive(Clone, Copy, Debug)]
struct Cast {
    habits: Habits,
    /// Most requests that the device takes at a time.
    most: u16,
    tells_late: bool,
    requests: u64,
}

/// A device that is up, and has answered all requests before the first one.
fn start(cast: Cast, mistake: Option<Mistake>) -> (Moment, Shared) {
    let shared = Shared::new(World::new(cast.habits, cast.requests, FIRST_INDEX), cast.habits.size, mistake);
    let event_index = if cast.habits.event_index { Features::EVENT_IDX } else { Features::empty() };
    let features = Features::VERSION_1 | event_index;
    let echo = Echo { features, most: cast.most, tells_late: cast.tells_late, number: 0 };
    let mut device = MmioDevice::new(echo, shared.clone(), shared.clone(), Features::empty());
    let registers = [
        (STATUS, 1 | 2),
        (DRIVER_FEATURES_SEL, 1),
        (DRIVER_FEATURES, features.bits() >> 32),
        (DRIVER_FEATURES_SEL, 0),
        (DRIVER_FEATURES, features.bits() & 0xffff_ffff),
        (STATUS, 1 | 2 | 8),
        (QUEUE_NUM, cast.habits.size.into()),
        (QUEUE_DESC, DESCRIPTORS),
        (QUEUE_DRIVER, AVAILABLE),
        (QUEUE_DEVICE, USED),
        (QUEUE_READY, 1),
        (STATUS, 1 | 2 | 4 | 8),
    ];
    for (offset, value) in registers {
        let _ = device.write(offset, Width::Four, value);
    }
    let _ = device.process();
    assert!(device.is_running());
    let world = {
        let mut search = shared.0.borrow_mut();
        search.is_starting = false;
        // Whoever made the guest wait for its start has seen all this.
        let view = search.world.device.view;
        search.world.greet(&view);
        search.world.clone()
    };
    (Moment { kernel: Kernel { device, active: false }, world }, shared)
}

/// Tries all that can happen. Returns the number of situations, or what went wrong in one of them.
fn search(cast: Cast, mistake: Option<Mistake>) -> Result<usize, String> {
    let (first, shared) = start(cast, mistake);
    let mut moments = vec![first];
    let mut is_done_once = false;
    while let Some(moment) = moments.pop() {
        if let Some(fault) = &moment.world.fault {
            return Err(fault.clone());
        }
        let device_hash = moment.kernel.hash();
        let mut hasher = DefaultHasher::new();
        device_hash.hash(&mut hasher);
        moment.world.hash(&mut hasher);
        if !shared.0.borrow_mut().met.insert(hasher.finish()) {
            continue;
        }
        let turns = moment.turns();
        if turns.is_empty() && moment.world.waits() {
            if !moment.world.is_done() {
                return Err("everybody sleeps, and not all is done".into());
            }
            is_done_once = true;
        }
        for way in 0..moment.world.ways() {
            let mut next = moment.clone();
            next.world.go_on(way);
            moments.push(next);
        }
        for turn in turns {
            take_in_all_ways(&moment, turn, device_hash, &shared, &mut moments);
        }
    }
    assert!(is_done_once);
    Ok(shared.0.borrow().met.len())
}

/// Takes a turn, once for each order of what happens in it.
fn take_in_all_ways(moment: &Moment, turn: Turn, device: u64, shared: &Shared, moments: &mut Vec<Moment>) {
    let mut path: Vec<(usize, usize)> = Vec::new();
    loop {
        shared.0.borrow_mut().begin(moment.world.clone(), std::mem::take(&mut path), (device, turn));
        let mut kernel = moment.kernel.clone();
        kernel.take(turn, shared);
        let mut search = shared.0.borrow_mut();
        path = std::mem::take(&mut search.path);
        if !search.is_pruned || search.world.fault.is_some() {
            let mut world = search.world.clone();
            world.check(kernel.device.is_running(), "the device needs a reset");
            moments.push(Moment { kernel, world });
        }
        while path.pop_if(|(chosen, ways)| *chosen + 1 == *ways).is_some() {}
        match path.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => return,
        }
    }
}

/// With the event index, or with flags.
fn cast(size: u16, event_index: bool) -> Cast {
    let habits = Habits { size, event_index, looks_unasked: false };
    Cast { habits, most: 1, tells_late: false, requests: 2 }
}

fn assert_nothing_is_lost(cast: Cast) {
    assert_eq!(search(cast, None).err(), None, "{cast:?}");
}

fn looking_unasked(cast: Cast) -> Cast {
    Cast { habits: Habits { looks_unasked: true, ..cast.habits }, ..cast }
}

fn telling_late(cast: Cast) -> Cast {
    Cast { tells_late: true, most: 2, ..cast }
}

/// The second request waits for the first one's answer, and takes its places in the rings.
#[test]
fn nothing_is_lost_in_a_ring_that_is_full_at_once() {
    for cast in [cast(1, true), cast(1, false)] {
        assert_nothing_is_lost(cast);
        assert_nothing_is_lost(telling_late(cast));
        assert_nothing_is_lost(looking_unasked(cast));
        assert_nothing_is_lost(looking_unasked(telling_late(cast)));
    }
}

#[test]
fn nothing_is_lost_with_the_event_index() {
    assert_nothing_is_lost(cast(2, true));
    assert_nothing_is_lost(telling_late(cast(2, true)));
}

#[test]
fn nothing_is_lost_with_flags() {
    assert_nothing_is_lost(cast(2, false));
    assert_nothing_is_lost(telling_late(cast(2, false)));
}

/// What the search finds wrong.
fn fault(event_index: bool, mistake: Mistake) -> Option<String> {
    search(cast(2, event_index), Some(mistake)).err()
}

#[test]
fn accesses_that_pass_each_other_are_found() {
    let is_found = |mistake| fault(true, mistake).is_some() && fault(false, mistake).is_some();
    assert!(is_found(Mistake::NoFence(Ordering::Acquire)));
    assert!(is_found(Mistake::NoFence(Ordering::Release)));
    assert!(is_found(Mistake::IndexBeforeElements));
}

#[test]
fn a_lost_kick_is_found() {
    let lost = Some("everybody sleeps, and not all is done".into());
    assert_eq!(fault(true, Mistake::NoFullFence(AVAIL_EVENT)), lost);
    assert_eq!(fault(false, Mistake::NoFullFence(USED_FLAGS)), lost);
    for event_index in [true, false] {
        assert_eq!(fault(event_index, Mistake::NoSecondLook), lost);
        assert_eq!(fault(event_index, Mistake::LookBeforeWish), lost);
    }
}

#[test]
fn a_lost_interrupt_is_found() {
    let lost = Some("everybody sleeps, and not all is done".into());
    assert_eq!(fault(true, Mistake::NoFullFence(USED_INDEX)), lost);
    assert_eq!(fault(false, Mistake::NoFullFence(USED_INDEX)), lost);
}
