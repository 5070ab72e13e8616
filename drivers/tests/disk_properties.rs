//! What holds for requests on a physical disk whatever order it answers in, whatever fails, and whenever the guest
//! resets: each is answered at most once, and all are in the end; what is read is what was written; and everything that
//! was taken is given back.

mod common;

use common::disk_bed::{DiskBed, DiskGuest, OK};
use common::lanes::{Asked, Lanes, request};
use drivers::drive::{DriveError, TIME_LIMIT_NS};
use drivers::virtio::Features;
use drivers::virtio::blk::config::FLUSH;
use proptest::prelude::*;

const LANES: u16 = 12;
const LANE_SECTORS: u32 = 64;

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

struct Model {
    bed: DiskBed,
    guest: DiskGuest,
    lanes: Lanes,
}

impl Model {
    fn new(slots: u16, features: Features) -> Self {
        let bed = DiskBed::new(u64::from(LANES) * u64::from(LANE_SECTORS), slots);
        let guest = bed.guest_with(features);
        Self { bed, guest, lanes: Lanes::new(LANES, LANE_SECTORS) }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask(lane, asked) => self.lanes.ask(&mut self.guest, *lane, *asked),
            Step::Kick => self.guest.kick(),
            Step::Turn => self.bed.turn(&mut [&mut self.guest]),
            Step::CarryOut(index) => self.bed.carry_out(*index, &mut [&mut self.guest]),
            Step::Fail(error) => self.bed.fake.state().errors.push_back(*error),
            Step::Silence => {
                self.bed.pass(TIME_LIMIT_NS);
                self.bed.turn(&mut [&mut self.guest]);
            }
            Step::LargestPin(bytes) => self.guest.guest.memory.set_largest_pin(*bytes),
            Step::Reset => self.lanes.reset(&mut self.guest),
        }
        self.lanes.take_answers(&self.guest, &self.bed.fake.state().bytes);
        assert!(!self.guest.guest.needs_reset());
    }

    /// All that is under way ends, and nothing is kept.
    fn end(&mut self) {
        self.guest.guest.memory.set_largest_pin(u32::MAX);
        self.bed.fake.state().errors.clear();
        self.guest.kick();
        self.bed.finish(&mut [&mut self.guest]);
        self.lanes.take_answers(&self.guest, &self.bed.fake.state().bytes);
        self.lanes.assert_whole(&self.guest, &self.bed.fake.state().bytes);
        // All slots are free: so many reads are at the device together.
        self.lanes.ask_all(&mut self.guest);
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
        prop_assert!(model.lanes.statuses.iter().all(|status| *status == OK));
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
