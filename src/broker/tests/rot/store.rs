//! A small store with every kind of file in it, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::broker::Broker;
use crate::broker::tests::model::{DIR, GROUP, NAMED, clock, open_at};
use crate::clock::ManualClock;
use crate::config::{Cleanup, Durability, TopicConfig};
use crate::error::{Error, Result};
use crate::format::{BatchHeader, SegmentHeader};
use crate::record::{Offsets, Record, TopicPartition};
use crate::storage::disk::{Access, Disk, SimulatedDisk};
use crate::topic::Partition;
use std::time::Duration;

pub(super) const PARTITIONS: [(&str, u32); 4] =
    [("plain", 0), ("plain", 1), ("keys", 0), ("late", 0)];
const OTHERS: &str = "others";

/// How the last run of the store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Killed,
    /// Closed, opened once more, and killed before anything was done.
    Idle,
}

/// What one batch takes of a file, and of the log.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) bytes: Range<u64>,
    pub(super) offsets: Range<u64>,
}

/// A segment of a topic.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) of: (&'static str, u32),
    pub(super) spans: Vec<Span>,
    pub(super) data_end: u64,
    /// Whether the partition has none after it.
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

/// Each record by its offset: key, value and headers.
pub(super) type Records = BTreeMap<u64, Vec<u8>>;

pub(super) struct Store {
    pub(super) disk: SimulatedDisk,
    pub(super) end: End,
    pub(super) records: BTreeMap<(&'static str, u32), Records>,
    pub(super) layouts: BTreeMap<PathBuf, Layout>,
    /// By group, topic and partition: every commit there was, the last one last.
    pub(super) commits: BTreeMap<(&'static str, &'static str, u32), Vec<u64>>,
    pub(super) producer: Option<(u64, u32)>,
    /// Files that two openings remove, damage or no damage: they are cleaned up.
    pub(super) superseded: BTreeSet<PathBuf>,
}

impl Store {
    pub(super) fn new(end: End) -> Self {
        let disk = SimulatedDisk::with_seed(1);
        let mut store = Self {
            disk: disk.clone(),
            end,
            records: BTreeMap::new(),
            layouts: BTreeMap::new(),
            commits: BTreeMap::new(),
            producer: None,
            superseded: BTreeSet::new(),
        };
        let clock = clock();
        store.first_run(&disk, &clock).unwrap();
        let broker = store.second_run(&disk, &clock).unwrap();
        if end == End::Killed {
            drop(broker);
        } else {
            broker.close().unwrap();
        }
        if end == End::Idle {
            drop(open_at(&disk, 3, Durability::Sync, &clock).unwrap());
        }
        store.disk = disk.kill9();
        store.look();
        store
    }

    fn first_run(&mut self, disk: &SimulatedDisk, clock: &ManualClock) -> Result<()> {
        let broker = open_at(disk, 1, Durability::Sync, clock)?;
        let plain = TopicConfig::new(2).segment_bytes(16 << 10);
        let keys = TopicConfig::new(1).cleanup(Cleanup::Compact).segment_bytes(16 << 10);
        broker.ensure_topic("plain", plain)?;
        broker.ensure_topic("keys", keys)?;
        for round in 0..2 {
            for of in &PARTITIONS[..3] {
                append(&broker, *of, &["a", "b"], round)?;
                append(&broker, *of, &["a"], round)?;
                roll(&broker, *of)?;
            }
            self.commit(&broker, GROUP, ("plain", 0), round)?;
        }
        broker.admin().compact_now("keys")?;
        self.commit(&broker, OTHERS, ("keys", 0), 2)?;
        broker.close()
    }

    fn second_run(&mut self, disk: &SimulatedDisk, clock: &ManualClock) -> Result<Broker> {
        let broker = open_at(disk, 2, Durability::Sync, clock)?;
        let named = broker.producer_builder().id(NAMED).build()?;
        named.send(Record::to("plain").partition(1).value("from a named producer"))?;
        append(&broker, ("keys", 0), &["b", "c"], 7)?;
        append(&broker, ("plain", 0), &["d", "e"], 7)?;
        roll(&broker, ("plain", 0))?;
        clock.advance(Duration::from_secs(61));
        broker.tick()?;
        for of in &PARTITIONS[..3] {
            append(&broker, *of, &["x", "y"], 8)?;
            append(&broker, *of, &["z"], 8)?;
        }
        self.commit(&broker, GROUP, ("plain", 0), 5)?;
        self.commit(&broker, GROUP, ("plain", 1), 4)?;
        broker.ensure_topic("late", TopicConfig::new(1))?;
        append(&broker, ("late", 0), &["l"], 9)?;
        append(&broker, ("late", 0), &["m", "n"], 9)?;
        self.commit(&broker, OTHERS, ("keys", 0), 5)?;
        Ok(broker)
    }

    fn commit(
        &mut self,
        broker: &Broker,
        group: &'static str,
        of: (&'static str, u32),
        offset: u64,
    ) -> Result<()> {
        let mut consumer = broker.consumer(group).subscribe([of.0]).open()?;
        consumer.commit_offsets(&Offsets::from([(TopicPartition::from(of), offset)]))?;
        self.commits.entry((group, of.0, of.1)).or_default().push(offset);
        Ok(())
    }

    /// What the store holds, by an opening of a copy that nothing has happened to.
    fn look(&mut self) {
        let image = self.disk.kill9();
        let broker = open_at(&image, 9, Durability::Sync, &clock()).unwrap();
        assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
        self.producer = producer(&broker);
        for of in PARTITIONS {
            let (records, holes) = read_around(&partition(&broker, of), "unharmed");
            assert_eq!(holes, [], "{of:?}");
            self.records.insert(of, records);
            self.read_files(of);
        }
        drop(broker);
        drop(open_at(&image, 10, Durability::Sync, &clock()).unwrap());
        let after = image.paths();
        let is_removed = |path: &PathBuf| !after.contains(path);
        self.superseded = self.disk.paths().into_iter().filter(is_removed).collect();
    }
}

impl Store {
    fn read_files(&mut self, of: (&'static str, u32)) {
        let dir = Path::new(DIR).join(of.0).join(of.1.to_string());
        let mut last = None;
        for path in self.disk.paths().into_iter().filter(|path| path.starts_with(&dir)) {
            let (spans, data_end) = spans(&self.disk.read(&path).unwrap());
            let next = spans.last().map_or(0, |span| span.offsets.end);
            let is_first = last.is_none();
            last = last.max(Some((next, path.clone())));
            self.layouts.insert(path, Layout { of, spans, data_end, is_first, is_last: false });
        }
        self.layouts.get_mut(&last.unwrap().1).unwrap().is_last = true;
    }
}

pub(super) fn partition(broker: &Broker, (topic, number): (&str, u32)) -> Partition {
    broker.topic(topic).unwrap().partition(number).unwrap()
}

/// The id and epoch of the named producer.
pub(super) fn producer(broker: &Broker) -> Option<(u64, u32)> {
    broker.run().logs().catalog().read(|it| it.producers.get(NAMED).map(|it| (it.id, it.epoch)))
}

fn append(broker: &Broker, of: (&str, u32), keys: &[&str], round: u64) -> Result<Range<u64>> {
    let values: Vec<String> = keys.iter().map(|key| format!("{of:?}, {key}, {round}")).collect();
    let record = |(key, value)| Record::new().key(key).value(value).header("h", "1");
    let records: Vec<_> = keys.iter().zip(&values).map(record).collect();
    partition(broker, of).append_batch(&records)
}

fn roll(broker: &Broker, (topic, number): (&str, u32)) -> Result<()> {
    let shared = broker.run().topic(topic)?;
    let core = shared.partition(number)?;
    core.with_log(|log| log.roll_for(0))?;
    core.flush()?;
    while core.footers().step()? {}
    Ok(())
}

/// The batches of a segment, and where they end.
pub(super) fn spans(bytes: &[u8]) -> (Vec<Span>, u64) {
    let (mut spans, mut at) = (Vec::new(), SegmentHeader::SIZE);
    while let Ok(Some(header)) = BatchHeader::parse(&bytes[at..]) {
        let end = at + header.size as usize;
        let (bytes, offsets) = (at as u64..end as u64, header.base_offset..header.next_offset());
        if !header.is_opening() {
            spans.push(Span { bytes, offsets });
        }
        at = end;
    }
    (spans, at as u64)
}

/// Everything of a partition that can be read, and the holes that reading had to step over.
pub(super) fn read_around(partition: &Partition, context: &str) -> (Records, Vec<Range<u64>>) {
    let (mut next, end) = (partition.log_start_offset(), partition.log_end_offset());
    let (mut records, mut holes) = (Records::new(), Vec::new());
    while next < end {
        match partition.read(next, 1 << 20) {
            Ok(batch) => {
                assert!(!batch.is_empty(), "{context}: nothing at {next} of {end}");
                for message in batch.iter() {
                    assert!(message.offset() >= next, "{context}: {} again", message.offset());
                    let mut bytes = format!("{:?} ", message.timestamp()).into_bytes();
                    bytes.extend_from_slice(message.key().unwrap_or_default());
                    bytes.extend_from_slice(message.value().unwrap_or_default());
                    for (name, value) in message.headers() {
                        bytes.extend_from_slice(name.as_bytes());
                        bytes.extend_from_slice(value);
                    }
                    records.insert(message.offset(), bytes);
                    next = message.next_offset();
                }
            }
            Err(Error::Corrupt(damage)) => {
                let hole = damage.offsets.clone().expect("the offsets that are lost");
                assert!(hole.end > next, "{context}: no way around {damage:?} at {next}");
                next = hole.end;
                holes.push(hole);
            }
            Err(other) => panic!("{context}: {other:?}"),
        }
    }
    (records, holes)
}

/// How long each file is.
pub(super) fn sizes(disk: &SimulatedDisk) -> BTreeMap<PathBuf, u64> {
    let size = |path: &Path| disk.open(path, Access::Read).unwrap().len().unwrap();
    disk.paths().into_iter().map(|path| (path.clone(), size(&path))).collect()
}
