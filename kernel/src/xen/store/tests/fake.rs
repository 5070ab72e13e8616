//! A small xenstored for tests: a tree, watches and transactions behind the same page of rings.
//!
//! It reads and writes messages with code of its own, so that an error in `wire` does not cancel out.
//! Neighbours: the bed ([`super`]) drives it.

use crate::xen::store::byte_ring::ByteRing;
use crate::xen::store::ring::{RING_BYTES, RingPage};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU32};

type Tree = BTreeMap<String, Vec<u8>>;

/// An empty page whose indices start at `index`.
pub fn page_starting_at(index: u32) -> &'static RingPage {
    Box::leak(Box::new(RingPage {
        requests: core::array::from_fn(|_| AtomicU8::new(0xaa)),
        replies: core::array::from_fn(|_| AtomicU8::new(0xbb)),
        request_consumer: AtomicU32::new(index),
        request_producer: AtomicU32::new(index),
        reply_consumer: AtomicU32::new(index),
        reply_producer: AtomicU32::new(index),
        server_features: AtomicU32::new(0),
        connection: AtomicU32::new(0),
        error: AtomicU32::new(0),
    }))
}

pub struct Request {
    pub operation: u32,
    pub id: u32,
    transaction: u32,
    payload: Vec<u8>,
}

struct Watch {
    relative: bool,
    path: String,
    token: String,
}

struct Open {
    tree: Tree,
    version: u64,
    changed: Vec<String>,
}

pub struct Fake {
    page: &'static RingPage,
    input: Vec<u8>,
    output: Vec<u8>,
    pub tree: Tree,
    /// Grows with each change of the tree.
    version: u64,
    watches: Vec<Watch>,
    transactions: BTreeMap<u32, Open>,
    last_transaction: u32,
    /// So many of the next commits meet a conflict.
    pub conflicts: u32,
    /// Ends of transactions that were not open.
    pub ends_refused: u32,
    /// Take requests, answer none.
    pub holding: bool,
    pub held: Vec<Request>,
    /// After each of the next so many parts of a directory, that directory gets another child.
    pub growing_parts: u32,
    /// Bytes moved at most each way at a time.
    pub chunk: usize,
}

impl Fake {
    pub fn new(page: &'static RingPage) -> Self {
        Self {
            page,
            input: Vec::new(),
            output: Vec::new(),
            tree: Tree::new(),
            version: 0,
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            last_transaction: 0,
            conflicts: 0,
            ends_refused: 0,
            holding: false,
            held: Vec::new(),
            growing_parts: 0,
            chunk: RING_BYTES,
        }
    }

    /// Moves bytes and answers; whether anything moved.
    pub fn serve(&mut self) -> bool {
        let page = self.page;
        let requests = ByteRing::new(&page.requests, &page.request_consumer, &page.request_producer);
        let replies = ByteRing::new(&page.replies, &page.reply_consumer, &page.reply_producer);
        let mut buffer = alloc::vec![0; self.chunk];
        let came = requests.consume(&mut buffer).unwrap();
        self.input.extend_from_slice(&buffer[..came]);
        while let Some(request) = self.next_request() {
            self.held.push(request);
        }
        if !self.holding {
            core::mem::take(&mut self.held).iter().for_each(|request| self.answer(request));
        }
        let went = replies.produce(&self.output[..self.output.len().min(self.chunk)]).unwrap();
        self.output.drain(..went);
        came + went > 0
    }

    /// The value at an absolute path.
    pub fn value(&self, path: &str) -> Option<&[u8]> {
        self.tree.get(path).map(Vec::as_slice)
    }

    /// Somebody else (the toolstack) writes.
    pub fn write(&mut self, path: &str, value: &str) {
        write(&mut self.tree, path, value.as_bytes());
        self.changed(path);
    }

    /// Somebody else removes a node and everything below.
    pub fn remove(&mut self, path: &str) {
        remove(&mut self.tree, path);
        self.changed(path);
    }

    pub fn open_transactions(&self) -> usize {
        self.transactions.len()
    }

    /// Sends a message of any kind.
    pub fn send(&mut self, operation: u32, id: u32, payload: &[u8]) {
        let words = [operation, id, 0, u32::try_from(payload.len()).unwrap()];
        self.output.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self.output.extend_from_slice(payload);
    }

    fn next_request(&mut self) -> Option<Request> {
        let word = |at| Some(u32::from_le_bytes(*self.input.get(at..)?.first_chunk()?));
        let (operation, id, transaction, length) = (word(0)?, word(4)?, word(8)?, word(12)? as usize);
        assert!(length <= 4096, "xenstored would close the connection");
        let payload = self.input.get(16..16 + length)?.to_vec();
        self.input.drain(..16 + length);
        Some(Request { operation, id, transaction, payload })
    }

    fn answer(&mut self, request: &Request) {
        match self.execute(request) {
            Ok(payload) if payload.len() <= 4096 => self.send(request.operation, request.id, &payload),
            Ok(_) => self.send(16, request.id, b"E2BIG\0"),
            Err(name) => self.send(16, request.id, format!("{name}\0").as_bytes()),
        }
        // The first event of a watch comes behind the reply.
        if request.operation == 4 {
            let watch = self.watches.last().unwrap();
            let (path, token) = (watch.path.clone(), watch.token.clone());
            self.fire(&path, |other| other.token == token && other.path == path);
        }
    }

    fn execute(&mut self, request: &Request) -> Result<Vec<u8>, &'static str> {
        // A path ends with a NUL, and what a WRITE puts there need not.
        let ends = match request.operation {
            11 => request.payload.contains(&0),
            _ => request.payload.last().is_none_or(|&last| last == 0),
        };
        // No path has a byte above 0x7f.
        let path = request.payload.split(|&byte| byte == 0).next().unwrap_or_default();
        if !ends || !path.is_ascii() {
            return Err("EINVAL");
        }
        let mut strings = request.payload.split(|&byte| byte == 0).map(text);
        let mut string = || strings.next().ok_or("EINVAL");
        match request.operation {
            1 => self.children(request, &absolute(&string()?)),
            2 => self.tree_of(request)?.get(&absolute(&string()?)).cloned().ok_or("ENOENT"),
            4 => {
                let (path, token) = (string()?, string()?);
                let relative = !path.starts_with(['/', '@']);
                self.watches.push(Watch { relative, path: absolute(&path), token });
                Ok(b"OK\0".to_vec())
            }
            5 => {
                let (path, token) = (absolute(&string()?), string()?);
                let before = self.watches.len();
                self.watches.retain(|watch| watch.path != path || watch.token != token);
                if self.watches.len() < before { Ok(b"OK\0".to_vec()) } else { Err("ENOENT") }
            }
            6 => {
                self.last_transaction += 1;
                let open = Open { tree: self.tree.clone(), version: self.version, changed: Vec::new() };
                self.transactions.insert(self.last_transaction, open);
                Ok(format!("{}\0", self.last_transaction).into_bytes())
            }
            7 => self.end(request.transaction, &string()? == "T"),
            11 => {
                let path = string()?;
                let value = &request.payload[path.len() + 1..];
                write(self.tree_of(request)?, &absolute(&path), value);
                self.changed_by(request, &absolute(&path));
                Ok(b"OK\0".to_vec())
            }
            13 => {
                let path = absolute(&string()?);
                remove(self.tree_of(request)?, &path);
                self.changed_by(request, &path);
                Ok(b"OK\0".to_vec())
            }
            21 => {
                self.watches.clear();
                self.transactions.clear();
                Ok(b"OK\0".to_vec())
            }
            22 => {
                let (path, offset) =
                    (absolute(&string()?), string()?.parse::<usize>().map_err(|_| "EINVAL")?);
                let list = self.children(request, &path)?;
                let part = self.part_of(&list, offset);
                if self.growing_parts > 0 {
                    self.growing_parts -= 1;
                    self.write(&format!("{path}/a-new-one-{}", self.growing_parts), "");
                }
                Ok(part)
            }
            _ => Err("ENOSYS"),
        }
    }

    /// As xenstored cuts lists: whole names, and an empty string behind the last.
    fn part_of(&self, list: &[u8], offset: usize) -> Vec<u8> {
        let mut part = format!("{}\0", self.version).into_bytes();
        let rest = &list[offset.min(list.len())..];
        let most = 4096 - part.len() - 1;
        let cut = if rest.len() <= most {
            rest.len()
        } else {
            rest[..most].iter().rposition(|&byte| byte == 0).unwrap() + 1
        };
        part.extend_from_slice(&rest[..cut]);
        part.extend((cut == rest.len()).then_some(0));
        part
    }

    fn children(&mut self, request: &Request, path: &str) -> Result<Vec<u8>, &'static str> {
        let tree = self.tree_of(request)?;
        tree.get(path).ok_or("ENOENT")?;
        let prefix = format!("{path}/");
        let below = tree.keys().filter_map(|node| node.strip_prefix(&prefix));
        let names = below.filter(|name| !name.contains('/')).map(|name| format!("{name}\0"));
        Ok(names.collect::<String>().into_bytes())
    }

    fn end(&mut self, id: u32, commit: bool) -> Result<Vec<u8>, &'static str> {
        let Some(open) = self.transactions.remove(&id) else {
            self.ends_refused += 1;
            return Err("ENOENT");
        };
        if commit {
            let forced = self.conflicts > 0;
            self.conflicts = self.conflicts.saturating_sub(1);
            if forced || open.version != self.version {
                return Err("EAGAIN");
            }
            self.tree = open.tree;
            open.changed.iter().for_each(|path| self.changed(path));
        }
        Ok(b"OK\0".to_vec())
    }

    fn tree_of(&mut self, request: &Request) -> Result<&mut Tree, &'static str> {
        match request.transaction {
            0 => Ok(&mut self.tree),
            id => self.transactions.get_mut(&id).map(|open| &mut open.tree).ok_or("ENOENT"),
        }
    }

    fn changed_by(&mut self, request: &Request, path: &str) {
        match self.transactions.get_mut(&request.transaction) {
            Some(open) => open.changed.push(path.to_string()),
            None => self.changed(path),
        }
    }

    fn changed(&mut self, path: &str) {
        self.version += 1;
        self.fire(path, |watch| path == watch.path || path.starts_with(&format!("{}/", watch.path)));
    }

    fn fire(&mut self, path: &str, of: impl Fn(&Watch) -> bool) {
        let events = self.watches.iter().filter(|watch| of(watch)).map(|watch| {
            let seen = if watch.relative { path.strip_prefix(HOME).unwrap() } else { path };
            format!("{seen}\0{}\0", watch.token)
        });
        for event in events.collect::<Vec<_>>() {
            self.send(15, 0, event.as_bytes());
        }
    }
}

/// What relative paths are relative to.
pub const HOME: &str = "/local/domain/7/";

fn absolute(path: &str) -> String {
    if path.starts_with(['/', '@']) { path.to_string() } else { format!("{HOME}{path}") }
}

fn write(tree: &mut Tree, path: &str, value: &[u8]) {
    for (end, _) in path.match_indices('/').skip(1) {
        tree.entry(path[..end].to_string()).or_default();
    }
    tree.insert(path.to_string(), value.to_vec());
}

fn remove(tree: &mut Tree, path: &str) {
    let below = format!("{path}/");
    tree.retain(|node, _| node != path && !node.starts_with(&below));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
