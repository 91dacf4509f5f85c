//! Compactions that do not come to their end, and what is remembered of them.

use super::super::compactor::CompactionSettings;
use super::*;
use crate::log::verify::Findings;

const TOMBSTONES_KEPT: Duration = Duration::from_secs(60);

/// As small as can be: no two segments become one, and nothing is due but what is overdue.
const SETTINGS: CompactionSettings = CompactionSettings {
    min_dirty_ratio: 1.0,
    tombstone_retention: TOMBSTONES_KEPT,
    segment_bytes: 1,
};

/// A record with a key, or a tombstone, in a segment of its own.
fn put(setup: &Setup, key: &str, value: Option<&str>) {
    let record = Record::new().key(key);
    let record = value.map_or_else(|| record.clone().tombstone(), |it| record.clone().value(it));
    let options = AppendOptions::default();
    let mut encoder = Encoder::take();
    let mut batch = encoder.encode([&record], RULES, 0).unwrap();
    setup.core.append(&mut batch, &options).unwrap();
    setup.core.with_log(|log| log.roll_for(0)).unwrap();
}

fn finish(setup: &Setup) {
    while setup.core.footers().step().unwrap() {}
}

/// A partition that is compacted, with these values of one key.
fn compacted(values: &[Option<&str>]) -> Setup {
    let setup = Setup::new(Durability::Sync);
    setup.core.compactor().set(Some(SETTINGS));
    for value in values {
        put(&setup, "a", *value);
    }
    finish(&setup);
    setup
}

fn has_temporary(setup: &Setup) -> bool {
    setup.disk.paths().iter().any(|path| path.extension().is_some_and(|it| it == "tmp"))
}

/// Steps until a new segment is being written.
fn begin(setup: &Setup) {
    while !has_temporary(setup) {
        assert!(setup.core.compactor().step().unwrap());
    }
    assert!(setup.core.compactor().stats().unwrap().is_running);
}

#[test]
fn other_settings_give_up_what_was_begun_by_the_earlier_ones() {
    let longer = CompactionSettings { tombstone_retention: TOMBSTONES_KEPT * 2, ..SETTINGS };
    for other in [None, Some(longer)] {
        let setup = compacted(&[Some("1"), Some("2"), None]);
        begin(&setup);
        setup.core.compactor().set(Some(SETTINGS));
        assert!(has_temporary(&setup), "the same settings change nothing");
        setup.core.compactor().set(other);
        assert!(!has_temporary(&setup), "{other:?}");
        // Long after, the tombstone gets its whole time from the compaction that keeps it.
        setup.clock.advance(TOMBSTONES_KEPT * 9);
        setup.core.compactor().set(Some(SETTINGS));
        assert!(!setup.core.compactor().stats().unwrap().is_running, "{other:?}");
        setup.core.compactor().run_all();
        setup.clock.advance(TOMBSTONES_KEPT / 2);
        let early = setup.core.compactor().run_now(|| false).unwrap();
        assert_eq!(early.tombstones_removed, 0, "{other:?}");
        setup.clock.advance(TOMBSTONES_KEPT / 2);
        let late = setup.core.compactor().run_now(|| false).unwrap();
        assert_eq!(late.tombstones_removed, 1, "{other:?}");
    }
}

/// The settings change while somebody else is at a step.
#[test]
fn a_step_under_way_does_not_put_back_what_other_settings_have_outdated() {
    let setup = compacted(&[Some("1"), Some("2")]);
    begin(&setup);
    let claim = setup.core.compactor().claim().unwrap();
    setup.core.compactor().set(None);
    assert!(has_temporary(&setup), "it is in use");
    drop(claim);
    assert!(!has_temporary(&setup));
    setup.core.compactor().set(Some(SETTINGS));
    assert!(!setup.core.compactor().stats().unwrap().is_running);
}

#[test]
fn what_was_done_before_a_compaction_was_given_up_is_counted() {
    let setup = compacted(&[Some("1"), Some("2"), Some("3")]);
    let written = || setup.core.compactor().stats().unwrap().segments_written;
    while written() == 0 {
        assert!(setup.core.compactor().step().unwrap());
    }
    setup.core.compactor().set(None);
    setup.core.compactor().set(Some(SETTINGS));
    assert_eq!(written(), 1);
}

/// Retention takes an input away, so that the compaction ends before it has come to the tombstone.
#[test]
fn a_compaction_that_is_cut_short_forgets_no_tombstone() {
    let setup = compacted(&[Some("1"), None]);
    setup.core.compactor().run_all();
    assert_eq!(setup.core.compactor().stats().unwrap().dirty_bytes, 0);
    put(&setup, "b", Some("1"));
    finish(&setup);
    assert!(setup.core.compactor().step().unwrap());
    setup.core.retention().retire(1).unwrap();
    setup.core.compactor().run_all();
    assert_eq!(setup.core.compactor().stats().unwrap().compactions, 2);
    let is_due = || {
        setup.requests();
        setup.core.requests().begin(Work::Compact);
        setup.core.compactor().request(Occasion::Due);
        setup.requests() == [Work::Compact]
    };
    assert!(!is_due());
    setup.clock.advance(TOMBSTONES_KEPT);
    assert!(is_due());
    setup.core.compactor().run_all();
    assert_eq!(setup.core.compactor().stats().unwrap().tombstones_removed, 1);
}

/// Retention removes a segment between the decision to write its footer and the writing.
#[test]
fn a_removed_segment_needs_no_footer() {
    let setup = Setup::new(Durability::Sync);
    setup.core.compactor().set(Some(SETTINGS));
    put(&setup, "a", Some("1"));
    put(&setup, "a", Some("2"));
    setup.core.flush().unwrap();
    let begun = |log: &mut Log| log.backlog().begin_footer(None).unwrap();
    let gone = setup.core.with_log(begun);
    setup.core.retention().retire(1).unwrap();
    setup.core.footers().write(gone).unwrap();
    // One that is missing is.
    let missing = setup.core.with_log(begun);
    setup.disk.remove_file(&missing.segment.path).unwrap();
    let failed = setup.core.footers().write(missing);
    assert!(matches!(failed, Err(Error::Corrupt(_))), "{failed:?}");
}

/// Somebody waits for a compaction that nobody wants any more.
#[test]
fn a_compaction_that_was_asked_for_ends_when_its_topic_is_altered() {
    let longer = CompactionSettings { tombstone_retention: TOMBSTONES_KEPT * 2, ..SETTINGS };
    for other in [None, Some(longer)] {
        let setup = compacted(&[Some("1"), Some("2"), Some("3")]);
        setup.noted.is_running.store(true, Ordering::Relaxed);
        let altered = setup.core.compactor().run_now(|| {
            setup.core.compactor().set(other);
            false
        });
        assert!(matches!(&altered, Err(Error::Config { .. })), "{other:?}: {altered:?}");
        assert!(!has_temporary(&setup), "{other:?}");
        assert_eq!(setup.values().last().map(String::as_str), Some("3"), "{other:?}");
    }
}

/// Verifies a partition again and again, with `meanwhile` at one read of the verification after
/// the other. Nothing may be found; `check` sees what became of the partition.
fn verify_beside(
    fill: impl Fn(&Setup),
    meanwhile: impl Fn(&Arc<PartitionCore>) + Clone + Send + Sync + 'static,
    check: impl Fn(&Setup, u64),
) {
    let mut at = 0;
    loop {
        let reads = Arc::new(AtomicU64::new(u64::MAX));
        let armed: Arc<Mutex<Option<Arc<PartitionCore>>>> = Arc::default();
        let (left, core, meanwhile) = (Arc::clone(&reads), Arc::clone(&armed), meanwhile.clone());
        let setup = Setup::hooked(move |operation, side| {
            if (operation, side) == (Operation::Read, Side::Before)
                && left.fetch_sub(1, Ordering::Relaxed) == 0
                && let Some(core) = core.lock().take()
            {
                meanwhile(&core);
            }
        });
        fill(&setup);
        *armed.lock() = Some(Arc::clone(&setup.core));
        reads.store(at, Ordering::Relaxed);
        let mut findings = Findings::default();
        setup.core.reader().verify(&mut findings).unwrap();
        assert_eq!(findings.damage, [], "at read {at}");
        if armed.lock().take().is_some() {
            break;
        }
        check(&setup, at);
        at += 1;
    }
    assert!(at > 0, "the verification was not met");
}

/// Symptom: verification beside a compaction said that files were missing, or headers not theirs.
/// A segment that has left the log is no finding, and the one that replaced it is verified.
#[test]
fn verification_beside_a_compaction_finds_nothing() {
    let fill = |setup: &Setup| {
        setup
            .core
            .compactor()
            .set(Some(CompactionSettings { segment_bytes: 64 << 10, ..SETTINGS }));
        for value in ["1", "2", "3", "4"] {
            put(setup, "a", Some(value));
        }
        finish(setup);
    };
    let check = |setup: &Setup, at| assert_eq!(setup.values(), ["4"], "at read {at}");
    verify_beside(fill, |core| core.compactor().run_all(), check);
}

/// Symptom: verification beside appends said that a record was missing. Cause: the segment that
/// took them was taken to end where it was seen to, and the next one began after what it got
/// meanwhile.
#[test]
fn verification_beside_appends_and_rolls_finds_nothing() {
    let fill = |setup: &Setup| assert_eq!(setup.append("before").unwrap(), 1);
    let meanwhile = |core: &Arc<PartitionCore>| {
        for value in ["1", "2"] {
            append(core, value, &AppendOptions::default()).unwrap();
            core.with_log(|log| log.roll_for(0)).unwrap();
        }
    };
    let check = |setup: &Setup, at| assert_eq!(setup.values().len(), 3, "at read {at}");
    verify_beside(fill, meanwhile, check);
}

/// Symptom: the files that a compaction had replaced and could not remove were forgotten, with
/// their space, until the next opening.
#[test]
fn what_a_compaction_could_not_remove_is_removed_later() {
    let setup = compacted(&[Some("1"), Some("2"), Some("3")]);
    let files = || setup.disk.paths().iter().filter(|it| it.extension().is_some()).count();
    let before = files();
    setup.disk.inject(Fault::always(Operation::Remove, ErrorKind::Other));
    setup.core.compactor().run_all();
    assert!(setup.core.retention().keeps_leftovers());
    assert!(files() >= before, "nothing was removed");
    setup.disk.heal();
    assert!(!setup.core.retention().keeps_leftovers());
    assert_eq!(files(), setup.core.log().segments().all().len());
    assert_eq!(setup.values(), ["3"]);
}

#[test]
fn the_check_finds_a_compaction_that_is_in_two_hands_or_that_nobody_wants() {
    let setup = compacted(&[Some("1"), Some("2")]);
    begin(&setup);
    let compactions = &setup.core.compactions;
    assert_eq!(compactions.check_with(Some(SETTINGS), false), Ok(()));
    assert!(compactions.check_with(Some(SETTINGS), true).is_err(), "in two hands");
    assert!(compactions.check_with(None, false).is_err(), "without settings");
    setup.core.compactor().run_all();
    assert_eq!(compactions.check_with(None, true), Ok(()), "there is none");
}
