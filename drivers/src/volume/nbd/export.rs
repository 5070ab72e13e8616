//! What a server tells of an export, checked, and what kind of drive that makes.

use super::wire::{BlockSizeInfo, ExportFlags, ExportInfo};
use super::{NbdError, TIME_LIMIT_NS};
use crate::block::SECTOR_BYTES;
use crate::drive::DriveFacts;

/// The largest minimum block size (NBD protocol, "Size constraints").
const BLOCK_BYTES_MAX: u32 = 1 << 16;
/// What any server takes in a read or write, if it does not say otherwise.
const PAYLOAD_MAX: u32 = 32 << 20;

/// Size and abilities of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// Bytes.
    pub size: u64,
    /// Abilities.
    pub flags: ExportFlags,
    /// Every command is a multiple of so many bytes: a power of two, at least a sector.
    pub block_bytes: u32,
    /// Most bytes of a command, at least a block.
    pub payload_max: u32,
}

impl Export {
    /// The export of which a server said this.
    ///
    /// # Errors
    /// [`NbdError`] when that is not allowed, or of no use.
    pub fn new(info: &ExportInfo, block_size: Option<&BlockSizeInfo>) -> Result<Self, NbdError> {
        let flags = ExportFlags::from_bits_truncate(info.flags.get());
        let has_flags = flags.contains(ExportFlags::HAS_FLAGS);
        let flags = if has_flags { flags } else { ExportFlags::empty() };
        let minimum = block_size.map_or(1, |sizes| sizes.minimum.get());
        if !minimum.is_power_of_two() || minimum > BLOCK_BYTES_MAX {
            return Err(NbdError::Protocol("its block size is no power of two up to 64 KiB"));
        }
        let block_bytes = minimum.max(u32::try_from(SECTOR_BYTES).unwrap_or(minimum));
        let payload_max = block_size.map_or(PAYLOAD_MAX, |sizes| sizes.payload_max.get()).min(PAYLOAD_MAX);
        if payload_max < block_bytes {
            return Err(NbdError::Protocol("it takes no commands of a block"));
        }
        let size = info.size.get();
        if size < u64::from(block_bytes) {
            return Err(NbdError::Empty);
        }
        Ok(Self { size, flags, block_bytes, payload_max })
    }

    /// The drive that it is, with `slots` of at most `buffer_bytes` each.
    #[must_use]
    pub fn facts(&self, slots: u16, buffer_bytes: u32) -> DriveFacts {
        let in_blocks = |bytes: u32| bytes / self.block_bytes * self.block_bytes;
        let block_bytes = u64::from(self.block_bytes);
        let range = |flag| {
            let range_bytes = if self.flags.contains(flag) { in_blocks(self.payload_max) } else { 0 };
            u32::try_from(u64::from(range_bytes) / SECTOR_BYTES).unwrap_or(0)
        };
        DriveFacts {
            sectors: self.size / block_bytes * block_bytes / SECTOR_BYTES,
            block_bytes: self.block_bytes,
            read_only: self.flags.contains(ExportFlags::READ_ONLY),
            has_cache: self.flags.contains(ExportFlags::SEND_FLUSH),
            discard_sectors_max: range(ExportFlags::SEND_TRIM),
            write_zeroes_sectors_max: range(ExportFlags::SEND_WRITE_ZEROES),
            slots,
            buffer_bytes: in_blocks(buffer_bytes.min(self.payload_max)),
            time_limit_ns: TIME_LIMIT_NS,
        }
    }

    /// Bytes at its end that fill no block, and cannot be reached.
    #[must_use]
    pub fn tail_bytes(&self) -> u64 {
        self.size % u64::from(self.block_bytes)
    }

    /// Whether writes are to be made durable one by one: it has no flush, but knows this.
    #[must_use]
    pub fn writes_through(&self) -> bool {
        self.flags.contains(ExportFlags::SEND_FUA) && !self.flags.contains(ExportFlags::SEND_FLUSH)
    }

    /// Whether it can take the place of `before`: nothing that its users rely on is gone.
    #[must_use]
    pub fn can_replace(&self, before: &Self) -> bool {
        let relied_on = before.flags - ExportFlags::READ_ONLY;
        let is_writable = !self.flags.contains(ExportFlags::READ_ONLY);
        self.size >= before.size
            && self.block_bytes <= before.block_bytes
            && self.payload_max >= before.payload_max
            && self.flags.contains(relied_on)
            && (is_writable || before.flags.contains(ExportFlags::READ_ONLY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(size: u64, flags: ExportFlags) -> ExportInfo {
        ExportInfo { size: size.into(), flags: (flags | ExportFlags::HAS_FLAGS).bits().into() }
    }

    fn sizes(minimum: u32, payload_max: u32) -> BlockSizeInfo {
        BlockSizeInfo { minimum: minimum.into(), preferred: 4096.into(), payload_max: payload_max.into() }
    }

    fn export(size: u64, flags: ExportFlags) -> Export {
        Export::new(&info(size, flags), None).unwrap()
    }

    #[test]
    fn a_tail_that_fills_no_block_is_not_part_of_it() {
        let sectors = export(1300, ExportFlags::empty());
        assert_eq!((sectors.facts(1, 65536).sectors, sectors.tail_bytes()), (2, 276));
        let blocks = Export::new(&info(9000, ExportFlags::empty()), Some(&sizes(4096, 65536))).unwrap();
        assert_eq!((blocks.facts(1, 65536).sectors, blocks.block_bytes), (16, 4096));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let sized = |minimum, payload| {
            Export::new(&info(1 << 20, ExportFlags::empty()), Some(&sizes(minimum, payload)))
        };
        assert!(matches!(sized(3, 65536), Err(NbdError::Protocol(_))));
        assert!(matches!(sized(0, 65536), Err(NbdError::Protocol(_))));
        assert!(matches!(sized(1 << 17, 1 << 20), Err(NbdError::Protocol(_))));
        assert!(matches!(sized(4096, 1024), Err(NbdError::Protocol(_))));
        assert_eq!(Export::new(&info(511, ExportFlags::empty()), None), Err(NbdError::Empty));
    }

    #[test]
    fn abilities_follow_the_flags() {
        let plain = export(1 << 20, ExportFlags::empty()).facts(4, 65536);
        assert_eq!(
            (plain.has_cache, plain.discard_sectors_max, plain.write_zeroes_sectors_max),
            (false, 0, 0)
        );
        let able = ExportFlags::SEND_FLUSH | ExportFlags::SEND_TRIM | ExportFlags::SEND_WRITE_ZEROES;
        let able = export(1 << 20, able).facts(4, 65536);
        assert_eq!(
            (able.has_cache, able.discard_sectors_max, able.write_zeroes_sectors_max),
            (true, 65536, 65536)
        );
        assert!(export(1 << 20, ExportFlags::READ_ONLY).facts(4, 65536).read_only);
    }

    #[test]
    fn without_has_flags_no_flag_holds() {
        let raw = ExportInfo { size: 4096.into(), flags: ExportFlags::READ_ONLY.bits().into() };
        assert!(!Export::new(&raw, None).unwrap().facts(1, 512).read_only);
    }

    #[test]
    fn buffers_hold_whole_blocks_that_the_server_takes() {
        let tight = Export::new(&info(1 << 20, ExportFlags::empty()), Some(&sizes(4096, 10000))).unwrap();
        assert_eq!(tight.facts(1, 65536).buffer_bytes, 8192);
    }

    #[test]
    fn only_an_export_that_can_do_as_much_takes_the_place() {
        let before = export(1 << 20, ExportFlags::SEND_FLUSH);
        let larger = export(1 << 21, ExportFlags::SEND_FLUSH | ExportFlags::SEND_TRIM);
        assert!(larger.can_replace(&before));
        assert!(!export(1 << 19, ExportFlags::SEND_FLUSH).can_replace(&before));
        assert!(!export(1 << 20, ExportFlags::empty()).can_replace(&before));
        assert!(!export(1 << 20, ExportFlags::SEND_FLUSH | ExportFlags::READ_ONLY).can_replace(&before));
        assert!(before.can_replace(&export(1 << 20, ExportFlags::SEND_FLUSH | ExportFlags::READ_ONLY)));
    }
}
