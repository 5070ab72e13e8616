//! Numbers that must not be mixed up.

use crate::limits::PAGE_BYTES;

/// A frame number in our own physmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(pub u64);

impl Gfn {
    /// The frame that holds `address`.
    #[must_use]
    pub const fn containing(address: usize) -> Self {
        Self((address / PAGE_BYTES) as u64)
    }

    /// Guest-physical address of its first byte. The kernel maps every frame at this very virtual address.
    #[must_use]
    pub const fn address(self) -> usize {
        self.0 as usize * PAGE_BYTES
    }
}

/// A frame number in the physmap of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestFrame(pub u64);
