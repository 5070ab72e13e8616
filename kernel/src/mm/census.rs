//! What our frame numbers hold, counted one by one: the books of the physmap, to be read by people and by tests.

use core::fmt;

use super::frames::FrameAllocator;
use super::physmap::Window;
use super::singles::SinglePages;
use crate::limits::SINGLE_PAGES;
use crate::xen::memory::current_reservation;

/// How many frame numbers are in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// RAM of ours.
    pub populated: usize,
    /// The same as Xen says.
    pub reserved: usize,
    /// Of RAM that was given back to Xen, and nothing is there now.
    pub ballooned: usize,
    /// A guest's page, mapped by its frame number.
    pub foreign: usize,
    /// A guest's page, mapped by its grant.
    pub grant: usize,
    /// Nothing, in address space that never was RAM.
    pub hole: usize,
    /// A page of the hypervisor's: shared info, our grant table, ioreq servers.
    pub xen: usize,
    /// All that there are: our RAM and the regions that we use.
    pub total: usize,
}

impl Census {
    /// Counts: RAM by the frame allocator's books and by Xen's, which also has `special` pages that are not in ours; the
    /// window slot by slot; single pages by those in use.
    #[must_use]
    pub fn take(frames: &FrameAllocator, window: &Window, singles: &SinglePages, special: usize) -> Self {
        let populated = frames.total() - frames.lent();
        Self {
            populated,
            reserved: current_reservation().map_or(populated, |pages| pages.saturating_sub(special)),
            ballooned: window.ballooned_holes(),
            foreign: window.mapped(),
            grant: singles.granted(),
            hole: window.region_holes() + SINGLE_PAGES - singles.mapped(),
            xen: singles.mapped() - singles.granted(),
            total: frames.total() + window.region_frames() + SINGLE_PAGES,
        }
    }

    /// Whether every frame number is in one state, and Xen agrees about our RAM: if not, some are lost, or counted twice.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let Self { populated, reserved, ballooned, foreign, grant, hole, xen, total } = self;
        populated + ballooned + foreign + grant + hole + xen == *total && populated == reserved
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { populated, reserved, ballooned, foreign, grant, hole, xen, total } = self;
        if populated != reserved {
            write!(f, "Xen says that we have {reserved} frames of RAM; ")?;
        }
        write!(
            f,
            "populated {populated} + ballooned {ballooned} + foreign {foreign} + grant {grant} + hole {hole} + xen {xen} \
             {} {total} frames",
            if self.adds_up() { "=" } else { "IS NOT" }
        )
    }
}
