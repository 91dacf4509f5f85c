//! `Files`: what a member stores: its notes, and its logs as they are cut, begun anew and read.
//!
//! Uses the broker and the catalog, and owns nothing itself. Must not know: roles, and what a message
//! says.

use std::sync::Arc;

use bytes::Bytes;

use super::super::frame::Batches;
use super::super::log_key::LogKey;
use super::super::logs::Log;
use super::super::notes::Note;
use super::super::rule::Rule;
use super::stored::{self, Opening};
use super::{Catalog, FRAME_BYTES};
use crate::broker::Broker;
use crate::broker::local::{LocalChange, ReplicaNote};
use crate::broker::member_notes::MemberNotes;
use crate::error::{Error, Result};
use crate::format::{BatchEncoder, BatchHeader, Placement, SegmentKey, TopicId};
use crate::log::replica::refusal::Failure;
use crate::log::replica::under::Under;
use crate::partition::PartitionCore;
use crate::partition::replica::{Fed, Replica};
use crate::record::TopicPartition;

pub(in super::super) struct Files<'a, C> {
    pub(super) broker: &'a Broker,
    pub(super) catalog: &'a C,
}

impl<C> Clone for Files<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Files<'_, C> {}

impl<'a, C: Catalog> Files<'a, C> {
    pub(super) fn core(self, key: LogKey) -> Result<(TopicId, Arc<PartitionCore>), Failure> {
        let found = self.catalog.settled_partition(key);
        found.ok_or_else(|| Error::UnknownTopic(format!("{key:?}")).into())
    }

    pub(super) fn note(self, note: Note) -> Result<()> {
        let notes = match note {
            Note::Promise(promise) => vec![ReplicaNote::Promise(stored::promise(promise))],
            Note::Adopted { epoch, logs } => {
                let mut notes = Vec::new();
                for key in logs {
                    let log = stored::log(key);
                    notes.push(ReplicaNote::Adopted { log, epoch: epoch.0 });
                    if let Some((_, core)) = self.catalog.partition(key) {
                        notes.push(ReplicaNote::Synced { log, end: core.durable_end() });
                    }
                }
                notes
            }
            Note::Incomplete => vec![ReplicaNote::Incomplete],
            Note::Whole => vec![ReplicaNote::Whole { boot: Opening::of(self.broker).note() }],
            Note::Seen { directory, session } => {
                vec![ReplicaNote::Seen { directory: directory.0, session }]
            }
            Note::Founding(group) => vec![ReplicaNote::Founder { group: group.0 }],
            Note::Founded => vec![ReplicaNote::Founder { group: 0 }],
        };
        self.notes().note(notes)
    }

    /// Notes that this is another directory from the next opening on, and that it may lack
    /// anything.
    pub(super) fn disown(self) -> Result<()> {
        self.notes().note(vec![ReplicaNote::Directory(0), ReplicaNote::Incomplete])
    }

    fn notes(self) -> MemberNotes<'a> {
        MemberNotes::of(self.broker.run().logs())
    }

    /// Notes that the next run may not find all that this one has confirmed, if a sync has failed of a log
    /// whose records count before they are synced: the kernel may drop what it could not write, also if
    /// the machine keeps its power.
    pub(super) fn note_loss<'l>(self, logs: impl IntoIterator<Item = (LogKey, &'l Log)>) {
        let mut unsynced = logs.into_iter().filter(|(_, log)| !log.counts_synced);
        let may_lose = unsynced.any(|(key, _)| {
            self.catalog.partition(key).is_some_and(|(_, core)| check_syncs(&core).is_err())
        });
        // A run that has ended hears of each sync that fails later.
        if may_lose && !self.notes().is_incomplete() {
            // If this fails too, nothing can be done.
            let _ = self.note(Note::Incomplete);
        }
    }

    /// Notes a lower end before what lies above it is removed: what is removed on purpose is not lost.
    fn note_end(self, key: LogKey, end: u64) -> Result<()> {
        let log = stored::log(key);
        if self.notes().lacks(log, end) {
            self.notes().note(vec![ReplicaNote::Synced { log, end }])?;
        }
        Ok(())
    }

    pub(super) fn truncate(self, key: LogKey, to: u64) -> Result<(), Failure> {
        let (_, core) = self.core(key)?;
        self.note_end(key, to)?;
        let end = self.catalog.truncate(key, to)?;
        if end != to {
            return Err(Error::wrong_offset(&core.origin, to, end).into());
        }
        Ok(())
    }

    pub(super) fn begin_anew(self, key: LogKey, start: u64) -> Result<(), Failure> {
        let (topic, core) = self.core(key)?;
        self.note_end(key, start)?;
        if Rule::StartNoted.holds() {
            let partition = core.origin.partition;
            let change = LocalChange::LogStart { topic, partition, offset: start };
            self.broker.run().logs().local().append_durably(vec![change])?;
        }
        self.catalog.begin_anew(key, start)
    }

    /// The batches from `from` on that end at or below `end`, as far as a frame has room.
    pub(super) fn read(self, key: LogKey, from: u64, end: u64) -> Result<Vec<Batches>, Failure> {
        let (_, core) = self.core(key)?;
        let Fed::Batches(portions) = Replica::of(&core).read(from, FRAME_BYTES)? else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for portion in portions {
            let (mut first, mut kept) = (0, 0);
            while let Some(rest) = portion.bytes().get(kept..)
                && let Ok(Some(header)) = BatchHeader::parse(rest)
                && header.next_offset() <= end
            {
                kept = kept.saturating_add(header.size as usize);
                if header.base_offset < from
                    && let Some(bytes) = rest_of(&header, from, portion.under)
                {
                    all.push(Batches { under: portion.under, bytes });
                    first = kept;
                }
            }
            if kept > first {
                let under = portion.under;
                all.push(Batches { under, bytes: portion.into_bytes(kept).slice(first..) });
            }
        }
        Ok(all)
    }

    /// The partition of a log, by its name; also `__meta` and `__offsets` have one.
    pub(in super::super) fn partition_of(self, key: LogKey) -> Option<TopicPartition> {
        self.catalog.partition(key).map(|(_, core)| TopicPartition::clone(&core.origin))
    }

    /// About how many bytes so many of the last records of these logs have, by the average of each log.
    pub(in super::super) fn bytes_of(self, records: &[(LogKey, u64)]) -> u64 {
        let bytes = |(key, records): &(LogKey, u64)| {
            let Some((_, core)) = self.catalog.partition(*key) else { return 0 };
            let segments = core.log().segments().all();
            let bytes: u64 = segments.iter().map(|segment| segment.end() as u64).sum();
            let all = core.log_end().saturating_sub(core.log_start()).max(1);
            let share = u128::from(bytes) * u128::from(*records) / u128::from(all);
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        records.iter().map(bytes).fold(0, u64::saturating_add)
    }
}

/// No sync of a log has failed.
///
/// # Errors
///
/// That of the sync.
pub(super) fn check_syncs(core: &PartitionCore) -> Result<()> {
    if core.log().ends().is_poisoned() { core.flush() } else { Ok(()) }
}

/// What is sent in the stead of a batch that begins below `from`: compaction says in one batch without
/// records what it has left out, and the asking log may end in the middle of that. `None` if the batch
/// has records.
fn rest_of(header: &BatchHeader, from: u64, under: Under) -> Option<Bytes> {
    if header.record_count > 0 {
        return None;
    }
    let key = SegmentKey::new(under.salt, under.features);
    let last = header.next_offset().checked_sub(from)?.checked_sub(1)?;
    let mut encoder = BatchEncoder::new();
    encoder.set_base_timestamp_if_empty(header.base_timestamp);
    encoder.set_last_offset_delta(u32::try_from(last).ok()?);
    let placement = Placement {
        base_offset: from,
        leader_epoch: header.leader_epoch,
        durable_end: from,
        key: &key,
        producer: None,
    };
    Some(Bytes::copy_from_slice(encoder.finish().seal(&placement)))
}
