//! The internal logs: what the broker keeps for itself, and how it is read again at an opening.
//!
//! Of logs that exist, all three are read, and what they say is checked, before anything on the disk
//! is changed.

use std::sync::Arc;

use super::catalog::CatalogState;
use super::engine::writer_for;
use super::local::{LocalChange, LocalState};
use super::open::{Opening, has_segments, make_dir, missing};
use super::topics::sync_dir;
use super::workers::Workers;
use crate::error::Result;
use crate::format::{NUMBERED_CHANGES, TopicId, partition_dir_name};
use crate::group::offsets::OffsetsState;
use crate::log::inventory::check_no_link;
use crate::log::open::{Known, PartitionRecovery};
use crate::log::{Log, LogIdentity, LogOptions};
use crate::partition::PartitionCore;
use crate::partition::lineage::Lineage;
use crate::partition::state_log::{Evidence, LoggedState, STATE_SEGMENT_BYTES, StateLog};
use crate::record::TopicPartition;
use crate::rules::Rule;

/// The internal topics. Their ids are fixed: what they hold is found before any catalog is.
pub(crate) const LOCAL: (&str, TopicId) = ("__local", TopicId(*b"logpond  __local"));
pub(crate) const OFFSETS: (&str, TopicId) = ("__offsets", TopicId(*b"logpond__offsets"));
pub(crate) const META: (&str, TopicId) = ("__meta", TopicId(*b"logpond   __meta"));

/// What the engine itself keeps in the directory of a broker.
pub(crate) const INTERNAL_NAMES: [&str; 4] = [LOCAL.0, OFFSETS.0, META.0, "LOCK"];

/// What is known of an internal log before it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct InternalLog {
    /// Whether the directory is new, so that the log has yet to be made.
    pub(super) is_new: bool,
    pub(super) evidence: Evidence,
    /// An end that it had on stable storage.
    pub(super) reaches: u64,
}

/// The internal logs, and what they say of the last run.
pub(super) struct InternalLogs {
    pub(super) local: StateLog<LocalState>,
    pub(super) offsets: StateLog<OffsetsState>,
    pub(super) catalog: StateLog<CatalogState>,
    /// Whether the last run ended with a close that reached its end.
    pub(super) was_closed: bool,
    /// Whether the machine was not restarted since.
    pub(super) same_boot: bool,
}

impl Opening {
    /// What the broker knew when it was last open, and that it is open again.
    pub(super) fn internal_logs(
        &self,
        is_new: bool,
        workers: &Arc<Workers>,
        report: &mut Vec<PartitionRecovery>,
    ) -> Result<InternalLogs> {
        // It was begun before the first segment of the catalog was made.
        let evidence = Evidence { had_snapshot: !is_new, had_records: !is_new };
        let own = InternalLog { is_new, evidence, reaches: 0 };
        let local: StateLog<LocalState> = self.internal_log(LOCAL, own, workers, report)?;
        let boot = self.env.disk.boot_id().map(Arc::from);
        let (was_closed, same_boot) = last_run(&local, boot.as_ref(), report);
        let opens = local.read(|local| local.opens().saturating_add(1));
        (self.reseed)(opens);
        let is_initialised = local.read(LocalState::is_initialised);
        if is_new && is_initialised {
            return Err(missing(META.0, &self.settings.dir.join(META.0)).into());
        }
        let own = |id: TopicId| {
            let reaches = local.read(|local| local.synced.get(&id).copied().unwrap_or(0));
            let evidence = Evidence { had_snapshot: is_initialised, had_records: false };
            InternalLog { is_new, evidence, reaches }
        };
        let mut shared_logs = || self.shared_logs(own, workers, report);
        // What cannot be believed is found before anything is written or removed.
        let found = (!is_new).then(&mut shared_logs).transpose()?;
        if !self.settings.read_only {
            local.start(vec![LocalChange::Opened { boot, opens }])?;
        }
        let (offsets, catalog) = found.map_or_else(shared_logs, Ok)?;
        if !self.settings.read_only {
            offsets.start(Vec::new())?;
            catalog.start(Vec::new())?;
            let offsets_end = offsets.partition().durable_end();
            let ends = [(OFFSETS.1, offsets_end), (META.1, catalog.partition().durable_end())];
            let mut news = local.read(|local| local.news_of(&ends));
            news.extend((!is_initialised).then_some(LocalChange::Initialised));
            local.append_durably(news)?;
        }
        Ok(InternalLogs { local, offsets, catalog, was_closed, same_boot })
    }

    /// The logs that are not of this machine only.
    fn shared_logs(
        &self,
        own: impl Fn(TopicId) -> InternalLog,
        workers: &Arc<Workers>,
        report: &mut Vec<PartitionRecovery>,
    ) -> Result<(StateLog<OffsetsState>, StateLog<CatalogState>)> {
        let offsets = self.internal_log(OFFSETS, own(OFFSETS.1), workers, report)?;
        Ok((offsets, self.internal_log(META, own(META.1), workers, report)?))
    }

    /// An internal log, made when the directory is new.
    pub(super) fn internal_log<S: LoggedState>(
        &self,
        (name, topic_id): (&str, TopicId),
        InternalLog { is_new, evidence, reaches }: InternalLog,
        workers: &Arc<Workers>,
        report: &mut Vec<PartitionRecovery>,
    ) -> Result<StateLog<S>> {
        let disk = &self.env.disk;
        let topic_dir = self.settings.dir.join(name);
        let dir = topic_dir.join(partition_dir_name(0));
        let origin = Arc::new(TopicPartition::from((name, 0)));
        let identity = LogIdentity { origin: Arc::clone(&origin), topic_id, dir: dir.clone() };
        let durability = self.settings.durability;
        let writer = writer_for(&self.settings, &self.env, durability);
        let options = LogOptions {
            segment_bytes: STATE_SEGMENT_BYTES,
            writer,
            // Commits and deletions go on when the budget is used up.
            has_budget: false,
            features: NUMBERED_CHANGES,
        };
        if is_new && !self.settings.read_only {
            // DURABILITY: from the top down; also names that were found, since whoever made them
            // may have died before they were durable.
            make_dir(&**disk, &topic_dir)?;
            Rule::InternalDirName.keep(|| sync_dir(&**disk, &self.settings.dir))?;
            make_dir(&**disk, &dir)?;
            Rule::InternalDirName.keep(|| sync_dir(&**disk, &topic_dir))?;
            check_no_link(&**disk, &topic_dir)?;
            check_no_link(&**disk, &dir)?;
            Rule::FoundNames.keep(|| sync_dir(&**disk, &dir))?;
        }
        let mut damage = Vec::new();
        let mut log = if is_new && !has_segments(&**disk, &dir)? {
            if self.settings.read_only {
                return Err(missing(name, &dir).into());
            }
            Log::create(&self.env, identity, options)?
        } else {
            let known = Known {
                checkpoint: None,
                clean: false,
                // Whether the machine was restarted is what one of these logs says, so none of
                // them is believed to be on the disk before it is synced again.
                same_boot: true,
                policy: self.settings.recovery,
                read_only: self.settings.read_only,
                needs_all: true,
                log_start: None,
                proved: reaches,
                now: u64::MAX,
            };
            let (log, recovery) = Log::open(&self.env, identity, options, &known)?;
            damage.clone_from(&recovery.corrupt);
            report.push(recovery);
            log
        };
        if self.settings.has_reserve {
            log.keep_reserve(STATE_SEGMENT_BYTES);
            log.fill_reserve(false)?;
        }
        let background = Arc::clone(workers);
        let clock = self.clock.clone();
        let partition =
            PartitionCore::new(log, Lineage::default(), origin, durability, clock, background);
        StateLog::open(partition, Arc::clone(disk), evidence, &damage)
    }
}

/// Whether the last run ended with a clean close, and whether the machine was not restarted since.
pub(super) fn last_run(
    local: &StateLog<LocalState>,
    boot: Option<&Arc<str>>,
    report: &[PartitionRecovery],
) -> (bool, bool) {
    // Nothing proves where this log ended. What was cut off may be the record of a later run.
    let is_cut = report.iter().any(|found| found.cut_bytes > 0);
    local.read(|local| {
        // Where boots cannot be told apart, this may be the same one.
        let same_boot = boot.is_none() || local.boot() == boot || is_cut;
        (local.is_closed() && !is_cut, same_boot)
    })
}
