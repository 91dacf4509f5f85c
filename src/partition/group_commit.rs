//! Group commit: one sync serves all threads that wait for one.
//!
//! A waiter never joins a sync that is in flight, because that sync may have begun before the
//! waiter's record was published. It waits for the next one. If none is in flight, a waiter runs
//! the sync itself, while the next group publishes and queues.
//!
//! [`GroupCommit`] is the pure state. [`SyncGate`] puts a lock and a condition variable around it,
//! and the model checker runs exactly this code.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::foreign;
use crate::sync::{Condvar, LockLevel, Mutex, MutexGuard};

/// The wait of a task, from its first poll to its last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    number: u64,
    /// How often the log had been truncated at the first poll.
    cuts: u64,
}

/// What a waiter does next.
#[derive(Debug)]
enum Turn {
    /// Its offset is durable.
    Done,
    /// No sync can be believed any more.
    Failed(Error),
    /// No sync is in flight.
    Idle,
    /// A sync is in flight: wait for its end, then take another turn.
    InFlight,
}

#[derive(Debug, Default)]
struct GroupCommit {
    /// The end that the syncs of the gate have covered.
    durable_end: u64,
    in_flight: bool,
    /// Final: no later sync can make up for a failed one.
    failure: Option<Error>,
    /// By target and ticket, so that the answered ones are a prefix.
    wakers: BTreeMap<(u64, u64), Waker>,
    next_ticket: u64,
    /// How often the durable end has fallen, because the log was truncated.
    cuts: u64,
    /// The last of these before which the log was not made durable.
    unsynced_cut: u64,
}

impl GroupCommit {
    fn turn(&self, target: u64) -> Turn {
        if self.durable_end >= target {
            return Turn::Done;
        }
        match &self.failure {
            Some(error) => Turn::Failed(error.clone()),
            None if self.in_flight => Turn::InFlight,
            None => Turn::Idle,
        }
    }

    /// The answer for a wait that began when the log had been truncated so often; `None` if it was
    /// not truncated since.
    fn answer_of_cut(&self, cuts: u64) -> Option<Result<()>> {
        if self.cuts == cuts {
            return None;
        }
        // Otherwise all of the log was made durable before it was truncated.
        Some(if self.unsynced_cut > cuts { Err(Error::LeadershipLost) } else { Ok(()) })
    }

    /// Records the result of a sync.
    fn finish(&mut self, outcome: Result<u64>) {
        self.in_flight = false;
        match outcome {
            Ok(durable_end) => self.durable_end = self.durable_end.max(durable_end),
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
    }

    /// The wakers that have an answer now.
    fn take_answered(&mut self) -> Vec<Waker> {
        let waiting = match self.durable_end.checked_add(1).filter(|_| self.failure.is_none()) {
            Some(next) => self.wakers.split_off(&(next, 0)),
            None => BTreeMap::new(),
        };
        std::mem::replace(&mut self.wakers, waiting).into_values().collect()
    }
}

/// The gate at which callers wait until an offset is durable.
#[derive(Debug)]
pub(crate) struct SyncGate {
    state: Mutex<GroupCommit>,
    ended: Condvar,
}

impl SyncGate {
    pub(crate) fn new(durable_end: u64) -> Self {
        Self {
            state: Mutex::at_level(
                LockLevel::GroupCommit,
                GroupCommit { durable_end, ..GroupCommit::default() },
            ),
            ended: Condvar::new(),
        }
    }

    /// Waits until everything below `target` is durable. `sync` makes durable what is published
    /// when it is called and returns the end of that; it runs in the thread of a waiter, without
    /// any lock of the gate. Without `sync`, another thread was asked to sync. `log_end` reads the
    /// end that is published.
    ///
    /// # Errors
    ///
    /// The error of the sync; [`Error::Timeout`] when `deadline` passes first;
    /// [`Error::LeadershipLost`] for what was cut off before this call.
    pub(crate) fn wait(
        &self,
        target: u64,
        deadline: Option<Instant>,
        sync: Option<&dyn Fn() -> Result<u64>>,
        log_end: &dyn Fn() -> u64,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let cuts = state.cuts;
        check_target(target, log_end)?;
        loop {
            if let Some(answer) = state.answer_of_cut(cuts) {
                return answer;
            }
            match (state.turn(target), sync) {
                (Turn::Done, _) => return Ok(()),
                (Turn::Failed(error), _) => return Err(error),
                (Turn::Idle, Some(sync)) => {
                    state.in_flight = true;
                    drop(state);
                    self.run(sync);
                    state = self.state.lock();
                }
                (Turn::Idle | Turn::InFlight, _) => state = self.wait_for_end(state, deadline)?,
            }
        }
    }

    /// Runs one sync that begins now, even if all published records are durable: for data without
    /// an offset.
    ///
    /// # Errors
    ///
    /// The error of the sync.
    pub(crate) fn run_one(&self, sync: &dyn Fn() -> Result<u64>) -> Result<()> {
        let mut state = self.state.lock();
        while state.in_flight {
            state = self.ended.wait(state);
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.in_flight = true;
        drop(state);
        self.run(sync);
        self.state.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Runs a change of the log that no sync may overlap, and that returns the durable end
    /// afterwards, which may be lower. If it `syncs`, it first makes all of the log durable, so that
    /// the waits that there are end well; otherwise they end with [`Error::LeadershipLost`]. If it
    /// fails, the log has not changed, or it takes no more appends.
    ///
    /// # Errors
    ///
    /// That of the change, or an earlier failure.
    #[cfg(feature = "replication")]
    pub(crate) fn run_alone<E: From<Error>>(
        &self,
        syncs: bool,
        change: impl FnOnce() -> Result<u64, E>,
    ) -> Result<u64, E> {
        let mut state = self.state.lock();
        while state.in_flight {
            state = self.ended.wait(state);
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone().into());
        }
        state.in_flight = true;
        let before = state.durable_end;
        drop(state);
        let _held = foreign::hold_back();
        let mut in_flight = InFlight { gate: self, outcome: Some(Err(Error::Closed)) };
        let changed = change();
        if let Ok(end) = &changed {
            let mut state = self.state.lock();
            // Each has an answer now.
            let answered = std::mem::take(&mut state.wakers);
            (state.durable_end, state.cuts) = (*end, state.cuts.saturating_add(1));
            if !syncs {
                state.unsynced_cut = state.cuts;
            }
            drop(state);
            answered.into_values().for_each(foreign::wake);
        }
        in_flight.outcome = Some(Ok(changed.as_ref().map_or(before, |end| *end)));
        drop(in_flight);
        changed
    }

    fn wait_for_end<'a>(
        &self,
        state: MutexGuard<'a, GroupCommit>,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, GroupCommit>> {
        let Some(deadline) = deadline else {
            return Ok(self.ended.wait(state));
        };
        let (state, timed_out) = self.ended.wait_until(state, deadline);
        if timed_out { Err(Error::Timeout) } else { Ok(state) }
    }

    /// The result for `target` if it is known; otherwise `waker` is called when it is. `ticket` is
    /// `None` for the first poll. Later polls with it replace the waker, and
    /// [`forget`](Self::forget) ends the wait. `log_end` as for [`wait`](Self::wait).
    pub(crate) fn poll(
        &self,
        target: u64,
        waker: &Waker,
        ticket: &mut Option<Ticket>,
        log_end: &dyn Fn() -> u64,
    ) -> Option<Result<()>> {
        // Cloning and dropping a waker run the executor's code, so neither happens under the lock.
        let waker = waker.clone();
        let mut state = self.state.lock();
        if let Some(answer) = ticket.and_then(|ticket| state.answer_of_cut(ticket.cuts)) {
            // What has the offset now is somebody else's.
            return Some(answer);
        }
        match state.turn(target) {
            Turn::Done => return Some(Ok(())),
            Turn::Failed(error) => return Some(Err(error)),
            Turn::Idle | Turn::InFlight => {}
        }
        if ticket.is_none()
            && let Err(error) = check_target(target, log_end)
        {
            return Some(Err(error));
        }
        let Ticket { number, .. } = *ticket.get_or_insert_with(|| {
            state.next_ticket = state.next_ticket.wrapping_add(1);
            Ticket { number: state.next_ticket, cuts: state.cuts }
        });
        let before = state.wakers.insert((target, number), waker);
        drop(state);
        drop(before);
        None
    }

    /// Ends the wait of this ticket.
    pub(crate) fn forget(&self, target: u64, ticket: Ticket) {
        let waker = self.state.lock().wakers.remove(&(target, ticket.number));
        drop(waker);
    }

    /// Records, before a sync has ended, that everything below `end` is durable. The end of the
    /// sync wakes the waiters.
    pub(super) fn raise(&self, end: u64) {
        let mut state = self.state.lock();
        state.durable_end = state.durable_end.max(end);
    }

    /// Ends all present and later waits with `error`, except those for offsets that are durable.
    pub(crate) fn fail(&self, error: Error) {
        let mut state = self.state.lock();
        state.failure.get_or_insert(error);
        self.answer(state);
    }

    fn run(&self, sync: &dyn Fn() -> Result<u64>) {
        // A woken task may wait for a sync, which can only begin when this one has ended.
        let _woken = foreign::hold_back();
        // A panic in the sync must not leave the gate closed for other threads.
        let mut in_flight = InFlight { gate: self, outcome: Some(Err(Error::Closed)) };
        in_flight.outcome = Some(sync());
    }

    fn finish(&self, outcome: Result<u64>) {
        let mut state = self.state.lock();
        state.finish(outcome);
        self.answer(state);
    }

    /// Wakes all waiters, outside the lock.
    fn answer(&self, mut state: MutexGuard<'_, GroupCommit>) {
        let wakers = state.take_answered();
        drop(state);
        self.ended.notify_all();
        for waker in wakers {
            foreign::wake(waker);
        }
    }
}

/// An offset above the log end was appended and then cut off, by a truncation of a replicated log:
/// no sync of this log will reach it, and whether its records are kept is not known here. Looked at
/// after the count of truncations: one that comes later is seen in that.
fn check_target(target: u64, log_end: &dyn Fn() -> u64) -> Result<()> {
    let is_cut = cfg!(feature = "replication") && target > log_end();
    if is_cut { Err(Error::LeadershipLost) } else { Ok(()) }
}

/// A sync in flight; reports its outcome when dropped, also by a panic.
struct InFlight<'a> {
    gate: &'a SyncGate,
    outcome: Option<Result<u64>>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.gate.finish(outcome);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64 as ModelU64, Ordering};
    use loom::thread;

    /// An acknowledgement never rests on a sync that began before the record was
    /// published. `published` is the log end; the sync captures it when it begins.
    #[test]
    fn loom_a_waiter_is_served_only_by_a_sync_that_began_after_it_published() {
        loom::model(|| {
            let gate = Arc::new(SyncGate::new(0));
            let published = Arc::new(ModelU64::new(0));
            let on_disk = Arc::new(ModelU64::new(0));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (gate, published, on_disk) =
                        (Arc::clone(&gate), Arc::clone(&published), Arc::clone(&on_disk));
                    thread::spawn(move || {
                        let mine = published.fetch_add(1, Ordering::AcqRel) + 1;
                        let sync = || {
                            let covered = published.load(Ordering::Acquire);
                            on_disk.fetch_max(covered, Ordering::AcqRel);
                            Ok(covered)
                        };
                        gate.wait(mine, None, Some(&sync), &|| u64::MAX).unwrap();
                        assert!(on_disk.load(Ordering::Acquire) >= mine);
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}
