//! The life of disks in xenstore: they appear, are served, and go away, as libxl writes it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::cell::Cell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use drivers::volume::ram::Storage;
use drivers::volume::registry::Registry;

use super::*;
use crate::guest::control::{Control, OwnMemory};
use crate::mm::frames::FrameAllocator;
use crate::xen::sched::ShutdownReason;
use crate::xen::store::tests::fake::{Fake, HOME, page_starting_at};
use crate::xen::store::{Ring, Store, StoreError};

const INITRD_SECTORS: u64 = 24;

std::thread_local! {
    static HEAP_FREE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// From now on so many bytes of heap are free.
pub fn set_heap_free(bytes: usize) {
    HEAP_FREE.set(bytes);
}

type Running = Pin<Box<dyn Future<Output = Result<ShutdownReason, StoreError>>>>;

/// A driver domain with its control plane, and the toolstack at the other end of xenstore.
pub struct Plane {
    pub bed: Bed,
    pub store: RefCell<Fake>,
    client: Store,
    /// The server's event is pending.
    notified: Rc<Cell<bool>>,
    control: RefCell<Running>,
    result: Cell<Option<Result<ShutdownReason, StoreError>>>,
    /// Values of [`Plane::watched`] in the order in which they were seen.
    pub history: RefCell<Vec<Option<String>>>,
    watched: RefCell<String>,
}

impl Plane {
    /// A driver domain that has not run yet, with an initrd and at most 64 KiB for volumes in RAM.
    pub fn stopped(complaints: Vec<String>) -> Self {
        let bed = Bed::new();
        let page = page_starting_at(0);
        let notified = Rc::new(Cell::new(false));
        let flag = notified.clone();
        let client = Store::new(Ring::new(page), move || flag.set(true));
        let allocate = |bytes: u64| {
            (bytes <= 64 << 10).then(|| Box::new(vec![0_u8; bytes as usize]) as Box<dyn Storage>)
        };
        let initrd = vec![7_u8; INITRD_SECTORS as usize * 512];
        let volumes = Registry::new(Some(Box::new(initrd)), Box::new(allocate));
        let frames = Rc::new(RefCell::new(FrameAllocator::default()));
        let own_memory = OwnMemory { frames, heap_free: || HEAP_FREE.get() };
        let control = Control::new(client.clone(), bed.table.clone(), volumes, own_memory);
        Self {
            bed,
            store: RefCell::new(Fake::new(page)),
            client,
            notified,
            control: RefCell::new(Box::pin(control.run(complaints))),
            result: Cell::new(None),
            history: RefCell::default(),
            watched: RefCell::default(),
        }
    }

    /// A driver domain that is ready.
    pub fn new() -> Self {
        let plane = Self::stopped(Vec::new());
        plane.settle();
        plane
    }

    /// Lets both sides run until neither has news for the other.
    pub fn settle(&self) {
        loop {
            self.client.pump();
            let mut context = Context::from_waker(Waker::noop());
            if self.result.get().is_none()
                && let Poll::Ready(result) = self.control.borrow_mut().as_mut().poll(&mut context)
            {
                self.result.set(Some(result));
            }
            let moved = self.store.borrow_mut().serve();
            self.history.borrow_mut().push(self.value(&self.watched.borrow()));
            if !moved && !self.notified.take() {
                break;
            }
        }
        self.history.borrow_mut().dedup();
    }

    pub fn result(&self) -> Option<Result<ShutdownReason, StoreError>> {
        self.result.get()
    }

    /// Notes each value of a node from now on.
    pub fn watch(&self, path: &str) {
        *self.watched.borrow_mut() = path.to_string();
        self.history.borrow_mut().clear();
    }

    pub fn value(&self, path: &str) -> Option<String> {
        let store = self.store.borrow();
        store.value(&format!("{HOME}{path}")).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    /// The toolstack writes, and we react.
    pub fn write(&self, path: &str, value: &str) {
        self.store.borrow_mut().write(&format!("{HOME}{path}"), value);
        self.settle();
    }
}

/// A disk in a guest's configuration.
#[derive(Clone, Copy)]
pub struct Disk {
    pub guest: DomainId,
    pub target: &'static str,
    pub mode: &'static str,
    /// Position among the guest's virtio devices.
    pub index: u64,
    /// A node that is written otherwise, or left out.
    pub changed: (&'static str, Option<&'static str>),
}

/// A disk of guest A that is in order.
pub const DISK: Disk = Disk { guest: A, target: "ram:16K", mode: "w", index: 0, changed: ("", None) };

impl Disk {
    /// xvda is 51712, xvdb 16 more.
    pub fn path(&self) -> String {
        format!("backend/virtio_disk/{}/{}", self.guest.0, 51712 + 16 * self.index)
    }

    pub fn node(&self, leaf: &str) -> String {
        format!("{}/{leaf}", self.path())
    }

    pub fn base(&self) -> u64 {
        BASE + self.index * DEVICE_BYTES
    }

    /// Writes what libxl writes about it, in libxl's order.
    pub fn add(&self, plane: &Plane) {
        let frontend = format!("/local/domain/{}/device/virtio_disk/51712", self.guest.0);
        let (id, base) = (self.guest.0.to_string(), self.base().to_string());
        let (irq, name) =
            ((IRQ as u64 + self.index).to_string(), format!("xvd{}", ['a', 'b'][self.index as usize]));
        let nodes = [
            ("frontend", &*frontend),
            ("params", self.target),
            ("frontend-id", &*id),
            ("online", "1"),
            ("removable", "0"),
            ("bootable", "1"),
            ("state", "1"),
            ("dev", &*name),
            ("type", "standalone"),
            ("mode", self.mode),
            ("device-type", "disk"),
            ("discard-enable", "1"),
            ("specification", "virtio"),
            ("transport", "mmio"),
            ("base", &*base),
            ("irq", &*irq),
            ("grant_usage", "0"),
        ];
        for (leaf, value) in nodes {
            let value = if leaf == self.changed.0 { self.changed.1 } else { Some(value) };
            if let Some(value) = value {
                plane.store.borrow_mut().write(&format!("{HOME}{}", self.node(leaf)), value);
            }
        }
    }

    /// A domain in which this disk was added and looked at.
    pub fn added(self) -> Plane {
        let plane = Plane::new();
        self.add(&plane);
        plane.settle();
        plane
    }

    pub fn state(&self, plane: &Plane) -> Option<String> {
        plane.value(&self.node("state"))
    }

    pub fn error(&self, plane: &Plane) -> Option<String> {
        plane.value(&self.node("error"))
    }

    pub fn is_served(&self, plane: &Plane) -> bool {
        self.state(plane).as_deref() == Some("2") && plane.bed.load(self.guest, 0, self.base(), 4) == MAGIC
    }
}

const OTHER: Disk = Disk { guest: B, ..DISK };
const SECOND: Disk = Disk { index: 1, target: "ram:8K", ..DISK };

fn other_and_second(plane: &Plane) {
    OTHER.add(plane);
    SECOND.add(plane);
    plane.settle();
}

#[test]
fn a_domain_that_is_ready_says_so() {
    let plane = Plane::new();
    assert_eq!(plane.value("data/ready").as_deref(), Some("1"));
    assert_eq!(plane.value("control/feature-poweroff").as_deref(), Some("1"));
    assert_eq!((plane.value("data/error"), plane.result()), (None, None));
}

#[test]
fn complaints_about_the_command_line_are_shown() {
    let plane = Plane::stopped(Vec::from(["one".to_string(), "two".to_string()]));
    plane.settle();
    assert_eq!(plane.value("data/error").as_deref(), Some("one; two"));
}

#[test]
fn a_disk_is_served_before_its_state_says_so() {
    let plane = Plane::new();
    plane.watch(&DISK.node("state"));
    DISK.add(&plane);
    plane.settle();
    assert_eq!(*plane.history.borrow(), [Some("1".to_string()), Some("2".to_string())]);
    assert!(DISK.is_served(&plane));
    assert_eq!(DISK.error(&plane), None);
}

#[test]
fn a_disk_has_the_size_of_its_target_and_its_own_interrupt() {
    let plane = DISK.added();
    assert_eq!(plane.bed.load(A, 0, BASE + 0x100, 8), 32);
    assert_eq!(Driver::started(&plane.bed, A, BASE).run(WRITE, 31), 0);
    assert_eq!(plane.bed.xen.edges(A, IRQ), 1);
}

#[test]
fn disks_that_were_there_before_us_are_found() {
    let plane = Plane::stopped(Vec::new());
    DISK.add(&plane);
    OTHER.add(&plane);
    plane.settle();
    assert!(DISK.is_served(&plane) && OTHER.is_served(&plane));
}

#[test]
fn two_disks_of_a_guest_share_its_server() {
    let plane = DISK.added();
    SECOND.add(&plane);
    plane.settle();
    assert!(DISK.is_served(&plane) && SECOND.is_served(&plane));
    assert_eq!((plane.bed.xen.servers(A), plane.bed.load(A, 0, SECOND.base() + 0x100, 8)), (1, 16));
}

#[test]
fn disks_are_found_when_events_were_lost() {
    let plane = DISK.added();
    other_and_second(&plane);
    let noise = |n| plane.store.borrow_mut().write(&format!("{HOME}backend/vif/{n}/0/state"), "1");
    (0..300).for_each(noise);
    plane.settle();
    assert!(OTHER.is_served(&plane) && SECOND.is_served(&plane));
}

#[test]
fn the_initrd_is_a_disk() {
    let disk = Disk { target: "initrd", ..DISK };
    let plane = disk.added();
    assert_eq!(plane.bed.load(A, 0, BASE + 0x100, 8), INITRD_SECTORS);
    assert_eq!(Driver::started(&plane.bed, A, BASE).run(READ, 0), 0);
    assert_eq!(plane.bed.xen.read_guest(A, DATA), [7; 512]);
}

#[test]
fn a_read_only_disk_may_be_shared_and_not_be_written() {
    let disk = Disk { target: "initrd", mode: "r", ..DISK };
    let plane = disk.added();
    let other = Disk { guest: B, ..disk };
    other.add(&plane);
    plane.settle();
    assert!(disk.is_served(&plane) && other.is_served(&plane));
    assert_eq!(Driver::started(&plane.bed, A, BASE).run(WRITE, 0), 1);
}

#[test]
fn a_disk_taken_offline_is_closed_then_removed() {
    let plane = DISK.added();
    plane.watch(&DISK.node("state"));
    plane.write(&DISK.node("online"), "0");
    assert_eq!(*plane.history.borrow(), [Some("2".to_string()), Some("6".to_string()), None]);
    assert_eq!(plane.value(&DISK.path()), None);
    assert_eq!(plane.value("backend/virtio_disk/3"), None);
}

#[test]
fn a_disk_that_is_closing_is_closed_then_removed() {
    let plane = DISK.added();
    plane.watch(&DISK.node("state"));
    plane.write(&DISK.node("state"), "5");
    assert_eq!(*plane.history.borrow(), [Some("5".to_string()), Some("6".to_string()), None]);
}

#[test]
fn the_last_disk_of_a_guest_takes_everything_along() {
    let plane = DISK.added();
    Driver::started(&plane.bed, A, BASE).run(READ, 0);
    plane.write(&DISK.node("state"), "5");
    assert_eq!(plane.bed.left(A), (0, 0, 0, 0));
    plane.bed.xen.destroy(A);
    assert!(!plane.bed.xen.exists(A));
}

#[test]
fn one_disk_of_two_leaves_the_other_served() {
    let plane = DISK.added();
    other_and_second(&plane);
    plane.write(&DISK.node("online"), "0");
    assert!(SECOND.is_served(&plane) && OTHER.is_served(&plane));
    assert_eq!((plane.value(&DISK.path()), plane.bed.xen.claimed(A).len()), (None, 1));
}

#[test]
fn a_disk_whose_directory_is_gone_is_taken_away() {
    let plane = DISK.added();
    plane.store.borrow_mut().remove(&format!("{HOME}{}", DISK.path()));
    plane.settle();
    assert_eq!((plane.bed.left(A), DISK.state(&plane)), ((0, 0, 0, 0), None));
}

#[test]
fn a_guest_whose_directory_is_gone_is_taken_away() {
    let plane = DISK.added();
    SECOND.add(&plane);
    plane.settle();
    plane.store.borrow_mut().remove(&format!("{HOME}backend/virtio_disk/3"));
    plane.settle();
    assert_eq!(plane.bed.left(A), (0, 0, 0, 0));
}

#[test]
fn a_disk_whose_directory_went_while_events_were_lost_is_taken_away() {
    let plane = DISK.added();
    OTHER.add(&plane);
    plane.settle();
    let noise = |n| plane.store.borrow_mut().write(&format!("{HOME}backend/vif/{n}/0/state"), "1");
    (0..300).for_each(noise);
    plane.store.borrow_mut().remove(&format!("{HOME}{}", DISK.path()));
    plane.settle();
    assert!(OTHER.is_served(&plane) && plane.bed.xen.servers(A) == 0);
}

#[test]
fn a_guest_destroyed_first_goes_with_its_disk() {
    let plane = DISK.added();
    Driver::started(&plane.bed, A, BASE).run(READ, 0);
    plane.bed.xen.destroy(A);
    plane.write(&DISK.node("online"), "0");
    assert!(!plane.bed.xen.exists(A));
    assert_eq!(plane.value(&DISK.path()), None);
}

#[test]
fn a_volume_is_free_again_when_its_disk_is_gone() {
    let disk = Disk { target: "initrd", ..DISK };
    let plane = disk.added();
    plane.write(&disk.node("online"), "0");
    let next = Disk { guest: B, ..disk };
    next.add(&plane);
    plane.settle();
    assert!(next.is_served(&plane));
}

#[test]
fn a_disk_may_come_back_under_the_same_name() {
    let plane = DISK.added();
    plane.write(&DISK.node("online"), "0");
    DISK.add(&plane);
    plane.settle();
    assert!(DISK.is_served(&plane));
}

#[test]
fn a_disk_that_left_before_it_was_served_is_closed() {
    let disk = Disk { changed: ("online", Some("0")), ..DISK };
    let plane = disk.added();
    assert_eq!((plane.value(&disk.path()), plane.bed.left(A)), (None, (0, 0, 0, 0)));
}

#[test]
fn a_poweroff_is_acknowledged() {
    let plane = Plane::new();
    plane.write("control/shutdown", "poweroff");
    assert_eq!(plane.value("control/shutdown").as_deref(), Some(""));
    assert_eq!(plane.result(), Some(Ok(ShutdownReason::PowerOff)));
}

#[test]
fn a_reboot_is_acknowledged() {
    let plane = Plane::new();
    plane.write("control/shutdown", "reboot");
    assert_eq!(plane.value("control/shutdown").as_deref(), Some(""));
    assert_eq!(plane.result(), Some(Ok(ShutdownReason::Reboot)));
}

#[test]
fn an_end_of_another_kind_is_left_alone() {
    let plane = Plane::new();
    plane.write("control/shutdown", "suspend");
    assert_eq!(plane.value("control/shutdown").as_deref(), Some("suspend"));
    assert_eq!(plane.result(), None);
}

#[test]
fn a_connection_that_breaks_ends_the_control_plane() {
    let plane = Plane::new();
    plane.store.borrow_mut().send(2, 1, &[0; 4097]);
    plane.settle();
    plane.settle();
    assert_eq!(plane.result(), Some(Err(StoreError::Disconnected)));
}
