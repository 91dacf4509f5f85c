//! Runs application code on an engine thread: wakers, and events for a `tracing` subscriber.
//!
//! Owns: the catching of panics ([`call`]), and the deferral of wakers ([`hold_back`]). Must not
//! know: whose code it runs. Two dangers:
//!
//! 1. *Panics.* The engine thread has its own work to finish, and often more such calls to make. So
//!    a panic is caught at the call: neither the thread nor the next call notices it. The panic
//!    hook of the process has reported it before. In a debug build one panic is passed on: a lock
//!    that is taken out of order is a bug of the engine.
//! 2. *Deadlocks.* A waker may run its task at once, and the task may call the broker. So no waker
//!    is called while this thread holds anything that such a call may wait for. A thread that holds
//!    a lock, or is the one that syncs, [defers wakers](hold_back) until it has released it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

thread_local! {
    /// The wakers that this thread calls later; `None` while it does not defer any.
    static HELD: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
}

/// Wakes a task: now, or at the end of the scope if this thread [defers wakers](hold_back).
pub(crate) fn wake(waker: Waker) {
    let mut waker = Some(waker);
    // A thread that is ending has no list any more, and defers nothing.
    let _ = HELD.try_with(|held| {
        if let Some(held) = &mut *held.borrow_mut() {
            held.extend(waker.take());
        }
    });
    if let Some(waker) = waker {
        call(|| waker.wake());
    }
}

/// Defers the wakers that this thread calls, until the returned guard is dropped. Make the guard
/// before taking a lock: it is then dropped after the lock was released.
pub(crate) fn hold_back() -> HoldBack {
    if cfg!(loom) {
        // All threads of a model are one thread of the standard library, and would share a list.
        return HoldBack { is_outermost: false };
    }
    let begin = |held: &RefCell<Option<Vec<Waker>>>| {
        let is_outermost = held.borrow().is_none();
        if is_outermost {
            *held.borrow_mut() = Some(Vec::new());
        }
        is_outermost
    };
    HoldBack { is_outermost: HELD.try_with(begin).unwrap_or(false) }
}

/// Whether this thread defers wakers.
pub(crate) fn holds_back() -> bool {
    HELD.try_with(|held| held.borrow().is_some()).unwrap_or(false)
}

/// Defers wakers while it exists; see [`hold_back`].
#[must_use]
#[derive(Debug)]
pub(crate) struct HoldBack {
    is_outermost: bool,
}

impl HoldBack {
    /// Ends the deferral, and returns the wakers for the caller to call.
    pub(crate) fn take(mut self) -> Vec<Waker> {
        self.end()
    }

    fn end(&mut self) -> Vec<Waker> {
        if !std::mem::take(&mut self.is_outermost) {
            return Vec::new();
        }
        HELD.try_with(|held| held.borrow_mut().take()).ok().flatten().unwrap_or_default()
    }
}

impl Drop for HoldBack {
    fn drop(&mut self) {
        for waker in self.end() {
            call(|| waker.wake());
        }
    }
}

/// Runs `code`, and returns `None` if it panics. Must be called without locks: `code` may call
/// anything.
pub(crate) fn call<R>(code: impl FnOnce() -> R) -> Option<R> {
    if cfg!(loom) {
        // A model ends with the first panic; a caught one would hide what it has found.
        return Some(code());
    }
    // Unwind safety: `code` may leave data of the application half changed, but no data of the
    // engine, which only uses its result.
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => Some(result),
        Err(panic) => {
            #[cfg(all(debug_assertions, not(loom)))]
            if crate::sync::is_out_of_order(&*panic) {
                std::panic::resume_unwind(panic);
            }
            // Not dropped: the destructor of a payload is the application's code too.
            std::mem::forget(panic);
            None
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;
    use crate::sync::{AtomicUsize, Ordering};
    #[cfg(debug_assertions)]
    use crate::sync::{LockLevel, Mutex};

    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("in the destructor of a payload");
        }
    }

    #[test]
    fn wakers_are_held_back_to_the_end_of_the_outermost_scope() {
        let counts = Arc::new(Counts(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&counts));
        let woken = || counts.0.load(Ordering::Relaxed);
        let outer = hold_back();
        wake(waker.clone());
        drop(hold_back());
        assert!(hold_back().take().is_empty());
        assert!(holds_back() && woken() == 0);
        drop(outer);
        assert!(!holds_back() && woken() == 1);
        let held = hold_back();
        wake(waker);
        assert_eq!((held.take().len(), woken()), (1, 1));
    }

    #[test]
    fn a_panic_ends_with_its_call_whatever_it_carries() {
        assert_eq!(call(|| 1), Some(1));
        assert_eq!(call(|| std::panic::panic_any(PanicsWhenDropped)), None::<()>);
    }

    /// Symptom: with a waker called under a lock again, no test failed. Cause: in a debug build the
    /// lock that the waker takes panics where it would wait for ever in a release build, and the
    /// panic ended with the call. Rule: that panic is the engine's own, and is passed on.
    // RED: src/foreign.rs
    //   - std::panic::resume_unwind(panic);
    #[test]
    #[cfg(debug_assertions)]
    fn a_lock_out_of_order_in_a_call_is_noticed() {
        let outer = Mutex::at_level(LockLevel::TopicChange, ());
        let inner = Mutex::at_level(LockLevel::Notifier, ());
        let _held = inner.lock();
        let wrong = || call(|| drop(outer.lock()));
        assert!(catch_unwind(AssertUnwindSafe(wrong)).is_err());
    }
}
