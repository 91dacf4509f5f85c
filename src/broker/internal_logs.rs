//! The internal logs: the broker's own durable state.
//!
//! Owns: the catalog (`__meta`), the state of this machine (`__local`), and, through the
//! coordinator of groups, the committed offsets (`__offsets`); and what a read-only broker has seen
//! of the files. Must not know: what their contents are used for.
//! [`log_opener`](super::log_opener) reads them again at an opening.

use std::sync::Arc;

use super::catalog::CatalogState;
use super::local::{LocalChange, LocalState};
use super::looks::Looks;
use crate::clock::RunClock;
use crate::error::Result;
use crate::format::TopicId;
use crate::group::coordinator::Coordinator;
use crate::partition::PartitionCore;
use crate::partition::state_log::StateLog;
use crate::sync::{LockLevel, Mutex};

/// The internal topics. Their ids are fixed, because they are read before the catalog.
pub(crate) const LOCAL: (&str, TopicId) = ("__local", TopicId(*b"logpond  __local"));
pub(crate) const OFFSETS: (&str, TopicId) = ("__offsets", TopicId(*b"logpond__offsets"));
pub(crate) const META: (&str, TopicId) = ("__meta", TopicId(*b"logpond   __meta"));

/// What the engine itself keeps in the directory of a broker.
pub(crate) const INTERNAL_NAMES: [&str; 4] = [LOCAL.0, OFFSETS.0, META.0, "LOCK"];

/// See the module's documentation.
pub(crate) struct InternalLogs {
    local: StateLog<LocalState>,
    catalog: StateLog<CatalogState>,
    coordinator: Arc<Coordinator>,
    /// Of a read-only broker. Held while files are read again.
    looks: Mutex<Looks>,
}

impl InternalLogs {
    pub(super) fn new(
        local: StateLog<LocalState>,
        catalog: StateLog<CatalogState>,
        coordinator: Arc<Coordinator>,
    ) -> Self {
        let looks = Mutex::at_level(LockLevel::Inspection, Looks::default());
        Self { local, catalog, coordinator, looks }
    }

    pub(crate) fn local(&self) -> &StateLog<LocalState> {
        &self.local
    }

    pub(crate) fn catalog(&self) -> &StateLog<CatalogState> {
        &self.catalog
    }

    pub(super) fn looks(&self) -> &Mutex<Looks> {
        &self.looks
    }

    /// The coordinator of groups, which keeps the committed offsets.
    pub(crate) fn coordinator(&self) -> &Arc<Coordinator> {
        &self.coordinator
    }

    /// The clock by which changes are dated.
    pub(super) fn clock(&self) -> &RunClock {
        self.local.partition().log().clock()
    }

    pub(crate) fn partitions(&self) -> [Arc<PartitionCore>; 3] {
        let offsets = self.coordinator.offsets().partition();
        [offsets, self.catalog.partition(), self.local.partition()].map(Arc::clone)
    }

    /// Whether this is the partition of an internal log.
    pub(super) fn contains(&self, core: &Arc<PartitionCore>) -> bool {
        self.partitions().iter().any(|partition| Arc::ptr_eq(partition, core))
    }

    /// Cleans up a log, if the partition is that of an internal one.
    pub(super) fn clean_up(
        &self,
        partition: &Arc<PartitionCore>,
        may_continue: impl Fn() -> bool,
    ) -> Result<()> {
        let offsets = self.coordinator.offsets().log();
        if Arc::ptr_eq(partition, offsets.partition()) {
            return offsets.clean_up(may_continue);
        }
        if Arc::ptr_eq(partition, self.catalog.partition()) {
            return self.catalog.clean_up(may_continue);
        }
        if Arc::ptr_eq(partition, self.local.partition()) {
            return self.local.clean_up(may_continue);
        }
        Ok(())
    }

    /// Makes the spares again that a full disk has used.
    pub(super) fn recover_reserves(&self) {
        self.coordinator.offsets().log().recover_reserve();
        self.catalog.recover_reserve();
        self.local.recover_reserve();
    }

    /// What is durable of the catalog and of the committed offsets, where that is more than was
    /// stored: without it, rot in their last records would pass for the work of a crash.
    pub(super) fn ends(&self) -> Vec<LocalChange> {
        let (offsets, catalog) = (self.coordinator.offsets().partition(), self.catalog.partition());
        let ends = [(OFFSETS.1, offsets.durable_end()), (META.1, catalog.durable_end())];
        self.local.read(|local| local.news_of(&ends))
    }
}
