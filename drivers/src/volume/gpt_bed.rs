//! Disks with partition tables for tests, written by the writers of `gpt_disk_types`.

use super::reader::{Blocks, Reader};
use super::{ReadSectors, STEP_BYTES, SectorRange, Table, TableError, read_table};
use crate::block::{Geometry, VolumeError};
use crate::volume::gpt::header::Doubt;
use crate::volume::ram;
use crate::volume::spec::Part;
use core::cell::Cell;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use gpt_disk_types::{
    BlockSize, GptHeader, GptPartitionEntry, GptPartitionEntryArray, GptPartitionName, GptPartitionType,
    LbaLe, MasterBootRecord, U32Le, guid,
};
use std::vec;
use std::vec::Vec;

/// Entries of a table that [`Image::new`] writes.
const ENTRIES: u32 = 128;

/// A disk.
#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
    pub block: usize,
    /// What the disk says of its size; behind the bytes it is zeroes.
    pub sectors: u64,
    /// A block that cannot be read.
    pub unreadable: Vec<u64>,
    pub reads: Cell<usize>,
}

impl ReadSectors for Image {
    async fn read(&self, sector: u64, out: &mut [u8]) -> Result<(), VolumeError> {
        self.reads.set(self.reads.get() + 1);
        let start = usize::try_from(sector).unwrap_or(usize::MAX).saturating_mul(512);
        assert!(start == usize::MAX || start.is_multiple_of(self.block));
        assert!(!out.is_empty() && out.len().is_multiple_of(self.block) && out.len() <= STEP_BYTES);
        assert!(sector.checked_add(out.len() as u64 / 512).is_some_and(|end| end <= self.sectors));
        let sectors_of_block = self.block as u64 / 512;
        let lbas = sector / sectors_of_block..(sector + out.len() as u64 / 512) / sectors_of_block;
        if self.unreadable.iter().any(|lba| lbas.contains(lba)) {
            return Err(VolumeError::OutOfRange);
        }
        let there = self.bytes.get(start..).unwrap_or_default();
        let length = there.len().min(out.len());
        out.fill(0);
        out[..length].copy_from_slice(&there[..length]);
        Ok(())
    }
}

impl Image {
    /// A disk with two copies of an empty table, as most tools write them.
    pub fn new(block: usize, blocks: u64) -> Self {
        let length = usize::try_from(blocks).unwrap() * block;
        let mut image = Self {
            bytes: vec![0; length],
            block,
            sectors: length as u64 / 512,
            unreadable: Vec::new(),
            reads: Cell::new(0),
        };
        let record = MasterBootRecord::protective_mbr(blocks);
        image.bytes[..512].copy_from_slice(bytemuck::bytes_of(&record));
        let array_blocks = (u64::from(ENTRIES) * 128).div_ceil(block as u64);
        let last = blocks - 1;
        let header = |own, other, array| GptHeader {
            my_lba: LbaLe::from_u64(own),
            alternate_lba: LbaLe::from_u64(other),
            first_usable_lba: LbaLe::from_u64(2 + array_blocks),
            last_usable_lba: LbaLe::from_u64(last - array_blocks - 1),
            disk_guid: guid!("57a7feb6-8cd5-4922-b7bd-c78b0914e870"),
            partition_entry_lba: LbaLe::from_u64(array),
            number_of_partition_entries: U32Le::from_u32(ENTRIES),
            ..GptHeader::default()
        };
        *image.header(1) = header(1, last, 2);
        *image.header(last) = header(last, 1, last - array_blocks);
        image.seal(1);
        image.seal(last);
        image
    }

    /// The usual disk: 1 MiB of 512-byte blocks, partition 1 "boot" and partition 3 "root" next to each other.
    pub fn usual() -> Self {
        let mut image = Self::new(512, 2048);
        image.add(1, 40, 99, "boot");
        image.add(3, 100, 1999, "root");
        image
    }

    /// Writes an entry in both copies.
    pub fn add(&mut self, number: u32, first: u64, last: u64, label: &str) {
        self.edit_entries(number, |entry| {
            *entry = GptPartitionEntry {
                partition_type_guid: GptPartitionType::BASIC_DATA,
                unique_partition_guid: guid!("37c75ffd-8932-467a-9c56-8cf1f0456b12"),
                starting_lba: LbaLe::from_u64(first),
                ending_lba: LbaLe::from_u64(last),
                attributes: gpt_disk_types::GptPartitionAttributes::default(),
                name: name(label),
            };
        });
    }

    /// Changes an entry in both copies.
    pub fn edit_entries(&mut self, number: u32, edit: impl Fn(&mut GptPartitionEntry)) {
        for lba in [1, self.last()] {
            let block = BlockSize::from_usize(self.block).unwrap();
            let layout = self.header(lba).get_partition_entry_array_layout().unwrap();
            let start = usize::try_from(layout.start_lba).unwrap() * self.block;
            let mut array = GptPartitionEntryArray::new(layout, block, &mut self.bytes[start..]).unwrap();
            edit(array.get_partition_entry_mut(number - 1).unwrap());
            self.seal(lba);
        }
    }

    /// Changes the header of one copy, and its checksum with it.
    pub fn edit_header(&mut self, lba: u64, edit: impl FnOnce(&mut GptHeader)) {
        edit(self.header(lba));
        self.header(lba).update_header_crc32();
    }

    /// Makes the checksums of a copy right, the array's if it is in the image.
    pub fn seal(&mut self, lba: u64) {
        let block = BlockSize::from_usize(self.block).unwrap();
        let layout = self.header(lba).get_partition_entry_array_layout();
        let start = layout.map(|layout| usize::try_from(layout.start_lba).unwrap_or(usize::MAX));
        let start = start.unwrap_or(usize::MAX).saturating_mul(self.block);
        let storage = self.bytes.get_mut(start..).unwrap_or_default();
        let array = layout.ok().and_then(|layout| GptPartitionEntryArray::new(layout, block, storage).ok());
        if let Some(checksum) = array.map(|array| array.calculate_crc32()) {
            self.header(lba).partition_entry_array_crc32 = checksum;
        }
        self.header(lba).update_header_crc32();
    }

    /// A header, as it lies there.
    pub fn header(&mut self, lba: u64) -> &mut GptHeader {
        let start = usize::try_from(lba).unwrap() * self.block;
        bytemuck::from_bytes_mut(&mut self.bytes[start..start + size_of::<GptHeader>()])
    }

    /// The last block, where the backup belongs.
    pub fn last(&self) -> u64 {
        (self.bytes.len() / self.block) as u64 - 1
    }

    /// Changes the size of the disk, not what the table says.
    pub fn resize(&mut self, blocks: usize) {
        self.bytes.resize(blocks * self.block, 0);
        self.sectors = self.bytes.len() as u64 / 512;
    }

    pub fn geometry(&self) -> Geometry {
        let block_bytes = self.block.try_into().unwrap();
        Geometry { sectors: self.sectors, block_bytes, ..ram::geometry(&Vec::new(), true) }
    }

    pub fn table(&self) -> Result<Table, TableError> {
        at_once(read_table(self, &self.geometry()))
    }

    /// Reads the table and looks a partition up.
    pub fn find(&self, part: &Part) -> Result<SectorRange, TableError> {
        self.table()?.partition(part)
    }

    /// What a good primary makes [`read_table`] say about the backup.
    pub fn doubt(&self) -> Option<Doubt> {
        let blocks = Blocks::new(&self.geometry()).unwrap();
        let mut reader = Reader::new(self, blocks).unwrap();
        let primary = at_once(reader.header(1)).unwrap();
        primary.doubt_about(&at_once(reader.header(blocks.count - 1)))
    }
}

/// A name as UTF-16, which `gpt_disk_types` has no writer for.
pub fn name(label: &str) -> GptPartitionName {
    let mut name = GptPartitionName::default();
    for (place, unit) in name.0.as_chunks_mut().0.iter_mut().zip(label.encode_utf16()) {
        *place = unit.to_le_bytes();
    }
    name
}

/// The outcome of a future that waits for nothing.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("an image waits for nothing"),
    }
}
