//! What a test has arranged for a broker, and what has happened since.
//!
//! Owns: the faults that are set, how often each was met, and the calls that were made. Must not
//! know: where in the engine the seams are. Outlives a crash, as the test does.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::call::Call;
#[cfg(feature = "replication")]
use super::drive::{Drive, drive_for};
use super::error_of;
use super::fault::{Cause, Effect, Fault, Site};
use crate::clock::{ManualClock, real_now};
use crate::error::Error;
#[cfg(feature = "replication")]
use crate::sync::OnceLock;
use crate::sync::{Condvar, LockLevel, Mutex};

/// LIMIT: how long a wait for a condition may miss a change that no call has made.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Names a fault that is set, to lift it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

/// How a call continues.
#[derive(Debug)]
pub(super) enum Then {
    Runs,
    Fails(Error),
    RunsAndFails(Error),
}

/// A fault, and what has come of it.
#[derive(Debug)]
struct Planned {
    id: FaultId,
    fault: Fault,
    /// How many calls have met it.
    met: usize,
    is_lifted: bool,
}

impl Planned {
    /// Whether a call meets it; counts the call.
    fn takes(&mut self, site: &Site) -> bool {
        let is_over = self.is_lifted || self.fault.times.is_some_and(|times| self.met >= times);
        if is_over || !self.fault.concerns(site) {
            return false;
        }
        if let Some(left) = self.fault.after.checked_sub(1) {
            self.fault.after = left;
            return false;
        }
        self.met = self.met.saturating_add(1);
        true
    }
}

#[derive(Debug, Default)]
struct State {
    planned: Vec<Planned>,
    last_id: u64,
    calls: Vec<Call>,
    /// How the runs so far have ended.
    crashes: Vec<String>,
}

/// See the module's documentation.
pub(crate) struct Script {
    clock: ManualClock,
    state: Mutex<State>,
    /// Notified at each call.
    noted: Condvar,
    /// The cluster that the broker belongs to.
    #[cfg(feature = "replication")]
    drive: OnceLock<Arc<dyn Drive>>,
}

impl Script {
    pub(crate) fn new(clock: &ManualClock) -> Arc<Self> {
        let state = Mutex::at_level(LockLevel::Script, State::default());
        Arc::new(Self {
            clock: clock.clone(),
            state,
            noted: Condvar::new(),
            #[cfg(feature = "replication")]
            drive: OnceLock::new(),
        })
    }

    // ---- time --------------------------------------------------------------------------------

    /// The broker is a member of a cluster, which works while calls wait for it.
    #[cfg(feature = "replication")]
    pub(crate) fn drive_by(&self, drive: Arc<dyn Drive>) {
        let _ = self.drive.set(drive);
    }

    #[cfg(feature = "replication")]
    pub(super) fn drive(&self) -> Option<&Arc<dyn Drive>> {
        self.drive.get()
    }

    /// Lets time pass; in a cluster the members work meanwhile.
    pub(crate) fn pass(&self, time: Duration) {
        #[cfg(feature = "replication")]
        if let Some(drive) = self.drive.get() {
            return drive_for(&**drive, time);
        }
        self.clock.advance(time);
    }

    // ---- faults ------------------------------------------------------------------------------

    pub(crate) fn set(&self, fault: Fault) -> FaultId {
        let mut state = self.state.lock();
        state.last_id = state.last_id.saturating_add(1);
        let id = FaultId(state.last_id);
        state.planned.push(Planned { id, fault, met: 0, is_lifted: false });
        id
    }

    /// Ends a fault. It still counts as one that was never met, if it was not.
    pub(crate) fn lift(&self, id: FaultId) {
        let mut state = self.state.lock();
        let lifted = state.planned.iter_mut().filter(|planned| planned.id == id);
        lifted.for_each(|planned| planned.is_lifted = true);
    }

    /// How many calls have met a fault.
    pub(crate) fn met(&self, id: FaultId) -> usize {
        let state = self.state.lock();
        state.planned.iter().find(|planned| planned.id == id).map_or(0, |planned| planned.met)
    }

    /// The faults that no call has met.
    pub(crate) fn unmet(&self) -> Vec<Fault> {
        let state = self.state.lock();
        let unmet = state.planned.iter().filter(|planned| planned.met == 0);
        unmet.map(|planned| planned.fault.clone()).collect()
    }

    /// Forgets all faults, met or not.
    pub(crate) fn forget(&self) {
        self.state.lock().planned.clear();
    }

    /// What the faults make of a call. All delays up to the first failure count.
    pub(super) fn meet(&self, site: &Site) -> Then {
        let mut then = Then::Runs;
        let mut delays = Vec::new();
        for planned in &mut self.state.lock().planned {
            if !planned.takes(site) {
                continue;
            }
            then = match &planned.fault.effect {
                Effect::Fails(Cause::Kind(kind)) => Then::Fails(error_of(site, *kind)),
                Effect::Fails(Cause::Error(error)) => Then::Fails(Error::clone(error)),
                Effect::FailsUnknown => Then::Fails(error_of(site, ErrorKind::Other)),
                Effect::SucceedsUnknown => Then::RunsAndFails(error_of(site, ErrorKind::Other)),
                delay @ (Effect::TakesTime(_) | Effect::TakesRealTime(_)) => {
                    delays.push(delay.clone());
                    continue;
                }
            };
            break;
        }
        for delay in delays {
            match delay {
                Effect::TakesTime(time) => self.pass(time),
                Effect::TakesRealTime(time) => wait(time),
                _ => {}
            }
        }
        then
    }

    // ---- crashes -----------------------------------------------------------------------------

    /// A run has ended like this.
    pub(crate) fn note_crash(&self, crash: String) {
        self.state.lock().crashes.push(crash);
    }

    /// How the runs so far have ended, with the seeds.
    pub(crate) fn crashes(&self) -> Vec<String> {
        self.state.lock().crashes.clone()
    }

    // ---- calls -------------------------------------------------------------------------------

    pub(super) fn note(&self, call: Call) {
        self.state.lock().calls.push(call);
        self.noted.notify_all();
    }

    /// Waits in real time until a condition is true, which it looks at after each call and a few
    /// times per second. Returns whether it became true.
    pub(crate) fn wait_for(&self, bound: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let deadline = real_now().checked_add(bound);
        loop {
            let seen = self.state.lock().calls.len();
            if condition() {
                return true;
            }
            let now = real_now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return false;
            }
            let next = now.checked_add(LOOK_EVERY).unwrap_or(now);
            let state = self.state.lock();
            // A call that was noted meanwhile has notified nobody.
            if state.calls.len() == seen {
                drop(self.noted.wait_until(state, deadline.map_or(next, |it| it.min(next))));
            }
        }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    pub(crate) fn forget_calls(&self) {
        self.state.lock().calls.clear();
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").finish_non_exhaustive()
    }
}

/// Lets this thread wait in real time: for the timeouts of other threads.
fn wait(time: Duration) {
    let Some(deadline) = real_now().checked_add(time) else { return };
    let (lock, never) = (Mutex::new(()), Condvar::new());
    let mut guard = lock.lock();
    loop {
        let (again, is_over) = never.wait_until(guard, deadline);
        if is_over {
            return;
        }
        guard = again;
    }
}
