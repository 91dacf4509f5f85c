//! Takes over what was salvaged from another directory: all of it or nothing.

use std::sync::Arc;

use super::catalog::{CatalogChange, ProducerEntry, Stage, TopicEntry};
use super::directories::{make_or_adopt_dir, sync_dir};
use super::engine::Engine;
use super::local::LocalChange;
use crate::error::Result;
use crate::format::TopicId;
use crate::group::offsets::OffsetChange;

/// The state of a broker, apart from its partitions.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) topics: Vec<TopicEntry>,
    pub(crate) producers: Vec<(Arc<str>, ProducerEntry)>,
    /// New ones get ids from this one on.
    pub(crate) ids_from: Option<u64>,
    /// Which of them give numbers to records with a key, by topic and id.
    pub(crate) by_key: Vec<(TopicId, u64)>,
    pub(crate) local: Vec<LocalChange>,
    pub(crate) offsets: Vec<OffsetChange>,
}

/// Makes the directories of topics in a broker that has none; durable on return. The caller
/// then leaves segments in each partition's, and calls [`finish`].
///
/// DURABILITY: as in every creation, an intent comes first. Here it is that of a deletion: an
/// opening that finds it without its completion removes all of the topics. With the intent of a
/// creation, an opening would keep topics that have records.
pub(crate) fn begin(engine: &Engine, topics: &[TopicEntry]) -> Result<()> {
    let _change = engine.gate().begin_change()?;
    engine.logs().catalog().append_durably(at_stage(topics, Stage::Deleting).collect())?;
    let disk = &*engine.context().env.disk;
    for entry in topics {
        let dir = engine.context().settings.dir.join(&*entry.name);
        make_or_adopt_dir(disk, &dir)?;
        sync_dir(disk, &engine.context().settings.dir)?;
        for number in 0..entry.config.partitions {
            make_or_adopt_dir(disk, &engine.context().identity(entry, number).dir)?;
        }
        sync_dir(disk, &dir)?;
    }
    Ok(())
}

/// Makes a state that was begun to be restored the broker's. Its topics can be used from the
/// next opening on.
///
/// DURABILITY: the record that makes the topics live comes last, after all that it vouches for,
/// and is one batch, so that a crash leaves all of them or none.
pub(crate) fn finish(engine: &Engine, state: Restored) -> Result<()> {
    let _change = engine.gate().begin_change()?;
    engine.logs().local().append_durably(state.local)?;
    engine.coordinator().offsets().log().append_durably(state.offsets)?;
    let producers = state.producers.into_iter();
    let producers = producers.map(|(name, entry)| CatalogChange::Producer(name, entry));
    let ids_from = state.ids_from.map(CatalogChange::ProducerIds);
    let by_key = state.by_key.into_iter();
    let by_key = by_key.map(|(topic, id)| CatalogChange::ByKey(topic, id));
    let topics = at_stage(&state.topics, Stage::Live);
    let changes = topics.chain(producers).chain(ids_from).chain(by_key);
    engine.logs().catalog().append_whole(changes.collect())
}

fn at_stage(topics: &[TopicEntry], stage: Stage) -> impl Iterator<Item = CatalogChange> {
    topics.iter().map(move |entry| CatalogChange::Topic(entry.clone(), stage))
}
