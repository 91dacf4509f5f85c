//! The partition's lock: as any other, but that a panic under it, or in what is done for it, poisons
//! the partition.
//!
//! A change that was left half way may have reached the disk and not the memory, or some of the
//! lists and not the others. Going on from there could put records where the next opening does not
//! look for them; so nothing is appended any more, until an opening has looked at what is there.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::State;
use crate::error::Error;
use crate::sync::{AtomicBool, LockRank, Mutex, MutexGuard, Ordering};

/// The state of a partition and its lock.
pub(super) struct StateLock {
    state: Mutex<State>,
    /// Whether the state has a failure. ORDERING: Release under the lock, after the failure was
    /// noted; Acquire by readers without the lock, who then show durable records only.
    poisoned: AtomicBool,
}

impl StateLock {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::ranked(LockRank::Append, state), poisoned: AtomicBool::new(false) }
    }

    #[inline]
    pub(super) fn lock(&self) -> StateGuard<'_> {
        let on_panic = OnPanic::new();
        StateGuard { state: self.state.lock(), poisoned: &self.poisoned, on_panic }
    }

    #[inline]
    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Runs work that is done for the partition without its lock.
    pub(super) fn guard<R>(&self, work: impl FnOnce() -> R) -> R {
        let _guard = WorkGuard { lock: self, on_panic: OnPanic::new() };
        work()
    }
}

/// Tells a panic that began meanwhile from one that was under way before: a destructor may well
/// use the partition while its thread unwinds.
#[derive(Clone, Copy)]
pub(super) struct OnPanic {
    was_panicking: bool,
}

impl OnPanic {
    #[inline]
    pub(super) fn new() -> Self {
        Self { was_panicking: std::thread::panicking() }
    }

    #[inline]
    pub(super) fn has_begun(self) -> bool {
        !self.was_panicking && std::thread::panicking()
    }
}

/// Access to the state, until it is dropped.
pub(super) struct StateGuard<'a> {
    state: MutexGuard<'a, State>,
    poisoned: &'a AtomicBool,
    on_panic: OnPanic,
}

impl StateGuard<'_> {
    /// Nothing is appended, and no sync believed, from here on.
    pub(super) fn poison(&mut self, failure: Error) {
        self.state.failure.get_or_insert(failure);
        // What is on the disk may be more than what is known of it.
        self.state.changed = true;
        self.poisoned.store(true, Ordering::Release);
    }

    #[cold]
    fn poison_by_panic(&mut self) {
        let path = self.state.log.factory().identity().dir.clone();
        let source = std::io::Error::other("a thread panicked while it changed the partition");
        self.poison(Error::SyncFailed { path, source: Arc::new(source) });
    }
}

impl Deref for StateGuard<'_> {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for StateGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for StateGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.on_panic.has_begun() {
            self.poison_by_panic();
        }
    }
}

struct WorkGuard<'a> {
    lock: &'a StateLock,
    on_panic: OnPanic,
}

impl Drop for WorkGuard<'_> {
    fn drop(&mut self) {
        if self.on_panic.has_begun() {
            self.lock.lock().poison_by_panic();
        }
    }
}
