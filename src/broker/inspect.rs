//! A broker that only looks, beside one in another process that writes.
//!
//! The writer goes on while this broker looks: retention and compaction remove files, its own state
//! is written anew, topics are deleted and made again. A file may go between two steps of one look.
//! So nothing is called damaged or missing before the whole of it was looked at twice, each time
//! from the start, and the same was found.
//!
//! Why twice is enough. The writer makes durable *why* a file is not needed before it removes it: the
//! log start in `__local`, the replacement beside the segments it replaces, the deletion in
//! `__meta`. What one look misses, the next one finds the reason for; it may miss something else,
//! which went meanwhile, but not the same again.
//!
//! Owns: the order of the looks. Must not know: what the files mean.

use std::sync::{Arc, Weak};

use super::catalog::{CatalogState, Stage, TopicEntry};
use super::engine::Engine;
use super::internal_logs::{InternalLog, LOCAL, META, last_run};
use super::local::LocalState;
use super::open::{LastRun, Opening, has_all_starts};
use super::workers::Workers;
use crate::clock::to_millis;
use crate::error::Result;
use crate::format::TopicId;
use crate::log::open::{Known, PartitionRecovery};
use crate::log::{Log, LogIdentity, LogOptions};
use crate::partition::state_log::{Evidence, LoggedState, StateLog};
use crate::partition::{LOOKS, PartitionCore};
use crate::sync::Mutex;

/// What an opening of a partition finds.
pub(super) type Opened = Result<(Log, PartitionRecovery)>;

/// Looks until there is nothing to find fault with, or two looks have found the same. The argument
/// counts them.
pub(super) fn settled<T>(
    mut look: impl FnMut(usize) -> Result<T>,
    fault: impl Fn(&Result<T>) -> Option<String>,
) -> Result<T> {
    let mut before = None;
    let mut count = 0;
    loop {
        let found = look(count);
        let now = fault(&found);
        count += 1;
        if now.is_none() || now == before || count == LOOKS {
            return found;
        }
        before = now;
    }
}

/// What is wrong with a partition. Not where it ends: that moves while another broker appends.
fn fault_of(opened: &Opened) -> Option<String> {
    match opened {
        Ok((_, report)) if report.cut_bytes == 0 && report.corrupt.is_empty() => None,
        Ok((_, report)) => Some(format!("{} {:?}", report.cut_bytes, report.corrupt)),
        Err(error) => Some(format!("{error:?}")),
    }
}

impl Opening {
    /// Opens a broker that only looks.
    pub(super) fn inspect(self) -> Result<Arc<Engine>> {
        let opening = Arc::new(self);
        let fault = |opened: &Result<_>| opened.as_ref().err().map(|error| format!("{error:?}"));
        let engine = settled(|_| opening.attempt(), fault)?;
        let (weak, one_at_a_time) = (Arc::downgrade(&engine), Mutex::new(()));
        engine.workers.set_look(move |core| {
            let _one = one_at_a_time.lock();
            Weak::upgrade(&weak).is_some_and(|engine| opening.look_again(&engine, core))
        });
        Ok(engine)
    }

    /// Opens a partition; where `__local` was read before, that is what is known of it at first.
    pub(super) fn look_at(
        &self,
        workers: &Arc<Workers>,
        (identity, options): (&LogIdentity, LogOptions),
        mut first: Option<Known>,
    ) -> Opened {
        let look = |_| {
            let known = match first.take() {
                Some(known) => known,
                None => self.known_now(workers, identity)?,
            };
            Log::open(&self.env, identity.clone(), options, &known)
        };
        settled(look, fault_of)
    }

    /// Which of these topics have been deleted since the catalog was read.
    pub(super) fn deleted(
        &self,
        workers: &Arc<Workers>,
        topics: &[TopicId],
    ) -> Result<Vec<TopicId>> {
        let catalog: StateLog<CatalogState> =
            self.internal_log_now(META, workers, &mut Vec::new())?;
        let is_there = |(_, stage): &(TopicEntry, Stage)| *stage != Stage::Deleting;
        let is_gone =
            |id: &&TopicId| catalog.read(|catalog| !catalog.topics.get(*id).is_some_and(is_there));
        Ok(topics.iter().filter(is_gone).copied().collect())
    }

    /// A read has failed: looks at the partition anew. Whether it is worth reading again.
    fn look_again(&self, engine: &Engine, core: &PartitionCore) -> bool {
        let (identity, options) = core.with_log(|log| (log.identity().clone(), log.options()));
        match self.look_at(&engine.workers, (&identity, options), None) {
            Ok((log, report)) if report.corrupt.is_empty() => {
                core.take_over(log);
                true
            }
            looked => {
                let id = identity.topic_id;
                if self.deleted(&engine.workers, &[id]).is_ok_and(|gone| !gone.is_empty()) {
                    engine.leave_topic(id, &core.origin.topic);
                    return true;
                }
                // What can be read around is as good as what was known.
                looked.map(|(log, _)| core.take_over(log)).is_ok()
            }
        }
    }

    fn known_now(&self, workers: &Arc<Workers>, identity: &LogIdentity) -> Result<Known> {
        let mut found = Vec::new();
        let local: StateLog<LocalState> = self.internal_log_now(LOCAL, workers, &mut found)?;
        let boot = self.env.disk.boot_id().map(Arc::from);
        let (clean, same_boot) = last_run(&local, boot.as_ref(), &found);
        let now = to_millis(self.clock.now()).unwrap_or(0);
        let run = LastRun { clean, same_boot, has_all_starts: has_all_starts(&found), now };
        Ok(self.known(&local, (identity.topic_id, identity.origin.partition), run))
    }

    fn internal_log_now<S: LoggedState>(
        &self,
        log: (&str, TopicId),
        workers: &Arc<Workers>,
        found: &mut Vec<PartitionRecovery>,
    ) -> Result<StateLog<S>> {
        // Both were begun long ago, by the broker that writes.
        let evidence = Evidence { had_snapshot: true, had_records: log.1 == LOCAL.1 };
        let own = InternalLog { is_new: false, evidence, reaches: 0 };
        let fault = |opened: &Result<_>| opened.as_ref().err().map(|error| format!("{error:?}"));
        let look = |_| {
            found.clear();
            self.internal_log(log, own, workers, found)
        };
        settled(look, fault)
    }
}

impl Engine {
    /// A topic was deleted by the broker that writes.
    fn leave_topic(&self, id: TopicId, name: &str) {
        let mut topics = self.topics.write();
        let Some(topic) = topics.get(name).filter(|topic| topic.id == id).cloned() else { return };
        topics.remove(name);
        drop(topics);
        self.coordinator.topic_changed(name, 0);
        topic.partitions.iter().for_each(|partition| partition.close_deleted(None));
    }
}
