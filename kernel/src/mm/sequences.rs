//! Plays every sequence of moves up to a length, for tests.

use alloc::collections::BTreeSet;
use alloc::{vec, vec::Vec};

/// Something that moves are made with.
pub trait Bed {
    /// A move.
    type Move: Copy;
    /// All that later moves may depend on.
    type State: Ord;

    /// One with which no move was made.
    fn new() -> Self;

    fn state(&self) -> Self::State;

    /// Makes a move and looks whether all is well.
    fn take(&mut self, moved: Self::Move);

    /// Looks whether all can be undone.
    fn undo(self);
}

/// Plays every sequence of `length` of these moves, each from the beginning; those that lead to the same state are gone on with
/// once. Returns the number of states.
pub fn play<B: Bed>(moves: &[B::Move], length: usize) -> usize {
    let mut known = BTreeSet::from([B::new().state()]);
    let mut ends: Vec<Vec<B::Move>> = vec![Vec::new()];
    for _ in 0..length {
        for path in core::mem::take(&mut ends) {
            for next in moves {
                let mut bed = B::new();
                path.iter().chain([next]).for_each(|moved| bed.take(*moved));
                if known.insert(bed.state()) {
                    bed.undo();
                    ends.push(path.iter().chain([next]).copied().collect());
                }
            }
        }
    }
    known.len()
}
