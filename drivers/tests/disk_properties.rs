//! What holds for requests on a physical disk whatever order it answers in, whatever fails, and whenever the guest
//! resets: each is answered at most once, and all are in the end; what is read is what was written; and everything that
//! was taken is given back.

mod common;

use common::disk_bed::{DISCARD, DiskBed, DiskGuest, FLUSH_ALL, IN, NONE, OK, WRITE_ZEROES};
use drivers::drive::{DriveError, TIME_LIMIT_NS};
use drivers::virtio::Features;
use drivers::virtio::blk::config::FLUSH;
use proptest::prelude::*;

/// Each lane of the disk has at most one request under way, so that it is known what a read must find.
const LANES: u16 = 12;
const LANE_SECTORS: u64 = 64;
const LANE_BYTES: usize = 64 * 512;

#[derive(Clone, Copy, Debug)]
enum Request {
    Read,
    Write(u8),
    Flush,
    Discard,
    WriteZeroes,
}

/// A request in a lane, from a sector of the lane on, of so many sectors.
type Asked = (Request, u64, u32);

#[derive(Clone, Debug)]
enum Step {
    Ask(u16, Asked),
    Kick,
    Turn,
    CarryOut(usize),
    Fail(DriveError),
    Silence,
    LargestPin(u32),
    Reset,
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        4 => Just(Request::Read),
        4 => any::<u8>().prop_map(Request::Write),
        1 => Just(Request::Flush),
        1 => Just(Request::Discard),
        1 => Just(Request::WriteZeroes),
    ]
}

fn asked() -> impl Strategy<Value = Step> {
    let sectors = prop_oneof![3 => 0..9_u32, 1 => 9..40_u32];
    (0..LANES, request(), 0..20_u64, sectors)
        .prop_map(|(lane, request, sector, sectors)| Step::Ask(lane, (request, sector, sectors)))
}

/// Steps of a guest and a disk that are good.
fn good_step() -> impl Strategy<Value = Step> {
    prop_oneof![6 => asked(), 3 => Just(Step::Kick), 3 => Just(Step::Turn), 6 => (0..8_usize).prop_map(Step::CarryOut)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let pins = prop_oneof![Just(1024), Just(4096), Just(u32::MAX)];
    prop_oneof![
        18 => good_step(),
        2 => prop_oneof![Just(DriveError::Io), Just(DriveError::Unsupported)].prop_map(Step::Fail),
        1 => Just(Step::Silence),
        1 => pins.prop_map(Step::LargestPin),
        1 => Just(Step::Reset),
    ]
}

struct Lane {
    /// What it holds, if that is known.
    bytes: Option<Vec<u8>>,
    under_way: Option<Asked>,
}

struct Model {
    bed: DiskBed,
    guest: DiskGuest,
    lanes: Vec<Lane>,
    /// Answers looked at since the last reset.
    answers: usize,
    statuses: Vec<u8>,
}

impl Model {
    fn new(slots: u16, features: Features) -> Self {
        let bed = DiskBed::new(u64::from(LANES) * LANE_SECTORS, slots);
        let guest = bed.guest_with(features);
        let lane = || Lane { bytes: Some(vec![0; LANE_BYTES]), under_way: None };
        let lanes = (0..LANES).map(|_| lane()).collect();
        Self { bed, guest, lanes, answers: 0, statuses: Vec::new() }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask(lane, asked) => self.ask(*lane, *asked),
            Step::Kick => self.guest.kick(),
            Step::Turn => self.bed.turn(&mut [&mut self.guest]),
            Step::CarryOut(index) => self.bed.carry_out(*index, &mut [&mut self.guest]),
            Step::Fail(error) => self.bed.fake.state().errors.push_back(*error),
            Step::Silence => {
                self.bed.pass(TIME_LIMIT_NS);
                self.bed.turn(&mut [&mut self.guest]);
            }
            Step::LargestPin(bytes) => self.guest.guest.memory.set_largest_pin(*bytes),
            Step::Reset => self.reset(),
        }
        self.take_answers();
        assert!(!self.guest.guest.needs_reset());
    }

    fn ask(&mut self, number: u16, asked: Asked) {
        let lane = &mut self.lanes[usize::from(number)];
        if lane.under_way.is_some() {
            return;
        }
        lane.under_way = Some(asked);
        let (request, first, sectors) = asked;
        let sector = u64::from(number) * LANE_SECTORS + first;
        match request {
            Request::Read => self.guest.put(number, IN, sector, sectors * 512),
            Request::Write(value) => self.guest.put_write(number, sector, sectors * 512, value),
            Request::Flush => self.guest.put(number, FLUSH_ALL, 0, 0),
            Request::Discard => {
                self.guest.put_ranges(number, DISCARD, &[(sector, sectors / 2), (sector, sectors)]);
            }
            Request::WriteZeroes => self.guest.put_ranges(number, WRITE_ZEROES, &[(sector, sectors)]),
        }
    }

    fn reset(&mut self) {
        self.guest.reset();
        assert_eq!(self.guest.guest.memory.pins(), 0);
        // The rings need pins, too.
        self.guest.guest.memory.set_largest_pin(u32::MAX);
        self.guest.start();
        self.answers = 0;
        for lane in &mut self.lanes {
            // It may still happen, all or some of it.
            if lane.under_way.take().is_some() {
                lane.bytes = None;
            }
        }
    }

    fn take_answers(&mut self) {
        let given_back = self.guest.given_back();
        for number in &given_back[self.answers..] {
            self.take_answer(*number);
        }
        self.answers = given_back.len();
    }

    fn take_answer(&mut self, number: u16) {
        let lane = &mut self.lanes[usize::from(number)];
        let (request, sector, sectors) = lane.under_way.take().expect("answered twice, or never asked");
        let status = self.guest.status(number);
        assert_ne!(status, NONE);
        self.statuses.push(status);
        let length = sectors as usize * 512;
        if status != OK && !matches!(request, Request::Read | Request::Flush) {
            lane.bytes = None;
        }
        if status == OK && length > 0 && matches!(request, Request::Read) {
            // What was abandoned here has ended, or this had not begun.
            let start = usize::from(number) * LANE_BYTES;
            lane.bytes.get_or_insert_with(|| self.bed.fake.state().bytes[start..][..LANE_BYTES].to_vec());
        }
        let Some(bytes) = &mut lane.bytes else { return };
        let part = &mut bytes[usize::try_from(sector).unwrap() * 512..][..length];
        match request {
            Request::Read if status == OK => assert!(self.guest.data(number, length) == part),
            Request::Read | Request::Flush => {}
            Request::Write(value) => part.fill(value),
            Request::Discard | Request::WriteZeroes => part.fill(0),
        }
    }

    /// All that is under way ends, and nothing is kept.
    fn end(&mut self) {
        self.guest.guest.memory.set_largest_pin(u32::MAX);
        self.bed.fake.state().errors.clear();
        self.guest.kick();
        self.bed.finish(&mut [&mut self.guest]);
        self.take_answers();
        assert!(self.lanes.iter().all(|lane| lane.under_way.is_none()), "somebody waits for ever");
        assert_eq!(self.guest.pins(), 0);
        let bytes = self.bed.fake.state().bytes.clone();
        for (on_disk, lane) in bytes.chunks(LANE_BYTES).zip(&self.lanes) {
            assert!(lane.bytes.as_ref().is_none_or(|known| known == on_disk));
        }
        // All slots are free: so many reads are at the device together.
        (0..LANES).for_each(|n| self.guest.put(n, IN, 0, 512));
        self.guest.kick();
        self.bed.turn(&mut [&mut self.guest]);
        assert_eq!(self.bed.at_device(), self.bed.fake.state().facts.slots.into());
    }
}

fn features() -> impl Strategy<Value = Features> {
    let event = prop_oneof![Just(Features::empty()), Just(FLUSH)];
    event.prop_map(|flush| flush | Features::INDIRECT_DESC)
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_good_disk_answers_everything_well(
        slots in 1..6_u16,
        features in features(),
        steps in prop::collection::vec(good_step(), 1..120),
    ) {
        let mut model = Model::new(slots, features);
        steps.iter().for_each(|step| model.step(step));
        model.end();
        prop_assert!(model.statuses.iter().all(|status| *status == OK));
    }

    #[test]
    fn nobody_waits_for_ever_whatever_fails(
        slots in 1..6_u16,
        features in features(),
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut model = Model::new(slots, features);
        steps.iter().for_each(|step| model.step(step));
        model.end();
    }
}
