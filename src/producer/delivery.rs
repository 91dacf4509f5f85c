//! The acknowledgement of a record that was appended without waiting.
//!
//! Owns: waiting for one record, as a call or as a future. Must not know: how a record is appended,
//! how a sync is shared.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::broker::Run;
use crate::clock::real_now;
use crate::error::{Error, Result};
use crate::partition::durable_wait::DurableWait;
use crate::record::RecordMetadata;
use crate::topic::append::Appended;

/// The acknowledgement of a record that [`Producer::enqueue`](crate::Producer::enqueue) has
/// appended. At [`Durability::Sync`](crate::Durability::Sync) it resolves when the record is on
/// stable storage; at [`Durability::Os`](crate::Durability::Os) and
/// [`Durability::Interval`](crate::Durability::Interval) at once. At
/// [`Acks::Quorum`](crate::Acks::Quorum) it also waits until a majority of the members has the record.
///
/// [`wait`](Self::wait) blocks; `.await` works with any executor, because it is a [`Future`],
/// without any feature. Polling never blocks: the broker's background threads run the sync. A
/// broker without background threads runs it in [`Broker::tick`](crate::Broker::tick) or `flush`.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("jobs", TopicConfig::new(1))?;
/// let producer = broker.producer();
/// let jobs = ["resize", "encode", "upload"];
/// let enqueue = |job| producer.enqueue(Record::to("jobs").value(job));
/// let deliveries = jobs.into_iter().map(enqueue).collect::<Result<Vec<_>, _>>()?;
/// for delivery in deliveries {
///     let sent = delivery.wait()?; // a few syncs serve all of them
///     println!("offset {} is durable", sent.offset);
/// }
/// # Ok::<(), logpond::Error>(())
/// ```
#[must_use = "dropping a delivery is fire and forget; say so with drop()"]
pub struct Delivery {
    wait: DurableWait,
    metadata: RecordMetadata,
    _run: Arc<Run>,
}

impl Delivery {
    /// The delivery of a record: it waits until the log is durable up to the end of the record, and
    /// until a majority has that, or resolves at once.
    pub(super) fn new(appended: &Appended<'_>, metadata: RecordMetadata, run: Arc<Run>) -> Self {
        let (core, end) = (Arc::clone(appended.core), appended.offsets.end);
        let copies = appended.copies();
        let wait = if appended.is_synced() {
            DurableWait::new(core, end).and(copies)
        } else {
            DurableWait::of_copies(core, end, copies)
        };
        Self { wait, metadata, _run: run }
    }

    /// Waits until the record is acknowledged, and returns its partition, offset and timestamp.
    ///
    /// # Errors
    ///
    /// [`Error::SyncFailed`], [`Error::Poisoned`] and [`Error::Closed`]: the record may or may not
    /// be stored. [`Error::UnknownTopic`]: the topic was deleted, and the record with it. At
    /// [`Acks::Quorum`](crate::Acks::Quorum) also [`Error::LeadershipLost`], and [`Error::Timeout`]
    /// if no majority has the record within the acknowledgement timeout, which begins with
    /// `enqueue`: the record may or may not be kept.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`](crate::Durability::Sync), for a sync of the disk, which all waiting
    /// callers share. At [`Acks::Quorum`](crate::Acks::Quorum), for a majority of the members.
    pub fn wait(self) -> Result<RecordMetadata> {
        let core = self.wait.core();
        self.wait.copies().begin(core, false);
        if self.wait.is_synced() {
            let waited = core.wait_durable(self.wait.end());
            waited.inspect_err(|_| core.log().trace().deliver())?;
        }
        self.wait.copies().wait(core)?;
        Ok(self.metadata)
    }

    /// Waits until the record is acknowledged, at most `timeout`. Returns `None` if the time is
    /// over first.
    ///
    /// # Errors
    ///
    /// [`Error::SyncFailed`], [`Error::Poisoned`] and [`Error::Closed`]: the record may or may not
    /// be stored. [`Error::UnknownTopic`]: the topic was deleted, and the record with it. At
    /// [`Acks::Quorum`](crate::Acks::Quorum) also [`Error::LeadershipLost`] and [`Error::Timeout`],
    /// as of [`wait`](Self::wait).
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time, however long the disk takes. Without background threads the
    /// sync runs in this call and is not interrupted.
    #[must_use = "the answer may be an error"]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<RecordMetadata>> {
        if !self.wait.is_synced() && !self.wait.copies().is_awaited() {
            return Some(Ok(self.metadata));
        }
        let (core, end) = (self.wait.core(), self.wait.end());
        self.wait.copies().begin(core, false);
        // A timeout too long for the clock is no timeout.
        let until = real_now().checked_add(timeout);
        let synced = match until {
            _ if !self.wait.is_synced() => Ok(()),
            Some(deadline) => core.flusher().wait_until(end, deadline),
            None => core.wait_durable(end),
        };
        match synced {
            Err(Error::Timeout) => None,
            Err(error) => {
                core.log().trace().deliver();
                Some(Err(error))
            }
            Ok(()) => {
                let waited = self.wait.copies().wait_until(core, until, timeout)?;
                Some(waited.map(|()| self.metadata))
            }
        }
    }

    /// What a producer waits for if it is too far ahead of the disk, and does not wait for its
    /// record.
    #[cfg(feature = "async")]
    pub(super) fn excess(&self) -> Option<DurableWait> {
        let core = self.wait.core();
        let is_ahead = !self.wait.is_synced();
        let end = is_ahead.then(|| core.flusher().excess_end()).flatten()?;
        Some(DurableWait::new(Arc::clone(core), end))
    }

    /// Returns the record's partition, offset and timestamp, without waiting.
    #[must_use]
    pub fn metadata(&self) -> RecordMetadata {
        self.metadata
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match this.wait.poll(context.waker()) {
            Some(answer) => Poll::Ready(answer.map(|()| this.metadata)),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}
