//! The newest records of a topic, of all its partitions together.
//!
//! Owns: at most so many of them, as they are printed. The order is that of their timestamps; within
//! a partition it is that of the offsets, whatever the timestamps are.

use std::collections::BTreeMap;
use std::time::SystemTime;

use logpond::MessageRef;

pub(crate) struct Newest {
    limit: u64,
    /// By the latest timestamp of the partition up to the record, the partition and the offset.
    records: BTreeMap<(SystemTime, u32, u64), String>,
    latest: BTreeMap<u32, SystemTime>,
}

impl Newest {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, records: BTreeMap::new(), latest: BTreeMap::new() }
    }

    /// Adds a record; those of one partition in the order of their offsets.
    pub(crate) fn add(&mut self, message: &MessageRef<'_>, shown: String) {
        self.insert(message.timestamp(), message.partition(), message.offset(), shown);
    }

    fn insert(&mut self, timestamp: SystemTime, partition: u32, offset: u64, shown: String) {
        let latest = self.latest.entry(partition).or_insert(timestamp);
        *latest = timestamp.max(*latest);
        self.records.insert((*latest, partition, offset), shown);
        if self.records.len() as u64 > self.limit {
            self.records.pop_first();
        }
    }

    pub(crate) fn into_records(self) -> impl Iterator<Item = String> {
        self.records.into_values()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_of_all_partitions_are_kept_and_each_partition_is_in_order() {
        let kept = |limit| {
            let mut newest = Newest::new(limit);
            // Partition 1 was filled by a clock that went back.
            for (seconds, partition, offset) in
                [(1, 0, 0), (4, 0, 1), (6, 0, 2), (5, 1, 0), (2, 1, 1), (3, 1, 2)]
            {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                newest.insert(time, partition, offset, format!("{partition}-{offset}"));
            }
            newest.into_records().collect::<Vec<_>>()
        };
        assert_eq!(kept(9), ["0-0", "0-1", "1-0", "1-1", "1-2", "0-2"]);
        assert_eq!(kept(3), ["1-1", "1-2", "0-2"]);
        assert_eq!(kept(0), [""; 0]);
    }
}
