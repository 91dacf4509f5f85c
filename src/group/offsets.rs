//! The committed offset of each group in each partition. Stored in `__offsets`.
//!
//! A commit names the topic by its id, so a topic that is deleted and created again with the same
//! name begins without commits. It also names the incarnation of the log: if a recovery has cut the
//! log since, its offsets may belong to other records, and the consumer is notified.
//!
//! Static members are stored too, because their partitions wait for them over a restart. So are the
//! subscriptions of each group: a partition without a commit is one that was added later.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::interest::{Interest, Wanted};
use crate::error::CorruptionKind;
use crate::format::{TopicId, validate_label, validate_topic};
use crate::log::OFFSET_MAX;
use crate::partition::state_log::entries::{Entries, RecordedAt};
use crate::partition::state_log::{LoggedState, check_partition};
use crate::record::TopicPartition;

/// The next offset that a group will read, and the history of the log that it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub(crate) offset: u64,
    pub(crate) leader_epoch: u32,
    pub(crate) incarnation: u64,
}

/// The stored form. Variants are only ever added at the end: their order is the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum OffsetChange {
    Commit {
        group: Arc<str>,
        topic: TopicId,
        partition: u32,
        committed: Committed,
    },
    TopicGone(TopicId),
    /// A static member as it is now.
    StaticMember {
        group: Arc<str>,
        instance: Arc<str>,
        member: StaticMember,
    },
    /// The wait for a static member has ended.
    StaticMemberGone {
        group: Arc<str>,
        instance: Arc<str>,
    },
    /// A group was deleted, or has expired, with all its entries.
    GroupGone(Arc<str>),
    /// The first subscription of a group. For each existing topic the group has committed where it
    /// begins, unless that is 0; partitions that are added later are read from their beginning.
    Subscribed {
        group: Arc<str>,
        wanted: Wanted,
    },
    /// A group had a member when this was recorded.
    GroupSeen(Arc<str>),
}

/// The data of a static member, for which its partitions are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StaticMember {
    pub(crate) interest: Interest,
    pub(crate) owned: Vec<TopicPartition>,
    pub(crate) rejoin_timeout_ms: u64,
}

impl StaticMember {
    fn check(&self) -> Result<(), CorruptionKind> {
        self.interest.check()?;
        self.owned.iter().try_for_each(|owned| {
            check_topic_name(&owned.topic)?;
            check_partition(owned.partition)
        })
    }
}

fn check_label(label: &str) -> Result<(), CorruptionKind> {
    validate_label(label).map_err(|_| CorruptionKind::Malformed("the name of a group or member"))
}

fn check_topic_name(name: &str) -> Result<(), CorruptionKind> {
    validate_topic(name).map_err(|_| CorruptionKind::Malformed("a topic's name"))
}

/// The commits of one group, by topic and partition.
pub(crate) type GroupOffsets = Entries<(TopicId, u32), Committed>;

/// The static members of one group, by instance id.
pub(crate) type StaticMembers = Entries<Arc<str>, StaticMember>;

/// What one group has subscribed to.
type Subscriptions = Entries<Wanted, ()>;

#[derive(Debug, Default)]
pub(crate) struct OffsetsState {
    groups: BTreeMap<Arc<str>, GroupOffsets>,
    statics: BTreeMap<Arc<str>, StaticMembers>,
    subscriptions: BTreeMap<Arc<str>, Subscriptions>,
    /// The groups that were recorded with a member; they may have no commit.
    seen: Entries<Arc<str>, ()>,
    /// What the records of all commits, static members and subscriptions take of the log.
    bytes: u64,
}

impl OffsetsState {
    /// The groups that have committed anything or subscribed to anything. Some are there twice.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.keys().chain(self.subscriptions.keys())
    }

    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group) || self.subscriptions.contains_key(group)
    }

    /// Whether the group has subscribed to just this before.
    pub(crate) fn has_subscribed(&self, group: &str, wanted: &Wanted) -> bool {
        self.subscriptions.get(group).is_some_and(|all| all.contains_key(wanted))
    }

    /// Whether a subscription of the group covers this topic. The group has then read nothing of a
    /// partition without a commit, and begins there at 0.
    pub(crate) fn reads(&self, group: &str, topic: &str) -> bool {
        let covers = |all: &Subscriptions| all.keys().any(|wanted| wanted.covers(topic));
        self.subscriptions.get(group).is_some_and(covers)
    }

    /// What the group has subscribed to.
    pub(crate) fn subscriptions_of(&self, group: &str) -> impl Iterator<Item = &Wanted> {
        self.subscriptions.get(group).into_iter().flat_map(Subscriptions::keys)
    }

    pub(crate) fn of_group(&self, group: &str) -> Option<&GroupOffsets> {
        self.groups.get(group)
    }

    /// When a group committed last, or was last seen with a member, and whether a member may have
    /// used it since: that of a group that was seen, or has subscribed, stores no commit that it
    /// has made before. 0 where the time is not known.
    pub(crate) fn last_use(&self, group: &str) -> (u64, bool) {
        let committed = self.groups.get(group).map_or(0, GroupOffsets::newest);
        let subscribed = self.subscriptions.get(group).map(Subscriptions::newest);
        let committed = committed.max(subscribed.unwrap_or(0));
        let seen = self.seen.time_of(group).unwrap_or(0);
        (committed.max(seen), seen > committed || subscribed.is_some())
    }

    /// The next groups, in order, that have an entry which can expire.
    pub(crate) fn groups_after(&self, group: Option<&Arc<str>>, count: usize) -> Vec<Arc<str>> {
        let from = group.map_or(Bound::Unbounded, Bound::Excluded);
        let committed = self.groups.range::<Arc<str>, _>((from, Bound::Unbounded));
        let committed = committed.map(|(group, _)| group).take(count);
        let subscribed = self.subscriptions.range::<Arc<str>, _>((from, Bound::Unbounded));
        let subscribed = subscribed.map(|(group, _)| group).take(count);
        let seen = self.seen.after(group).map(|(group, ())| group).take(count);
        let names: BTreeSet<_> = committed.chain(subscribed).chain(seen).collect();
        names.into_iter().take(count).cloned().collect()
    }

    /// The static members of all groups, by instance id.
    pub(crate) fn statics(&self) -> &BTreeMap<Arc<str>, StaticMembers> {
        &self.statics
    }

    pub(crate) fn get(&self, group: &str, topic: TopicId, partition: u32) -> Option<Committed> {
        self.groups.get(group)?.get(&(topic, partition)).copied()
    }
}

impl OffsetsState {
    /// Whether anything is committed for a topic.
    pub(crate) fn knows(&self, id: TopicId) -> bool {
        self.groups.values().any(|offsets| offsets.keys().any(|(topic, _)| *topic == id))
    }
}

impl LoggedState for OffsetsState {
    type Change = OffsetChange;

    fn check(&self, change: &OffsetChange) -> Result<(), CorruptionKind> {
        match change {
            OffsetChange::Commit { group, partition, committed, .. } => {
                check_label(group)?;
                check_partition(*partition)?;
                if committed.offset <= OFFSET_MAX {
                    Ok(())
                } else {
                    Err(CorruptionKind::Malformed("a committed offset"))
                }
            }
            OffsetChange::TopicGone(_) => Ok(()),
            OffsetChange::StaticMember { group, instance, member } => {
                check_label(group)?;
                check_label(instance)?;
                member.check()
            }
            OffsetChange::StaticMemberGone { group, instance } => {
                check_label(group)?;
                check_label(instance)
            }
            OffsetChange::GroupGone(group) | OffsetChange::GroupSeen(group) => check_label(group),
            OffsetChange::Subscribed { group, wanted } => {
                check_label(group)?;
                wanted.check()
            }
        }
    }

    fn apply(&mut self, change: OffsetChange, at: RecordedAt) {
        match change {
            OffsetChange::Commit { group, topic, partition, committed } => {
                let commits = |offsets: &mut GroupOffsets| {
                    offsets.insert((topic, partition), committed, at);
                };
                change_entries(&mut self.groups, &mut self.bytes, &group, commits);
            }
            OffsetChange::TopicGone(id) => {
                self.groups.retain(|_, offsets| {
                    let before = offsets.bytes();
                    offsets.retain(|(topic, _), _| *topic != id);
                    let removed = before.saturating_sub(offsets.bytes());
                    self.bytes = self.bytes.saturating_sub(removed);
                    !offsets.is_empty()
                });
            }
            OffsetChange::StaticMember { group, instance, member } => {
                let joins = |members: &mut StaticMembers| members.insert(instance, member, at);
                change_entries(&mut self.statics, &mut self.bytes, &group, joins);
            }
            OffsetChange::StaticMemberGone { group, instance } => {
                let leaves = |members: &mut StaticMembers| drop(members.remove(&instance));
                change_entries(&mut self.statics, &mut self.bytes, &group, leaves);
            }
            OffsetChange::GroupGone(group) => {
                let offsets = self.groups.remove(&group).map_or(0, |it| it.bytes());
                let statics = self.statics.remove(&group).map_or(0, |it| it.bytes());
                let wanted = self.subscriptions.remove(&group).map_or(0, |it| it.bytes());
                let removed = offsets.saturating_add(statics).saturating_add(wanted);
                self.bytes = self.bytes.saturating_sub(removed);
                self.seen.remove(&group);
            }
            OffsetChange::Subscribed { group, wanted } => {
                let subscribes = |all: &mut Subscriptions| all.insert(wanted, (), at);
                change_entries(&mut self.subscriptions, &mut self.bytes, &group, subscribes);
            }
            OffsetChange::GroupSeen(group) => self.seen.insert(group, (), at),
        }
    }

    fn grows(&self, change: &OffsetChange) -> bool {
        match change {
            OffsetChange::Commit { group, topic, partition, .. } => {
                let offsets = self.groups.get(group);
                !offsets.is_some_and(|it| it.contains_key(&(*topic, *partition)))
            }
            OffsetChange::StaticMember { group, instance, .. } => {
                !self.statics.get(group).is_some_and(|it| it.contains_key(instance))
            }
            OffsetChange::GroupSeen(group) => !self.seen.contains_key(group),
            OffsetChange::Subscribed { group, wanted } => {
                !self.subscriptions.get(group).is_some_and(|it| it.contains_key(wanted))
            }
            OffsetChange::TopicGone(_)
            | OffsetChange::StaticMemberGone { .. }
            | OffsetChange::GroupGone(_) => false,
        }
    }

    fn is_live(&self, change: &OffsetChange, offset: u64) -> bool {
        match change {
            OffsetChange::Commit { group, topic, partition, .. } => {
                let offsets = self.groups.get(group);
                offsets.is_some_and(|it| it.is_at(&(*topic, *partition), offset))
            }
            OffsetChange::StaticMember { group, instance, .. } => {
                self.statics.get(group).is_some_and(|it| it.is_at(instance, offset))
            }
            OffsetChange::Subscribed { group, wanted } => {
                self.subscriptions.get(group).is_some_and(|it| it.is_at(wanted, offset))
            }
            OffsetChange::GroupSeen(group) => self.seen.is_at(group, offset),
            OffsetChange::TopicGone(_)
            | OffsetChange::StaticMemberGone { .. }
            | OffsetChange::GroupGone(_) => false,
        }
    }

    fn live_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.seen.bytes())
    }

    fn snapshot(&self) -> Vec<OffsetChange> {
        let of_group = |(group, offsets): (&Arc<str>, &GroupOffsets)| {
            let commit = |(&(topic, partition), &committed): (&(TopicId, u32), &Committed)| {
                OffsetChange::Commit { group: Arc::clone(group), topic, partition, committed }
            };
            offsets.iter().map(commit).collect::<Vec<_>>()
        };
        let statics = self.statics.iter().flat_map(|(group, members)| {
            members.iter().map(|(instance, member)| OffsetChange::StaticMember {
                group: Arc::clone(group),
                instance: Arc::clone(instance),
                member: member.clone(),
            })
        });
        let subscriptions = self.subscriptions.iter().flat_map(|(group, all)| {
            all.keys().map(|wanted| OffsetChange::Subscribed {
                group: Arc::clone(group),
                wanted: wanted.clone(),
            })
        });
        let seen = self.seen.keys().map(|group| OffsetChange::GroupSeen(Arc::clone(group)));
        let of_groups = self.groups.iter().flat_map(of_group).chain(statics);
        of_groups.chain(subscriptions).chain(seen).collect()
    }
}

/// Changes the entries of a group. A group without entries is removed.
fn change_entries<K: Ord, V>(
    groups: &mut BTreeMap<Arc<str>, Entries<K, V>>,
    bytes: &mut u64,
    group: &Arc<str>,
    change: impl FnOnce(&mut Entries<K, V>),
) {
    if !groups.contains_key(group) {
        groups.insert(Arc::clone(group), Entries::default());
    }
    let Some(entries) = groups.get_mut(group) else { return };
    let before = entries.bytes();
    change(entries);
    *bytes = bytes.saturating_sub(before).saturating_add(entries.bytes());
    if entries.is_empty() {
        groups.remove(group);
    }
}

#[cfg(test)]
mod tests;
