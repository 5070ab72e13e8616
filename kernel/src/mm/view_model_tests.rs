//! Views under random use, with the pager used by others, of memory that comes and goes.

use alloc::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Frames of the guests, around the borders of tables of each level, and at the end of a view.
const PLACES: [Range<u64>; 5] =
    [0x40000..0x40004, 0x401fe..0x40202, 0x7fffe..0x80002, 0x7ff_fffe..0x800_0002, 0xfff_fffe..0x1000_0000];
const VIEWS: [(DomainId, Access, usize); 4] = [
    (A, Access::ReadWrite, 1),
    (A, Access::ReadOnly, 16),
    (B, Access::ReadWrite, 4),
    (B, Access::ReadOnly, 2),
];

#[derive(Clone, Debug)]
enum Step {
    Read { view: usize, place: usize, skip: usize, length: usize },
    Write { view: usize, place: usize, skip: usize, data: Vec<u8> },
    Reopen { view: usize },
    Pin { domain: DomainId, frames: Vec<u64> },
    Unpin { which: prop::sample::Index },
    Prefetch { domain: DomainId, frames: Vec<u64> },
    BalloonOut { domain: DomainId, frame: u64 },
    Populate { domain: DomainId, frame: u64 },
    Forget { domain: DomainId },
}

fn step() -> impl Strategy<Value = Step> {
    let domain = || prop_oneof![Just(A), Just(B)];
    let frame = || prop::sample::select(PLACES.into_iter().flatten().collect::<Vec<_>>());
    // Mostly near a border of two pages.
    let skip = || prop_oneof![4076..4106_usize, 0..12288_usize];
    let (view, place) = (|| 0..VIEWS.len(), || 0..PLACES.len());
    prop_oneof![
        8 => (view(), place(), skip(), 1..6000_usize)
            .prop_map(|(view, place, skip, length)| Step::Read { view, place, skip, length }),
        8 => (view(), place(), skip(), 1..64_usize)
            .prop_map(|(view, place, skip, length)| Step::Read { view, place, skip, length }),
        4 => (view(), place(), skip(), vec(any::<u8>(), 1..40))
            .prop_map(|(view, place, skip, data)| Step::Write { view, place, skip, data }),
        1 => view().prop_map(|view| Step::Reopen { view }),
        2 => (domain(), vec(frame(), 0..4)).prop_map(|(domain, frames)| Step::Pin { domain, frames }),
        2 => any::<prop::sample::Index>().prop_map(|which| Step::Unpin { which }),
        1 => (domain(), vec(frame(), 0..6)).prop_map(|(domain, frames)| Step::Prefetch { domain, frames }),
        1 => (domain(), frame()).prop_map(|(domain, frame)| Step::BalloonOut { domain, frame }),
        2 => (domain(), frame()).prop_map(|(domain, frame)| Step::Populate { domain, frame }),
        1 => domain().prop_map(|domain| Step::Forget { domain }),
    ]
}

struct Model {
    bed: Bed,
    views: Vec<Option<View<Rc<Cpu>>>>,
    window: usize,
    pins: Vec<(DomainId, Vec<u64>, PinnedSlots)>,
    holes: BTreeSet<(DomainId, u64)>,
}

impl Model {
    fn new(window: usize, tables: usize) -> Self {
        let bed = Bed::new(window, tables);
        for domain in [A, B] {
            bed.xen.balloon_out(domain, RAM..RAM + RAM_PAGES);
            PLACES.into_iter().for_each(|place| bed.xen.populate(domain, place));
        }
        let mut model = Self { bed, views: Vec::new(), window, pins: Vec::new(), holes: BTreeSet::new() };
        model.views = (0..VIEWS.len()).map(|view| Some(model.open(view))).collect();
        model
    }

    fn open(&self, view: usize) -> View<Rc<Cpu>> {
        let (domain, access, fault_around) = VIEWS[view];
        View::new(&self.bed.views, domain, access, fault_around).unwrap()
    }

    fn pinned(&self) -> BTreeSet<u32> {
        self.pins.iter().flat_map(|(_, _, slots)| slots.iter().copied()).collect()
    }

    fn has(&self, domain: DomainId, frame: u64) -> bool {
        PLACES.iter().any(|place| place.contains(&frame)) && !self.holes.contains(&(domain, frame))
    }

    /// An access succeeds only if all its pages are there, and then unless pins leave no two slots.
    fn check_result(&self, domain: DomainId, start: u64, length: usize, result: Result<(), MemoryError>) {
        let end = start + length as u64;
        let is_there = (start / 4096..end.div_ceil(4096)).all(|frame| self.has(domain, frame));
        let has_room = self.pinned().len() + PAGES_AT_ONCE <= self.window;
        assert!(result.is_err() || is_there, "there is no such memory");
        assert!(result.is_ok() || !is_there || !has_room, "{result:?}");
    }

    fn take(&mut self, step: Step) {
        let start = |place: usize, skip: usize| PLACES[place].start * 4096 + skip as u64;
        match step {
            Step::Read { view, place, skip, length } => {
                let (domain, start) = (VIEWS[view].0, start(place, skip));
                let mut out = vec![0xee; length];
                let result = self.views[view].as_ref().unwrap().read(GuestAddress(start), &mut out);
                self.check_result(domain, start, length, result);
                if result.is_ok() {
                    for (at, byte) in out.iter().enumerate() {
                        assert_eq!([*byte], self.bed.xen.read_guest(domain, start + at as u64));
                    }
                }
            }
            Step::Write { view, place, skip, data } => {
                let (domain, access, _) = VIEWS[view];
                let start = start(place, skip);
                let result = self.views[view].as_ref().unwrap().write(GuestAddress(start), &data);
                if access == Access::ReadOnly {
                    result.unwrap_err();
                    return;
                }
                self.check_result(domain, start, data.len(), result);
                if result.is_ok() {
                    for (at, byte) in data.iter().enumerate() {
                        assert_eq!([*byte], self.bed.xen.read_guest(domain, start + at as u64));
                    }
                }
            }
            Step::Reopen { view } => {
                self.views[view] = None;
                self.views[view] = Some(self.open(view));
            }
            Step::Pin { domain, frames } => {
                let mut slots = PinnedSlots::new();
                let wanted = frames.iter().map(|frame| GuestFrame(*frame));
                if self.bed.pager.borrow_mut().pin(domain, &wanted, &mut slots).is_ok() {
                    self.pins.push((domain, frames, slots));
                }
            }
            Step::Unpin { which } if !self.pins.is_empty() => {
                let (_, _, slots) = self.pins.swap_remove(which.index(self.pins.len()));
                self.bed.unpin(slots);
            }
            Step::Unpin { .. } => {}
            Step::Prefetch { domain, frames } => {
                self.bed.pager.borrow_mut().prefetch(domain, frames.into_iter().map(GuestFrame));
            }
            Step::BalloonOut { domain, frame } => {
                let is_pinned = self.pins.iter().any(|pin| pin.0 == domain && pin.1.contains(&frame));
                if !is_pinned {
                    self.bed.xen.balloon_out(domain, frame..frame + 1);
                    self.holes.insert((domain, frame));
                    self.forget(domain);
                }
            }
            Step::Populate { domain, frame } => {
                if self.holes.remove(&(domain, frame)) {
                    self.bed.xen.populate(domain, frame..frame + 1);
                }
            }
            Step::Forget { domain } => self.forget(domain),
        }
    }

    /// Nothing of the domain is to be seen afterwards.
    fn forget(&self, domain: DomainId) {
        self.bed.pager.borrow_mut().forget(domain);
        let state = self.bed.views.state.borrow();
        for page in self.bed.cpu.pages.borrow().keys() {
            let view = (page * PAGE_BYTES - UPPER_HALF) / VIEW_BYTES;
            assert_ne!(state.views[view].unwrap().domain, domain);
        }
    }

    fn run(mut self, steps: Vec<Step>) {
        for step in steps {
            self.take(step);
            self.bed.check();
            assert_eq!(self.bed.pager.borrow().pinned(), self.pinned().len());
            assert_eq!(self.bed.xen.leaks(), []);
        }
        self.views.clear();
        assert_eq!((self.bed.views.tables_used(), self.bed.cpu.pages.borrow().len()), (1, 0));
    }
}

proptest! {
    #[test]
    fn what_is_seen_is_what_the_guest_has(
        window in 2usize..24,
        tables in TABLES_MIN..20,
        steps in vec(step(), 0..60),
    ) {
        Model::new(window, tables).run(steps);
    }
}
