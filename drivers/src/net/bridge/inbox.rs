//! What waits for a port, and how much of all buffers that may take.
//!
//! Frames are never queued without bound (XSA-392): a port whose guest takes nothing fills its inbox, then loses what comes.
//! Each inbox has places of its own, and the bridge has some that inboxes borrow when many frames come at once. None may
//! borrow more than it leaves ("dynamic thresholds", Choudhury and Hahne 1998): one guest that takes nothing has half of
//! them, two have two thirds, and the others always have some, and their own.

use crate::net::frame::{Frame, PoolLimits};
use alloc::collections::TryReserveError;
use alloc::collections::VecDeque;

/// Places for buffers of one size.
struct Share {
    /// In each inbox.
    own: usize,
    /// To be borrowed by all inboxes.
    common: usize,
    /// Frames that are being written.
    staging: usize,
}

/// Frames that each port may have taken out of its inbox and not passed on yet: the one that its receiver is at.
const IN_HAND: usize = 1;
/// One large buffer takes as much as 40 small ones. Frames are taken from a guest in batches of 32.
const SMALL: Share = Share { own: 16, common: 112, staging: 32 };
const LARGE: Share = Share { own: 1, common: 5, staging: 1 };

/// Most frames in an inbox.
pub(super) const FRAMES_MAX: usize = SMALL.own + LARGE.own + (SMALL.common + LARGE.common).div_ceil(2) + 1;

/// The buffers that so many ports can fill. Others are never to be had, so what a port has of its own is there for it.
/// They are made when needed: with six ports at most 1.5 MiB.
pub(super) fn pool_limits(ports: usize) -> PoolLimits {
    let [small, large] =
        [SMALL, LARGE].map(|share| ports * (share.own + IN_HAND) + share.common + share.staging);
    PoolLimits { small, large }
}

/// What inboxes have borrowed, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Borrowed {
    small: usize,
    large: usize,
}

/// What waits for a port.
#[derive(Default)]
pub(super) struct Inbox {
    frames: VecDeque<Frame>,
    small: usize,
    large: usize,
}

impl Inbox {
    /// An empty one, with room for all that it may ever hold.
    pub fn new() -> Result<Self, TryReserveError> {
        let mut frames = VecDeque::new();
        frames.try_reserve_exact(FRAMES_MAX)?;
        Ok(Self { frames, ..Self::default() })
    }

    /// How many frames wait.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Adds a frame as the last; false when there is no place for it.
    pub fn push(&mut self, frame: Frame, borrowed: &mut Borrowed) -> bool {
        if !self.has_place(&frame, borrowed) {
            return false;
        }
        let (held, all_borrowed, share) = self.places(frame.is_large(), borrowed);
        if *held >= share.own {
            *all_borrowed += 1;
        }
        *held += 1;
        self.frames.push_back(frame);
        true
    }

    /// Whether there is a place for the frame.
    pub fn has_place(&mut self, frame: &Frame, borrowed: &mut Borrowed) -> bool {
        let (held, all_borrowed, share) = self.places(frame.is_large(), borrowed);
        *held < share.own || *held - share.own < share.common.saturating_sub(*all_borrowed)
    }

    /// Takes the first.
    pub fn pop(&mut self, borrowed: &mut Borrowed) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        let (held, all_borrowed, share) = self.places(frame.is_large(), borrowed);
        *held -= 1;
        if *held >= share.own {
            *all_borrowed -= 1;
        }
        Some(frame)
    }

    /// Drops all.
    pub fn clear(&mut self, borrowed: &mut Borrowed) {
        while self.pop(borrowed).is_some() {}
    }

    fn places<'a>(
        &'a mut self,
        is_large: bool,
        borrowed: &'a mut Borrowed,
    ) -> (&'a mut usize, &'a mut usize, Share) {
        if is_large {
            (&mut self.large, &mut borrowed.large, LARGE)
        } else {
            (&mut self.small, &mut borrowed.small, SMALL)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::frame::{FRAME_BYTES_MAX, FramePool};
    use crate::net::offload::Offload;
    use std::vec::Vec;

    fn fill(inbox: &mut Inbox, pool: &FramePool, bytes: usize, borrowed: &mut Borrowed) -> usize {
        let mut frames = 0;
        while let Some(blank) = pool.blank(bytes)
            && inbox.push(blank.finish(Offload::default()), borrowed)
        {
            frames += 1;
        }
        frames
    }

    #[test]
    fn all_buffers_of_four_guests_uplink_and_endpoint_take_little() {
        let pool = FramePool::new(pool_limits(6));
        let small: Vec<_> = core::iter::from_fn(|| pool.blank(60)).collect();
        let large: Vec<_> = core::iter::from_fn(|| pool.blank(60_000)).collect();
        assert_eq!((small.len(), large.len()), (246, 18));
        assert!(pool.bytes() <= 3 << 19, "{}", pool.bytes());
    }

    #[test]
    fn who_takes_nothing_leaves_the_others_their_own_and_more() {
        let pool = FramePool::new(pool_limits(6));
        let mut borrowed = Borrowed::default();
        let mut inboxes: Vec<_> = (0..6).map(|_| Inbox::new().unwrap()).collect();
        let mut small = inboxes.iter_mut().map(|inbox| fill(inbox, &pool, 60, &mut borrowed));
        assert_eq!(small.by_ref().collect::<Vec<_>>(), [72, 44, 30, 23, 20, 18]);
        let large = inboxes.iter_mut().map(|inbox| fill(inbox, &pool, FRAME_BYTES_MAX, &mut borrowed));
        assert_eq!(large.collect::<Vec<_>>(), [4, 2, 2, 1, 1, 1]);
        assert!(inboxes.iter().all(|inbox| inbox.frames.capacity() < 2 * FRAMES_MAX));
        inboxes.iter_mut().for_each(|inbox| inbox.clear(&mut borrowed));
        assert_eq!((borrowed, pool.in_use()), (Borrowed::default(), 0));
    }

    #[test]
    fn an_inbox_holds_no_more_than_it_has_room_for() {
        let pool = FramePool::new(pool_limits(6));
        let (mut borrowed, mut inbox) = (Borrowed::default(), Inbox::new().unwrap());
        let capacity = inbox.frames.capacity();
        let _ = fill(&mut inbox, &pool, 60, &mut borrowed) + fill(&mut inbox, &pool, 60_000, &mut borrowed);
        assert!(inbox.frames() <= FRAMES_MAX);
        assert_eq!(inbox.frames.capacity(), capacity);
    }
}
