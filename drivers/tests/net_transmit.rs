//! Frames that a guest sends, in rings written by hand: any shape, any lie, any change under our eyes.

mod common;

use common::cut;
use common::net_bed::{
    DATA, GUEST, HEADER_BYTES, NetGuest, RING_PINS, STATION, frame, tcp_frame, tcp_header, without,
};
use drivers::net::frame::{FRAME_BYTES_MAX, WIRE_BYTES_MAX};
use drivers::virtio::Features;
use drivers::virtio::mmio::Progress;
use drivers::virtio::net::config::{CSUM, HOST_TSO4};
use proptest::prelude::*;
use std::cell::Cell;
use std::rc::Rc;

const PLAIN: [u8; HEADER_BYTES] = [0; HEADER_BYTES];

fn sent(length: usize) -> Vec<u8> {
    frame(STATION, GUEST, length)
}

/// The frame was dropped, and nothing else came of it.
fn assert_dropped(header: [u8; HEADER_BYTES], frame: &[u8], features: Features) {
    let mut guest = NetGuest::with_features(features);
    let head = guest.send(header, frame);
    assert_eq!(guest.take_used(1), [(head, 0)]);
    assert!(guest.arrived().is_empty());
    assert_eq!((guest.counters().errors, guest.counters().frames_sent), (1, 0));
    assert!(!guest.needs_reset());
    assert_eq!((guest.frames_in_use(), guest.memory.pins()), (0, RING_PINS));
    guest.send(PLAIN, &sent(60));
    assert_eq!(guest.arrived(), [sent(60)]);
}

#[test]
fn a_frame_is_sent_and_its_chain_done() {
    let mut guest = NetGuest::running();
    let head = guest.send(PLAIN, &sent(60));
    assert_eq!(guest.take_used(1), [(head, 0)]);
    assert_eq!(guest.arrived(), [sent(60)]);
    assert_eq!((guest.counters().frames_sent, guest.counters().bytes_sent), (1, 60));
}

#[test]
fn lengths_that_no_frame_has_are_dropped() {
    for length in [0, 1, 13] {
        assert_dropped(PLAIN, &sent(14)[..length], without(Features::empty()));
    }
    for length in [WIRE_BYTES_MAX + 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 100_000] {
        assert_dropped(PLAIN, &sent(length), without(Features::empty()));
    }
}

#[test]
fn lengths_that_frames_have_are_sent() {
    let mut guest = NetGuest::running();
    for length in [14, 15, 60, 1514, WIRE_BYTES_MAX] {
        guest.send(PLAIN, &sent(length));
        assert_eq!(guest.arrived(), [sent(length)]);
    }
}

#[test]
fn a_header_that_lies_costs_the_frame() {
    let with_checksum = |start: u16, offset: u16| {
        let mut header = PLAIN;
        header[0] = 1;
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
        header
    };
    let all = without(Features::empty());
    for header in [with_checksum(59, 0), with_checksum(0, 59), with_checksum(u16::MAX, u16::MAX)] {
        assert_dropped(header, &sent(60), all);
    }
    // No TCP segment, and one whose pieces would have no byte.
    assert_dropped(tcp_header(1448), &sent(1514), all);
    let mut no_bytes = tcp_header(0);
    no_bytes[1] = 1;
    assert_dropped(no_bytes, &tcp_frame(STATION, GUEST, 4000), all);
    for kind in [2, 3, 5, 0x81, 0xff] {
        let mut header = tcp_header(1448);
        header[1] = kind;
        assert_dropped(header, &tcp_frame(STATION, GUEST, 4000), all);
    }
}

#[test]
fn what_was_not_negotiated_costs_the_frame() {
    assert_dropped(tcp_header(0), &tcp_frame(STATION, GUEST, 100), without(CSUM));
    assert_dropped(tcp_header(1448), &tcp_frame(STATION, GUEST, 4000), without(HOST_TSO4));
    // Accepted without what it needs.
    assert_dropped(tcp_header(1448), &tcp_frame(STATION, GUEST, 4000), without(CSUM));
}

#[test]
fn a_checksum_left_to_the_receiver_stays_so() {
    let mut guest = NetGuest::running();
    guest.send(tcp_header(0), &tcp_frame(STATION, GUEST, 100));
    let frame = guest.peer.receive().unwrap();
    let checksum = frame.offload().checksum.unwrap();
    assert_eq!((checksum.start, checksum.offset), (34, 16));
    assert_eq!(frame.bytes(), tcp_frame(STATION, GUEST, 100));
}

#[test]
fn a_large_segment_crosses_as_one() {
    let mut guest = NetGuest::running();
    let large = tcp_frame(STATION, GUEST, 65_000);
    guest.send(tcp_header(1448), &large);
    let frame = guest.peer.receive().unwrap();
    assert_eq!(frame.bytes(), large);
    let segmentation = frame.offload().segmentation.unwrap();
    assert_eq!((segmentation.segment_bytes, segmentation.header_bytes), (1448, 54));
}

#[test]
fn a_chain_shorter_than_a_header_ends_the_queue() {
    for length in [0, 1, 11] {
        let mut guest = NetGuest::running();
        guest.post_sent(&[&PLAIN[..], &sent(60)].concat(), &[]);
        guest.post(1, &[(DATA, length, false), (DATA, 100, true)]);
        guest.kick(1);
        assert!(guest.needs_reset());
        assert_eq!(guest.arrived(), [sent(60)]);
        guest.start(without(Features::empty()), [256, 256, 64]);
        guest.send(PLAIN, &sent(60));
        assert_eq!(guest.arrived(), [sent(60)]);
    }
}

#[test]
fn writable_buffers_stay_as_they_are() {
    let mut guest = NetGuest::running();
    guest.memory.poke(DATA, &[&PLAIN[..], &sent(60)].concat()).unwrap();
    let head = guest.post(1, &[(DATA, 72, false), (DATA + 0x1000, 500, true)]);
    guest.kick(1);
    assert_eq!(guest.take_used(1), [(head, 0)]);
    assert_eq!(guest.arrived(), [sent(60)]);
    assert_eq!(guest.bytes(DATA + 0x1000, 500), [0; 500]);
}

#[test]
fn a_frame_in_a_hole_is_dropped() {
    drop_from_hole(NetGuest::running());
    drop_from_hole(NetGuest::granting(without(Features::empty())));
}

fn drop_from_hole(mut guest: NetGuest) {
    guest.memory.punch_hole(DATA + 0x10_0000);
    guest.memory.poke(DATA, &[&PLAIN[..], &sent(60)].concat()).unwrap();
    guest.post(1, &[(DATA, 20, false), (DATA + 0x10_0000, 100, false)]);
    guest.post(1, &[(DATA, 72, false)]);
    guest.kick(1);
    assert_eq!(guest.take_used(1).len(), 2);
    assert_eq!(guest.arrived(), [sent(60)]);
    assert_eq!(guest.counters().errors, 1);
}

/// The guest's other CPU overwrites whatever was copied: what was copied counts, and nothing is copied twice.
#[test]
fn every_byte_is_fetched_once() {
    fetch_once(NetGuest::running());
    fetch_once(NetGuest::granting(without(Features::empty())));
}

fn fetch_once(mut guest: NetGuest) {
    let fetched = Rc::new(Cell::new(0));
    let count = fetched.clone();
    guest.memory.set_other_cpu(move |memory, address, length| {
        if (DATA..DATA + 0x1000).contains(&address) {
            count.set(count.get() + length);
            memory.poke(address, &vec![0xee; length]).unwrap();
        }
    });
    guest.post_sent(&[&tcp_header(0)[..], &tcp_frame(STATION, GUEST, 300)].concat(), &[5, 12, 20, 100]);
    guest.kick(1);
    assert_eq!(guest.arrived(), [tcp_frame(STATION, GUEST, 300)]);
    assert_eq!(fetched.get(), HEADER_BYTES + 54 + 300);
}

#[test]
fn one_call_sends_a_bounded_number() {
    let mut guest = NetGuest::running();
    for _ in 0..64 {
        guest.post_sent(&[&PLAIN[..], &sent(60)].concat(), &[]);
    }
    guest.write(common::QUEUE_NOTIFY, 1);
    assert_eq!(guest.device.process(), Progress { requests: 32, more: true, ..Progress::default() });
    assert_eq!(guest.device.process(), Progress { requests: 32, more: false, ..Progress::default() });
}

#[test]
fn large_frames_are_few_at_a_time() {
    let mut guest = NetGuest::running();
    for _ in 0..16 {
        guest.post(1, &[(DATA, 65_000, false)]);
    }
    guest.write(common::QUEUE_NOTIFY, 1);
    // 192 KiB, and the one that reaches them.
    assert_eq!(guest.device.process(), Progress { requests: 4, more: true, ..Progress::default() });
}

#[test]
fn frames_for_which_there_is_no_buffer_are_counted() {
    let mut guest = NetGuest::running();
    let held: Vec<_> = core::iter::from_fn(|| guest.peer.blank(60)).collect();
    let head = guest.send(PLAIN, &sent(60));
    assert_eq!(guest.take_used(1), [(head, 0)]);
    assert_eq!((guest.counters().send_drops, guest.counters().errors), (1, 0));
    drop(held);
    guest.send(PLAIN, &sent(60));
    assert_eq!(guest.arrived(), [sent(60)]);
}

#[test]
fn only_the_first_of_a_batch_is_dropped_for_want_of_a_buffer() {
    let mut guest = NetGuest::running();
    let mut held: Vec<_> = core::iter::from_fn(|| guest.peer.blank(60)).collect();
    held.pop();
    for length in 60..64 {
        guest.post_sent(&[&PLAIN[..], &sent(length)].concat(), &[]);
    }
    guest.write(common::QUEUE_NOTIFY, 1);
    for length in 60..64 {
        let more = length < 63;
        assert_eq!(guest.device.process(), Progress { requests: 1, more, ..Progress::default() });
        // It gives its buffer back as it is taken.
        assert_eq!(guest.arrived(), [sent(length)]);
    }
    assert_eq!((guest.counters().send_drops, guest.counters().frames_sent), (0, 4));
}

#[test]
fn one_interrupt_per_batch_if_any() {
    let mut guest = NetGuest::running();
    let before = guest.line.edges();
    for _ in 0..10 {
        guest.post_sent(&[&PLAIN[..], &sent(60)].concat(), &[]);
    }
    guest.kick(1);
    assert_eq!(guest.line.edges(), before + 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_in_buffers_of_any_shape_are_sent(
        frames in prop::collection::vec((14..1500_usize, prop::collection::vec(any::<usize>(), 0..9), any::<bool>()), 1..20),
        is_granting in any::<bool>(),
    ) {
        let all = without(Features::empty());
        let mut guest = if is_granting { NetGuest::granting(all) } else { NetGuest::running() };
        for (length, cuts, indirect) in &frames {
            let bytes = [&PLAIN[..], &sent(*length)].concat();
            if *indirect {
                let address = DATA + 0x8_0000 + u64::from(guest.transmit.next) * 0x1000;
                guest.memory.poke(address, &bytes).unwrap();
                guest.post_indirect(1, &cut(address, bytes.len(), cuts, false));
            } else {
                guest.post_sent(&bytes, cuts);
            }
        }
        guest.kick(1);
        let expected: Vec<_> = frames.iter().map(|(length, ..)| sent(*length)).collect();
        prop_assert_eq!(guest.arrived(), expected);
        prop_assert_eq!(guest.take_used(1).len(), frames.len());
        prop_assert_eq!((guest.memory.pins(), guest.frames_in_use()), (RING_PINS, 0));
    }
}

/// Each takes a large buffer, of which there are fewer than chains in a batch.
#[test]
fn many_frames_of_middling_size_are_all_sent() {
    let mut guest = NetGuest::running();
    let sent = tcp_frame(STATION, GUEST, 4000);
    for at in 0..30 {
        let start = DATA + at * 0x2000;
        let bytes = [&tcp_header(1448)[..], &sent].concat();
        guest.memory.poke(start, &bytes).unwrap();
        guest.post(1, &[(start, u32::try_from(bytes.len()).unwrap(), false)]);
    }
    let mut arrived = 0;
    while arrived < 30 {
        let _ = guest.device.poll();
        let came = guest.arrived().len();
        assert!(came > 0, "{arrived} arrived");
        arrived += came;
    }
    assert_eq!((guest.counters().send_drops, guest.counters().frames_sent), (0, 30));
}

/// Sends a frame, and lets the device look without an end to its work in sight.
fn send_in_passing(guest: &mut NetGuest) {
    guest.post_sent(&[&PLAIN[..], &sent(60)].concat(), &[]);
    let _ = guest.device.poll();
    assert_eq!(guest.arrived().len(), 1);
}

#[test]
fn that_a_frame_is_sent_is_told_at_rest() {
    let mut guest = NetGuest::running();
    let before = guest.line.edges();
    send_in_passing(&mut guest);
    assert_eq!((guest.line.edges(), guest.take_used(1).len()), (before, 1), "given back, but not told");
    guest.work();
    assert_eq!(guest.line.edges(), before + 1);
    guest.work();
    assert_eq!(guest.line.edges(), before + 1, "told once");
}

#[test]
fn many_frames_that_are_sent_are_told_of_without_a_rest() {
    let mut guest = NetGuest::running();
    let before = guest.line.edges();
    for _ in 0..128 {
        send_in_passing(&mut guest);
        guest.take_used(1);
    }
    let told = guest.line.edges() - before;
    // As many as their number makes, and where the host was slow in between, some more.
    assert!((1..128).contains(&told), "{told}");
}

#[test]
fn a_frame_after_which_none_comes_is_told_of_before_long() {
    let mut guest = NetGuest::running();
    let before = guest.line.edges();
    send_in_passing(&mut guest);
    let start = std::time::Instant::now();
    while guest.line.edges() == before {
        assert!(start.elapsed().as_secs() < 5);
        let _ = guest.device.poll();
    }
    assert!(start.elapsed().as_micros() >= 100);
}

const OTHER: drivers::net::MacAddress = drivers::net::MacAddress([0, 0x16, 0x3e, 0, 0, 3]);

/// Posts frames to the station, one after the other of another length, and kicks.
fn post_many(guest: &mut NetGuest, lengths: std::ops::Range<usize>) {
    for length in lengths {
        guest.post_sent(&[&PLAIN[..], &sent(length)].concat(), &[]);
    }
    guest.write(common::QUEUE_NOTIFY, 1);
}

/// Lets the device work until it rests or waits.
fn work_until_held(guest: &mut NetGuest) -> Progress {
    for _ in 0..100 {
        let progress = guest.device.process();
        if !progress.more {
            return progress;
        }
    }
    panic!("there is always something to do");
}

const WAITS: Progress = Progress { requests: 0, more: false, under_way: true };

#[test]
fn what_has_no_place_stays_in_the_guests_ring() {
    let mut guest = NetGuest::running();
    post_many(&mut guest, 60..260);
    assert!(work_until_held(&mut guest).under_way);
    let before = guest.take_used(1).len();
    assert!(before < 200 && guest.frames_in_use() == before);
    // It rests, without a kick, with what was sent told of, and can sleep until the bridge says.
    assert_eq!(
        (guest.device.process(), guest.device.has_work(), guest.line.edges() > 0),
        (WAITS, false, true)
    );
    assert!(guest.bridge.borrow().deadline_ns().is_some());
    let mut arrived = guest.arrived();
    while arrived.len() < 200 {
        let _ = work_until_held(&mut guest);
        let more = guest.arrived();
        assert!(!more.is_empty());
        arrived.extend(more);
    }
    assert_eq!(arrived, (60..260).map(sent).collect::<Vec<_>>());
    guest.work();
    assert_eq!((before + guest.take_used(1).len(), guest.counters().frames_sent), (200, 200));
    assert_eq!((guest.peer.counters().dropped_full, guest.bridge.borrow().deadline_ns()), (0, None));
}

#[test]
fn a_receiver_that_takes_nothing_is_not_waited_for_again() {
    let mut guest = NetGuest::running();
    let other = common::net_bed::port(&guest.bridge, "dom4/net0", OTHER);
    other.set_filter(Some(drivers::net::filter::Filter::default()));
    post_many(&mut guest, 60..260);
    let start = std::time::Instant::now();
    while work_until_held(&mut guest).under_way {
        assert!(start.elapsed().as_secs() < 5);
    }
    assert!(start.elapsed().as_millis() >= 9);
    let lost = guest.peer.counters().dropped_full;
    assert_eq!((guest.take_used(1).len(), guest.peer.waiting() as u64 + lost), (200, 200));
    // From then on it holds up nobody.
    let start = std::time::Instant::now();
    for _ in 0..20 {
        post_many(&mut guest, 60..70);
        assert!(!work_until_held(&mut guest).under_way);
        guest.send(PLAIN, &frame(OTHER, GUEST, 60));
        assert!(other.receive().is_some());
    }
    assert_eq!(guest.peer.counters().dropped_full, lost + 200);
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn a_reset_ends_the_wait() {
    let mut guest = NetGuest::running();
    post_many(&mut guest, 60..260);
    assert!(work_until_held(&mut guest).under_way);
    guest.start(without(Features::empty()), [256, 256, 64]);
    assert_eq!(guest.bridge.borrow().deadline_ns(), None);
    assert!(!guest.arrived().is_empty());
    guest.send(PLAIN, &sent(60));
    assert_eq!(guest.arrived(), [sent(60)]);
}

#[test]
fn what_is_wrong_behind_a_frame_that_waits_shows_in_its_turn() {
    let mut guest = NetGuest::running();
    post_many(&mut guest, 60..140);
    guest.post(1, &[(DATA, 3, false)]);
    assert!(work_until_held(&mut guest).under_way && !guest.needs_reset());
    let mut arrived = guest.arrived();
    assert!(!work_until_held(&mut guest).under_way);
    arrived.extend(guest.arrived());
    assert_eq!(arrived, (60..140).map(sent).collect::<Vec<_>>());
    assert!(guest.needs_reset());
}

#[test]
fn what_was_told_at_rest_is_not_told_again() {
    let mut guest = NetGuest::with_features(without(Features::EVENT_IDX));
    send_in_passing(&mut guest);
    guest.work();
    let told = guest.line.edges();
    std::thread::sleep(std::time::Duration::from_millis(1));
    guest.write(common::QUEUE_NOTIFY, 1);
    guest.work();
    assert_eq!(guest.line.edges(), told);
    // 63 and one more make no 64 untold when those were told.
    for _ in 0..63 {
        guest.post_sent(&[&PLAIN[..], &sent(60)].concat(), &[]);
    }
    let _ = guest.device.poll();
    let _ = guest.device.poll();
    assert_eq!(guest.line.edges(), told);
}

/// It was taken with them, and forgotten with those that had to wait. Found by the fuzzer.
#[test]
fn a_chain_without_a_header_behind_many_large_frames_ends_the_queue() {
    let mut guest = NetGuest::running();
    for _ in 0..6 {
        guest.post_sent(&[0; 2000], &[]);
    }
    guest.post(1, &[(DATA, 4, false)]);
    guest.kick(1);
    assert!(guest.needs_reset());
    assert_eq!(guest.used_index(1), 6);
}
