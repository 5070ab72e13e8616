//! What holds for requests to an NBD server whenever connections break, the server is restarted, or the guest resets: each is
//! answered once; what is read is what was written and answered; what the server holds in the end is that, too; and
//! everything that was taken is given back.

mod common;

use common::disk_bed::{DiskGuest, OK};
use common::lanes::{Asked, Lanes, request};
use common::nbd_bed::{MS, NbdBed, SECOND};
use common::nbd_server::NbdServer;
use proptest::prelude::*;

const LANES: u16 = 10;
const LANE_SECTORS: u32 = 16;

#[derive(Clone, Debug)]
enum Step {
    Ask(u16, Asked),
    Kick,
    Turns(usize),
    Answer(usize),
    Chunk(usize),
    CutIn(usize),
    CutOut(usize),
    Flip(usize),
    Kill,
    Restart,
    Sleep(u64),
    Reset,
}

/// Steps after which every request ends well.
fn mild_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..LANES, request(), 0..8_u64, 1..9_u32)
            .prop_map(|(lane, request, sector, sectors)| Step::Ask(lane, (request, sector, sectors))),
        3 => Just(Step::Kick),
        4 => (1..20_usize).prop_map(Step::Turns),
        6 => (0..8_usize).prop_map(Step::Answer),
        1 => prop_oneof![Just(usize::MAX), 1..5000_usize].prop_map(Step::Chunk),
        1 => (1..5000_usize).prop_map(Step::CutIn),
        1 => (1..5000_usize).prop_map(Step::CutOut),
        // A bit of magic number or cookie.
        1 => prop_oneof![0..4_usize, 8..16_usize].prop_map(Step::Flip),
        1 => Just(Step::Kill),
        3 => Just(Step::Restart),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => mild_step(),
        1 => (1..40_u64).prop_map(|seconds| Step::Sleep(seconds * SECOND)),
        1 => Just(Step::Reset),
    ]
}

struct Model {
    bed: NbdBed,
    guest: DiskGuest,
    lanes: Lanes,
}

impl Model {
    fn new() -> Self {
        let bed = NbdBed::new(NbdServer::new(usize::from(LANES) * LANE_SECTORS as usize));
        let guest = bed.guest();
        bed.server.state().is_prompt = false;
        Self { bed, guest, lanes: Lanes::new(LANES, LANE_SECTORS) }
    }

    fn step(&mut self, step: &Step) {
        let server = &self.bed.server;
        match step {
            Step::Ask(lane, asked) => self.lanes.ask(&mut self.guest, *lane, *asked),
            Step::Kick => self.guest.kick(),
            Step::Turns(count) => self.turns(*count),
            Step::Answer(index) => server.answer(*index),
            Step::Chunk(bytes) => server.state().chunk = *bytes,
            Step::CutIn(bytes) => server.state().cut_in = Some(*bytes),
            Step::CutOut(bytes) => server.state().cut_out = Some(*bytes),
            Step::Flip(place) => server.state().flips.push_back(*place),
            Step::Kill => server.kill(),
            Step::Restart => server.state().is_up = true,
            Step::Sleep(time_ns) => {
                self.bed.pass(*time_ns);
                self.turns(1);
            }
            Step::Reset => self.lanes.reset(&mut self.guest),
        }
        self.lanes.take_answers(&self.guest, &self.bed.server.state().bytes);
        assert!(!self.guest.guest.needs_reset());
    }

    fn turns(&mut self, count: usize) {
        self.bed.turns(count, &mut [&mut self.guest]);
    }

    /// The server is good from now on: all that is under way ends, and nothing is kept.
    fn end(&mut self) {
        {
            let mut state = self.bed.server.state();
            (state.is_up, state.is_prompt, state.chunk) = (true, true, usize::MAX);
            (state.cut_in, state.cut_out) = (None, None);
            state.flips.clear();
        }
        self.bed.server.answer_all();
        self.guest.kick();
        // As long as a pause may be, and some.
        self.bed.sleep(5 * SECOND, &mut [&mut self.guest]);
        self.bed.turns(50, &mut [&mut self.guest]);
        self.lanes.take_answers(&self.guest, &self.bed.server.state().bytes);
        self.lanes.assert_whole(&self.guest, &self.bed.server.state().bytes);
        // All slots are free: so many reads are at the server together.
        self.bed.server.state().is_prompt = false;
        self.lanes.ask_all(&mut self.guest);
        self.bed.turns(3, &mut [&mut self.guest]);
        assert_eq!(self.bed.server.waiting(), 8);
        self.bed.pass(MS);
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever breaks, as long as it does not last.
    #[test]
    fn a_server_that_comes_back_answers_everything_well(steps in prop::collection::vec(mild_step(), 1..150)) {
        let mut model = Model::new();
        steps.iter().for_each(|step| model.step(step));
        model.end();
        prop_assert!(model.lanes.statuses.iter().all(|status| *status == OK));
    }

    #[test]
    fn nobody_waits_for_ever_whatever_breaks(steps in prop::collection::vec(any_step(), 1..150)) {
        let mut model = Model::new();
        steps.iter().for_each(|step| model.step(step));
        model.end();
    }
}
