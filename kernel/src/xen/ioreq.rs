//! An ioreq server: takes trapped accesses of one guest's vCPUs out of their slots, and answers them.
//!
//! A vCPU that touched a claimed address sleeps until its slot says "response ready" and its event channel is
//! notified, so every request taken must be answered: [`PendingAccess`] is a value that can only be got rid of so.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use super::DomainId;
use super::abi::{IoreqSlot, ioreq};
use super::dm::{self, RangeChange, ServerId};
use super::event::{self, BoundPort, Port};
use super::hypercall::HypercallError;
use super::tally;
use crate::mm::singles::{SinglePage, SinglePages};

/// The ioreq server of one guest. Dropping it answers what waits, and destroys it.
pub struct IoreqServer {
    domain: DomainId,
    id: ServerId,
    page: SinglePage,
    ports: Vec<BoundPort>,
}

/// What a vCPU wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load of `width` bytes.
    Read {
        /// Guest-physical address.
        address: u64,
        /// 1, 2, 4 or 8.
        width: u32,
    },
    /// A store of `width` bytes.
    Write {
        /// Guest-physical address.
        address: u64,
        /// 1, 2, 4 or 8.
        width: u32,
        /// What is stored; bits beyond the width are zero.
        value: u64,
    },
    /// The guest gave pages back: forget mappings of it.
    Invalidate,
    /// A kind of request that Arm does not have.
    Unknown,
}

/// An access to be answered.
#[must_use = "a vCPU sleeps until its access is answered"]
pub struct PendingAccess<'a> {
    /// What it is.
    pub access: Access,
    slot: &'a IoreqSlot,
    port: Port,
}

impl PendingAccess<'_> {
    /// Answers, for a read with `value`, and wakes the vCPU.
    pub fn answer(self, value: u64) {
        let state = self.slot.state.load(Ordering::Relaxed);
        if state & ioreq::DIRECTION_READ != 0 {
            self.slot.data.store(value, Ordering::Relaxed);
        }
        let answered = state & !ioreq::STATE_MASK | ioreq::STATE_RESPONSE_READY;
        self.slot.state.store(answered, Ordering::Release);
        event::send(self.port);
        tally::count_access();
    }
}

impl IoreqServer {
    /// Creates and enables a server for `domain` and binds the event channels of its `vcpus`.
    ///
    /// # Errors
    /// Xen's answer; nothing is left behind.
    pub fn new(domain: DomainId, pages: &Rc<RefCell<SinglePages>>) -> Result<Self, HypercallError> {
        let vcpus = dm::vcpus(domain)?;
        let id = dm::create_ioreq_server(domain)?;
        let page = SinglePages::map_ioreq(pages, domain, id).inspect_err(|_| {
            let _ = dm::destroy_ioreq_server(domain, id);
        })?;
        let mut server = Self { domain, id, page, ports: Vec::new() };
        dm::enable_ioreq_server(domain, id, true)?;
        for vcpu in 0..(vcpus as usize).min(ioreq::SLOTS) {
            let Some(slot) = server.slot(vcpu) else { break };
            let remote = slot.event_port.load(Ordering::Acquire);
            server.ports.push(BoundPort::bind(domain, remote)?);
        }
        Ok(server)
    }

    /// Takes over the server `id` of `domain`, whose slots an earlier life mapped at `page` and whose vCPUs' ports are among
    /// `bound`, from which they are taken. Requests that wait are as [`Self::take`] finds them.
    ///
    /// # Errors
    /// Xen's answer when the domain is gone: then so is the server.
    pub fn adopt(
        domain: DomainId,
        id: ServerId,
        page: SinglePage,
        bound: &mut Vec<(Port, DomainId, u32)>,
    ) -> Result<Self, HypercallError> {
        let mut server = Self { domain, id, page, ports: Vec::new() };
        // Asked for whether it is alive, too.
        let vcpus = dm::vcpus(domain)?;
        dm::enable_ioreq_server(domain, id, true)?;
        for vcpu in 0..(vcpus as usize).min(ioreq::SLOTS) {
            let Some(slot) = server.slot(vcpu) else { break };
            let remote = slot.event_port.load(Ordering::Acquire);
            let place = bound.iter().position(|(_, of, port)| (*of, *port) == (domain, remote));
            server.ports.push(match place {
                Some(place) => BoundPort::adopt(bound.swap_remove(place).0),
                None => BoundPort::bind(domain, remote)?,
            });
        }
        // An answer may have been given and not told. A vCPU that is woken without one waits on.
        server.ports().for_each(event::send);
        Ok(server)
    }

    /// The local port of each vCPU, in order.
    pub fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.ports.iter().map(BoundPort::port)
    }

    /// Claims or releases guest addresses.
    ///
    /// # Errors
    /// Xen's answer.
    pub fn change_range(&self, change: RangeChange, first: u64, last: u64) -> Result<(), HypercallError> {
        dm::change_range(self.domain, self.id, change, first, last)
    }

    fn slot(&self, vcpu: usize) -> Option<&IoreqSlot> {
        let slots: NonNull<[IoreqSlot; ioreq::SLOTS]> =
            NonNull::new(core::ptr::with_exposed_provenance_mut(self.page.address()))?;
        // SAFETY: Xen's ioreq page is mapped there as long as `page` lives; every field of a slot is atomic.
        unsafe { slots.as_ref() }.get(vcpu)
    }

    /// Takes the request of `vcpu`, if it has one.
    #[inline]
    pub fn take(&self, vcpu: usize) -> Option<PendingAccess<'_>> {
        let slot = self.slot(vcpu)?;
        let port = self.ports.get(vcpu)?.port();
        let state = slot.state.load(Ordering::Relaxed);
        if state & ioreq::STATE_MASK != ioreq::STATE_READY {
            return None;
        }
        fence(Ordering::Acquire);
        let address = slot.address.load(Ordering::Relaxed);
        let width = slot.size.load(Ordering::Relaxed);
        let access = match slot.kind.load(Ordering::Relaxed) {
            ioreq::KIND_COPY if state & ioreq::DIRECTION_READ != 0 => Access::Read { address, width },
            ioreq::KIND_COPY => Access::Write { address, width, value: slot.data.load(Ordering::Relaxed) },
            ioreq::KIND_INVALIDATE => Access::Invalidate,
            _ => Access::Unknown,
        };
        Some(PendingAccess { access, slot, port })
    }
}

impl Drop for IoreqServer {
    fn drop(&mut self) {
        // The target may be gone already; then so is the server.
        let _ = dm::enable_ioreq_server(self.domain, self.id, false);
        // Xen wakes no vCPU that waits for a server it destroys, so nobody may wait any more.
        for vcpu in 0..self.ports.len() {
            if let Some(pending) = self.take(vcpu) {
                pending.answer(0);
            }
        }
        let _ = dm::destroy_ioreq_server(self.domain, self.id);
    }
}

#[cfg(test)]
#[path = "ioreq_tests.rs"]
mod tests;
