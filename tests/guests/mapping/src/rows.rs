//! The rows of the table, one after the other.

use alloc::boxed::Box;
use core::error::Error;
use core::ops::Range;

use kernel::bring_up::Foundation;
use kernel::limits::PAGE_BYTES;
use kernel::mm::frames::RamStorage;
use kernel::xen::DomainId;

use crate::measure::{BATCH_MAX, Row, measure};
use crate::target::{PAGES, meet};
use crate::workload::{WINDOW_PAGES, Workload};
use crate::{clock, hits, ways};

const WORKLOADS: [Workload; 3] = [Workload::Whole, Workload::Fitting, Workload::Sequential];
/// One by one, and as the disk path drains a queue.
const BATCHES: [usize; 2] = [1, 32];

/// Bytes of a request, for comparisons by size.
const SIZES: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
const REQUESTS_BY_SIZE: u32 = 1024;

/// Measures all.
pub fn measure_all(foundation: &Foundation) -> Result<(), Box<dyn Error>> {
    let domain =
        target_domain(foundation.machine.command_line).ok_or("the command line has no target=NUMBER")?;
    let all = foundation.window.clone();
    let window = part(&all, WINDOW_PAGES).ok_or("the window is too small")?;
    let whole = part(&all, PAGES).ok_or("the window is too small for all of the target's memory")?;
    meet(domain, &window)?;
    clock::rest(clock::TO_SETTLE_NS);
    let mut buffers = RamStorage::zeroed(&foundation.frames, (BATCH_MAX * PAGE_BYTES) as u64)
        .ok_or("no memory for buffers")?;

    hits::measure(domain, &window)?;
    for workload in WORKLOADS {
        let row = |way, batch| Row {
            way,
            workload,
            batch,
            bytes: PAGE_BYTES,
            requests: workload.requests(),
            verified: true,
        };
        let buffers = &mut buffers;
        measure(Row { verified: false, ..row("nothing", 1) }, buffers, ways::nothing::Nothing::new)?;
        for batch in BATCHES {
            measure(row("map-per-request", batch), buffers, || {
                ways::per_request::PerRequest::new(domain, &window)
            })?;
        }
        measure(row("map-all", 1), buffers, || ways::all_at_start::AllAtStart::new(domain, &whole))?;
        for batch in BATCHES {
            measure(row("pin", batch), buffers, || ways::pinned::Pinned::new(domain, &window))?;
            measure(row("guest-memory", batch), buffers, || {
                ways::guest_memory::Devices::new(domain, &window)
            })?;
        }
    }
    for bytes in SIZES.into_iter().filter(|bytes| *bytes != PAGE_BYTES) {
        let row = |way| Row {
            way,
            workload: Workload::Whole,
            batch: 1,
            bytes,
            requests: REQUESTS_BY_SIZE,
            verified: true,
        };
        let buffers = &mut buffers;
        measure(row("map-all"), buffers, || ways::all_at_start::AllAtStart::new(domain, &whole))?;
    }
    Ok(())
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
