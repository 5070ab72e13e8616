//! Other domains: their RAM, and how long they stay when somebody holds their pages.

use alloc::collections::BTreeMap;

use super::Xen;
use super::grants::GuestGrant;
use super::ioreq::Server;
use super::machine::Frame;
use crate::limits::PAGE_BYTES;

/// A domain other than ours.
pub struct Domain {
    pub ram: BTreeMap<u64, Frame>,
    /// Its grant table.
    pub grants: BTreeMap<u32, GuestGrant>,
    pub vcpus: u32,
    /// Shared interrupts, numbered from 32 on.
    pub interrupts: u32,
    /// Its event ports that ioreq servers made; the local port of ours that is bound to each.
    pub ports: BTreeMap<u32, Option<u32>>,
    pub servers: BTreeMap<u16, Server>,
    /// Edges seen on each interrupt.
    pub edges: BTreeMap<u32, usize>,
    /// Its pages that others hold.
    pub references: usize,
    /// Destroyed, and not gone while there are references.
    pub dying: bool,
    /// The policy lets us do nothing with it.
    pub denied: bool,
}

impl Domain {
    pub fn new(vcpus: u32) -> Self {
        Self {
            ram: BTreeMap::new(),
            grants: BTreeMap::new(),
            vcpus,
            interrupts: 32,
            ports: BTreeMap::new(),
            servers: BTreeMap::new(),
            edges: BTreeMap::new(),
            references: 0,
            dying: false,
            denied: false,
        }
    }
}

impl Xen {
    pub fn domain(&mut self, id: u16) -> &mut Domain {
        self.domains.get_mut(&id).expect("the test names a domain that is there")
    }

    /// Gives the domain RAM at a frame number; whatever was there is no longer its.
    pub fn populate(&mut self, id: u16, guest_frame: u64) {
        let frame = self.machine.allocate();
        self.domain(id).ram.insert(guest_frame, frame);
    }

    /// Order of `domain_kill`: event channels, ioreq servers, memory.
    pub fn destroy(&mut self, id: u16) {
        let domain = self.domain(id);
        domain.dying = true;
        domain.servers.clear();
        domain.ram.clear();
        for local in core::mem::take(&mut domain.ports).into_values().flatten() {
            self.ports.insert(local, None);
        }
        self.reap(id);
    }

    pub fn release_reference(&mut self, id: u16) {
        self.domain(id).references -= 1;
        self.reap(id);
    }

    fn reap(&mut self, id: u16) {
        if self.domains.get(&id).is_some_and(|domain| domain.dying && domain.references == 0) {
            self.domains.remove(&id);
        }
    }

    /// Copies guest memory piece by piece, each inside a page: `copy(frame, offset in it, position, bytes)`.
    pub fn for_each_piece(
        &mut self,
        id: u16,
        address: u64,
        length: usize,
        mut copy: impl FnMut(&Self, Frame, usize, usize, usize),
    ) {
        let mut done = 0;
        while done < length {
            let at = usize::try_from(address).unwrap() + done;
            let bytes = (PAGE_BYTES - at % PAGE_BYTES).min(length - done);
            let frame = self.domain(id).ram[&((at / PAGE_BYTES) as u64)];
            copy(self, frame, at % PAGE_BYTES, done, bytes);
            done += bytes;
        }
    }
}
