//! virtio-blk requests (virtio 1.2, 5.2.6): bytes to a checked [`Request`], nothing carried out.
//!
//! A request's bytes, however the driver splits them over buffers: a header of 16 bytes, the data that the device
//! reads, the data that it writes, and, last, one byte for the status.

use super::config::{MAX_DATA_BYTES, MAX_RANGES};
use crate::block::{Geometry, SECTOR_BYTES};
use crate::virtio::chain::FRONT_BYTES;
use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

/// Bytes of the header.
pub const HEADER_BYTES: u32 = 16;
/// Bytes of one range of a discard or write-zeroes request.
pub const RANGE_BYTES: u32 = 16;
/// Bytes that VIRTIO_BLK_T_GET_ID writes.
pub const ID_BYTES: u32 = 20;

pub(crate) const T_IN: u32 = 0;
pub(crate) const T_OUT: u32 = 1;
pub(crate) const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
pub(crate) const T_DISCARD: u32 = 11;
pub(crate) const T_WRITE_ZEROES: u32 = 13;

/// Flag of a range: a write-zeroes may deallocate it.
const RANGE_UNMAP: u32 = 1;

/// The status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// VIRTIO_BLK_S_OK
    Ok = 0,
    /// VIRTIO_BLK_S_IOERR
    IoError = 1,
    /// VIRTIO_BLK_S_UNSUPP
    Unsupported = 2,
}

/// The header as it lies in guest memory.
#[derive(Clone, Copy, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Header {
    /// What to do.
    pub kind: U32,
    /// Unused.
    pub reserved: U32,
    /// First sector of a read or write.
    pub sector: U64,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES as usize && FRONT_BYTES == size_of::<Header>());

impl From<[u8; FRONT_BYTES]> for Header {
    fn from(bytes: [u8; FRONT_BYTES]) -> Self {
        zerocopy::transmute!(bytes)
    }
}

/// A request whose data lies inside its buffers, and whose sectors lie inside the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fill the writable data from the volume.
    Read {
        /// First sector.
        sector: u64,
        /// Bytes.
        length: u32,
    },
    /// Write the readable data to the volume.
    Write {
        /// First sector.
        sector: u64,
        /// Bytes.
        length: u32,
    },
    /// Make durable what was written.
    Flush,
    /// Write the volume's name, cut to `length` bytes.
    GetId {
        /// Bytes, at most [`ID_BYTES`].
        length: u32,
    },
    /// Discard `count` ranges.
    Discard {
        /// Ranges that the readable data holds, at most [`MAX_RANGES`].
        count: u32,
    },
    /// Zero `count` ranges.
    WriteZeroes {
        /// Ranges that the readable data holds, at most [`MAX_RANGES`].
        count: u32,
    },
}

impl Request {
    /// Data bytes that the guest finds written once this is done.
    #[must_use]
    pub fn bytes_told(self) -> u32 {
        match self {
            Self::Read { length, .. } | Self::GetId { length } => length,
            Self::Write { .. } | Self::Flush | Self::Discard { .. } | Self::WriteZeroes { .. } => 0,
        }
    }
}

/// Checks a request: its header, and how many bytes follow it in its buffers (the status byte not counted).
///
/// # Errors
/// The status to answer with.
pub fn parse(
    header: Header,
    readable_data: u32,
    writable_data: u32,
    geometry: Geometry,
) -> Result<Request, Status> {
    let sector = header.sector.get();
    match header.kind.get() {
        T_IN => {
            check_transfer(sector, writable_data, geometry)?;
            Ok(Request::Read { sector, length: writable_data })
        }
        T_OUT => {
            check_writable(geometry)?;
            check_transfer(sector, readable_data, geometry)?;
            Ok(Request::Write { sector, length: readable_data })
        }
        T_FLUSH => Ok(Request::Flush),
        T_GET_ID => Ok(Request::GetId { length: writable_data.min(ID_BYTES) }),
        T_DISCARD => {
            check_writable(geometry)?;
            Ok(Request::Discard { count: check_ranges(readable_data)? })
        }
        T_WRITE_ZEROES => {
            check_writable(geometry)?;
            Ok(Request::WriteZeroes { count: check_ranges(readable_data)? })
        }
        _ => Err(Status::Unsupported),
    }
}

/// What a range is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// Its content is no longer needed.
    Discard,
    /// Zeroes.
    WriteZeroes,
}

/// One range of a discard or write-zeroes request as it lies in guest memory (virtio 1.2, 5.2.6).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct RawRange {
    sector: U64,
    sectors: U32,
    flags: U32,
}

impl RawRange {
    /// A range as a driver writes it.
    #[must_use]
    pub fn new(sector: u64, sectors: u32) -> Self {
        Self { sector: U64::new(sector), sectors: U32::new(sectors), ..Self::default() }
    }
}

const _: () = assert!(size_of::<RawRange>() == RANGE_BYTES as usize);

/// Sectors inside the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectorRange {
    /// First sector.
    pub sector: u64,
    /// Number of sectors.
    pub sectors: u32,
}

/// Checks one range.
///
/// # Errors
/// The status to answer with.
pub fn parse_range(raw: RawRange, kind: RangeKind, geometry: Geometry) -> Result<SectorRange, Status> {
    let (allowed, sectors_max) = match kind {
        RangeKind::Discard => (0, geometry.discard_sectors_max),
        RangeKind::WriteZeroes => (RANGE_UNMAP, geometry.write_zeroes_sectors_max),
    };
    if raw.flags.get() & !allowed != 0 || sectors_max == 0 {
        return Err(Status::Unsupported);
    }
    let range = SectorRange { sector: raw.sector.get(), sectors: raw.sectors.get() };
    let blocks = u64::from(geometry.block_bytes) / SECTOR_BYTES;
    let is_whole = (range.sector | u64::from(range.sectors)) & blocks.saturating_sub(1) == 0;
    if range.sectors > sectors_max || !is_whole {
        return Err(Status::IoError);
    }
    check_inside(range.sector, range.sectors.into(), geometry)?;
    Ok(range)
}

/// Splits the copied readable data of a discard or write-zeroes request.
#[must_use]
pub fn ranges(bytes: &[u8]) -> &[RawRange] {
    <[RawRange]>::ref_from_bytes(bytes).unwrap_or_default()
}

fn check_writable(geometry: Geometry) -> Result<(), Status> {
    if geometry.read_only { Err(Status::IoError) } else { Ok(()) }
}

fn check_transfer(sector: u64, length: u32, geometry: Geometry) -> Result<(), Status> {
    let length = u64::from(length);
    // Block sizes are powers of two.
    let offset_in_block = u64::from(geometry.block_bytes).max(SECTOR_BYTES) - 1;
    let is_whole = (sector.wrapping_mul(SECTOR_BYTES) | length) & offset_in_block == 0;
    if !is_whole || length > u64::from(MAX_DATA_BYTES) {
        return Err(Status::IoError);
    }
    check_inside(sector, length / SECTOR_BYTES, geometry)
}

fn check_inside(sector: u64, sectors: u64, geometry: Geometry) -> Result<(), Status> {
    match sector.checked_add(sectors) {
        Some(end) if end <= geometry.sectors => Ok(()),
        _ => Err(Status::IoError),
    }
}

fn check_ranges(readable_data: u32) -> Result<u32, Status> {
    let count = readable_data / RANGE_BYTES;
    if readable_data.is_multiple_of(RANGE_BYTES) && (1..=MAX_RANGES).contains(&count) {
        Ok(count)
    } else {
        Err(Status::IoError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Geometry = Geometry {
        sectors: 1 << 40,
        block_bytes: 512,
        read_only: false,
        has_cache: true,
        transfer_bytes_max: 1 << 16,
        discard_sectors_max: 512,
        write_zeroes_sectors_max: 512,
    };

    fn header(kind: u32) -> Header {
        Header { kind: U32::new(kind), ..Header::default() }
    }

    fn range(sectors: u32) -> RawRange {
        RawRange { sectors: U32::new(sectors), ..RawRange::default() }
    }

    #[test]
    fn transfers_are_limited_to_what_configuration_allows() {
        let most = Request::Read { sector: 0, length: MAX_DATA_BYTES };
        assert_eq!(parse(header(T_IN), 0, MAX_DATA_BYTES, LARGE), Ok(most));
        assert_eq!(parse(header(T_IN), 0, MAX_DATA_BYTES + 512, LARGE), Err(Status::IoError));
        assert_eq!(parse(header(T_OUT), MAX_DATA_BYTES + 512, 0, LARGE), Err(Status::IoError));
    }

    #[test]
    fn what_is_not_whole_blocks_is_refused() {
        let large_blocks = Geometry { block_bytes: 4096, ..LARGE };
        let at = |sector| Header { sector: U64::new(sector), ..header(T_IN) };
        assert!(parse(at(8), 0, 4096, large_blocks).is_ok());
        assert_eq!(parse(at(4), 0, 4096, large_blocks), Err(Status::IoError));
        assert_eq!(parse(at(8), 0, 512, large_blocks), Err(Status::IoError));
        assert_eq!(parse_range(range(4), RangeKind::Discard, large_blocks), Err(Status::IoError));
    }

    #[test]
    fn ranges_are_limited_to_what_configuration_allows() {
        let most = SectorRange { sector: 0, sectors: 512 };
        assert_eq!(parse_range(range(512), RangeKind::Discard, LARGE), Ok(most));
        assert_eq!(parse_range(range(513), RangeKind::WriteZeroes, LARGE), Err(Status::IoError));
        let without = Geometry { discard_sectors_max: 0, ..LARGE };
        assert_eq!(parse_range(range(1), RangeKind::Discard, without), Err(Status::Unsupported));
    }

    #[test]
    fn empty_transfers_are_fine_up_to_the_end() {
        let at = |sector| Header { sector: U64::new(sector), ..header(T_IN) };
        let request = Request::Read { sector: LARGE.sectors, length: 0 };
        assert_eq!(parse(at(LARGE.sectors), 0, 0, LARGE), Ok(request));
        assert_eq!(parse(at(LARGE.sectors + 1), 0, 0, LARGE), Err(Status::IoError));
    }
}
