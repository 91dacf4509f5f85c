//! Failed syncs, waiting for a sync, and syncs by interval.

use super::*;
use crate::log::tasks::SyncScope;

#[test]
fn row_d01_every_waiter_of_a_failed_sync_is_told_and_the_partition_is_poisoned() {
    let setup = Setup::new(Durability::Sync);
    let core = &setup.core;
    let durable = setup.append("durable").unwrap();
    core.wait_durable(durable).unwrap();
    let (first, second) = (setup.append("1").unwrap(), setup.append("2").unwrap());
    let (one, two) = (waker(), waker());
    assert!(core.poll_durable(first, &one.1, &mut None).is_none());
    assert!(core.poll_durable(second, &two.1, &mut None).is_none());
    setup.fail_next_sync();
    let waited = core.wait_durable(second);
    assert!(matches!(waited, Err(Error::SyncFailed { .. })), "{waited:?}");
    for (end, (woken, waker)) in [(first, one), (second, two)] {
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let answer = core.poll_durable(end, &waker, &mut None);
        assert!(matches!(answer, Some(Err(Error::SyncFailed { .. }))), "{answer:?}");
    }
    core.wait_durable(durable).unwrap();
    let refused = setup.append("3");
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    assert_eq!(setup.values(), ["durable"], "what may be lost is shown no more");
    assert_eq!(core.durable_end(), durable);
    assert!(core.take_checkpoint().is_none());
}

#[test]
fn row_d02_a_sync_that_would_succeed_after_a_failed_one_is_not_believed() {
    let setup = Setup::new(Durability::Sync);
    let end = setup.append("1").unwrap();
    setup.fail_next_sync();
    assert!(setup.core.flush().is_err());
    let calls = setup.disk.store_points();
    for _ in 0..3 {
        let again = setup.core.wait_durable(end);
        assert!(matches!(again, Err(Error::SyncFailed { .. })), "{again:?}");
        setup.core.do_work(Work::Sync);
        assert!(!matches!(setup.core.finish_one_segment(), Ok(true)));
    }
    assert_eq!(setup.disk.store_points(), calls, "nothing is asked of the disk any more");
    assert_eq!(setup.core.durable_end(), 0);
}

/// Measured facts 1 and 2: the kernel marks the pages of a failed sync clean, so only writing them
/// again makes them durable.
#[test]
fn row_d03_the_next_life_writes_the_tail_again_before_it_vouches_for_it() {
    let mut lost = 0;
    for seed in 0..30 {
        let disk = SimulatedDisk::with_seed(seed);
        disk.create_dir(Path::new(DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let log = Log::create(&env(&disk), identity(), OPTIONS).unwrap();
        let setup = Setup::with_log(disk, log, Durability::Sync);
        setup.append("1").unwrap();
        setup.fail_next_sync();
        assert!(setup.core.flush().is_err());
        let next = Setup::recovered(setup.disk.kill9(), true);
        assert_eq!(next.core.durable_end(), 0, "not proved");
        let found = next.values();
        next.core.flush().unwrap();
        assert_eq!(next.core.durable_end(), found.len() as u64);
        let image = next.disk.power_cut(&mut || 0, PowerCut::WORST);
        assert_eq!(Setup::recovered(image, false).values(), found, "seed {seed}");
        lost += usize::from(found.is_empty());
    }
    assert!(lost < 30, "the tail was never there");
}

#[test]
fn row_d01_threads_that_wait_for_a_failed_sync_are_all_told() {
    let setup = Setup::new(Durability::Sync);
    setup.disk.inject(Fault::always(Operation::Sync, ErrorKind::Other));
    let core = &setup.core;
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let appended = append(core, &number.to_string(), &AppendOptions::default());
                match appended.and_then(|end| core.wait_durable(end)) {
                    Err(Error::SyncFailed { .. } | Error::Poisoned { .. }) => {}
                    other => panic!("{other:?}"),
                }
            });
        }
    });
    assert_eq!(core.durable_end(), 0);
}

// ---- waiting -------------------------------------------------------------------------------------

#[test]
fn a_polled_delivery_is_served_by_the_next_round_of_work() {
    let setup = Setup::new(Durability::Sync);
    let end = setup.append("1").unwrap();
    let ((woken, waker), mut place) = (waker(), None);
    for _ in 0..3 {
        assert!(setup.core.poll_durable(end, &waker, &mut place).is_none());
    }
    assert_eq!(setup.requests(), [Work::Sync], "asked for once");
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    setup.core.do_requested();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "woken once");
    assert!(matches!(setup.core.poll_durable(end, &waker, &mut None), Some(Ok(()))));
    setup.append("2").unwrap();
    assert!(setup.core.poll_durable(2, &waker, &mut None).is_none());
    assert_eq!(setup.requests(), [Work::Sync], "and can be asked for again");
}

#[test]
fn a_deadline_ends_the_wait_where_somebody_else_syncs() {
    let setup = Setup::new(Durability::Sync);
    setup.noted.is_running.store(true, Ordering::Relaxed);
    let end = setup.append("1").unwrap();
    let timed_out = setup.core.wait_durable_until(end, real_now());
    assert!(matches!(timed_out, Err(Error::Timeout)), "{timed_out:?}");
    assert_eq!(setup.requests(), [Work::Sync]);
    setup.core.do_work(Work::Sync);
    setup.core.wait_durable_until(end, real_now()).unwrap();
}

#[test]
fn without_background_work_the_waiter_syncs_whatever_the_deadline() {
    let setup = Setup::new(Durability::Sync);
    let end = setup.append("1").unwrap();
    setup.core.wait_durable_until(end, real_now()).unwrap();
    assert_eq!(setup.core.durable_end(), end);
}

#[test]
fn one_sync_serves_all_that_was_published() {
    let setup = Setup::new(Durability::Sync);
    for value in ["1", "2", "3"] {
        setup.append(value).unwrap();
    }
    setup.core.wait_durable(1).unwrap();
    let calls = setup.disk.store_points();
    setup.core.wait_durable(3).unwrap();
    assert_eq!(setup.disk.store_points(), calls);
}

/// A sync that is in flight while the log rolls vouches only for what it began with.
#[test]
fn row_b14_a_segment_sealed_during_a_sync_is_synced_again() {
    let setup = Setup::new(Durability::Sync);
    setup.append("1").unwrap();
    let task = setup.core.with_log(|log| log.begin_sync(SyncScope::All));
    setup.append("2").unwrap();
    setup.core.with_log(|log| log.roll_for(0)).unwrap();
    let end = setup.append("3").unwrap();
    task.run().unwrap();
    setup.core.with_log(|log| log.finish_sync(&task));
    setup.core.wait_durable(end).unwrap();
    let image = setup.disk.power_cut(&mut || 0, PowerCut::WORST);
    assert_eq!(Setup::recovered(image, false).values(), ["1", "2", "3"]);
}

#[test]
fn closing_answers_whoever_waits_and_refuses_the_rest() {
    let setup = Setup::new(Durability::Sync);
    let end = setup.append("1").unwrap();
    let (woken, waker) = waker();
    assert!(setup.core.poll_durable(end, &waker, &mut None).is_none());
    setup.core.close();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(matches!(setup.core.poll_durable(end, &waker, &mut None), Some(Err(Error::Closed))));
    assert!(matches!(setup.append("2"), Err(Error::Closed)));
    assert!(matches!(setup.core.check_range(0, 1), Err(Error::Closed)));
}

#[test]
fn ended_appends_are_still_waited_for() {
    let setup = Setup::new(Durability::Sync);
    let end = setup.append("1").unwrap();
    setup.core.end_appends();
    assert!(matches!(setup.append("2"), Err(Error::Closed)));
    setup.core.wait_durable(end).unwrap();
    assert_eq!(setup.core.take_checkpoint().unwrap().end_offset, 1);
    assert!(!setup.core.has_changed());
    setup.core.give_back_checkpoint();
    assert!(setup.core.take_checkpoint().is_some());
}

// ---- intervals -----------------------------------------------------------------------------------

const SECOND: Duration = Duration::from_secs(1);

fn interval(bytes: u64) -> Durability {
    Durability::Interval { every: SECOND, bytes }
}

#[test]
fn an_interval_syncs_when_its_time_is_over_and_not_before() {
    let setup = Setup::new(interval(1 << 20));
    let now = || setup.clock.monotonic();
    assert_eq!(setup.core.sync_if_due(now()), None, "clean");
    setup.clock.advance(SECOND * 5);
    setup.append("1").unwrap();
    assert_eq!(setup.requests(), [Work::SyncLater]);
    setup.clock.advance(SECOND / 2);
    setup.append("2").unwrap();
    assert_eq!(setup.core.sync_if_due(now()), Some(SECOND * 6), "since the first append");
    assert_eq!(setup.core.durable_end(), 0);
    setup.clock.advance(SECOND / 2);
    assert_eq!(setup.core.sync_if_due(now()), None);
    assert_eq!(setup.core.durable_end(), 2);
    setup.clock.advance(SECOND * 9);
    assert_eq!(setup.core.sync_if_due(now()), None, "clean again");
}

#[test]
fn an_interval_syncs_when_its_bytes_are_full() {
    let setup = Setup::new(interval(1_000));
    setup.append(&"x".repeat(500)).unwrap();
    assert_eq!(setup.requests(), [Work::SyncLater]);
    setup.append(&"x".repeat(500)).unwrap();
    assert_eq!(setup.requests(), [Work::Sync]);
    setup.core.do_requested();
    assert_eq!(setup.core.durable_end(), 2);
    // The count begins anew.
    setup.append(&"x".repeat(500)).unwrap();
    assert_eq!(setup.requests(), [Work::SyncLater]);
    assert_eq!(setup.core.durable_end(), 2);
}

#[test]
fn the_levels_without_intervals_ask_for_nothing() {
    for durability in [Durability::Os, Durability::Sync] {
        let setup = Setup::new(durability);
        setup.append("1").unwrap();
        setup.clock.advance(SECOND * 100);
        assert_eq!(setup.core.sync_if_due(setup.clock.monotonic()), None);
        assert_eq!((setup.requests(), setup.core.durable_end()), (vec![], 0));
    }
}

#[test]
fn row_d01_an_interval_sync_that_fails_shows_at_the_next_append() {
    let setup = Setup::new(interval(1 << 20));
    setup.append("1").unwrap();
    setup.clock.advance(SECOND);
    setup.fail_next_sync();
    assert_eq!(setup.core.sync_if_due(setup.clock.monotonic()), None);
    assert!(matches!(setup.append("2"), Err(Error::Poisoned { .. })));
}

#[test]
fn a_producers_own_interval_is_kept_on_a_partition_that_has_none() {
    let setup = Setup::new(Durability::Os);
    let every = Duration::from_secs(5);
    let level = Some(Durability::Interval { every, bytes: 1 << 20 });
    append(&setup.core, "a", &AppendOptions { level, ..AppendOptions::default() }).unwrap();
    setup.append("not asked for").unwrap();
    assert_eq!(setup.core.sync_if_due(setup.clock.monotonic()), Some(every));
    setup.clock.advance(every);
    assert_eq!(setup.core.sync_if_due(setup.clock.monotonic()), None);
    assert_eq!(setup.core.durable_end(), 2);
}

/// Row B14 with real threads: what is acknowledged is on the disk at that moment, however appends
/// and syncs of others overlap.
#[test]
fn row_b14_an_acknowledgement_rests_on_a_sync_that_began_later() {
    let setup = Setup::new(Durability::Sync);
    let (core, disk) = (&setup.core, &setup.disk);
    std::thread::scope(|scope| {
        for number in 0..3 {
            scope.spawn(move || {
                for _ in 0..20 {
                    let value = number.to_string();
                    let end = append(core, &value, &AppendOptions::default()).unwrap();
                    core.wait_durable(end).unwrap();
                    let image = disk.power_cut(&mut || 0, PowerCut::WORST);
                    let found = Setup::recovered(image, false).core.log_end();
                    assert!(found >= end, "{found} of {end}");
                }
            });
        }
    });
}
