//! The byte budget of a broker: who is refused, and what makes room.

use super::*;

const BUDGET: u64 = 200 << 10;

fn limited(policy: WhenFull) -> Setup {
    let clock = manual_clock();
    let builder = builder(&clock).max_total_bytes(BUDGET).when_full(policy);
    let broker = builder.open().unwrap();
    let topic = broker.ensure_topic("t", small_topic(1).retention(10 * MINUTE)).unwrap();
    let partition = topic.partition(0).unwrap();
    Setup { broker, clock, partition }
}

impl Setup {
    /// Until the budget is used up; how many went in.
    fn fill(&self) -> u64 {
        let mut count = 0;
        loop {
            match self.partition.append(&Record::new().value(&VALUE)) {
                Ok(_) => count += 1,
                Err(error) => {
                    assert!(matches!(error, Error::StorageFull { .. }), "{error:?}");
                    assert!(error.is_definite() && error.is_retriable(), "{error:?}");
                    return count;
                }
            }
            assert!(count < BUDGET / 1_000, "the budget holds no more");
        }
    }
}

/// A broker in memory grew until the process was killed when nobody read. The rule: it has a budget
/// unless one is switched off; a directory has what there is on the disk.
#[test]
fn a_broker_in_memory_has_a_budget_by_default() {
    let limit = |builder: BrokerBuilder| {
        builder.background(false).open().unwrap().metrics().budget_limit_bytes
    };
    let dir = temp_dir();
    let memory = || Broker::builder().in_memory();
    assert_eq!(limit(memory()), Some(1 << 30));
    assert_eq!(limit(memory().max_total_bytes(BUDGET)), Some(BUDGET));
    assert_eq!(limit(memory().max_total_bytes(u64::MAX)), None);
    assert_eq!(limit(Broker::builder().data_dir(dir.path())), None);
    assert_eq!(limit(memory().data_dir(dir.path())), None, "the later call counts");
}

#[test]
fn a_full_budget_refuses_appends_and_nothing_else() {
    let setup = limited(WhenFull::Refuse);
    let count = setup.fill();
    assert!(count > 100, "{count}");
    assert_eq!(setup.fill(), 0);
    assert_dense(&read_all(&setup.partition), 0);
    let mut consumer = setup.broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(drain(&mut consumer).len() as u64, count);
    consumer.commit().unwrap();
    // Who stands in a file that goes does not keep its part of the budget.
    let slow = setup.broker.reader().assign([("t", 0)]).max_poll_records(1);
    let mut slow = slow.open().unwrap();
    let held = slow.recv().unwrap();
    let refused = setup.broker.ensure_topic("u", TopicConfig::new(9));
    assert!(matches!(refused, Err(Error::StorageFull { .. })), "{refused:?}");
    setup.broker.flush().unwrap();

    // Deleting, retention and deleting a topic each make room, without reopening.
    setup.broker.admin().delete_records(("t", 0), 40).unwrap();
    let again = setup.fill();
    assert!((28..=40).contains(&again), "{again}");
    assert_eq!(held.value(), Some(&VALUE[..]));
    let end = setup.partition.log_end_offset();
    assert_eq!(setup.tick_after(11 * MINUTE), end);
    assert!(setup.fill() > 100);
    setup.broker.admin().delete_topic("t").unwrap();
    let topic = setup.broker.ensure_topic("t", small_topic(1)).unwrap();
    let next = Setup { partition: topic.partition(0).unwrap(), ..setup };
    assert!(next.fill() > 100);
}

#[test]
fn a_budget_that_one_segment_uses_up_is_freed_by_deleting_all_of_it() {
    let clock = manual_clock();
    let broker = builder(&clock).max_total_bytes(BUDGET).open().unwrap();
    let config = TopicConfig::new(1).retention(MINUTE);
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    let setup = Setup { broker, clock, partition };
    let count = setup.fill();
    assert_eq!(setup.segments(), 1);
    setup.broker.admin().delete_records(("t", 0), count).unwrap();
    let again = setup.fill();
    assert!(again >= count, "{again} of {count}");
    assert_eq!(setup.tick_after(2 * MINUTE), count + again);
    assert!(setup.fill() >= count);
}

#[test]
fn a_budget_counts_what_an_earlier_run_has_left() {
    let dir = temp_dir();
    let clock = manual_clock();
    let open = || on_disk(dir.path(), &clock).max_total_bytes(BUDGET).open().unwrap();
    let mut total = 0;
    for run in 0..4 {
        let broker = open();
        let topic = broker.ensure_topic("t", small_topic(1)).unwrap();
        let partition = topic.partition(0).unwrap();
        let setup = Setup { broker, clock: clock.clone(), partition };
        let count = setup.fill();
        assert!(run == 0 || count < 30, "{count} more in run {run}");
        total += count;
        assert_eq!(setup.partition.log_end_offset(), total);
        if run % 2 == 0 {
            let Setup { broker, .. } = setup;
            broker.close().unwrap();
        }
    }
}

#[test]
fn the_oldest_records_make_room_for_new_ones() {
    let setup = limited(WhenFull::DropOldest);
    let other = setup.broker.ensure_topic("other", small_topic(1)).unwrap();
    let other = other.partition(0).unwrap();
    setup.append(20);
    setup.clock.advance(SECOND);
    for _ in 0..40 {
        other.append(&Record::new().value(&VALUE)).unwrap();
    }
    setup.clock.advance(SECOND);
    let mut starts = Vec::new();
    for _ in 0..1_000 {
        setup.append(1);
        starts.push((setup.start(), other.log_start_offset()));
    }
    assert_eq!(setup.partition.log_end_offset(), 1_020);
    assert!(starts.is_sorted(), "the log starts went back");
    let kept = setup.partition.log_end_offset() - setup.start();
    assert!((50..200).contains(&kept), "{kept}");
    // The oldest first, whichever topic it belongs to: `t` had one full segment before `other`.
    let first = starts.iter().find(|(_, other)| *other > 0).unwrap();
    assert_eq!(first.0, FULL);
    assert!(starts.contains(&(FULL, 0)), "{starts:?}");
    // What takes appends stays.
    assert_eq!(other.log_start_offset(), 30);
    assert_dense(&read_all(&setup.partition), setup.start());
}

/// Symptom: while a busy topic kept the budget full, creating another one was refused at random,
/// although no append ever was.
#[test]
fn the_oldest_records_make_room_for_new_topics() {
    let setup = limited(WhenFull::DropOldest);
    for round in 0..30 {
        setup.append(20);
        let topic = setup.broker.ensure_topic("other", small_topic(2)).unwrap();
        assert_eq!(topic.partitions(), 2, "round {round}");
        setup.append(7);
        setup.broker.admin().delete_topic("other").unwrap();
    }
}

#[test]
fn where_nothing_is_sealed_the_last_segment_goes() {
    let clock = manual_clock();
    let policy = WhenFull::DropOldest;
    let broker = builder(&clock).max_total_bytes(BUDGET).when_full(policy).open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let compacted = TopicConfig::new(1).cleanup(Cleanup::Compact);
    let state = broker.ensure_topic("state", compacted).unwrap().partition(0).unwrap();
    let setup = Setup { broker, clock, partition: topic.partition(0).unwrap() };
    setup.append(500);
    assert_eq!(setup.partition.log_end_offset(), 500);
    assert!(setup.start() > 300);
    assert_dense(&read_all(&setup.partition), setup.start());
    // A compacted topic drops nothing of its own, and nothing of it is dropped.
    let mut kept = 0;
    let refused = loop {
        match state.append(&Record::new().key("k").value(&VALUE)) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::StorageFull { .. }), "{refused:?}");
    assert_eq!(read_all(&state).len(), kept);
}

#[test]
fn many_threads_share_a_budget_and_the_oldest_go() {
    let broker = Broker::builder()
        .in_memory()
        .max_total_bytes(4 * BUDGET)
        .when_full(WhenFull::DropOldest)
        .open()
        .unwrap();
    let topic = broker.ensure_topic("t", small_topic(4)).unwrap();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let partition = topic.partition(number).unwrap();
            scope.spawn(move || {
                for _ in 0..2_000 {
                    partition.append(&Record::new().value(&VALUE)).unwrap();
                }
            });
        }
    });
    for number in 0..4 {
        let partition = topic.partition(number).unwrap();
        assert_eq!(partition.log_end_offset(), 2_000);
        assert_dense(&read_all(&partition), partition.log_start_offset());
    }
}
