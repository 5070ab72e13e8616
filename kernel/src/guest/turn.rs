//! How many accesses of a guest's vCPUs are answered until the loop has looked at everything once: the others wait for the next
//! such turn, and so does nobody else. Kicks are accesses.

use crate::limits::ACCESSES_PER_TURN;

/// What of a guest's turn is left.
#[derive(Debug)]
pub struct Turn {
    left: usize,
    /// A bit for each vCPU that waits for the next turn.
    put_off: u128,
    /// Who has the next turn first.
    first: u32,
}

impl Default for Turn {
    fn default() -> Self {
        Self { left: ACCESSES_PER_TURN, put_off: 0, first: 0 }
    }
}

impl Turn {
    /// A turn begins. Returns whether vCPUs have waited for it: [`Self::next`] has them.
    pub fn begin(&mut self) -> bool {
        self.left = ACCESSES_PER_TURN;
        self.put_off != 0
    }

    /// Whether a vCPU is answered in this turn. Else it waits for the next one.
    #[must_use]
    pub fn has_room_for(&mut self, vcpu: usize) -> bool {
        let left = self.left.checked_sub(1);
        match left {
            Some(left) => self.left = left,
            // No more vCPUs than slots of an ioreq page.
            None => self.put_off |= 1_u128.checked_shl(vcpu as u32).unwrap_or(0),
        }
        left.is_some()
    }

    /// The next vCPU that has waited, if there is room for it.
    pub fn next(&mut self) -> Option<usize> {
        if self.put_off == 0 {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        // Where the last turn stopped: whoever waits comes first some time.
        let vcpu = (self.put_off.rotate_right(self.first).trailing_zeros() + self.first) % u128::BITS;
        self.put_off &= !(1 << vcpu);
        self.first = (vcpu + 1) % u128::BITS;
        Some(vcpu as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn who_finds_no_room_comes_in_the_next_turn() {
        let mut turn = Turn::default();
        assert!((0..ACCESSES_PER_TURN).all(|vcpu| turn.has_room_for(vcpu)));
        assert!(!turn.has_room_for(127) && turn.next().is_none());
        assert!(turn.begin());
        assert_eq!((turn.next(), turn.next()), (Some(127), None));
        assert!((1..ACCESSES_PER_TURN).all(|vcpu| turn.has_room_for(vcpu)));
        assert!(!turn.has_room_for(0));
    }

    #[test]
    fn vcpus_that_ask_all_the_time_are_answered_alike() {
        const TURNS: usize = 100;
        let mut turn = Turn::default();
        let mut answered = BTreeMap::new();
        for _ in 0..TURNS {
            turn.begin();
            while let Some(vcpu) = turn.next() {
                *answered.entry(vcpu).or_insert(0_usize) += 1;
            }
            for vcpu in 0..128 {
                if turn.has_room_for(vcpu) {
                    *answered.entry(vcpu).or_insert(0) += 1;
                }
            }
        }
        assert_eq!(answered.len(), 128);
        let each = TURNS * ACCESSES_PER_TURN / 128;
        assert!(answered.values().all(|times| times.abs_diff(each) <= ACCESSES_PER_TURN), "{answered:?}");
    }

    #[test]
    fn a_guest_whose_vcpus_are_few_never_waits() {
        let mut turn = Turn::default();
        for _ in 0..3 {
            assert!((0..ACCESSES_PER_TURN).all(|vcpu| turn.has_room_for(vcpu)));
            assert!(!turn.begin());
        }
    }
}
