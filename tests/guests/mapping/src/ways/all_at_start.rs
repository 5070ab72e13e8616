//! All of the guest's memory is mapped at the start, and stays: address space and second-stage tables for all of it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::error::Error;
use core::ops::Range;

use kernel::mm::physmap::{ForeignPage, MAP_BATCH, SlotIndex, Window};
use kernel::xen::DomainId;

use super::{Counts, Way, copy_from, pieces};
use crate::target::{self, FIRST_PAGE, PAGES, Page};

pub struct AllAtStart {
    window: Window,
    counts: Counts,
}

impl AllAtStart {
    /// `space` has room for all of the memory of `domain`.
    pub fn new(domain: DomainId, space: &Range<usize>) -> Self {
        let mut window = Window::new(space);
        let mut counts = Counts::default();
        let moves = |page| Some((page as SlotIndex, ForeignPage::new(domain, target::frame(page))?));
        let moves: Vec<_> = (FIRST_PAGE..PAGES).filter_map(moves).collect();
        for batch in moves.chunks(MAP_BATCH) {
            counts.hypercalls += 1;
            // What is missing shows when it is read.
            let _ = window.map(domain, batch, |_, _| ());
        }
        Self { window, counts }
    }
}

impl Way for AllAtStart {
    fn read(&mut self, pages: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>> {
        for (page, part) in pages.iter().zip(parts) {
            for (page, piece) in pieces(*page, part) {
                if self.window.page(page as SlotIndex).is_none() {
                    return Err("a page was not mapped".into());
                }
                // SAFETY: mapped, and never unmapped before the end.
                unsafe { copy_from(self.window.address(page as SlotIndex), piece) };
            }
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn end(&mut self) {
        self.window.unmap(&(FIRST_PAGE as SlotIndex..PAGES as SlotIndex).collect::<Vec<_>>());
    }
}
