//! Tests of what each call does to the tree, and of the ring under it.

use super::*;
use proptest::prelude::*;

#[test]
fn value_written_is_read_back() {
    let bed = Bed::new();
    assert_eq!(bed.run(bed.store.write("backend/vbd/state", "2")), Ok(()));
    assert_eq!(bed.run(bed.store.read("backend/vbd/state")), Ok("2".into()));
    assert_eq!(bed.run(bed.store.read("backend")), Ok("".into()));
    assert_eq!(bed.slots_in_use(), 0);
}

#[test]
fn missing_node_is_not_found() {
    let bed = Bed::new();
    assert_eq!(bed.run(bed.store.read("nothing")), Err(StoreError::NotFound));
    assert_eq!(bed.run(bed.store.directory("nothing")), Err(StoreError::NotFound));
}

#[test]
fn value_that_is_not_utf8_is_invalid() {
    let bed = Bed::new();
    bed.fake.borrow_mut().tree.insert(format!("{HOME}odd"), b"\xff".to_vec());
    assert_eq!(bed.run(bed.store.read("odd")), Err(StoreError::Invalid));
}

#[test]
fn message_too_long_is_never_sent() {
    let bed = Bed::new();
    assert_eq!(bed.run(bed.store.write("a", &"v".repeat(4095))), Err(StoreError::TooLong));
    assert!(!bed.server_notified.get());
    assert_eq!(bed.slots_in_use(), 0);
}

#[test]
fn longest_message_crosses_a_ring_a_quarter_its_size() {
    let bed = Bed::starting_at(u32::MAX - 1500);
    let value = "v".repeat(4094);
    assert_eq!(bed.run(bed.store.write("a", &value)), Ok(()));
    assert_eq!(bed.run(bed.store.read("a")), Ok(value));
}

#[test]
fn messages_wrap_around_at_every_offset() {
    for offset in 0..1024 {
        let bed = Bed::starting_at(0u32.wrapping_sub(offset));
        assert_eq!(
            bed.run(bed.store.write("a/b", "value of a few dozen bytes, to be cut somewhere")),
            Ok(())
        );
        assert_eq!(
            bed.run(bed.store.read("a/b")).as_deref(),
            Ok("value of a few dozen bytes, to be cut somewhere")
        );
    }
}

#[test]
fn messages_may_come_byte_by_byte() {
    let bed = Bed::new();
    bed.fake.borrow_mut().chunk = 1;
    assert_eq!(bed.run(bed.store.write("a", "value")), Ok(()));
    assert_eq!(bed.run(bed.store.read("a")), Ok("value".into()));
}

#[test]
fn directory_lists_children() {
    let bed = Bed::new();
    bed.run(bed.store.write("backend/virtio_disk/3/51712/state", "1")).unwrap();
    bed.run(bed.store.write("backend/virtio/3/0", "")).unwrap();
    assert_eq!(bed.run(bed.store.directory("backend")).unwrap(), ["virtio", "virtio_disk"]);
    assert!(bed.run(bed.store.directory("backend/virtio/3/0")).unwrap().is_empty());
}

#[test]
fn directory_too_long_for_a_message_comes_in_parts() {
    let bed = Bed::new();
    let names = bed.fill("many", 1000);
    assert_eq!(bed.run(bed.store.directory("many")).unwrap(), names);
}

#[test]
fn directory_that_changes_between_parts_is_read_again() {
    let bed = Bed::new();
    bed.fill("many", 600);
    bed.fake.borrow_mut().growing_parts = 2;
    let list = bed.run(bed.store.directory("many")).unwrap();
    assert_eq!(list.len(), 602);
    assert_eq!(list[..2], ["a-new-one-0", "a-new-one-1"]);
}

#[test]
fn directory_that_changes_all_the_time_is_given_up() {
    let bed = Bed::new();
    bed.fill("many", 600);
    bed.fake.borrow_mut().growing_parts = u32::MAX;
    assert_eq!(bed.run(bed.store.directory("many")), Err(StoreError::Again));
}

#[test]
fn directory_without_end_is_given_up() {
    let bed = Bed::new();
    bed.fill("many", 4000);
    assert_eq!(bed.run(bed.store.directory("many")), Err(StoreError::TooLong));
}

#[test]
fn removing_takes_everything_below() {
    let bed = Bed::new();
    bed.run(bed.store.write("a/b/c", "1")).unwrap();
    assert_eq!(bed.run(bed.store.remove("a/b")), Ok(()));
    assert_eq!(bed.value("a/b/c"), None);
    assert_eq!(bed.value("a"), Some("".into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn values_survive_any_start_and_any_chunking(start: u32, chunk in 1usize..1024, values: Vec<String>) {
        let bed = Bed::starting_at(start);
        bed.fake.borrow_mut().chunk = chunk;
        for value in values {
            bed.run(bed.store.write("a", &value)).unwrap();
            prop_assert_eq!(bed.run(bed.store.read("a")), Ok(value));
        }
    }
}
