//! Rot in the engine's own logs: what is left of one would pass for the whole of it.

use std::path::{Path, PathBuf};

use super::store::{End, PARTITIONS, Store, partition, read_around, spans};
use crate::broker::tests::model::{DIR, clock, open, open_at};
use crate::config::{Durability, TopicConfig};
use crate::error::{Corruption, Error};
use crate::record::Record;
use crate::storage::disk::SimulatedDisk;

/// The only segment of one of the engine's own logs.
fn own_file(disk: &SimulatedDisk, log: &str) -> PathBuf {
    let dir = Path::new(DIR).join(log);
    let files: Vec<_> = disk.paths().into_iter().filter(|path| path.starts_with(&dir)).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    file.clone()
}

/// Damages the last batch of a file.
fn damage_last_batch(disk: &SimulatedDisk, file: &Path) {
    let (spans, _) = spans(&disk.read(file).unwrap());
    disk.corrupt(file, spans.last().unwrap().bytes.start + 50, 1).unwrap();
}

fn assert_refused(disk: &SimulatedDisk, file: &Path) {
    let damaged = disk.read(file).unwrap();
    for seed in 5..7 {
        let refused = open(disk, seed).err();
        let is_named =
            matches!(&refused, Some(Error::Corrupt(Corruption { file: it, .. })) if it == file);
        assert!(is_named, "{file:?}: {refused:?}");
        assert!(disk.read(file).unwrap() == damaged, "{file:?}: changed");
    }
}

/// Symptom: all topics, or all commits, were gone after an opening that reported a torn tail, and the
/// file that had held them was removed. Cause: an own log in which nothing follows the snapshot has
/// nothing that proves it, so a damaged one was cut; the state was empty, and went into the next
/// snapshot. Rule: older segments go only once a snapshot is synced, so from the first one on there
/// always is one that is whole, and without it the log is damaged.
// RED: src/partition/state_log.rs
//   - (None, Some(first)) if has_snapshot => {
//   + (None, Some(first)) if has_snapshot && first.number == u64::MAX => {
#[test]
fn row_e01_e02_a_damaged_snapshot_is_never_an_empty_state() {
    let store = Store::new(End::Idle);
    for log in ["__meta", "__offsets", "__local"] {
        let disk = store.disk.kill9();
        let file = own_file(&disk, log);
        damage_last_batch(&disk, &file);
        let lost = open(&disk.kill9(), 5);
        // Behind the snapshot of the local state stand the incarnations, which may be torn.
        if log == "__local" && lost.is_ok() {
            continue;
        }
        assert_refused(&disk, &file);
    }
}

/// Symptom: after a clean end the last commit, the last topic or the last epoch was what it had been
/// before, without a word but of a torn tail. Cause: nothing behind the last record of an own log
/// says that it was synced. Rule: a clean end, and every minute, notes in `__local` how far the
/// other two reach.
// RED: src/broker/engine.rs
//   - changes.extend(self.own_ends());
#[test]
fn row_e02_after_a_clean_end_the_last_record_of_an_own_log_is_not_torn() {
    let store = Store::new(End::Closed);
    for log in ["__meta", "__offsets"] {
        let disk = store.disk.kill9();
        let file = own_file(&disk, log);
        damage_last_batch(&disk, &file);
        assert_refused(&disk, &file);
        let cut = store.disk.kill9();
        let (spans, _) = spans(&cut.read(&file).unwrap());
        cut.truncate(&file, spans.last().unwrap().bytes.start).unwrap();
        assert_refused(&cut, &file);
    }
}

/// Symptom: a topic was deleted with all its records, or partitions of one, by an opening after a
/// kill. Cause: the record that made it live was damaged, and passed for torn; without it the
/// creation, or growth, was undone. Rule: nobody appends to what is still being made, so where there
/// are records it was complete.
// RED: src/broker/catalog.rs
//   - if holds_records(&self, number)? {
//   + if holds_records(&self, number)? && number == u32::MAX {
#[test]
fn row_e03_a_topic_with_records_is_not_undone_when_the_end_of_its_creation_is_torn() {
    for grows in [false, true] {
        let disk = SimulatedDisk::with_seed(1);
        let broker = open_at(&disk, 1, Durability::Sync, &clock()).unwrap();
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        let last = u32::from(grows);
        if grows {
            broker.admin().add_partitions("t", 2).unwrap();
        }
        partition(&broker, ("t", last)).append(&Record::new().value("kept")).unwrap();
        drop(broker);
        let before = disk.paths();
        damage_last_batch(&disk, &own_file(&disk, "__meta"));
        for seed in 2..4 {
            let broker = open(&disk, seed).unwrap();
            assert_eq!(broker.topic("t").unwrap().partitions(), last + 1);
            let (records, holes) = read_around(&partition(&broker, ("t", last)), "grown");
            assert_eq!((records.len(), holes), (1, vec![]), "grows: {grows}");
            assert_eq!(broker.recovery().is_clean(), seed > 2, "{:?}", broker.recovery());
        }
        let is_of_topic = |path: &&PathBuf| path.starts_with(Path::new(DIR).join("t"));
        let after = disk.paths();
        assert!(before.iter().filter(is_of_topic).all(|path| after.contains(path)));
    }
}

/// Symptom: records that were deleted on purpose were reported as missing, at every opening. Cause:
/// the record of the log start was damaged, at the end of the only log that nothing proves; it
/// passed for torn, and a log without a log start for one that begins at 0. Rule: only where nothing
/// was cut from `__local` does no log start mean that nothing was removed; where it is not known,
/// the log begins with what is there, and that is recorded.
// RED: src/broker/open.rs
//   - let nothing_was_removed = life.has_all_starts.then_some(0);
//   + let nothing_was_removed = Some(0).filter(|_| life.has_all_starts || life.now > 0);
#[test]
fn what_was_removed_is_not_missed_when_the_record_of_the_log_start_is_torn() {
    let disk = SimulatedDisk::with_seed(1);
    let broker = open_at(&disk, 1, Durability::Sync, &clock()).unwrap();
    let config = TopicConfig::new(1).segment_bytes(16 << 10);
    broker.ensure_topic("t", config).unwrap();
    let value = "v".repeat(3_000);
    for _ in 0..12 {
        partition(&broker, ("t", 0)).append(&Record::new().value(&value)).unwrap();
    }
    broker.admin().delete_records(("t", 0), 10).unwrap();
    drop(broker);
    damage_last_batch(&disk, &own_file(&disk, "__local"));
    for seed in 2..5 {
        let broker = open(&disk, seed).unwrap();
        let found = broker.recovery().partitions.iter().find(|found| &*found.topic == "t");
        assert_eq!(found.unwrap().corrupt, [], "{seed}");
        let partition = partition(&broker, ("t", 0));
        let (records, holes) = read_around(&partition, "deleted");
        let start = partition.log_start_offset();
        assert!(start > 0 && start <= 10, "{seed}: {start}");
        assert_eq!((records.len() as u64, holes), (12 - start, vec![]), "{seed}");
    }
}

/// A verification reads the engine's own logs too, when it is asked to.
// RED: src/admin/verify.rs
//   - let own: Vec<_> = own.collect();
//   + let own: Vec<_> = own.take(0).collect();
#[test]
fn row_e01_a_verification_finds_rot_in_the_own_logs() {
    let store = Store::new(End::Killed);
    let broker = open(&store.disk, 5).unwrap();
    for log in ["__meta", "__offsets", "__local"] {
        assert!(broker.admin().verify(log).unwrap().is_ok(), "{log}");
        let file = own_file(&store.disk, log);
        damage_last_batch(&store.disk, &file);
        let damage = broker.admin().verify(log).unwrap().damage;
        assert!(damage.iter().any(|it| it.file == file), "{log}: {damage:?}");
    }
}

/// Symptom: a verification found nothing although the first segment of a log had lost all that it
/// held. Cause: it was no segment of the log any more, and of those only headers were looked at.
/// Rule: a file with a segment's name whose first batch is not whole is damage, if it was ever used.
// RED: src/log/verify.rs
//   - Ok(was_used.then_some((START, CorruptionKind::Malformed("the opening batch"))))
//   + Ok(None.filter(|_: &(u64, CorruptionKind)| was_used))
#[test]
fn row_e05_a_verification_finds_a_segment_that_ends_in_its_first_batch() {
    let store = Store::new(End::Closed);
    let (topic, number) = PARTITIONS[0];
    let file = Path::new(DIR).join(format!("{topic}/{number}/{:020}.log", 0));
    store.disk.truncate(&file, 150).unwrap();
    let broker = open(&store.disk, 5).unwrap();
    let damage = broker.admin().verify(topic).unwrap().damage;
    assert!(damage.iter().any(|it| it.file == file), "{damage:?}");
}
