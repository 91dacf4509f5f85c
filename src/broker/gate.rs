//! Whether a run may be used: open or closed, by this process, for writing.
//!
//! Owns: the flag that closes a run, the lock of the directory, the lock over changes of topics,
//! and the consumers that are woken at the close. Must not know: what a caller does once it has
//! passed.
//!
//! Invariants:
//! 1. A closed run stays closed, and the directory lock is released only afterwards.
//! 2. A [`Change`] is held over each creation, change and deletion of a topic, and over the data
//!    that these read ([`producers`](super::producers)); no lookup takes it.
//! 3. No lock is taken in a forked child.

use std::sync::Arc;

use super::context::Context;
use crate::error::{Error, Result};
use crate::partition::waiters::NotifierList;
use crate::storage::lock::{DirLock, Handles};
use crate::sync::{AtomicBool, LockLevel, Mutex, MutexGuard, Ordering};

/// See the module's documentation.
pub(crate) struct Gate {
    context: Arc<Context>,
    /// ORDERING: set with `AcqRel` by the one caller that closes the run; read with Acquire: who
    /// sees it set sees what was done before.
    closed: AtomicBool,
    directory: Mutex<Option<DirLock>>,
    changes: Mutex<()>,
    consumers: NotifierList,
}

/// The right to change topics, of which there is one.
#[must_use]
pub(super) struct Change<'a> {
    _held: MutexGuard<'a, ()>,
}

impl Gate {
    pub(super) fn new(context: &Arc<Context>, directory: Option<DirLock>) -> Self {
        Self {
            context: Arc::clone(context),
            closed: AtomicBool::new(false),
            directory: Mutex::at_level(LockLevel::DirLock, directory),
            changes: Mutex::at_level(LockLevel::TopicChange, ()),
            consumers: NotifierList::new(),
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { self.check_process() }
    }

    /// Refuses a forked child, before any lock is taken.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.context.env.process.check()
    }

    /// Refuses to write what was opened for inspection.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if !self.context.settings.read_only {
            return Ok(());
        }
        Err(Error::ReadOnly { path: self.context.settings.dir.clone() })
    }

    /// The consumers that a close wakes.
    pub(crate) fn consumers(&self) -> &NotifierList {
        &self.consumers
    }

    /// Waits for the right to change topics.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], also when the run is closed while this waits.
    pub(super) fn begin_change(&self) -> Result<Change<'_>> {
        self.check_process()?;
        let held = self.changes.lock();
        self.check_open()?;
        Ok(Change { _held: held })
    }

    /// The right to change topics, if no other caller has it now. Does not wait.
    pub(super) fn try_begin_change(&self) -> Option<Change<'_>> {
        self.check_process().ok()?;
        let held = self.changes.try_lock()?;
        self.check_open().ok()?;
        Some(Change { _held: held })
    }

    /// The right to change topics for the caller that has closed the run.
    pub(super) fn last_change(&self) -> Change<'_> {
        debug_assert!(self.closed.load(Ordering::Acquire), "changes end with a close");
        Change { _held: self.changes.lock() }
    }

    /// Counts the handles of the run, for the error of an opening that finds the directory taken.
    pub(super) fn count_handles(&self, handles: Handles) {
        if let Some(lock) = &*self.directory.lock() {
            lock.count_handles(handles);
        }
    }

    /// Closes the run. False when it is closed already.
    pub(super) fn close(&self) -> bool {
        if self.closed.swap(true, Ordering::AcqRel) {
            return false;
        }
        if let Some(lock) = &*self.directory.lock() {
            lock.announce_closing();
        }
        true
    }

    /// Gives the directory up, for the next opening of it.
    pub(super) fn release_directory(&self) {
        debug_assert!(self.closed.load(Ordering::Acquire), "the directory is given up by a close");
        drop(self.directory.lock().take());
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::broker::context::Settings;
    use crate::clock::{ManualClock, RunClock};
    use crate::config::{Durability, RecoveryPolicy, TopicConfig, WhenFull};
    use crate::log::LogEnv;
    use crate::storage::disk::MemoryDisk;

    fn gate() -> Gate {
        let settings = Settings {
            dir: "/memory".into(),
            in_memory: true,
            has_reserve: false,
            has_lock: false,
            durability: Durability::default(),
            topic_defaults: TopicConfig::new(1),
            read_only: false,
            recovery: RecoveryPolicy::default(),
            when_full: WhenFull::default(),
            group_expiry: None,
        };
        let env = Arc::new(LogEnv::for_reading(Arc::new(MemoryDisk::new())));
        let clock = RunClock::begin(Arc::new(ManualClock::new(std::time::SystemTime::UNIX_EPOCH)));
        let context = Context {
            settings,
            env,
            clock,
            #[cfg(feature = "replication")]
            leadership: None,
        };
        Gate::new(&Arc::new(context), None)
    }

    #[test]
    fn one_caller_at_a_time_changes_topics_and_none_after_the_close() {
        let gate = gate();
        let change = gate.begin_change().unwrap();
        assert!(gate.try_begin_change().is_none());
        drop(change);
        drop(gate.try_begin_change().unwrap());
        assert!(gate.close());
        assert!(!gate.close(), "a run is closed once");
        assert!(matches!(gate.begin_change(), Err(Error::Closed)));
        assert!(gate.try_begin_change().is_none());
        drop(gate.last_change());
        gate.release_directory();
    }

    /// Invariant 1 is checked.
    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "given up by a close")]
    fn a_directory_that_is_given_up_by_an_open_run_is_found() {
        gate().release_directory();
    }
}
