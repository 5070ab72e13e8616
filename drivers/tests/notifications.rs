//! Who tells whom, and when: interrupts and kicks, with the event index and with flags (virtio 1.2, 2.7.7 to 2.7.10).

mod common;

use common::{AVAILABLE, Guest, ModelDisk, QUEUE_NOTIFY, SIZE, USED};
use drivers::virtio::Features;
use drivers::virtio::mmio::Progress;
use std::cell::Cell;

const NO_NOTIFY: u16 = 1;
const NO_INTERRUPT: u16 = 1;

/// A guest whose descriptor 0 heads a flush, which may be made available any number of times.
fn guest(features: Features) -> Guest {
    let mut guest = Guest::running(&ModelDisk::new(64));
    guest.start(features | Features::VERSION_1);
    guest.set_request(4, 0, &[]);
    guest
}

fn make_available(guest: &mut Guest, count: u16) {
    for ahead in 0..count {
        guest.put_head(ahead, 0);
    }
    guest.publish(count);
}

#[test]
fn batch_raises_one_interrupt() {
    let mut guest = guest(Features::EVENT_IDX);
    make_available(&mut guest, 10);
    guest.kick();
    assert_eq!(guest.used_index(), 10);
    assert_eq!(guest.line.edges(), 1);
}

#[test]
fn interrupt_waits_for_the_used_event() {
    let mut guest = guest(Features::EVENT_IDX);
    guest.set_used_event(5);
    make_available(&mut guest, 5);
    guest.kick();
    assert_eq!(guest.line.edges(), 0);
    make_available(&mut guest, 1);
    guest.kick();
    assert_eq!(guest.line.edges(), 1);
}

#[test]
fn used_event_is_crossed_within_a_batch() {
    let mut guest = guest(Features::EVENT_IDX);
    guest.set_used_event(3);
    make_available(&mut guest, 8);
    guest.kick();
    assert_eq!(guest.line.edges(), 1);
}

#[test]
fn used_event_left_behind_is_silent() {
    let mut guest = guest(Features::EVENT_IDX);
    make_available(&mut guest, 1);
    guest.kick();
    make_available(&mut guest, 8);
    guest.kick();
    assert_eq!(guest.line.edges(), 1);
}

#[test]
fn flag_keeps_interrupts_away() {
    let mut guest = guest(Features::empty());
    guest.poke_u16(AVAILABLE, NO_INTERRUPT);
    make_available(&mut guest, 1);
    guest.kick();
    assert_eq!(guest.line.edges(), 0);
    guest.poke_u16(AVAILABLE, 0);
    make_available(&mut guest, 1);
    guest.kick();
    assert_eq!(guest.line.edges(), 1);
}

#[test]
fn flag_means_nothing_with_the_event_index() {
    let mut guest = guest(Features::EVENT_IDX);
    guest.poke_u16(AVAILABLE, NO_INTERRUPT);
    make_available(&mut guest, 1);
    guest.kick();
    assert_eq!(guest.line.edges(), 1);
}

#[test]
fn idle_device_asks_for_the_next_kick() {
    let mut guest = guest(Features::EVENT_IDX);
    make_available(&mut guest, 3);
    guest.kick();
    assert_eq!(guest.avail_event(), 3);
}

#[test]
fn polling_device_asks_for_no_kick() {
    let mut guest = guest(Features::EVENT_IDX);
    make_available(&mut guest, 3);
    assert_eq!(guest.device.poll(), Progress { requests: 3, more: false, ..Progress::default() });
    assert_eq!(guest.avail_event(), 0);
    guest.work();
    assert_eq!(guest.avail_event(), 3);
}

#[test]
fn polling_device_sets_the_flag_and_process_clears_it() {
    let mut guest = guest(Features::empty());
    make_available(&mut guest, 3);
    let _ = guest.device.poll();
    assert_eq!(guest.peek_u16(USED), NO_NOTIFY);
    guest.work();
    assert_eq!(guest.peek_u16(USED), 0);
}

#[test]
fn polling_finds_requests_without_a_kick() {
    let mut guest = guest(Features::EVENT_IDX);
    let _ = guest.device.poll();
    make_available(&mut guest, 2);
    assert_eq!(guest.device.poll(), Progress { requests: 2, more: false, ..Progress::default() });
}

/// The guest publishes a head right after the device saw an empty ring, and will not kick: the event says no.
#[test]
fn head_that_slips_in_before_kicks_are_enabled_is_seen() {
    let mut guest = guest(Features::EVENT_IDX);
    make_available(&mut guest, 1);
    guest.put_head(0, 0);
    let published = Cell::new(1_u16);
    guest.memory.set_other_cpu(move |memory, address, _| {
        if address == AVAILABLE + 2 && published.get() < 2 {
            published.set(2);
            memory.poke(AVAILABLE + 2, &2_u16.to_le_bytes()).unwrap();
        }
    });
    let _ = guest.write(QUEUE_NOTIFY, 0);
    assert_eq!(guest.device.process(), Progress { requests: 1, more: true, ..Progress::default() });
    assert_eq!(guest.device.process(), Progress { requests: 1, more: false, ..Progress::default() });
    assert_eq!(guest.used_index(), 2);
}

#[test]
fn one_call_serves_a_bounded_number() {
    let mut guest = guest(Features::EVENT_IDX);
    let _ = guest.write(common::STATUS, 0);
    guest.negotiate(Features::EVENT_IDX | Features::VERSION_1);
    guest.set_queue(64, common::DESCRIPTORS, AVAILABLE, USED);
    let _ = guest.write(common::STATUS, 1 | 2 | 4 | 8);
    make_available(&mut guest, 64);
    assert_eq!(guest.device.process(), Progress { requests: 32, more: true, ..Progress::default() });
    assert_eq!(guest.device.process(), Progress { requests: 32, more: false, ..Progress::default() });
}

#[test]
fn large_requests_are_taken_one_at_a_time() {
    let mut guest = guest(Features::EVENT_IDX);
    guest.set_request(0, 0, &[(common::DATA, 512 * 1024, true)]);
    make_available(&mut guest, SIZE);
    let _ = guest.write(QUEUE_NOTIFY, 0);
    assert_eq!(guest.device.process(), Progress { requests: 1, more: true, ..Progress::default() });
}

#[test]
fn full_ring_is_served() {
    let mut guest = guest(Features::EVENT_IDX);
    make_available(&mut guest, SIZE);
    guest.kick();
    make_available(&mut guest, SIZE);
    guest.kick();
    assert_eq!(guest.used_index(), 2 * SIZE);
    assert!(!guest.needs_reset());
}

#[test]
fn requests_of_many_buffers_are_few_at_a_time() {
    let mut guest = guest(Features::EVENT_IDX | Features::INDIRECT_DESC);
    let mut buffers = vec![(common::HEADER, 16, false)];
    buffers.extend([(common::DATA, 2, true); 254]);
    buffers.push((common::STATUS_BYTE, 1, true));
    guest.set_chain(common::TABLE, 0, &buffers);
    guest.set_descriptor(common::DESCRIPTORS, 0, (common::TABLE, 256 * 16), common::INDIRECT, 0);
    make_available(&mut guest, SIZE);
    let _ = guest.write(QUEUE_NOTIFY, 0);
    assert_eq!(guest.device.process(), Progress { requests: 2, more: true, ..Progress::default() });
}

#[test]
fn requests_of_many_bytes_are_few_at_a_time() {
    let mut guest = guest(Features::EVENT_IDX);
    guest.set_request(0, 0, &[(common::DATA, 128 * 1024, true)]);
    make_available(&mut guest, SIZE);
    let _ = guest.write(QUEUE_NOTIFY, 0);
    assert_eq!(guest.device.process(), Progress { requests: 8, more: true, ..Progress::default() });
}
