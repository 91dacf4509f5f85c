//! `Leadership`: whether this member of a replicated group leads, for all partitions of its broker.
//!
//! Owns: the epoch that it leads, who leads otherwise, whether it hears a majority, which partitions
//! have news for the other members, and in which of them calls wait for a majority. One for a broker, shared by its partitions. Must not
//! know: members, messages, and how news travels.
//!
//! An append asks [`check`](Leadership::check) under the lock of its partition. Who ends a leadership
//! calls [`end`](Leadership::end) first, and then takes that lock of each partition: from then on
//! nothing of the old epoch is appended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::record::NodeId;
use crate::sync::{AtomicBool, AtomicU32, LockLevel, Mutex, Ordering};

/// What an append of a replicated broker is promised, and what it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeadershipTerms {
    /// How long a call waits for a majority, on the broker's monotonic clock.
    pub(crate) ack_timeout: Duration,
    /// How many bytes that no majority has a partition may hold.
    pub(crate) max_uncommitted_bytes: u64,
}

/// A partition by its topic and its number.
pub(crate) type PartitionId = (TopicId, u32);

/// The calls that wait for a majority in one partition.
pub(crate) trait Waits: Send + Sync {
    /// Ends those whose deadline has passed at `now`, on the broker's monotonic clock. Returns the
    /// next deadline.
    fn expire(&self, now: Duration) -> Option<Duration>;
}

#[derive(Default)]
struct Known {
    /// Who leads, as far as this member knows.
    leader: Option<NodeId>,
    reachable: usize,
    required: usize,
    changed: BTreeSet<PartitionId>,
    /// Nobody was woken for them: a caller will announce them.
    is_unannounced: bool,
    /// The partitions in which a call waits, or has waited since [`Leadership::expire_waits`] last
    /// looked.
    waiting: BTreeMap<PartitionId, Weak<dyn Waits>>,
}

pub(crate) struct Leadership {
    terms: LeadershipTerms,
    /// The epoch that this member leads; zero if it does not.
    ///
    /// ORDERING: stored with Release after the logs were given the epoch, loaded with Acquire under
    /// the lock of a partition: an append that sees it writes that epoch.
    epoch: AtomicU32,
    /// Whether it hears a majority.
    ///
    /// ORDERING: Relaxed: it publishes nothing. An append that sees the old value is one that came
    /// a moment earlier.
    has_majority: AtomicBool,
    known: Mutex<Known>,
    /// Called when there is news, under no lock of this part.
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Called by a thread that is about to wait for a majority, under no lock at all: sends the others
    /// the news, or has it sent.
    announcer: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Leadership {
    /// That of a member that does not lead, and knows of no leader.
    pub(crate) fn new(terms: LeadershipTerms) -> Self {
        Self {
            terms,
            epoch: AtomicU32::new(0),
            has_majority: AtomicBool::new(true),
            known: Mutex::at_level(LockLevel::Leadership, Known::default()),
            waker: OnceLock::new(),
            announcer: OnceLock::new(),
        }
    }

    pub(crate) fn terms(&self) -> LeadershipTerms {
        self.terms
    }

    /// What is called when a partition has news. Only the first one counts.
    pub(crate) fn set_waker(&self, waker: Box<dyn Fn() + Send + Sync>) {
        let _ = self.waker.set(waker);
    }

    /// What sends news on the thread that waits for it. Only the first one counts. Without one there are
    /// no such threads.
    pub(crate) fn set_announcer(&self, announcer: Box<dyn Fn() + Send + Sync>) {
        let _ = self.announcer.set(announcer);
    }

    // ---- of the one who decides ----------------------------------------------------------------

    /// This member leads `epoch` from now on: appends are taken. It has just heard a majority.
    pub(crate) fn lead(&self, epoch: u32) {
        self.has_majority.store(true, Ordering::Relaxed);
        self.epoch.store(epoch, Ordering::Release);
    }

    /// It leads no more. Until the next one is known, refused calls name nobody: not this member.
    pub(crate) fn end(&self) {
        if self.leads().is_some() {
            self.note_leader(None);
        }
        self.epoch.store(0, Ordering::Release);
    }

    /// Who leads, for those whose calls are refused.
    pub(crate) fn note_leader(&self, leader: Option<NodeId>) {
        self.known.lock().leader = leader;
    }

    /// How many members this one hears, itself among them, and how many a majority has.
    pub(crate) fn note_reach(&self, reachable: usize, required: usize) {
        let mut known = self.known.lock();
        (known.reachable, known.required) = (reachable, required);
        drop(known);
        self.has_majority.store(reachable >= required, Ordering::Relaxed);
    }

    /// The partitions that have had news since the last call.
    pub(crate) fn take_changed(&self) -> Vec<PartitionId> {
        let mut known = self.known.lock();
        known.is_unannounced = false;
        std::mem::take(&mut known.changed).into_iter().collect()
    }

    /// Ends the waits for a majority whose deadline has passed at `now`, on the broker's monotonic
    /// clock. Returns the next deadline. Looks only at partitions in which calls wait.
    pub(crate) fn expire_waits(&self, now: Duration) -> Option<Duration> {
        let waiting: Vec<_> = self.known.lock().waiting.values().cloned().collect();
        let each = waiting.iter().filter_map(Weak::upgrade);
        each.filter_map(|waits| waits.expire(now)).min()
    }

    /// Whether a call waits in any partition, or has waited since the waits were last looked at.
    #[cfg(test)]
    pub(crate) fn has_waits(&self) -> bool {
        !self.known.lock().waiting.is_empty()
    }

    // ---- of the partitions ---------------------------------------------------------------------

    /// The epoch that this member leads, if it takes appends.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`], and [`Error::NotEnoughReplicas`] without a majority. Both are definite.
    #[inline]
    pub(crate) fn check(&self) -> Result<u32> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch == 0 || !self.has_majority.load(Ordering::Relaxed) {
            return Err(if epoch == 0 { self.not_leader() } else { self.not_enough() });
        }
        Ok(epoch)
    }

    /// The epoch that this member leads, with a majority or without; `None` if it does not lead.
    pub(crate) fn leads(&self) -> Option<u32> {
        Some(self.epoch.load(Ordering::Acquire)).filter(|epoch| *epoch > 0)
    }

    #[cold]
    pub(crate) fn not_leader(&self) -> Error {
        Error::NotLeader { leader: self.known.lock().leader }
    }

    /// The error of an append that would have to wait for members that are not heard, or are behind.
    #[cold]
    pub(crate) fn not_enough(&self) -> Error {
        let known = self.known.lock();
        Error::NotEnoughReplicas { reachable: known.reachable, required: known.required }
    }

    /// Calls wait for a majority in a partition.
    pub(super) fn list_waits(&self, partition: PartitionId, waits: &Arc<impl Waits + 'static>) {
        let waits: Weak<dyn Waits> = Arc::downgrade(waits) as _;
        self.known.lock().waiting.insert(partition, waits);
    }

    /// No call waits there any more.
    pub(super) fn unlist_waits(&self, partition: &PartitionId) {
        self.known.lock().waiting.remove(partition);
    }

    /// A partition has news for the other members: records, a sync, a log start. The partition holds
    /// no lock of its own, but its caller may hold one of an internal log: what is woken must not wait.
    pub(crate) fn changed(&self, partition: PartitionId) {
        let is_first = {
            let mut known = self.known.lock();
            let was_empty = known.changed.is_empty();
            known.changed.insert(partition);
            std::mem::take(&mut known.is_unannounced) || was_empty
        };
        if is_first && let Some(waker) = self.waker.get() {
            waker();
        }
    }

    /// The same, by a thread that calls [`announce`](Self::announce) soon: nobody is woken.
    pub(super) fn changed_unannounced(&self, partition: PartitionId) {
        if self.announcer.get().is_none() {
            return self.changed(partition);
        }
        let mut known = self.known.lock();
        known.is_unannounced |= known.changed.is_empty();
        known.changed.insert(partition);
    }

    /// Sends the others what is not announced yet. The caller waits for it: it may as well send it, which
    /// saves the wake-up of a thread. It holds no lock.
    pub(super) fn announce(&self) {
        let is_wanted = std::mem::take(&mut self.known.lock().is_unannounced);
        if is_wanted && let Some(announcer) = self.announcer.get() {
            announcer();
        }
    }
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leadership").field("terms", &self.terms).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::AtomicUsize;

    const TERMS: LeadershipTerms =
        LeadershipTerms { ack_timeout: Duration::from_secs(30), max_uncommitted_bytes: 1 << 20 };

    #[test]
    fn appends_are_taken_while_it_leads_and_hears_a_majority() {
        let leadership = Leadership::new(TERMS);
        assert!(matches!(leadership.check(), Err(Error::NotLeader { leader: None })));
        leadership.note_leader(Some(NodeId(3)));
        assert!(matches!(leadership.check(), Err(Error::NotLeader { leader: Some(NodeId(3)) })));
        leadership.lead(7);
        assert_eq!(leadership.check().unwrap(), 7);
        leadership.note_reach(1, 2);
        let refused = leadership.check();
        assert!(
            matches!(refused, Err(Error::NotEnoughReplicas { reachable: 1, required: 2 })),
            "{refused:?}"
        );
        assert_eq!(leadership.leads(), Some(7));
        leadership.note_reach(2, 2);
        assert_eq!(leadership.check().unwrap(), 7);
        leadership.end();
        assert!(leadership.check().is_err() && leadership.leads().is_none());
    }

    /// Calls that were refused at the end of a leadership named this member as the one that leads, and the
    /// application sent them to it again.
    // RED: src/partition/leadership.rs
    //   - self.note_leader(None);
    #[test]
    fn at_the_end_of_a_leadership_this_member_is_not_named() {
        let leadership = Leadership::new(TERMS);
        leadership.lead(7);
        leadership.note_leader(Some(NodeId(1)));
        leadership.end();
        let refused = leadership.check();
        assert!(matches!(refused, Err(Error::NotLeader { leader: None })), "{refused:?}");
        // One that did not lead knows who does.
        leadership.note_leader(Some(NodeId(2)));
        leadership.end();
        assert!(matches!(leadership.check(), Err(Error::NotLeader { leader: Some(NodeId(2)) })));
    }

    #[test]
    fn news_wakes_once_until_it_is_taken() {
        let leadership = Leadership::new(TERMS);
        let woken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&woken);
        leadership.set_waker(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        let (a, b) = ((TopicId([1; 16]), 0), (TopicId([1; 16]), 1));
        for partition in [b, a, a] {
            leadership.changed(partition);
        }
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(leadership.take_changed(), [a, b]);
        assert!(leadership.take_changed().is_empty());
        leadership.changed(b);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    /// What a caller announces itself wakes nobody, and is announced once. If there is other news before
    /// it does, that wakes the member, which takes both.
    // RED: src/partition/leadership.rs
    //   - std::mem::take(&mut known.is_unannounced) || was_empty
    //   + was_empty
    #[test]
    fn what_a_caller_announces_wakes_nobody() {
        let leadership = Leadership::new(TERMS);
        let [woken, announced] = [0; 2].map(|_| Arc::new(AtomicUsize::new(0)));
        let count = |of: &Arc<AtomicUsize>| {
            let of = Arc::clone(of);
            Box::new(move || {
                of.fetch_add(1, Ordering::Relaxed);
            })
        };
        let counted = || [&woken, &announced].map(|of| of.load(Ordering::Relaxed));
        let (a, b) = ((TopicId([1; 16]), 0), (TopicId([1; 16]), 1));
        leadership.set_waker(count(&woken));
        leadership.changed_unannounced(a);
        leadership.announce();
        assert_eq!(counted(), [1, 0], "there is nobody who could announce it");
        leadership.take_changed();

        leadership.set_announcer(count(&announced));
        leadership.changed_unannounced(a);
        leadership.changed_unannounced(b);
        assert_eq!(counted(), [1, 0]);
        leadership.announce();
        leadership.announce();
        assert_eq!(counted(), [1, 1]);
        assert_eq!(leadership.take_changed(), [a, b]);

        leadership.changed_unannounced(a);
        leadership.changed(b);
        leadership.announce();
        assert_eq!(counted(), [2, 1]);
        leadership.take_changed();
        leadership.announce();
        assert_eq!(counted(), [2, 1], "it was taken");
    }
}
