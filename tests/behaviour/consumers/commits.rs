//! What is committed, when, and for whom; who reads beside a group.

use super::*;

#[test]
fn each_way_to_commit_stores_the_next_offset() {
    let broker = filled(&[10, 10]);
    let (a, b) = (tp("t", 0), tp("t", 1));
    let mut consumer = broker.consumer("g").subscribe(["t"]).max_poll_records(3).open().unwrap();
    let committed =
        |consumer: &Consumer| [&a, &b].map(|partition| consumer.committed(partition).unwrap());
    assert_eq!(committed(&consumer), [None, None]);
    let batch: Vec<_> = consumer.poll(Duration::ZERO).unwrap().into_iter().collect();
    assert_eq!(batch.len(), 3);
    assert_eq!(committed(&consumer), [None, None], "a poll committed by itself");
    consumer.commit_message(&batch[1]).unwrap();
    assert_eq!(committed(&consumer), [Some(2), None]);
    consumer.commit().unwrap();
    assert_eq!(committed(&consumer), [Some(3), Some(0)]);
    consumer.commit_offsets(&Offsets::from([(b.clone(), 7)])).unwrap();
    assert_eq!(committed(&consumer), [Some(3), Some(7)]);
    consumer.commit_offsets(&Offsets::from([(a.clone(), 1), (b.clone(), 10)])).unwrap();
    assert_eq!(committed(&consumer), [Some(1), Some(10)], "back on purpose, and the end");
    consumer.poll(Duration::ZERO).unwrap();
    consumer.commit_soon().unwrap();
    let total: u64 = committed(&consumer).iter().flatten().sum();
    assert_eq!(total, 6);
    consumer.commit_offsets(&Offsets::new()).unwrap();
    assert_eq!(committed(&consumer).iter().flatten().sum::<u64>(), total);
}

// RED: src/consumer/commit.rs
//   - if offset > end {
//   + if offset > end.saturating_add(1_000) {
#[test]
fn row_j06_a_commit_beyond_the_end_or_of_a_partition_elsewhere_commits_nothing_of_the_call() {
    let broker = filled(&[10, 10]);
    let mut consumer = broker.consumer("g").assign([("t", 0), ("t", 1)]).open().unwrap();
    let beyond = Offsets::from([(tp("t", 0), 5), (tp("t", 1), 11)]);
    let refused = consumer.commit_offsets(&beyond);
    let Err(Error::OffsetOutOfRange { partition, requested: 11, start: 0, end: 10 }) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(partition, tp("t", 1));
    for elsewhere in [tp("t", 2), tp("u", 0)] {
        let offsets = Offsets::from([(tp("t", 0), 5), (elsewhere.clone(), 0)]);
        let refused = consumer.commit_offsets(&offsets);
        let Err(Error::UnknownPartition(named)) = refused else { panic!("{refused:?}") };
        assert_eq!(named, elsewhere);
    }
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), None);
}

#[test]
fn a_durable_commit_syncs_the_records_first() {
    let dir = temp_dir();
    let broker = Broker::builder().data_dir(dir.path()).background(false).open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(2).durability(Durability::Os)).unwrap();
    let ends = || [0, 1].map(|number| topic.partition(number).unwrap().durable_end_offset());
    send_numbers(&broker, "t", 0, 0..4);
    send_numbers(&broker, "t", 1, 0..4);
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let messages = drain(&mut consumer);
    assert_eq!(ends(), [0, 0]);
    consumer.commit_soon().unwrap();
    assert_eq!(ends(), [0, 0], "an asynchronous commit waits for nothing");
    let in_first = messages.iter().rfind(|message| message.partition() == 0).unwrap();
    consumer.commit_message(in_first).unwrap();
    assert_eq!(ends(), [4, 0], "only what the commit refers to");
    consumer.commit().unwrap();
    assert_eq!(ends(), [4, 4]);
}

#[test]
fn auto_commit_covers_only_what_a_later_poll_has_passed() {
    let clock = manual_clock();
    let broker = in_memory_at(&clock);
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..10);
    let every = Duration::from_secs(5);
    let mut consumer = broker
        .consumer("g")
        .subscribe(["t"])
        .commit(CommitMode::Auto { every })
        .max_poll_records(2)
        .open()
        .unwrap();
    let committed = |consumer: &Consumer| consumer.committed(&tp("t", 0)).unwrap();
    let poll = |consumer: &mut Consumer| numbers(consumer.poll(Duration::ZERO).unwrap());
    assert_eq!(poll(&mut consumer), [0, 1]);
    clock.advance(Duration::from_millis(4_999));
    assert_eq!(poll(&mut consumer), [2, 3]);
    assert_eq!(committed(&consumer), None, "before its time");
    clock.advance(Duration::from_millis(1));
    assert_eq!(committed(&consumer), None, "only a poll commits");
    assert_eq!(poll(&mut consumer), [4, 5]);
    assert_eq!(committed(&consumer), Some(4), "what this poll hands out is not passed");
    assert_eq!(poll(&mut consumer), [6, 7]);
    assert_eq!(committed(&consumer), Some(4), "not due again");
    clock.advance(every);
    assert_eq!(poll(&mut consumer), [8, 9]);
    assert_eq!(committed(&consumer), Some(8));
    consumer.close().unwrap();
    let consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(committed(&consumer), Some(8), "8 and 9 were handed out, not passed");
}

/// Symptom: the last record before a quiet time was not committed until the next one came. Cause:
/// auto mode looked at the clock before it waited, and not while it did. Rule: a wait ends for a
/// commit that is due, and continues.
#[test]
fn auto_commit_is_done_while_the_consumer_waits() {
    let broker = Broker::builder().in_memory().open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..1);
    let every = Duration::from_millis(20);
    let builder = broker.consumer("g").subscribe(["t"]).commit(CommitMode::Auto { every });
    let mut consumer = builder.open().unwrap();
    let handle = consumer.handle();
    let observer = broker.consumer("g").assign([("t", 0)]).open().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            assert_eq!(consumer.recv().unwrap().offset(), 0);
            consumer.recv().err()
        });
        within_patience("the commit", || observer.committed(("t", 0)).unwrap() == Some(1));
        handle.shutdown();
        assert!(matches!(waiting.join().unwrap(), Some(Error::Closed)));
    });
}

/// Symptom: a consumer of several topics could not commit any more once one of them was deleted.
/// Cause: a commit covered the deleted one too, and was refused whole, for ever. Rule: what was
/// deleted has no offsets to commit.
#[test]
fn a_deleted_topic_does_not_prevent_commits_of_the_others() {
    let broker = in_memory();
    for topic in ["gone", "kept"] {
        broker.ensure_topic(topic, TopicConfig::new(1)).unwrap();
        send_numbers(&broker, topic, 0, 0..3);
    }
    let partitions = [tp("gone", 0), tp("kept", 0)];
    let mut consumer = broker.consumer("g").assign(partitions).open().unwrap();
    assert_eq!(drain(&mut consumer).len(), 6);
    broker.admin().delete_topic("gone").unwrap();
    consumer.commit().unwrap();
    assert_eq!(consumer.committed(("kept", 0)).unwrap(), Some(3));
}

#[test]
fn closing_in_auto_mode_commits_what_was_passed_and_dropping_commits_nothing() {
    for closes in [true, false] {
        let broker = filled(&[10]);
        let mut consumer = broker
            .consumer("g")
            .subscribe(["t"])
            .commit(CommitMode::Auto { every: Duration::from_secs(3600) })
            .max_poll_records(3)
            .open()
            .unwrap();
        consumer.poll(Duration::ZERO).unwrap();
        consumer.poll(Duration::ZERO).unwrap();
        if closes {
            consumer.close().unwrap();
        } else {
            drop(consumer);
        }
        let consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
        assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), closes.then_some(3));
    }
}

/// Symptom: with `recv` in auto mode hundreds of processed messages were never committed, however
/// much time passed. Cause: only reading from the log, not taking from what was read ahead, counted
/// as passing and looked at the clock. Rule: each `recv` passes what the one before handed out.
#[test]
fn each_recv_passes_the_message_before_and_commits_when_it_is_time() {
    let clock = manual_clock();
    let broker = in_memory_at(&clock);
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..10);
    let every = Duration::from_secs(5);
    let mut consumer =
        broker.consumer("g").subscribe(["t"]).commit(CommitMode::Auto { every }).open().unwrap();
    for _ in 0..3 {
        consumer.recv().unwrap();
    }
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), None);
    clock.advance(every);
    consumer.recv().unwrap();
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), Some(3));
    consumer.recv().unwrap();
    consumer.close().unwrap();
    let consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), Some(4));
}

/// Symptom: a consumer by `assign` committed 100 for a group whose member had read 10, and after a
/// rebalance the next owner skipped the other 90. Cause: only members and administrators were
/// checked. Rule: offsets of a group are written by the owner of the partition, or by anybody while
/// the group has no live members.
// RED: src/group/coordinator.rs
//   - group.check_no_members()?;
#[test]
fn row_j05_a_consumer_by_hand_does_not_commit_over_the_heads_of_members() {
    let broker = filled(&[100]);
    let mut member = broker.consumer("g").subscribe(["t"]).max_poll_records(10).open().unwrap();
    assert_eq!(member.poll(Duration::ZERO).unwrap().len(), 10);
    member.commit().unwrap();
    let auto = CommitMode::Auto { every: Duration::from_nanos(1) };
    let mut by_hand = broker.consumer("g").assign([("t", 0)]).open().unwrap();
    let mut automatic = broker.consumer("g").assign([("t", 0)]).commit(auto).open().unwrap();
    let last = drain(&mut by_hand).pop().unwrap();
    let offsets = Offsets::from([(tp("t", 0), 100)]);
    for refused in [
        by_hand.commit(),
        by_hand.commit_soon(),
        by_hand.commit_message(&last),
        by_hand.commit_offsets(&offsets),
        automatic.poll(Duration::ZERO).map(drop).and(automatic.poll(Duration::ZERO).map(drop)),
        automatic.close(),
    ] {
        let Err(Error::GroupNotEmpty { group, members: 1 }) = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(group, "g");
    }
    assert_eq!(by_hand.committed(tp("t", 0)).unwrap(), Some(10));
    // It is what it was to a group that nobody is in.
    drop(member);
    by_hand.commit().unwrap();
    assert_eq!(by_hand.committed(tp("t", 0)).unwrap(), Some(100));
}

#[test]
fn a_consumer_that_assigns_by_hand_commits_for_its_group_before_it_has_members() {
    let broker = filled(&[6, 6]);
    let mut standalone = broker.consumer("g").assign([("t", 1)]).open().unwrap();
    assert_eq!(standalone.assignment(), [tp("t", 1)]);
    assert_eq!(drain(&mut standalone).len(), 6);
    standalone.commit().unwrap();
    let mut member = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(member.assignment(), [tp("t", 0), tp("t", 1)]);
    let messages = drain(&mut member);
    assert!(messages.len() == 6 && messages.iter().all(|it| it.partition() == 0));
    assert_eq!(member.committed(&tp("t", 1)).unwrap(), Some(6));
}

#[test]
fn a_reader_has_no_commits() {
    let broker = filled(&[3]);
    let mut reader = reader(&broker);
    let message = reader.recv().unwrap();
    assert_eq!(refused_setting(reader.commit()), "group");
    assert_eq!(refused_setting(reader.commit_soon()), "group");
    assert_eq!(refused_setting(reader.commit_message(&message)), "group");
    assert_eq!(refused_setting(reader.commit_offsets(&Offsets::new())), "group");
    assert_eq!(reader.committed(&tp("t", 0)).unwrap(), None);
    let auto = CommitMode::Auto { every: Duration::from_secs(1) };
    assert_eq!(refused_setting(broker.reader().subscribe(["t"]).commit(auto).open()), "commit");
}

#[test]
fn a_reader_sees_every_partition_and_keeps_others_out_of_nothing() {
    let broker = filled(&[3, 3, 3]);
    let mut readers: Vec<_> = (0..3).map(|_| reader(&broker)).collect();
    for reader in &mut readers {
        assert_eq!(reader.assignment().len(), 3);
        assert_eq!(drain(reader).len(), 9);
    }
    let mut one = broker.reader().assign([("t", 2)]).open().unwrap();
    assert!(drain(&mut one).iter().all(|message| message.partition() == 2));
    // Named twice is once.
    let mut twice = broker.reader().assign([("t", 2), ("t", 2)]).open().unwrap();
    assert_eq!(drain(&mut twice).len(), 3);
    let mut twice = broker.reader().subscribe(["t", "t"]).open().unwrap();
    assert_eq!(drain(&mut twice).len(), 9);
}

#[test]
fn a_deleted_topic_is_unknown_to_its_readers_and_nothing_else_ends() {
    let broker = filled(&[3]);
    broker.ensure_topic("u", TopicConfig::new(1)).unwrap();
    send_numbers(&broker, "u", 0, 0..2);
    let mut reader = broker.reader().subscribe(["t", "u"]).open().unwrap();
    let mut member = broker.consumer("g").subscribe(["t", "u"]).open().unwrap();
    assert_eq!(drain(&mut reader).len(), 5);
    assert_eq!(drain(&mut member).len(), 5);
    broker.admin().delete_topic("t").unwrap();
    let refused = reader.poll(Duration::ZERO);
    assert!(matches!(&refused, Err(Error::UnknownTopic(name)) if name == "t"), "{refused:?}");
    assert!(member.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(member.assignment(), [tp("u", 0)]);
    send_numbers(&broker, "u", 0, 2..4);
    assert_eq!(numbers(drain(&mut member)), [2, 3]);
    member.commit().unwrap();
    // A deleted topic can be ignored.
    reader.pause(&[tp("t", 0)]).unwrap();
    assert_eq!(numbers(drain(&mut reader)), [2, 3]);
}

#[test]
fn a_parked_reader_gets_an_error_when_its_topic_is_deleted() {
    let broker = filled(&[0]);
    let mut reader = reader(&broker);
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        parked.send(ThreadState::here()).unwrap();
        reader.recv()
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    broker.admin().delete_topic("t").unwrap();
    let answer = waiting.join().unwrap();
    assert!(matches!(answer, Err(Error::UnknownTopic(_))), "{answer:?}");
}

/// Symptom: a member that was given several partitions at once, one of them out of range, read none
/// of them with `StartAt::Error`, after one error and for ever. Cause: the first partition without
/// a position ended the taking over, and later each poll. Rule: its error is returned once, then
/// the other partitions are read before it is returned again.
#[test]
fn a_partition_without_a_position_keeps_no_other_from_being_read() {
    let broker = filled(&[4, 4, 4]);
    let mut first = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let committed = Offsets::from([(tp("t", 0), 1), (tp("t", 1), 0), (tp("t", 2), 2)]);
    first.commit_offsets(&committed).unwrap();
    broker.admin().delete_records(("t", 1), 1).unwrap();
    let second = broker.consumer("g").subscribe(["t"]).out_of_range(StartAt::Error);
    let mut second = second.open().unwrap();
    drop(first);
    let mut seen = Vec::new();
    let assert_reported = |polled: logpond::Result<logpond::Batch>| {
        let is_range =
            matches!(polled, Err(Error::OffsetOutOfRange { requested: 0, start: 1, end: 4, .. }));
        assert!(is_range, "{polled:?}");
    };
    assert_reported(second.poll(Duration::ZERO));
    let batch = second.poll(Duration::ZERO).unwrap();
    seen.extend(batch.iter().map(|it| (it.partition(), it.offset())));
    assert!(!seen.is_empty(), "the others wait for the one");
    // Of nothing else there is anything to read.
    assert_reported(second.poll(Duration::ZERO));
    assert_reported(second.poll(Duration::ZERO));
    second.seek(tp("t", 1), StartAt::Offset(3)).unwrap();
    seen.extend(drain(&mut second).iter().map(|it| (it.partition(), it.offset())));
    seen.sort_unstable();
    assert_eq!(seen, [(0, 1), (0, 2), (0, 3), (1, 3), (2, 2), (2, 3)]);
}

/// Symptom: commit at 100, a seek to 300, and a late commit of the message at 49 took the group
/// back to 50. Cause: every seek, forward too, let each later commit count, however low. Rule: only
/// a seek back lowers the floor of commits, and only to where it went.
// RED: src/consumer/commit.rs
//   - slot.commits.take_from_at_most(slot.progress.handed_out());
//   + slot.commits.take_from(0);
#[test]
fn row_j06_a_seek_forward_lets_no_late_commit_take_the_group_back() {
    let broker = filled(&[400]);
    let there = tp("t", 0);
    let mut consumer = broker.consumer("g").subscribe(["t"]).max_poll_records(100).open().unwrap();
    let batch: Vec<_> = consumer.poll(Duration::ZERO).unwrap().into_iter().collect();
    consumer.commit().unwrap();
    consumer.seek(&there, StartAt::Offset(300)).unwrap();
    consumer.commit_message(&batch[49]).unwrap();
    assert_eq!(consumer.committed(&there).unwrap(), Some(100), "a late commit went back");
    // A seek back takes the commits back, as far as it went.
    consumer.seek(&there, StartAt::Offset(60)).unwrap();
    consumer.commit_message(&batch[49]).unwrap();
    assert_eq!(consumer.committed(&there).unwrap(), Some(100), "below the seek");
    consumer.commit_message(&batch[60]).unwrap();
    assert_eq!(consumer.committed(&there).unwrap(), Some(61));
}

/// Symptom: a commit before the first poll passed a gap that was met where the partition was taken
/// over; closed then, the consumer had hidden it from everybody. Cause: the position is behind the
/// gap, and `commit` took it for what was handed out. Rule: nothing that waits to be reported is
/// committed before.
// RED: src/consumer/commit.rs
//   - let reported = reported.filter(|(_, slot)| !self.gaps.awaits_poll(slot.origin()));
#[test]
fn row_j03_a_commit_before_the_first_poll_hides_no_gap() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..10);
    let open = || broker.consumer("g").subscribe(["t"]).open().unwrap();
    let mut first = open();
    let message = first.recv().unwrap();
    first.commit_message(&message).unwrap();
    first.close().unwrap();
    broker.admin().delete_records(("t", 0), 5).unwrap();
    let mut early = open();
    early.commit().unwrap();
    early.commit_soon().unwrap();
    early.close().unwrap();
    let mut next = open();
    assert_eq!(next.recv().unwrap().offset(), 5);
    let gaps = next.take_gaps();
    assert!(matches!(&*gaps, [gap] if gap.missed == (1..5)), "{gaps:?}");
    next.commit().unwrap();
    assert_eq!(next.committed(&tp("t", 0)).unwrap(), Some(6));
}
