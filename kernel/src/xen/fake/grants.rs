//! Our grant table and those of other domains, and granted pages that we map or copy.
//!
//! Of our own table the entries are those in its page, and the pages are not there: they are granted for their addresses
//! alone. Other domains' entries are kept beside their RAM ([`GuestGrant`]).

use alloc::collections::BTreeMap;
use core::ptr;
use core::sync::atomic::Ordering;

use super::machine::Frame;
use super::physmap::Entry;
use super::{Call, Leak, Xen};
use crate::limits::PAGE_BYTES;
use crate::xen::abi::{CopyGrant, CopySide, DOMID_SELF, GrantEntry, MapGrant, UnmapGrant, grant};
use crate::xen::hypercall::Errno;

/// Our own number.
pub const OWN_DOMAIN: u16 = 7;

/// Entries of another domain's table: 64 pages of them.
const ENTRIES: u32 = 64 * 512;
/// Most mappings of one entry, for reading and for writing (`grant_table.c`, `GNTPIN_`).
const MAPPINGS_MAX: u32 = 128;

const GENERAL_ERROR: i16 = grant::STATUS_GENERAL_ERROR;
const BAD_DOMAIN: i16 = -2;
const BAD_REFERENCE: i16 = -3;
const BAD_HANDLE: i16 = -4;
const PERMISSION_DENIED: i16 = -8;
const BAD_PAGE: i16 = -9;
const BAD_COPY_ARGUMENT: i16 = -10;
const NO_SPACE: i16 = -13;

/// An entry of another domain's table.
pub struct GuestGrant {
    /// To whom.
    pub domain: u16,
    /// Frame number of the granter.
    pub guest_frame: u64,
    pub read_only: bool,
    /// Mappings for reading and for writing.
    mappings: [u32; 2],
    /// What the first mapping found; later ones find the same.
    pinned: Option<Frame>,
}

impl GuestGrant {
    pub fn new(domain: u16, guest_frame: u64, read_only: bool) -> Self {
        Self { domain, guest_frame, read_only, mappings: [0; 2], pinned: None }
    }

    pub fn is_mapped(&self) -> bool {
        self.mappings != [0; 2]
    }
}

/// A granted page that we have mapped.
struct Mapping {
    gfn: u64,
    domain: u16,
    reference: u32,
    writes: bool,
}

/// What is granted, and what is mapped.
pub struct Grants {
    pub table: Frame,
    /// Where frames of ours lie in the machine.
    places: BTreeMap<u64, u64>,
    /// By handle.
    mappings: BTreeMap<u32, Mapping>,
    /// Mappings that there can be.
    pub mappings_max: usize,
}

impl Grants {
    pub fn new(table: Frame) -> Self {
        Self { table, places: BTreeMap::new(), mappings: BTreeMap::new(), mappings_max: usize::MAX }
    }

    pub fn place(&mut self, gfn: u64, bus_address: u64) {
        self.places.insert(gfn, bus_address);
    }

    pub fn mapped(&self) -> usize {
        self.mappings.len()
    }
}

/// What a grant gives access to: a page of another domain's, or the address of one of ours.
enum Page {
    Of(Frame),
    Own(u64),
}

impl Xen {
    /// # Safety
    /// As for the hypercall: `argument` is the address of `count` structures of the operation, and what copies name of our
    /// memory may be read and written.
    pub unsafe fn grant_table_op(&mut self, command: u64, argument: u64, count: u64) -> Result<(), Errno> {
        let (address, count) = (usize::try_from(argument).unwrap(), usize::try_from(count).unwrap());
        // SAFETY: the caller's contract.
        unsafe {
            match command {
                grant::MAP_GRANT_REF => {
                    self.record(Call::MapGrant)?;
                    for request in requests::<MapGrant>(address, count) {
                        request.status = status(self.map_grant(request));
                    }
                }
                grant::UNMAP_GRANT_REF => {
                    self.record(Call::UnmapGrant)?;
                    for request in requests::<UnmapGrant>(address, count) {
                        request.status = status(self.unmap_grant(request));
                    }
                }
                grant::COPY => {
                    self.record(Call::CopyGrant)?;
                    for request in requests::<CopyGrant>(address, count) {
                        request.status = status(self.copy_grant(request));
                    }
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

    /// What `reference` of `domain` gives us access to.
    fn granted(&mut self, domain: u16, reference: u32, writes: bool) -> Result<Page, i16> {
        if domain != OWN_DOMAIN {
            return self.granted_by_guest(domain, reference, writes).map(Page::Of);
        }
        let entry = self.entry(reference)?;
        let flags = entry.flags.load(Ordering::Acquire);
        if flags & 3 != grant::PERMIT_ACCESS
            || entry.domain.load(Ordering::Relaxed) != OWN_DOMAIN
            || writes && flags & grant::READ_ONLY != 0
        {
            return Err(GENERAL_ERROR);
        }
        let frame = u64::from(entry.frame.load(Ordering::Relaxed));
        self.grants.places.get(&frame).copied().map(Page::Own).ok_or(BAD_PAGE)
    }

    fn granted_by_guest(&mut self, domain: u16, reference: u32, writes: bool) -> Result<Frame, i16> {
        let granter = match self.permitted(domain) {
            Ok(granter) => granter,
            Err(Errno::EACCES) => return Err(PERMISSION_DENIED),
            Err(_) => return Err(BAD_DOMAIN),
        };
        if reference >= ENTRIES {
            return Err(BAD_REFERENCE);
        }
        let entry = granter.grants.get(&reference).ok_or(GENERAL_ERROR)?;
        if entry.domain != OWN_DOMAIN
            || writes && entry.read_only
            || entry.mappings[usize::from(writes)] == MAPPINGS_MAX
        {
            return Err(GENERAL_ERROR);
        }
        entry.pinned.or(granter.ram.get(&entry.guest_frame).copied()).ok_or(BAD_PAGE)
    }

    fn map_grant(&mut self, request: &mut MapGrant) -> Result<(), i16> {
        if request.flags & !grant::MAP_READ_ONLY != grant::MAP_HOST {
            return Err(GENERAL_ERROR);
        }
        let writes = request.flags & grant::MAP_READ_ONLY == 0;
        let page = self.granted(request.domain, request.reference, writes)?;
        if self.grants.mapped() >= self.grants.mappings_max {
            return Err(NO_SPACE);
        }
        // One that is free is given again.
        let is_free = |handle: &u32| !self.grants.mappings.contains_key(handle);
        let handle = (1..).find(is_free).ok_or(NO_SPACE)?;
        let gfn = request.host_address / PAGE_BYTES as u64;
        self.set(gfn, Entry::Grant(handle)).map_err(|_| GENERAL_ERROR)?;
        request.bus_address = match page {
            Page::Own(bus_address) => {
                let used = if writes { grant::READING | grant::WRITING } else { grant::READING };
                self.entry(request.reference)?.flags.fetch_or(used, Ordering::AcqRel);
                bus_address
            }
            Page::Of(frame) => {
                self.machine.show_granted(gfn, frame, writes);
                let granter = self.domain(request.domain);
                granter.references += 1;
                let entry = granter.grants.get_mut(&request.reference).ok_or(GENERAL_ERROR)?;
                entry.mappings[usize::from(writes)] += 1;
                entry.pinned = Some(frame);
                0x1_0000_0000
            }
        };
        request.handle = handle;
        let mapping = Mapping { gfn, domain: request.domain, reference: request.reference, writes };
        self.grants.mappings.insert(handle, mapping);
        Ok(())
    }

    fn unmap_grant(&mut self, request: &UnmapGrant) -> Result<(), i16> {
        let mapping = self.grants.mappings.get(&request.handle).ok_or(BAD_HANDLE)?;
        let asked = request.host_address / PAGE_BYTES as u64;
        if asked != mapping.gfn && !self.physmap.contains_key(&asked) {
            // Xen finds nothing there and is content: handle and pin go, and the page stays where it is mapped.
            self.leaks.push(Leak::GrantLost { gfn: mapping.gfn });
            self.grants.mappings.remove(&request.handle);
            return Ok(());
        }
        if asked != mapping.gfn || self.physmap.get(&mapping.gfn) != Some(&Entry::Grant(request.handle)) {
            return Err(GENERAL_ERROR);
        }
        let mapping = self.grants.mappings.remove(&request.handle).ok_or(BAD_HANDLE)?;
        self.physmap.remove(&mapping.gfn);
        self.machine.show(mapping.gfn, None);
        if mapping.domain == OWN_DOMAIN {
            let used = grant::READING | grant::WRITING;
            self.entry(mapping.reference)?.flags.fetch_and(!used, Ordering::AcqRel);
            return Ok(());
        }
        let entry = self.domain(mapping.domain).grants.get_mut(&mapping.reference);
        let entry = entry.expect("nobody revokes what is mapped");
        entry.mappings[usize::from(mapping.writes)] -= 1;
        if !entry.is_mapped() {
            entry.pinned = None;
        }
        self.release_reference(mapping.domain);
        Ok(())
    }

    /// # Safety
    /// What the copy names of our memory may be read and written.
    unsafe fn copy_grant(&mut self, request: &CopyGrant) -> Result<(), i16> {
        if request.length == 0 {
            return Ok(());
        }
        let side = |xen: &mut Self, side: &CopySide, flag: u16, writes: bool| {
            if request.flags & flag == 0 {
                return xen.own_page(side);
            }
            let reference = u32::try_from(side.page).map_err(|_| BAD_REFERENCE)?;
            match xen.granted(side.domain, reference, writes)? {
                Page::Of(frame) => Ok(xen.machine.address(frame)),
                Page::Own(_) => panic!("nobody copies from himself"),
            }
        };
        let source = side(self, &request.source, grant::COPY_SOURCE_GRANTED, false)?;
        let destination = side(self, &request.destination, grant::COPY_DESTINATION_GRANTED, true)?;
        let length = usize::from(request.length);
        let (from, to) = (usize::from(request.source.offset), usize::from(request.destination.offset));
        if from + length > PAGE_BYTES || to + length > PAGE_BYTES {
            return Err(BAD_COPY_ARGUMENT);
        }
        // SAFETY: both inside a page: a frame of the machine, or of our memory by the caller's contract.
        unsafe { ptr::copy(source.add(from), destination.add(to), length) };
        Ok(())
    }

    /// A page of our own RAM: memory of this process, but for our physmap's holes and what is mapped there.
    fn own_page(&self, side: &CopySide) -> Result<*mut u8, i16> {
        assert_eq!(side.domain, DOMID_SELF);
        let address = usize::try_from(side.page).unwrap() * PAGE_BYTES;
        if self.machine.space().contains(&address) {
            return Err(BAD_PAGE);
        }
        Ok(ptr::with_exposed_provenance_mut(address))
    }
}

/// # Safety
/// `address` is that of so many structures, which nobody else uses meanwhile.
unsafe fn requests<'a, T>(address: usize, count: usize) -> &'a mut [T] {
    // SAFETY: the caller's contract.
    unsafe { core::slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(address), count) }
}

fn status(result: Result<(), i16>) -> i16 {
    result.err().unwrap_or(grant::STATUS_OKAY)
}
