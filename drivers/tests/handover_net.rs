//! A network card goes on under the next kernel, at whatever step the one before it ended: no buffer is given back twice or
//! lost, and frames go both ways afterwards. Frames under way may be lost or doubled.

mod common;

use common::crash::{BUFFERS, DriverQueue, Machine, World, all_ended, end_after};
use common::net_bed::{GUEST, STATION, frame, port};
use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, Port, SharedBridge};
use drivers::net::filter::Filter;
use drivers::net::offload::Offload;
use drivers::virtio::Features;
use drivers::virtio::net::NetDevice;
use drivers::virtio::net::config::{CTRL_RX, CTRL_VLAN, CTRL_VQ, GUEST_ANNOUNCE, MRG_RXBUF, STATUS};
use proptest::prelude::*;

const SIZE: u16 = 16;
const HEADER_BYTES: usize = 12;
const RECEIVE_BYTES: u32 = 200;
/// Three buffers.
const LARGE: usize = 500;
const SMALL: usize = 60;
const CONFIG_GENERATION: u32 = 0xfc;

/// A bridge, which ends with its kernel, and a station on it.
struct Net {
    bridge: SharedBridge,
    peer: Port,
}

impl Net {
    fn new() -> (Self, NetDevice) {
        let bridge = Bridge::new(1);
        let peer = port(&bridge, "dom9/net0", STATION);
        peer.set_filter(Some(Filter { promiscuous: true, ..Filter::default() }));
        let model = NetDevice::new("dom3/net0".into(), port(&bridge, "dom3/net0", GUEST));
        (Self { bridge, peer }, model)
    }
}

impl Machine for Net {
    const PAGES: usize = 32;
    type Model = NetDevice;

    fn boot(&mut self) -> NetDevice {
        let model;
        (*self, model) = Self::new();
        model
    }
}

/// Each with a number for each of its buffers' places.
struct NetGuest {
    world: World<Net>,
    queues: [DriverQueue<u16>; 3],
    received: Vec<Vec<u8>>,
    arrived: Vec<Vec<u8>>,
    answered: usize,
}

impl NetGuest {
    fn running(event_index: bool, start: u16) -> Self {
        let world = World::new(Net::new().0);
        let queues = [0, 1, 2].map(|number| DriverQueue::new(number, SIZE, event_index));
        let mut guest = Self { world, queues, received: Vec::new(), arrived: Vec::new(), answered: 0 };
        let event = if event_index { Features::EVENT_IDX } else { Features::empty() };
        let features = Features::VERSION_1 | Features::INDIRECT_DESC | MRG_RXBUF | event;
        guest.world.negotiate(features | CTRL_VQ | CTRL_RX | CTRL_VLAN | STATUS | GUEST_ANNOUNCE);
        guest.queues.iter().for_each(|queue| guest.world.set_queue(queue));
        guest.world.start();
        if start != 0 {
            guest.queues.iter_mut().for_each(|queue| guest.world.wind(queue, start));
        }
        guest
    }

    fn place(queue: usize, number: u16) -> u64 {
        BUFFERS + (queue as u64 * u64::from(SIZE) + u64::from(number)) * 0x400
    }

    /// Makes a chain available, in buffers that no other has.
    fn post(&mut self, queue: usize, parts: impl Fn(u64) -> Vec<(u64, u32, bool)>, bytes: &[u8]) -> bool {
        let taken = |number: &u16| self.queues[queue].flying.values().any(|(other, _)| other == number);
        let Some(number) = (0..SIZE).find(|number| !taken(number)) else { return false };
        let place = Self::place(queue, number);
        self.world.memory.poke(place, bytes).unwrap();
        self.queues[queue].post(&self.world.memory, &parts(place), number.is_multiple_of(2), number)
    }

    fn post_buffer(&mut self) -> bool {
        self.post(0, |place| vec![(place, RECEIVE_BYTES, true)], &[0xee; RECEIVE_BYTES as usize])
    }

    fn send(&mut self, length: usize) -> bool {
        let bytes = [&[0; HEADER_BYTES][..], &frame(STATION, GUEST, length)].concat();
        let length = u32::try_from(bytes.len()).unwrap();
        self.post(1, |place| vec![(place, 12, false), (place + 12, length - 12, false)], &bytes)
    }

    fn command(&mut self, command: &[u8]) -> bool {
        let length = u32::try_from(command.len()).unwrap();
        let ack = |place: u64| place + 0x100;
        self.post(2, |place| vec![(place, length, false), (ack(place), 1, true)], command)
    }

    /// The station sends a frame to the guest.
    fn deliver(&mut self, frame: &[u8]) {
        // So that there is a kernel, with a bridge.
        let _ = self.world.needs_reset();
        let peer = &self.world.machine.peer;
        let mut blank = peer.blank(frame.len()).unwrap();
        blank.bytes_mut().copy_from_slice(frame);
        peer.send(&blank.finish(Offload::default()), 1);
    }

    fn kick(&mut self, queue: usize) {
        self.world.kick(&mut self.queues[queue]);
    }

    fn turn(&mut self) -> bool {
        let busy = self.world.turn();
        self.arrived.extend(
            core::iter::from_fn(|| self.world.machine.peer.receive()).map(|frame| frame.bytes().to_vec()),
        );
        busy
    }

    fn look(&mut self) {
        let memory = &self.world.memory;
        let mut buffers = self.queues[0].take_used(memory).into_iter();
        while let Some((number, length)) = buffers.next() {
            let part = |number: u16, length: u32| {
                let mut bytes = vec![0; length as usize];
                memory.peek(Self::place(0, number), &mut bytes).unwrap();
                bytes
            };
            let mut bytes = part(number, length);
            for _ in 1..u16::from_le_bytes([bytes[10], bytes[11]]) {
                let (number, length) = buffers.next().expect("a frame's buffers are told together");
                bytes.extend(part(number, length));
            }
            self.received.push(bytes.split_off(HEADER_BYTES));
        }
        self.queues[1].take_used(memory);
        for (number, length) in self.queues[2].take_used(memory) {
            let mut ack = [0xff];
            memory.peek(Self::place(2, number) + 0x100, &mut ack).unwrap();
            assert_eq!((ack, length), ([0], 1));
            self.answered += 1;
        }
    }

    fn take_answers(&mut self) {
        if self.world.is_interrupted() {
            self.look();
        }
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            let busy = self.turn() || self.turn();
            self.take_answers();
            if !busy && !self.turn() {
                return;
            }
        }
        panic!("it never ends");
    }

    /// Whoever waits is served, all descriptors come back, and frames go both ways.
    fn check(&mut self) {
        end_after(&[]);
        (0..3).for_each(|queue| self.kick(queue));
        self.settle();
        assert!(!self.world.needs_reset());
        let sent = [LARGE, SMALL].map(|length| frame(STATION, GUEST, length));
        assert!(self.arrived.iter().all(|frame| sent.contains(frame)), "frames that nobody sent");
        let whole = [LARGE, SMALL].map(|length| frame(GUEST, STATION, length));
        // The frames that wait.
        for _ in 0..4 {
            while self.post_buffer() {}
            self.kick(0);
            self.settle();
        }
        let count = self.queues[0].flying.len();
        self.received.retain(|frame| !whole.contains(frame));
        assert_eq!(self.received, Vec::<Vec<u8>>::new(), "frames that nobody sent");
        (0..count).for_each(|_| self.deliver(&whole[1]));
        self.settle();
        assert_eq!(self.received.len(), count);
        self.arrived.clear();
        assert!(self.send(LARGE) && self.command(&[0, 0, 1]));
        (0..3).for_each(|queue| self.kick(queue));
        self.settle();
        assert_eq!(self.arrived, [sent[0].clone()]);
        assert_eq!([0, 1, 2].map(|queue: usize| self.queues[queue].free()), [SIZE.into(); 3]);
    }
}

fn some_traffic(guest: &mut NetGuest) {
    for _ in 0..5 {
        assert!(guest.post_buffer());
    }
    guest.kick(0);
    assert!(guest.send(SMALL) && guest.send(LARGE) && guest.command(&[0, 0, 1]));
    guest.kick(1);
    guest.kick(2);
    guest.turn();
    for length in [LARGE, SMALL, LARGE] {
        guest.deliver(&frame(GUEST, STATION, length));
    }
    guest.turn();
    guest.take_answers();
    assert!(guest.post_buffer());
    guest.kick(0);
    guest.settle();
}

#[test]
fn a_kernel_may_end_at_any_step_of_some_traffic() {
    for (event_index, start) in [(true, 0), (false, 0), (true, 65533), (false, 65535)] {
        for steps in 0.. {
            let mut guest = NetGuest::running(event_index, start);
            end_after(&[steps, steps % 31]);
            some_traffic(&mut guest);
            let is_last = !all_ended();
            guest.check();
            if is_last {
                break;
            }
        }
    }
}

#[test]
fn the_next_buffer_is_kicked_for_when_those_there_are_too_few() {
    let mut guest = NetGuest::running(true, 0);
    guest.world.crash();
    guest.settle();
    assert!(guest.post_buffer() && guest.post_buffer());
    guest.kick(0);
    guest.deliver(&frame(GUEST, STATION, LARGE));
    guest.settle();
    assert_eq!(guest.received.len(), 0);
    assert!(guest.post_buffer());
    guest.kick(0);
    guest.settle();
    assert_eq!(guest.received, [frame(GUEST, STATION, LARGE)]);
}

#[test]
fn a_vlan_that_was_asked_for_is_heard_after_a_restart() {
    let mut guest = NetGuest::running(true, 0);
    assert!(guest.command(&[2, 0, 5, 0]));
    guest.kick(2);
    guest.settle();
    guest.world.crash();
    guest.settle();
    assert!(guest.post_buffer());
    guest.kick(0);
    let mut tagged = frame(GUEST, STATION, SMALL);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    guest.deliver(&tagged);
    guest.settle();
    assert_eq!(guest.received, [tagged]);
    // And the driver may still say what it wants.
    assert!(guest.command(&[2, 1, 5, 0]));
    guest.kick(2);
    guest.settle();
    assert_eq!(guest.answered, 2);
}

#[test]
fn an_address_that_another_kernel_was_told_is_heard_after_a_restart() {
    let mut guest = NetGuest::running(true, 0);
    guest.world.crash();
    guest.settle();
    // Not promiscuous any more: what it has asked for before counts, and that is not known.
    assert!(guest.post_buffer() && guest.command(&[0, 0, 0]));
    guest.kick(0);
    guest.kick(2);
    guest.settle();
    let station = frame(MacAddress([2, 0, 0, 0, 0, 0x77]), STATION, SMALL);
    let group = frame(MacAddress([0x33, 0x33, 0, 0, 0, 0x77]), STATION, SMALL);
    assert!(guest.post_buffer());
    guest.kick(0);
    guest.deliver(&station);
    guest.deliver(&group);
    guest.settle();
    assert_eq!(guest.received, [station, group]);
}

#[test]
fn configuration_that_was_announced_reads_as_changed() {
    let mut guest = NetGuest::running(true, 0);
    let before = guest.world.read(CONFIG_GENERATION);
    let _ = guest.world.needs_reset();
    guest.world.machine.bridge.borrow_mut().announce();
    guest.settle();
    let announced = guest.world.read(CONFIG_GENERATION);
    guest.world.crash();
    let after = guest.world.read(CONFIG_GENERATION);
    assert!(before != announced && announced != after && before != after);
}

#[derive(Clone, Debug)]
enum Step {
    Post,
    Send(usize),
    Command,
    Deliver(usize),
    Kick(usize),
    Turn,
    TakeAnswers,
    Look,
    Crash,
    EndAfter(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let length = || prop_oneof![Just(SMALL), Just(LARGE)];
    prop_oneof![
        8 => Just(Step::Post),
        4 => length().prop_map(Step::Send),
        1 => Just(Step::Command),
        5 => length().prop_map(Step::Deliver),
        6 => (0..3_usize).prop_map(Step::Kick),
        6 => Just(Step::Turn),
        3 => Just(Step::TakeAnswers),
        1 => Just(Step::Look),
        1 => Just(Step::Crash),
        2 => (0..200_usize).prop_map(Step::EndAfter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_buffer_is_lost_however_many_kernels_it_takes(
        event_index: bool,
        start in prop_oneof![Just(0), 65500..=65535_u16],
        steps in prop::collection::vec(any_step(), 1..100),
    ) {
        let mut guest = NetGuest::running(event_index, start);
        for step in steps {
            match step {
                Step::Post => drop(guest.post_buffer()),
                Step::Send(length) => drop(guest.send(length)),
                Step::Command => drop(guest.command(&[0, 0, 1])),
                Step::Deliver(length) => guest.deliver(&frame(GUEST, STATION, length)),
                Step::Kick(queue) => guest.kick(queue),
                Step::Turn => drop(guest.turn()),
                Step::TakeAnswers => guest.take_answers(),
                Step::Look => guest.look(),
                Step::Crash => guest.world.crash(),
                Step::EndAfter(steps) => end_after(&[steps]),
            }
        }
        guest.check();
    }
}
