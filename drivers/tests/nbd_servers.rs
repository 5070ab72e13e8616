//! The servers that are used in life, on this machine's loopback: `qemu-nbd` and Debian's `nbd-server` (packages qemu-utils
//! and nbd-server, without which this fails).

mod common;

use common::disk_bed::{DISCARD, DiskGuest, FLUSH_ALL, IN, NONE, OK, WRITE_ZEROES};
use common::nbd_bed::registry;
use common::nbd_process::{Scratch, Server, Socket, free_address, nbd_server, qemu_nbd};
use drivers::block::{Geometry, Volume};
use drivers::fake::FakePinned;
use drivers::virtio::blk::config::FLUSH;
use drivers::volume::nbd::NbdError;
use drivers::volume::nbd::disks::NetworkDisks;
use drivers::volume::registry::{Access, OpenError, OpenVolume, Registry};
use drivers::volume::spec::VolumeSpec;
use std::cell::Cell;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Each lane of the disk has at most one request under way.
const LANES: u16 = 16;
const LANE_BYTES: usize = 64 << 10;
const IMAGE_BYTES: usize = LANE_BYTES * LANES as usize;

struct Bed {
    registry: Registry,
    disks: NetworkDisks,
    begun: Instant,
    address: SocketAddrV4,
}

impl Bed {
    fn new(address: SocketAddrV4) -> Self {
        let registry =
            registry(|server| Some(Box::new(Socket::new(server)) as _), Rc::new(Cell::new(u64::MAX)));
        Self { disks: registry.network_disks(), registry, begun: Instant::now(), address }
    }

    fn open(&self, export: &str, access: Access) -> Result<OpenVolume, OpenError> {
        let spec = VolumeSpec::parse(&format!("nbd:{}/{export}", self.address)).unwrap();
        let mut opening = pin!(self.registry.open(&spec, access, 0));
        loop {
            if let Poll::Ready(opened) = opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return opened;
            }
            self.turn(&mut []);
        }
    }

    fn guest(&self) -> DiskGuest {
        DiskGuest::new(self.open("disk", Access::ReadWrite).unwrap(), FLUSH)
    }

    fn turn(&self, guests: &mut [&mut DiskGuest]) {
        let now_ns = u64::try_from(self.begun.elapsed().as_nanos()).unwrap();
        let done = self.disks.poll(now_ns);
        guests.iter_mut().for_each(|guest| guest.work());
        self.disks.kick();
        if !done && !self.disks.settle() {
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Until nothing is open any more.
    fn leave(&self) {
        while self.disks.deadline_ns().is_some() {
            self.turn(&mut []);
        }
    }
}

fn geometry(volume: &OpenVolume) -> Geometry {
    Volume::<FakePinned>::geometry(volume)
}

fn image(scratch: &Scratch) -> PathBuf {
    let path = scratch.path("disk.img");
    std::fs::write(&path, vec![0; IMAGE_BYTES]).unwrap();
    path
}

#[derive(Clone, Copy)]
enum Request {
    Read,
    Write(u8),
    Flush,
    Zero,
    Discard,
}

/// Random requests, and what the disk must hold.
struct Workload {
    guest: DiskGuest,
    model: Vec<u8>,
    /// Sectors that hold what the model says: a discard is a hint, after which they may hold anything.
    is_known: Vec<bool>,
    under_way: Vec<Option<(Request, usize, usize)>>,
    random: u64,
    answers: u16,
    begun: usize,
    ended: usize,
}

impl Workload {
    fn new(guest: DiskGuest) -> Self {
        let under_way = vec![None; LANES.into()];
        Self {
            guest,
            model: vec![0; IMAGE_BYTES],
            is_known: vec![true; IMAGE_BYTES / 512],
            under_way,
            random: 88_172_645_463_325_252,
            answers: 0,
            begun: 0,
            ended: 0,
        }
    }

    fn random(&mut self, below: usize) -> usize {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 20).unwrap() % below
    }

    /// Begins a request in each lane that has none.
    fn begin(&mut self) {
        for lane in 0..LANES {
            if self.under_way[usize::from(lane)].is_some() {
                continue;
            }
            let request = match self.random(10) {
                0..4 => Request::Write(u8::try_from(self.random(256)).unwrap()),
                4..8 => Request::Read,
                8 => Request::Flush,
                _ if self.random(2) == 0 => Request::Zero,
                _ => Request::Discard,
            };
            let sectors = 1 + self.random(60);
            let sector = usize::from(lane) * LANE_BYTES / 512 + self.random(128 - sectors);
            self.under_way[usize::from(lane)] = Some((request, sector * 512, sectors * 512));
            self.begun += 1;
            let (at, count) = (sector as u64, u32::try_from(sectors).unwrap());
            match request {
                Request::Write(value) => self.guest.put_write(lane, at, count * 512, value),
                Request::Read => self.guest.put(lane, IN, at, count * 512),
                Request::Flush => self.guest.put(lane, FLUSH_ALL, 0, 0),
                Request::Zero => self.guest.put_ranges(lane, WRITE_ZEROES, &[(at, count)]),
                Request::Discard => self.guest.put_ranges(lane, DISCARD, &[(at, count)]),
            }
        }
        self.guest.kick();
    }

    fn take_answers(&mut self) {
        while self.answers != self.guest.guest.used_index() {
            let lane = u16::try_from(self.guest.guest.used(self.answers).0).unwrap() / 3;
            self.answers = self.answers.wrapping_add(1);
            assert_eq!(self.guest.status(lane), OK);
            let (request, start, length) = self.under_way[usize::from(lane)].take().unwrap();
            let part = &mut self.model[start..][..length];
            let is_known = &mut self.is_known[start / 512..][..length / 512];
            match request {
                Request::Write(value) => part.fill(value),
                Request::Read => {
                    let found = self.guest.data(lane, length);
                    assert!(is_same(part, &found, is_known), "what is read is not what was written");
                }
                Request::Zero => part.fill(0),
                Request::Flush | Request::Discard => {}
            }
            match request {
                Request::Write(_) | Request::Zero => is_known.fill(true),
                Request::Discard => is_known.fill(false),
                Request::Read | Request::Flush => {}
            }
            self.ended += 1;
        }
    }

    /// So many requests more, and until none is under way.
    fn run(&mut self, bed: &Bed, requests: usize, mut meanwhile: impl FnMut(usize)) {
        let until = Instant::now() + Duration::from_secs(60);
        let enough = self.begun + requests;
        while self.begun < enough || self.ended < self.begun {
            assert!(Instant::now() < until, "{} of {} requests ended", self.ended, self.begun);
            if self.begun < enough {
                self.begin();
            }
            bed.turn(&mut [&mut self.guest]);
            self.take_answers();
            meanwhile(self.ended);
        }
    }

    /// Makes all durable; then the image must hold it.
    fn flush(&mut self, bed: &Bed, image: &Path) {
        self.guest.put(LANES, FLUSH_ALL, 0, 0);
        self.guest.kick();
        while self.guest.status(LANES) == NONE {
            bed.turn(&mut [&mut self.guest]);
        }
        assert_eq!(self.guest.status(LANES), OK);
        assert!(is_same(&self.model, &std::fs::read(image).unwrap(), &self.is_known));
    }
}

fn is_same(model: &[u8], found: &[u8], is_known: &[bool]) -> bool {
    let mut sectors = model.chunks(512).zip(found.chunks(512)).zip(is_known);
    model.len() == found.len() && sectors.all(|((model, found), is_known)| !is_known || model == found)
}

fn serves_well(bed: &Bed, image: &Path, start: impl Fn() -> Server) {
    let server = start();
    let mut workload = Workload::new(bed.guest());
    workload.run(bed, 3000, |_| {});
    workload.flush(bed, image);
    drop(workload.guest);
    bed.leave();
    drop(server);
    let _again = start();
    assert_eq!(geometry(&bed.open("disk", Access::ReadOnly).unwrap()).sectors, (IMAGE_BYTES / 512) as u64);
}

/// The server is killed again and again, and comes back a moment later.
fn survives_restarts(bed: &Bed, image: &Path, start: impl Fn() -> Server) {
    let mut server = start();
    let mut workload = Workload::new(bed.guest());
    let (mut next_kill, mut kills, mut back_at) = (150, 0, None);
    workload.run(bed, 1500, |ended| {
        if back_at.is_some_and(|at| Instant::now() >= at) {
            server = start();
            back_at = None;
        }
        if ended >= next_kill && back_at.is_none() {
            server.kill();
            kills += 1;
            next_kill += 150;
            back_at = Some(Instant::now() + Duration::from_millis(50 * kills));
        }
    });
    if back_at.is_some() {
        server = start();
    }
    workload.flush(bed, image);
    assert!(kills >= 6, "{kills}");
    drop(workload.guest);
    bed.leave();
    drop(server);
}

#[test]
fn qemu_nbd_serves_well() {
    let scratch = Scratch::new("qemu-serves");
    let (image, address) = (image(&scratch), free_address());
    serves_well(&Bed::new(address), &image, || qemu_nbd(&image, address, &[]));
}

#[test]
fn nbd_server_serves_well() {
    let scratch = Scratch::new("nbd-serves");
    let (image, address) = (image(&scratch), free_address());
    serves_well(&Bed::new(address), &image, || nbd_server(&image, address, ""));
}

#[test]
fn qemu_nbd_may_be_restarted() {
    let scratch = Scratch::new("qemu-restarts");
    let (image, address) = (image(&scratch), free_address());
    survives_restarts(&Bed::new(address), &image, || qemu_nbd(&image, address, &[]));
}

#[test]
fn nbd_server_may_be_restarted() {
    let scratch = Scratch::new("nbd-restarts");
    let (image, address) = (image(&scratch), free_address());
    survives_restarts(&Bed::new(address), &image, || nbd_server(&image, address, ""));
}

#[test]
fn exports_that_are_not_there_are_refused() {
    let scratch = Scratch::new("unknown");
    let image = image(&scratch);
    let (qemu, debian) = (free_address(), free_address());
    let _servers = (qemu_nbd(&image, qemu, &[]), nbd_server(&image, debian, ""));
    let refused = |address| Bed::new(address).open("other", Access::ReadOnly).unwrap_err();
    assert_eq!(refused(qemu), OpenError::Network(NbdError::NoExport));
    assert_eq!(refused(debian), OpenError::Network(NbdError::NoExport));
}

fn is_read_only(bed: &Bed, start: impl Fn() -> Server) {
    let server = start();
    assert_eq!(bed.open("disk", Access::ReadWrite).unwrap_err(), OpenError::ReadOnlyDisk);
    bed.leave();
    drop(server);
    let _again = start();
    assert!(geometry(&bed.open("disk", Access::ReadOnly).unwrap()).read_only);
}

#[test]
fn read_only_exports_are_read_only() {
    let scratch = Scratch::new("read-only");
    let (image, address) = (image(&scratch), free_address());
    is_read_only(&Bed::new(address), || qemu_nbd(&image, address, &["--read-only"]));
    is_read_only(&Bed::new(address), || nbd_server(&image, address, "readonly = true\n"));
}

#[test]
fn nobody_at_the_port_is_said() {
    let refused = Bed::new(free_address()).open("disk", Access::ReadOnly).unwrap_err();
    assert_eq!(refused, OpenError::Network(NbdError::Unreachable));
}
