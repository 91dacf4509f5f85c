//! The table of topics that can be used.
//!
//! Owns: the table. Must not know: the catalog and the files; the caller changes both first.
//!
//! Invariant: a topic is in the table exactly while it is live in the catalog and the run is open.

use std::collections::HashMap;
use std::sync::Arc;

use super::gate::Gate;
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::partition::PartitionCore;
use crate::partition::waiters::{Notifier, NotifierList};
use crate::sync::{AtomicU64, LockLevel, Ordering, RwLock};
use crate::topic::TopicShared;

/// See the module's documentation.
pub(crate) struct LiveTopics {
    gate: Arc<Gate>,
    table: RwLock<Table>,
    /// How often the table has changed.
    ///
    /// ORDERING: raised with Release after a change, read with Acquire: who sees the number finds
    /// the change in the table. With Relaxed a reader could see the number, miss the topic, and not
    /// look again.
    changes: AtomicU64,
    /// The readers that are notified of new topics and partitions.
    followers: NotifierList,
}

#[derive(Default)]
struct Table {
    by_name: HashMap<Arc<str>, Arc<TopicShared>>,
    names: HashMap<TopicId, Arc<str>>,
}

impl Table {
    fn remove(&mut self, name: &str) -> Option<Arc<TopicShared>> {
        let topic = self.by_name.remove(name)?;
        self.names.remove(&topic.id);
        Some(topic)
    }
}

impl LiveTopics {
    pub(super) fn new(gate: &Arc<Gate>) -> Self {
        Self {
            gate: Arc::clone(gate),
            table: RwLock::at_level(LockLevel::TopicTable, Table::default()),
            changes: AtomicU64::new(0),
            followers: NotifierList::new(),
        }
    }

    /// A number that changes whenever a topic is created, changed or deleted.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Has a consumer called when topics are created or grow.
    pub(crate) fn follow(&self, notifier: &Arc<Notifier>) {
        self.followers.add(notifier);
    }

    /// Calls the consumers that follow topics. Under no lock.
    pub(super) fn call_followers(&self) {
        self.followers.call_all();
    }

    fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The topic of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::UnknownTopic`].
    #[inline]
    pub(crate) fn get(&self, name: &str) -> Result<Arc<TopicShared>> {
        if let Some(topic) = self.table.read().by_name.get(name) {
            return Ok(Arc::clone(topic));
        }
        self.gate.check_open()?;
        Err(Error::UnknownTopic(name.to_owned()))
    }

    /// All topics, by name.
    pub(crate) fn all(&self) -> Vec<Arc<TopicShared>> {
        let mut topics: Vec<_> = self.table.read().by_name.values().cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// The topic of this id.
    pub(crate) fn of_id(&self, id: TopicId) -> Option<Arc<TopicShared>> {
        let table = self.table.read();
        table.by_name.get(table.names.get(&id)?).cloned()
    }

    /// The partitions of all topics, topic by topic.
    pub(super) fn partitions(&self) -> Vec<Arc<PartitionCore>> {
        self.all().iter().flat_map(|topic| &topic.partitions).map(Arc::clone).collect()
    }

    /// A number that changes whenever records are appended to any topic: asked for between the
    /// steps of a compaction, so that appends need not count.
    pub(crate) fn appended(&self) -> u64 {
        let topics = self.table.read();
        let partitions = topics.by_name.values().flat_map(|topic| &topic.partitions);
        partitions.fold(0, |sum, partition| sum.wrapping_add(partition.log_end()))
    }

    /// Puts a topic, or its successor with other settings or more partitions, into the table.
    pub(super) fn insert(&self, topic: Arc<TopicShared>) {
        let mut table = self.table.write();
        table.names.insert(topic.id, Arc::clone(&topic.name));
        table.by_name.insert(Arc::clone(&topic.name), topic);
        drop(table);
        self.note_change();
    }

    /// Removes a topic, unless another one has its name by now.
    pub(super) fn remove_this(&self, id: TopicId, name: &str) -> Option<Arc<TopicShared>> {
        let mut table = self.table.write();
        if table.by_name.get(name)?.id != id {
            return None;
        }
        let removed = table.remove(name);
        self.note_change();
        removed
    }

    /// Removes all of them, at the end of the run.
    pub(super) fn clear(&self) {
        *self.table.write() = Table::default();
    }
}
