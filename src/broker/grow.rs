//! Adding partitions to a live topic, so that a crash at any step leaves the old or the new count.
//!
//! 1. The intent, durable: the topic as it is, and the total that is to be.
//! 2. Directories and first segments of the new partitions, durable.
//! 3. The completion, durable: the topic with the new total. The commit point.
//! 4. In force for lookups, handles, producers and groups.
//!
//! An intent without completion is undone: the files of step 2 go, then the intent.

use std::sync::Arc;

use super::catalog::{CatalogChange, Stage, TopicEntry};
use super::engine::Engine;
use super::topics::{identity, remove_partition_files, sync_dir};
use crate::config::TopicConfig;
use crate::error::{Error, Result};
use crate::foreign;
use crate::log::record_bytes_max;
use crate::rules::Rule;
use crate::topic::TopicShared;

impl Engine {
    pub(crate) fn add_partitions(&self, name: &str, total: u32) -> Result<()> {
        self.check_process()?;
        let (_told, _woken) = (self.env.trace.deliver_at_end(), foreign::hold_back());
        let _admin = self.admin.lock();
        self.check_open()?;
        self.check_writable()?;
        let topic = self.topic(name)?;
        let has = topic.config.partitions;
        if total <= has {
            let reason = format!("topic {name:?} has {has}, and {total} are not more");
            return Err(Error::config("partitions", reason));
        }
        let grown = TopicConfig { partitions: total, ..topic.config.clone() };
        grown.validate(record_bytes_max(grown.segment_bytes))?;
        self.check_growth(&topic)?;
        self.finish_growth(&topic)?;
        let before = entry_of(&topic);
        let after = TopicEntry { config: grown, ..before.clone() };
        self.set_stage(&before, Stage::Growing(total))?;
        let made = self.make_partitions(&after, has..total).and_then(|partitions| {
            // DURABILITY: all files are synced before the record that says they are there.
            self.set_stage(&after, Stage::Live)?;
            Ok(partitions)
        });
        match made {
            Ok(partitions) => {
                let all = topic.partitions.iter().cloned().chain(partitions).collect();
                self.replace_topic(&topic, after.config, all);
                self.coordinator.topic_changed(name, total);
                Ok(())
            }
            Err(error) => {
                // Undone as far as it goes; what is left is undone later, or at the next open.
                let _ = self.undo_growth(&before, total);
                Err(error)
            }
        }
    }

    fn set_stage(&self, entry: &TopicEntry, stage: Stage) -> Result<()> {
        self.catalog.append_durably(vec![CatalogChange::Topic(entry.clone(), stage)])
    }

    /// Removes what was made of the partitions from the entry's count up to `total`.
    ///
    /// DURABILITY: the intent comes first, again. The completion may have reached the disk although
    /// it failed, and must never be found without the files that it vouches for.
    pub(super) fn undo_growth(&self, before: &TopicEntry, total: u32) -> Result<()> {
        self.set_stage(before, Stage::Growing(total))?;
        let disk = &*self.env.disk;
        for number in before.config.partitions..total {
            let dir = identity(&self.settings, before, number).dir;
            remove_partition_files(disk, &dir, before.id)?;
        }
        let dir = self.settings.dir.join(&*before.name);
        Rule::UndoneGrowthNames.keep(|| sync_dir(disk, &dir))?;
        self.set_stage(before, Stage::Live)
    }

    /// Undoes what an earlier call could neither finish nor undo. `admin` is held.
    pub(super) fn finish_growth(&self, topic: &TopicShared) -> Result<()> {
        let stage = |(_, stage): &(TopicEntry, Stage)| *stage;
        match self.catalog.read(|catalog| catalog.topics.get(&topic.id).map(stage)) {
            Some(Stage::Growing(total)) => self.undo_growth(&entry_of(topic), total),
            _ => Ok(()),
        }
    }

    /// As [`finish_growth`](Self::finish_growth), of all topics; what fails is tried again later.
    pub(super) fn finish_growths(&self) {
        for topic in self.all_topics() {
            let _ = self.finish_growth(&topic);
        }
    }
}

fn entry_of(topic: &TopicShared) -> TopicEntry {
    TopicEntry { name: Arc::clone(&topic.name), id: topic.id, config: topic.config.clone() }
}
