//! How a row is measured: the ticks of its requests alone. What is read is verified between two of them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::error::Error;

use drivers::volume::ram::Storage;
use kernel::limits::PAGE_BYTES;
use kernel::mm::frames::RamStorage;

use crate::clock::{TO_READ_A_LINE_NS, drift, hz, rest, ticks};
use crate::target::{self, PAGES};
use crate::ways::{Counts, Way};
use crate::workload::{Pages, Touched, Workload};

/// Most requests that are drained in one go.
pub const BATCH_MAX: usize = 32;

/// How a row is measured.
#[derive(Clone, Copy)]
pub struct Row {
    /// What the way is called.
    pub way: &'static str,
    pub workload: Workload,
    /// Requests that are drained in one go.
    pub batch: usize,
    /// Bytes read from the start of a page on, or of several.
    pub bytes: usize,
    pub requests: u32,
    /// Whether what was read is the target's.
    pub verified: bool,
}

/// Measures a way, which `make` sets up, and tells the result on the console.
pub fn measure<W: Way>(
    row: Row,
    buffers: &mut RamStorage,
    make: impl FnOnce() -> Result<W, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let begin = ticks();
    let mut way = make()?;
    let setup_ticks = ticks() - begin;
    for pages in Pages::warm_up(row.workload, row.bytes).chunks(row.batch) {
        way.read(pages, &mut parts(buffers, row.bytes))?;
    }
    let before = way.counts();
    let mut touched = Touched::new();
    let mut pages = Pages::new(row.workload, row.bytes);
    let mut total = 0;
    for _ in 0..row.requests as usize / row.batch {
        let batch: Vec<_> = pages.by_ref().take(row.batch).collect();
        let mut parts = parts(buffers, row.bytes);
        drift(batch.iter().sum());
        let begin = ticks();
        way.read(&batch, &mut parts)?;
        total += ticks() - begin;
        for (page, part) in batch.iter().zip(parts) {
            touched.add(*page);
            if row.verified && !target::holds(*page, part) {
                return Err(alloc::format!("{}: page {page} does not hold what it should", row.way).into());
            }
            part.fill(0);
        }
    }
    let Counts { misses, faults, hypercalls, flushes, own_flushes } = way.counts() - before;
    log::info!(
        "bench name=row way={} workload={} batch={} bytes={} requests={} ticks={total} hz={} misses={misses} faults={faults} hypercalls={hypercalls} \
         flushes={flushes} own_flushes={own_flushes} distinct={} pages={PAGES} setup_ticks={setup_ticks}",
        row.way,
        row.workload,
        row.batch,
        row.bytes,
        row.requests,
        hz(),
        touched.count(),
    );
    way.end()?;
    rest(TO_READ_A_LINE_NS);
    Ok(())
}

/// One part of `buffers` for each request of a batch.
fn parts(buffers: &mut RamStorage, bytes: usize) -> Vec<&mut [u8]> {
    let distance = bytes.next_multiple_of(PAGE_BYTES);
    buffers
        .bytes_mut()
        .chunks_exact_mut(distance)
        .take(BATCH_MAX)
        .filter_map(|part| part.get_mut(..bytes))
        .collect()
}
