//! Our grant table, and our mappings of granted pages, all of them our own: the only granter so far is ourselves.

use alloc::collections::BTreeMap;
use core::ptr;
use core::sync::atomic::Ordering;

use super::machine::Frame;
use super::physmap::Entry;
use super::{Call, Xen};
use crate::limits::PAGE_BYTES;
use crate::xen::abi::{GrantEntry, MapGrant, UnmapGrant, grant};
use crate::xen::hypercall::Errno;

/// Our own number.
pub const OWN_DOMAIN: u16 = 7;

const BAD_DOMAIN: i16 = -2;
const BAD_REFERENCE: i16 = -3;
const BAD_HANDLE: i16 = -4;
const BAD_PAGE: i16 = -9;

/// What is granted, and what is mapped.
pub struct Grants {
    pub table: Frame,
    /// Where frames of ours lie in the machine.
    places: BTreeMap<u64, u64>,
    /// By handle: where a page is mapped, and by which entry of the table.
    mappings: BTreeMap<u32, (u64, u32)>,
    last_handle: u32,
}

impl Grants {
    pub fn new(table: Frame) -> Self {
        Self { table, places: BTreeMap::new(), mappings: BTreeMap::new(), last_handle: 0 }
    }

    pub fn place(&mut self, gfn: u64, bus_address: u64) {
        self.places.insert(gfn, bus_address);
    }

    pub fn mapped(&self) -> usize {
        self.mappings.len()
    }
}

impl Xen {
    /// # Safety
    /// As for the hypercall: `argument` is the address of `count` structures of the operation.
    pub unsafe fn grant_table_op(&mut self, command: u64, argument: u64, count: u64) -> Result<(), Errno> {
        assert_eq!(count, 1);
        let address = usize::try_from(argument).unwrap();
        // SAFETY: the caller's contract.
        unsafe {
            match command {
                grant::MAP_GRANT_REF => {
                    self.record(Call::MapGrant)?;
                    let request: &mut MapGrant = &mut *ptr::with_exposed_provenance_mut(address);
                    request.status = self.map_grant(request).err().unwrap_or(grant::STATUS_OKAY);
                }
                grant::UNMAP_GRANT_REF => {
                    self.record(Call::UnmapGrant)?;
                    let request: &mut UnmapGrant = &mut *ptr::with_exposed_provenance_mut(address);
                    request.status = self.unmap_grant(request).err().unwrap_or(grant::STATUS_OKAY);
                }
                other => panic!("grant_table_op {other}"),
            }
        }
        Ok(())
    }

    fn entry(&self, reference: u32) -> Result<&GrantEntry, i16> {
        let entry = reference as usize;
        if entry >= grant::ENTRIES {
            return Err(BAD_REFERENCE);
        }
        // SAFETY: inside the frame, which lives as long as the machine; all fields are atomic.
        Ok(unsafe { &*self.machine.address(self.grants.table).cast::<GrantEntry>().add(entry) })
    }

    fn map_grant(&mut self, request: &mut MapGrant) -> Result<(), i16> {
        if request.domain != OWN_DOMAIN {
            return Err(BAD_DOMAIN);
        }
        if request.flags & !grant::MAP_READ_ONLY != grant::MAP_HOST {
            return Err(grant::STATUS_GENERAL_ERROR);
        }
        let entry = self.entry(request.reference)?;
        let flags = entry.flags.load(Ordering::Acquire);
        let writes = request.flags & grant::MAP_READ_ONLY == 0;
        if flags & 3 != grant::PERMIT_ACCESS
            || entry.domain.load(Ordering::Relaxed) != OWN_DOMAIN
            || writes && flags & grant::READ_ONLY != 0
        {
            return Err(grant::STATUS_GENERAL_ERROR);
        }
        let frame = u64::from(entry.frame.load(Ordering::Relaxed));
        let bus_address = *self.grants.places.get(&frame).ok_or(BAD_PAGE)?;
        let handle = self.grants.last_handle + 1;
        let gfn = request.host_address / PAGE_BYTES as u64;
        self.set(gfn, Entry::Grant(handle)).map_err(|_| grant::STATUS_GENERAL_ERROR)?;
        let used = if writes { grant::READING | grant::WRITING } else { grant::READING };
        self.entry(request.reference)?.flags.fetch_or(used, Ordering::AcqRel);
        self.grants.last_handle = handle;
        self.grants.mappings.insert(handle, (gfn, request.reference));
        (request.handle, request.bus_address) = (handle, bus_address);
        Ok(())
    }

    fn unmap_grant(&mut self, request: &UnmapGrant) -> Result<(), i16> {
        let (gfn, reference) = *self.grants.mappings.get(&request.handle).ok_or(BAD_HANDLE)?;
        if request.host_address != gfn * PAGE_BYTES as u64
            || self.physmap.get(&gfn) != Some(&Entry::Grant(request.handle))
        {
            return Err(grant::STATUS_GENERAL_ERROR);
        }
        self.physmap.remove(&gfn);
        self.grants.mappings.remove(&request.handle);
        self.entry(reference)?.flags.fetch_and(!(grant::READING | grant::WRITING), Ordering::AcqRel);
        Ok(())
    }
}
