//! A guest's life: its ioreq server, its devices, and the way of an access to its device.
//!
//! | file | what |
//! |---|---|
//! | `mod` | [`Guest`]: dispatch by address, work, teardown |
//! | `backend` | a device as xenstore names it |
//! | `control` | the xenstore side: devices come and go |
//! | `identity` | the addresses of NICs |
//! | `memory` | a guest's memory: foreign pages, or granted ones |
//! | `model` | what its devices are: disks and NICs |
//! | `table` | all guests, and whose event port is whose |
//! | `turn` | how many accesses are answered in a turn of the loop |
//! | `irq` | the interrupt line to a guest |

pub mod backend;
pub mod control;
pub mod identity;
pub mod irq;
pub mod memory;
pub mod model;
pub mod table;
mod turn;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use drivers::virtio::Features;
use drivers::virtio::mmio::{Effect, MmioDevice, PlatformTrouble, Progress, Width};

use crate::arch::whole::Whole;
use crate::limits::NEWS_PER_DEVICE;
use crate::mm::foreign::Pager;
use crate::mm::granted::GrantedMemory;
use crate::mm::pinned::ForeignMemory;
use crate::mm::singles::SinglePages;
use crate::restart::area::{Area, DeviceEntry, Place};
use crate::restart::blame;
use crate::xen::DomainId;
use crate::xen::dm::RangeChange;
use crate::xen::event::Port;
use crate::xen::hypercall::{Errno, HypercallError};
use crate::xen::ioreq::{Access, IoreqServer};
use irq::GuestInterrupt;
use memory::{SharedMemory, Sharing};
use model::Model;
use turn::Turn;

/// Bytes of one device's register file: the step between devices in libxl's virtio-mmio window.
pub const DEVICE_BYTES: u64 = 0x200;

/// What a read returns where nothing is.
const NOTHING: u64 = 0;

/// A virtio device of a guest, behind its registers.
pub type GuestDevice = MmioDevice<Model, SharedMemory, GuestInterrupt>;

/// Names a device of a guest, by xenstore's device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceId {
    /// A disk.
    Disk(u32),
    /// A NIC.
    Nic(u32),
}

/// What is left to do when the queues were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// There is work now.
    pub busy: bool,
    /// There is work, or requests are under way and will be done some time.
    pub active: bool,
}

struct Attached {
    id: DeviceId,
    base: u64,
    device: GuestDevice,
    /// The guest kicked, or requests of its are under way: we look at its queues by ourselves.
    active: bool,
    /// What the control plane knows of its driver's trouble.
    told: Option<PlatformTrouble>,
    /// How often it was told something new.
    news: usize,
    /// What of it outlives this kernel.
    entry: Option<&'static DeviceEntry>,
}

impl Attached {
    /// Whether the control plane is to be told of its driver: not without end, since all that is told costs Dom0 work.
    #[inline]
    fn has_news(&self) -> bool {
        self.told != self.device.platform_trouble() && self.news < NEWS_PER_DEVICE
    }

    /// Says that it is being served, until the value is dropped.
    fn blamed(&self, area: Option<Area>) -> Option<blame::Served> {
        Some(blame::Served::new(area?, self.entry?))
    }
}

/// What became of the trouble of a device's driver with the platform: with grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverNews {
    /// Whose device.
    pub domain: DomainId,
    /// Which device.
    pub device: DeviceId,
    /// What the trouble is now.
    pub trouble: Option<PlatformTrouble>,
}

/// What there was to do in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub enum Work {
    /// Nothing.
    None,
    /// Something, and all of it is done or under way.
    Done,
    /// More than is done in a turn.
    Left,
}

impl From<Progress> for Work {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress { more: true, .. } => Self::Left,
            Progress { requests: 0, .. } => Self::None,
            Progress { .. } => Self::Done,
        }
    }
}

/// A domain that we serve.
pub struct Guest {
    domain: DomainId,
    // Dropped in this order: devices give their pins back before the server goes.
    devices: Vec<Attached>,
    /// Those of an earlier life of this kernel that are not attached again: who looks at one waits until it is, or is abandoned.
    held: Vec<&'static DeviceEntry>,
    server: IoreqServer,
    turn: Turn,
    pages: Rc<RefCell<SinglePages>>,
    pager: Rc<RefCell<Pager>>,
    area: Option<Area>,
}

impl Guest {
    /// Starts to serve `domain`, with no devices yet.
    ///
    /// # Errors
    /// Xen's answer; nothing is left behind.
    pub fn new(
        domain: DomainId,
        pages: &Rc<RefCell<SinglePages>>,
        pager: &Rc<RefCell<Pager>>,
        area: Option<Area>,
    ) -> Result<Self, HypercallError> {
        let server = IoreqServer::new(domain, pages)?;
        Ok(Self::serving(domain, server, Vec::new(), pages, pager, area))
    }

    /// Goes on to serve `domain` with the `server` of an earlier life of this kernel. Its devices are held until they are
    /// attached again, or detached.
    #[must_use]
    pub fn adopted(
        domain: DomainId,
        server: IoreqServer,
        pages: &Rc<RefCell<SinglePages>>,
        pager: &Rc<RefCell<Pager>>,
        area: Area,
    ) -> Self {
        let is_its = |entry: &&DeviceEntry| entry.place().is_some_and(|place| place.domain == domain);
        let held = area.devices.iter().filter(is_its).collect();
        Self::serving(domain, server, held, pages, pager, Some(area))
    }

    fn serving(
        domain: DomainId,
        server: IoreqServer,
        held: Vec<&'static DeviceEntry>,
        pages: &Rc<RefCell<SinglePages>>,
        pager: &Rc<RefCell<Pager>>,
        area: Option<Area>,
    ) -> Self {
        let (devices, turn) = (Vec::new(), Turn::default());
        Self { domain, devices, held, server, turn, pages: pages.clone(), pager: pager.clone(), area }
    }

    /// Which domain this is.
    #[must_use]
    pub fn domain(&self) -> DomainId {
        self.domain
    }

    /// The local event port of each of its vCPUs, in order.
    pub fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.server.ports()
    }

    fn device(&self, model: Model, irq: u32, sharing: Sharing) -> GuestDevice {
        let line = GuestInterrupt::new(self.domain, irq);
        let (memory, platform) = match sharing {
            Sharing::Foreign => {
                let memory = ForeignMemory::new(self.pager.clone(), self.domain);
                (SharedMemory::Foreign(memory), Features::empty())
            }
            Sharing::Granted => {
                let memory = GrantedMemory::new(self.pages.clone(), self.domain);
                (SharedMemory::Granted(memory), Features::ACCESS_PLATFORM)
            }
        };
        MmioDevice::new(model, memory, line, platform)
    }

    /// Puts a device at guest address `base` and claims its registers, at the end of interrupt line `irq`. One that an earlier
    /// life of this kernel had there goes on where it stopped.
    ///
    /// # Errors
    /// Xen's answer, EEXIST when another device is there; EINVAL when there are no such addresses.
    pub fn attach(
        &mut self,
        id: DeviceId,
        base: u64,
        irq: u32,
        sharing: Sharing,
        model: Model,
    ) -> Result<(), HypercallError> {
        if base.checked_add(DEVICE_BYTES).is_none() {
            return Err(HypercallError { operation: "claim guest addresses", errno: Errno::EINVAL });
        }
        let place = Place { domain: self.domain, id, base, irq, is_granted: sharing == Sharing::Granted };
        let device = self.device(model, irq, sharing);
        let is_it = |entry: &&&DeviceEntry| !entry.is_abandoned() && entry.place() == Some(place);
        let attached = match self.held.iter().find(is_it).copied() {
            Some(_) if self.area.is_some_and(|area| blame::is_given_up(&area, self.domain)) => {
                self.abandon(id);
                return Err(HypercallError { operation: blame::GIVEN_UP, errno: Errno::EPERM });
            }
            Some(entry) => {
                self.held.retain(|held| !core::ptr::eq(*held, entry));
                // Its rings are the guest's: whoever ends this kernel by what is in them is blamed.
                let _served = self.area.map(|area| blame::Served::new(area, entry));
                let device = device.resumed_from(&entry.device);
                Attached { id, base, device, active: true, told: None, news: 0, entry: Some(entry) }
            }
            None => {
                self.release_held(id);
                let _whole = Whole::begin();
                self.server.change_range(RangeChange::Claim, base, base + DEVICE_BYTES - 1)?;
                let entry = self.area.and_then(|area| area.occupy(&place));
                let device = match entry {
                    Some(entry) => device.kept_in(&entry.device),
                    None => device,
                };
                Attached { id, base, device, active: false, told: None, news: 0, entry }
            }
        };
        self.devices.push(attached);
        self.serve_all();
        Ok(())
    }

    /// Devices of an earlier life that are to be attached again.
    pub fn held(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.not_attached(false)
    }

    /// Devices of an earlier life that are not.
    pub fn abandoned(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.not_attached(true)
    }

    fn not_attached(&self, is_abandoned: bool) -> impl Iterator<Item = DeviceId> + '_ {
        let held = self.held.iter().filter(move |entry| entry.is_abandoned() == is_abandoned);
        held.filter_map(|entry| Some(entry.place()?.id))
    }

    /// A device of an earlier life is not attached again, in no other life either: what its driver writes from now on is lost.
    /// Its registers stay ours until it is detached, and read as zeroes: without anybody there the guest would take a fault.
    pub fn abandon(&mut self, id: DeviceId) {
        if let Some(entry) = self.held.iter().find(|entry| is_of(entry, id)) {
            entry.abandon();
            self.serve_all();
        }
    }

    /// A device of an earlier life is nobody's any more, and its registers ours no more. Returns whether there was one.
    fn release_held(&mut self, id: DeviceId) -> bool {
        let Some(index) = self.held.iter().position(|entry| is_of(entry, id)) else { return false };
        let entry = self.held.swap_remove(index);
        if let Some(place) = entry.place() {
            // The next life takes it that the registers of who has an entry are claimed.
            let _whole = Whole::begin();
            // Fails when the guest is gone already, and its ranges with it.
            let _ = self.server.change_range(RangeChange::Release, place.base, place.base + DEVICE_BYTES - 1);
            entry.release();
        }
        true
    }

    /// Answers what vCPUs wait for that may have told an earlier life so.
    pub(super) fn serve_all(&mut self) {
        for vcpu in 0..self.server.ports().count() {
            self.answer(vcpu);
        }
    }

    /// Its devices.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.devices.iter().map(|attached| attached.id)
    }

    /// Whether there is a device `id`.
    #[must_use]
    pub fn has(&self, id: DeviceId) -> bool {
        self.devices().any(|device| device == id)
    }

    /// Whether it has no devices.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.devices.is_empty() && self.held.is_empty()
    }

    /// Takes device `id` away.
    pub fn detach(&mut self, id: DeviceId) {
        if self.release_held(id) {
            self.serve_all();
        }
        if let Some(index) = self.devices.iter().position(|attached| attached.id == id) {
            let attached = self.devices.swap_remove(index);
            let range = (attached.base, attached.base + DEVICE_BYTES - 1);
            {
                // As in `release_held`.
                let _whole = Whole::begin();
                // Fails when the guest is gone already, and its ranges with it.
                let _ = self.server.change_range(RangeChange::Release, range.0, range.1);
                attached.entry.inspect(|entry| entry.release());
            }
            log::info!(
                "{}: detached: {:?} {:?}",
                self.domain,
                attached.device.device(),
                attached.device.counters()
            );
        }
    }

    /// Answers the access that `vcpu` waits for, if it does, in this turn or in the next one. Returns whether there is work.
    pub fn serve(&mut self, vcpu: usize) -> bool {
        self.turn.has_room_for(vcpu) && self.answer(vcpu)
    }

    /// A kick is answered before its work is done. Returns whether there is work.
    fn answer(&mut self, vcpu: usize) -> bool {
        let Some(pending) = self.server.take(vcpu) else { return false };
        let (area, is_held) =
            (self.area, |address| self.held.iter().any(|entry| is_waited_for(entry, address)));
        match pending.access {
            // It is not taken: it waits until the device is attached again.
            Access::Read { address, .. } | Access::Write { address, .. } if is_held(address) => false,
            Access::Read { address, width } => {
                let value =
                    find(&mut self.devices, address, width).map_or(NOTHING, |(attached, offset, width)| {
                        let _served = attached.blamed(area);
                        attached.device.read(offset, width)
                    });
                pending.answer(value);
                false
            }
            Access::Write { address, width, value } => {
                let effect = match find(&mut self.devices, address, width) {
                    Some((attached, offset, width)) => {
                        let _served = attached.blamed(area);
                        let effect = attached.device.write(offset, width, value);
                        attached.active |= effect == Effect::Work;
                        effect
                    }
                    None => Effect::None,
                };
                pending.answer(NOTHING);
                effect == Effect::Work
            }
            Access::Invalidate => {
                self.pager.borrow_mut().distrust(self.domain);
                pending.answer(NOTHING);
                false
            }
            Access::Unknown => {
                pending.answer(NOTHING);
                false
            }
        }
    }

    /// The next change of a driver's trouble that was not taken yet.
    pub fn take_news(&mut self) -> Option<DriverNews> {
        let attached = self.devices.iter_mut().find(|attached| attached.has_news())?;
        attached.told = attached.device.platform_trouble();
        attached.news += 1;
        Some(DriverNews { domain: self.domain, device: attached.id, trouble: attached.told })
    }

    /// Whether [`Self::take_news`] has something.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.devices.iter().any(Attached::has_news)
    }

    /// A turn begins: answers vCPUs that had to wait for it. Returns whether there were any.
    pub fn begin_turn(&mut self) -> bool {
        let were_any = self.turn.begin();
        while let Some(vcpu) = self.turn.next() {
            self.answer(vcpu);
        }
        were_any
    }

    /// Does a bounded amount of work for each device that is active, or for which something has come.
    pub fn work(&mut self) -> Work {
        self.work_for(|attached| {
            attached.active |= attached.device.has_work();
            attached.active
        })
    }

    /// [`Self::work`] for devices for which something has come: from guests whose turn was after this one's.
    pub fn work_for_others(&mut self) -> Work {
        self.work_for(|attached| {
            let has_work = attached.device.has_work();
            attached.active |= has_work;
            has_work
        })
    }

    fn work_for(&mut self, wants: impl Fn(&mut Attached) -> bool) -> Work {
        let mut work = Work::None;
        for attached in &mut self.devices {
            if wants(attached) {
                let _served = attached.blamed(self.area);
                work = work.max(attached.device.poll().into());
            }
        }
        work
    }

    /// Whether some device is active.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.devices.iter().any(|attached| attached.active)
    }

    /// Its devices, behind their registers.
    pub fn models(&self) -> impl Iterator<Item = (DeviceId, &GuestDevice)> {
        self.devices.iter().map(|attached| (attached.id, &attached.device))
    }

    /// Asks the guest to kick again where there is nothing to do any more.
    pub fn settle(&mut self) -> Rest {
        let mut rest = Rest::default();
        for attached in self.devices.iter_mut().filter(|attached| attached.active) {
            let _served = attached.blamed(self.area);
            let progress = attached.device.process();
            let busy = progress.requests > 0 || progress.more;
            attached.active = busy || progress.under_way;
            rest.busy |= busy;
            rest.active |= attached.active;
        }
        rest
    }
}

fn is_of(entry: &DeviceEntry, id: DeviceId) -> bool {
    entry.place().is_some_and(|place| place.id == id)
}

/// Whether who accesses `address` is to wait for a device of an earlier life.
fn is_waited_for(entry: &DeviceEntry, address: u64) -> bool {
    let has = |place: Place| (place.base..place.base.saturating_add(DEVICE_BYTES)).contains(&address);
    !entry.is_abandoned() && entry.place().is_some_and(has)
}

/// The device at `address`, and the offset in its registers; none when the access does not lie in one device.
#[inline]
fn find(devices: &mut [Attached], address: u64, width: u32) -> Option<(&mut Attached, u32, Width)> {
    let width = Width::from_bytes(width.into())?;
    let attached = devices
        .iter_mut()
        .find(|attached| (attached.base..attached.base + DEVICE_BYTES).contains(&address))?;
    let offset = u32::try_from(address - attached.base).ok()?;
    Some((attached, offset, width))
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.devices.drain(..).filter_map(|attached| attached.entry).for_each(DeviceEntry::release);
        self.held.drain(..).for_each(DeviceEntry::release);
        // A page that stayed mapped would keep the guest's domain from going away.
        let kept = self.pager.borrow_mut().forget(self.domain);
        if kept > 0 {
            log::error!("{}: {kept} pages are still pinned", self.domain);
        }
    }
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
