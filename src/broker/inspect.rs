//! A read-only broker, beside a broker in another process that writes.
//!
//! The writer continues while this broker reads: retention and compaction remove files, its
//! internal logs are cleaned up, topics are deleted and created again. A file may disappear between
//! two steps of one pass. So nothing is called damaged or missing before two passes, each from the
//! start, have found the same.
//!
//! Why two are enough. Before the writer removes a file, it makes the *reason* durable: the log
//! start in `__local`, the replacement beside the segments that it replaces, the deletion in
//! `__meta`. If a file is missing in one pass, the next pass finds the reason. That pass may miss
//! another file, which was removed meanwhile, but not the same again.
//!
//! Owns: the order of the passes. Must not know: what the files mean, and what the results are used
//! for.

use std::sync::Arc;

use super::catalog::{CatalogState, Stage, TopicEntry};
use super::context::Context;
use super::internal_logs::{LOCAL, META};
use super::last_run::{LastRun, has_all_starts, how_it_ended};
use super::local::LocalState;
use super::log_opener::{ExpectedLog, LogOpener};
use super::looks::Looks;
use crate::clock::to_millis;
use crate::config::RecoveryPolicy;
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::log::open::{Known, PartitionRecovery, open_log};
use crate::log::seen::Seen;
use crate::log::{Log, LogIdentity, LogOptions};
use crate::partition::reader::LOOKS;
use crate::partition::state_log::{Evidence, LoggedState, StateLog};

/// What an opening of a partition finds.
pub(super) type Opened = Result<(Log, PartitionRecovery)>;

/// Repeats passes until one finds no fault, or two have found the same. The argument counts the
/// passes.
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

/// The same of a log that grows while it is looked at: a batch that is not whole yet ends it.
fn damage_of_look(looked: &Result<Looked>) -> Option<String> {
    match looked {
        Ok(looked) if looked.report.corrupt.is_empty() => None,
        Ok(looked) => Some(format!("{:?}", looked.report.corrupt)),
        Err(error) => Some(format!("{error:?}")),
    }
}

/// What a look at a log has found.
pub(super) struct Looked {
    pub(super) log: Log,
    pub(super) report: PartitionRecovery,
    pub(super) seen: Seen,
}

/// Looks at the files of a directory to which another broker writes.
pub(super) struct Inspector {
    context: Arc<Context>,
    logs: LogOpener,
}

impl Inspector {
    pub(super) fn new(context: &Arc<Context>, logs: LogOpener) -> Self {
        Self { context: Arc::clone(context), logs }
    }

    /// Opens a partition. In the first pass, the contents of `__local` are those that were read
    /// before.
    pub(super) fn open_log(
        &self,
        (identity, options): (&LogIdentity, LogOptions),
        mut first: Option<Known>,
    ) -> Opened {
        let look = |_| {
            let known = match first.take() {
                Some(known) => known,
                None => self.known_now(identity)?,
            };
            open_log(&self.context.env, identity.clone(), options, &known)
        };
        settled(look, fault_of)
    }

    /// Looks at a partition again; `None` if its files have not changed.
    pub(super) fn look_again(
        &self,
        (identity, options): (&LogIdentity, LogOptions),
        seen: Option<&Seen>,
        first: Known,
    ) -> Option<Result<Looked>> {
        if seen.is_some_and(|seen| seen.still_holds(&self.context.env)) {
            return None;
        }
        let mut first = Some(first);
        let look = |_| {
            let numbers = self.numbers(identity)?;
            let known = match first.take() {
                Some(known) => known,
                None => self.known_now(identity)?,
            };
            let known = Known { policy: RecoveryPolicy::CutTornTail, ..known };
            let env = &self.context.env;
            let (log, report) = open_log(env, identity.clone(), options, &known)?;
            let seen = Seen::of(numbers, &log);
            Ok(Looked { log, report, seen })
        };
        Some(settled(look, damage_of_look))
    }

    /// Reads an internal log again, if its files have changed.
    ///
    /// # Errors
    ///
    /// Those of the disk; what two passes have found damaged. The state is as it was.
    pub(super) fn catch_up<S: LoggedState>(
        &self,
        log: (&str, TopicId),
        state: &StateLog<S>,
        looks: &mut Looks,
    ) -> Result<()> {
        let key = (log.1, 0);
        if looks.seen(key).is_some_and(|seen| seen.still_holds(&self.context.env)) {
            return Ok(());
        }
        let identity = state.partition().with_log(|log| log.factory().identity().clone());
        let evidence = Evidence { had_snapshot: true, had_records: log.1 == LOCAL.1, anew_at: 0 };
        let fault = |looked: &Result<_>| looked.as_ref().err().map(|error| format!("{error:?}"));
        let look = |_| {
            let numbers = self.numbers(&identity)?;
            let (found, report) = self.logs.look(log)?;
            let seen = Seen::of(numbers, &found);
            state.catch_up(found, evidence, &report.corrupt)?;
            Ok((seen, report))
        };
        let (seen, report) = settled(look, fault)?;
        looks.note(key, seen);
        if log.1 == LOCAL.1 {
            looks.note_local(report);
        }
        Ok(())
    }

    /// What `__local` says of the last run, as it was read.
    pub(super) fn last_run(&self, local: &StateLog<LocalState>, looks: &Looks) -> LastRun {
        self.last_run_of(local, looks.local())
    }

    fn last_run_of(&self, local: &StateLog<LocalState>, found: &[PartitionRecovery]) -> LastRun {
        let boot = self.context.env.disk.boot_id().map(Arc::from);
        let (clean, same_boot) = how_it_ended(local, boot.as_ref(), found);
        let now = to_millis(self.context.clock.now()).unwrap_or(0);
        LastRun { clean, same_boot, has_all_starts: has_all_starts(found), now }
    }

    fn numbers(&self, identity: &LogIdentity) -> Result<Vec<u64>> {
        let numbers = Seen::numbers(&self.context.env, &identity.dir);
        numbers.map_err(|source| Error::io("list", &identity.dir, source))
    }

    /// Which of these topics have been deleted since the catalog was read.
    pub(super) fn deleted(&self, topics: &[TopicId]) -> Result<Vec<TopicId>> {
        let catalog: StateLog<CatalogState> = self.read_again(META, &mut Vec::new())?;
        let is_there = |(_, stage): &(TopicEntry, Stage)| *stage != Stage::Deleting;
        let is_removed =
            |id: &&TopicId| catalog.read(|catalog| !catalog.topics.get(*id).is_some_and(is_there));
        Ok(topics.iter().filter(is_removed).copied().collect())
    }

    fn known_now(&self, identity: &LogIdentity) -> Result<Known> {
        let mut found = Vec::new();
        let local: StateLog<LocalState> = self.read_again(LOCAL, &mut found)?;
        let last_run = self.last_run_of(&local, &found);
        let key = (identity.topic_id, identity.origin.partition);
        Ok(last_run.known(&self.context.settings, &local, key))
    }

    fn read_again<S: LoggedState>(
        &self,
        log: (&str, TopicId),
        found: &mut Vec<PartitionRecovery>,
    ) -> Result<StateLog<S>> {
        // Both were begun long ago, by the broker that writes. One that begins anew meanwhile has
        // nothing to show.
        let evidence = Evidence { had_snapshot: true, had_records: log.1 == LOCAL.1, anew_at: 0 };
        let expected = ExpectedLog { is_new: false, evidence, reaches: 0 };
        let fault = |opened: &Result<_>| opened.as_ref().err().map(|error| format!("{error:?}"));
        let look = |_| {
            found.clear();
            self.logs.open_one(log, expected, found)
        };
        settled(look, fault)
    }
}
