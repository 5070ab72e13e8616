//! Numbers and structures of Xen 4.20's public headers, each named by the header it comes from.
//!
//! Layouts are those of AAPCS64; the constants at the end fail the build when one is off. Nothing here calls Xen.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// Hypercall numbers (`xen.h`).
pub mod number {
    /// `memory_op`.
    pub const MEMORY_OP: u64 = 12;
    /// `multicall`.
    pub const MULTICALL: u64 = 13;
    /// `xen_version`.
    pub const XEN_VERSION: u64 = 17;
    /// `console_io`.
    pub const CONSOLE_IO: u64 = 18;
    /// `grant_table_op`.
    pub const GRANT_TABLE_OP: u64 = 20;
    /// `sched_op`.
    pub const SCHED_OP: u64 = 29;
    /// `event_channel_op`.
    pub const EVENT_CHANNEL_OP: u64 = 32;
    /// `hvm_op`.
    pub const HVM_OP: u64 = 34;
    /// `dm_op`.
    pub const DM_OP: u64 = 41;
    /// The highest of these.
    pub const HIGHEST: usize = DM_OP as usize;
}

/// Commands of `xen_version` (`version.h`).
pub mod version {
    /// XENVER_guest_handle
    pub const GUEST_HANDLE: u64 = 8;
}

/// The calling domain, wherever a hypercall takes a domain id and says so (`xen.h`).
pub const DOMID_SELF: u16 = 0x7ff0;

/// `memory_op` (`memory.h`).
pub mod memory {
    /// Give RAM back to Xen.
    pub const DECREASE_RESERVATION: u64 = 1;
    /// Tell how much RAM a domain has.
    pub const CURRENT_RESERVATION: u64 = 3;
    /// Get RAM from Xen at frame numbers of ours.
    pub const POPULATE_PHYSMAP: u64 = 6;
    /// Map a frame of the hypervisor or of another domain at a frame number of ours.
    pub const ADD_TO_PHYSMAP: u64 = 7;
    /// Take a mapping away.
    pub const REMOVE_FROM_PHYSMAP: u64 = 15;
    /// Map many frames of one kind.
    pub const ADD_TO_PHYSMAP_BATCH: u64 = 23;
    /// Map a page that belongs to a resource of another domain.
    pub const ACQUIRE_RESOURCE: u64 = 28;
    /// Space: the shared info page.
    pub const SPACE_SHARED_INFO: u32 = 0;
    /// Space: frames of our grant table.
    pub const SPACE_GRANT_TABLE: u32 = 1;
    /// Space: pages of another domain, by its frame numbers.
    pub const SPACE_GMFN_FOREIGN: u16 = 4;
    /// Resource: pages of an ioreq server.
    pub const RESOURCE_IOREQ_SERVER: u16 = 0;
    /// Frame of the ioreq server resource that holds the per-vCPU slots.
    pub const RESOURCE_IOREQ_FRAME: u64 = 1;
}

/// `xen_memory_domain` (`memory.h`).
#[repr(C)]
pub struct MemoryDomain {
    /// Which domain.
    pub domid: u16,
}

/// `xen_memory_reservation` (`memory.h`).
#[repr(C)]
pub struct MemoryReservation {
    /// Frame numbers of ours.
    pub extents: *const u64,
    /// How many.
    pub count: u64,
    /// Each extent is 2 to the power of this many pages.
    pub order: u32,
    /// Demands on the memory.
    pub flags: u32,
    /// Whose physmap changes.
    pub domid: u16,
}

/// `xen_add_to_physmap` (`memory.h`).
#[repr(C)]
#[derive(Default)]
pub struct AddToPhysmap {
    /// Whose physmap changes.
    pub domid: u16,
    /// Only for ranges.
    pub size: u16,
    /// What is mapped.
    pub space: u32,
    /// Which one of that space.
    pub idx: u64,
    /// Where.
    pub gpfn: u64,
}

/// `xen_add_to_physmap_batch` (`memory.h`).
#[repr(C)]
pub struct AddToPhysmapBatch {
    /// Whose physmap changes.
    pub domid: u16,
    /// What is mapped.
    pub space: u16,
    /// Entries in each array.
    pub size: u16,
    /// Owner of the pages, for [`memory::SPACE_GMFN_FOREIGN`].
    pub foreign_domid: u16,
    /// Frame numbers of the owner.
    pub idxs: *const u64,
    /// Frame numbers of ours.
    pub gpfns: *const u64,
    /// One error number an entry, 0 when mapped.
    pub errs: *mut i32,
}

/// `xen_remove_from_physmap` (`memory.h`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct RemoveFromPhysmap {
    /// Whose physmap changes.
    pub domid: u16,
    /// Which frame number becomes a hole.
    pub gpfn: u64,
}

/// `xen_mem_acquire_resource` (`memory.h`).
#[repr(C)]
pub struct AcquireResource {
    /// Owner of the resource.
    pub domid: u16,
    /// Kind of resource.
    pub kind: u16,
    /// Which one, here the ioreq server.
    pub id: u32,
    /// Number of frames.
    pub frames: u32,
    /// Must be zero.
    pub pad: u32,
    /// First frame of the resource.
    pub frame: u64,
    /// Where to map them: frame numbers of ours.
    pub frame_list: *const u64,
}

/// `multicall_entry` (`xen.h`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct MulticallEntry {
    /// Hypercall number.
    pub op: u64,
    /// Its result.
    pub result: i64,
    /// Its arguments.
    pub args: [u64; 6],
}

/// `sched_op` (`sched.h`).
pub mod sched {
    /// Let another vCPU run.
    pub const YIELD: u64 = 0;
    /// End this domain.
    pub const SHUTDOWN: u64 = 2;
    /// Sleep until one of some event channels is pending.
    pub const POLL: u64 = 3;
    /// Event channels that one [`POLL`] can name.
    pub const POLL_PORTS_MAX: usize = 128;
    /// Reason: powered off.
    pub const REASON_POWEROFF: u32 = 0;
    /// Reason: reboot asked for.
    pub const REASON_REBOOT: u32 = 1;
    /// Reason: crashed.
    pub const REASON_CRASH: u32 = 3;
}

/// `sched_poll` (`sched.h`).
#[repr(C)]
pub struct SchedPoll {
    /// Event channels.
    pub ports: *const u32,
    /// How many.
    pub count: u32,
    /// System time in nanoseconds at which to wake all the same; 0 for never.
    pub timeout_ns: u64,
}

/// `event_channel_op` (`event_channel.h`).
pub mod event {
    /// Bind a local port to a port of another domain.
    pub const BIND_INTERDOMAIN: u64 = 0;
    /// Close a local port.
    pub const CLOSE: u64 = 3;
    /// Notify the other end.
    pub const SEND: u64 = 4;
    /// Tell what a port is.
    pub const STATUS: u64 = 5;
    /// Make a port that some domain may bind to.
    pub const ALLOC_UNBOUND: u64 = 6;
    /// State of a port: not in use.
    pub const STATUS_CLOSED: u32 = 0;
    /// State of a port: nobody has bound to it yet.
    pub const STATUS_UNBOUND: u32 = 1;
    /// EVTCHNSTAT_interdomain: bound to a port of another domain, or of ours.
    pub const STATUS_INTERDOMAIN: u32 = 2;
}

/// `evtchn_bind_interdomain` (`event_channel.h`).
#[repr(C)]
#[derive(Default)]
pub struct BindInterdomain {
    /// Domain of the remote port.
    pub remote_domain: u16,
    /// The remote port.
    pub remote_port: u32,
    /// Out: the local port.
    pub local_port: u32,
}

/// `evtchn_alloc_unbound` (`event_channel.h`).
#[repr(C)]
#[derive(Default)]
pub struct AllocUnbound {
    /// Whose port.
    pub domain: u16,
    /// Who may bind to it.
    pub remote_domain: u16,
    /// Out: the port.
    pub port: u32,
}

/// `evtchn_status` (`event_channel.h`), as far as unbound ports need it.
#[repr(C)]
#[derive(Default)]
pub struct EventStatus {
    /// Whose port.
    pub domain: u16,
    /// Which port.
    pub port: u32,
    /// Out: its state.
    pub status: u32,
    /// Out: the vCPU that gets its events.
    pub vcpu: u32,
    /// Out: who may bind to it, if nobody has; else to whose port it is bound.
    pub remote_domain: u16,
    /// Out: nothing, and the two halves of the number of the port that it is bound to.
    pub rest: [u16; 3],
}

/// `grant_table_op` (`grant_table.h`), version 1.
pub mod grant {
    /// Map a granted page.
    pub const MAP_GRANT_REF: u64 = 0;
    /// Unmap it.
    pub const UNMAP_GRANT_REF: u64 = 1;
    /// Copy from or to a granted page.
    pub const COPY: u64 = 5;
    /// Copy flag: the source is a granted page; else it is a page of ours.
    pub const COPY_SOURCE_GRANTED: u16 = 1;
    /// Copy flag: the same of the destination.
    pub const COPY_DESTINATION_GRANTED: u16 = 1 << 1;
    /// Map flag: for the processor.
    pub const MAP_HOST: u32 = 1 << 1;
    /// Map flag: for reading only.
    pub const MAP_READ_ONLY: u32 = 1 << 2;
    /// Entry flag: a domain may map the page.
    pub const PERMIT_ACCESS: u16 = 1;
    /// Entry flag: for reading only.
    pub const READ_ONLY: u16 = 1 << 2;
    /// Entry flag, set by Xen: mapped for reading.
    pub const READING: u16 = 1 << 3;
    /// Entry flag, set by Xen: mapped for writing.
    pub const WRITING: u16 = 1 << 4;
    /// The first entry that has no fixed use.
    pub const FIRST_FREE: u32 = 8;
    /// Entries in a page of the table.
    pub const ENTRIES: usize = 4096 / size_of::<super::GrantEntry>();
    /// Status: done. Negative ones are errors.
    pub const STATUS_OKAY: i16 = 0;
    /// Status: an error without a name of its own.
    pub const STATUS_GENERAL_ERROR: i16 = -1;
}

/// `grant_entry_v1` (`grant_table.h`): who may map which page of ours.
#[repr(C)]
pub struct GrantEntry {
    /// Flags; the other fields count once they permit anything.
    pub flags: AtomicU16,
    /// Who.
    pub domain: AtomicU16,
    /// Frame number of ours.
    pub frame: AtomicU32,
}

/// `gnttab_map_grant_ref` (`grant_table.h`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct MapGrant {
    /// Guest-physical address at which to map.
    pub host_address: u64,
    /// Map flags of [`grant`].
    pub flags: u32,
    /// Entry in the table of `domain`.
    pub reference: u32,
    /// Who granted.
    pub domain: u16,
    /// Out: how it went.
    pub status: i16,
    /// Out: names the mapping.
    pub handle: u32,
    /// Out: address of the page in the machine.
    pub bus_address: u64,
}

/// `gnttab_unmap_grant_ref` (`grant_table.h`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct UnmapGrant {
    /// Where it was mapped.
    pub host_address: u64,
    /// Zero: nothing is mapped for devices.
    pub bus_address: u64,
    /// Names the mapping.
    pub handle: u32,
    /// Out: how it went.
    pub status: i16,
}

/// One side of a [`CopyGrant`]: bytes that lie in one page.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct CopySide {
    /// Entry in the table of `domain` (its low half), or a frame number.
    pub page: u64,
    /// Whose page.
    pub domain: u16,
    /// First byte in the page.
    pub offset: u16,
}

/// `gnttab_copy` (`grant_table.h`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct CopyGrant {
    /// From where.
    pub source: CopySide,
    /// To where.
    pub destination: CopySide,
    /// How many bytes.
    pub length: u16,
    /// Copy flags of [`grant`].
    pub flags: u16,
    /// Out: how it went.
    pub status: i16,
}

/// `hvm_op` (`hvm/hvm_op.h`, `hvm/params.h`).
pub mod hvm {
    /// Read a parameter.
    pub const GET_PARAM: u64 = 1;
    /// Frame number of the xenstore ring.
    pub const PARAM_STORE_PFN: u32 = 1;
    /// Event channel of the xenstore ring.
    pub const PARAM_STORE_EVENT: u32 = 2;
    /// Frame number of the console ring.
    pub const PARAM_CONSOLE_PFN: u32 = 17;
    /// Event channel of the console ring.
    pub const PARAM_CONSOLE_EVENT: u32 = 18;
}

/// `xen_hvm_param` (`hvm/hvm_op.h`).
#[repr(C)]
#[derive(Default)]
pub struct HvmParameter {
    /// Whose parameter.
    pub domid: u16,
    /// Padding.
    pub pad: u16,
    /// Which parameter.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// `dm_op` (`hvm/dm_op.h`).
pub mod dm {
    /// Create an ioreq server.
    pub const CREATE_IOREQ_SERVER: u32 = 1;
    /// Claim a range of addresses.
    pub const MAP_IO_RANGE: u32 = 3;
    /// Give a range back.
    pub const UNMAP_IO_RANGE: u32 = 4;
    /// Enable or disable a server.
    pub const SET_IOREQ_SERVER_STATE: u32 = 5;
    /// Destroy a server.
    pub const DESTROY_IOREQ_SERVER: u32 = 6;
    /// Drive an interrupt line of the target.
    pub const SET_IRQ_LEVEL: u32 = 19;
    /// Number of vCPUs of the target.
    pub const NR_VCPUS: u32 = 20;
    /// Range type: memory-mapped.
    pub const RANGE_MEMORY: u32 = 1;
}

/// `xen_dm_op_buf` (`hvm/dm_op.h`).
#[repr(C)]
pub struct DmOpBuffer {
    /// Address of the structure.
    pub address: *mut core::ffi::c_void,
    /// Its length in bytes.
    pub size: u64,
}

/// `xen_dm_op` (`hvm/dm_op.h`): the operation and the largest payload we use, as plain words.
#[repr(C)]
#[derive(Default)]
pub struct DmOp {
    /// Operation, one of [`dm`].
    pub op: u32,
    /// Must be zero.
    pub pad: u32,
    /// The operation's own structure, as little-endian words.
    pub payload: [u64; 8],
}

/// `ioreq_t` (`hvm/ioreq.h`): one vCPU's slot in the ioreq page. Xen writes it before it sets the state to ready.
#[repr(C)]
pub struct IoreqSlot {
    /// Guest-physical address of the access.
    pub address: AtomicU64,
    /// Value written, or to be filled for a read.
    pub data: AtomicU64,
    /// Repeat count, unused for memory accesses on Arm.
    pub count: AtomicU32,
    /// Width of the access in bytes.
    pub size: AtomicU32,
    /// Port of the target domain to bind.
    pub event_port: AtomicU32,
    /// Unused.
    pub pad: AtomicU8,
    /// Unused.
    pub pad2: AtomicU8,
    /// State in the low four bits, then data-is-pointer, direction (1 = read), and unused bits.
    pub state: AtomicU8,
    /// Kind of request.
    pub kind: AtomicU8,
}

/// Fields of [`IoreqSlot`] (`hvm/ioreq.h`).
pub mod ioreq {
    /// The bits of `state` that hold the state.
    pub const STATE_MASK: u8 = 0xf;
    /// State: a request waits to be served.
    pub const STATE_READY: u8 = 1;
    /// State: the answer is there.
    pub const STATE_RESPONSE_READY: u8 = 3;
    /// The bit of `state` that tells a read from a write.
    pub const DIRECTION_READ: u8 = 1 << 5;
    /// Kind: a memory access.
    pub const KIND_COPY: u8 = 1;
    /// Kind: the guest gave pages back; forget mappings of it.
    pub const KIND_INVALIDATE: u8 = 8;
    /// Slots in a page.
    pub const SLOTS: usize = 4096 / size_of::<super::IoreqSlot>();
}

/// `shared_info` (`xen.h`, `arch-arm.h`), as far as two-level event channels need it.
#[repr(C)]
pub struct SharedInfo {
    /// vCPU 0's area.
    pub vcpu_info: VcpuInfo,
    /// One bit a port: an event waits.
    pub evtchn_pending: [AtomicU64; 64],
    /// One bit a port: events do not raise the interrupt.
    pub evtchn_mask: [AtomicU64; 64],
}

/// `vcpu_info` (`xen.h`).
#[repr(C)]
pub struct VcpuInfo {
    /// Non-zero while the event interrupt is raised.
    pub upcall_pending: AtomicU8,
    /// Padding.
    pub pad: [u8; 7],
    /// One bit a word of `evtchn_pending`.
    pub pending_selector: AtomicU64,
    /// Time, not used on Arm; the architecture's own part is empty there.
    pub time: [u64; 4],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<AddToPhysmap>() == 24 && offset_of!(AddToPhysmap, gpfn) == 16);
    assert!(size_of::<AddToPhysmapBatch>() == 32 && offset_of!(AddToPhysmapBatch, errs) == 24);
    assert!(size_of::<MemoryReservation>() == 32 && offset_of!(MemoryReservation, domid) == 24);
    assert!(size_of::<RemoveFromPhysmap>() == 16 && offset_of!(RemoveFromPhysmap, gpfn) == 8);
    assert!(size_of::<AcquireResource>() == 32 && offset_of!(AcquireResource, frame_list) == 24);
    assert!(size_of::<MulticallEntry>() == 64);
    assert!(size_of::<SchedPoll>() == 24 && offset_of!(SchedPoll, timeout_ns) == 16);
    assert!(size_of::<BindInterdomain>() == 12 && offset_of!(BindInterdomain, local_port) == 8);
    assert!(size_of::<AllocUnbound>() == 8 && offset_of!(AllocUnbound, port) == 4);
    assert!(size_of::<EventStatus>() == 24 && offset_of!(EventStatus, remote_domain) == 16);
    assert!(size_of::<GrantEntry>() == 8 && offset_of!(GrantEntry, frame) == 4);
    assert!(size_of::<MapGrant>() == 32 && offset_of!(MapGrant, bus_address) == 24);
    assert!(size_of::<UnmapGrant>() == 24 && offset_of!(UnmapGrant, status) == 20);
    assert!(size_of::<CopySide>() == 16 && offset_of!(CopySide, offset) == 10);
    assert!(size_of::<CopyGrant>() == 40 && offset_of!(CopyGrant, destination) == 16);
    assert!(offset_of!(CopyGrant, length) == 32 && offset_of!(CopyGrant, status) == 36);
    assert!(size_of::<HvmParameter>() == 16 && offset_of!(HvmParameter, value) == 8);
    assert!(size_of::<IoreqSlot>() == 32 && offset_of!(IoreqSlot, state) == 30);
    assert!(size_of::<VcpuInfo>() == 48 && offset_of!(VcpuInfo, pending_selector) == 8);
    assert!(offset_of!(SharedInfo, evtchn_pending) == 48 && offset_of!(SharedInfo, evtchn_mask) == 48 + 512);
};
