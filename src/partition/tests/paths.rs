//! Acts by path while no lock is held: the end of the partition waits for each of them, and none
//! begins after it. Afterwards the path may lead to a file of the next topic of this name.

use super::super::compactor::CompactionSettings;
use super::super::state_log::entries::RecordedAt;
use super::super::state_log::{Evidence, LoggedState, StateLog};
use super::*;
use crate::error::CorruptionKind;
use crate::log::tasks::SyncScope;

/// A partition on a disk that notes, at each removal, whether the end would wait for it.
fn watched() -> (Setup, Arc<Mutex<Vec<bool>>>) {
    let core: Arc<Mutex<Option<Arc<PartitionCore>>>> = Arc::default();
    let waits: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (watched, noted) = (Arc::clone(&core), Arc::clone(&waits));
    let setup = Setup::hooked(move |operation, side| {
        let watched = watched.lock().clone();
        if let (Operation::Remove, Side::Before, Some(core)) = (operation, side, watched) {
            noted.lock().push(core.work_under_way().0);
        }
    });
    *core.lock() = Some(Arc::clone(&setup.core));
    (setup, waits)
}

fn fill(setup: &Setup, segments: usize) {
    for _ in 0..segments {
        setup.append("v").unwrap();
        setup.core.with_log(|log| log.roll_for(0)).unwrap();
    }
    setup.core.flush().unwrap();
}

/// Symptom: three records acknowledged at `Sync` were lost, and the broker did not open. Cause:
/// retention takes segments out of the log and unlinks them by path without the lock; a deletion of
/// the topic did not wait for it, so the path led to the first segment of the next topic of this
/// name. Rule: the deletion waits for every removal, the first attempt and the later ones.
// RED: src/partition/retention.rs
//   - let Ok(_removing) = self.log.begin_disk_work() else { return };
//   + let _removing = ();
#[test]
fn row_a20_a23_the_end_waits_for_every_removal() {
    let (setup, waits) = watched();
    fill(&setup, 3);
    setup.disk.inject(Fault::once(Operation::Remove, ErrorKind::Other).after(2));
    setup.core.retention().retire(3).unwrap();
    assert_eq!(*waits.lock(), [true; 3], "retention");
    assert!(!setup.core.retention().keeps_leftovers());
    assert_eq!(*waits.lock(), [true; 4], "the second attempt");
    fill(&setup, 1);
    setup.core.close();
    setup.core.await_work();
    setup.core.retention().retire(4).unwrap();
    setup.core.retention().retry_removals();
    assert_eq!(waits.lock().len(), 4, "removed by a path that was given up");
}

const ANYTHING: Evidence = Evidence { had_snapshot: false, had_records: false, anew_at: 0 };

/// A sum.
#[derive(Default)]
struct Sum(u64);

impl LoggedState for Sum {
    type Change = u64;

    fn check(&self, _: &u64) -> Result<(), CorruptionKind> {
        Ok(())
    }

    fn apply(&mut self, change: u64, _: RecordedAt) {
        self.0 = self.0.saturating_add(change);
    }

    fn is_live(&self, _: &u64, _: u64) -> bool {
        false
    }

    fn live_bytes(&self) -> u64 {
        0
    }

    fn snapshot(&self) -> Vec<u64> {
        vec![self.0]
    }
}

/// The internal logs remove what was cleaned up, by path, while another broker may wait for the
/// directory.
// RED: src/partition/state_log/cleaning.rs
//   - let Some(_removing) = self.partition.log().disk_work().begin() else { return Ok(()) };
//   + let _removing = ();
#[test]
fn row_f01_the_end_waits_for_the_removals_of_an_internal_log() {
    let (setup, waits) = watched();
    let disk = Arc::new(HookedDisk::new(Arc::new(setup.disk.clone()), {
        let (core, waits) = (Arc::clone(&setup.core), Arc::clone(&waits));
        move |operation, side| {
            if (operation, side) == (Operation::Remove, Side::Before) {
                waits.lock().push(core.work_under_way().0);
            }
        }
    }));
    let log = StateLog::<Sum>::open(Arc::clone(&setup.core), disk, ANYTHING, &[]).unwrap();
    log.start(vec![1], false).unwrap();
    for _ in 0..6 {
        setup.core.with_log(|log| log.roll_for(0)).unwrap();
        log.append(vec![1]).unwrap();
    }
    log.clean_up(|| true).unwrap();
    assert_eq!(log.read(|sum| sum.0), 7);
    assert!(!waits.lock().is_empty());
    assert!(waits.lock().iter().all(|waits| *waits), "{waits:?}");
}

/// A tail of the run before is written once more, by its path, before the first sync. Written after
/// a deletion, it would overwrite records of the next topic.
// RED: src/partition/flusher.rs
//   - if matches!(rewriting, Some(None)) {
//   + if matches!(rewriting, Some(None)) && task.target == u64::MAX {
#[test]
fn row_a23_no_tail_is_written_again_after_the_end() {
    let before = Setup::new(Durability::Os);
    before.append("1").unwrap();
    let setup = Setup::recovered(before.disk.kill9(), true);
    setup.core.close();
    setup.core.await_work();
    let points = setup.disk.store_points();
    let synced = setup.core.flusher().sync_once(SyncScope::All);
    assert!(matches!(synced, Err(Error::Closed)), "{synced:?}");
    assert_eq!(setup.disk.store_points(), points, "written");
}

/// A compaction that found the partition open, and came to its claim after the end, began in a
/// directory that was given up.
// RED: src/partition/compactor.rs
//   - let settings = slot.settings.filter(|_| !slot.is_taken() && !self.is_closed())?;
//   + let settings = slot.settings.filter(|_| !slot.is_taken())?;
#[test]
fn row_a23_no_compaction_begins_after_the_end() {
    let setup = Setup::new(Durability::Sync);
    let settings = CompactionSettings {
        min_dirty_ratio: 1.0,
        tombstone_retention: Duration::from_secs(60),
        segment_bytes: 1,
    };
    setup.core.compactor().set(Some(settings));
    drop(setup.core.compactor().claim().unwrap());
    setup.core.close();
    setup.core.await_work();
    assert!(setup.core.compactor().claim().is_none());
    let compacted = setup.core.compactor().run_now(|| false);
    assert!(matches!(compacted, Err(Error::Closed)), "{compacted:?}");
}

/// A compaction that ends before its end removes its temporary file before it gives up its claim,
/// and so does a change of the settings.
#[test]
fn row_a23_the_end_waits_until_the_file_of_a_compaction_is_removed() {
    let settings = |segment_bytes| {
        let tombstone_retention = Duration::from_secs(60);
        Some(CompactionSettings { min_dirty_ratio: 1.0, tombstone_retention, segment_bytes })
    };
    for is_under_way in [true, false] {
        let (setup, waits) = watched();
        setup.core.compactor().set(settings(1));
        for value in ["1", "2", "3"] {
            let record = Record::new().key("a").value(value);
            let options = AppendOptions::default();
            let mut encoder = Encoder::take();
            let mut batch = encoder.encode([&record], RULES, 0).unwrap();
            setup.core.append(&mut batch, &options).unwrap();
            setup.core.with_log(|log| log.roll_for(0)).unwrap();
        }
        while setup.core.footers().step().unwrap() {}
        let has_temporary =
            || setup.disk.paths().iter().any(|path| path.extension().is_some_and(|it| it == "tmp"));
        while !has_temporary() {
            assert!(setup.core.compactor().step().unwrap());
        }
        let claim = is_under_way.then(|| setup.core.compactor().claim().unwrap());
        setup.core.compactor().set(settings(2));
        drop(claim);
        assert!(!has_temporary());
        assert_eq!(*waits.lock(), [true], "under way: {is_under_way}");
    }
}
