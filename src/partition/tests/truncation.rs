//! What happens beside a truncation: nothing else changes the log meanwhile.
//!
//! Method: the disk calls back while the truncation makes its segment; another thread then tries to
//! change the log. It has to wait, and every image that a crash leaves from then on opens.

use std::sync::{OnceLock, mpsc};
use std::thread::{self, JoinHandle};

use super::super::compactor::CompactionSettings;
use super::super::quorum::Quorum;
use super::super::replica::Replica;
use super::*;
use crate::log::replica::refusal::Failure;

type Change = fn(&Arc<PartitionCore>);

/// What happens at the operations of a disk while a truncation is under way.
struct Beside {
    core: OnceLock<Arc<PartitionCore>>,
    is_armed: AtomicBool,
    change: Change,
    changing: Mutex<Option<JoinHandle<()>>>,
    has_waited: AtomicBool,
}

impl Beside {
    /// Begins the change in another thread, and returns when that waits or has ended.
    fn begin(&self) {
        let (core, change) = (self.core.get().unwrap(), self.change);
        let its = Arc::clone(core);
        let thread = thread::spawn(move || change(&its));
        while core.log.state().waiting() == 0 && !thread.is_finished() {
            thread::yield_now();
        }
        self.has_waited.store(!thread.is_finished(), Ordering::Relaxed);
        *self.changing.lock() = Some(thread);
    }
}

/// Six records, truncated to four, with a change from the moment on at which the new segment is to get
/// its name. Returns the partition, and the images that a kill would have left.
fn truncated_beside(change: Change) -> (Setup, Vec<SimulatedDisk>) {
    let beside = Arc::new(Beside {
        core: OnceLock::new(),
        is_armed: AtomicBool::new(false),
        change,
        changing: Mutex::default(),
        has_waited: AtomicBool::new(false),
    });
    let disk: Arc<OnceLock<SimulatedDisk>> = Arc::default();
    let images: Arc<Mutex<Vec<SimulatedDisk>>> = Arc::default();
    let (its, files, found) = (Arc::clone(&beside), Arc::clone(&disk), Arc::clone(&images));
    let setup = Setup::hooked(move |operation, side| {
        if (operation, side) == (Operation::Rename, Side::Before)
            && its.is_armed.swap(false, Ordering::Relaxed)
        {
            its.begin();
        }
        if side == Side::After && its.changing.lock().is_some() {
            found.lock().push(files.get().unwrap().kill9());
        }
    });
    beside.core.set(Arc::clone(&setup.core)).ok().unwrap();
    disk.set(setup.disk.clone()).ok().unwrap();
    for number in 0..6 {
        setup.append(&number.to_string()).unwrap();
    }
    beside.is_armed.store(true, Ordering::Relaxed);
    assert_eq!(Replica::of(&setup.core).truncate(4, 2).unwrap(), 4);
    let thread = beside.changing.lock().take().unwrap();
    thread.join().unwrap();
    assert!(beside.has_waited.load(Ordering::Relaxed), "it has not waited");
    let images = std::mem::take(&mut *images.lock());
    assert!(images.len() > 1);
    (setup, images)
}

/// Symptom: what was begun or removed while a log was truncated (by retention, by a deletion of
/// records, by an append) contradicted the new segment. After a crash the log was damaged, or had
/// again what was cut off; without one, the partition was poisoned. Rule: it waits.
// RED: src/partition/guard.rs
//   - while state.awaits_reserved() {
//   + while false {
// RED: src/partition/retention.rs
//   - let mut state = self.log.state().lock_for_change();
//   + let mut state = self.log.lock();
#[test]
fn row_h05_what_changes_a_log_waits_while_it_is_truncated() {
    let changes: [(&str, Change); 6] = [
        ("a move of the log start", |core| core.retention().retire(1).unwrap()),
        ("a deletion of records", |core| {
            let tail = core.retention().plan_deletion(core.log_end()).unwrap().1;
            assert!(core.retention().roll_tail(&tail).unwrap());
        }),
        ("a roll", |core| core.with_log(|log| log.roll_for(0)).unwrap()),
        ("an append", |core| {
            assert_eq!(append(core, "new", &AppendOptions::default()).unwrap(), 5);
        }),
        ("the end of appends", |core| core.log().end_appends()),
        ("a watermark", |core| {
            Quorum::of(core).begin();
            assert_eq!(Quorum::of(core).advance(6), 4);
        }),
    ];
    for (name, change) in changes {
        let (setup, images) = truncated_beside(change);
        let core = &setup.core;
        let ends = (core.log_start(), core.log_end());
        let start = u64::from(name == "a move of the log start");
        let end = if name == "an append" { 5 } else { 4 };
        assert_eq!(ends, (start, end), "{name}");
        for image in images.into_iter().chain([setup.disk.kill9()]) {
            let recovered = Setup::recovered(image, true);
            let values = recovered.values();
            let (kept, after) = values.split_at(4);
            assert_eq!(kept, ["0", "1", "2", "3"], "{name}");
            let is_known = after.is_empty() || after == ["4", "5"] || after == ["new"];
            assert!(is_known, "{name}: {after:?}");
        }
        let closed = Error::Closed;
        let appended = setup.append("more");
        match name {
            "the end of appends" => {
                assert_eq!(format!("{appended:?}"), format!("{:?}", Err::<u64, _>(closed)));
            }
            _ => assert_eq!(appended.unwrap(), end + 1, "{name}"),
        }
    }
}

const SETTINGS: CompactionSettings = CompactionSettings {
    min_dirty_ratio: 0.0,
    tombstone_retention: Duration::from_secs(60),
    segment_bytes: 1,
};

/// Three values of a key, each in a segment with a footer, of which two can be compacted.
fn fill_compacted(setup: &Setup) {
    setup.core.compactor().set(Some(SETTINGS));
    for value in ["1", "2", "3"] {
        let mut encoder = Encoder::take();
        let record = Record::new().key("a").value(value);
        let mut batch = encoder.encode([&record], RULES, 0).unwrap();
        setup.core.append(&mut batch, &AppendOptions::default()).unwrap();
        setup.core.with_log(|log| log.roll_for(0)).unwrap();
    }
    while setup.core.footers().step().unwrap() {}
}

fn has_temporary(setup: &Setup) -> bool {
    setup.disk.paths().iter().any(|path| path.extension().is_some_and(|it| it == "tmp"))
}

/// Symptom: a compaction that was given a later number than the new beginning of the log brought back,
/// after a crash, what it had read before. Rule: what is begun is given up, and none begins.
// RED: src/partition/replica.rs
//   - let suspended = self.compactor.suspend();
//   + let suspended = ();
#[test]
fn row_h05_no_compaction_is_under_way_while_a_log_begins_anew() {
    let core: Arc<OnceLock<Arc<PartitionCore>>> = Arc::default();
    let (its, claims) = (Arc::clone(&core), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&claims);
    let setup = Setup::hooked(move |operation, side| {
        if (operation, side) == (Operation::Rename, Side::Before)
            && let Some(core) = its.get()
        {
            assert!(core.compactor().claim().is_none());
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    fill_compacted(&setup);
    while !has_temporary(&setup) {
        assert!(setup.core.compactor().step().unwrap());
    }
    core.set(Arc::clone(&setup.core)).ok().unwrap();
    assert_eq!(Replica::of(&setup.core).begin_anew(2, None).unwrap(), 2);
    assert_eq!(claims.load(Ordering::Relaxed), 1);
    assert!(!has_temporary(&setup), "it is not given up");
    assert_eq!(setup.disk.paths().iter().filter(|it| it.extension().is_some()).count(), 1);
    assert!(!setup.core.compactor().stats().unwrap().is_running);
    assert!(setup.core.compactor().claim().is_some(), "later ones may begin");
}

/// After a truncation what is still to be compacted is asked for again: threads that came
/// meanwhile were turned away.
// RED: src/partition/replica.rs
//   - self.compactor.request(Occasion::Due);
#[test]
fn what_is_to_be_compacted_is_asked_for_again_after_a_truncation() {
    let setup = Setup::new(Durability::Sync);
    fill_compacted(&setup);
    setup.append("last").unwrap();
    setup.requests();
    Replica::of(&setup.core).truncate(3, 3).unwrap();
    assert!(setup.requests().contains(&Work::Compact));
}

/// A compaction that a caller waits for takes as long as the log is large, and pauses beside appends.
/// A truncation does not wait for it, nor is it lost.
// RED: src/partition/compactor.rs
//   - claim = self.give_way(claim, &mut tally)?;
#[test]
fn a_compaction_that_was_asked_for_gives_way_to_a_truncation() {
    let clock: Arc<OnceLock<ManualClock>> = Arc::default();
    let its = Arc::clone(&clock);
    let setup = Setup::hooked(move |_, _| {
        // So long a step that a pause follows.
        its.get().into_iter().for_each(|clock| clock.advance(Duration::from_secs(60)));
    });
    fill_compacted(&setup);
    clock.set(setup.clock.clone()).ok().unwrap();
    setup.append("last").unwrap();
    setup.noted.is_running.store(true, Ordering::Relaxed);
    let mut truncating = None;
    let tally = setup.core.compactor().run_now(|| {
        let Some(thread) = &truncating else {
            let core = Arc::clone(&setup.core);
            truncating = Some(thread::spawn(move || Replica::of(&core).truncate(3, 3)));
            while !setup.core.compactions.is_suspended() {
                thread::yield_now();
            }
            return true;
        };
        // The truncation came in between.
        assert!(!setup.core.compactions.is_suspended());
        assert_eq!(setup.core.log_end(), 3, "{thread:?}");
        false
    });
    assert_eq!(truncating.unwrap().join().unwrap().unwrap(), 3);
    assert_eq!(tally.unwrap().records_removed, 2);
    assert_eq!(setup.values(), ["3"]);
}

/// Symptom: a truncation, or a close, that came while a step was under way waited for the pause after
/// it, because it had notified before that began. Rule: a pause begins with a look.
// RED: src/partition/compactor.rs
//   - while slot.suspended == 0 && !self.is_closed() {
//   + loop {
#[test]
fn a_compaction_does_not_pause_while_a_truncation_or_a_close_waits_for_it() {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let hours = Duration::from_secs(10_000);
        let setup = Setup::new(Durability::Sync);
        let suspended = setup.core.compactor().suspend();
        setup.core.compactor().pause(hours);
        drop(suspended);
        sender.send("suspended").unwrap();
        setup.core.close();
        setup.core.compactor().pause(hours);
        sender.send("closed").unwrap();
    });
    for before in ["suspended", "closed"] {
        assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(before), "it pauses for hours");
    }
}

/// Symptom: when appends ended just before a truncation reserved the log, the truncation returned
/// `Closed`, and the next opening found the log cut. Rule: that is looked at under the lock under
/// which the log is reserved.
// RED: src/partition/replica.rs
//   - let _reserved = self.log.state().reserve(|state| check_usable(self.log, state))?;
//   + let _reserved = self.log.state().reserve(|_| Ok(()))?;
#[test]
fn a_truncation_after_the_end_of_appends_changes_nothing() {
    let setup = Setup::new(Durability::Sync);
    for number in 0..6 {
        setup.append(&number.to_string()).unwrap();
    }
    setup.core.log().end_appends();
    let files = setup.disk.paths();
    let refused = Replica::of(&setup.core).truncate(4, 2);
    assert!(matches!(refused, Err(Failure::Failed(Error::Closed))), "{refused:?}");
    assert_eq!(setup.disk.paths(), files);
    assert_eq!(Setup::recovered(setup.disk.kill9(), true).values().len(), 6);
}
