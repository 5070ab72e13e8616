//! What a virtio-blk device says of itself: feature bits and configuration space (virtio 1.2, 5.2.3 and 5.2.4).

use crate::block::{Geometry, SECTOR_BYTES};
use crate::virtio::Features;
use crate::virtio::queue::MAX_SIZE;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// Device ID of a block device (virtio 1.2, 5.2.1).
pub const DEVICE_ID: u32 = 2;

/// VIRTIO_BLK_F_SIZE_MAX: `size_max` holds.
pub const SIZE_MAX: Features = Features::from_bits_retain(1 << 1);
/// VIRTIO_BLK_F_SEG_MAX: `seg_max` holds.
pub const SEG_MAX: Features = Features::from_bits_retain(1 << 2);
/// VIRTIO_BLK_F_RO: the device is read-only.
pub const RO: Features = Features::from_bits_retain(1 << 5);
/// VIRTIO_BLK_F_BLK_SIZE: `blk_size` holds.
pub const BLK_SIZE: Features = Features::from_bits_retain(1 << 6);
/// VIRTIO_BLK_F_FLUSH: there is a flush command.
pub const FLUSH: Features = Features::from_bits_retain(1 << 9);
/// VIRTIO_BLK_F_TOPOLOGY: the topology fields hold.
pub const TOPOLOGY: Features = Features::from_bits_retain(1 << 10);
/// VIRTIO_BLK_F_DISCARD: there is a discard command.
pub const DISCARD: Features = Features::from_bits_retain(1 << 13);
/// VIRTIO_BLK_F_WRITE_ZEROES: there is a write-zeroes command.
pub const WRITE_ZEROES: Features = Features::from_bits_retain(1 << 14);

/// Most data buffers in a request: the longest chain, less header and status.
const MAX_DATA_SEGMENTS: u32 = MAX_SIZE as u32 - 2;
/// Most bytes in one data buffer.
const MAX_SEGMENT_BYTES: u32 = 64 << 10;
/// Most data bytes in a request: bounds the time for which one request keeps the loop.
pub const MAX_DATA_BYTES: u32 = MAX_DATA_SEGMENTS * MAX_SEGMENT_BYTES;
/// Most ranges in one discard or write-zeroes request.
pub const MAX_RANGES: u32 = 4;
/// The unit in which guest memory is mapped, and so in which it is cheapest to transfer.
const PAGE_BYTES: u32 = 4096;

/// Configuration space.
#[derive(Clone, Copy, Debug, Default, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Config {
    /// 0x00: size in sectors
    pub(crate) capacity: U64,
    /// 0x08: most bytes in a buffer
    pub(crate) size_max: U32,
    /// 0x0c: most data buffers in a request
    pub(crate) seg_max: U32,
    /// 0x10: cylinders, heads, sectors: no such geometry
    chs: U32,
    /// 0x14: logical block size in bytes
    pub(crate) blk_size: U32,
    /// 0x18: log2 of logical blocks in a physical one
    physical_block_exp: u8,
    /// 0x19: offset of the first aligned logical block
    alignment_offset: u8,
    /// 0x1a: suggested least transfer in logical blocks
    min_io_size: U16,
    /// 0x1c: suggested most, 0 for none
    opt_io_size: U32,
    /// 0x20: write cache mode, not switchable
    writeback: u8,
    unused: u8,
    /// 0x22: number of queues, without VIRTIO_BLK_F_MQ
    num_queues: U16,
    /// 0x24: most sectors in a range of a discard
    pub(crate) max_discard_sectors: U32,
    /// 0x28: most ranges in it
    max_discard_seg: U32,
    /// 0x2c: sectors on which ranges are best aligned
    discard_sector_alignment: U32,
    /// 0x30: most sectors in a range of a write-zeroes
    pub(crate) max_write_zeroes_sectors: U32,
    /// 0x34: most ranges in it
    max_write_zeroes_seg: U32,
    /// 0x38: it may deallocate
    write_zeroes_may_unmap: u8,
    unused_end: [u8; 3],
}

const _: () = assert!(size_of::<Config>() == 0x3c);

impl Config {
    /// The configuration space of a device over a volume of this geometry.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        let block_bytes = geometry.block_bytes.max(1);
        let blocks_per_page = (PAGE_BYTES / block_bytes).max(1);
        Self {
            capacity: U64::new(geometry.sectors),
            size_max: U32::new(MAX_SEGMENT_BYTES),
            seg_max: U32::new(MAX_DATA_SEGMENTS),
            blk_size: U32::new(block_bytes),
            physical_block_exp: u8::try_from(blocks_per_page.ilog2()).unwrap_or(0),
            min_io_size: U16::new(u16::try_from(blocks_per_page).unwrap_or(1)),
            max_discard_sectors: U32::new(geometry.discard_sectors_max),
            max_discard_seg: U32::new(MAX_RANGES),
            discard_sector_alignment: U32::new(sectors_in(block_bytes)),
            max_write_zeroes_sectors: U32::new(geometry.write_zeroes_sectors_max),
            max_write_zeroes_seg: U32::new(MAX_RANGES),
            write_zeroes_may_unmap: 1,
            ..Self::default()
        }
    }

    /// The configuration space of a device that is to be given up: no sectors, in blocks of a size that cannot be. Linux,
    /// which reads it after it made its queues, then has no disk.
    #[must_use]
    pub fn refused() -> Self {
        Self { blk_size: U32::new(1), ..Self::default() }
    }

    /// Copies the bytes from `offset` on to `out`, as far as there are any.
    pub fn read(&self, offset: u32, out: &mut [u8]) {
        let rest = self.as_bytes().get(offset as usize..).unwrap_or_default();
        out.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }
}

fn sectors_in(block_bytes: u32) -> u32 {
    u32::try_from(u64::from(block_bytes) / SECTOR_BYTES).unwrap_or(1).max(1)
}

/// The features of a device over a volume of this geometry.
#[must_use]
pub fn features(geometry: Geometry) -> Features {
    let ring = Features::VERSION_1 | Features::INDIRECT_DESC | Features::EVENT_IDX;
    let always = ring | SIZE_MAX | SEG_MAX | BLK_SIZE | TOPOLOGY;
    let cache = if geometry.has_cache { FLUSH } else { Features::empty() };
    let if_any = |count, feature| if count > 0 { feature } else { Features::empty() };
    let writing = if_any(geometry.discard_sectors_max, DISCARD)
        | if_any(geometry.write_zeroes_sectors_max, WRITE_ZEROES);
    always | cache | if geometry.read_only { RO } else { writing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_without_a_cache_has_nothing_to_flush() {
        let geometry = Geometry {
            sectors: 8,
            block_bytes: 512,
            read_only: false,
            has_cache: false,
            transfer_bytes_max: 4096,
            discard_sectors_max: 0,
            write_zeroes_sectors_max: 0,
        };
        assert!(!features(geometry).contains(FLUSH));
        assert!(features(Geometry { has_cache: true, ..geometry }).contains(FLUSH));
    }
}
