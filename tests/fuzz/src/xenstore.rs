//! The xenstore client, with a server that says anything, at any pace, in the ring's page. One that keeps to the protocol is understood
//! whatever came before; a length that cannot be ends the connection.

use crate::input::steps;
use arbitrary::{Arbitrary, Unstructured};
use kernel::xen::store::{Ring, Store, StoreError, Transaction};
use std::cell::UnsafeCell;
use std::pin::{Pin, pin};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

const RING_BYTES: usize = 1024;
const CALLS_MAX: usize = 24;
const ERRORS: [&[u8]; 8] =
    [b"ENOENT\0", b"EAGAIN\0", b"E2BIG\0", b"EACCES\0", b"EEXIST\0", b"ENOSPC\0", b"ENOSYS\0", b"?"];
const PATHS: [&str; 6] = ["data/a", "/local/domain/0", "device", "@releaseDomain", "bad path", ""];

/// `struct xenstore_domain_interface`, written down a second time on purpose.
#[repr(C)]
struct Shared {
    requests: [AtomicU8; RING_BYTES],
    replies: [AtomicU8; RING_BYTES],
    request_consumer: AtomicU32,
    request_producer: AtomicU32,
    reply_consumer: AtomicU32,
    reply_producer: AtomicU32,
    server_features: AtomicU32,
    connection: AtomicU32,
    error: AtomicU32,
}

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

std::thread_local! {
    /// Each input has it for itself, from zeroes on.
    static PAGE: &'static Page = Box::leak(Box::new(Page(UnsafeCell::new([0; 4096]))));
}

#[derive(Arbitrary, Debug)]
enum Step {
    Call {
        kind: u8,
        path: u8,
        value: u8,
    },
    Drop {
        call: u8,
    },
    Poll,
    Pump,
    /// The server takes requests.
    Take {
        bytes: u16,
    },
    /// It answers one of them.
    Reply {
        request: u8,
        kind: Option<u8>,
        payload: Payload,
    },
    /// So many, of different nodes.
    Event {
        path: u8,
        token: u8,
        times: u8,
    },
    /// The server does what it is for, for some time.
    Serve {
        rounds: u8,
    },
    Raw {
        bytes: Vec<u8>,
    },
    Header {
        kind: u8,
        request: u8,
        length: u32,
    },
    Index {
        which: u8,
        value: u32,
    },
    Error {
        error: u8,
        features: u8,
    },
    Connection {
        value: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Payload {
    Usual,
    Error(u8),
    Text(Vec<u8>),
    Names(u8),
    Long(u16),
    Part { generation: u8, names: u8, is_last: bool },
}

type Call = Pin<Box<dyn Future<Output = Result<usize, StoreError>>>>;

struct Bed {
    store: Store,
    shared: &'static Shared,
    heard: Vec<u8>,
    /// Kind and number of requests that were not answered.
    requests: Vec<(u32, u32)>,
    to_say: Vec<u8>,
    calls: Vec<Call>,
    /// The server keeps to the protocol.
    is_honest: bool,
    /// It was honest until it said a length that cannot be, and nothing but that since.
    must_fail: bool,
}

impl Bed {
    fn new() -> Self {
        let page = PAGE.with(|page| NonNull::from(*page).cast::<u8>());
        // SAFETY: the page is this thread's alone, and no input before this one has left anything that looks at it.
        unsafe { page.write_bytes(0, 4096) };
        // SAFETY: the page is aligned, long enough, there for good, and seen as atomics alone from here on.
        let shared = unsafe { page.cast::<Shared>().as_ref() };
        // SAFETY: as above.
        let store = Store::new(unsafe { Ring::at(page) }, || {});
        let (heard, requests, to_say, calls) = Default::default();
        Self { store, shared, heard, requests, to_say, calls, is_honest: true, must_fail: false }
    }

    fn call(&mut self, kind: u8, path: u8, value: u8) {
        let (store, path) = (self.store.clone(), PATHS[usize::from(path) % PATHS.len()]);
        let value = "v".repeat(usize::from(value) * 20);
        let call: Call = match kind % 12 {
            0 => Box::pin(async move { store.read(path).await.map(|value| value.len()) }),
            1 => Box::pin(async move { store.write(path, &value).await.map(|()| 0) }),
            2 => Box::pin(async move { store.remove(path).await.map(|()| 0) }),
            3 | 4 => Box::pin(async move { store.directory(path).await.map(|names| names.len()) }),
            5 => Box::pin(async move { store.watch(path, &value).await.map(|()| 0) }),
            6 => Box::pin(async move { store.reset_watches().await.map(|()| 0) }),
            7 => Box::pin(async move {
                let paths = ["a".into(), path.into(), "b".into()];
                store.read_together(&paths).await.map(|values| values.len())
            }),
            8 => Box::pin(async move {
                let transaction = store.begin().await?;
                let names = transaction.directory(path).await?;
                transaction.write("a", "b").await?;
                transaction.commit().await.map(|()| names.len())
            }),
            9 => Box::pin(async move {
                let body = async |transaction: &Transaction| {
                    transaction.read(path).await?;
                    transaction.remove(path).await?;
                    transaction.write(path, &value).await
                };
                store.transaction(body).await.map(|()| 0)
            }),
            _ => Box::pin(async move { store.next_event().await.map(|_| 0) }),
        };
        if self.calls.len() < CALLS_MAX {
            self.calls.push(call);
        }
    }

    fn poll(&mut self) {
        let context = &mut Context::from_waker(Waker::noop());
        self.calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
    }

    /// The server takes what the client has sent.
    fn take(&mut self, most: usize) {
        let producer = self.shared.request_producer.load(Ordering::Relaxed);
        let mut consumer = self.shared.request_consumer.load(Ordering::Relaxed);
        for _ in 0..most.min(RING_BYTES) {
            if consumer == producer {
                break;
            }
            self.heard.push(self.shared.requests[consumer as usize % RING_BYTES].load(Ordering::Relaxed));
            consumer = consumer.wrapping_add(1);
        }
        self.shared.request_consumer.store(consumer, Ordering::Relaxed);
        while self.heard.len() >= 16 {
            let word = |at: usize| u32::from_le_bytes(self.heard[at..at + 4].try_into().expect("four bytes"));
            let length = word(12) as usize;
            assert!(!self.is_honest || length <= 4096, "a request that ends the connection");
            if self.heard.len() < 16 + length {
                break;
            }
            self.requests.push((word(0), word(4)));
            self.heard.drain(..16 + length);
        }
    }

    fn message(&mut self, kind: u32, request: u32, payload: &[u8]) {
        let header = [kind, request, 0, payload.len() as u32];
        self.to_say.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        self.to_say.extend(payload);
        self.flush();
    }

    /// Puts what fits into the ring.
    fn flush(&mut self) {
        let consumer = self.shared.reply_consumer.load(Ordering::Relaxed);
        let mut producer = self.shared.reply_producer.load(Ordering::Relaxed);
        let used = producer.wrapping_sub(consumer) as usize;
        let room = RING_BYTES.saturating_sub(used).min(self.to_say.len());
        for byte in self.to_say.drain(..room) {
            self.shared.replies[producer as usize % RING_BYTES].store(byte, Ordering::Relaxed);
            producer = producer.wrapping_add(1);
        }
        self.shared.reply_producer.store(producer, Ordering::Relaxed);
        // What a server says in advance is bounded, too.
        if self.to_say.len() > 1 << 16 {
            self.to_say.clear();
            (self.is_honest, self.must_fail) = (false, false);
        }
    }

    fn reply(&mut self, request: u8, kind: Option<u8>, payload: &Payload) {
        if self.requests.is_empty() {
            return;
        }
        let (asked, number) = self.requests.remove(usize::from(request) % self.requests.len());
        let said = kind.map_or(asked, u32::from);
        self.is_honest &= kind.is_none();
        let names = |count: u8| (0..count).flat_map(|name| format!("n{name}\0").into_bytes()).collect();
        match payload {
            Payload::Usual => self.message(said, number, if asked == 6 { b"7\0" } else { b"OK\0" }),
            Payload::Error(error) => self.message(16, number, ERRORS[usize::from(*error % 8)]),
            Payload::Text(text) => self.message(said, number, text),
            Payload::Names(count) => {
                let names: Vec<u8> = names(*count);
                self.message(said, number, &names);
            }
            Payload::Long(length) => {
                self.is_honest &= *length <= 4096;
                self.message(said, number, &vec![b'a'; usize::from(*length)]);
            }
            Payload::Part { generation, names: count, is_last } => {
                let mut part = format!("{generation}\0").into_bytes();
                part.extend::<Vec<u8>>(names(*count));
                if *is_last {
                    part.push(0);
                }
                self.message(said, number, &part);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Call { kind, path, value } => self.call(kind, path, value),
            Step::Drop { call } => {
                if !self.calls.is_empty() {
                    let call = usize::from(call) % self.calls.len();
                    drop(self.calls.swap_remove(call));
                }
            }
            Step::Poll => self.poll(),
            Step::Pump => {
                self.flush();
                self.store.pump();
            }
            Step::Take { bytes } => self.take(bytes.into()),
            Step::Reply { request, kind, payload } => self.reply(request, kind, &payload),
            Step::Event { path, token, times } => {
                let path = PATHS[usize::from(path) % PATHS.len()];
                for time in 0..=times {
                    self.message(15, 0, format!("{path}/{time}\0t{token}\0").as_bytes());
                    self.store.pump();
                }
            }
            Step::Serve { rounds } => {
                for _ in 0..rounds % 32 {
                    self.poll();
                    self.take(RING_BYTES);
                    self.reply(0, None, &Payload::Usual);
                    self.store.pump();
                }
            }
            Step::Raw { bytes } => {
                self.is_honest = false;
                self.to_say.extend(bytes);
                self.flush();
            }
            Step::Header { kind, request, length } => {
                self.must_fail |= self.is_honest && length > 4096;
                self.is_honest = false;
                let header = [u32::from(kind), request.into(), 0, length];
                self.to_say.extend(header.iter().flat_map(|word| word.to_le_bytes()));
                self.flush();
            }
            Step::Index { which, value } => {
                (self.is_honest, self.must_fail) = (false, false);
                let indices = [
                    &self.shared.request_consumer,
                    &self.shared.request_producer,
                    &self.shared.reply_consumer,
                    &self.shared.reply_producer,
                ];
                indices[usize::from(which % 4)].store(value, Ordering::Relaxed);
            }
            Step::Error { error, features } => {
                self.is_honest = false;
                self.shared.error.store(error.into(), Ordering::Relaxed);
                self.shared.server_features.store(features.into(), Ordering::Relaxed);
            }
            Step::Connection { value } => {
                (self.is_honest, self.must_fail) = (false, false);
                self.shared.connection.store(value.into(), Ordering::Relaxed);
            }
        }
    }
}

/// A server that does what `data` says.
pub fn xenstore(data: &[u8]) {
    let mut bed = Bed::new();
    steps(Unstructured::new(data)).for_each(|step| bed.step(step));
    if bed.must_fail {
        for _ in 0..200 {
            bed.flush();
            bed.store.pump();
        }
        let store = bed.store.clone();
        let read = pin!(store.read("data/z")).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(read, Poll::Ready(Err(_))), "a length that cannot be is believed");
    }
    if !bed.is_honest {
        return;
    }
    // A server that was only slow, or refused: what is asked now is answered, as is all before.
    bed.calls.clear();
    let store = bed.store.clone();
    let mut reading = Box::pin(async move { store.read("data/z").await });
    for _ in 0..1000 {
        let context = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(read) = reading.as_mut().poll(context) {
            // All its slots may be taken by what nobody waits for any more.
            assert!(matches!(read.as_deref(), Ok("OK\0") | Err(_)), "{read:?}");
            return;
        }
        bed.take(RING_BYTES);
        bed.reply(0, None, &Payload::Usual);
        bed.flush();
        bed.store.pump();
    }
    panic!("a good request is not answered");
}
