//! Frames in buffers of ours, and the pool that bounds how many there are.
//!
//! Buffers come in two sizes, one for frames of an ordinary network and one for those that a guest leaves to be segmented.
//! They are made when first needed, and used again: a frame costs no allocation, and nothing is freed while it may be needed
//! again, so that the heap does not fall to pieces. A [`Frame`] is counted: a flooded frame is in many inboxes and in memory once.

use super::offload::Offload;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

/// Bytes of destination, source and kind.
pub const ETHERNET_BYTES: usize = 14;
/// Bytes of a VLAN tag.
pub const VLAN_BYTES: usize = 4;
/// Most bytes that follow: the MTU of our network.
pub const MTU: usize = 1500;
/// Tags that a full frame has room for.
const VLANS_MAX: usize = 2;
/// The largest frame on a wire, without its check sequence.
pub const WIRE_BYTES_MAX: usize = ETHERNET_BYTES + VLANS_MAX * VLAN_BYTES + MTU;
/// The largest frame that a guest may leave to be segmented: an IP packet of 64 KiB.
pub const FRAME_BYTES_MAX: usize = ETHERNET_BYTES + VLANS_MAX * VLAN_BYTES + 65535;

/// Bytes of a small buffer: a frame of an ordinary network.
const SMALL_BYTES: usize = 1536;
/// Bytes of a large one.
const LARGE_BYTES: usize = FRAME_BYTES_MAX.next_multiple_of(64);

/// Whether a frame of so many bytes takes a large buffer.
#[must_use]
pub fn is_large(bytes: usize) -> bool {
    bytes > SMALL_BYTES
}

/// Buffers of each size that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Of [`WIRE_BYTES_MAX`] bytes.
    pub small: usize,
    /// Of [`FRAME_BYTES_MAX`] bytes.
    pub large: usize,
}

struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
    offload: Offload,
}

#[derive(Default)]
struct Shelf {
    made: usize,
    free: Vec<Rc<Buffer>>,
}

struct Shelves {
    limits: PoolLimits,
    may_grow: fn() -> bool,
    small: Shelf,
    large: Shelf,
    exhausted: u64,
}

/// The buffers for frames. Clones are handles of the same pool.
#[derive(Clone)]
pub struct FramePool(Rc<RefCell<Shelves>>);

impl FramePool {
    /// An empty pool that may grow to `limits`.
    #[must_use]
    pub fn new(limits: PoolLimits) -> Self {
        let (small, large) = Default::default();
        let shelves = Shelves { limits, may_grow: || true, small, large, exhausted: 0 };
        Self(Rc::new(RefCell::new(shelves)))
    }

    /// Lets the pool grow to `limits`, or has it shrink to them as buffers are free.
    pub fn set_limits(&self, limits: PoolLimits) {
        let mut shelves = self.0.borrow_mut();
        shelves.limits = limits;
        shelves.small.shrink_to(limits.small);
        shelves.large.shrink_to(limits.large);
    }

    /// Gives the heap back what no frame is in.
    pub fn release_idle(&self) {
        let mut shelves = self.0.borrow_mut();
        shelves.small.shrink_to(0);
        shelves.large.shrink_to(0);
    }

    /// Lets the pool grow only by buffers after which `may_grow` still says yes: guests make it grow, and others need the
    /// heap, too.
    pub fn set_may_grow(&self, may_grow: fn() -> bool) {
        self.0.borrow_mut().may_grow = may_grow;
    }

    /// A buffer to be filled with a frame of `bytes` bytes; none when it is too large, or all are in use.
    #[must_use]
    pub fn blank(&self, bytes: usize) -> Option<Blank> {
        let buffer = self.0.borrow_mut().take(bytes);
        if buffer.is_none() {
            self.0.borrow_mut().exhausted += 1;
        }
        buffer.map(|buffer| Blank(Frame { buffer: Some(buffer), pool: self.clone() }))
    }

    /// How often there was no buffer.
    #[must_use]
    pub fn exhausted(&self) -> u64 {
        self.0.borrow().exhausted
    }

    /// Bytes of all buffers that were made.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let shelves = self.0.borrow();
        shelves.small.made * SMALL_BYTES + shelves.large.made * LARGE_BYTES
    }

    /// Buffers that are in use, of either size.
    #[must_use]
    pub fn in_use(&self) -> usize {
        let shelves = self.0.borrow();
        [&shelves.small, &shelves.large].iter().map(|shelf| shelf.made - shelf.free.len()).sum()
    }
}

impl Shelves {
    fn take(&mut self, bytes: usize) -> Option<Rc<Buffer>> {
        let (shelf, size, limit) = if bytes <= SMALL_BYTES {
            (&mut self.small, SMALL_BYTES, self.limits.small)
        } else if bytes <= LARGE_BYTES {
            (&mut self.large, LARGE_BYTES, self.limits.large)
        } else {
            return None;
        };
        let mut buffer = match shelf.free.pop() {
            Some(buffer) => buffer,
            None if shelf.made < limit => shelf.make(size, self.may_grow)?,
            None => return None,
        };
        let fields = Rc::get_mut(&mut buffer)?;
        fields.length = bytes;
        fields.offload = Offload::default();
        Some(buffer)
    }
}

impl Shelf {
    /// A new buffer, and room for it among the free ones; none when the heap has not so much left, or no more than that.
    fn make(&mut self, size: usize, may_grow: fn() -> bool) -> Option<Rc<Buffer>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).ok()?;
        bytes.resize(size, 0);
        self.free.try_reserve(self.made + 1).ok()?;
        if !may_grow() {
            return None;
        }
        self.made += 1;
        Some(Rc::new(Buffer { bytes: bytes.into_boxed_slice(), length: 0, offload: Offload::default() }))
    }

    fn shrink_to(&mut self, limit: usize) {
        while self.made > limit && self.free.pop().is_some() {
            self.made -= 1;
        }
    }
}

/// A frame that is being written. What is not written of it holds bytes of an earlier frame, so all of it must be.
pub struct Blank(Frame);

impl Blank {
    /// Its bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let buffer = self.0.buffer.as_mut().and_then(Rc::get_mut);
        buffer.and_then(|buffer| buffer.bytes.get_mut(..buffer.length)).unwrap_or_default()
    }

    /// Its bytes, to read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The frame, of which `offload` is left to do.
    #[must_use]
    pub fn finish(mut self, offload: Offload) -> Frame {
        if let Some(buffer) = self.0.buffer.as_mut().and_then(Rc::get_mut) {
            buffer.offload = offload;
        }
        self.0
    }
}

/// A frame. Clones share its bytes; with the last one they go back to the pool.
#[derive(Clone)]
pub struct Frame {
    buffer: Option<Rc<Buffer>>,
    pool: FramePool,
}

impl Frame {
    /// Its bytes, from the destination address on, without check sequence.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().and_then(|buffer| buffer.bytes.get(..buffer.length)).unwrap_or_default()
    }

    /// What its sender left to the receiver.
    #[must_use]
    pub fn offload(&self) -> Offload {
        self.buffer.as_ref().map(|buffer| buffer.offload).unwrap_or_default()
    }

    /// Whether it takes a large buffer.
    #[must_use]
    pub fn is_large(&self) -> bool {
        is_large(self.bytes().len())
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else { return };
        if Rc::strong_count(&buffer) == 1 {
            let Shelves { limits, small, large, .. } = &mut *self.pool.0.borrow_mut();
            let (shelf, limit) =
                if buffer.bytes.len() == SMALL_BYTES { (small, limits.small) } else { (large, limits.large) };
            // There is room: `make` saw to it.
            shelf.free.push(buffer);
            shelf.shrink_to(limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn pool() -> FramePool {
        FramePool::new(PoolLimits { small: 2, large: 1 })
    }

    #[test]
    fn a_buffer_goes_back_with_the_last_clone_of_its_frame() {
        let pool = pool();
        let frame = pool.blank(60).map(|blank| blank.finish(Offload::default()));
        let clone = frame.clone();
        drop(frame);
        assert_eq!(pool.in_use(), 1);
        drop(clone);
        assert_eq!((pool.in_use(), pool.bytes()), (0, SMALL_BYTES));
    }

    #[test]
    fn there_are_no_more_buffers_than_allowed() {
        let pool = pool();
        let held: Vec<_> = (0..3).map(|_| pool.blank(1514)).collect();
        assert_eq!(held.iter().flatten().count(), 2);
        assert!(pool.blank(FRAME_BYTES_MAX).is_some());
        assert!(pool.blank(FRAME_BYTES_MAX + 64).is_none());
        assert_eq!(pool.exhausted(), 2);
    }

    #[test]
    fn the_pool_does_not_take_what_others_need() {
        let pool = pool();
        drop(pool.blank(60));
        pool.set_may_grow(|| false);
        let held = pool.blank(60);
        assert!(held.is_some() && pool.blank(60).is_none() && pool.blank(FRAME_BYTES_MAX).is_none());
        assert_eq!((pool.in_use(), pool.bytes(), pool.exhausted()), (1, SMALL_BYTES, 2));
    }

    #[test]
    fn the_pool_shrinks_as_buffers_come_back() {
        let pool = pool();
        let (one, other) = (pool.blank(60), pool.blank(60));
        drop(pool.blank(FRAME_BYTES_MAX));
        drop(one);
        pool.set_limits(PoolLimits { small: 0, large: 0 });
        assert_eq!((pool.in_use(), pool.bytes()), (1, SMALL_BYTES));
        drop(other);
        assert_eq!((pool.in_use(), pool.bytes()), (0, 0));
        assert!(pool.blank(60).is_none());
    }

    #[test]
    fn idle_buffers_go_back_to_the_heap_when_asked() {
        let pool = pool();
        let (one, other) = (pool.blank(60), pool.blank(60));
        drop(one);
        pool.release_idle();
        assert_eq!((pool.in_use(), pool.bytes()), (1, SMALL_BYTES));
        assert!(pool.blank(60).is_some(), "it may grow again");
        drop(other);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn a_frame_is_as_long_as_asked_for_and_asks_nothing() {
        let pool = pool();
        let mut blank = pool.blank(3).unwrap();
        blank.bytes_mut().copy_from_slice(b"abc");
        let frame = blank.finish(Offload::default());
        assert_eq!((frame.bytes(), frame.offload()), (&b"abc"[..], Offload::default()));
    }
}
