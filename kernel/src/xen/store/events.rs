//! Watch events on their way to whoever waits for them, in bounded memory.
//!
//! Whoever may write to a watched node can cause events at will, so the queue must not grow with them (the
//! lesson of XSA-349): an event that is queued already is not queued again, and when there is no room for one,
//! all of them become a single [`WatchEvent::Rescan`].
//!
//! Neighbours: [`super::client`] fills it, [`super::Store::next_event`] empties it.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Events that are kept at most.
const EVENTS_MAX: usize = 128;
/// Bytes of paths and tokens that are kept at most.
const EVENT_BYTES_MAX: usize = 16 * 1024;

/// News of a watched node. An event may be spurious: always look what is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The node at `path` or its children appeared, changed or went; or the watch is new, which fires it once.
    Changed {
        /// As the server wrote it: relative to this domain's directory when the watch was.
        path: String,
        /// What [`super::Store::watch`] was given.
        token: String,
    },
    /// Events were lost: anything under any watch may have changed.
    Rescan,
}

/// Events not taken yet, oldest first.
#[derive(Default)]
pub struct EventQueue {
    events: VecDeque<(String, String)>,
    bytes: usize,
    /// A rescan is due, and covers every event until it is taken.
    rescan: bool,
}

impl EventQueue {
    /// Adds an event.
    pub fn push(&mut self, path: String, token: String) {
        let event = (path, token);
        if self.rescan || self.events.contains(&event) {
            return;
        }
        let bytes = self.bytes + event.0.len() + event.1.len();
        if self.events.len() >= EVENTS_MAX || bytes > EVENT_BYTES_MAX {
            log::warn!("xenstore: too many watch events, everything will be scanned again");
            self.demand_rescan();
            return;
        }
        self.bytes = bytes;
        self.events.push_back(event);
    }

    /// Puts a rescan in the place of all events.
    pub fn demand_rescan(&mut self) {
        self.clear();
        self.rescan = true;
    }

    /// Takes the oldest event.
    pub fn pop(&mut self) -> Option<WatchEvent> {
        if core::mem::take(&mut self.rescan) {
            return Some(WatchEvent::Rescan);
        }
        let (path, token) = self.events.pop_front()?;
        self.bytes = self.bytes.saturating_sub(path.len() + token.len());
        Some(WatchEvent::Changed { path, token })
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn changed(path: &str, token: &str) -> Option<WatchEvent> {
        Some(WatchEvent::Changed { path: path.into(), token: token.into() })
    }

    fn queue_of(count: usize) -> EventQueue {
        let mut queue = EventQueue::default();
        (0..count).for_each(|n| queue.push(format!("backend/{n}"), "t".into()));
        queue
    }

    #[test]
    fn events_come_in_order() {
        let mut queue = queue_of(2);
        assert_eq!(queue.pop(), changed("backend/0", "t"));
        assert_eq!(queue.pop(), changed("backend/1", "t"));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn event_still_queued_is_not_queued_twice() {
        let mut queue = queue_of(1);
        queue.push("backend/0".into(), "t".into());
        queue.push("backend/0".into(), "other".into());
        assert_eq!(queue.pop(), changed("backend/0", "t"));
        assert_eq!(queue.pop(), changed("backend/0", "other"));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn event_taken_can_be_queued_again() {
        let mut queue = queue_of(1);
        queue.pop();
        queue.push("backend/0".into(), "t".into());
        assert_eq!(queue.pop(), changed("backend/0", "t"));
    }

    #[test]
    fn too_many_events_become_one_rescan() {
        let mut queue = queue_of(EVENTS_MAX + 10);
        assert_eq!(queue.pop(), Some(WatchEvent::Rescan));
        assert_eq!(queue.pop(), None);
        queue.push("after".into(), "t".into());
        assert_eq!(queue.pop(), changed("after", "t"));
    }

    #[test]
    fn too_many_bytes_become_one_rescan() {
        let mut queue = EventQueue::default();
        (0..6).for_each(|n| queue.push(format!("{n}{}", "x".repeat(3000)), "t".into()));
        assert_eq!(queue.pop(), Some(WatchEvent::Rescan));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn full_queue_has_no_rescan() {
        assert_eq!(queue_of(EVENTS_MAX).pop(), changed("backend/0", "t"));
    }
}
