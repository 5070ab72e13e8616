//! A run of a guest's bytes that lie in mapped pages, in pieces: what a pin is made of, whoever mapped the pages. Those that follow each
//! other where they are mapped, too, are one piece.

use core::ptr;

use drivers::guest::{MemoryError, PinnedMemory};
use smallvec::SmallVec;

use crate::arch::copy;

/// Bytes that lie one after the other.
#[derive(Clone, Copy)]
struct Piece {
    /// Offset of the first byte in the whole run.
    start: u32,
    /// Where it is mapped.
    address: usize,
}

/// The pieces of a run, in order.
pub struct Pieces {
    /// Ascending by `start`. Small requests need no memory from the heap.
    pieces: SmallVec<[Piece; 4]>,
    length: u32,
    /// What lies before this is mapped for reading.
    writable_from: u32,
}

impl Pieces {
    /// Room for so many pieces.
    ///
    /// # Errors
    /// There is no memory for them.
    #[inline]
    pub fn with_room_for(count: usize) -> Result<Self, MemoryError> {
        let mut pieces = SmallVec::new();
        super::reserve(&mut pieces, count)?;
        Ok(Self { pieces, length: 0, writable_from: 0 })
    }

    /// Adds `bytes` bytes to the end.
    ///
    /// # Safety
    /// They are mapped at `address` as long as the run lives: to be written, unless [`Self::protect`] is called next.
    #[inline]
    pub unsafe fn push(&mut self, address: usize, bytes: u32) {
        let follows = |last: &Piece| last.address + (self.length - last.start) as usize == address;
        if !self.pieces.last().is_some_and(follows) {
            self.pieces.push(Piece { start: self.length, address });
        }
        self.length += bytes;
    }

    /// Nothing of what the run has so far will be written.
    pub fn protect(&mut self) {
        self.writable_from = self.length;
    }

    /// Index of the piece that holds the byte at `offset`.
    #[inline]
    fn piece_at(&self, offset: u32) -> usize {
        let pieces = self.pieces.as_slice();
        let behind = if pieces.len() <= self.pieces.inline_size() {
            pieces.iter().position(|piece| piece.start > offset).unwrap_or(pieces.len())
        } else {
            pieces.partition_point(|piece| piece.start <= offset)
        };
        behind.saturating_sub(1)
    }

    /// Calls `visit(address, offset in the range, bytes)` for each stretch of `offset..offset + length` that lies in
    /// one piece.
    fn visit(
        &self,
        offset: u32,
        length: usize,
        mut visit: impl FnMut(usize, usize, usize),
    ) -> Result<(), MemoryError> {
        let length = u32::try_from(length).map_err(|_| MemoryError::OutOfRange)?;
        let end =
            offset.checked_add(length).filter(|end| *end <= self.length).ok_or(MemoryError::OutOfRange)?;
        if length == 0 {
            return Ok(());
        }
        let mut pieces = self.pieces.get(self.piece_at(offset)..).unwrap_or_default().iter().peekable();
        let mut at = offset;
        while at < end {
            let piece = pieces.next().ok_or(MemoryError::OutOfRange)?;
            let piece_end = pieces.peek().map_or(self.length, |next| next.start);
            let bytes = end.min(piece_end) - at;
            visit(piece.address + (at - piece.start) as usize, (at - offset) as usize, bytes as usize);
            at += bytes;
        }
        Ok(())
    }

    /// Address of the half-word at `offset`, which must be even and lie in one piece.
    fn half_word(&self, offset: u32) -> Result<*mut u16, MemoryError> {
        let bytes = size_of::<u16>() as u32;
        let index = self.piece_at(offset);
        let piece = self.pieces.get(index).ok_or(MemoryError::OutOfRange)?;
        let piece_end = self.pieces.get(index + 1).map_or(self.length, |next| next.start);
        let address = piece.address + (offset - piece.start) as usize;
        if offset.checked_add(bytes).is_none_or(|end| end > piece_end)
            || !address.is_multiple_of(align_of::<u16>())
        {
            return Err(MemoryError::OutOfRange);
        }
        Ok(ptr::with_exposed_provenance_mut(address))
    }

    /// A write to a page that is mapped for reading would never end: the processor tries again and again.
    fn check_writable(&self, offset: u32) -> Result<(), MemoryError> {
        if offset < self.writable_from { Err(MemoryError::OutOfRange) } else { Ok(()) }
    }
}

impl PinnedMemory for Pieces {
    fn len(&self) -> u32 {
        self.length
    }

    fn read(&self, offset: u32, out: &mut [u8]) -> Result<(), MemoryError> {
        self.visit(offset, out.len(), |address, position, bytes| {
            if let Some(out) = out.get_mut(position..position + bytes) {
                // SAFETY: the piece is mapped while we live (contract of `push`).
                unsafe { copy::from_shared(ptr::with_exposed_provenance(address), out) }
            }
        })
    }

    fn write(&self, offset: u32, data: &[u8]) -> Result<(), MemoryError> {
        self.check_writable(offset)?;
        self.visit(offset, data.len(), |address, position, bytes| {
            if let Some(data) = data.get(position..position + bytes) {
                // SAFETY: as in `read`, and mapped to be written, as nothing from `offset` on is protected.
                unsafe { copy::to_shared(ptr::with_exposed_provenance_mut(address), data) }
            }
        })
    }

    fn load_u16(&self, offset: u32) -> Result<u16, MemoryError> {
        let address = self.half_word(offset)?;
        // SAFETY: as in `read`, and aligned; volatile, as others may write it.
        Ok(u16::from_le(unsafe { address.read_volatile() }))
    }

    fn store_u16(&self, offset: u32, value: u16) -> Result<(), MemoryError> {
        self.check_writable(offset)?;
        let address = self.half_word(offset)?;
        // SAFETY: as in `write`, and aligned.
        unsafe { address.write_volatile(value.to_le()) };
        Ok(())
    }
}
