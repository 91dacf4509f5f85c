//! `Beside`: a member that runs beside its broker: by a thread, or when it is called.
//!
//! Owns: the lock around the member, its thread, and the calls of application code: the transport and
//! the callback for events. Must not know: the protocol.
//!
//! One thread at a time runs the member and sends what it says, so that frames leave in their order.
//! No application code runs under the member's lock.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::EngineCatalog;
use super::driver::{Driver, Output, Replacing, Resigning, Timing};
use super::handle::{Calls, ReplicationHandle, Shared};
use super::member::LeadRefused;
use super::membership::GroupId;
use super::settings::{OnEvent, Replication};
use super::shell::{Catalog, Shell};
use super::status::ForcedLead;
use super::transport::Transport;
use super::wire::{Said, pack};
use crate::broker::attached::Attached;
use crate::broker::attachment::Attachment;
use crate::broker::{Broker, BrokerBuilder};
use crate::clock::{RunClock, real_now};
use crate::error::{Error, Result};
use crate::foreign;
use crate::partition::leadership::Leadership;
use crate::record::{LeaderEpoch, NodeId};
use crate::sync::{AtomicBool, LockLevel, Mutex, OnceLock, Ordering};

/// LIMIT: how many bytes of messages to one member share a frame, about.
const FRAME_BYTES: usize = 1 << 20;
/// LIMIT: how many frames are taken before a call of `tick` returns. Members in one process that
/// answer each other at once would keep it for as long as there is something to say.
const TURN_FRAMES: usize = 256;
/// LIMIT: how often what is shown is made anew, if nothing happens.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// The member, and when it wants to be called.
struct Running<C> {
    /// `None` when it has ended.
    driver: Option<Driver<C>>,
    due: Duration,
    show_due: Duration,
}

/// The application's code.
struct Outside {
    /// Held while frames are sent: one thread at a time sends.
    sending: Mutex<()>,
    transport: Arc<dyn Transport>,
    on_event: Option<OnEvent>,
}

impl Outside {
    fn deliver(&self, output: Output) {
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
                let _ = foreign::call(|| self.transport.send(to, frame));
            }
        }
        for event in output.events {
            if let Some(call) = &self.on_event {
                let _ = foreign::call(|| call(&event));
            }
        }
    }
}

struct Beside<C> {
    running: Mutex<Running<C>>,
    outside: Outside,
    shared: Arc<Shared>,
    leadership: Arc<Leadership>,
    clock: RunClock,
    members: Vec<NodeId>,
    /// Draws the id of a group.
    draw: Box<dyn Fn() -> u128 + Send + Sync>,
    has_thread: bool,
    /// ORDERING: Release by the one who ends it, Acquire by its thread: it then finds no member.
    has_ended: AtomicBool,
    /// Keeps what a clock that is moved by hand calls.
    on_move: OnceLock<Arc<dyn Fn() + Send + Sync>>,
}

impl<C: Catalog + Send + 'static> Beside<C> {
    /// Does something with the member, and has what comes of it sent and reported.
    fn with<R>(&self, call: impl FnOnce(&mut Driver<C>, Duration) -> Result<R>) -> Result<R> {
        let result = {
            let mut running = self.running.lock();
            let now = self.clock.monotonic();
            // What is to be sent waits for the next turn.
            running.due = now;
            let driver = running.driver.as_mut().ok_or(Error::Closed)?;
            let result = call(driver, now);
            // At once: the caller may look.
            self.shared.show(Some(driver.status(now)), driver.confirmed());
            result
        };
        if self.has_thread {
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
            let (is_idle, due) = self.turn();
            if is_idle {
                return due;
            }
        }
        Duration::ZERO
    }

    /// Takes one frame, and does what is due. Returns whether there was no frame, and for how long nothing
    /// will be due.
    fn turn(&self) -> (bool, Duration) {
        let _sending = self.outside.sending.lock();
        let arrived = self.shared.inbox.take();
        let is_idle = arrived.is_none();
        let mut running = self.running.lock();
        let now = self.clock.monotonic();
        let Running { driver: Some(driver), due, show_due } = &mut *running else {
            return (true, Duration::MAX);
        };
        if let Some((from, frame)) = arrived {
            // What is no frame of a member of this group is as good as lost.
            let _ = driver.receive(from, &frame, now);
        }
        driver.take_news(self.has_thread, now);
        if now >= *due {
            *due = driver.tick(now);
        }
        let output = driver.take_output();
        let is_news = !output.events.is_empty() || now >= *show_due;
        let status = is_news.then(|| driver.status(now));
        let confirmed = driver.confirmed();
        if is_news {
            *show_due = now.saturating_add(SHOWN_EVERY);
        }
        let due = due.saturating_sub(now);
        drop(running);
        self.shared.show(status, confirmed);
        self.outside.deliver(output);
        (is_idle, due)
    }

    fn run_thread(&self) {
        while !self.has_ended.load(Ordering::Acquire) {
            let due = self.turn_all();
            // A clock that is moved by hand calls; others run at the rate of real time.
            self.shared.inbox.wait(real_now().checked_add(due));
        }
    }
}

impl<C: Catalog + Send + 'static> Calls for Beside<C> {
    fn lead(&self, epoch: LeaderEpoch) -> Result<()> {
        self.with(|driver, now| driver.lead(epoch, now).map_err(|refused| error_of(refused, epoch)))
    }

    fn force_lead(&self, epoch: LeaderEpoch) -> Result<ForcedLead> {
        let group = GroupId((self.draw)());
        self.with(|driver, now| {
            let forced = driver.force_lead(epoch, group, now);
            forced.map_err(|refused| error_of(refused, epoch))
        })
    }

    fn resign(&self, to: Option<NodeId>) -> Result<()> {
        let not_leader = self.leadership.not_leader();
        self.with(|driver, now| match driver.resign(to, now) {
            Resigning::Done => Ok(()),
            Resigning::NotLeader => Err(not_leader),
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
        let not_leader = self.leadership.not_leader();
        self.with(|driver, now| match driver.replace(node, now) {
            Replacing::Begun => Ok(()),
            Replacing::NotLeader => Err(not_leader),
            Replacing::Another(other) => {
                let reason = format!("member {other} is being replaced: one at a time");
                Err(Error::config("replace_member", reason))
            }
        })
    }

    fn confirm(&self) -> Result<(LeaderEpoch, u64)> {
        let not_leader = self.leadership.not_leader();
        self.with(|driver, now| driver.confirm(now).ok_or(not_leader))
    }

    fn tick(&self) -> Duration {
        self.turn_all()
    }

    fn ack_timeout(&self) -> Duration {
        self.leadership.terms().ack_timeout
    }
}

/// The error of a call that is refused.
fn error_of(refused: LeadRefused, epoch: LeaderEpoch) -> Error {
    let reason = match refused {
        LeadRefused::Fenced { promised } => {
            let id = "leader epoch".to_owned();
            return Error::Fenced { id, epoch: epoch.0, current: promised.0 };
        }
        LeadRefused::TooFar { promised } => {
            return Error::config(
                "lead",
                format!("epoch {} lies too far above {}", epoch.0, promised.0),
            );
        }
        LeadRefused::Learner => {
            "this directory is not the one that the group knows for this member; `replace_member` \
             admits it"
        }
        LeadRefused::Recovering => {
            "this member may have lost records; it can lead once it has copied them from a leader"
        }
        LeadRefused::Damaged => {
            "a log of this member is damaged; it can lead once it has copied it from a leader"
        }
    };
    Error::config("lead", reason)
}

impl<C: Catalog + Send + 'static> Attached for Beside<C> {
    fn run(&self) {
        let _ = self.turn_all();
    }

    fn stop(&self, gives_way: bool) {
        if gives_way {
            let resigned = self.with(|driver, now| Ok(driver.resign(None, now)));
            if resigned.is_ok_and(|resigned| resigned == Resigning::Done) && self.has_thread {
                let _ = self.turn();
            }
        }
        self.has_ended.store(true, Ordering::Release);
        let driver = self.running.lock().driver.take();
        self.shared.end();
        drop(driver);
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
    let shell = Shell::open(broker, catalog, settings.me, settings.members.clone(), &draw)?;
    let chance = Box::new(move || u32::try_from((numbers.random)() >> 32).unwrap_or(0));
    let now = clock.monotonic();
    let driver = Driver::new(shell, Arc::clone(leadership), timing, chance, now);
    let running = Running { driver: Some(driver), due: now, show_due: now };
    let beside = Arc::new(Beside {
        running: Mutex::at_level(LockLevel::ReplicationMember, running),
        outside: Outside {
            sending: Mutex::at_level(LockLevel::ReplicationSending, ()),
            transport: settings.transport,
            on_event: settings.on_event,
        },
        shared: Arc::clone(&settings.shared),
        leadership: Arc::clone(leadership),
        clock: clock.clone(),
        members: settings.members,
        draw: Box::new(draw),
        has_thread: background,
        has_ended: AtomicBool::new(false),
        on_move: OnceLock::new(),
    });
    beside.shared.begin(Arc::clone(&beside) as Arc<dyn Calls>);
    if background {
        let inbox = Arc::downgrade(&beside.shared);
        leadership.set_waker(Box::new(move || {
            if let Some(shared) = inbox.upgrade() {
                shared.inbox.call();
            }
        }));
        let shared = Arc::downgrade(&beside.shared);
        let on_move: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.inbox.call();
            }
        });
        clock.clock().on_move(Arc::downgrade(&on_move));
        let _ = beside.on_move.set(on_move);
        let member = Arc::clone(&beside);
        let started = engine.start_beside("logpond-replica", Box::new(move || member.run_thread()));
        if let Err(error) = started {
            beside.stop(false);
            return Err(error);
        }
    }
    Ok(beside)
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
    pub fn replication(self, replication: Replication) -> Self {
        let leadership = Arc::new(Leadership::new(replication.terms));
        self.attach(Box::new(Begins { settings: replication, leadership }))
    }
}
