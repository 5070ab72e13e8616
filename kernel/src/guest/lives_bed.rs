//! A world in which one life of this kernel follows the other, and how a life ends.

use core::cell::Cell;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use drivers::block::Volume;

use super::*;
use crate::limits::{PAGE_BYTES, SINGLE_PAGES};
use crate::mm::address::Gfn;
use crate::mm::balloon::Balloon;
use crate::mm::physmap::{Unpopulated, Window};
use crate::restart::area::tests::area;
use crate::restart::words::Word;

pub const SECTORS: usize = 8;
pub const WINDOW_PAGES: usize = 128;

/// What outlives a life: Xen and what is in its books, the handover area, and the RAM of volumes.
#[derive(Clone)]
pub struct World {
    pub xen: FakeXen,
    pub area: Area,
    /// Address of the sectors of each guest's disk.
    disks: [usize; 2],
}

impl World {
    pub fn new() -> Self {
        let Bed { xen, .. } = Bed::new();
        let disks = [(); 2].map(|()| vec![0_u8; SECTORS * 512].leak().as_mut_ptr().expose_provenance());
        Self { xen, area: area(), disks }
    }

    /// A life begins: what is there is adopted, and no device is attached yet.
    pub fn begin(&self) -> Bed {
        let space = self.xen.space();
        let pages = SinglePages::noted_in(Gfn::containing(space.start), self.area.singles);
        let start = space.start + SINGLE_PAGES * PAGE_BYTES;
        let region = start..start + WINDOW_PAGES * PAGE_BYTES;
        let region = Unpopulated::new(&region).noted_in(&self.area.root.window_slots);
        let pager = Pager::new(Window::new(WINDOW_PAGES, region, Balloon::new(Rc::default())));
        let pages = Rc::new(RefCell::new(pages));
        core::mem::forget(SinglePages::map_shared_info(&pages).unwrap());
        let mut table = GuestTable::new(pages, Rc::new(RefCell::new(pager))).noted_in(self.area);
        table.adopt(&[]);
        Bed { xen: self.xen.clone(), table: Rc::new(RefCell::new(table)) }
    }

    /// Attaches the disk of each guest, B's by grants.
    pub fn attach_all(&self, bed: &Bed) {
        self.attach(bed, A).unwrap();
        self.attach(bed, B).unwrap();
    }

    pub fn attach(&self, bed: &Bed, domain: DomainId) -> Result<(), HypercallError> {
        let (disk, sharing) = match domain {
            A => (self.disks[0], Sharing::Foreign),
            _ => (self.disks[1], Sharing::Granted),
        };
        let start = core::ptr::with_exposed_provenance_mut(disk);
        // SAFETY: leaked memory of that size; the lives before this one have ended.
        let sectors: &'static mut [u8] = unsafe { core::slice::from_raw_parts_mut(start, SECTORS * 512) };
        attach_volume(bed, domain, sharing, Box::new(RamVolume(sectors)))
    }

    /// The guests' drivers start, and B's has granted all that it has.
    pub fn start_all<'a>(&self, bed: &'a Bed) -> [Driver<'a>; 2] {
        for n in 0..32 {
            // One that is mapped stays as it is.
            if self.xen.revoke(B, FIRST_REFERENCE + n) {
                self.xen.grant(B, FIRST_REFERENCE + n, RAM / 4096 + u64::from(n), false);
            }
        }
        [A, B].map(|domain| {
            let driver = Driver { grants: domain == B, ..Driver::new(bed, domain, BASE) };
            driver.start(DESCRIPTORS);
            bed.work();
            driver
        })
    }

    /// Nobody's vCPU waits any more.
    pub fn assert_all_answered(&self) {
        for (domain, vcpu) in [A, B].into_iter().flat_map(|domain| [(domain, 0), (domain, 1)]) {
            if self.xen.servers(domain) > 0 && self.xen.slot(domain, 0, vcpu).state & 15 != 0 {
                let outcome = self.xen.outcome(domain, vcpu);
                assert!(matches!(outcome, Outcome::Answered(_)), "{domain} vCPU {vcpu}: {outcome:?}");
            }
        }
    }

    /// All guests go, and nothing of any life is left.
    pub fn assert_clean_without_guests(&self, bed: &Bed) {
        for domain in [A, B] {
            bed.table.borrow_mut().remove(domain);
            assert_eq!(self.xen.servers(domain), 0);
        }
        // The hypervisor's own page is mapped for good.
        assert_eq!((self.xen.mapped(), self.xen.open_ports(), self.xen.grant_mappings()), (1, 0, 0));
        assert_eq!(self.xen.leaks(), []);
        assert!(self.area.devices.iter().all(|entry| entry.place().is_none()));
        assert_eq!(self.area.singles.iter().filter(|note| note.get().is_some()).count(), 1);
        assert!(!self.area.singles.iter().any(Word::is_damaged));
        for domain in [A, B] {
            if self.xen.exists(domain) {
                assert_eq!(self.xen.references(domain), 0);
                self.xen.destroy(domain);
            }
            assert!(!self.xen.exists(domain), "{domain} stays a zombie");
        }
    }
}

pub fn attach_volume(
    bed: &Bed,
    domain: DomainId,
    sharing: Sharing,
    volume: Box<dyn Volume<memory::SharedPinned>>,
) -> Result<(), HypercallError> {
    let mut table = bed.table.borrow_mut();
    let guest = table.find_or_add(domain)?;
    let block = Model::Disk(Box::new(BlockDevice::new("disk".into(), "serial", volume)));
    guest.attach(DeviceId::Disk(0), BASE, IRQ, sharing, block)
}

/// Nothing is undone at Xen.
pub fn end(bed: Bed) {
    core::mem::forget(bed.table);
}

struct Moved<T>(T);

// SAFETY: whoever moves it waits until the thread that it went to has ended, or stopped for good.
unsafe impl<T> Send for Moved<T> {}

impl<T> Moved<T> {
    fn take(self) -> T {
        self.0
    }
}

/// Runs a life that ends at step `last`, before or after a hypercall, if it has so many. Returns whether it did.
pub fn live_until(world: &World, last: usize, life: fn(&World)) -> bool {
    let (ended, end) = channel();
    let moved = Moved((world.clone(), ended));
    let thread = thread::spawn(move || {
        let (world, ended): (World, Sender<bool>) = moved.take();
        let (steps, stopped) = (Cell::new(0), ended.clone());
        world.xen.install(move || {
            if steps.get() == last {
                stopped.send(true).unwrap();
                loop {
                    thread::park();
                }
            }
            steps.set(steps.get() + 1);
        });
        life(&world);
        world.xen.install(|| {});
        // The thread's last references to what the others count go before they are told.
        drop(world);
        crate::xen::hypercall::fake::install(|_, _| 0);
        ended.send(false).unwrap();
    });
    match end.recv() {
        Ok(is_ended) => is_ended,
        Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// Another disk for A, which nobody uses.
pub fn attach_second(bed: &Bed) {
    bed.attach(A, 1, BASE + DEVICE_BYTES, SECTORS).unwrap();
}
