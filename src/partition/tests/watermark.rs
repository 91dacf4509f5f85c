//! A replicated partition: what is shown, removed and compacted below its high watermark.

use super::super::compactor::CompactionSettings;
use super::super::quorum::Quorum;
use super::super::quorum_gate::{Awaited, Measure, Unconfirmed};
use super::super::waiters::Notifier;
use super::*;
use crate::log::retention::RetentionPolicy;

/// A replicated partition with so many records, of which none is known to be on other members.
fn replicated(durability: Durability, records: u64) -> Setup {
    let setup = Setup::new(durability);
    Quorum::of(&setup.core).begin();
    for number in 0..records {
        setup.append(&number.to_string()).unwrap();
    }
    setup
}

#[test]
fn records_are_readable_below_the_watermark_and_nothing_above_it_is() {
    let setup = replicated(Durability::Os, 3);
    assert_eq!((setup.values(), setup.core.log_end()), (Vec::new(), 3));
    let quorum = Quorum::of(&setup.core);
    assert_eq!(quorum.advance(2), 2);
    assert_eq!(setup.values(), ["0", "1"]);
    assert_eq!(quorum.advance(1), 2, "it never falls");
    assert_eq!(quorum.advance(9), 3, "nor exceeds the log end");
    assert_eq!(setup.values(), ["0", "1", "2"]);
    // Where nothing is known of the other members, a later call does not show anything either.
    setup.append("3").unwrap();
    assert_eq!(setup.values().len(), 3);
}

#[test]
fn a_log_that_is_not_replicated_takes_no_watermark() {
    let setup = Setup::new(Durability::Os);
    setup.append("0").unwrap();
    assert_eq!(Quorum::of(&setup.core).advance(1), u64::MAX);
    setup.append("1").unwrap();
    assert_eq!(setup.values(), ["0", "1"]);
}

#[test]
fn a_position_above_the_watermark_is_in_range_and_one_below_the_log_start_is_not() {
    let setup = replicated(Durability::Os, 3);
    let core = &setup.core;
    Quorum::of(core).advance(2);
    for offset in [0, 2, 3, 1_000] {
        let end = core.visible_end(Visibility::Published);
        core.reader().check_range(offset, end).unwrap();
    }
    core.with_log(|log| log.retire(1, usize::MAX));
    let below = core.reader().check_range(0, 2);
    assert!(matches!(below, Err(Error::OffsetOutOfRange { start: 1, end: 2, .. })), "{below:?}");
}

/// A reader waits for the watermark, and no append wakes it.
#[test]
fn the_watermark_wakes_readers_and_appends_do_not() {
    let setup = replicated(Durability::Os, 1);
    let (core, quorum) = (&setup.core, Quorum::of(&setup.core));
    let notifier = Notifier::new();
    let id = core.log().register(&notifier, 7);
    let fired = || notifier.poll(Waker::noop()).map(|(fired, _)| fired);
    for visibility in [Visibility::Published, Visibility::Durable] {
        let end = setup.append("above").unwrap();
        let before = core.visible_end(visibility);
        assert!(core.reader().arm(id, before, visibility));
        setup.append("above").unwrap();
        core.flush().unwrap();
        assert_eq!(fired(), None, "{visibility:?}");
        quorum.advance(end);
        assert_eq!(fired(), Some(vec![7]), "{visibility:?}");
        assert!(!core.reader().arm(id, before, visibility), "there is something to read");
    }
    // Below the watermark, a reader of durable records waits for the disk.
    let end = setup.append("above").unwrap();
    quorum.advance(end);
    let durable = core.visible_end(Visibility::Durable);
    assert!(core.reader().arm(id, durable, Visibility::Durable));
    core.flush().unwrap();
    assert_eq!(fired(), Some(vec![7]));
    assert!(core.reader().arm(id, end, Visibility::Published));
    core.close();
    assert_eq!(fired(), Some(vec![7]), "a close wakes all");
}

#[test]
fn calls_that_wait_for_a_majority_are_answered_by_the_watermark_or_by_the_end() {
    let setup = replicated(Durability::Os, 0);
    let quorum = Quorum::of(&setup.core);
    let awaited =
        |end| Awaited { end, epoch: 4, deadline: Duration::from_secs(30), measure: Measure::Held };
    let mut waits = Vec::new();
    for _ in 0..5 {
        let end = setup.append("r").unwrap();
        let ((woken, waker), mut ticket) = (waker(), None);
        assert!(quorum.poll(&awaited(end), &waker, &mut ticket).is_none());
        waits.push((woken, waker, ticket, end));
    }
    let (given_up, ..) = &waits[1];
    quorum.forget(&awaited(2), waits[1].2.unwrap());
    quorum.advance(2);
    assert_eq!(quorum.expire(Duration::from_secs(29)), Some(Duration::from_secs(30)));
    quorum.end_leadership(4);
    setup.core.close();
    let calls: Vec<_> = waits.iter().map(|wait| wait.0.0.load(Ordering::Relaxed)).collect();
    assert_eq!((calls, given_up.0.load(Ordering::Relaxed)), (vec![1, 0, 1, 1, 1], 0));
    for (_, waker, mut ticket, end) in waits {
        let answer = quorum.poll(&awaited(end), &waker, &mut ticket);
        match answer {
            Some(Ok(())) => assert!(end <= 2, "{end}"),
            Some(Err(Unconfirmed::Failed(Error::Closed))) => assert!(end > 2, "{end}"),
            other => panic!("{end}: {other:?}"),
        }
    }
    let late = quorum.wait(Awaited { epoch: 5, ..awaited(9) });
    assert!(matches!(late, Err(Unconfirmed::Failed(Error::Closed))), "{late:?}");
}

/// Symptom, if it were otherwise: the record of an offset that is truncated and given to another
/// record would already count as removed.
#[test]
fn retention_stops_at_the_watermark() {
    let setup = replicated(Durability::Os, 0);
    for number in 0..4 {
        setup.append(&number.to_string()).unwrap();
        setup.core.with_log(|log| log.roll_for(0)).unwrap();
    }
    setup.clock.advance(Duration::from_secs(60));
    let policy = RetentionPolicy { age: Some(1), ..RetentionPolicy::default() };
    let planned = || setup.core.retention().plan(&policy).unwrap().0.log_start;
    assert_eq!(planned(), 0);
    assert!(setup.core.retention().oldest_sealed().is_none());
    Quorum::of(&setup.core).advance(3);
    assert_eq!(planned(), 3);
    assert_eq!(setup.core.retention().oldest_sealed().unwrap().next_offset, 1);
}

/// A newer value that is not committed must not remove the committed one: if it is truncated, the
/// key would be lost.
#[test]
fn compaction_stops_at_the_watermark() {
    let settings = CompactionSettings {
        min_dirty_ratio: 0.0,
        tombstone_retention: Duration::from_secs(60),
        segment_bytes: 1,
    };
    let setup = replicated(Durability::Sync, 0);
    setup.core.compactor().set(Some(settings));
    for value in ["0", "1", "2"] {
        let mut encoder = Encoder::take();
        let record = Record::new().key("k").value(value);
        let mut batch = encoder.encode([&record], RULES, 0).unwrap();
        setup.core.append(&mut batch, &AppendOptions::default()).unwrap();
        setup.core.with_log(|log| log.roll_for(0)).unwrap();
    }
    while setup.core.footers().step().unwrap() {}
    let kept = || {
        setup.core.compactor().run_now(|| false).unwrap();
        setup.core.log().segments().all().iter().map(|it| it.base_offset).collect::<Vec<_>>()
    };
    let quorum = Quorum::of(&setup.core);
    assert_eq!(setup.core.compactor().stats().unwrap().dirty_bytes, 0);
    assert_eq!(kept(), [0, 1, 2, 3]);
    quorum.advance(2);
    kept();
    assert_eq!(setup.values(), ["1"]);
    quorum.advance(3);
    kept();
    assert_eq!(setup.values(), ["2"]);
}
