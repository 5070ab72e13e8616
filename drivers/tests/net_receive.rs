//! Frames that a guest receives, in rings written by hand: buffers of any shape, too few, too small, or none.

mod common;

use common::net_bed::{
    DATA, GUEST, HEADER_BYTES, NetGuest, RING_PINS, STATION, frame, sum, tcp_frame, with, without,
};
use common::{QUEUE_NOTIFY, STATUS, cut};
use drivers::net::offload::{Offload, PartialChecksum, Segmentation, SegmentedProtocol};
use drivers::virtio::Features;
use drivers::virtio::mmio::Progress;
use drivers::virtio::net::config::{GUEST_CSUM, GUEST_TSO4, MRG_RXBUF};
use proptest::prelude::*;
use std::cell::Cell;

const NO_NOTIFY: u16 = 1;

fn sent(length: usize) -> Vec<u8> {
    frame(GUEST, STATION, length)
}

fn deliver(guest: &mut NetGuest, frame: &[u8]) {
    guest.deliver(frame, Offload::default());
    guest.work();
}

/// What is left of a segment of `common::net_bed::tcp_frame`.
fn uncut(segment_bytes: u16) -> Offload {
    Offload {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        segmentation: Some(Segmentation {
            protocol: SegmentedProtocol::Tcp4,
            segment_bytes,
            header_bytes: 54,
        }),
        is_verified: false,
    }
}

fn plain_header(buffers: u8) -> Vec<u8> {
    vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, buffers, 0]
}

#[test]
fn a_frame_is_received_behind_its_header() {
    let mut guest = NetGuest::running();
    guest.post_buffers(4, 2048);
    guest.kick(0);
    deliver(&mut guest, &sent(60));
    assert_eq!(guest.received(), Some((plain_header(1), sent(60))));
    assert_eq!(guest.received(), None);
    assert_eq!((guest.counters().frames_received, guest.counters().bytes_received), (1, 60));
    assert_eq!((guest.memory.pins(), guest.frames_in_use()), (RING_PINS, 0));
}

#[test]
fn a_frame_is_merged_from_buffers_of_any_size() {
    for (length, bytes, count) in [
        (60, 12, 6),
        (60, 13, 6),
        (700, 12, 60),
        (1514, 24, 64),
        (1514, 763, 2),
        (1514, 762, 3),
        (1514, 1525, 2),
        (1514, 1526, 1),
        (1514, 4096, 1),
    ] {
        let mut guest = NetGuest::with_features(with(MRG_RXBUF));
        guest.post_buffers(count + 3, bytes);
        guest.kick(0);
        deliver(&mut guest, &sent(length));
        assert_eq!(guest.used_index(0), count, "{length} bytes in buffers of {bytes}");
        let buffers = u8::try_from(count).unwrap();
        assert_eq!(guest.received(), Some((plain_header(buffers), sent(length))));
        // What was taken too many was put back.
        deliver(&mut guest, &sent(14));
        assert_eq!(guest.received().map(|(_, frame)| frame), Some(sent(14)));
    }
}

#[test]
fn the_lengths_told_are_those_written() {
    let mut guest = NetGuest::running();
    guest.post_buffers(4, 100);
    guest.kick(0);
    deliver(&mut guest, &sent(200));
    assert_eq!(guest.take_used(0), [(0, 100), (1, 100), (2, 12)]);
}

#[test]
fn a_large_segment_is_received_as_one_over_many_buffers() {
    let mut guest = NetGuest::running();
    guest.post_buffers(200, 1536);
    guest.kick(0);
    let large = tcp_frame(GUEST, STATION, 65_480);
    guest.deliver(&large, uncut(1448));
    guest.work();
    let (header, frame) = guest.received().unwrap();
    assert_eq!(header, [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 43, 0]);
    assert_eq!(frame, large);
    assert_eq!(guest.received(), None);
}

#[test]
fn a_large_segment_is_cut_for_who_cannot_take_it() {
    for features in [without(GUEST_TSO4), without(GUEST_CSUM)] {
        let mut guest = NetGuest::with_features(features);
        guest.post_buffers(200, 1536);
        guest.kick(0);
        let large = tcp_frame(GUEST, STATION, 65_480);
        guest.deliver(&large, uncut(1448));
        guest.work();
        let pieces: Vec<_> = core::iter::from_fn(|| guest.received()).collect();
        assert_eq!(pieces.len(), 65_480_usize.div_ceil(1448));
        let payload: Vec<u8> = pieces.iter().flat_map(|(_, frame)| frame[54..].to_vec()).collect();
        assert_eq!(payload, large[54..]);
        for (header, frame) in &pieces {
            // It may leave the checksum, if the guest can complete it.
            let is_left = features.contains(GUEST_CSUM) && header[0] == 1;
            assert_eq!(header[1], 0);
            assert!(is_left || header[0] == 0);
            assert_eq!(sum(&frame[14..34]), 0xffff);
        }
        assert_eq!(guest.frames_in_use(), 0);
    }
}

/// The buffers run out in the middle of a frame that is cut: it goes on where it was.
#[test]
fn a_frame_that_is_cut_goes_on_with_new_buffers() {
    let mut guest = NetGuest::with_features(without(GUEST_TSO4));
    let large = tcp_frame(GUEST, STATION, 30_000);
    guest.deliver(&large, uncut(1448));
    guest.deliver(&sent(60), Offload::default());
    let mut payload = Vec::new();
    for _ in 0..7 {
        guest.post_buffers(3, 2048);
        guest.kick(0);
        let pieces: Vec<_> = core::iter::from_fn(|| guest.received()).collect();
        assert_eq!(pieces.len(), 3);
        payload.extend(pieces.iter().flat_map(|(_, frame)| frame[54..].to_vec()));
    }
    assert_eq!(payload, large[54..]);
    guest.post_buffers(3, 2048);
    guest.kick(0);
    assert_eq!(guest.received().map(|(_, frame)| frame), Some(sent(60)));
}

/// Neither an endless look at too few buffers, nor a kick that is missed.
fn too_few_buffers_wait_for_the_next(features: Features) {
    let mut guest = NetGuest::with_features(features);
    guest.post_buffers(3, 500);
    guest.kick(0);
    guest.deliver(&sent(1514), Offload::default());
    assert!(guest.work() < 5);
    assert!(!guest.device.has_work());
    assert_eq!(guest.used_index(0), 0);
    if features.contains(Features::EVENT_IDX) {
        assert_eq!(guest.avail_event(0), 3);
    } else {
        assert_eq!(guest.used_flags(0), 0);
    }
    assert!(guest.work() < 5);
    guest.post_buffers(1, 500);
    guest.kick(0);
    assert_eq!(guest.received(), Some((plain_header(4), sent(1514))));
    assert_eq!(guest.frames_in_use(), 0);
}

#[test]
fn too_few_buffers_wait_for_the_next_with_the_event_index() {
    too_few_buffers_wait_for_the_next(without(Features::empty()));
}

#[test]
fn too_few_buffers_wait_for_the_next_with_flags() {
    too_few_buffers_wait_for_the_next(without(Features::EVENT_IDX));
}

/// The guest posts the buffer that was missing while the device looks, and will not kick.
#[test]
fn a_buffer_that_slips_in_before_kicks_are_enabled_is_seen() {
    for look in 1..6 {
        let mut guest = NetGuest::running();
        guest.post_buffers(3, 500);
        guest.kick(0);
        guest.deliver(&sent(1514), Offload::default());
        guest.post_buffers(1, 500);
        let (index, next) = (guest.receive.available() + 2, guest.receive.next);
        guest.memory.poke(index, &(next - 1).to_le_bytes()).unwrap();
        let looks = Cell::new(0);
        guest.memory.set_other_cpu(move |memory, address, _| {
            looks.set(looks.get() + u32::from(address == index));
            if looks.get() == look {
                memory.poke(index, &next.to_le_bytes()).unwrap();
            }
        });
        guest.work();
        if guest.used_index(0) == 0 {
            // It had stopped looking, and said that it wants to hear of the next.
            assert_eq!((guest.avail_event(0), look), (3, 5));
            guest.kick(0);
        }
        assert_eq!(guest.received(), Some((plain_header(4), sent(1514))), "look {look}");
    }
}

#[test]
fn a_frame_that_a_full_ring_cannot_take_is_dropped() {
    let mut guest = NetGuest::cold();
    guest.start(without(Features::empty()), [4, 256, 64]);
    guest.post_buffers(4, 100);
    guest.kick(0);
    deliver(&mut guest, &sent(1514));
    deliver(&mut guest, &sent(60));
    assert_eq!(guest.received(), Some((plain_header(1), sent(60))));
    assert_eq!(guest.counters().receive_drops, 1);
}

#[test]
fn a_frame_over_too_many_buffers_is_dropped() {
    let mut guest = NetGuest::running();
    guest.post_buffers(255, 13);
    guest.kick(0);
    deliver(&mut guest, &sent(1514));
    deliver(&mut guest, &sent(60));
    assert_eq!(guest.received(), Some((plain_header(6), sent(60))));
    assert_eq!(guest.counters().receive_drops, 1);
}

#[test]
fn without_merging_a_frame_goes_to_one_chain_or_none() {
    let mut guest = NetGuest::with_features(without(MRG_RXBUF));
    guest.post_buffers(2, 112);
    guest.kick(0);
    deliver(&mut guest, &sent(101));
    assert_eq!((guest.used_index(0), guest.counters().receive_drops), (0, 1));
    deliver(&mut guest, &sent(100));
    deliver(&mut guest, &sent(14));
    assert_eq!(guest.received(), Some((plain_header(1), sent(100))));
    assert_eq!(guest.received(), Some((plain_header(1), sent(14))));
}

/// With buffers posted and no frame there is nothing to do, and nothing to be told.
fn stocked_queue_is_quiet(features: Features) {
    let mut guest = NetGuest::with_features(features);
    guest.post_buffers(8, 2048);
    guest.kick(0);
    let event = guest.avail_event(0);
    assert_eq!(guest.device.process(), Progress::default());
    assert_eq!(guest.device.poll(), Progress::default());
    assert!(!guest.device.has_work());
    guest.post_buffers(8, 2048);
    assert_eq!(guest.device.process(), Progress::default());
    if features.contains(Features::EVENT_IDX) {
        assert_eq!(guest.avail_event(0), event);
    } else {
        assert_eq!(guest.used_flags(0), NO_NOTIFY);
    }
    // A frame is work, without a kick.
    guest.deliver(&sent(60), Offload::default());
    assert!(guest.device.has_work());
    let edges = guest.line.edges();
    assert_eq!(guest.device.process(), Progress { requests: 1, ..Progress::default() });
    assert_eq!(guest.line.edges(), edges + 1);
    assert!(!guest.device.has_work());
    // Until the buffers run out: then the next one is told.
    (0..20).for_each(|_| guest.deliver(&sent(60), Offload::default()));
    guest.work();
    assert_eq!(guest.used_index(0), 16);
    assert!(!guest.device.has_work());
    if features.contains(Features::EVENT_IDX) {
        assert_eq!(guest.avail_event(0), 16);
    } else {
        assert_eq!(guest.used_flags(0), 0);
    }
    guest.post_buffers(8, 2048);
    guest.kick(0);
    assert_eq!(guest.used_index(0), 21);
    assert_eq!(guest.frames_in_use(), 0);
}

#[test]
fn stocked_queue_is_quiet_with_the_event_index() {
    stocked_queue_is_quiet(without(Features::empty()));
}

#[test]
fn stocked_queue_is_quiet_with_flags() {
    stocked_queue_is_quiet(without(Features::EVENT_IDX));
}

#[test]
fn frames_before_the_first_buffer_wait_for_it() {
    let mut guest = NetGuest::running();
    (0..10).for_each(|_| guest.deliver(&sent(60), Offload::default()));
    assert!(guest.work() < 5);
    assert!(!guest.device.has_work());
    guest.post_buffers(10, 2048);
    guest.kick(0);
    assert_eq!(guest.used_index(0), 10);
}

#[test]
fn frames_for_a_guest_without_the_queue_are_no_work() {
    let mut guest = NetGuest::cold();
    guest.start(without(Features::empty()), [0, 256, 64]);
    deliver(&mut guest, &sent(60));
    assert!(!guest.device.has_work());
    guest.write(STATUS, 0);
    assert_eq!(guest.frames_in_use(), 0);
}

#[test]
fn one_call_delivers_a_bounded_number() {
    let mut guest = NetGuest::running();
    (0..70).for_each(|_| guest.deliver(&sent(60), Offload::default()));
    guest.post_buffers(200, 2048);
    guest.write(QUEUE_NOTIFY, 0);
    assert_eq!(guest.device.process(), Progress { requests: 64, more: true, ..Progress::default() });
    assert_eq!(guest.device.process(), Progress { requests: 6, more: false, ..Progress::default() });
    // The guest has not asked for another.
    assert_eq!(guest.line.edges(), 1);
}

#[test]
fn one_call_delivers_a_bounded_number_of_bytes() {
    let mut guest = NetGuest::running();
    let large = tcp_frame(GUEST, STATION, 65_495);
    (0..4).for_each(|_| guest.deliver(&large, uncut(1448)));
    guest.post_buffers(255, 2048);
    guest.write(QUEUE_NOTIFY, 0);
    // 192 KiB are three of the largest, in 33 buffers each.
    assert_eq!(guest.device.process(), Progress { requests: 3 * 33, more: true, ..Progress::default() });
    assert_eq!(guest.device.process(), Progress { requests: 33, more: false, ..Progress::default() });
    let received: Vec<_> = core::iter::from_fn(|| guest.received()).map(|(_, frame)| frame).collect();
    assert_eq!(received, vec![large; 4]);
}

#[test]
fn a_buffer_in_a_hole_comes_back_empty() {
    receive_in_hole(NetGuest::running());
    receive_in_hole(NetGuest::granting(without(Features::empty())));
}

fn receive_in_hole(mut guest: NetGuest) {
    guest.memory.punch_hole(DATA + 0x1000);
    guest.post_buffers(4, 100);
    guest.kick(0);
    deliver(&mut guest, &sent(250));
    assert_eq!(guest.take_used(0), [(0, 0), (1, 0), (2, 0)]);
    deliver(&mut guest, &sent(60));
    assert_eq!(guest.received(), Some((plain_header(1), sent(60))));
    assert_eq!((guest.counters().errors, guest.counters().frames_received), (1, 1));
}

#[test]
fn buffers_that_we_have_no_room_to_reach_stay() {
    let mut guest = NetGuest::running();
    guest.post_buffers(4, 2048);
    guest.kick(0);
    guest.memory.set_largest_pin(1000);
    deliver(&mut guest, &sent(1200));
    assert_eq!((guest.used_index(0), guest.counters().receive_drops), (0, 1));
    deliver(&mut guest, &sent(60));
    assert_eq!(guest.received(), Some((plain_header(1), sent(60))));
}

#[test]
fn no_more_of_a_buffer_is_reached_than_is_written() {
    let mut guest = NetGuest::running();
    guest.memory.set_largest_pin(100);
    guest.post(0, &[(DATA, 65_536, true), (DATA + 0x2_0000, 65_536, true)]);
    guest.kick(0);
    deliver(&mut guest, &sent(60));
    assert_eq!(guest.take_used(0), [(0, 72)]);
}

#[test]
fn nothing_is_pinned_when_the_guest_is_told() {
    let mut guest = NetGuest::running();
    guest.post_buffers(16, 200);
    guest.kick(0);
    deliver(&mut guest, &sent(1514));
    assert_eq!(guest.memory.most_pins_at_publication(), RING_PINS);
    assert!(guest.memory.most_pins() > RING_PINS);
}

#[test]
fn buffers_that_no_frame_can_be_in_end_the_queue() {
    for buffers in
        [vec![(DATA, 11, true)], vec![(DATA, 100, false), (DATA, 2048, true)], vec![(DATA, 0, true)]]
    {
        let mut guest = NetGuest::running();
        guest.post(0, &buffers);
        guest.kick(0);
        deliver(&mut guest, &sent(60));
        assert!(guest.needs_reset());
        assert_eq!((guest.used_index(0), guest.frames_in_use()), (0, 0));
        guest.start(without(Features::empty()), [256, 256, 64]);
        guest.post_buffers(1, 2048);
        guest.kick(0);
        deliver(&mut guest, &sent(60));
        assert_eq!(guest.received(), Some((plain_header(1), sent(60))));
    }
}

#[test]
fn a_reset_forgets_the_frame_under_way() {
    let mut guest = NetGuest::running();
    guest.post_buffers(1, 100);
    guest.kick(0);
    deliver(&mut guest, &sent(1514));
    deliver(&mut guest, &sent(60));
    assert_eq!(guest.frames_in_use(), 2);
    guest.write(STATUS, 0);
    assert_eq!(guest.frames_in_use(), 0);
    deliver(&mut guest, &sent(60));
    assert_eq!(guest.frames_in_use(), 0);
}

#[test]
fn ring_indices_wrap() {
    let mut guest = NetGuest::cold();
    guest.start(without(Features::empty()), [64, 256, 64]);
    for _ in 0..66_000 / 60 {
        (0..20).for_each(|_| guest.deliver(&sent(140), Offload::default()));
        guest.post_buffers(60, 64);
        guest.kick(0);
        for _ in 0..20 {
            assert_eq!(guest.received(), Some((plain_header(3), sent(140))));
        }
    }
    assert_eq!(guest.counters().frames_received, 22_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_received_in_buffers_of_any_shape(
        lengths in prop::collection::vec(14..1515_usize, 1..20),
        shapes in prop::collection::vec((12..3000_usize, prop::collection::vec(any::<usize>(), 0..6), any::<bool>()), 80),
        is_granting in any::<bool>(),
    ) {
        let all = without(Features::empty());
        let mut guest = if is_granting { NetGuest::granting(all) } else { NetGuest::running() };
        let mut chains = Vec::new();
        let mut room = 0;
        for ((length, cuts, indirect), place) in shapes.iter().zip(0..) {
            if guest.receive.next >= 30 {
                break;
            }
            let buffers = cut(DATA + place * 0x1000, *length, cuts, true);
            let head = if *indirect { guest.post_indirect(0, &buffers) } else { guest.post(0, &buffers) };
            chains.push((head, DATA + place * 0x1000, *length));
            room += length;
        }
        guest.kick(0);
        for length in &lengths {
            guest.deliver(&sent(*length), Offload::default());
        }
        guest.work();
        // All buffers, in order, are a stream of frames with headers.
        let mut received = Vec::new();
        let mut used = guest.take_used(0).into_iter().zip(&chains);
        while let Some(((head, length), (expected, address, _))) = used.next() {
            prop_assert_eq!(head, *expected);
            let mut bytes = guest.bytes(*address, length as usize);
            for _ in 1..bytes[10] {
                let ((_, length), (_, address, _)) = used.next().unwrap();
                bytes.extend(guest.bytes(*address, length as usize));
            }
            received.push(bytes.split_off(HEADER_BYTES));
        }
        let expected: Vec<_> = lengths.iter().map(|length| sent(*length)).collect();
        prop_assert_eq!(&received[..], &expected[..received.len()]);
        let enough = lengths.iter().map(|length| length + HEADER_BYTES + 3000).sum::<usize>();
        prop_assert!(received.len() == lengths.len() || enough > room);
        prop_assert_eq!(guest.memory.pins(), RING_PINS);
        prop_assert!(guest.frames_in_use() == lengths.len() - received.len());
    }
}
