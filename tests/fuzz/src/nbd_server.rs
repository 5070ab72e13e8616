//! An NBD server that says what it is told to, good or not.

use arbitrary::Arbitrary;
use drivers::connection::{Connection, ConnectionState};
use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;

/// More than the driver can have to say.
const SAID_MAX: usize = 2 << 20;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const READ: u16 = 0;
const WRITE: u16 = 1;

/// How a server behaves when somebody connects.
#[derive(Arbitrary, Clone, Debug)]
pub struct Manner {
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
pub enum ReplyToGo {
    Good,
    Answers(Vec<(u8, Vec<u8>)>),
    Error(u8),
    Raw(Vec<u8>),
    Silence,
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

/// The server.
pub struct Server {
    pub manner: Manner,
    /// It takes connections.
    pub accepts: bool,
    is_open: bool,
    /// Bytes that pass at a time.
    pub chunk: usize,
    stage: Stage,
    heard: Vec<u8>,
    to_say: VecDeque<u8>,
    commands: Vec<Command>,
    /// The cookie that was answered last.
    last: [u8; 8],
    /// Something was said that may mean anything.
    pub lied: bool,
}

/// Clones are handles of the same server, and connections to it.
#[derive(Clone)]
pub struct Handle(Rc<RefCell<Server>>);

impl Handle {
    /// A server that takes connections.
    #[must_use]
    pub fn new(manner: Manner) -> Self {
        Self(Rc::new(RefCell::new(Server {
            manner,
            accepts: true,
            is_open: false,
            chunk: usize::MAX,
            stage: Stage::Flags,
            heard: Vec::new(),
            to_say: VecDeque::new(),
            commands: Vec::new(),
            last: [0; 8],
            lied: false,
        })))
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> RefMut<'_, Server> {
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
        // What it could not hear is asked again, by the same cookie.
        server.last = [0; 8];
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
    /// Says it.
    pub fn say(&mut self, bytes: &[u8]) {
        self.to_say.extend(bytes);
    }

    /// Ends the connection; what was said still arrives.
    pub fn end(&mut self) {
        self.is_open = false;
        self.commands.clear();
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
    pub fn reply(&mut self, index: u8, error: Option<u8>, fill: u8) -> Option<(u64, u8)> {
        if self.commands.is_empty() || !self.is_open {
            return None;
        }
        let command = self.commands.remove(usize::from(index) % self.commands.len());
        self.last = command.cookie;
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
    /// Says once more what was said last, with so many bytes of other data.
    pub fn repeat(&mut self, fill: u8, bytes: u16) {
        let numbers = [REPLY_MAGIC, 0].map(u32::to_be_bytes).concat();
        let data = vec![fill; bytes.into()];
        self.say(&[&numbers[..], &self.last.clone(), &data].concat());
    }
}
