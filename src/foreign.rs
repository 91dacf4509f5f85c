//! Calls of the application's code that happen on somebody else's behalf: a waker that the thread
//! of a producer calls, an event that a thread of the broker delivers to a subscriber.
//!
//! Whoever makes such a call has a task of its own to finish, and often more of them to call. So a
//! panic ends with the call that caused it: it reaches neither the caller nor those who are called
//! next. The panic hook of the process has reported it by then.

use std::panic::{AssertUnwindSafe, catch_unwind};

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
    use super::*;

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("in the destructor of a payload");
        }
    }

    #[test]
    fn a_panic_ends_with_its_call_whatever_it_carries() {
        assert_eq!(call(|| 1), Some(1));
        assert_eq!(call(|| std::panic::panic_any(PanicsWhenDropped)), None::<()>);
    }
}
