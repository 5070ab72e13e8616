//! What it costs to pin a page that is mapped already, and to unpin it: no hypercall, no flush.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::error::Error;
use core::hint::black_box;
use core::iter::once;

use drivers::guest::GuestMemory;
use kernel::limits::PAGE_BYTES;
use kernel::mm::foreign::{Counters, Pager, PinnedSlots};
use kernel::mm::physmap::Window;
use kernel::mm::pinned::ForeignMemory;
use kernel::xen::DomainId;

use crate::clock::{TO_READ_A_LINE_NS, hz, rest, ticks};
use crate::target::{self, Page};
use crate::ways::pinned::leave;
use crate::workload::{Pages, Workload};

/// Times that each page of the working set is pinned.
const ROUNDS: u64 = 20;
/// Pages that are pinned at once, as by a request of 64 KiB.
const PAGES_AT_ONCE: Page = 16;

/// Measures the pager alone, and as device models use it; what the loop itself costs is told, too.
pub fn measure(domain: DomainId, window: Window) -> Result<(), Box<dyn Error>> {
    let pages = Pages::warm_up(Workload::Fitting, PAGE_BYTES);
    let mut pager = Pager::new(window);
    let mut slots = PinnedSlots::new();
    for page in &pages {
        pager.prefetch(domain, once(target::frame(*page)));
    }
    let before = pager.counters();
    tell("loop", &pages, |page| {
        black_box(target::frame(page));
        Ok(())
    })?;
    tell("pager", &pages, |page| {
        slots.clear();
        pager.pin(domain, &once(target::frame(page)), &mut slots)?;
        for slot in &slots {
            pager.unpin(*slot);
        }
        Ok(())
    })?;
    let first = pages.first().copied().unwrap_or_default();
    pager.prefetch(domain, (first..first + PAGES_AT_ONCE).map(target::frame));
    let before = Counters {
        misses: before.misses + u64::from(PAGES_AT_ONCE) - 1,
        map_calls: before.map_calls + 1,
        ..before
    };
    tell("pager-16", &pages, |_| {
        slots.clear();
        pager.pin(domain, &(first..first + PAGES_AT_ONCE).map(target::frame), &mut slots)?;
        for slot in &slots {
            pager.unpin(*slot);
        }
        Ok(())
    })?;
    let pager = Rc::new(RefCell::new(pager));
    let memory = ForeignMemory::new(pager.clone(), domain);
    tell("guest-memory", &pages, |page| {
        drop(black_box(memory.pin(&[target::region(page, PAGE_BYTES)])?));
        Ok(())
    })?;
    let after = pager.borrow().counters();
    if (after.misses, after.map_calls) != (before.misses, before.map_calls) {
        return Err("a page of the working set was not mapped".into());
    }
    leave(&mut pager.borrow_mut(), domain)
}

fn tell(
    way: &str,
    pages: &Vec<Page>,
    mut pin: impl FnMut(Page) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let begin = ticks();
    for _ in 0..ROUNDS {
        for page in pages {
            pin(*page)?;
        }
    }
    let total = ticks() - begin;
    log::info!("bench name=hit way={way} requests={} ticks={total} hz={}", ROUNDS * pages.len() as u64, hz());
    rest(TO_READ_A_LINE_NS);
    Ok(())
}
