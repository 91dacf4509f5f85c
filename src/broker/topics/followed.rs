//! The topics of a broker as its replicated group has them: they follow from the records of `__meta`,
//! whatever member wrote these.
//!
//! A follower does what a record needs before it stores the record: files are made before the record
//! that says that they exist, and removed before the one that says that they are removed. Then the
//! table of topics is made what the catalog says, topic by topic; after a truncation, of all topics.
//!
//! While the catalog is not whole, because `__meta` has begun anew, no topic is removed that it does
//! not have. What its files hold stays, and is opened when the catalog has the topic.
//!
//! Uses the parts of [`Topics`], and owns nothing itself. Must not know: messages, roles.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::{Topics, give_up_space};
use crate::broker::catalog::{CatalogChange, CatalogState, Stage, TopicEntry};
use crate::broker::directories::{
    has_segments, make_or_adopt_dir, remove_partition_files, remove_topic_files, sync_dir,
};
use crate::broker::gate::Change;
use crate::broker::last_run::LastRun;
use crate::broker::local::LocalChange;
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::log::open::open_log;
use crate::partition::PartitionCore;
use crate::topic::TopicShared;

/// Partitions that were made, or opened, for a record that is not stored yet.
#[derive(Default)]
pub(crate) struct Made {
    partitions: BTreeMap<(TopicId, u32), Arc<PartitionCore>>,
    /// Up to which partition the directories of topics are ready.
    ready: BTreeMap<TopicId, u32>,
}

impl Made {
    /// The records will not be stored. The files belong to no topic, and are removed when one needs
    /// their path.
    pub(crate) fn give_up(self) {
        for core in self.partitions.into_values() {
            core.close_deleted(None);
            core.await_work();
            core.log().give_up_space();
        }
    }
}

/// How far the files are that a record needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    Made,
    Missing,
    /// The record needs that those before it are stored.
    Later,
}

/// The topics while nobody else changes them.
pub(crate) struct FollowedTopics<'a> {
    topics: &'a Topics,
    change: Change<'a>,
}

impl<'a> FollowedTopics<'a> {
    /// Waits until nobody else changes topics.
    ///
    /// # Errors
    ///
    /// The broker is closed.
    pub(crate) fn of(topics: &'a Topics) -> Result<Self> {
        Ok(Self { topics, change: topics.run.gate().begin_change()? })
    }

    // ---- before a record is stored -----------------------------------------------------------

    /// Does what has to be durable before this record is stored.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn prepare(&self, change: &CatalogChange, made: &mut Made) -> Result<()> {
        match change {
            CatalogChange::Topic(entry, stage) | CatalogChange::GroupTopic(entry, stage, _)
                if stage.is_live() =>
            {
                self.make_missing(entry, made)
            }
            CatalogChange::TopicGone(id) => self.remove_deleted(*id),
            _ => Ok(()),
        }
    }

    /// The same while the records before this one are not stored, for up to `rest` partitions. It adds
    /// files, and removes only those that belong to no topic: the record may never be stored.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn prepare_ahead(
        &self,
        change: &CatalogChange,
        made: &mut Made,
        rest: &mut usize,
    ) -> Result<Ahead> {
        match change {
            CatalogChange::Topic(entry, stage) | CatalogChange::GroupTopic(entry, stage, _)
                if stage.is_live() =>
            {
                let is_other = |(it, _): &(TopicEntry, Stage)| {
                    it.id != entry.id && it.name.eq_ignore_ascii_case(&entry.name)
                };
                let catalog = self.topics.run.logs().catalog();
                if self.predecessors(entry).next().is_some()
                    || catalog.read(|catalog| catalog.topics.values().any(is_other))
                {
                    return Ok(Ahead::Later);
                }
                let is_made = self.make_some(entry, made, rest)?;
                Ok(if is_made { Ahead::Made } else { Ahead::Missing })
            }
            CatalogChange::TopicGone(_) => Ok(Ahead::Later),
            _ => Ok(Ahead::Made),
        }
    }

    /// Makes the partitions that a topic does not have yet, durably.
    fn make_missing(&self, entry: &TopicEntry, made: &mut Made) -> Result<()> {
        // The leader has created it after it had removed the one before: the records that said so were
        // dropped here.
        for other in self.predecessors(entry) {
            self.remove(&other)?;
        }
        let mut all = usize::MAX;
        self.make_some(entry, made, &mut all).map(drop)
    }

    /// Other topics that have the name of this one.
    fn predecessors(&self, entry: &TopicEntry) -> impl Iterator<Item = Arc<TopicShared>> {
        let run = &self.topics.run;
        let is_new = run.live().of_id(entry.id).is_none();
        let all = if is_new { run.live().all() } else { Vec::new() };
        let (id, name) = (entry.id, Arc::clone(&entry.name));
        all.into_iter().filter(move |it| it.id != id && it.name.eq_ignore_ascii_case(&name))
    }

    /// Makes up to `rest` of the partitions that a topic does not have yet, durably. True when it
    /// has all.
    fn make_some(&self, entry: &TopicEntry, made: &mut Made, rest: &mut usize) -> Result<bool> {
        let Topics { run, factory, .. } = self.topics;
        let shown = run.live().of_id(entry.id);
        let has = shown.map_or(0, |topic| topic.config.partitions);
        let is_made = |made: &Made, it| made.partitions.contains_key(&(entry.id, it));
        let missing = (has..entry.config.partitions).filter(|it| !is_made(made, *it));
        let missing: Vec<u32> = missing.collect();
        if missing.is_empty() {
            return Ok(true);
        }
        let ready = made.ready.get(&entry.id).copied().unwrap_or(0).max(has);
        if ready < entry.config.partitions {
            self.make_ready(entry, ready..entry.config.partitions)?;
            made.ready.insert(entry.id, entry.config.partitions);
        }
        for number in missing {
            let Some(less) = rest.checked_sub(1) else { return Ok(false) };
            *rest = less;
            let dir = run.context().identity(entry, number).dir;
            let core = if has_segments(&*run.env().disk, &dir)? {
                self.open(entry, number)?
            } else {
                let one = number..number.saturating_add(1);
                let mut fresh = factory.make_partitions(entry, one, &BTreeMap::new())?;
                fresh.pop().ok_or_else(|| Error::UnknownTopic((*entry.name).to_owned()))?
            };
            made.partitions.insert((entry.id, number), core);
        }
        Ok(true)
    }

    /// Makes the directory of a topic ready for some of its partitions.
    fn make_ready(&self, entry: &TopicEntry, missing: Range<u32>) -> Result<()> {
        let Topics { run, space, .. } = self.topics;
        space.make_room_for_partitions(missing.end.saturating_sub(missing.start));
        let disk = &*run.env().disk;
        let dir = run.settings().dir.join(&*entry.name);
        if run.logs().catalog().is_whole() {
            self.topics.forget_numbers(entry.id, missing.start)?;
        }
        self.topics.make_free(entry, missing)?;
        // DURABILITY: from the top down: each directory's own name in its parent.
        if disk.kind(&dir).map_err(|source| Error::io("look at", &dir, source))?.is_none() {
            make_or_adopt_dir(disk, &dir)?;
        }
        sync_dir(disk, &run.settings().dir)
    }

    /// Opens a partition that an earlier run had.
    fn open(&self, entry: &TopicEntry, number: u32) -> Result<Arc<PartitionCore>> {
        let Topics { run, factory, .. } = self.topics;
        let (context, logs) = (run.context(), run.logs());
        let now = context.clock.began_at();
        let last_run = LastRun { clean: false, same_boot: false, has_all_starts: true, now };
        let stored = factory.stored_partition(logs, entry, number, last_run);
        let identity = stored.identity.clone();
        let opened = open_log(&context.env, identity, stored.options, &stored.known);
        let (core, (_, changes)) = factory.found_partition(logs, stored, opened)?;
        logs.local().append_durably(changes)?;
        Ok(core)
    }

    /// The deletion of a topic is certain, and its leader has removed its files.
    fn remove_deleted(&self, id: TopicId) -> Result<()> {
        let run = &self.topics.run;
        let name = |(entry, _): &(TopicEntry, Stage)| Arc::clone(&entry.name);
        let named = run.logs().catalog().read(|catalog| catalog.topics.get(&id).map(name));
        let shown = run.live().of_id(id);
        let Some(name) = named.or_else(|| shown.map(|topic| Arc::clone(&topic.name))) else {
            return Ok(());
        };
        // DURABILITY: the deletion, before the first file is removed.
        run.logs().catalog().partition().flush()?;
        run.logs().local().append_durably(vec![LocalChange::Removing(id)])?;
        let shown = self.topics.take_away(&self.change, id, &name, None);
        remove_topic_files(&*run.env().disk, &run.settings().dir.join(&*name), id)?;
        run.logs().local().append_durably(vec![LocalChange::TopicGone(id)])?;
        give_up_space(shown.as_deref());
        Ok(())
    }

    // ---- after it ------------------------------------------------------------------------------

    /// Makes the table of topics what the catalog says of this one.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn reconcile(&self, id: TopicId, made: &mut Made) -> Result<()> {
        let run = &self.topics.run;
        let known = run.logs().catalog().read(|catalog| catalog.topics.get(&id).cloned());
        match (known, run.live().of_id(id)) {
            (Some((entry, stage)), None) if stage.is_live() => self.show(&entry, made),
            (Some((entry, stage)), Some(topic)) if stage.is_live() => {
                self.adjust(&entry, &topic, made)
            }
            // Its creation was truncated.
            (Some((_, Stage::Creating)), Some(topic)) => self.remove(&topic),
            (None, Some(topic)) if run.logs().catalog().is_whole() => self.remove(&topic),
            // A deleted topic can be read until its files are removed.
            _ => Ok(()),
        }
    }

    /// The same for all topics.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn reconcile_all(&self, made: &mut Made) -> Result<()> {
        let run = &self.topics.run;
        let ids = |catalog: &CatalogState| -> BTreeSet<TopicId> {
            catalog.topics.keys().copied().collect()
        };
        let mut ids = run.logs().catalog().read(ids);
        ids.extend(run.live().all().iter().map(|topic| topic.id));
        ids.into_iter().try_for_each(|id| self.reconcile(id, made))
    }

    /// The partitions of a topic from a number on, which were made for it.
    fn take(entry: &TopicEntry, from: u32, made: &mut Made) -> Result<Vec<Arc<PartitionCore>>> {
        let take = |number| {
            let core = made.partitions.remove(&(entry.id, number));
            core.ok_or_else(|| Error::UnknownTopic((*entry.name).to_owned()))
        };
        (from..entry.config.partitions).map(take).collect()
    }

    fn show(&self, entry: &TopicEntry, made: &mut Made) -> Result<()> {
        let Topics { run, factory, space } = self.topics;
        let topic = factory.shared_topic(entry, Self::take(entry, 0, made)?);
        run.live().insert(topic);
        run.logs().coordinator().topic_changed(&entry.name, entry.config.partitions);
        space.keep_compaction_spare();
        Ok(())
    }

    /// Gives a topic the settings and the partitions of its entry.
    fn adjust(&self, entry: &TopicEntry, topic: &TopicShared, made: &mut Made) -> Result<()> {
        let Topics { run, .. } = self.topics;
        let (has, wanted) = (topic.config.partitions, entry.config.partitions);
        if has == wanted {
            if topic.config != entry.config {
                self.topics.put_in_force(&self.change, topic, entry.config.clone());
            }
            return Ok(());
        }
        let kept = topic.partitions.iter().take(wanted as usize).cloned();
        let mut partitions: Vec<_> = kept.collect();
        if wanted > has {
            partitions.extend(Self::take(entry, has, made)?);
        }
        self.topics.replace(&self.change, topic, entry.config.clone(), partitions);
        run.logs().coordinator().topic_changed(&entry.name, wanted);
        let removed = topic.partitions.get(wanted as usize..).unwrap_or_default();
        if removed.is_empty() {
            return Ok(());
        }
        // The growth was truncated.
        self.topics.close_partitions(removed, None);
        let disk = &*run.env().disk;
        for core in removed {
            let dir = run.context().identity(entry, core.origin.partition).dir;
            remove_partition_files(disk, &dir, entry.id)?;
        }
        sync_dir(disk, &run.settings().dir.join(&*entry.name))?;
        let gone = LocalChange::PartitionsGone { topic: entry.id, from: wanted };
        run.logs().local().append_durably(vec![gone])?;
        for core in removed {
            core.log().give_up_space();
        }
        Ok(())
    }

    /// Removes a topic that the catalog does not have. Nothing of it was ever acknowledged, or its
    /// deletion is certain.
    fn remove(&self, topic: &TopicShared) -> Result<()> {
        let run = &self.topics.run;
        let _ = self.topics.take_away(&self.change, topic.id, &topic.name, None);
        let dir = run.settings().dir.join(&*topic.name);
        remove_topic_files(&*run.env().disk, &dir, topic.id)?;
        run.logs().local().append_durably(vec![LocalChange::TopicGone(topic.id)])?;
        give_up_space(Some(topic));
        Ok(())
    }
}
