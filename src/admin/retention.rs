//! Administration of retention: deletes records, and applies retention at once.

use super::Admin;
use crate::error::Result;
use crate::record::TopicPartition;

impl Admin {
    /// Deletes the records of a partition below offset `before`. Returns the log start offset, the
    /// first one that can still be read: `before`, or a higher one if records above it were removed
    /// already.
    ///
    /// Files without other records are removed. A file that has records from `before` on is kept,
    /// but its deleted records cannot be read any more. If all records are deleted, a new, empty
    /// file replaces the last one; on a full disk the last file is kept until there is space.
    ///
    /// In a compacted topic this also deletes the latest record of a key, if its offset is below
    /// `before`. The call needs no space, so it works on a full disk, also if a compaction does
    /// not.
    ///
    /// Messages that the program holds stay readable. If a consumer has not read the deleted
    /// records, [`Consumer::take_gaps`](crate::Consumer::take_gaps) reports them.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange) if `before` is above the
    /// partition's [`high_watermark`](crate::Partition::high_watermark);
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic) and
    /// [`Error::UnknownPartition`](crate::Error::UnknownPartition);
    /// [`Error::Poisoned`](crate::Error::Poisoned); [`Error::Corrupt`](crate::Error::Corrupt)
    /// (files of the partition are missing or unreadable);
    /// [`Error::ReadOnly`](crate::Error::ReadOnly); [`Error::Closed`](crate::Error::Closed). After
    /// [`Error::Io`](crate::Error::Io) and [`Error::SyncFailed`](crate::Error::SyncFailed) the
    /// records may be deleted or not.
    ///
    /// On a replicated broker also [`Error::NotLeader`](crate::Error::NotLeader), and
    /// [`Error::Config`](crate::Error::Config) if the transport or an event of the member calls it:
    /// nothing is deleted then. After [`Error::LeadershipLost`](crate::Error::LeadershipLost),
    /// [`Error::Timeout`](crate::Error::Timeout) and the error by which the member has failed, this
    /// member has deleted the records, and it is not known whether a majority has noted that: if
    /// another member leads, they may be there again. The call can be repeated, at the leader.
    ///
    /// # Durability
    ///
    /// On return the records stay deleted after any crash. If a removed file appears again after a
    /// loss of power, the next opening removes it.
    ///
    /// On a replicated broker a majority of the members has noted the log start on stable storage: the
    /// records stay deleted, whatever member leads.
    ///
    /// # Blocking
    ///
    /// For the disk: two syncs, and one of the directory. On a replicated broker then for a majority of
    /// the members, at most the acknowledgement timeout of the group, of real time; without background
    /// threads the call [ticks](crate::ReplicationHandle::tick) itself.
    #[doc(alias = "deleteRecords")]
    pub fn delete_records(&self, partition: impl Into<TopicPartition>, before: u64) -> Result<u64> {
        let partition = partition.into();
        #[cfg(feature = "replication")]
        if let Some(member) = self.run().attached() {
            member.check_wait()?;
        }
        let deleted = self.run().space().retention().delete_records(&partition, before)?;
        #[cfg(feature = "replication")]
        if deleted.led.is_some()
            && let Some(member) = self.run().attached()
        {
            let id = (deleted.topic, partition.partition);
            member.wait_start(id, before, deleted.led.number())?;
        }
        Ok(deleted.log_start)
    }

    /// Applies the retention settings of all topics now. This also happens in the background every
    /// minute, in each [`Broker::tick`](crate::Broker::tick), and, for
    /// [`retention_bytes`](crate::TopicConfig::retention_bytes), whenever a segment is full.
    ///
    /// # Errors
    ///
    /// All partitions are tried, and the error of the first one that failed is returned: for
    /// example [`Error::Io`](crate::Error::Io), [`Error::StorageFull`](crate::Error::StorageFull)
    /// or [`Error::SyncFailed`](crate::Error::SyncFailed).
    /// [`Error::ReadOnly`](crate::Error::ReadOnly), [`Error::Closed`](crate::Error::Closed). On a
    /// replicated broker [`Error::NotLeader`](crate::Error::NotLeader).
    ///
    /// # Durability
    ///
    /// On return removed records stay removed after any crash.
    ///
    /// # Blocking
    ///
    /// For the disk, until everything that has expired is removed.
    pub fn enforce_retention_now(&self) -> Result<()> {
        self.run().leading().check()?;
        self.run().space().retention().enforce()
    }
}
