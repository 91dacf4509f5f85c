//! Creates, alters, grows and deletes topics, so that a crash at any step leaves the state before
//! or the state after.
//!
//! Owns: the order of entries in the catalog, work on files and changes of the table of live
//! topics. The intent is recorded first, then the files are changed, then the completion is
//! recorded, which is the commit point; each step is durable before the next. The settings of a
//! topic are one record, so their change needs no intent. A growth, for example:
//!
//! 1. The intent: the topic as it is, and the new total.
//! 2. Directories and first segments of the new partitions.
//! 3. The completion: the topic with the new total. The commit point.
//! 4. The new total is used by lookups, handles, producers and groups. Handles follow from the old
//!    settings to the new (`topic::Succession`).
//!
//! An intent without completion is undone: the files of step 2 are removed, then the intent.
//!
//! Must not know: what producers, groups and retention do with topics.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::catalog::{CatalogChange, CatalogState, Stage, TopicEntry};
use super::catalog_writer::Recorded;
use super::directories::{
    has_segments, remove_partition_files, remove_stray_files, remove_stray_topics,
    remove_topic_files, sync_dir,
};
use super::gate::Change;
use super::local::LocalChange;
use super::run_parts::RunParts;
use super::space::Space;
use super::topic_factory::{TopicFactory, successor};
use crate::config::TopicConfig;
use crate::error::{Error, NameError, Result};
use crate::foreign;
use crate::format::{TopicId, validate_topic};
use crate::log::inventory::holds_records;
use crate::log::unavailable::damage_of;
use crate::log::{OFFSET_MAX, record_bytes_max};
use crate::partition::PartitionCore;
use crate::rules::Rule;
use crate::topic::TopicShared;

#[cfg(feature = "replication")]
pub(crate) mod followed;
pub(super) mod watched;

/// See the module's documentation.
pub(crate) struct Topics {
    run: RunParts,
    factory: TopicFactory,
    space: Arc<Space>,
}

impl Topics {
    pub(super) fn new(run: &RunParts, factory: TopicFactory, space: &Arc<Space>) -> Self {
        Self { run: run.clone(), factory, space: Arc::clone(space) }
    }

    pub(super) fn factory(&self) -> &TopicFactory {
        &self.factory
    }

    /// Defers wakers and events until the end of the scope, in which the caller takes locks.
    fn hold_back(&self) -> impl Sized + '_ {
        (foreign::hold_back(), self.run.env().trace.deliver_at_end())
    }

    // ---- creating --------------------------------------------------------------------------

    /// Creates a topic. `begins` are the offsets at which its partitions begin, where not at 0.
    pub(crate) fn create(
        &self,
        name: &str,
        config: TopicConfig,
        begins: &BTreeMap<u32, u64>,
    ) -> Result<Arc<TopicShared>> {
        let (shared, recorded) = self.begin_create(name, config, begins)?;
        // The topic exists, and its records too once a majority has this.
        self.run.catalog_writer().settle(recorded)?;
        Ok(shared)
    }

    /// Creates a topic, as far as that waits for no other member of a replicated group.
    pub(crate) fn begin_create(
        &self,
        name: &str,
        config: TopicConfig,
        begins: &BTreeMap<u32, u64>,
    ) -> Result<(Arc<TopicShared>, Recorded)> {
        validate_topic(name).map_err(|reason| invalid(name, reason))?;
        let config = config.or_defaults(&self.run.settings().topic_defaults);
        config.validate(record_bytes_max(config.segment_bytes))?;
        check_begins(&self.run, (name, &config), begins)?;
        self.run.gate().check_process()?;
        let _held = self.hold_back();
        let change = self.run.gate().begin_change()?;
        self.check_writable(name)?;
        self.finish_interrupted(&change, name)?;
        self.check_free(name)?;
        let entry = TopicEntry { name: name.into(), id: self.factory.new_topic_id(), config };
        let _ = self.set_stage(&entry, Stage::Creating)?;
        self.space.make_room_for_partitions(entry.config.partitions);
        let made = self.make_free(&entry, 0..entry.config.partitions);
        let made = made.and_then(|()| note_begins(&self.run, &entry, begins));
        let made = made.and_then(|()| self.factory.make_topic(&entry, begins));
        let made = made.and_then(|shared| {
            // DURABILITY: all files are synced before the entry that says that they exist.
            let recorded = self.set_stage(&entry, Stage::Live)?;
            Ok((shared, recorded))
        });
        match made {
            Ok((shared, recorded)) => {
                self.run.live().insert(Arc::clone(&shared));
                self.run.logs().coordinator().topic_changed(&shared.name, shared.config.partitions);
                self.run.live().call_followers();
                self.space.keep_compaction_spare();
                Ok((shared, recorded))
            }
            Err(error) => {
                // Undone as far as possible; the rest is undone at the next opening.
                let _ = self.remove(&entry);
                Err(error)
            }
        }
    }

    /// Waits until it is certain that a topic, with its settings, exists: until a majority of a replicated
    /// group has what is recorded of it.
    ///
    /// # Errors
    ///
    /// Those of a member that does not lead, and of the wait.
    pub(super) fn await_certain(&self, topic: &TopicShared) -> Result<()> {
        let writer = self.run.catalog_writer();
        if writer.is_certain(topic.id) {
            return Ok(());
        }
        writer.settle(writer.recorded_before()?)
    }

    /// Refuses a name that another topic has, or one that differs from it only in case.
    fn check_free(&self, name: &str) -> Result<()> {
        let named =
            self.run.logs().catalog().read(|it| it.named(name).map(|it| Arc::clone(&it.name)));
        match named {
            Some(taken) if *taken == *name => Err(Error::TopicExists(name.to_owned())),
            Some(_) => Err(invalid(name, NameError::CaseCollision)),
            None => Ok(()),
        }
    }

    fn check_writable(&self, name: &str) -> Result<()> {
        let settings = self.run.settings();
        if settings.read_only {
            return Err(Error::ReadOnly { path: settings.dir.join(name) });
        }
        self.run.context().check_leads()
    }

    // ---- altering --------------------------------------------------------------------------

    pub(crate) fn alter(
        &self,
        name: &str,
        change: impl FnOnce(TopicConfig) -> TopicConfig,
    ) -> Result<()> {
        let recorded = self.begin_alter(name, change)?;
        self.run.catalog_writer().settle(recorded)
    }

    /// Alters a topic, as far as that waits for no other member of a replicated group.
    pub(crate) fn begin_alter(
        &self,
        name: &str,
        change: impl FnOnce(TopicConfig) -> TopicConfig,
    ) -> Result<Recorded> {
        let before = self.run.live().get(name)?;
        // This is the caller's code, so no lock is held: it may use the broker.
        let wanted = change(before.config.clone());
        check_alterable(&before.config, &wanted)?;
        let change = self.run.gate().begin_change()?;
        self.check_writable(name)?;
        let topic = self.run.live().get(name)?;
        if topic.id != before.id {
            // The topic that the caller read is deleted; this one only has the same name.
            return Err(Error::UnknownTopic(name.to_owned()));
        }
        let config = before.config.with_changes(&wanted, &topic.config);
        config.validate(record_bytes_max(config.segment_bytes))?;
        self.finish_growth(&change, &topic)?;
        let entry = TopicEntry { config, ..entry_of(&topic) };
        check_not_deleted(&self.run, &entry)?;
        let recorded = self.set_stage(&entry, Stage::Live)?;
        self.put_in_force(&change, &topic, entry.config);
        Ok(recorded)
    }

    /// Gives a topic other settings.
    fn put_in_force(&self, change: &Change<'_>, topic: &TopicShared, config: TopicConfig) {
        for partition in &topic.partitions {
            partition.with_log(|log| log.factory_mut().set_segment_bytes(config.segment_bytes));
        }
        self.replace(change, topic, config, topic.partitions.clone());
        self.space.settings_changed();
    }

    /// Replaces a topic's settings or its partition count for all users.
    fn replace(
        &self,
        _: &Change<'_>,
        topic: &TopicShared,
        config: TopicConfig,
        partitions: Vec<Arc<PartitionCore>>,
    ) {
        let next = successor(topic, config, partitions);
        self.run.live().insert(Arc::clone(&next));
        topic.give_way_to(&next);
    }

    // ---- growing ---------------------------------------------------------------------------

    /// Adds partitions, up to `total`, as far as that waits for no other member of a replicated group.
    /// `check` may refuse the growth of the topic.
    pub(super) fn begin_grow(
        &self,
        name: &str,
        total: u32,
        check: impl FnOnce(&Change<'_>, &TopicShared) -> Result<()>,
    ) -> Result<Recorded> {
        self.run.gate().check_process()?;
        let _held = self.hold_back();
        let change = self.run.gate().begin_change()?;
        self.check_writable(name)?;
        let topic = self.run.live().get(name)?;
        let has = topic.config.partitions;
        if total <= has {
            let reason = format!("topic {name:?} has {has}, and {total} are not more");
            return Err(Error::config("partitions", reason));
        }
        let grown = TopicConfig { partitions: total, ..topic.config.clone() };
        grown.validate(record_bytes_max(grown.segment_bytes))?;
        check(&change, &topic)?;
        check_not_deleted(&self.run, &entry_of(&topic))?;
        self.finish_growth(&change, &topic)?;
        let before = entry_of(&topic);
        let after = TopicEntry { config: grown, ..before.clone() };
        let _ = self.set_stage(&before, Stage::Growing(total))?;
        self.space.make_room_for_partitions(total.saturating_sub(has));
        let made = self.forget_numbers(after.id, has);
        let made = made.and_then(|()| self.make_free(&after, has..total));
        let none = BTreeMap::new();
        let made = made.and_then(|()| self.factory.make_partitions(&after, has..total, &none));
        let made = made.and_then(|partitions| {
            // DURABILITY: all files are synced before the entry that says that they exist.
            let recorded = self.set_stage(&after, Stage::Live)?;
            Ok((partitions, recorded))
        });
        match made {
            Ok((partitions, recorded)) => {
                let all = topic.partitions.iter().cloned().chain(partitions).collect();
                self.replace(&change, &topic, after.config, all);
                self.run.logs().coordinator().topic_changed(name, total);
                self.run.live().call_followers();
                Ok(recorded)
            }
            Err(error) => {
                // Undone as far as possible; the rest is undone later, or at the next opening.
                let _ = self.undo_growth(&before, total);
                Err(error)
            }
        }
    }

    /// Removes the files of the partitions from the entry's count up to `total`.
    ///
    /// DURABILITY: the intent comes first, again. The completion may have reached the disk although
    /// it failed, and must never be found without the files that it claims.
    pub(super) fn undo_growth(&self, before: &TopicEntry, total: u32) -> Result<()> {
        let _ = self.set_stage(before, Stage::Growing(total))?;
        let disk = &*self.run.env().disk;
        for number in before.config.partitions..total {
            let dir = self.run.context().identity(before, number).dir;
            remove_partition_files(disk, &dir, before.id)?;
        }
        let dir = self.run.settings().dir.join(&*before.name);
        Rule::UndoneGrowthNames.keep(|| sync_dir(disk, &dir))?;
        self.set_stage(before, Stage::Live).map(drop)
    }

    /// Undoes a growth that an earlier call could neither finish nor undo.
    fn finish_growth(&self, _: &Change<'_>, topic: &TopicShared) -> Result<()> {
        let stage = |(_, stage): &(TopicEntry, Stage)| *stage;
        match self.run.logs().catalog().read(|catalog| catalog.topics.get(&topic.id).map(stage)) {
            Some(Stage::Growing(total)) => self.undo_growth(&entry_of(topic), total),
            _ => Ok(()),
        }
    }

    // ---- deleting --------------------------------------------------------------------------

    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        self.run.gate().check_process()?;
        let _held = self.hold_back();
        let change = self.run.gate().begin_change()?;
        if let Some(entry) = deleted_before(&self.run, name) {
            // An earlier call did not learn whether a majority has it.
            self.check_writable(name)?;
            let writer = self.run.catalog_writer();
            writer.settle_locked(writer.recorded_before()?)?;
            return self.finish_deletion(&change, &entry, None);
        }
        let (entry, marked) = self.mark_deleted(&change, name)?;
        let unsure = match marked {
            // In a group nothing is closed or removed before a majority has it: what becomes of the
            // topic otherwise is decided by what the log says later.
            Ok(recorded) => self.run.catalog_writer().settle_locked(recorded).map(|()| None)?,
            Err(error) if self.run.context().is_member() => return Err(error),
            Err(error) => Some(error),
        };
        self.finish_deletion(&change, &entry, unsure)
    }

    /// Records that a topic is deleted, as far as that waits for no other member of a replicated
    /// group. The rest is done once a majority has it.
    #[cfg(test)]
    #[cfg(feature = "replication")]
    pub(crate) fn begin_delete(&self, name: &str) -> Result<Recorded> {
        let change = self.run.gate().begin_change()?;
        self.mark_deleted(&change, name)?.1
    }

    /// What is returned beside the entry is an error if the deletion may be recorded or not.
    fn mark_deleted(&self, _: &Change<'_>, name: &str) -> Result<(TopicEntry, Result<Recorded>)> {
        // Not from the table of topics: a deletion that failed can be tried again.
        let named = |(entry, _): &&(TopicEntry, Stage)| *entry.name == *name;
        let find = |catalog: &CatalogState| catalog.topics.values().find(named).cloned();
        let found = self.run.logs().catalog().read(find);
        let (entry, stage) = found.ok_or_else(|| Error::UnknownTopic(name.to_owned()))?;
        self.check_writable(name)?;
        if !stage.is_live() {
            return Err(Error::UnknownTopic(name.to_owned()));
        }
        // The commit point: when it is durable the topic is deleted, also after a crash.
        match self.set_stage(&entry, Stage::Deleting) {
            Err(error) if error.is_definite() => Err(error),
            marked => Ok((entry, marked)),
        }
    }

    /// Ends a topic that is deleted, or perhaps deleted: from now on nothing may be acknowledged that
    /// the next opening would remove. `unsure` is the error in the latter case.
    fn finish_deletion(
        &self,
        change: &Change<'_>,
        entry: &TopicEntry,
        unsure: Option<Error>,
    ) -> Result<()> {
        let shared = self.take_away(change, entry.id, &entry.name, unsure.as_ref());
        if let Some(error) = unsure {
            return Err(error);
        }
        // It is durably deleted; its files are removed now, or else later.
        let _ = self.forget(&entry.name, entry.id);
        give_up_space(shared.as_deref());
        Ok(())
    }

    /// Ends all use of a topic, and returns it if it was used. `unsure`: why its calls do not know
    /// whether it is deleted.
    fn take_away(
        &self,
        _: &Change<'_>,
        id: TopicId,
        name: &str,
        unsure: Option<&Error>,
    ) -> Option<Arc<TopicShared>> {
        let shared = self.run.live().remove_this(id, name)?;
        self.run.logs().coordinator().topic_changed(name, 0);
        self.run.live().call_followers();
        self.close_partitions(&shared.partitions, unsure);
        Some(shared)
    }

    /// Ends all use of partitions that are removed.
    fn close_partitions(&self, partitions: &[Arc<PartitionCore>], unsure: Option<&Error>) {
        for partition in partitions {
            partition.close_deleted(unsure.cloned());
            partition.await_work();
        }
        // Wakes appends that wait for space: they return that the topic is deleted.
        self.run.env().space.wake();
    }

    /// Notes that the writing broker has deleted a topic, in a read-only broker.
    pub(super) fn note_deletion_elsewhere(&self, id: TopicId, name: &str) {
        let Some(topic) = self.run.live().remove_this(id, name) else { return };
        self.run.logs().coordinator().topic_changed(name, 0);
        topic.partitions.iter().for_each(|partition| partition.close_deleted(None));
    }

    /// Deletes a topic whatever its stage.
    ///
    /// DURABILITY: the intent comes first. The entry that made the topic live may have reached the
    /// disk although it failed, and must never be found without the files that it claims.
    fn remove(&self, entry: &TopicEntry) -> Result<()> {
        let _ = self.set_stage(entry, Stage::Deleting)?;
        if !self.run.catalog_writer().is_certain(entry.id) {
            // Once a majority has it: see `finish_all_interrupted`.
            return Ok(());
        }
        self.forget(&entry.name, entry.id)
    }

    /// Removes the files of a topic that is being deleted, or whose creation was interrupted.
    pub(super) fn forget(&self, name: &str, id: TopicId) -> Result<()> {
        // DURABILITY: the intent, before the first file is removed. It may be one whose sync has
        // failed: a power cut could then bring the topic back without its files.
        self.run.logs().catalog().partition().flush()?;
        if self.run.context().is_member() {
            // DURABILITY: a follower has deleted topics open until a record says that they are removed.
            self.run.logs().local().append_durably(vec![LocalChange::Removing(id)])?;
        }
        remove_topic_files(&*self.run.env().disk, &self.run.settings().dir.join(name), id)?;
        // DURABILITY: the catalog entry is removed last; until then, remaining files are found by
        // the intent.
        self.run.logs().coordinator().offsets().forget_topic(id)?;
        self.run.logs().local().append_durably(vec![LocalChange::TopicGone(id)])?;
        self.run.logs().catalog().append_durably(vec![CatalogChange::TopicGone(id)])
    }

    // ---- finishing what was interrupted ----------------------------------------------------

    /// Tries again to remove files that an earlier deletion or undone creation could not remove,
    /// and undoes growths that could not be finished. Skipped while a caller changes topics, which
    /// may take long: this is called every minute.
    pub(super) fn finish_all_interrupted(&self) {
        let Some(change) = self.run.gate().try_begin_change() else { return };
        if self.run.settings().read_only || self.run.context().follows() {
            return;
        }
        for entry in self.unfinished(|_| true) {
            if self.run.catalog_writer().is_certain(entry.id) {
                let _ = self.finish_deletion(&change, &entry, None);
            }
        }
        for topic in self.run.live().all() {
            let _ = self.finish_growth(&change, &topic);
        }
    }

    /// Removes what a failure has left of topics of this name, so that the name can be used.
    fn finish_interrupted(&self, change: &Change<'_>, name: &str) -> Result<()> {
        let unfinished = self.unfinished(|entry| entry.name.eq_ignore_ascii_case(name));
        unfinished.iter().try_for_each(|entry| {
            if !self.run.catalog_writer().is_certain(entry.id) {
                return Err(self.run.context().not_enough());
            }
            let _ = self.take_away(change, entry.id, &entry.name, None);
            self.forget(&entry.name, entry.id)
        })
    }

    /// Topics that are not live: interrupted creations and deletions.
    fn unfinished(&self, wanted: impl Fn(&TopicEntry) -> bool) -> Vec<TopicEntry> {
        let unfinished = |(entry, stage): &(TopicEntry, Stage)| {
            (!stage.is_live() && wanted(entry)).then(|| entry.clone())
        };
        self.run.logs().catalog().read(|it| it.topics.values().filter_map(unfinished).collect())
    }

    /// The topics that an opening finds, after interrupted changes are finished: a creation or
    /// growth is undone, a deletion is completed, each by removing the files with the topic's id.
    pub(super) fn recover(&self) -> Result<Vec<TopicEntry>> {
        if self.run.context().is_member() {
            return recover_as_member(&self.run);
        }
        let is_read_only = self.run.settings().read_only;
        let entries: Vec<(TopicEntry, Stage)> =
            self.run.logs().catalog().read(|catalog| catalog.topics.values().cloned().collect());
        let mut live = Vec::new();
        for (entry, stage) in entries {
            let (entry, found) = stage_by_files(&self.run, entry, stage)?;
            if found != stage && !is_read_only {
                let _ = self.set_stage(&entry, found)?;
            }
            match found {
                Stage::Live => live.push(entry),
                Stage::Growing(_) if is_read_only => live.push(entry),
                Stage::Growing(total) => {
                    match self.undo_growth(&entry, total) {
                        Err(error) if error.is_fatal() => return Err(error),
                        _ => {}
                    }
                    live.push(entry);
                }
                Stage::Creating | Stage::Deleting if is_read_only => {}
                Stage::Creating | Stage::Deleting => {
                    match self.forget(&entry.name, entry.id) {
                        Err(error) if error.is_fatal() => return Err(error),
                        // A removal that fails is tried again every minute, and does not affect
                        // other topics.
                        _ => {}
                    }
                }
            }
        }
        Ok(live)
    }

    /// Records a topic and its stage, durably.
    fn set_stage(&self, entry: &TopicEntry, stage: Stage) -> Result<Recorded> {
        let epoch = self.run.context().leads().unwrap_or(0);
        let catalog = self.run.logs().catalog();
        let change = catalog.read(|catalog| catalog.topic_change(entry.clone(), stage, epoch));
        self.run.catalog_writer().record(vec![change])
    }

    /// In a replicated group, removes what earlier leaders have left in the directories of partitions
    /// that are created: nothing in them was ever acknowledged.
    fn make_free(&self, entry: &TopicEntry, numbers: Range<u32>) -> Result<()> {
        if !self.run.context().is_member() {
            return Ok(());
        }
        let catalog = self.run.logs().catalog();
        let is_whole = catalog.is_whole();
        // If records of the catalog are missing, the topic may be one that this member has.
        let keep = |id: TopicId| {
            let is_own = id == entry.id;
            if is_own { !is_whole } else { catalog.read(|it| it.topics.contains_key(&id)) }
        };
        let disk = &*self.run.env().disk;
        if numbers.start == 0 {
            return remove_stray_topics(disk, &self.run.settings().dir.join(&*entry.name), &keep);
        }
        for number in numbers {
            remove_stray_files(disk, &self.run.context().identity(entry, number).dir, &keep)?;
        }
        Ok(())
    }

    /// In a replicated group, forgets what was noted of partitions with the numbers of those that are
    /// created: their creation was truncated.
    fn forget_numbers(&self, id: TopicId, from: u32) -> Result<()> {
        if !self.run.context().is_member() {
            return Ok(());
        }
        let gone = LocalChange::PartitionsGone { topic: id, from };
        self.run.logs().local().append_durably(vec![gone])
    }
}

fn give_up_space(topic: Option<&TopicShared>) {
    for partition in topic.iter().flat_map(|topic| &topic.partitions) {
        partition.log().give_up_space();
    }
}

fn entry_of(topic: &TopicShared) -> TopicEntry {
    TopicEntry { name: Arc::clone(&topic.name), id: topic.id, config: topic.config.clone() }
}

/// A topic of this name whose deletion is recorded, but perhaps at no majority of a replicated group.
fn deleted_before(run: &RunParts, name: &str) -> Option<TopicEntry> {
    let is_deleted =
        |(entry, stage): &&(TopicEntry, Stage)| *entry.name == *name && *stage == Stage::Deleting;
    let find = |it: &CatalogState| it.topics.values().find(is_deleted).cloned();
    let (entry, _) = run.logs().catalog().read(find)?;
    (!run.catalog_writer().is_certain(entry.id)).then_some(entry)
}

/// Refuses to change a topic whose deletion is recorded, but perhaps at no majority.
fn check_not_deleted(run: &RunParts, entry: &TopicEntry) -> Result<()> {
    let stage = |(_, stage): &(TopicEntry, Stage)| *stage;
    let stage = run.logs().catalog().read(|it| it.topics.get(&entry.id).map(stage));
    match stage {
        Some(stage) if !stage.is_live() => Err(Error::UnknownTopic((*entry.name).to_owned())),
        _ => Ok(()),
    }
}

/// Refuses changes that are not possible while the topic exists.
fn check_alterable(before: &TopicConfig, wanted: &TopicConfig) -> Result<()> {
    if wanted.partitions != before.partitions {
        return Err(Error::config(
            "partitions",
            "cannot be altered here; `Admin::add_partitions` adds partitions",
        ));
    }
    if wanted.durability != before.durability {
        let reason = "it is fixed when the topic is created; a producer can have its own";
        return Err(Error::config("durability", reason));
    }
    Ok(())
}

fn invalid(name: &str, reason: NameError) -> Error {
    // A hostile name is not repeated at full length.
    Error::InvalidName { name: name.chars().take(300).collect(), reason }
}

/// The same for a member of a replicated group, in which the log alone decides. Nothing is finished
/// before this member leads. A deleted topic is open until its files are removed.
fn recover_as_member(run: &RunParts) -> Result<Vec<TopicEntry>> {
    let logs = run.logs();
    let mut live: Vec<(TopicEntry, Stage)> =
        logs.catalog().read(|catalog| catalog.topics.values().cloned().collect());
    live.retain(|(entry, stage)| match stage {
        Stage::Live | Stage::Growing(_) => true,
        Stage::Deleting => !logs.local().read(|local| local.is_removing(entry.id)),
        Stage::Creating => false,
    });
    let mut entries = Vec::new();
    for (entry, stage) in live {
        if stage != Stage::Deleting || has_files(run, &entry)? {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Whether all partitions of a topic have files.
fn has_files(run: &RunParts, entry: &TopicEntry) -> Result<bool> {
    for number in 0..entry.config.partitions {
        let dir = run.context().identity(entry, number).dir;
        if !has_segments(&*run.env().disk, &dir)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The stage of a topic as its files show it.
fn stage_by_files(run: &RunParts, entry: TopicEntry, stage: Stage) -> Result<(TopicEntry, Stage)> {
    entry.stage_by_files(stage, |entry, number| {
        let identity = run.context().identity(entry, number);
        match holds_records(run.env(), &identity) {
            // A file that cannot be read may hold records, so nothing is removed because of it.
            Err(error) if damage_of(&identity, &error).is_some() => Ok(true),
            holds => holds,
        }
    })
}

/// Refuses a topic that cannot have partitions that begin there.
fn check_begins(
    run: &RunParts,
    (name, config): (&str, &TopicConfig),
    begins: &BTreeMap<u32, u64>,
) -> Result<()> {
    for (&number, &offset) in begins {
        if number >= config.partitions {
            return Err(Error::UnknownPartition((name, number).into()));
        }
        // `OFFSET_MAX` is the highest log end: no record can have it.
        if offset >= OFFSET_MAX {
            let highest = OFFSET_MAX - 1;
            let reason = format!("no record can have offset {offset}; the highest is {highest}");
            return Err(Error::config("begin", reason));
        }
    }
    if begins.values().any(|offset| *offset > 0) && run.context().is_member() {
        // The records of the catalog do not say where a partition begins: a follower that makes
        // one, and leads before it has asked for its records, would begin it at 0.
        let reason = "the members of a replicated group create partitions at offset 0 only";
        return Err(Error::config("begin", reason));
    }
    Ok(())
}

/// Notes where partitions begin, durably, before their files exist: an opening takes offsets
/// that are missing at the beginning of a log for lost ones, unless its start is known.
fn note_begins(run: &RunParts, entry: &TopicEntry, begins: &BTreeMap<u32, u64>) -> Result<()> {
    let begins = begins.iter().filter(|(_, offset)| **offset > 0);
    let start =
        |(&partition, &offset)| LocalChange::LogStart { topic: entry.id, partition, offset };
    let starts: Vec<LocalChange> = begins.map(start).collect();
    if starts.is_empty() { Ok(()) } else { run.logs().local().append_durably(starts) }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
