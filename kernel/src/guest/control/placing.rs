//! Devices put where their guests find them, and taken away again.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Display;

use super::nodes::Place;
use super::{Backend, Control};
use crate::guest::memory::Sharing;
use crate::guest::model::Model;
use crate::limits::HEAP_HEADROOM_BYTES;
use crate::xen::DomainId;
use crate::xen::hypercall::{Errno, HypercallError};

/// Xen's pool for our second-stage tables is exhausted.
const NO_PAGE_TABLES: &str =
    "Xen has no memory left for this domain's page tables: give it more by shadow_memory=";

/// What to do about too small a window.
const NO_WINDOW: &str = "the window for guests' pages is too small for another device: give the driver domain more by memory= \
                         or window=";

/// What to do about too little heap.
const NO_HEAP: &str = "the driver domain has no memory left for another device: give it more by memory=";

impl Control {
    /// Whether the guest has had the device since before this kernel was started again, and waits for it.
    pub(super) fn is_held(&self, backend: Backend) -> bool {
        let is_held = |id| {
            let mut guests = self.guests.borrow_mut();
            guests.find(backend.guest).is_some_and(|guest| guest.held().any(|held| held == id))
        };
        backend.id().is_some_and(is_held)
    }

    pub(super) fn is_attached(&self, backend: Backend) -> bool {
        let is_there = |id| self.guests.borrow_mut().find(backend.guest).is_some_and(|guest| guest.has(id));
        backend.id().is_some_and(is_there)
    }

    /// Whether the guest may have one more device.
    pub(super) fn check_room(&self, guest: DomainId, sharing: Sharing) -> Result<(), String> {
        let is_foreign = sharing == Sharing::Foreign;
        if is_foreign && self.guests.borrow().pager().borrow().usable() == 0 {
            return Err(NO_PAGE_TABLES.to_string());
        }
        if is_foreign && !self.guests.borrow().pager().borrow().has_room_for_device(guest) {
            return Err(NO_WINDOW.to_string());
        }
        if (self.own_memory.heap_free)() < HEAP_HEADROOM_BYTES {
            return Err(NO_HEAP.to_string());
        }
        Ok(())
    }

    /// Puts a device model where its guest will find it. `what` it serves is for the log.
    pub(super) fn attach(
        &self,
        backend: Backend,
        place: &Place,
        model: Model,
        what: &dyn Display,
    ) -> Result<(), String> {
        let Some(id) = backend.id() else { return Ok(()) };
        let mut guests = self.guests.borrow_mut();
        let guest = guests.find_or_add(backend.guest).map_err(|error| explain(&error))?;
        let attached = guest.attach(id, place.base, place.irq, place.sharing, model);
        let attached = attached.map_err(|error| explain(&error));
        if attached.is_err() && guest.is_idle() {
            guests.remove(backend.guest);
        }
        attached?;
        log::info!(
            "{}: serving {what} at {:#x}, interrupt {}, memory {}",
            place.name,
            place.base,
            place.irq,
            if place.sharing == Sharing::Foreign { "foreign" } else { "granted" },
        );
        Ok(())
    }

    /// Gives up a device that the guest had before this kernel was started again.
    pub(super) fn abandon(&self, backend: Backend) {
        let mut guests = self.guests.borrow_mut();
        if let (Some(guest), Some(id)) = (guests.find(backend.guest), backend.id()) {
            guest.abandon(id);
        }
    }

    /// Takes a device out of its guest, and forgets the guest with its last one. Returns whether it was attached.
    pub(super) fn detach(&self, backend: Backend) -> bool {
        let Some(id) = backend.id() else { return false };
        let mut guests = self.guests.borrow_mut();
        let Some(guest) = guests.find(backend.guest) else { return false };
        let was_there = guest.devices().chain(guest.held()).chain(guest.abandoned()).any(|there| there == id);
        if was_there {
            guest.detach(id);
        }
        if guest.is_idle() {
            guests.remove(backend.guest);
            log::info!(
                "{}: gone; left: {} guests, {} slots mapped, {} pinned, {} other pages, {} frames and {} bytes of heap free",
                backend.guest,
                guests.len(),
                guests.pager().borrow().mapped(),
                guests.pager().borrow().pinned(),
                guests.pages().borrow().mapped(),
                self.own_memory.frames.borrow().free(),
                (self.own_memory.heap_free)(),
            );
            self.tell_physmap(&guests);
        }
        was_there
    }
}

/// A refusal by Xen in words that say what to do.
fn explain(error: &HypercallError) -> String {
    let advice = match error.errno {
        Errno::ENOSYS | Errno::EOPNOTSUPP => "this Xen has no ioreq servers: it needs CONFIG_IOREQ_SERVER=y",
        Errno::EPERM | Errno::EACCES => {
            "Xen's policy does not let this domain serve that guest: boot Xen with xsm=flask and the driver_domain \
             module, and give this domain seclabel='system_u:system_r:driver_domain_t'"
        }
        Errno::ENOENT => NO_PAGE_TABLES,
        Errno::ENOMEM => "Xen is out of memory, or this domain serves as many guests as it can",
        _ => return error.to_string(),
    };
    format!("{error}: {advice}")
}
