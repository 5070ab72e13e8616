//! Properties that hold whatever a guest does: no panic, no hang, no pin left, every chain answered or the device in
//! need of a reset; and, for a guest that keeps the rules, a disk that behaves as a plain array of bytes.

mod common;

use common::hostile::{RandomDescriptor, config, scribble};
use common::{
    AVAILABLE, BASE, DATA, DESCRIPTORS, Guest, HEADER, INDIRECT, ModelDisk, NEXT, PAGES, QUEUE_NOTIFY,
    RING_FEATURES, SIZE, STATUS, STATUS_BYTE, TABLE, USED, WRITE, cut, header,
};
use drivers::virtio::Features;
use drivers::virtio::mmio::Width;
use proptest::prelude::*;

const SECTORS: usize = 64;
/// Calls of `process` after which a bounded device has done all that a ring can hold.
const ENOUGH_CALLS: usize = 64;

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![1 => Just(Width::One), 1 => Just(Width::Two), 4 => Just(Width::Four), 1 => Just(Width::Eight)]
}

/// Offsets of registers, next to them, and anywhere.
fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![8 => (0..0x60_u32).prop_map(|register| register * 4), 1 => 0..0x200_u32, 1 => any::<u32>()]
}

fn register_value() -> impl Strategy<Value = u64> {
    prop_oneof![0..16_u64, Just(BASE), Just(64), Just(128), any::<u64>()]
}

/// Addresses that matter: what a request is made of, a page that is not there, the ends of memory and of the world.
fn address() -> impl Strategy<Value = u64> {
    let end = BASE + PAGES as u64 * 4096;
    prop_oneof![
        4 => Just(HEADER),
        4 => Just(DATA),
        4 => Just(STATUS_BYTE),
        2 => Just(TABLE),
        1 => Just(HOLE),
        1 => Just(AVAILABLE),
        1 => Just(USED),
        1 => (end - 600)..(end + 600),
        1 => any::<u64>(),
        1 => (u64::MAX - 600)..=u64::MAX,
    ]
}

const HOLE: u64 = DATA + 0x20_000;

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => Just(16_u32),
        4 => Just(512_u32),
        4 => Just(1_u32),
        1 => 0..4096_u32,
        1 => (0..20_u32).prop_map(|entries| entries * 16),
        1 => any::<u32>(),
        1 => Just(u32::MAX),
    ]
}

fn descriptor() -> impl Strategy<Value = RandomDescriptor> {
    let flags = prop_oneof![
        4 => Just(NEXT), 4 => Just(0), 2 => Just(WRITE), 2 => Just(WRITE | NEXT), 1 => Just(INDIRECT), 1 => any::<u16>()
    ];
    common::hostile::descriptor((address(), length()), flags)
}

/// Five requests of three buffers each, some descriptors replaced by random ones: near enough to the rules to get far.
fn table() -> impl Strategy<Value = Vec<RandomDescriptor>> {
    let data = (address(), length(), any::<bool>());
    let replaced = prop::collection::vec((0..usize::from(SIZE), descriptor()), 0..4);
    (prop::collection::vec(data, 5), replaced).prop_map(|(data, replaced)| {
        let mut table = Vec::new();
        for (index, (address, length, writable)) in (0..).step_by(3).zip(data) {
            let write = if writable { WRITE } else { 0 };
            table.push(RandomDescriptor { buffer: (HEADER, 16), flags: NEXT, next: index + 1 });
            table.push(RandomDescriptor { buffer: (address, length), flags: NEXT | write, next: index + 2 });
            table.push(RandomDescriptor { buffer: (STATUS_BYTE, 1), flags: WRITE, next: 0 });
        }
        table.push(RandomDescriptor { buffer: (TABLE, 48), flags: INDIRECT, next: 0 });
        for (index, descriptor) in replaced {
            table[index] = descriptor;
        }
        table
    })
}

/// Mostly the heads of those requests.
fn head() -> impl Strategy<Value = u16> {
    prop_oneof![40 => (0..6_u16).prop_map(|request| request * 3), 4 => 0..SIZE, 1 => any::<u16>()]
}

fn request_kind() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0..15_u32, 1 => any::<u32>()]
}

fn sector() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..SECTORS as u64 + 2, 1 => any::<u64>()]
}

/// A running guest whose descriptors are these.
fn guest_with(direct: &[RandomDescriptor], indirect: &[RandomDescriptor], header_bytes: [u8; 16]) -> Guest {
    let guest = Guest::running(&ModelDisk::new(SECTORS));
    guest.memory.punch_hole(HOLE);
    guest.memory.poke(HEADER, &header_bytes).unwrap();
    for (table, entries) in [(DESCRIPTORS, direct), (TABLE, indirect)] {
        for (index, entry) in (0..).zip(entries) {
            guest.set_descriptor(table, index, entry.buffer, entry.flags, entry.next);
        }
    }
    guest
}

fn work_bounded(guest: &mut Guest) {
    let _ = guest.write(QUEUE_NOTIFY, 0);
    for _ in 0..ENOUGH_CALLS {
        let _ = guest.device.process();
        assert!(guest.memory.pins() <= 3);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_register_accesses_are_survived(
        accesses in prop::collection::vec((offset(), width(), register_value(), any::<bool>()), 1..100),
        features in any::<u64>(),
    ) {
        let mut guest = Guest::cold(&ModelDisk::new(SECTORS));
        guest.negotiate(Features::from_bits_retain(features & RING_FEATURES.bits()));
        for (offset, width, value, is_write) in accesses {
            if is_write {
                let _ = guest.device.write(offset, width, value);
                let _ = guest.device.process();
                let _ = guest.device.poll();
            } else {
                let read = guest.device.read(offset, width);
                prop_assert!(width == Width::Eight || read >> (8 * width as u32) == 0);
            }
            prop_assert!(guest.memory.pins() <= 3);
        }
        let _ = guest.write(STATUS, 0);
        prop_assert_eq!(guest.memory.pins(), 0);
        guest.start(RING_FEATURES);
        guest.set_request(0, 0, &[(DATA, 512, true)]);
        guest.submit(0);
        prop_assert_eq!(guest.status_byte(), 0);
    }

    #[test]
    fn any_rings_are_answered_in_order_or_need_a_reset(
        direct in table(),
        indirect in table(),
        heads in prop::collection::vec(head(), 0..=usize::from(SIZE)),
        kind in request_kind(),
        sector in sector(),
    ) {
        let mut guest = guest_with(&direct, &indirect, header(kind, sector));
        for (ahead, head) in (0..).zip(&heads) {
            guest.put_head(ahead, *head);
        }
        let count = u16::try_from(heads.len()).unwrap();
        guest.publish(count);
        work_bounded(&mut guest);

        let used = guest.used_index();
        // A request may name the rings themselves as its buffers; then they hold anything.
        let rings = [AVAILABLE, USED];
        let rings_written = direct.iter().chain(&indirect).any(|entry| rings.contains(&entry.buffer.0));
        if !rings_written {
            prop_assert!(used <= count);
            prop_assert!(guest.needs_reset() || used == count);
            for place in 0..used {
                prop_assert_eq!(guest.used(place).0, u32::from(heads[usize::from(place)]));
            }
        }
        prop_assert_eq!(guest.memory.pins(), 3);
    }

    #[test]
    fn rings_that_change_under_the_device_are_survived(
        direct in table(),
        indirect in table(),
        kind in request_kind(),
        seed in any::<u64>(),
    ) {
        let mut guest = guest_with(&direct, &indirect, header(kind, 0));
        scribble(&guest.memory, seed, BASE, 0x7000, usize::MAX);
        for head in 0..SIZE {
            guest.put_head(head, head);
        }
        guest.publish(SIZE);
        work_bounded(&mut guest);
        prop_assert_eq!(guest.memory.pins(), 3);
        let memory = guest.memory.clone();
        drop(guest);
        prop_assert_eq!(memory.pins(), 0);
    }
}

#[derive(Clone, Debug)]
enum Action {
    Read { sector: usize, sectors: usize },
    Write { sector: usize, sectors: usize, seed: u8 },
    Discard { sector: usize, sectors: usize },
}

fn action() -> impl Strategy<Value = Action> {
    let extent = || (0..SECTORS, 0..20_usize);
    prop_oneof![
        extent().prop_map(|(sector, sectors)| Action::Read { sector, sectors }),
        (extent(), any::<u8>()).prop_map(|((sector, sectors), seed)| Action::Write { sector, sectors, seed }),
        extent().prop_map(|(sector, sectors)| Action::Discard { sector, sectors }),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn requests_in_any_layout_behave_as_on_an_array(
        actions in prop::collection::vec((action(), prop::collection::vec(any::<usize>(), 0..5), any::<bool>()), 1..40),
    ) {
        let mut guest = Guest::running(&ModelDisk::new(SECTORS));
        let mut model = guest.disk.content(0, SECTORS * 512);
        for (action, cuts, indirect) in actions {
            let (kind, at, sectors) = match action {
                Action::Read { sector, sectors } => (0, sector, sectors),
                Action::Write { sector, sectors, .. } => (1, sector, sectors),
                Action::Discard { sector, sectors } => (11, sector, sectors),
            };
            let fits = at + sectors <= SECTORS;
            let (start, length) = (at * 512, sectors * 512);
            let mut bytes = header(kind, if kind == 11 { 0 } else { at as u64 }).to_vec();
            match action {
                Action::Read { .. } => {}
                Action::Write { seed, .. } => {
                    bytes.extend((0..length).map(|byte| seed.wrapping_add(u8::try_from(byte % 241).unwrap())));
                }
                Action::Discard { .. } => {
                    bytes.extend((at as u64).to_le_bytes());
                    bytes.extend(u32::try_from(sectors).unwrap().to_le_bytes());
                    bytes.extend([0; 4]);
                }
            }
            if fits && kind == 1 {
                model[start..][..length].copy_from_slice(&bytes[16..]);
            } else if fits && kind == 11 {
                model[start..][..length].fill(0);
            }
            let written = if kind == 0 { length } else { 0 };
            let answer = DATA + 0x40_001;
            guest.memory.poke(DATA, &bytes).unwrap();
            guest.memory.poke(answer + written as u64, &[0xff]).unwrap();
            let mut buffers = cut(DATA, bytes.len(), &cuts, false);
            buffers.extend(cut(answer, written + 1, &cuts, true));
            if indirect {
                guest.set_chain(TABLE, 0, &buffers);
                let table_bytes = u32::try_from(buffers.len()).unwrap() * 16;
                guest.set_descriptor(DESCRIPTORS, 3, (TABLE, table_bytes), INDIRECT, 0);
            } else {
                guest.set_chain(DESCRIPTORS, 3, &buffers);
            }
            guest.submit(3);

            prop_assert!(!guest.needs_reset());
            let status = guest.bytes(answer + written as u64, 1)[0];
            prop_assert_eq!(status, u8::from(!fits));
            if fits && kind == 0 {
                prop_assert_eq!(guest.bytes(answer, length), &model[start..][..length]);
            }
        }
        prop_assert_eq!(guest.disk.content(0, SECTORS * 512), model);
    }
}
