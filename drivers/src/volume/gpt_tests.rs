//! Which copy of a table counts, and which partitions it has.

use super::bed::{Image, name};
use super::header::{Doubt, HeaderError};
use super::*;
use gpt_disk_types::{GptHeader, LbaLe, U32Le, guid};
use std::format;
use std::string::ToString;

fn number(number: u32) -> Part {
    Part::Number(number)
}

fn label(name: &str) -> Part {
    Part::Label(name.to_string())
}

fn range(first: u64, sectors: u64) -> Result<SectorRange, TableError> {
    Ok(SectorRange { first, sectors })
}

fn block(lba: u64) -> LbaLe {
    LbaLe::from_u64(lba)
}

#[test]
fn partitions_are_found_by_number_and_label() {
    let table = Image::usual().table().unwrap();
    assert_eq!(table.partition(&number(1)), range(40, 60));
    assert_eq!(table.partition(&number(3)), range(100, 1900));
    assert_eq!(table.partition(&label("root")), range(100, 1900));
}

#[test]
fn the_whole_disk_is_a_part_too() {
    assert_eq!(Image::usual().find(&Part::Whole), range(0, 2048));
}

#[test]
fn blocks_of_4096_bytes_are_8_sectors() {
    let mut image = Image::new(4096, 64);
    image.add(1, 6, 58, "all");
    assert_eq!(image.find(&number(1)), range(48, 424));
}

#[test]
fn a_tail_that_fills_no_block_is_no_part_of_the_table() {
    let mut image = Image::new(4096, 64);
    image.add(2, 6, 58, "all");
    image.sectors += 7;
    assert_eq!(image.doubt(), None);
    assert_eq!(image.find(&number(2)), range(48, 424));
    assert_eq!(image.find(&Part::Whole), range(0, 519));
}

#[test]
fn each_block_of_a_usual_table_is_read_once_and_little_at_a_time() {
    let image = Image::usual();
    image.table().unwrap();
    // Block 0, primary, array in four steps, backup.
    assert_eq!(image.reads.get(), 7);
}

#[test]
fn a_good_backup_is_not_doubted() {
    assert_eq!(Image::usual().doubt(), None);
}

#[test]
fn labels_are_matched_exactly() {
    let table = Image::usual().table().unwrap();
    assert!(table.partition(&label("roo")).is_err());
    assert!(table.partition(&label("roots")).is_err());
    assert!(table.partition(&label("Root")).is_err());
    assert!(table.partition(&label("")).is_err());
}

#[test]
fn labels_are_utf_16_and_may_fill_their_field() {
    let mut image = Image::usual();
    image.add(4, 2000, 2001, &"é".repeat(36));
    image.add(5, 2002, 2003, "a 💾:=");
    assert_eq!(image.find(&label(&"é".repeat(36))), range(2000, 2));
    assert_eq!(image.find(&label("a 💾:=")), range(2002, 2));
}

#[test]
fn labels_that_are_no_text_match_nothing() {
    let mut image = Image::usual();
    image.edit_entries(1, |entry| entry.name.0[..4].copy_from_slice(&[0, 0xD8, 0, 0]));
    assert!(matches!(image.find(&label("\u{FFFD}")), Err(TableError::NoLabel { .. })));
    assert_eq!(image.find(&number(1)), range(40, 60));
}

#[test]
fn what_follows_the_end_of_a_label_is_no_part_of_it() {
    let mut image = Image::usual();
    image.edit_entries(1, |entry| entry.name = name("boot\0old"));
    assert_eq!(image.find(&label("boot")), range(40, 60));
}

#[test]
fn a_label_that_stands_twice_is_ambiguous() {
    let mut image = Image::usual();
    image.add(7, 2000, 2001, "root");
    let error = image.find(&label("root")).unwrap_err();
    assert_eq!(error, TableError::Ambiguous { label: "root".into(), first: 3, second: 7 });
    assert_eq!(image.find(&number(3)), range(100, 1900));
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let image = Image::usual();
    let error = image.find(&label("home")).unwrap_err();
    assert_eq!(error.to_string(), "there is no partition labelled 'home'; there are: 1 'boot', 3 'root'");
    let error = image.find(&number(2)).unwrap_err();
    assert_eq!(error.to_string(), "there is no partition 2; there are: 1 'boot', 3 'root'");
    let error = Image::new(512, 128).find(&number(1)).unwrap_err();
    assert_eq!(error.to_string(), "there is no partition 1; there are: none");
}

#[test]
fn at_most_eight_partitions_are_listed() {
    let mut image = Image::new(512, 128);
    (1..=10).for_each(|number| image.add(number, 40, 40, ""));
    let error = image.find(&number(11)).unwrap_err();
    assert_eq!(error.to_string(), "there is no partition 11; there are: 1, 2, 3, 4, 5, 6, 7, 8 and 2 more");
}

#[test]
fn control_characters_of_labels_are_not_shown() {
    let mut image = Image::new(512, 128);
    image.add(1, 40, 40, "a\u{1b}[2J\n");
    let error = image.find(&number(2)).unwrap_err();
    assert_eq!(error.to_string(), "there is no partition 2; there are: 1 'a\u{FFFD}[2J\u{FFFD}'");
}

#[test]
fn a_disk_without_protective_mbr_has_no_gpt() {
    let refused = |edit: fn(&mut Image)| {
        let mut image = Image::usual();
        edit(&mut image);
        image.table().map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(|image| image.bytes[510] = 0), TableError::NotGpt);
    assert_eq!(refused(|image| image.bytes[446 + 4] = 0x83), TableError::NotGpt);
    assert_eq!(refused(|image| image.bytes[446 + 8] = 2), TableError::NotGpt);
    assert!(matches!(refused(|image| image.unreadable.push(0)), TableError::Unreadable(_)));
}

#[test]
fn other_entries_beside_the_protective_one_are_ignored() {
    let mut image = Image::usual();
    image.bytes.copy_within(446..462, 446 + 16);
    image.bytes[446 + 4] = 0x83;
    assert_eq!(image.find(&number(1)), range(40, 60));
}

#[test]
fn at_most_128_partitions_are_kept() {
    let mut image = Image::new(512, 2048);
    let last = image.last();
    for (lba, array) in [(1, 2), (last, last - 64)] {
        let header = image.header(lba);
        header.number_of_partition_entries = U32Le::from_u32(256);
        header.partition_entry_lba = block(array);
        header.first_usable_lba = block(66);
        header.last_usable_lba = block(last - 65);
    }
    (1..=128).for_each(|number| image.add(number * 2, 100, 100, ""));
    assert!(image.table().is_ok());
    image.add(3, 101, 101, "");
    let error = HeaderError::TooManyUsed(129);
    assert_eq!(image.table().unwrap_err(), TableError::Damaged { primary: error, backup: error });
}

#[test]
fn the_backup_is_used_when_the_primary_is_bad() {
    let used = |edit: fn(&mut Image)| {
        let mut image = Image::usual();
        edit(&mut image);
        image.find(&label("root"))
    };
    assert_eq!(used(|image| image.bytes[512..1024].fill(0)), range(100, 1900));
    assert_eq!(used(|image| image.bytes[1024] ^= 1), range(100, 1900));
    assert_eq!(used(|image| image.unreadable.push(1)), range(100, 1900));
    assert_eq!(used(|image| image.unreadable.push(2 + 31)), range(100, 1900));
}

#[test]
fn the_primary_is_used_when_the_backup_is_bad() {
    let mut image = Image::usual();
    let last = image.last();
    image.header(last).first_usable_lba = block(35);
    assert_eq!(image.doubt(), Some(Doubt::Bad(HeaderError::Checksum)));
    assert_eq!(image.find(&label("root")), range(100, 1900));
    image.unreadable.push(last);
    assert!(matches!(image.doubt(), Some(Doubt::Bad(HeaderError::Unreadable(_)))));
    assert_eq!(image.find(&label("root")), range(100, 1900));
}

#[test]
fn both_reasons_are_told_when_both_copies_are_bad() {
    let mut image = Image::usual();
    let last = image.last();
    image.header(1).first_usable_lba = block(35);
    image.edit_header(last, |header| header.my_lba = block(7));
    let reasons = "its primary copy: the header's checksum is wrong; \
                   its backup: the header at block 2047 says that it is the one of block 7";
    let error = image.table().unwrap_err();
    assert_eq!(error.to_string(), format!("the disk's GPT is damaged: {reasons}"));
}

#[test]
fn a_backup_that_says_something_else_is_doubted() {
    let doubt = |edit: fn(&mut GptHeader)| {
        let mut image = Image::usual();
        let last = image.last();
        image.edit_header(last, edit);
        assert_eq!(image.find(&label("root")), range(100, 1900));
        image.doubt()
    };
    let disk = |header: &mut GptHeader| header.disk_guid = guid!("37c75ffd-8932-467a-9c56-8cf1f0456b12");
    assert_eq!(doubt(disk), Some(Doubt::Different("disk's GUID")));
    let usable = |header: &mut GptHeader| header.first_usable_lba = block(35);
    assert_eq!(doubt(usable), Some(Doubt::Different("blocks for partitions")));
    let array = |header: &mut GptHeader| header.partition_entry_array_crc32.0 = U32Le::from_u32(1);
    assert_eq!(doubt(array), Some(Doubt::Different("partitions")));
    let primary = |header: &mut GptHeader| header.alternate_lba = block(2);
    assert_eq!(doubt(primary), Some(Doubt::Different("place of the primary")));
}

#[test]
fn a_disk_that_was_grown_goes_on_with_its_primary() {
    let mut image = Image::usual();
    image.resize(4096);
    assert_eq!(image.doubt(), Some(Doubt::Resized { should: 2047, last: 4095 }));
    assert_eq!(image.find(&label("root")), range(100, 1900));
}

#[test]
fn a_grown_disk_whose_primary_is_bad_is_damaged() {
    let mut image = Image::usual();
    image.resize(4096);
    image.header(1).first_usable_lba = block(35);
    let damaged =
        TableError::Damaged { primary: HeaderError::Checksum, backup: HeaderError::Signature(4095) };
    assert_eq!(image.table().unwrap_err(), damaged);
}

#[test]
fn a_disk_that_lost_only_its_backup_goes_on_with_its_primary() {
    let mut image = Image::usual();
    image.resize(2016);
    assert_eq!(image.doubt(), Some(Doubt::Resized { should: 2047, last: 2015 }));
    assert_eq!(image.find(&label("root")), range(100, 1900));
}

#[test]
fn no_partition_has_the_block_where_a_backup_is_looked_for() {
    let mut image = Image::usual();
    image.resize(2015);
    let usable = HeaderError::Usable { first: 34, last: 2014, blocks: 2015 };
    let damaged = TableError::Damaged { primary: usable, backup: HeaderError::Signature(2014) };
    assert_eq!(image.table().unwrap_err(), damaged);
}

#[test]
fn a_disk_that_lost_blocks_of_partitions_is_damaged() {
    let mut image = Image::usual();
    image.resize(2000);
    let usable = HeaderError::Usable { first: 34, last: 2014, blocks: 2000 };
    let damaged = TableError::Damaged { primary: usable, backup: HeaderError::Signature(1999) };
    assert_eq!(image.table().unwrap_err(), damaged);
}

#[test]
fn disks_that_hold_no_table_are_refused() {
    let mut image = Image::usual();
    image.sectors = 2;
    assert_eq!(image.table().unwrap_err(), TableError::TooSmall(2));
    image.sectors = 0;
    assert_eq!(image.table().unwrap_err(), TableError::TooSmall(0));
}

#[test]
fn other_sizes_of_blocks_are_refused() {
    let refused = |block| {
        let image = Image { block, ..Image::usual() };
        image.table().unwrap_err() == TableError::BlockSize(block.try_into().unwrap())
    };
    assert!(refused(0) && refused(256) && refused(513) && refused(1536) && refused(8192));
}

#[test]
fn a_partition_that_cannot_be_does_not_keep_others_from_use() {
    let mut image = Image::usual();
    image.add(4, 2001, 2000, "backwards");
    image.add(5, 33, 39, "in the primary");
    image.add(6, 2014, 2015, "in the backup");
    image.add(7, 5000, u64::MAX, "beyond");
    image.add(8, u64::MAX, 0, "");
    assert_eq!(image.find(&number(4)), Err(TableError::Backwards(4)));
    assert_eq!(image.find(&number(5)), Err(TableError::Outside(5)));
    assert_eq!(image.find(&number(6)), Err(TableError::Outside(6)));
    assert_eq!(image.find(&number(7)), Err(TableError::Outside(7)));
    assert_eq!(image.find(&number(8)), Err(TableError::Backwards(8)));
    assert_eq!(image.find(&number(1)), range(40, 60));
    assert_eq!(image.find(&number(3)), range(100, 1900));
}

#[test]
fn partitions_that_overlap_are_both_refused() {
    let mut image = Image::usual();
    image.add(2, 99, 100, "between");
    assert_eq!(image.find(&number(1)), Err(TableError::Overlap { number: 1, other: 2 }));
    assert_eq!(image.find(&label("between")), Err(TableError::Overlap { number: 2, other: 1 }));
    assert_eq!(image.find(&number(3)), Err(TableError::Overlap { number: 3, other: 2 }));
}

#[test]
fn the_largest_disk_overflows_nothing() {
    let mut image = Image::new(4096, 64);
    image.sectors = u64::MAX;
    let last_usable = u64::MAX / 8 - 2;
    image.edit_header(1, |header| header.last_usable_lba = block(last_usable));
    image.edit_header(1, |header| header.alternate_lba = block(u64::MAX / 8 - 1));
    let mut with_partition = image;
    with_partition.add(1, 6, last_usable, "all");
    assert_eq!(with_partition.find(&number(1)), range(48, (last_usable - 5) * 8));
}
