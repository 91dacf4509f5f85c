//! Readers that wait for records, and how an appender learns of them at no cost.
//!
//! A reader registers with a partition once per assignment. Before it parks, it arms its
//! registration under the partition's lock, which reads the end of the log again. The appender
//! reads the count of armed registrations inside its own critical section. So either the reader
//! sees the record, or the appender sees the reader: no wake-up is lost, and an appender pays no
//! fence and no atomic operation for readers that do not wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

use crate::foreign;
use crate::steps::Counted;
use crate::sync::{Condvar, LockLevel, Mutex};

/// Which end of the log a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaits {
    Published,
    Durable,
    /// The high watermark of a replicated log. Appends do not move it, and do not look here.
    Watermark,
}

/// The name of a registration. Comparing two is a step.
type Id = Counted<u64>;

#[derive(Debug)]
struct Waiter {
    notifier: Arc<Notifier>,
    /// The reader's own number for this partition.
    token: usize,
    /// Set while the reader is about to park or parked.
    armed: Option<Awaits>,
}

/// The registered readers of one partition; kept under the partition's lock. The cost of a call
/// depends on the registrations that it concerns, not on how many there are: thousands may wait for
/// one partition, and an appender pays for the call.
#[derive(Debug, Default)]
pub(crate) struct WaitList {
    waiters: BTreeMap<Id, Waiter>,
    next_id: u64,
    published: Armed,
    durable: Armed,
    watermark: Armed,
}

/// The registrations that are armed for one of the ends.
#[derive(Debug, Default)]
struct Armed {
    count: usize,
    /// All armed registrations, and perhaps some that were armed: skipping these costs less than
    /// finding and removing them.
    ids: Vec<Id>,
}

impl WaitList {
    pub(crate) fn register(&mut self, notifier: &Arc<Notifier>, token: usize) -> u64 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.waiters
            .insert(Counted(id), Waiter { notifier: Arc::clone(notifier), token, armed: None });
        id
    }

    pub(crate) fn deregister(&mut self, id: u64) {
        let Some(awaits) = self.waiters.remove(&Counted(id)).and_then(|waiter| waiter.armed) else {
            return;
        };
        let waiters = &self.waiters;
        let armed = match awaits {
            Awaits::Published => &mut self.published,
            Awaits::Durable => &mut self.durable,
            Awaits::Watermark => &mut self.watermark,
        };
        armed.count -= 1;
        // LIMIT: half of the list, so that one pass over the list removes as many entries as it
        // keeps.
        if armed.ids.len() > armed.count.saturating_mul(2).saturating_add(16) {
            let is_armed = |id: &Id| waiters.get(id).is_some_and(|it| it.armed == Some(awaits));
            armed.ids.retain(is_armed);
        }
    }

    pub(crate) fn arm(&mut self, id: u64, awaits: Awaits) {
        let Some(waiter) = self.waiters.get_mut(&Counted(id)) else { return };
        let before = waiter.armed.replace(awaits);
        if before == Some(awaits) {
            return;
        }
        if let Some(before) = before {
            self.armed(before).count -= 1;
        }
        let armed = self.armed(awaits);
        armed.count += 1;
        armed.ids.push(Counted(id));
    }

    fn armed(&mut self, awaits: Awaits) -> &mut Armed {
        match awaits {
            Awaits::Published => &mut self.published,
            Awaits::Durable => &mut self.durable,
            Awaits::Watermark => &mut self.watermark,
        }
    }

    /// Whether any reader waits for an end that an append or a sync moves. An appender checks only
    /// this.
    #[inline]
    pub(crate) fn any_armed(&self) -> bool {
        self.published.count > 0 || self.any_awaits_durable()
    }

    /// Whether any reader waits for records to become durable.
    #[inline]
    pub(crate) fn any_awaits_durable(&self) -> bool {
        self.durable.count > 0
    }

    /// Disarms those that wait for `what`, and returns them, to be notified after the lock is
    /// released.
    pub(crate) fn fire(&mut self, what: Awaits) -> Fired {
        let mut fired = Vec::new();
        self.disarm(what, &mut fired);
        Fired::of(fired)
    }

    /// Disarms all registrations, and returns them, to be notified after the lock is released.
    pub(crate) fn fire_all(&mut self) -> Fired {
        let mut fired = Vec::new();
        self.disarm(Awaits::Published, &mut fired);
        self.disarm(Awaits::Durable, &mut fired);
        self.disarm(Awaits::Watermark, &mut fired);
        Fired::of(fired)
    }

    fn disarm(&mut self, what: Awaits, fired: &mut Vec<(Arc<Notifier>, usize)>) {
        let armed = match what {
            Awaits::Published => &mut self.published,
            Awaits::Durable => &mut self.durable,
            Awaits::Watermark => &mut self.watermark,
        };
        fired.reserve(armed.count);
        armed.count = 0;
        for id in armed.ids.drain(..) {
            if let Some(waiter) = self.waiters.get_mut(&id)
                && waiter.armed.take_if(|awaits| *awaits == what).is_some()
            {
                fired.push((Arc::clone(&waiter.notifier), waiter.token));
            }
        }
    }
}

/// Readers to notify. Not under any lock: waking a thread is a system call. One pointer: most appends
/// have none, and hand this on.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Fired(Option<Box<Readers>>);

#[derive(Debug)]
struct Readers(Vec<(Arc<Notifier>, usize)>);

impl Fired {
    fn of(readers: Vec<(Arc<Notifier>, usize)>) -> Self {
        Self((!readers.is_empty()).then(|| Box::new(Readers(readers))))
    }

    #[inline]
    pub(crate) fn notify(self) {
        if let Some(readers) = self.0 {
            readers.notify();
        }
    }
}

impl Readers {
    #[cold]
    fn notify(self) {
        for (notifier, token) in self.0 {
            notifier.notify(token);
        }
    }
}

#[derive(Debug, Default)]
struct Signals {
    fired: Vec<usize>,
    /// Something other than records: a wake-up call, a rebalance, a shutdown.
    called: bool,
    /// Set while a task is parked here instead of a thread.
    waker: Option<Waker>,
}

impl Signals {
    /// Takes the signals since the last call: the partitions that fired, and whether `call` was
    /// used.
    fn take(&mut self) -> (Vec<usize>, bool) {
        (std::mem::take(&mut self.fired), std::mem::take(&mut self.called))
    }

    fn is_empty(&self) -> bool {
        self.fired.is_empty() && !self.called
    }
}

/// The notifier at which a consumer parks, for all its partitions.
#[derive(Debug)]
pub(crate) struct Notifier {
    signals: Mutex<Signals>,
    changed: Condvar,
}

impl Notifier {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            signals: Mutex::at_level(LockLevel::Notifier, Signals::default()),
            changed: Condvar::new(),
        })
    }

    fn notify(&self, token: usize) {
        self.signal(|signals| signals.fired.push(token));
    }

    /// Ends the wait in progress, or the next one at once.
    pub(crate) fn call(&self) {
        self.signal(|signals| signals.called = true);
    }

    fn signal(&self, change: impl FnOnce(&mut Signals)) {
        let mut signals = self.signals.lock();
        change(&mut signals);
        let waker = signals.waker.take();
        drop(signals);
        self.changed.notify_all();
        if let Some(waker) = waker {
            foreign::wake(waker);
        }
    }

    /// Parks until a signal or the deadline; `None` waits for ever. Returns the tokens of the
    /// partitions that fired since the last call, and whether it was called.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> (Vec<usize>, bool) {
        let mut signals = self.signals.lock();
        while signals.is_empty() {
            let Some(deadline) = deadline else {
                signals = self.changed.wait(signals);
                continue;
            };
            let (guard, timed_out) = self.changed.wait_until(signals, deadline);
            signals = guard;
            if timed_out {
                break;
            }
        }
        signals.take()
    }

    /// Takes the signals since the last call, for a task. If there is none, `waker` is woken by the
    /// next signal. The check and the registration of the waker are one step, so no signal is lost
    /// in between. The latest waker counts; the one before is dropped and not woken.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<(Vec<usize>, bool)> {
        // Cloning and dropping a waker run the executor's code, so neither happens under the lock.
        let waker = waker.clone();
        let mut signals = self.signals.lock();
        if !signals.is_empty() {
            return Some(signals.take());
        }
        let before = signals.waker.replace(waker);
        drop(signals);
        drop(before);
        None
    }

    /// Whether there are signals that were not taken yet.
    pub(crate) fn has_signals(&self) -> bool {
        !self.signals.lock().is_empty()
    }

    /// Removes the waker; signals are kept for the next caller.
    #[cfg(feature = "async")]
    pub(crate) fn forget_waker(&self) {
        let before = self.signals.lock().waker.take();
        drop(before);
    }
}

/// The notifiers of all consumers of a broker, so that its close also wakes a consumer that waits
/// for no partition.
#[derive(Debug)]
pub(crate) struct NotifierList(Mutex<Vec<Weak<Notifier>>>);

impl NotifierList {
    pub(crate) fn new() -> Self {
        Self(Mutex::at_level(LockLevel::NotifierList, Vec::new()))
    }

    /// A new notifier, which is in the list until it is dropped.
    pub(crate) fn add_new(&self) -> Arc<Notifier> {
        let notifier = Notifier::new();
        self.add(&notifier);
        notifier
    }

    /// Adds a notifier, which is in the list until it is dropped.
    pub(crate) fn add(&self, notifier: &Arc<Notifier>) {
        let mut all = self.0.lock();
        // Only when the list would grow, so that the cost is at most one check per added entry.
        if all.len() == all.capacity() {
            all.retain(|known| known.strong_count() > 0);
            let room = all.len().saturating_add(16);
            all.reserve(room);
        }
        all.push(Arc::downgrade(notifier));
    }

    /// Ends the wait in progress, or the next one, of every consumer.
    pub(crate) fn call_all(&self) {
        let all = self.0.lock().clone();
        // Not under the lock: a wake-up may run the code of an executor.
        for notifier in all.iter().filter_map(Weak::upgrade) {
            notifier.call();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod models {
    use std::task::Wake;

    use super::*;
    use crate::sync::{AtomicU64, Ordering};
    use loom::thread;

    /// The protocol of a partition in small: an end, and a wait list under one lock.
    struct Model {
        end: AtomicU64,
        waiters: Mutex<WaitList>,
    }

    /// A task and its executor in small: parked until somebody wakes it.
    struct Task {
        is_woken: Mutex<bool>,
        woken: Condvar,
    }

    impl Task {
        fn new() -> Arc<Self> {
            Arc::new(Self { is_woken: Mutex::new(false), woken: Condvar::new() })
        }

        fn park(&self) {
            let mut is_woken = self.is_woken.lock();
            while !*is_woken {
                is_woken = self.woken.wait(is_woken);
            }
            *is_woken = false;
        }
    }

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            *self.is_woken.lock() = true;
            self.woken.notify_all();
        }
    }

    /// A reader that arms itself and waits as `wait_for_call` does, while a record is appended.
    /// `wait_for_call` returns what has fired, or `None` when the reader is to look again.
    fn read_while_appended(
        wait_for_call: impl Fn(&Notifier, &Arc<Task>) -> Option<Vec<usize>> + Send + Sync + 'static,
    ) {
        loom::model(move || {
            let model = loom::sync::Arc::new(Model {
                end: AtomicU64::new(0),
                waiters: Mutex::new(WaitList::default()),
            });
            let (notifier, task) = (Notifier::new(), Task::new());
            let id = model.waiters.lock().register(&notifier, 3);
            let appender = {
                let model = loom::sync::Arc::clone(&model);
                thread::spawn(move || {
                    let mut waiters = model.waiters.lock();
                    model.end.store(1, Ordering::Release);
                    let fired = if waiters.any_armed() {
                        waiters.fire(Awaits::Published)
                    } else {
                        Fired::default()
                    };
                    drop(waiters);
                    fired.notify();
                })
            };
            while model.end.load(Ordering::Acquire) == 0 {
                let mut waiters = model.waiters.lock();
                if model.end.load(Ordering::Acquire) > 0 {
                    break;
                }
                waiters.arm(id, Awaits::Published);
                drop(waiters);
                if let Some(fired) = wait_for_call(&notifier, &task) {
                    assert_eq!(fired, [3]);
                }
            }
            appender.join().unwrap();
        });
    }

    #[test]
    fn loom_no_wake_up_is_lost_between_an_append_and_a_reader_that_parks() {
        // Without a deadline: a lost wake-up would be a deadlock, which loom reports.
        read_while_appended(|notifier, _| Some(notifier.wait(None).0));
    }

    #[test]
    fn loom_no_wake_up_is_lost_between_an_append_and_a_task_that_parks() {
        read_while_appended(|notifier, task| {
            let polled = notifier.poll(&Waker::from(Arc::clone(task)));
            if polled.is_none() {
                // A lost wake-up would be a task that is parked for ever: a deadlock to loom.
                task.park();
            }
            polled.map(|(fired, _)| fired)
        });
    }

    /// A stream that goes from one task to another between two polls: the second is woken.
    #[test]
    fn loom_the_task_that_polled_last_is_woken() {
        loom::model(|| {
            let notifier = Notifier::new();
            let caller = {
                let notifier = Arc::clone(&notifier);
                thread::spawn(move || notifier.call())
            };
            let (first, second) = (Task::new(), Task::new());
            let called = |task: &Arc<Task>| notifier.poll(&Waker::from(Arc::clone(task)));
            if called(&first).is_none() {
                // The task is given up; whatever woke it must reach the one that follows.
                while called(&second).is_none() {
                    second.park();
                }
            }
            caller.join().unwrap();
        });
    }
}
