//! Committed offsets: what each group has done with, per partition. Kept in `__offsets`.
//!
//! A commit names the topic by its id, so a topic that is deleted and made again under the same
//! name begins without any, and says under which incarnation of the log it was made, so that a
//! log that was cut since cannot hand out other records under the same numbers unnoticed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::format::TopicId;
use crate::partition::state_log::LoggedState;

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
    Commit { group: Arc<str>, topic: TopicId, partition: u32, committed: Committed },
    TopicGone(TopicId),
}

#[derive(Debug, Default)]
pub(crate) struct OffsetsState {
    groups: BTreeMap<Arc<str>, BTreeMap<(TopicId, u32), Committed>>,
}

impl OffsetsState {
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

    fn apply(&mut self, change: OffsetChange) {
        match change {
            OffsetChange::Commit { group, topic, partition, committed } => {
                self.groups.entry(group).or_default().insert((topic, partition), committed);
            }
            OffsetChange::TopicGone(id) => {
                self.groups.retain(|_, offsets| {
                    offsets.retain(|(topic, _), _| *topic != id);
                    !offsets.is_empty()
                });
            }
        }
    }

    fn snapshot(&self) -> Vec<OffsetChange> {
        let of_group = |(group, offsets): (&Arc<str>, &BTreeMap<(TopicId, u32), Committed>)| {
            let commit = |(&(topic, partition), &committed): (&(TopicId, u32), &Committed)| {
                OffsetChange::Commit { group: Arc::clone(group), topic, partition, committed }
            };
            offsets.iter().map(commit).collect::<Vec<_>>()
        };
        self.groups.iter().flat_map(of_group).collect()
    }
}
