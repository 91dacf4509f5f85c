//! A producer in a task: its `send` as a future for any executor.
//!
//! Owns: nothing; it is a view of one producer. Must not know: executors and timers.

use std::future::poll_fn;
use std::task::Poll;

use super::Producer;
use crate::error::Result;
use crate::log::producers::Sequence;
use crate::record::{Record, RecordMetadata};
use crate::topic::append::Terms;

/// A [`Producer`] whose `send` is a future, for any executor; made by [`Producer::in_async`]. Needs
/// the feature `async`.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # pollster::block_on(async {
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("orders", TopicConfig::new(3))?;
/// let producer = broker.producer();
/// let sent = producer.in_async().send(Record::to("orders").key("user-7").value("2 pears")).await?;
/// assert_eq!(sent.offset, 0); // acknowledged: at `Durability::Sync`, on stable storage
/// # Ok::<(), logpond::Error>(())
/// # }).unwrap();
/// ```
///
/// For many records at once, and for records with numbers: the results of [`Producer::enqueue`] and
/// [`Producer::enqueue_sequenced`] are futures too, for example
/// `producer.enqueue_sequenced(number, record)?.await?`.
#[derive(Debug, Clone, Copy)]
pub struct AsyncProducer<'a> {
    producer: &'a Producer,
}

impl<'a> AsyncProducer<'a> {
    pub(super) fn new(producer: &'a Producer) -> Self {
        Self { producer }
    }

    /// Sends one record, and resolves when it is acknowledged, with its partition, offset and
    /// timestamp. The record is appended at the first poll of the future.
    ///
    /// # Errors
    ///
    /// Those of [`Producer::send`]. If there is no space, [`Error::StorageFull`] at once, also with
    /// [`WhenFull::Wait`].
    ///
    /// # Durability
    ///
    /// When the future resolves, the record survives what the [`Durability`](crate::Durability) in force covers. The
    /// syncs are made by the broker's background threads; without these, by
    /// [`Broker::tick`](crate::Broker::tick).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it was polled, nothing was appended; after that, the record
    /// is in the partition, and may be acknowledged later.
    ///
    /// # Blocking
    ///
    /// Never for a sync. Polling it writes to the disk as [`Producer::enqueue`] does; with
    /// [`WhenFull::DropOldest`] it may remove records.
    ///
    /// [`Error::StorageFull`]: crate::Error::StorageFull
    /// [`WhenFull::Wait`]: crate::WhenFull::Wait
    /// [`WhenFull::DropOldest`]: crate::WhenFull::DropOldest
    pub async fn send(&self, record: Record<'_>) -> Result<RecordMetadata> {
        let terms = Terms { is_task: true, ..self.producer.terms(Sequence::Absent) };
        let delivery = self.producer.append_unsettled(&record, &terms)?;
        // The append was successful. A failure is kept by the partition, and the next append returns
        // it.
        if let Some(mut excess) = delivery.excess() {
            let _ =
                poll_fn(|context| excess.poll(context.waker()).map_or(Poll::Pending, Poll::Ready))
                    .await;
        }
        delivery.await
    }
}
