//! The internal logs: how they are cleaned up, and how many files they keep.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::model::{DIR, clock, open, open_at};
use crate::broker::Broker;
use crate::broker::local::{LocalChange, LocalState};
use crate::config::{Durability, TopicConfig};
use crate::error::{CorruptionKind, Error};
use crate::group::commit::{Commit, Ready, Wait};
use crate::group::offsets::{Committed, OffsetChange};
use crate::random::Random;
use crate::record::{Offsets, Record, TopicPartition};
use crate::storage::disk::{Disk, Fault, Metadata, Operation, Pages, PowerCut, SimulatedDisk};

fn files(disk: &SimulatedDisk, log: &str) -> usize {
    let dir = format!("{DIR}/{log}/0");
    disk.paths().iter().filter(|path| path.starts_with(&dir)).count()
}

fn commit(broker: &Broker, group: &str, offset: u64) {
    let mut consumer = broker.consumer(group).subscribe(["t"]).open().unwrap();
    let offsets = Offsets::from([(TopicPartition::from(("t", 0)), offset)]);
    consumer.commit_offsets(&offsets).unwrap();
}

fn committed(broker: &Broker, group: &str) -> Option<u64> {
    let topic = broker.run().topic("t").unwrap();
    broker.run().coordinator().offsets().committed(group, topic.id, 0).map(|it| it.offset)
}

fn with_records(disk: &SimulatedDisk, durability: Durability, records: usize) -> Broker {
    let broker = open_at(disk, 1, durability, &clock()).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let records = vec![Record::new().value("v"); records];
    topic.partition(0).unwrap().append_batch(&records).unwrap();
    broker
}

#[test]
fn many_changes_roll_the_log_and_the_state_is_the_same_after_any_end() {
    let disk = SimulatedDisk::new();
    let broker = with_records(&disk, Durability::Os, 1_000);
    let first = disk.paths();
    let groups: Vec<String> = (0..20).map(|number| format!("group-{number}")).collect();
    // Groups with long names, so that eight thousand commits are several segments.
    let pad = "x".repeat(230);
    for round in 1..=100 {
        for (group, number) in groups.iter().zip(0..).cycle().take(80) {
            commit(&broker, &format!("{group}-{pad}"), round * 10 - number % 10);
        }
    }
    assert!(files(&disk, "__offsets") <= 3, "{}", files(&disk, "__offsets"));
    let now = disk.paths();
    assert!(first.iter().any(|path| !now.contains(path)), "nothing was cleaned up");
    let expected = |broker: &Broker| {
        for (group, number) in groups.iter().zip(0..) {
            let found = committed(broker, &format!("{group}-{pad}"));
            assert_eq!(found, Some(1_000 - number % 10), "{group}");
        }
    };
    drop(broker);
    let broker = open(&disk, 2).unwrap();
    expected(&broker);
    broker.close().unwrap();
    expected(&open(&disk, 3).unwrap());
}

/// A store whose next commit has `__offsets` cleaned up, although little is in it: each run has
/// left a segment. Of the groups that committed, one is deleted.
fn before_a_clean_up() -> (SimulatedDisk, BTreeSet<&'static str>) {
    let disk = SimulatedDisk::new();
    let broker = with_records(&disk, Durability::Sync, 10);
    commit(&broker, "zero", 3);
    commit(&broker, "gone", 3);
    drop(broker);
    for (seed, group) in (2..).zip(["one", "two", "three"]) {
        let broker = open(&disk, seed).unwrap();
        commit(&broker, group, 3);
        if group == "one" {
            broker.admin().delete_group("gone").unwrap();
        }
    }
    assert_eq!(files(&disk, "__offsets"), 4);
    (disk, BTreeSet::from(["zero", "one", "two", "three"]))
}

fn assert_commits(broker: &Broker, groups: &BTreeSet<&str>, context: &str) {
    for group in groups {
        assert_eq!(committed(broker, group), Some(3), "{context}: {group}");
    }
    assert_eq!(committed(broker, "gone"), None, "{context}");
}

/// In the internal logs nothing was damaged, and nothing torn.
fn assert_own_are_whole(broker: &Broker, context: &str) {
    for found in broker.recovery().partitions.iter().filter(|it| it.topic.starts_with("__")) {
        assert!(found.corrupt.is_empty() && found.cut_bytes == 0, "{context}: {found:?}");
    }
}

/// A run that cleans up `__offsets`, and perhaps the other logs.
fn clean_up(disk: &SimulatedDisk) -> crate::error::Result<()> {
    let broker = open(disk, 9)?;
    let mut consumer = broker.consumer("last").subscribe(["t"]).open()?;
    consumer.commit_offsets(&Offsets::from([(TopicPartition::from(("t", 0)), 3)]))?;
    broker.tick()?;
    drop(consumer);
    broker.close()
}

/// A14, B16: the power goes off at any store point of a clean-up, and again at any of the opening
/// that follows. Nothing that was committed is lost, and nothing that was deleted comes back.
// RED: src/partition/state_log/cleaning.rs
//   - Rule::CleanUpSync.keep(|| self.partition.flush())?;
// RED: src/partition/state_log/cleaning.rs
//   - self.writer.lock().append_copies(candidates, cleaning.uses_reserve)?;
//   + drop(candidates);
#[test]
fn row_a14_b16_a_power_cut_at_every_store_point_of_a_clean_up_loses_nothing() {
    let (disk, groups) = before_a_clean_up();
    let whole = disk.kill9();
    clean_up(&whole).unwrap();
    let first = |disk: &SimulatedDisk| -> PathBuf {
        let dir = format!("{DIR}/__offsets/0");
        disk.paths().into_iter().find(|path| path.starts_with(&dir)).unwrap()
    };
    assert_ne!(first(&whole), first(&disk), "nothing was cleaned up");
    let mut random = Random::new(3);
    let mut stopped = 0;
    for point in 0..whole.store_points() {
        let copy = disk.kill9();
        copy.crash_at(point);
        assert!(clean_up(&copy).is_err());
        stopped += 1;
        let any = PowerCut::any(&mut || random.next());
        for how in [None, Some(PowerCut::WORST), Some(any)] {
            let context = format!("store point {point}, {how:?}");
            let image = match how {
                None => copy.kill9(),
                Some(how) => copy.power_cut(&mut || random.next(), how),
            };
            let stopped = image.kill9();
            stopped.crash_at(random.below(next_points(&image)));
            let _ = open(&stopped, 10);
            let stopped = stopped.power_cut(&mut || random.next(), PowerCut::WORST);
            // What an opening has removed is lost, and what was not synced too.
            let opened = image.kill9();
            drop(open(&opened, 10).unwrap());
            let opened = opened.power_cut(&mut || random.next(), NO_PAGES);
            for image in [image, stopped, opened] {
                let broker = open(&image, 11).unwrap_or_else(|it| panic!("{context}: {it:?}"));
                assert_commits(&broker, &groups, &context);
                drop(broker);
                let broker = open(&image, 12).unwrap();
                assert_commits(&broker, &groups, &format!("{context}, again"));
                assert_own_are_whole(&broker, &context);
            }
        }
    }
    eprintln!("stopped at {stopped} store points");
    assert!(stopped > 40, "{stopped}");
}

/// What happened to names is durable; what was written and not synced is lost.
const NO_PAGES: PowerCut = PowerCut { metadata: Metadata::All, pages: Pages::None, tear: false };

/// How many store points an opening has.
fn next_points(disk: &SimulatedDisk) -> u64 {
    let disk = disk.kill9();
    drop(open(&disk, 10).unwrap());
    disk.store_points()
}

/// Symptom: an internal log that had lost its first file would have passed for one that begins
/// there. Rule: a trim says, durably, up to where the log may begin.
// RED: src/partition/state_log/replay.rs
//   - if base > replay.start().max(replay.anew_at) {
//   + if base > replay.start().max(replay.anew_at) && base == u64::MAX {
#[test]
fn row_e05_an_internal_log_that_has_lost_its_first_file_is_refused() {
    let (disk, groups) = before_a_clean_up();
    for is_cleaned in [false, true] {
        if is_cleaned {
            clean_up(&disk).unwrap();
        }
        let paths = |disk: &SimulatedDisk| -> Vec<PathBuf> {
            let dir = format!("{DIR}/__offsets/0");
            disk.paths().into_iter().filter(|path| path.starts_with(&dir)).collect()
        };
        for lost in 1..paths(&disk).len() {
            let image = disk.kill9();
            for path in &paths(&image)[..lost] {
                image.remove_file(path).unwrap();
            }
            for seed in 20..22 {
                let refused = open(&image, seed);
                let is_corrupt = matches!(&refused, Err(Error::Corrupt(found))
                    if found.kind == CorruptionKind::Missing && found.file == paths(&image)[0]);
                assert!(is_corrupt, "{is_cleaned}, {lost}: {refused:?}");
            }
        }
        assert_commits(&open(&disk.kill9(), 23).unwrap(), &groups, "whole");
    }
}

/// A clean-up that cannot remove a segment has made it void all the same: damage in it, or its end,
/// keeps nobody from opening.
#[test]
fn damage_in_what_a_clean_up_was_about_to_remove_is_none() {
    let (disk, groups) = before_a_clean_up();
    disk.inject(Fault::always(Operation::Remove, std::io::ErrorKind::Other).on("__offsets"));
    let before = disk.paths();
    clean_up(&disk).unwrap();
    disk.heal();
    let dir = format!("{DIR}/__offsets/0");
    let void = before.into_iter().find(|path| path.starts_with(&dir)).unwrap();
    for at in [135, 250, 300] {
        let image = disk.kill9();
        image.corrupt(&void, at, 1).unwrap();
        let broker = open(&image, 20).unwrap();
        assert_commits(&broker, &groups, &format!("{at}"));
        assert!(!image.paths().contains(&void), "{at}");
    }
}

/// C5: no new segment can be made. Commits continue as far as the present one has room, what was
/// refused is not in force, what was before stays, and nothing has to be reopened.
// RED: src/partition/state_log/writer.rs
//   - let base = self.append_records(records, level)?;
//   + let base = self.append_records(records, level).unwrap_or(0);
#[test]
fn row_c05_a_commit_that_finds_no_space_leaves_the_state_before_in_force() {
    let disk = SimulatedDisk::new();
    let broker = with_records(&disk, Durability::Sync, 1_000);
    let group = "g".repeat(255);
    let mut consumer = broker.consumer(&group).subscribe(["t"]).open().unwrap();
    let mut commit = |offset| {
        consumer.commit_offsets(&Offsets::from([(TopicPartition::from(("t", 0)), offset)]))
    };
    commit(1).unwrap();
    let full =
        |operation| Fault::always(operation, std::io::ErrorKind::StorageFull).on("__offsets");
    for operation in [Operation::Create, Operation::Allocate, Operation::Write, Operation::Rename] {
        disk.inject(full(operation));
        let (mut last, mut refused) = (1, 0);
        for offset in (2..1_000).cycle().take(8_000) {
            match commit(offset) {
                Ok(()) => last = offset,
                Err(Error::StorageFull { .. }) => refused += 1,
                Err(other) => panic!("{operation:?}: {other:?}"),
            }
            assert_eq!(committed(&broker, &group), Some(last), "{operation:?}");
            if refused > 3 {
                break;
            }
        }
        assert!(refused > 3, "{operation:?}: the log never filled");
        for crash in [disk.kill9(), disk.power_cut(&mut || 0, PowerCut::WORST)] {
            assert_eq!(committed(&open(&crash, 2).unwrap(), &group), Some(last), "{operation:?}");
        }
        disk.heal();
        commit(1).unwrap();
        assert_eq!(committed(&broker, &group), Some(1), "{operation:?}");
    }
}

#[test]
fn the_engines_logs_stay_small_over_many_runs() {
    let disk = SimulatedDisk::new();
    drop(with_records(&disk, Durability::Sync, 1));
    let mut sizes = Vec::new();
    for seed in 2..40 {
        let broker = open(&disk, seed).unwrap();
        commit(&broker, "g", seed % 2);
        for log in ["__local", "__meta", "__offsets"] {
            assert!(files(&disk, log) <= 6, "{log} has {} files", files(&disk, log));
        }
        // Nothing is appended to the topic, so nothing is added to it either.
        sizes.push(files(&disk, "t"));
        if seed % 3 == 0 {
            broker.close().unwrap();
        }
    }
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
}

#[test]
fn a_segment_that_cannot_be_removed_is_removed_by_a_later_run() {
    let (disk, groups) = before_a_clean_up();
    disk.inject(Fault::always(Operation::Remove, std::io::ErrorKind::Other).on("__offsets"));
    for _ in 0..6 {
        clean_up(&disk).unwrap();
    }
    let kept = files(&disk, "__offsets");
    assert!(kept >= 9, "{kept}");
    disk.heal();
    let broker = open(&disk, 6).unwrap();
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    assert!(files(&disk, "__offsets") <= 5, "{}", files(&disk, "__offsets"));
    assert_commits(&broker, &groups, "afterwards");
}

/// Removals are not synced one by one. A later run that finds some of the files must not take
/// the others for lost.
// RED: src/partition/state_log/cleaning.rs
//   - Rule::CleanUpRemoval.keep(|| segment.sync_dir())?;
#[test]
fn row_b08_removals_that_come_back_are_no_damage() {
    let (disk, groups) = before_a_clean_up();
    disk.inject(Fault::always(Operation::Remove, std::io::ErrorKind::Other).on("__offsets"));
    for _ in 0..4 {
        clean_up(&disk).unwrap();
    }
    disk.heal();
    let mut random = Random::new(5);
    for seed in 0..next_points(&disk) {
        let copy = disk.kill9();
        copy.crash_at(seed);
        assert!(open(&copy, seed).is_err());
        let hostile = PowerCut { metadata: Metadata::Hostile, pages: Pages::Random, tear: false };
        for number in 0..4 {
            let image = copy.power_cut(&mut || random.next(), hostile);
            let broker = open(&image, seed + 100).unwrap();
            let context = format!("point {seed}, image {number}");
            assert_own_are_whole(&broker, &context);
            assert_commits(&broker, &groups, &context);
        }
    }
}

/// A state of several segments, all of it in force, is kept and read again.
#[test]
fn a_state_larger_than_a_segment_is_kept_whole() {
    let disk = SimulatedDisk::new();
    let broker = with_records(&disk, Durability::Os, 10);
    let pad = "x".repeat(240);
    let groups: Vec<Arc<str>> = (0..4_300).map(|it| format!("{it}-{pad}").into()).collect();
    let topic = broker.run().topic("t").unwrap();
    let commit_all = |offset: u64| {
        for group in &groups {
            let commit = Commit::at(&topic.partitions[0], topic.id, offset);
            let commit = Ready::all(vec![commit], Wait::No).unwrap();
            broker.run().coordinator().commit(group, &commit).unwrap().settle(Wait::No).unwrap();
        }
    };
    commit_all(1);
    commit_all(2);
    commit_all(2);
    assert!((5..=12).contains(&files(&disk, "__offsets")), "{}", files(&disk, "__offsets"));
    drop(broker);
    let broker = open(&disk, 2).unwrap();
    assert!(groups.iter().all(|group| committed(&broker, group) == Some(2)));
    broker.close().unwrap();
    let broker = open(&disk, 3).unwrap();
    assert!(groups.iter().all(|group| committed(&broker, group) == Some(2)));
}

/// Recovery points are not forgotten when they cannot be stored: a clean end without the last one
/// would make the next run continue before the end of the log.
// RED: src/broker/recovery_points.rs
//   - partition.log().give_back_checkpoint();
//   + let _ = partition;
#[test]
fn row_b18_a_recovery_point_that_could_not_be_stored_is_stored_later() {
    let disk = SimulatedDisk::new();
    let clock = clock();
    let broker = open_at(&disk, 1, Durability::Sync, &clock).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(&Record::new().value("0")).unwrap();
    clock.advance(Duration::from_secs(61));
    broker.tick().unwrap();
    partition.append(&Record::new().value("1")).unwrap();
    clock.advance(Duration::from_secs(61));
    let refuse = Fault::once(Operation::Write, std::io::ErrorKind::StorageFull).on("__local");
    disk.inject(refuse);
    assert!(broker.tick().is_err());
    broker.close().unwrap();
    let broker = open(&disk, 2).unwrap();
    assert!(broker.recovery().clean_shutdown);
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    assert_eq!(partition.log_end_offset(), 2);
    let is_recovered = broker.run().logs().local().read(|local| !local.lineages.is_empty());
    assert!(!is_recovered, "the last point was not stored: the log had to be scanned");
    assert_eq!(partition.append(&Record::new().value("2")).unwrap(), 2);
}

/// Row J7: appends race with the end. What was acknowledged lies below the last recovery point.
// RED: src/broker/engine.rs
//   - partition.log().end_appends();
#[test]
fn row_j07_what_is_acknowledged_while_the_broker_closes_is_there() {
    let disk = SimulatedDisk::new();
    let mut expected = 0;
    for round in 0..60 {
        let broker = open(&disk, round).unwrap();
        let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        let partition = topic.partition(0).unwrap();
        assert_eq!(partition.log_end_offset(), expected, "round {round}");
        let acknowledged = std::thread::scope(|scope| {
            let appender = scope.spawn(|| {
                let mut end = expected;
                while let Ok(offset) = partition.append(&Record::new().value("v")) {
                    end = offset + 1;
                }
                end
            });
            while partition.durable_end_offset() < expected + round % 5 {
                std::thread::yield_now();
            }
            broker.clone().close().unwrap();
            appender.join().unwrap()
        });
        let end = open(&disk, 1_000 + round).unwrap();
        assert!(end.recovery().clean_shutdown, "round {round}");
        let found = end.topic("t").unwrap().partition(0).unwrap().log_end_offset();
        assert!(found >= acknowledged, "round {round}: {found} of {acknowledged}");
        end.close().unwrap();
        expected = found;
    }
}

/// Symptom: a file appeared in a directory that was closed and unlocked, under the next broker.
/// Cause: a consumer that was dropped after the close left its group, and the group's log, which
/// had much to tidy up, rolled; rolling did not look whether the partition was closed. Rule:
/// nothing is written after the directory was given up.
#[test]
fn a_handle_that_outlives_the_close_writes_nothing() {
    let disk = SimulatedDisk::new();
    let broker = with_records(&disk, Durability::Os, 1);
    let consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let topic = broker.run().topic("t").unwrap().id;
    let group: Arc<str> = "x".repeat(250).into();
    // As when the snapshots of these found the disk full.
    for offset in 0..40 {
        let committed = Committed { offset: offset % 2, leader_epoch: 0, incarnation: 0 };
        let change = |partition| {
            let group = Arc::clone(&group);
            OffsetChange::Commit { group, topic, partition, committed }
        };
        let offsets = broker.run().coordinator().offsets().log();
        offsets.append_if((0..60).map(change).collect(), |_| Ok(())).unwrap();
    }
    broker.close().unwrap();
    let before = disk.store_points();
    drop(consumer);
    assert_eq!(disk.store_points(), before, "something was written after the close");
}

/// Symptom: `__local` grew with every topic that was ever deleted. Cause: a recovery point that was
/// written while its topic was being deleted stood after the entry that deletes the topic. Rule: an
/// opening forgets what is known of topics that the catalog does not know.
#[test]
fn what_is_known_of_a_deleted_topic_is_forgotten_by_the_next_opening() {
    let disk = SimulatedDisk::new();
    let broker = with_records(&disk, Durability::Sync, 1);
    let live = broker.run().topic("t").unwrap().id;
    broker.ensure_topic("gone", TopicConfig::new(1)).unwrap();
    let gone = broker.run().topic("gone").unwrap().id;
    broker.admin().delete_topic("gone").unwrap();
    let late = LocalChange::LogStart { topic: gone, partition: 0, offset: 3 };
    broker.run().logs().local().append_durably(vec![late]).unwrap();
    let known = |broker: &Broker| broker.run().logs().local().read(LocalState::topics);
    assert!(known(&broker).contains(&gone));
    drop(broker);

    let broker = open(&disk, 2).unwrap();
    assert_eq!(known(&broker), BTreeSet::from([live]));
    let cut = disk.power_cut(&mut || 0, PowerCut::WORST);
    drop(broker);
    assert_eq!(known(&open(&cut, 3).unwrap()), BTreeSet::from([live]));
}

/// Symptom: after a crash, a log whose first file was missing began with the second, and nothing
/// was reported. Cause: where no record had ever been removed nothing said so, and what is not
/// there in front passed for removed. Rule: a log begins at 0 until a log start says otherwise,
/// which it does, durably, before a record goes.
#[test]
fn a_missing_first_file_is_reported_although_no_log_start_was_ever_written() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1).unwrap();
    let config = TopicConfig::new(1).segment_bytes(16 << 10);
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    while files(&disk, "t") < 3 {
        partition.append(&Record::new().value(&"v".repeat(1_000))).unwrap();
    }
    drop((partition, broker));
    let dir = format!("{DIR}/t/0");
    let first = disk.paths().into_iter().find(|path| path.starts_with(&dir)).unwrap();
    disk.remove_file(&first).unwrap();

    let broker = open(&disk, 2).unwrap();
    let start = broker.topic("t").unwrap().partition(0).unwrap().log_start_offset();
    let of_topic = broker.recovery().partitions.iter().find(|it| &*it.topic == "t").unwrap();
    let missing: Vec<_> = of_topic.corrupt.iter().map(|it| it.offsets.clone()).collect();
    assert_eq!(start, 0, "nobody has removed anything");
    assert!(matches!(&missing[..], [Some(gone)] if gone.start == 0 && gone.end > 0), "{missing:?}");
}
