//! The catalog: which topics and which named producers there are. Kept in `__meta`.
//!
//! Creating, growing and deleting a topic touch many files, so they are bracketed: an intent, the
//! work on the files, the completion. Each record is synced before the next step. An intent
//! without its completion is finished at open: a creation or growth is undone (the call never
//! returned), a deletion is carried on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{PARTITIONS_MAX, TopicConfig};
use crate::error::CorruptionKind;
use crate::format::{TopicId, validate_label, validate_topic};
use crate::log::record_bytes_max;
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

impl TopicEntry {
    /// Whether a topic can be what the entry says: its name becomes a path, and its partitions are
    /// counted through.
    fn check(&self, stage: Stage) -> Result<(), CorruptionKind> {
        validate_topic(&self.name).map_err(|_| CorruptionKind::Malformed("a topic's name"))?;
        let held = record_bytes_max(self.config.segment_bytes);
        let settings = self.config.validate(held);
        settings.map_err(|_| CorruptionKind::Malformed("a topic's settings"))?;
        match stage {
            Stage::Growing(total)
                if !(self.config.partitions..=PARTITIONS_MAX).contains(&total) =>
            {
                Err(CorruptionKind::Malformed("a topic's growth"))
            }
            Stage::Growing(_) | Stage::Creating | Stage::Live | Stage::Deleting => Ok(()),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct CatalogState {
    /// By id: a topic that is being deleted and its successor of the same name are two.
    pub(crate) topics: BTreeMap<TopicId, (TopicEntry, Stage)>,
    pub(crate) producers: BTreeMap<Arc<str>, ProducerEntry>,
    /// Who has a name, and who an id, so that no two have the same: live topics by their names in
    /// lower case, and producers.
    live: BTreeMap<String, TopicId>,
    producer_ids: BTreeMap<u64, Arc<str>>,
}

impl CatalogState {
    /// The topic, at whatever stage, whose name differs from `name` only in case, or not at all.
    pub(crate) fn named(&self, name: &str) -> Option<&TopicEntry> {
        self.topics
            .values()
            .find(|(entry, _)| entry.name.eq_ignore_ascii_case(name))
            .map(|(entry, _)| entry)
    }

    /// The id that a new producer gets; `None` when they are used up.
    pub(crate) fn next_producer_id(&self) -> Option<u64> {
        self.producer_ids.keys().next_back().map_or(Some(1), |last| last.checked_add(1))
    }

    fn check_topic(&self, entry: &TopicEntry, stage: Stage) -> Result<(), CorruptionKind> {
        entry.check(stage)?;
        if self.topics.get(&entry.id).is_some_and(|(known, _)| known.name != entry.name) {
            return Err(CorruptionKind::Malformed("a topic: its name has changed"));
        }
        match self.live.get(&entry.name.to_ascii_lowercase()) {
            Some(id) if stage.is_live() && *id != entry.id => {
                Err(CorruptionKind::Malformed("a topic: another one has its name"))
            }
            _ => Ok(()),
        }
    }

    fn check_producer(&self, name: &Arc<str>, entry: ProducerEntry) -> Result<(), CorruptionKind> {
        validate_label(name).map_err(|_| CorruptionKind::Malformed("a producer's name"))?;
        // Two with one id would take each other's records for repetitions.
        let is_taken = self.producer_ids.get(&entry.id).is_some_and(|holder| holder != name);
        let is_other = self.producers.get(name).is_some_and(|known| known.id != entry.id);
        if is_taken || is_other {
            return Err(CorruptionKind::Malformed("a producer's id"));
        }
        Ok(())
    }

    fn note_topic(&mut self, entry: TopicEntry, stage: Stage) {
        let name = entry.name.to_ascii_lowercase();
        if stage.is_live() {
            self.live.insert(name, entry.id);
        } else if self.live.get(&name) == Some(&entry.id) {
            self.live.remove(&name);
        }
        self.topics.insert(entry.id, (entry, stage));
    }

    fn forget_topic(&mut self, id: TopicId) {
        if let Some((entry, stage)) = self.topics.remove(&id)
            && stage.is_live()
        {
            self.live.remove(&entry.name.to_ascii_lowercase());
        }
    }
}

impl LoggedState for CatalogState {
    type Change = CatalogChange;

    fn check(&self, change: &CatalogChange) -> Result<(), CorruptionKind> {
        match change {
            CatalogChange::Topic(entry, stage) => self.check_topic(entry, *stage),
            CatalogChange::TopicGone(_) => Ok(()),
            CatalogChange::Producer(name, entry) => self.check_producer(name, *entry),
        }
    }

    fn apply(&mut self, change: CatalogChange) {
        match change {
            CatalogChange::Topic(entry, stage) => self.note_topic(entry, stage),
            CatalogChange::TopicGone(id) => self.forget_topic(id),
            CatalogChange::Producer(name, entry) => {
                self.producer_ids.insert(entry.id, Arc::clone(&name));
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
    use crate::config::Durability;

    fn entry(id: u8, name: &str, partitions: u32) -> TopicEntry {
        let config = TopicConfig { partitions, ..TopicConfig::new(1) };
        TopicEntry { name: name.into(), id: TopicId([id; 16]), config }
    }

    fn refused(state: &CatalogState, change: &CatalogChange) -> &'static str {
        match state.check(change) {
            Err(CorruptionKind::Malformed(what)) => what,
            other => panic!("{change:?}: {other:?}"),
        }
    }

    fn with(changes: impl IntoIterator<Item = CatalogChange>) -> CatalogState {
        let mut state = CatalogState::default();
        for change in changes {
            assert_eq!(state.check(&change), Ok(()), "{change:?}");
            state.apply(change);
        }
        state
    }

    #[test]
    fn a_snapshot_rebuilds_the_state() {
        let state = with([
            CatalogChange::Topic(entry(7, "orders", 3), Stage::Live),
            CatalogChange::Topic(entry(8, "Bills", 1), Stage::Growing(2)),
            CatalogChange::Producer("p".into(), ProducerEntry { id: 4, epoch: 2 }),
        ]);
        let rebuilt = with(state.snapshot());
        assert_eq!(rebuilt.topics, state.topics);
        assert_eq!(rebuilt.producers, state.producers);
        assert_eq!((rebuilt.live, rebuilt.producer_ids), (state.live, state.producer_ids));
    }

    #[test]
    fn ids_of_producers_are_given_out_once() {
        let producer =
            |name: &str, id| CatalogChange::Producer(name.into(), ProducerEntry { id, epoch: 0 });
        let state = with([producer("a", 4), producer("b", 2)]);
        assert_eq!(state.next_producer_id(), Some(5));
        assert_eq!(CatalogState::default().next_producer_id(), Some(1));
        assert_eq!(with([producer("a", u64::MAX)]).next_producer_id(), None);
    }

    #[test]
    fn names_collide_whatever_their_case() {
        let state = with([CatalogChange::Topic(entry(1, "Orders", 1), Stage::Deleting)]);
        assert!(state.named("oRDERS").is_some());
    }

    /// E16: no entry gets in whose name or numbers something would be done with.
    // RED: src/broker/catalog.rs
    //   - validate_topic(&self.name).map_err(|_| CorruptionKind::Malformed("a topic's name"))?;
    #[test]
    fn row_e16_a_topic_that_cannot_be_is_refused() {
        let state = CatalogState::default();
        for stage in [Stage::Creating, Stage::Live, Stage::Deleting, Stage::Growing(7)] {
            let topic = |entry: TopicEntry| CatalogChange::Topic(entry, stage);
            let longest = "x".repeat(249);
            assert_eq!(state.check(&topic(entry(1, &longest, 7))), Ok(()));
            let too_long = "x".repeat(250);
            for name in
                ["../x", "..", ".", "", "a/b", "/etc", "a\0b", "__meta", "__", "a b", &too_long]
            {
                assert_eq!(refused(&state, &topic(entry(1, name, 1))), "a topic's name", "{name}");
            }
            for partitions in [0, PARTITIONS_MAX + 1, u32::MAX] {
                let refusal = refused(&state, &topic(entry(1, "a", partitions)));
                assert_eq!(refusal, "a topic's settings", "{partitions}");
            }
            let settings = [
                TopicConfig::new(1).segment_bytes(1),
                TopicConfig::new(1).segment_bytes(u64::MAX),
                TopicConfig::new(1).max_record_bytes(u32::MAX),
                TopicConfig::new(1).min_dirty_ratio(f64::NAN),
                TopicConfig::new(1).segment_age(std::time::Duration::ZERO),
                TopicConfig::new(1).durability(Durability::Interval {
                    every: std::time::Duration::ZERO,
                    bytes: 1,
                }),
            ];
            for config in settings {
                let change = topic(TopicEntry { config, ..entry(1, "a", 1) });
                assert_eq!(refused(&state, &change), "a topic's settings");
            }
        }
        for total in [0, 2, PARTITIONS_MAX + 1, u32::MAX] {
            let change = CatalogChange::Topic(entry(1, "a", 3), Stage::Growing(total));
            assert_eq!(refused(&state, &change), "a topic's growth", "{total}");
        }
    }

    #[test]
    fn row_e16_no_two_live_topics_have_one_name_and_none_has_two() {
        let live = |id, name: &str| CatalogChange::Topic(entry(id, name, 1), Stage::Live);
        let state = with([live(1, "Orders")]);
        assert_eq!(refused(&state, &live(2, "orders")), "a topic: another one has its name");
        assert_eq!(refused(&state, &live(1, "bills")), "a topic: its name has changed");
        // What is gone, or going, is in nobody's way.
        let going = CatalogChange::Topic(entry(1, "Orders", 1), Stage::Deleting);
        with([
            live(1, "Orders"),
            going,
            live(2, "orders"),
            CatalogChange::TopicGone(TopicId([1; 16])),
        ]);
        with([live(1, "a"), CatalogChange::TopicGone(TopicId([1; 16])), live(2, "A")]);
    }

    #[test]
    fn row_e16_a_producer_that_cannot_be_is_refused() {
        let producer = |name: &str, id| {
            CatalogChange::Producer(name.into(), ProducerEntry { id, epoch: u32::MAX })
        };
        let state = with([producer("p", 1), producer("p", 1)]);
        let too_long = "x".repeat(256);
        for name in ["", &too_long] {
            assert_eq!(refused(&state, &producer(name, 2)), "a producer's name");
        }
        for (name, id) in [("q", 1), ("p", 2)] {
            assert_eq!(refused(&state, &producer(name, id)), "a producer's id", "{name} {id}");
        }
    }
}
