//! The internal logs of a damaged directory, as far as they can be read.

use std::path::Path;
use std::sync::Arc;

use crate::broker::catalog::CatalogState;
use crate::broker::internal_logs::{LOCAL, META, OFFSETS};
use crate::broker::local::LocalState;
use crate::error::{Corruption, CorruptionKind, Result};
use crate::format::{TopicId, partition_dir_name};
use crate::group::offsets::OffsetsState;
use crate::log::LogIdentity;
use crate::log::salvage::{DamagedLog, RecordedEnds};
use crate::partition::state_log::{Evidence, LoggedState, Replay};
use crate::record::TopicPartition;
use crate::storage::disk::Disk;

/// What the engine knew.
pub(super) struct State {
    pub(super) catalog: CatalogState,
    pub(super) catalog_is_whole: bool,
    pub(super) local: LocalState,
    pub(super) local_is_whole: bool,
    pub(super) offsets: OffsetsState,
    pub(super) damage: Vec<Corruption>,
}

impl State {
    /// # Errors
    ///
    /// `Error::Io` if an existing file cannot be read; `Error::UnsupportedVersion`.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let mut damage = Vec::new();
        // Nothing proves its own end; but without anything it never was.
        let begun = Evidence { had_snapshot: true, had_records: true, anew_at: 0 };
        let of_local = Proof { proved: 0, evidence: begun };
        let (local, local_is_whole): (LocalState, _) =
            replay(disk, dir, LOCAL, of_local, &mut damage)?;
        // As at an opening.
        let proof = |id| Proof {
            proved: local.synced.get(&id).copied().unwrap_or(0),
            evidence: Evidence {
                had_snapshot: local.is_initialised(),
                had_records: false,
                anew_at: 0,
            },
        };
        let (catalog, catalog_is_whole) = replay(disk, dir, META, proof(META.1), &mut damage)?;
        let (offsets, _) = replay(disk, dir, OFFSETS, proof(OFFSETS.1), &mut damage)?;
        Ok(Self { catalog, catalog_is_whole, local, local_is_whole, offsets, damage })
    }

    /// What is known of a partition.
    pub(super) fn recorded(&self, topic: TopicId, partition: u32) -> RecordedEnds {
        let key = (topic, partition);
        let is_closed = self.local.is_closed() && self.local_is_whole;
        // Nothing was ever removed without a word here, of which none is missing.
        let first = self.local_is_whole.then_some(0);
        let log_start = self.local.log_starts.get(&key).copied().max(first);
        RecordedEnds::of(self.local.points.get(&key), log_start, is_closed)
    }
}

fn identity(dir: &Path, (name, topic_id): (&str, TopicId)) -> LogIdentity {
    let origin = Arc::new(TopicPartition::from((name, 0)));
    let dir = dir.join(name).join(partition_dir_name(0));
    LogIdentity { origin, topic_id, dir }
}

fn refused(log: &LogIdentity, offset: u64, kind: CorruptionKind) -> Corruption {
    Corruption {
        partition: Some(TopicPartition::clone(&log.origin)),
        file: log.dir.clone(),
        position: 0,
        offsets: Some(offset..offset.saturating_add(1)),
        kind,
    }
}

/// What is known of an internal log beside its files.
#[derive(Clone, Copy)]
struct Proof {
    /// It reached this offset, durably.
    proved: u64,
    evidence: Evidence,
}

/// The state that the whole records of a log add up to, and whether none is missing, as far as
/// anything tells.
fn replay<S: LoggedState>(
    disk: &dyn Disk,
    dir: &Path,
    log: (&str, TopicId),
    Proof { proved, evidence }: Proof,
    damage: &mut Vec<Corruption>,
) -> Result<(S, bool)> {
    let identity = identity(dir, log);
    let recorded = RecordedEnds { proved, ..RecordedEnds::default() };
    let mut damaged = DamagedLog::read(disk, &identity, &recorded)?;
    let mut found = std::mem::take(&mut damaged.damage);
    let mut read: Records<S> = Records::read(&damaged, &identity, 0)?;
    let needed = read.replay.start();
    let is_below =
        |damage: &Corruption| damage.offsets.as_ref().is_none_or(|offsets| offsets.start < needed);
    if found.iter().chain(&read.refused).any(is_below) {
        // As at an opening: if some records below the last trim are lost, none of them counts. The
        // record that removed an entry may be lost while the one that defined it exists.
        read = Records::read(&damaged, &identity, needed)?;
    }
    let Records { replay, first, refused: mut unusable } = read;
    found.append(&mut unusable);
    found.retain(|damage| damage.offsets.as_ref().is_none_or(|it| it.end > needed));
    if let Some(first) = first.filter(|first| *first > needed && found.is_empty()) {
        let mut missing = refused(&identity, needed, CorruptionKind::Missing);
        missing.offsets = Some(needed..first);
        found.push(missing);
    }
    if found.is_empty() {
        let kind = CorruptionKind::Length("the file");
        let shortened = |file| Corruption { file, ..refused(&identity, 0, kind.clone()) };
        found.extend(damaged.shortened()?.into_iter().map(shortened));
    }
    let had_records = evidence.had_records || (evidence.had_snapshot && !damaged.has_numbers());
    if first.is_none() && had_records && found.is_empty() {
        found.push(refused(&identity, 0, CorruptionKind::Malformed("the first record")));
    }
    let is_whole = found.is_empty();
    damage.append(&mut found);
    Ok((replay.state, is_whole))
}

/// The whole records of a log from an offset on.
struct Records<S> {
    replay: Replay<S>,
    /// The first offset that the log has, from wherever it is read.
    first: Option<u64>,
    /// Records that a state cannot have.
    refused: Vec<Corruption>,
}

impl<S: LoggedState> Records<S> {
    fn read(damaged: &DamagedLog, identity: &LogIdentity, from: u64) -> Result<Self> {
        let (mut replay, mut first, mut unusable) = (Replay::default(), None, Vec::new());
        damaged.for_each_batch(|view| {
            first.get_or_insert(view.header().base_offset);
            for record in view.records().filter(|record| record.offset >= from) {
                if let Err(kind) = replay.apply(record.offset, 0, record.key, record.value) {
                    unusable.push(refused(identity, record.offset, kind));
                }
            }
            Ok(())
        })?;
        Ok(Self { replay, first, refused: unusable })
    }
}
