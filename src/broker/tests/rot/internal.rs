//! Rot in the internal logs: the rest of one would pass for the whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::store::{End, PARTITIONS, Store, partition, read_around, spans};
use crate::broker::Broker;
use crate::broker::tests::model::{DIR, clock, open, open_at};
use crate::config::{Durability, TopicConfig};
use crate::error::{Corruption, Error};
use crate::format::SegmentHeader;
use crate::record::Record;
use crate::storage::disk::{Disk, SimulatedDisk};

/// The segments of an internal log.
fn own_files(disk: &SimulatedDisk, log: &str) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join(log);
    disk.paths().into_iter().filter(|path| path.starts_with(&dir)).collect()
}

/// The last of them.
fn own_file(disk: &SimulatedDisk, log: &str) -> PathBuf {
    own_files(disk, log).pop().unwrap()
}

/// Damages the last batch of a file.
fn damage_last_batch(disk: &SimulatedDisk, file: &Path) {
    let (spans, _) = spans(&disk.read(file).unwrap());
    disk.corrupt(file, spans.last().unwrap().bytes.start + 50, 1).unwrap();
}

fn assert_refused(disk: &SimulatedDisk, file: &Path) {
    let contents = || -> Vec<_> {
        disk.paths().into_iter().map(|path| (path.clone(), disk.read(&path).unwrap())).collect()
    };
    let before = contents();
    for seed in 5..7 {
        let refused = open(disk, seed).err();
        let is_named =
            matches!(&refused, Some(Error::Corrupt(Corruption { file: it, .. })) if it == file);
        assert!(is_named, "{file:?}: {refused:?}");
        assert!(contents() == before, "{file:?}: changed");
    }
}

/// Symptom: all topics, or all commits, were lost after an opening that reported a torn tail.
/// Cause: an internal log in which nothing follows the last record has nothing that proves it, so a
/// damaged one was cut, although runs before had found it whole, and acted upon it. Rule: an
/// opening syncs what it finds in these logs, and notes in `__local` how far they reach.
// RED: src/broker/log_opener.rs
//   - let mut news = local.read(|local| local.news_of(&ends));
//   + let mut news = Vec::new();
#[test]
fn row_e01_e02_what_an_opening_has_found_in_an_internal_log_is_never_torn_later() {
    let store = Store::new(End::Killed);
    let found = store.disk.kill9();
    drop(open(&found, 4).unwrap());
    for log in ["__meta", "__offsets"] {
        let disk = found.kill9();
        let file = own_file(&disk, log);
        damage_last_batch(&disk, &file);
        assert_refused(&disk, &file);
    }
    // Nothing else proves the end of `__local`, but each run's first record what was before.
    let files = own_files(&found, "__local");
    for file in &files[..files.len() - 1] {
        let disk = found.kill9();
        damage_last_batch(&disk, file);
        assert_refused(&disk, file);
    }
}

/// Symptom: a segment of an internal log that somebody had shortened passed for one that was never
/// used, or ended early; what it had held was forgotten. Rule: a new segment has its first
/// allocation before it has its name, and no crash takes that away.
// RED: src/log/open.rs
//   - inventory.refuse_shortened(&reader)?;
#[test]
fn row_e05_an_internal_log_whose_last_file_was_shortened_is_refused() {
    for end in [End::Killed, End::Closed, End::Idle] {
        let store = Store::new(end);
        for log in ["__meta", "__offsets", "__local"] {
            let file = own_file(&store.disk, log);
            let (spans, data_end) = spans(&store.disk.read(&file).unwrap());
            let first = spans.first().map_or(data_end, |first| first.bytes.start);
            for length in [u64::from(SegmentHeader::END_POSITION), first, first + 30, data_end] {
                let disk = store.disk.kill9();
                disk.truncate(&file, length).unwrap();
                assert_refused(&disk, &file);
            }
            let disk = store.disk.kill9();
            disk.truncate(&file, data_end + 400).unwrap();
            assert!(open(&disk, 5).unwrap().recovery().is_clean(), "only space was lost");
        }
    }
}

/// Symptom: an opening that was refused because of a damaged internal log had removed the damaged
/// file, or files of the other internal logs. Cause: each log tidied up as soon as it was read,
/// before what it says was believed. Rule: nothing on the disk is changed until all three are
/// believed.
// RED: src/log/open.rs
//   - if !known.needs_all && !known.read_only {
//   + if !known.read_only {
#[test]
fn row_e02_nothing_is_removed_before_damage_in_an_internal_log_refuses_the_opening() {
    let store = Store::new(End::Idle);
    let logs = ["__meta", "__offsets", "__local"];
    for (log, left) in logs.into_iter().flat_map(|log| [(log, 50), (log, 0)]) {
        let disk = store.disk.kill9();
        let file = own_file(&disk, log);
        // Without the batch that opens it nothing in the file is part of the log.
        disk.truncate(&file, u64::from(SegmentHeader::END_POSITION) + left).unwrap();
        for name in logs {
            let name = format!("{name}/0/00000000000000000099.log.tmp");
            disk.create(&Path::new(DIR).join(name)).unwrap();
        }
        assert_refused(&disk, &file);
        let builder = Broker::builder().disk(Arc::new(disk.clone()), Path::new(DIR));
        let inspected = builder.read_only(true).background(false).open();
        assert!(matches!(inspected, Err(Error::Corrupt(_))), "{log}: {inspected:?}");
    }
}

/// Symptom: after a clean end the last commit, the last topic or the last epoch was what it had
/// been before, without a word but of a torn tail. Cause: nothing after the last record of an
/// internal log says that it was synced. Rule: a clean end, and every minute, notes in `__local`
/// how far the other two reach.
// RED: src/broker/recovery_points.rs
//   - changes.extend(self.run.logs().ends());
#[test]
fn row_e02_after_a_clean_end_the_last_record_of_an_internal_log_is_not_torn() {
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
/// creation, or growth, was undone. Rule: nobody appends to what is still being made, so where
/// there are records it was complete.
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
/// passed for torn, and a log without a log start for one that begins at 0. Rule: only where
/// nothing was cut from `__local` does no log start mean that nothing was removed; where it is not
/// known, the log begins with what is there, and that is recorded.
// RED: src/broker/last_run.rs
//   - let nothing_was_removed = self.has_all_starts.then_some(0);
//   + let nothing_was_removed = Some(0).filter(|_| self.has_all_starts || self.now > 0);
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

/// The same for a topic of which all records were deleted: what there was shows in where it
/// continues.
// RED: src/log/inventory.rs
//   - let made_at = scan.stretches.first().filter(|_| header.number == 0);
//   + let made_at = scan.stretches.first();
#[test]
fn row_e03_a_topic_whose_records_were_deleted_is_not_undone_when_its_creation_is_torn() {
    let disk = SimulatedDisk::with_seed(1);
    let broker = open_at(&disk, 1, Durability::Sync, &clock()).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    for _ in 0..3 {
        partition(&broker, ("t", 0)).append(&Record::new().value("deleted")).unwrap();
    }
    broker.admin().delete_records(("t", 0), 3).unwrap();
    drop(broker);
    damage_last_batch(&disk, &own_file(&disk, "__meta"));
    let broker = open(&disk, 2).unwrap();
    let partition = partition(&broker, ("t", 0));
    assert_eq!((partition.log_start_offset(), partition.log_end_offset()), (3, 3));
    assert_eq!(partition.append(&Record::new().value("next")).unwrap(), 3);
}

/// A verification reads the internal logs too, when it is asked to.
// RED: src/admin/verify.rs
//   - let own: Vec<_> = own.collect();
//   + let own: Vec<_> = own.take(0).collect();
#[test]
fn row_e01_a_verification_finds_rot_in_the_internal_logs() {
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
/// Rule: a file with a segment's name whose first batch is not whole is damage, if it was ever
/// used.
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
