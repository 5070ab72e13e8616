//! Every sequence of so many moves over three slots, two guests and a balloon, with Xen refusing each hypercall at each place:
//! after each move our books are what Xen knows, a refused move has changed nothing, and at the end all can be undone.
//!
//! Sequences that lead to the same books are gone on with once. Each is played from the beginning.

use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::{vec, vec::Vec};
use core::cell::RefCell;

use super::*;
use crate::limits::FRAMES_HIGH;
use crate::mm::census::Census;
use crate::mm::frames::FrameAllocator;
use crate::mm::sequences::{self, play};
use crate::mm::singles::SinglePages;
use crate::xen::fake::{Call, FakeXen};

const A: DomainId = DomainId(3);
const B: DomainId = DomainId(4);
/// The only frame of each guest's RAM.
const FRAME: u64 = 0x40000;
/// None of theirs.
const GONE: u64 = FRAME + 1;
const SLOTS: usize = 3;
/// Of these, how many are unpopulated from the start; the others are out of our RAM.
const UNPOPULATED: usize = 1;
const RAM: usize = FRAMES_HIGH + SLOTS - UNPOPULATED;
/// Moves in a sequence.
const MOVES: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Move {
    Grow,
    /// One commit of up to two moves.
    Map(DomainId, &'static [(SlotIndex, u64)]),
    Unmap(&'static [SlotIndex]),
    GiveBack(SlotIndex),
    Abandon(SlotIndex),
    /// From now on Xen has no memory for new tables of ours.
    EndPool,
}

/// A kind of call that is refused after so many.
type Refusal = Option<(Call, usize)>;

/// All moves, with all that may be refused in them.
fn moves() -> Vec<(Move, Refusal)> {
    let maps: [&[(SlotIndex, u64)]; 7] = [
        &[(0, FRAME)],
        &[(1, FRAME)],
        &[(2, FRAME)],
        &[(0, GONE)],
        &[(2, GONE)],
        &[(0, FRAME), (1, FRAME)],
        &[(1, GONE), (2, FRAME)],
    ];
    let unmaps: [&[SlotIndex]; 5] = [&[0], &[1], &[2], &[0, 1, 2], &[2, 0]];
    let mut moves = vec![(Move::Grow, None), (Move::Grow, Some((Call::Decrease, 0))), (Move::EndPool, None)];
    let mut add = |moved: Move, refusals: &[(Call, usize)]| {
        moves.push((moved, None));
        moves.extend(refusals.iter().map(|refusal| (moved, Some(*refusal))));
    };
    for map in maps {
        // A page that is there already is unmapped first.
        add(
            Move::Map(A, map),
            &[(Call::MapForeign, 0), (Call::Multicall, 0), (Call::Unmap, 0), (Call::Unmap, 1)],
        );
    }
    add(Move::Map(B, maps[0]), &[(Call::MapForeign, 0)]);
    add(Move::Map(B, maps[1]), &[(Call::MapForeign, 0)]);
    for unmap in unmaps {
        add(
            Move::Unmap(unmap),
            &[(Call::Multicall, 0), (Call::Unmap, 0), (Call::Unmap, 1), (Call::Unmap, 2)],
        );
    }
    for slot in 0..SLOTS {
        add(Move::GiveBack(slot), &[(Call::Populate, 0)]);
        add(Move::Abandon(slot), &[]);
    }
    moves
}

/// What each slot is: its frame number, and the page that it holds.
type Books = [(Option<Gfn>, Option<ForeignPage>); SLOTS];

struct Bed {
    xen: FakeXen,
    frames: Rc<RefCell<FrameAllocator>>,
    singles: Rc<RefCell<SinglePages>>,
    window: Window,
    is_pool_ended: bool,
}

impl Bed {
    fn books(&self) -> Books {
        core::array::from_fn(|slot| (self.window.gfn(slot), self.window.page(slot)))
    }

    /// Returns the slots that may have changed.
    fn map(&mut self, domain: DomainId, maps: &[(SlotIndex, u64)]) -> Vec<SlotIndex> {
        let mut before = self.books();
        let mut begun = 0;
        let mut touched = Vec::new();
        for (slot, frame) in maps {
            let page = ForeignPage::new(domain, GuestFrame(*frame)).unwrap();
            let is_itself = self.window.page(*slot) == Some(page);
            if self.window.begin(*slot, page) {
                begun += 1;
            }
            if is_itself {
                // It was unmapped first, or nothing was begun.
                before[*slot].1 = self.window.page(*slot).filter(|_| self.window.begun() < begun);
                touched.push(*slot);
            }
        }
        let mut told = 0;
        let mut mapped = Vec::new();
        self.window.commit(domain, |slot, page, result| {
            told += 1;
            if result.is_ok() {
                mapped.push((slot, page));
            }
        });
        assert_eq!((told, self.window.begun()), (begun, 0));
        for (slot, page) in &mapped {
            assert_eq!(self.window.page(*slot), Some(*page));
        }
        touched.extend(mapped.iter().map(|(slot, _)| *slot));
        touched
    }

    /// Our books are what Xen knows.
    fn check(&self) {
        let census = Census::take(&self.frames.borrow(), &self.window, &self.singles.borrow(), 0);
        let truth = [census.populated, census.foreign, census.grant, census.xen];
        assert_eq!((truth, census.adds_up()), (self.xen.census(), true), "{census}");
        assert_eq!(self.frames.borrow().lent(), self.window.ballooned());
        assert_eq!(self.xen.references(A) + self.xen.references(B), self.window.mapped());
        assert_eq!(self.xen.leaks(), []);
        let mut seen = BTreeSet::new();
        for (slot, (gfn, page)) in self.books().into_iter().enumerate() {
            let Some(gfn) = gfn else {
                assert_eq!(page, None);
                continue;
            };
            assert!(seen.insert(gfn), "two slots have one frame number");
            let held = self.xen.foreign_page(self.window.address(slot));
            assert_eq!(page.map(|page| (page.domain(), page.frame().0)), held);
        }
    }
}

impl sequences::Bed for Bed {
    type Move = (Move, Refusal);
    type State = (
        [(Option<u64>, Option<NonZeroU64>); SLOTS],
        (usize, usize, usize, SlotIndex, bool),
        (u64, u64, u64),
        (usize, bool, usize),
    );

    fn new() -> Self {
        let xen = FakeXen::new();
        for domain in [A, B] {
            xen.add_domain(domain, 1);
            xen.populate(domain, FRAME..FRAME + 1);
        }
        let frames = xen.ram_to_spare(SLOTS - UNPOPULATED);
        let window = xen.mixed_window(SLOTS, UNPOPULATED, frames.clone());
        Self { singles: xen.single_pages(), xen, frames, window, is_pool_ended: false }
    }

    fn state(&self) -> Self::State {
        let window = &self.window;
        // Where our holes begin is another place in each bed.
        let first = Gfn::containing(self.xen.space().start);
        let place = |gfn: Gfn| gfn.0.wrapping_sub(first.0);
        let slots = self.books().map(|(gfn, page)| (gfn.map(place), page.map(|page| page.0)));
        let counts = (window.mapped, window.ballooned, window.placed, window.lowest_nowhere, window.is_short);
        let region =
            (place(window.unpopulated.next), place(window.unpopulated.end), place(window.region.start));
        (slots, counts, region, (window.balloon.available(), self.is_pool_ended, self.xen.tables()))
    }

    fn take(&mut self, (moved, refusal): (Move, Refusal)) {
        if let Some((call, passing)) = refusal {
            self.xen.refuse(call, passing, Errno::EPERM);
        }
        let before = self.books();
        let changed = match moved {
            Move::Grow => {
                let mut made = Vec::new();
                let any = self.window.grow(|slot| made.push(slot));
                assert_eq!(any, !made.is_empty());
                assert!(made.iter().all(|slot| before[*slot].0.is_none() && self.books()[*slot].1.is_none()));
                made
            }
            Move::Map(domain, maps) => self.map(domain, maps),
            Move::Unmap(slots) => {
                self.window.unmap(slots);
                if refusal == Some((Call::Multicall, 0)) { Vec::new() } else { slots.to_vec() }
            }
            Move::GiveBack(slot) => {
                let given = self.window.give_back(slot).is_ok();
                assert_eq!(given, before[slot].0.is_some() && self.books()[slot].0.is_none());
                if given { vec![slot] } else { Vec::new() }
            }
            Move::Abandon(slot) => {
                if self.window.abandon(slot) {
                    vec![slot]
                } else {
                    Vec::new()
                }
            }
            Move::EndPool => {
                self.xen.set_pool(0);
                self.is_pool_ended = true;
                Vec::new()
            }
        };
        self.xen.allow_all();
        for (slot, (before, now)) in before.iter().zip(self.books()).enumerate() {
            assert!(changed.contains(&slot) || *before == now, "slot {slot} changed by the way");
        }
        self.check();
    }

    fn undo(mut self) {
        for slot in 0..SLOTS {
            if self.window.page(slot).is_some() {
                self.window.unmap(&[slot]);
            }
            assert!(!self.window.is_ballooned(slot) || self.window.give_back(slot).is_ok());
        }
        self.check();
        assert_eq!((self.window.mapped(), self.xen.census()), (0, [RAM, 0, 0, 0]));
        for domain in [A, B] {
            self.xen.destroy(domain);
            assert!(!self.xen.exists(domain), "{domain} is a zombie");
        }
    }
}

#[test]
fn no_sequence_of_moves_loses_a_page_or_has_it_twice() {
    let states = play::<Bed>(&moves(), MOVES);
    assert!(states > 200, "{states}");
}
