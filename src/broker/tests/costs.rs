//! What a call costs when there is much that it does not concern: counted in steps, not in time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::model::{DIR, clock, open_on};
use crate::broker::Broker;
use crate::config::{CommitMode, Durability, TopicConfig};
use crate::error::Error;
use crate::group::inspect;
use crate::record::Record;
use crate::steps;
use crate::storage::disk::{Disk as _, HookedDisk, Operation, RealDisk, Side, SimulatedDisk};
use crate::sync::{AtomicU64, Condvar, Mutex, Ordering};

fn in_memory() -> Broker {
    Broker::builder().in_memory().clock(clock()).background(false).open().unwrap()
}

fn small(partitions: u32) -> TopicConfig {
    TopicConfig::new(partitions).segment_bytes(16 << 10)
}

/// Symptom: 8,000 consumers that joined groups of their own took 600 ms, more than twice as long as
/// half of them. Cause: with each, all groups were asked when a member of theirs is overdue. Rule:
/// the groups are kept in the order in which that is.
// RED: src/group/deadlines.rs
//   - let due = groups.range(..=Counted((now, u64::MAX)));
//   + let due = groups.iter().filter(|(at, _)| **at <= Counted((now, u64::MAX)));
#[test]
fn row_g09_who_looks_for_overdue_members_does_not_look_at_all_groups() {
    let broker = in_memory();
    broker.ensure_topic("t", small(1)).unwrap();
    let look = || {
        broker.run().coordinator().evict_overdue();
    };
    let mut consumers = Vec::new();
    let mut steps_of_join = |groups: usize| {
        let mut steps = 0;
        while consumers.len() < groups {
            let group = format!("g{}", consumers.len());
            steps = steps::of(|| {
                consumers.push(broker.consumer(&group).subscribe(["t"]).open().unwrap());
                look();
            });
        }
        steps
    };
    let (few, many) = (steps_of_join(64), steps_of_join(1_024));
    assert!(many < few + 100, "{few} with 64 groups, {many} with 1,024");
}

/// Symptom: 2,000 topics that were created beside a group with a pattern took 1.5 s. Cause: with
/// each all topics were copied and compared with the pattern again, also where the new one is none
/// of the group's. Rule: a group looks at a topic that it may read, and at no other.
// RED: src/group/coordinator.rs
//   - if members.state().is_concerned(name) {
//   + if true {
#[test]
fn row_g09_a_new_topic_is_compared_with_a_pattern_alone() {
    let broker = in_memory();
    let mut consumer = broker.consumer("g").subscribe_pattern("x-*").open().unwrap();
    for number in 0..300 {
        broker.ensure_topic(&format!("t-{number}"), small(1)).unwrap();
    }
    let steps = steps::of(|| {
        broker.ensure_topic("t-new", small(1)).unwrap();
        broker.admin().delete_topic("t-0").unwrap();
        consumer.poll(Duration::ZERO).unwrap();
    });
    assert!(steps < 10, "{steps}");
    // What changed unseen is known to a member that joins, and what matches is seen.
    broker.ensure_topic("x-1", small(1)).unwrap();
    let mut other = broker.consumer("g").subscribe(["t-new", "t-0"]).open();
    assert!(other.is_err(), "a deleted topic");
    other = broker.consumer("g").subscribe(["t-new"]).open();
    let mut other = other.unwrap();
    for consumer in [&mut consumer, &mut other] {
        consumer.poll(Duration::ZERO).unwrap();
    }
    let names = |consumer: &crate::consumer::Consumer| -> Vec<String> {
        consumer.assignment().iter().map(ToString::to_string).collect()
    };
    assert_eq!((names(&consumer), names(&other)), (vec!["x-1-0".into()], vec!["t-new-0".into()]));
}

/// Symptom: 2,000 topics that came beside a group that reads them took 1.5 s, four times as long as
/// half of them, and as long again when they went. Cause: each of them made a plan of all
/// partitions and a copy of the table of all topics. Rule: the plan is made when the group is
/// looked at next, once for all that has changed since; only deleted partitions are lost at once.
// RED: src/group/coordinator.rs
//   - members.topic_changed(name, partitions);
//   + members.topic_changed(name, partitions); self.catch_up(&mut members);
#[test]
fn row_g09_topics_that_come_and_go_together_make_one_plan() {
    let broker = in_memory();
    let name = |number: u64| format!("t-{number}");
    let plans = || inspect::totals(broker.run().coordinator()).0;
    let mut consumer = broker.consumer("g").subscribe_pattern("t-*").open().unwrap();
    let mut cost_of = |topics: u64| {
        let mut before = plans();
        let mut check = |consumer: &mut crate::consumer::Consumer, left: u64| {
            assert_eq!(plans(), before, "before anybody looks");
            consumer.poll(Duration::ZERO).unwrap();
            assert_eq!(plans(), before + 1);
            assert_eq!(consumer.assignment().len() as u64, left);
            before = plans();
        };
        steps::of(|| {
            (0..topics).for_each(|at| drop(broker.ensure_topic(&name(at), small(1)).unwrap()));
            check(&mut consumer, topics);
            (0..topics).for_each(|at| broker.admin().add_partitions(&name(at), 2).unwrap());
            check(&mut consumer, 2 * topics);
            (0..topics).for_each(|at| broker.admin().delete_topic(&name(at)).unwrap());
            check(&mut consumer, 0);
        })
    };
    let (few, many) = (cost_of(32), cost_of(256));
    assert!(many < 9 * few, "{few} with 32 topics, {many} with 256");
}

/// Symptom: in auto mode `recv` cost as much as there were partitions. Cause: with each message all
/// of them were looked through for what was handed out before. Rule: between two messages of one
/// poll that is the last message.
// RED: src/consumer/slots.rs
//   - let slots = if std::mem::take(&mut self.passes_all) {
//   + let slots = if !self.list.is_empty() {
#[test]
fn row_g09_a_message_in_auto_mode_costs_the_same_beside_many_partitions() {
    let broker = in_memory();
    broker.ensure_topic("t", small(1_000)).unwrap();
    let records = (0..100_u32).map(|number| Record::to("t").partition(number / 50).value("v"));
    broker.producer().send_batch(records).unwrap();
    let auto = CommitMode::Auto { every: Duration::from_secs(3_600) };
    let mut consumer = broker.consumer("g").subscribe(["t"]).commit(auto).open().unwrap();
    consumer.recv().unwrap();
    consumer.recv().unwrap();
    let steps = steps::of(|| {
        for _ in 2..100 {
            consumer.recv().unwrap();
        }
    });
    assert!(steps < 1_000, "{steps}");
    // Nothing is lost of what was passed: the last message alone was not.
    consumer.close().unwrap();
    let info = broker.admin().describe_group("g").unwrap();
    let committed: Vec<_> = info.offsets.iter().filter_map(|it| it.committed).collect();
    assert_eq!(committed.iter().sum::<u64>(), 99, "{committed:?}");
}

/// Symptom: a consumer of 100 partitions that commits after each poll stored 100 commits each time,
/// although a poll mostly returns records of one or two. Rule: a member's commit is stored where it
/// differs from the one before. It is checked in any case, and a consumer without membership stores
/// each commit: nothing else shows that its group is used.
// RED: src/group/commit.rs
//   - commits.iter().filter(is_news).collect()
//   + let _ = is_news; commits.iter().collect()
// RED: src/group/commit.rs
//   - let Permit::Owner { .. } = permit else { return commits.iter().collect() };
#[test]
fn row_g09_a_commit_stores_what_differs_from_the_one_before() {
    let clock = clock();
    let broker = Broker::builder().in_memory().clock(clock.clone()).background(false).open();
    let broker = broker.unwrap();
    let topic = broker.ensure_topic("t", small(100)).unwrap();
    let stored = |call: &mut dyn FnMut()| {
        let log = broker.run().coordinator().offsets().partition();
        let before = log.log_end();
        call();
        log.log_end() - before
    };
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(stored(&mut || consumer.commit().unwrap()), 100, "where the group begins");
    topic.partition(7).unwrap().append(&Record::new().value("v")).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 1);
    assert_eq!(stored(&mut || consumer.commit().unwrap()), 1);
    assert_eq!(consumer.committed(("t", 7)).unwrap(), Some(1));
    assert_eq!(stored(&mut || consumer.commit_soon().unwrap()), 0);

    // A member that has lost its partitions is refused, also with what it has committed before.
    let mut other = broker.consumer("g").subscribe(["t"]).open().unwrap();
    clock.advance(Duration::from_secs(3_600));
    other.poll(Duration::ZERO).unwrap();
    let refused = consumer.commit();
    assert!(matches!(refused, Err(Error::Rebalanced { .. })), "{refused:?}");

    let mut by_hand = broker.consumer("hand").assign([("t", 7)]).open().unwrap();
    for _ in 0..2 {
        assert_eq!(stored(&mut || by_hand.commit().unwrap()), 1);
    }
}

/// Symptom: one `send_batch` to 4,000 partitions compared each record with all of them. Rule: the
/// batch of a partition is looked up.
// RED: src/producer.rs
//   - let group = *group_of.entry(target).or_insert(groups.len());
//   + let group = group_of.iter().find(|it| *it.0 == target).map_or(groups.len(), |it| *it.1); group_of.insert(target, group);
#[test]
fn row_g09_the_records_of_a_batch_are_sorted_in_few_steps() {
    const PARTITIONS: u32 = 1_000;
    let broker = in_memory();
    broker.ensure_topic("t", small(PARTITIONS)).unwrap();
    let producer = broker.producer();
    let records = (0..2 * PARTITIONS).map(|at| Record::to("t").partition(at % PARTITIONS));
    let records: Vec<_> = records.map(|record| record.value("v")).collect();
    let steps = steps::of(|| {
        producer.send_batch(records).unwrap();
    });
    assert!(steps < 40 * 2 * u64::from(PARTITIONS), "{steps}");
    let topic = broker.run().topic("t").unwrap();
    let batches = topic.partitions.iter().map(|core| core.metrics(0).appended.batches);
    assert!(batches.into_iter().all(|batches| batches == 1));
}

/// How many syncs are in flight, and the most that were since it was asked to look.
#[derive(Default)]
struct InFlight {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    now: usize,
    most: usize,
    /// A sync waits for another one, until there were two.
    waits: bool,
}

impl InFlight {
    fn begin(&self) {
        let mut counts = self.counts.lock();
        counts.now += 1;
        counts.most = counts.most.max(counts.now);
        self.changed.notify_all();
        let patience = crate::clock::real_now() + Duration::from_secs(5);
        while counts.waits && counts.most < 2 {
            let (next, timed_out) = self.changed.wait_until(counts, patience);
            counts = next;
            if timed_out {
                return;
            }
        }
    }
}

/// Symptom: a commit of 64 partitions whose records were not durable yet took 26 ms, the time of 64
/// syncs; a flush, a batch and the close of the broker likewise. Rule: what several partitions need
/// is synced side by side, unless the broker is to have no threads.
// RED: src/partition/together.rs
//   - let helpers = if has_threads { pending.min(SIDE_BY_SIDE).saturating_sub(1) } else { 0 };
//   + let helpers = usize::from(has_threads) * usize::from(pending == 0);
// RED: src/broker/engine.rs
//   - let flushed = together::wait_durable_with(&waits, has_threads);
//   + let flushed = together::wait_durable(&waits); let _ = has_threads;
#[test]
fn row_g09_several_partitions_are_synced_side_by_side() {
    for has_threads in [true, false] {
        let syncs: Arc<InFlight> = Arc::default();
        let hooked = Arc::clone(&syncs);
        let disk = HookedDisk::new(Arc::new(SimulatedDisk::new()), move |operation, side| {
            match (operation, side) {
                (Operation::Sync, Side::Before) => hooked.begin(),
                (Operation::Sync, Side::After) => hooked.counts.lock().now -= 1,
                _ => {}
            }
        });
        let builder = Broker::builder().disk(Arc::new(disk), Path::new(DIR)).clock(clock());
        let broker = builder.background(has_threads).seed(1).open().unwrap();
        broker.ensure_topic("t", small(4).durability(Durability::Os)).unwrap();
        let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
        let mut most_of = |call: &mut dyn FnMut(&mut crate::consumer::Consumer)| {
            let records = (0..4).map(|number| Record::to("t").partition(number).value("v"));
            broker.producer().send_batch(records).unwrap();
            let mut read = 0;
            while read % 4 != 0 || read == 0 {
                read += consumer.poll(Duration::from_secs(40)).unwrap().len();
            }
            let begin =
                |counts: &mut Counts| (counts.most, counts.waits) = (counts.now, has_threads);
            let durable = broker.topic("t").unwrap();
            begin(&mut syncs.counts.lock());
            call(&mut consumer);
            for number in 0..4 {
                let partition = durable.partition(number).unwrap();
                assert_eq!(partition.durable_end_offset(), partition.log_end_offset());
            }
            let end = |counts: &mut Counts| {
                counts.waits = false;
                counts.most
            };
            let most = end(&mut syncs.counts.lock());
            assert_eq!(most > 1, has_threads, "{most}");
        };
        most_of(&mut |consumer| consumer.commit().unwrap());
        most_of(&mut |_| broker.flush().unwrap());
        most_of(&mut |_| broker.clone().close().unwrap());
    }
}

/// Symptom: a producer at `Sync` on a topic at `Os` had 256 KiB synced for each KiB. Cause: it stored
/// into the map, and the kernel writes all of a folio that was stored into. Rule: an append that is
/// waited for is written to the file, also those of the broker's own state.
// RED: src/partition/state.rs
//   - let way = if level == Durability::Sync { Way::ToFile } else { Way::AsUsual };
//   + let way = if level == Durability::Sync { Way::AsUsual } else { Way::AsUsual };
// RED: src/partition/state_log.rs
//   - self.append_batches(batches, SYNCED, |_| Ok(()))
//   + self.append_batches(batches, None, |_| Ok(()))
#[test]
fn row_d15_what_is_synced_at_once_is_written_to_the_file_at_every_level() {
    let dir = tempfile::tempdir().unwrap();
    let real = Arc::new(RealDisk::new());
    if !real.supports_mapped_writes(dir.path()) {
        return; // All appends are written to the file there.
    }
    let writes = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&writes);
    let disk = Arc::new(HookedDisk::new(real, move |operation, side| {
        if (operation, side) == (Operation::Write, Side::Before) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let builder = Broker::builder().disk(disk, dir.path()).durability(Durability::Os);
    let broker = builder.clock(clock()).background(false).open().unwrap();
    let interval = Durability::Interval { every: Duration::from_secs(9), bytes: 1 << 30 };
    for (topic, level) in [("os", Durability::Os), ("interval", interval)] {
        broker.ensure_topic(topic, TopicConfig::new(1).durability(level)).unwrap();
        let at = |level| broker.producer_builder().durability(level).build().unwrap();
        let (usual, synced) = (at(level), at(Durability::Sync));
        let record = || Record::to(topic).value("v");
        let written = |call: &dyn Fn() -> u64| {
            let before = writes.load(Ordering::Relaxed);
            call();
            writes.load(Ordering::Relaxed) - before
        };
        for _ in 0..3 {
            assert_eq!(written(&|| usual.send(record()).unwrap().offset), 0, "{topic}");
            assert_eq!(written(&|| synced.send(record()).unwrap().offset), 1, "{topic}");
            let enqueue = || synced.enqueue(record()).unwrap().wait().unwrap().offset;
            assert_eq!(written(&enqueue), 1, "{topic}");
            let batch = || synced.send_batch([record(), record()]).unwrap()[0].offset;
            assert_eq!(written(&batch), 1, "{topic}");
        }
        let delete = || broker.admin().delete_records((topic, 0), 2).unwrap();
        assert_eq!(written(&delete), 1, "{topic}: the new log start");
    }
    let mut consumer = broker.consumer("g").subscribe(["os", "interval"]).open().unwrap();
    let mut polled = 0;
    while polled < 2 * (4 * 3 + 3 - 2) {
        polled += consumer.poll(Duration::from_secs(40)).unwrap().len();
    }
}

/// Symptom: with other programs on the disk, an opening took 10 to 90 ms, nearly all of it in nine
/// syncs after a clean close and thirteen after the death of a process. Cause: directories were
/// synced whose names were durable, the beginning of the segment that gets the record of the opening
/// was synced twice, and the removal of segments that were made ahead and never used was synced.
/// Rule: an opening waits for one sync of what it has found, and one of what it writes. A clean
/// close leaves no segment that was never used.
// RED: src/broker/engine.rs
//   - partition.with_log(|log| log.appender_mut().discard_prepared(disk));
#[test]
fn an_opening_waits_for_few_syncs() {
    let disk = SimulatedDisk::new();
    let syncs = |disk: &SimulatedDisk, look: &dyn Fn(Broker)| {
        let made = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&made);
        let hooked = HookedDisk::new(Arc::new(disk.clone()), move |operation, side| {
            if matches!(operation, Operation::Sync | Operation::SyncDir) && side == Side::Before {
                seen.lock().push(operation);
            }
        });
        let broker = open_on(Arc::new(hooked), 1, Durability::Os, &clock()).unwrap();
        let made = std::mem::take(&mut *made.lock());
        look(broker);
        made
    };
    let files = |disk: &SimulatedDisk| {
        let of_topic = |path: &&std::path::PathBuf| path.starts_with(format!("{DIR}/t"));
        disk.paths().iter().filter(of_topic).count()
    };
    let killed = Mutex::new(None);
    syncs(&disk, &|broker| {
        let topic = broker.ensure_topic("t", small(1)).unwrap();
        let partition = topic.partition(0).unwrap();
        partition.append(&Record::new().value(&[1; 12_000])).unwrap();
        broker.tick().unwrap();
        assert_eq!(files(&disk), 2, "the next segment is made ahead");
        *killed.lock() = Some(disk.kill9());
        broker.close().unwrap();
    });
    assert_eq!(files(&disk), 1, "a clean close leaves what is used");
    let killed = killed.lock().take().unwrap();
    let (file, dir) = (Operation::Sync, Operation::SyncDir);
    // In `__local`: the header and the name of the next segment, the last segment so far, and the
    // record of the opening.
    let made = syncs(&disk, &|broker| broker.close().unwrap());
    assert_eq!(made, [file, dir, file, file]);
    // Beside them, what was found in the two other internal logs, the names of the partition that
    // takes appends again, and its incarnation.
    let made = syncs(&killed, &|broker| broker.close().unwrap());
    assert_eq!(made, [file, dir, file, file, file, file, dir, file]);
    assert_eq!(files(&killed), 1, "what was made ahead is removed");
}

/// Symptom: 1,000 groups with the pattern `*` and 10,000 topics were ten million comparisons in each
/// snapshot of the metrics. Rule: a pattern is compared with the names of all topics once.
// RED: src/group/progress.rs
//   - if !matched.contains_key(pattern) {
//   + if true {
#[test]
fn a_pattern_of_many_groups_is_compared_with_each_topic_once() {
    let broker = in_memory();
    for number in 0..20 {
        broker.ensure_topic(&format!("t{number}"), small(1)).unwrap();
    }
    let join = |group: u32| {
        let group = format!("g{group}");
        let consumer = broker.consumer(&group).subscribe_pattern("t*");
        consumer.open().unwrap().close().unwrap();
    };
    let look = || {
        steps::of(|| {
            assert!(broker.metrics().groups.iter().all(|group| group.offsets.len() == 20));
            assert!(broker.admin().groups().unwrap().iter().all(|group| group.offsets.len() == 20));
        })
    };
    join(0);
    let one = look();
    (1..30).for_each(join);
    assert_eq!((one, look()), (40, 40));
}
