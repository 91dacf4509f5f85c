//! Named producers: who holds an id, the epoch in force, and the sequence numbers in use.
//!
//! Owns: the table of producers that are in use, and what the catalog stores of all of them. Must
//! not know: how a record is sent.
//!
//! A producer that sends numbered records with a key prevents a topic from growing. With more
//! partitions, a key leads to another partition, which does not know the numbers that were sent
//! before: a retry would be stored once more. So the catalog records which producers have sent
//! numbers to which topics by key, and a topic grows only once no partition remembers any of them.
//!
//! 1. The entry that a producer does so is durable before its first such append to the topic.
//! 2. Such an append runs only between [`NamedProducer::begin_by_key`] and the drop of its result,
//!    with the count of partitions that is in force there.
//! 3. Under a [`Change`], a growth removes the entries of producers that no partition remembers and
//!    that have no append running. These record themselves anew, and wait for a [`Change`] to do
//!    so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::{CatalogChange, CatalogState, ProducerEntry};
use super::gate::Change;
use super::run_parts::RunParts;
use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::format::{TopicId, validate_label};
use crate::partition::shared::PRODUCER_EXPIRY;
use crate::sync::{AtomicU32, AtomicU64, LockLevel, Mutex, Ordering, RwLock};
use crate::topic::TopicShared;
use crate::trace::note;

/// LIMIT: a producer that is held is recorded as used this often at most; after a kill nothing
/// later is known, so that it is kept for a day longer, beside the 30 days of its expiry.
const HELD_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// LIMIT: how many producers of an earlier version, which stored no times, are recorded as used at
/// a time: a few milliseconds of one housekeeping round.
const UNKNOWN_PER_LOOK: usize = 500;

/// A named producer that is in use: the epoch in force, shared by all its holders.
#[derive(Debug)]
pub(crate) struct NamedProducer {
    pub(crate) name: Arc<str>,
    pub(crate) id: u64,
    /// ORDERING: raised with Release by a new holder once the new epoch is durable; read with
    /// Acquire under a partition's lock by an append (see `partition::check_fence`).
    pub(crate) epoch: AtomicU32,
    /// The topics for which the catalog records that the producer numbers records with a key, each
    /// with the count of such appends that are running.
    ///
    /// ORDERING: a count rises under the read lock, and falls with Release when the append has
    /// ended; a growth loads it with Acquire under the write lock. A growth that finds no running
    /// append also sees all appended records; with Relaxed it could miss the last ones.
    by_key: RwLock<HashMap<TopicId, Arc<AtomicU32>>>,
}

/// A running append with a number and a key. ORDERING: see `NamedProducer::by_key`.
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
    /// Begins an append with a number and a key. `None` if the catalog has no entry yet that the
    /// producer makes such appends to the topic.
    pub(crate) fn begin_by_key(&self, topic: TopicId) -> Option<UnderWay> {
        let topics = self.by_key.read();
        let count = topics.get(&topic)?;
        // ORDERING: Relaxed: counted under the lock that a growth takes to read it.
        count.fetch_add(1, Ordering::Relaxed);
        Some(UnderWay(Arc::clone(count)))
    }

    /// Removes the topic from `by_key`, unless an append is running. Returns whether it did.
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

/// See the module's documentation.
pub(crate) struct Producers {
    run: RunParts,
    /// The producers that are in use or were in this run, by name.
    held: Mutex<HashMap<Arc<str>, Arc<NamedProducer>>>,
    /// How many have expired since the opening.
    ///
    /// ORDERING: Relaxed: added by the expiry walk, loaded for the metrics; a count that guards no
    /// memory.
    expired: AtomicU64,
}

impl Producers {
    pub(super) fn new(run: &RunParts) -> Self {
        Self {
            run: run.clone(),
            held: Mutex::at_level(LockLevel::Producers, HashMap::new()),
            expired: AtomicU64::new(0),
        }
    }

    /// Makes a new holder of a producer id: raises its epoch durably, which fences the holder
    /// before.
    pub(crate) fn acquire(&self, name: &str) -> Result<(Arc<NamedProducer>, u32)> {
        validate_label(name).map_err(|reason| Error::InvalidName {
            name: name.chars().take(300).collect(),
            reason,
        })?;
        self.run.gate().check_open()?;
        self.run.gate().check_writable()?;
        // Under the lock, so that epochs rise in the order in which they are stored.
        let mut producers = self.held.lock();
        let known = self.run.logs().catalog().read(|catalog| catalog.producers.get(name).copied());
        let entry = if let Some(known) = known {
            ProducerEntry { epoch: known.epoch.saturating_add(1), ..known }
        } else {
            let id = self.run.logs().catalog().read(CatalogState::next_producer_id);
            let used_up =
                || Error::config("id", "all producer numbers are used; no new id can be added");
            ProducerEntry { id: id.ok_or_else(used_up)?, epoch: 0 }
        };
        if known.is_some_and(|known| known.epoch == entry.epoch) {
            return Err(Error::config("id", "all epochs of this id are used; choose another id"));
        }
        let writer = self.run.catalog_writer();
        let recorded = writer.record(vec![CatalogChange::Producer(name.into(), entry)])?;
        let producer = producers.entry(name.into()).or_insert_with(|| {
            let epoch = AtomicU32::new(entry.epoch);
            let by_key = RwLock::at_level(LockLevel::ProducerTopics, HashMap::new());
            Arc::new(NamedProducer { name: name.into(), id: entry.id, epoch, by_key })
        });
        producer.epoch.store(entry.epoch, Ordering::Release);
        let acquired = (Arc::clone(producer), entry.epoch);
        drop(producers);
        writer.settle(recorded)?;
        Ok(acquired)
    }

    /// Durably records that a producer numbers records with a key in a topic.
    pub(crate) fn note_by_key(&self, producer: &NamedProducer, topic: &str) -> Result<()> {
        let change = self.run.gate().begin_change()?;
        self.run.gate().check_writable()?;
        let topic = self.run.live().get(topic)?.id;
        let is_news = self.run.logs().catalog().read(|catalog| {
            let is_in_force = |entry: &ProducerEntry| entry.id == producer.id;
            // A holder of a removed id is fenced, and has no entry.
            catalog.producers.get(&producer.name).is_some_and(is_in_force)
                && !catalog.has_by_key(topic, producer.id)
        });
        let writer = self.run.catalog_writer();
        // An entry that is there may be recorded at no majority yet.
        let recorded = if is_news {
            writer.record(vec![CatalogChange::ByKey(topic, producer.id)])?
        } else {
            writer.recorded_before()?
        };
        drop(change);
        writer.settle(recorded)?;
        producer.by_key.write().entry(topic).or_default();
        Ok(())
    }

    /// Compares the producers that are in use with the catalog: while another member led, they may
    /// have got newer holders there, or have been forgotten.
    #[cfg(feature = "replication")]
    pub(super) fn look_again(&self) {
        let producers = self.held.lock();
        for producer in producers.values() {
            let mut topics: Vec<_> = producer.by_key.read().keys().copied().collect();
            let epoch = self.run.logs().catalog().read(|catalog| {
                topics.retain(|topic| !catalog.has_by_key(*topic, producer.id));
                let entry = catalog.producers.get(&producer.name);
                entry.filter(|it| it.id == producer.id).map_or(u32::MAX, |it| it.epoch)
            });
            producer.epoch.store(epoch, Ordering::Release);
            for topic in topics {
                // One with a running append is kept: that counts for a growth.
                let _ = producer.end_by_key(topic);
            }
        }
    }

    /// Refuses to let a topic grow while its partitions remember numbers of records with a key.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], with the ids of the producers.
    pub(super) fn check_growth(&self, _: &Change<'_>, topic: &TopicShared) -> Result<()> {
        let noted = self.run.logs().catalog().read(|catalog| catalog.by_key_of(topic.id));
        let (mut names, mut gone) = (Vec::new(), Vec::new());
        for (id, name) in noted {
            let held = name.as_ref().and_then(|name| self.held.lock().get(name).cloned());
            let held = held.filter(|held| held.id == id);
            let is_idle = held.is_none_or(|held| held.end_by_key(topic.id));
            let remembers = || topic.partitions.iter().any(|core| core.log().may_remember(id));
            match name {
                // A removed id has no holder that could send again.
                Some(name) if !is_idle || remembers() => names.push(format!("{name:?}")),
                _ => gone.push(CatalogChange::ByKeyGone(topic.id, id)),
            }
        }
        if !gone.is_empty() {
            self.run.logs().catalog().append_durably(gone)?;
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
    pub(crate) fn forget(&self, name: &str) -> Result<()> {
        let change = self.run.gate().begin_change()?;
        self.run.gate().check_writable()?;
        let mut producers = self.held.lock();
        let gone = self.run.logs().catalog().read(|catalog| catalog.producer_removed(&name.into()));
        if gone.is_empty() {
            return Err(Error::config("id", format!("there is no producer {name:?}")));
        }
        // One batch: after a crash either all entries of the producer exist or none.
        let writer = self.run.catalog_writer();
        let recorded = writer.record_whole(gone)?;
        if let Some(held) = producers.remove(name) {
            held.epoch.store(u32::MAX, Ordering::Release);
        }
        drop((producers, change));
        self.run.logs().catalog().tidy();
        writer.settle(recorded)
    }

    pub(super) fn expire_idle(&self) -> Result<()> {
        self.note_held(millis(HELD_EVERY))?;
        for (name, used) in self.idle() {
            self.expire(name, used)?;
        }
        Ok(())
    }

    /// The producers that were not used for too long, and when each was used last.
    pub(crate) fn idle(&self) -> Vec<(Arc<str>, u64)> {
        let now = self.run.logs().clock().millis();
        let limit = millis(PRODUCER_EXPIRY).saturating_add(millis(HELD_EVERY));
        self.run.logs().catalog().read(|catalog| {
            let idle = |name: &Arc<str>| {
                let used = catalog.producers.time_of(name).unwrap_or(0);
                let is_idle = used > 0 && now.saturating_sub(used) > limit;
                is_idle.then(|| (Arc::clone(name), used))
            };
            catalog.producers.keys().filter_map(idle).collect()
        })
    }

    /// Forgets a producer that is idle, unless it has been used meanwhile.
    pub(crate) fn expire(&self, name: Arc<str>, used: u64) -> Result<()> {
        // A caller that acquires the id waits for this lock, and then finds the id used or removed.
        let mut producers = self.held.lock();
        let is_held = producers.get(&name).is_some_and(|held| Arc::strong_count(held) > 1);
        let last = self.run.logs().catalog().read(|catalog| catalog.producers.time_of(&name));
        if is_held || last != Some(used) {
            return Ok(());
        }
        let changes = self.run.logs().catalog().read(|catalog| catalog.producer_removed(&name));
        self.run.logs().catalog().append_whole(changes)?;
        producers.remove(&name);
        drop(producers);
        self.expired.fetch_add(1, Ordering::Relaxed);
        note!(self.run.env().trace, ProducerExpired { producer: name });
        Ok(())
    }

    /// Records that producers are held, unless that was recorded less than `every` milliseconds
    /// ago. Also records a use for producers whose last use is not known.
    pub(super) fn note_held(&self, every: u64) -> Result<()> {
        let now = self.run.logs().clock().millis();
        let producers = self.held.lock();
        let is_held =
            |name: &Arc<str>| producers.get(name).is_some_and(|held| Arc::strong_count(held) > 1);
        let changes = self.run.logs().catalog().read(|catalog| {
            let mut unknown = 0;
            let mut is_due = |name: &Arc<str>| {
                let used = catalog.producers.time_of(name).unwrap_or(0);
                unknown += usize::from(used == 0);
                let is_unknown = used == 0 && unknown <= UNKNOWN_PER_LOOK;
                is_unknown || (is_held(name) && used.saturating_add(every) <= now)
            };
            let due = catalog.producers.iter().filter(|(name, _)| is_due(name));
            due.map(|(name, entry)| CatalogChange::Producer(Arc::clone(name), *entry))
                .collect::<Vec<_>>()
        });
        if changes.is_empty() {
            return Ok(());
        }
        let stored = self.run.logs().catalog().append_if(changes, |_| Ok(()));
        drop(producers);
        self.run.logs().catalog().tidy();
        stored.map(drop)
    }

    /// Records again when producers were used since `since`, dated by the clock as it is `now`.
    pub(super) fn redate(&self, since: u64, now: Moment) -> Result<()> {
        // A caller that acquires an id waits for this lock, and then raises the epoch that is
        // recorded here.
        let producers = self.held.lock();
        let used = self.run.logs().catalog().read(|catalog| {
            let dated = |(name, entry): (&Arc<str>, &ProducerEntry)| {
                let used = catalog.producers.time_of(name).filter(|used| *used >= since)?;
                Some((
                    CatalogChange::Producer(Arc::clone(name), *entry),
                    Moment::from_run(used, now),
                ))
            };
            catalog.producers.iter().filter_map(dated).collect::<Vec<_>>()
        });
        let stored = self.run.logs().catalog().append_dated(used);
        drop(producers);
        self.run.logs().catalog().tidy();
        stored.map(drop)
    }

    pub(super) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
