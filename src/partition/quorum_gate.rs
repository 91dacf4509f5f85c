//! The gate at which calls wait until a majority has their records.
//!
//! A wait ends when the high watermark reaches it, when its deadline passes, or when the leadership
//! under which its records were appended has ended. In the last case another leader may have
//! truncated the records, or may yet find and keep them: the outcome is unknown. That stays so if
//! the watermark rises above them later, because other records may have their offsets then. Only
//! what was below the watermark when the leadership ended is known to be kept.
//!
//! Owns: the watermark as far as waits have learned of it, the leadership that ended last, and the
//! wakers. It does no I/O and reads no clock: deadlines are of the broker's monotonic clock, and
//! pass when [`expire`](Waits::expire) is called; a thread that waits also looks itself. While calls
//! wait, the leadership lists the gate, so that this is called for the gates with waits alone. Must
//! not know: the log, and who appended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::lead::PartitionLead;
use super::leadership::Waits;
use crate::error::Error;
use crate::foreign;
use crate::sync::{Condvar, LockLevel, Mutex, MutexGuard};

/// Why it is not known whether a majority has the records. They may or may not be kept.
#[derive(Debug, Clone)]
pub(crate) enum Unconfirmed {
    TimedOut,
    LeadershipEnded,
    /// The partition was closed, or has failed.
    Failed(Error),
}

impl From<Unconfirmed> for Error {
    fn from(unconfirmed: Unconfirmed) -> Self {
        match unconfirmed {
            Unconfirmed::TimedOut => Self::Timeout,
            Unconfirmed::LeadershipEnded => Self::LeadershipLost,
            Unconfirmed::Failed(error) => error,
        }
    }
}

/// What a majority must have done with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// They are below the high watermark.
    Held,
    /// They are on stable storage, too.
    Synced,
}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// The end of its records.
    pub(crate) end: u64,
    /// The epoch of the leadership under which they were appended.
    pub(crate) epoch: u32,
    /// On the broker's monotonic clock.
    pub(crate) deadline: Duration,
    pub(crate) measure: Measure,
}

/// A wait: by its measure, end and ticket, so that what a majority has done answers a prefix.
type Key = (Measure, u64, u64);

/// A leadership that has ended, and what a majority had done at that moment.
#[derive(Debug, Clone, Copy)]
struct Ended {
    epoch: u32,
    reached: Reached,
}

/// The offsets below which a majority has done its part.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    watermark: u64,
    synced: u64,
}

impl Reached {
    fn of(self, measure: Measure) -> u64 {
        match measure {
            Measure::Held => self.watermark,
            Measure::Synced => self.synced,
        }
    }
}

/// The last leadership that ended with records of which a majority was not known to have done this.
#[derive(Debug, Default)]
struct Lossy {
    held: u32,
    /// Most of them nobody had asked for.
    synced: u32,
}

#[derive(Debug, Default)]
struct Calls {
    reached: Reached,
    /// Up to where calls wait, or have waited, for a majority to sync, and under which leadership.
    wanted: (u32, u64),
    ended: Option<Ended>,
    lossy: Lossy,
    /// The latest time that is known.
    now: Duration,
    /// Final.
    failure: Option<Error>,
    /// A thread that waits has no waker.
    waiting: BTreeMap<Key, (Awaited, Option<Waker>)>,
    /// The deadline of each of them.
    deadlines: BTreeSet<(Duration, Key)>,
    next_ticket: u64,
    /// Whether the leadership lists the gate.
    is_listed: bool,
}

impl Calls {
    /// The result of a wait, if it is known.
    fn answer(&self, awaited: &Awaited) -> Option<Result<(), Unconfirmed>> {
        let is_kept = match self.ended {
            Some(ended) if awaited.epoch < ended.epoch => false,
            Some(ended) if awaited.epoch == ended.epoch => {
                awaited.end <= ended.reached.of(awaited.measure)
            }
            _ => awaited.end <= self.reached.of(awaited.measure),
        };
        if is_kept {
            return Some(Ok(()));
        }
        if let Some(failure) = &self.failure {
            return Some(Err(Unconfirmed::Failed(failure.clone())));
        }
        if self.ended.is_some_and(|ended| awaited.epoch <= ended.epoch) {
            return Some(Err(Unconfirmed::LeadershipEnded));
        }
        (awaited.deadline <= self.now).then_some(Err(Unconfirmed::TimedOut))
    }

    /// Adds a wait, or replaces its waker. Returns the earlier waker.
    fn insert(&mut self, awaited: Awaited, ticket: u64, waker: Option<Waker>) -> Option<Waker> {
        let key = (awaited.measure, awaited.end, ticket);
        self.deadlines.insert((awaited.deadline, key));
        self.waiting.insert(key, (awaited, waker)).and_then(|(_, waker)| waker)
    }

    /// Removes a wait, and returns its waker.
    fn remove(&mut self, key: Key) -> Option<Waker> {
        let (awaited, waker) = self.waiting.remove(&key)?;
        self.deadlines.remove(&(awaited.deadline, key));
        waker
    }

    /// Removes the waits that a majority answers. Returns their wakers, and whether threads wait so.
    fn take_reached(&mut self) -> (Vec<Waker>, bool) {
        let (mut wakers, mut has_threads) = (Vec::new(), false);
        for measure in [Measure::Held, Measure::Synced] {
            let reached = self.reached.of(measure);
            let answered = (measure, 0, 0)..=(measure, reached, u64::MAX);
            while let Some((&key, _)) = self.waiting.range(answered.clone()).next() {
                let waker = self.remove(key);
                has_threads |= waker.is_none();
                wakers.extend(waker);
            }
        }
        (wakers, has_threads)
    }

    /// Removes the waits whose deadline has passed, and returns their wakers.
    fn take_expired(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some(&(deadline, key)) = self.deadlines.first()
            && deadline <= self.now
        {
            wakers.extend(self.remove(key));
        }
        wakers
    }

    /// Removes all waits that have an answer, and returns their wakers.
    fn take_answered(&mut self) -> Vec<Waker> {
        let answered = self.waiting.iter().filter(|(_, (it, _))| self.answer(it).is_some());
        let answered: Vec<_> = answered.map(|(key, _)| *key).collect();
        answered.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    fn new_ticket(&mut self) -> u64 {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.next_ticket
    }
}

#[derive(Debug)]
pub(super) struct QuorumGate {
    waits: Mutex<Calls>,
    changed: Condvar,
    lead: PartitionLead,
}

impl QuorumGate {
    pub(super) fn new(lead: PartitionLead) -> Arc<Self> {
        let waits = Mutex::at_level(LockLevel::QuorumGate, Calls::default());
        Arc::new(Self { waits, changed: Condvar::new(), lead })
    }

    /// Blocks until the result is known.
    #[cfg(all(test, not(loom)))]
    fn wait(self: &Arc<Self>, awaited: Awaited) -> Result<(), Unconfirmed> {
        self.wait_until(awaited, None).unwrap_or(Err(Unconfirmed::TimedOut))
    }

    /// Blocks until the result is known; `None` if that is not before the moment `until`.
    pub(super) fn wait_until(
        self: &Arc<Self>,
        awaited: Awaited,
        until: Option<Instant>,
    ) -> Option<Result<(), Unconfirmed>> {
        let mut waits = self.waits.lock();
        if let Some(answer) = waits.answer(&awaited) {
            return Some(answer);
        }
        // For its deadline.
        let ticket = waits.new_ticket();
        waits.insert(awaited, ticket, None);
        self.list(&mut waits);
        loop {
            let is_over;
            (waits, is_over) = match until {
                Some(until) => self.changed.wait_until(waits, until),
                None => (self.changed.wait(waits), false),
            };
            let answer = waits.answer(&awaited);
            if answer.is_some() || is_over {
                drop(waits.remove((awaited.measure, awaited.end, ticket)));
                return answer;
            }
        }
    }

    /// Has the leadership list the gate, which has a wait now.
    fn list(self: &Arc<Self>, waits: &mut Calls) {
        if !waits.is_listed {
            waits.is_listed = true;
            self.lead.list_waits(self);
        }
    }

    /// The result if it is known; otherwise `waker` is woken when it is. `ticket` is `None` for the
    /// first poll. Later polls with it replace the waker, and [`forget`](Self::forget) ends the
    /// wait.
    pub(super) fn poll(
        self: &Arc<Self>,
        awaited: &Awaited,
        waker: &Waker,
        ticket: &mut Option<u64>,
    ) -> Option<Result<(), Unconfirmed>> {
        // Cloning and dropping a waker run the executor's code, so neither happens under the lock.
        let waker = waker.clone();
        let mut waits = self.waits.lock();
        if let Some(answer) = waits.answer(awaited) {
            return Some(answer);
        }
        let ticket = *ticket.get_or_insert_with(|| waits.new_ticket());
        let before = waits.insert(*awaited, ticket, Some(waker));
        self.list(&mut waits);
        drop(waits);
        drop(before);
        None
    }

    /// Ends the wait of this ticket.
    pub(super) fn forget(&self, awaited: &Awaited, ticket: u64) {
        let before = self.waits.lock().remove((awaited.measure, awaited.end, ticket));
        drop(before);
    }

    /// Takes note of a watermark. [`answer_reached`](Self::answer_reached) wakes those that it
    /// answers, once the caller holds no lock.
    pub(super) fn raise(&self, watermark: u64) {
        let mut waits = self.waits.lock();
        waits.reached.watermark = waits.reached.watermark.max(watermark);
    }

    /// Takes note of how far a majority has synced, which is not above the watermark: as of
    /// [`raise`](Self::raise).
    pub(super) fn raise_synced(&self, offset: u64) {
        let mut waits = self.waits.lock();
        waits.reached.synced = waits.reached.synced.max(offset);
    }

    /// A call waits until a majority has synced everything below `end`, under the leadership of `epoch`.
    /// Returns whether that is news: each leadership asks the others anew.
    pub(super) fn want_synced(&self, epoch: u32, end: u64) -> bool {
        let mut waits = self.waits.lock();
        let is_news = waits.wanted < (epoch, end);
        waits.wanted = waits.wanted.max((epoch, end));
        is_news
    }

    pub(super) fn wanted(&self) -> u64 {
        self.waits.lock().wanted.1
    }

    /// Takes note that the leadership of `epoch`, and all before it, have ended, and that the log
    /// ended at `log_end` then.
    pub(super) fn end_leadership(&self, epoch: u32, log_end: u64) {
        let mut waits = self.waits.lock();
        if waits.ended.is_none_or(|ended| ended.epoch < epoch) {
            waits.ended = Some(Ended { epoch, reached: waits.reached });
            if waits.reached.watermark < log_end {
                waits.lossy.held = epoch;
            }
            if waits.reached.synced < log_end {
                waits.lossy.synced = epoch;
            }
        }
        let wakers = waits.take_answered();
        self.wake(waits, wakers);
    }

    /// Whether a majority had everything, by this measure, when the leaderships from `epoch` on ended; the
    /// epoch of the last one if not. `None` if that of `epoch` has not ended.
    pub(super) fn ended_since(&self, epoch: u32, measure: Measure) -> Option<Result<(), u32>> {
        let waits = self.waits.lock();
        let lossy = match measure {
            Measure::Held => waits.lossy.held,
            Measure::Synced => waits.lossy.synced,
        };
        if epoch <= lossy {
            return Some(Err(lossy));
        }
        waits.ended.filter(|ended| ended.epoch >= epoch).map(|_| Ok(()))
    }

    /// Ends all present and later waits with `error`, except those for records that are kept.
    pub(super) fn fail(&self, error: Error) {
        let mut waits = self.waits.lock();
        waits.failure.get_or_insert(error);
        let wakers = waits.take_answered();
        self.wake(waits, wakers);
    }

    /// Wakes those that the watermark has reached.
    pub(super) fn answer_reached(&self) {
        let mut waits = self.waits.lock();
        let (wakers, has_threads) = waits.take_reached();
        drop(waits);
        // Threads that the watermark has not reached sleep on.
        if has_threads {
            self.changed.notify_all();
        }
        wakers.into_iter().for_each(foreign::wake);
    }

    /// Wakes threads and tasks, outside the lock.
    fn wake(&self, waits: MutexGuard<'_, Calls>, wakers: Vec<Waker>) {
        drop(waits);
        self.changed.notify_all();
        for waker in wakers {
            foreign::wake(waker);
        }
    }
}

impl Waits for QuorumGate {
    fn expire(&self, now: Duration) -> Option<Duration> {
        let mut waits = self.waits.lock();
        waits.now = waits.now.max(now);
        let before = waits.deadlines.len();
        let wakers = waits.take_expired();
        let next = waits.deadlines.first().map(|(deadline, ..)| *deadline);
        if next.is_none() && waits.is_listed {
            waits.is_listed = false;
            self.lead.unlist_waits();
        }
        if waits.deadlines.len() < before {
            self.wake(waits, wakers);
        }
        next
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    const NEVER: Duration = Duration::MAX;

    fn awaited(end: u64, epoch: u32) -> Awaited {
        Awaited { end, epoch, deadline: NEVER, measure: Measure::Held }
    }

    /// The answer that is known now, without waiting.
    fn new_gate() -> Arc<QuorumGate> {
        QuorumGate::new(PartitionLead::default())
    }

    fn answer(gate: &Arc<QuorumGate>, awaited: Awaited) -> Option<Result<(), Unconfirmed>> {
        let mut ticket = None;
        let answer = gate.poll(&awaited, Waker::noop(), &mut ticket);
        if let Some(ticket) = ticket {
            gate.forget(&awaited, ticket);
        }
        answer
    }

    #[test]
    fn a_wait_ends_when_the_watermark_reaches_its_end() {
        let gate = new_gate();
        let waiting = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.wait(awaited(5, 1)))
        };
        gate.raise(4);
        gate.answer_reached();
        assert!(answer(&gate, awaited(5, 1)).is_none());
        gate.raise(5);
        gate.answer_reached();
        waiting.join().unwrap().unwrap();
        gate.raise(2);
        assert!(matches!(answer(&gate, awaited(5, 1)), Some(Ok(()))), "it never falls");
    }

    // RED: src/partition/quorum_gate.rs
    //   - Measure::Synced => self.synced,
    //   + Measure::Synced => self.watermark,
    #[test]
    fn a_wait_for_a_sync_ends_when_a_majority_has_synced() {
        let gate = new_gate();
        let synced = |end| Awaited { measure: Measure::Synced, ..awaited(end, 1) };
        assert!(gate.want_synced(1, 5) && !gate.want_synced(1, 5) && !gate.want_synced(1, 4));
        assert!(gate.want_synced(2, 4) && !gate.want_synced(1, 5), "each leadership asks anew");
        assert_eq!(gate.wanted(), 4);
        let waiting = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.wait(synced(5)))
        };
        gate.raise(5);
        gate.answer_reached();
        assert!(matches!(answer(&gate, awaited(5, 1)), Some(Ok(()))));
        assert!(answer(&gate, synced(5)).is_none());
        gate.raise_synced(5);
        gate.answer_reached();
        waiting.join().unwrap().unwrap();
        gate.raise(7);
        gate.end_leadership(1, 9);
        assert!(matches!(answer(&gate, synced(5)), Some(Ok(()))));
        assert!(matches!(answer(&gate, synced(6)), Some(Err(Unconfirmed::LeadershipEnded))));
    }

    /// H13: a leader that has lost its leadership cannot know what became of the last records.
    #[test]
    fn what_was_above_the_watermark_at_the_end_of_a_leadership_stays_unknown() {
        let gate = new_gate();
        gate.raise(4);
        gate.end_leadership(2, 9);
        // Another leader, under which other records got the offsets from 4 on.
        gate.raise(9);
        let unknown = |answer| matches!(answer, Some(Err(Unconfirmed::LeadershipEnded)));
        assert!(matches!(answer(&gate, awaited(4, 2)), Some(Ok(()))));
        assert!(unknown(answer(&gate, awaited(5, 2))));
        assert!(unknown(answer(&gate, awaited(5, 1))), "of an earlier leadership");
        assert!(matches!(answer(&gate, awaited(9, 3)), Some(Ok(()))), "a later leadership");
        assert!(answer(&gate, awaited(10, 3)).is_none());
        gate.end_leadership(1, 9);
        assert!(answer(&gate, awaited(10, 3)).is_none(), "a late report of an earlier end");
    }

    #[test]
    fn the_end_of_a_leadership_wakes_all_that_wait_under_it() {
        let gate = new_gate();
        let waiting = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.wait(awaited(5, 1)))
        };
        let (mut ticket, waker) = (None, Waker::noop());
        assert!(gate.poll(&awaited(7, 1), waker, &mut ticket).is_none());
        gate.end_leadership(1, 9);
        let answers =
            [Some(waiting.join().unwrap()), gate.poll(&awaited(7, 1), waker, &mut ticket)];
        for answer in answers {
            assert!(matches!(answer, Some(Err(Unconfirmed::LeadershipEnded))), "{answer:?}");
        }
    }

    #[test]
    fn a_deadline_passes_when_the_brokers_clock_says_so() {
        let gate = new_gate();
        let at = Duration::from_secs;
        let until = |seconds| Awaited { deadline: at(seconds), ..awaited(5, 1) };
        let waiting = {
            let gate = Arc::clone(&gate);
            let until = until(30);
            thread::spawn(move || gate.wait(until))
        };
        let mut ticket = None;
        assert!(gate.poll(&until(40), Waker::noop(), &mut ticket).is_none());
        while gate.expire(at(10)) != Some(at(30)) {
            thread::yield_now();
        }
        assert_eq!(gate.expire(at(30)), Some(at(40)));
        assert!(matches!(waiting.join().unwrap(), Err(Unconfirmed::TimedOut)));
        assert!(gate.poll(&until(40), Waker::noop(), &mut ticket).is_none());
        gate.raise(5);
        gate.answer_reached();
        assert_eq!(gate.expire(at(40)), None, "an answered wait has no deadline");
        assert!(matches!(answer(&gate, until(40)), Some(Ok(()))), "kept is kept, however late");
    }

    #[test]
    fn a_close_ends_all_waits_but_those_for_what_is_kept() {
        let gate = new_gate();
        gate.raise(3);
        gate.fail(Error::Closed);
        assert!(matches!(answer(&gate, awaited(3, 1)), Some(Ok(()))));
        let closed = answer(&gate, awaited(4, 1));
        assert!(matches!(closed, Some(Err(Unconfirmed::Failed(Error::Closed)))), "{closed:?}");
    }
}
