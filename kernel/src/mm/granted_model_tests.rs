//! Grants under random use by a guest and two of its devices, beside a model of who may do what.

use alloc::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const FRAMES: u64 = 4;
const REFERENCES: u64 = 6;

#[derive(Clone, Debug)]
enum Step {
    Grant { reference: u64, frame: u64, read_only: bool },
    Revoke { reference: u64 },
    Pin { maps: bool, regions: Vec<(u64, u64, u32)>, readable: usize },
    Ring { region: (u64, u64, u32), access: Access },
    Unpin { which: prop::sample::Index },
    Read { which: prop::sample::Index, from: prop::sample::Index, length: usize },
    Write { which: prop::sample::Index, from: prop::sample::Index, length: usize, value: u8 },
    GuestWrites { frame: u64, offset: u64, value: u8 },
}

fn region_of_any_size() -> impl Strategy<Value = (u64, u64, u32)> {
    let offset = prop_oneof![Just(0), 0..PAGE, Just(PAGE - 1)];
    let length = prop_oneof![1..20_u32, Just(4096), 1..9000_u32];
    (8..8 + REFERENCES, offset, length)
}

fn step() -> impl Strategy<Value = Step> {
    let reference = || 8..8 + REFERENCES;
    let index = any::<prop::sample::Index>;
    let access = prop_oneof![Just(Access::Read), Just(Access::Write)];
    prop_oneof![
        6 => (reference(), 0..FRAMES, prop::bool::weighted(0.3))
            .prop_map(|(reference, frame, read_only)| Step::Grant { reference, frame, read_only }),
        3 => reference().prop_map(|reference| Step::Revoke { reference }),
        6 => (any::<bool>(), vec(region_of_any_size(), 0..4), 0..4_usize)
            .prop_map(|(maps, regions, readable)| Step::Pin { maps, regions, readable }),
        1 => (region_of_any_size(), access).prop_map(|(region, access)| Step::Ring { region, access }),
        4 => index().prop_map(|which| Step::Unpin { which }),
        4 => (index(), index(), 0..6000_usize)
            .prop_map(|(which, from, length)| Step::Read { which, from, length }),
        4 => (index(), index(), 0..6000_usize, any::<u8>())
            .prop_map(|(which, from, length, value)| Step::Write { which, from, length, value }),
        2 => (0..FRAMES, 0..PAGE, any::<u8>())
            .prop_map(|(frame, offset, value)| Step::GuestWrites { frame, offset, value }),
    ]
}

struct Pin {
    pinned: GrantedPinned,
    /// Each byte: its reference and place in the page.
    bytes: Vec<(u64, usize)>,
    /// Of what is mapped: the bytes that may be written begin here.
    writable_from: usize,
}

struct Model {
    bed: Bed,
    /// Frame, and whether it is for reading only.
    grants: BTreeMap<u64, (u64, bool)>,
    frames: Vec<Vec<u8>>,
    pins: Vec<Pin>,
}

impl Model {
    fn is_mapped(&self, reference: u64) -> bool {
        let mut mapped = self.pins.iter().filter(|pin| is_mapped(&pin.pinned));
        mapped.any(|pin| pin.bytes.iter().any(|byte| byte.0 == reference))
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Grant { reference, frame, read_only } if !self.is_mapped(reference) => {
                self.bed.xen.grant(GUEST, reference as u32, RAM + frame, read_only);
                self.grants.insert(reference, (frame, read_only));
            }
            Step::Revoke { reference } => {
                let revoked = self.bed.xen.revoke(GUEST, reference as u32);
                assert_eq!(revoked, !self.is_mapped(reference));
                if revoked {
                    self.grants.remove(&reference);
                }
            }
            Step::Pin { maps, regions, readable } => self.pin(maps, &regions, readable),
            Step::Ring { region, access } => self.ring(region, access),
            Step::Unpin { which } if !self.pins.is_empty() => {
                self.pins.swap_remove(which.index(self.pins.len()));
            }
            Step::Read { which, from, length } if !self.pins.is_empty() => self.read(which, from, length),
            Step::Write { which, from, length, value } if !self.pins.is_empty() => {
                self.write(which, from, length, value);
            }
            Step::GuestWrites { frame, offset, value } => {
                self.bed.xen.write_guest(GUEST, at(frame, offset), &[value]);
                self.frames[frame as usize][offset as usize] = value;
            }
            _ => {}
        }
        self.check();
    }

    /// The bytes of regions, and whether the grants let each be mapped: the first `readable` for reading.
    fn plan(&self, regions: &[(u64, u64, u32)], readable: usize) -> (Vec<(u64, usize)>, usize, bool) {
        let (mut bytes, mut writable_from, mut may_map) = (Vec::new(), 0, true);
        for (index, (reference, offset, length)) in regions.iter().enumerate() {
            for place in *offset..offset + u64::from(*length) {
                let reference = reference + place / PAGE;
                let grant = self.grants.get(&reference);
                may_map &= grant.is_some_and(|(_, read_only)| index < readable || !read_only);
                bytes.push((reference, (place % PAGE) as usize));
            }
            if index < readable {
                writable_from = bytes.len();
            }
        }
        (bytes, writable_from, may_map)
    }

    fn pin(&mut self, maps: bool, regions: &[(u64, u64, u32)], readable: usize) {
        let (bytes, writable_from, may_map) = self.plan(regions, readable);
        let regions: Vec<_> =
            regions.iter().map(|(reference, offset, length)| region(*reference, *offset, *length)).collect();
        let memory = if maps { &self.bed.mapping } else { &self.bed.copying };
        let pinned = memory.pin_split(&regions, writable_from as u32).unwrap();
        assert!(!is_mapped(&pinned) || maps && may_map);
        // There is room for these.
        if self.pins.is_empty() && !bytes.is_empty() {
            assert_eq!(is_mapped(&pinned), maps && may_map);
        }
        self.pins.push(Pin { pinned, bytes, writable_from });
    }

    fn ring(&mut self, (reference, offset, length): (u64, u64, u32), access: Access) {
        let readable = usize::from(access == Access::Read);
        let (bytes, writable_from, may_map) = self.plan(&[(reference, offset, length)], readable);
        match self.bed.copying.pin_ring(region(reference, offset, length), access) {
            Ok(pinned) => {
                assert!(may_map && is_mapped(&pinned));
                self.pins.push(Pin { pinned, bytes, writable_from });
            }
            Err(MemoryError::Exhausted) => {}
            Err(_) => assert!(!may_map),
        }
    }

    fn range(
        &self,
        which: prop::sample::Index,
        from: prop::sample::Index,
        length: usize,
    ) -> (usize, Range<usize>) {
        let which = which.index(self.pins.len());
        let all = self.pins[which].bytes.len();
        let from = from.index(all + 1);
        (which, from..all.min(from + length))
    }

    fn read(&mut self, which: prop::sample::Index, from: prop::sample::Index, length: usize) {
        let (which, range) = self.range(which, from, length);
        let pin = &self.pins[which];
        let byte = |(reference, place): &(u64, usize)| {
            self.grants.get(reference).map(|(frame, _)| self.frames[*frame as usize][*place])
        };
        let expected: Option<Vec<u8>> = pin.bytes[range.clone()].iter().map(byte).collect();
        assert_eq!(bytes(&pin.pinned, range.start as u32, range.len()).ok(), expected);
    }

    fn write(&mut self, which: prop::sample::Index, from: prop::sample::Index, length: usize, value: u8) {
        let (which, range) = self.range(which, from, length);
        let pin = &self.pins[which];
        let written = pin.pinned.write(range.start as u32, &vec![value; range.len()]);
        if is_mapped(&pin.pinned) && range.start < pin.writable_from {
            assert_eq!(written, Err(MemoryError::OutOfRange));
            return;
        }
        let mut all = true;
        for (reference, place) in &pin.bytes[range] {
            match self.grants.get(reference) {
                Some((frame, false)) => self.frames[*frame as usize][*place] = value,
                // What is mapped may be written as it was granted then, and nobody changes that.
                _ => all = false,
            }
        }
        assert_eq!(written.is_ok(), all);
    }

    fn check(&self) {
        for (frame, bytes) in self.frames.iter().enumerate() {
            assert_eq!(self.bed.xen.read_guest::<PAGE_BYTES>(GUEST, at(frame as u64, 0))[..], bytes[..]);
        }
        assert_eq!(self.bed.xen.grant_mappings(), self.bed.pages.borrow().mapped());
        assert_eq!(self.bed.xen.leaks(), []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_is_granted_is_reached_and_nothing_else(steps in vec(step(), 0..60)) {
        let frames = vec![vec![0; PAGE_BYTES]; FRAMES as usize];
        let mut model = Model { bed: bed(), grants: BTreeMap::new(), frames, pins: Vec::new() };
        for step in steps {
            model.take(step);
        }
        model.bed.xen.destroy(GUEST);
        model.pins.clear();
        assert_eq!((model.bed.xen.grant_mappings(), model.bed.xen.mapped()), (0, 0));
        assert!(!model.bed.xen.exists(GUEST));
    }
}
