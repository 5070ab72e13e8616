//! The requests drained from a queue in one go, so that the pages of all of them are mapped by one hypercall.
//!
//! Bounded in requests, in buffers and in bytes: a batch never grows its memory after it was made, and a guest
//! cannot keep the loop from the others for long.

use super::chain::{
    Chain, Descriptor, Head, LARGEST_TABLE_BYTES, MAX_SEGMENTS, NOTHING, TableStart, WholeTable, walk,
};
use super::queue::{Heads, MAX_BATCH, Queue, QueueError, Used};
use crate::guest::{GuestMemory, GuestRegion};
use alloc::vec::Vec;

/// A batch takes no further chain once it has this many buffers; then the longest chain still fits.
const ENOUGH_REGIONS: usize = MAX_SEGMENTS;

/// Most chains in a batch: [`MAX_BATCH`] are taken at a time.
pub const MAX_CHAINS: usize = 2 * MAX_BATCH;

/// How much a batch takes from a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most chains; there are never more than [`MAX_BATCH`] at a time.
    pub chains: u16,
    /// No further chain once those taken have this many bytes.
    pub bytes: u32,
    /// A chain with more bytes is the last one.
    pub large_bytes: u32,
}

/// Chains taken from a queue, and what is to be told of them. Reused: no allocation per request.
#[derive(Debug)]
pub struct Batch {
    heads: Heads,
    /// The first descriptor of each chain.
    firsts: Vec<(u16, Descriptor)>,
    /// The tables that these name.
    tables: Vec<GuestRegion>,
    /// What was copied of them together.
    starts: Vec<TableStart>,
    /// Work space for a table whose chain leaps about.
    whole_table: WholeTable,
    /// The chains, in the order in which the guest made them available.
    pub chains: Vec<Chain>,
    /// The buffers of all of them.
    pub regions: Vec<GuestRegion>,
    /// The chains done, to be given back together.
    pub done: Vec<Used>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            heads: Heads::new(),
            firsts: Vec::with_capacity(MAX_BATCH),
            tables: Vec::with_capacity(MAX_BATCH),
            starts: alloc::vec![TableStart::default(); MAX_BATCH],
            whole_table: WholeTable::default(),
            chains: Vec::with_capacity(MAX_CHAINS),
            regions: Vec::with_capacity(ENOUGH_REGIONS + MAX_SEGMENTS),
            done: Vec::with_capacity(3 * MAX_BATCH),
        }
    }
}

impl Batch {
    /// Takes chains from the queue, no more than wait there, copies their first bytes and announces their pages, but not those
    /// of a large one: it will not be mapped at once but in pieces. What is in [`Self::done`] stays.
    ///
    /// # Errors
    /// A head does not exist, and the batch is empty, or a chain is malformed, and the batch holds those before it.
    pub fn fill<M: GuestMemory>(
        &mut self,
        queue: &mut Queue<M::Pinned>,
        memory: &M,
        bounds: Bounds,
    ) -> Result<(), QueueError> {
        self.clear();
        let taken = self.take(queue, memory, bounds);
        let small = self.chains.iter().take_while(|chain| chain.bytes() <= bounds.large_bytes);
        let announced = small.map(|chain| chain.regions.end).last().unwrap_or(0);
        // A single chain is mapped as well by pinning it.
        if let (2.., Some(regions)) = (self.chains.len(), self.regions.get(..announced)) {
            memory.prefetch(regions);
        }
        Chain::read_together(memory, &mut self.chains, &self.regions);
        taken
    }

    /// Takes chains from the queue, no more than wait there, behind those that the batch has, until it has [`MAX_CHAINS`] or
    /// many buffers. Says nothing of them to the guest's memory.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub fn take<M: GuestMemory>(
        &mut self,
        queue: &mut Queue<M::Pinned>,
        memory: &M,
        bounds: Bounds,
    ) -> Result<(), QueueError> {
        let had = self.chains.len();
        let room = u16::try_from(MAX_CHAINS.saturating_sub(had)).unwrap_or(0);
        queue.peek(bounds.chains.min(room), &mut self.heads)?;
        let walked = self.walk_all(queue, memory, bounds);
        queue.take(self.heads.get(..self.chains.len() - had).unwrap_or_default());
        walked
    }

    /// Forgets all chains.
    pub fn clear(&mut self) {
        self.chains.clear();
        self.regions.clear();
    }

    /// Forgets the first `count` chains.
    pub fn forget(&mut self, count: usize) {
        let regions =
            self.chains.drain(..count.min(self.chains.len())).next_back().map_or(0, |last| last.regions.end);
        self.regions.drain(..regions.min(self.regions.len()));
        for chain in &mut self.chains {
            chain.regions = chain.regions.start - regions..chain.regions.end - regions;
        }
    }

    fn walk_all<M: GuestMemory>(
        &mut self,
        queue: &Queue<M::Pinned>,
        memory: &M,
        bounds: Bounds,
    ) -> Result<(), QueueError> {
        self.firsts.clear();
        self.tables.clear();
        for head in &self.heads {
            let first = queue.descriptor(*head)?;
            self.tables.extend(table_of(&first));
            self.firsts.push((*head, first));
        }
        if self.tables.len() > 1 {
            memory.prefetch(&self.tables);
        }
        TableStart::read_together(memory, &self.tables, &mut self.starts);
        let mut starts = self.starts.iter();
        let mut bytes = 0_u32;
        for (index, descriptor) in &self.firsts {
            if bytes >= bounds.bytes || self.regions.len() > ENOUGH_REGIONS {
                break;
            }
            let start = table_of(descriptor).and_then(|_| starts.next());
            let head = Head { index: *index, descriptor: *descriptor, table: start.unwrap_or(&NOTHING) };
            let chain = walk(queue, memory, &head, &mut self.regions, &mut self.whole_table)?;
            bytes = bytes.saturating_add(chain.bytes());
            let is_large = chain.bytes() > bounds.large_bytes;
            self.chains.push(chain);
            if is_large {
                break;
            }
        }
        Ok(())
    }
}

/// The table that a chain's first descriptor refers to, if a well-formed chain can have it.
fn table_of(first: &Descriptor) -> Option<GuestRegion> {
    first.table().filter(|table| table.length <= LARGEST_TABLE_BYTES)
}
