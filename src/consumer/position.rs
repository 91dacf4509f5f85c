//! Where a consumer stands in its partitions, and moving there.

use std::collections::BTreeMap;

use super::Consumer;
use crate::config::StartAt;
use crate::error::{Error, Result};
use crate::record::TopicPartition;

impl Consumer {
    /// Moves the position of a partition. The next poll reads there.
    ///
    /// ```
    /// # use logpond::{Broker, Record, StartAt, TopicConfig};
    /// # use std::time::Duration;
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("clicks", TopicConfig::new(1))?;
    /// # for value in ["a", "b", "c"] { broker.producer().send(Record::to("clicks").value(value))?; }
    /// let mut reader = broker.reader().subscribe(["clicks"]).open()?;
    /// reader.seek(("clicks", 0), StartAt::Offset(2))?;
    /// assert_eq!(reader.recv()?.value(), Some(&b"c"[..]));
    ///
    /// reader.seek(("clicks", 0), StartAt::Earliest)?; // also: Latest, Time(..)
    /// assert_eq!(reader.poll(Duration::ZERO)?.len(), 3);
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// A [`StartAt::Offset`] out of range goes to the nearest end. Later commits may follow the
    /// position back, but not below where it went. An error that the next poll of the partition
    /// would return, such as [`Error::Truncated`], is dropped: the caller has said where to read.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if the partition is not assigned to this consumer;
    /// [`Error::NoOffset`] for [`StartAt::Error`]; [`Error::Corrupt`] and [`Error::Io`] if a time
    /// could not be looked up.
    ///
    /// # Blocking
    ///
    /// For the disk with [`StartAt::Time`].
    #[doc(alias = "seekToBeginning")]
    #[doc(alias = "seekToEnd")]
    pub fn seek(&mut self, partition: impl Into<TopicPartition>, to: StartAt) -> Result<()> {
        let partition = partition.into();
        self.give_back_ahead();
        if self.unplaced.contains_key(&partition) {
            // It is this member's, and has waited for a position.
            let mut slot = self.new_slot(&partition)?;
            slot.start_at(to, &self.settings)?;
            let committed = self.committed_of(&slot);
            slot.floor = committed.map_or(0, |committed| committed.offset.min(slot.handed_out));
            self.unplaced.remove(&partition);
            self.add_slots(vec![slot]);
            return Ok(());
        }
        let index = self.index_of(&partition)?;
        if let Some(slot) = self.slots.get_mut(index) {
            slot.start_at(to, &self.settings)?;
            // Only a seek back takes a commit back, and no further than it went.
            slot.floor = slot.floor.min(slot.handed_out);
        }
        Ok(())
    }

    /// Stops reading these partitions. The consumer still owns them.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if one is not assigned; then none is paused.
    pub fn pause<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<()> {
        self.set_paused(partitions, true)
    }

    /// Reads these partitions again after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if one is not assigned; then none is resumed.
    pub fn resume<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<()> {
        self.set_paused(partitions, false)
    }

    fn set_paused<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
        is_paused: bool,
    ) -> Result<()> {
        self.give_back_ahead();
        let indexes = partitions.into_iter().map(|partition| self.index_of(&partition.into()));
        for index in indexes.collect::<Result<Vec<_>>>()? {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.is_paused = is_paused;
                slot.is_armed = false;
                slot.has_failed = false;
            }
        }
        Ok(())
    }

    pub(super) fn index_of(&self, partition: &TopicPartition) -> Result<usize> {
        self.slots
            .binary_search_by(|slot| slot.origin().cmp(partition))
            .map_err(|_| Error::UnknownPartition(partition.clone()))
    }

    /// Returns the offset of the next record to be handed out; `None` if the partition is not
    /// assigned.
    #[must_use]
    pub fn position(&self, partition: impl Into<TopicPartition>) -> Option<u64> {
        let index = self.index_of(&partition.into()).ok()?;
        self.slots.get(index).map(|slot| slot.handed_out)
    }

    /// Returns for each assigned partition how many visible offsets were not handed out yet.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    #[doc(alias = "currentLag")]
    pub fn lag(&self) -> Result<BTreeMap<TopicPartition, u64>> {
        self.check_shutdown()?;
        let visibility = self.settings.visibility;
        let lags = self.slots.iter().map(|slot| (slot.origin().clone(), slot.lag(visibility)));
        Ok(lags.collect())
    }

    /// Returns the partitions that this consumer reads now, in order.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.slots.iter().map(|slot| slot.origin().clone()).collect()
    }
}
