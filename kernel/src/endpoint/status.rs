//! What there is to tell about this domain, as plain numbers: gathered when somebody asks, shown by `metrics` and `page`.

use alloc::collections::TryReserveError;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use drivers::drive::LinkStatus;
use drivers::net::MacAddress;
use drivers::net::bridge::PortCounters;
use drivers::virtio::{blk, mmio, net};
use drivers::volume::disk;

use crate::mm::foreign;
use crate::xen::DomainId;

/// All there is to tell.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Of this program.
    pub version: &'static str,
    /// Nanoseconds since this domain was started.
    pub uptime_ns: u64,
    /// The domains that we serve.
    pub guests: Vec<GuestStatus>,
    /// Their devices.
    pub devices: Vec<DeviceStatus>,
    /// Ports of the bridge.
    pub ports: Vec<PortStatus>,
    /// Buffers for frames.
    pub frame_pool: FramePoolStatus,
    /// Disks that volumes are on: physical ones, and open exports of NBD servers.
    pub disks: Vec<DiskStatus>,
    /// Guests' pages that we have mapped.
    pub pager: PagerStatus,
    /// Our own memory.
    pub memory: MemoryStatus,
}

/// A domain that we serve.
#[derive(Clone, Debug)]
pub struct GuestStatus {
    /// Which.
    pub domain: DomainId,
    /// The pager's slots that it has.
    pub slots: usize,
}

/// A guest's device.
#[derive(Clone, Debug)]
pub struct DeviceStatus {
    /// Whose.
    pub domain: DomainId,
    /// Its name, such as `dom3/xvda`, as in the log. Not trusted: it may hold anything.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// What went over its registers.
    pub registers: mmio::Counters,
}

/// What a guest's device is.
#[derive(Clone, Debug)]
pub enum DeviceKind {
    /// A disk.
    Disk(blk::Counters),
    /// A NIC, with its address.
    Nic(Option<MacAddress>, net::Counters),
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(_) => f.write_str("disk"),
            Self::Nic(Some(address), _) => write!(f, "NIC {address}"),
            Self::Nic(None, _) => f.write_str("NIC"),
        }
    }
}

/// A port of the bridge.
#[derive(Clone, Debug, Default)]
pub struct PortStatus {
    /// Its name, such as `dom3/net0`. Not trusted.
    pub name: String,
    /// What went over it.
    pub counters: PortCounters,
}

/// Buffers for frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct FramePoolStatus {
    /// Bytes of all that were made.
    pub bytes: usize,
    /// Buffers in use.
    pub in_use: usize,
    /// Times that there was none.
    pub exhausted: u64,
}

/// A disk that volumes are on.
#[derive(Clone, Debug, Default)]
pub struct DiskStatus {
    /// Its name, such as `blk0` or `nbd:10.0.0.9:10809/disk`.
    pub name: String,
    /// What it did.
    pub counters: disk::Counters,
    /// The connection to it, if it is on another machine.
    pub link: Option<LinkStatus>,
}

/// Guests' pages that we have mapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct PagerStatus {
    /// Slots that there are.
    pub slots: usize,
    /// Slots that hold a page.
    pub mapped: usize,
    /// Slots that are pinned.
    pub pinned: usize,
    /// What has been done.
    pub counters: foreign::Counters,
}

/// Our own memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStatus {
    /// RAM that is ours now.
    pub total_bytes: usize,
    /// Of it, pages that nothing is in.
    pub frames_free_bytes: usize,
    /// Of it, free on the heap.
    pub heap_free_bytes: usize,
}

/// Who knows all there is to tell.
pub trait StatusSource {
    /// How it is now.
    ///
    /// # Errors
    /// There is no memory to write it down.
    fn status(&self) -> Result<Status, TryReserveError>;
}

impl<F: Fn() -> Result<Status, TryReserveError>> StatusSource for F {
    fn status(&self) -> Result<Status, TryReserveError> {
        self()
    }
}
