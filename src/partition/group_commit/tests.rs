//! The gate without threads; every interleaving is the models'.

use super::*;
use std::cell::Cell;
use std::sync::Arc;
use std::task::Wake;

use crate::sync::{AtomicU64, Ordering};

const NO_CUT: fn() -> u64 = || u64::MAX;

#[test]
fn a_failed_sync_is_final_although_the_next_would_succeed() {
    let gate = SyncGate::new(0);
    let failed = gate.wait(1, None, Some(&|| Err(Error::Timeout)), &NO_CUT);
    assert!(matches!(failed, Err(Error::Timeout)));
    let again = gate.wait(1, None, Some(&|| Ok(10)), &NO_CUT);
    assert!(matches!(again, Err(Error::Timeout)), "{again:?}");
    assert_eq!(gate.state.lock().durable_end, 0);
}

#[test]
fn what_is_durable_needs_no_sync() {
    let gate = SyncGate::new(5);
    gate.wait(5, None, Some(&|| unreachable!("nothing to sync")), &NO_CUT).unwrap();
}

#[test]
fn a_sync_that_covers_too_little_is_followed_by_another() {
    let gate = SyncGate::new(0);
    let calls = Cell::new(0);
    let sync = || {
        calls.set(calls.get() + 1);
        Ok(calls.get())
    };
    gate.wait(2, None, Some(&sync), &NO_CUT).unwrap();
    assert_eq!(calls.get(), 2);
}

/// Counts its calls, and calls what it was given.
struct Calls<F>(AtomicU64, F);

impl<F: Fn() + Send + Sync> Wake for Calls<F> {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        (self.1)();
    }
}

type Counted = Calls<fn()>;

fn waker() -> (Arc<Counted>, Waker) {
    let calls: Arc<Counted> = Arc::new(Calls(AtomicU64::new(0), || ()));
    (Arc::clone(&calls), Waker::from(calls))
}

/// Symptom: a task that polled a delivery and dropped it (a timeout, a lost `select`) left its
/// waker behind until the next sync, and each further poll looked at all that were left.
/// Cause: wakers stood in a list without their owner. Rule: each waiter has one ticket, and
/// takes it along.
// RED: src/partition/group_commit.rs
//   - self.state.lock().wakers.remove(&(target, ticket.number))
//   + self.state.lock().wakers.get(&(target, ticket.number)).cloned()
#[test]
fn row_j10_who_gives_up_waiting_leaves_nothing_and_the_others_are_woken_once_in_order() {
    let gate = SyncGate::new(0);
    for target in 1..1_000 {
        let (mut ticket, (calls, waker)) = (None, waker());
        for _ in 0..3 {
            assert!(gate.poll(target, &waker, &mut ticket, &NO_CUT).is_none());
        }
        assert_eq!(gate.state.lock().wakers.len(), 1);
        gate.forget(target, ticket.unwrap());
        assert_eq!(gate.state.lock().wakers.len(), 0);
        drop(waker);
        assert_eq!(Arc::strong_count(&calls), 1, "the waker is kept");
    }
    let waiting: Vec<_> = (1..=10_u64)
        .map(|target| {
            let (mut ticket, (calls, waker)) = (None, waker());
            // A task that moved: the waker before it is not the one to wake.
            let stale = self::waker();
            assert!(gate.poll(target, &stale.1, &mut ticket, &NO_CUT).is_none());
            assert!(gate.poll(target, &waker, &mut ticket, &NO_CUT).is_none());
            (target, calls, stale.0)
        })
        .collect();
    let timed_out = gate.wait(3, Some(crate::clock::real_now()), None, &NO_CUT);
    assert!(matches!(timed_out, Err(Error::Timeout)), "{timed_out:?}");
    gate.wait(4, None, Some(&|| Ok(4)), &NO_CUT).unwrap();
    let woken = |calls: &Counted| calls.0.load(Ordering::Relaxed);
    for (target, calls, stale) in &waiting {
        assert_eq!((woken(calls), woken(stale)), (u64::from(*target <= 4), 0), "{target}");
    }
    gate.fail(Error::Closed);
    for (target, calls, stale) in &waiting {
        assert_eq!((woken(calls), woken(stale)), (1, 0), "{target}");
    }
    assert_eq!(gate.state.lock().wakers.len(), 0);
}

// RED: src/partition/group_commit.rs
//   - let wakers = state.take_answered();
//   + let wakers = state.take_answered(); wakers.iter().for_each(Waker::wake_by_ref);
#[test]
fn row_j11_a_waker_that_waits_for_the_gate_itself_runs_under_no_lock() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let gate = Arc::new(SyncGate::new(0));
        let within = Arc::clone(&gate);
        let calls = Calls(AtomicU64::new(0), move || {
            within.wait(2, None, Some(&|| Ok(2)), &NO_CUT).unwrap();
        });
        let waker = Waker::from(Arc::new(calls));
        assert!(gate.poll(1, &waker, &mut None, &NO_CUT).is_none());
        gate.wait(1, None, Some(&|| Ok(1)), &NO_CUT).unwrap();
        done.send(gate.state.lock().durable_end).unwrap();
    });
    let limit = std::time::Duration::from_secs(20);
    assert_eq!(is_done.recv_timeout(limit), Ok(2), "it waits for itself");
}

#[test]
fn a_panicking_sync_does_not_shut_the_gate() {
    let gate = SyncGate::new(0);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        gate.wait(1, None, Some(&|| panic!("disk driver")), &NO_CUT)
    }));
    assert!(result.is_err());
    assert!(gate.wait(1, None, Some(&|| Ok(1)), &NO_CUT).is_err());
}
