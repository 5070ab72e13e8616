//! One descriptor chain (virtio 1.2, 2.7.5) to guest regions: walked once, each descriptor copied once, checked.
//!
//! What comes out proves only that the chain is well-formed; whether guest memory is there shows when the regions
//! are pinned. Bounded: by [`MAX_SEGMENTS`] descriptors, tables included, whatever `next` says.

use super::queue::{MAX_SIZE, Queue, QueueError};
use crate::guest::{GuestAddress, GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use alloc::vec::Vec;
use core::ops::Range;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// Most descriptors in a chain, indirect ones included.
pub const MAX_SEGMENTS: usize = MAX_SIZE as usize;

const DESCRIPTOR_BYTES: u32 = 16;
/// Entries of an indirect table that are copied together. Most tables are not longer.
const ENTRIES_COPIED: u16 = 8;

/// The largest indirect table that a well-formed chain has.
pub const LARGEST_TABLE_BYTES: u32 = MAX_SIZE as u32 * DESCRIPTOR_BYTES;

bitflags::bitflags! {
    /// Flags of a descriptor (virtio 1.2, 2.7.5).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DescriptorFlags: u16 {
        /// The chain goes on at `next`.
        const NEXT = 1;
        /// The device may write the buffer; else it may read it.
        const WRITE = 2;
        /// The buffer is a table of descriptors.
        const INDIRECT = 4;
        // A driver may set what we do not know.
        const _ = !0;
    }
}

/// Our copy of one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The buffer, or the table.
    pub region: GuestRegion,
    /// How to take it.
    pub flags: DescriptorFlags,
    /// Where the chain goes on, if it does.
    pub next: u16,
}

#[derive(Clone, Copy, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes)]
#[repr(C)]
struct RawDescriptor {
    address: U64,
    length: U32,
    flags: U16,
    next: U16,
}

const _: () = assert!(size_of::<RawDescriptor>() == DESCRIPTOR_BYTES as usize);

impl Descriptor {
    /// Copies entry `index` of a pinned table.
    ///
    /// # Errors
    /// The table has no such entry.
    #[inline]
    pub fn read<P: PinnedMemory>(table: &P, index: u16) -> Result<Self, QueueError> {
        let mut raw = RawDescriptor::default();
        table.read(u32::from(index) * DESCRIPTOR_BYTES, raw.as_mut_bytes())?;
        Ok(raw.into())
    }

    /// The table that the descriptor refers to, if it is indirect.
    #[must_use]
    pub fn table(&self) -> Option<GuestRegion> {
        self.flags.contains(DescriptorFlags::INDIRECT).then_some(self.region)
    }
}

impl From<RawDescriptor> for Descriptor {
    fn from(raw: RawDescriptor) -> Self {
        Self {
            region: GuestRegion { address: GuestAddress(raw.address.get()), length: raw.length.get() },
            flags: DescriptorFlags::from_bits_retain(raw.flags.get()),
            next: raw.next.get(),
        }
    }
}

/// Entries of an indirect table.
type Entries = [RawDescriptor; ENTRIES_COPIED as usize];

/// The first entries of an indirect table, for a chain that will be walked.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableStart {
    entries: Entries,
    /// How many of them are copied.
    held: u16,
}

/// Nothing copied.
pub static NOTHING: TableStart =
    TableStart { entries: [RawDescriptor::EMPTY; ENTRIES_COPIED as usize], held: 0 };

impl RawDescriptor {
    const EMPTY: Self = Self { address: U64::ZERO, length: U32::ZERO, flags: U16::ZERO, next: U16::ZERO };
}

impl TableStart {
    /// Copies the first entries of all `tables`, each to its place in `starts`, where that costs less together.
    pub fn read_together<M: GuestMemory>(memory: &M, tables: &[GuestRegion], starts: &mut [Self]) {
        let reads = starts.iter_mut().zip(tables).map(|(start, table)| {
            let entries = (table.length / DESCRIPTOR_BYTES).min(ENTRIES_COPIED.into());
            start.held = u16::try_from(entries).unwrap_or(0);
            let part = start.entries.get_mut(..entries as usize).unwrap_or_default();
            (table.address, part.as_mut_bytes())
        });
        if !memory.read_together(reads) {
            starts.iter_mut().for_each(|start| start.held = 0);
        }
    }
}

/// Our copy of an indirect table: of a part of it, as most chains go straight on there, or of all, when this one does not.
struct Table<'a> {
    region: GuestRegion,
    entries: u16,
    /// Which of them are copied.
    held: Range<u16>,
    /// Where they are at first, ...
    start: &'a TableStart,
    /// ... and after a copy; after more they are in `whole`.
    copied: Entries,
    copies: usize,
    whole: &'a mut WholeTable,
}

/// Room for the largest table.
#[derive(Debug)]
pub struct WholeTable(Vec<RawDescriptor>);

impl Default for WholeTable {
    fn default() -> Self {
        Self(alloc::vec![RawDescriptor::default(); MAX_SIZE.into()])
    }
}

impl<'a> Table<'a> {
    fn new(
        region: GuestRegion,
        start: &'a TableStart,
        whole: &'a mut WholeTable,
    ) -> Result<Self, QueueError> {
        let entries = match u16::try_from(region.length / DESCRIPTOR_BYTES) {
            Ok(entries @ 1..=MAX_SIZE) if region.length.is_multiple_of(DESCRIPTOR_BYTES) => entries,
            _ => return Err(QueueError::BadIndirect),
        };
        let copied = NOTHING.entries;
        Ok(Self { region, entries, held: 0..start.held, start, copied, copies: 0, whole })
    }

    /// Entry `index`; those behind it are copied with it, and then all: no table takes more than three copies, however its
    /// chain leaps about.
    fn descriptor<M: GuestMemory>(&mut self, memory: &M, index: u16) -> Result<Descriptor, QueueError> {
        if index >= self.entries {
            return Err(QueueError::NoSuchDescriptor(index));
        }
        if !self.held.contains(&index) {
            self.copies += 1;
            self.held = match self.copies {
                1 => index..self.entries.min(index.saturating_add(ENTRIES_COPIED)),
                _ => 0..self.entries,
            };
            let part: &mut [RawDescriptor] = match self.copies {
                1 => &mut self.copied,
                _ => &mut self.whole.0,
            };
            let part = part.get_mut(..self.held.len()).unwrap_or_default();
            let start = u64::from(self.held.start) * u64::from(DESCRIPTOR_BYTES);
            let address = self.region.address.0.checked_add(start);
            let address = GuestAddress(address.ok_or(MemoryError::NotMapped(self.region.address.0))?);
            memory.read(address, part.as_mut_bytes())?;
        }
        let part: &[RawDescriptor] = match self.copies {
            0 => &self.start.entries,
            1 => &self.copied,
            _ => &self.whole.0,
        };
        let raw = part.get(usize::from(index - self.held.start)).copied().unwrap_or_default();
        Ok(raw.into())
    }
}

/// A well-formed chain. Its bytes are numbered through: first the readable ones, then the writable ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The descriptor that it starts at, by which the driver knows it.
    pub head: u16,
    /// Its buffers, in the list that the walk appended to.
    pub regions: Range<usize>,
    /// Bytes that the device may read.
    pub readable_bytes: u32,
    /// Bytes that the device may write. The sum of both fits too.
    pub writable_bytes: u32,
    /// Its first bytes, if they were copied already.
    pub front: Option<[u8; FRONT_BYTES]>,
}

/// The bytes that device models read of a request before all else: a block request's header.
pub const FRONT_BYTES: usize = 16;

impl Chain {
    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.readable_bytes.saturating_add(self.writable_bytes)
    }

    /// Copies the first bytes of all `chains`, which have their buffers in `regions`, where that costs less together.
    pub fn read_together<M: GuestMemory>(memory: &M, chains: &mut [Self], regions: &[GuestRegion]) {
        let reads = chains.iter_mut().filter_map(|chain| {
            let first = regions.get(chain.regions.start)?;
            let length = first.length.min(chain.readable_bytes) as usize;
            (length >= FRONT_BYTES)
                .then(|| (first.address, chain.front.insert([0; FRONT_BYTES]).as_mut_slice()))
        });
        if !memory.read_together(reads) {
            chains.iter_mut().for_each(|chain| chain.front = None);
        }
    }
}

/// The first descriptor of a chain, copied.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// By which the driver knows the chain.
    pub index: u16,
    /// The descriptor.
    pub descriptor: Descriptor,
    /// If that is indirect, what was copied of its table already.
    pub table: &'a TableStart,
}

/// Walks the chain from `head` on, and appends its non-empty buffers, at most [`MAX_SEGMENTS`], to `regions`.
///
/// # Errors
/// The chain is malformed; nothing is appended then.
pub fn walk<M: GuestMemory>(
    queue: &Queue<M::Pinned>,
    memory: &M,
    head: &Head<'_>,
    regions: &mut Vec<GuestRegion>,
    whole_table: &mut WholeTable,
) -> Result<Chain, QueueError> {
    let first = regions.len();
    let mut walk = Walk { regions, descriptors: 0, readable_bytes: 0, writable_bytes: 0 };
    let walked = walk.direct(queue, memory, head, whole_table);
    let Walk { readable_bytes, writable_bytes, .. } = walk;
    match walked {
        Ok(()) => Ok(Chain {
            head: head.index,
            regions: first..regions.len(),
            readable_bytes,
            writable_bytes,
            front: None,
        }),
        Err(error) => {
            regions.truncate(first);
            Err(error)
        }
    }
}

/// Puts the part of `regions` that holds the bytes from `start` on, `length` of them, into `part`.
#[inline]
pub fn slice(regions: &[GuestRegion], start: u32, length: u32, part: &mut Vec<GuestRegion>) {
    part.clear();
    let (mut skip, mut left) = (start, length);
    for region in regions {
        let kept = region.length.saturating_sub(skip).min(left);
        if kept > 0 {
            let address = GuestAddress(region.address.0.saturating_add(skip.into()));
            part.push(GuestRegion { address, length: kept });
        }
        skip = skip.saturating_sub(region.length);
        left -= kept;
    }
}

struct Walk<'a> {
    regions: &'a mut Vec<GuestRegion>,
    descriptors: usize,
    readable_bytes: u32,
    writable_bytes: u32,
}

impl Walk<'_> {
    /// Follows the queue's own table. An indirect descriptor may only come last (virtio 1.2, 2.7.5.3).
    fn direct<M: GuestMemory>(
        &mut self,
        queue: &Queue<M::Pinned>,
        memory: &M,
        head: &Head<'_>,
        whole: &mut WholeTable,
    ) -> Result<(), QueueError> {
        let mut descriptor = head.descriptor;
        let mut start = head.table;
        loop {
            if let Some(table) = descriptor.table() {
                let chained = descriptor.flags.contains(DescriptorFlags::NEXT);
                if chained || !queue.has_indirect() {
                    return Err(QueueError::BadIndirect);
                }
                return self.indirect(memory, table, start, whole);
            }
            self.add(&descriptor)?;
            if !descriptor.flags.contains(DescriptorFlags::NEXT) {
                return Ok(());
            }
            descriptor = queue.descriptor(descriptor.next)?;
            start = &NOTHING;
        }
    }

    fn indirect<M: GuestMemory>(
        &mut self,
        memory: &M,
        table: GuestRegion,
        start: &TableStart,
        whole: &mut WholeTable,
    ) -> Result<(), QueueError> {
        let mut table = Table::new(table, start, whole)?;
        let mut index = 0;
        loop {
            let descriptor = table.descriptor(memory, index)?;
            if descriptor.table().is_some() {
                return Err(QueueError::BadIndirect);
            }
            self.add(&descriptor)?;
            if !descriptor.flags.contains(DescriptorFlags::NEXT) {
                return Ok(());
            }
            index = descriptor.next;
        }
    }

    /// Adds a buffer; ends endless chains. Empty buffers are legal, count against the limit, and leave no region.
    #[inline]
    fn add(&mut self, descriptor: &Descriptor) -> Result<(), QueueError> {
        self.descriptors += 1;
        if self.descriptors > MAX_SEGMENTS {
            return Err(QueueError::ChainTooLong);
        }
        let GuestRegion { address, length } = descriptor.region;
        let Some(last) = length.checked_sub(1) else { return Ok(()) };
        let sum =
            self.readable_bytes.checked_add(self.writable_bytes).and_then(|sum| sum.checked_add(length));
        if sum.is_none() || address.0.checked_add(last.into()).is_none() {
            return Err(QueueError::LengthWraps);
        }
        if descriptor.flags.contains(DescriptorFlags::WRITE) {
            self.writable_bytes += length;
        } else if self.writable_bytes == 0 {
            self.readable_bytes += length;
        } else {
            return Err(QueueError::ReadableAfterWritable);
        }
        self.regions.push(descriptor.region);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn region(address: u64, length: u32) -> GuestRegion {
        GuestRegion { address: GuestAddress(address), length }
    }

    #[test]
    fn slice_cuts_the_first_and_the_last_region() {
        let mut part = Vec::new();
        slice(&[region(0x1000, 16), region(0x2000, 512), region(0x3000, 512)], 20, 600, &mut part);
        assert_eq!(part, vec![region(0x2004, 508), region(0x3000, 92)]);
    }

    #[test]
    fn slice_past_the_end_is_empty() {
        let mut part = Vec::new();
        slice(&[region(0x1000, 16)], 16, 4, &mut part);
        assert_eq!(part, vec![]);
    }
}
