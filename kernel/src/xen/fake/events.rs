//! Our event channels. Closing tells nobody; sending to a peer that vanished succeeds.

use core::ptr;
use core::sync::atomic::Ordering;

use super::grants::OWN_DOMAIN;
use super::{Call, Xen};
use crate::xen::abi::{AllocUnbound, BindInterdomain, DOMID_SELF, EventStatus, SharedInfo, event};
use crate::xen::hypercall::Errno;

const PORTS_MAX: usize = 1023;

impl Xen {
    /// # Safety
    /// As for the hypercall: `argument` is the address of the operation's structure.
    pub unsafe fn event_channel_op(&mut self, command: u64, argument: u64) -> Result<(), Errno> {
        let address = usize::try_from(argument).unwrap();
        // SAFETY: the caller's contract.
        unsafe {
            match command {
                event::BIND_INTERDOMAIN => self.bind(&mut *ptr::with_exposed_provenance_mut(address)),
                event::SEND => self.send(*ptr::with_exposed_provenance(address)),
                event::CLOSE => self.close(*ptr::with_exposed_provenance(address)),
                event::ALLOC_UNBOUND => self.allocate(&mut *ptr::with_exposed_provenance_mut(address)),
                event::STATUS => self.status(&mut *ptr::with_exposed_provenance_mut(address)),
                other => panic!("event_channel_op {other}"),
            }
        }
    }

    fn bind(&mut self, bind: &mut BindInterdomain) -> Result<(), Errno> {
        self.record(Call::BindPort)?;
        let local = self.free_port()?;
        let remote = self.permitted(bind.remote_domain)?.ports.get_mut(&bind.remote_port);
        match remote {
            Some(peer @ None) => *peer = Some(local),
            _ => return Err(Errno::EINVAL),
        }
        self.ports.insert(local, Some((bind.remote_domain, bind.remote_port)));
        bind.local_port = local;
        self.raise(local);
        Ok(())
    }

    fn allocate(&mut self, port: &mut AllocUnbound) -> Result<(), Errno> {
        self.record(Call::AllocatePort)?;
        assert_eq!((port.domain, port.remote_domain), (DOMID_SELF, DOMID_SELF));
        port.port = self.free_port()?;
        self.ports.insert(port.port, None);
        Ok(())
    }

    /// Unbound ports are those that [`Self::allocate`] made, and those whose other end went. One that is closed has no label,
    /// by which XSM's FLASK would know whether we may be told.
    fn status(&mut self, status: &mut EventStatus) -> Result<(), Errno> {
        if status.port as usize > PORTS_MAX {
            return Err(Errno::EINVAL);
        }
        match self.ports.get(&status.port).ok_or(Errno::EACCES)? {
            None => (status.status, status.remote_domain) = (event::STATUS_UNBOUND, OWN_DOMAIN),
            Some((domain, remote)) => {
                (status.status, status.remote_domain) = (event::STATUS_INTERDOMAIN, *domain);
                // The halves of a number that is aligned, behind one that is half as long.
                let [low, high] = [*remote, *remote >> 16].map(|half| (half & 0xffff) as u16);
                status.rest = [0, low, high];
            }
        }
        Ok(())
    }

    fn free_port(&self) -> Result<u32, Errno> {
        let mut ports = (1..=PORTS_MAX).map(|port| u32::try_from(port).unwrap());
        ports.find(|port| !self.ports.contains_key(port)).ok_or(Errno(28))
    }

    fn send(&mut self, port: u32) -> Result<(), Errno> {
        self.record(Call::Send)?;
        self.notified.extend(*self.ports.get(&port).ok_or(Errno::EINVAL)?);
        Ok(())
    }

    fn close(&mut self, port: u32) -> Result<(), Errno> {
        self.record(Call::ClosePort)?;
        let peer = self.ports.remove(&port).ok_or(Errno::EINVAL)?;
        if let Some((domain, remote)) = peer {
            self.domain(domain).ports.insert(remote, None);
        }
        Ok(())
    }

    /// An event for us on `port`.
    pub fn raise(&mut self, port: u32) {
        self.pending.insert(port);
        // SAFETY: the frame lives as long as the machine; all fields that change are atomic.
        let shared: &SharedInfo = unsafe { &*self.machine.address(self.shared_info).cast() };
        let word = port as usize / 64;
        shared.evtchn_pending[word].fetch_or(1 << (port % 64), Ordering::Relaxed);
        if shared.evtchn_mask[word].load(Ordering::Relaxed) >> (port % 64) & 1 == 0 {
            shared.vcpu_info.pending_selector.fetch_or(1 << word, Ordering::Relaxed);
            shared.vcpu_info.upcall_pending.store(1, Ordering::Release);
        }
    }
}
