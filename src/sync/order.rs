//! The order of the crate's locks, and the check of it in debug builds.
//!
//! [`LockLevel`] is the one list of all locks, outermost first. A thread that holds a lock waits
//! only for locks further down the list, so no two threads can wait for each other. In a debug
//! build each thread knows the levels that it holds, and panics before it would wait against the
//! order, even if no other thread is in its way at that moment. In a release build a level has no
//! size and costs nothing.
//!
//! 1. A thread that holds a lock waits for none of the same level either: two locks of one kind (of
//!    two partitions, of two segments) are never waited for together, and a `RwLock` is never read
//!    twice, which deadlocks where a writer comes in between.
//! 2. `try_lock` never waits and may be called in any order. A lock that it took counts as held.
//! 3. A wait on a condition variable releases its lock, and waits for it again by rule 1.
//! 4. What catches panics passes one of this check on: it is a bug of the engine, and in a release
//!    build the thread would wait for ever. Otherwise no test would notice it.
//! 5. A lock that only tests and test brokers have (`Mutex::new`) has no level: a test looks into
//!    the engine from above and, through a disk or a clock of its own, from below.
//!
//! The check does not know of other waits: for a thread's end, a sync, a file lock, or a `OnceLock`
//! that is being set. Models under loom are not checked either; there a deadlock is found as one.

/// Every lock of the crate, outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LockLevel {
    /// `testing::TestCluster`: its members work one at a time.
    #[cfg(all(feature = "testing", feature = "replication"))]
    ClusterStep,
    /// A member of a replicated group.
    #[cfg(feature = "replication")]
    ReplicationMember,
    /// `testing::Faults::full`: a test fills the disk, or frees it.
    #[cfg(feature = "testing")]
    FullDisk,
    /// A read-only broker reads a partition's files again, one partition at a time.
    Inspection,
    /// `broker::gate::Change`: topics change one at a time.
    TopicChange,
    /// `RecoveryPoints::last`: recovery points are written by one thread at a time.
    RecoveryPoints,
    /// `broker::space`: the oldest records make room for one append at a time.
    RoomMaking,
    /// `Gate::directory`: the lock on the directory, until the broker is closed.
    DirLock,
    /// The directories that brokers of this process have locked.
    LockedDirs,
    /// `Workers::threads`: the background threads.
    Threads,
    /// `broker::producers`: the named producers that are in use.
    Producers,
    /// `NamedProducer::by_key`: the topics that a producer numbers by key.
    ProducerTopics,
    /// `broker::expiry`: whether this run was dated anew.
    ClockSet,
    /// `broker::space`: the circumstances of the last attempt to free space.
    Relieved,
    /// `LiveTopics::table`: the table of topics.
    TopicTable,
    /// The successor of a topic whose settings were replaced.
    TopicSuccessor,
    /// `Coordinator::groups`: the table of groups.
    Groups,
    /// `Group::members`: one group.
    Group,
    /// `Coordinator::topics`: the topics that groups divide.
    GroupTopics,
    /// When which group has a member that may be overdue.
    Deadlines,
    /// An internal log is being cleaned up.
    StateLogCleaning,
    /// The state of an internal log, and its end.
    StateLog,
    /// The partitions that a producer has not flushed yet.
    Unflushed,
    /// The deferred wakers of the helpers of a call that waits for several partitions.
    Together,
    /// The bookkeeping of a partition's compaction.
    Compaction,
    /// A partition: appends, and whatever changes its log.
    Append,
    /// The removed segments of a partition whose files still exist.
    Leftovers,
    /// How many threads work on the files of a partition.
    DiskWork,
    /// The syncs of a partition, and their waiters.
    GroupCommit,
    /// Calls that wait until a majority has their records.
    #[cfg(feature = "replication")]
    QuorumGate,
    /// Who leads a replicated group, and which partitions have news for it.
    #[cfg(feature = "replication")]
    Leadership,
    /// What a member of a replicated group shows.
    #[cfg(feature = "replication")]
    ReplicationShown,
    /// How its handles call it.
    #[cfg(feature = "replication")]
    ReplicationCalls,
    /// What has arrived for it.
    #[cfg(feature = "replication")]
    ReplicationInbox,
    /// The partitions that are to be synced in the background.
    SyncQueue,
    /// What readers need from the disk soon.
    ReadQueue,
    /// The segments of a partition.
    SegmentList,
    /// The map of a segment.
    SegmentRegion,
    /// The file that a compaction on a full disk writes into.
    CompactionSpare,
    /// The space of a segment ahead of its writer, while it grows.
    SegmentSpace,
    /// The maps that may be released.
    MapBudget,
    /// The maps of removed segments.
    PinnedMaps,
    /// How often bytes were returned to the broker's budget.
    ByteBudget,
    /// The notifiers of all consumers.
    NotifierList,
    /// What a consumer waits for.
    Notifier,
    /// One sync of a file at a time.
    FileSync,
    /// The descriptor of a file, and its bytes that are not synced yet.
    FileState,
    /// The files that have a descriptor.
    Descriptors,
    /// The names of a disk in memory.
    MemoryNames,
    /// The bytes of a file in memory.
    MemoryBytes,
    /// How many bytes the files in memory have.
    MemorySpace,
    /// `testing::SimNetwork`: the frames on their way.
    #[cfg(all(feature = "testing", feature = "replication"))]
    SimNetwork,
    /// The faults that a test has set, and the calls that were made.
    #[cfg(feature = "testing")]
    Script,
    /// What a clock that is moved by hand calls.
    ClockCallbacks,
    /// The time of a clock that is moved by hand.
    ManualTime,
    /// The events that wait for a subscriber.
    #[cfg(feature = "tracing")]
    Events,
}

#[cfg(all(debug_assertions, not(loom)))]
pub(crate) use self::checked::is_out_of_order;
#[cfg(all(debug_assertions, not(loom)))]
pub(super) use self::checked::{Held, Level};
#[cfg(all(not(debug_assertions), not(loom)))]
pub(super) use self::unchecked::{Held, Level};

#[cfg(all(debug_assertions, not(loom)))]
mod checked {
    use std::any::Any;
    use std::cell::RefCell;

    use super::LockLevel;

    thread_local! {
        /// The levels of the locks that this thread holds, in the order in which it took them.
        static HELD: RefCell<Vec<LockLevel>> = const { RefCell::new(Vec::new()) };
    }

    /// What the message of a panic of this check begins with.
    const OUT_OF_ORDER: &str = "lock order: ";

    /// Whether a panic says that a lock was taken out of order.
    pub(crate) fn is_out_of_order(panic: &(dyn Any + Send)) -> bool {
        panic.downcast_ref::<String>().is_some_and(|message| message.starts_with(OUT_OF_ORDER))
    }

    /// The level of one lock; `None` is a test's own, which is not checked.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Level(Option<LockLevel>);

    /// A lock that this thread holds, until this is dropped.
    #[derive(Debug)]
    pub(in super::super) struct Held(Level);

    impl Level {
        pub(in super::super) const fn of(level: LockLevel) -> Self {
            Self(Some(level))
        }

        #[cfg(any(test, fuzzing, feature = "testing"))]
        pub(in super::super) const fn none() -> Self {
            Self(None)
        }

        /// Before the thread waits for the lock.
        ///
        /// # Panics
        ///
        /// If the thread holds a lock of this level or of one below: our own bug.
        pub(in super::super) fn take(self) -> Held {
            let Some(level) = self.0 else { return Held(self) };
            let held = HELD.try_with(|held| held.borrow().iter().copied().max());
            // A thread that is ending has no list any more. One that panics is not stopped again:
            // a second panic would abort the process, and hide the first.
            if let Ok(Some(innermost)) = held
                && innermost >= level
                && !std::thread::panicking()
            {
                panic!("{OUT_OF_ORDER}{level:?} is waited for while {innermost:?} is held");
            }
            self.take_unordered()
        }

        /// After `try_lock` took the lock.
        pub(in super::super) fn take_unordered(self) -> Held {
            if let Some(level) = self.0 {
                let _ = HELD.try_with(|held| held.borrow_mut().push(level));
            }
            Held(self)
        }
    }

    impl Held {
        /// The lock is released; its level, to take it again.
        pub(in super::super) fn release(self) -> Level {
            self.0
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            let Some(level) = self.0.0 else { return };
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|other| *other == level) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(all(not(debug_assertions), not(loom)))]
mod unchecked {
    use super::LockLevel;

    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Level;

    #[derive(Debug)]
    pub(in super::super) struct Held;

    impl Level {
        #[inline]
        pub(in super::super) const fn of(_level: LockLevel) -> Self {
            Self
        }

        #[cfg(any(test, fuzzing, feature = "testing"))]
        pub(in super::super) const fn none() -> Self {
            Self
        }

        #[inline]
        pub(in super::super) fn take(self) -> Held {
            Held
        }

        #[inline]
        pub(in super::super) fn take_unordered(self) -> Held {
            Held
        }
    }

    impl Held {
        #[inline]
        pub(in super::super) fn release(self) -> Level {
            Level
        }
    }

    /// Nothing is checked, and nothing is paid.
    const _: () = assert!(size_of::<Level>() == 0 && size_of::<Held>() == 0);
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests;
