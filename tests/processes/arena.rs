//! What the threads of the controller share: the counter of times, where the members are, and whether
//! the round is over.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use logpond::{Clock, SystemClock};

use crate::history::Run;

/// Where a member of this run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) run: Run,
    pub(crate) frames: SocketAddr,
    pub(crate) clients: SocketAddr,
}

#[derive(Default)]
struct State {
    members: Vec<Option<Address>>,
    is_over: bool,
    /// Records that were acknowledged so far.
    acknowledged: u64,
}

pub(crate) struct Arena {
    /// Of calls and answers, and of everything else that needs a number of its own.
    counter: AtomicU64,
    clock: SystemClock,
    state: Mutex<State>,
    changed: Condvar,
}

impl Arena {
    pub(crate) fn new(members: usize) -> Self {
        let state = State { members: vec![None; members], ..State::default() };
        Self {
            counter: AtomicU64::new(1),
            clock: SystemClock::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// A number that is greater than all before.
    pub(crate) fn count(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::SeqCst)
    }

    /// The time since some moment.
    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// How long it is since a moment.
    pub(crate) fn since(&self, moment: Duration) -> Duration {
        self.now().saturating_sub(moment)
    }

    pub(crate) fn members(&self) -> usize {
        self.state.lock().unwrap().members.len()
    }

    pub(crate) fn set_address(&self, member: usize, address: Option<Address>) {
        self.state.lock().unwrap().members[member] = address;
        self.changed.notify_all();
    }

    pub(crate) fn address(&self, member: usize) -> Option<Address> {
        self.state.lock().unwrap().members[member]
    }

    pub(crate) fn note_acknowledged(&self) {
        self.state.lock().unwrap().acknowledged += 1;
        self.changed.notify_all();
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.state.lock().unwrap().acknowledged
    }

    /// Waits until `records` more were acknowledged, or `at_most` is over.
    pub(crate) fn wait_acknowledged(&self, records: u64, at_most: Duration) -> bool {
        let state = self.state.lock().unwrap();
        let until = state.acknowledged + records;
        let waits = |state: &mut State| state.acknowledged < until;
        let (state, _) = self.changed.wait_timeout_while(state, at_most, waits).unwrap();
        state.acknowledged >= until
    }

    pub(crate) fn end(&self) {
        self.state.lock().unwrap().is_over = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().unwrap().is_over
    }

    /// Gives the members time, unless the round ends.
    pub(crate) fn pause(&self, at_most: Duration) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_timeout_while(state, at_most, |state| !state.is_over).unwrap());
    }
}
