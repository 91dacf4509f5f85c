//! The progress and the state of a group, as plain data for administrators and metrics.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::inspect::GroupView;
use super::interest::{Wanted, matches};
use crate::format::TopicId;
use crate::partition::PartitionCore;
use crate::record::TopicPartition;
use crate::steps;
use crate::topic::TopicShared;

/// The state of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub enum GroupStatus {
    /// The group has no live member.
    Empty,
    /// Partitions are being handed over from one member to another.
    Rebalancing,
    /// Every partition has its planned owner.
    Stable,
}

/// A group's progress in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset that the group will read; `None` before its first commit, when it begins at
    /// the log start.
    pub committed: Option<u64>,
    /// How many offsets the group has yet to read: from `committed`, or the log start if that is
    /// higher, to the log end.
    pub lag: u64,
}

/// The topics there are, to be found both ways.
pub(crate) struct TopicTable {
    by_id: HashMap<TopicId, Arc<TopicShared>>,
    by_name: HashMap<Arc<str>, Arc<TopicShared>>,
    /// The topics that each pattern covers to which a group has subscribed.
    matched: HashMap<Arc<str>, Vec<Arc<TopicShared>>>,
}

impl TopicTable {
    /// For these groups. Many have the same pattern: each is compared with the names of all topics
    /// once.
    pub(crate) fn new<'v>(
        topics: &[Arc<TopicShared>],
        views: impl IntoIterator<Item = &'v GroupView>,
    ) -> Self {
        let by_id = topics.iter().map(|topic| (topic.id, Arc::clone(topic))).collect();
        let by_name = topics.iter().map(|it| (Arc::clone(&it.name), Arc::clone(it))).collect();
        let mut matched = HashMap::new();
        for wanted in views.into_iter().flat_map(|view| &view.subscriptions) {
            let Wanted::Pattern(pattern) = wanted else { continue };
            if !matched.contains_key(pattern) {
                steps::take(topics.len() as u64);
                let covered = topics.iter().filter(|topic| matches(pattern, &topic.name));
                matched.insert(Arc::clone(pattern), covered.cloned().collect());
            }
        }
        Self { by_id, by_name, matched }
    }

    /// The topics that a subscription of one of the groups covers.
    fn covered_by(&self, wanted: &Wanted) -> &[Arc<TopicShared>] {
        match wanted {
            Wanted::Name(name) => self.by_name.get(name).map_or(&[], std::slice::from_ref),
            Wanted::Pattern(pattern) => self.matched.get(pattern).map_or(&[], Vec::as_slice),
        }
    }
}

pub(crate) fn status_of(view: &GroupView) -> GroupStatus {
    let is_empty = !view.members.iter().any(|member| member.is_live);
    match (is_empty, view.is_at_rest) {
        (true, _) => GroupStatus::Empty,
        (false, false) => GroupStatus::Rebalancing,
        (false, true) => GroupStatus::Stable,
    }
}

/// A partition of a group, and what it has committed there.
type Known<'t> = (&'t Arc<TopicShared>, &'t Arc<PartitionCore>, Option<u64>);

/// What is committed, assigned or subscribed to, as far as the topics are still there, in order.
pub(crate) fn partitions_of<'t>(view: &'t GroupView, topics: &'t TopicTable) -> Vec<Known<'t>> {
    let committed = view.offsets.iter().filter_map(|(&(id, number), committed)| {
        let topic = topics.by_id.get(&id)?;
        Some((topic, topic.partition(number).ok()?, Some(committed.offset)))
    });
    let assigned = view.members.iter().flat_map(|member| &member.assignment);
    let assigned = assigned.filter_map(|partition| {
        let topic = topics.by_name.get(&partition.topic)?;
        Some((topic, topic.partition(partition.partition).ok()?, None))
    });
    // Without these, the lag of a group that dies before its first commit would be none at all.
    let subscribed = view.subscriptions.iter().flat_map(|wanted| topics.covered_by(wanted));
    let subscribed =
        subscribed.flat_map(|topic| topic.partitions.iter().map(move |core| (topic, core, None)));
    let mut known: BTreeMap<&TopicPartition, Known<'t>> = BTreeMap::new();
    for partition in committed.chain(assigned).chain(subscribed) {
        known.entry(&partition.1.origin).or_insert(partition);
    }
    known.into_values().collect()
}

/// The progress of a group. `readable` says from where to where a partition can be read. A group
/// reads a partition that it has subscribed to from its beginning if it has no commit there, so all
/// of it is lag: also while the group has no member.
pub(crate) fn offsets_of(
    view: &GroupView,
    topics: &TopicTable,
    readable: impl Fn(&Arc<PartitionCore>) -> Range<u64>,
) -> Vec<GroupOffset> {
    let progress = |(_, core, committed): Known<'_>| {
        let Range { start, end } = readable(core);
        // Records below the log start are removed and cannot be read any more.
        let lag = end.saturating_sub(committed.unwrap_or(start).max(start));
        GroupOffset { partition: TopicPartition::clone(&core.origin), committed, lag }
    };
    partitions_of(view, topics).into_iter().map(progress).collect()
}
