//! The check of the lock order: what it finds, and what it leaves alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::*;
use crate::clock::real_now;
use crate::sync::{Condvar, Mutex, RwLock};

/// A lock near the top of the list, and one near its end.
fn outer() -> Mutex<u32> {
    Mutex::at_level(LockLevel::TopicChange, 0)
}

fn inner() -> Mutex<u32> {
    Mutex::at_level(LockLevel::Notifier, 0)
}

/// The message of a panic in `code`.
fn panic_of<R>(code: impl FnOnce() -> R) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(code()))).err()?;
    panic.downcast_ref::<String>().cloned()
}

#[test]
fn locks_are_taken_in_the_order_of_the_list() {
    let (outer, inner) = (outer(), inner());
    let (_first, _second) = (outer.lock(), inner.lock());
}

/// No second thread is needed: the order is found wrong wherever one thread runs it.
#[test]
fn a_lock_further_up_the_list_is_a_panic() {
    let (outer, inner) = (outer(), inner());
    let held = inner.lock();
    let message = panic_of(|| outer.lock()).unwrap();
    assert_eq!(message, "lock order: TopicChange is waited for while Notifier is held");
    drop(held);
    // Neither lock is left behind as held.
    let (_first, _second) = (outer.lock(), inner.lock());
}

#[test]
fn two_locks_of_one_level_are_a_panic() {
    let (one, other) = (inner(), inner());
    let _held = one.lock();
    assert!(panic_of(|| other.lock()).is_some());
}

#[test]
fn a_table_is_not_read_twice() {
    let table = RwLock::at_level(LockLevel::TopicTable, 0);
    {
        let _read = table.read();
        assert!(panic_of(|| table.read()).is_some());
        assert!(panic_of(|| table.write()).is_some());
    }
    *table.write() += 1;
    assert_eq!(*table.read(), 1);
}

#[test]
fn an_attempt_is_free_and_what_it_took_counts() {
    let (outer, inner) = (outer(), inner());
    let held = inner.lock();
    let attempt = outer.try_lock().unwrap();
    drop(held);
    drop(attempt);
    let attempt = inner.try_lock();
    assert!(attempt.is_some() && panic_of(|| outer.lock()).is_some());
}

#[test]
fn locks_are_released_in_any_order() {
    let (outer, inner) = (outer(), inner());
    let (first, second) = (outer.lock(), inner.lock());
    drop(first);
    assert!(panic_of(|| outer.lock()).is_some(), "the inner one is held");
    drop(second);
    drop(outer.lock());
}

#[test]
fn a_wait_releases_its_lock_and_takes_it_again_in_order() {
    let (outer, inner, changed) = (outer(), inner(), Condvar::new());
    let (guard, timed_out) = changed.wait_until(inner.lock(), real_now());
    assert!(timed_out && panic_of(|| outer.lock()).is_some(), "held again after the wait");
    drop(guard);
    // Held over a wait for an outer lock, the inner one would be waited for in the wrong order.
    let (first, _second) = (outer.lock(), inner.lock());
    assert!(panic_of(|| changed.wait_until(first, real_now())).is_some());
}

#[test]
fn each_thread_has_locks_of_its_own() {
    let (outer, inner) = (outer(), inner());
    let _held = inner.lock();
    thread::scope(|scope| {
        scope.spawn(|| drop(outer.lock()));
    });
}

#[test]
fn a_lock_of_a_test_is_not_checked() {
    let (inner, own) = (inner(), Mutex::new(0));
    {
        let _held = inner.lock();
        let _own = own.lock();
    }
    let _own = own.lock();
    let _held = inner.lock();
}
