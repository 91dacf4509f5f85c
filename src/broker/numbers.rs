//! Numbers that producers have given to records with a key: they stop a topic from growing.
//!
//! With more partitions a key leads to another one, which knows none of the numbers of before: a
//! retry would be stored once more. So the catalog knows which producers have sent numbers to which
//! topics by key, and a topic grows only once no partition remembers any of them.
//!
//! 1. The record that a producer does so is durable before its first such append to the topic.
//! 2. Such an append is under way only between [`NamedProducer::begin_by_key`] and the end of what
//!    that returns, with the count of partitions that is in force there.
//! 3. Under `admin`, a growth forgets those that are remembered by nobody and have nothing under
//!    way; they record themselves anew, and wait for `admin` to do so.

use std::sync::Arc;

use super::catalog::{CatalogChange, ProducerEntry};
use super::engine::{Engine, NamedProducer};
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::sync::{AtomicU32, Ordering};
use crate::topic::TopicShared;

/// An append with a number and a key, under way.
#[must_use]
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<AtomicU32>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        // ORDERING: Release: a growth that sees the count without this one (Acquire) finds what was
        // appended in the partition.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl NamedProducer {
    /// Begins an append with a number and a key; `None` until it is recorded that the producer
    /// makes such appends to the topic.
    pub(crate) fn begin_by_key(&self, topic: TopicId) -> Option<UnderWay> {
        let topics = self.by_key.read();
        let count = topics.get(&topic)?;
        // ORDERING: Relaxed: counted under the lock that a growth takes to look.
        count.fetch_add(1, Ordering::Relaxed);
        Some(UnderWay(Arc::clone(count)))
    }

    /// Forgets that it is recorded, unless something is under way. Whether it did.
    fn end_by_key(&self, topic: TopicId) -> bool {
        let mut topics = self.by_key.write();
        let is_busy = |count: &Arc<AtomicU32>| count.load(Ordering::Acquire) > 0;
        if topics.get(&topic).is_some_and(is_busy) {
            return false;
        }
        topics.remove(&topic);
        true
    }
}

impl Engine {
    /// Records, durably, that a producer gives numbers to records with a key in a topic.
    pub(crate) fn note_by_key(&self, producer: &NamedProducer, topic: &str) -> Result<()> {
        self.check_process()?;
        let _admin = self.admin.lock();
        self.check_open()?;
        self.check_writable()?;
        let topic = self.topic(topic)?.id;
        let is_news = self.catalog.read(|catalog| {
            let is_in_force = |entry: &ProducerEntry| entry.id == producer.id;
            // A holder of an id that was forgotten is fenced: there is nothing to know of it.
            catalog.producers.get(&producer.name).is_some_and(is_in_force)
                && !catalog.has_by_key(topic, producer.id)
        });
        if is_news {
            self.catalog.append_durably(vec![CatalogChange::ByKey(topic, producer.id)])?;
        }
        producer.by_key.write().entry(topic).or_default();
        Ok(())
    }

    /// Refuses to let a topic grow while its partitions remember numbers of records with a key.
    /// `admin` is held.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], with the ids of the producers.
    pub(super) fn check_growth(&self, topic: &TopicShared) -> Result<()> {
        let noted = self.catalog.read(|catalog| catalog.by_key_of(topic.id));
        let (mut names, mut gone) = (Vec::new(), Vec::new());
        for (id, name) in noted {
            let held = name.as_ref().and_then(|name| self.producers.lock().get(name).cloned());
            let held = held.filter(|held| held.id == id);
            let is_idle = held.is_none_or(|held| held.end_by_key(topic.id));
            let remembers = || topic.partitions.iter().any(|core| core.may_remember(id));
            match name {
                // One that was forgotten has no holder that could send again.
                Some(name) if !is_idle || remembers() => names.push(format!("{name:?}")),
                _ => gone.push(CatalogChange::ByKeyGone(topic.id, id)),
            }
        }
        if !gone.is_empty() {
            self.catalog.append_durably(gone)?;
        }
        if names.is_empty() {
            return Ok(());
        }
        let reason = format!(
            "topic {:?} has sequence numbers of records with a key, which would lead elsewhere, by \
             the producers {}",
            topic.name,
            names.join(", ")
        );
        Err(Error::config("partitions", reason))
    }

    /// Forgets a producer and its numbers, durably. Its holders are fenced.
    pub(crate) fn forget_producer(&self, name: &str) -> Result<()> {
        self.check_process()?;
        let _admin = self.admin.lock();
        self.check_open()?;
        self.check_writable()?;
        let mut producers = self.producers.lock();
        let gone = self.catalog.read(|catalog| catalog.producer_gone(&name.into()));
        if gone.is_empty() {
            return Err(Error::config("id", format!("there is no producer {name:?}")));
        }
        // One batch: after a crash the producer is as it was, or gone with all that is known of it.
        self.catalog.append_whole(gone)?;
        if let Some(held) = producers.remove(name) {
            held.epoch.store(u32::MAX, Ordering::Release);
        }
        drop(producers);
        self.catalog.tidy();
        Ok(())
    }
}
