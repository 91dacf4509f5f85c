//! Events of the engine, for the feature `tracing`.
//!
//! A subscriber is application code, and most events occur under a lock. So an event is put into an
//! [`Outbox`], and delivered by the next thread that holds no lock. Without the feature an outbox
//! has no size, and no event is made.

#[cfg(test)]
#[cfg(feature = "tracing")]
pub(crate) mod heard;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Corruption, Error};
use crate::record::TopicPartition;
#[cfg(feature = "replication")]
use crate::record::{LeaderEpoch, NodeId};

/// Something that happened.
#[derive(Debug)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "none is made"))]
pub(crate) enum Event {
    Opened {
        dir: PathBuf,
        clean_shutdown: bool,
        partitions: usize,
    },
    Closed {
        dir: PathBuf,
        error: Option<Error>,
    },
    TailCut {
        partition: TopicPartition,
        end_offset: u64,
        cut_bytes: u64,
    },
    Corruption(Corruption),
    Rolled {
        partition: Arc<TopicPartition>,
        base_offset: u64,
    },
    Removed {
        partition: Arc<TopicPartition>,
        log_start_offset: u64,
        segments: usize,
    },
    /// A consumer has missed offsets.
    Missed {
        partition: Arc<TopicPartition>,
        missed: Range<u64>,
    },
    Compacted {
        partition: Arc<TopicPartition>,
        records_removed: u64,
        bytes: (u64, u64),
    },
    Poisoned {
        partition: Arc<TopicPartition>,
        error: Error,
    },
    Failed {
        work: &'static str,
        partition: Option<Arc<TopicPartition>>,
        error: Error,
    },
    /// A round of a background thread ended in a panic; the thread continues.
    Panicked {
        thread: &'static str,
    },
    Rebalanced {
        group: Arc<str>,
        generation: u64,
    },
    Evicted {
        group: Arc<str>,
        members: u64,
    },
    GroupExpired {
        group: Arc<str>,
    },
    ProducerExpired {
        producer: Arc<str>,
    },
    /// A member of a replicated group has changed.
    #[cfg(feature = "replication")]
    Member {
        me: NodeId,
        change: MemberChange,
    },
}

/// How a member of a replicated group has changed.
#[cfg(feature = "replication")]
#[derive(Debug)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody reads it"))]
pub(crate) enum MemberChange {
    Leading(LeaderEpoch),
    MayWrite(LeaderEpoch),
    Following(LeaderEpoch, NodeId),
    LeadershipLost(LeaderEpoch),
    NoMajority,
    MajorityBack,
    MemberJoined(NodeId),
    MemberLagging(NodeId),
    MemberBack(NodeId),
    Truncated(TopicPartition, Range<u64>),
    Repaired(TopicPartition, Range<u64>),
    CutRefused(TopicPartition),
    Failed(Error),
}

/// Events on their way out. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    #[cfg(feature = "tracing")]
    waiting: Arc<waiting::Waiting>,
}

impl Outbox {
    /// Delivers at the end of the scope. Call it before taking a lock: then the lock has been
    /// released by the end of the scope.
    pub(crate) fn deliver_at_end(&self) -> impl Drop + '_ {
        DeliverAtEnd(self)
    }
}

struct DeliverAtEnd<'a>(&'a Outbox);

impl Drop for DeliverAtEnd<'_> {
    fn drop(&mut self) {
        self.0.deliver();
    }
}

/// Puts an event into an outbox. It is made with the feature alone.
macro_rules! note {
    ($outbox:expr, $event:ident $body:tt) => {
        if cfg!(feature = "tracing") {
            $outbox.put($crate::trace::Event::$event $body);
        }
    };
}
pub(crate) use note;

#[cfg(not(feature = "tracing"))]
#[expect(clippy::unused_self, reason = "the same calls with and without the feature")]
impl Outbox {
    #[inline]
    pub(crate) fn put(&self, event: Event) {
        drop(event);
    }

    #[inline]
    pub(crate) fn deliver(&self) {}
}

#[cfg(feature = "tracing")]
mod waiting {
    use std::collections::VecDeque;
    use std::mem;
    use std::ops::Range;

    #[cfg(feature = "replication")]
    use super::MemberChange;
    use super::{Event, Outbox};
    use crate::foreign;
    #[cfg(feature = "replication")]
    use crate::record::NodeId;
    use crate::sync::{AtomicBool, LockLevel, Mutex, Ordering};

    /// LIMIT: how many events wait; if no thread delivers them for so long, the oldest are dropped.
    const EVENTS_MAX: usize = 4_096;

    #[derive(Debug)]
    pub(super) struct Waiting {
        events: Mutex<VecDeque<Event>>,
        /// Whether there are any: delivery is tried often and mostly has nothing to do.
        ///
        /// ORDERING: a hint, Relaxed; what it speaks of is read under the lock.
        has_any: AtomicBool,
    }

    impl Default for Waiting {
        fn default() -> Self {
            Self {
                events: Mutex::at_level(LockLevel::Events, VecDeque::new()),
                has_any: AtomicBool::new(false),
            }
        }
    }

    impl Outbox {
        pub(crate) fn put(&self, event: Event) {
            let mut events = self.waiting.events.lock();
            if events.len() >= EVENTS_MAX {
                events.pop_front();
            }
            events.push_back(event);
            self.waiting.has_any.store(true, Ordering::Relaxed);
        }

        /// Delivers the events to the subscriber of the calling thread. Under no lock.
        pub(crate) fn deliver(&self) {
            if self.waiting.has_any.load(Ordering::Relaxed) {
                let mut events = self.waiting.events.lock();
                self.waiting.has_any.store(false, Ordering::Relaxed);
                let taken = mem::take(&mut *events);
                drop(events);
                for event in taken {
                    foreign::call(|| emit(event));
                }
            }
        }
    }

    fn emit(event: Event) {
        use tracing::{debug, error, info, warn};
        match event {
            Event::Opened { dir, clean_shutdown, partitions } => {
                info!(target: "logpond", dir = %dir.display(), clean_shutdown, partitions, "opened");
            }
            Event::Closed { dir, error: None } => {
                info!(target: "logpond", dir = %dir.display(), "closed");
            }
            Event::Closed { dir, error: Some(error) } => {
                error!(target: "logpond", dir = %dir.display(), %error, "closed");
            }
            Event::TailCut { partition, end_offset, cut_bytes } => {
                warn!(target: "logpond", %partition, end_offset, cut_bytes, "tail cut");
            }
            Event::Corruption(corruption) => {
                error!(target: "logpond", %corruption, "corruption");
            }
            Event::Rolled { partition, base_offset } => {
                debug!(target: "logpond", %partition, base_offset, "rolled");
            }
            Event::Removed { partition, log_start_offset, segments } => {
                info!(target: "logpond", %partition, log_start_offset, segments, "removed");
            }
            Event::Missed { partition, missed: Range { start, end } } => {
                warn!(target: "logpond", %partition, start, end, "gap");
            }
            Event::Compacted { partition, records_removed, bytes: (before, after) } => {
                info!(
                    target: "logpond", %partition, records_removed,
                    bytes_before = before, bytes_after = after, "compacted"
                );
            }
            Event::Poisoned { partition, error } => {
                error!(target: "logpond", %partition, %error, "poisoned");
            }
            Event::Failed { work, partition: Some(partition), error } => {
                warn!(target: "logpond", work, %partition, %error, "background work failed");
            }
            Event::Failed { work, partition: None, error } => {
                warn!(target: "logpond", work, %error, "background work failed");
            }
            Event::Panicked { thread } => {
                error!(target: "logpond", thread, "background work panicked");
            }
            Event::Rebalanced { group, generation } => {
                info!(target: "logpond", group = &*group, generation, "rebalanced");
            }
            Event::GroupExpired { group } => {
                info!(target: "logpond", group = &*group, "group expired");
            }
            Event::ProducerExpired { producer } => {
                info!(target: "logpond", producer = &*producer, "producer expired");
            }
            Event::Evicted { group, members } => {
                warn!(target: "logpond", group = &*group, members, "evicted");
            }
            #[cfg(feature = "replication")]
            Event::Member { me, change } => emit_change(me, change),
        }
    }

    #[cfg(feature = "replication")]
    fn emit_change(me: NodeId, change: MemberChange) {
        use MemberChange as Change;
        use tracing::{error, info, warn};
        match change {
            Change::Leading(epoch) => {
                info!(target: "logpond", member = me.0, epoch = epoch.0, "leading");
            }
            Change::MayWrite(epoch) => {
                info!(target: "logpond", member = me.0, epoch = epoch.0, "may write");
            }
            Change::Following(epoch, leader) => {
                info!(
                    target: "logpond", member = me.0, epoch = epoch.0, leader = leader.0,
                    "following"
                );
            }
            Change::LeadershipLost(epoch) => {
                warn!(target: "logpond", member = me.0, epoch = epoch.0, "leadership lost");
            }
            Change::NoMajority => {
                warn!(target: "logpond", member = me.0, "no majority");
            }
            Change::MajorityBack => {
                info!(target: "logpond", member = me.0, "majority back");
            }
            Change::MemberJoined(other) => {
                info!(target: "logpond", member = me.0, other = other.0, "member joined");
            }
            Change::MemberLagging(other) => {
                warn!(target: "logpond", member = me.0, other = other.0, "member lagging");
            }
            Change::MemberBack(other) => {
                info!(target: "logpond", member = me.0, other = other.0, "member back");
            }
            Change::Truncated(partition, Range { start, end }) => {
                warn!(target: "logpond", member = me.0, %partition, start, end, "truncated");
            }
            Change::Repaired(partition, Range { start, end }) => {
                warn!(target: "logpond", member = me.0, %partition, start, end, "repaired");
            }
            Change::CutRefused(partition) => {
                error!(target: "logpond", member = me.0, %partition, "cut refused");
            }
            Change::Failed(error) => {
                error!(target: "logpond", member = me.0, %error, "member failed");
            }
        }
    }
}
