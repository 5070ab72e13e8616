//! Tests of the console ring against a reader made of the same page.

use super::*;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::Ordering;
use proptest::prelude::*;

fn page_starting_at(index: u32) -> &'static ConsolePage {
    Box::leak(Box::new(ConsolePage {
        input: core::array::from_fn(|_| AtomicU8::new(0)),
        output: core::array::from_fn(|_| AtomicU8::new(0)),
        input_consumer: AtomicU32::new(0),
        input_producer: AtomicU32::new(0),
        output_consumer: AtomicU32::new(index),
        output_producer: AtomicU32::new(index),
    }))
}

/// What the console daemon sees, `most` bytes at most.
fn read(page: &ConsolePage, most: usize) -> String {
    let mut bytes = alloc::vec![0; most];
    let ring = ByteRing::new(&page.output, &page.output_consumer, &page.output_producer);
    let count = ring.consume(&mut bytes).unwrap();
    bytes.truncate(count);
    String::from_utf8(bytes).unwrap()
}

/// What the daemon sees when it reads until nothing comes any more.
fn drain<Notify: Fn()>(page: &ConsolePage, console: &mut ConsoleRing<Notify>) -> String {
    let mut all = String::new();
    loop {
        let piece = read(page, OUTPUT_BYTES);
        if piece.is_empty() {
            return all;
        }
        all.push_str(&piece);
        console.pump();
    }
}

#[test]
fn bytes_written_are_read_and_notified_once() {
    let page = page_starting_at(u32::MAX - 3);
    let notified = Cell::new(0);
    let mut console = ConsoleRing::new(page, || notified.set(notified.get() + 1));
    console.write(b"hello\n");
    assert_eq!(read(page, 99), "hello\n");
    assert_eq!(notified.get(), 1);
}

#[test]
fn text_gets_carriage_returns_and_one_notification() {
    let page = page_starting_at(0);
    let notified = Cell::new(0);
    let mut console = ConsoleRing::new(page, || notified.set(notified.get() + 1));
    console.write_str("one\ntwo\n\nthree").unwrap();
    assert_eq!(read(page, 99), "one\r\ntwo\r\n\r\nthree");
    assert_eq!(notified.get(), 1);
}

#[test]
fn nothing_moved_is_not_notified() {
    let page = page_starting_at(0);
    let notified = Cell::new(0);
    let mut console = ConsoleRing::new(page, || notified.set(notified.get() + 1));
    console.write(b"");
    console.pump();
    assert_eq!(notified.get(), 0);
}

#[test]
fn what_does_not_fit_the_ring_comes_later_and_in_order() {
    let page = page_starting_at(77);
    let mut console = ConsoleRing::new(page, || ());
    let text: String = (0..1000).map(|n| alloc::format!("{n:05} ")).collect();
    console.write(&text.as_bytes()[..5000]);
    console.write(&text.as_bytes()[5000..]);
    assert_eq!(drain(page, &mut console), text);
}

#[test]
fn lost_bytes_are_counted_and_told() {
    let page = page_starting_at(0);
    let mut console = ConsoleRing::new(page, || ());
    console.write(&[b'a'; OUTPUT_BYTES + BACKLOG_BYTES + 10]);
    console.write(b"also lost");
    let seen = drain(page, &mut console);
    let (kept, note) = seen.split_at(OUTPUT_BYTES + BACKLOG_BYTES);
    assert!(kept.bytes().all(|byte| byte == b'a'));
    assert_eq!(note, "\r\n[19 bytes lost]\r\n");
    console.write(b"heard again");
    assert_eq!(read(page, 99), "heard again");
}

#[test]
fn nothing_is_said_between_a_loss_and_its_note() {
    let page = page_starting_at(0);
    let mut console = ConsoleRing::new(page, || ());
    console.write(&[b'a'; OUTPUT_BYTES + BACKLOG_BYTES + 1]);
    read(page, 100);
    console.write(b"bbb");
    let seen = drain(page, &mut console);
    assert!(seen.ends_with("a\r\n[4 bytes lost]\r\n"));
}

#[test]
fn index_that_lies_looks_like_a_full_ring() {
    let page = page_starting_at(0);
    page.output_consumer.store(1, Ordering::Relaxed);
    let mut console = ConsoleRing::new(page, || ());
    console.write(b"kept");
    page.output_consumer.store(0, Ordering::Relaxed);
    console.pump();
    assert_eq!(read(page, 99), "kept");
}

#[test]
fn blocking_write_gives_up_when_nobody_reads() {
    let page = page_starting_at(0);
    let mut console = ConsoleRing::new(page, || ());
    assert_eq!(console.write_blocking_bounded(&[b'a'; OUTPUT_BYTES], 10), 10);
    assert_eq!(console.write_blocking_bounded(b"panicked", 10), 0);
    assert_eq!(drain(page, &mut console).len(), OUTPUT_BYTES + 8);
}

#[test]
fn second_writer_on_the_page_goes_on_where_the_first_was() {
    let page = page_starting_at(0);
    ConsoleRing::new(page, || ()).write(b"first ");
    ConsoleRing::new(page, || ()).write(b"second");
    assert_eq!(read(page, 99), "first second");
}

proptest! {
    #[test]
    fn nothing_is_lost_without_a_note(
        start: u32,
        steps in proptest::collection::vec((0usize..3000, 0usize..3000), 0..20),
    ) {
        let page = page_starting_at(start);
        let mut console = ConsoleRing::new(page, || ());
        let (mut written, mut seen) = (0, String::new());
        for (write, take) in steps {
            console.write(&alloc::vec![b'x'; write]);
            written += write;
            seen.push_str(&read(page, take));
        }
        console.pump();
        seen.push_str(&drain(page, &mut console));
        let kept = seen.bytes().filter(|&byte| byte == b'x').count();
        let numbers = seen.split(|c: char| !c.is_ascii_digit());
        let lost: usize = numbers.filter_map(|number| number.parse::<usize>().ok()).sum();
        prop_assert_eq!(kept + lost, written);
    }

    #[test]
    fn any_indices_never_panic(consumer: u32, producer: u32, bytes: Vec<u8>) {
        let page = page_starting_at(consumer);
        page.output_producer.store(producer, Ordering::Relaxed);
        let mut console = ConsoleRing::new(page, || ());
        console.write(&bytes);
        console.write_blocking_bounded(&bytes, 3);
        console.pump();
    }
}
