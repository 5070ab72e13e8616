//! A disk of an NBD server that says anything, in the handshake and after it, and breaks connections at any byte. An operation is done
//! once, a read has what the server said of it, nobody waits for ever, and the client never loses its place.

use crate::input::steps;
use crate::memory::{BASE, Memory, Pinned};
use crate::nbd_server::{Handle, Manner};
use arbitrary::{Arbitrary, Unstructured};
use drivers::block::{Begun, Operation, Tag, Volume};
use drivers::guest::{GuestAddress, GuestMemory, GuestRegion};
use drivers::volume::nbd::disks::NetworkDisks;
use drivers::volume::registry::{Access, OpenVolume, Registry};
use drivers::volume::spec::VolumeSpec;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// As long as anybody waits for a server, and some.
const ENOUGH_NS: u64 = 80 * SECOND;
/// More turns of the loop than anything takes that ends.
const ENOUGH_TURNS: usize = 20_000;
/// Operations under way: each has sectors and memory of its own.
const LANES: usize = 12;
const LANE_BYTES: u32 = 8192;

#[derive(Arbitrary, Debug)]
enum Step {
    Begin {
        lane: u8,
        kind: u8,
        blocks: u8,
    },
    /// The server answers the command that waits `index`-th.
    Reply {
        index: u8,
        error: Option<u8>,
        fill: u8,
    },
    /// It answers one that it has answered.
    Repeat {
        fill: u8,
        blocks: u8,
    },
    Raw {
        bytes: Vec<u8>,
    },
    Close,
    Accept {
        accepts: bool,
    },
    Manner(Manner),
    Chunk {
        bytes: u16,
    },
    Sleep {
        ms: u16,
    },
    Turn,
    Cancel,
    Reopen,
}

struct Lane {
    operation: Operation,
    /// What was told of it.
    fills: Vec<u8>,
    pinned: Pinned,
}

struct Bed {
    server: Handle,
    registry: Registry,
    disks: NetworkDisks,
    now_ns: u64,
    volume: Option<OpenVolume>,
    memory: Memory,
    lanes: [Option<Lane>; LANES],
}

impl Bed {
    fn new(manner: Manner) -> Self {
        let server = Handle::new(manner);
        let handle = server.clone();
        let allocate = |bytes: u64, _| Some(Box::new(vec![0_u8; bytes.try_into().ok()?]) as _);
        let connect = move |_| Some(Box::new(handle.clone()) as _);
        let registry = Registry::new(None, Vec::new(), Box::new(allocate), Box::new(connect));
        let disks = registry.network_disks();
        let memory = Memory::default();
        let lanes = Default::default();
        let mut bed = Self { server, registry, disks, now_ns: SECOND, volume: None, memory, lanes };
        bed.open();
        bed
    }

    fn open(&mut self) {
        let Ok(spec) = VolumeSpec::parse("nbd:10.0.0.1/disk") else { return };
        let mut opening = pin!(self.registry.open(&spec, Access::ReadWrite, 0));
        for _ in 0..ENOUGH_TURNS {
            if let Poll::Ready(opened) = opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                self.volume = opened.ok();
                return;
            }
            if !self.disks.poll(self.now_ns) {
                let next_ns = self.disks.deadline_ns().unwrap_or(0);
                self.now_ns = next_ns.clamp(self.now_ns + MS, self.now_ns + SECOND);
            }
            self.disks.kick();
        }
        panic!("the opening never ends");
    }

    fn close(&mut self) {
        self.volume = None;
        self.lanes = Default::default();
    }

    fn begin(&mut self, number: u8, kind: u8, blocks: u8) {
        let number = usize::from(number) % LANES;
        let Some(volume) = &mut self.volume else { return };
        let volume: &mut dyn Volume<Pinned> = volume;
        let geometry = volume.geometry();
        let block = geometry.block_bytes;
        let lane_bytes = LANE_BYTES.max(block);
        let length = (u32::from(blocks) * block).min(LANE_BYTES / block * block);
        let sector = number as u64 * u64::from(lane_bytes) / 512;
        let sectors = length / 512;
        let is_inside = sector + u64::from(sectors) <= geometry.sectors;
        let fits = is_inside && length <= geometry.transfer_bytes_max;
        if volume.room() == 0 || !fits || self.lanes[number].is_some() {
            return;
        }
        let operation = match kind % 8 {
            0..=2 => Operation::Read { sector, length },
            3 | 4 => Operation::Write { sector, length },
            5 => Operation::Flush,
            6 if sectors <= geometry.discard_sectors_max => Operation::Discard { sector, sectors },
            7 if sectors <= geometry.write_zeroes_sectors_max => Operation::WriteZeroes { sector, sectors },
            _ => return,
        };
        let address = BASE + number as u64 * u64::from(LANE_BYTES);
        let region = GuestRegion { address: GuestAddress(address), length: LANE_BYTES };
        let Ok(pinned) = self.memory.pin(&[region]) else { return };
        match volume.begin(Tag(number as u32), operation, &pinned, 0) {
            Begun::Done(_) => {}
            Begun::Pending => self.lanes[number] = Some(Lane { operation, fills: Vec::new(), pinned }),
        }
    }

    /// Takes what is done: each once, and what was read is what the server said.
    fn take_done(&mut self) {
        let Some(volume) = &mut self.volume else { return };
        let volume: &mut dyn Volume<Pinned> = volume;
        while let Some(done) = volume.next_done() {
            let number = done.tag.0 as usize;
            let lane = self.lanes[number].take().expect("done twice, or never begun");
            let address = BASE + number as u64 * u64::from(LANE_BYTES);
            let length = match lane.operation {
                Operation::Read { length, .. } => length,
                _ => 0,
            };
            self.memory.give(address, length);
            let result = volume.finish(done, &lane.pinned, 0);
            self.memory.forget_buffers();
            if result.is_ok() && length > 0 && !self.server.server().lied {
                let [first]: [u8; 1] = self.memory.peek(address);
                assert!(lane.fills.contains(&first), "it read what nobody said");
                let [last]: [u8; 1] = self.memory.peek(address + u64::from(length) - 1);
                assert_eq!(first, last, "it read a part of something else");
            }
        }
    }

    fn turn(&mut self) {
        self.disks.poll(self.now_ns);
        self.take_done();
        self.disks.kick();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin { lane, kind, blocks } => self.begin(lane, kind, blocks),
            Step::Reply { index, error, fill } => {
                let told = self.server.server().reply(index, error, fill);
                let lanes = self.lanes.iter_mut().flatten();
                for lane in lanes {
                    let sector = match lane.operation {
                        Operation::Read { sector, .. } => Some(sector * 512),
                        _ => None,
                    };
                    if let (Some((offset, fill)), Some(place)) = (told, sector)
                        && offset == place
                    {
                        lane.fills.push(fill);
                    }
                }
            }
            Step::Repeat { fill, blocks } => {
                self.server.server().repeat(fill, u16::from(blocks % 17) * 512);
            }
            Step::Raw { bytes } => {
                let mut server = self.server.server();
                server.lied = true;
                server.say(&bytes);
            }
            Step::Close => self.server.server().end(),
            Step::Accept { accepts } => self.server.server().accepts = accepts,
            Step::Manner(manner) => self.server.server().manner = manner,
            Step::Chunk { bytes } => self.server.server().chunk = usize::from(bytes).max(1),
            Step::Sleep { ms } => {
                self.now_ns += u64::from(ms) * MS;
                self.turn();
            }
            Step::Turn => {
                self.now_ns += MS;
                self.turn();
            }
            Step::Cancel => {
                if let Some(volume) = &mut self.volume {
                    Volume::<Pinned>::cancel(volume);
                }
                self.lanes = Default::default();
            }
            Step::Reopen => {
                self.close();
                self.open();
            }
        }
    }
}

/// A server that does what `data` says.
pub fn nbd(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(manner) = input.arbitrary::<Manner>() else { return };
    let mut bed = Bed::new(manner);
    steps(input).for_each(|step| bed.step(step));
    // Nobody waits for ever.
    let until_ns = bed.now_ns + ENOUGH_NS;
    let mut turns = 0;
    while bed.now_ns < until_ns && bed.lanes.iter().any(Option::is_some) {
        bed.turn();
        let next_ns = bed.disks.deadline_ns().unwrap_or(until_ns);
        bed.now_ns = next_ns.clamp(bed.now_ns + MS, bed.now_ns + SECOND);
        turns += 1;
        assert!(turns < ENOUGH_TURNS);
    }
    assert!(bed.lanes.iter().all(Option::is_none), "somebody waits for ever");
    bed.close();
    assert_eq!(bed.memory.pins(), 0);
}
