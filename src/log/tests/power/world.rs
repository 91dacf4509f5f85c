//! A log at work on a disk that is recorded, and what must be there after a cut.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::rc::Rc;

use super::super::compaction::{Shared, TERMS};
use super::*;
use crate::log::batch_bytes_max;

/// What can be done to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Small,
    /// One record of more than a page.
    Pages,
    /// One batch that ends where the segment does.
    Fill,
    Sync,
    Roll,
    Footers,
    Space,
    Compact,
    /// Moves the log start into the middle.
    Retain,
    /// A clean end, and the next run.
    Close,
    /// The process dies; the next run.
    Kill,
    /// Stores two batches that a leader has sent, the second one of a new epoch.
    #[cfg(feature = "replication")]
    Receive,
    /// Cuts off the last third of what there is.
    #[cfg(feature = "replication")]
    Cut,
    /// Begins anew at an offset above the end.
    #[cfg(feature = "replication")]
    Anew,
}

impl Op {
    pub(super) const ALL: &'static [(Self, &'static str)] = &[
        (Self::Small, "small"),
        (Self::Pages, "pages"),
        (Self::Fill, "fill"),
        (Self::Sync, "sync"),
        (Self::Roll, "roll"),
        (Self::Footers, "footers"),
        (Self::Space, "space"),
        (Self::Compact, "compact"),
        (Self::Retain, "retain"),
        (Self::Close, "close"),
        (Self::Kill, "kill"),
        #[cfg(feature = "replication")]
        (Self::Receive, "receive"),
        #[cfg(feature = "replication")]
        (Self::Cut, "cut"),
        #[cfg(feature = "replication")]
        (Self::Anew, "anew"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).unwrap().1
    }

    /// Whether it takes back nothing that was published: what was truncated comes back if the disk
    /// lied about that.
    pub(super) fn is_append_only(self) -> bool {
        match self {
            #[cfg(feature = "replication")]
            Self::Cut | Self::Anew => false,
            _ => true,
        }
    }

    pub(super) fn named(name: &str) -> Self {
        Self::ALL.iter().find(|(_, its)| *its == name).unwrap_or_else(|| panic!("{name}?")).0
    }
}

const SMALL_BYTES: usize = 20;
const PAGES_BYTES: usize = 5_000;

#[derive(Debug)]
struct Record {
    key: &'static str,
    value: Vec<u8>,
}

/// What was attempted and what was acknowledged.
#[derive(Debug, Clone, Default)]
pub(super) struct Oracle {
    records: Vec<Rc<Record>>,
    /// The end offset of each batch that was attempted.
    ends: Vec<u64>,
    /// Where the batches end of which the append has returned, and those of which a sync has.
    published: u64,
    pub(super) durable: u64,
    /// The log start offset, which is stored elsewhere before anything is removed.
    start: u64,
    /// A recovery point, which is stored elsewhere and can be lost.
    point: Option<Checkpoint>,
    /// Whether a compaction was begun, and what those that came to their end have removed.
    compacts: bool,
    gone: BTreeSet<u64>,
    /// While the log is cut: where it ended, and where it will.
    #[cfg(feature = "replication")]
    cut: Option<(u64, u64)>,
}

/// Since the store point, what must be there.
pub(super) type Trace = Vec<(u64, Oracle)>;

impl Oracle {
    pub(super) fn known(&self, with_point: bool, how: &Known) -> Known {
        let checkpoint = self.point.clone().filter(|_| with_point);
        Known { checkpoint, log_start: Some(self.start), ..how.clone() }
    }

    /// Holds a recovered log against what must be there: the contract, sentence by sentence. Fails
    /// where the disk does.
    pub(super) fn check(
        &self,
        log: &Log,
        report: &PartitionRecovery,
        floor: u64,
        case: &dyn Display,
    ) -> Result<()> {
        assert!(report.corrupt.is_empty(), "{case}: {report:?}");
        let (start, end) = (log.log_start(), log.log_end());
        assert_eq!(start, self.start, "{case}: the log start");
        assert!(start <= log.durable_end() && log.durable_end() <= end, "{case}: {log:?}");
        // A prefix, batch by batch, with all that was acknowledged; at most one batch more than
        // was published.
        assert!(end >= floor, "{case}: {end} of {floor} acknowledged");
        let is_whole = end == 0 || end == start || self.ends.contains(&end);
        assert!(is_whole, "{case}: {end} is not the end of a batch: {:?}", self.ends);
        #[cfg(feature = "replication")]
        if let Some((before, after)) = self.cut {
            assert!(end == before || end == after, "{case}: {end} of {before} or {after}");
        }
        let extra = self.ends.iter().filter(|it| **it > self.published && **it <= end).count();
        // What is received is more than one batch.
        let most = if cfg!(feature = "replication") { 2 } else { 1 };
        assert!(extra <= most, "{case}: {end} of {} published", self.published);
        // Dense, in order, byte by byte; of a compacted log each key's latest.
        let mut expected = start;
        self.each_found(log, case, |offset| {
            self.must_be_removed(expected..offset, end, case);
            assert!(!self.gone.contains(&offset), "{case}: {offset} has come back");
            expected = offset + 1;
        })?;
        self.must_be_removed(expected..end, end, case);
        Ok(())
    }

    /// Reads all, and compares each record with what was appended.
    fn each_found(&self, log: &Log, case: &dyn Display, mut found: impl FnMut(u64)) -> Result<()> {
        if log.log_start() == log.log_end() {
            return Ok(());
        }
        let mut cursor = cursor_at(log, log.log_start())?;
        let limits = limits(log, usize::MAX, usize::MAX);
        loop {
            let mut fetched = Fetched::default();
            cursor.fetch(log.segments(), &limits, &mut fetched)?;
            if fetched.records == 0 {
                assert_eq!(cursor.next_offset(), log.log_end(), "{case}");
                return Ok(());
            }
            for message in Batch::new(fetched.ranges).iter() {
                let record = &self.records[message.offset() as usize];
                let is_same = message.value() == Some(record.value.as_slice())
                    && message.key() == Some(record.key.as_bytes());
                assert!(is_same, "{case}: other bytes at {}", message.offset());
                found(message.offset());
            }
        }
    }

    /// Whatever can be read is what was appended, around whatever cannot.
    pub(super) fn check_bytes(&self, log: &Log, case: &dyn Display) {
        let (found, _) = read_around(log);
        for (offset, value) in found {
            let record = self.records.get(offset as usize);
            let is_same = record.is_some_and(|record| record.value == value);
            assert!(is_same, "{case}: other bytes at {offset}");
        }
    }

    /// Only compaction makes gaps, and only where a later record has the key.
    fn must_be_removed(&self, offsets: std::ops::Range<u64>, end: u64, case: &dyn Display) {
        for offset in offsets {
            let of = |offset: u64| self.records[offset as usize].key;
            let is_superseded = (offset + 1..end).any(|later| of(later) == of(offset));
            assert!(self.compacts && is_superseded, "{case}: {offset} of {end} is missing");
        }
    }

    /// Continues with what a check has found.
    pub(super) fn proceed(&mut self, log: &Log) {
        let end = log.log_end();
        #[cfg(feature = "replication")]
        {
            self.cut = None;
        }
        self.records.truncate(end as usize);
        self.ends.retain(|batch| *batch <= end);
        self.published = end;
        self.durable = self.durable.max(log.durable_end());
        self.point = None;
    }
}

/// A log on its disk.
pub(super) struct World {
    pub(super) disk: SimulatedDisk,
    rig: Rig,
    log: Option<Log>,
    pub(super) oracle: Oracle,
    pub(super) trace: Trace,
    run: u64,
    pub(super) case: String,
}

impl World {
    pub(super) fn new(seed: u64, case: &str) -> Self {
        let (disk, rig) = Rig::fresh(seed);
        let log = Some(rig.create());
        let (oracle, trace) = (Oracle::default(), Trace::new());
        let mut world = Self { disk, rig, log, oracle, trace, run: 0, case: case.to_owned() };
        world.note();
        world
    }

    /// What was recovered, for the rest of the walk.
    pub(super) fn recovered(
        (disk, rig, log): (SimulatedDisk, Rig, Log),
        oracle: Oracle,
        run: u64,
        case: String,
    ) -> Self {
        let mut world = Self { disk, rig, log: Some(log), oracle, trace: Trace::new(), run, case };
        world.note();
        world
    }

    fn note(&mut self) {
        if let Some(log) = &self.log {
            // What the engine calls durable is held against it.
            self.oracle.durable = self.oracle.durable.max(log.durable_end());
        }
        self.trace.push((self.disk.store_points(), self.oracle.clone()));
    }

    /// What must be there at a store point.
    pub(super) fn oracle_at(&self, point: u64) -> &Oracle {
        let known = self.trace.partition_point(|(since, _)| *since <= point);
        &self.trace[known - 1].1
    }

    /// Does it all; false if the power went off meanwhile.
    pub(super) fn run(&mut self, ops: &[Op]) -> bool {
        for op in ops {
            if let Err(error) = self.step(*op) {
                assert!(self.disk.is_off(), "{}: {op:?}: {error:?}", self.case);
                return false;
            }
            self.note();
        }
        true
    }

    fn step(&mut self, op: Op) -> Result<()> {
        let log = self.log.as_mut().unwrap();
        match op {
            Op::Small => self.append("k", SMALL_BYTES),
            Op::Pages => self.append("p", PAGES_BYTES),
            Op::Fill => {
                let size = filling_size(log);
                self.append("k", size)
            }
            Op::Sync => self.sync(),
            Op::Roll => log.roll_for(0),
            Op::Footers => finish_segments(log),
            Op::Space => make_space(log),
            Op::Compact => self.compact(),
            Op::Retain => self.retain(),
            Op::Close => {
                end_space(log)?;
                self.sync()?;
                self.reopen(true)
            }
            Op::Kill => self.reopen(false),
            #[cfg(feature = "replication")]
            Op::Receive => self.receive(),
            #[cfg(feature = "replication")]
            Op::Cut => self.cut(),
            #[cfg(feature = "replication")]
            Op::Anew => self.begin_anew(),
        }
    }

    fn append(&mut self, key: &'static str, size: usize) -> Result<()> {
        let log = self.log.as_mut().unwrap();
        let base = log.log_end();
        assert_eq!(base, self.oracle.records.len() as u64, "{}", self.case);
        let record = Record { key, value: value(self.run, base, size) };
        let mut encoder = BatchEncoder::new();
        push(&mut encoder, &record)?;
        // Noted first: an append that does not come to its end may be there all the same.
        self.oracle.records.push(Rc::new(record));
        self.oracle.ends.push(base + 1);
        self.trace.push((self.disk.store_points(), self.oracle.clone()));
        log.append(&mut encoder.finish(), None, Way::AsUsual)?;
        self.oracle.published = base + 1;
        Ok(())
    }

    #[cfg(feature = "replication")]
    fn receive(&mut self) -> Result<()> {
        use crate::format::{Placement, SegmentKey};
        use crate::log::replica::under::Under;
        let under = Under { salt: 0x1EAD, features: 0 };
        let key = &SegmentKey::new(under.salt, under.features);
        let log = self.log.as_mut().unwrap();
        let epoch = super::super::replica::try_last_epoch(log)?.unwrap_or(0);
        let mut bytes = Vec::new();
        for leader_epoch in [epoch, epoch + 1] {
            let base_offset = self.oracle.records.len() as u64;
            let record = Record { key: "r", value: value(self.run, base_offset, SMALL_BYTES) };
            let mut encoder = BatchEncoder::new();
            push(&mut encoder, &record)?;
            let (durable_end, producer) = (0, None);
            let placement = Placement { base_offset, leader_epoch, durable_end, key, producer };
            bytes.extend_from_slice(encoder.finish().seal(&placement));
            self.oracle.records.push(Rc::new(record));
            self.oracle.ends.push(base_offset + 1);
        }
        self.trace.push((self.disk.store_points(), self.oracle.clone()));
        let stored = super::super::replica::try_store(log, &bytes, under);
        self.oracle.published = log.log_end();
        stored
    }

    /// Where a log may be cut: not below what was compacted, which is what every member has.
    #[cfg(feature = "replication")]
    fn cut(&mut self) -> Result<()> {
        self.sync()?;
        let log = self.log.as_ref().unwrap();
        let (start, end) = (log.log_start(), log.log_end());
        let segments = log.segments().all();
        let compacted = segments.iter().filter(|segment| segment.ranks.1 < segment.number);
        let bound = compacted.filter_map(|segment| segment.next_offset()).max().unwrap_or(0);
        let bound = bound.max(start).max(end - (end - start).div_ceil(3));
        let ends = self.oracle.ends.iter().copied();
        let to = ends.filter(|it| (bound..=end).contains(it)).min().unwrap_or(end);
        self.oracle.durable = to;
        self.begin_cut(end, to);
        let log = self.log.as_mut().unwrap();
        // The recovery point stays as it is: it was stored before.
        super::super::replica::truncate(log, to, bound).map_err(failed)?;
        self.end_cut(to);
        Ok(())
    }

    #[cfg(feature = "replication")]
    fn begin_anew(&mut self) -> Result<()> {
        self.sync()?;
        let log = self.log.as_ref().unwrap();
        let (start, end) = (log.log_start(), log.log_end());
        // Above the end as a rule; within for the repair of damage.
        let to = if (end - start) % 2 == 0 { end + 3 } else { start + (end - start) / 2 };
        while (self.oracle.records.len() as u64) < to {
            self.oracle.records.push(Rc::new(Record { key: "never", value: Vec::new() }));
        }
        self.oracle.start = to;
        self.oracle.durable = to;
        self.oracle.published = self.oracle.published.max(to);
        self.begin_cut(end.max(to), to);
        let log = self.log.as_mut().unwrap();
        super::super::replica::begin_anew(log, to).map_err(failed)?;
        self.end_cut(to);
        Ok(())
    }

    #[cfg(feature = "replication")]
    fn begin_cut(&mut self, before: u64, after: u64) {
        self.oracle.cut = Some((before, after));
        self.trace.push((self.disk.store_points(), self.oracle.clone()));
    }

    /// What is appended from here on differs from what was cut off.
    #[cfg(feature = "replication")]
    fn end_cut(&mut self, end: u64) {
        let oracle = &mut self.oracle;
        oracle.records.truncate(end as usize);
        oracle.ends.retain(|batch| *batch <= end);
        oracle.gone.retain(|offset| *offset < end);
        (oracle.durable, oracle.published, oracle.cut) = (end, end, None);
        self.run += 1_000;
    }

    fn sync(&mut self) -> Result<()> {
        let log = self.log.as_mut().unwrap();
        sync(log)?;
        self.oracle.durable = log.log_end();
        self.oracle.point = log.checkpoint();
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        self.oracle.compacts = true;
        self.note();
        let shared = Shared::new(self.log.take().unwrap());
        let done = shared.compact(TERMS);
        let log = self.log.insert(shared.0.into_inner());
        done?;
        let mut gone: BTreeSet<u64> = (log.log_start()..log.log_end()).collect();
        self.oracle.each_found(log, &self.case, |offset| {
            gone.remove(&offset);
        })?;
        self.oracle.gone.extend(gone);
        Ok(())
    }

    fn retain(&mut self) -> Result<()> {
        self.sync()?;
        let log = self.log.as_mut().unwrap();
        let start = log.log_start() + (log.log_end() - log.log_start()).div_ceil(2);
        self.oracle.start = start;
        self.note();
        let log = self.log.as_mut().unwrap();
        let removed = log.retire(start, usize::MAX);
        for segment in &removed {
            let failed = |source| Error::io("remove", &segment.path, source);
            segment.remove_file().map_err(failed)?;
        }
        removed.last().map_or(Ok(()), |segment| segment.sync_dir())
    }

    fn reopen(&mut self, is_clean: bool) -> Result<()> {
        drop(self.log.take());
        let known = Known { clean: is_clean, ..self.oracle.known(is_clean, &AFTER_KILL) };
        let (log, report) = self.rig.open(&known)?;
        self.oracle.check(&log, &report, self.oracle.published, &self.case)?;
        assert_eq!(log.log_end(), self.oracle.published, "{}", self.case);
        // What an earlier cut has left may be reported again, but not after a clean end.
        assert!(!is_clean || report.cut_bytes == 0, "{}: {report:?}", self.case);
        self.log = Some(log);
        self.run += 1;
        Ok(())
    }
}

#[cfg(feature = "replication")]
fn failed(failure: crate::log::replica::refusal::Failure) -> Error {
    match failure {
        crate::log::replica::refusal::Failure::Failed(error) => error,
        refused @ crate::log::replica::refusal::Failure::Refused(_) => panic!("{refused:?}"),
    }
}

fn push(encoder: &mut BatchEncoder, record: &Record) -> Result<()> {
    let headers = std::iter::empty::<(&str, &[u8])>();
    encoder.push(1_000, Some(record.key.as_bytes()), Some(&record.value), headers)?;
    Ok(())
}

/// The size of a value whose batch ends where the segment does; the next one where this has no
/// room for a batch.
fn filling_size(log: &Log) -> usize {
    const LEAST: usize = 200;
    let left = log.appender().active().map_or(0, |active| active.capacity() - active.position());
    let room = if left < LEAST { batch_bytes_max(SEGMENT_BYTES) as usize } else { left };
    let size_with = |bytes: usize| {
        let mut encoder = BatchEncoder::new();
        push(&mut encoder, &Record { key: "k", value: vec![0; bytes] }).unwrap();
        encoder.finish().size(false) as usize
    };
    let mut bytes = room - LEAST / 2;
    bytes += room - size_with(bytes);
    while size_with(bytes) > room {
        bytes -= 1;
    }
    assert_eq!(size_with(bytes), room);
    bytes
}

#[test]
fn a_filling_batch_ends_where_the_segment_does() {
    let mut world = World::new(1, "fill");
    for ops in [&[Op::Fill][..], &[Op::Small, Op::Fill], &[Op::Roll, Op::Pages, Op::Fill]] {
        assert!(world.run(ops));
        let active = world.log.as_ref().unwrap().appender().active().unwrap();
        assert_eq!(active.position(), active.capacity(), "{ops:?}");
    }
}
