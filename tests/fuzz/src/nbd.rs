//! A disk of an NBD server that says anything, in the handshake and after it, and breaks connections at any byte.

use crate::input::steps;
use crate::memory::{BASE, Memory, Pinned};
use arbitrary::{Arbitrary, Unstructured};
use drivers::block::{Begun, Operation, Tag, Volume};
use drivers::connection::{Connection, ConnectionState};
use drivers::guest::{GuestAddress, GuestMemory, GuestRegion};
use drivers::volume::nbd::disks::NetworkDisks;
use drivers::volume::registry::{Access, OpenVolume, Registry};
use drivers::volume::spec::VolumeSpec;
use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
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
/// More than the driver can have to say.
const SAID_MAX: usize = 2 << 20;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const READ: u16 = 0;
const WRITE: u16 = 1;

/// How a server behaves when somebody connects.
#[derive(Arbitrary, Clone, Debug)]
struct Manner {
    greeting: Option<Vec<u8>>,
    handshake_flags: u8,
    reply_to_go: ReplyToGo,
    /// Blocks of 64 KiB.
    size: u16,
    odd_bytes: u8,
    flags: u8,
    sizes: Option<(u8, u32)>,
}

#[derive(Arbitrary, Clone, Debug)]
enum ReplyToGo {
    Good,
    Answers(Vec<(u8, Vec<u8>)>),
    Error(u8),
    Raw(Vec<u8>),
    Silence,
}

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

/// A command that the server got.
struct Command {
    cookie: [u8; 8],
    kind: u16,
    offset: u64,
    length: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Flags,
    Options,
    Commands,
}

struct Server {
    manner: Manner,
    accepts: bool,
    is_open: bool,
    chunk: usize,
    stage: Stage,
    heard: Vec<u8>,
    to_say: VecDeque<u8>,
    commands: Vec<Command>,
    /// Something was said that may mean anything.
    lied: bool,
}

#[derive(Clone)]
struct Handle(Rc<RefCell<Server>>);

impl Handle {
    fn server(&self) -> RefMut<'_, Server> {
        self.0.borrow_mut()
    }
}

impl Connection for Handle {
    fn open(&mut self) {
        self.close();
        let mut server = self.server();
        server.is_open = server.accepts;
        if server.is_open {
            let flags = [0, server.manner.handshake_flags ^ 3];
            let usual = [&b"NBDMAGICIHAVEOPT"[..], &flags].concat();
            let greeting = server.manner.greeting.clone().unwrap_or(usual);
            server.say(&greeting);
        }
    }

    fn close(&mut self) {
        let mut server = self.server();
        (server.is_open, server.stage) = (false, Stage::Flags);
        server.heard.clear();
        server.to_say.clear();
        server.commands.clear();
    }

    fn state(&self) -> ConnectionState {
        let server = self.0.borrow();
        if server.is_open || !server.to_say.is_empty() {
            ConnectionState::Open
        } else {
            ConnectionState::Closed
        }
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let mut server = self.server();
        let count = if server.is_open { bytes.len().min(server.chunk) } else { 0 };
        server.heard.extend_from_slice(&bytes[..count]);
        server.listen();
        assert!(server.heard.len() < SAID_MAX, "it talks without bound");
        count
    }

    fn receive(&mut self, bytes: &mut [u8]) -> usize {
        let mut server = self.server();
        let count = bytes.len().min(server.chunk).min(server.to_say.len());
        bytes.iter_mut().zip(server.to_say.drain(..count)).for_each(|(to, from)| *to = from);
        count
    }
}

fn number<const LENGTH: usize>(bytes: &[u8], at: usize) -> [u8; LENGTH] {
    bytes.get(at..at + LENGTH).and_then(|part| part.try_into().ok()).unwrap_or([0; LENGTH])
}

impl Server {
    fn say(&mut self, bytes: &[u8]) {
        self.to_say.extend(bytes);
    }

    fn listen(&mut self) {
        while let Some(used) = self.take().filter(|used| *used > 0) {
            self.heard.drain(..used);
        }
    }

    /// Takes what was said from the front. Returns how many bytes that is; none when more has to come.
    fn take(&mut self) -> Option<usize> {
        let heard = core::mem::take(&mut self.heard);
        let used = self.take_from(&heard);
        self.heard = heard;
        used
    }

    fn take_from(&mut self, heard: &[u8]) -> Option<usize> {
        match self.stage {
            Stage::Flags => {
                heard.get(..4)?;
                self.stage = Stage::Options;
                Some(4)
            }
            Stage::Options => {
                let length = u32::from_be_bytes(number(heard.get(..16)?, 12)) as usize;
                heard.get(..16 + length)?;
                if number(heard, 8) == 7_u32.to_be_bytes() {
                    self.reply_to_go();
                } else {
                    self.say_export();
                }
                Some(16 + length)
            }
            Stage::Commands => {
                let header = heard.get(..28)?;
                assert_eq!(number(header, 0), REQUEST_MAGIC.to_be_bytes(), "the client lost its place");
                let (kind, length) =
                    (u16::from_be_bytes(number(header, 6)), u32::from_be_bytes(number(header, 24)));
                let data = if kind == WRITE { length as usize } else { 0 };
                heard.get(28..28 + data)?;
                let (cookie, offset) = (number(header, 8), u64::from_be_bytes(number(header, 16)));
                self.commands.push(Command { cookie, kind, offset, length });
                Some(28 + data)
            }
        }
    }

    fn export(&self) -> Vec<u8> {
        let size = u64::from(self.manner.size) * 0x1_0000 + u64::from(self.manner.odd_bytes);
        [&size.to_be_bytes()[..], &[0, self.manner.flags ^ 0x6d]].concat()
    }

    fn say_export(&mut self) {
        let export = self.export();
        self.say(&export);
        if self.manner.handshake_flags & 2 != 0 {
            self.say(&[0; 124]);
        }
        self.stage = Stage::Commands;
    }

    fn answer(&mut self, kind: u32, data: &[u8]) {
        let numbers = [7, kind, data.len() as u32].map(u32::to_be_bytes).concat();
        self.say(&[&OPTION_REPLY_MAGIC.to_be_bytes()[..], &numbers, data].concat());
    }

    fn reply_to_go(&mut self) {
        match self.manner.reply_to_go.clone() {
            ReplyToGo::Good => {
                let export = self.export();
                self.answer(3, &[&[0, 0], &export[..]].concat());
                if let Some((shift, payload)) = self.manner.sizes {
                    let least = 1_u32 << (shift % 18);
                    let sizes = [least, least.max(4096), payload].map(u32::to_be_bytes).concat();
                    self.answer(3, &[&[0, 3], &sizes[..]].concat());
                }
                self.answer(1, &[]);
                self.stage = Stage::Commands;
            }
            ReplyToGo::Answers(answers) => {
                answers.iter().take(100).for_each(|(kind, data)| self.answer(u32::from(*kind) % 5, data));
                self.stage = Stage::Commands;
            }
            ReplyToGo::Error(error) => self.answer((1 << 31) + u32::from(error) % 12, b"no"),
            ReplyToGo::Raw(bytes) => self.say(&bytes),
            ReplyToGo::Silence => {}
        }
    }

    /// Answers a command. Returns, of a read, where it was and what it was told.
    fn reply(&mut self, index: u8, error: Option<u8>, fill: u8) -> Option<(u64, u8)> {
        if self.commands.is_empty() || !self.is_open {
            return None;
        }
        let command = self.commands.remove(usize::from(index) % self.commands.len());
        let error = error.map_or(0, u32::from);
        let numbers = [REPLY_MAGIC, error].map(u32::to_be_bytes).concat();
        self.say(&[&numbers[..], &command.cookie].concat());
        let is_read = command.kind == READ && error == 0;
        if is_read {
            let data = vec![fill; command.length.min(1 << 17) as usize];
            self.say(&data);
        }
        is_read.then_some((command.offset, fill))
    }
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
        let server = Handle(Rc::new(RefCell::new(Server {
            manner,
            accepts: true,
            is_open: false,
            chunk: usize::MAX,
            stage: Stage::Flags,
            heard: Vec::new(),
            to_say: VecDeque::new(),
            commands: Vec::new(),
            lied: false,
        })));
        let handle = server.clone();
        let allocate = |bytes: u64| Some(Box::new(vec![0_u8; bytes.try_into().ok()?]) as _);
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
        let mut opening = pin!(self.registry.open(&spec, Access::ReadWrite));
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
            Step::Raw { bytes } => {
                let mut server = self.server.server();
                server.lied = true;
                server.say(&bytes);
            }
            Step::Close => {
                let mut server = self.server.server();
                server.is_open = false;
                server.commands.clear();
            }
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
