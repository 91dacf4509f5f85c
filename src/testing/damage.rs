//! Damage on the disk of a test broker: one record is changed, or the tail of one log is lost.
//!
//! Owns: nothing; functions over a broker and its disk. Must not know: why a test wants it.

use std::path::Path;

use crate::broker::Broker;
use crate::config::Visibility;
use crate::error::{Error, Result};
use crate::format::partition_dir_name;
use crate::log::cursor::{FetchLimits, Fetched};
use crate::record::TopicPartition;
use crate::seams::DIR;
use crate::storage::disk::SimulatedDisk;

/// Whether a path is of a file of this partition.
fn is_of(path: &Path, partition: &TopicPartition) -> bool {
    let dir = Path::new(DIR).join(&*partition.topic);
    path.starts_with(dir.join(partition_dir_name(partition.partition)))
}

/// Changes the last byte of the batch that holds a record, in its file.
///
/// # Errors
///
/// [`Error::UnknownTopic`], [`Error::UnknownPartition`], and [`Error::OffsetOutOfRange`] where there
/// is no such record in the files.
pub(super) fn corrupt(
    broker: &Broker,
    disk: &SimulatedDisk,
    partition: &TopicPartition,
    offset: u64,
) -> Result<()> {
    let topic = broker.run().topic(&partition.topic)?;
    let core = topic.partition(partition.partition)?;
    let visible_end = core.visible_end(Visibility::Published);
    let absent = || Error::out_of_range(partition, offset, core.log_start(), visible_end);
    if offset >= visible_end {
        return Err(absent());
    }
    core.reader().check_range(offset, visible_end)?;
    let mut cursor = core.reader().cursor_at(offset)?;
    let limits = FetchLimits { records: 1, bytes: 1, visible_end };
    let mut fetched = Fetched::default();
    core.reader().fetch(&mut cursor, &limits, &mut fetched)?;
    let batch = fetched.ranges.first().and_then(|range| range.region.bytes(range.span.clone()));
    let batch = batch.filter(|batch| !batch.is_empty()).ok_or_else(absent)?;
    for path in disk.paths().into_iter().filter(|path| is_of(path, partition)) {
        let file = disk.read(&path).map_err(|source| Error::io("read", &path, source))?;
        // A batch begins with its offset and checksum: no other bytes are the same.
        if let Some(at) = file.windows(batch.len()).position(|bytes| bytes == batch) {
            let last = (at + batch.len() - 1) as u64;
            return disk.corrupt(&path, last, 1).map_err(|it| Error::io("corrupt", &path, it));
        }
    }
    Err(absent())
}

/// Makes everything on the disk durable, except for the files of one partition.
pub(super) fn sync_all_but(disk: &SimulatedDisk, partition: &TopicPartition) {
    disk.sync_all_but(|path| is_of(path, partition));
}
