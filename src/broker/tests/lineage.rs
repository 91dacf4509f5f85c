//! Logs that were cut under consumers that had come further.

use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use super::model::{clock, open_at, values};
use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::{CommitMode, Durability, StartAt, TopicConfig};
use crate::consumer::Consumer;
use crate::error::Error;
use crate::record::{Offsets, Record, TopicPartition};
use crate::storage::disk::{Fault, Metadata, Operation, Pages, PowerCut, SimulatedDisk};

fn open(disk: &SimulatedDisk, seed: u64) -> Broker {
    let broker = open_at(disk, seed, Durability::Os, &clock()).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    broker
}

fn send(broker: &Broker, values: &[&str]) {
    for value in values {
        broker.producer().send(Record::to("t").value(value)).unwrap();
    }
}

fn consumer(broker: &Broker) -> Consumer {
    broker.consumer("g").subscribe(["t"]).open().unwrap()
}

fn read(consumer: &mut Consumer) -> Vec<String> {
    let batch = consumer.poll(Duration::ZERO).unwrap();
    batch.iter().map(|it| String::from_utf8(it.value().unwrap().to_vec()).unwrap()).collect()
}

fn commit_all(broker: &Broker) -> u64 {
    let mut consumer = consumer(broker);
    read(&mut consumer);
    consumer.commit().unwrap();
    consumer.position(&TopicPartition::from(("t", 0))).unwrap()
}

/// The consumer gets the error once, and then reads what came after the cut.
fn assert_truncated<V: AsRef<str>>(
    consumer: &mut Consumer,
    committed: u64,
    end: u64,
    behind: &[V],
) {
    match consumer.poll(Duration::ZERO) {
        Err(Error::Truncated { partition, committed: found, end: cut_to }) => {
            assert_eq!(partition, TopicPartition::from(("t", 0)));
            assert_eq!((found, cut_to), (committed, end));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(consumer.position(&TopicPartition::from(("t", 0))), Some(end));
    let behind: Vec<_> = behind.iter().map(AsRef::as_ref).collect();
    assert_eq!(read(consumer), behind, "reported twice, or not continued at the cut");
}

/// Everything of the topic that was not synced is lost; the commit of it is not.
fn cut_topic_tail(broker: Broker, disk: &SimulatedDisk) -> SimulatedDisk {
    broker.run().coordinator().offsets().partition().flush().unwrap();
    drop(broker);
    disk.power_cut(&mut || 0, PowerCut::WORST)
}

/// A disk with a topic that is cut at 2, below a commit at 5.
fn cut_below_a_commit() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0", "1"]);
    broker.flush().unwrap();
    send(&broker, &["2", "3", "4"]);
    assert_eq!(commit_all(&broker), 5);
    cut_topic_tail(broker, &disk)
}

/// Symptom: a group got notice that records were cut, and its commit went back. Cause: what can be
/// read of a poisoned partition ends at its durable end, and a commit beyond that was taken for one
/// beyond a cut. Rule: only a recovery cuts.
#[test]
fn a_commit_beyond_what_a_poisoned_partition_shows_is_no_truncation() {
    let disk = SimulatedDisk::new();
    let broker = open_at(&disk, 1, Durability::Os, &clock()).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    for value in ["a", "b", "c"] {
        partition.append(&Record::new().value(value)).unwrap();
    }
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 3);
    consumer.commit().unwrap();
    drop(consumer);
    disk.inject(Fault::once(Operation::Sync, ErrorKind::Other).on("/t/0"));
    partition.flush().unwrap_err();
    let mut next = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert!(next.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(next.position(("t", 0)), Some(3));
}

// RED: src/consumer/slot.rs
//   - if let Some(cut_to) = cut.or_else(|| (offset > end).then_some(end)) {
//   + if let Some(cut_to) = cut.filter(|_| offset < end) {
#[test]
fn row_b06_a_consumer_beyond_the_cut_is_notified_once() {
    let disk = cut_below_a_commit();

    let broker = open(&disk, 2);
    assert_eq!(values(&broker.topic("t").unwrap(), 0), ["0", "1"]);
    assert_truncated::<&str>(&mut consumer(&broker), 5, 2, &[]);
}

// RED: src/consumer/slot.rs
//   - let cut = self.core.log().lineage().cut_below(offset, incarnation);
//   + let cut = self.core.log().lineage().cut_below(offset, incarnation).filter(|_| offset > end);
// RED: src/consumer/slot.rs
//   - self.move_to(cut_to.max(start));
//   + self.move_to(end.max(start));
#[test]
fn row_b06_records_that_reuse_the_numbers_are_not_skipped_unnoticed() {
    let disk = cut_below_a_commit();

    let broker = open(&disk, 2);
    let new = ["x2", "x3", "x4", "x5"];
    send(&broker, &new);
    assert_truncated(&mut consumer(&broker), 5, 2, &new);
    // Again after another crash, and after a clean end: until something new is committed.
    drop(broker);
    let broker = open(&disk, 3);
    assert_truncated(&mut consumer(&broker), 5, 2, &new);
    broker.close().unwrap();
    let broker = open(&disk, 4);
    assert_truncated(&mut consumer(&broker), 5, 2, &new);
    assert_eq!(commit_all_after_report(&broker), 6);
    send(&broker, &["x6"]);
    assert_eq!(read(&mut consumer(&broker)), ["x6"]);
    broker.close().unwrap();
    let broker = open(&disk, 5);
    assert_eq!(read(&mut consumer(&broker)), ["x6"]);
}

fn commit_all_after_report(broker: &Broker) -> u64 {
    let mut consumer = consumer(broker);
    assert!(consumer.poll(Duration::ZERO).is_err());
    read(&mut consumer);
    consumer.commit().unwrap();
    consumer.position(&TopicPartition::from(("t", 0))).unwrap()
}

/// A broker whose topic has `partitions`, each cut at 2 below a commit at 5, with new records.
fn cut_below_commits(partitions: u32, seed: u64, clock: &ManualClock) -> Broker {
    let disk = SimulatedDisk::new();
    let broker = open_at(&disk, seed, Durability::Os, clock).unwrap();
    broker.ensure_topic("t", TopicConfig::new(partitions)).unwrap();
    let send_each = |broker: &Broker, values: &[&str]| {
        for (partition, value) in (0..partitions).flat_map(|it| values.iter().map(move |v| (it, v)))
        {
            broker.producer().send(Record::to("t").partition(partition).value(value)).unwrap();
        }
    };
    send_each(&broker, &["0", "1"]);
    broker.flush().unwrap();
    send_each(&broker, &["2", "3", "4"]);
    commit_all(&broker);
    let disk = cut_topic_tail(broker, &disk);
    let broker = open_at(&disk, seed + 1, Durability::Os, clock).unwrap();
    send_each(&broker, &["x2", "x3", "x4"]);
    broker
}

const EVERY: Duration = Duration::from_millis(1);

fn auto_consumer(broker: &Broker) -> Consumer {
    let every = EVERY;
    broker.consumer("g").subscribe(["t"]).commit(CommitMode::Auto { every }).open().unwrap()
}

/// Symptom: with `CommitMode::Auto` nobody ever heard of a cut when the consumer was closed before
/// its first poll, and a poll that ended early committed the new position first. Cause: the
/// position was moved, and what is committed followed it, while the error waited for a poll. Rule:
/// nothing that an error stands for is committed before the error was returned.
// RED: src/consumer/commit.rs
//   - && slot.failure.unreported_cut().is_none()
#[test]
fn row_b06_auto_mode_commits_no_cut_that_no_poll_has_reported() {
    let clock = clock();
    let broker = cut_below_commits(1, 1, &clock);
    auto_consumer(&broker).close().unwrap();
    // A poll that a wake-up ends has reported nothing.
    let mut woken = auto_consumer(&broker);
    clock.advance(EVERY);
    woken.handle().wake();
    assert!(woken.poll(Duration::ZERO).unwrap().is_empty());
    woken.close().unwrap();
    let mut paused = auto_consumer(&broker);
    paused.pause([("t", 0)]).unwrap();
    clock.advance(EVERY);
    assert!(paused.poll(Duration::ZERO).unwrap().is_empty());
    paused.close().unwrap();
    let rarely = CommitMode::Auto { every: Duration::MAX };
    let mut consumer = broker.consumer("g").subscribe(["t"]).commit(rarely).open().unwrap();
    assert_truncated(&mut consumer, 5, 2, &["x2", "x3", "x4"]);
    assert!(read(&mut consumer).is_empty());
    // The new offset is the old one: what is committed speaks of other records, so it is news.
    consumer.close().unwrap();
    assert!(read(&mut auto_consumer(&broker)).is_empty());
}

#[test]
fn row_b06_each_partition_reports_its_own_cut() {
    let clock = clock();
    let broker = cut_below_commits(3, 1, &clock);
    let mut consumer = auto_consumer(&broker);
    let (mut cut, mut seen) = (Vec::new(), Vec::new());
    // Each poll commits what those before have passed, also while cuts wait.
    for _ in 0..8 {
        clock.advance(EVERY);
        match consumer.poll(Duration::ZERO) {
            Err(Error::Truncated { partition, committed: 5, end: 2 }) => {
                cut.push(partition.partition);
            }
            other => {
                let batch = other.unwrap();
                seen.extend(batch.iter().map(|it| (it.partition(), it.offset())));
            }
        }
    }
    cut.sort_unstable();
    seen.sort_unstable();
    assert_eq!(cut, [0, 1, 2]);
    assert_eq!(seen, (0..3).flat_map(|it| (2..5).map(move |at| (it, at))).collect::<Vec<_>>());
}

/// A commit by hand of a cut that was not reported fails with the error instead; what the caller
/// has not been handed is left out of `commit`. A seek is the caller's own choice.
// RED: src/consumer/commit.rs
//   - if let Some(cut) = slot.failure.unreported_cut() {
//   + if let Some(cut) = slot.unreported_cut().filter(|_| false) {
#[test]
fn row_b06_no_commit_by_hand_hides_a_cut() {
    let broker = cut_below_commits(1, 1, &clock());
    let mut early = consumer(&broker);
    early.commit().unwrap();
    early.commit_soon().unwrap();
    let offsets = Offsets::from([(TopicPartition::from(("t", 0)), 4)]);
    let refused = early.commit_offsets(&offsets);
    assert!(matches!(refused, Err(Error::Truncated { committed: 5, end: 2, .. })), "{refused:?}");
    drop(early);
    let message = broker.reader().subscribe(["t"]).open().unwrap().recv().unwrap();
    let mut by_hand = broker.consumer("g").assign([("t", 0)]).open().unwrap();
    let refused = by_hand.commit_message(&message);
    assert!(matches!(refused, Err(Error::Truncated { committed: 5, end: 2, .. })), "{refused:?}");
    let mut next = consumer(&broker);
    assert_truncated(&mut next, 5, 2, &["x2", "x3", "x4"]);
    drop(next);
    let mut moved = consumer(&broker);
    moved.seek(("t", 0), StartAt::Offset(3)).unwrap();
    assert_eq!(read(&mut moved), ["x3", "x4"]);
    moved.commit_offsets(&offsets).unwrap();
    drop(moved);
    assert_eq!(read(&mut consumer(&broker)), ["x4"]);
}

/// What retention removed between the cut and the log start is a gap.
#[test]
fn row_b06_a_cut_below_the_log_start_continues_at_the_log_start() {
    let broker = cut_below_commits(1, 1, &clock());
    broker.admin().delete_records(&TopicPartition::from(("t", 0)), 4).unwrap();
    let mut consumer = consumer(&broker);
    let cut = consumer.poll(Duration::ZERO);
    assert!(matches!(cut, Err(Error::Truncated { committed: 5, end: 2, .. })), "{cut:?}");
    assert_eq!(read(&mut consumer), ["x4"]);
    assert_eq!(consumer.take_gaps().pop().map(|gap| gap.missed), Some(2..4));
}

/// Symptom: a group at 0 that starts new partitions at the end jumped to 5000 when retention had
/// removed 0..4410, and heard of a gap up to 4410. Cause: one setting for two questions, and a gap
/// that ended at the log start. Rule: `start` says where a group without a commit begins,
/// `out_of_range` where one behind retention continues, and neither is asked beyond the end or a
/// cut. What is passed over is a gap.
// RED: src/consumer/slot.rs
//   - let to = settings.out_of_range;
//   + let to = settings.start;
// RED: src/consumer/slot.rs
//   - Ok(Gap { partition, missed: position..next })
//   + Ok(Gap { partition, missed: position..next.min(start) })
#[test]
fn row_j03_b06_each_policy_answers_its_own_question() {
    let all = [
        StartAt::Earliest,
        StartAt::Latest,
        StartAt::Offset(3),
        StartAt::Time(SystemTime::UNIX_EPOCH),
        StartAt::Error,
    ];
    let at = TopicPartition::from(("t", 0));
    for refilled in [false, true] {
        let disk = SimulatedDisk::new();
        let broker = open(&disk, 1);
        send(&broker, &["0", "1"]);
        let mut behind = broker.consumer("behind").subscribe(["t"]).open().unwrap();
        behind.commit_offsets(&Offsets::from([(at.clone(), 0)])).unwrap();
        drop(behind);
        broker.flush().unwrap();
        send(&broker, &["2", "3", "4"]);
        assert_eq!(commit_all(&broker), 5);
        let broker = open(&cut_topic_tail(broker, &disk), 2);
        broker.admin().delete_records(&at, 1).unwrap();
        if refilled {
            send(&broker, &["x2", "x3", "x4"]);
        }
        let end = if refilled { 5 } else { 2 };
        let first_of = |policy| match policy {
            StartAt::Latest => Some(end),
            StartAt::Offset(offset) => Some(end.min(offset)),
            StartAt::Error => None,
            _ => Some(1),
        };
        for (start, to) in all.into_iter().flat_map(|start| all.map(|to| (start, to))) {
            let case = format!("{start:?} {to:?} {refilled}");
            let open = |group: &str| {
                broker.consumer(group).subscribe(["t"]).start(start).out_of_range(to).open()
            };
            match (open(&case), first_of(start)) {
                (Ok(new), Some(first)) => assert_eq!(new.position(&at), Some(first), "{case}"),
                (Err(Error::NoOffset(_)), None) => {}
                (other, _) => panic!("{case}: {other:?}"),
            }
            match (open("behind"), first_of(to)) {
                (Ok(mut behind), Some(first)) => {
                    assert_eq!(behind.position(&at), Some(first), "{case}");
                    assert_eq!(read(&mut behind).len() as u64, end - first, "{case}");
                    assert_eq!(behind.take_gaps().pop().map(|gap| gap.missed), Some(0..first));
                }
                (Err(Error::OffsetOutOfRange { requested: 0, start: 1, .. }), None) => {}
                (other, _) => panic!("{case}: {other:?}"),
            }
            let mut beyond = open("g").unwrap();
            let behind_the_cut: &[&str] = if refilled { &["x2", "x3", "x4"] } else { &[] };
            assert_truncated(&mut beyond, 5, 2, behind_the_cut);
            assert!(beyond.take_gaps().is_empty(), "{case}");
        }
    }
}

#[test]
fn a_commit_at_or_below_the_cut_stands() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0", "1"]);
    assert_eq!(commit_all(&broker), 2);
    broker.flush().unwrap();
    send(&broker, &["2", "3"]);
    let disk = cut_topic_tail(broker, &disk);
    let broker = open(&disk, 2);
    send(&broker, &["x2"]);
    assert_eq!(read(&mut consumer(&broker)), ["x2"]);
}

#[test]
fn many_crashes_without_loss_and_clean_ends_leave_a_commit_alone() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0", "1", "2"]);
    assert_eq!(commit_all(&broker), 3);
    drop(broker);
    for seed in 2..50 {
        let broker = open(&disk, seed);
        assert_eq!(read(&mut consumer(&broker)), Vec::<String>::new(), "{seed}");
        // Nothing appended, something appended and committed, clean, killed: in all mixtures.
        if seed % 3 == 0 {
            send(&broker, &["more"]);
            let end = commit_all(&broker);
            assert_eq!(end, 3 + seed / 3);
        }
        if seed % 4 < 2 {
            broker.close().unwrap();
        }
    }
}

#[test]
fn a_clean_end_draws_no_incarnation_and_writes_no_list() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0"]);
    drop(broker);
    let incarnation = |broker: &Broker| {
        let topic = broker.run().topic("t").unwrap();
        topic.partition(0).unwrap().log().incarnation().1
    };
    let recorded = |broker: &Broker| {
        let lineages = broker.run().logs().local().read(|local| local.lineages.clone());
        lineages.values().next().cloned().unwrap()
    };
    let broker = open(&disk, 2);
    let (drawn, list) = (incarnation(&broker), recorded(&broker));
    assert_eq!(list.current(), Some(drawn));
    broker.close().unwrap();
    // Idle runs, and runs with appends: the same incarnation, the same list.
    for seed in 3..8 {
        let broker = open(&disk, seed);
        assert_eq!((incarnation(&broker), recorded(&broker)), (drawn, list.clone()), "{seed}");
        if seed > 5 {
            send(&broker, &["1"]);
        }
        broker.close().unwrap();
    }
    drop(open(&disk, 8));
    let broker = open(&disk, 9);
    assert_ne!(incarnation(&broker), drawn);
}

/// The list must be durable before the numbers are given again: a crash of the run that drew the
/// incarnation, at any point, does not make the cut forgotten.
// RED: src/broker/topic_factory.rs
//   - lineage.begin(log.epochs().incarnation, log.log_end());
#[test]
fn row_b06_the_cut_is_remembered_whenever_the_next_run_ends() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0", "1"]);
    broker.flush().unwrap();
    send(&broker, &["2", "3"]);
    assert_eq!(commit_all(&broker), 4);
    let disk = cut_topic_tail(broker, &disk);
    let second_run = |disk: &SimulatedDisk| {
        let broker = open_at(disk, 2, Durability::Os, &clock())?;
        let topic = broker.topic("t")?;
        for value in ["x2", "x3", "x4", "x5"] {
            topic.partition(0)?.append(&Record::new().value(value))?;
            topic.partition(0)?.flush()?;
        }
        broker.close()
    };
    let whole = disk.kill9();
    second_run(&whole).unwrap();
    let all = PowerCut { metadata: Metadata::All, pages: Pages::All, tear: false };
    for point in 0..=whole.store_points() {
        for how in [PowerCut::WORST, all] {
            let copy = disk.kill9();
            copy.crash_at(point);
            let _ = second_run(&copy);
            let after = copy.power_cut(&mut || 0, how);
            let broker = open(&after, 3);
            let found = values(&broker.topic("t").unwrap(), 0);
            assert_truncated(&mut consumer(&broker), 4, 2, &found[2..]);
        }
    }
}
