//! Counts the memory and disk space of unlinked segment files that readers still map.
//!
//! A segment that is removed adds its map to this list as a weak reference. The map ends with its
//! last reader, and readers never use this list.

use std::sync::{Arc, Weak};

use crate::record::TopicPartition;
use crate::storage::region::Region;
use crate::sync::{LockLevel, Mutex};

#[derive(Debug)]
struct Pinned {
    origin: Arc<TopicPartition>,
    region: Weak<Region>,
    bytes: u64,
}

/// The maps of a broker's removed segments.
#[derive(Debug)]
pub(crate) struct PinnedMaps(Mutex<Vec<Pinned>>);

impl PinnedMaps {
    pub(crate) fn new() -> Self {
        Self(Mutex::at_level(LockLevel::PinnedMaps, Vec::new()))
    }

    /// Takes note of the map of a segment that is unlinked. Dropped maps are forgotten
    /// when the list would grow, so it has at most twice as many as there are.
    pub(crate) fn note(&self, origin: &Arc<TopicPartition>, region: &Arc<Region>, bytes: u64) {
        let mut maps = self.0.lock();
        if maps.len() == maps.capacity() {
            maps.retain(|map| map.region.strong_count() > 0);
            let room = maps.len().max(8);
            maps.reserve(room);
        }
        maps.push(Pinned { origin: Arc::clone(origin), region: Arc::downgrade(region), bytes });
    }

    /// By partition, also of deleted topics, and by identity: a partition that was created again
    /// with the same name is another one.
    pub(crate) fn by_partition(&self) -> Vec<(Arc<TopicPartition>, u64)> {
        let mut maps = self.0.lock();
        maps.retain(|map| map.region.strong_count() > 0);
        maps.iter().map(|map| (Arc::clone(&map.origin), map.bytes)).collect()
    }
}
