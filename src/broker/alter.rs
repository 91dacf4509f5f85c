//! Changing the settings of a live topic.
//!
//! The settings of a topic are one record of the catalog, so a change is there whole or not at all
//! after any crash. It is in force for all handles at once: lookups find the new ones in the
//! table, and handles follow from the old ones to the new (`topic::Succession`).

use std::sync::Arc;

use super::catalog::{CatalogChange, Stage, TopicEntry};
use super::engine::Engine;
use super::topics::{apply_compaction, record_rules};
use crate::config::TopicConfig;
use crate::error::{Error, Result};
use crate::log::record_bytes_max;
use crate::partition::PartitionCore;
use crate::topic::TopicShared;

impl Engine {
    pub(crate) fn alter_topic(
        &self,
        name: &str,
        change: impl FnOnce(TopicConfig) -> TopicConfig,
    ) -> Result<()> {
        let before = self.topic(name)?;
        // The caller's code, under no lock: it may itself use the broker.
        let wanted = change(before.config.clone());
        check_alterable(&before.config, &wanted)?;
        self.check_process()?;
        let _admin = self.admin.lock();
        self.check_open()?;
        self.check_writable()?;
        let topic = self.topic(name)?;
        if topic.id != before.id {
            // The topic that the caller looked at is gone; this one has its name only.
            return Err(Error::UnknownTopic(name.to_owned()));
        }
        let config = before.config.with_changes(&wanted, &topic.config);
        config.validate(record_bytes_max(config.segment_bytes))?;
        self.finish_growth(&topic)?;
        let entry = TopicEntry { name: Arc::clone(&topic.name), id: topic.id, config };
        self.catalog.append_durably(vec![CatalogChange::Topic(entry.clone(), Stage::Live)])?;
        for partition in &topic.partitions {
            partition.with_log(|log| log.set_segment_bytes(entry.config.segment_bytes));
        }
        self.replace_topic(&topic, entry.config, topic.partitions.clone());
        // By the new settings there may be room for appends that wait: they try again, and what then
        // refuses them is looked after anew.
        *self.relieved.lock() = None;
        self.env.space.wake();
        Ok(())
    }

    /// Puts other settings or more partitions in force. `admin` is held.
    pub(super) fn replace_topic(
        &self,
        topic: &TopicShared,
        config: TopicConfig,
        partitions: Vec<Arc<PartitionCore>>,
    ) {
        apply_compaction(&config, &partitions);
        let rules = record_rules(&config);
        let next = topic.with(config, rules, partitions);
        self.topics.write().insert(Arc::clone(&next.name), Arc::clone(&next));
        topic.give_way_to(&next);
    }
}

/// Refuses what cannot be changed while the topic lives.
fn check_alterable(before: &TopicConfig, wanted: &TopicConfig) -> Result<()> {
    if wanted.partitions != before.partitions {
        return Err(Error::config("partitions", "add_partitions changes their number"));
    }
    if wanted.durability != before.durability {
        let reason = "it is fixed when the topic is created; a producer can have its own";
        return Err(Error::config("durability", reason));
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::config::Durability;
    use std::time::Duration;

    #[test]
    fn two_changes_of_different_settings_are_both_made() {
        let before = TopicConfig::new(1);
        let mine = before.clone().segment_bytes(1 << 20);
        let meanwhile = TopicConfig::new(3).retention(Duration::MAX).segment_bytes(2 << 20);
        let both = before.with_changes(&mine, &meanwhile);
        assert_eq!(both, TopicConfig::new(3).retention(Duration::MAX).segment_bytes(1 << 20));
    }

    #[test]
    fn no_change_leaves_what_others_changed() {
        let before = TopicConfig::new(1);
        let meanwhile = TopicConfig::new(1).max_record_bytes(7).min_dirty_ratio(0.1);
        assert_eq!(before.with_changes(&before.clone(), &meanwhile), meanwhile);
    }

    #[test]
    fn partitions_and_durability_are_refused() {
        let before = TopicConfig::new(1);
        for wanted in [TopicConfig::new(2), TopicConfig::new(1).durability(Durability::Os)] {
            let refused = check_alterable(&before, &wanted);
            assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
        }
    }
}
