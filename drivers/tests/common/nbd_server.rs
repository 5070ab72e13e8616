//! An NBD server for tests, in the same thread: it answers when told to, and breaks connections at any byte. Numbers and
//! layouts are written down a second time on purpose.

use drivers::connection::{Connection, ConnectionState};
use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

pub const HAS_FLAGS: u16 = 1;
pub const READ_ONLY: u16 = 2;
pub const SEND_FLUSH: u16 = 4;
pub const SEND_FUA: u16 = 8;
pub const SEND_TRIM: u16 = 32;
pub const SEND_WRITE_ZEROES: u16 = 64;

pub const CMD_READ: u16 = 0;
pub const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
pub const CMD_FLUSH: u16 = 3;
pub const CMD_TRIM: u16 = 4;
pub const CMD_WRITE_ZEROES: u16 = 6;

pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
pub const ESHUTDOWN: u32 = 108;

const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;

/// A command as the server got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub kind: u16,
    pub flags: u16,
    pub offset: u64,
    pub length: u32,
}

struct Waiting {
    connection: usize,
    cookie: [u8; 8],
    asked: Asked,
    data: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Flags,
    Options,
    Commands,
    Ended,
}

struct Peer {
    input: Vec<u8>,
    output: VecDeque<u8>,
    stage: Stage,
}

pub struct ServerState {
    pub export: String,
    pub bytes: Vec<u8>,
    pub flags: u16,
    /// Least block and largest payload.
    pub sizes: Option<(u32, u32)>,
    /// Instead of an export.
    pub refusal: Option<u32>,
    /// It takes connections.
    pub is_up: bool,
    /// It says something on connections.
    pub speaks: bool,
    /// It answers at once.
    pub is_prompt: bool,
    /// Bytes that pass at a time.
    pub chunk: usize,
    /// Bytes until the connection breaks, in each direction.
    pub cut_in: Option<usize>,
    pub cut_out: Option<usize>,
    /// Errors for the next commands.
    pub errors: VecDeque<u32>,
    /// Bits that are flipped in the next replies, by their place.
    pub flips: VecDeque<usize>,
    waiting: VecDeque<Waiting>,
    pub carried_out: Vec<Asked>,
    /// Connections made, and ended by the client in order: in the handshake, and by a command.
    pub connections: usize,
    /// Bytes that passed, in both directions.
    pub passed: usize,
    pub aborts: usize,
    pub goodbyes: usize,
    peers: HashMap<usize, Peer>,
}

/// Clones are handles of the same server.
#[derive(Clone)]
pub struct NbdServer(Rc<RefCell<ServerState>>);

impl NbdServer {
    /// A server that answers at once, with an export of zeroes called `disk`.
    pub fn new(sectors: usize) -> Self {
        Self(Rc::new(RefCell::new(ServerState {
            export: "disk".into(),
            bytes: vec![0; sectors * 512],
            flags: HAS_FLAGS | SEND_FLUSH | SEND_TRIM | SEND_WRITE_ZEROES,
            sizes: None,
            refusal: None,
            is_up: true,
            speaks: true,
            is_prompt: true,
            chunk: usize::MAX,
            cut_in: None,
            cut_out: None,
            errors: VecDeque::new(),
            flips: VecDeque::new(),
            waiting: VecDeque::new(),
            carried_out: Vec::new(),
            connections: 0,
            passed: 0,
            aborts: 0,
            goodbyes: 0,
            peers: HashMap::new(),
        })))
    }

    pub fn state(&self) -> RefMut<'_, ServerState> {
        self.0.borrow_mut()
    }

    pub fn connection(&self) -> Box<dyn Connection> {
        Box::new(Client { server: self.clone(), number: 0 })
    }

    /// Breaks all connections; what was not carried out never is.
    pub fn cut(&self) {
        let mut state = self.state();
        state.peers.clear();
        state.waiting.clear();
    }

    /// The process is gone.
    pub fn kill(&self) {
        self.cut();
        self.state().is_up = false;
    }

    /// Commands that wait for an answer.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Carries out and answers the command that waits `index`-th.
    pub fn answer(&self, index: usize) {
        let mut state = self.state();
        if let Some(waiting) = state.waiting.remove(index) {
            state.carry_out(&waiting);
        }
    }

    pub fn answer_all(&self) {
        while self.waiting() > 0 {
            self.answer(0);
        }
    }
}

impl ServerState {
    fn serve(&mut self, number: usize) {
        loop {
            let Some(peer) = self.peers.get_mut(&number) else { return };
            let (stage, input) = (peer.stage, peer.input.clone());
            let used = match stage {
                Stage::Flags => self.take_flags(number, &input),
                Stage::Options => self.take_option(number, &input),
                Stage::Commands => self.take_command(number, &input),
                Stage::Ended => 0,
            };
            let Some(peer) = self.peers.get_mut(&number) else { return };
            if used == 0 {
                return;
            }
            peer.input.drain(..used);
        }
    }

    fn say(&mut self, number: usize, bytes: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.output.extend(bytes);
        }
    }

    fn turn_to(&mut self, number: usize, stage: Stage) {
        self.peers.get_mut(&number).unwrap().stage = stage;
    }

    fn take_flags(&mut self, number: usize, input: &[u8]) -> usize {
        let Some(flags) = input.get(..4) else { return 0 };
        assert_eq!(flags, [0, 0, 0, 3], "the client knows fixed newstyle, and wants no zeroes");
        self.turn_to(number, Stage::Options);
        4
    }

    fn reply_to_go(&mut self, number: usize, kind: u32, data: &[u8]) {
        let length = u32::try_from(data.len()).unwrap();
        let numbers = [OPT_GO, kind, length].map(u32::to_be_bytes).concat();
        self.say(number, &[&0x0003_e889_0455_65a9_u64.to_be_bytes()[..], &numbers, data].concat());
    }

    fn take_option(&mut self, number: usize, input: &[u8]) -> usize {
        if input.len() < 16 {
            return 0;
        }
        assert_eq!(&input[..8], b"IHAVEOPT");
        let (option, length) = (be32(&input[8..]), be32(&input[12..]) as usize);
        let Some(data) = input[16..].get(..length) else { return 0 };
        if option == OPT_ABORT {
            self.aborts += 1;
            self.turn_to(number, Stage::Ended);
            return 16 + length;
        }
        assert_eq!(option, OPT_GO);
        let name_length = be32(data) as usize;
        let name = &data[4..][..name_length];
        assert_eq!(data[4 + name_length..], [0, 1, 0, 3], "block sizes are asked for");
        let refusal = if name == self.export.as_bytes() { self.refusal } else { Some(ERR_UNKNOWN) };
        if let Some(refusal) = refusal {
            self.reply_to_go(number, refusal, b"no");
            return 16 + length;
        }
        let size = (self.bytes.len() as u64).to_be_bytes();
        self.reply_to_go(number, 3, &[&[0, 0], &size[..], &self.flags.to_be_bytes()].concat());
        if let Some((block, payload)) = self.sizes {
            let sizes = [block, block.max(512), payload].map(u32::to_be_bytes).concat();
            self.reply_to_go(number, 3, &[&[0, 3], &sizes[..]].concat());
        }
        self.reply_to_go(number, 1, &[]);
        self.turn_to(number, Stage::Commands);
        16 + length
    }

    fn take_command(&mut self, number: usize, input: &[u8]) -> usize {
        if input.len() < 28 {
            return 0;
        }
        assert_eq!(be32(input), 0x2560_9513);
        let asked = Asked {
            flags: be16(&input[4..]),
            kind: be16(&input[6..]),
            offset: u64::from(be32(&input[16..])) << 32 | u64::from(be32(&input[20..])),
            length: be32(&input[24..]),
        };
        let data_length = if asked.kind == CMD_WRITE { asked.length as usize } else { 0 };
        let Some(data) = input[28..].get(..data_length) else { return 0 };
        if asked.kind == CMD_DISC {
            self.goodbyes += 1;
            self.turn_to(number, Stage::Ended);
            return 28;
        }
        self.check(&asked);
        let cookie = input[8..16].try_into().unwrap();
        let waiting = Waiting { connection: number, cookie, asked, data: data.to_vec() };
        if self.is_prompt {
            self.carry_out(&waiting);
        } else {
            self.waiting.push_back(waiting);
        }
        28 + data_length
    }

    /// What a client must not do.
    fn check(&self, asked: &Asked) {
        let needed = [(CMD_FLUSH, SEND_FLUSH), (CMD_TRIM, SEND_TRIM), (CMD_WRITE_ZEROES, SEND_WRITE_ZEROES)];
        let is_offered = |(kind, flag): &(u16, u16)| *kind != asked.kind || self.flags & flag != 0;
        assert!(needed.iter().all(is_offered), "{asked:?}");
        assert!(asked.flags & 1 == 0 || self.flags & SEND_FUA != 0, "{asked:?}");
        assert!(asked.offset + u64::from(asked.length) <= self.bytes.len() as u64, "{asked:?}");
        let (block, payload) = self.sizes.unwrap_or((512, u32::MAX));
        assert!(asked.offset.is_multiple_of(block.into()) && asked.length.is_multiple_of(block), "{asked:?}");
        assert!(asked.length <= payload, "{asked:?}");
    }

    fn carry_out(&mut self, waiting: &Waiting) {
        let asked = &waiting.asked;
        self.carried_out.push(asked.clone());
        let error = self.errors.pop_front().unwrap_or(0);
        let range = usize::try_from(asked.offset).unwrap()..;
        let range = &mut self.bytes[range][..asked.length as usize];
        let mut read = Vec::new();
        match asked.kind {
            _ if error != 0 => {}
            CMD_READ => read = range.to_vec(),
            CMD_WRITE => range.copy_from_slice(&waiting.data),
            CMD_TRIM | CMD_WRITE_ZEROES => range.fill(0),
            CMD_FLUSH => {}
            _ => panic!("an unknown command: {asked:?}"),
        }
        let numbers = [0x6744_6698, error].map(u32::to_be_bytes).concat();
        let mut reply = [&numbers[..], &waiting.cookie, &read].concat();
        if let Some(place) = self.flips.pop_front() {
            reply[place] ^= 1;
        }
        self.say(waiting.connection, &reply);
    }
}

/// The client's end of a connection.
struct Client {
    server: NbdServer,
    number: usize,
}

impl Client {
    /// How many of `bytes` may pass now, if the connection breaks after `cut`. Returns whether it breaks with them.
    fn passes(chunk: usize, bytes: usize, cut: &mut Option<usize>) -> (usize, bool) {
        let passes = bytes.min(chunk);
        let Some(left) = cut else { return (passes, false) };
        let passes = passes.min(*left);
        *left -= passes;
        let breaks = *left == 0;
        if breaks {
            *cut = None;
        }
        (passes, breaks)
    }
}

impl Connection for Client {
    fn open(&mut self) {
        self.close();
        let mut state = self.server.state();
        if !state.is_up {
            return;
        }
        state.connections += 1;
        self.number = state.connections;
        let peer = Peer { input: Vec::new(), output: VecDeque::new(), stage: Stage::Flags };
        state.peers.insert(self.number, peer);
        if state.speaks {
            let number = self.number;
            state.say(number, b"NBDMAGICIHAVEOPT\0\x03");
        }
    }

    fn close(&mut self) {
        let mut state = self.server.state();
        state.peers.remove(&self.number);
        state.waiting.retain(|waiting| waiting.connection != self.number);
    }

    fn state(&self) -> ConnectionState {
        match self.server.state().peers.get(&self.number) {
            Some(peer) if peer.stage != Stage::Ended || !peer.output.is_empty() => ConnectionState::Open,
            _ => ConnectionState::Closed,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let mut state = self.server.state();
        let state = &mut *state;
        let Some(peer) = state.peers.get_mut(&self.number) else { return 0 };
        let (passes, breaks) = Self::passes(state.chunk, bytes.len(), &mut state.cut_in);
        state.passed += passes;
        peer.input.extend_from_slice(&bytes[..passes]);
        state.serve(self.number);
        if breaks {
            state.peers.remove(&self.number);
        }
        passes
    }

    fn receive(&mut self, bytes: &mut [u8]) -> usize {
        let mut state = self.server.state();
        let state = &mut *state;
        let Some(peer) = state.peers.get_mut(&self.number) else { return 0 };
        let most = bytes.len().min(peer.output.len());
        let (passes, breaks) = Self::passes(state.chunk, most, &mut state.cut_out);
        state.passed += passes;
        bytes.iter_mut().zip(peer.output.drain(..passes)).for_each(|(to, from)| *to = from);
        if breaks {
            state.peers.remove(&self.number);
        }
        passes
    }
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes(bytes[..2].try_into().unwrap())
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}
