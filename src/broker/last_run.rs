//! What is known of the last run of a directory, and of a partition before it is opened.
//!
//! Functions over the contents of `__local`. Must not know: how anything is opened.

use std::sync::Arc;

use super::context::Settings;
use super::internal_logs::LOCAL;
use super::local::{LocalChange, LocalState, ReplicaNote};
use crate::format::TopicId;
use crate::log::open::{Known, PartitionRecovery};
use crate::log::segment::Segment;
use crate::partition::state_log::StateLog;
use crate::partition::{PartitionCore, may_lack_confirmed};

/// What the opening of a partition has to know of the last run, and the time.
#[derive(Clone, Copy)]
pub(super) struct LastRun {
    pub(super) clean: bool,
    pub(super) same_boot: bool,
    pub(super) has_all_starts: bool,
    pub(super) now: u64,
}

impl LastRun {
    /// What is known of a partition before it is opened.
    pub(super) fn known(
        &self,
        settings: &Settings,
        local: &StateLog<LocalState>,
        key: (TopicId, u32),
    ) -> Known {
        // A log start is recorded before anything is removed: without one, nothing was.
        let nothing_was_removed = self.has_all_starts.then_some(0);
        let (checkpoint, log_start) = local.read(|local| {
            let log_start = local.log_starts.get(&key).copied().or(nothing_was_removed);
            (local.points.get(&key).cloned(), log_start)
        });
        Known {
            checkpoint,
            clean: self.clean,
            same_boot: self.same_boot,
            policy: settings.recovery,
            read_only: settings.read_only,
            needs_all: false,
            log_start,
            proved: 0,
            now: self.now,
        }
    }
}

/// Whether every log start that was ever recorded is known. Nothing proves where `__local` ended: a
/// tail that was cut off there may have been durable and damaged.
pub(super) fn has_all_starts(found: &[PartitionRecovery]) -> bool {
    let is_cut = |found: &PartitionRecovery| *found.topic == *LOCAL.0 && found.cut_bytes > 0;
    !found.iter().any(is_cut)
}

/// The note for a member of a replicated group that may have forgotten others: what was cut off at
/// the end of `__local` may have been durable. If the opening that cut it was interrupted, it may
/// have left a segment without records.
pub(super) fn lost_notes(
    local: &StateLog<LocalState>,
    report: &[PartitionRecovery],
) -> Option<LocalChange> {
    let segments = local.partition().log().segments();
    let is_empty = |last: &Segment| last.base_offset == local.partition().log_end();
    let ends_in_nothing = segments.count() > 1 && segments.last().is_some_and(|it| is_empty(&it));
    let is_member = local.read(|local| local.replica.directory().is_some());
    let may_lack = ends_in_nothing || !has_all_starts(report);
    (is_member && may_lack).then_some(LocalChange::Replica(ReplicaNote::Incomplete))
}

/// Notes durably that the next run of a member of a replicated group may lack what this one has
/// confirmed, if a sync of one of these partitions has failed: the member has ended before the close
/// syncs, and the kernel may drop what it could not write.
pub(super) fn note_loss(local: &StateLog<LocalState>, partitions: &[Arc<PartitionCore>]) {
    let is_member = local.read(|local| local.replica.directory().is_some());
    if is_member && partitions.iter().any(|core| may_lack_confirmed(core)) {
        // If this fails too, nothing can be done.
        let _ = local.append_last(LocalChange::Replica(ReplicaNote::Incomplete));
    }
}

/// Whether the last run ended with a clean close, and whether the machine was not restarted since.
pub(super) fn how_it_ended(
    local: &StateLog<LocalState>,
    boot: Option<&Arc<str>>,
    report: &[PartitionRecovery],
) -> (bool, bool) {
    // Nothing proves where this log ended. What was cut off may be the record of a later run.
    let is_cut = report.iter().any(|found| found.cut_bytes > 0);
    local.read(|local| {
        // Where boots cannot be distinguished, this may be the same one.
        let same_boot = boot.is_none() || local.boot() == boot || is_cut;
        (local.is_closed() && !is_cut, same_boot)
    })
}
