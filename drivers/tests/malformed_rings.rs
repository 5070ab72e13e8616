//! Rings that break the rules: the device needs a reset, holds nothing, and is whole again after the reset.

mod common;

use common::{
    DATA, DESCRIPTORS, Guest, HEADER, INDIRECT, INTERRUPT_ACK, INTERRUPT_STATUS, ModelDisk, NEXT,
    QUEUE_NOTIFY, RING_FEATURES, SIZE, STATUS, STATUS_BYTE, TABLE, WRITE,
};
use drivers::virtio::Features;
use drivers::virtio::mmio::{Effect, Progress};

fn guest() -> Guest {
    let guest = Guest::running(&ModelDisk::new(64));
    guest.set_request(0, 0, &[(DATA, 512, true)]);
    guest
}

/// The device refused what came, told so by one interrupt, and works after a reset.
fn assert_broken_until_reset(mut guest: Guest) {
    assert!(guest.needs_reset());
    assert_eq!(guest.used_index(), 0);
    assert_eq!(guest.read(INTERRUPT_STATUS), 2);
    assert_eq!(guest.line.edges(), 1);
    assert_eq!(guest.write(QUEUE_NOTIFY, 0), Effect::None);
    assert_eq!(guest.device.process(), Progress::default());
    assert_eq!(guest.device.counters().breakdowns, 1);
    assert_eq!(guest.memory.pins(), 3);

    guest.start(RING_FEATURES);
    guest.set_request(0, 0, &[(DATA, 512, true)]);
    guest.submit(0);
    assert_eq!(guest.status_byte(), 0);
    assert!(!guest.needs_reset());
}

#[test]
fn available_index_beyond_the_queue_size() {
    let mut guest = guest();
    guest.publish(SIZE + 1);
    guest.kick();
    assert_broken_until_reset(guest);
}

#[test]
fn available_index_going_backwards() {
    let mut guest = guest();
    guest.publish(u16::MAX);
    guest.kick();
    assert_broken_until_reset(guest);
}

#[test]
fn head_outside_the_table() {
    let mut guest = guest();
    guest.submit(SIZE);
    assert_broken_until_reset(guest);
}

#[test]
fn next_outside_the_table() {
    let mut guest = guest();
    guest.set_descriptor(DESCRIPTORS, 0, (HEADER, 16), NEXT, SIZE);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn chain_that_loops_on_itself() {
    let mut guest = guest();
    guest.set_descriptor(DESCRIPTORS, 0, (HEADER, 16), NEXT, 0);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn chain_of_empty_buffers_that_loops() {
    let mut guest = guest();
    guest.set_descriptor(DESCRIPTORS, 0, (HEADER, 0), NEXT, 1);
    guest.set_descriptor(DESCRIPTORS, 1, (HEADER, 0), NEXT | WRITE, 0);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn readable_after_writable() {
    let mut guest = guest();
    guest.set_chain(DESCRIPTORS, 0, &[(STATUS_BYTE, 1, true), (HEADER, 16, false)]);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn buffer_that_wraps_around_the_address_space() {
    let mut guest = guest();
    guest.set_request(0, 0, &[(u64::MAX - 510, 512, true)]);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn buffers_of_more_than_4_gib_together() {
    let mut guest = guest();
    guest.set_request(0, 0, &[(DATA, u32::MAX, true), (DATA, 512, true)]);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn request_without_room_for_a_status() {
    let mut guest = guest();
    guest.set_chain(DESCRIPTORS, 0, &[(HEADER, 16, false), (DATA, 512, false)]);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn chain_of_empty_buffers_only() {
    let mut guest = guest();
    guest.set_chain(DESCRIPTORS, 0, &[(0, 0, false), (0, 0, true)]);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

fn submit_table(length: u32, flags: u16) -> Guest {
    let mut guest = guest();
    guest.set_chain(TABLE, 0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS_BYTE, 1, true)]);
    guest.set_descriptor(DESCRIPTORS, 0, (TABLE, length), INDIRECT | flags, 1);
    guest.submit(0);
    guest
}

#[test]
fn indirect_table_that_is_chained_on() {
    assert_broken_until_reset(submit_table(48, NEXT));
}

#[test]
fn indirect_table_that_is_empty() {
    assert_broken_until_reset(submit_table(0, 0));
}

#[test]
fn indirect_table_with_a_part_of_a_descriptor() {
    assert_broken_until_reset(submit_table(49, 0));
}

#[test]
fn indirect_table_that_is_too_long() {
    assert_broken_until_reset(submit_table(257 * 16, 0));
}

#[test]
fn indirect_table_of_4_gib() {
    assert_broken_until_reset(submit_table(!15, 0));
}

#[test]
fn indirect_chain_that_leaves_its_table() {
    assert_broken_until_reset(submit_table(32, 0));
}

#[test]
fn chain_and_table_that_are_too_long_together() {
    let mut guest = guest();
    guest.set_chain(TABLE, 0, &[(DATA, 1, true); 256]);
    guest.set_descriptor(DESCRIPTORS, 0, (HEADER, 16), NEXT, 1);
    guest.set_descriptor(DESCRIPTORS, 1, (TABLE, 256 * 16), INDIRECT, 0);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn indirect_table_within_a_table() {
    let mut guest = guest();
    guest.set_chain(TABLE, 0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS_BYTE, 1, true)]);
    guest.set_descriptor(TABLE, 1, (DATA, 512), NEXT | WRITE | INDIRECT, 2);
    guest.set_descriptor(DESCRIPTORS, 0, (TABLE, 48), INDIRECT, 0);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn indirect_chain_that_loops() {
    let mut guest = guest();
    guest.set_descriptor(TABLE, 0, (HEADER, 16), NEXT, 0);
    guest.set_descriptor(DESCRIPTORS, 0, (TABLE, 16), INDIRECT, 0);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn indirect_table_in_a_hole() {
    let mut guest = guest();
    guest.memory.punch_hole(TABLE);
    guest.set_descriptor(DESCRIPTORS, 0, (TABLE, 16), INDIRECT, 0);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn indirect_table_that_was_not_negotiated() {
    let mut guest = guest();
    guest.start(Features::VERSION_1 | Features::EVENT_IDX);
    guest.set_chain(TABLE, 0, &[(HEADER, 16, false), (STATUS_BYTE, 1, true)]);
    guest.set_descriptor(DESCRIPTORS, 0, (TABLE, 32), INDIRECT, 0);
    guest.submit(0);
    assert_broken_until_reset(guest);
}

#[test]
fn requests_before_a_malformed_one_are_answered() {
    let mut guest = guest();
    guest.set_descriptor(DESCRIPTORS, 7, (HEADER, 16), NEXT, 7);
    guest.put_head(0, 0);
    guest.put_head(1, 7);
    guest.put_head(2, 0);
    guest.publish(3);
    guest.kick();
    assert!(guest.needs_reset());
    assert_eq!(guest.used_index(), 1);
    assert_eq!(guest.status_byte(), 0);
    assert_eq!(guest.read(INTERRUPT_STATUS), 3);
}

#[test]
fn status_write_does_not_hide_that_a_reset_is_needed() {
    let mut guest = guest();
    guest.submit(SIZE);
    let _ = guest.write(STATUS, 1 | 2 | 4 | 8);
    assert!(guest.needs_reset());
}

#[test]
fn flood_of_kicks_costs_no_interrupt() {
    let mut guest = guest();
    for _ in 0..1000 {
        guest.kick();
    }
    assert_eq!(guest.line.edges(), 0);
    assert_eq!(guest.device.device().counters().batches, 0);
}

#[test]
fn reset_between_kick_and_work_leaves_nothing_to_do() {
    let mut guest = guest();
    guest.put_head(0, 0);
    guest.publish(1);
    let _ = guest.write(QUEUE_NOTIFY, 0);
    let _ = guest.write(STATUS, 0);
    assert_eq!(guest.device.process(), Progress::default());
    assert_eq!(guest.status_byte(), 0xff);
    assert_eq!(guest.memory.pins(), 0);
}

#[test]
fn connect_and_disconnect_for_ever_holds_nothing() {
    let mut guest = guest();
    for _ in 0..1000 {
        guest.start(RING_FEATURES);
        guest.submit(SIZE);
        let _ = guest.write(INTERRUPT_ACK, 3);
    }
    let _ = guest.write(STATUS, 0);
    assert_eq!(guest.memory.pins(), 0);
}

#[test]
fn ring_pages_that_are_ballooned_stay_ours_until_reset() {
    let mut guest = guest();
    guest.memory.punch_hole(DESCRIPTORS);
    guest.submit(0);
    assert_eq!(guest.status_byte(), 0);
}

#[test]
fn guest_that_dies_leaves_nothing_pinned() {
    let guest = guest();
    let memory = guest.memory.clone();
    drop(guest);
    assert_eq!(memory.pins(), 0);
}
