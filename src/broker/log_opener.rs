//! Creates the internal logs, or reads them again, at an opening.
//!
//! If they exist, all three are read and their contents checked before anything on the disk is
//! changed. Must not know: the topics.

use std::sync::Arc;

use super::catalog::CatalogState;
use super::context::Context;
use super::directories::{has_segments, make_dir, missing, sync_dir};
use super::internal_logs::{LOCAL, META, OFFSETS};
use super::last_run::{how_it_ended, lost_notes};
use super::local::{LocalChange, LocalState};
use super::workers::Workers;
use crate::config::RecoveryPolicy;
use crate::error::{Error, Result};
use crate::format::{NUMBERED_CHANGES, TopicId, partition_dir_name};
use crate::group::offsets::OffsetsState;
use crate::log::inventory::check_no_link;
use crate::log::open::{Known, PartitionRecovery, open_log};
use crate::log::{Log, LogIdentity, LogOptions};
use crate::partition::PartitionCore;
use crate::partition::lead::Lead;
use crate::partition::lineage::Lineage;
#[cfg(feature = "replication")]
use crate::partition::state_log::replicated::ReplicatedState;
use crate::partition::state_log::{Evidence, LoggedState, STATE_SEGMENT_BYTES, StateLog};
use crate::record::TopicPartition;
use crate::rules::Rule;

/// What is known of an internal log before it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedLog {
    /// Whether the directory is new, so that the log has yet to be made.
    pub(super) is_new: bool,
    pub(super) evidence: Evidence,
    /// An end that it had on stable storage.
    pub(super) reaches: u64,
}

/// The internal logs that were found or created, and the state of the last run.
pub(super) struct FoundLogs {
    pub(super) local: StateLog<LocalState>,
    pub(super) offsets: StateLog<OffsetsState>,
    pub(super) catalog: StateLog<CatalogState>,
    /// Whether the last run ended with a close that reached its end.
    pub(super) was_closed: bool,
    /// Whether the machine was not restarted since.
    pub(super) same_boot: bool,
}

/// Opens the internal logs of a directory.
pub(super) struct LogOpener {
    context: Arc<Context>,
    /// Served by the partitions that are opened.
    workers: Arc<Workers>,
}

impl LogOpener {
    pub(super) fn new(context: &Arc<Context>, workers: &Arc<Workers>) -> Self {
        Self { context: Arc::clone(context), workers: Arc::clone(workers) }
    }

    /// Opens all internal logs, and records that the broker is open.
    pub(super) fn open_all(
        &self,
        is_new: bool,
        reseed: impl Fn(u64),
        report: &mut Vec<PartitionRecovery>,
    ) -> Result<FoundLogs> {
        // It was created before the first segment of the catalog.
        let evidence = Evidence { had_snapshot: !is_new, had_records: !is_new, anew_at: 0 };
        let expected = ExpectedLog { is_new, evidence, reaches: 0 };
        let local: StateLog<LocalState> = self.open_one(LOCAL, expected, report)?;
        let boot = self.context.env.disk.boot_id().map(Arc::from);
        let (was_closed, same_boot) = how_it_ended(&local, boot.as_ref(), report);
        let lost_notes = lost_notes(&local, report);
        let opens = local.read(|local| local.opens().saturating_add(1));
        reseed(opens);
        // DURABILITY: an opening that came this far has made the names durable of all that was there,
        // before it recorded that. Every later file has its name durably before anything is in it.
        let is_initialised = local.read(LocalState::is_initialised);
        if is_new && is_initialised {
            return Err(missing(META.0, &self.context.settings.dir.join(META.0)).into());
        }
        let expected = |id: TopicId| {
            let reaches = local.read(|local| local.synced.get(&id).copied().unwrap_or(0));
            let anew_at = local.read(|local| local.log_starts.get(&(id, 0)).copied().unwrap_or(0));
            let had_snapshot = is_initialised;
            let evidence = Evidence { had_snapshot, had_records: false, anew_at };
            ExpectedLog { is_new, evidence, reaches }
        };
        let mut shared_logs = || self.shared_logs(expected, report);
        // Invalid contents are found before anything is written or removed.
        let found = (!is_new).then(&mut shared_logs).transpose()?;
        if let Some((_, catalog)) = &found {
            self.check_group(catalog)?;
        }
        if !self.context.settings.read_only {
            // In one batch: after a crash both are there or none, and then the next opening finds
            // the same again.
            let opened = LocalChange::Opened { boot, opens };
            local.start([opened].into_iter().chain(lost_notes).collect(), is_initialised)?;
        }
        let (offsets, catalog) = found.map_or_else(shared_logs, Ok)?;
        #[cfg(feature = "replication")]
        if self.context.is_member() {
            offsets.join();
            catalog.join();
        }
        if !self.context.settings.read_only {
            offsets.start(Vec::new(), is_initialised)?;
            catalog.start(Vec::new(), is_initialised)?;
            let offsets_end = offsets.partition().durable_end();
            let ends = [(OFFSETS.1, offsets_end), (META.1, catalog.partition().durable_end())];
            let mut news = local.read(|local| local.news_of(&ends));
            news.extend((!is_initialised).then_some(LocalChange::Initialised));
            local.append_durably(news)?;
        }
        Ok(FoundLogs { local, offsets, catalog, was_closed, same_boot })
    }

    /// Refuses to write to a directory of a replicated group alone: what would be written would not be
    /// in the logs of the other members.
    fn check_group(&self, catalog: &StateLog<CatalogState>) -> Result<()> {
        let settings = &self.context.settings;
        let is_of_group = catalog.read(|catalog| catalog.members().is_some());
        if !is_of_group || self.context.is_member() || settings.read_only {
            return Ok(());
        }
        let reason = "the directory belongs to a member of a replicated group: open it with \
                      replication, or with `read_only(true)`; a salvage makes a copy that belongs to \
                      no group";
        Err(Error::config("replication", reason))
    }

    /// The internal logs except `__local`.
    fn shared_logs(
        &self,
        expected: impl Fn(TopicId) -> ExpectedLog,
        report: &mut Vec<PartitionRecovery>,
    ) -> Result<(StateLog<OffsetsState>, StateLog<CatalogState>)> {
        let offsets = self.open_one(OFFSETS, expected(OFFSETS.1), report)?;
        Ok((offsets, self.open_one(META, expected(META.1), report)?))
    }

    fn internal(&self, (name, topic_id): (&str, TopicId)) -> (LogIdentity, LogOptions) {
        let dir = self.context.settings.dir.join(name).join(partition_dir_name(0));
        let identity =
            LogIdentity { origin: Arc::new(TopicPartition::from((name, 0))), topic_id, dir };
        let options = LogOptions {
            segment_bytes: STATE_SEGMENT_BYTES,
            writer: self.context.writer_for(self.context.settings.durability),
            // Commits and deletions continue when the budget is used up.
            has_budget: false,
            features: NUMBERED_CHANGES,
        };
        (identity, options)
    }

    fn known_of_internal(&self, reaches: u64) -> Known {
        Known {
            checkpoint: None,
            clean: false,
            // Only one of these logs says whether the machine was restarted. So none of them
            // counts as durable before it is synced again.
            same_boot: true,
            policy: self.context.settings.recovery,
            read_only: self.context.settings.read_only,
            needs_all: true,
            log_start: None,
            proved: reaches,
            now: u64::MAX,
        }
    }

    /// The files of an internal log to which another broker appends: an end that is not whole is no
    /// damage.
    pub(super) fn look(&self, log: (&str, TopicId)) -> Result<(Log, PartitionRecovery)> {
        let (identity, options) = self.internal(log);
        let policy = RecoveryPolicy::CutTornTail;
        let known = Known { policy, ..self.known_of_internal(0) };
        open_log(&self.context.env, identity, options, &known)
    }

    /// An internal log, made when the directory is new.
    pub(super) fn open_one<S: LoggedState>(
        &self,
        (name, topic_id): (&str, TopicId),
        ExpectedLog { is_new, evidence, reaches }: ExpectedLog,
        report: &mut Vec<PartitionRecovery>,
    ) -> Result<StateLog<S>> {
        let disk = &self.context.env.disk;
        let topic_dir = self.context.settings.dir.join(name);
        let (identity, options) = self.internal((name, topic_id));
        let (dir, durability) = (identity.dir.clone(), self.context.settings.durability);
        if is_new && !self.context.settings.read_only {
            // DURABILITY: from the top down, and also for names that exist already: the process
            // that created them may have died before they were durable.
            make_dir(&**disk, &topic_dir)?;
            Rule::InternalDirName.keep(|| sync_dir(&**disk, &self.context.settings.dir))?;
            make_dir(&**disk, &dir)?;
            Rule::InternalDirName.keep(|| sync_dir(&**disk, &topic_dir))?;
            check_no_link(&**disk, &topic_dir)?;
            check_no_link(&**disk, &dir)?;
            Rule::FoundNames.keep(|| sync_dir(&**disk, &dir))?;
        }
        let mut damage = Vec::new();
        let mut log = if is_new && !has_segments(&**disk, &dir)? {
            if self.context.settings.read_only {
                return Err(missing(name, &dir).into());
            }
            Log::create(&self.context.env, identity, options, 0)?
        } else {
            let known = self.known_of_internal(reaches);
            let (log, recovery) = open_log(&self.context.env, identity, options, &known)?;
            damage.clone_from(&recovery.corrupt);
            report.push(recovery);
            log
        };
        if self.context.settings.has_reserve {
            log.factory_mut().keep_reserve(STATE_SEGMENT_BYTES)?;
        }
        let background = Arc::clone(&self.workers);
        let clock = self.context.clock.clone();
        let lineage = Lineage::default();
        // What is true of this machine alone is not replicated.
        let lead = if topic_id == LOCAL.1 { Lead::none() } else { self.context.lead() };
        let partition =
            PartitionCore::new(log, lineage, durability, &lead, clock, background, None);
        StateLog::open(partition, Arc::clone(disk), evidence, &damage)
    }
}
