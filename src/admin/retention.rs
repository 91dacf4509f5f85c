//! Administration of what topics keep: deleting records, and retention at once.

use super::Admin;
use crate::error::Result;
use crate::record::TopicPartition;

impl Admin {
    /// Deletes the records of a partition below the offset `before`, and returns the log start
    /// offset, which is where it was if that is not below `before`. Files that hold nothing else
    /// are removed; a file that still holds records is kept whole, and what was deleted in it can
    /// no longer be read. Deleting everything puts a new, empty file in the place of the last one.
    /// On a full disk the last file stays until there is space for the new one.
    ///
    /// A compacted topic is no exception: the latest record of a key goes too, if it lies below
    /// `before`. That is the way out of a full disk where a compaction finds no space either.
    ///
    /// Messages that are held stay readable. A consumer that was below the new log start learns of
    /// it as [`Consumer::take_gaps`](crate::Consumer::take_gaps) says.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange) beyond the high watermark;
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic) and its kin,
    /// [`Error::Poisoned`](crate::Error::Poisoned), [`Error::ReadOnly`](crate::Error::ReadOnly).
    /// After [`Error::Io`](crate::Error::Io) the records may be deleted or not.
    ///
    /// # Durability
    ///
    /// On return the records are gone after any crash: the log start never goes back. Files that
    /// come back after a power cut are removed by the next opening.
    ///
    /// # Blocking
    ///
    /// For the disk: two syncs, and one of the directory.
    pub fn delete_records(&self, partition: impl Into<TopicPartition>, before: u64) -> Result<u64> {
        self.run().delete_records(&partition.into(), before)
    }

    /// Applies the retention settings of all topics now. Otherwise that happens every minute, in
    /// each [`Broker::tick`](crate::Broker::tick), and for a limit of bytes when a segment is full.
    ///
    /// # Errors
    ///
    /// The first failure; the other partitions were tried all the same.
    ///
    /// # Durability
    ///
    /// As [`delete_records`](Self::delete_records).
    ///
    /// # Blocking
    ///
    /// For the disk, until all that has expired is removed.
    pub fn enforce_retention_now(&self) -> Result<()> {
        self.run().enforce_retention()
    }
}
