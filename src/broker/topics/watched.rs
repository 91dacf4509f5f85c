//! The topics of a read-only broker: they follow the catalog, which another broker writes.
//!
//! Uses the parts of [`Topics`], and owns nothing itself. Must not know: how the files of a
//! partition are read, and when.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::Topics;
use crate::broker::catalog::TopicEntry;
use crate::broker::report::Refreshed;
use crate::config::TopicConfig;
use crate::error::Result;
use crate::format::TopicId;
use crate::partition::PartitionCore;
use crate::topic::TopicShared;

/// Opens partitions; `None` if their topic is deleted by now.
type Open<'a> = dyn Fn(&TopicEntry, Range<u32>) -> Result<Option<Vec<Arc<PartitionCore>>>> + 'a;

/// Makes the table of topics what the catalog says. One caller at a time.
///
/// # Errors
///
/// The broker is closed; those of `open`. Some topics may be up to date then.
pub(in crate::broker) fn follow(
    topics: &Topics,
    open: &Open<'_>,
    refreshed: &mut Refreshed,
) -> Result<()> {
    let Topics { run, .. } = topics;
    let entries: BTreeMap<TopicId, TopicEntry> =
        topics.recover()?.into_iter().map(|entry| (entry.id, entry)).collect();
    // First, because a topic may have the name of one that was deleted.
    for topic in run.live().all() {
        if !entries.contains_key(&topic.id) {
            topics.note_deletion_elsewhere(topic.id, &topic.name);
            refreshed.deleted.push(topic.name.to_string());
        }
    }
    for entry in entries.values() {
        match run.live().of_id(entry.id) {
            Some(topic) => adjust(topics, &topic, (entry, open), refreshed)?,
            None => show(topics, (entry, open), refreshed)?,
        }
    }
    run.live().call_followers();
    Ok(())
}

fn show(
    topics: &Topics,
    (entry, open): (&TopicEntry, &Open<'_>),
    refreshed: &mut Refreshed,
) -> Result<()> {
    let Some(partitions) = open(entry, 0..entry.config.partitions)? else { return Ok(()) };
    let records = partitions.iter().map(|core| core.log_end().saturating_sub(core.log_start()));
    refreshed.records = records.fold(refreshed.records, u64::saturating_add);
    topics.run.live().insert(topics.factory.shared_topic(entry, partitions));
    topics.run.logs().coordinator().topic_changed(&entry.name, entry.config.partitions);
    refreshed.created.push(entry.name.to_string());
    Ok(())
}

/// Gives a topic the settings and the partitions of its entry.
fn adjust(
    topics: &Topics,
    topic: &TopicShared,
    (entry, open): (&TopicEntry, &Open<'_>),
    refreshed: &mut Refreshed,
) -> Result<()> {
    let has = topic.config.partitions;
    // What the files of a growth have shown before, the catalog may not say yet.
    let wanted = entry.config.partitions.max(has);
    let config = TopicConfig { partitions: wanted, ..entry.config.clone() };
    if topic.config == config {
        return Ok(());
    }
    let Some(added) = open(entry, has..wanted)? else { return Ok(()) };
    let records = added.iter().map(|core| core.log_end().saturating_sub(core.log_start()));
    refreshed.records = records.fold(refreshed.records, u64::saturating_add);
    let partitions: Vec<_> = topic.partitions.iter().cloned().chain(added).collect();
    let change = topics.run.gate().begin_change()?;
    topics.replace(&change, topic, config, partitions);
    drop(change);
    if wanted > has {
        topics.run.logs().coordinator().topic_changed(&entry.name, wanted);
    }
    refreshed.altered.push(entry.name.to_string());
    Ok(())
}

/// Puts a partition that was opened again in force instead of the one before, whose readers find it when
/// they notice that theirs is closed.
pub(in crate::broker) fn exchange(
    topics: &Topics,
    topic: &TopicShared,
    core: Arc<PartitionCore>,
) -> Result<()> {
    let mut partitions = topic.partitions.clone();
    let Some(old) = partitions.get_mut(core.origin.partition as usize) else { return Ok(()) };
    let old = std::mem::replace(old, core);
    let change = topics.run.gate().begin_change()?;
    topics.replace(&change, topic, topic.config.clone(), partitions);
    drop(change);
    old.close_deleted(None);
    Ok(())
}
