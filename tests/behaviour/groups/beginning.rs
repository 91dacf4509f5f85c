//! Where a group begins: what `start` says counts once, when the group first subscribes.

use std::sync::{Arc, Mutex};

use logpond::{ManualClock, Rebalance};

use super::*;

const NOW: Duration = Duration::ZERO;
const INTERVAL: Duration = Duration::from_secs(10);

/// A broker with a topic `t` of two partitions with five records each.
fn five_in_each() -> (Broker, ManualClock) {
    let clock = manual_clock();
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    let broker = builder.open().unwrap();
    broker.ensure_topic("t", small_topic(2)).unwrap();
    (0..2).for_each(|number| send_numbers(&broker, "t", number, 0..5));
    (broker, clock)
}

fn starting(broker: &Broker, start: StartAt) -> Consumer {
    let builder = broker.consumer("g").subscribe(["t"]).max_poll_interval(INTERVAL);
    builder.start(start).open().unwrap()
}

fn by_pattern(broker: &Broker, pattern: &str, start: StartAt) -> Consumer {
    broker.consumer("g").subscribe_pattern(pattern).start(start).open().unwrap()
}

fn read(consumer: &mut Consumer) -> Vec<(u32, u64)> {
    records(&drain(consumer))
}

/// Symptom: a member that starts at the end had the partition and committed nothing; what was
/// appended until another took it over was never delivered to the group. Cause: each owner of a
/// partition without a commit asked its own `start` anew. Rule: where the group begins is committed
/// when it subscribes for the first time.
// RED: src/consumer/assignment.rs
//   - FirstSubscription::new(&self.run, group, &self.settings).store(&request.interest)?;
#[test]
fn row_j21_a_partition_that_moves_before_its_first_commit_loses_nothing() {
    let (broker, clock) = five_in_each();
    let first = starting(&broker, StartAt::Latest);
    assert_eq!(first.committed(("t", 0)).unwrap(), Some(5), "before its first poll");
    send_numbers(&broker, "t", 0, 5..8);
    drop(first);
    let mut second = starting(&broker, StartAt::Latest);
    assert_eq!(read(&mut second), [(0, 5), (0, 6), (0, 7)]);
    // Evicted, handed over, and with another `start`, as after a change of the settings.
    clock.advance(INTERVAL);
    let mut third = starting(&broker, StartAt::Earliest);
    assert_eq!(read(&mut third), [(0, 5), (0, 6), (0, 7)]);
    let mut fourth = starting(&broker, StartAt::Error);
    let of_third = read(&mut third).len();
    assert_eq!((of_third, third.assignment().len(), read(&mut fourth).len() % 3), (0, 1, 0));
    // Another group begins where it says.
    let mut other = broker.consumer("h").subscribe(["t"]).start(StartAt::Latest).open().unwrap();
    assert_eq!(read(&mut other), []);
}

/// The same for a partition, a topic, or a topic of an old name that came later: its first record
/// is the first that the group has not seen, whatever `start` says.
// RED: src/consumer/assignment.rs
//   - None if has_begun(&self.run, &self.role, &partition.topic) => {
//   + None if false => {
#[test]
fn row_j21_what_comes_after_the_subscription_is_read_from_the_beginning() {
    for is_away in [false, true] {
        let (broker, _) = five_in_each();
        let named = starting(&broker, StartAt::Latest);
        let pattern = by_pattern(&broker, "new*", StartAt::Latest);
        let mut members = Some((named, pattern));
        let mut poll = |broker: &Broker| {
            if is_away {
                members = None;
                let reopened = starting(broker, StartAt::Latest);
                members = Some((reopened, by_pattern(broker, "new*", StartAt::Latest)));
            }
            let (named, pattern) = members.as_mut().unwrap();
            let mut all = drain(named);
            all.extend(drain(pattern));
            let of = |it: &Message| (it.topic().to_owned(), it.partition(), it.offset());
            let mut seen: Vec<_> = all.iter().map(of).collect();
            named.commit().unwrap();
            pattern.commit().unwrap();
            seen.sort_unstable();
            seen
        };
        let of = |topic: &str, partition, offset| (topic.to_owned(), partition, offset);
        assert_eq!(poll(&broker), []);
        broker.admin().add_partitions("t", 3).unwrap();
        send_numbers(&broker, "t", 2, 0..2);
        assert_eq!(poll(&broker), [of("t", 2, 0), of("t", 2, 1)], "grown");
        broker.ensure_topic("new", small_topic(1)).unwrap();
        send_numbers(&broker, "new", 0, 0..1);
        assert_eq!(poll(&broker), [of("new", 0, 0)], "new");
        broker.admin().delete_topic("new").unwrap();
        broker.ensure_topic("new", small_topic(1)).unwrap();
        send_numbers(&broker, "new", 0, 0..2);
        assert_eq!(poll(&broker), [of("new", 0, 0), of("new", 0, 1)], "made again");
    }
}

/// A subscription is to a name or a pattern, and the earliest that covers a topic counts.
#[test]
fn each_name_and_each_pattern_is_subscribed_to_once() {
    let (broker, _) = five_in_each();
    broker.ensure_topic("u", small_topic(1)).unwrap();
    send_numbers(&broker, "u", 0, 0..5);
    drop(starting(&broker, StartAt::Latest));
    broker.admin().add_partitions("t", 3).unwrap();
    send_numbers(&broker, "t", 2, 0..1);
    // `u` is new to the group and begins at its end; all of `t` was subscribed to before.
    let mut wide = by_pattern(&broker, "*", StartAt::Latest);
    assert_eq!(read(&mut wide), [(2, 0)]);
    assert_eq!(wide.position(("u", 0)), Some(5));
    send_numbers(&broker, "u", 0, 5..6);
    drop(wide);
    let mut both =
        broker.consumer("g").subscribe(["u", "t"]).start(StartAt::Latest).open().unwrap();
    assert_eq!(read(&mut both), [(0, 5), (2, 0)]);
}

#[test]
fn where_a_group_begins_survives_a_restart() {
    let dir = temp_dir();
    for (start, first) in
        [(StartAt::Latest, 5), (StartAt::Offset(3), 3), (StartAt::Time(some_time()), 0)]
    {
        for is_clean in [false, true] {
            let broker = open_quiet(dir.path());
            let topic = format!("{first}-{is_clean}");
            broker.ensure_topic(&topic, small_topic(1)).unwrap();
            send_numbers(&broker, &topic, 0, 0..5);
            let open = |broker: &Broker, start| {
                broker.consumer("g").subscribe([&topic]).start(start).open().unwrap()
            };
            drop(open(&broker, start));
            send_numbers(&broker, &topic, 0, 5..6);
            if is_clean {
                broker.close().unwrap();
            } else {
                drop(broker);
            }
            let broker = open_quiet(dir.path());
            let mut again = open(&broker, StartAt::Latest);
            assert_eq!(drain(&mut again)[0].offset(), first, "{start:?} {is_clean}");
        }
    }
}

/// If `start` finds no offset, the group has not begun: the `start` of the next member decides. A
/// group that was deleted begins anew.
#[test]
fn a_group_that_has_not_begun_begins_with_the_next_member() {
    let (broker, _) = five_in_each();
    let refused = broker.consumer("g").subscribe(["t"]).start(StartAt::Error).open();
    assert!(matches!(refused, Err(Error::NoOffset(_))), "{refused:?}");
    assert!(broker.admin().groups().unwrap().is_empty());
    let latest = starting(&broker, StartAt::Latest);
    assert_eq!(latest.position(("t", 0)), Some(5));
    drop(latest);
    let known = broker.admin().describe_group("g").unwrap();
    assert_eq!((known.state, known.offsets.len()), (GroupStatus::Empty, 2));
    broker.admin().delete_group("g").unwrap();
    assert_eq!(read(&mut starting(&broker, StartAt::Earliest)).len(), 10);
    let known = broker.admin().describe_group("g").unwrap();
    let is_committed = known.offsets.iter().any(|it| it.committed.is_some());
    assert!(!is_committed, "a beginning at 0 needs no commit");
    broker.admin().delete_group("g").unwrap();
    assert!(broker.admin().groups().unwrap().is_empty());
}

/// What retention removes before a group has read anything of a partition is a gap too.
#[test]
fn what_is_removed_before_the_first_commit_is_a_gap() {
    let (broker, _) = five_in_each();
    broker.admin().delete_records(("t", 1), 2).unwrap();
    drop(starting(&broker, StartAt::Earliest));
    broker.admin().delete_records(("t", 0), 3).unwrap();
    broker.admin().delete_records(("t", 1), 3).unwrap();
    let mut next = starting(&broker, StartAt::Latest);
    assert_eq!(read(&mut next), [(0, 3), (0, 4), (1, 3), (1, 4)]);
    let mut gaps: Vec<_> =
        next.take_gaps().into_iter().map(|gap| (gap.partition.partition, gap.missed)).collect();
    gaps.sort_unstable_by_key(|(number, _)| *number);
    assert_eq!(gaps, [(0, 0..3), (1, 2..3)]);
}

#[test]
fn a_callback_sees_where_the_group_begins() {
    let (broker, _) = five_in_each();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let builder = broker.consumer("g").subscribe(["t"]).start(StartAt::Offset(2));
    let builder = builder.on_rebalance(move |event, commits| {
        if let Rebalance::Assigned(partitions) = event {
            let mut notes = notes.lock().unwrap();
            notes.extend(partitions.iter().filter_map(|it| commits.position(it)));
        }
    });
    builder.open().unwrap().poll(NOW).unwrap();
    assert_eq!(*seen.lock().unwrap(), [2, 2]);
}

/// A group that reads by a pattern is sent back in all of its topics.
#[test]
fn a_whole_group_is_reset_in_every_topic_that_it_reads() {
    let (broker, _) = five_in_each();
    for topic in ["u", "not-read"] {
        broker.ensure_topic(topic, small_topic(1)).unwrap();
        send_numbers(&broker, topic, 0, 0..5);
    }
    let admin = broker.admin();
    let unknown = admin.reset_group("g", StartAt::Earliest);
    assert!(matches!(unknown, Err(Error::UnknownGroup(name)) if name == "g"));
    let mut member = by_pattern(&broker, "?", StartAt::Earliest);
    assert_eq!(drain(&mut member).len(), 15);
    member.commit().unwrap();
    assert!(matches!(admin.reset_group("g", StartAt::Earliest), Err(Error::GroupNotEmpty { .. })));
    drop(member);
    let reset = admin.reset_group("g", StartAt::Offset(3)).unwrap();
    assert_eq!(reset, Offsets::from([(tp("t", 0), 3), (tp("t", 1), 3), (tp("u", 0), 3)]));
    let mut member = by_pattern(&broker, "?", StartAt::Earliest);
    assert_eq!(drain(&mut member).len(), 6);
}
