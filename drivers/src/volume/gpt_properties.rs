//! Properties that hold whatever a disk says: no panic, and no partition outside of the disk, in the table or in another
//! partition; and, of a disk that was partitioned properly, the partitions that somebody made.

use super::bed::Image;
use super::{SectorRange, Table};
use crate::volume::spec::Part;
use gpt_disk_types::{LbaLe, U32Le};
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec::Vec;

const BLOCKS: u64 = 128;

/// PROPTEST_CASES in the environment says how many cases; 256 otherwise.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Blocks that matter: near the ends of the disk, anywhere on it, and at the end of the world.
fn lba() -> impl Strategy<Value = u64> {
    let last = BLOCKS - 1;
    prop_oneof![
        4 => 0..BLOCKS,
        2 => 0..8_u64,
        2 => last - 40..last + 4,
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ]
}

/// A change of a header that its checksum knows about.
#[derive(Clone, Debug)]
enum Lie {
    FirstUsable(u64),
    LastUsable(u64),
    Usable(u64, u64),
    Alternate(u64),
    ArrayPlace(u64),
    Count(u32),
    EntrySize(u32),
    HeaderSize(u32),
}

fn lie() -> impl Strategy<Value = Lie> {
    prop_oneof![
        lba().prop_map(Lie::FirstUsable),
        lba().prop_map(Lie::LastUsable),
        (lba(), lba()).prop_map(|(first, last)| Lie::Usable(first, last)),
        lba().prop_map(Lie::Alternate),
        lba().prop_map(Lie::ArrayPlace),
        prop_oneof![0..1100_u32, any::<u32>()].prop_map(Lie::Count),
        prop_oneof![(0..32_u32).prop_map(|bit| 1 << bit), any::<u32>()].prop_map(Lie::EntrySize),
        prop_oneof![80..600_u32, any::<u32>()].prop_map(Lie::HeaderSize),
    ]
}

fn tell(image: &mut Image, at: u64, lie: &Lie) {
    let header = image.header(at);
    match *lie {
        Lie::FirstUsable(lba) => header.first_usable_lba = LbaLe::from_u64(lba),
        Lie::LastUsable(lba) => header.last_usable_lba = LbaLe::from_u64(lba),
        Lie::Usable(first, last) => {
            header.first_usable_lba = LbaLe::from_u64(first);
            header.last_usable_lba = LbaLe::from_u64(last);
        }
        Lie::Alternate(lba) => header.alternate_lba = LbaLe::from_u64(lba),
        Lie::ArrayPlace(lba) => header.partition_entry_lba = LbaLe::from_u64(lba),
        Lie::Count(count) => header.number_of_partition_entries = U32Le::from_u32(count),
        Lie::EntrySize(size) => header.size_of_partition_entry = U32Le::from_u32(size),
        Lie::HeaderSize(size) => header.header_size = U32Le::from_u32(size),
    }
}

fn block_size() -> impl Strategy<Value = usize> {
    prop_oneof![Just(512), Just(1024), Just(2048), Just(4096)]
}

/// Numbers and labels of partitions, so few that they collide.
fn partitions() -> impl Strategy<Value = Vec<(u32, u64, u64, String)>> {
    let label = prop_oneof![Just("a"), Just("b"), Just(""), Just("é💾")].prop_map(ToString::to_string);
    prop::collection::vec((1..=16_u32, lba(), lba(), label), 0..12)
}

fn sound(image: &Image, table: &Table) -> Result<(), TestCaseError> {
    let found: Vec<SectorRange> =
        (0..=1024).filter_map(|number| table.partition(&Part::Number(number)).ok()).collect();
    let block_sectors = image.block as u64 / 512;
    for range in &found {
        prop_assert!(range.sectors > 0 && range.sectors.is_multiple_of(block_sectors));
        prop_assert!(range.first.is_multiple_of(block_sectors) && range.first >= 2 * block_sectors);
        let end = range.first.checked_add(range.sectors);
        prop_assert!(
            end.is_some_and(|end| end <= image.sectors / block_sectors * block_sectors - block_sectors)
        );
    }
    for (index, one) in found.iter().enumerate() {
        for other in &found[index + 1..] {
            prop_assert!(one.first + one.sectors <= other.first || other.first + other.sectors <= one.first);
        }
    }
    for label in ["a", "b", "é💾"] {
        if let Ok(range) = table.partition(&Part::Label(label.to_string())) {
            prop_assert!(found.contains(&range));
        }
    }
    Ok(())
}

fn judge(image: &Image) -> Result<(), TestCaseError> {
    image.table().map_or(Ok(()), |table| sound(image, &table))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn lies_with_right_checksums_harm_nobody(
        block in block_size(),
        partitions in partitions(),
        primary in prop::collection::vec(lie(), 0..3),
        backup in prop::collection::vec(lie(), 0..3),
        tail in 0..8_u64,
    ) {
        let mut image = Image::new(block, BLOCKS);
        for (number, first, last, label) in &partitions {
            image.add(*number, *first, *last, label);
        }
        let last = image.last();
        for (at, lies) in [(1, &primary), (last, &backup)] {
            lies.iter().for_each(|lie| tell(&mut image, at, lie));
            image.seal(at);
        }
        image.sectors += tail.min(block as u64 / 512 - 1);
        judge(&image)?;
    }

    #[test]
    fn damage_harms_nobody(
        block in block_size(),
        partitions in partitions(),
        // The blocks of the table and a few more, from the start and from the end.
        damage in prop::collection::vec((any::<bool>(), 0..20_000_usize, any::<u8>()), 0..8),
        blocks in prop_oneof![3 => Just(BLOCKS), 1 => 0..2 * BLOCKS],
        unreadable in prop::collection::vec(0..BLOCKS, 0..3),
    ) {
        let mut image = Image::new(block, BLOCKS);
        for (number, first, last, label) in &partitions {
            image.add(*number, *first, *last, label);
        }
        let length = image.bytes.len();
        for (at_the_start, place, byte) in damage {
            image.bytes[if at_the_start { place } else { length - 1 - place }] = byte;
        }
        image.unreadable = unreadable;
        image.resize(blocks.try_into().unwrap());
        judge(&image)?;
    }

    #[test]
    fn partitions_are_where_they_were_made(
        block in block_size(),
        lengths in prop::collection::vec((0..3_u64, 1..5_u64), 0..8),
        primary_is_lost in any::<bool>(),
    ) {
        let mut image = Image::new(block, BLOCKS);
        let block_sectors = block as u64 / 512;
        let mut next = 34;
        let mut made = Vec::new();
        for (number, (gap, length)) in (1..).zip(lengths) {
            let first = next + gap;
            next = first + length;
            image.add(number, first, next - 1, &number.to_string());
            made.push((number, SectorRange { first: first * block_sectors, sectors: length * block_sectors }));
        }
        if primary_is_lost {
            image.bytes[block..2 * block].fill(0);
        }
        let table = image.table().unwrap();
        for (number, range) in made {
            prop_assert_eq!(table.partition(&Part::Number(number)), Ok(range));
            prop_assert_eq!(table.partition(&Part::Label(number.to_string())), Ok(range));
        }
    }
}
