//! Block requests that are well-formed chains, in every layout and with every mistake that a header can hold.

mod common;

use common::{
    BASE, DATA, DESCRIPTORS, Guest, HEADER, INDIRECT, ModelDisk, RING_FEATURES, STATUS_BYTE, TABLE, WRITE,
    header,
};
use drivers::block::Operation;
use drivers::virtio::Features;

const IN: u32 = 0;
const OUT: u32 = 1;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

fn guest() -> Guest {
    Guest::running(&ModelDisk::new(4096))
}

/// Submits a request and returns its status and the length told.
fn ask(guest: &mut Guest, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
    guest.set_request(kind, sector, data);
    guest.submit(0);
    (guest.status_byte(), guest.used(guest.used_index().wrapping_sub(1)).1)
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

fn ask_ranges(guest: &mut Guest, kind: u32, ranges: &[Vec<u8>]) -> u8 {
    let data = ranges.concat();
    guest.memory.poke(DATA, &data).unwrap();
    ask(guest, kind, 0, &[(DATA, data.len().try_into().unwrap(), false)]).0
}

#[test]
fn read_tells_data_and_status() {
    let mut guest = guest();
    assert_eq!(ask(&mut guest, IN, 3, &[(DATA, 4096, true)]), (OK, 4097));
    assert_eq!(guest.bytes(DATA, 4096), guest.disk.content(3, 4096));
}

#[test]
fn write_tells_the_status_alone() {
    let mut guest = guest();
    guest.memory.poke(DATA, &[9; 512]).unwrap();
    assert_eq!(ask(&mut guest, OUT, 3, &[(DATA, 512, false)]), (OK, 1));
    assert_eq!(guest.disk.content(3, 512), [9; 512]);
}

#[test]
fn data_is_gathered_from_pieces_of_any_size() {
    let mut guest = guest();
    let pieces = [(DATA + 4095, 3, true), (DATA + 0x3001, 1, true), (DATA + 0x5000, 508, true)];
    assert_eq!(ask(&mut guest, IN, 0, &pieces), (OK, 513));
    let sector = guest.disk.content(0, 512);
    assert_eq!(guest.bytes(DATA + 4095, 3), sector[..3]);
    assert_eq!(guest.bytes(DATA + 0x3001, 1), sector[3..4]);
    assert_eq!(guest.bytes(DATA + 0x5000, 508), sector[4..]);
}

#[test]
fn empty_buffers_are_tolerated() {
    let mut guest = guest();
    let data = [(DATA, 0, false), (0, 0, true), (DATA, 512, true), (DATA, 0, false)];
    assert_eq!(ask(&mut guest, IN, 0, &data), (OK, 513));
}

#[test]
fn header_may_be_split_over_buffers() {
    let mut guest = guest();
    guest.set_header(IN, 7);
    let header = [(HEADER, 1, false), (HEADER + 1, 14, false), (HEADER + 15, 1, false)];
    guest.set_chain(DESCRIPTORS, 0, &[&header[..], &[(DATA, 512, true), (STATUS_BYTE, 1, true)]].concat());
    guest.submit(0);
    assert_eq!(guest.bytes(DATA, 512), guest.disk.content(7, 512));
}

#[test]
fn header_and_data_may_share_a_buffer() {
    let mut guest = guest();
    guest.memory.poke(DATA, &[&header(OUT, 7)[..], &[5; 512]].concat()).unwrap();
    guest.set_chain(DESCRIPTORS, 0, &[(DATA, 16 + 512, false), (STATUS_BYTE, 1, true)]);
    guest.submit(0);
    assert_eq!(guest.disk.content(7, 512), [5; 512]);
}

#[test]
fn status_may_share_a_buffer_with_data() {
    let mut guest = guest();
    guest.set_header(IN, 7);
    guest.memory.poke(DATA + 512, &[0xff]).unwrap();
    guest.set_chain(DESCRIPTORS, 0, &[(HEADER, 16, false), (DATA, 513, true)]);
    guest.submit(0);
    assert_eq!(guest.bytes(DATA + 512, 1), [OK]);
    assert_eq!(guest.used(0), (0, 513));
}

#[test]
fn indirect_table_is_followed() {
    let mut guest = guest();
    guest.set_header(IN, 7);
    guest.set_chain(TABLE, 0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS_BYTE, 1, true)]);
    guest.set_descriptor(DESCRIPTORS, 5, (TABLE, 48), INDIRECT, 0);
    guest.submit(5);
    assert_eq!(guest.used(0), (5, 513));
    assert_eq!(guest.bytes(DATA, 512), guest.disk.content(7, 512));
}

#[test]
fn indirect_table_may_end_a_direct_chain() {
    let mut guest = guest();
    guest.set_request(IN, 7, &[]);
    guest.set_chain(TABLE, 0, &[(DATA, 512, true), (STATUS_BYTE, 1, true)]);
    guest.set_descriptor(DESCRIPTORS, 1, (TABLE, 32), INDIRECT | WRITE, 0);
    guest.submit(0);
    assert_eq!(guest.bytes(DATA, 512), guest.disk.content(7, 512));
    assert_eq!(guest.status_byte(), OK);
}

#[test]
fn indirect_table_may_be_longer_than_the_queue() {
    let mut guest = guest();
    guest.set_header(IN, 0);
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend((0..254).map(|sector| (DATA + sector * 512, 512, true)));
    buffers.push((STATUS_BYTE, 1, true));
    guest.set_chain(TABLE, 0, &buffers);
    guest.set_descriptor(DESCRIPTORS, 0, (TABLE, 256 * 16), INDIRECT, 0);
    guest.submit(0);
    assert_eq!(guest.used(0), (0, 254 * 512 + 1));
}

#[test]
fn large_request_is_mapped_in_pieces() {
    let mut guest = guest();
    let data: Vec<_> = (0..13).map(|piece| (DATA + piece * 0x10_000, 0x10_000, true)).collect();
    assert_eq!(ask(&mut guest, IN, 9, &data), (OK, 13 * 0x10_000 + 1));
    assert_eq!(guest.bytes(DATA, 13 * 0x10_000), guest.disk.content(9, 13 * 0x10_000));
    assert_eq!(guest.disk.asked.borrow().len(), 4);
}

#[test]
fn large_write_arrives_whole() {
    let mut guest = guest();
    let written: Vec<u8> = (0..0x90_200).map(|byte| (byte % 253) as u8).collect();
    guest.memory.poke(DATA + 1, &written).unwrap();
    let data = [(DATA + 1, 0x80_000, false), (DATA + 1 + 0x80_000, 0x10_200, false)];
    assert_eq!(ask(&mut guest, OUT, 9, &data), (OK, 1));
    assert_eq!(guest.disk.content(9, written.len()), written);
}

#[test]
fn request_above_the_limit_reports_ioerr() {
    let mut guest = guest();
    let data = [(DATA, 254 * 65536 + 512, true)];
    assert_eq!(ask(&mut guest, IN, 0, &data), (IOERR, 0));
}

#[test]
fn buffer_of_4_gib_reports_ioerr() {
    let mut guest = guest();
    assert_eq!(ask(&mut guest, IN, 0, &[(DATA, u32::MAX - 511 - 17, true)]), (IOERR, 0));
    assert!(!guest.needs_reset());
}

#[test]
fn length_that_is_no_sector_reports_ioerr() {
    let mut guest = guest();
    assert_eq!(ask(&mut guest, IN, 0, &[(DATA, 511, true)]), (IOERR, 0));
    assert_eq!(ask(&mut guest, OUT, 0, &[(DATA, 513, false)]), (IOERR, 1));
}

#[test]
fn sector_that_wraps_reports_ioerr() {
    let mut guest = guest();
    assert_eq!(ask(&mut guest, IN, u64::MAX, &[(DATA, 512, true)]), (IOERR, 0));
    assert_eq!(ask(&mut guest, OUT, u64::MAX / 512, &[(DATA, 512, false)]), (IOERR, 1));
    assert!(guest.disk.asked.borrow().is_empty());
}

#[test]
fn short_header_reports_ioerr() {
    let mut guest = guest();
    guest.set_chain(DESCRIPTORS, 0, &[(HEADER, 15, false), (STATUS_BYTE, 1, true)]);
    guest.submit(0);
    assert_eq!((guest.status_byte(), guest.used(0)), (IOERR, (0, 1)));
}

#[test]
fn unknown_request_is_answered_unsupported() {
    let mut guest = guest();
    assert_eq!(ask(&mut guest, 0x4242, 0, &[]), (UNSUPP, 1));
    assert_eq!(ask(&mut guest, 2, 0, &[(DATA, 512, true)]), (UNSUPP, 0));
}

#[test]
fn id_is_cut_to_the_buffer() {
    let mut guest = guest();
    guest.memory.poke(DATA, &[0xff; 4]).unwrap();
    assert_eq!(ask(&mut guest, GET_ID, 0, &[(DATA, 3, true)]), (OK, 4));
    assert_eq!(guest.bytes(DATA, 4), *b"mod\xff");
}

#[test]
fn id_leaves_the_rest_of_a_long_buffer() {
    let mut guest = guest();
    assert_eq!(ask(&mut guest, GET_ID, 0, &[(DATA, 512, true)]), (OK, 20));
    assert_eq!(guest.bytes(DATA, 20), *b"model\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn data_in_a_hole_reports_ioerr_and_the_next_request_is_served() {
    let mut guest = guest();
    guest.memory.punch_hole(DATA + 4096);
    assert_eq!(ask(&mut guest, IN, 0, &[(DATA, 8192, true)]), (IOERR, 0));
    assert_eq!(ask(&mut guest, IN, 0, &[(DATA, 4096, true)]), (OK, 4097));
}

#[test]
fn data_outside_guest_memory_reports_ioerr() {
    let mut guest = guest();
    assert_eq!(ask(&mut guest, OUT, 0, &[(BASE - 512, 512, false)]), (IOERR, 1));
    assert_eq!(ask(&mut guest, OUT, 0, &[(u64::MAX - 511, 512, false)]), (IOERR, 1));
}

#[test]
fn piece_of_a_large_request_in_a_hole_reports_ioerr() {
    let mut guest = guest();
    guest.memory.punch_hole(DATA + 0x50_000);
    assert_eq!(ask(&mut guest, IN, 0, &[(DATA, 0x60_000, true)]), (IOERR, 0));
}

#[test]
fn status_in_a_hole_gives_the_chain_back_and_goes_on() {
    let mut guest = guest();
    guest.memory.punch_hole(STATUS_BYTE);
    assert_eq!(ask(&mut guest, IN, 0, &[(DATA, 512, true)]), (0xff, 0));
    assert!(!guest.needs_reset());
    assert_eq!(guest.used_index(), 1);
}

#[test]
fn request_that_finds_few_slots_is_served_in_small_pieces() {
    let mut guest = guest();
    guest.memory.set_largest_pin(16 << 10);
    assert_eq!(ask(&mut guest, IN, 3, &[(DATA, 96 << 10, true)]), (OK, (96 << 10) + 1));
    assert_eq!(guest.bytes(DATA, 96 << 10), guest.disk.content(3, 96 << 10));
    assert_eq!(guest.device.device().counters().reads, 1);
}

#[test]
fn data_without_any_slot_reports_ioerr() {
    let mut guest = guest();
    guest.memory.set_largest_pin(16);
    assert_eq!(ask(&mut guest, IN, 3, &[(DATA, 8192, true)]), (IOERR, 0));
}

#[test]
fn lack_of_slots_never_passes_for_an_answer() {
    let mut guest = guest();
    guest.memory.set_largest_pin(0);
    guest.set_request(IN, 0, &[(DATA, 512, true)]);
    guest.submit(0);
    assert_eq!(guest.used_index(), 0);
    assert!(guest.needs_reset());
}

#[test]
fn discarded_sectors_read_zero() {
    let mut guest = guest();
    assert_eq!(ask_ranges(&mut guest, DISCARD, &[range(8, 2, 0), range(20, 1, 0)]), OK);
    assert_eq!(guest.disk.content(8, 1024), [0; 1024]);
    assert_eq!(guest.disk.content(20, 512), [0; 512]);
    assert_ne!(guest.disk.content(10, 512), [0; 512]);
}

#[test]
fn write_zeroes_may_unmap() {
    let mut guest = guest();
    assert_eq!(ask_ranges(&mut guest, WRITE_ZEROES, &[range(8, 2, 1)]), OK);
    let zeroes = Operation::WriteZeroes { sector: 8, sectors: 2 };
    assert_eq!(guest.disk.asked.borrow().first(), Some(&zeroes));
}

#[test]
fn unknown_flags_of_a_range_are_unsupported() {
    let mut guest = guest();
    assert_eq!(ask_ranges(&mut guest, DISCARD, &[range(8, 2, 1)]), UNSUPP);
    assert_eq!(ask_ranges(&mut guest, WRITE_ZEROES, &[range(8, 2, 2)]), UNSUPP);
}

#[test]
fn one_bad_range_keeps_all_from_being_carried_out() {
    let mut guest = guest();
    assert_eq!(ask_ranges(&mut guest, DISCARD, &[range(8, 2, 0), range(4095, 2, 0)]), IOERR);
    assert_eq!(ask_ranges(&mut guest, DISCARD, &[range(8, 2, 0), range(u64::MAX, 2, 0)]), IOERR);
    assert!(guest.disk.asked.borrow().is_empty());
}

#[test]
fn too_many_ranges_report_ioerr() {
    let mut guest = guest();
    assert_eq!(ask_ranges(&mut guest, DISCARD, &vec![range(8, 1, 0); 4]), OK);
    assert_eq!(ask_ranges(&mut guest, DISCARD, &vec![range(8, 1, 0); 5]), IOERR);
    assert_eq!(ask_ranges(&mut guest, DISCARD, &[]), IOERR);
}

#[test]
fn torn_range_reports_ioerr() {
    let mut guest = guest();
    assert_eq!(ask(&mut guest, DISCARD, 0, &[(DATA, 15, false)]), (IOERR, 1));
}

#[test]
fn read_only_disk_refuses_every_change() {
    let mut guest = Guest::running(&ModelDisk::read_only(64));
    assert_eq!(ask(&mut guest, OUT, 0, &[(DATA, 512, false)]), (IOERR, 1));
    assert_eq!(ask_ranges(&mut guest, DISCARD, &[range(0, 1, 0)]), IOERR);
    assert_eq!(ask_ranges(&mut guest, WRITE_ZEROES, &[range(0, 1, 0)]), IOERR);
    assert!(guest.disk.asked.borrow().is_empty());
}

#[test]
fn volume_failure_reports_ioerr() {
    let mut guest = guest();
    guest.disk.broken.set(true);
    assert_eq!(ask(&mut guest, IN, 0, &[(DATA, 512, true)]), (IOERR, 0));
    assert_eq!(ask(&mut guest, 4, 0, &[]), (IOERR, 1));
    assert_eq!(guest.device.device().counters().errors, 2);
}

#[test]
fn driver_without_ring_features_is_served() {
    let mut guest = guest();
    guest.start(Features::VERSION_1);
    assert_eq!(ask(&mut guest, IN, 3, &[(DATA, 512, true)]), (OK, 513));
}

#[test]
fn no_pin_outlives_its_request() {
    let mut guest = guest();
    let rings = guest.memory.pins();
    ask(&mut guest, IN, 3, &[(DATA, 512, true)]);
    assert_eq!(guest.memory.pins(), rings);
    assert_eq!(guest.memory.most_pins(), rings + 1);
}

/// Everything that the device reads from the chain is scribbled over at once: what it works with must be its copy.
#[test]
fn what_was_read_once_is_never_read_again() {
    let mut guest = guest();
    guest.start(RING_FEATURES);
    guest.memory.poke(DATA, &[9; 512]).unwrap();
    guest.memory.set_other_cpu(|memory, address, length| {
        if !(common::AVAILABLE..common::USED).contains(&address) {
            memory.poke(address, &vec![0xff; length]).unwrap();
        }
    });
    assert_eq!(ask(&mut guest, OUT, 3, &[(DATA, 512, false)]), (OK, 1));
    assert_eq!(guest.disk.content(3, 512), [9; 512]);
}
