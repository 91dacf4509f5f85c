//! The one way of records into a partition: check, stamp, encode, append.
//!
//! Owns: the order of these steps, and what is known of an append afterwards. Must not know: which
//! partition a record belongs to, and who remembers appends that were not waited for.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use super::TopicShared;
use crate::clock::from_millis;
use crate::config::{Durability, TimestampType};
use crate::error::Result;
use crate::partition::PartitionCore;
use crate::partition::append::{Accepted, AppendOptions, Fence};
use crate::partition::copies::Copies;
use crate::partition::encode::{Encoder, timestamp_of};
use crate::partition::lead::LedEpoch;
use crate::record::Record;
#[cfg(feature = "testing")]
use crate::seams::{Seam, Site};

/// What a caller asks of an append, beside its records.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms<'a> {
    /// Compare-and-append: what the log end must be.
    pub(crate) expected: Option<u64>,
    pub(crate) producer: Option<Fence<'a>>,
    /// Instead of the topic's durability.
    pub(crate) level: Option<Durability>,
    /// The acknowledgement waits for no other member of a replicated group.
    #[cfg(feature = "replication")]
    pub(crate) is_leader_enough: bool,
    /// Whether the caller settles the append at once, and holds no lock then.
    #[cfg(feature = "replication")]
    pub(crate) is_settled_at_once: bool,
    /// Whether the caller is a task of an executor, which must not be kept waiting.
    pub(crate) is_task: bool,
}

impl Terms<'_> {
    /// For a caller that settles the append at once, and holds no lock then.
    #[inline]
    pub(crate) fn at_once(self) -> Self {
        Self {
            #[cfg(feature = "replication")]
            is_settled_at_once: true,
            ..self
        }
    }

    /// The leadership under which a majority is waited for.
    #[inline]
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "no members"))]
    fn awaits(&self, led: LedEpoch) -> LedEpoch {
        #[cfg(feature = "replication")]
        if self.is_leader_enough {
            return LedEpoch::default();
        }
        led
    }

    /// Whether the caller sends the records to the other members itself.
    #[cfg(feature = "replication")]
    fn announces(&self) -> bool {
        self.is_settled_at_once && !self.is_leader_enough
    }
}

/// Records that are in a partition, and not yet waited for. Borrows the partition from its topic: a
/// reference count that several threads change costs them more than the rest of a send.
#[must_use = "the level in force is not reached before `settle`"]
pub(crate) struct Appended<'t> {
    pub(crate) core: &'t Arc<PartitionCore>,
    pub(crate) level: Durability,
    /// The offsets of the records; of a duplicate, that of the original's last record.
    pub(crate) offsets: Range<u64>,
    /// The last sequence number that the log has of the producer, if the records are a duplicate.
    pub(crate) duplicate_of: Option<u64>,
    /// The leadership under which a majority is waited for.
    pub(crate) led: LedEpoch,
    /// The time of the append, in milliseconds.
    wall: u64,
    timestamps: TimestampType,
    /// The id of the producer.
    #[cfg(feature = "testing")]
    producer: Option<Arc<str>>,
}

/// Appends records to a partition of a topic, as one batch. They are readable on return.
///
/// # Errors
///
/// All are definite: nothing was appended. A test may have set others.
#[cfg(feature = "testing")]
pub(crate) fn append<'t, 'r, 'a: 'r>(
    topic: &TopicShared,
    core: &'t Arc<PartitionCore>,
    records: impl IntoIterator<Item = &'r Record<'a>>,
    terms: &Terms<'_>,
) -> Result<Appended<'t>> {
    let (seams, producer) = (&core.log().seams, terms.producer.map(|fence| fence.name));
    let site = || Site::of(Seam::Append).partition(&core.origin).producer(producer);
    let appended = seams.around(site, || append_now(topic, core, records, terms));
    let appended = match appended {
        Ok(appended) => appended,
        Err(error) => {
            let answer = Err(error.clone());
            seams.note_send(&core.origin, producer, &answer);
            return Err(error);
        }
    };
    Ok(Appended { producer: producer.map(Arc::from), ..appended })
}

#[cfg(not(feature = "testing"))]
pub(crate) use self::append_now as append;

/// Appends records to a partition of a topic, as one batch. They are readable on return.
///
/// # Errors
///
/// All are definite: nothing was appended.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "one call per record, also where the feature `replication` adds a caller"
)]
pub(crate) fn append_now<'t, 'r, 'a: 'r>(
    topic: &TopicShared,
    core: &'t Arc<PartitionCore>,
    records: impl IntoIterator<Item = &'r Record<'a>>,
    terms: &Terms<'_>,
) -> Result<Appended<'t>> {
    topic.check_writable()?;
    let level = terms.level.unwrap_or(topic.durability);
    let Terms { expected, producer, is_task, .. } = *terms;
    let stamp = core.log().stamp(level, producer.is_some())?;
    let mut encoder = Encoder::take();
    let mut batch = encoder.encode(records, topic.rules, stamp.wall)?;
    let (level_in_force, is_held) = (Some(&level), !is_task);
    let options = AppendOptions {
        expected,
        producer,
        level: level_in_force,
        stamp,
        is_held,
        #[cfg(feature = "replication")]
        is_announced: terms.announces(),
    };
    let (offsets, duplicate_of, led) = match core.append(&mut batch, &options)? {
        Accepted::Appended { base_offset, next_offset, led } => {
            (base_offset..next_offset, None, led)
        }
        Accepted::Duplicate { last_sequence, last_offset, led } => {
            (last_offset..last_offset.saturating_add(1), Some(last_sequence), led)
        }
    };
    let (wall, timestamps, led) = (stamp.wall, topic.rules.timestamps, terms.awaits(led));
    Ok(Appended {
        core,
        level,
        offsets,
        duplicate_of,
        led,
        wall,
        timestamps,
        #[cfg(feature = "testing")]
        producer: None,
    })
}

impl Appended<'_> {
    /// The timestamp that one of the records has in the log.
    ///
    /// # Errors
    ///
    /// None for a record that was appended.
    #[inline]
    pub(crate) fn timestamp(&self, record: &Record<'_>) -> Result<SystemTime> {
        timestamp_of(record, self.timestamps, self.wall).map(from_millis)
    }

    /// Whether [`settle`](Self::settle) waits for the disk.
    #[inline]
    pub(crate) fn is_synced(&self) -> bool {
        self.level == Durability::Sync
    }

    /// What it waits for of other members.
    #[inline]
    pub(crate) fn copies(&self) -> Copies {
        let (core, end) = (self.core, self.offsets.end);
        if self.is_synced() {
            Copies::synced(core, end, self.led)
        } else {
            Copies::of(core, end, self.led)
        }
    }

    /// Waits for the level in force, and in a replicated group for a majority.
    ///
    /// # Errors
    ///
    /// The error of the sync, or of the wait for other members; the outcome is unknown.
    #[inline]
    pub(crate) fn settle(&self) -> Result<()> {
        let settled = self.settle_now();
        #[cfg(feature = "testing")]
        self.note_answer(&settled);
        settled
    }

    #[inline]
    fn settle_now(&self) -> Result<()> {
        if self.led.is_some() {
            // Others store the records, and sync them, while this member does.
            if self.is_synced() {
                self.copies().begin(self.core, true);
            }
            self.core.flusher().announce();
        }
        if self.is_synced() {
            let waited = self.core.flusher().wait_and_announce(self.offsets.end);
            waited.inspect_err(|_| self.core.log().trace().deliver())?;
        }
        if self.led.is_some() { self.copies().wait(self.core) } else { Ok(()) }
    }

    /// Lets a test see what the sender was answered.
    #[cfg(feature = "testing")]
    pub(crate) fn note_answer(&self, settled: &Result<()>) {
        let answer = settled.clone().map(|()| self.offsets.clone());
        self.core.log().seams.note_send(&self.core.origin, self.producer.as_deref(), &answer);
    }
}
