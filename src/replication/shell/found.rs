//! What a run finds in its directory: its notes and its logs, in the form of the state machine.
//!
//! Functions over the engine. Must not know: roles, messages.

use super::super::history::EpochRange;
use super::super::log_key::LogKey;
use super::super::logs::{Logs, MetaChange, Restored};
use super::super::membership::{DirectoryId, MemberRun};
use super::super::notes::{Notes, Promise};
use super::super::session;
use super::Catalog;
use super::stored::{self, Opening};
use crate::broker::Broker;
use crate::broker::internal_logs::LOCAL;
use crate::broker::local::{ReplicaNote, Standing};
use crate::broker::member_notes::MemberNotes;
use crate::error::{Error, Result};
use crate::log::open::PartitionRecovery;
use crate::partition::PartitionCore;
use crate::partition::replica::{Fed, Replica};
use crate::record::{LeaderEpoch, NodeId};

/// How many bytes of `__meta` are read at a time.
const META_READ_BYTES: usize = 1 << 20;

/// The notes, once the run is noted.
pub(super) fn notes<C: Catalog>(
    (broker, catalog): (&Broker, &C),
    node: NodeId,
    logs: &Logs,
    (draw, random): (impl FnOnce() -> u128, u32),
) -> Result<Notes> {
    let noted = MemberNotes::of(broker.run().logs());
    let member = noted.begin(draw, |before| session::after(before, random))?;
    let now = Opening::of(broker);
    // The files of a topic whose deletion is certain may have been removed.
    let mut there = logs.with_deleted().filter(|(key, _)| catalog.partition(*key).is_some());
    let lacks = there.any(|(key, log)| noted.lacks(stored::log(key), log.end()));
    let is_first = session::number(member.session) == 1;
    let before = match &member.standing {
        Some(Standing::Whole { boot }) => boot.as_deref().and_then(Opening::noted),
        _ => None,
    };
    // Without a loss of power, whole batches after one that is not are no torn tail: that was damaged,
    // and what was cut off with it may have been confirmed.
    let is_cut = |report: &PartitionRecovery| report.cuts_batches && *report.topic != *LOCAL.0;
    let is_same_boot = before.as_ref().is_some_and(|before| before.boot == now.boot);
    let is_damaged = is_same_boot && broker.recovery().partitions.iter().any(is_cut);
    let was_whole = match &member.standing {
        None => is_first,
        Some(Standing::Incomplete) => false,
        Some(Standing::Whole { .. }) => {
            let all_synced = logs.with_deleted().all(|(_, log)| log.counts_synced);
            // A clean end says only of the run before this one that nothing of it is missing.
            let ended_well = |before: &Opening| {
                before.number.checked_add(1) == Some(now.number) && broker.recovery().clean_shutdown
            };
            let is_whole = |before: Opening| before.boot == now.boot || ended_well(&before);
            all_synced || before.is_some_and(is_whole)
        }
    };
    let is_whole = was_whole && !lacks && !is_damaged && logs.is_whole();
    let standing =
        if is_whole { ReplicaNote::Whole { boot: now.note() } } else { ReplicaNote::Incomplete };
    noted.note(vec![standing])?;
    let directory = DirectoryId(member.directory);
    let me = MemberRun { node, directory, session: member.session };
    let promise = member.promise.map(|promise| Promise {
        epoch: LeaderEpoch(promise.epoch),
        candidate: stored::run_of(promise.candidate),
    });
    let adopted = logs.with_deleted().map(|(key, _)| key);
    let adopted = adopted.filter(|key| noted.has_epoch(stored::log(*key)));
    let adopted = adopted.map(|key| (key, LeaderEpoch(noted.adopted(stored::log(key)))));
    let seen = noted.all_seen().into_iter();
    let seen = seen.map(|(directory, session)| (DirectoryId(directory), session));
    let founds = member.founder.is_some_and(|group| group != 0);
    let adopted = adopted.collect::<Vec<_>>();
    Ok(Notes::found(me, promise, adopted, seen, !is_whole).founding(founds))
}

/// All logs, as the engine has them.
pub(super) fn logs<C: Catalog>(catalog: &C) -> Result<Logs> {
    let mut logs = Logs::new(catalog.counts_synced());
    if let Some((_, core)) = catalog.partition(LogKey::Meta) {
        let restored = log(&core)?;
        let changes =
            if restored.damaged { Vec::new() } else { changes(catalog, &core, core.log_start())? };
        logs.restore(LogKey::Meta, &restored);
        logs.restore_changes(catalog.lacks_below(), &changes);
    }
    let others: Vec<LogKey> = logs.with_deleted().map(|(key, _)| key).collect();
    for key in others.into_iter().filter(|key| *key != LogKey::Meta) {
        if let Some((_, core)) = catalog.partition(key) {
            logs.restore(key, &log(&core)?);
        }
    }
    Ok(logs)
}

/// A log, as the engine has it.
pub(super) fn log(core: &PartitionCore) -> Result<Restored> {
    let (start, end) = (core.log_start(), core.log_end());
    let replica = Replica::of(core);
    let below = replica.epoch_before(start);
    let (below, ranges) = match below.and_then(|below| Ok((below, ranges(replica, start, end)?))) {
        Ok(found) => found,
        Err(Error::Corrupt(_)) => {
            let (synced, damaged) = (start, true);
            return Ok(Restored { start, synced, damaged, end, ..Restored::default() });
        }
        Err(error) => return Err(error),
    };
    let below = LeaderEpoch(below.unwrap_or_default());
    // The epochs of what lies between are not known if its batches are not found.
    let found_end = ranges.iter().fold(start, |end, range| end.saturating_add(range.records));
    Ok(Restored {
        start,
        below,
        ranges,
        synced: core.durable_end(),
        damaged: found_end != end,
        end,
    })
}

/// The epochs of the records from `start` to `end`.
fn ranges(replica: Replica<'_>, start: u64, end: u64) -> Result<Vec<EpochRange>> {
    let mut ends = Vec::new();
    let mut last = replica.last()?;
    while let Some(found) = last.filter(|found| found.end_offset > start) {
        ends.push(found);
        last = match found.epoch.checked_sub(1) {
            Some(before) => replica.end_of(before)?,
            None => None,
        };
    }
    let (mut ranges, mut from) = (Vec::new(), start);
    for found in ends.iter().rev() {
        let records = found.end_offset.min(end).saturating_sub(from);
        ranges.push(EpochRange { epoch: LeaderEpoch(found.epoch), records });
        from = from.saturating_add(records);
    }
    Ok(ranges)
}

/// What the records of `__meta` from `from` on change.
pub(super) fn changes<C: Catalog>(
    catalog: &C,
    core: &PartitionCore,
    from: u64,
) -> Result<Vec<(u64, MetaChange)>> {
    let (mut next, mut all) = (from, Vec::new());
    while let Fed::Batches(portions) = Replica::of(core).read(next, META_READ_BYTES)? {
        let Some(last) = portions.last() else { break };
        next = last.offsets.end;
        for portion in &portions {
            all.extend(catalog.changes(portion.bytes()).into_iter().filter(|(at, _)| *at >= from));
        }
    }
    Ok(all)
}
