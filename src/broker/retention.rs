//! Removes records by retention, by request, or to make space.
//!
//! Owns: the order of a removal over the partition, the local state and the disk. Must not know:
//! which records are removed, which `log::retention` plans, and when there is too little space.
//!
//! DURABILITY: a log start is durable in `__local` before it is visible and before any file below
//! it is unlinked. So it never goes back: after a crash the files may be there again, and are
//! removed again.

use std::sync::Arc;

use super::local::LocalChange;
use super::run_parts::RunParts;
use crate::config::Visibility;
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::log::retention::{RetentionPolicy, SegmentFacts, deletes};
use crate::partition::PartitionCore;
use crate::partition::lead::LedEpoch;
use crate::record::TopicPartition;
use crate::topic::TopicShared;

/// Called by the application, by the worker for bulk work and by `tick`, with no lock held but the
/// caller's right to drop the oldest records ([`Space`](super::space::Space)).
pub(crate) struct Retention {
    run: RunParts,
}

/// Records of one partition that are to be removed.
struct Removal {
    topic: TopicId,
    core: Arc<PartitionCore>,
    /// The new log start.
    start: u64,
    /// What kept the last segment from being replaced. Reported once the others are removed.
    refused: Option<Error>,
}

/// Records that were deleted here.
#[cfg_attr(not(feature = "replication"), expect(dead_code, reason = "no other member has them"))]
pub(crate) struct DeletedRecords {
    pub(crate) topic: TopicId,
    pub(crate) log_start: u64,
    /// The leadership under which they were.
    pub(crate) led: LedEpoch,
}

impl Retention {
    pub(super) fn new(run: &RunParts) -> Self {
        Self { run: run.clone() }
    }

    /// Whether another member of a replicated group decides what is removed.
    fn follows(&self) -> bool {
        self.run.context().lead().follows()
    }

    /// Applies every topic's retention settings. Tries every partition, and returns the first
    /// failure.
    pub(crate) fn enforce(&self) -> Result<()> {
        self.run.gate().check_open()?;
        self.run.gate().check_writable()?;
        let (mut removals, mut result) = (Vec::new(), Ok(()));
        let follows = self.follows();
        for topic in self.run.live().all() {
            for core in &topic.partitions {
                core.retention().retry_removals();
                if follows {
                    continue;
                }
                match begin_retention(&topic, core) {
                    Ok(removal) => removals.extend(removal),
                    Err(error) => result = result.and(Err(error)),
                }
            }
        }
        let removed = self.remove(&removals);
        self.run.env().trace.deliver();
        result.and(removed)
    }

    /// Applies a limit of bytes to a partition that has just sealed a segment; ages can wait.
    pub(super) fn enforce_bytes(&self, core: &Arc<PartitionCore>) -> Result<()> {
        let Ok(topic) = self.run.live().get(&core.origin.topic) else {
            return Ok(()); // of an internal log, or deleted
        };
        if RetentionPolicy::of(&topic.config).bytes.is_none() || self.follows() {
            return Ok(());
        }
        let removal = begin_retention(&topic, core)?;
        self.remove(removal.as_slice())
    }

    /// Moves the log start of a partition to `before`, unless it is there already.
    pub(crate) fn delete_records(
        &self,
        partition: &TopicPartition,
        before: u64,
    ) -> Result<DeletedRecords> {
        self.run.gate().check_open()?;
        self.run.gate().check_writable()?;
        let led = self.run.context().lead().check()?;
        let topic = self.run.live().get(&partition.topic)?;
        let core = topic.partition(partition.partition)?;
        core.log().status().check_available()?;
        let (start, end) = (core.log_start(), core.visible_end(Visibility::Published));
        if before > end {
            return Err(Error::out_of_range(&core.origin, before, start, end));
        }
        if before > start {
            let deleted = self.delete_below(topic.id, core, before);
            self.run.env().trace.deliver();
            deleted?;
        }
        Ok(DeletedRecords { topic: topic.id, log_start: core.log_start(), led })
    }

    /// Moves the log start of a follower to that of its leader, if its own is lower. It lies not
    /// above the follower's log end.
    #[cfg(feature = "replication")]
    pub(crate) fn raise_start(
        &self,
        topic: TopicId,
        core: &Arc<PartitionCore>,
        start: u64,
    ) -> Result<()> {
        core.log().status().check_available()?;
        if start > core.log_start() {
            self.delete_below(topic, core, start.min(core.log_end()))?;
        }
        Ok(())
    }

    /// Moves a log start and removes the segments below it. The last segment is replaced if there
    /// is space for another. On a full disk it is kept for now, with nothing in it that can be
    /// read: a deletion must not need the space that it is there to free.
    fn delete_below(&self, topic: TopicId, core: &Arc<PartitionCore>, start: u64) -> Result<()> {
        let (plan, tail) = core.retention().plan_deletion(start)?;
        let rolled = if plan.roll { core.retention().roll_tail(&tail) } else { Ok(true) };
        let is_full = is_storage_full(&rolled);
        if !is_full {
            rolled?;
        }
        self.remove(begin_removal(topic, core, start)?.as_slice())?;
        // The removed segments may have freed the space that was missing. If they did not,
        // retention replaces the last segment later.
        if is_full && core.retention().roll_tail(&tail).is_ok() {
            self.remove(begin_removal(topic, core, start)?.as_slice())?;
        }
        Ok(())
    }

    /// Removes the oldest sealed segment of all partitions. Returns whether that has made room: a
    /// partition whose files cannot be removed makes none, however many segments it drops.
    pub(super) fn drop_oldest(&self) -> Result<bool> {
        self.run.gate().check_open()?;
        if self.follows() {
            return Ok(false);
        }
        let topics = self.run.live().all();
        let droppable = topics.iter().filter(|topic| deletes(topic.config.cleanup));
        let each = droppable
            .flat_map(|topic| topic.partitions.iter().map(|core| (topic.id, core)))
            .filter(|(_, core)| !core.retention().keeps_leftovers())
            .filter_map(|(id, core)| Some((core.retention().oldest_sealed()?, id, core)));
        // A segment without records is the first to be removed.
        let age = |facts: &SegmentFacts| facts.times.map(|times| (times.since, times.aged_from));
        let Some((facts, topic, oldest)) = each.min_by_key(|(facts, ..)| age(facts)) else {
            return Ok(false);
        };
        self.drop_below(topic, oldest, facts.next_offset)
    }

    /// Removes the last segment of a partition, if nothing else can make room for its appends.
    pub(super) fn drop_last(&self, core: &Arc<PartitionCore>) -> Result<bool> {
        let topic = self.run.live().get(&core.origin.topic)?;
        let is_kept = !deletes(topic.config.cleanup) || self.follows();
        if is_kept || core.retention().keeps_leftovers() {
            return Ok(false);
        }
        let end = core.log_end();
        if core.log().ends().watermark() < end {
            // What lies above it may still be truncated, and appended anew.
            return Ok(false);
        }
        let (plan, tail) = core.retention().plan_deletion(end)?;
        if !plan.roll || !core.retention().roll_tail(&tail)? {
            return Ok(false);
        }
        self.drop_below(topic.id, core, plan.log_start)
    }

    fn drop_below(&self, topic: TopicId, core: &Arc<PartitionCore>, start: u64) -> Result<bool> {
        // Also if the log start is there already: the segments below it are removed.
        core.retention().flush_below(start)?;
        self.remove(&[Removal { topic, core: Arc::clone(core), start, refused: None }])?;
        Ok(!core.retention().keeps_leftovers())
    }

    /// Makes new log starts durable, all in one append, and then removes the segments below them.
    fn remove(&self, removals: &[Removal]) -> Result<()> {
        let removals: Vec<_> =
            removals.iter().filter(|removal| !removal.core.is_closed()).collect();
        if removals.is_empty() {
            return Ok(());
        }
        let change = |removal: &&Removal| LocalChange::LogStart {
            topic: removal.topic,
            partition: removal.core.origin.partition,
            offset: removal.start,
        };
        self.run.logs().local().append_durably(removals.iter().map(change).collect())?;
        let retire = |removal: &&Removal| {
            let retired = removal.core.retention().retire(removal.start);
            retired.and(removal.refused.clone().map_or(Ok(()), Err))
        };
        let retired = removals.iter().map(retire);
        retired.fold(Ok(()), Result::and)
    }
}

/// Plans the retention of a partition and begins to carry it out.
fn begin_retention(topic: &TopicShared, core: &Arc<PartitionCore>) -> Result<Option<Removal>> {
    let policy = RetentionPolicy::of(&topic.config);
    let Some((plan, tail)) = core.retention().plan(&policy) else {
        return Ok(None);
    };
    let carry_out = || {
        let rolled = if plan.roll { core.retention().roll_tail(&tail) } else { Ok(true) };
        let start = match &rolled {
            Ok(true) => plan.log_start,
            // Records were appended to the last segment meanwhile, so all of it is needed. On a
            // full disk it is kept until it can be replaced; the removal of those before it needs
            // no space.
            Ok(false) | Err(Error::StorageFull { .. }) => plan.log_start.min(tail.base_offset),
            Err(error) => return Err(error.clone()),
        };
        match (begin_removal(topic.id, core, start)?, rolled.err()) {
            (Some(removal), refused) => Ok(Some(Removal { refused, ..removal })),
            (None, Some(refused)) => Err(refused),
            (None, None) => Ok(None),
        }
    };
    match carry_out() {
        // Its topic was deleted meanwhile, or the broker is closing.
        Err(Error::Closed | Error::UnknownTopic(_)) => Ok(None),
        other => other,
    }
}

/// Makes durable what must be durable before the records below `start` are removed. `None` if there
/// is nothing to remove: no record below it can be read, and no segment lies wholly below it. (One
/// does if a full disk kept it as the last segment when its records were deleted.)
fn begin_removal(topic: TopicId, core: &Arc<PartitionCore>, start: u64) -> Result<Option<Removal>> {
    let is_below = |oldest: SegmentFacts| oldest.next_offset <= start;
    if start <= core.log_start() && !core.retention().oldest_sealed().is_some_and(is_below) {
        return Ok(None);
    }
    core.retention().flush_below(start)?;
    Ok(Some(Removal { topic, core: Arc::clone(core), start, refused: None }))
}

fn is_storage_full<T>(done: &Result<T>) -> bool {
    matches!(done, Err(Error::StorageFull { .. }))
}
