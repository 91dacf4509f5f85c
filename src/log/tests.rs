//! The log as a whole, over all three disks: what is appended can be read, what is synced
//! survives, and nothing that a crash or a hostile file does makes it say something else.
//!
//! Method: every record's value is made from its offset and the run of the log in which it was
//! appended, so any mixing shows; a [`Model`] remembers what was appended and what was synced, and
//! [`Model::check`] compares a log with it. Random tests print their seed on failure.
//!
//! Not covered here: waiting, poisoning and group commit (`partition`), the broker's own order of
//! events (`broker`), real power cuts and kills (`tests/`).
#![expect(
    clippy::cast_possible_truncation,
    reason = "offsets and sizes of tests are small, and random numbers are cut on purpose"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::budget::SpaceBudget;
use super::create::{Prepared, Writer};
use super::cursor::{Cursor, FetchLimits, Fetched};
use super::locate::{floor, index_of, position_of_offset};
use super::maps::MapBudget;
use super::open::{Known, PartitionRecovery, open_log};
use super::producers::Sequence;
use super::retention::Tail;
use super::space::{Growth, Shortening};
use super::tasks::SyncScope;
use super::{Checkpoint, Log, LogEnv, LogIdentity, LogOptions, Outcome, ProducerRequest, Way};
use crate::config::RecoveryPolicy;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{BatchEncoder, TopicId};
use crate::message::Batch;
use crate::random::Random;
use crate::record::TopicPartition;
use crate::storage::disk::{Disk, Fault, MemoryDisk, Operation, PowerCut, RealDisk, SimulatedDisk};
use crate::sync::Mutex;

#[cfg(target_os = "linux")]
mod ahead;
mod append;
mod compaction;
mod crash;
mod cut;
mod death;
#[cfg(target_os = "linux")]
mod footers;
mod hostile;
mod maps;
#[cfg(loom)]
mod models;
mod power;
mod reopen;
#[cfg(feature = "replication")]
mod replica;
mod sync;
mod torn;
mod verify;

/// Scales the random loops and the exhaustive ones: 1 for every run of the tests, 100 for a night.
fn effort() -> u64 {
    let asked = std::env::var("LOGPOND_EFFORT").ok().and_then(|effort| effort.parse().ok());
    asked.unwrap_or(1)
}

const SEGMENT_BYTES: u64 = 16 << 10;

/// A value that says where it belongs.
fn value(run: u64, offset: u64, size: usize) -> Vec<u8> {
    let mut random = Random::new(offset.wrapping_mul(1_000_003) ^ run.rotate_left(40));
    let mut bytes: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
    let head = offset.to_le_bytes();
    let count = head.len().min(size);
    bytes[..count].copy_from_slice(&head[..count]);
    bytes
}

/// A partition on some disk.
#[derive(Debug, Clone)]
struct Rig {
    env: Arc<LogEnv>,
    identity: LogIdentity,
    options: LogOptions,
}

impl Rig {
    fn new(disk: Arc<dyn Disk>, dir: &Path, seed: u64) -> Self {
        let random = Mutex::new(Random::new(seed ^ 0xABCD));
        let env = LogEnv {
            disk,
            copy_reads: false,
            maps: MapBudget::new(MapBudget::DEFAULT_LIMIT),
            space: SpaceBudget::unlimited(),
            pinned: crate::log::pinned::PinnedMaps::new(),
            spare: None,
            process: Arc::new(crate::storage::process::Process::current()),
            trace: crate::trace::Outbox::default(),
            #[cfg(feature = "testing")]
            seams: crate::seams::Seams::default(),
            random: Box::new(move || random.lock().next()),
        };
        let identity = LogIdentity {
            origin: Arc::new(TopicPartition::from(("t", 3))),
            topic_id: TopicId([7; 16]),
            dir: dir.to_path_buf(),
        };
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            writer: Writer::Pwrite,
            has_budget: true,
            features: 0,
        };
        Self { env: Arc::new(env), identity, options }
    }

    fn simulated(disk: &SimulatedDisk, seed: u64) -> Self {
        Self::new(Arc::new(disk.clone()), Path::new("/t"), seed)
    }

    /// A rig on a fresh simulated disk whose directory is durable.
    fn fresh(seed: u64) -> (SimulatedDisk, Self) {
        let disk = SimulatedDisk::with_seed(seed);
        disk.create_dir(Path::new("/t")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let rig = Self::simulated(&disk, seed);
        (disk, rig)
    }

    fn memory() -> Self {
        let disk = MemoryDisk::new();
        disk.create_dir(Path::new("/t")).unwrap();
        Self::new(Arc::new(disk), Path::new("/t"), 1)
    }

    fn real(dir: &tempfile::TempDir) -> Self {
        Self::new(Arc::new(RealDisk::new()), dir.path(), 1)
    }

    fn env(&mut self) -> &mut LogEnv {
        Arc::get_mut(&mut self.env).expect("no log is open")
    }

    fn create(&self) -> Log {
        Log::create(&self.env, self.identity.clone(), self.options, 0).unwrap()
    }

    fn open(&self, known: &Known) -> Result<(Log, PartitionRecovery)> {
        open_log(&self.env, self.identity.clone(), self.options, known)
    }
}

/// Every disk with every writer that production code may use on it.
fn every_rig(test: impl Fn(&str, Rig)) {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let copied = |mut rig: Rig| {
        rig.env().copy_reads = true;
        rig
    };
    let stored = |mut rig: Rig| {
        rig.options.writer = Writer::Stores;
        rig
    };
    test("real, pwrite", Rig::real(&dirs[0]));
    test("real, copied", copied(Rig::real(&dirs[1])));
    if cfg!(target_os = "linux") {
        test("real, stores", stored(Rig::real(&dirs[2])));
    }
    test("memory, stores", stored(Rig::memory()));
    test("memory, pwrite", Rig::memory());
    test("memory, copied", copied(Rig::memory()));
    test("simulated, pwrite", Rig::fresh(1).1);
    test("simulated, copied", copied(Rig::fresh(1).1));
}

/// After a crash of the process: nothing is known, and the page cache is still there.
const AFTER_KILL: Known = Known {
    checkpoint: None,
    clean: false,
    same_boot: true,
    policy: RecoveryPolicy::CutTornTail,
    read_only: false,
    needs_all: false,
    log_start: None,
    proved: 0,
    now: u64::MAX,
};

/// After a crash of the machine.
const AFTER_CUT: Known = Known { same_boot: false, ..AFTER_KILL };

fn known(checkpoint: Option<Checkpoint>, clean: bool) -> Known {
    Known { checkpoint, clean, ..AFTER_KILL }
}

/// Appends a batch of records with these values.
fn append_values(
    log: &mut Log,
    values: &[Vec<u8>],
    producer: Option<&ProducerRequest>,
) -> Result<Outcome> {
    log.append(&mut encoder_of(log, values)?.finish(), producer, Way::AsUsual)
}

fn encoder_of(log: &Log, values: &[Vec<u8>]) -> Result<BatchEncoder> {
    let mut encoder = BatchEncoder::new();
    for value in values {
        let headers = std::iter::empty::<(&str, &[u8])>();
        encoder.push(1_000 + log.log_end(), None, Some(value), headers)?;
    }
    Ok(encoder)
}

/// Appends records of this size at the end of the log, in one batch.
fn append(log: &mut Log, count: u64, size: usize) {
    append_by(log, count, size, Way::AsUsual);
}

fn append_by(log: &mut Log, count: u64, size: usize, way: Way) {
    let base = log.log_end();
    let values: Vec<_> = (base..base + count).map(|offset| value(0, offset, size)).collect();
    let next_offset = base + count;
    let outcome = log.append(&mut encoder_of(log, &values).unwrap().finish(), None, way).unwrap();
    assert_eq!(outcome, Outcome::Appended { base_offset: base, next_offset });
}

fn sync(log: &mut Log) -> Result<()> {
    let task = log.begin_sync(SyncScope::All);
    task.run()?;
    log.finish_sync(&task);
    Ok(())
}

/// Writes all footers that can be written.
fn finish_segments(log: &mut Log) -> Result<()> {
    while let Some(mut task) = log.backlog().begin_footer(None) {
        task.run()?;
        log.backlog_mut().finish_footer(&task);
    }
    Ok(())
}

/// Takes a segment that was made ahead, or discards it.
fn finish_prepare(log: &mut Log, prepared: Prepared) {
    if let Some(late) = log.appender_mut().finish_prepare(prepared) {
        late.discard(&*log.env().disk);
    }
}

/// What the background does for space.
fn make_space(log: &mut Log) -> Result<()> {
    if let Some(growth) = log.appender().growth_needed() {
        growth.run().map_err(|source| Error::io("grow", Path::new("/t"), source))?;
    }
    if log.appender().wants_next() {
        let prepared = log.factory_mut().begin_prepare()?.run()?;
        finish_prepare(log, prepared);
    }
    Ok(())
}

/// What a clean close does with the space ahead.
fn end_space(log: &mut Log) -> Result<()> {
    let done = log.appender_mut().end_space().map_or(Ok(()), Shortening::run);
    done.map_err(|source| Error::io("shorten", Path::new("/t"), source))
}

fn limits(log: &Log, records: usize, bytes: usize) -> FetchLimits {
    FetchLimits { records, bytes, visible_end: log.log_end() }
}

fn cursor_at(log: &Log, offset: u64) -> Result<Cursor> {
    let index_of = |segment: &super::segment::Segment| {
        index_of(log, segment).map(|index| floor(index, offset))
    };
    let found = position_of_offset(log.segments(), offset, index_of)?.expect("a log has a segment");
    if found.segment.base_offset > offset {
        return Err(found.segment.missing_before(offset).into());
    }
    Cursor::new(found.segment, found.position, offset)
}

type Records = Vec<(u64, Vec<u8>)>;

/// One fetch.
fn fetch(log: &Log, cursor: &mut Cursor, limits: &FetchLimits) -> Result<Records> {
    let mut fetched = Fetched::default();
    cursor.fetch(log.segments(), limits, &mut fetched)?;
    let batch = Batch::new(fetched.ranges);
    assert_eq!(batch.len(), fetched.records);
    let borrowed: Records =
        batch.iter().map(|m| (m.offset(), m.value().unwrap().to_vec())).collect();
    assert_eq!(borrowed.len(), batch.len());
    let owned: Records =
        batch.into_iter().map(|m| (m.offset(), m.value().unwrap().to_vec())).collect();
    assert_eq!(borrowed, owned);
    Ok(borrowed)
}

/// All records from `offset` on.
fn read_from(log: &Log, offset: u64, step: usize) -> Result<Records> {
    let mut cursor = cursor_at(log, offset)?;
    let mut records = Vec::new();
    loop {
        let some = fetch(log, &mut cursor, &limits(log, step, usize::MAX))?;
        if some.is_empty() {
            return Ok(records);
        }
        records.extend(some);
    }
}

/// All records that can be read, and all damage on the way.
fn read_around(log: &Log) -> (Records, Vec<Corruption>) {
    let (mut records, mut damage) = (Vec::new(), Vec::new());
    let mut offset = log.log_start();
    let mut cursor = None;
    while offset < log.log_end() {
        let limits = limits(log, usize::MAX, usize::MAX);
        let next = match &mut cursor {
            Some(cursor) => fetch(log, cursor, &limits),
            None => cursor_at(log, offset).and_then(|new| fetch(log, cursor.insert(new), &limits)),
        };
        match next {
            Ok(some) => {
                assert!(!some.is_empty(), "nothing at {offset} of {}", log.log_end());
                offset = some.last().unwrap().0 + 1;
                records.extend(some);
            }
            Err(Error::Corrupt(corruption)) => {
                let lost = corruption.offsets.clone().expect("a reader must be able to continue");
                assert!(lost.end > offset, "{corruption:?} at {offset}");
                offset = lost.end;
                // As a consumer that seeks past the damage.
                cursor = None;
                damage.push(corruption);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    (records, damage)
}

/// The records of [`append`], from `range`.
fn plain(range: std::ops::Range<u64>, size: usize) -> Records {
    range.map(|offset| (offset, value(0, offset, size))).collect()
}

/// Appends records of this size until there are so many segments.
fn fill_segments(log: &mut Log, count: usize, size: usize) {
    while segment_count(log) < count {
        append(log, 1, size);
    }
}

fn segment_count(log: &Log) -> usize {
    log.segments().count()
}

/// The files of the partition on a simulated disk, segments only, in order.
fn files(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
    disk.paths().into_iter().filter(is_segment).collect()
}

/// What was appended to a log, and how much of it must survive.
#[derive(Debug, Clone, Default)]
struct Model {
    /// The end offset of each batch.
    ends: Vec<u64>,
    values: Vec<Vec<u8>>,
    durable: u64,
}

impl Model {
    fn append(&mut self, log: &mut Log, run: u64, count: u64, size: usize) -> Result<()> {
        let base = self.values.len() as u64;
        assert_eq!(base, log.log_end());
        let values: Vec<_> = (base..base + count).map(|offset| value(run, offset, size)).collect();
        // Noted first: an append that fails at a crash may be there all the same.
        self.values.extend(values.iter().cloned());
        self.ends.push(base + count);
        let appended = append_values(log, &values, None);
        if matches!(&appended, Err(Error::StorageFull { .. } | Error::RecordTooLarge { .. })) {
            self.values.truncate(base as usize);
            self.ends.pop();
        }
        appended.map(|_| ())
    }

    fn sync(&mut self, log: &mut Log) -> Result<()> {
        sync(log)?;
        self.durable = log.log_end();
        Ok(())
    }

    /// Checks that a recovered log is a prefix, by whole batches, of what was appended, with all
    /// that was durable; from then on that prefix is what was appended.
    fn check(&mut self, log: &Log, report: &PartitionRecovery, context: &str) {
        assert!(report.corrupt.is_empty(), "{context}: {report:?}");
        let end = log.log_end();
        assert!(end >= self.durable, "{context}: {end} of {} durable", self.durable);
        let whole = end == 0 || self.ends.contains(&end);
        assert!(whole, "{context}: {end} is not the end of a batch: {:?}", self.ends);
        let records = read_from(log, 0, usize::MAX).unwrap_or_else(|e| panic!("{context}: {e:?}"));
        assert_eq!(records.len() as u64, end, "{context}");
        for (offset, found) in records {
            assert!(found == self.values[offset as usize], "{context}: other bytes at {offset}");
        }
        self.values.truncate(end as usize);
        self.ends.retain(|batch| *batch <= end);
    }
}
