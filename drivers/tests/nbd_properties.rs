//! What holds for requests to an NBD server whenever connections break, the server is restarted, or the guest resets: each is
//! answered once; what is read is what was written and answered; what the server holds in the end is that, too; and
//! everything that was taken is given back.

mod common;

use common::disk_bed::{DISCARD, DiskGuest, FLUSH_ALL, IN, NONE, OK, WRITE_ZEROES};
use common::nbd_bed::{MS, NbdBed, SECOND};
use common::nbd_server::NbdServer;
use proptest::prelude::*;

/// Each lane of the disk has at most one request under way, so that it is known what a read must find.
const LANES: u16 = 10;
const LANE_SECTORS: u64 = 16;
const LANE_BYTES: usize = 16 * 512;

#[derive(Clone, Copy, Debug)]
enum Request {
    Read,
    Write(u8),
    Flush,
    Discard,
    WriteZeroes,
}

/// A request, from a sector of the lane on, of so many sectors.
type Asked = (Request, u64, u32);

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

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        4 => Just(Request::Read),
        4 => any::<u8>().prop_map(Request::Write),
        1 => Just(Request::Flush),
        1 => Just(Request::Discard),
        1 => Just(Request::WriteZeroes),
    ]
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

struct Lane {
    /// What it holds, if that is known.
    bytes: Option<Vec<u8>>,
    under_way: Option<Asked>,
}

struct Model {
    bed: NbdBed,
    guest: DiskGuest,
    lanes: Vec<Lane>,
    /// Answers looked at since the last reset.
    answers: usize,
    statuses: Vec<u8>,
}

impl Model {
    fn new() -> Self {
        let bed = NbdBed::new(NbdServer::new(usize::from(LANES) * LANE_BYTES / 512));
        let guest = bed.guest();
        bed.server.state().is_prompt = false;
        let lane = || Lane { bytes: Some(vec![0; LANE_BYTES]), under_way: None };
        let lanes = (0..LANES).map(|_| lane()).collect();
        Self { bed, guest, lanes, answers: 0, statuses: Vec::new() }
    }

    fn step(&mut self, step: &Step) {
        let server = &self.bed.server;
        match step {
            Step::Ask(lane, asked) => self.ask(*lane, *asked),
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
            Step::Reset => self.reset(),
        }
        self.take_answers();
        assert!(!self.guest.guest.needs_reset());
    }

    fn turns(&mut self, count: usize) {
        self.bed.turns(count, &mut [&mut self.guest]);
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
            Request::Discard => self.guest.put_ranges(number, DISCARD, &[(sector, sectors)]),
            Request::WriteZeroes => self.guest.put_ranges(number, WRITE_ZEROES, &[(sector, sectors)]),
        }
    }

    fn reset(&mut self) {
        self.guest.reset();
        assert_eq!(self.guest.guest.memory.pins(), 0);
        self.guest.start();
        self.answers = 0;
        for lane in &mut self.lanes {
            // It may still happen.
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
        if status == OK && matches!(request, Request::Read) {
            // What was abandoned here has ended, or this had not begun.
            let start = usize::from(number) * LANE_BYTES;
            lane.bytes.get_or_insert_with(|| self.bed.server.state().bytes[start..][..LANE_BYTES].to_vec());
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
        self.take_answers();
        assert!(self.lanes.iter().all(|lane| lane.under_way.is_none()), "somebody waits for ever");
        assert_eq!(self.guest.pins(), 0);
        let bytes = self.bed.server.state().bytes.clone();
        for (on_disk, lane) in bytes.chunks(LANE_BYTES).zip(&self.lanes) {
            assert!(lane.bytes.as_ref().is_none_or(|known| known == on_disk));
        }
        // All slots are free: so many reads are at the server together.
        self.bed.server.state().is_prompt = false;
        (0..LANES).for_each(|n| self.guest.put(n, IN, 0, 512));
        self.guest.kick();
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
        prop_assert!(model.statuses.iter().all(|status| *status == OK));
    }

    #[test]
    fn nobody_waits_for_ever_whatever_breaks(steps in prop::collection::vec(any_step(), 1..150)) {
        let mut model = Model::new();
        steps.iter().for_each(|step| model.step(step));
        model.end();
    }
}
