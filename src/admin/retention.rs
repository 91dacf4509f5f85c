//! Administration of what topics keep: deleting records, and retention at once.

use super::Admin;
use crate::error::Result;
use crate::record::TopicPartition;

impl Admin {
    /// Deletes the records of a partition below offset `before`. Returns the log start offset,
    /// which does not change if `before` is not above it.
    ///
    /// Files that hold nothing else are removed. A file that still holds records is kept, and its
    /// deleted records can no longer be read. If everything is deleted, a new, empty file replaces
    /// the last one; on a full disk the last file remains until there is space.
    ///
    /// In a compacted topic this also deletes the latest record of a key, if it lies below
    /// `before`. It needs no space, so it is the way out of a full disk on which a compaction
    /// cannot run.
    ///
    /// Messages that are held stay readable. A consumer below the new log start gets a gap, as
    /// [`Consumer::take_gaps`](crate::Consumer::take_gaps) describes.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange) beyond the high watermark;
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic) and
    /// [`Error::UnknownPartition`](crate::Error::UnknownPartition);
    /// [`Error::Poisoned`](crate::Error::Poisoned); [`Error::Corrupt`](crate::Error::Corrupt) (the
    /// partition is unavailable); [`Error::ReadOnly`](crate::Error::ReadOnly);
    /// [`Error::Closed`](crate::Error::Closed). After [`Error::Io`](crate::Error::Io) and
    /// [`Error::SyncFailed`](crate::Error::SyncFailed) the records may be deleted or not.
    ///
    /// # Durability
    ///
    /// On return the records are gone after any crash: the log start never goes back. The next
    /// opening removes files that come back after a loss of power.
    ///
    /// # Blocking
    ///
    /// For the disk: two syncs, and one of the directory.
    #[doc(alias = "deleteRecords")]
    pub fn delete_records(&self, partition: impl Into<TopicPartition>, before: u64) -> Result<u64> {
        self.run().space().retention().delete_records(&partition.into(), before)
    }

    /// Applies the retention settings of all topics now. This also happens every minute, in each
    /// [`Broker::tick`](crate::Broker::tick), and, for a limit in bytes, whenever a segment is
    /// full.
    ///
    /// # Errors
    ///
    /// The first failure, for example [`Error::Io`](crate::Error::Io) or
    /// [`Error::StorageFull`](crate::Error::StorageFull); all partitions were tried.
    /// [`Error::ReadOnly`](crate::Error::ReadOnly), [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Durability
    ///
    /// On return removed records are gone after any crash: the log start never goes back.
    ///
    /// # Blocking
    ///
    /// For the disk, until everything that has expired is removed.
    pub fn enforce_retention_now(&self) -> Result<()> {
        self.run().space().retention().enforce()
    }
}
