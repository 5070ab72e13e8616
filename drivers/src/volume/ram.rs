//! A volume in the driver domain's own RAM, which no guest can see: the sectors are a plain slice.

use crate::block::{Begun, Geometry, Operation, SECTOR_BYTES, Tag, Volume, VolumeError};
use crate::guest::PinnedMemory;
use core::ops::Range;

/// RAM that holds a volume's sectors: a boxed slice, the initrd's, or whatever the kernel makes.
pub trait Storage {
    /// All bytes.
    fn bytes(&self) -> &[u8];
    /// All bytes.
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Storage for T {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.as_mut()
    }
}

/// Most bytes in one read or write: what it copies keeps the loop from others.
const TRANSFER_BYTES_MAX: u32 = 256 << 10;
/// Most sectors zeroed by one operation, 256 KiB, for the same reason.
const ZERO_SECTORS_MAX: u32 = 512;

/// What volumes over `storage` look like. A tail that does not fill a sector is not part of the volume.
#[must_use]
pub fn geometry(storage: &dyn Storage, read_only: bool) -> Geometry {
    let bytes = u64::try_from(storage.bytes().len()).unwrap_or(u64::MAX);
    let block_bytes = u32::try_from(SECTOR_BYTES).unwrap_or(u32::MAX);
    Geometry {
        sectors: bytes / SECTOR_BYTES,
        block_bytes,
        read_only,
        has_cache: false,
        transfer_bytes_max: TRANSFER_BYTES_MAX,
        discard_sectors_max: ZERO_SECTORS_MAX,
        write_zeroes_sectors_max: ZERO_SECTORS_MAX,
    }
}

/// Carries out `operation` on `storage`; its data is at `offset` of `memory`.
///
/// # Errors
/// [`VolumeError`]; whether the volume may be written is for the caller to say.
pub fn execute<P: PinnedMemory>(
    storage: &mut dyn Storage,
    operation: Operation,
    memory: &P,
    offset: u32,
) -> Result<(), VolumeError> {
    match operation {
        Operation::Read { sector, length } => {
            let range = byte_range(sector, length.into())?;
            let from = storage.bytes().get(range).ok_or(VolumeError::OutOfRange)?;
            Ok(memory.write(offset, from)?)
        }
        Operation::Write { sector, length } => {
            let range = byte_range(sector, length.into())?;
            let to = storage.bytes_mut().get_mut(range).ok_or(VolumeError::OutOfRange)?;
            Ok(memory.read(offset, to)?)
        }
        Operation::Flush => Ok(()),
        Operation::Discard { sector, sectors } | Operation::WriteZeroes { sector, sectors } => {
            let range = byte_range(sector, u64::from(sectors) * SECTOR_BYTES)?;
            storage.bytes_mut().get_mut(range).ok_or(VolumeError::OutOfRange)?.fill(0);
            Ok(())
        }
    }
}

/// A volume that owns its storage and may be written.
#[derive(Debug)]
pub struct RamVolume<S>(pub S);

impl<S: Storage, P: PinnedMemory> Volume<P> for RamVolume<S> {
    fn geometry(&self) -> Geometry {
        geometry(&self.0, false)
    }

    fn begin(&mut self, _tag: Tag, operation: Operation, memory: &P, offset: u32) -> Begun {
        Begun::Done(execute(&mut self.0, operation, memory, offset))
    }
}

fn byte_range(sector: u64, bytes: u64) -> Result<Range<usize>, VolumeError> {
    let start = sector.checked_mul(SECTOR_BYTES);
    let end = start.and_then(|start| start.checked_add(bytes));
    match (start.map(usize::try_from), end.map(usize::try_from)) {
        (Some(Ok(start)), Some(Ok(end))) => Ok(start..end),
        _ => Err(VolumeError::OutOfRange),
    }
}
