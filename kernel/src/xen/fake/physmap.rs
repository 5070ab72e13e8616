//! Our own physmap under Xen's rules: anything may be mapped over anything, and what is lost by it is recorded.

use core::ptr;

use super::machine::Frame;
use super::{Call, Leak, Xen, negative};
use crate::limits::PAGE_BYTES;
use crate::xen::abi::{
    AcquireResource, AddToPhysmap, AddToPhysmapBatch, DOMID_SELF, MemoryReservation, RemoveFromPhysmap,
    memory,
};
use crate::xen::hypercall::Errno;

/// Frame numbers that one second-stage table covers.
const TABLE_FRAMES: u64 = 512;

/// What a frame number of ours holds; one that is not in the map is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A page of ours; without a frame it is book-keeping only.
    Ram(Option<Frame>),
    SharedInfo,
    GrantTable,
    /// A granted page, mapped under this handle.
    Grant(u32),
    /// A page of another domain, with the frame number it was found by; none for a page of an ioreq server.
    Foreign {
        domain: u16,
        guest_frame: Option<u64>,
        frame: Frame,
    },
}

impl Xen {
    /// # Safety
    /// As for the hypercall: `argument` is the address of the operation's structure, whose pointers are good.
    pub unsafe fn memory_op(&mut self, command: u64, argument: u64) -> Result<(), Errno> {
        let address = usize::try_from(argument).unwrap();
        // SAFETY: the caller's contract.
        unsafe {
            match command {
                memory::ADD_TO_PHYSMAP => self.add_to_physmap(&*ptr::with_exposed_provenance(address)),
                memory::ADD_TO_PHYSMAP_BATCH => {
                    self.add_to_physmap_batch(&*ptr::with_exposed_provenance(address))
                }
                memory::REMOVE_FROM_PHYSMAP => {
                    self.remove_from_physmap(&*ptr::with_exposed_provenance(address))
                }
                memory::ACQUIRE_RESOURCE => self.acquire_resource(&*ptr::with_exposed_provenance(address)),
                _ => Err(Errno::ENOSYS),
            }
        }
    }

    /// `decrease_reservation` and `populate_physmap`: the number of extents done, never an error.
    ///
    /// # Safety
    /// `argument` is the address of a `MemoryReservation` whose pointer is good.
    pub unsafe fn change_reservation(&mut self, command: u64, argument: u64) -> i64 {
        let request = ptr::with_exposed_provenance(usize::try_from(argument).unwrap());
        // SAFETY: the caller's contract.
        let request: &MemoryReservation = unsafe { &*request };
        assert_eq!((request.domid, request.order, request.flags), (DOMID_SELF, 0, 0));
        let kind = if command == memory::POPULATE_PHYSMAP { Call::Populate } else { Call::Decrease };
        if self.record(kind).is_err() {
            return 0;
        }
        let count = usize::try_from(request.count).unwrap();
        // SAFETY: the caller's contract.
        let frames = unsafe { core::slice::from_raw_parts(request.extents, count) };
        let done = frames.iter().take_while(|gfn| match kind {
            Call::Populate => self.populate_own(**gfn),
            _ => self.decrease(**gfn),
        });
        i64::try_from(done.count()).unwrap()
    }

    fn decrease(&mut self, gfn: u64) -> bool {
        let Some(Entry::Ram(frame)) = self.physmap.get(&gfn).copied() else { return false };
        // The block of memory that the page lies in is broken up.
        if !self.take_table(gfn) {
            return false;
        }
        self.physmap.remove(&gfn);
        self.machine.show(gfn, None);
        if let Some(frame) = frame {
            let mut content = [0; PAGE_BYTES];
            self.machine.read(frame, 0, &mut content);
            if content != [0; PAGE_BYTES] {
                self.leaks.push(Leak::DataGivenAway { gfn });
            }
            self.heap.push(frame);
        }
        true
    }

    fn populate_own(&mut self, gfn: u64) -> bool {
        let Some(frame) = self.heap.pop() else { return false };
        // Somebody else had it meanwhile.
        self.machine.write(frame, 0, &[0xaa; PAGE_BYTES]);
        self.set(gfn, Entry::Ram(Some(frame))).unwrap();
        true
    }

    pub fn take_table(&mut self, gfn: u64) -> bool {
        let table = gfn / TABLE_FRAMES;
        if !self.tables.contains(&table) && self.tables.len() == self.pool {
            return false;
        }
        self.tables.insert(table);
        true
    }

    fn add_to_physmap(&mut self, request: &AddToPhysmap) -> Result<(), Errno> {
        assert_eq!(request.domid, DOMID_SELF);
        match request.space {
            memory::SPACE_SHARED_INFO => self.set(request.gpfn, Entry::SharedInfo),
            // The hypervisor's own pages are at one place at a time: EBUSY.
            memory::SPACE_GRANT_TABLE if self.physmap.values().any(|entry| *entry == Entry::GrantTable) => {
                Err(Errno(16))
            }
            memory::SPACE_GRANT_TABLE => self.set(request.gpfn, Entry::GrantTable),
            _ => Err(Errno::ENOSYS),
        }
    }

    /// # Safety
    /// The arrays are as long as `size` says.
    unsafe fn add_to_physmap_batch(&mut self, request: &AddToPhysmapBatch) -> Result<(), Errno> {
        assert_eq!((request.domid, request.space), (DOMID_SELF, memory::SPACE_GMFN_FOREIGN));
        for index in 0..usize::from(request.size) {
            // SAFETY: the caller's contract.
            let (guest_frame, gfn) = unsafe { (*request.idxs.add(index), *request.gpfns.add(index)) };
            if gfn == u64::MAX {
                return Err(Errno::EINVAL);
            }
            let result = self.map_foreign(request.foreign_domid, guest_frame, gfn);
            // SAFETY: the caller's contract.
            unsafe { *request.errs.add(index) = i32::try_from(negative(result)).unwrap() };
        }
        Ok(())
    }

    fn map_foreign(&mut self, id: u16, guest_frame: u64, gfn: u64) -> Result<(), Errno> {
        let domain = self.permitted(id)?;
        let frame = *domain.ram.get(&guest_frame).ok_or(Errno::EINVAL)?;
        self.set(gfn, Entry::Foreign { domain: id, guest_frame: Some(guest_frame), frame })
    }

    /// # Safety
    /// `frame_list` has `frames` elements.
    unsafe fn acquire_resource(&mut self, request: &AcquireResource) -> Result<(), Errno> {
        if request.pad != 0 || request.kind != memory::RESOURCE_IOREQ_SERVER {
            return Err(Errno::EINVAL);
        }
        let server = u16::try_from(request.id).map_err(|_| Errno::EINVAL)?;
        let server = self.permitted(request.domid)?.servers.get(&server).ok_or(Errno::ENOENT)?;
        if (request.frame, request.frames) != (memory::RESOURCE_IOREQ_FRAME, 1) {
            return Err(Errno::ENOENT);
        }
        let entry = Entry::Foreign { domain: request.domid, guest_frame: None, frame: server.page };
        // SAFETY: the caller's contract.
        self.set(unsafe { *request.frame_list }, entry)
    }

    fn remove_from_physmap(&mut self, request: &RemoveFromPhysmap) -> Result<(), Errno> {
        assert_eq!(request.domid, DOMID_SELF);
        let entry = self.physmap.remove(&request.gpfn).ok_or(Errno::ENOENT)?;
        self.machine.show(request.gpfn, None);
        self.lose(request.gpfn, entry);
        Ok(())
    }

    /// `p2m_set_entry`: no look at what is there before.
    pub fn set(&mut self, gfn: u64, entry: Entry) -> Result<(), Errno> {
        if !self.take_table(gfn) {
            return Err(Errno::ENOENT);
        }
        let frame = match entry {
            Entry::Foreign { domain, frame, .. } => {
                self.domain(domain).references += 1;
                Some(frame)
            }
            Entry::SharedInfo => Some(self.shared_info),
            Entry::GrantTable => Some(self.grants.table),
            Entry::Ram(frame) => frame,
            Entry::Grant(_) => None,
        };
        match (self.physmap.insert(gfn, entry), entry) {
            (Some(Entry::Foreign { frame: old, domain, .. }), Entry::Foreign { frame: new, .. })
                if old == new =>
            {
                // The new reference stays beside the old one: nobody will ever drop it.
                self.leaks.push(Leak::MappedOverItself { gfn, domain });
            }
            (Some(old), _) => self.lose(gfn, old),
            (None, _) => {}
        }
        self.machine.show(gfn, frame);
        Ok(())
    }

    /// What happens to an entry that is taken out or replaced.
    fn lose(&mut self, gfn: u64, entry: Entry) {
        match entry {
            Entry::Ram(_) => self.leaks.push(Leak::RamLost { gfn }),
            Entry::SharedInfo | Entry::GrantTable => {}
            Entry::Grant(_) => self.leaks.push(Leak::GrantLost { gfn }),
            Entry::Foreign { domain, .. } => self.release_reference(domain),
        }
    }
}
