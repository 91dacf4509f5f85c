//! Calls of the application's code on behalf of another caller: a waker that the thread of a
//! producer calls, an event that a thread of the broker delivers to a subscriber.
//!
//! The thread that makes such a call has work of its own to finish, and often more calls to make.
//! So a panic ends with the call that caused it: it reaches neither that thread nor the next call.
//! The panic hook of the process has reported it by then.
//!
//! A waker may run its task at once, and the task may use the broker. So a waker is called where
//! nothing is held that a call could wait for: a thread that holds a lock, or the turn of a sync,
//! [holds wakers back](hold_back) until it has released it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

thread_local! {
    /// The wakers that this thread is to call later; `None` while it holds none back.
    static HELD: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
}

/// Wakes a task, or has it woken once nothing holds wakers back.
pub(crate) fn wake(waker: Waker) {
    let mut waker = Some(waker);
    // A thread that is ending has no list any more, and holds nothing back.
    let _ = HELD.try_with(|held| {
        if let Some(held) = &mut *held.borrow_mut() {
            held.extend(waker.take());
        }
    });
    if let Some(waker) = waker {
        call(|| waker.wake());
    }
}

/// Holds back the wakers that this thread is to call, until the end of the scope. Call it
/// before taking a lock: then the lock has been released by the end of the scope.
pub(crate) fn hold_back() -> HoldBack {
    if cfg!(loom) {
        // The threads of a model are one to the standard library, and would share a list.
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

/// Whether this thread holds wakers back.
pub(crate) fn holds_back() -> bool {
    HELD.try_with(|held| held.borrow().is_some()).unwrap_or(false)
}

/// See [`hold_back`].
#[must_use]
#[derive(Debug)]
pub(crate) struct HoldBack {
    is_outermost: bool,
}

impl HoldBack {
    /// Ends it, and leaves the wakers to the caller.
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

/// Runs `code`; `None` when it panics. Under no lock: `code` may do anything.
pub(crate) fn call<R>(code: impl FnOnce() -> R) -> Option<R> {
    if cfg!(loom) {
        // A model ends with the first panic; a caught one would hide what it has found.
        return Some(code());
    }
    // What `code` has left half done is the application's; the engine's part is its result.
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => Some(result),
        Err(panic) => {
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
}
