//! Lives of this kernel, one after the other, on the same ring: wherever one ended, the next is understood.

use super::*;
use crate::restart::words::Word;

/// Bytes of a request that puts a value of so many bytes at a path of one letter.
const fn write_bytes(value: usize) -> usize {
    16 + 2 + value
}

const FILL: &str = "a";
const CUT: &str = "b";

/// A ring with xenstored behind it, and a life at this end.
fn first_life(start: u32) -> (Bed, &'static Word) {
    let note: &'static Word = Box::leak(Box::default());
    let page = page_starting_at(start);
    (life(page, RefCell::new(Fake::new(page)), note), note)
}

fn life(page: &'static RingPage, fake: RefCell<Fake>, note: &'static Word) -> Bed {
    let server_notified = Rc::new(Cell::new(false));
    let flag = server_notified.clone();
    let store = Store::new(Ring::new(page).noted_in(note), move || flag.set(true));
    // Whether it was notified by the life before cannot be known.
    server_notified.set(true);
    Bed { page, store, fake, server_notified }
}

/// The life of `bed` ends: nobody hears of it.
fn next_life(bed: Bed, note: &'static Word) -> Bed {
    let Bed { page, store, fake, .. } = bed;
    core::mem::forget(store);
    life(page, fake, note)
}

fn assert_understood(bed: &Bed) {
    assert_eq!(bed.run(bed.store.reset_watches()), Ok(()));
    assert_eq!(bed.run(bed.store.write("c", "new")), Ok(()));
    assert_eq!(bed.run(bed.store.read("c")).as_deref(), Ok("new"));
    assert_eq!(bed.run(bed.store.read("nothing")), Err(StoreError::NotFound));
    // So are as many requests at a time as ever.
    assert_eq!(bed.most_in_flight(), super::super::client::IN_FLIGHT_MAX);
}

/// What the toolstack would find that nobody wrote.
fn assert_only_known(bed: &Bed) {
    let fake = bed.fake.borrow();
    let is_known = |path: &&String| [FILL, CUT, "c"].iter().any(|name| **path == format!("{HOME}{name}"));
    let inner: Vec<_> = fake.tree.keys().filter(|path| path.starts_with(HOME)).collect();
    assert!(inner.iter().all(is_known), "{inner:?}");
}

#[test]
fn request_that_is_cut_anywhere_is_got_over() {
    let value = "v".repeat(40);
    let length = write_bytes(value.len());
    for room in 0..=length {
        // Close to the wrap of the indices, too.
        let (bed, note) = first_life(0_u32.wrapping_sub(1000));
        let fill = "f".repeat(super::super::ring::RING_BYTES - room - write_bytes(0));
        let (mut first, mut second) =
            (Box::pin(bed.store.write(FILL, &fill)), Box::pin(bed.store.write(CUT, &value)));
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        core::mem::forget((first, second));
        let bed = next_life(bed, note);
        assert_understood(&bed);
        assert_only_known(&bed);
        assert_eq!(bed.value(FILL), Some(fill), "room {room}");
        // Of a value that is cut the rest makes no sense; without its whole path nothing is written.
        let come = room.checked_sub(write_bytes(0)).map(|come| {
            let mut come = value.as_bytes()[..come].to_vec();
            come.resize(value.len(), 0xff);
            come
        });
        let fake = bed.fake.borrow();
        let found = fake.value(&format!("{HOME}{CUT}"));
        // What was not begun at all is never sent.
        assert_eq!(found, come.as_deref(), "room {room}");
    }
}

#[test]
fn reply_that_is_cut_anywhere_is_got_over() {
    let value = "v".repeat(40);
    let length = 16 + value.len();
    for come in 0..=length {
        for taken in [0, come / 2, come] {
            let (bed, note) = first_life(0_u32.wrapping_sub(30));
            bed.fake.borrow_mut().write(&format!("{HOME}{CUT}"), &value);
            bed.fake.borrow_mut().holding = true;
            let mut read = Box::pin(bed.store.read(CUT));
            assert!(poll_once(read.as_mut()).is_pending());
            bed.fake.borrow_mut().serve();
            bed.fake.borrow_mut().holding = false;
            bed.fake.borrow_mut().chunk = come;
            bed.fake.borrow_mut().serve();
            bed.fake.borrow_mut().chunk = super::super::ring::RING_BYTES;
            // The life took some of it.
            let mut some = alloc::vec![0; taken];
            assert_eq!(Ring::new(bed.page).receive(&mut some), Ok(taken));
            core::mem::forget(read);
            assert_understood(&next_life(bed, note));
        }
    }
}

#[test]
fn life_that_is_cut_again_and_again_is_got_over() {
    let (mut bed, note) = first_life(7);
    for room in [17, 30, 16, 0, 57] {
        let fill = "f".repeat(super::super::ring::RING_BYTES - room - write_bytes(0));
        bed.run(bed.store.reset_watches()).unwrap();
        let (mut first, mut second) = (
            Box::pin(bed.store.write(FILL, &fill)),
            Box::pin(bed.store.write(CUT, "fourty bytes that are cut somewhere")),
        );
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        core::mem::forget((first, second));
        // The next one has not come further than its first request, which waits for room.
        bed = next_life(bed, note);
        let mut reset = Box::pin(bed.store.reset_watches());
        assert!(poll_once(reset.as_mut()).is_pending());
        core::mem::forget(reset);
        bed = next_life(bed, note);
    }
    assert_understood(&bed);
    assert_only_known(&bed);
}

#[test]
fn watches_and_transactions_of_an_earlier_life_are_gone() {
    let (bed, note) = first_life(0);
    assert_eq!(bed.run(bed.store.watch("b", "token")), Ok(()));
    bed.server_does(|fake| fake.write(&format!("{HOME}b/x"), "1"));
    let bed = next_life(bed, note);
    assert_understood(&bed);
    bed.server_does(|fake| fake.write(&format!("{HOME}b/x"), "2"));
    bed.settle();
    assert!(poll_once(core::pin::pin!(bed.store.next_event())).is_pending());
}
