//! `ReplicationHandle`: a member as an application holds it.
//!
//! Owns: what is shared with the thread of the member: what has arrived, and what is shown. Must not
//! know: the protocol.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::inbox::Inbox;
use super::log_key::LogKey;
use super::status::{Counts, ForcedLead, MemberState, MemberStatus, ReplicationStatus, Role};
use super::traffic::Traffic;
use super::wire::Frame;
use crate::broker::Broker;
use crate::broker::replication_metrics::{MemberMetrics, ReplicationMetrics};
use crate::clock::real_now;
use crate::error::{Error, Result, TransportError};
use crate::record::{LeaderEpoch, NodeId};
#[cfg(feature = "testing")]
use crate::seams::{Drive, drive_until};
use crate::sync::{Condvar, LockLevel, Mutex};

/// What a member does for calls of its handle.
pub(super) trait Calls: Send + Sync {
    /// See [`ReplicationHandle::lead`].
    fn lead(&self, epoch: LeaderEpoch) -> Result<()>;
    /// See [`ReplicationHandle::force_lead`].
    fn force_lead(&self, epoch: LeaderEpoch) -> Result<ForcedLead>;
    /// See [`ReplicationHandle::resign`].
    fn resign(&self, to: Option<NodeId>) -> Result<()>;
    /// See [`ReplicationHandle::replace_member`].
    fn replace(&self, node: NodeId) -> Result<()>;
    /// Beats, and returns the epoch and the number of the beat.
    fn confirm(&self) -> Result<(LeaderEpoch, u64)>;
    /// See [`ReplicationHandle::tick`].
    fn tick(&self) -> Duration;
    /// Takes what has arrived, if no other thread runs the member; otherwise that one does.
    fn take_arrived(&self);
    /// Whether a caller that waits for the member has to run it meanwhile: no other thread does.
    ///
    /// # Errors
    ///
    /// The caller is called by the member, which cannot do anything before that returns.
    fn must_run(&self) -> Result<bool>;
    fn ack_timeout(&self) -> Duration;
    /// The cluster of a test that this member belongs to.
    #[cfg(feature = "testing")]
    fn drive(&self) -> Option<Arc<dyn Drive>>;
}

/// What a member shows.
#[derive(Debug)]
struct Shows {
    status: ReplicationStatus,
    counts: Counts,
    /// The last beat that a majority has answered.
    confirmed: u64,
    /// The log starts that a majority has noted, where a caller awaits that.
    starts: BTreeMap<LogKey, u64>,
    /// Why the member does nothing any more.
    failure: Option<Error>,
    /// Whether there is a member: not before the broker is open, nor after it is closed.
    is_open: bool,
    /// How many callers run the member while they wait. They sleep at the inbox.
    runners: usize,
}

/// What handles share with the member.
pub(super) struct Shared {
    me: NodeId,
    pub(super) inbox: Inbox,
    pub(super) traffic: Traffic,
    shows: Mutex<Shows>,
    changed: Condvar,
    /// `None` before the broker is open, and when it is closed.
    calls: Mutex<Option<Arc<dyn Calls>>>,
}

impl Shared {
    pub(super) fn new(me: NodeId) -> Self {
        let status = ReplicationStatus {
            me,
            role: Role::Follower,
            epoch: LeaderEpoch(0),
            leader: None,
            may_write: false,
            members: vec![MemberStatus {
                id: me,
                state: MemberState::Voter,
                lag_records: 0,
                lag_bytes: 0,
                last_heard: None,
            }],
            list_differs: false,
            cuts_refused: 0,
            replacing: None,
            failure: None,
        };
        let (counts, starts) = (Counts::default(), BTreeMap::new());
        let (confirmed, failure, is_open, runners) = (0, None, false, 0);
        let shows = Shows { status, counts, confirmed, starts, failure, is_open, runners };
        Self {
            me,
            inbox: Inbox::new(),
            traffic: Traffic::default(),
            shows: Mutex::at_level(LockLevel::ReplicationShown, shows),
            changed: Condvar::new(),
            calls: Mutex::at_level(LockLevel::ReplicationCalls, None),
        }
    }

    pub(super) fn begin(&self, calls: Arc<dyn Calls>) {
        *self.calls.lock() = Some(calls);
        self.shows.lock().is_open = true;
    }

    /// The member has ended: nothing is shown any more, and calls that wait return.
    pub(super) fn end(&self) {
        let calls = self.calls.lock().take();
        drop(calls);
        self.inbox.call();
        let mut shows = self.shows.lock();
        shows.is_open = false;
        shows.status.role = Role::Follower;
        (shows.status.leader, shows.status.may_write) = (None, false);
        drop(shows);
        self.changed.notify_all();
    }

    /// Shows what is new. Called under the member's lock, so that nothing older is shown after what is
    /// newer, nor anything after the end.
    pub(super) fn show(
        &self,
        status: Option<(ReplicationStatus, Counts)>,
        failure: Option<Error>,
        (confirmed, starts): (u64, BTreeMap<LogKey, u64>),
    ) {
        let mut shows = self.shows.lock();
        let is_news = shows.confirmed != confirmed || shows.starts != starts || status.is_some();
        (shows.confirmed, shows.starts) = (confirmed, starts);
        shows.failure = failure;
        if let Some((status, counts)) = status {
            (shows.status, shows.counts) = (status, counts);
        }
        let has_runners = shows.runners > 0;
        drop(shows);
        if is_news {
            self.changed.notify_all();
            if has_runners {
                // Another thread has run the member: for one of the transport, or a caller.
                self.inbox.call();
            }
        }
    }

    pub(super) fn metrics(&self) -> ReplicationMetrics {
        let shows = self.shows.lock();
        let Shows { status, counts, .. } = &*shows;
        let member = |it: &MemberStatus| {
            let MemberStatus { id, lag_records, lag_bytes, .. } = *it;
            MemberMetrics { id, lag_records, lag_bytes }
        };
        ReplicationMetrics {
            me: self.me,
            role: status.role,
            epoch: status.epoch,
            may_write: status.may_write,
            has_failed: status.failure.is_some(),
            members: status.members.iter().map(member).collect(),
            frames: self.traffic.metrics(),
            leaderships: counts.leaderships,
            elections: counts.elections,
            truncations: counts.truncations,
        }
    }

    /// Waits until a majority has noted that a log begins at `start`, or above. The member awaits that.
    ///
    /// # Errors
    ///
    /// The leadership of `epoch` has ended, the time is over, or the member has failed or ended. The start
    /// may be kept or not.
    pub(super) fn wait_start(
        &self,
        log: LogKey,
        start: u64,
        epoch: LeaderEpoch,
        timeout: Duration,
    ) -> Result<()> {
        self.wait(timeout, |shows| {
            if shows.starts.get(&log).is_some_and(|noted| *noted >= start) {
                return Some(Ok(()));
            }
            let leads = shows.status.role == Role::Leader && shows.status.epoch == epoch;
            (!leads).then_some(Err(Error::LeadershipLost))
        })
    }

    fn calls(&self) -> Result<Arc<dyn Calls>> {
        self.calls.lock().as_ref().map(Arc::clone).ok_or(Error::Closed)
    }

    /// Waits until what is shown gives an answer, the member has failed or ended, or the time is over.
    fn wait<T>(
        &self,
        timeout: Duration,
        answer: impl Fn(&Shows) -> Option<Result<T>>,
    ) -> Result<T> {
        let calls = self.calls()?;
        let must_run = calls.must_run()?;
        let known = |shows: &Shows| {
            let failed = || shows.failure.clone().map(Err);
            let closed = || (!shows.is_open).then_some(Err(Error::Closed));
            failed().or_else(|| answer(shows)).or_else(closed)
        };
        #[cfg(feature = "testing")]
        if let Some(drive) = calls.drive() {
            drop(calls);
            let until = drive.now().checked_add(timeout);
            let look = || known(&self.shows.lock());
            return drive_until(&*drive, until, look).unwrap_or(Err(Error::Timeout));
        }
        let deadline = real_now().checked_add(timeout);
        let runs = must_run.then(|| Runs::begin(self, calls));
        loop {
            let seen = self.inbox.calls();
            let next = runs.as_ref().map(|runs| runs.calls.tick());
            let shows = self.shows.lock();
            if let Some(answer) = known(&shows) {
                return answer;
            }
            if deadline.is_some_and(|deadline| real_now() >= deadline) {
                return Err(Error::Timeout);
            }
            let Some(next) = next else {
                // All that changes what is shown notifies.
                match deadline {
                    None => drop(self.changed.wait(shows)),
                    Some(deadline) => drop(self.changed.wait_until(shows, deadline)),
                }
                continue;
            };
            drop(shows);
            let next = real_now().checked_add(next);
            self.inbox.wait(seen, deadline.into_iter().chain(next).min());
        }
    }
}

/// A caller that runs the member while it waits, and is woken if another thread does.
struct Runs<'a> {
    shared: &'a Shared,
    calls: Arc<dyn Calls>,
}

impl<'a> Runs<'a> {
    fn begin(shared: &'a Shared, calls: Arc<dyn Calls>) -> Self {
        shared.shows.lock().runners += 1;
        Self { shared, calls }
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.shared.shows.lock().runners -= 1;
    }
}

/// A member of a replicated group. Cheap to clone; [`Broker::replication`] returns it, and
/// [`Replication::handle`](crate::Replication::handle) before the broker is open.
///
/// It does not keep the broker open. When the broker is closed, calls return [`Error::Closed`].
#[derive(Clone)]
pub struct ReplicationHandle {
    shared: Arc<Shared>,
}

impl ReplicationHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Takes a frame that has arrived from the member `from`.
    ///
    /// # Errors
    ///
    /// [`Error::Transport`] if `from` is this member, or more frames are waiting than there is room
    /// for: the frame is lost, and what it said will be said again. A frame for another member, not
    /// from `from`, or that no member has made is refused when it is looked at, which
    /// [`refused`](crate::FrameMetrics::refused) counts. What another group says is dropped then,
    /// and counts as received; a member that belongs to no group yet cannot know it. Neither
    /// returns an error here.
    ///
    /// # Blocking
    ///
    /// Never for the disk or the network. It may be called from any thread or task, also by
    /// [`Transport::send`](crate::Transport::send).
    pub fn receive(&self, from: NodeId, frame: Frame) -> Result<()> {
        self.put(from, frame, Inbox::put)
    }

    /// Takes a frame as [`receive`](Self::receive) does, and does on this thread what it asks for: it
    /// stores records, makes an answer, and gives that to the transport. For a transport that has
    /// threads for what arrives: it saves the wake-up of the member's thread, which takes longer than
    /// the work. If the member is at work already, or its broker is not open yet, this is `receive`.
    ///
    /// # Errors
    ///
    /// As of [`receive`](Self::receive).
    ///
    /// # Blocking
    ///
    /// For the disk. It may be called by [`Transport::send`](crate::Transport::send) too, which then
    /// takes as long as what the other member does.
    pub fn receive_and_tick(&self, from: NodeId, frame: Frame) -> Result<()> {
        let Ok(calls) = self.shared.calls() else { return self.receive(from, frame) };
        self.put(from, frame, Inbox::put_quietly)?;
        calls.take_arrived();
        Ok(())
    }

    fn put(
        &self,
        from: NodeId,
        frame: Frame,
        put: impl FnOnce(&Inbox, NodeId, Frame) -> bool,
    ) -> Result<()> {
        let (Shared { me, inbox, traffic, .. }, size) = (&*self.shared, frame.as_bytes().len());
        if from == *me {
            traffic.received(size, false);
            return Err(TransportError::new("the frame is this member's own").into());
        }
        if !put(inbox, from, frame) {
            traffic.received(size, false);
            return Err(TransportError::new("too many frames are waiting").into());
        }
        Ok(())
    }

    /// Calls this member to lead: it asks the others for their promises, and leads when a majority
    /// has promised and it has everything that any of them has. [`wait_leading`](Self::wait_leading)
    /// waits for that.
    ///
    /// For applications that know who is to lead (by a Kubernetes lease, a lock in a database, an
    /// operator). `epoch` must be greater than all before: a number that such a lock counts up. A
    /// wrong call costs availability, and never a record.
    ///
    /// The first leader founds the group, when all listed members have answered. Until then, and if
    /// another member has topics or records (so that one has to lead), this call returns `Ok` all
    /// the same, and `wait_leading` times out. [`status`](Self::status) shows no leader then. Its
    /// role is [`Candidate`](Role::Candidate) while members are missing, whose
    /// [`last_heard`](crate::MemberStatus::last_heard) is `None`, and [`Follower`](Role::Follower)
    /// if another one has to lead.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] if this member has promised an equal or higher epoch; [`Error::Config`] if it
    /// may not lead now (it is a learner, it recovers, one of its logs is damaged), or the epoch lies
    /// absurdly far above; that of the disk, also of an earlier call, if the member has failed (see
    /// [`ReplicationStatus::failure`]); [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// On `Ok` the promise not to follow a smaller epoch is on stable storage.
    ///
    /// # Blocking
    ///
    /// For the disk, and for what the member is doing at the moment; not for other members.
    pub fn lead(&self, epoch: LeaderEpoch) -> Result<()> {
        self.shared.calls()?.lead(epoch)
    }

    /// Makes this member the leader of a group of its own, without asking anybody. For the case that a
    /// majority of the disks is lost for ever, or a loss of power has left none of the members whole.
    /// **It may lose acknowledged records**: those that this member has not. The report says what is
    /// given up.
    ///
    /// First be sure that no other member runs, or will run again with its directory: two groups
    /// would continue, each with records that the other lacks. Then empty the directories of the others
    /// and start them; [`replace_member`](Self::replace_member) admits them, one by one, when they have
    /// copied everything.
    ///
    /// # Errors
    ///
    /// As of [`lead`](Self::lead), but a member that recovers is not refused. [`Error::Config`] also while
    /// this member hears the leader, or leads and hears a majority: nothing needs to be forced. If the member has failed,
    /// it may have begun: open its broker again, and repeat the call. Otherwise nothing is changed.
    ///
    /// # Durability
    ///
    /// On `Ok` the new group is on stable storage.
    ///
    /// # Blocking
    ///
    /// For the disk.
    pub fn force_lead(&self, epoch: LeaderEpoch) -> Result<ForcedLead> {
        self.shared.calls()?.force_lead(epoch)
    }

    /// Waits until this member leads, may acknowledge records, and shows its readers all that was
    /// acknowledged before: until [`may_write`](crate::ReplicationStatus::may_write).
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] after `timeout` of real time; that by which the member has failed;
    /// [`Error::Config`] if the transport or [`on_event`](crate::Replication::on_event) calls it, because
    /// the member does nothing meanwhile; [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For other members. Without background threads the call [ticks](Self::tick) itself.
    pub fn wait_leading(&self, timeout: Duration) -> Result<()> {
        self.shared.wait(timeout, |shows| shows.status.may_write.then_some(Ok(())))
    }

    /// Gives up the leadership. With an [elector](crate::Replication::elect) the member `to`, or
    /// the one that has copied most, calls itself to lead at once, with the next epoch. Without one
    /// nobody does: the application calls [`lead`](Self::lead) where it wants to, and numbers the
    /// epochs.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`]; [`Error::Config`] if `to` is no other member, its directory does not
    /// count, or it is not heard at the moment (this member leads on then); that by which the member
    /// has failed; [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For what the member is doing at the moment.
    pub fn resign(&self, to: Option<NodeId>) -> Result<()> {
        self.shared.calls()?.resign(to)
    }

    /// Admits the new directory of a member whose old one is lost, as soon as it has copied everything:
    /// from then on it counts, and the old one does not. Called at the leader, for one member at a
    /// time; [`ReplicationEvent::MemberJoined`](crate::ReplicationEvent::MemberJoined) reports when
    /// it is done, and [`replacing`](crate::ReplicationStatus::replacing) shows it until then. A second
    /// call for the same member changes nothing. If the leadership ends before, the next leader has to be
    /// asked again.
    ///
    /// Do not stop another member right after that event: until all members know that a majority
    /// has the change, a majority of the members before it is needed too, and the group may have no
    /// leader. The [procedure](crate::docs::copies#procedures) says what to wait for.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`]; [`Error::Config`] for a node that is not in the list of
    /// [`Replication::new`](crate::Replication::new), for this one, for one whose
    /// directory counts and was the last that was heard of it, within the time-out, and while another
    /// member is being replaced that is not heard from such a directory; that by which the member has
    /// failed; [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For what the member is doing at the moment.
    pub fn replace_member(&self, node: NodeId) -> Result<()> {
        self.shared.calls()?.replace(node)
    }

    /// Returns what the member was a moment ago: never before what the last call of
    /// [`lead`](Self::lead), [`force_lead`](Self::force_lead), [`resign`](Self::resign) or
    /// [`replace_member`](Self::replace_member) that has returned has done.
    ///
    /// # Blocking
    ///
    /// Never for the disk, the network, or what the member is doing.
    #[must_use]
    pub fn status(&self) -> ReplicationStatus {
        self.shared.shows.lock().status.clone()
    }

    /// Confirms that reads here are current: what is read after the call has everything, in every
    /// partition, that any member acknowledged before the call.
    ///
    /// Two things are waited for. A majority answers a beat that was sent after the call, so no
    /// other member led when it was called. And a majority has all that was there when this
    /// leadership began, as of [`MayWrite`](crate::ReplicationEvent::MayWrite): right after a
    /// change of the leader, some of what the last one acknowledged may not be visible here yet.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`], also if the leadership ends meanwhile; [`Error::Timeout`] if that does
    /// not happen within [`ack_timeout`](crate::Replication::ack_timeout), of real time; that by which the
    /// member has failed; [`Error::Config`] if the transport or
    /// [`on_event`](crate::Replication::on_event) calls it, because the member does nothing meanwhile (and
    /// nothing is sent then); [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For the round trip, and after a change of the leader until a majority has copied what it
    /// lacks. Without background threads the call [ticks](Self::tick) itself.
    pub fn confirm(&self) -> Result<()> {
        let calls = self.shared.calls()?;
        // Before anything is asked for: a transport that calls this would be called again for each beat.
        let _ = calls.must_run()?;
        let (epoch, round) = calls.confirm()?;
        self.shared.wait(calls.ack_timeout(), |shows| {
            let status = &shows.status;
            if status.epoch != epoch || status.role != Role::Leader {
                let leader = status.leader.filter(|leader| *leader != status.me);
                return Some(Err(Error::NotLeader { leader }));
            }
            (shows.confirmed >= round).then_some(Ok(()))
        })
    }

    /// Does what there is to do: takes the frames that have arrived, some hundreds at most, and
    /// what is due. For a broker without background threads. Returns after how long, on the
    /// broker's monotonic clock, it wants to be called again at the latest: at once if more frames
    /// wait; earlier when a frame has arrived or something was appended.
    ///
    /// One thread at a time does it. While another one does, or if the transport or
    /// [`on_event`](crate::Replication::on_event) calls it, it returns at once: what there is to do is
    /// done where the member was called first.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For the disk.
    pub fn tick(&self) -> Result<Duration> {
        Ok(self.shared.calls()?.tick())
    }
}

impl std::fmt::Debug for ReplicationHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicationHandle").field("me", &self.shared.me).finish_non_exhaustive()
    }
}

impl Broker {
    /// Returns the broker's member of its replicated group; `None` without
    /// [`replication`](crate::BrokerBuilder::replication).
    #[must_use]
    pub fn replication(&self) -> Option<ReplicationHandle> {
        let handle = self.run().attached()?.handle();
        handle.downcast::<ReplicationHandle>().ok().map(|handle| *handle)
    }
}
