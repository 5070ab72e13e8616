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

/// A batch takes no further chain once it has this many bytes.
const ENOUGH_BYTES: u32 = 1 << 20;

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
            chains: Vec::with_capacity(MAX_BATCH),
            regions: Vec::with_capacity(ENOUGH_REGIONS + MAX_SEGMENTS),
            done: Vec::with_capacity(3 * MAX_BATCH),
        }
    }
}

impl Batch {
    /// Takes at most `limit` chains from the queue, no more than wait there, and announces their pages. One with more
    /// than `large_bytes` is the last one: it will not be mapped at once but in pieces. What is in
    /// [`Self::done`] stays.
    ///
    /// # Errors
    /// A head does not exist, and the batch is empty, or a chain is malformed, and the batch holds those before it.
    pub fn fill<M: GuestMemory>(
        &mut self,
        queue: &mut Queue<M::Pinned>,
        memory: &M,
        limit: u16,
        large_bytes: u32,
    ) -> Result<(), QueueError> {
        self.chains.clear();
        self.regions.clear();
        queue.peek(limit, &mut self.heads)?;
        let walked = self.walk_all(queue, memory, large_bytes);
        queue.take(u16::try_from(self.chains.len()).unwrap_or(0));
        let small = self.chains.iter().take_while(|chain| chain.bytes() <= large_bytes);
        let announced = small.map(|chain| chain.regions.end).last().unwrap_or(0);
        // A single chain is mapped as well by pinning it.
        if let (2.., Some(regions)) = (self.chains.len(), self.regions.get(..announced)) {
            memory.prefetch(regions);
        }
        Chain::read_together(memory, &mut self.chains, &self.regions);
        walked
    }

    fn walk_all<M: GuestMemory>(
        &mut self,
        queue: &Queue<M::Pinned>,
        memory: &M,
        large_bytes: u32,
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
            if bytes >= ENOUGH_BYTES || self.regions.len() > ENOUGH_REGIONS {
                break;
            }
            let start = table_of(descriptor).and_then(|_| starts.next());
            let head = Head { index: *index, descriptor: *descriptor, table: start.unwrap_or(&NOTHING) };
            let chain = walk(queue, memory, &head, &mut self.regions, &mut self.whole_table)?;
            bytes = bytes.saturating_add(chain.bytes());
            let is_large = chain.bytes() > large_bytes;
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
