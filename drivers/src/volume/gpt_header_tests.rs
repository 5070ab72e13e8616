//! What makes a copy of a table good: its header's fields and both checksums.

use super::bed::Image;
use super::header::HeaderError;
use super::*;
use gpt_disk_types::{GptHeader, GptHeaderRevision, GptHeaderSignature, LbaLe, U32Le, U64Le};

const NO_SIGNATURE: GptHeaderSignature = GptHeaderSignature(U64Le([0; 8]));

fn number(number: u32) -> Part {
    Part::Number(number)
}

fn range(first: u64, sectors: u64) -> Result<SectorRange, TableError> {
    Ok(SectorRange { first, sectors })
}

/// What is wrong with the usual disk's primary after `edit`, told because there is no backup.
fn primary_after(edit: impl FnOnce(&mut GptHeader)) -> HeaderError {
    let mut image = Image::usual();
    image.edit_header(1, edit);
    primary_of(image)
}

fn primary_of(mut image: Image) -> HeaderError {
    let last = image.last();
    image.header(last).signature = NO_SIGNATURE;
    match image.table() {
        Err(TableError::Damaged { primary, backup: HeaderError::Signature(lba) }) if lba == last => primary,
        other => panic!("the backup is as bad as can be: {other:?}"),
    }
}

/// Whether each copy of the table is good by itself.
fn primary_and_backup(image: &Image) -> (bool, bool) {
    let alone = |bad: u64| {
        let mut image = image.clone();
        image.unreadable.push(bad);
        image.table().is_ok()
    };
    (alone(image.last()), alone(1))
}

fn block(lba: u64) -> LbaLe {
    LbaLe::from_u64(lba)
}

#[test]
fn each_field_of_a_header_must_hold() {
    let revision = GptHeaderRevision(U32Le::from_u32(0x0002_0000));
    assert_eq!(primary_after(|header| header.revision = revision), HeaderError::Revision(0x0002_0000));
    let size = |size| primary_after(|header| header.header_size = U32Le::from_u32(size));
    assert_eq!(size(91), HeaderError::Size(91));
    assert_eq!(size(513), HeaderError::Size(513));
    assert_eq!(size(u32::MAX), HeaderError::Size(u32::MAX));
    assert_eq!(primary_after(|header| header.my_lba = block(3)), HeaderError::Place { at: 1, says: 3 });
    assert_eq!(primary_after(|header| header.signature = NO_SIGNATURE), HeaderError::Signature(1));
}

#[test]
fn a_minor_revision_is_no_obstacle() {
    let mut image = Image::usual();
    let revision = GptHeaderRevision(U32Le::from_u32(0x0001_0007));
    image.edit_header(1, |header| header.revision = revision);
    assert_eq!(primary_and_backup(&image), (true, true));
}

#[test]
fn a_changed_header_has_a_wrong_checksum() {
    let mut image = Image::usual();
    image.header(1).first_usable_lba = block(35);
    assert_eq!(primary_of(image), HeaderError::Checksum);
}

#[test]
fn a_larger_header_is_covered_by_its_checksum() {
    let mut image = Image::usual();
    image.header(1).header_size = U32Le::from_u32(512);
    let mut covered = image.bytes[512..1024].to_vec();
    covered[16..20].fill(0);
    let checksum = gpt_disk_types::crc::Crc::<u32>::new(&gpt_disk_types::Crc32::ALGORITHM).checksum(&covered);
    image.header(1).header_crc32.0 = U32Le::from_u32(checksum);
    assert_eq!(primary_and_backup(&image), (true, true));
    image.bytes[1023] = 1;
    assert_eq!(primary_of(image), HeaderError::Checksum);
}

#[test]
fn sizes_of_entries_and_arrays_are_bounded() {
    let size = |size| primary_after(|header| header.size_of_partition_entry = U32Le::from_u32(size));
    assert_eq!(size(0), HeaderError::EntrySize(0));
    assert_eq!(size(64), HeaderError::EntrySize(64));
    assert_eq!(size(384), HeaderError::EntrySize(384));
    assert_eq!(size(8192), HeaderError::EntrySize(8192));
    assert_eq!(size(2048), HeaderError::EntryCount(128));
    let count = |count| primary_after(|header| header.number_of_partition_entries = U32Le::from_u32(count));
    assert_eq!(count(0), HeaderError::EntryCount(0));
    assert_eq!(count(1025), HeaderError::EntryCount(1025));
    assert_eq!(count(u32::MAX), HeaderError::EntryCount(u32::MAX));
}

#[test]
fn larger_entries_are_read() {
    let mut image = Image::new(512, 2048);
    let last = image.last();
    for lba in [1, last] {
        image.header(lba).size_of_partition_entry = U32Le::from_u32(256);
        image.header(lba).number_of_partition_entries = U32Le::from_u32(64);
    }
    image.add(64, 40, 99, "boot");
    assert_eq!(image.find(&number(64)), range(40, 60));
}

#[test]
fn an_array_need_not_end_with_a_block() {
    let mut image = Image::new(4096, 64);
    let last = image.last();
    for lba in [1, last] {
        image.header(lba).number_of_partition_entries = U32Le::from_u32(33);
    }
    image.add(33, 6, 7, "last");
    assert_eq!(image.find(&number(33)), range(48, 16));
}

#[test]
fn arrays_and_blocks_for_partitions_are_on_the_disk_and_apart() {
    let array = |lba| primary_after(|header| header.partition_entry_lba = block(lba));
    assert_eq!(array(0), HeaderError::ArrayPlace(0));
    assert_eq!(array(1), HeaderError::ArrayPlace(1));
    assert_eq!(array(3), HeaderError::ArrayPlace(3));
    assert_eq!(array(1000), HeaderError::ArrayPlace(1000));
    assert_eq!(array(2017), HeaderError::ArrayPlace(2017));
    assert_eq!(array(u64::MAX), HeaderError::ArrayPlace(u64::MAX));
    let usable = |first, last| {
        let error = primary_after(|header| {
            header.first_usable_lba = block(first);
            header.last_usable_lba = block(last);
        });
        error == HeaderError::Usable { first, last, blocks: 2048 }
    };
    assert!(usable(0, 2014) && usable(1, 2014) && usable(34, 2047) && usable(34, 2048));
    assert!(usable(34, u64::MAX) && usable(3000, 4000) && usable(2000, 1999));
}

#[test]
fn a_damaged_array_has_a_wrong_checksum() {
    let mut image = Image::usual();
    image.bytes[512 * 2 + 127 * 128] ^= 1;
    assert_eq!(primary_of(image), HeaderError::ArrayChecksum);
}

#[test]
fn an_array_full_of_garbage_is_damaged_and_not_too_large() {
    let mut image = Image::new(512, 2048);
    image.edit_header(1, |header| {
        header.first_usable_lba = block(300);
        header.number_of_partition_entries = U32Le::from_u32(256);
    });
    image.bytes[1024..1024 + 256 * 128].fill(0xAA);
    assert_eq!(primary_of(image), HeaderError::ArrayChecksum);
}
