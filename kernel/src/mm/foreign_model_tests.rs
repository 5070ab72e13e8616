//! The pager under random use, beside a model that knows only sets of pages.

use alloc::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::limits::FRAMES_HIGH;
use crate::mm::census::Census;
use crate::mm::frames::FrameAllocator;
use crate::mm::singles::SinglePages;

#[derive(Clone, Debug)]
enum Step {
    Pin {
        domain: DomainId,
        pages: Vec<u64>,
    },
    Unpin {
        which: prop::sample::Index,
    },
    Prefetch {
        domain: DomainId,
        pages: Vec<u64>,
    },
    /// The guest gives a page back, and we hear of it.
    BalloonOut {
        domain: DomainId,
        page: u64,
    },
    Populate {
        domain: DomainId,
        page: u64,
    },
    Forget {
        domain: DomainId,
    },
    /// RAM that slots are made of is wanted.
    GiveBack {
        count: usize,
    },
    DropStale,
}

/// Steps over the first `pages` pages of two guests; at most `most` pages a pin.
fn step(pages: u64, most: usize) -> impl Strategy<Value = Step> {
    let domain = || prop_oneof![Just(A), Just(B)];
    prop_oneof![
        6 => (domain(), vec(0..pages, 0..=most)).prop_map(|(domain, pages)| Step::Pin { domain, pages }),
        4 => any::<prop::sample::Index>().prop_map(|which| Step::Unpin { which }),
        2 => (domain(), vec(0..pages, 0..=most)).prop_map(|(domain, pages)| Step::Prefetch { domain, pages }),
        1 => (domain(), 0..pages).prop_map(|(domain, page)| Step::BalloonOut { domain, page }),
        1 => (domain(), 0..pages).prop_map(|(domain, page)| Step::Populate { domain, page }),
        1 => domain().prop_map(|domain| Step::Forget { domain }),
        1 => (0..8_usize).prop_map(|count| Step::GiveBack { count }),
        1 => Just(Step::DropStale),
    ]
}

struct Pin {
    domain: DomainId,
    pages: Vec<u64>,
    slots: PinnedSlots,
    /// The guest's pages were forgotten since: this one's are not found any more.
    forgotten: bool,
}

struct Model {
    bed: Bed,
    window: usize,
    frames: Rc<RefCell<FrameAllocator>>,
    singles: Rc<RefCell<SinglePages>>,
    /// Pages of RAM that we began with.
    ram: usize,
    /// Slots there can be: the window's, or fewer when there is no memory for its tables.
    capacity: usize,
    pins: Vec<Pin>,
    holes: BTreeSet<(DomainId, u64)>,
}

fn slots_of<'a>(pins: impl Iterator<Item = &'a Pin>) -> BTreeMap<u32, (DomainId, u64)> {
    pins.flat_map(|pin| pin.slots.iter().zip(&pin.pages).map(|(slot, page)| (*slot, (pin.domain, *page))))
        .collect()
}

impl Model {
    fn new(window: usize, capacity: usize) -> Self {
        Self::on(Bed::new(window), Rc::default(), window, capacity)
    }

    fn on(bed: Bed, frames: Rc<RefCell<FrameAllocator>>, window: usize, capacity: usize) -> Self {
        let ram = frames.borrow().total();
        let singles = bed.xen.single_pages();
        Self { bed, frames, singles, ram, window, capacity, pins: Vec::new(), holes: BTreeSet::new() }
    }

    /// With slots out of our RAM, behind `unpopulated` ones.
    fn mixed(window: usize, unpopulated: usize) -> Self {
        let ram = window - unpopulated + FRAMES_HIGH;
        let Bed { xen, .. } = Bed::new(0);
        let frames = xen.own_ram(ram);
        let window_of_both = xen.mixed_window(window, unpopulated, frames.clone());
        let pager = Rc::new(RefCell::new(Pager::new(window_of_both)));
        Self::on(Bed { xen, pager }, frames, window, window)
    }

    /// Pinned slots and the page that each holds; one page has several when it was forgotten in between.
    fn pinned(&self) -> BTreeMap<u32, (DomainId, u64)> {
        slots_of(self.pins.iter())
    }

    /// Pinned pages that are found again.
    fn findable(&self) -> BTreeSet<(DomainId, u64)> {
        slots_of(self.pins.iter().filter(|pin| !pin.forgotten)).into_values().collect()
    }

    fn forget(&mut self, domain: DomainId) -> usize {
        self.pins.iter_mut().filter(|pin| pin.domain == domain).for_each(|pin| pin.forgotten = true);
        self.bed.pager.borrow_mut().forget(domain)
    }

    fn try_pin(&self, domain: DomainId, pages: &[u64]) -> Result<PinnedSlots, MemoryError> {
        let frames = pages.iter().map(|page| GuestFrame(RAM + page));
        let mut slots = PinnedSlots::new();
        self.bed.pager.borrow_mut().pin(domain, &frames, &mut slots).map(|()| slots)
    }

    /// What a pin may say: it succeeds, or fails for any of the reasons it has to.
    fn expected(&self, domain: DomainId, pages: &[u64]) -> Vec<Result<(), MemoryError>> {
        let asked: BTreeSet<_> = pages.iter().map(|page| (domain, *page)).collect();
        let slots = self.pinned().len() + asked.difference(&self.findable()).count();
        let hole = pages.iter().find(|page| self.holes.contains(&(domain, **page)));
        let mut errors: Vec<_> =
            hole.map(|page| Err(MemoryError::NotMapped((RAM + page) * 4096))).into_iter().collect();
        if slots > self.capacity {
            errors.push(Err(MemoryError::Exhausted));
        }
        if errors.is_empty() { vec![Ok(())] } else { errors }
    }

    fn pin(&mut self, domain: DomainId, pages: Vec<u64>) {
        let expected = self.expected(domain, &pages);
        let (calls, before) = (self.bed.map_calls(), self.bed.pager.borrow().counters());
        let slots = self.try_pin(domain, &pages);
        let said = slots.as_ref().map(drop).map_err(|error| *error);
        assert!(expected.contains(&said), "{said:?} instead of {expected:?}");
        let Ok(slots) = slots else { return };
        let misses = self.bed.pager.borrow().counters().misses - before.misses;
        let calls = self.bed.map_calls() - calls;
        // A window that shrinks on the way makes its calls again.
        assert!(calls == (misses as usize).div_ceil(MAP_BATCH) || self.capacity < self.window);

        // Found again, without a hypercall, where they are.
        let calls = self.bed.map_calls();
        let again = self.try_pin(domain, &pages).unwrap();
        assert_eq!((&again, self.bed.map_calls()), (&slots, calls));
        self.bed.unpin(again);
        self.pins.push(Pin { domain, pages, slots, forgotten: false });
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Pin { domain, pages } => self.pin(domain, pages),
            Step::Unpin { which } if !self.pins.is_empty() => {
                let pin = self.pins.swap_remove(which.index(self.pins.len()));
                self.bed.unpin(pin.slots);
            }
            Step::Unpin { .. } => {}
            Step::Prefetch { domain, pages } => {
                let frames = pages.iter().map(|page| GuestFrame(RAM + page));
                self.bed.pager.borrow_mut().prefetch(domain, frames);
            }
            Step::BalloonOut { domain, page } => {
                // No guest in its senses gives away what it asked us to write to.
                if !self.pinned().values().any(|held| *held == (domain, page)) {
                    self.bed.xen.balloon_out(domain, RAM + page..RAM + page + 1);
                    self.holes.insert((domain, page));
                    self.forget(domain);
                }
            }
            Step::Populate { domain, page } => {
                if self.holes.remove(&(domain, page)) {
                    self.bed.xen.populate(domain, RAM + page..RAM + page + 1);
                }
            }
            Step::GiveBack { count } => {
                let ballooned = self.bed.pager.borrow().window().ballooned();
                self.bed.pager.borrow_mut().give_back(count).unwrap();
                assert!(self.bed.pager.borrow().window().ballooned() + count >= ballooned);
            }
            Step::DropStale => self.bed.pager.borrow_mut().drop_stale(),
            Step::Forget { domain } => {
                let pinned = self.pinned().into_values().filter(|(of, _)| *of == domain).count();
                assert_eq!(self.forget(domain), pinned);
                assert_eq!(self.bed.xen.references(domain), pinned);
            }
        }
    }

    fn check(&self) {
        let pinned = self.pinned();
        for (slot, page) in &pinned {
            assert_eq!(self.bed.held(&[*slot]), [Some(*page)], "a pinned slot changed its page");
        }
        let pager = self.bed.pager.borrow();
        assert_eq!(pager.pinned(), pinned.len());
        let [own, foreign, _, _] = self.bed.xen.census();
        assert_eq!((pager.mapped(), pager.window().ballooned()), (foreign, self.ram - own));
        assert_eq!(pager.held(A) + pager.held(B), foreign);
        let census = Census::take(&self.frames.borrow(), pager.window(), &self.singles.borrow(), 0);
        assert_eq!((census.populated, census.foreign, census.adds_up()), (own, foreign, true), "{census}");
        assert!(pager.mapped() <= self.capacity);
        assert_eq!(self.bed.xen.leaks(), []);
    }

    fn run(mut self, steps: Vec<Step>) {
        for step in steps {
            self.take(step);
            self.check();
        }
        core::mem::take(&mut self.pins).into_iter().for_each(|pin| self.bed.unpin(pin.slots));
        for domain in [A, B] {
            assert_eq!(self.bed.pager.borrow_mut().forget(domain), 0);
            self.bed.xen.destroy(domain);
            assert!(!self.bed.xen.exists(domain), "{domain} is a zombie");
        }
        self.bed.pager.borrow_mut().give_back(self.window).unwrap();
        assert_eq!((self.bed.pager.borrow().mapped(), self.bed.xen.census()), (0, [self.ram, 0, 0, 0]));
        assert_eq!(self.bed.xen.leaks(), []);
    }
}

proptest! {
    #[test]
    fn a_small_window_under_pressure_keeps_every_promise(
        window in 1usize..12,
        steps in vec(step(16, 6), 0..80),
    ) {
        Model::new(window, window).run(steps);
    }

    #[test]
    fn slots_out_of_our_ram_keep_every_promise(
        unpopulated in 0usize..6,
        ballooned in 1usize..12,
        steps in vec(step(16, 6), 0..80),
    ) {
        Model::mixed(unpopulated + ballooned, unpopulated).run(steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_roomy_window_maps_each_pin_at_once(steps in vec(step(RAM_PAGES, 600), 0..16)) {
        Model::new(1536, 1536).run(steps);
    }

    #[test]
    fn a_window_that_xen_cannot_back_shrinks_and_keeps_every_promise(
        steps in vec(step(RAM_PAGES, 400), 0..16),
    ) {
        let model = Model::new(1536, 512);
        model.bed.xen.set_pool(1);
        model.run(steps);
    }
}
