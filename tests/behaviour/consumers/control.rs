//! A program that owns the loop: it pauses, moves, assigns anew, and looks at the ends.

use logpond::{Gap, Rebalance};

use super::*;

/// A busy member polls to stay in its group. Rule: what is paused is everything, also what a
/// rebalance brings.
// RED: src/consumer/slots.rs
//   - if pauses_all {
//   + if false {
#[test]
fn everything_is_paused_also_what_comes_later() {
    let broker = filled(&[2, 2]);
    let member = || broker.consumer("g").subscribe(["t"]).open().unwrap();
    let mut first = member();
    assert_eq!(first.recv().map(|message| number(&message)).unwrap(), 0);
    let mut second = member();
    while second.assignment().is_empty() {
        drain(&mut first);
        second.poll(Duration::ZERO).unwrap();
    }
    first.pause_all();
    assert_eq!(first.paused(), first.assignment());
    second.close().unwrap();
    assert!(first.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(first.assignment(), [tp("t", 0), tp("t", 1)]);
    assert_eq!(first.paused(), [tp("t", 0), tp("t", 1)]);
    first.resume([("t", 1)]).unwrap();
    assert_eq!(first.paused(), [tp("t", 0)]);
    let read = drain(&mut first);
    assert!(!read.is_empty() && read.iter().all(|message| message.partition() == 1));
    first.resume_all();
    assert!(first.paused().is_empty());
    send_numbers(&broker, "t", 0, 2..3);
    assert_eq!(numbers(drain(&mut first)).last(), Some(&2));
    let refused = first.pause([("t", 0), ("t", 7)]);
    assert!(matches!(refused, Err(Error::UnknownPartition(_))) && first.paused().is_empty());
}

/// A sink keeps its offsets in a database. Rule: the callback moves and pauses partitions before
/// their first message is returned, by every way to read.
#[test]
fn the_callback_of_an_assignment_moves_and_pauses_before_the_first_message() {
    let broker = filled(&[5, 5, 5]);
    for start in [StartAt::Earliest, StartAt::Latest] {
        let group = format!("{start:?}");
        let stored = Arc::new(Mutex::new(Vec::new()));
        let given = Arc::clone(&stored);
        let sink = broker.consumer(&group).subscribe(["t"]).start(start);
        let sink = sink.on_rebalance(move |event, commits| {
            let Rebalance::Assigned(partitions) = event else { return };
            for partition in partitions {
                let next = StartAt::Offset(3 + u64::from(partition.partition));
                commits.seek(partition, next).unwrap();
                given.lock().unwrap().push((partition.clone(), commits.position(partition)));
            }
            commits.pause([("t", 2)]).unwrap();
            let elsewhere = commits.seek(("u", 0), StartAt::Earliest);
            assert!(matches!(elsewhere, Err(Error::UnknownPartition(_))), "{elsewhere:?}");
        });
        let mut sink = sink.open().unwrap();
        let first = sink.recv().unwrap();
        assert_eq!((first.partition(), first.offset()), (0, 3));
        assert_eq!(numbers(drain(&mut sink)), [4, 4]);
        assert_eq!(sink.paused(), [tp("t", 2)]);
        let given: Vec<_> = stored.lock().unwrap().drain(..).collect();
        assert_eq!(given, [3, 4, 5].map(|at| (tp("t", u32::try_from(at - 3).unwrap()), Some(at))));
    }
}

/// With `StartAt::Error` a partition that comes later has no position, which the callback gives it.
#[test]
fn the_callback_gives_a_partition_without_a_position_one() {
    let broker = filled(&[5]);
    broker.admin().reset_offsets("g", "t", StartAt::Offset(4)).unwrap();
    let member = broker.consumer("g").subscribe_pattern("*").start(StartAt::Error);
    let mut member = member
        .on_rebalance(|event, commits| {
            if let Rebalance::Assigned([one]) = event
                && *one.topic == *"u"
            {
                commits.seek(one, StartAt::Offset(1)).unwrap();
            }
        })
        .open()
        .unwrap();
    assert_eq!(numbers(drain(&mut member)), [4]);
    broker.ensure_topic("u", small_topic(1)).unwrap();
    send_numbers(&broker, "u", 0, 0..3);
    assert_eq!(numbers(drain(&mut member)), [1, 2]);
}

#[test]
fn a_reader_is_assigned_anew_and_keeps_the_positions_of_what_it_has() {
    let broker = filled(&[3, 3, 3]);
    let mut reader = broker.reader().assign([("t", 0), ("t", 1)]).open().unwrap();
    assert_eq!(reader.recv().map(|message| message.partition()).unwrap(), 0);
    reader.assign([("t", 0), ("t", 2), ("t", 2)]).unwrap();
    assert_eq!(reader.assignment(), [tp("t", 0), tp("t", 2)]);
    assert_eq!((reader.position(("t", 0)), reader.position(("t", 2))), (Some(1), Some(0)));
    assert_eq!(drain(&mut reader).len(), 5);
    for unknown in [("t", 9), ("u", 0)] {
        reader.assign([("t", 1), unknown]).unwrap_err();
        assert_eq!(reader.assignment(), [tp("t", 0), tp("t", 2)], "changed by a refused call");
    }
    reader.assign::<(&str, u32)>([]).unwrap();
    assert!(reader.poll(Duration::ZERO).unwrap().is_empty() && reader.assignment().is_empty());
    reader.assign([("t", 1)]).unwrap();
    assert_eq!(drain(&mut reader).len(), 3);

    let mut standalone = broker.consumer("g").assign([("t", 0)]).open().unwrap();
    standalone.commit_offsets(&Offsets::from([(tp("t", 0), 2)])).unwrap();
    standalone.assign([("t", 1)]).unwrap();
    standalone.assign([("t", 0)]).unwrap();
    assert_eq!(standalone.position(("t", 0)), Some(2), "not the committed offset");
    let mut member = broker.consumer("h").subscribe(["t"]).open().unwrap();
    assert_eq!(refused_setting(member.assign([("t", 0)])), "assign");
}

/// A reader read the partitions that existed when it was opened, and said so; a monitor of all
/// topics had to be opened anew. Rule: a subscription is one, with a group and without.
// RED: src/consumer/assignment.rs
//   - self.follow_topics();
#[test]
fn a_reader_follows_its_topics_and_patterns() {
    let broker = filled(&[1]);
    let mut reader = broker.reader().subscribe(["t"]).subscribe_pattern("logs-*");
    reader = reader.start(StartAt::Latest);
    let mut reader = reader.open().unwrap();
    let mut fixed = broker.reader().assign([("t", 0)]).open().unwrap();
    broker.admin().add_partitions("t", 2).unwrap();
    for topic in ["logs-a", "other"] {
        broker.ensure_topic(topic, small_topic(1)).unwrap();
        send_numbers(&broker, topic, 0, 0..2);
    }
    send_numbers(&broker, "t", 1, 0..2);
    // What comes later is read from its beginning, as by a group.
    let read = drain(&mut reader);
    let from: BTreeSet<_> = read.iter().map(Message::topic_partition).collect();
    assert_eq!(from, BTreeSet::from([tp("logs-a", 0), tp("t", 1)]));
    assert_eq!(numbers(read), [0, 1, 0, 1]);
    drain(&mut fixed);
    assert_eq!(fixed.assignment(), [tp("t", 0)]);

    // Deleted: what the pattern matched is dropped, and followed if it comes back.
    broker.admin().delete_topic("logs-a").unwrap();
    assert!(reader.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(reader.assignment(), [tp("t", 0), tp("t", 1)]);
    broker.ensure_topic("logs-a", small_topic(1)).unwrap();
    send_numbers(&broker, "logs-a", 0, 5..6);
    assert_eq!(numbers(drain(&mut reader)), [5]);
    // What was named is missed, until there is one of that name again.
    broker.admin().delete_topic("t").unwrap();
    assert!(matches!(reader.poll(Duration::ZERO), Err(Error::UnknownTopic(_))));
    broker.ensure_topic("t", small_topic(1)).unwrap();
    send_numbers(&broker, "t", 0, 7..8);
    assert_eq!(numbers(drain(&mut reader)), [7]);
}

/// It is asleep when the topic comes.
// RED: src/broker/live_topics.rs
//   - self.followers.call_all();
#[test]
fn a_reader_that_waits_is_woken_by_a_new_topic() {
    let broker = in_memory();
    let mut reader = broker.reader().subscribe_pattern("new-*").open().unwrap();
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        parked.send(ThreadState::here()).unwrap();
        reader.recv_timeout(PATIENCE).unwrap().map(|message| number(&message))
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    broker.ensure_topic("new-1", small_topic(1)).unwrap();
    send_numbers(&broker, "new-1", 0, 3..4);
    assert_eq!(waiting.join().unwrap(), Some(3));
}

#[test]
fn the_ends_of_any_partition_can_be_asked_for() {
    let broker = filled(&[5, 3]);
    broker.admin().delete_records(("t", 0), 2).unwrap();
    let reader = broker.reader().assign([("t", 1)]).open().unwrap();
    let both = || [("t", 0), ("t", 1)];
    let expected = |ends: [u64; 2]| Offsets::from([(tp("t", 0), ends[0]), (tp("t", 1), ends[1])]);
    assert_eq!(reader.beginning_offsets(both()).unwrap(), expected([2, 0]));
    assert_eq!(reader.end_offsets(both()).unwrap(), expected([5, 3]));
    let enqueued = broker.producer().enqueue(Record::to("t").partition(1).value("9")).unwrap();
    assert_eq!(reader.end_offsets([("t", 1)]).unwrap()[&tp("t", 1)], 4);
    let durable = broker.reader().subscribe(["t"]).visibility(Visibility::Durable).open().unwrap();
    assert_eq!(durable.end_offsets([("t", 1)]).unwrap()[&tp("t", 1)], 3);
    drop(enqueued);
    assert!(matches!(reader.end_offsets([("u", 0)]), Err(Error::UnknownTopic(_))));
    assert!(matches!(reader.end_offsets([("t", 2)]), Err(Error::UnknownPartition(_))));
    broker.close().unwrap();
    assert!(matches!(reader.end_offsets([("t", 1)]), Err(Error::Closed)));
}

/// What is removed before a follower has read it is a gap for it, too.
#[test]
fn a_partition_that_a_reader_follows_has_its_gaps() {
    let broker = filled(&[0]);
    let mut reader = reader(&broker);
    broker.admin().add_partitions("t", 2).unwrap();
    send_numbers(&broker, "t", 1, 0..4);
    broker.admin().delete_records(("t", 1), 3).unwrap();
    assert_eq!(numbers(drain(&mut reader)), [3]);
    let gaps: Vec<Gap> = reader.take_gaps();
    assert_eq!((gaps.len(), gaps[0].missed.clone()), (1, 0..3));
}
