//! Tests of requests in flight: slots, numbers, limits, wakers.

use super::*;
use core::pin::pin;

#[test]
fn reply_wakes_the_task_that_waits() {
    let bed = Bed::new();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut read = pin!(bed.store.read("nothing"));
    assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    bed.settle();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(poll_once(read), Poll::Ready(Err(StoreError::NotFound)));
}

#[test]
fn dropped_futures_leave_no_slot() {
    let bed = Bed::new();
    for _ in 0..100 {
        let mut read = Box::pin(bed.store.read("nothing"));
        assert!(poll_once(read.as_mut()).is_pending());
    }
    bed.settle();
    assert_eq!(bed.slots_in_use(), 0);
}

#[test]
fn future_dropped_with_its_reply_there_leaves_no_slot() {
    let bed = Bed::new();
    {
        let mut read = Box::pin(bed.store.read("nothing"));
        assert!(poll_once(read.as_mut()).is_pending());
        bed.settle();
        assert_eq!(bed.slots_in_use(), 1);
    }
    assert_eq!(bed.slots_in_use(), 0);
}

#[test]
fn requests_beyond_the_limit_wait_for_their_turn() {
    let bed = Bed::new();
    assert_eq!(bed.most_in_flight(), client::IN_FLIGHT_MAX);
    assert_eq!(bed.most_in_flight(), client::IN_FLIGHT_MAX);
}

#[test]
fn replies_may_come_in_any_order() {
    let bed = Bed::new();
    bed.fake.borrow_mut().holding = true;
    let (mut first, mut second) = (pin!(bed.store.read("a")), pin!(bed.store.read("b")));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    bed.settle();
    let ids: Vec<u32> = bed.fake.borrow().held.iter().map(|request| request.id).collect();
    bed.server_does(|fake| {
        fake.send(2, ids[1], b"of b");
        fake.send(2, ids[0], b"of a");
    });
    bed.settle();
    assert_eq!(poll_once(first), Poll::Ready(Ok("of a".into())));
    assert_eq!(poll_once(second), Poll::Ready(Ok("of b".into())));
}

#[test]
fn request_numbers_wrap_around_past_zero_and_past_those_in_use() {
    let bed = Bed::new();
    bed.fake.borrow_mut().holding = true;
    let mut first = pin!(bed.store.read("a"));
    assert!(poll_once(first.as_mut()).is_pending());
    bed.store.with(|connection| connection.start_ids_at(u32::MAX));
    let mut second = pin!(bed.store.read("b"));
    assert!(poll_once(second.as_mut()).is_pending());
    bed.settle();
    let ids: Vec<u32> = bed.fake.borrow().held.iter().map(|request| request.id).collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn notify_may_call_the_store() {
    let slot: Rc<RefCell<Option<Store>>> = Rc::default();
    let inner = slot.clone();
    let store = Store::new(Ring::new(page_starting_at(0)), move || {
        inner.borrow().as_ref().into_iter().for_each(Store::pump);
    });
    *slot.borrow_mut() = Some(store.clone());
    assert!(poll_once(pin!(store.read("a"))).is_pending());
}

#[test]
fn requests_made_while_the_ring_is_full_go_when_there_is_room() {
    let bed = Bed::new();
    // 16 bytes of header and "a" with its NUL: all of the ring.
    let value = "v".repeat(1024 - 16 - 2);
    let mut writes: Vec<_> = (0..40).map(|_| Box::pin(bed.store.write("a", &value))).collect();
    assert!(writes.iter_mut().all(|write| poll_once(write.as_mut()).is_pending()));
    bed.settle();
    assert!(writes.iter_mut().all(|write| poll_once(write.as_mut()) == Poll::Ready(Ok(()))));
    assert_eq!(bed.most_in_flight(), client::IN_FLIGHT_MAX);
}

#[test]
fn reply_ahead_of_its_request_is_ignored() {
    let bed = Bed::new();
    bed.fake.borrow_mut().holding = true;
    let mut reads: Vec<_> =
        (0..client::IN_FLIGHT_MAX + 2).map(|_| Box::pin(bed.store.read("nothing"))).collect();
    assert!(reads.iter_mut().all(|read| poll_once(read.as_mut()).is_pending()));
    bed.settle();
    let unsent = bed.fake.borrow().held.last().unwrap().id + 2;
    bed.server_does(|fake| fake.send(2, unsent, b"guessed"));
    bed.settle();
    assert!(reads.iter_mut().all(|read| poll_once(read.as_mut()).is_pending()));
    bed.server_does(|fake| fake.holding = false);
    bed.settle();
    assert!(reads.iter_mut().all(|read| poll_once(read.as_mut()) == Poll::Ready(Err(StoreError::NotFound))));
}
