//! `Beside`: a member that runs beside its broker: by a thread, or when it is called.
//!
//! Owns: the lock around the member, its thread, and the calls of application code: the transport and
//! the callback for events. Must not know: the protocol.
//!
//! 1. No application code runs under the member's lock: not the transport, the callback, or a waker of a
//!    task. So all of them may call the member. (A clock may not call anything.)
//! 2. One thread at a time runs the member and sends what it says, so that frames leave in their order.
//!    A call that comes meanwhile, from another thread or from the application code that is being called,
//!    waits for nobody: that thread looks again when it has sent.
//!    Mostly that is the member's thread. But a caller that is about to wait for a majority sends its
//!    records itself, and a thread of the transport may do what a frame asks for: each wake-up of a
//!    thread takes longer than the work. Events are left to the member's thread, if there is one.
//! 3. What is shown is made under the member's lock, so it is never older than what was shown before.
//! 4. After a panic the member has failed: what it was in the middle of is not known.

use std::any::Any;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::catalog::EngineCatalog;
use super::driver::{
    Driver, Output, Replacing, Resigning, Timing, await_start, forget_start, key_of, noted_starts,
    take_changed,
};
use super::handle::{Calls, ReplicationHandle, Shared};
use super::late::Late;
use super::membership::GroupId;
use super::settings::{OnEvent, Replication};
use super::shell::{Catalog, Shell};
use super::status::{ForcedLead, error_of, note_event, refused};
use super::transport::Transport;
use super::wire::{Frame, Said, pack};
use crate::broker::attached::Attached;
use crate::broker::attachment::Attachment;
use crate::broker::replication_metrics::ReplicationMetrics;
use crate::broker::{Broker, BrokerBuilder};
use crate::clock::{RunClock, real_now};
use crate::error::{Error, Result};
use crate::foreign::{self, HoldBack};
use crate::partition::leadership::{Leadership, PartitionId};
use crate::record::{LeaderEpoch, NodeId};
#[cfg(feature = "testing")]
use crate::seams::{Drive, Seams};
use crate::sync::{AtomicBool, Condvar, LockLevel, Mutex, MutexGuard, OnceLock, Ordering};
use crate::trace::Outbox;

/// LIMIT: how many bytes of messages to one member share a frame, about.
const FRAME_BYTES: usize = 1 << 20;
/// LIMIT: how many frames are taken before a call of `tick` returns. Members in one process that
/// answer each other at once would keep it for as long as there is something to say.
const TURN_FRAMES: usize = 256;
/// LIMIT: how often what is shown is made anew, if nothing happens.
const SHOWN_EVERY: Duration = Duration::from_millis(100);
/// LIMIT: when to look again, while another thread runs the member, or after a panic: a clock that always
/// panics must not keep a processor busy.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The member, and when it wants to be called.
struct Running<C> {
    /// `None` when it has ended.
    driver: Option<Driver<C>>,
    now: Duration,
    due: Duration,
    show_due: Duration,
    /// What is to be sent and reported.
    waiting: Output,
    /// What is to be sent a little later.
    late: Late,
    /// The thread that sends and reports.
    sender: Option<ThreadId>,
    /// Whether the member was called while a thread sent.
    is_called: bool,
}

/// What one turn of the member was.
#[derive(Clone, Copy)]
struct Turn {
    /// It took a frame.
    has_taken: bool,
    /// The member was called meanwhile.
    is_called: bool,
    /// For how long nothing will be due; not at all if it has more to do at once.
    due: Duration,
}

/// The application's code.
struct Outside {
    transport: Arc<dyn Transport>,
    on_event: Option<OnEvent>,
    trace: Outbox,
    #[cfg(feature = "testing")]
    seams: Seams,
}

impl Outside {
    fn deliver(&self, me: NodeId, output: Output, shared: &Shared) {
        #[cfg(test)]
        #[cfg(not(loom))]
        tests::spring();
        let mut waiting: Vec<(NodeId, Vec<Said>, usize)> = Vec::new();
        for said in output.said {
            let (to, class, size) = (said.to(), said.class(), said.size());
            let same = waiting.iter_mut().rev().find(|(node, of, _)| {
                *node == to && of.first().is_some_and(|it| it.class() == class)
            });
            match same {
                Some((_, of, bytes)) if bytes.saturating_add(size) <= FRAME_BYTES => {
                    of.push(said);
                    *bytes = bytes.saturating_add(size);
                }
                _ => waiting.push((to, vec![said], size)),
            }
        }
        for (to, of, _) in waiting {
            // One that is too large, or is not sent, is asked for again.
            if let Some(frame) = pack(of) {
                let size = frame.as_bytes().len();
                let sent = foreign::call(|| self.transport.send(to, frame));
                shared.traffic.sent(size, matches!(sent, Some(Ok(()))));
            }
        }
        for event in output.events {
            note_event(&self.trace, me, &event);
            self.trace.deliver();
            if let Some(call) = &self.on_event {
                let _ = foreign::call(|| call(&event));
            }
        }
    }
}

/// The thread of a member, if it has one.
struct MemberThread {
    is_wanted: bool,
    id: OnceLock<ThreadId>,
    /// ORDERING: Release by the one who ends it, Acquire by its thread: it then finds no member.
    has_ended: AtomicBool,
    /// Keeps what a clock that is moved by hand calls.
    on_move: OnceLock<Arc<dyn Fn() + Send + Sync>>,
}

struct Beside<C> {
    running: Mutex<Running<C>>,
    /// The thread that sent has finished.
    has_sent: Condvar,
    outside: Outside,
    shared: Arc<Shared>,
    leadership: Arc<Leadership>,
    clock: RunClock,
    me: NodeId,
    members: Vec<NodeId>,
    /// Draws the id of a group.
    draw: Box<dyn Fn() -> u128 + Send + Sync>,
    thread: MemberThread,
}

impl<C: Catalog + Send + 'static> Beside<C> {
    /// Does something with the member. If that panics, the member has failed.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and that of the panic.
    fn attempt<R>(
        &self,
        running: &mut Running<C>,
        work: impl FnOnce(&mut Driver<C>, Duration) -> R,
    ) -> Result<R> {
        let Running { driver: Some(driver), now, .. } = running else {
            return Err(Error::Closed);
        };
        let done = foreign::call(|| {
            *now = self.clock.monotonic();
            work(driver, *now)
        });
        if let Some(done) = done {
            return Ok(done);
        }
        if foreign::call(|| fail(driver, *now)).is_none() {
            self.leadership.end();
        }
        running.show_due = Duration::ZERO;
        let failure = driver.shell().failure();
        Err(failure.map_or(Error::Closed, error_of))
    }

    /// Takes what the member wants sent and reported, and shows what is new.
    fn show(&self, running: &mut Running<C>) {
        let Running { driver: Some(driver), now, show_due, waiting, .. } = running else { return };
        let output = driver.take_output();
        let is_news = !output.events.is_empty() || *now >= *show_due;
        waiting.add(output);
        let status = is_news.then(|| foreign::call(|| driver.status(*now))).flatten();
        if is_news {
            *show_due = now.saturating_add(SHOWN_EVERY);
        }
        let failure = driver.shell().failure().map(error_of);
        self.shared.show(status, failure, (driver.confirmed(), noted_starts(driver)));
    }

    /// Does something with the member, and has what comes of it sent and reported.
    fn with<R>(&self, call: impl FnOnce(&mut Driver<C>, Duration) -> Result<R>) -> Result<R> {
        let held = foreign::hold_back();
        let result = {
            let mut running = self.running.lock();
            let done = self.attempt(&mut running, |driver, now| {
                check(driver)?;
                let result = call(driver, now)?;
                // The disk may have failed meanwhile.
                check(driver).map(|()| result)
            });
            // What is to be sent waits for the next turn. What is shown does not: the caller may look.
            (running.due, running.show_due) = (running.now, Duration::ZERO);
            self.show(&mut running);
            done.and_then(|result| result)
        };
        wake(held);
        if self.thread.is_wanted {
            self.shared.inbox.call();
        } else {
            self.turn_all();
        }
        result
    }

    /// Takes what has arrived, and does what is due. Returns for how long nothing will be; not at
    /// all if there are more frames than one call takes.
    fn turn_all(&self) -> Duration {
        for _ in 0..TURN_FRAMES {
            let turn = self.turn(true);
            if !turn.has_taken && !turn.is_called {
                return turn.due;
            }
        }
        Duration::ZERO
    }

    /// Takes what has arrived, on a thread of the transport. If another thread sends, that one looks again.
    fn take_arrived(&self) {
        for _ in 0..TURN_FRAMES {
            let turn = self.turn(!self.thread.is_wanted);
            // What takes long continues on the member's thread, and so do events.
            if turn.due.is_zero() {
                break;
            }
            if !turn.is_called && (!turn.has_taken || self.shared.inbox.is_empty()) {
                return;
            }
        }
        self.shared.inbox.call();
    }

    /// Sends what a caller has appended or synced, on its thread. If another thread sends, that one looks
    /// again; and if one holds the member, which may wait for the disk, the member's thread does it: a
    /// caller has a deadline.
    fn announce(&self) {
        let held = foreign::hold_back();
        let Some(mut running) = self.running.try_lock() else { return self.shared.inbox.call() };
        if running.driver.is_none() {
            return;
        }
        if running.sender.is_some() {
            running.is_called = true;
            return;
        }
        let _ = self.attempt(&mut running, take_changed);
        self.show(&mut running);
        drop(running);
        wake(held);
        let mut running = self.deliver(false);
        let is_called = std::mem::take(&mut running.is_called);
        if is_called || (running.sender.is_none() && !running.waiting.is_empty()) {
            drop(running);
            self.shared.inbox.call();
        }
    }

    /// Takes one frame, and does what is due. If this thread does not report, and there are events, the
    /// member's thread sends and reports.
    fn turn(&self, reports: bool) -> Turn {
        let held = foreign::hold_back();
        let mut running = self.running.lock();
        let nothing = |due| Turn { has_taken: false, is_called: false, due };
        if running.driver.is_none() {
            return nothing(Duration::MAX);
        }
        if running.sender.is_some() {
            running.is_called = true;
            return nothing(LOOK_AGAIN);
        }
        if running.late.due().is_some() && self.is_members_thread() {
            let due = running.late.take_due(real_now());
            running.waiting.said.extend(due);
        }
        let arrived = self.shared.inbox.take();
        let has_taken = arrived.is_some();
        let due = running.due;
        let done = self.attempt(&mut running, |driver, now| {
            if let Some((from, frame)) = arrived {
                // First what the leader has, so that the answer to a question has all of it.
                take_changed(driver, now);
                self.receive(driver, (from, &frame), now);
            }
            let is_busy = driver.take_news(self.thread.is_wanted, now);
            let next = if now >= due { driver.tick(now) } else { due };
            // What takes long continues at once, after what has arrived meanwhile.
            if is_busy { (now, next) } else { (next, next) }
        });
        let next = done.map(|(next, due)| {
            running.due = due;
            next
        });
        self.show(&mut running);
        drop(running);
        wake(held);
        let mut running = self.deliver(reports);
        let is_called = std::mem::take(&mut running.is_called);
        if running.sender.is_none() && !running.waiting.is_empty() {
            return Turn { has_taken, is_called, due: Duration::ZERO };
        }
        // A call may have come meanwhile.
        let next = next.map(|next| next.min(running.due).saturating_sub(running.now));
        Turn { has_taken, is_called, due: next.unwrap_or(LOOK_AGAIN) }
    }

    fn receive(&self, driver: &mut Driver<C>, (from, frame): (NodeId, &Frame), now: Duration) {
        // What is no frame of a member of this group is as good as lost.
        let received = driver.receive(from, frame, now);
        self.shared.traffic.received(frame.as_bytes().len(), received.is_ok());
    }

    /// Sends and reports what waits for that, unless a thread does so already: then it does this too. A
    /// thread that does not report leaves all of it to the member's thread if there are events.
    fn deliver(&self, reports: bool) -> MutexGuard<'_, Running<C>> {
        let mut running = self.running.lock();
        while running.sender.is_none()
            && !running.waiting.is_empty()
            // After the end there is no other thread to do it.
            && (reports || running.driver.is_none() || running.waiting.events.is_empty())
        {
            running.sender = Some(thread::current().id());
            let mut output = std::mem::take(&mut running.waiting);
            if self.thread.is_wanted && !self.is_members_thread() {
                let had_late = running.late.due().is_some();
                output.said = running.late.hold(output.said, real_now());
                if !had_late && running.late.due().is_some() {
                    self.shared.inbox.call();
                }
            }
            drop(running);
            if foreign::call(|| self.outside.deliver(self.me, output, &self.shared)).is_none() {
                self.panicked();
            }
            running = self.running.lock();
            running.sender = None;
            self.has_sent.notify_all();
        }
        running
    }

    fn is_members_thread(&self) -> bool {
        self.thread.id.get() == Some(&thread::current().id())
    }

    fn run_thread(&self) {
        let _ = self.thread.id.set(thread::current().id());
        while !self.thread.has_ended.load(Ordering::Acquire) {
            let ran = foreign::call(|| {
                let calls = self.shared.inbox.calls();
                let due = self.turn_all();
                // A clock that is moved by hand calls; others run at the rate of real time.
                let due = real_now().checked_add(due);
                let late = self.running.lock().late.due();
                self.shared.inbox.wait(calls, due.into_iter().chain(late).min());
                self.await_sender();
            });
            if ran.is_none() {
                self.panicked();
            }
        }
    }

    /// A panic beside the member, in what makes frames of what it says: some of it is lost.
    fn panicked(&self) {
        let held = foreign::hold_back();
        let mut running = self.running.lock();
        let _ = self.attempt(&mut running, fail);
        running.show_due = Duration::ZERO;
        self.show(&mut running);
        drop(running);
        wake(held);
    }

    /// Another thread may be running the member: a caller of `tick`.
    fn await_sender(&self) {
        let mut running = self.running.lock();
        while running.sender.is_some() && !self.thread.has_ended.load(Ordering::Acquire) {
            running = self.has_sent.wait(running);
        }
    }
}

/// The lower bits of a number.
fn lower(n: u128) -> u32 {
    u32::try_from(n & u128::from(u32::MAX)).unwrap_or_default()
}

/// A panic has ended what the member was doing.
fn fail<C: Catalog>(driver: &mut Driver<C>, now: Duration) {
    driver.shell().panicked();
    driver.collect(now);
}

/// # Errors
///
/// Why the member does nothing any more.
fn check<C: Catalog>(driver: &mut Driver<C>) -> Result<()> {
    driver.shell().failure().map_or(Ok(()), |failure| Err(error_of(failure)))
}

/// Wakes the tasks that were held back while the member was locked.
fn wake(held: HoldBack) {
    for waker in held.take() {
        let _ = foreign::call(|| waker.wake());
    }
}

impl<C: Catalog + Send + 'static> Calls for Beside<C> {
    fn lead(&self, epoch: LeaderEpoch) -> Result<()> {
        self.with(|driver, now| driver.lead(epoch, now).map_err(|it| refused(it, epoch)))
    }

    fn force_lead(&self, epoch: LeaderEpoch) -> Result<ForcedLead> {
        let group = GroupId((self.draw)());
        self.with(|driver, now| {
            let forced = driver.force_lead(epoch, group, now);
            forced.map_err(|it| refused(it, epoch))
        })
    }

    fn resign(&self, to: Option<NodeId>) -> Result<()> {
        self.with(|driver, now| match driver.resign(to, now) {
            Resigning::Done => Ok(()),
            Resigning::NotLeader => Err(self.leadership.not_leader()),
            Resigning::Unfit(node) => {
                let reason = format!("{node} is no other member that counts and is heard");
                Err(Error::config("resign", reason))
            }
        })
    }

    fn replace(&self, node: NodeId) -> Result<()> {
        if !self.members.contains(&node) {
            let reason = format!("{node} is not in the list of members");
            return Err(Error::config("replace_member", reason));
        }
        self.with(|driver, now| match driver.replace(node, now) {
            Replacing::Begun => Ok(()),
            Replacing::NotLeader => Err(self.leadership.not_leader()),
            Replacing::Another(other) => {
                let reason = format!("member {other} is being replaced: one at a time");
                Err(Error::config("replace_member", reason))
            }
            Replacing::Counts => {
                let reason = "the directory that counts for it was heard within the time-out, and \
                              this is for a member whose disk is lost: if it was stopped just now, \
                              call again after the time-out";
                Err(Error::config("replace_member", reason))
            }
        })
    }

    fn confirm(&self) -> Result<(LeaderEpoch, u64)> {
        let not_leader = || self.leadership.not_leader();
        self.with(|driver, now| driver.confirm(now).ok_or_else(not_leader))
    }

    fn tick(&self) -> Duration {
        self.turn_all()
    }

    fn take_arrived(&self) {
        self.take_arrived();
    }

    fn must_run(&self) -> Result<bool> {
        let here = thread::current().id();
        if self.running.lock().sender == Some(here) {
            let reason = "a call that waits for the member cannot be made by its transport, or by \
                          `on_event`: it does nothing meanwhile";
            return Err(Error::config("replication", reason));
        }
        Ok(!self.thread.is_wanted || self.thread.id.get() == Some(&here))
    }

    fn ack_timeout(&self) -> Duration {
        self.leadership.terms().ack_timeout
    }

    #[cfg(feature = "testing")]
    fn drive(&self) -> Option<Arc<dyn Drive>> {
        self.outside.seams.drive().map(Arc::clone)
    }
}

impl<C: Catalog + Send + 'static> Attached for Beside<C> {
    fn run(&self) {
        let _ = self.turn_all();
    }

    fn stop(&self, gives_way: bool) {
        if gives_way {
            let _ = self.with(|driver, now| Ok(driver.resign(None, now)));
        }
        self.thread.has_ended.store(true, Ordering::Release);
        let driver = {
            let mut running = self.running.lock();
            if !gives_way {
                running.waiting = Output::default();
            }
            running.driver.take()
        };
        self.has_sent.notify_all();
        self.shared.end();
        drop(self.deliver(true));
        drop(driver);
    }

    fn check_wait(&self) -> Result<()> {
        self.must_run().map(drop)
    }

    fn wait_start(&self, partition: PartitionId, start: u64, epoch: u32) -> Result<()> {
        let (log, epoch, timeout) = (key_of(partition), LeaderEpoch(epoch), self.ack_timeout());
        self.with(|driver, now| {
            await_start(driver, log);
            take_changed(driver, now);
            Ok(())
        })?;
        let waited = self.shared.wait_start(log, start, epoch, timeout);
        if let Some(driver) = &mut self.running.lock().driver {
            forget_start(driver, log);
        }
        waited
    }

    fn metrics(&self) -> ReplicationMetrics {
        self.shared.metrics()
    }

    fn handle(&self) -> Box<dyn Any> {
        Box::new(ReplicationHandle::new(Arc::clone(&self.shared)))
    }
}

/// Begins a member over the logs that `catalog` names.
fn begin<C: Catalog + Send + 'static>(
    settings: Replication,
    leadership: &Arc<Leadership>,
    (broker, catalog): (Broker, C),
    background: bool,
) -> Result<Arc<dyn Attached>> {
    let timing = Timing {
        heartbeat: settings.heartbeat,
        timeout: settings.timeout(),
        elects: settings.election.is_some(),
    };
    let engine = Arc::clone(broker.run());
    let (clock, env) = (engine.clock().clone(), Arc::clone(&engine.context().env));
    let numbers = Arc::clone(&env);
    let draw = move || (u128::from((env.random)()) << 64) | u128::from((env.random)());
    let drawn = (&draw, lower(draw()));
    let shell = Shell::open(broker, catalog, settings.me, settings.members.clone(), drawn)?;
    let chance = Box::new(move || u32::try_from((numbers.random)() >> 32).unwrap_or(0));
    let now = clock.monotonic();
    let driver = Some(Driver::new(shell, Arc::clone(leadership), timing, chance, now));
    let running = Running {
        driver,
        now,
        due: now,
        show_due: now,
        waiting: Output::default(),
        late: Late::default(),
        sender: None,
        is_called: false,
    };
    let beside = Arc::new(Beside {
        running: Mutex::at_level(LockLevel::ReplicationMember, running),
        has_sent: Condvar::new(),
        outside: Outside {
            transport: settings.transport,
            on_event: settings.on_event,
            trace: engine.context().env.trace.clone(),
            #[cfg(feature = "testing")]
            seams: engine.context().env.seams.clone(),
        },
        shared: Arc::clone(&settings.shared),
        leadership: Arc::clone(leadership),
        clock,
        me: settings.me,
        members: settings.members,
        draw: Box::new(draw),
        thread: MemberThread {
            is_wanted: background,
            id: OnceLock::new(),
            has_ended: AtomicBool::new(false),
            on_move: OnceLock::new(),
        },
    });
    beside.shared.begin(Arc::clone(&beside) as Arc<dyn Calls>);
    if background {
        set_callbacks(&beside);
        let member = Arc::clone(&beside);
        let started = engine.start_beside("logpond-replica", Box::new(move || member.run_thread()));
        if let Err(error) = started {
            beside.stop(false);
            return Err(error);
        }
    }
    Ok(beside)
}

/// What threads of the engine call when there is news, and a clock that is moved by hand.
fn set_callbacks<C: Catalog + Send + 'static>(beside: &Arc<Beside<C>>) {
    let shared = Arc::downgrade(&beside.shared);
    beside.leadership.set_waker(Box::new(move || {
        if let Some(shared) = shared.upgrade() {
            shared.inbox.call();
        }
    }));
    let member = Arc::downgrade(beside);
    beside.leadership.set_announcer(Box::new(move || {
        if let Some(member) = member.upgrade() {
            member.announce();
        }
    }));
    let shared = Arc::downgrade(&beside.shared);
    let on_move: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        if let Some(shared) = shared.upgrade() {
            shared.inbox.call();
        }
    });
    beside.clock.clock().on_move(Arc::downgrade(&on_move));
    let _ = beside.thread.on_move.set(on_move);
}

impl Attachment for Begins {
    fn validate(&self) -> Result<()> {
        self.settings.validate()
    }

    fn leadership(&self) -> Arc<Leadership> {
        Arc::clone(&self.leadership)
    }

    fn begin(self: Box<Self>, broker: Broker, background: bool) -> Result<Arc<dyn Attached>> {
        let catalog = EngineCatalog::new(&broker);
        begin(self.settings, &self.leadership, (broker, catalog), background)
    }
}

/// A member whose broker is being opened.
struct Begins {
    settings: Replication,
    leadership: Arc<Leadership>,
}

impl BrokerBuilder {
    /// Makes the broker a member of a replicated group: see [`Replication`].
    ///
    /// The directory has to be opened with replication from then on.
    ///
    /// [`open`](Self::open) returns [`Error::Config`] if a member is listed twice, the list has
    /// more than 7 members or not this one, the heartbeat is zero or more than half the time-out of
    /// the election, or the broker is to be opened read-only.
    pub fn replication(self, replication: Replication) -> Self {
        let leadership = Arc::new(Leadership::new(replication.terms));
        self.attach(Box::new(Begins { settings: replication, leadership }))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
