//! A device goes on under the next kernel, at whatever step the one before it ended: each request is answered once, the
//! guest hears of it, and its registers are as it wrote them.

mod common;

use common::crash::{BASE, BUFFERS, CrashDrive, DriverQueue, Machine, World, all_ended, end_after};
use drivers::fake::drive::FakeDisk;
use drivers::virtio::Features;
use drivers::virtio::blk::BlockDevice;
use drivers::virtio::blk::config::FLUSH;
use drivers::virtio::handover::DeviceHandover;
use drivers::volume::disk::Disk;
use drivers::volume::disk_volume::DiskVolume;
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};

const IN: u32 = 0;
const OUT: u32 = 1;
const SECTORS: u64 = 96;
/// Each request has sectors of its own, and memory.
const LANES: u16 = 8;
const LANE_SECTORS: u64 = 12;
const LANE_BYTES: u64 = 0x2000;
const SIZE: u16 = 16;

type BlockModel = BlockDevice<common::crash::CrashPinned>;

/// A disk that answers in an order that is hard to foresee.
struct DiskMachine {
    fake: FakeDisk,
    disk: Rc<RefCell<Disk>>,
    order: usize,
}

impl DiskMachine {
    fn new(slots: u16, order: usize) -> Self {
        let fake = FakeDisk::new(SECTORS, slots);
        fake.state().is_prompt = false;
        let disk = disk(&fake);
        Self { fake, disk, order }
    }

    fn random(&mut self, below: usize) -> usize {
        self.order =
            self.order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.order >> 33) % below
    }
}

fn disk(fake: &FakeDisk) -> Rc<RefCell<Disk>> {
    Rc::new(RefCell::new(Disk::new("blk0".into(), Box::new(CrashDrive(fake.drive())))))
}

impl Machine for DiskMachine {
    const PAGES: usize = 24;
    type Model = BlockModel;

    fn boot(&mut self) -> BlockModel {
        // What the disk had got it may have carried out, or not: then it is reset.
        for _ in 0..self.random(3) {
            self.fake.carry_out(0);
        }
        self.fake.state().at_device.clear();
        self.fake.state().answers.clear();
        self.disk = disk(&self.fake);
        let volume = DiskVolume::open(&self.disk, 0..SECTORS, false);
        BlockDevice::new("dom3/xvda".into(), "serial", Box::new(volume))
    }

    fn before(&mut self) {
        self.disk.borrow_mut().poll(0);
    }

    fn after(&mut self) {
        self.disk.borrow_mut().kick();
    }

    fn outside(&mut self) -> bool {
        let waiting = self.fake.state().at_device.len();
        if waiting > 0 {
            let index = self.random(waiting);
            self.fake.carry_out(index);
        }
        waiting > 0
    }
}

/// A request in a lane: read or write, and so many sectors.
#[derive(Clone, Copy, Debug)]
struct Asked {
    lane: u16,
    write: Option<u8>,
    sectors: u32,
}

struct DiskGuest {
    world: World<DiskMachine>,
    queue: DriverQueue<Asked>,
    indirect: bool,
    /// What each lane holds.
    lanes: Vec<Vec<u8>>,
    answers: usize,
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    event_index: bool,
    indirect: bool,
    /// Chains that went through the queue before.
    start: u16,
    slots: u16,
    order: usize,
}

impl DiskGuest {
    fn cold(setting: Setting) -> Self {
        let world = World::new(DiskMachine::new(setting.slots, setting.order));
        let queue = DriverQueue::new(0, SIZE, setting.event_index);
        let lanes = vec![vec![0; usize::try_from(LANE_SECTORS * 512).unwrap()]; LANES.into()];
        Self { world, queue, indirect: setting.indirect, lanes, answers: 0 }
    }

    fn start(&mut self, event_index: bool) {
        let event = if event_index { Features::EVENT_IDX } else { Features::empty() };
        self.world.negotiate(Features::VERSION_1 | Features::INDIRECT_DESC | FLUSH | event);
        self.world.set_queue(&self.queue);
        self.world.start();
    }

    fn running(setting: Setting) -> Self {
        let mut guest = Self::cold(setting);
        guest.start(setting.event_index);
        if setting.start != 0 {
            guest.world.wind(&mut guest.queue, setting.start);
        }
        guest
    }

    fn ask(&mut self, asked: Asked) -> bool {
        let Asked { lane, write, sectors } = asked;
        if self.queue.flying.values().any(|(other, _)| other.lane == lane) {
            return false;
        }
        let place = BUFFERS + u64::from(lane) * LANE_BYTES;
        let sector = u64::from(lane) * LANE_SECTORS;
        let header = common::header(if write.is_some() { OUT } else { IN }, sector);
        let memory = &self.world.memory;
        memory.poke(place, &header).unwrap();
        memory.poke(place + 16, &[0xff]).unwrap();
        let data = vec![write.unwrap_or(0xee); sectors as usize * 512];
        memory.poke(place + 512, &data).unwrap();
        let buffers =
            [(place, 16, false), (place + 512, sectors * 512, write.is_none()), (place + 16, 1, true)];
        self.queue.post(memory, &buffers, self.indirect, asked)
    }

    fn kick(&mut self) {
        self.world.kick(&mut self.queue);
    }

    /// What the guest does when it is interrupted; it looks at nothing else.
    fn take_answers(&mut self) {
        if self.world.is_interrupted() {
            self.look();
        }
    }

    fn look(&mut self) {
        for (Asked { lane, write, sectors }, length) in self.queue.take_used(&self.world.memory) {
            let place = BUFFERS + u64::from(lane) * LANE_BYTES;
            let bytes = sectors as usize * 512;
            let mut read = vec![0; bytes + 512];
            self.world.memory.peek(place, &mut read).unwrap();
            assert_eq!(read[16], 0, "the status of {lane}");
            let held = &mut self.lanes[usize::from(lane)][..bytes];
            match write {
                Some(value) => held.fill(value),
                None => assert!(held == &read[512..], "what was read from {lane}"),
            }
            assert_eq!(length, if write.is_some() { 1 } else { sectors * 512 + 1 });
            self.answers += 1;
        }
    }

    /// Until nothing happens any more.
    fn settle(&mut self) {
        self.world.settle();
        self.take_answers();
        // The guest's access may have made work.
        self.world.settle();
        self.take_answers();
    }

    /// All that was asked was answered, and the disk holds what was written.
    fn check(&mut self) {
        assert!(!self.world.needs_reset(), "needs a reset");
        assert!(self.queue.flying.is_empty(), "waits for ever: {:?}", self.queue.flying);
        assert_eq!(self.queue.free(), SIZE.into());
        assert!(self.world.machine.fake.state().bytes == self.lanes.concat(), "the disk has something else");
    }
}

/// A few requests together, then a few more, one after the other.
fn few_requests(guest: &mut DiskGuest, count: u16) {
    let request = |lane: u16| Asked { lane, write: lane.is_multiple_of(2).then_some(7), sectors: 1 };
    for lane in 0..count {
        assert!(guest.ask(request(lane)));
    }
    guest.kick();
    guest.settle();
    for lane in [1, 0] {
        assert!(guest.ask(Asked { sectors: 2, ..request(lane) }), "the first ones were not answered");
        guest.kick();
        guest.world.turn();
        guest.take_answers();
    }
    guest.settle();
    assert_eq!(guest.answers, usize::from(count) + 2);
    guest.check();
}

fn settings() -> impl Iterator<Item = Setting> {
    (0..8).map(|bits: usize| Setting {
        event_index: bits & 1 != 0,
        indirect: bits & 2 != 0,
        start: if bits & 4 != 0 { 65534 } else { 0 },
        slots: 3,
        order: bits,
    })
}

#[test]
fn a_kernel_may_end_at_any_step_of_a_few_requests() {
    for setting in settings() {
        for count in [1, 4] {
            for steps in 0.. {
                let mut guest = DiskGuest::running(setting);
                end_after(&[steps]);
                few_requests(&mut guest, count);
                if !all_ended() {
                    break;
                }
            }
        }
    }
}

/// Requests of a guest that sees at once what was answered when a kernel has ended, and asks for more with the same
/// descriptors, before there is another kernel.
fn busy_requests(guest: &mut DiskGuest, count: u16) {
    let mut asked = 0;
    for turn in 0..6 {
        for lane in 0..count {
            let write = lane.is_multiple_of(2).then_some(turn);
            asked += usize::from(guest.ask(Asked { lane, write, sectors: 1 }));
        }
        guest.kick();
        let crashes = guest.world.crashes;
        guest.world.turn();
        if guest.world.crashes > crashes {
            guest.look();
        } else {
            guest.take_answers();
        }
    }
    guest.settle();
    guest.check();
    assert_eq!(guest.answers, asked);
}

#[test]
fn a_guest_may_go_on_while_there_is_no_kernel() {
    for setting in settings() {
        for steps in 0.. {
            let mut guest = DiskGuest::running(setting);
            end_after(&[steps]);
            busy_requests(&mut guest, 3);
            if !all_ended() {
                break;
            }
        }
    }
}

#[test]
fn the_next_kernel_may_end_as_well_at_any_step() {
    for (number, setting) in settings().enumerate() {
        for first in (number..).step_by(24) {
            let mut guest = DiskGuest::running(setting);
            end_after(&[first]);
            few_requests(&mut guest, 3);
            if !all_ended() {
                break;
            }
            for second in 0..70 {
                let mut guest = DiskGuest::running(setting);
                end_after(&[first, second, second / 2]);
                few_requests(&mut guest, 3);
            }
        }
    }
}

#[test]
fn a_kernel_may_end_at_any_step_of_a_driver_that_comes_up() {
    let setting = Setting { event_index: true, indirect: false, start: 0, slots: 3, order: 1 };
    for steps in 0.. {
        let mut guest = DiskGuest::cold(setting);
        end_after(&[steps, steps % 5]);
        guest.start(true);
        few_requests(&mut guest, 2);
        // And once more.
        guest.queue = DriverQueue::new(0, SIZE, true);
        guest.answers = 0;
        guest.start(true);
        few_requests(&mut guest, 1);
        if !all_ended() {
            break;
        }
    }
}

/// Reads in three lanes, at least one of which is under way.
fn reads_under_way(guest: &mut DiskGuest) {
    for lane in 0..3 {
        assert!(guest.ask(Asked { lane, write: None, sectors: 1 }));
    }
    guest.kick();
    guest.world.turn();
}

/// The driver resets the device and comes up again; then all is well, for the next kernel, too.
fn start_over(guest: &mut DiskGuest, event_index: bool) {
    guest.queue = DriverQueue::new(0, SIZE, event_index);
    guest.start(event_index);
    for _ in 0..2 {
        reads_under_way(guest);
        guest.world.crash();
        guest.settle();
        guest.check();
    }
}

#[test]
fn a_wrong_bit_in_the_handover_is_found_or_does_no_harm() {
    let setting = Setting { event_index: true, indirect: false, start: 0, slots: 2, order: 1 };
    let mut guest = DiskGuest::running(setting);
    let bytes: *const AtomicU8 = core::ptr::from_ref(guest.world.handover).cast();
    let mut found = 0;
    for bit in (0..size_of::<DeviceHandover>() * 8).step_by(5) {
        reads_under_way(&mut guest);
        guest.world.crash();
        // SAFETY: the handover is made of atomics and is never freed, and the byte is one of it.
        let byte = unsafe { &*bytes.add(bit / 8) };
        byte.fetch_xor(1 << (bit % 8), Ordering::Relaxed);
        let edges = guest.world.line.edges();
        guest.world.turn();
        assert!(guest.world.line.edges() > edges);
        if guest.world.needs_reset() {
            found += 1;
            assert!(guest.world.read(common::INTERRUPT_STATUS) & 2 != 0, "told of the configuration");
            start_over(&mut guest, true);
        } else {
            guest.settle();
            guest.check();
        }
    }
    // The registers, twice, and the list of the one queue.
    assert!(found > (2 * 17 + 8) * 64 / 5);
}

/// A guest that is told nothing new: after a restart it kicks, and is interrupted, as ever.
#[derive(Clone, Debug)]
enum Step {
    Ask(Asked),
    Kick,
    Turn,
    TakeAnswers,
    /// The guest looks without being interrupted.
    Look,
    Crash,
    EndAfter(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let write = prop::option::of(any::<u8>());
    prop_oneof![
        8 => (0..LANES, write, 1..=u32::try_from(LANE_SECTORS).unwrap())
            .prop_map(|(lane, write, sectors)| Step::Ask(Asked { lane, write, sectors })),
        4 => Just(Step::Kick),
        6 => Just(Step::Turn),
        3 => Just(Step::TakeAnswers),
        1 => Just(Step::Look),
        1 => Just(Step::Crash),
        2 => (0..200_usize).prop_map(Step::EndAfter),
    ]
}

fn any_setting() -> impl Strategy<Value = Setting> {
    let start = prop_oneof![Just(0), 65500..=65535_u16, any::<u16>()];
    (any::<bool>(), any::<bool>(), start, 1..5_u16, any::<usize>()).prop_map(
        |(event_index, indirect, start, slots, order)| Setting {
            event_index,
            indirect,
            start,
            slots,
            order: order >> 1,
        },
    )
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Where a guest lies, and what it says there.
fn any_lie() -> impl Strategy<Value = (u64, u16)> {
    let index = prop_oneof![Just(0xc02), Just(0x802)];
    let entry = prop_oneof![0xc00..0xe00_u64, 0x800..0x840_u64, 0..0x100_u64].prop_map(|place| place & !1);
    let value = prop_oneof![0..20_u16, 65500..=65535_u16, any::<u16>()];
    (prop_oneof![1 => index, 2 => entry], value)
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_guest_that_lies_to_the_next_kernel_has_itself_to_blame(
        setting in any_setting(),
        end in 0..120_usize,
        lies in prop::collection::vec(any_lie(), 1..20),
    ) {
        let mut guest = DiskGuest::running(setting);
        reads_under_way(&mut guest);
        end_after(&[end]);
        while guest.world.turn() && guest.world.crashes < 1 {}
        guest.world.crash();
        for (place, value) in lies {
            guest.world.memory.poke(BASE + place, &value.to_le_bytes()).unwrap();
        }
        guest.world.settle();
        assert!(guest.world.memory.pins() <= 3);
        // What was read came to places that the guest gave for it.
        guest.lanes.iter_mut().for_each(|lane| lane.fill(0));
        guest.world.machine.fake.state().bytes.fill(0);
        start_over(&mut guest, setting.event_index);
    }

    #[test]
    fn requests_are_answered_once_however_many_kernels_it_takes(
        setting in any_setting(),
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let mut guest = DiskGuest::running(setting);
        for step in steps {
            match step {
                Step::Ask(asked) => drop(guest.ask(asked)),
                Step::Kick => guest.kick(),
                Step::Turn => drop(guest.world.turn()),
                Step::TakeAnswers => guest.take_answers(),
                Step::Look => guest.look(),
                Step::Crash => guest.world.crash(),
                Step::EndAfter(steps) => end_after(&[steps]),
            }
        }
        guest.kick();
        guest.settle();
        guest.check();
    }
}
