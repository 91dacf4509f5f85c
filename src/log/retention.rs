//! Plans which segments retention removes. Pure.
//!
//! [`Planner`] is given the segments one by one, oldest first, and says how many of them are
//! removed. It reads no clock and no file. The rules are Kafka's, except for the meaning of time:
//!
//! 1. Whole segments are removed, oldest first, as long as each is *expired* (its youngest record
//!    is older than the policy allows) or is not needed to keep `bytes` bytes. So the log never
//!    keeps less than the policy promises.
//! 2. The last segment, which takes appends, is removed only if all of it has expired or is below
//!    the log start, and after another has replaced it. One without records is never replaced.
//! 3. A segment without records has no age of its own. It ages by its successor's first record.
//! 4. The log start never decreases.
//!
//! Time is that of the *run*: the wall clock as it was when the broker was opened, advanced by a
//! clock that never jumps. See [`aged_from`] for the age of a record. Run times are not stored,
//! because the next run's may differ, if the wall clock was wrong when one of them began. What is
//! stored is the time of the wall clock.

use std::time::Duration;

use super::Log;
use super::active::Contents;
use super::segment::Segment;
use crate::clock::Moment;
use crate::config::{Cleanup, TopicConfig};
use crate::format::TimeRange;

/// The moment, in the time of the run, from which a record's age counts.
///
/// That is the record's timestamp, but not later than its append: a timestamp in the future must
/// not keep a segment for ever. One in the past makes the record old from the start, as it does in
/// Kafka. If the wall clock is behind the run's time, it was set back after the broker was opened.
/// A timestamp that was taken from it is too early by as much, and is corrected.
///
/// Worked example, in hours: the broker was opened at 100, it is 110 now. A record that is stamped
/// 105 ages from 105, one stamped 500 from 110. The wall clock is set back to 10: a record that is
/// stamped 10 by it lags by 100, and ages from 110.
pub(crate) fn aged_from(timestamp: u64, now: u64, lag: u64) -> u64 {
    timestamp.saturating_add(lag).min(now)
}

/// How much of a topic's partition is kept; `None` is no limit. Times are milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RetentionPolicy {
    pub(crate) age: Option<u64>,
    pub(crate) bytes: Option<u64>,
    /// The age of its first record at which a segment is rolled.
    pub(crate) segment_age: Option<u64>,
    /// Whether the topic is compacted, which the last segment never is.
    pub(crate) compacts: bool,
}

impl RetentionPolicy {
    pub(crate) fn of(config: &TopicConfig) -> Self {
        let millis = |limit: Duration| {
            let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            (millis != u64::MAX).then_some(millis)
        };
        let deletes = deletes(config.cleanup);
        Self {
            age: millis(config.retention).filter(|_| deletes),
            bytes: Some(config.retention_bytes).filter(|bytes| deletes && *bytes != u64::MAX),
            segment_age: millis(config.segment_age),
            compacts: compacts(config.cleanup),
        }
    }
}

/// Whether a topic's records may be removed because of their age or offset.
pub(crate) fn deletes(cleanup: Cleanup) -> bool {
    match cleanup {
        Cleanup::Delete | Cleanup::CompactAndDelete => true,
        Cleanup::Compact => false,
    }
}

/// Whether only the latest record of each key is kept.
fn compacts(cleanup: Cleanup) -> bool {
    match cleanup {
        Cleanup::Compact | Cleanup::CompactAndDelete => true,
        Cleanup::Delete => false,
    }
}

/// A segment as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) next_offset: u64,
    pub(crate) bytes: u64,
    /// `None` without records.
    pub(crate) times: Option<TimeRange>,
}

/// The last segment of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) base_offset: u64,
    pub(crate) facts: SegmentFacts,
    /// When its first record was appended, if it is active and has a record.
    pub(crate) began: Option<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Segments that end at or below it are removed.
    pub(crate) log_start: u64,
    /// Another segment replaces the last one, before anything is removed.
    pub(crate) roll: bool,
}

/// Decides segment by segment, so that the caller reads no more of them than the result needs.
#[derive(Debug)]
pub(crate) struct Planner {
    policy: RetentionPolicy,
    now: u64,
    /// How many bytes remain if no more segment is removed.
    bytes: u64,
    log_start: u64,
    /// Bytes and next offset of segments without records, which their successor decides about.
    undated: Option<(u64, u64)>,
    /// A segment is kept, so all later ones are too.
    ended: bool,
}

impl Planner {
    /// `bytes` is what all segments hold together; it matters only to a policy that limits it.
    pub(crate) fn new(policy: RetentionPolicy, now: u64, log_start: u64, bytes: u64) -> Self {
        Self { policy, now, bytes, log_start, undated: None, ended: false }
    }

    /// Takes the next sealed segment. False when no later one can be removed.
    pub(crate) fn sealed(&mut self, segment: &SegmentFacts) -> bool {
        self.judge_undated(segment.times);
        if self.ended {
            return false;
        }
        if self.undated.is_none() && (self.is_expired(segment.times) || self.is_spare(segment)) {
            self.remove(segment.bytes, segment.next_offset);
        } else if segment.times.is_none() {
            let bytes = self.undated.map_or(0, |(bytes, _)| bytes).saturating_add(segment.bytes);
            self.undated = Some((bytes, segment.next_offset));
        } else {
            self.ended = true;
        }
        !self.ended
    }

    /// The plan, once all sealed segments or enough of them were given.
    pub(crate) fn finish(mut self, tail: &Tail) -> Plan {
        self.judge_undated(tail.facts.times);
        let goes = !self.ended && self.undated.is_none() && self.is_expired(tail.facts.times);
        if goes {
            self.remove(tail.facts.bytes, tail.facts.next_offset);
        }
        // All of it was deleted while the disk had no space for another segment.
        let is_deleted = tail.facts.times.is_some() && tail.facts.next_offset <= self.log_start;
        Plan { log_start: self.log_start, roll: goes || is_deleted || self.is_overdue(tail) }
    }

    fn judge_undated(&mut self, successor: Option<TimeRange>) {
        if let (Some((bytes, next_offset)), Some(times)) = (self.undated, successor)
            && !self.ended
        {
            let first = times.first.min(times.since);
            if self.is_older(first) {
                self.undated = None;
                self.remove(bytes, next_offset);
            } else {
                self.ended = true;
            }
        }
    }

    fn remove(&mut self, bytes: u64, next_offset: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.log_start = self.log_start.max(next_offset);
    }

    fn is_expired(&self, times: Option<TimeRange>) -> bool {
        times.is_some_and(|times| self.is_older(times.since))
    }

    fn is_older(&self, since: u64) -> bool {
        self.policy.age.is_some_and(|limit| self.now.saturating_sub(since) > limit)
    }

    /// Whether enough bytes remain without it.
    fn is_spare(&self, segment: &SegmentFacts) -> bool {
        let left = self.bytes.checked_sub(segment.bytes);
        self.policy.bytes.is_some_and(|limit| left.is_some_and(|left| left >= limit))
    }

    fn is_overdue(&self, tail: &Tail) -> bool {
        // A segment that is not active any more cannot grow, and retention removes it as it is; but
        // a compaction needs a successor. When its first record was appended is not known.
        let youngest = tail.facts.times.filter(|_| self.policy.compacts).map(|times| times.since);
        let age = tail.began.or(youngest).map(|began| self.now.saturating_sub(began));
        self.policy.segment_age.is_some_and(|limit| age.is_some_and(|age| age > limit))
    }
}

/// The moment from which the age of a record counts that has this timestamp and is appended now.
/// The wall time is stored, and is never later than the timestamp.
pub(super) fn age_of(timestamp: u64, now: Moment) -> Moment {
    let Moment { wall, run } = now;
    let lag = run.saturating_sub(wall);
    Moment { wall: timestamp.min(wall), run: aged_from(timestamp, run, lag) }
}

impl SegmentFacts {
    /// The facts that retention needs of a sealed segment.
    pub(crate) fn of(segment: &Segment) -> Option<Self> {
        let sealed = segment.sealed()?;
        let (next_offset, times) = (sealed.next_offset, sealed.times);
        Some(Self { next_offset, bytes: u64::from(sealed.data_end), times })
    }
}

impl Tail {
    /// The facts that retention needs of the last segment of a log.
    pub(crate) fn of(log: &Log) -> Option<Self> {
        if let Some(active) = log.appender().active() {
            let Contents { times, began, .. } = *active.contents();
            let (next_offset, bytes) = (log.log_end(), active.position() as u64);
            let facts = SegmentFacts { next_offset, bytes, times };
            let began = began.filter(|_| times.is_some()).map(|began| began.run);
            return Some(Self { base_offset: active.segment().base_offset, facts, began });
        }
        let last = log.segments().last()?;
        let facts = SegmentFacts::of(&last)?;
        Some(Self { base_offset: last.base_offset, facts, began: None })
    }
}

#[cfg(test)]
mod tests;
