//! Tests of a server that is absent, broken or hostile.

use super::*;
use core::pin::pin;
use proptest::prelude::*;

#[test]
fn reply_that_nobody_asked_for_is_ignored() {
    let bed = Bed::new();
    bed.server_does(|fake| fake.send(2, 0xdead, b"x"));
    bed.settle();
    assert_eq!(bed.run(bed.store.read("nothing")), Err(StoreError::NotFound));
}

#[test]
fn reply_of_another_kind_is_a_protocol_error_of_that_request_alone() {
    let bed = Bed::new();
    bed.fake.borrow_mut().holding = true;
    let mut read = pin!(bed.store.read("a"));
    assert!(poll_once(read.as_mut()).is_pending());
    bed.settle();
    let id = bed.fake.borrow().held[0].id;
    bed.server_does(|fake| fake.send(1, id, b"x\0"));
    bed.settle();
    assert_eq!(poll_once(read), Poll::Ready(Err(StoreError::Protocol)));
    bed.server_does(|fake| {
        fake.held.clear();
        fake.holding = false;
    });
    assert_eq!(bed.run(bed.store.read("a")), Err(StoreError::NotFound));
}

#[test]
fn index_that_lies_ends_the_connection_and_tells_everybody() {
    let bed = Bed::new();
    let mut read = pin!(bed.store.read("a"));
    let mut event = pin!(bed.store.next_event());
    assert!(poll_once(read.as_mut()).is_pending());
    assert!(poll_once(event.as_mut()).is_pending());
    bed.page.reply_producer.store(1025, Ordering::Relaxed);
    bed.store.pump();
    assert_eq!(poll_once(read), Poll::Ready(Err(StoreError::Disconnected)));
    assert_eq!(poll_once(event), Poll::Ready(Err(StoreError::Disconnected)));
    assert_eq!(poll_once(pin!(bed.store.read("b"))), Poll::Ready(Err(StoreError::Disconnected)));
}

#[test]
fn reply_that_came_before_the_connection_broke_is_kept() {
    let bed = Bed::new();
    let mut read = pin!(bed.store.read("nothing"));
    assert!(poll_once(read.as_mut()).is_pending());
    bed.settle();
    bed.page.reply_producer.fetch_add(1025, Ordering::Relaxed);
    bed.store.pump();
    assert_eq!(poll_once(read), Poll::Ready(Err(StoreError::NotFound)));
}

#[test]
fn broken_connection_frees_the_slots_nobody_waits_for() {
    let bed = Bed::new();
    {
        let mut read = Box::pin(bed.store.read("a"));
        assert!(poll_once(read.as_mut()).is_pending());
    }
    bed.page.reply_producer.store(1025, Ordering::Relaxed);
    bed.store.pump();
    assert_eq!(bed.slots_in_use(), 0);
}

#[test]
fn request_index_that_lies_ends_the_connection() {
    let bed = Bed::new();
    bed.page.request_consumer.store(1, Ordering::Relaxed);
    assert_eq!(poll_once(pin!(bed.store.read("b"))), Poll::Ready(Err(StoreError::Disconnected)));
}

#[test]
fn length_that_lies_ends_the_connection() {
    let bed = Bed::new();
    bed.server_does(|fake| fake.send(2, 1, &[0; 4097]));
    bed.turn();
    assert_eq!(bed.run(bed.store.read("b")), Err(StoreError::Disconnected));
}

#[test]
fn error_that_the_server_reports_ends_the_connection() {
    let bed = Bed::new();
    bed.page.server_features.store(2, Ordering::Relaxed);
    bed.page.error.store(3, Ordering::Relaxed);
    assert_eq!(bed.run(bed.store.read("b")), Err(StoreError::Disconnected));
}

#[test]
fn nothing_is_sent_before_the_server_is_there() {
    let bed = Bed::new();
    bed.page.connection.store(1, Ordering::Relaxed);
    let mut read = pin!(bed.store.read("nothing"));
    assert!(poll_once(read.as_mut()).is_pending());
    assert!(!bed.server_notified.get());
    bed.page.connection.store(0, Ordering::Relaxed);
    bed.store.pump();
    assert_eq!(bed.run(read), Err(StoreError::NotFound));
}

#[test]
fn replies_for_a_former_user_of_the_ring_are_dropped() {
    let page = page_starting_at(5);
    let mut fake = Fake::new(page);
    fake.send(2, 1, b"stale");
    fake.serve();
    let store = Store::new(Ring::new(page), || ());
    let mut read = pin!(store.read("nothing"));
    assert!(poll_once(read.as_mut()).is_pending());
    fake.serve();
    store.pump();
    assert_eq!(poll_once(read), Poll::Ready(Err(StoreError::NotFound)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_from_the_server_never_panic(pieces: Vec<Vec<u8>>) {
        let bed = Bed::new();
        let mut read = pin!(bed.store.read("a"));
        let _ = poll_once(read.as_mut());
        for piece in pieces {
            let page = bed.page;
            let replies = byte_ring::ByteRing::new(&page.replies, &page.reply_consumer, &page.reply_producer);
            let _ = replies.produce(&piece);
            bed.store.pump();
        }
        let _ = (poll_once(read), poll_once(pin!(bed.store.next_event())));
    }

    #[test]
    fn messages_of_any_kind_from_the_server_never_panic(
        messages in proptest::collection::vec((0u32..24, 0u32..4, any::<Vec<u8>>()), 0..20),
    ) {
        let bed = Bed::new();
        let mut read = pin!(bed.store.read("a"));
        let mut begin = Box::pin(bed.store.begin());
        let _ = (poll_once(read.as_mut()), poll_once(begin.as_mut()));
        bed.fake.borrow_mut().holding = true;
        bed.server_does(|fake| {
            messages.iter().for_each(|(kind, id, payload)| fake.send(*kind, *id, payload));
        });
        bed.settle();
        let _ = (poll_once(read), poll_once(begin.as_mut()), poll_once(pin!(bed.store.next_event())));
    }
}
