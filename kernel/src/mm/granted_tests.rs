//! What a guest grants is reached both ways, copied and mapped, and what it does not grant never.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::xen::fake::{Call, FakeXen};

#[path = "granted_model_tests.rs"]
mod model;

const GUEST: DomainId = DomainId(3);
const RAM: u64 = 0x40000;
const RAM_PAGES: u64 = 64;

struct Bed {
    xen: FakeXen,
    pages: Rc<RefCell<SinglePages>>,
    copying: GrantedMemory,
    mapping: GrantedMemory,
}

/// A guest with two devices, of which one copies all and one maps all.
fn bed() -> Bed {
    let xen = FakeXen::new();
    xen.add_domain(GUEST, 1);
    xen.populate(GUEST, RAM..RAM + RAM_PAGES);
    let pages = xen.single_pages();
    let memory = |most| GrantedMemory::with_copies_up_to(pages.clone(), GUEST, most);
    Bed { xen, copying: memory(u32::MAX), mapping: memory(0), pages }
}

/// A bed whose guest has granted page `n` of its RAM as reference `n`.
fn granted(frames: Range<u32>) -> Bed {
    let bed = bed();
    frames.for_each(|n| bed.xen.grant(GUEST, n, RAM + u64::from(n), false));
    bed
}

fn region(reference: u64, offset: u64, length: u32) -> GuestRegion {
    GuestRegion { address: GuestAddress(GRANT | (reference * PAGE + offset)), length }
}

fn is_mapped(pinned: &GrantedPinned) -> bool {
    matches!(pinned, GrantedPinned::Mapped(_))
}

fn bytes(pinned: &GrantedPinned, offset: u32, length: usize) -> Result<Vec<u8>, MemoryError> {
    let mut out = vec![0xee; length];
    pinned.read(offset, &mut out).map(|()| out)
}

/// An address in the guest's RAM.
fn at(page: u64, offset: u64) -> u64 {
    (RAM + page) * PAGE + offset
}

#[test]
fn a_buffer_of_several_pages_has_references_in_a_row() {
    let bed = granted(8..12);
    bed.xen.write_guest(GUEST, at(8, PAGE - 2), &[1, 2, 3, 4]);
    for memory in [&bed.copying, &bed.mapping] {
        let pinned = memory.pin(&[region(8, PAGE - 2, 4), region(10, 5, 4)]).unwrap();
        assert_eq!((pinned.len(), bytes(&pinned, 1, 3)), (8, Ok(vec![2, 3, 4])));
        pinned.write(3, &[5, 6]).unwrap();
        assert_eq!((bed.xen.read_guest(GUEST, at(9, 1)), bed.xen.read_guest(GUEST, at(10, 5))), ([5], [6]));
        bed.xen.write_guest(GUEST, at(9, 0), &[3, 4]);
    }
}

#[test]
fn both_ways_are_what_they_are_called() {
    let bed = granted(8..10);
    assert!(is_mapped(&bed.mapping.pin(&[region(8, 0, 8192)]).unwrap()));
    assert!(!is_mapped(&bed.copying.pin(&[region(8, 0, 8192)]).unwrap()));
}

#[test]
fn many_pages_are_mapped_unmapped_and_copied_by_few_hypercalls() {
    let bed = granted(8..32);
    let all = [region(8, 0, 24 * 4096)];
    drop(bed.mapping.pin(&all).unwrap());
    assert_eq!((bed.xen.calls(Call::MapGrant), bed.xen.calls(Call::UnmapGrant)), (2, 2));
    let pinned = bed.copying.pin(&all).unwrap();
    pinned.write(0, &vec![7; 12 * 4096]).unwrap();
    assert_eq!(bed.xen.calls(Call::CopyGrant), 1);
    assert_eq!(bytes(&pinned, 0, 12 * 4096 + 1).map(|bytes| bytes[12 * 4096 - 1..].to_vec()), Ok(vec![7, 0]));
}

#[test]
fn what_is_read_without_a_pin_takes_one_hypercall() {
    let bed = granted(8..10);
    bed.xen.write_guest(GUEST, at(8, PAGE - 1), &[1, 2]);
    let mut out = [0; 2];
    bed.copying.read(region(8, PAGE - 1, 0).address, &mut out).unwrap();
    assert_eq!((out, bed.xen.calls(Call::CopyGrant), bed.xen.grant_mappings()), ([1, 2], 1, 0));
}

#[test]
fn what_is_written_together_takes_one_hypercall() {
    let bed = granted(8..10);
    let [first, second, hole] =
        [(8, 4), (9, 0), (10, 0)].map(|(page, offset)| region(page, offset, 0).address);
    let parts = [(first, &[1, 2][..]), (second, &[3]), (GuestAddress(second.0 + 1), &[4])];
    assert!(bed.copying.write_together(parts.into_iter()));
    assert_eq!((bed.xen.read_guest(GUEST, at(8, 4)), bed.xen.read_guest(GUEST, at(9, 0))), ([1, 2], [3, 4]));
    assert_eq!((bed.xen.calls(Call::CopyGrant), bed.xen.grant_mappings()), (1, 0));
    assert!(!bed.copying.write_together([(hole, &[5][..])].into_iter()));
    assert!(!bed.copying.write_together([(GuestAddress(8 * PAGE), &[5][..])].into_iter()));
}

#[test]
fn half_words_and_zeroes_are_written_both_ways() {
    let bed = granted(8..10);
    for memory in [&bed.copying, &bed.mapping] {
        bed.xen.write_guest(GUEST, at(8, 0), &[9; 4096]);
        let pinned = memory.pin(&[region(8, 0, 8192)]).unwrap();
        pinned.write(2, &[0; 1500]).unwrap();
        pinned.store_u16(2, 0x1234).unwrap();
        assert_eq!(bed.xen.read_guest(GUEST, at(8, 0)), [9, 9, 0x34, 0x12, 0, 0]);
        assert_eq!(bed.xen.read_guest(GUEST, at(8, 1500)), [0, 0, 9]);
        assert_eq!(pinned.load_u16(2), Ok(0x1234));
    }
}

#[test]
fn the_readable_part_is_mapped_for_reading_and_not_written() {
    let bed = granted(9..10);
    bed.xen.grant(GUEST, 8, RAM + 8, true);
    let pinned = bed.mapping.pin_split(&[region(8, 0, 16), region(9, 0, 16)], 16).unwrap();
    assert!(is_mapped(&pinned));
    assert_eq!(
        (pinned.write(15, &[1]), pinned.store_u16(0, 1)),
        (Err(MemoryError::OutOfRange), Err(MemoryError::OutOfRange))
    );
    assert_eq!((pinned.write(16, &[1]), bytes(&pinned, 15, 2)), (Ok(()), Ok(vec![0, 1])));
}

#[test]
fn what_is_granted_for_reading_is_not_written() {
    let bed = bed();
    bed.xen.grant(GUEST, 8, RAM + 8, true);
    for memory in [&bed.copying, &bed.mapping] {
        let pinned = memory.pin(&[region(8, 0, 16)]).unwrap();
        let out_of_reach = MemoryError::NotMapped(region(8, 0, 0).address.0);
        assert_eq!((is_mapped(&pinned), bytes(&pinned, 0, 1)), (false, Ok(vec![0])));
        assert_eq!(pinned.write(0, &[1]), Err(out_of_reach));
    }
    assert!(bed.mapping.pin_ring(region(8, 0, 16), Access::Write).is_err());
    assert_eq!((bed.xen.read_guest(GUEST, at(8, 0)), bed.xen.grant_mappings()), ([0], 0));
}

#[test]
fn access_outside_what_is_pinned_is_an_error() {
    let bed = granted(8..9);
    for memory in [&bed.copying, &bed.mapping] {
        let pinned = memory.pin(&[region(8, 0, 4)]).unwrap();
        assert_eq!(bytes(&pinned, 3, 2), Err(MemoryError::OutOfRange));
        assert_eq!(pinned.write(u32::MAX, &[1, 2]), Err(MemoryError::OutOfRange));
        assert_eq!((pinned.load_u16(3), bytes(&pinned, 4, 0)), (Err(MemoryError::OutOfRange), Ok(vec![])));
    }
}

#[test]
fn an_address_that_is_no_grant_is_said_to_be_none() {
    let bed = granted(8..9);
    let own = GuestRegion { address: GuestAddress(RAM * PAGE), length: 4 };
    let error = Some(MemoryError::Untranslated(RAM * PAGE));
    assert_eq!(bed.copying.pin(&[region(8, 0, 4), own]).err(), error);
    assert_eq!(bed.copying.pin_ring(own, Access::Read).err(), error);
    assert_eq!(bed.copying.read(own.address, &mut [0; 4]).err(), error);
}

#[test]
fn references_beyond_32_bits_are_out_of_reach_to_the_last_page() {
    let bed = bed();
    let last = region(u32::MAX.into(), 0, 4096);
    assert!(bed.copying.pin(&[last]).is_ok());
    for beyond in
        [region(u32::MAX.into(), 0, 4097), region(1 << 32, 0, 1), region((1 << 51) - 1, 4095, u32::MAX)]
    {
        assert_eq!(bed.copying.pin(&[beyond]).err(), Some(MemoryError::NotMapped(beyond.address.0)));
        assert!(bed.mapping.pin_ring(beyond, Access::Read).is_err());
    }
}

#[test]
fn one_pin_does_not_take_more_than_its_pages_and_bytes() {
    let bed = bed();
    let large = region(8, 0, 1 << 31);
    assert_eq!(bed.copying.pin(&[large]).err(), Some(MemoryError::Exhausted));
    assert_eq!(bed.copying.pin(&[large, large]).err(), Some(MemoryError::OutOfRange));
}

#[test]
fn a_device_maps_no_more_than_its_share_and_copies_the_rest() {
    let bed = granted(0..64);
    let share = GRANTS_MAPPED_PER_DEVICE - GRANTS_FOR_RINGS;
    let pins: Vec<_> = (0..64).map(|n| bed.mapping.pin(&[region(n, 0, 1)]).unwrap()).collect();
    assert_eq!((pins.iter().filter(|pin| is_mapped(pin)).count(), bed.xen.grant_mappings()), (share, share));
    let rings: Vec<_> = (0..64).map(|n| bed.mapping.pin_ring(region(n, 0, 1), Access::Write)).collect();
    assert_eq!(rings.iter().filter(|ring| ring.is_ok()).count(), GRANTS_FOR_RINGS);
    drop((pins, rings));
    assert_eq!((bed.xen.grant_mappings(), bed.pages.borrow().mapped()), (0, 0));
    assert!(is_mapped(&bed.mapping.pin(&[region(0, 0, 1)]).unwrap()));
}

#[test]
fn a_device_remembers_no_more_than_its_share() {
    let bed = bed();
    let regions = vec![region(8, 0, 1); GRANTED_REGIONS_PER_DEVICE / 2];
    let first = bed.copying.pin(&regions).unwrap();
    let second = bed.copying.pin(&regions).unwrap();
    assert_eq!(bed.copying.pin(&[region(8, 0, 1)]).err(), Some(MemoryError::Exhausted));
    drop(first);
    assert!(bed.copying.pin(&[region(8, 0, 1)]).is_ok());
    drop(second);
}

#[test]
fn without_frame_numbers_data_is_copied_and_rings_are_refused() {
    let bed = granted(8..10);
    let taken: Vec<_> =
        (1..crate::limits::SINGLE_PAGES).map(|_| SinglePages::map_shared_info(&bed.pages).unwrap()).collect();
    assert!(!is_mapped(&bed.mapping.pin(&[region(8, 0, 8192)]).unwrap()));
    assert_eq!(bed.mapping.pin_ring(region(8, 0, 8192), Access::Read).err(), Some(MemoryError::Exhausted));
    assert_eq!((bed.xen.grant_mappings(), bed.pages.borrow().mapped()), (0, taken.len()));
}

#[test]
fn without_maptrack_or_tables_data_is_copied() {
    let bed = granted(8..10);
    bed.xen.set_grant_mappings_max(1);
    assert!(!is_mapped(&bed.mapping.pin(&[region(8, 0, 8192)]).unwrap()));
    bed.xen.set_grant_mappings_max(usize::MAX);
    assert_eq!((bed.xen.grant_mappings(), bed.pages.borrow().mapped()), (0, 0));
    assert!(is_mapped(&bed.mapping.pin(&[region(8, 0, 8192)]).unwrap()));
    let fresh = granted(8..10);
    fresh.xen.set_pool(0);
    let pinned = fresh.mapping.pin(&[region(8, 0, 8192)]).unwrap();
    assert_eq!((is_mapped(&pinned), bytes(&pinned, 0, 1)), (false, Ok(vec![0])));
}

#[test]
fn a_hypercall_that_is_refused_leaves_nothing() {
    let bed = granted(8..10);
    bed.xen.refuse(Call::CopyGrant, 0, Errno::EPERM);
    let pinned = bed.copying.pin(&[region(8, 0, 4)]).unwrap();
    assert!(bytes(&pinned, 0, 4).is_err());
    assert_eq!(bytes(&pinned, 0, 4), Ok(vec![0; 4]));
    bed.xen.refuse(Call::MapGrant, 0, Errno::EPERM);
    assert!(bed.mapping.pin_ring(region(8, 0, 4), Access::Read).is_err());
    assert_eq!((bed.xen.grant_mappings(), bed.pages.borrow().mapped()), (0, 0));
}

#[test]
fn a_page_that_xen_keeps_takes_its_frame_number_along() {
    let bed = granted(8..10);
    bed.xen.refuse(Call::UnmapGrant, 0, Errno::EPERM);
    drop(bed.mapping.pin(&[region(8, 0, 8192)]).unwrap());
    assert_eq!((bed.xen.grant_mappings(), bed.pages.borrow().mapped()), (2, 2));
    let pinned = bed.mapping.pin(&[region(8, 0, 8192)]).unwrap();
    assert_eq!((is_mapped(&pinned), bed.xen.leaks()), (true, vec![]));
}

#[test]
fn who_is_refused_by_the_policy_is_out_of_reach() {
    let bed = granted(8..10);
    bed.xen.deny(GUEST);
    let pinned = bed.mapping.pin(&[region(8, 0, 4)]).unwrap();
    assert!(!is_mapped(&pinned) && bytes(&pinned, 0, 4).is_err());
}
