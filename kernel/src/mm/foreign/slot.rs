//! What the pager knows of a slot, beside the page that the window has there: three words.

/// The end of a chain, and a ring of nothing.
pub const NONE: u32 = u32::MAX;

const LISTED: u32 = 1 << 31;
const REFERENCED: u32 = 1 << 30;
const SHOWN: u32 = 1 << 29;
const WAS_LISTED: u32 = 1 << 28;
const PINS: u32 = WAS_LISTED - 1;

/// A slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The next one of the same hash while it is listed; of the empty ones while it holds nothing.
    pub next: u32,
    /// The next one of the same guest.
    pub ring: u32,
    /// Flags and, in the low bits, the number of users of the page right now.
    state: u32,
}

impl Default for Slot {
    fn default() -> Self {
        Self { next: NONE, ring: NONE, state: 0 }
    }
}

impl Slot {
    /// Somebody uses the page right now.
    pub fn is_pinned(&self) -> bool {
        self.state & PINS != 0
    }

    /// One user more. It counts as used lately.
    pub fn pin(&mut self) {
        self.state = (self.state | REFERENCED) + 1;
    }

    /// One user less.
    pub fn unpin(&mut self) {
        if self.is_pinned() {
            self.state -= 1;
        }
    }

    /// The page can be found.
    pub fn is_listed(&self) -> bool {
        self.state & LISTED != 0
    }

    /// Neither pinned nor found: it holds what its guest has given back.
    pub fn is_stale(&self) -> bool {
        !self.is_pinned() && !self.is_listed()
    }

    pub fn set_listed(&mut self, listed: bool) {
        self.set(LISTED, listed);
    }

    /// The page could be found before the move that is under way.
    pub fn was_listed(&self) -> bool {
        self.state & WAS_LISTED != 0
    }

    pub fn set_was_listed(&mut self, listed: bool) {
        self.set(WAS_LISTED, listed);
    }

    /// The page is perhaps to be seen in a view. Only while it is referenced, too.
    pub fn is_shown(&self) -> bool {
        self.state & SHOWN != 0
    }

    pub fn set_shown(&mut self, shown: bool) {
        self.set(SHOWN, shown);
    }

    /// It was used since the hand last passed.
    pub fn is_referenced(&self) -> bool {
        self.state & REFERENCED != 0
    }

    /// Says that it was used since the hand last passed, and that the hand passes now.
    pub fn take_referenced(&mut self) -> bool {
        let referenced = self.is_referenced();
        self.state &= !REFERENCED;
        referenced
    }

    /// It was used lately.
    pub fn reference(&mut self) {
        self.state |= REFERENCED;
    }

    fn set(&mut self, flag: u32, value: bool) {
        self.state = if value { self.state | flag } else { self.state & !flag };
    }
}
