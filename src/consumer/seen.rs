//! What a test broker sees of a consumer.
//!
//! Owns: nothing; how polls, commits and rebalances are described to the seams. Must not know: how they are
//! done.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::role::Role;
use crate::error::{Error, Result};
use crate::record::{Offsets, TopicPartition};
use crate::seams::{After, Call, RebalanceKind, Seam, Seams, Site};

/// A poll begins: whether the test lets it.
pub(super) fn poll_begins(
    seams: &Seams,
    role: &Role,
    partitions: impl FnOnce() -> Vec<TopicPartition>,
) -> Result<()> {
    seams.begin(|| Site::of(Seam::Poll).partitions(partitions()).group(role.group()))?.end(Ok(()))
}

/// A poll has returned these offsets, or an error.
pub(super) fn poll_ends(
    seams: &Seams,
    role: &Role,
    polled: std::result::Result<impl Iterator<Item = (TopicPartition, Range<u64>)>, &Error>,
) {
    let by_partition = |read| {
        let mut returned: BTreeMap<TopicPartition, Range<u64>> = BTreeMap::new();
        for (partition, offsets) in read {
            let offsets: Range<u64> = offsets;
            let end = offsets.end;
            returned.entry(partition).or_insert(offsets).end = end;
        }
        returned.into_iter().collect()
    };
    seams.note(|| Call::Poll {
        group: role.group().cloned(),
        result: polled.map(by_partition).map_err(Error::clone),
    });
}

/// A member has gained or lost partitions.
pub(super) fn rebalance(
    seams: &Seams,
    role: &Role,
    kind: RebalanceKind,
    partitions: &[TopicPartition],
) {
    if !partitions.is_empty() {
        seams.note(|| Call::Rebalance {
            group: role.group().cloned(),
            kind,
            partitions: partitions.to_vec(),
        });
    }
}

/// One commit: of which group, and which offsets.
pub(super) struct CommitCall {
    seams: Seams,
    group: Option<Arc<str>>,
    offsets: Offsets,
}

impl CommitCall {
    pub(super) fn new(seams: &Seams, role: &Role, offsets: Offsets) -> Self {
        Self { seams: seams.clone(), group: role.group().cloned(), offsets }
    }

    /// It begins: whether the test lets it.
    pub(super) fn begin(&self) -> Result<After> {
        let partitions = || self.offsets.keys().cloned().collect();
        self.seams
            .begin(|| Site::of(Seam::Commit).partitions(partitions()).group(self.group.as_ref()))
    }

    /// It has ended with this result.
    pub(super) fn end(self, result: Result<()>) -> Result<()> {
        let Self { seams, group, offsets } = self;
        seams.note(|| Call::Commit { group, offsets, result: result.clone() });
        result
    }
}
