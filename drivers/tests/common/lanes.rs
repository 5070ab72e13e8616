//! What a guest knows of its disk when each lane has at most one request under way: then it is known what a read must find.

use super::disk_bed::{DISCARD, DiskGuest, FLUSH_ALL, IN, NONE, OK, WRITE_ZEROES};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
pub enum Request {
    Read,
    Write(u8),
    Flush,
    Discard,
    WriteZeroes,
}

/// A request in a lane, from a sector of the lane on, of so many sectors.
pub type Asked = (Request, u64, u32);

pub fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        4 => Just(Request::Read),
        4 => any::<u8>().prop_map(Request::Write),
        1 => Just(Request::Flush),
        1 => Just(Request::Discard),
        1 => Just(Request::WriteZeroes),
    ]
}

struct Lane {
    /// What it holds, if that is known.
    bytes: Option<Vec<u8>>,
    under_way: Option<Asked>,
}

pub struct Lanes {
    sectors: u32,
    lanes: Vec<Lane>,
    /// Answers looked at since the last reset.
    answers: usize,
    pub statuses: Vec<u8>,
}

impl Lanes {
    /// So many lanes of so many sectors, all zeroes.
    pub fn new(count: u16, sectors: u32) -> Self {
        let lane = |_| Lane { bytes: Some(vec![0; sectors as usize * 512]), under_way: None };
        Self { sectors, lanes: (0..count).map(lane).collect(), answers: 0, statuses: Vec::new() }
    }

    /// Makes a request available in a lane where none is under way.
    pub fn ask(&mut self, guest: &mut DiskGuest, number: u16, asked: Asked) {
        let lane = &mut self.lanes[usize::from(number)];
        if lane.under_way.is_some() {
            return;
        }
        lane.under_way = Some(asked);
        let (request, first, sectors) = asked;
        let sector = u64::from(number) * u64::from(self.sectors) + first;
        match request {
            Request::Read => guest.put(number, IN, sector, sectors * 512),
            Request::Write(value) => guest.put_write(number, sector, sectors * 512, value),
            Request::Flush => guest.put(number, FLUSH_ALL, 0, 0),
            Request::Discard => {
                guest.put_ranges(number, DISCARD, &[(sector, sectors / 2), (sector, sectors)]);
            }
            Request::WriteZeroes => guest.put_ranges(number, WRITE_ZEROES, &[(sector, sectors)]),
        }
    }

    /// The guest resets its device and starts it again.
    pub fn reset(&mut self, guest: &mut DiskGuest) {
        guest.reset();
        assert_eq!(guest.guest.memory.pins(), 0);
        // The rings need pins, too.
        guest.guest.memory.set_largest_pin(u32::MAX);
        guest.start();
        self.answers = 0;
        for lane in &mut self.lanes {
            // It may still happen, all or some of it.
            if lane.under_way.take().is_some() {
                lane.bytes = None;
            }
        }
    }

    /// Looks at the answers that came, `disk` being what the disk holds.
    pub fn take_answers(&mut self, guest: &DiskGuest, disk: &[u8]) {
        let given_back = guest.given_back();
        for number in &given_back[self.answers..] {
            self.take_answer(guest, *number, disk);
        }
        self.answers = given_back.len();
    }

    fn take_answer(&mut self, guest: &DiskGuest, number: u16, disk: &[u8]) {
        let lane = &mut self.lanes[usize::from(number)];
        let (request, sector, sectors) = lane.under_way.take().expect("answered twice, or never asked");
        let status = guest.status(number);
        assert_ne!(status, NONE);
        self.statuses.push(status);
        let length = sectors as usize * 512;
        if status != OK && !matches!(request, Request::Read | Request::Flush) {
            lane.bytes = None;
        }
        if status == OK && length > 0 && matches!(request, Request::Read) {
            // What was abandoned here has ended, or this had not begun.
            let lane_bytes = self.sectors as usize * 512;
            let start = usize::from(number) * lane_bytes;
            lane.bytes.get_or_insert_with(|| disk[start..][..lane_bytes].to_vec());
        }
        let Some(bytes) = &mut lane.bytes else { return };
        let part = &mut bytes[usize::try_from(sector).unwrap() * 512..][..length];
        match request {
            Request::Read if status == OK => assert!(guest.data(number, length) == part),
            Request::Read | Request::Flush => {}
            Request::Write(value) => part.fill(value),
            Request::Discard | Request::WriteZeroes => part.fill(0),
        }
    }

    /// Nothing is left, neither in the guest's memory nor under way, and the disk holds what it was told.
    pub fn assert_whole(&self, guest: &DiskGuest, disk: &[u8]) {
        assert!(self.lanes.iter().all(|lane| lane.under_way.is_none()), "somebody waits for ever");
        assert_eq!(guest.pins(), 0);
        for (on_disk, lane) in disk.chunks(self.sectors as usize * 512).zip(&self.lanes) {
            assert!(lane.bytes.as_ref().is_none_or(|known| known == on_disk));
        }
    }

    /// Reads from each lane: as many as there are slots are begun together when all slots are free.
    pub fn ask_all(&self, guest: &mut DiskGuest) {
        (0..).zip(&self.lanes).for_each(|(number, _)| guest.put(number, IN, 0, 512));
        guest.kick();
    }
}
