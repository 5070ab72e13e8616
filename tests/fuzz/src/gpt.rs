//! A partition table: whatever it says, a partition is inside of the disk and of what the table has for partitions, and shares no
//! block with another.

use arbitrary::{Arbitrary, Unstructured};
use crc::{CRC_32_ISO_HDLC, Crc};
use drivers::block::{Geometry, VolumeError};
use drivers::volume::gpt::{ReadSectors, STEP_BYTES, read_table};
use drivers::volume::spec::Part;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Blocks of the disk that hold anything; the rest is zeroes.
const BLOCKS: u64 = 64;
const ENTRY_BYTES: usize = 128;

#[derive(Arbitrary, Debug)]
struct Disk {
    block_shift: u8,
    /// Blocks more than those with content; in the upper half, very many.
    more_blocks: u8,
    has_no_mbr: bool,
    copies: [Copy; 2],
    entries: Vec<Entry>,
    scratches: Vec<(u16, u8)>,
    unreadable: Option<u8>,
    asked: Asked,
}

/// A header: what is not said is as it should be.
#[derive(Arbitrary, Debug)]
struct Copy {
    is_missing: bool,
    is_damaged: bool,
    first_usable: Option<u64>,
    last_usable: Option<u64>,
    array: Option<u8>,
    alternate: Option<u64>,
    count: Option<u32>,
    entry_bytes: Option<u32>,
    header_bytes: Option<u8>,
    revision: Option<u32>,
    array_damaged: bool,
}

#[derive(Arbitrary, Debug)]
struct Entry {
    is_used: bool,
    first: u8,
    last: u8,
    wild: Option<u64>,
    label: [u8; 6],
}

#[derive(Arbitrary, Debug)]
enum Asked {
    Number(u8),
    Label([u8; 3]),
    /// Of the first entry.
    Known,
    Whole,
}

struct Image {
    bytes: Vec<u8>,
    block: usize,
    sectors: u64,
    unreadable: Option<u64>,
}

impl ReadSectors for Image {
    async fn read(&self, sector: u64, out: &mut [u8]) -> Result<(), VolumeError> {
        let sectors = out.len() as u64 / 512;
        assert!(!out.is_empty() && out.len() <= STEP_BYTES && out.len().is_multiple_of(self.block));
        assert!(sector.checked_add(sectors).is_some_and(|end| end <= self.sectors), "outside of the disk");
        assert!((sector * 512).is_multiple_of(self.block as u64));
        if self.unreadable.is_some_and(|bad| (sector..sector + sectors).contains(&bad)) {
            return Err(VolumeError::OutOfRange);
        }
        out.fill(0);
        let there = usize::try_from(sector * 512).ok().and_then(|start| self.bytes.get(start..));
        out.iter_mut().zip(there.unwrap_or_default()).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

impl Disk {
    fn image(&self) -> Image {
        let block = 512 << (self.block_shift % 4);
        let blocks =
            (BLOCKS + u64::from(self.more_blocks % 128)) << if self.more_blocks < 128 { 0 } else { 30 };
        let sectors = blocks * block as u64 / 512;
        let mut bytes = vec![0; block * BLOCKS as usize];
        if !self.has_no_mbr {
            bytes[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0, 0, 0, 1, 0, 0, 0, 63, 0, 0, 0]);
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        }
        let mut array: Vec<u8> = self.entries.iter().take(64).flat_map(Entry::bytes).collect();
        array.resize(array.len().next_multiple_of(ENTRY_BYTES).max(4 * ENTRY_BYTES), 0);
        for (copy, is_backup) in self.copies.iter().zip([false, true]) {
            copy.write(&mut bytes, block, blocks, &array, is_backup);
        }
        for (at, byte) in &self.scratches {
            if let Some(victim) = bytes.get_mut(usize::from(*at)) {
                *victim = *byte;
            }
        }
        Image { bytes, block, sectors, unreadable: self.unreadable.map(u64::from) }
    }
}

impl Copy {
    fn write(&self, disk: &mut [u8], block: usize, blocks: u64, array: &[u8], is_backup: bool) {
        if self.is_missing {
            return;
        }
        let array_blocks = array.len().div_ceil(block) as u64;
        let at = if is_backup { blocks - 1 } else { 1 };
        let usual_array = if is_backup { blocks - 1 - array_blocks } else { 2 };
        let array_at = self.array.map_or(usual_array, u64::from);
        let mut header = Vec::new();
        header.extend(b"EFI PART");
        header.extend(self.revision.unwrap_or(0x0001_0000).to_le_bytes());
        let length = self.header_bytes.map_or(92, u32::from);
        header.extend(length.to_le_bytes());
        header.extend([0; 8]);
        header.extend(at.to_le_bytes());
        header.extend(self.alternate.unwrap_or(if is_backup { 1 } else { blocks - 1 }).to_le_bytes());
        header.extend(self.first_usable.unwrap_or(2 + array_blocks).to_le_bytes());
        header.extend(self.last_usable.unwrap_or(blocks - 2 - array_blocks).to_le_bytes());
        header.extend([9; 16]);
        header.extend(array_at.to_le_bytes());
        header.extend(self.count.unwrap_or((array.len() / ENTRY_BYTES) as u32).to_le_bytes());
        header.extend(self.entry_bytes.unwrap_or(ENTRY_BYTES as u32).to_le_bytes());
        header.extend((CRC.checksum(array) ^ u32::from(self.array_damaged)).to_le_bytes());
        header.resize(block, 0);
        let summed = header.get(..length as usize).unwrap_or_default();
        let checksum = CRC.checksum(summed) ^ u32::from(self.is_damaged);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        let mut put = |lba: u64, bytes: &[u8]| {
            let start = usize::try_from(lba).unwrap_or(usize::MAX).saturating_mul(block);
            let place = disk.get_mut(start..).unwrap_or_default();
            place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        };
        put(array_at, array);
        put(at, &header);
    }
}

impl Entry {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_used); 32];
        bytes.extend(self.wild.unwrap_or(self.first.into()).to_le_bytes());
        bytes.extend(u64::from(self.last).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(self.label.iter().flat_map(|unit| [(unit % 4 + b'a') * u8::from(*unit < 128), 0]));
        bytes.resize(ENTRY_BYTES, 0);
        bytes
    }
}

/// A disk with the table that `data` says.
pub fn gpt(data: &[u8]) {
    let Ok(disk) = Unstructured::new(data).arbitrary::<Disk>() else { return };
    let image = disk.image();
    let geometry = Geometry {
        sectors: image.sectors,
        block_bytes: image.block as u32,
        read_only: false,
        has_cache: false,
        transfer_bytes_max: 4096,
        discard_sectors_max: 0,
        write_zeroes_sectors_max: 0,
    };
    let read = pin!(read_table(&image, &geometry)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Ok(table)) = read else { return };
    let found: Vec<_> = (1..70)
        .filter_map(|number| table.partition(&Part::Number(number)).ok())
        .map(|range| range.first..range.first + range.sectors)
        .collect();
    for (place, range) in found.iter().enumerate() {
        assert!(!range.is_empty() && range.end <= image.sectors, "a partition outside of the disk");
        assert!(range.start * 512 >= 2 * image.block as u64, "a partition over the table's header");
        let others = found.iter().skip(place + 1);
        let mut shared = others.filter(|other| other.start < range.end && range.start < other.end);
        assert_eq!(shared.next(), None, "partitions that share blocks");
    }
    let asked = match &disk.asked {
        Asked::Number(number) => Part::Number((*number).into()),
        Asked::Known => {
            let units = disk.entries.first().map_or(&[][..], |entry| &entry.label);
            let units = units.iter().take_while(|unit| **unit < 128);
            Part::Label(units.map(|unit| char::from(unit % 4 + b'a')).collect())
        }
        Asked::Whole => Part::Whole,
        Asked::Label(label) => Part::Label(label.iter().map(|unit| char::from(unit % 4 + b'a')).collect()),
    };
    if let Ok(range) = table.partition(&asked) {
        assert!(range.first + range.sectors <= image.sectors);
    }
}
