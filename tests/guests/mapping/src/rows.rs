//! The rows of the table, one after the other.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::error::Error;
use core::ops::Range;

use kernel::bring_up::Foundation;
use kernel::limits::{PAGE_BYTES, VIEW_TABLES};
use kernel::mm::balloon::Balloon;
use kernel::mm::frames::{FrameAllocator, RamStorage};
use kernel::mm::physmap::{Unpopulated, Window};
use kernel::xen::DomainId;

use crate::measure::{BATCH_MAX, Row, measure};
use crate::target::{PAGES, meet};
use crate::ways::all_at_start::AllAtStart;
use crate::ways::grant_copy::GrantCopy;
use crate::ways::grant_map::GrantMap;
use crate::ways::guest_memory::Devices;
use crate::ways::nothing::Nothing;
use crate::ways::per_request::PerRequest;
use crate::ways::pinned::Pinned;
use crate::ways::view::{ENOUGH_TABLES, OnFault};
use crate::workload::{WINDOW_PAGES, Workload};
use crate::{clock, hits};

const WORKLOADS: [Workload; 3] = [Workload::Whole, Workload::Fitting, Workload::Sequential];
/// Bytes of a request, for comparisons by size; [`PAGE_BYTES`] is among the workloads.
const SIZES: [usize; 7] = [512, 1024, 2048, 8192, 16384, 32768, 65536];
/// Pages that a fault maps where it maps neighbours, too.
const FAULT_AROUND: usize = 16;
const REQUESTS_BY_SIZE: u32 = 1024;

/// What all rows are about.
struct Rows {
    domain: DomainId,
    /// Address space of the ways that have a bounded window.
    window: Range<usize>,
    /// Address space for all of the target's memory.
    whole: Range<usize>,
    /// For slots out of our own RAM.
    frames: Rc<RefCell<FrameAllocator>>,
    buffers: RamStorage,
}

/// Measures all.
pub fn measure_all(foundation: &Foundation) -> Result<(), Box<dyn Error>> {
    let domain = target_domain(foundation.machine.command_line);
    let domain = domain.ok_or("the command line has no target=NUMBER")?;
    let part = |pages| part(&foundation.unpopulated, pages).ok_or("the window is too small");
    let run = FrameAllocator::take(&foundation.frames, BATCH_MAX);
    let buffers =
        run.and_then(|run| RamStorage::zeroed(run, BATCH_MAX * PAGE_BYTES)).ok_or("no memory for buffers")?;
    let frames = foundation.frames.clone();
    let mut rows = Rows { domain, window: part(WINDOW_PAGES)?, whole: part(PAGES)?, frames, buffers };
    meet(domain, &rows.window)?;
    clock::rest(clock::TO_SETTLE_NS);

    hits::measure(domain, rows.unpopulated())?;
    for workload in WORKLOADS {
        rows.one_by_one(workload)?;
        rows.in_batches(workload)?;
    }
    for bytes in SIZES {
        rows.by_size(bytes)?;
    }
    Ok(())
}

impl Rows {
    /// Slots in unpopulated address space.
    fn unpopulated(&self) -> Window {
        self.slots_in(&self.window)
    }

    /// Slots out of our RAM.
    fn ballooned(&self) -> Window {
        self.slots_in(&(self.window.start..self.window.start))
    }

    /// Slots in unpopulated address space, and out of our RAM where that is too small.
    fn slots_in(&self, unpopulated: &Range<usize>) -> Window {
        let balloon = Balloon::new(self.frames.clone());
        Window::new(WINDOW_PAGES as usize, Unpopulated::new(unpopulated), balloon)
    }

    /// Ways that serve one request after the other, whatever waits behind it.
    fn one_by_one(&mut self, workload: Workload) -> Result<(), Box<dyn Error>> {
        let domain = self.domain;
        let row = |way| row(way, workload, 1);
        measure(Row { verified: false, ..row("nothing") }, &mut self.buffers, || Ok(Nothing::new()))?;
        measure(row("map-all"), &mut self.buffers, || AllAtStart::new(domain, &self.whole))?;
        for (way, fault_around, tables) in [
            ("view", 1, ENOUGH_TABLES),
            ("view-few-tables", 1, VIEW_TABLES),
            ("view-around", FAULT_AROUND, ENOUGH_TABLES),
        ] {
            let window = self.unpopulated();
            measure(row(way), &mut self.buffers, || OnFault::new(domain, window, fault_around, tables))?;
        }
        Ok(())
    }

    /// Ways that can serve requests together: one alone, and as many as the disk path drains from a queue at once.
    fn in_batches(&mut self, workload: Workload) -> Result<(), Box<dyn Error>> {
        let domain = self.domain;
        for batch in [1, BATCH_MAX] {
            let row = |way| row(way, workload, batch);
            measure(row("map-per-request"), &mut self.buffers, || Ok(PerRequest::new(domain, &self.window)))?;
            let window = self.unpopulated();
            measure(row("pin"), &mut self.buffers, || Ok(Pinned::new(domain, window)))?;
            let window = self.unpopulated();
            measure(row("guest-memory"), &mut self.buffers, || Ok(Devices::new(domain, window)))?;
            let window = self.ballooned();
            measure(row("pin-balloon"), &mut self.buffers, || Ok(Pinned::new(domain, window)))?;
            measure(row("grant-map"), &mut self.buffers, || Ok(GrantMap::new(domain, &self.window)))?;
            measure(row("grant-copy"), &mut self.buffers, || Ok(GrantCopy::new(domain)))?;
        }
        Ok(())
    }

    /// Ways whose cost depends on how many bytes a request has.
    fn by_size(&mut self, bytes: usize) -> Result<(), Box<dyn Error>> {
        let domain = self.domain;
        let row = |way| Row { bytes, requests: REQUESTS_BY_SIZE, ..row(way, Workload::Whole, 1) };
        measure(row("map-all"), &mut self.buffers, || AllAtStart::new(domain, &self.whole))?;
        measure(row("grant-map"), &mut self.buffers, || Ok(GrantMap::new(domain, &self.window)))?;
        measure(row("grant-copy"), &mut self.buffers, || Ok(GrantCopy::new(domain)))
    }
}

fn row(way: &'static str, workload: Workload, batch: usize) -> Row {
    Row { way, workload, batch, bytes: PAGE_BYTES, requests: workload.requests(), verified: true }
}

/// The first `pages` of a range.
fn part(range: &Range<usize>, pages: u32) -> Option<Range<usize>> {
    let part = range.start..range.start + pages as usize * PAGE_BYTES;
    (part.end <= range.end).then_some(part)
}

fn target_domain(command_line: &str) -> Option<DomainId> {
    let word = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("target="))?;
    word.parse().ok().map(DomainId)
}
