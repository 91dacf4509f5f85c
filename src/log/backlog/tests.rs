//! Sealed segments: in which order they are synced and finished, and how they are found.

use std::path::Path;

use super::*;
use crate::format::{SegmentHeader, TopicId};
use crate::log::LogEnv;
use crate::log::budget::{Claim, SpaceBudget};
use crate::log::segment::{Sealed, SegmentFile};
use crate::record::TopicPartition;
use crate::storage::disk::MemoryDisk;

/// A sealed segment of ten records.
fn unfinished(number: u64) -> Unfinished {
    let env = Arc::new(LogEnv::for_reading(Arc::new(MemoryDisk::new())));
    let header = SegmentHeader {
        topic_id: TopicId([7; 16]),
        partition: 0,
        number,
        salt: 1,
        generation: 0,
        rewrite: None,
        incompatible: 0,
        compatible: 0,
    };
    let sealed = Sealed { data_end: 4096, next_offset: (number + 1) * 10, times: None };
    let origin = Arc::new(TopicPartition::from(("t", 0)));
    let file = SegmentFile::new(&origin, Path::new("/t/segment"), &header, number * 10);
    let claim = Claim::of_file(&SpaceBudget::unlimited(), 0);
    let segment = Segment::found(&env, file, sealed, claim);
    Unfinished {
        index: SparseIndex::new(segment.base_offset),
        segment,
        is_found: true,
        index_is_whole: true,
        producers: Vec::new(),
        leader_epoch: 0,
        incarnation: 0,
        sealed_to: 0,
    }
}

/// It is asked under the lock that appends take, at each seal: of a log with segments of 16 KiB,
/// 65,000 were looked at each time.
// RED: src/log/backlog.rs
//   - let beyond = self.unfinished.partition_point(is_beyond);
//   + let beyond = self.unfinished.iter().filter(|it| is_beyond(it)).count();
#[test]
fn row_d23_what_a_producer_waits_for_is_found_without_a_walk_over_all_segments() {
    let mut backlog = Backlog::default();
    let mut fill = |count: u64, first: u64| {
        for number in first..first + count {
            backlog.add_found(unfinished(number), Some(0..10));
        }
        let steps = crate::steps::of(|| {
            // Each has a page: with three more than that, the last four may be un-synced.
            let end = (first + count - 4) * 10;
            assert_eq!(backlog.end_beyond(3 * 4096), Some(end));
        });
        (backlog.end_beyond(u64::MAX), steps)
    };
    assert_eq!(fill(10, 1).0, None);
    let (_, steps) = fill(2_000, 11);
    assert!(steps <= 12, "{steps}");
    let task = backlog.begin_sync(Arc::new(SegmentList::new([])), 0);
    backlog.finish_sync(&task);
    assert_eq!(backlog.end_beyond(3 * 4096), None, "all are synced");
}

#[test]
fn the_check_finds_segments_that_are_out_of_order() {
    let mut backlog = Backlog::default();
    backlog.add_found(unfinished(1), None);
    backlog.add_found(unfinished(2), Some(0..10));
    assert_eq!(backlog.check(), Ok(()));
    backlog.unfinished.swap(0, 1);
    assert!(backlog.check().is_err());
    backlog.unfinished.swap(0, 1);
    backlog.unfinished.push_back(unfinished(2));
    assert!(backlog.check().is_err(), "the same rank twice");
}

#[test]
fn a_footer_waits_for_the_sync_of_all_segments_before() {
    let mut backlog = Backlog::default();
    backlog.add_found(unfinished(1), Some(0..10));
    backlog.add_found(unfinished(2), None);
    assert!(backlog.begin_footer(None).is_none(), "the first may not be on the disk");
    let task = backlog.begin_sync(Arc::new(SegmentList::new([])), 30);
    assert!(backlog.begin_footer(None).is_none(), "the sync is under way");
    backlog.finish_sync(&task);
    let footer = backlog.begin_footer(None).unwrap();
    assert_eq!(footer.footer.base_offset, 10);
    backlog.finish_footer(&footer);
    assert_eq!(backlog.begin_footer(None).unwrap().footer.base_offset, 20);
    assert_eq!(backlog.sealed_end(), Some(30));
}

#[test]
fn what_retention_has_removed_waits_for_nothing() {
    let mut backlog = Backlog::default();
    backlog.add_found(unfinished(1), Some(0..10));
    backlog.add_found(unfinished(2), Some(0..10));
    backlog.remove_up_to(1);
    assert!(!backlog.lacks_footer(1));
    let task = backlog.begin_sync(Arc::new(SegmentList::new([])), 30);
    assert_eq!(task.unproved.len(), 1);
    backlog.give_back_sync(task);
    assert!(backlog.is_unproved(&backlog.without_footer(2).unwrap().segment));
}
