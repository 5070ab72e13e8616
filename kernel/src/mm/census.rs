//! What our frame numbers hold, counted one by one: the books of the physmap, to be read by people and by tests.

use core::fmt;

use super::frames::FrameAllocator;
use super::physmap::Window;
use super::singles::SinglePages;
use crate::limits::SINGLE_PAGES;

/// How many frame numbers are in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// RAM of ours.
    pub populated: usize,
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
    /// Counts, each state by itself.
    #[must_use]
    pub fn take(frames: &FrameAllocator, window: &Window, singles: &SinglePages) -> Self {
        Self {
            populated: frames.total() - frames.lent(),
            ballooned: window.ballooned_holes(),
            foreign: window.mapped(),
            grant: singles.granted(),
            hole: window.region_holes() + SINGLE_PAGES - singles.mapped(),
            xen: singles.mapped() - singles.granted(),
            total: frames.total() + window.region_frames() + SINGLE_PAGES,
        }
    }

    /// Whether every frame number is in one state: if not, some are lost, or counted twice.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let Self { populated, ballooned, foreign, grant, hole, xen, total } = self;
        populated + ballooned + foreign + grant + hole + xen == *total
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { populated, ballooned, foreign, grant, hole, xen, total } = self;
        write!(
            f,
            "populated {populated} + ballooned {ballooned} + foreign {foreign} + grant {grant} + hole {hole} + xen {xen} \
             {} {total} frames",
            if self.adds_up() { "=" } else { "IS NOT" }
        )
    }
}
