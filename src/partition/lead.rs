//! Whether the broker leads its replicated group, as its partitions and calls ask.
//!
//! Owns: nothing; it is a handle of the broker's [`leadership`](super::leadership), and, without
//! replication, nothing at all: then no type of this file has a size, and no check does anything.
//! Must not know: members, and who decides.

#[cfg(feature = "replication")]
use std::sync::Arc;

#[cfg(feature = "replication")]
use super::leadership::{Leadership, LeadershipTerms, PartitionId, Waits};
use crate::error::{Error, Result};

/// The leadership under which something was changed, for a later wait for a majority; none if the
/// broker is not replicated, or nobody waits for a majority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LedEpoch {
    /// Zero for none: no leadership has this epoch.
    #[cfg(feature = "replication")]
    epoch: u32,
}

impl LedEpoch {
    #[inline]
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "a constant"))]
    pub(crate) fn is_some(self) -> bool {
        #[cfg(feature = "replication")]
        return self.epoch != 0;
        #[cfg(not(feature = "replication"))]
        false
    }

    #[cfg(feature = "replication")]
    pub(crate) fn number(self) -> u32 {
        self.epoch
    }

    #[cfg(feature = "replication")]
    pub(crate) fn of(epoch: u32) -> Self {
        Self { epoch }
    }
}

/// The leadership of a broker, if it is a member of a replicated group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lead {
    #[cfg(feature = "replication")]
    leadership: Option<Arc<Leadership>>,
}

impl Lead {
    /// Of what is not replicated.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    #[cfg(feature = "replication")]
    pub(crate) fn of(leadership: Option<Arc<Leadership>>) -> Self {
        Self { leadership }
    }

    /// The leadership under which what is replicated may be changed.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`](crate::Error::NotLeader).
    #[cfg_attr(
        not(feature = "replication"),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "nobody else could lead")
    )]
    pub(crate) fn check(&self) -> Result<LedEpoch> {
        #[cfg(feature = "replication")]
        if let Some(leadership) = &self.leadership {
            return leadership.leads().map(LedEpoch::of).ok_or_else(|| leadership.not_leader());
        }
        Ok(LedEpoch::default())
    }

    /// The error of a call that another member has to serve.
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "no members"))]
    pub(crate) fn refused(&self) -> Error {
        #[cfg(feature = "replication")]
        if let Some(leadership) = &self.leadership {
            return leadership.not_leader();
        }
        Error::NotLeader { leader: None }
    }

    /// Whether the broker is a member of a replicated group.
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "a constant"))]
    pub(crate) fn is_member(&self) -> bool {
        #[cfg(feature = "replication")]
        return self.leadership.is_some();
        #[cfg(not(feature = "replication"))]
        false
    }

    /// Whether another member decides what is changed, or nobody does at the moment.
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "a constant"))]
    pub(crate) fn follows(&self) -> bool {
        #[cfg(feature = "replication")]
        return self.leadership.as_ref().is_some_and(|it| it.leads().is_none());
        #[cfg(not(feature = "replication"))]
        false
    }
}

/// The same for one partition.
#[derive(Debug, Clone, Default)]
pub(super) struct PartitionLead {
    #[cfg(feature = "replication")]
    of: Option<LeadOf>,
}

#[cfg(feature = "replication")]
#[derive(Debug, Clone)]
struct LeadOf {
    leadership: Arc<Leadership>,
    partition: PartitionId,
    /// Whether a copy counts only once it is synced.
    counts_synced: bool,
}

impl PartitionLead {
    #[cfg(feature = "replication")]
    pub(super) fn of(lead: &Lead, partition: PartitionId, counts_synced: bool) -> Self {
        let leadership = lead.leadership.clone();
        Self { of: leadership.map(|leadership| LeadOf { leadership, partition, counts_synced }) }
    }

    /// The leadership under which a user's append is made, to a log that appends in `epoch`.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`](crate::Error::NotLeader) and
    /// [`Error::NotEnoughReplicas`](crate::Error::NotEnoughReplicas).
    #[inline]
    #[cfg_attr(
        not(feature = "replication"),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "nobody else could lead")
    )]
    pub(super) fn check(&self, epoch: u32) -> Result<LedEpoch> {
        #[cfg(feature = "replication")]
        if let Some(LeadOf { leadership, .. }) = &self.of {
            let led = leadership.check()?;
            // A log that was not given the epoch yet is not led yet.
            return if led == epoch { Ok(LedEpoch::of(led)) } else { Err(leadership.not_leader()) };
        }
        let _ = epoch;
        Ok(LedEpoch::default())
    }

    /// There are records for the other members, or the log begins elsewhere. Under no lock of the
    /// partition.
    #[inline]
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "no members"))]
    pub(super) fn changed(&self) {
        #[cfg(feature = "replication")]
        if let Some(LeadOf { leadership, partition, .. }) = &self.of {
            leadership.changed(*partition);
        }
    }

    /// There are records for the other members. `is_announced`: the caller
    /// [announces](Self::announce) them.
    #[inline]
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "no members"))]
    pub(super) fn appended(&self, is_announced: bool) {
        #[cfg(feature = "replication")]
        if let Some(LeadOf { leadership, partition, .. }) = &self.of {
            if is_announced {
                leadership.changed_unannounced(*partition);
            } else {
                leadership.changed(*partition);
            }
        }
        let _ = is_announced;
    }

    /// More of the log is durable. Under no lock of the partition. `is_announced`: the caller
    /// [announces](Self::announce) it.
    pub(super) fn synced(&self, is_announced: bool) {
        // Also where a copy counts before: a producer may be stricter than its topic.
        self.appended(is_announced);
    }

    /// Whether the broker is a member of a replicated group.
    #[inline]
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "a constant"))]
    pub(super) fn is_member(&self) -> bool {
        #[cfg(feature = "replication")]
        return self.of.is_some();
        #[cfg(not(feature = "replication"))]
        false
    }

    /// Sends the others what nobody was woken for. The caller holds no lock.
    #[inline]
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "no members"))]
    pub(super) fn announce(&self) {
        #[cfg(feature = "replication")]
        if let Some(LeadOf { leadership, .. }) = &self.of {
            leadership.announce();
        }
    }
}

impl PartitionLead {
    /// The error of a call for which too few members are heard or up to date, or another one leads.
    #[cold]
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "no members"))]
    pub(super) fn refused(&self) -> Error {
        #[cfg(feature = "replication")]
        if let Some(LeadOf { leadership, .. }) = &self.of {
            let leads = leadership.leads().is_some();
            return if leads { leadership.not_enough() } else { leadership.not_leader() };
        }
        Error::NotLeader { leader: None }
    }
}

#[cfg(feature = "replication")]
impl PartitionLead {
    /// `None` if the broker is not replicated.
    pub(super) fn terms(&self) -> Option<LeadershipTerms> {
        self.of.as_ref().map(|it| it.leadership.terms())
    }

    /// Whether a copy counts only once it is synced.
    pub(super) fn counts_synced(&self) -> bool {
        self.of.as_ref().is_some_and(|it| it.counts_synced)
    }

    /// The epoch that is led now.
    pub(super) fn leads(&self) -> Option<u32> {
        self.of.as_ref().and_then(|it| it.leadership.leads())
    }

    /// The error of an append that would have to wait for other members.
    #[cold]
    pub(super) fn not_enough(&self) -> Error {
        let refused = |it: &LeadOf| it.leadership.not_enough();
        self.of.as_ref().map_or(Error::NotLeader { leader: None }, refused)
    }

    /// Calls wait for a majority here, and have deadlines.
    pub(super) fn list_waits(&self, waits: &Arc<impl Waits + 'static>) {
        if let Some(LeadOf { leadership, partition, .. }) = &self.of {
            leadership.list_waits(*partition, waits);
        }
    }

    /// No call waits any more.
    pub(super) fn unlist_waits(&self) {
        if let Some(LeadOf { leadership, partition, .. }) = &self.of {
            leadership.unlist_waits(partition);
        }
    }
}
