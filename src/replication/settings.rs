//! `Replication`: the settings of a member, before its broker is open.

use std::sync::Arc;
use std::time::Duration;

use super::handle::{ReplicationHandle, Shared};
use super::status::ReplicationEvent;
use super::transport::Transport;
use super::wire::MEMBERS_MAX;
use crate::error::{Error, Result};
use crate::partition::leadership::LeadershipTerms;
use crate::record::NodeId;

/// What is called with each event.
pub(super) type OnEvent = Box<dyn Fn(&ReplicationEvent) + Send + Sync>;

/// The settings of the elector that comes with replication: members that miss their leader ask each other,
/// and one of them leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Election {
    /// After how long without a beat a member misses its leader: between this and its double, drawn by
    /// chance, so that members rarely begin at the same time. On the broker's monotonic clock.
    pub timeout: Duration,
}

impl Default for Election {
    /// 500 ms.
    fn default() -> Self {
        Self { timeout: TIMEOUT }
    }
}

/// LIMIT: five beats: one that is late or lost deposes nobody.
const TIMEOUT: Duration = Duration::from_millis(500);
const HEARTBEAT: Duration = Duration::from_millis(100);
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// LIMIT: a few seconds of a fast producer, and what a process can spare for each partition.
const UNCOMMITTED_BYTES: u64 = 64 << 20;

/// Makes a broker a member of a replicated group: each member has a copy of everything, one of them
/// leads, and a record is acknowledged when a majority has it. Given to
/// [`BrokerBuilder::replication`](crate::BrokerBuilder::replication).
///
/// All members list the same node ids. When all of them run for the first time, they found the group;
/// later the group itself knows its members.
pub struct Replication {
    pub(super) me: NodeId,
    pub(super) members: Vec<NodeId>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) election: Option<Election>,
    pub(super) heartbeat: Duration,
    pub(super) terms: LeadershipTerms,
    pub(super) on_event: Option<OnEvent>,
    pub(super) shared: Arc<Shared>,
}

impl Replication {
    /// Settings of the member `me` of a group of these members, which are reached by `transport`.
    ///
    /// The list must name 1 to 7 members, each once, `me` among them. Otherwise
    /// [`open`](crate::BrokerBuilder::open) returns [`Error::Config`]. The list founds the group;
    /// later the group's is in force, and [`list_differs`](crate::ReplicationStatus::list_differs)
    /// says whether this one is another.
    #[must_use]
    pub fn new(
        me: NodeId,
        members: impl IntoIterator<Item = NodeId>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        let terms =
            LeadershipTerms { ack_timeout: ACK_TIMEOUT, max_uncommitted_bytes: UNCOMMITTED_BYTES };
        Self {
            me,
            members: members.into_iter().collect(),
            transport,
            election: None,
            heartbeat: HEARTBEAT,
            terms,
            on_event: None,
            shared: Arc::new(Shared::new(me)),
        }
    }

    /// Has the members elect who leads. Without it, [`lead`](ReplicationHandle::lead) is called from
    /// outside. All members should have the same setting.
    #[must_use]
    pub fn elect(mut self, election: Election) -> Self {
        self.election = Some(election);
        self
    }

    /// Sets how many bytes that no majority has a partition may hold. Default 64 MiB. Beyond it appends
    /// return [`Error::NotEnoughReplicas`].
    #[must_use]
    pub fn max_uncommitted_bytes(mut self, bytes: u64) -> Self {
        self.terms.max_uncommitted_bytes = bytes;
        self
    }

    /// Sets how long a call waits for a majority, on the broker's monotonic clock. Default 30 s. After
    /// that it returns [`Error::Timeout`]: the record may or may not be kept.
    ///
    /// If the leader is cut off from the others, a call that waits there already returns only after
    /// this time, although another member may lead much earlier. A service that is to fail over
    /// sets it to a few seconds.
    ///
    /// A thread that waits looks at the clock itself, so it needs no background threads and no
    /// [`tick`](ReplicationHandle::tick). With a [`ManualClock`](crate::ManualClock) the time is over
    /// when the clock was moved so far: background threads and `tick` notice that at once, and the thread
    /// itself within a second; while the clock stands still, the call waits. A task
    /// ([`Delivery`](crate::Delivery) as a future) is woken by background threads or `tick`.
    #[must_use]
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.terms.ack_timeout = timeout;
        self
    }

    /// Sets how often the leader shows that it leads. Default 100 ms. It must be well below the time-out
    /// of the election, which is 500 ms without one.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// Sets what is called with each event, by the member's thread, one after the other. It must not
    /// block, because the member does nothing meanwhile. It may call the [handle](ReplicationHandle) and
    /// close the broker; [`confirm`](ReplicationHandle::confirm) and
    /// [`wait_leading`](ReplicationHandle::wait_leading) return an error there, and an append that waits
    /// for a majority times out. A panic is caught.
    #[must_use]
    pub fn on_event(mut self, call: impl Fn(&ReplicationEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Box::new(call));
        self
    }

    /// Returns the handle of the member, also before the broker is open: a transport may need it.
    #[must_use]
    pub fn handle(&self) -> ReplicationHandle {
        ReplicationHandle::new(Arc::clone(&self.shared))
    }

    pub(super) fn timeout(&self) -> Duration {
        self.election.unwrap_or_default().timeout
    }

    pub(super) fn validate(&self) -> Result<()> {
        let mut members = self.members.clone();
        members.sort_unstable();
        members.dedup();
        let refused = |reason: String| Err(Error::config("replication", reason));
        if members.len() != self.members.len() {
            return refused("a member is listed twice".to_owned());
        }
        if !members.contains(&self.me) {
            return refused(format!("member {} is not in the list of members", self.me));
        }
        if members.len() > MEMBERS_MAX {
            return refused(format!("{} members; at most {MEMBERS_MAX}", members.len()));
        }
        let twice = self.heartbeat.saturating_mul(2);
        if self.heartbeat.is_zero() || self.timeout() < twice {
            let timeout = self.timeout();
            let reason =
                format!("a heartbeat of {:?} for a time-out of {timeout:?}", self.heartbeat);
            return refused(format!("{reason}: it must be at most half of it, and not zero"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replication")
            .field("me", &self.me)
            .field("members", &self.members)
            .field("election", &self.election)
            .finish_non_exhaustive()
    }
}
