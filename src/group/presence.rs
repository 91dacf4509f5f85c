//! The data that a member and its group exchange without the group's lock.
//!
//! Owns: when the member polled last, whether it has something to do, and whether it is fenced.
//! Must not know: what the member owns, and clocks (the caller reads the clock before). Time is
//! nanoseconds on the broker's clock.

use std::sync::Arc;
#[cfg(feature = "replication")]
use std::sync::Weak;
use std::time::Duration;

use super::deadlines::NEVER;
use crate::partition::waiters::Notifier;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Stands for the time of the last poll while the member is inside one.
const WAITING: u64 = u64::MAX;

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

#[derive(Debug)]
pub(super) struct Presence {
    notifier: Arc<Notifier>,
    /// Whether a poll has anything to report. Written under the group's lock, read by the member.
    ///
    /// ORDERING: a hint; the state itself is read under the lock. The call of the notifier that
    /// follows it wakes a member that has read the old value and parked.
    needs_attention: AtomicBool,
    /// When the member polled last, or `WAITING`. A sweep that reads an old value evicts a member
    /// that was overdue. If a waiting member was woken and has not polled, the sweep stores its own
    /// time.
    ///
    /// ORDERING: stored with Release by the member, loaded with Acquire by the sweep of any thread,
    /// under the group's lock. The time is all that it publishes; the pair keeps it in order with
    /// the signals of the notifier, at which the sweep looks next.
    last_poll: AtomicU64,
    max_poll_interval: u64,
    /// The epoch of the newer holder of the instance id; 0 while there is none.
    ///
    /// ORDERING: stored once with Release, under the group's lock and before `needs_attention`;
    /// loaded with Acquire by the member, which holds that lock or has seen `needs_attention`. With
    /// Relaxed a member that was fenced could find no reason for its attention.
    fenced_by: AtomicU32,
    /// Whether the broker does not have the group any more under which the consumer was a member.
    ///
    /// ORDERING: as `fenced_by`.
    #[cfg(feature = "replication")]
    is_dismissed: AtomicBool,
}

impl Presence {
    pub(super) fn new(notifier: &Arc<Notifier>, interval: Duration, now: u64) -> Arc<Self> {
        Arc::new(Self {
            notifier: Arc::clone(notifier),
            needs_attention: AtomicBool::new(true),
            last_poll: AtomicU64::new(now),
            max_poll_interval: nanos(interval),
            fenced_by: AtomicU32::new(0),
            #[cfg(feature = "replication")]
            is_dismissed: AtomicBool::new(false),
        })
    }

    #[inline]
    pub(super) fn needs_attention(&self) -> bool {
        self.needs_attention.load(Ordering::Acquire)
    }

    pub(super) fn set_attention(&self, needs_attention: bool) {
        self.needs_attention.store(needs_attention, Ordering::Release);
    }

    #[inline]
    pub(super) fn polled(&self, now: u64) {
        self.last_poll.store(now, Ordering::Release);
    }

    pub(super) fn waits(&self) {
        self.last_poll.store(WAITING, Ordering::Release);
    }

    /// When the member will be overdue, if it does not poll again.
    pub(super) fn deadline(&self, now: u64) -> u64 {
        let last = self.last_poll.load(Ordering::Acquire);
        if last == WAITING && self.notifier.has_signals() {
            // It was woken and has not polled since: a thread is about to, but a task may have been
            // dropped together with its stream. From now on it counts as if it had polled now.
            // ORDERING: a member that polls in between has stored its own time, which remains.
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            let _ = self.last_poll.compare_exchange(WAITING, now, success, failure);
        }
        let last = if last == WAITING { now } else { last };
        last.saturating_add(self.max_poll_interval)
    }

    /// A newer consumer holds the instance id, under this epoch.
    pub(super) fn fence(&self, by: u32) {
        self.fenced_by.store(by, Ordering::Release);
        self.set_attention(true);
    }

    #[cfg(feature = "replication")]
    pub(super) fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
        self.set_attention(true);
    }

    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "a constant"))]
    pub(super) fn is_dismissed(&self) -> bool {
        #[cfg(feature = "replication")]
        return self.is_dismissed.load(Ordering::Acquire);
        #[cfg(not(feature = "replication"))]
        false
    }

    pub(super) fn fenced_by(&self) -> Option<u32> {
        Some(self.fenced_by.load(Ordering::Acquire)).filter(|by| *by > 0)
    }
}

/// The members to wake once no lock is held.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Wakeups(Vec<Arc<Notifier>>);

impl Wakeups {
    pub(super) fn add(&mut self, presence: &Presence) {
        self.0.push(Arc::clone(&presence.notifier));
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    #[cfg(feature = "replication")]
    pub(super) fn of(notifiers: impl Iterator<Item = Arc<Notifier>>) -> Self {
        Self(notifiers.collect())
    }

    #[cfg(feature = "replication")]
    pub(super) fn notifiers(&self) -> impl Iterator<Item = Weak<Notifier>> {
        self.0.iter().map(Arc::downgrade)
    }

    pub(super) fn call(self) {
        for notifier in self.0 {
            notifier.call();
        }
    }
}
