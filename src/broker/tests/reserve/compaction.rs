//! Compaction on a disk that is full and stays full.

use std::collections::BTreeMap;

use super::*;

const KEYS: u64 = 5;

/// The files of all compactions, whatever they are to become.
fn compaction_spares(disk: &SimulatedDisk) -> usize {
    disk.paths().iter().filter(|path| path.ends_with("compaction-spare")).count()
}

/// From now on there is what there is.
fn fill(disk: &SimulatedDisk) {
    let lengths = disk.paths().into_iter().map(|path| disk.read(&path).unwrap().len() as u64);
    disk.limit_capacity(Some(lengths.sum()));
}

/// Appends until there is no space. Returns the number of the next record.
fn append_until_full(partition: &Partition, mut number: u64) -> u64 {
    loop {
        let value = format!("{number} {}", "v".repeat(30_000));
        let key = (number % KEYS).to_string();
        let record = Record::new().key(&key).value(&value);
        match partition.append(&record) {
            Ok(_) => number += 1,
            refused => {
                assert!(is_full(&refused), "{refused:?}");
                return number;
            }
        }
    }
}

/// The number in the latest record of each key.
fn latest(partition: &Partition) -> BTreeMap<Vec<u8>, u64> {
    let mut found = BTreeMap::new();
    let mut next = partition.log_start_offset();
    while next < partition.log_end_offset() {
        let batch = partition.read(next, 1 << 20).unwrap();
        for message in batch.iter() {
            let value = String::from_utf8(message.value().unwrap().to_vec()).unwrap();
            let number = value.split(' ').next().unwrap().parse().unwrap();
            found.insert(message.key().unwrap().to_vec(), number);
            next = message.next_offset();
        }
        if batch.is_empty() {
            break; // compacted up to the end
        }
    }
    found
}

fn wanted(count: u64) -> BTreeMap<Vec<u8>, u64> {
    (count - KEYS..count).map(|it| ((it % KEYS).to_string().into_bytes(), it)).collect()
}

/// A full disk with a compacted topic, and how many records it has.
fn full_of_versions(clock: &ManualClock) -> (SimulatedDisk, u64) {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1, clock).unwrap();
    let config = TopicConfig::new(1).segment_bytes(256 << 10).cleanup(Cleanup::Compact);
    let topic = broker.ensure_topic("keys", config).unwrap();
    assert_eq!(compaction_spares(&disk), 1);
    fill(&disk);
    let used = disk.paths().iter().map(|path| disk.read(path).unwrap().len() as u64).sum::<u64>();
    disk.limit_capacity(Some(used + (6 << 20)));
    let count = append_until_full(&topic.partition(0).unwrap(), 0);
    assert!(count > 150, "{count}");
    broker.close().unwrap();
    fill(&disk);
    (disk, count)
}

/// Symptom: on a full disk a compaction ended with `StorageFull`, for ever: its new file needs
/// space before it gives back that of those that it replaces. Rule: a file is kept for it, which
/// becomes the new one; the space of the replaced files makes the next kept file.
// RED: src/log/compaction/run.rs
//   - Err(Error::StorageFull { .. }) => Ok(self.on_spare(&groups, first, bytes_max)),
//   + Err(error @ Error::StorageFull { .. }) => Err(error),
// RED: src/log/compaction/run.rs
//   - let _ = spare.fill(&*self.env.disk);
// RED: src/log/tasks.rs
//   - self.is_shared = is_refused(&written);
#[test]
fn row_c20_a_compaction_needs_no_space_any_number_of_times() {
    let clock = clock();
    let (disk, mut count) = full_of_versions(&clock);
    for round in 0..6 {
        let broker = open(&disk, 10 + round, &clock).unwrap();
        let partition = broker.topic("keys").unwrap().partition(0).unwrap();
        let compacted = broker.admin().compact_now("keys");
        let report = compacted.unwrap_or_else(|error| panic!("{round}: {error}"));
        assert!(report.records_removed > 30, "{round}: {report:?}");
        assert_eq!(latest(&partition), wanted(count), "{round}");
        assert_eq!(compaction_spares(&disk), 1, "{round}");
        let before = count;
        count = append_until_full(&partition, count);
        assert!(count > before + 30, "{round}: {}", count - before);
        broker.close().unwrap();
    }
}

/// Wherever it stops, the records are those of before or of after, the next opening needs no space,
/// and once there is some all is as it was.
#[test]
fn row_c20_a_crash_at_any_point_of_a_compaction_on_a_full_disk_loses_nothing() {
    let clock = clock();
    let (disk, count) = full_of_versions(&clock);
    let run = |disk: &SimulatedDisk| -> Result<()> {
        let broker = open(disk, 20, &clock)?;
        broker.admin().compact_now("keys")?;
        broker.close()
    };
    let counted = disk.kill9();
    run(&counted).unwrap();
    let (points, mut random) = (counted.store_points(), Random::new(3));
    let (mut kept, tries) = (0, (60 * effort()).min(points));
    for number in 0..tries {
        let point = if tries == points { number } else { random.below(points) };
        let any = PowerCut::any(&mut || random.next());
        let how = *random.pick(&[Crash::Kill, Crash::Cut(PowerCut::WORST), Crash::Cut(any)]);
        let context = format!("store point {point} of {points}, {how:?}");
        let copy = disk.kill9();
        copy.crash_at(point);
        assert!(run(&copy).is_err(), "{context}");
        let image = how.of(&copy, &mut random);
        let broker = open(&image, 30, &clock).unwrap_or_else(|it| panic!("{context}: {it:?}"));
        let partition = broker.topic("keys").unwrap().partition(0).unwrap();
        assert_eq!(latest(&partition), wanted(count), "{context}");
        let compacted = broker.admin().compact_now("keys");
        assert!(compacted.is_ok() || is_full(&compacted), "{context}: {compacted:?}");
        kept += u64::from(compacted.is_ok());
        assert_eq!(latest(&partition), wanted(count), "{context}");
        drop((partition, broker));
        image.limit_capacity(None);
        let broker = open(&image, 31, &clock).unwrap();
        broker.admin().compact_now("keys").unwrap_or_else(|it| panic!("{context}: {it:?}"));
        let partition = broker.topic("keys").unwrap().partition(0).unwrap();
        assert_eq!(latest(&partition), wanted(count), "{context}");
        assert_eq!(compaction_spares(&image), 1, "{context}");
        assert_eq!(
            broker.recovery().partitions.iter().map(|it| it.corrupt.len()).sum::<usize>(),
            0
        );
    }
    assert!(kept * 10 > tries * 8, "the file was lost in {} of {tries} crashes", tries - kept);
    eprintln!("stopped at {tries} of {points} store points; compacted after {kept}");
}
