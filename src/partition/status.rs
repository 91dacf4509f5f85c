//! What this run may do with a partition, as far as that is known without its lock.
//!
//! Owns: the process that opened it, the damage that the opening found, and whether it was closed,
//! by the broker or with its topic. Must not know: the log.
//!
//! A closed partition stays closed. One whose topic is deleted is marked as deleted before it is
//! closed.

use std::sync::Arc;

use super::background::Background;
use crate::error::{Corruption, Error, Result};
use crate::record::TopicPartition;
use crate::storage::process::Process;
use crate::sync::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct Status {
    origin: Arc<TopicPartition>,
    process: Arc<Process>,
    /// Says whether the broker itself has shut down.
    background: Arc<dyn Background>,
    /// The damage for which nothing can be read or appended in this run.
    damage: Option<Corruption>,
    /// ORDERING: Release once the partition takes no more appends; Acquire by readers.
    is_closed: AtomicBool,
    /// Whether it was closed because its topic was deleted. ORDERING: Relaxed, stored before
    /// `is_closed`, which publishes it.
    is_deleted: AtomicBool,
}

impl Status {
    pub(super) fn new(
        origin: Arc<TopicPartition>,
        process: Arc<Process>,
        background: Arc<dyn Background>,
        damage: Option<Corruption>,
    ) -> Self {
        let (is_closed, is_deleted) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { origin, process, background, damage, is_closed, is_deleted }
    }

    pub(super) fn origin(&self) -> &Arc<TopicPartition> {
        &self.origin
    }

    /// Refuses a forked child, before any lock: the thread that held one during the fork does not
    /// exist in the child and never releases it.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        self.process.check()
    }

    pub(super) fn is_in_own_process(&self) -> bool {
        self.process.is_current()
    }

    /// Refuses a partition that is unavailable in this run.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`].
    #[inline]
    pub(crate) fn check_available(&self) -> Result<()> {
        match &self.damage {
            None => Ok(()),
            Some(damage) => Err(damage.clone().into()),
        }
    }

    #[inline]
    pub(crate) fn is_available(&self) -> bool {
        self.damage.is_none()
    }

    pub(super) fn damage(&self) -> Option<&Corruption> {
        self.damage.as_ref()
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Refuses a partition that was closed.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], or [`Error::UnknownTopic`] if only the topic was deleted.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(self.closed()) } else { Ok(()) }
    }

    /// The error of a call on a closed partition. A deleted topic is not the end of the broker: a
    /// caller that serves many topics continues with the others.
    #[cold]
    pub(crate) fn closed(&self) -> Error {
        if self.is_deleted.load(Ordering::Relaxed) && !self.background.has_ended() {
            return self.unknown_topic();
        }
        Error::Closed
    }

    pub(super) fn unknown_topic(&self) -> Error {
        Error::UnknownTopic(self.origin.topic.as_ref().to_owned())
    }

    pub(super) fn mark_deleted(&self) {
        self.is_deleted.store(true, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }
}
