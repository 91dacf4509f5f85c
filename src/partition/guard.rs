//! The partition's lock. It is like any other, except that a panic under it, or in work that is
//! done for the partition, poisons the partition.
//!
//! A change that was interrupted half way may have reached the disk and not the memory, or some of
//! the lists and not the others. A later append could put records where the next opening does not
//! look for them. So nothing is appended any more until an opening has read the files.
//!
//! A truncation of a replicated log waits for the disk between its steps, and each step relies on
//! the log being as the one before has left it. So it *reserves* the log. Until it gives it back,
//! whatever else changes the log waits, as if the truncation had the lock
//! ([`lock_for_change`](StateLock::lock_for_change)); who only reads, or notes that a sync has ended,
//! does not ([`lock`](StateLock::lock)).
//!
//! Owns: the state and its published ends. Must not know: what the state is used for. The holder of
//! the lock publishes its changes; when the lock is released, the ends are in order.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::ends::Ends;
use super::state::State;
use crate::error::Error;
#[cfg(feature = "replication")]
use crate::error::Result;
#[cfg(feature = "replication")]
use crate::sync::Condvar;
use crate::sync::{LockLevel, Mutex, MutexGuard};

/// The state of a partition, its lock and its ends.
pub(super) struct StateLock {
    state: Mutex<State>,
    /// Padded, because readers poll the ends while appenders write the lock beside them.
    ends: CachePadded<Ends>,
    /// The log was given back.
    #[cfg(feature = "replication")]
    given_back: Condvar,
}

impl StateLock {
    pub(super) fn new(state: State) -> Self {
        let log = state.log();
        let ends = Ends::new(log.log_start(), log.durable_end(), log.log_end());
        Self {
            state: Mutex::at_level(LockLevel::Append, state),
            ends: CachePadded::new(ends),
            #[cfg(feature = "replication")]
            given_back: Condvar::new(),
        }
    }

    #[inline]
    pub(super) fn lock(&self) -> StateGuard<'_> {
        let on_panic = OnPanic::new();
        StateGuard { state: self.state.lock(), ends: &self.ends, on_panic }
    }

    /// Takes the lock to change the log: waits while that is reserved.
    #[inline]
    pub(super) fn lock_for_change(&self) -> StateGuard<'_> {
        let on_panic = OnPanic::new();
        let state = self.state.lock();
        #[cfg(feature = "replication")]
        let state = self.await_reserved(state);
        StateGuard { state, ends: &self.ends, on_panic }
    }

    #[cfg(feature = "replication")]
    #[inline]
    fn await_reserved<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.awaits_reserved() {
            state = self.given_back.wait(state);
        }
        state
    }

    /// Reserves the log: no other thread changes it until this is dropped, which must not happen
    /// under the lock.
    ///
    /// # Errors
    ///
    /// That of `check`, which sees the state under the lock; nothing is reserved then.
    #[cfg(feature = "replication")]
    pub(super) fn reserve(&self, check: impl FnOnce(&State) -> Result<()>) -> Result<Reserved<'_>> {
        let mut state = self.lock_for_change();
        check(&state)?;
        state.reserve();
        drop(state);
        Ok(Reserved(self))
    }

    /// How many threads wait for a log that is reserved.
    #[cfg(all(test, feature = "replication"))]
    pub(super) fn waiting(&self) -> u32 {
        self.state.lock().waiting()
    }

    #[inline]
    pub(super) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Runs work that is done for the partition without its lock.
    pub(super) fn guard<R>(&self, work: impl FnOnce() -> R) -> R {
        let _guard = WorkGuard { lock: self, on_panic: OnPanic::new() };
        work()
    }
}

/// A log that one thread has reserved.
#[cfg(feature = "replication")]
#[must_use = "the log is given back when this is dropped"]
pub(super) struct Reserved<'a>(&'a StateLock);

#[cfg(feature = "replication")]
impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.state.lock().give_back();
        self.0.given_back.notify_all();
    }
}

/// Distinguishes a panic that began meanwhile from an earlier one: a destructor may use the
/// partition while its thread unwinds.
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
    ends: &'a Ends,
    on_panic: OnPanic,
}

impl StateGuard<'_> {
    /// Publishes the log end after an append.
    #[inline]
    pub(super) fn publish_end(&self, end: u64) {
        self.ends.publish_end(end);
    }

    /// Publishes that everything below `durable` is durable. Under the lock under which readers
    /// arm: otherwise a reader could see the old end and wait for something that has happened.
    pub(super) fn publish_durable(&self, durable: u64) {
        self.ends.raise_durable(durable);
    }

    /// Publishes that a majority has everything below `offset`. Under the lock under which readers
    /// arm, as above. Returns whether that is news.
    #[cfg(feature = "replication")]
    pub(super) fn raise_watermark(&self, offset: u64) -> bool {
        self.ends.raise_watermark(offset)
    }

    /// Publishes the ends of a log that was truncated, or that begins anew.
    #[cfg(feature = "replication")]
    pub(super) fn publish_cut(&self) {
        let log = self.state.log();
        self.ends.fall_back(log.durable_end(), log.log_end());
        self.ends.publish_start(log.log_start());
    }

    /// Publishes all ends, after a change of any kind.
    pub(super) fn publish(&self) {
        let log = self.state.log();
        self.ends.publish_end(log.log_end());
        self.ends.raise_durable(log.durable_end());
        self.ends.publish_start(log.log_start());
    }

    /// Refuses all later appends, and ignores the results of later syncs.
    pub(super) fn poison(&mut self, failure: Error) {
        self.state.fail(failure);
        self.ends.poison();
    }

    #[cold]
    fn poison_by_panic(&mut self) {
        let path = self.state.log().factory().identity().dir.clone();
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
        } else {
            // A loom model counts each load as a step, and would run for hours.
            debug_assert!(cfg!(loom) || std::thread::panicking() || self.ends.check());
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
