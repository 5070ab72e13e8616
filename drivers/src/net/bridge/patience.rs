//! How long a receiver whose inbox is full has its senders wait.
//!
//! Where guests share a processor, a receiver does not run while its sender does, and what is sent meanwhile does not fit its
//! inbox. A frame for it alone can stay where it is, in the sender's own ring, until the receiver has taken some: so the sender
//! has to slow down, nothing is lost, and nothing is kept by us.
//!
//! That holds up what the sender has for others, so that it is bounded (XSA-392): a receiver that takes nothing has this time
//! once. Then it has to take frames first, and has the more time the more it takes. Whoever takes little on purpose slows a
//! sender down to 10,000 frames a second, never further.

use crate::net::frame::WIRE_BYTES_MAX;

/// A vCPU that waits for its turn has it within this, most often: the longest slice of Xen's scheduler, credit2.
const MOST_NS: u64 = 10_000_000;
/// For each byte taken, but at least for a frame of ordinary size.
const EARNED_NS_PER_BYTE: u64 = 64;

/// The time that a receiver has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    left_ns: u64,
    /// When a sender began to wait, if one does.
    since_ns: Option<u64>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { left_ns: MOST_NS, since_ns: None }
    }
}

impl Patience {
    /// A sender would wait. Whether it is to, until the time at [`Self::end_ns`].
    pub fn lasts(&mut self, now_ns: u64) -> bool {
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        now_ns.saturating_sub(since_ns) < self.left_ns
    }

    /// When a sender that waits gives up.
    pub fn end_ns(&self) -> Option<u64> {
        self.since_ns.map(|since_ns| since_ns.saturating_add(self.left_ns))
    }

    /// The receiver has taken a frame of so many bytes.
    pub fn earn(&mut self, bytes: usize, now_ns: u64) {
        let spent_ns = self.since_ns.take().map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
        let earned_ns = bytes.max(WIRE_BYTES_MAX) as u64 * EARNED_NS_PER_BYTE;
        self.left_ns = self.left_ns.saturating_sub(spent_ns).saturating_add(earned_ns).min(MOST_NS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_nothing_has_its_time_once() {
        let mut patience = Patience::default();
        assert!(patience.lasts(5) && patience.lasts(5 + MOST_NS - 1));
        assert_eq!(patience.end_ns(), Some(5 + MOST_NS));
        assert!(!patience.lasts(5 + MOST_NS) && !patience.lasts(1000 * MOST_NS));
    }

    #[test]
    fn who_takes_little_has_little() {
        let mut patience = Patience::default();
        assert!(patience.lasts(0));
        let mut now_ns = MOST_NS;
        let mut waited_ns = 0;
        for _ in 0..100 {
            patience.earn(60, now_ns);
            assert!(patience.lasts(now_ns));
            let end_ns = patience.end_ns().unwrap();
            waited_ns += end_ns - now_ns;
            now_ns = end_ns;
            assert!(!patience.lasts(now_ns));
        }
        assert!(waited_ns <= 100 * 100_000, "{waited_ns}");
    }

    #[test]
    fn who_takes_much_has_all_of_it_again() {
        let mut patience = Patience::default();
        assert!(patience.lasts(0) && !patience.lasts(MOST_NS));
        (0..200).for_each(|_| patience.earn(1514, MOST_NS));
        assert!(patience.lasts(MOST_NS) && patience.lasts(2 * MOST_NS - 1) && !patience.lasts(2 * MOST_NS));
    }
}
