//! Failed syncs, waiting for a sync, and syncs by interval.

use super::*;
use crate::clock::Clock;
use crate::log::tasks::SyncScope;
use crate::partition::flusher::UNSYNCED_BYTES_MAX;

// RED: src/partition/flusher.rs
//   - state.poison(error.clone());
#[test]
fn row_d01_every_waiter_of_a_failed_sync_gets_the_error_and_the_partition_is_poisoned() {
    let setup = Setup::new(Durability::Sync);
    let core = &setup.core;
    let durable = setup.append("durable").unwrap();
    core.wait_durable(durable).unwrap();
    let (first, second) = (setup.append("1").unwrap(), setup.append("2").unwrap());
    let (one, two) = (waker(), waker());
    assert!(core.flusher().poll(first, &one.1, &mut None).is_none());
    assert!(core.flusher().poll(second, &two.1, &mut None).is_none());
    setup.fail_next_sync();
    let waited = core.wait_durable(second);
    assert!(matches!(waited, Err(Error::SyncFailed { .. })), "{waited:?}");
    for (end, (woken, waker)) in [(first, one), (second, two)] {
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let answer = core.flusher().poll(end, &waker, &mut None);
        assert!(matches!(answer, Some(Err(Error::SyncFailed { .. }))), "{answer:?}");
    }
    core.wait_durable(durable).unwrap();
    let refused = setup.append("3");
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    assert_eq!(setup.values(), ["durable"], "what may be lost is shown no more");
    assert_eq!(core.durable_end(), durable);
    assert!(core.log().take_checkpoint().is_none());
}

/// Symptom: a record that was durable when its broker closed cleanly got `Closed`, so its producer
/// sent it again. Cause: the gate learned of the durable end only when the sync had ended, and the
/// partition was closed between the two. Rule: the gate knows what is durable as soon as others
/// may.
#[test]
fn an_end_between_a_sync_and_its_report_takes_no_acknowledgement_away() {
    let setup = Setup::new(Durability::Sync);
    let end = setup.append("1").unwrap();
    assert_eq!(setup.core.flusher().sync_once(SyncScope::All).unwrap(), end);
    setup.core.gate.fail(Error::Closed);
    setup.core.gate.wait(end, None, None, &|| u64::MAX).unwrap();
    let waited = setup.core.gate.wait(end + 1, None, None, &|| u64::MAX);
    assert!(matches!(waited, Err(Error::Closed)), "{waited:?}");
}

// RED: src/partition/group_commit.rs
//   - self.failure.get_or_insert(error);
//   + drop(error);
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
        assert!(!matches!(setup.core.footers().step(), Ok(true)));
    }
    assert_eq!(setup.disk.store_points(), calls, "nothing is asked of the disk any more");
    assert_eq!(setup.core.durable_end(), 0);
}

/// Measured facts 1 and 2: the kernel marks the pages of a failed sync clean, so only writing them
/// again makes them durable.
// RED: src/log/tasks.rs
//   - Rule::TailRewrite.keep(rewrite).map_err(failed)?;
#[test]
fn row_d03_the_next_run_writes_the_tail_again_before_it_vouches_for_it() {
    let mut lost = 0;
    for seed in 0..30 {
        let disk = SimulatedDisk::with_seed(seed);
        disk.create_dir(Path::new(DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let log = Log::create(&env(&disk), identity(), OPTIONS, 0).unwrap();
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

/// A producer that writes faster than the disk: what a crash of the machine can lose, and an opening
/// has to read again, is bounded, also if no background thread keeps up.
#[test]
fn a_producer_waits_when_it_is_too_far_ahead_of_the_disk() {
    let setup = Setup::new(Durability::Os);
    let value = "v".repeat(60_000);
    let held = AppendOptions { is_held: true, ..AppendOptions::default() };
    let append = || append(&setup.core, &value, &held);
    for count in 1..=160 {
        let end = append().unwrap();
        let behind = (end - setup.core.durable_end()) * 60_000;
        let most = UNSYNCED_BYTES_MAX + 3 * OPTIONS.segment_bytes;
        assert!(behind <= most, "{behind} bytes after {count} records");
    }
    assert!(setup.core.durable_end() > 100);
    // An append that has happened succeeds; the next one finds that the sync has failed.
    setup.disk.inject(Fault::once(Operation::WriteBack, ErrorKind::Other));
    let failed = (0..60).map(|_| append()).find(Result::is_err).unwrap();
    assert!(matches!(failed, Err(Error::Poisoned { .. } | Error::SyncFailed { .. })), "{failed:?}");
}

/// A caller whose sync comes next waits for the sealed segments that are being synced: for a piece of
/// them, and not for all that a fast producer has left.
// RED: src/partition/footers.rs
//   - self.flusher.flush_sealed(piece)?;
//   + let _ = piece;
#[test]
fn row_d18_sealed_segments_are_synced_a_piece_at_a_time() {
    let setup = Setup::new(Durability::Os);
    let value = "v".repeat(60_000);
    for _ in 0..60 {
        append(&setup.core, &value, &AppendOptions::default()).unwrap();
    }
    let mut before = setup.core.durable_end();
    for piece in 0..2 {
        assert!(setup.core.footers().sync_sealed().unwrap());
        let now = setup.core.durable_end();
        // Whole segments of four records, until they have a mebibyte.
        assert_eq!(now - before, 20, "piece {piece}");
        before = now;
        assert!(setup.core.footers().write_durable().has_written);
    }
}

#[test]
fn row_d01_threads_that_wait_for_a_failed_sync_all_get_the_error() {
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
    let ((woken, waker), mut ticket) = (waker(), None);
    for _ in 0..3 {
        assert!(setup.core.flusher().poll(end, &waker, &mut ticket).is_none());
    }
    assert_eq!(setup.requests(), [Work::Sync], "asked for once");
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    setup.core.do_requested();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "woken once");
    assert!(matches!(setup.core.flusher().poll(end, &waker, &mut None), Some(Ok(()))));
    setup.append("2").unwrap();
    assert!(setup.core.flusher().poll(2, &waker, &mut None).is_none());
    assert_eq!(setup.requests(), [Work::Sync], "and can be asked for again");
}

// RED: src/partition/flusher.rs
//   - if !self.requests.are_served() {
//   + if true {
#[test]
fn row_d08_a_deadline_ends_the_wait_where_somebody_else_syncs() {
    let setup = Setup::new(Durability::Sync);
    setup.noted.is_running.store(true, Ordering::Relaxed);
    let end = setup.append("1").unwrap();
    let timed_out = setup.core.flusher().wait_until(end, real_now());
    assert!(matches!(timed_out, Err(Error::Timeout)), "{timed_out:?}");
    assert_eq!(setup.requests(), [Work::Sync]);
    setup.core.do_work(Work::Sync);
    setup.core.flusher().wait_until(end, real_now()).unwrap();
}

#[test]
fn without_background_work_the_waiter_syncs_whatever_the_deadline() {
    let setup = Setup::new(Durability::Sync);
    let end = setup.append("1").unwrap();
    setup.core.flusher().wait_until(end, real_now()).unwrap();
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

/// Row B14 without threads: a record is published in the middle of the sync that another one waits
/// for, after the disk has taken its pages. It is no part of that sync.
#[test]
fn row_b14_who_publishes_during_a_sync_waits_for_the_next_one() {
    let late = Arc::new(Mutex::new(None::<Arc<PartitionCore>>));
    let publisher = Arc::clone(&late);
    let setup = Setup::hooked(move |operation, side| {
        if (operation, side) == (Operation::Sync, Side::After)
            && let Some(core) = publisher.lock().take()
        {
            append(&core, "late", &AppendOptions::default()).unwrap();
        }
    });
    let end = setup.append("first").unwrap();
    *late.lock() = Some(Arc::clone(&setup.core));
    setup.core.wait_durable(end).unwrap();
    assert_eq!((setup.core.durable_end(), setup.core.log_end()), (1, 2));
    let cut = || setup.disk.power_cut(&mut || 0, PowerCut::WORST);
    assert_eq!(Setup::recovered(cut(), false).values(), ["first"]);
    setup.core.wait_durable(2).unwrap();
    assert_eq!(Setup::recovered(cut(), false).values(), ["first", "late"]);
}

/// A sync that is in flight while the log rolls vouches only for what it began with.
// RED: src/log/backlog.rs
//   - Arc::ptr_eq(&next.segment, &last.segment) && last.end >= next.end
//   + Arc::ptr_eq(&next.segment, &last.segment)
#[test]
fn row_b14_a_segment_sealed_during_a_sync_is_synced_again() {
    let setup = Setup::new(Durability::Sync);
    setup.append("1").unwrap();
    let task = setup.core.with_log(|log| log.begin_sync(SyncScope::All));
    task.run().unwrap();
    // The disk has done it; nobody has taken note of it yet.
    setup.append("2").unwrap();
    setup.core.with_log(|log| log.roll_for(0)).unwrap();
    let end = setup.append("3").unwrap();
    setup.core.with_log(|log| log.finish_sync(&task));
    setup.core.wait_durable(end).unwrap();
    let image = setup.disk.power_cut(&mut || 0, PowerCut::WORST);
    assert_eq!(Setup::recovered(image, false).values(), ["1", "2", "3"]);
}

#[test]
fn closing_answers_all_waiters_and_refuses_later_calls() {
    let setup = Setup::new(Durability::Sync);
    let end = setup.append("1").unwrap();
    let (woken, waker) = waker();
    assert!(setup.core.flusher().poll(end, &waker, &mut None).is_none());
    setup.core.close();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(matches!(setup.core.flusher().poll(end, &waker, &mut None), Some(Err(Error::Closed))));
    assert!(matches!(setup.append("2"), Err(Error::Closed)));
    assert!(matches!(setup.core.reader().check_range(0, 1), Err(Error::Closed)));
}

#[test]
fn ended_appends_are_still_waited_for() {
    let setup = Setup::new(Durability::Sync);
    let end = setup.append("1").unwrap();
    setup.core.log().end_appends();
    assert!(matches!(setup.append("2"), Err(Error::Closed)));
    setup.core.wait_durable(end).unwrap();
    assert_eq!(setup.core.log().take_checkpoint().unwrap().end_offset, 1);
    assert!(!setup.core.log().has_changed());
    setup.core.log().give_back_checkpoint();
    assert!(setup.core.log().take_checkpoint().is_some());
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
    assert_eq!(setup.core.flusher().sync_if_due(now()), None, "clean");
    setup.clock.advance(SECOND * 5);
    setup.append("1").unwrap();
    assert_eq!(setup.requests(), [Work::SyncLater]);
    setup.clock.advance(SECOND / 2);
    setup.append("2").unwrap();
    assert_eq!(setup.core.flusher().sync_if_due(now()), Some(SECOND * 6), "since the first append");
    assert_eq!(setup.core.durable_end(), 0);
    setup.clock.advance(SECOND / 2);
    assert_eq!(setup.core.flusher().sync_if_due(now()), None);
    assert_eq!(setup.core.durable_end(), 2);
    setup.clock.advance(SECOND * 9);
    assert_eq!(setup.core.flusher().sync_if_due(now()), None, "clean again");
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
        assert_eq!(setup.core.flusher().sync_if_due(setup.clock.monotonic()), None);
        assert_eq!((setup.requests(), setup.core.durable_end()), (vec![], 0));
    }
}

#[test]
fn row_d01_an_interval_sync_that_fails_shows_at_the_next_append() {
    let setup = Setup::new(interval(1 << 20));
    setup.append("1").unwrap();
    setup.clock.advance(SECOND);
    setup.fail_next_sync();
    assert_eq!(setup.core.flusher().sync_if_due(setup.clock.monotonic()), None);
    assert!(matches!(setup.append("2"), Err(Error::Poisoned { .. })));
}

#[test]
fn a_producers_own_interval_is_kept_on_a_partition_that_has_none() {
    let setup = Setup::new(Durability::Os);
    let every = Duration::from_secs(5);
    let level = Some(Durability::Interval { every, bytes: 1 << 20 });
    append(&setup.core, "a", &AppendOptions { level: level.as_ref(), ..AppendOptions::default() })
        .unwrap();
    setup.append("not asked for").unwrap();
    assert_eq!(setup.core.flusher().sync_if_due(setup.clock.monotonic()), Some(every));
    setup.clock.advance(every);
    assert_eq!(setup.core.flusher().sync_if_due(setup.clock.monotonic()), None);
    assert_eq!(setup.core.durable_end(), 2);
}

/// What is appended during a sync is not durable when that sync ends: who waits for it has
/// another one made.
// RED: src/partition/flusher.rs
//   - state.publish_durable(task.target);
//   + state.publish_durable(state.log().log_end());
#[test]
fn row_b14_an_acknowledgement_rests_on_a_sync_that_began_later() {
    let core = Arc::new(Mutex::new(None::<Arc<PartitionCore>>));
    let appending = Arc::clone(&core);
    let setup = Setup::hooked(move |operation, side| {
        // The data that this sync takes was chosen before.
        if (operation, side) == (Operation::Sync, Side::After)
            && let Some(core) = appending.lock().take()
        {
            append(&core, "during the sync", &AppendOptions::default()).unwrap();
        }
    });
    let end = setup.append("before").unwrap();
    *core.lock() = Some(Arc::clone(&setup.core));
    setup.core.wait_durable(end).unwrap();
    assert_eq!((setup.core.durable_end(), setup.core.log_end()), (end, end + 1));
    setup.core.wait_durable(end + 1).unwrap();
    let image = setup.disk.power_cut(&mut || 0, PowerCut::WORST);
    assert_eq!(Setup::recovered(image, false).core.log_end(), end + 1);
}

/// The same with threads: what is acknowledged is on the disk at that moment, however appends and
/// syncs of others overlap.
#[test]
fn row_b14_what_is_acknowledged_to_any_thread_is_on_the_disk() {
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

/// Symptom: a panic between the write of a new segment's opening batch and the roll left the log in
/// the old segment; what was appended there afterwards lay after the offset at which the new file
/// says that the next segment begins, and was cut off by the next opening. Rule: a panic under the
/// partition's lock poisons the partition.
#[test]
fn row_a26_a_panic_in_the_middle_of_a_roll_poisons_the_partition() {
    let writes = Arc::new(AtomicU64::new(u64::MAX));
    let left = Arc::clone(&writes);
    let setup = Setup::hooked(move |operation, side| {
        if (operation, side) == (Operation::Write, Side::After) {
            let before = left.fetch_sub(1, Ordering::Relaxed);
            assert!(before != 1, "a panic behind a write");
        }
    });
    let end = setup.append("before").unwrap();
    setup.core.wait_durable(end).unwrap();
    // The header, then the opening batch.
    writes.store(2, Ordering::Relaxed);
    let roll = || setup.core.with_log(|log| log.roll_for(0));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(roll)).is_err());
    let refused = setup.append("after");
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    assert_eq!(setup.values(), ["before"]);
    assert!(
        setup.core.log().take_checkpoint().is_none(),
        "no end of this log is known to be whole"
    );
    let next = Setup::recovered(setup.disk.kill9(), true);
    assert_eq!(next.values(), ["before"]);
    next.append("after").unwrap();
    let last = Setup::recovered(next.disk.kill9(), true);
    assert_eq!(last.values(), ["before", "after"]);
}

/// Symptom: who waited for a sync that panicked got `Closed`, as if somebody had closed the broker,
/// and later appends were said to be refused "since a failed sync". Cause: the gate had an answer
/// of its own for a sync without outcome. Rule: a panic is reported as what it is, to waiters as a
/// sync of unknown outcome, to appends as what poisoned the partition.
// RED: src/partition/flusher.rs
//   - self.flusher.gate.fail(failure);
#[test]
fn row_a26_a_panic_in_a_sync_is_reported_to_all_waiters_and_later_appends() {
    for side in [Side::Before, Side::After] {
        let is_armed = Arc::new(AtomicBool::new(false));
        let armed = Arc::clone(&is_armed);
        let setup = Setup::hooked(move |operation, at| {
            let is_hit = (operation, at) == (Operation::Sync, side);
            assert!(!(is_hit && armed.swap(false, Ordering::Relaxed)), "a panic in a sync");
        });
        let durable = setup.append("durable").unwrap();
        setup.core.wait_durable(durable).unwrap();
        let end = setup.append("1").unwrap();
        let (woken, waker) = waker();
        assert!(setup.core.flusher().poll(end, &waker, &mut None).is_none());
        is_armed.store(true, Ordering::Relaxed);
        let sync = || setup.core.wait_durable(end);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(sync)).is_err());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let polled = setup.core.flusher().poll(end, &waker, &mut None).expect("an answer");
        for answer in [polled, setup.core.wait_durable(end), setup.core.flush()] {
            let Err(error) = answer else { panic!("not durable") };
            assert!(matches!(error, Error::SyncFailed { .. }), "{error:?}");
            assert!(!error.is_definite() && error.is_fatal());
        }
        setup.core.wait_durable(durable).unwrap();
        let refused = setup.append("2").unwrap_err();
        let Error::Poisoned { source, .. } = &refused else { panic!("{refused:?}") };
        assert!(!refused.to_string().contains("sync"), "{refused}");
        let cause = std::error::Error::source(&**source).unwrap().to_string();
        assert!(cause.contains("panicked"), "{cause}");
        assert_eq!(setup.values(), ["durable"]);
    }
}

/// A destructor that appends while its thread unwinds has not panicked itself.
#[test]
fn an_append_while_the_thread_unwinds_poisons_nothing() {
    struct AtTheEnd<'a>(&'a Setup);
    impl Drop for AtTheEnd<'_> {
        fn drop(&mut self) {
            self.0.append("by a destructor").unwrap();
        }
    }
    let setup = Setup::new(Durability::Sync);
    let unwinds = || {
        let _last = AtTheEnd(&setup);
        panic!("the host's own");
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(unwinds)).is_err());
    setup.append("later").unwrap();
    assert_eq!(setup.values(), ["by a destructor", "later"]);
}

/// A6: the process dies in the middle of a sync, for which two tasks and a thread wait. Nobody was
/// answered anything but a failure, and what was synced before is there.
// RED: src/partition/flusher.rs
//   - result.map(|()| task.target)
//   + Ok(task.target)
#[test]
fn row_a06_a_waiter_of_the_sync_in_which_the_process_dies_has_no_answer() {
    let setup = Setup::new(Durability::Sync);
    let durable = setup.append("durable").unwrap();
    setup.core.wait_durable(durable).unwrap();
    let ends = ["1", "2", "3"].map(|value| setup.append(value).unwrap());
    let (one, two) = (waker(), waker());
    assert!(setup.core.flusher().poll(ends[0], &one.1, &mut None).is_none());
    assert!(setup.core.flusher().poll(ends[1], &two.1, &mut None).is_none());
    setup.disk.crash_at(setup.disk.store_points());
    let waited = setup.core.wait_durable(ends[2]);
    assert!(waited.as_ref().is_err_and(|error| !error.is_definite()), "{waited:?}");
    for (end, (_, waker)) in [(ends[0], one), (ends[1], two)] {
        let answer = setup.core.flusher().poll(end, &waker, &mut None);
        assert!(matches!(answer, Some(Err(_))), "{answer:?}");
    }
    assert_eq!(setup.core.durable_end(), durable);
    let killed = Setup::recovered(setup.disk.kill9(), true);
    assert_eq!(killed.values(), ["durable", "1", "2", "3"]);
    let cut = setup.disk.power_cut(&mut || 0, PowerCut::WORST);
    assert_eq!(Setup::recovered(cut, false).values(), ["durable"]);
}

/// Row D8: a caller of the sync that hangs waits without a deadline, and does not with one; a
/// partition beside it has its own syncs, and so has its own answers.
// RED: src/partition/group_commit.rs
//   - (Turn::Idle | Turn::InFlight, _) => state = self.wait_for_end(state, deadline)?,
//   + (Turn::Idle | Turn::InFlight, _) => return Ok(()),
#[test]
fn row_d08_a_sync_that_hangs_holds_up_who_waits_for_it_and_no_other_partition() {
    let (entered, is_entered) = std::sync::mpsc::channel();
    let (release, is_released) = std::sync::mpsc::channel::<()>();
    let doors = Mutex::new(Some((entered, is_released)));
    let is_armed = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&is_armed);
    let hanging = Setup::hooked(move |operation, side| {
        let is_hit = (operation, side) == (Operation::Sync, Side::Before);
        if is_hit && armed.swap(false, Ordering::Relaxed) {
            let (entered, is_released) = doors.lock().take().unwrap();
            entered.send(()).unwrap();
            // Also by the end of the test.
            let _ = is_released.recv();
        }
    });
    let beside = Setup::new(Durability::Sync);
    let (first, second) = (hanging.append("1").unwrap(), hanging.append("2").unwrap());
    is_armed.store(true, Ordering::Relaxed);
    let is_answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let release = release;
        let syncs = scope.spawn(|| hanging.core.wait_durable(first));
        is_entered.recv().unwrap();
        let waits = scope.spawn(|| {
            let waited = hanging.core.wait_durable(second);
            is_answered.store(true, Ordering::Release);
            waited
        });
        for deadline in [real_now(), real_now() + Duration::from_millis(1)] {
            let waited = hanging.core.flusher().wait_until(second, deadline);
            assert!(matches!(waited, Err(Error::Timeout)), "{waited:?}");
        }
        assert_eq!(hanging.append("3").unwrap(), 3);
        assert_eq!(hanging.values(), ["1", "2", "3"]);
        let end = beside.append("x").unwrap();
        beside.core.wait_durable(end).unwrap();
        assert!(!is_answered.load(Ordering::Acquire));
        assert_eq!(hanging.core.durable_end(), 0);
        release.send(()).unwrap();
        syncs.join().unwrap().unwrap();
        waits.join().unwrap().unwrap();
    });
    assert!(hanging.core.durable_end() >= second);
}

/// A sync that hangs holds up those who wait for it without a deadline, and nobody else.
#[test]
fn row_d08_while_a_sync_hangs_appends_continue_and_deadlines_hold() {
    let setup = Setup::new(Durability::Os);
    setup.noted.is_running.store(true, Ordering::Relaxed);
    let core = &setup.core;
    let end = setup.append("1").unwrap();
    let (entered, is_entered) = std::sync::mpsc::channel();
    let (release, is_released) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let hanging = scope.spawn(move || {
            let sync = || {
                entered.send(()).unwrap();
                is_released.recv().unwrap();
                core.flusher().sync_once(SyncScope::All)
            };
            core.gate.wait(end, None, Some(&sync), &|| u64::MAX)
        });
        is_entered.recv().unwrap();
        assert_eq!(setup.append("2").unwrap(), 2);
        assert_eq!(setup.values(), ["1", "2"]);
        let waited = core.flusher().wait_until(end, real_now());
        assert!(matches!(&waited, Err(Error::Timeout)), "{waited:?}");
        assert!(!waited.unwrap_err().is_definite());
        release.send(()).unwrap();
        hanging.join().unwrap().unwrap();
    });
    assert_eq!(core.durable_end(), 2);
}

/// A producer with a long interval appended first; an append at the topic's own, shorter interval
/// was then durable only after the long one, since an interval that ran was taken for the topic's.
/// The rule: the earliest deadline counts, from any producer.
// RED: src/partition/unsynced.rs
//   - let is_first = self.due.is_none_or(|known| due < known);
//   + let is_first = self.due.is_none();
#[test]
fn row_d11_the_partitions_own_interval_is_kept_behind_a_longer_one() {
    let setup = Setup::new(interval(1 << 20));
    let level = Some(Durability::Interval { every: SECOND * 8, bytes: 1 << 20 });
    append(&setup.core, "a", &AppendOptions { level: level.as_ref(), ..AppendOptions::default() })
        .unwrap();
    assert_eq!(setup.core.flusher().sync_if_due(setup.clock.monotonic()), Some(SECOND * 8));
    setup.append("b").unwrap();
    assert_eq!(setup.core.flusher().sync_if_due(setup.clock.monotonic()), Some(SECOND));
}
