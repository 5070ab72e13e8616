//! The smallest partition tables, written by the writers of `gpt_disk_types`.

use gpt_disk_types::{
    BlockSize, GptHeader, GptPartitionEntry, GptPartitionEntryArray, GptPartitionType, LbaLe,
    MasterBootRecord, U32Le, guid,
};

const ENTRIES: u32 = 4;
const SECTOR: usize = 512;

/// Writes a table with these partitions, first and last sector of each, to both ends of a disk.
pub fn write_table(disk: &mut [u8], partitions: &[(u64, u64)]) {
    let last = (disk.len() / SECTOR) as u64 - 1;
    let record = MasterBootRecord::protective_mbr(last + 1);
    disk[..SECTOR].copy_from_slice(bytemuck::bytes_of(&record));
    write_copy(disk, (1, last, 2), partitions);
    write_copy(disk, (last, 1, last - 1), partitions);
}

fn write_copy(disk: &mut [u8], (own, other, array): (u64, u64, u64), partitions: &[(u64, u64)]) {
    let mut header = GptHeader {
        my_lba: LbaLe::from_u64(own),
        alternate_lba: LbaLe::from_u64(other),
        first_usable_lba: LbaLe::from_u64(3),
        last_usable_lba: LbaLe::from_u64(own.max(other) - 2),
        disk_guid: guid!("57a7feb6-8cd5-4922-b7bd-c78b0914e870"),
        partition_entry_lba: LbaLe::from_u64(array),
        number_of_partition_entries: U32Le::from_u32(ENTRIES),
        ..GptHeader::default()
    };
    let layout = header.get_partition_entry_array_layout().unwrap();
    let place = usize::try_from(array).unwrap() * SECTOR;
    let storage = &mut disk[place..place + SECTOR];
    let mut entries = GptPartitionEntryArray::new(layout, BlockSize::BS_512, storage).unwrap();
    for (index, (first, last)) in (0..).zip(partitions) {
        *entries.get_partition_entry_mut(index).unwrap() = GptPartitionEntry {
            partition_type_guid: GptPartitionType::BASIC_DATA,
            unique_partition_guid: guid!("37c75ffd-8932-467a-9c56-8cf1f0456b12"),
            starting_lba: LbaLe::from_u64(*first),
            ending_lba: LbaLe::from_u64(*last),
            ..GptPartitionEntry::default()
        };
    }
    header.partition_entry_array_crc32 = entries.calculate_crc32();
    header.update_header_crc32();
    let place = usize::try_from(own).unwrap() * SECTOR;
    disk[place..place + size_of::<GptHeader>()].copy_from_slice(bytemuck::bytes_of(&header));
}
