//! Every sequence of so many moves of a pager with two slots, one of them out of our RAM, and two guests, with Xen refusing each
//! kind of hypercall: no slot is lost, what is pinned stays, our books are what Xen knows, and at the end nothing is kept.
//!
//! Sequences that lead to the same state are gone on with once. Each is played from the beginning.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use std::format;

use super::*;
use crate::mm::census::Census;
use crate::mm::frames::FrameAllocator;
use crate::mm::sequences::{self, play};
use crate::mm::singles::SinglePages;
use crate::xen::fake::{Call, FakeXen};

const A: DomainId = DomainId(3);
const B: DomainId = DomainId(4);
/// First frame of every guest's RAM, which is two pages.
const RAM: u64 = 0x40000;
const SLOTS: usize = 2;
const UNPOPULATED: usize = 1;
/// Moves in a sequence.
const MOVES: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Move {
    Pin(DomainId, &'static [u64]),
    /// What was pinned first.
    Unpin,
    Prefetch(DomainId, &'static [u64]),
    Forget(DomainId),
    Distrust(DomainId),
    DropStale,
    GiveBack,
    /// From now on Xen has no memory for new tables of ours.
    EndPool,
}

/// All moves, with what may be refused in them.
fn moves() -> Vec<(Move, Option<Call>)> {
    let mut moves = Vec::new();
    let mut add = |moved: Move, refused: &[Call]| {
        moves.push((moved, None));
        moves.extend(refused.iter().map(|call| (moved, Some(*call))));
    };
    // The third page is not there.
    for pages in [&[0][..], &[0, 1], &[1, 2]] {
        add(Move::Pin(A, pages), &[Call::MapForeign, Call::Multicall]);
    }
    add(Move::Pin(B, &[0]), &[Call::MapForeign, Call::Multicall, Call::Decrease]);
    add(Move::Unpin, &[]);
    add(Move::Prefetch(A, &[1, 0]), &[Call::MapForeign]);
    add(Move::Prefetch(B, &[0]), &[]);
    add(Move::Forget(A), &[Call::Multicall]);
    add(Move::Distrust(A), &[]);
    add(Move::DropStale, &[Call::Unmap]);
    add(Move::GiveBack, &[Call::Unmap, Call::Populate]);
    add(Move::EndPool, &[]);
    moves
}

struct Bed {
    xen: FakeXen,
    frames: Rc<RefCell<FrameAllocator>>,
    singles: Rc<RefCell<SinglePages>>,
    pager: Pager,
    pins: Vec<(DomainId, &'static [u64], PinnedSlots)>,
    is_pool_ended: bool,
}

impl Bed {
    fn check(&self) {
        let mut pinned = BTreeSet::new();
        for (domain, pages, slots) in &self.pins {
            for (slot, page) in slots.iter().zip(*pages) {
                let held = self.xen.foreign_page(self.pager.address(*slot));
                assert_eq!(held, Some((*domain, RAM + page)), "a pinned slot changed its page");
                pinned.insert(*slot);
            }
        }
        assert_eq!(self.pager.pinned(), pinned.len());
        let window = self.pager.window();
        let census = Census::take(&self.frames.borrow(), window, &self.singles.borrow(), 0);
        let truth = [census.populated, census.foreign, census.grant, census.xen];
        assert_eq!((truth, census.adds_up()), (self.xen.census(), true), "{census}");
        for domain in [A, B] {
            assert_eq!(self.pager.held(domain), self.xen.references(domain));
        }
        assert_eq!(self.xen.leaks(), []);
        // Each slot is empty, or a guest's, or none yet.
        let next = |slot: &u32| self.pager.slots.get(*slot as usize).map(|state| state.next);
        let empty = core::iter::successors(Some(self.pager.empty), next).take_while(|slot| *slot != NONE);
        let unplaced = (0..SLOTS).filter(|slot| window.gfn(*slot).is_none()).count();
        assert_eq!(empty.count() + window.mapped() + unplaced, SLOTS, "a slot is lost");
    }
}

impl sequences::Bed for Bed {
    type Move = (Move, Option<Call>);
    type State = String;

    fn new() -> Self {
        let xen = FakeXen::new();
        for domain in [A, B] {
            xen.add_domain(domain, 1);
            xen.populate(domain, RAM..RAM + 2);
        }
        let frames = xen.ram_to_spare(SLOTS - UNPOPULATED);
        let pager = Pager::new(xen.mixed_window(SLOTS, UNPOPULATED, frames.clone()));
        Self { singles: xen.single_pages(), xen, frames, pager, pins: Vec::new(), is_pool_ended: false }
    }

    fn state(&self) -> String {
        let Pager { window, slots, heads, empty, holders, .. } = &self.pager;
        let of_window: Vec<_> =
            (0..SLOTS).map(|slot| (window.gfn(slot).map(|gfn| gfn.0), window.page(slot))).collect();
        let counts = (window.usable(), window.ballooned(), self.xen.tables(), self.is_pool_ended);
        format!("{slots:?}{heads:?}{empty}{holders:?}{of_window:?}{counts:?}{:?}", self.pins)
    }

    fn take(&mut self, (moved, refused): (Move, Option<Call>)) {
        refused.into_iter().for_each(|call| self.xen.refuse(call, 0, Errno::EPERM));
        let frames = |pages: &'static [u64]| pages.iter().map(|page| GuestFrame(RAM + page));
        match moved {
            Move::Pin(domain, pages) => {
                let mut slots = PinnedSlots::new();
                match self.pager.pin(domain, &frames(pages), &mut slots) {
                    Ok(()) => self.pins.push((domain, pages, slots)),
                    Err(_) => assert!(slots.is_empty()),
                }
            }
            Move::Unpin if !self.pins.is_empty() => {
                self.pins.remove(0).2.into_iter().for_each(|slot| self.pager.unpin(slot));
            }
            Move::Unpin => {}
            Move::Prefetch(domain, pages) => self.pager.prefetch(domain, frames(pages)),
            Move::Forget(domain) => drop(self.pager.forget(domain)),
            Move::Distrust(domain) => self.pager.distrust(domain),
            Move::DropStale => self.pager.drop_stale(),
            Move::GiveBack => drop(self.pager.give_back(1)),
            Move::EndPool => {
                self.xen.set_pool(0);
                self.is_pool_ended = true;
            }
        }
        self.xen.allow_all();
        self.check();
    }

    fn undo(mut self) {
        let pins = core::mem::take(&mut self.pins);
        pins.into_iter().flat_map(|(.., slots)| slots).for_each(|slot| self.pager.unpin(slot));
        for domain in [A, B] {
            assert_eq!(self.pager.forget(domain), 0);
            self.xen.destroy(domain);
            assert!(!self.xen.exists(domain), "{domain} is a zombie");
        }
        self.pager.give_back(SLOTS).unwrap();
        self.check();
        assert_eq!(self.xen.census(), [self.frames.borrow().total(), 0, 0, 0]);
    }
}

#[test]
fn no_sequence_of_moves_loses_a_slot_or_keeps_a_page() {
    let states = play::<Bed>(&moves(), MOVES);
    assert!(states > 1000, "{states}");
}
