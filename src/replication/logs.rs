//! `Logs`: what a member knows of its logs.
//!
//! Owns: for each log its epochs, how far it is synced, and the high watermark of this run; and what
//! the records of `__meta` say: which logs exist, and who the members are. It mirrors the engine,
//! which carries the changes out. Must not know: roles, messages, the bytes of records.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;
use std::ops::Bound;

use super::history::{EpochRange, History};
use super::log_key::LogKey;
use super::membership::{GroupId, Membership, Memberships};
use super::notes::Notes;
use super::rule::Rule;
use super::strict::Strict;
use crate::record::LeaderEpoch;

/// What a record of `__meta` changes for replication. The shell finds these in the record's bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum MetaChange {
    Members(Membership),
    /// Only logs of partitions are created and deleted. A copy of the record says the same.
    Created {
        log: LogKey,
        counts_synced: bool,
        /// That in which the log was created; zero for one that is older than the group.
        epoch: LeaderEpoch,
    },
    Deleted(LogKey),
    /// From here on `__meta` has everything that is in force, of the records below this offset too.
    Trimmed(u64),
}

/// The record of `__meta` that created a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Creation {
    pub(crate) offset: u64,
    /// A log is empty when the epoch of its creation begins, so every copy of it has adopted that.
    pub(crate) epoch: LeaderEpoch,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Log {
    pub(crate) history: History,
    /// All below is on stable storage.
    pub(crate) synced: u64,
    /// In one run it never falls. Zero when the run begins.
    pub(crate) watermark: u64,
    /// Its creation in `__meta`; `None` for the logs that always exist.
    pub(crate) created: Option<Creation>,
    /// Only synced copies of its records count.
    pub(crate) counts_synced: bool,
    /// Some of its records cannot be read.
    pub(crate) damaged: bool,
    /// How far it reached when it was found damaged: what this member has confirmed lies below.
    pub(crate) had: u64,
    /// It is known from records of `__meta` that were dropped when that began anew, and from none
    /// since.
    pub(crate) is_of_before: bool,
    /// What producers wait for that are stricter than the topic: in the epoch that this member leads, or
    /// as its leader has said.
    pub(crate) strict: Strict,
}

impl Log {
    pub(crate) fn end(&self) -> u64 {
        self.history.end()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Logs {
    of: BTreeMap<LogKey, Log>,
    memberships: Memberships,
    /// The logs that records of `__meta` delete, by the offsets of these records, until these are
    /// below the high watermark: before that, the deletion may be removed again.
    deleted: Vec<(u64, LogKey, Log)>,
    /// Where `__meta` began anew; zero if it never did.
    anew_at: u64,
    /// The greatest offset that a trim of `__meta` names.
    trimmed: u64,
}

/// A log as a run finds it.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) start: u64,
    /// The epoch of the record below the start, if it is known.
    pub(crate) below: LeaderEpoch,
    /// From the start on.
    pub(crate) ranges: Vec<EpochRange>,
    pub(crate) synced: u64,
    /// Of a damaged log the epochs are not known.
    pub(crate) damaged: bool,
    /// Its end, also if it is damaged.
    pub(crate) end: u64,
}

impl Default for Logs {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Logs {
    /// `__meta` and `__offsets`, empty. `counts_synced`: only synced copies of them count.
    pub(crate) fn new(counts_synced: bool) -> Self {
        let log = || Log { counts_synced, ..Log::default() };
        let logs = [LogKey::Meta, LogKey::Offsets].map(|key| (key, log()));
        let memberships = Memberships::default();
        Self { of: logs.into(), memberships, deleted: Vec::new(), anew_at: 0, trimmed: 0 }
    }

    /// Puts in what a run has found of a log.
    pub(crate) fn restore(&mut self, key: LogKey, found: &Restored) {
        let deleted = self.deleted.iter_mut().filter(|(_, other, _)| *other == key);
        for log in deleted.map(|(.., log)| log).chain(self.of.get_mut(&key)) {
            log.history.begin_anew(found.start, found.below);
            let are_in_order = found.ranges.iter().all(|range| log.history.push(*range));
            log.synced = found.synced.min(log.end());
            log.damaged = found.damaged || !are_in_order;
            log.had = found.end;
        }
    }

    /// Puts in what the records of `__meta` change, by their offsets. `anew_at`: where that log began
    /// anew; zero if it never did.
    pub(crate) fn restore_changes(&mut self, anew_at: u64, changes: &[(u64, MetaChange)]) {
        self.anew_at = anew_at;
        for (offset, change) in changes {
            self.change(*offset, change);
        }
    }

    /// With these logs alone, for worlds that are small enough to be explored.
    #[cfg(test)]
    pub(crate) fn only(keys: &[LogKey], counts_synced: bool) -> Self {
        let log = Log { counts_synced, ..Log::default() };
        let logs = keys.iter().map(|key| (*key, log.clone())).collect();
        Self { of: logs, ..Self::default() }
    }

    pub(crate) fn get(&self, key: LogKey) -> Option<&Log> {
        self.of.get(&key)
    }

    /// The logs in their order, from the one after `after` on.
    pub(crate) fn keys_after(&self, after: Option<LogKey>) -> impl Iterator<Item = LogKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.of.range((from, Bound::Unbounded)).map(|(key, _)| *key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LogKey, &Log)> {
        self.of.iter().map(|(key, log)| (*key, log))
    }

    /// A log, also one whose deletion is not certain.
    pub(crate) fn find(&self, key: LogKey) -> Option<&Log> {
        let deleted = || self.deleted.iter().find(|(_, other, _)| *other == key);
        self.get(key).or_else(|| deleted().map(|(.., log)| log))
    }

    fn find_mut(&mut self, key: LogKey) -> Option<&mut Log> {
        let deleted = self.deleted.iter_mut().filter(|(_, other, _)| *other == key);
        self.of.get_mut(&key).or_else(|| deleted.map(|(.., log)| log).next())
    }

    /// The greatest epoch that a log has adopted.
    pub(crate) fn adopted(&self, key: LogKey, notes: &Notes) -> LeaderEpoch {
        let log = self.find(key);
        let created = log.and_then(|log| log.created);
        notes.adopted(key).max(created.map_or(LeaderEpoch::default(), |created| created.epoch))
    }

    /// How far a log is synced; not at all while its creation is not.
    pub(crate) fn synced_end(&self, key: LogKey) -> u64 {
        let meta = self.get(LogKey::Meta).map_or(0, |meta| meta.synced);
        let exists = |log: &&Log| log.created.is_none_or(|created| created.offset < meta);
        self.get(key)
            .filter(|log| exists(log) || !Rule::CreationSynced.holds())
            .map_or(0, |log| log.synced)
    }

    /// The end of what counts of a log.
    pub(crate) fn held(&self, key: LogKey) -> u64 {
        let log = self.get(key);
        log.map_or(0, |log| if log.counts_synced { self.synced_end(key) } else { log.end() })
    }

    /// A deletion may be removed again, so the log is still needed.
    pub(crate) fn has_deleted(&self) -> bool {
        !self.deleted.is_empty()
    }

    pub(crate) fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    pub(crate) fn membership(&self) -> Option<&Membership> {
        self.memberships.newest()
    }

    /// The group that the member belongs to, as far as it knows.
    pub(crate) fn group(&self) -> Option<GroupId> {
        self.membership().map(Membership::group)
    }

    /// Those of which a majority is needed now.
    pub(crate) fn needed(&self) -> &[(u64, Membership)] {
        self.memberships.needed(self.get(LogKey::Meta).map_or(0, |meta| meta.watermark))
    }

    /// Whether `__meta` has everything that is in force. If not, because it has begun anew, some logs may
    /// not be known.
    pub(crate) fn is_whole(&self) -> bool {
        self.trimmed >= self.anew_at
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.of.values().any(|log| log.damaged)
    }

    /// Appends records to a log, and for `__meta` what they change. False changes nothing.
    #[must_use]
    pub(crate) fn append(
        &mut self,
        key: LogKey,
        ranges: &[EpochRange],
        changes: &[(u64, MetaChange)],
    ) -> bool {
        let Some(log) = self.find_mut(key) else { return false };
        let mut history = log.history.clone();
        if !ranges.iter().all(|range| history.push(*range)) {
            return false;
        }
        let last_epoch = history.last_epoch();
        let are_possible = changes.iter().all(|(offset, change)| match change {
            MetaChange::Members(_) => true,
            MetaChange::Trimmed(start) => start <= offset,
            MetaChange::Created { log, epoch, .. } => is_partition(*log) && *epoch <= last_epoch,
            MetaChange::Deleted(log) => is_partition(*log),
        });
        if !are_possible {
            return false;
        }
        if let Some(log) = self.find_mut(key) {
            log.history = history;
        }
        for (offset, change) in changes {
            self.change(*offset, change);
        }
        true
    }

    fn change(&mut self, offset: u64, change: &MetaChange) {
        match change {
            MetaChange::Members(membership) => self.memberships.push(offset, membership.clone()),
            MetaChange::Created { log: key, counts_synced, epoch } => {
                let created = Some(Creation { offset, epoch: *epoch });
                let log = Log { created, counts_synced: *counts_synced, ..Log::default() };
                self.of.entry(*key).or_insert(log).is_of_before = false;
            }
            MetaChange::Trimmed(start) => {
                self.trimmed = self.trimmed.max(*start);
                if self.is_whole() {
                    // What no record names any more was deleted, or never was certain.
                    self.of.retain(|_, log| !log.is_of_before);
                }
            }
            MetaChange::Deleted(key) => {
                if let Some(log) = self.of.remove(key) {
                    self.deleted.push((offset, *key, log));
                }
            }
        }
    }

    /// `__meta` begins anew at `start`: what its records said below may not be what others have there.
    /// The logs are kept until it has everything that is in force; and the newest membership until
    /// it has one.
    pub(crate) fn begin_meta_anew(&mut self, start: u64) {
        self.of.extend(self.deleted.drain(..).map(|(_, key, log)| (key, log)));
        for log in self.of.values_mut().filter(|log| log.created.is_some()) {
            log.is_of_before = true;
        }
        (self.anew_at, self.trimmed) = (start, 0);
    }

    /// Removes the records of a log from `offset` on. Returns the logs that no longer exist, because
    /// the record of `__meta` that created them is removed.
    pub(crate) fn truncate(&mut self, key: LogKey, offset: u64) -> Vec<LogKey> {
        let deleted = self.deleted.iter_mut().filter(|(_, other, _)| *other == key);
        for log in deleted.map(|(.., log)| log).chain(self.of.get_mut(&key)) {
            log.history.truncate(offset);
            log.synced = log.synced.min(offset);
        }
        if key != LogKey::Meta {
            return Vec::new();
        }
        self.memberships.truncate(offset);
        while let Some((_, key, log)) = self.deleted.pop_if(|(at, ..)| *at >= offset) {
            self.of.insert(key, log);
        }
        let is_removed = |log: &Log| log.created.is_some_and(|created| created.offset >= offset);
        let removed =
            self.of.iter().filter(|(_, log)| is_removed(log)).map(|(key, _)| *key).collect();
        self.of.retain(|_, log| !is_removed(log));
        removed
    }

    pub(crate) fn get_mut(&mut self, key: LogKey) -> Option<&mut Log> {
        self.of.get_mut(&key)
    }

    /// All logs whose records may still be needed: also those whose deletion is not certain.
    pub(crate) fn with_deleted(&self) -> impl Iterator<Item = (LogKey, &Log)> {
        self.iter().chain(self.deleted.iter().map(|(_, key, log)| (*key, log)))
    }

    /// Raises the high watermark of a log. Returns whether it rose.
    pub(crate) fn raise_watermark(&mut self, key: LogKey, watermark: u64) -> bool {
        let Some(log) = self.of.get_mut(&key).filter(|log| log.watermark < watermark) else {
            return false;
        };
        log.watermark = watermark;
        if key == LogKey::Meta {
            self.deleted.retain(|(at, ..)| *at >= watermark);
        }
        true
    }

    /// A log is synced up to `offset`.
    pub(crate) fn synced(&mut self, key: LogKey, offset: u64) {
        if let Some(log) = self.of.get_mut(&key) {
            log.synced = log.synced.max(offset.min(log.end()));
        }
    }

    /// A run begins: of high watermarks it knows that they are not below the log starts.
    pub(crate) fn restart(&mut self) {
        for log in self.of.values_mut().chain(self.deleted.iter_mut().map(|(.., log)| log)) {
            log.watermark = log.history.start();
        }
    }

    /// As of [`restart`](Self::restart), for one log.
    pub(crate) fn restart_one(&mut self, key: LogKey) {
        if let Some(log) = self.of.get_mut(&key) {
            log.watermark = log.history.start();
        }
    }
}

fn is_partition(log: LogKey) -> bool {
    matches!(log, LogKey::Partition { .. })
}
