//! The kernel's own address space: everything at its guest-physical address, writable or executable but not both.

use core::ops::Range;

use aarch64_paging::MapError;
use aarch64_paging::descriptor::El1Attributes as Attributes;
use aarch64_paging::idmap::IdMap;
use aarch64_paging::paging::{El1And0, MemoryRegion};

/// Tables from level 1 on: addresses below [`crate::limits::ADDRESS_LIMIT`], as `entry.S` sets up in TCR_EL1.
const ROOT_LEVEL: usize = 1;
const ASID: usize = 0;

/// What a range of addresses is used for. Indices are those of MAIR_EL1 in `entry.S`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Our code.
    Code,
    /// Our constants.
    Constants,
    /// RAM, and windows for other domains' pages.
    Memory,
    /// Registers of a device.
    Device,
}

impl Use {
    fn attributes(self) -> Attributes {
        let common = Attributes::VALID | Attributes::ACCESSED | Attributes::UXN;
        let normal = Attributes::ATTRIBUTE_INDEX_0 | Attributes::INNER_SHAREABLE;
        common
            | match self {
                Self::Code => normal | Attributes::READ_ONLY,
                Self::Constants => normal | Attributes::READ_ONLY | Attributes::PXN,
                Self::Memory => normal | Attributes::PXN,
                Self::Device => Attributes::ATTRIBUTE_INDEX_1 | Attributes::PXN,
            }
    }
}

/// The kernel's page tables.
pub struct AddressSpace {
    map: IdMap<El1And0>,
}

impl Default for AddressSpace {
    /// Page tables with nothing in them. Takes memory from the heap.
    fn default() -> Self {
        Self { map: IdMap::with_asid(ASID, ROOT_LEVEL, El1And0) }
    }
}

impl AddressSpace {
    /// Maps whole pages that were not mapped before.
    ///
    /// # Errors
    /// [`MapError`] when the range lies above 512 GiB or overlaps what is mapped.
    pub fn map(&mut self, range: &Range<usize>, purpose: Use) -> Result<(), MapError> {
        self.map.map_range(&MemoryRegion::new(range.start, range.end), purpose.attributes())
    }

    /// Switches to these tables, for good.
    ///
    /// # Safety
    /// Everything in use must be mapped: the image, stacks, heap.
    pub unsafe fn activate(mut self) {
        // SAFETY: the caller's contract; the tables are never dropped, see below.
        unsafe { self.map.activate() };
        core::mem::forget(self);
    }
}
