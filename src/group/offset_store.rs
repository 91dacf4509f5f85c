//! The log of committed offsets, static members and subscriptions, as groups use it.
//!
//! Owns: the internal log `__offsets`. Must not know: members and locks of groups.
//! [`commit`](super::commit) has the order in which records and their commit are stored.

use std::sync::Arc;

use super::interest::{Interest, Wanted};
use super::offsets::{Committed, OffsetChange, OffsetsState, StaticMember};
use crate::error::Result;
use crate::format::TopicId;
use crate::partition::PartitionCore;
use crate::partition::lead::Lead;
use crate::partition::state_log::StateLog;

#[derive(Debug)]
pub(crate) struct OffsetStore {
    log: StateLog<OffsetsState>,
    is_read_only: bool,
    lead: Lead,
}

impl OffsetStore {
    pub(super) fn new(log: StateLog<OffsetsState>, is_read_only: bool, lead: Lead) -> Self {
        Self { log, is_read_only, lead }
    }

    /// Whether this broker leads.
    pub(super) fn lead(&self) -> &Lead {
        &self.lead
    }

    pub(crate) fn log(&self) -> &StateLog<OffsetsState> {
        &self.log
    }

    pub(crate) fn partition(&self) -> &Arc<PartitionCore> {
        self.log.partition()
    }

    // ---- what is stored ----------------------------------------------------------------------

    pub(crate) fn committed(
        &self,
        group: &str,
        topic: TopicId,
        partition: u32,
    ) -> Option<Committed> {
        self.log.read(|offsets| offsets.get(group, topic, partition))
    }

    /// The subscriptions in `interest` that the group did not have before.
    pub(crate) fn new_subscriptions(&self, group: &str, interest: &Interest) -> Vec<Wanted> {
        self.log.read(|offsets| {
            let is_new = |wanted: &Wanted| !offsets.has_subscribed(group, wanted);
            interest.each().filter(is_new).collect()
        })
    }

    /// Whether a subscription of the group covers this topic.
    pub(crate) fn has_subscribed_to(&self, group: &str, topic: &str) -> bool {
        self.log.read(|offsets| offsets.reads(group, topic))
    }

    /// Whether a group has committed or subscribed to anything.
    pub(super) fn has_group(&self, group: &str) -> bool {
        self.log.read(|offsets| offsets.has_group(group))
    }

    // ---- changes -----------------------------------------------------------------------------

    /// Durably removes the commits of all groups for a deleted topic.
    pub(crate) fn forget_topic(&self, id: TopicId) -> Result<()> {
        if !self.log.read(|offsets| offsets.knows(id)) {
            return Ok(());
        }
        self.log.append_durably(vec![OffsetChange::TopicGone(id)])
    }

    /// Stores the partitions of a static member, if the member is one. Does not wait, and does not
    /// report a failure: only the waiting of partitions for their owner could be lost, never a
    /// record or a commit. The caller [tidies](Self::tidy) when the locks are released.
    pub(super) fn store_static(
        &self,
        group: &Arc<str>,
        instance: &Arc<str>,
        member: Option<StaticMember>,
    ) {
        if let Some(member) = member {
            let (group, instance) = (Arc::clone(group), Arc::clone(instance));
            self.store(vec![OffsetChange::StaticMember { group, instance, member }]);
        }
    }

    /// Stores that static members are not members any more.
    pub(super) fn forget_statics(&self, group: &Arc<str>, instances: &[Arc<str>]) {
        let gone = |instance: &Arc<str>| OffsetChange::StaticMemberGone {
            group: Arc::clone(group),
            instance: Arc::clone(instance),
        };
        self.store(instances.iter().map(gone).collect());
    }

    fn store(&self, changes: Vec<OffsetChange>) {
        if !changes.is_empty() && !self.is_read_only {
            let _ = self.log.append_if(changes, |_| Ok(()));
        }
    }

    /// Cleans up the log if that is due. Not under a group's lock, because it waits for the disk.
    pub(super) fn tidy(&self) {
        self.log.tidy();
    }
}
