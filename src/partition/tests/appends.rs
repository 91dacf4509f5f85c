//! Appends that are refused, and readers that wait.

use super::*;
use crate::partition::state::State;
use crate::partition::waiters::Notifier;

#[test]
fn compare_and_append_appends_at_the_expected_end_or_not_at_all() {
    let setup = Setup::new(Durability::Os);
    let at = |expected| AppendOptions { expected: Some(expected), ..AppendOptions::default() };
    assert_eq!(append(&setup.core, "a", &at(0)).unwrap(), 1);
    for expected in [0, 2, u64::MAX] {
        match append(&setup.core, "b", &at(expected)) {
            Err(Error::WrongOffset { partition, expected: found, actual: 1 }) => {
                assert_eq!(
                    (partition, found),
                    (TopicPartition::clone(&setup.core.origin), expected)
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(append(&setup.core, "c", &at(1)).unwrap(), 2);
    assert_eq!(setup.values(), ["a", "c"]);
}

#[test]
fn bytes_are_counted_as_they_are_stored_with_and_without_a_number() {
    let setup = Setup::new(Durability::Os);
    let current = AtomicU32::new(0);
    let bytes = || setup.core.metrics(0).appended.bytes;
    let mut sizes = Vec::new();
    for sequence in [None, Some(Sequence::Absent), Some(Sequence::At(1))] {
        let producer = sequence.map(|sequence| {
            let request = ProducerRequest { id: 7, epoch: 0, sequence };
            Fence { request, name: "p", current: &current }
        });
        let before = bytes();
        let options = AppendOptions { producer, ..AppendOptions::default() };
        append(&setup.core, "a", &options).unwrap();
        sizes.push(bytes() - before);
    }
    // Only a number makes a batch longer, by the stamp.
    assert_eq!(sizes[1], sizes[0]);
    assert!((20..=24).contains(&(sizes[2] - sizes[0])), "{sizes:?}");
}

#[test]
fn an_older_holder_of_a_producer_id_is_fenced_before_its_first_append() {
    let setup = Setup::new(Durability::Os);
    let current = AtomicU32::new(0);
    let holder = |epoch, sequence| AppendOptions {
        producer: Some(Fence {
            request: ProducerRequest { id: 7, epoch, sequence },
            name: "p",
            current: &current,
        }),
        ..AppendOptions::default()
    };
    append(&setup.core, "old", &holder(0, Sequence::At(1))).unwrap();
    // The partition has seen nothing of the new holder yet: only the fence tells.
    current.store(1, Ordering::Release);
    for sequence in [Sequence::Absent, Sequence::At(2)] {
        match append(&setup.core, "late", &holder(0, sequence)) {
            Err(Error::Fenced { id, epoch: 0, current: 1 }) => assert_eq!(id, "p"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(setup.core.log().last_sequence(7), Some(1));
    append(&setup.core, "new", &holder(1, Sequence::At(2))).unwrap();
    assert_eq!(setup.core.log().last_sequence(7), Some(2));
    assert_eq!(setup.values(), ["old", "new"]);
}

#[test]
fn row_c01_a_full_disk_refuses_appends_until_there_is_space_again() {
    let setup = Setup::new(Durability::Sync);
    let large = "x".repeat(20_000);
    setup.disk.limit_capacity(Some(64 << 10));
    let mut stored = Vec::new();
    let full = loop {
        match setup.append(&large) {
            Ok(end) => stored.push(end),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::StorageFull { .. }), "{full:?}");
    assert!(full.is_definite() && full.is_retriable());
    let end = *stored.last().unwrap();
    assert_eq!(setup.core.log_end(), end);
    setup.core.wait_durable(end).unwrap();
    assert_eq!(setup.values().len() as u64, end);
    assert!(setup.append(&large).is_err());
    setup.disk.limit_capacity(None);
    assert_eq!(setup.append(&large).unwrap(), end + 1, "without a reopen");
    setup.core.flush().unwrap();
    let image = setup.disk.power_cut(&mut || 0, PowerCut::WORST);
    assert_eq!(Setup::recovered(image, false).values().len() as u64, end + 1);
}

// ---- readers -------------------------------------------------------------------------------------

/// What a reader would find if it did not wait.
fn signals(notifier: &Notifier) -> (Vec<usize>, bool) {
    notifier.wait(Some(real_now()))
}

#[test]
fn a_reader_is_woken_by_what_it_waits_for() {
    let setup = Setup::new(Durability::Sync);
    let core = &setup.core;
    let (published, durable) = (Notifier::new(), Notifier::new());
    let (first, second) = (core.log().register(&published, 3), core.log().register(&durable, 4));
    assert!(core.reader().arm(first, 0, Visibility::Published));
    assert!(core.reader().arm(second, 0, Visibility::Durable));
    assert_eq!(setup.requests(), [], "nothing is published that could be synced");
    setup.append("1").unwrap();
    assert_eq!(signals(&published), (vec![3], false));
    assert_eq!(signals(&durable), (vec![], false));
    assert!(!core.reader().arm(first, 0, Visibility::Published), "there is something to read");
    assert!(core.reader().arm(second, 0, Visibility::Durable));
    assert_eq!(setup.requests(), [Work::Sync], "somebody waits for it");
    core.do_requested();
    assert_eq!(signals(&durable), (vec![4], false));
    assert!(core.reader().arm(first, 1, Visibility::Published));
    setup.append("2").unwrap();
    setup.append("3").unwrap();
    assert_eq!(signals(&published), (vec![3], false), "once per arming");
    core.log().deregister(first);
    setup.append("4").unwrap();
    assert_eq!(signals(&published), (vec![], false));
}

#[test]
fn readers_hear_of_a_failed_sync_and_of_the_end() {
    let setup = Setup::new(Durability::Sync);
    let notifier = Notifier::new();
    let id = setup.core.log().register(&notifier, 1);
    setup.append("1").unwrap();
    assert!(setup.core.reader().arm(id, 1, Visibility::Published));
    setup.fail_next_sync();
    assert!(setup.core.flush().is_err());
    assert_eq!(signals(&notifier), (vec![1], false));
    let setup = Setup::new(Durability::Sync);
    let id = setup.core.log().register(&notifier, 2);
    assert!(setup.core.reader().arm(id, 0, Visibility::Published));
    setup.core.close();
    assert_eq!(signals(&notifier), (vec![2], false));
    assert!(!setup.core.reader().arm(id, 0, Visibility::Published), "there is nothing to wait for");
}

#[test]
fn a_producer_is_forgotten_after_thirty_idle_days_and_not_by_a_clock_that_jumps() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let setup = Setup::new(Durability::Os);
    let current = AtomicU32::new(0);
    let named = |sequence| {
        let request = ProducerRequest { id: 7, epoch: 0, sequence };
        let fence = Fence { request, name: "p", current: &current };
        AppendOptions { producer: Some(fence), ..AppendOptions::default() }
    };
    append(&setup.core, "a", &named(Sequence::At(1))).unwrap();

    setup.clock.set(SystemTime::UNIX_EPOCH + 40_000 * DAY);
    setup.clock.advance(29 * DAY);
    setup.core.flush().unwrap();
    assert!(setup.core.log().take_checkpoint().is_some());
    assert_eq!(setup.core.log().last_sequence(7), Some(1));

    // An append counts as use from when it happens, whatever the record's timestamp says.
    for (value, sequence) in [("b", Sequence::At(2)), ("without a number", Sequence::Absent)] {
        append(&setup.core, value, &named(sequence)).unwrap();
        setup.clock.advance(29 * DAY);
        setup.core.flush().unwrap();
        assert!(setup.core.log().take_checkpoint().is_some());
        assert_eq!(setup.core.log().last_sequence(7), Some(2));
    }

    setup.clock.advance(2 * DAY);
    setup.append("keeps the partition changing").unwrap();
    setup.core.flush().unwrap();
    assert!(setup.core.log().take_checkpoint().is_some());
    assert_eq!(setup.core.log().last_sequence(7), None);
}

#[test]
fn a_reader_that_parks_for_what_is_published_already_asks_for_the_sync() {
    let setup = Setup::new(Durability::Sync);
    let notifier = Notifier::new();
    setup.append("1").unwrap();
    assert_eq!(setup.requests(), []);
    let id = setup.core.log().register(&notifier, 1);
    assert!(setup.core.reader().arm(id, 0, Visibility::Durable));
    assert_eq!(setup.requests(), [Work::Sync]);
    setup.core.do_requested();
    assert_eq!(signals(&notifier), (vec![1], false));
}

#[test]
fn the_check_finds_an_append_after_the_close_or_a_failure() {
    let stops: [fn(&mut State); 2] = [State::end_appends, |state| state.fail(Error::Closed)];
    for stop in stops {
        let setup = Setup::new(Durability::Os);
        setup.append("before").unwrap();
        let mut state = setup.core.log().lock();
        assert_eq!(state.check(), Ok(()));
        stop(&mut state);
        assert_eq!(state.check(), Ok(()));
        state.log_mut().jump_to(7).unwrap();
        assert!(state.check().is_err(), "appended all the same");
    }
}
