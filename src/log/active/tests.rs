//! The active segment: what its check finds, and what a sync takes from it.

use super::*;
use crate::format::BatchEncoder;
use crate::log::Log;
use crate::log::appender::tests::{log, log_of};
use crate::log::tasks::SyncScope;

#[test]
fn the_check_finds_ends_that_are_out_of_order() {
    let mut active = log().appender.take_active().unwrap();
    assert_eq!(active.check(), Ok(()));
    active.synced_end = active.position + 1;
    assert!(active.check().is_err(), "synced beyond what was written");
    active.position = active.capacity() + 1;
    active.synced_end = active.position;
    assert!(active.check().is_err(), "written beyond the capacity");
}

/// Symptom: after a sync, stores went to pages to which the kernel had taken the right to store:
/// where the disk is full, the process ends there with a signal. Cause: once the writer had got
/// the right back up to where it knew of space, it took all later space for storable, of which
/// the background had made some before the sync. Rule: after a sync, the right is restored for
/// each folio before the first store there.
// RED: src/log/active.rs
//   - self.storable = until;
//   + self.storable = if until < end.next_multiple_of(RESTORED_BYTES) { usize::MAX } else { until };
#[test]
fn row_d20_after_a_sync_the_right_to_store_is_restored_before_each_store() {
    let mut log = log_of(1 << 20, Writer::Stores);
    let value = [b'v'; 3_000];
    let append = |log: &mut Log| {
        let mut encoder = BatchEncoder::new();
        encoder.push(1, None, Some(&value), std::iter::empty::<(&str, &[u8])>()).unwrap();
        log.append(&mut encoder.finish(), None, Way::AsUsual).unwrap();
    };
    append(&mut log);
    for _ in 0..200 {
        let growth = log.appender().growth_needed();
        growth.map_or(Ok(()), |growth| growth.run()).unwrap();
        let task = log.begin_sync(SyncScope::All);
        task.run().unwrap();
        log.finish_sync(&task);
        append(&mut log);
        let active = log.appender().active().unwrap();
        let storable = active.position..=active.writer.writable();
        assert!(storable.contains(&active.storable), "{} in {storable:?}", active.storable);
    }
    assert_eq!(log.segments().count(), 1);
}

#[test]
fn the_check_finds_a_position_that_is_not_what_readers_see() {
    let mut active = log().appender.take_active().unwrap();
    for position in [active.position + 1, active.position - 1] {
        active.position = position;
        active.synced_end = 0;
        assert!(active.check().is_err(), "{position}");
    }
}
