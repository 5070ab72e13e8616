//! Tests of watches and their events.

use super::*;
use core::pin::pin;

#[test]
fn watch_fires_at_once_and_for_everything_below() {
    let bed = Bed::new();
    bed.run(bed.store.watch("backend", "guests")).unwrap();
    assert_eq!(bed.next_event(), changed("backend", "guests"));
    bed.server_does(|fake| fake.write("/local/domain/7/backend/virtio/9/0/state", "1"));
    assert_eq!(bed.next_event(), changed("backend/virtio/9/0/state", "guests"));
}

#[test]
fn event_wakes_the_task_that_waits() {
    let bed = Bed::new();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut event = pin!(bed.store.next_event());
    assert!(event.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    bed.run(bed.store.watch("backend", "guests")).unwrap();
    bed.settle();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(poll_once(event), Poll::Ready(changed("backend", "guests")));
}

#[test]
fn flood_of_events_becomes_a_rescan() {
    let bed = Bed::new();
    bed.run(bed.store.watch("backend", "t")).unwrap();
    bed.server_does(|fake| (0..500).for_each(|n| fake.write(&format!("{HOME}backend/{n}"), "")));
    bed.settle();
    assert_eq!(bed.next_event(), Ok(WatchEvent::Rescan));
}

#[test]
fn reset_ends_watches_and_forgets_their_events() {
    let bed = Bed::new();
    bed.run(bed.store.watch("backend", "t")).unwrap();
    bed.settle();
    bed.run(bed.store.reset_watches()).unwrap();
    bed.server_does(|fake| fake.write(&format!("{HOME}backend/x"), "1"));
    bed.settle();
    assert!(poll_once(pin!(bed.store.next_event())).is_pending());
}

#[test]
fn event_that_makes_no_sense_becomes_a_rescan() {
    let bed = Bed::new();
    bed.server_does(|fake| fake.send(15, 0, b"no end"));
    assert_eq!(bed.next_event(), Ok(WatchEvent::Rescan));
}
