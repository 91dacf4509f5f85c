//! Partitions that a group has assigned to a consumer and whose position could not be found yet.
//!
//! Owns: the list of them, each with its ownership epoch, and why the first of them has no
//! position. Must not know: how a position is found.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use crate::error::Error;
use crate::group::owners::OwnershipEpoch;
use crate::record::TopicPartition;

#[derive(Debug, Default)]
pub(super) struct Pending {
    partitions: BTreeMap<TopicPartition, Option<OwnershipEpoch>>,
    failure: Option<Error>,
}

impl Pending {
    pub(super) fn add(&mut self, partition: TopicPartition, epoch: Option<OwnershipEpoch>) {
        self.partitions.insert(partition, epoch);
    }

    /// All of them, to be tried again; without a failure.
    pub(super) fn take(&mut self) -> BTreeMap<TopicPartition, Option<OwnershipEpoch>> {
        self.failure = None;
        mem::take(&mut self.partitions)
    }

    /// One that was tried in vain.
    pub(super) fn put_back(
        &mut self,
        partition: TopicPartition,
        epoch: Option<OwnershipEpoch>,
        error: Error,
    ) {
        self.partitions.insert(partition, epoch);
        self.failure.get_or_insert(error);
    }

    pub(super) fn contains(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains_key(partition)
    }

    /// The partition has a position now.
    pub(super) fn remove(&mut self, partition: &TopicPartition) {
        self.partitions.remove(partition);
    }

    /// These partitions are another's now.
    pub(super) fn forget(&mut self, gone: &BTreeSet<&TopicPartition>) {
        self.partitions.retain(|partition, _| !gone.contains(partition));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, Option<OwnershipEpoch>)> {
        self.partitions.iter().map(|(partition, epoch)| (partition, *epoch))
    }

    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }
}
