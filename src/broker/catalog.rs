//! The catalog: the list of topics and of named producers. Stored in `__meta`.
//!
//! Creating, growing and deleting a topic touch many files. So each is recorded in two steps: an
//! intent, then the work on the files, then the completion. Each record is synced before the next
//! step. An opening finishes an intent that has no completion: a creation or growth is undone (the
//! call never returned), a deletion is completed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{PARTITIONS_MAX, TopicConfig};
use crate::error::{self, CorruptionKind};
use crate::format::{TopicId, validate_label, validate_topic};
use crate::log::record_bytes_max;
use crate::partition::state_log::LoggedState;
use crate::partition::state_log::entries::{Entries, RecordedAt};

#[cfg(feature = "replication")]
mod records;
mod stored;

#[cfg(feature = "replication")]
pub(crate) use self::records::{CatalogRecord, records};

/// LIMIT: how many members a replicated group has. A majority of more would be slow to answer, and
/// gains nothing.
const MEMBERS_MAX: usize = 7;

/// A topic as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TopicEntry {
    pub(crate) name: Arc<str>,
    pub(crate) id: TopicId,
    #[serde(with = "stored")]
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
    /// Whether the topic of the entry can be used.
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

/// Partitions that follow one another, and the epoch of the replicated group in which they were
/// created; 0 where that was before the group was founded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CreatedIn {
    pub(crate) epoch: u32,
    pub(crate) partitions: u32,
}

/// Who the members of the replicated group are: its number, and the number of the data directory that
/// counts for each node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembersEntry {
    pub(crate) group: u128,
    pub(crate) directories: Vec<(u64, u128)>,
}

/// The stored form. Variants are only ever added at the end: their order is the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum CatalogChange {
    Topic(TopicEntry, Stage),
    TopicGone(TopicId),
    Producer(Arc<str>, ProducerEntry),
    /// The producer has expired: its name can be used again.
    ProducerGone(Arc<str>),
    /// New producers get ids from this one on: no id is ever used twice.
    ProducerIds(u64),
    /// The producer of this id gives numbers to records with a key in the topic.
    ByKey(TopicId, u64),
    ByKeyGone(TopicId, u64),
    Members(MembersEntry),
    /// A topic that a replicated group has created, or whose partitions it has: with the epochs in
    /// which these were created, from the first one on. A copy of the record keeps them.
    GroupTopic(TopicEntry, Stage, Vec<CreatedIn>),
}

impl MembersEntry {
    fn check(&self) -> Result<(), CorruptionKind> {
        let nodes: BTreeSet<u64> = self.directories.iter().map(|(node, _)| *node).collect();
        if nodes.len() != self.directories.len() || !(1..=MEMBERS_MAX).contains(&nodes.len()) {
            return Err(CorruptionKind::Malformed("the members of a group"));
        }
        Ok(())
    }
}

/// Checks the epochs of a topic's partitions: they rise, and all partitions have one.
fn check_created(entry: &TopicEntry, created: &[CreatedIn]) -> Result<(), CorruptionKind> {
    let counts = created.iter().map(|of| u64::from(of.partitions));
    let rises = created.is_sorted_by(|a, b| a.epoch < b.epoch);
    let is_empty = created.iter().any(|of| of.partitions == 0);
    if !rises || is_empty || counts.sum::<u64>() != u64::from(entry.config.partitions) {
        return Err(CorruptionKind::Malformed("when a topic's partitions were created"));
    }
    Ok(())
}

impl TopicEntry {
    /// The stage of a topic, corrected by its files. Nothing is appended to a topic that is being
    /// created. So if it has records, its creation was complete, and the entry for that was lost:
    /// undoing the creation would remove files because of damage.
    pub(crate) fn stage_by_files(
        mut self,
        stage: Stage,
        mut holds_records: impl FnMut(&Self, u32) -> error::Result<bool>,
    ) -> error::Result<(Self, Stage)> {
        let made = match stage {
            Stage::Creating => 0..self.config.partitions,
            Stage::Growing(total) => self.config.partitions..total,
            Stage::Live | Stage::Deleting => return Ok((self, stage)),
        };
        for number in made.clone() {
            if holds_records(&self, number)? {
                self.config.partitions = made.end;
                return Ok((self, Stage::Live));
            }
        }
        Ok((self, stage))
    }

    /// Checks the values of an entry: the name becomes a path, and the partition count a loop.
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
    pub(crate) topics: Entries<TopicId, (TopicEntry, Stage)>,
    pub(crate) producers: Entries<Arc<str>, ProducerEntry>,
    /// Live topics by their names in lower case, and producers by their ids: no two have the same.
    live: BTreeMap<String, TopicId>,
    producer_ids: BTreeMap<u64, Arc<str>>,
    /// The least id of a new producer.
    ids_from: Entries<(), u64>,
    /// Which producers give numbers to records with a key, by topic.
    by_key: Entries<(TopicId, u64), ()>,
    /// The epochs in which partitions were created; of topics without an entry, all in epoch 0.
    created: BTreeMap<TopicId, Vec<CreatedIn>>,
    members: Entries<(), MembersEntry>,
}

impl CatalogState {
    /// The topic, at whatever stage, whose name differs from `name` only in case, or not at all.
    pub(crate) fn named(&self, name: &str) -> Option<&TopicEntry> {
        self.topics
            .values()
            .find(|(entry, _)| entry.name.eq_ignore_ascii_case(name))
            .map(|(entry, _)| entry)
    }

    /// The members of the replicated group; `None` if the directory belongs to none.
    pub(crate) fn members(&self) -> Option<&MembersEntry> {
        self.members.get(&())
    }

    /// The change that gives a topic this entry and stage. Partitions that it did not have are created
    /// in `epoch`; 0 without replication.
    pub(crate) fn topic_change(
        &self,
        entry: TopicEntry,
        stage: Stage,
        epoch: u32,
    ) -> CatalogChange {
        let mut created = self.created.get(&entry.id).cloned().unwrap_or_default();
        let known = self.topics.get(&entry.id).map_or(0, |(known, _)| known.config.partitions);
        if created.is_empty() && known > 0 {
            created.push(CreatedIn { epoch: 0, partitions: known });
        }
        let mut partitions = entry.config.partitions;
        for of in &mut created {
            of.partitions = of.partitions.min(partitions);
            partitions -= of.partitions;
        }
        created.retain(|of| of.partitions > 0);
        match created.last_mut() {
            // Epochs rise; a topic's creation is of the leader that records it.
            Some(last) if last.epoch >= epoch => last.partitions += partitions,
            _ if partitions > 0 => created.push(CreatedIn { epoch, partitions }),
            _ => {}
        }
        if created.iter().all(|of| of.epoch == 0) {
            return CatalogChange::Topic(entry, stage);
        }
        CatalogChange::GroupTopic(entry, stage, created)
    }

    /// The id that a new producer gets; `None` when they are used up.
    pub(crate) fn next_producer_id(&self) -> Option<u64> {
        let last = self.producer_ids.keys().next_back();
        let next = last.map_or(Some(1), |last| last.checked_add(1))?;
        Some(next.max(self.ids_from.get(&()).copied().unwrap_or(1)))
    }

    pub(crate) fn has_by_key(&self, topic: TopicId, producer: u64) -> bool {
        self.by_key.contains_key(&(topic, producer))
    }

    /// The producers that give numbers to records with a key in a topic, and their names.
    pub(crate) fn by_key_of(&self, topic: TopicId) -> Vec<(u64, Option<Arc<str>>)> {
        let ids = self.by_key.keys().filter(|(of, _)| *of == topic).map(|(_, id)| *id);
        ids.map(|id| (id, self.producer_ids.get(&id).map(Arc::clone))).collect()
    }

    /// All of these producers, by topic and id.
    pub(crate) fn all_by_key(&self) -> impl Iterator<Item = (TopicId, u64)> {
        self.by_key.keys().copied()
    }

    /// Removes a producer. Its id is never used again, because records have it.
    pub(crate) fn producer_removed(&self, name: &Arc<str>) -> Vec<CatalogChange> {
        let Some(known) = self.producers.get(name) else { return Vec::new() };
        let is_last = |next: &u64| known.id.checked_add(1) == Some(*next);
        let ids = self.next_producer_id().filter(is_last).map(CatalogChange::ProducerIds);
        let by_key = self.by_key.keys().filter(|(_, id)| *id == known.id);
        let by_key = by_key.map(|(topic, id)| CatalogChange::ByKeyGone(*topic, *id));
        let gone = [CatalogChange::ProducerGone(Arc::clone(name))];
        ids.into_iter().chain(by_key).chain(gone).collect()
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
        check_producer_name(name)?;
        // Two producers with one id would take each other's records for duplicates.
        let is_taken = self.producer_ids.get(&entry.id).is_some_and(|holder| holder != name);
        let is_other = self.producers.get(name).is_some_and(|known| known.id != entry.id);
        if is_taken || is_other {
            return Err(CorruptionKind::Malformed("a producer's id"));
        }
        Ok(())
    }

    fn note_topic(&mut self, entry: TopicEntry, stage: Stage, at: RecordedAt) {
        let name = entry.name.to_ascii_lowercase();
        if stage.is_live() {
            self.live.insert(name.clone(), entry.id);
        } else if self.live.get(&name) == Some(&entry.id) {
            self.live.remove(&name);
        }
        self.topics.insert(entry.id, (entry, stage), at);
        debug_assert_eq!(self.check_name(&name), Ok(()));
    }

    /// The invariants, as far as a change of this name can break them: a live topic, and no other,
    /// is found under its name; a producer is found under its id.
    fn check_name(&self, name: &str) -> Result<(), &'static str> {
        let in_force = self.live.get(&name.to_ascii_lowercase());
        let is_live = |id: &TopicId| self.topics.get(id).is_some_and(|(_, stage)| stage.is_live());
        if !in_force.is_none_or(is_live) {
            return Err("a topic that is not live is found under its name");
        }
        let Some(entry) = self.producers.get(name) else { return Ok(()) };
        if self.producer_ids.get(&entry.id).is_none_or(|holder| **holder != *name) {
            return Err("a producer is not found under its id");
        }
        Ok(())
    }

    fn forget_topic(&mut self, id: TopicId) {
        if let Some((entry, stage)) = self.topics.remove(&id)
            && stage.is_live()
        {
            self.live.remove(&entry.name.to_ascii_lowercase());
        }
        self.by_key.retain(|(topic, _), ()| *topic != id);
        self.created.remove(&id);
    }
}

fn check_producer_name(name: &str) -> Result<(), CorruptionKind> {
    validate_label(name).map_err(|_| CorruptionKind::Malformed("a producer's name"))
}

impl LoggedState for CatalogState {
    type Change = CatalogChange;

    fn check(&self, change: &CatalogChange) -> Result<(), CorruptionKind> {
        match change {
            CatalogChange::Topic(entry, stage) => self.check_topic(entry, *stage),
            CatalogChange::GroupTopic(entry, stage, created) => {
                self.check_topic(entry, *stage)?;
                check_created(entry, created)
            }
            CatalogChange::Members(members) => members.check(),
            CatalogChange::TopicGone(_)
            | CatalogChange::ProducerIds(_)
            | CatalogChange::ByKey(..)
            | CatalogChange::ByKeyGone(..) => Ok(()),
            CatalogChange::Producer(name, entry) => self.check_producer(name, *entry),
            CatalogChange::ProducerGone(name) => check_producer_name(name),
        }
    }

    fn apply(&mut self, change: CatalogChange, at: RecordedAt) {
        match change {
            CatalogChange::Topic(entry, stage) => {
                self.created.remove(&entry.id);
                self.note_topic(entry, stage, at);
            }
            CatalogChange::GroupTopic(entry, stage, created) => {
                self.created.insert(entry.id, created);
                self.note_topic(entry, stage, at);
            }
            CatalogChange::Members(members) => self.members.insert((), members, at),
            CatalogChange::TopicGone(id) => self.forget_topic(id),
            CatalogChange::Producer(name, entry) => {
                self.producer_ids.insert(entry.id, Arc::clone(&name));
                self.producers.insert(Arc::clone(&name), entry, at);
                debug_assert_eq!(self.check_name(&name), Ok(()));
            }
            CatalogChange::ProducerGone(name) => {
                if let Some(entry) = self.producers.remove(&name) {
                    self.producer_ids.remove(&entry.id);
                }
            }
            // It never decreases, in whichever order the changes are stored.
            CatalogChange::ProducerIds(from) => {
                if self.ids_from.get(&()).is_none_or(|known| from >= *known) {
                    self.ids_from.insert((), from, at);
                }
            }
            CatalogChange::ByKey(topic, producer) => self.by_key.insert((topic, producer), (), at),
            CatalogChange::ByKeyGone(topic, producer) => {
                let _ = self.by_key.remove(&(topic, producer));
            }
        }
    }

    fn grows(&self, change: &CatalogChange) -> bool {
        match change {
            CatalogChange::Topic(_, Stage::Creating | Stage::Growing(_))
            | CatalogChange::GroupTopic(_, Stage::Creating | Stage::Growing(_), _) => true,
            CatalogChange::Producer(name, _) => !self.producers.contains_key(name),
            CatalogChange::ByKey(topic, producer) => {
                !self.by_key.contains_key(&(*topic, *producer))
            }
            CatalogChange::Topic(_, Stage::Live | Stage::Deleting)
            | CatalogChange::GroupTopic(_, Stage::Live | Stage::Deleting, _)
            | CatalogChange::Members(_)
            | CatalogChange::TopicGone(_)
            | CatalogChange::ProducerGone(_)
            | CatalogChange::ByKeyGone(..)
            | CatalogChange::ProducerIds(_) => false,
        }
    }

    fn is_live(&self, change: &CatalogChange, offset: u64) -> bool {
        match change {
            CatalogChange::Topic(entry, _) | CatalogChange::GroupTopic(entry, ..) => {
                self.topics.is_at(&entry.id, offset)
            }
            CatalogChange::Members(_) => self.members.is_at(&(), offset),
            CatalogChange::TopicGone(_)
            | CatalogChange::ProducerGone(_)
            | CatalogChange::ByKeyGone(..) => false,
            CatalogChange::ByKey(topic, producer) => {
                self.by_key.is_at(&(*topic, *producer), offset)
            }
            CatalogChange::ProducerIds(_) => self.ids_from.is_at(&(), offset),
            CatalogChange::Producer(name, _) => self.producers.is_at(name, offset),
        }
    }

    fn live_bytes(&self) -> u64 {
        let producers = self.producers.bytes().saturating_add(self.ids_from.bytes());
        let others = self.by_key.bytes().saturating_add(self.members.bytes());
        self.topics.bytes().saturating_add(producers).saturating_add(others)
    }

    fn snapshot(&self) -> Vec<CatalogChange> {
        let topics = self.topics.values().map(|(entry, stage)| match self.created.get(&entry.id) {
            Some(created) => CatalogChange::GroupTopic(entry.clone(), *stage, created.clone()),
            None => CatalogChange::Topic(entry.clone(), *stage),
        });
        let members = self.members.values().cloned().map(CatalogChange::Members);
        let producers = self
            .producers
            .iter()
            .map(|(name, entry)| CatalogChange::Producer(Arc::clone(name), *entry));
        let ids = self.ids_from.values().map(|from| CatalogChange::ProducerIds(*from));
        let by_key = self.all_by_key().map(|(topic, id)| CatalogChange::ByKey(topic, id));
        topics.chain(producers).chain(ids).chain(by_key).chain(members).collect()
    }
}

#[cfg(test)]
mod tests;
