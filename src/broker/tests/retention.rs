//! Retention on a disk that fails and loses power.
//!
//! What must hold after every crash: the log start is where it was last seen or acknowledged, or
//! further on; every acknowledged record at or above it is there, in order; a producer's numbers
//! are not forgotten. [`Watch`] remembers what was seen.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use super::images;
use super::model::{Crash, DIR, clock, open_at, open_on};
use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::{Durability, TopicConfig, WhenFull};
use crate::error::{Error, Result};
use crate::partition::PartitionCore;
use crate::random::Random;
use crate::record::{Record, TopicPartition};
use crate::storage::disk::{Fault, HookedDisk, Operation, PowerCut, Side, SimulatedDisk};
use crate::sync::Mutex;
use crate::topic::Partition;

const TOPIC: &str = "t";
const VALUE_BYTES: usize = 3_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Five records of a segment.
fn config() -> TopicConfig {
    TopicConfig::new(1).segment_bytes(16 << 10).retention(10 * MINUTE)
}

fn value(offset: u64) -> Vec<u8> {
    let mut value = vec![b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&offset.to_le_bytes());
    value
}

fn partition(broker: &Broker) -> Partition {
    broker.topic(TOPIC).unwrap().partition(0).unwrap()
}

fn segment_files(disk: &SimulatedDisk) -> usize {
    let dir = format!("{DIR}/{TOPIC}/0");
    disk.paths().iter().filter(|path| path.starts_with(&dir)).count()
}

/// What no crash takes back.
#[derive(Debug, Clone, Copy, Default)]
struct Watch {
    log_start: u64,
    /// The end of what was acknowledged.
    end: u64,
}

/// A broker under watch, and the clock it runs on.
pub(super) struct Rig {
    pub(super) disk: SimulatedDisk,
    clock: ManualClock,
    watch: Watch,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self { disk: SimulatedDisk::new(), clock: clock(), watch: Watch::default() }
    }

    fn open(&self, seed: u64) -> Result<Broker> {
        open_at(&self.disk, seed, Durability::Sync, &self.clock)
    }

    fn see(&mut self, broker: &Broker) {
        if let Ok(topic) = broker.topic(TOPIC) {
            let partition = topic.partition(0).unwrap();
            self.watch.log_start = self.watch.log_start.max(partition.log_start_offset());
        }
    }

    /// Numbered records, by a named producer, so that the numbers must survive as well.
    fn send(&mut self, broker: &Broker, count: u64) -> Result<()> {
        let producer = broker.producer_builder().id("named").build()?;
        for _ in 0..count {
            let next = self.watch.end;
            let record_value = value(next);
            let record = Record::to(TOPIC).partition(0).value(&record_value);
            producer.send_sequenced(next + 1, record)?;
            self.watch.end = next + 1;
        }
        Ok(())
    }

    fn delete(&mut self, broker: &Broker, before: u64) -> Result<()> {
        let start = broker.admin().delete_records((TOPIC, 0), before)?;
        self.watch.log_start = self.watch.log_start.max(start);
        Ok(())
    }

    /// Two segments, deletion inside one, expiry of all, a new beginning, and deletion of all.
    pub(super) fn live(&mut self) -> Result<()> {
        let broker = self.open(1)?;
        broker.ensure_topic(TOPIC, config())?;
        let done = self.work(&broker);
        self.see(&broker);
        done
    }

    fn work(&mut self, broker: &Broker) -> Result<()> {
        self.send(broker, 12)?;
        self.delete(broker, 7)?;
        broker.tick()?;
        self.see(broker);
        self.clock.advance(11 * MINUTE);
        broker.tick()?;
        self.see(broker);
        assert_eq!(self.watch.log_start, 12);
        self.send(broker, 7)?;
        self.delete(broker, 19)?;
        self.send(broker, 1)
    }

    /// What is found after `crash` at this moment; then the log continues.
    pub(super) fn check(&self, crash: Crash, random: &mut Random, context: &str) {
        let disk = crash.of(&self.disk, random);
        let mut next = Rig { disk, clock: self.clock.clone(), watch: self.watch };
        let broker = next.open(2).unwrap_or_else(|error| panic!("{context}: {error:?}"));
        let report = broker.recovery();
        assert!(report.partitions.iter().all(|it| it.corrupt.is_empty()), "{context}: {report:?}");
        if broker.topic(TOPIC).is_err() {
            assert_eq!(self.watch.end, 0, "{context}: the topic is missing");
            return;
        }
        let found = partition(&broker);
        let (start, end) = (found.log_start_offset(), found.log_end_offset());
        let Watch { log_start, end: acknowledged } = self.watch;
        assert!(start >= log_start, "{context}: log start {start} of {log_start}");
        assert!(end >= acknowledged, "{context}: log end {end} of {acknowledged}");
        check_values(&found, context);
        let id = broker.run().logs().catalog().read(|it| it.producers.get("named").map(|it| it.id));
        let core = broker.run().topic(TOPIC).unwrap();
        let last = id.and_then(|id| core.partition(0).unwrap().log().last_sequence(id));
        assert!(last.unwrap_or(0) >= acknowledged, "{context}: last sequence {last:?}");
        next.watch.end = end;
        next.send(&broker, 3).unwrap_or_else(|error| panic!("{context}: {error:?}"));
        next.delete(&broker, end + 1).unwrap();
        check_values(&found, context);
        drop((found, broker));
        let broker = next.open(3).unwrap();
        assert!(partition(&broker).log_start_offset() == end + 1, "{context}: after a kill");
        check_values(&partition(&broker), context);
    }
}

/// All records from the log start to the end are there and say their offset.
fn check_values(partition: &Partition, context: &str) {
    let mut next = partition.log_start_offset();
    while next < partition.log_end_offset() {
        let batch = partition.read(next, 1 << 20).unwrap_or_else(|e| panic!("{context}: {e:?}"));
        assert!(!batch.is_empty(), "{context}: nothing at {next}");
        for message in batch.iter() {
            assert_eq!(message.offset(), next, "{context}");
            assert_eq!(message.value(), Some(&value(next)[..]), "{context}");
            next += 1;
        }
    }
}

/// Rows A19, B8: a crash at every step of a removal, and of what comes before and after.
// RED: src/partition/retention.rs
//   - Rule::SettledRemoval.keep(|| self.flusher.sync_now())
//   + Ok(())
#[test]
fn row_a19_a_log_start_never_goes_back_and_nothing_above_it_is_lost() {
    let points = {
        let mut rig = Rig::new();
        rig.live().unwrap();
        rig.disk.store_points()
    };
    let mut tried = 0;
    for point in 0..=points {
        let mut rig = Rig::new();
        rig.disk.crash_at(point);
        if rig.live().is_err() {
            assert!(rig.disk.is_off(), "store point {point}");
        }
        let mut random = Random::new(point);
        let mut crashes = vec![Crash::Kill, Crash::Cut(PowerCut::WORST)];
        let any = |random: &mut Random| PowerCut::any(&mut || random.next());
        crashes.extend((0..images(2)).map(|_| Crash::Cut(any(&mut random))));
        for crash in crashes {
            tried += 1;
            rig.check(crash, &mut random, &format!("store point {point} of {points}, {crash:?}"));
        }
    }
    eprintln!("{tried} images of {points} store points");
    assert!(tried > 400);
}

/// A file that cannot be unlinked keeps nothing from working, and goes when it can.
#[test]
fn a_file_that_cannot_be_removed_is_removed_later() {
    let mut rig = Rig::new();
    let broker = rig.open(1).unwrap();
    broker.ensure_topic(TOPIC, config()).unwrap();
    rig.send(&broker, 12).unwrap();
    broker.tick().unwrap();
    rig.disk.inject(Fault::always(Operation::Remove, std::io::ErrorKind::PermissionDenied));
    rig.delete(&broker, 10).unwrap();
    assert_eq!(partition(&broker).log_start_offset(), 10);
    let files = segment_files(&rig.disk);
    broker.admin().enforce_retention_now().unwrap();
    assert_eq!(segment_files(&rig.disk), files);
    rig.disk.heal();
    broker.admin().enforce_retention_now().unwrap();
    assert_eq!(segment_files(&rig.disk), files - 2);
    check_values(&partition(&broker), "after all");
}

/// The same, when the run ends first: the next opening removes what lies below the log start.
// RED: src/log/recovery.rs
//   - finish_retention(segments, start.unwrap_or(0), &mut decision);
#[test]
fn row_a20_a_file_that_was_not_removed_is_removed_by_the_next_opening() {
    for closes in [true, false] {
        let mut rig = Rig::new();
        let broker = rig.open(1).unwrap();
        broker.ensure_topic(TOPIC, config()).unwrap();
        rig.send(&broker, 12).unwrap();
        rig.disk.inject(Fault::always(Operation::Remove, std::io::ErrorKind::PermissionDenied));
        rig.delete(&broker, 8).unwrap();
        if closes {
            broker.close().unwrap();
        } else {
            drop(broker);
        }
        let before = segment_files(&rig.disk);
        rig.disk.heal();
        let broker = rig.open(2).unwrap();
        assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
        assert_eq!(partition(&broker).log_start_offset(), 8);
        assert_eq!(segment_files(&rig.disk), before - 1);
        check_values(&partition(&broker), "reopened");
    }
}

/// When the new log start cannot be made durable, nothing is removed and nothing moves.
#[test]
fn nothing_goes_before_the_log_start_is_durable() {
    let mut rig = Rig::new();
    let broker = rig.open(1).unwrap();
    broker.ensure_topic(TOPIC, config()).unwrap();
    rig.send(&broker, 12).unwrap();
    let files = segment_files(&rig.disk);
    rig.disk.inject(Fault::once(Operation::Sync, std::io::ErrorKind::Other).on("__local"));
    let failed = rig.delete(&broker, 10);
    assert!(matches!(failed, Err(Error::SyncFailed { .. })), "{failed:?}");
    assert_eq!(partition(&broker).log_start_offset(), 0);
    assert_eq!(segment_files(&rig.disk), files);
    check_values(&partition(&broker), "unmoved");
}

/// What a failed sync left is evidence: retention leaves it alone, and continues elsewhere.
#[test]
fn retention_leaves_a_poisoned_partition_alone() {
    let mut rig = Rig::new();
    let broker = rig.open(1).unwrap();
    broker.ensure_topic(TOPIC, config()).unwrap();
    let other = broker.ensure_topic("other", config()).unwrap().partition(0).unwrap();
    rig.send(&broker, 12).unwrap();
    other.append(&Record::new().value("old")).unwrap();
    rig.disk.inject(Fault::once(Operation::Sync, std::io::ErrorKind::Other).on("/t/0"));
    assert!(rig.send(&broker, 1).is_err());
    let files = segment_files(&rig.disk);
    rig.clock.advance(11 * MINUTE);
    broker.admin().enforce_retention_now().unwrap();
    assert_eq!((other.log_start_offset(), partition(&broker).log_start_offset()), (1, 0));
    assert_eq!(segment_files(&rig.disk), files);
    let refused = rig.delete(&broker, 5);
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
}

/// A topic of the same name begins anew: log starts belong to its id.
#[test]
fn a_log_start_goes_with_its_topic() {
    let mut rig = Rig::new();
    let broker = rig.open(1).unwrap();
    broker.ensure_topic(TOPIC, config()).unwrap();
    rig.send(&broker, 12).unwrap();
    rig.delete(&broker, 11).unwrap();
    broker.admin().delete_topic(TOPIC).unwrap();
    broker.ensure_topic(TOPIC, config()).unwrap();
    assert_eq!(broker.run().logs().local().read(|local| local.log_starts.keys().count()), 0);
    drop(broker);
    let broker = rig.open(2).unwrap();
    assert_eq!(partition(&broker).log_start_offset(), 0);
}

/// The wall clock is ahead in one run and right in the next: what it stamped ages from there.
#[test]
fn ages_of_an_earlier_run_do_not_lie_in_the_future() {
    for closes in [true, false] {
        let mut rig = Rig::new();
        let right = clock();
        rig.clock.advance(1_000_000 * MINUTE);
        let broker = rig.open(1).unwrap();
        broker.ensure_topic(TOPIC, config()).unwrap();
        rig.send(&broker, 12).unwrap();
        broker.tick().unwrap();
        if closes {
            broker.close().unwrap();
        } else {
            drop(broker);
        }
        rig.clock = right;
        let broker = rig.open(2).unwrap();
        rig.clock.advance(10 * MINUTE);
        broker.tick().unwrap();
        assert_eq!(partition(&broker).log_start_offset(), 0, "closed: {closes}");
        rig.clock.advance(MINUTE);
        broker.tick().unwrap();
        assert_eq!(partition(&broker).log_start_offset(), 12, "closed: {closes}");
    }
}

/// A record from the future ages from its append, also when that was in an earlier run.
#[test]
fn the_time_of_an_append_is_kept_where_the_timestamp_is_no_help() {
    let rig = Rig::new();
    let broker = rig.open(1).unwrap();
    let topic = broker.ensure_topic(TOPIC, config()).unwrap();
    let far = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    let record_value = value(0);
    let record = Record::new().value(&record_value).timestamp(far);
    let sealed = topic.partition(0).unwrap();
    for _ in 0..6 {
        sealed.append(&record).unwrap();
    }
    rig.clock.advance(5 * MINUTE);
    broker.close().unwrap();
    let broker = rig.open(2).unwrap();
    rig.clock.advance(5 * MINUTE);
    broker.tick().unwrap();
    assert_eq!(partition(&broker).log_start_offset(), 0);
    rig.clock.advance(MINUTE);
    broker.tick().unwrap();
    assert_eq!(partition(&broker).log_start_offset(), 6);
}

/// A consumer in the middle of a fetch, and retention at every step of it, cannot be shown here;
/// what it must do when a file is missing and the log start says why, can.
#[test]
fn a_reader_whose_file_is_removed_learns_that_it_was_retention() {
    let mut rig = Rig::new();
    let broker = rig.open(1).unwrap();
    broker.ensure_topic(TOPIC, config()).unwrap();
    rig.send(&broker, 12).unwrap();
    let mut consumer = broker.reader().assign([TopicPartition::from((TOPIC, 0))]).open().unwrap();
    assert_eq!(consumer.recv().unwrap().offset(), 0);
    rig.delete(&broker, 7).unwrap();
    let rest: Vec<u64> =
        consumer.poll(Duration::ZERO).unwrap().iter().map(|it| it.offset()).collect();
    let gaps = consumer.take_gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].missed, 1..7);
    assert_eq!(rest, (7..12).collect::<Vec<_>>());
}

/// Symptom: at level `Os` a removal made nothing durable, since what it removed was durable
/// already; the segment that was first then had an opening batch that a power cut could take, and
/// with it went all that was known of a named producer. A retry was appended again.
#[test]
fn numbers_below_a_durable_log_start_are_kept_at_level_os() {
    let mut rig = Rig::new();
    let broker = rig.open(1).unwrap();
    broker.ensure_topic(TOPIC, config().durability(Durability::Os)).unwrap();
    rig.send(&broker, 6).unwrap();
    broker.tick().unwrap();
    assert_eq!(partition(&broker).durable_end_offset(), 5, "the sealed segment is synced alone");
    rig.send(&broker, 5).unwrap();
    rig.delete(&broker, 5).unwrap();
    let disk = Crash::Cut(PowerCut::WORST).of(&rig.disk, &mut Random::new(1));
    let broker = open_at(&disk, 2, Durability::Sync, &rig.clock).unwrap();
    let id =
        broker.run().logs().catalog().read(|it| it.producers.get("named").map(|it| it.id)).unwrap();
    let last = broker.run().topic(TOPIC).unwrap().partition(0).unwrap().log().last_sequence(id);
    assert!(last >= Some(5), "{last:?}");
}

/// Symptom: where old records make room for new ones, a directory from which nothing could be
/// removed cost the whole log, record by record, and the budget was exceeded without end. Cause: a
/// file that could not be removed counted as room that was made. Rule: room is made when it is
/// there; until then the append is refused, and nothing more is dropped.
#[test]
fn a_disk_that_refuses_to_remove_costs_no_more_than_one_segment() {
    let disk = SimulatedDisk::new();
    let builder = Broker::builder().disk(Arc::new(disk.clone()), Path::new(DIR)).clock(clock());
    let builder = builder.durability(Durability::Os).background(false).seed(5);
    let limit = 4 << 20;
    let broker = builder.max_total_bytes(limit).when_full(WhenFull::DropOldest).open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1).segment_bytes(64 << 10)).unwrap();
    let partition = topic.partition(0).unwrap();
    let value = vec![7; 3_000];
    let append = || partition.append(&Record::new().value(&value));
    disk.inject(Fault::always(Operation::Remove, ErrorKind::PermissionDenied).on("/t/"));
    let refused = (0..3_000).find_map(|_| append().err()).expect("a budget without a limit");
    assert!(matches!(refused, Error::StorageFull { .. }), "{refused:?}");
    let start = partition.log_start_offset();
    for _ in 0..50 {
        append().unwrap_err();
    }
    assert_eq!(partition.log_start_offset(), start, "dropped for nothing");
    assert!(partition.log_end_offset() - start > 1_000, "{start}");

    disk.heal();
    for _ in 0..100 {
        append().unwrap();
    }
    assert!(partition.log_start_offset() > start);
}

/// Symptom: where nothing else could make room, the last segment of a replicated log was removed with
/// records that no majority had, and these counted as such from then on. Rule: what lies above the
/// watermark makes no room.
// RED: src/broker/retention.rs
//   - if core.log().ends().watermark() < end {
//   + if false {
#[cfg(feature = "replication")]
#[test]
fn the_last_segment_makes_no_room_above_the_watermark() {
    use crate::partition::quorum::Quorum;
    let builder = Broker::builder().disk(Arc::new(SimulatedDisk::new()), Path::new(DIR));
    let builder = builder.durability(Durability::Os).background(false).seed(5).clock(clock());
    let broker = builder.max_total_bytes(4 << 20).when_full(WhenFull::DropOldest).open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1).segment_bytes(64 << 20)).unwrap();
    let partition = topic.partition(0).unwrap();
    let core = broker.run().topic("t").unwrap().partition(0).unwrap().clone();
    Quorum::of(&core).begin();
    let value = vec![7; 30_000];
    let append = || partition.append(&Record::new().value(&value));
    let refused = (0..300).find_map(|_| append().err()).expect("a budget without a limit");
    assert!(matches!(refused, Error::StorageFull { .. }), "{refused:?}");
    assert_eq!((core.log_start(), core.log().ends().watermark()), (0, 0));
    Quorum::of(&core).advance(core.log_end());
    append().unwrap();
    assert!(core.log_start() > 0);
}

/// Symptom: three records acknowledged at `Sync` were lost, and the broker did not open. Cause: a
/// removal acts by path without a lock, and the topic was deleted and made again between its steps:
/// the path led to the first segment of the new topic. Rule: a deletion waits for what acts by path
/// before the topic's name is free.
// RED: src/partition/retention.rs
//   - let Ok(removing) = self.log.begin_disk_work() else { return Ok(()) };
//   + let removing = ();
#[test]
fn row_a23_a_removal_does_not_reach_the_next_topic_of_the_name() {
    let disk = SimulatedDisk::new();
    let (begin, is_begun) = std::sync::mpsc::channel();
    let (end, is_ended) = std::sync::mpsc::channel::<()>();
    let armed: Arc<Mutex<Option<Arc<PartitionCore>>>> = Arc::default();
    let (hooked, is_ended) = (Arc::clone(&armed), Mutex::new(is_ended));
    let hooked = HookedDisk::new(Arc::new(disk.clone()), move |operation, side| {
        if (operation, side) != (Operation::Remove, Side::Before) {
            return;
        }
        let removing = hooked.lock().take();
        if let Some(core) = removing {
            begin.send(()).unwrap();
            // Until the deletion and all after it are done, or wait for this removal.
            let is_going_on = || is_ended.lock().try_recv() == Err(TryRecvError::Empty);
            while is_going_on() && !core.work_under_way().1 {
                std::thread::yield_now();
            }
        }
    });
    let broker = open_on(Arc::new(hooked), 1, Durability::Sync, &clock()).unwrap();
    let topic = broker.ensure_topic(TOPIC, config()).unwrap();
    let producer = broker.producer();
    let send = |offset: u64| {
        let value = value(offset);
        producer.send(Record::to(TOPIC).partition(0).value(&value)).unwrap();
    };
    (0..12).for_each(send);
    let core = broker.run().topic(TOPIC).unwrap().partition(0).unwrap().clone();
    drop(topic);
    *armed.lock() = Some(core);
    let (broker_ref, send) = (&broker, &send);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            is_begun.recv().unwrap();
            broker_ref.admin().delete_topic(TOPIC).unwrap();
            broker_ref.ensure_topic(TOPIC, config()).unwrap();
            (0..3).for_each(send);
            end.send(()).unwrap_or_default();
        });
        // Its topic may be gone when it comes to its end.
        let _ = broker.admin().delete_records((TOPIC, 0), 7);
    });
    assert!(armed.lock().is_none(), "nothing was removed");
    drop(broker);
    let broker = open_at(&disk.kill9(), 2, Durability::Sync, &clock()).unwrap();
    assert_eq!(broker.recovery().partitions.iter().flat_map(|it| &it.corrupt).count(), 0);
    let found = partition(&broker);
    assert_eq!((found.log_start_offset(), found.log_end_offset()), (0, 3));
    check_values(&found, "the next topic of the name");
}
