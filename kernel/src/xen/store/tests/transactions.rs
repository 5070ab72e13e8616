//! Tests of transactions: all or nothing, none left open.

use super::*;
use alloc::string::ToString;

#[test]
fn transaction_happens_all_at_once() {
    let bed = Bed::new();
    let transaction = bed.run(bed.store.begin()).unwrap();
    bed.run(transaction.write("a", "1")).unwrap();
    bed.run(transaction.write("b/c", "2")).unwrap();
    assert_eq!(bed.run(transaction.read("a")), Ok("1".into()));
    assert_eq!(bed.run(transaction.directory("b")).unwrap(), ["c"]);
    bed.run(transaction.remove("b")).unwrap();
    assert_eq!(bed.value("a"), None);
    assert_eq!(bed.run(transaction.commit()), Ok(()));
    assert_eq!((bed.value("a"), bed.value("b/c")), (Some("1".into()), None));
    assert_eq!(bed.fake.borrow().open_transactions(), 0);
}

#[test]
fn transaction_dropped_is_aborted() {
    let bed = Bed::new();
    let transaction = bed.run(bed.store.begin()).unwrap();
    bed.run(transaction.write("a", "1")).unwrap();
    drop(transaction);
    bed.settle();
    assert_eq!(bed.fake.borrow().open_transactions(), 0);
    assert_eq!(bed.value("a"), None);
    assert_eq!(bed.slots_in_use(), 0);
}

#[test]
fn transaction_whose_beginner_went_is_aborted() {
    let bed = Bed::new();
    {
        let mut begin = Box::pin(bed.store.begin());
        assert!(poll_once(begin.as_mut()).is_pending());
    }
    bed.settle();
    assert_eq!(bed.fake.borrow().open_transactions(), 0);
    assert_eq!(bed.slots_in_use(), 0);
}

#[test]
fn transaction_answered_to_nobody_is_aborted() {
    let bed = Bed::new();
    {
        let mut begin = Box::pin(bed.store.begin());
        assert!(poll_once(begin.as_mut()).is_pending());
        bed.settle();
        assert_eq!(bed.fake.borrow().open_transactions(), 1);
    }
    bed.settle();
    assert_eq!(bed.fake.borrow().open_transactions(), 0);
}

#[test]
fn commit_that_nobody_waits_for_is_no_abort() {
    let bed = Bed::new();
    let transaction = bed.run(bed.store.begin()).unwrap();
    bed.run(transaction.write("a", "1")).unwrap();
    {
        let mut commit = Box::pin(transaction.commit());
        assert!(poll_once(commit.as_mut()).is_pending());
    }
    bed.settle();
    assert_eq!(bed.value("a"), Some("1".into()));
    assert_eq!(bed.fake.borrow().ends_refused, 0);
    assert_eq!(bed.slots_in_use(), 0);
}

#[test]
fn transaction_starts_over_after_conflicts() {
    let bed = Bed::new();
    bed.fake.borrow_mut().conflicts = 3;
    let runs = Cell::new(0);
    let result = bed.run(bed.store.transaction(async |transaction| {
        runs.set(runs.get() + 1);
        transaction.write("a", &runs.get().to_string()).await?;
        Ok(runs.get())
    }));
    assert_eq!(result, Ok(4));
    assert_eq!(bed.value("a"), Some("4".into()));
}

#[test]
fn transaction_that_always_meets_conflicts_is_given_up() {
    let bed = Bed::new();
    bed.fake.borrow_mut().conflicts = u32::MAX;
    assert_eq!(bed.run(bed.store.transaction(async |_| Ok(()))), Err(StoreError::Again));
}

#[test]
fn transaction_whose_body_fails_leaves_nothing() {
    let bed = Bed::new();
    let result = bed.run(bed.store.transaction(async |transaction| {
        transaction.write("a", "1").await?;
        transaction.read("missing").await
    }));
    bed.settle();
    assert_eq!(result, Err(StoreError::NotFound));
    assert_eq!(bed.value("a"), None);
    assert_eq!(bed.fake.borrow().open_transactions(), 0);
}

#[test]
fn change_from_outside_is_a_conflict() {
    let bed = Bed::new();
    let transaction = bed.run(bed.store.begin()).unwrap();
    bed.fake.borrow_mut().write("/elsewhere", "x");
    assert_eq!(bed.run(transaction.commit()), Err(StoreError::Again));
}
