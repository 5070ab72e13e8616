//! All guests, and which event port is whose vCPU.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::task::{Context, Poll, Waker};

use super::{DriverNews, Guest, Rest, Work};
use crate::arch::whole::Whole;
use crate::mm::foreign::Pager;
use crate::mm::singles::SinglePages;
use crate::restart::area::{Area, DeviceEntry};
use crate::xen::DomainId;
use crate::xen::event::{self, BoundPort, Port};
use crate::xen::hypercall::HypercallError;
use crate::xen::ioreq::IoreqServer;

/// Position of a guest in the table and number of its vCPU.
#[derive(Clone, Copy)]
struct Vcpu {
    guest: u16,
    number: u16,
}

/// The guests of this driver domain.
pub struct GuestTable {
    guests: Vec<Option<Guest>>,
    /// Indexed by event port.
    vcpus: Vec<Option<Vcpu>>,
    /// Who has the next turn first.
    first: usize,
    /// Some device is active.
    active: bool,
    /// Who waits for news of the guests' drivers.
    waiting: Option<Waker>,
    pages: Rc<RefCell<SinglePages>>,
    pager: Rc<RefCell<Pager>>,
    area: Option<Area>,
}

impl GuestTable {
    /// No guests yet.
    #[must_use]
    pub fn new(pages: Rc<RefCell<SinglePages>>, pager: Rc<RefCell<Pager>>) -> Self {
        Self {
            guests: Vec::new(),
            vcpus: Vec::new(),
            first: 0,
            active: false,
            waiting: None,
            pages,
            pager,
            area: None,
        }
    }

    /// The same, with what outlives this kernel noted in `area`.
    #[must_use]
    pub fn noted_in(mut self, area: Area) -> Self {
        self.area = Some(area);
        self
    }

    /// Goes on with the guests of an earlier life of this kernel. What it left that is nobody's any more goes. `own` are ports
    /// that are no guest's.
    pub fn adopt(&mut self, own: &[Port]) {
        let Some(area) = self.area else { return };
        let mut bound: Vec<_> = event::bound_ports().filter(|(port, ..)| !own.contains(port)).collect();
        for (page, domain, server) in SinglePages::adopt_ioreq(&self.pages) {
            match IoreqServer::adopt(domain, server, page, &mut bound) {
                Ok(server) => {
                    let mut guest = Guest::adopted(domain, server, &self.pages, &self.pager, area);
                    // One without devices goes, with its server.
                    if !guest.is_idle() {
                        guest.serve_all();
                        self.add(guest);
                    }
                }
                Err(error) => log::info!("{domain}: gone meanwhile: {error}"),
            }
        }
        // Closed by being dropped.
        bound.into_iter().for_each(|(port, ..)| drop(BoundPort::adopt(port)));
        let is_gone =
            |entry: &&DeviceEntry| entry.place().is_some_and(|place| self.position(place.domain).is_none());
        area.devices.iter().filter(is_gone).for_each(DeviceEntry::release);
    }

    /// Where guests' pages are mapped.
    #[must_use]
    pub fn pager(&self) -> &Rc<RefCell<Pager>> {
        &self.pager
    }

    /// Where their ioreq pages are mapped.
    #[must_use]
    pub fn pages(&self) -> &Rc<RefCell<SinglePages>> {
        &self.pages
    }

    /// Number of guests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All guests.
    pub fn iter(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter().flatten()
    }

    /// The guest that is `domain`, if we serve it.
    pub fn find(&mut self, domain: DomainId) -> Option<&mut Guest> {
        self.guests.iter_mut().flatten().find(|guest| guest.domain() == domain)
    }

    /// The guest that is `domain`; served from now on if it was not yet.
    ///
    /// # Errors
    /// Xen's answer.
    pub fn find_or_add(&mut self, domain: DomainId) -> Result<&mut Guest, HypercallError> {
        let index = match self.position(domain) {
            Some(index) => index,
            None => {
                // A server without a guest would be nobody's.
                let _whole = Whole::begin();
                self.add(Guest::new(domain, &self.pages, &self.pager, self.area)?)
            }
        };
        // Not reached: the guest was found or added just now.
        let missing = HypercallError { operation: "add a guest", errno: crate::xen::hypercall::Errno::ESRCH };
        self.guests.get_mut(index).and_then(Option::as_mut).ok_or(missing)
    }

    fn position(&self, domain: DomainId) -> Option<usize> {
        self.guests.iter().position(|guest| guest.as_ref().is_some_and(|guest| guest.domain() == domain))
    }

    fn add(&mut self, guest: Guest) -> usize {
        let index = self.guests.iter().position(Option::is_none).unwrap_or(self.guests.len());
        for (number, port) in guest.ports().enumerate() {
            let port = port.0 as usize;
            if port >= self.vcpus.len() {
                self.vcpus.resize(port + 1, None);
            }
            if let Some(entry) = self.vcpus.get_mut(port) {
                *entry = Some(Vcpu { guest: index as u16, number: number as u16 });
            }
        }
        match self.guests.get_mut(index) {
            Some(place) => *place = Some(guest),
            None => self.guests.push(Some(guest)),
        }
        index
    }

    /// Stops serving `domain`: its devices, server, ports and pages are given back.
    pub fn remove(&mut self, domain: DomainId) {
        let Some(guest) =
            self.position(domain).and_then(|index| self.guests.get_mut(index)).and_then(Option::take)
        else {
            return;
        };
        for port in guest.ports() {
            if let Some(entry) = self.vcpus.get_mut(port.0 as usize) {
                *entry = None;
            }
        }
    }

    /// Stops serving all domains.
    pub fn clear(&mut self) {
        self.guests.clear();
        self.vcpus.clear();
    }

    /// The event ports of all vCPUs.
    pub fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.vcpus.iter().enumerate().filter(|(_, vcpu)| vcpu.is_some()).map(|(port, _)| Port(port as u32))
    }

    /// No port of a vCPU is higher.
    #[must_use]
    pub fn highest_port(&self) -> Port {
        Port(self.vcpus.len() as u32)
    }

    /// Answers the access of the vCPU that notified `port`, if it is one's.
    pub fn serve(&mut self, port: Port) {
        let Some(Some(vcpu)) = self.vcpus.get(port.0 as usize).copied() else { return };
        if let Some(Some(guest)) = self.guests.get_mut(usize::from(vcpu.guest)) {
            self.active |= guest.serve(usize::from(vcpu.number));
            Self::tell(guest, &mut self.waiting);
        }
    }

    /// A turn of the loop that looks at everything begins: answers vCPUs that had to wait for it. Returns whether there were any.
    pub fn begin_turn(&mut self) -> bool {
        let mut were_any = false;
        for guest in self.guests.iter_mut().flatten() {
            if guest.begin_turn() {
                Self::tell(guest, &mut self.waiting);
                self.active |= guest.is_active();
                were_any = true;
            }
        }
        were_any
    }

    /// Wakes who waits for the guest's news, if there are some.
    #[inline]
    fn tell(guest: &Guest, waiting: &mut Option<Waker>) {
        if guest.has_news()
            && let Some(waiting) = waiting.take()
        {
            waiting.wake();
        }
    }

    /// The next news of a guest's driver, when there is some. For one task.
    pub fn poll_news(&mut self, context: &Context<'_>) -> Poll<DriverNews> {
        match self.guests.iter_mut().flatten().find_map(Guest::take_news) {
            Some(news) => Poll::Ready(news),
            None => {
                self.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Gives each guest with active devices a turn.
    pub fn work(&mut self) -> Work {
        let mut work = Work::None;
        // Another one first each time: where they want the same room, as in one inbox, nobody is always too late.
        self.first = (self.first + 1) % self.guests.len().max(1);
        let (later, sooner) = self.guests.split_at_mut(self.first);
        for guest in sooner.iter_mut().chain(later).flatten() {
            work = work.max(guest.work());
            self.active |= guest.is_active();
        }
        if work != Work::None {
            // What came for those who had theirs already.
            for guest in self.guests.iter_mut().flatten() {
                work = work.max(guest.work_for_others());
                self.active |= guest.is_active();
            }
        }
        work
    }

    /// Lets active devices rest until their guests kick again, or something below them is done. Returns whether there
    /// is nothing to do now.
    pub fn settle(&mut self) -> bool {
        let mut rest = Rest::default();
        if self.active {
            for guest in self.guests.iter_mut().flatten() {
                let of_guest = guest.settle();
                rest.busy |= of_guest.busy;
                rest.active |= of_guest.active;
            }
            self.active = rest.active;
        }
        !rest.busy
    }
}
