//! What a request asks for, copied and checked: a row of operations, each begun when the one before is done.
//!
//! | request | operations |
//! |---|---|
//! | read | one read |
//! | write | one write; and a flush, if the guest did without the flush command (virtio 1.2, 5.2.6.2) |
//! | discard, write-zeroes | one for each range; and a flush likewise |
//! | get-id | none |

use super::{Pending, Requests};
use crate::block::Operation;
use crate::guest::{MemoryError, PinnedMemory};
use crate::virtio::blk::config::MAX_RANGES;
use crate::virtio::blk::request::{self, HEADER_BYTES, Header, RANGE_BYTES, RangeKind, Request, Status};
use crate::virtio::chain::Chain;
use alloc::boxed::Box;
use zerocopy::IntoBytes;

/// The ranges of a discard or write-zeroes, checked.
type Ranges = [request::SectorRange; MAX_RANGES as usize];

/// What a request asks for.
pub struct Row {
    /// The request as a whole.
    pub request: Request,
    /// Of a discard or write-zeroes.
    ranges: Option<Box<Ranges>>,
    /// The next operation.
    pub step: u32,
    /// Where its data begins in its buffers.
    pub data_at: u32,
}

impl Default for Row {
    fn default() -> Self {
        Self { request: Request::Flush, ranges: None, step: 0, data_at: 0 }
    }
}

impl Row {
    /// A read or write, or what needs no data.
    fn new(request: Request, chain: &Chain) -> Self {
        let data_at = match request {
            Request::Write { .. } => HEADER_BYTES,
            _ => chain.readable_bytes,
        };
        Self { request, data_at, ..Self::default() }
    }

    /// The next operation; with `write_through`, what changes the volume ends with a flush.
    pub fn next(&self, write_through: bool) -> Option<Operation> {
        let step = self.step;
        let flush_at = |end| (step == end && write_through).then_some(Operation::Flush);
        let range = |count| self.ranges.as_ref()?.get(step as usize).filter(|_| step < count);
        match self.request {
            Request::Read { sector, length } => (step == 0).then_some(Operation::Read { sector, length }),
            Request::Write { sector, length } if step == 0 => Some(Operation::Write { sector, length }),
            Request::Write { .. } => flush_at(1),
            Request::Flush => (step == 0).then_some(Operation::Flush),
            Request::GetId { .. } => None,
            Request::Discard { count } => range(count)
                .map(|range| Operation::Discard { sector: range.sector, sectors: range.sectors })
                .or_else(|| flush_at(count)),
            Request::WriteZeroes { count } => range(count)
                .map(|range| Operation::WriteZeroes { sector: range.sector, sectors: range.sectors })
                .or_else(|| flush_at(count)),
        }
    }
}

impl<P: PinnedMemory> Requests<P> {
    /// Copies and checks what a request that is pinned as a whole asks for.
    pub(super) fn read_whole(&mut self, chain: &Chain, pending: &mut Pending<P>) -> Result<(), Status> {
        pending.row = self.read_row(chain, &pending.pinned)?;
        match pending.row.request {
            Request::GetId { length } => {
                let id = self.id.get(..length as usize).unwrap_or_default();
                pending.pinned.write(pending.row.data_at, id).or_else(|error| self.refuse(&error))
            }
            Request::Discard { count } => {
                pending.row.ranges = Some(self.read_ranges(count, RangeKind::Discard, &pending.pinned)?);
                Ok(())
            }
            Request::WriteZeroes { count } => {
                pending.row.ranges =
                    Some(self.read_ranges(count, RangeKind::WriteZeroes, &pending.pinned)?);
                Ok(())
            }
            Request::Read { .. } | Request::Write { .. } | Request::Flush => Ok(()),
        }
    }

    /// Copies and checks what a request asks for that is too large to be pinned as a whole, or for which too few slots
    /// are free.
    pub(super) fn read_large(
        &mut self,
        chain: &Chain,
        header: Result<P, MemoryError>,
    ) -> Result<Row, Status> {
        let pinned = match header {
            Ok(pinned) => pinned,
            Err(error) => return self.refuse(&error),
        };
        match self.read_row(chain, &pinned)? {
            row @ Row { request: Request::Read { .. } | Request::Write { .. }, .. } => Ok(row),
            _ => self.refuse(&"too large for what it is"),
        }
    }

    /// Copies and checks the header; `pinned` starts with it.
    fn read_row(&mut self, chain: &Chain, pinned: &P) -> Result<Row, Status> {
        let Some(readable_data) = chain.readable_bytes.checked_sub(HEADER_BYTES) else {
            return self.refuse(&"request without a whole header");
        };
        let header = match chain.front {
            Some(front) => Header::from(front),
            None => {
                let mut header = Header::default();
                pinned.read(0, header.as_mut_bytes()).or_else(|error| self.refuse(&error))?;
                header
            }
        };
        let request = request::parse(header, readable_data, chain.writable_bytes - 1, self.geometry)?;
        Ok(Row::new(request, chain))
    }

    /// All ranges are checked before the first is carried out.
    fn read_ranges(&mut self, count: u32, kind: RangeKind, pinned: &P) -> Result<Box<Ranges>, Status> {
        let mut bytes = [0; (MAX_RANGES * RANGE_BYTES) as usize];
        let bytes = bytes.get_mut(..(count * RANGE_BYTES) as usize).unwrap_or_default();
        pinned.read(HEADER_BYTES, bytes).or_else(|error| self.refuse(&error))?;
        let mut ranges = Box::new(Ranges::default());
        for (range, raw) in ranges.iter_mut().zip(request::ranges(bytes)) {
            *range = request::parse_range(*raw, kind, self.geometry)?;
        }
        Ok(ranges)
    }
}
