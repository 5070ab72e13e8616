//! Ioreq servers, and vCPUs that run into the addresses they claim.

use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::Ordering;

use super::domains::Domain;
use super::machine::Frame;
use super::{Call, Xen};
use crate::xen::abi::{DmOp, DmOpBuffer, IoreqSlot, dm, ioreq};
use crate::xen::hypercall::Errno;

const SERVERS_MAX: usize = 8;
const RANGES_MAX: usize = 256;
const STATE_NONE: u8 = 0;

/// An ioreq server of ours for some domain.
pub struct Server {
    pub page: Frame,
    pub enabled: bool,
    /// Claimed addresses, first and last.
    pub ranges: Vec<(u64, u64)>,
    /// The domain's event port for each vCPU.
    pub ports: Vec<u32>,
}

/// A slot of an ioreq page, as one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub address: u64,
    pub data: u64,
    pub size: u32,
    pub event_port: u32,
    pub state: u8,
    pub kind: u8,
}

/// How a vCPU's access stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The vCPU sleeps.
    Waiting,
    /// It runs on, with this value if it read.
    Answered(u64),
    /// The slot was left in a state that makes Xen crash the guest.
    Crashed,
}

impl Xen {
    /// # Safety
    /// As for the hypercall: `buffers` is the address of a `DmOpBuffer` that names a `DmOp`.
    pub unsafe fn dm_op(&mut self, domain: u64, count: u64, buffers: u64) -> Result<(), Errno> {
        assert_eq!(count, 1);
        let id = u16::try_from(domain).unwrap();
        // SAFETY: the caller's contract.
        let buffer: &DmOpBuffer =
            unsafe { &*ptr::with_exposed_provenance(usize::try_from(buffers).unwrap()) };
        assert!(buffer.size >= size_of::<DmOp>() as u64);
        // SAFETY: the caller's contract.
        let op: &mut DmOp = unsafe { &mut *buffer.address.cast() };
        self.record(match op.op {
            dm::CREATE_IOREQ_SERVER => Call::CreateServer,
            dm::MAP_IO_RANGE => Call::ClaimRange,
            dm::UNMAP_IO_RANGE => Call::ReleaseRange,
            dm::SET_IOREQ_SERVER_STATE => Call::SetServerState,
            dm::DESTROY_IOREQ_SERVER => Call::DestroyServer,
            dm::SET_IRQ_LEVEL => Call::RaiseInterrupt,
            dm::NR_VCPUS => Call::CountVcpus,
            other => panic!("dm_op {other}"),
        })?;
        if op.pad != 0 {
            return Err(Errno::EINVAL);
        }
        if op.op == dm::CREATE_IOREQ_SERVER {
            return self.create_server(id, op);
        }
        let domain = self.permitted(id)?;
        match op.op {
            dm::MAP_IO_RANGE => domain.claim(&op.payload),
            dm::UNMAP_IO_RANGE => domain.release(&op.payload),
            dm::SET_IOREQ_SERVER_STATE => self.set_server_state(id, op.payload[0]),
            dm::DESTROY_IOREQ_SERVER => self.destroy_server(id, op.payload[0]),
            dm::SET_IRQ_LEVEL => domain.set_level(op.payload[0]),
            _ => {
                op.payload[0] = domain.vcpus.into();
                Ok(())
            }
        }
    }

    fn create_server(&mut self, id: u16, op: &mut DmOp) -> Result<(), Errno> {
        let page = self.machine.allocate();
        let domain = self.permitted(id)?;
        if op.payload[0] != 0 || domain.dying {
            return Err(Errno::EINVAL);
        }
        let server = (0..SERVERS_MAX).find_map(|id| {
            let id = u16::try_from(id).unwrap();
            (!domain.servers.contains_key(&id)).then_some(id)
        });
        let server = server.ok_or(Errno(28))?;
        let first = domain.ports.last_key_value().map_or(1, |(port, _)| port + 1);
        let ports: Vec<u32> = (first..first + domain.vcpus).collect();
        domain.ports.extend(ports.iter().map(|port| (*port, None)));
        domain.servers.insert(server, Server { page, enabled: false, ranges: Vec::new(), ports });
        op.payload[0] = u64::from(server) << 32;
        Ok(())
    }

    fn set_server_state(&mut self, id: u16, word: u64) -> Result<(), Errno> {
        let server = self.domain(id).server(word & 0xffff)?;
        server.enabled = match word >> 16 {
            0 => false,
            1 => true,
            _ => return Err(Errno::EINVAL),
        };
        let (page, ports) = (server.page, server.ports.clone());
        for (vcpu, port) in ports.iter().enumerate().filter(|_| word >> 16 == 1) {
            self.slot_at(page, vcpu).event_port.store(*port, Ordering::Relaxed);
        }
        Ok(())
    }

    fn destroy_server(&mut self, id: u16, word: u64) -> Result<(), Errno> {
        let domain = self.domain(id);
        domain.server(word)?;
        let server = domain.servers.remove(&u16::try_from(word).unwrap()).unwrap();
        let bound: Vec<u32> = server.ports.iter().filter_map(|port| domain.ports.remove(port)?).collect();
        self.ports.extend(bound.iter().map(|local| (*local, None)));
        Ok(())
    }

    fn slot_at(&self, page: Frame, vcpu: usize) -> &IoreqSlot {
        assert!(vcpu < ioreq::SLOTS);
        // SAFETY: inside the page, whose memory lives as long as the machine; all fields are atomic.
        unsafe { &*self.machine.address(page).cast::<IoreqSlot>().add(vcpu) }
    }

    /// What the slot of a vCPU at a server holds.
    pub fn slot(&mut self, id: u16, server: u16, vcpu: usize) -> Slot {
        let page = self.domain(id).servers[&server].page;
        let slot = self.slot_at(page, vcpu);
        Slot {
            address: slot.address.load(Ordering::Relaxed),
            data: slot.data.load(Ordering::Relaxed),
            size: slot.size.load(Ordering::Relaxed),
            event_port: slot.event_port.load(Ordering::Relaxed),
            state: slot.state.load(Ordering::Acquire),
            kind: slot.kind.load(Ordering::Relaxed),
        }
    }

    /// Puts a request into a vCPU's slot, whatever it says, and notifies the server. The event port is left alone.
    pub fn request(&mut self, id: u16, server: u16, vcpu: usize, request: Slot) {
        let held = &self.domain(id).servers[&server];
        let (page, port) = (held.page, held.ports[vcpu]);
        // What came before wakes nobody who waits from now on.
        self.notified.remove(&(id, port));
        let slot = self.slot_at(page, vcpu);
        slot.address.store(request.address, Ordering::Relaxed);
        slot.data.store(request.data, Ordering::Relaxed);
        slot.size.store(request.size, Ordering::Relaxed);
        slot.kind.store(request.kind, Ordering::Relaxed);
        slot.state.store(request.state, Ordering::Release);
        if let Some(Some(local)) = self.domain(id).ports.get(&port).copied() {
            self.raise(local);
        }
    }

    /// A vCPU accesses guest memory that is not RAM. Whether a server takes it; else the guest gets a data abort.
    pub fn access(&mut self, id: u16, vcpu: usize, mut request: Slot) -> bool {
        let last = request.address + u64::from(request.size) - 1;
        let takes = |server: &Server| {
            server.enabled && server.ranges.iter().any(|(from, to)| *from <= request.address && last <= *to)
        };
        // The server with the highest number wins.
        let Some(server) = self.domain(id).servers.iter().rev().find(|(_, server)| takes(server)) else {
            return false;
        };
        let server = *server.0;
        if self.slot(id, server, vcpu).state & ioreq::STATE_MASK != STATE_NONE {
            return false;
        }
        request.kind = ioreq::KIND_COPY;
        request.state |= ioreq::STATE_READY;
        self.waits.insert((id, vcpu), server);
        self.request(id, server, vcpu, request);
        true
    }

    /// The guest gave pages back: each enabled server must answer before the vCPU runs on.
    pub fn invalidate(&mut self, id: u16, vcpu: usize) {
        let enabled = self.domain(id).servers.iter().filter(|(_, server)| server.enabled);
        let servers: Vec<u16> = enabled.map(|(server, _)| *server).collect();
        for server in servers {
            let kind = ioreq::KIND_INVALIDATE;
            let request = Slot { data: !0, size: 4, state: ioreq::STATE_READY, kind, ..Slot::default() };
            self.waits.insert((id, vcpu), server);
            self.request(id, server, vcpu, request);
        }
    }

    /// How the access of a vCPU stands. An answer counts only once Xen was notified of it.
    pub fn outcome(&mut self, id: u16, vcpu: usize) -> Outcome {
        let server = self.waits[&(id, vcpu)];
        // Xen unblocks whoever waits for a server that goes away.
        let Some(held) = self.domain(id).servers.get(&server) else { return Outcome::Answered(0) };
        let (page, port) = (held.page, held.ports[vcpu]);
        let answer = self.slot(id, server, vcpu);
        match answer.state & ioreq::STATE_MASK {
            // READY, INPROCESS
            1 | 2 => Outcome::Waiting,
            ioreq::STATE_RESPONSE_READY if self.notified.remove(&(id, port)) => {
                let slot = self.slot_at(page, vcpu);
                slot.state.store(answer.state & !ioreq::STATE_MASK, Ordering::Relaxed);
                Outcome::Answered(answer.data)
            }
            ioreq::STATE_RESPONSE_READY => Outcome::Waiting,
            _ => Outcome::Crashed,
        }
    }
}

impl Domain {
    fn server(&mut self, id: u64) -> Result<&mut Server, Errno> {
        let id = u16::try_from(id).map_err(|_| Errno::EINVAL)?;
        self.servers.get_mut(&id).ok_or(Errno::ENOENT)
    }

    fn claim(&mut self, payload: &[u64]) -> Result<(), Errno> {
        let (id, range) = range_of(payload)?;
        let ranges = &mut self.server(id)?.ranges;
        if ranges.iter().any(|(first, last)| *first <= range.1 && range.0 <= *last) {
            return Err(Errno(17));
        }
        if ranges.len() == RANGES_MAX {
            return Err(Errno::ENOMEM);
        }
        ranges.push(range);
        Ok(())
    }

    fn release(&mut self, payload: &[u64]) -> Result<(), Errno> {
        let (id, range) = range_of(payload)?;
        let ranges = &mut self.server(id)?.ranges;
        let index = ranges.iter().position(|held| *held == range).ok_or(Errno::ENOENT)?;
        ranges.remove(index);
        Ok(())
    }

    fn set_level(&mut self, word: u64) -> Result<(), Errno> {
        let (interrupt, level) = (u32::try_from(word & 0xffff_ffff).unwrap(), word >> 32);
        if !(32..32 + self.interrupts).contains(&interrupt) || level > 1 {
            return Err(Errno::EINVAL);
        }
        if level == 1 {
            *self.edges.entry(interrupt).or_default() += 1;
        }
        Ok(())
    }
}

/// Server and addresses of a range operation.
fn range_of(payload: &[u64]) -> Result<(u64, (u64, u64)), Errno> {
    let (id, kind) = (payload[0] & 0xffff_ffff, payload[0] >> 32);
    if kind != u64::from(dm::RANGE_MEMORY) || payload[1] > payload[2] {
        return Err(Errno::EINVAL);
    }
    Ok((id, (payload[1], payload[2])))
}
