//! Properties that hold whatever a guest writes to its rings: no panic, no endless work, no pin and no frame left.

mod common;

use common::hostile::{RandomDescriptor, config, scribble};
use common::net_bed::{BASE, DATA, GUEST, HEADER_BYTES, NetGuest, RING_PINS, STATION, frame, tcp_frame};
use common::{INDIRECT, NEXT, QUEUE_NOTIFY, STATUS, WRITE};
use drivers::net::offload::{Offload, PartialChecksum, Segmentation, SegmentedProtocol};
use drivers::virtio::Features;
use drivers::virtio::net::config::features;
use proptest::prelude::*;

const HOLE: u64 = DATA + 0x8_0000;
/// Calls after which a bounded device has done all that rings of 256 can hold.
const ENOUGH_CALLS: usize = 64;

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..16_u64).prop_map(|page| DATA + page * 0x1000),
        1 => Just(HOLE),
        1 => Just(BASE + 0x4000),
        1 => (0..3_u64).prop_map(|queue| BASE + queue * 0x1_0000 + 0x2000),
        1 => any::<u64>(),
        1 => (u64::MAX - 600)..=u64::MAX,
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => Just(12_u32),
        4 => 12..2048_u32,
        2 => 0..64_u32,
        1 => (0..20_u32).prop_map(|entries| entries * 16),
        1 => Just(65_562_u32),
        1 => any::<u32>(),
    ]
}

fn descriptor(usual: u16) -> impl Strategy<Value = RandomDescriptor> {
    let flags = prop_oneof![
        8 => Just(usual), 3 => Just(usual | NEXT), 1 => Just(NEXT), 1 => Just(0), 1 => Just(WRITE), 1 => Just(INDIRECT), 1 => any::<u16>()
    ];
    common::hostile::descriptor((address(), length()), flags)
}

/// A queue whose descriptors are such as the device expects, mostly.
fn table(usual: u16) -> impl Strategy<Value = Vec<RandomDescriptor>> {
    prop::collection::vec(descriptor(usual), 16)
}

fn head() -> impl Strategy<Value = u16> {
    prop_oneof![40 => 0..16_u16, 1 => any::<u16>()]
}

/// Headers, commands and tables, and what is none of them.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let header = (0..4_u8, prop_oneof![4 => 0..6_u8, 1 => any::<u8>()], any::<[u8; 10]>())
        .prop_map(|(flags, kind, rest)| [&[flags, kind][..], &rest].concat());
    let segment = (0..3000_u16, 0..4000_usize).prop_map(|(segment_bytes, payload)| {
        [&common::net_bed::tcp_header(segment_bytes)[..], &tcp_frame(STATION, GUEST, payload)].concat()
    });
    let plain =
        (14..2000_usize).prop_map(|length| [&[0; HEADER_BYTES][..], &frame(STATION, GUEST, length)].concat());
    let command = (0..5_u8, 0..6_u8, prop::collection::vec(0..4_u8, 0..20))
        .prop_map(|(class, number, data)| [&[class, number][..], &data].concat());
    prop_oneof![header, segment, plain, command]
}

fn negotiated() -> impl Strategy<Value = Features> {
    any::<u64>().prop_map(|bits| (features() & Features::from_bits_retain(bits)) | Features::VERSION_1)
}

/// A running guest for which frames wait.
fn guest_with(
    features: Features,
    tables: &[Vec<RandomDescriptor>],
    indirect: &[RandomDescriptor],
    contents: &[Vec<u8>],
) -> NetGuest {
    let mut guest = NetGuest::with_features(features);
    guest.memory.punch_hole(HOLE);
    for (content, page) in contents.iter().zip(0..) {
        guest.memory.poke(DATA + page * 0x1000, content).unwrap();
    }
    for (queue, entries) in (0..).zip(tables) {
        let table = guest.ring(queue).descriptors();
        for (index, entry) in (0..).zip(entries) {
            guest.set_descriptor(table, index, entry.buffer, entry.flags, entry.next);
        }
    }
    for (index, entry) in (0..).zip(indirect) {
        guest.set_descriptor(BASE + 0x4000, index, entry.buffer, entry.flags, entry.next);
    }
    let large = Offload {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        segmentation: Some(Segmentation {
            protocol: SegmentedProtocol::Tcp4,
            segment_bytes: 1448,
            header_bytes: 54,
        }),
        is_verified: false,
    };
    guest.deliver(&frame(GUEST, STATION, 60), Offload::default());
    guest.deliver(&frame(GUEST, STATION, 1514), Offload::default());
    guest.deliver(&tcp_frame(GUEST, STATION, 20_000), large);
    guest.deliver(&frame(GUEST, STATION, 60), Offload::default());
    guest
}

/// Lets the kernel work until there is nothing to do, which must come.
fn work_bounded(guest: &mut NetGuest) {
    for queue in 0..3 {
        guest.write(QUEUE_NOTIFY, queue);
    }
    for _ in 0..ENOUGH_CALLS {
        let _ = guest.device.poll();
        let _ = guest.device.process();
        assert!(guest.memory.pins() <= RING_PINS);
        drop(guest.arrived());
    }
}

fn assert_whole_after_reset(mut guest: NetGuest) {
    guest.write(STATUS, 0);
    drop(guest.arrived());
    assert_eq!((guest.memory.pins(), guest.frames_in_use()), (0, 0));
    guest.start(features(), [256, 256, 64]);
    guest.post_buffers(4, 2048);
    guest.kick(0);
    guest.deliver(&frame(GUEST, STATION, 60), Offload::default());
    guest.work();
    assert_eq!(guest.received().map(|(_, received)| received), Some(frame(GUEST, STATION, 60)));
    guest.send([0; HEADER_BYTES], &frame(STATION, GUEST, 60));
    assert_eq!(guest.arrived(), [frame(STATION, GUEST, 60)]);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_rings_are_survived(
        features in negotiated(),
        receive in table(WRITE),
        transmit in table(0),
        control in table(0),
        indirect in table(0),
        heads in prop::collection::vec(prop::collection::vec(head(), 0..40), 3),
        contents in prop::collection::vec(content(), 16),
        is_granting in any::<bool>(),
    ) {
        let mut guest = guest_with(features, &[receive, transmit, control], &indirect, &contents);
        if is_granting {
            guest.memory.copy_together();
        }
        for (queue, heads) in (0..).zip(&heads) {
            heads.iter().for_each(|head| guest.publish(queue, *head));
        }
        work_bounded(&mut guest);
        let progress = guest.device.process();
        prop_assert!(!progress.more && !guest.device.has_work(), "{progress:?}");
        assert_whole_after_reset(guest);
    }

    #[test]
    fn rings_that_change_under_the_device_are_survived(
        receive in table(WRITE),
        transmit in table(0),
        control in table(0),
        indirect in table(0),
        contents in prop::collection::vec(content(), 16),
        seed in any::<u64>(),
    ) {
        let mut guest = guest_with(features(), &[receive, transmit, control], &indirect, &contents);
        for queue in 0..3 {
            (0..16).for_each(|head| guest.publish(queue, head));
        }
        scribble(&guest.memory, seed, BASE, 0x3_0000, 500);
        work_bounded(&mut guest);
        guest.memory.set_other_cpu(|_, _, _| {});
        assert_whole_after_reset(guest);
    }
}
