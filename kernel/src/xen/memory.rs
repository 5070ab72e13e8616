//! Changes to our own physmap, as hypercalls. [`crate::mm::physmap`], [`crate::mm::balloon`] and [`crate::mm::singles`] are
//! the only callers and keep the rules.

use super::DomainId;
use super::abi::{
    AcquireResource, AddToPhysmap, AddToPhysmapBatch, DOMID_SELF, MemoryDomain, MemoryReservation,
    MulticallEntry, RemoveFromPhysmap, memory, number,
};
use super::dm::ServerId;
use super::hypercall::{HypercallError, call};

/// Maps the shared info page at frame `gfn` of ours.
///
/// # Errors
/// Xen's answer.
pub fn map_shared_info(gfn: u64) -> Result<(), HypercallError> {
    map_own(memory::SPACE_SHARED_INFO, gfn, "map shared info")
}

/// Maps the first page of our grant table at frame `gfn` of ours.
///
/// # Errors
/// EBUSY when it is mapped already.
pub fn map_grant_table(gfn: u64) -> Result<(), HypercallError> {
    map_own(memory::SPACE_GRANT_TABLE, gfn, "map the grant table")
}

/// Maps the first page of `space`, which Xen keeps for us, at frame `gfn` of ours.
fn map_own(space: u32, gfn: u64, operation: &'static str) -> Result<(), HypercallError> {
    let request = AddToPhysmap { domid: DOMID_SELF, space, gpfn: gfn, ..AddToPhysmap::default() };
    let address = (&raw const request).expose_provenance() as u64;
    // SAFETY: XENMEM_add_to_physmap reads one xen_add_to_physmap (memory.h).
    unsafe { call(number::MEMORY_OP, [memory::ADD_TO_PHYSMAP, address, 0, 0, 0], operation) }.map(drop)
}

/// Maps frame `guest_frames[i]` of `domain` at frame `own_frames[i]` of ours; `errors[i]` says how that went, 0 for
/// mapped. The three slices have the same length, at most 65,535.
///
/// # Errors
/// The hypercall as a whole was refused; otherwise look at `errors`.
pub fn map_foreign(
    domain: DomainId,
    guest_frames: &[u64],
    own_frames: &[u64],
    errors: &mut [i32],
) -> Result<(), HypercallError> {
    let count = guest_frames.len().min(own_frames.len()).min(errors.len()).min(usize::from(u16::MAX));
    let request = AddToPhysmapBatch {
        domid: DOMID_SELF,
        space: memory::SPACE_GMFN_FOREIGN,
        size: count as u16,
        foreign_domid: domain.0,
        idxs: expose(guest_frames),
        gpfns: expose(own_frames),
        errs: {
            errors.as_mut_ptr().expose_provenance();
            errors.as_mut_ptr()
        },
    };
    let address = (&raw const request).expose_provenance() as u64;
    // SAFETY: XENMEM_add_to_physmap_batch reads one xen_add_to_physmap_batch and `size` elements of idxs and
    // gpfns, and writes `size` elements of errs (memory.h); no slice is shorter than `count`.
    unsafe { call(number::MEMORY_OP, [memory::ADD_TO_PHYSMAP_BATCH, address, 0, 0, 0], "map foreign pages") }
        .map(drop)
}

/// Gives our RAM at `frames` back to Xen, which does not scrub it. Returns how many of them, from the first on, are holes
/// now.
///
/// # Errors
/// The hypercall as a whole was refused.
pub fn decrease_reservation(frames: &[u64]) -> Result<usize, HypercallError> {
    reserve(memory::DECREASE_RESERVATION, frames, "give RAM back")
}

/// Gets RAM from Xen at `frames`, which must be holes: what was there would be lost. Returns how many of them, from the
/// first on, are RAM now, of any content.
///
/// # Errors
/// The hypercall as a whole was refused.
pub fn populate(frames: &[u64]) -> Result<usize, HypercallError> {
    reserve(memory::POPULATE_PHYSMAP, frames, "get RAM")
}

/// The pages of RAM that Xen says we have.
///
/// # Errors
/// Xen's answer.
pub fn current_reservation() -> Result<usize, HypercallError> {
    let request = MemoryDomain { domid: DOMID_SELF };
    let address = (&raw const request).expose_provenance() as u64;
    let arguments = [memory::CURRENT_RESERVATION, address, 0, 0, 0];
    // SAFETY: XENMEM_current_reservation reads one xen_memory_domain (memory.h).
    unsafe { call(number::MEMORY_OP, arguments, "ask for our RAM") }.map(|pages| pages as usize)
}

fn reserve(command: u64, frames: &[u64], operation: &'static str) -> Result<usize, HypercallError> {
    let request = MemoryReservation {
        extents: expose(frames),
        count: frames.len() as u64,
        order: 0,
        flags: 0,
        domid: DOMID_SELF,
    };
    let address = (&raw const request).expose_provenance() as u64;
    // SAFETY: both operations read one xen_memory_reservation and `count` frame numbers; a domain whose physmap Xen
    // translates, as on Arm, gets nothing written to them (memory.h).
    unsafe { call(number::MEMORY_OP, [command, address, 0, 0, 0], operation) }
        .map(|done| (done as usize).min(frames.len()))
}

fn expose(slice: &[u64]) -> *const u64 {
    slice.as_ptr().expose_provenance();
    slice.as_ptr()
}

/// Makes the foreign or resource page at frame `gfn` of ours a hole again.
///
/// # Errors
/// ENOENT when there is none.
pub fn remove(gfn: u64) -> Result<(), HypercallError> {
    let request = RemoveFromPhysmap { domid: DOMID_SELF, gpfn: gfn };
    let address = (&raw const request).expose_provenance() as u64;
    // SAFETY: XENMEM_remove_from_physmap reads one xen_remove_from_physmap (memory.h).
    unsafe { call(number::MEMORY_OP, [memory::REMOVE_FROM_PHYSMAP, address, 0, 0, 0], "unmap a page") }
        .map(drop)
}

/// Pages that [`remove_many`] takes at once.
pub const REMOVE_BATCH: usize = 32;

/// [`remove`] for up to [`REMOVE_BATCH`] frames in one hypercall; `results[i]` says how `frames[i]` went, 0 for removed,
/// else a negative error number.
///
/// # Errors
/// The multicall as a whole was refused.
pub fn remove_many(frames: &[u64], results: &mut [i64; REMOVE_BATCH]) -> Result<(), HypercallError> {
    let count = frames.len().min(REMOVE_BATCH);
    let mut requests = [RemoveFromPhysmap::default(); REMOVE_BATCH];
    for (request, gfn) in requests.iter_mut().zip(frames) {
        *request = RemoveFromPhysmap { domid: DOMID_SELF, gpfn: *gfn };
    }
    let mut calls = [MulticallEntry::default(); REMOVE_BATCH];
    for (entry, request) in calls.iter_mut().zip(&requests) {
        let request = core::ptr::from_ref(request).expose_provenance() as u64;
        *entry = MulticallEntry {
            op: number::MEMORY_OP,
            result: 0,
            args: [memory::REMOVE_FROM_PHYSMAP, request, 0, 0, 0, 0],
        };
    }
    let address = (&raw mut calls).expose_provenance() as u64;
    // SAFETY: HYPERVISOR_multicall reads and writes `count` multicall_entry structures (xen.h); each entry names
    // one xen_remove_from_physmap in `requests`, which outlives the call.
    unsafe { call(number::MULTICALL, [address, count as u64, 0, 0, 0], "unmap pages")? };
    for (result, entry) in results.iter_mut().zip(&calls) {
        *result = entry.result;
    }
    Ok(())
}

/// Maps the page with the per-vCPU slots of an ioreq server of `domain` at frame `gfn` of ours.
///
/// # Errors
/// ENOENT when there is no memory left for our second-stage tables; EACCES or EPERM when the policy refuses.
pub fn map_ioreq_page(domain: DomainId, server: ServerId, gfn: u64) -> Result<(), HypercallError> {
    let request = AcquireResource {
        domid: domain.0,
        kind: memory::RESOURCE_IOREQ_SERVER,
        id: u32::from(server.0),
        frames: 1,
        pad: 0,
        frame: memory::RESOURCE_IOREQ_FRAME,
        frame_list: {
            (&raw const gfn).expose_provenance();
            &raw const gfn
        },
    };
    let address = (&raw const request).expose_provenance() as u64;
    // SAFETY: XENMEM_acquire_resource reads one xen_mem_acquire_resource and `frames` frame numbers (memory.h).
    unsafe { call(number::MEMORY_OP, [memory::ACQUIRE_RESOURCE, address, 0, 0, 0], "map the ioreq page") }
        .map(drop)
}
