//! The catalog: which topics and which named producers there are. Kept in `__meta`.
//!
//! Creating, growing and deleting a topic touch many files, so they are bracketed: an intent, the
//! work on the files, the completion. Each record is synced before the next step. An intent
//! without its completion is finished at open: a creation or growth is undone (the call never
//! returned), a deletion is carried on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::TopicConfig;
use crate::format::TopicId;
use crate::partition::state_log::LoggedState;

/// A topic as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TopicEntry {
    pub(crate) name: Arc<str>,
    pub(crate) id: TopicId,
    pub(crate) config: TopicConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    Creating,
    Live,
    Deleting,
    /// Live with the partitions of its entry; the files of more, up to this total, are being made
    /// or removed.
    Growing(u32),
}

impl Stage {
    /// Whether the topic of the entry is there to be used.
    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::Growing(_))
    }
}

/// A named producer: its id in the logs, and the epoch in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProducerEntry {
    pub(crate) id: u64,
    pub(crate) epoch: u32,
}

/// The stored form. Variants are only ever added at the end: their order is the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum CatalogChange {
    Topic(TopicEntry, Stage),
    TopicGone(TopicId),
    Producer(Arc<str>, ProducerEntry),
}

#[derive(Debug, Default)]
pub(crate) struct CatalogState {
    /// By id: a topic that is being deleted and its successor of the same name are two.
    pub(crate) topics: BTreeMap<TopicId, (TopicEntry, Stage)>,
    pub(crate) producers: BTreeMap<Arc<str>, ProducerEntry>,
}

impl CatalogState {
    /// The topic, at whatever stage, whose name differs from `name` only in case, or not at all.
    pub(crate) fn named(&self, name: &str) -> Option<&TopicEntry> {
        self.topics
            .values()
            .find(|(entry, _)| entry.name.eq_ignore_ascii_case(name))
            .map(|(entry, _)| entry)
    }

    /// The id that a new producer gets.
    pub(crate) fn next_producer_id(&self) -> u64 {
        self.producers.values().map(|entry| entry.id).max().map_or(1, |last| last.saturating_add(1))
    }
}

impl LoggedState for CatalogState {
    type Change = CatalogChange;

    fn apply(&mut self, change: CatalogChange) {
        match change {
            CatalogChange::Topic(entry, stage) => {
                self.topics.insert(entry.id, (entry, stage));
            }
            CatalogChange::TopicGone(id) => {
                self.topics.remove(&id);
            }
            CatalogChange::Producer(name, entry) => {
                self.producers.insert(name, entry);
            }
        }
    }

    fn snapshot(&self) -> Vec<CatalogChange> {
        let topics =
            self.topics.values().map(|(entry, stage)| CatalogChange::Topic(entry.clone(), *stage));
        let producers = self
            .producers
            .iter()
            .map(|(name, entry)| CatalogChange::Producer(Arc::clone(name), *entry));
        topics.chain(producers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_rebuilds_the_state() {
        let mut state = CatalogState::default();
        let entry =
            TopicEntry { name: "orders".into(), id: TopicId([7; 16]), config: TopicConfig::new(3) };
        state.apply(CatalogChange::Topic(entry, Stage::Live));
        state.apply(CatalogChange::Producer("p".into(), ProducerEntry { id: 4, epoch: 2 }));
        let mut rebuilt = CatalogState::default();
        state.snapshot().into_iter().for_each(|change| rebuilt.apply(change));
        assert_eq!(rebuilt.topics, state.topics);
        assert_eq!(rebuilt.producers, state.producers);
        assert_eq!(rebuilt.next_producer_id(), 5);
    }

    #[test]
    fn names_collide_whatever_their_case() {
        let mut state = CatalogState::default();
        let config = TopicConfig::new(1);
        let entry = TopicEntry { name: "Orders".into(), id: TopicId([1; 16]), config };
        state.apply(CatalogChange::Topic(entry, Stage::Deleting));
        assert!(state.named("oRDERS").is_some());
    }
}
