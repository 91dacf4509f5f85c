//! A directory of hostile files, opened as the log of a partition.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SALT;
use crate::config::RecoveryPolicy;
use crate::error::Error;
use crate::format::{
    BatchEncoder, Footer, ONE_PASS_CHECKSUMS, Replacement, Rewrite, SegmentHeader, SegmentKey,
    TopicId, fixup, segment_file_name,
};
use crate::log::budget::SpaceBudget;
use crate::log::create::Writer;
use crate::log::cursor::{Cursor, FetchLimits, Fetched};
use crate::log::locate::{self, floor, position_of_offset};
use crate::log::maps::MapBudget;
use crate::log::open::{Known, PartitionRecovery, open_log};
use crate::log::pinned::PinnedMaps;
use crate::log::salvage::{DamagedLog, RecordedEnds};
use crate::log::segment::Segment;
use crate::log::verify::{Findings, verify_segments};
use crate::log::{Checkpoint, Log, LogEnv, LogIdentity, LogOptions, Way};
use crate::message::Batch;
use crate::record::TopicPartition;
use crate::storage::disk::{Access, Disk, MemoryDisk};
use crate::storage::process::Process;
use crate::sync::Mutex;
use crate::trace::Outbox;

const DIR: &str = "/t";
const TOPIC: TopicId = TopicId([7; 16]);
const SEGMENT_BYTES: u64 = 16 << 10;

/// LIMIT: more than any rule of recovery speaks of, and few enough to be quick.
const FILES_MAX: usize = 6;

/// What the first bytes say: how the log is opened, and which checksums are made right.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is one bit of the input")]
struct Setup {
    same_boot: bool,
    clean: bool,
    read_only: bool,
    strict: bool,
    copy_reads: bool,
    stores: bool,
    raw_headers: bool,
    raw_batches: bool,
    raw_footers: bool,
    start: Option<u8>,
    /// End offset, segment, position and last batch in words.
    point: Option<[u8; 4]>,
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

impl Setup {
    fn take(rest: &mut &[u8]) -> Option<Self> {
        let [how, what] = take(rest)?;
        let has = |bits: u8, bit: u32| bits & (1 << bit) != 0;
        let start = if has(how, 6) { Some(take::<1>(rest)?[0]) } else { None };
        let point = if has(how, 7) { Some(take(rest)?) } else { None };
        Some(Self {
            same_boot: has(how, 0),
            clean: has(how, 1),
            read_only: has(how, 2),
            strict: has(how, 3),
            copy_reads: has(how, 4),
            stores: has(how, 5),
            raw_headers: has(what, 0),
            raw_batches: has(what, 1),
            raw_footers: has(what, 2),
            start,
            point,
        })
    }

    fn known(&self) -> Known {
        let checkpoint = self.point.map(|[end, segment, position, last_batch]| Checkpoint {
            log_start: 0,
            end_offset: u64::from(end),
            segment: u64::from(segment),
            position: u32::from(position) * 4,
            last_batch: u32::from(last_batch) * 4,
            times: None,
            producers: Vec::new(),
            ages: None,
            is_of_one_run: false,
        });
        Known {
            checkpoint,
            clean: self.clean,
            same_boot: self.same_boot,
            policy: if self.strict { RecoveryPolicy::Strict } else { RecoveryPolicy::CutTornTail },
            read_only: self.read_only,
            needs_all: false,
            proved: 0,
            log_start: self.start.map(u64::from),
            now: u64::MAX,
        }
    }

    /// The next file: its number, what it rewrites, its length, and that many bytes.
    fn take_file(&self, rest: &mut &[u8]) -> Option<(u64, Vec<u8>)> {
        let [number, rewrite, first, last, low, high] = take(rest)?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (contents, left) = rest.split_at(length);
        *rest = left;
        let number = u64::from(number);
        if self.raw_headers {
            return Some((number, contents.to_vec()));
        }
        let (first, last) = (u64::from(first), u64::from(last));
        let replacement = Replacement {
            base_offset: first.min(last),
            next_offset: last,
            first_number: first.min(number.saturating_sub(1)),
            last_number: last.min(number.saturating_sub(1)),
            is_clean: rewrite & 0x10 != 0,
        };
        let header = SegmentHeader {
            topic_id: TOPIC,
            partition: 0,
            number,
            salt: SALT,
            generation: u32::from(rewrite >> 5),
            rewrite: match rewrite & 3 {
                1 => Some(Rewrite::Truncates(first)),
                2 if number > 0 => Some(Rewrite::Replaces(replacement)),
                _ => None,
            },
            incompatible: if rewrite & 8 == 0 { ONE_PASS_CHECKSUMS } else { 0 },
            compatible: 0,
        };
        let mut bytes = [&header.encode()[..], contents].concat();
        self.fix_up(&mut bytes, &header.key());
        Some((number, bytes))
    }

    fn fix_up(&self, bytes: &mut [u8], key: &SegmentKey) {
        if !self.raw_batches {
            let batches = bytes.get_mut(SegmentHeader::SIZE..).unwrap_or_default();
            fixup::batches(batches, key);
        }
        let trailer = bytes.split_last_chunk().and_then(|(_, trailer)| Footer::length(trailer));
        if let Some(length) = trailer.filter(|_| !self.raw_footers) {
            let start = bytes.len().saturating_sub(length as usize);
            fixup::footer(bytes.get_mut(start..).unwrap_or_default(), SALT);
        }
    }
}

/// Salvages the files; opens them as a log, reads all of it, appends, and opens it again.
///
/// # Panics
///
/// When the salvage misses what can be read, or makes something that is not whole; when an opening
/// that fails or only looks has changed a file, reading does not come to an end, or what was
/// readable before an append, or what was appended, is not there afterwards.
pub fn recovery(data: &[u8]) {
    let mut rest = data;
    let Some(setup) = Setup::take(&mut rest) else { return };
    let disk = Arc::new(MemoryDisk::new());
    let made = make_files(&*disk, setup, rest);
    assert!(made.is_ok(), "{made:?}");
    let before = contents(&*disk);
    let env = env(&disk, setup.copy_reads);
    let salvaged = salvaged(&disk, setup);
    assert!(contents(&*disk) == before, "a salvage has changed its source");
    let opened = open(&env, setup, &setup.known());
    if opened.is_err() || setup.read_only {
        assert!(contents(&*disk) == before, "an opening that changes nothing has");
    }
    let Ok((mut log, _)) = opened else { return };
    assert!(log.log_start() <= log.durable_end() && log.durable_end() <= log.log_end());
    let mut records = read(&log);
    // Where forged batches contradict one another, either may be taken.
    if let Some(salvaged) = salvaged.filter(|_| before.len() == 1 && is_sound(&log)) {
        let missing = records.iter().find(|record| salvaged.binary_search(record).is_err());
        assert_eq!(missing, None, "what can be read is not in the copy");
    }
    if setup.read_only {
        return;
    }
    let offset = log.log_end();
    if !append(&mut log) {
        return;
    }
    records.push((offset, Some(b"new".to_vec())));
    assert!(read(&log) == records, "an append changes what was there, or is not there");
    drop(log);
    let known = Known { checkpoint: None, clean: false, same_boot: true, ..setup.known() };
    let known = Known { policy: RecoveryPolicy::CutTornTail, ..known };
    match open(&env, setup, &known) {
        Ok((log, _)) => {
            let again = read(&log);
            let is_there = again.contains(&(offset, Some(b"new".to_vec())));
            assert!(is_there, "the new record is lost");
        }
        Err(error) => panic!("{error}"),
    }
}

/// Copies what is readable; `None` where a file is said to be of a newer version.
fn salvaged(disk: &MemoryDisk, setup: Setup) -> Option<Records> {
    let known = setup.known();
    let recorded = RecordedEnds::of(known.checkpoint.as_ref(), known.log_start, known.clean);
    let damaged = match DamagedLog::read(disk, &identity(), &recorded) {
        Err(Error::UnsupportedVersion { .. }) => return None,
        Err(error) => panic!("damage is an error: {error}"),
        Ok(damaged) => damaged,
    };
    let copy = Arc::new(MemoryDisk::new());
    assert!(copy.create_dir(Path::new(DIR)).is_ok());
    let env = env(&copy, setup.copy_reads);
    let copied = damaged.copy_to(&env, &identity());
    assert!(copied.is_ok(), "{copied:?}");
    let known = Known {
        checkpoint: None,
        clean: true,
        log_start: Some(damaged.start_offset()),
        policy: RecoveryPolicy::CutTornTail,
        ..setup.known()
    };
    let (log, report) = match open(&env, setup, &known) {
        Ok(opened) => opened,
        Err(error) => panic!("the copy cannot be opened: {error}"),
    };
    assert_eq!((log.log_start(), log.log_end()), (damaged.start_offset(), damaged.end_offset()));
    // No segment spans more: what is missing there remains a gap.
    let has_gap = damaged.end_offset() - damaged.start_offset() > u64::from(u32::MAX) / 2;
    assert!(has_gap || report.corrupt.is_empty(), "the copy is damaged: {report:?}");
    assert!(has_gap || is_sound(&log), "the copy does not verify");
    let records = read(&log);
    let is_lost = |offset: &u64| damaged.lost().iter().any(|lost| lost.contains(offset));
    assert!(!records.iter().any(|(offset, _)| is_lost(offset)), "what is lost is there");
    Some(records)
}

/// Whether a verification finds nothing.
fn is_sound(log: &Log) -> bool {
    let mut findings = Findings::default();
    let lacks_footer = |number| log.backlog().lacks_footer(number);
    let (segments, end) = (log.segments(), log.log_end());
    let verified = verify_segments(segments, &identity(), end, lacks_footer, &mut findings);
    verified.is_ok() && findings.damage.is_empty()
}

fn make_files(disk: &dyn Disk, setup: Setup, mut rest: &[u8]) -> std::io::Result<()> {
    disk.create_dir(Path::new(DIR))?;
    for _ in 0..FILES_MAX {
        let Some((number, bytes)) = setup.take_file(&mut rest) else { return Ok(()) };
        let path = Path::new(DIR).join(segment_file_name(number));
        if disk.kind(&path)?.is_none() {
            disk.create(&path)?.write_at(&bytes, 0)?;
        }
    }
    Ok(())
}

fn contents(disk: &dyn Disk) -> Vec<(String, Vec<u8>)> {
    let entries = disk.list(Path::new(DIR)).unwrap_or_default();
    let read = |name: &str| {
        let file = disk.open(&Path::new(DIR).join(name), Access::Read).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
        file.read_at(&mut bytes, 0).ok()?;
        Some(bytes)
    };
    entries.into_iter().map(|entry| (read(&entry.name), entry.name)).map(flip).collect()
}

fn flip((bytes, name): (Option<Vec<u8>>, String)) -> (String, Vec<u8>) {
    (name, bytes.unwrap_or_default())
}

fn env(disk: &Arc<MemoryDisk>, copy_reads: bool) -> Arc<LogEnv> {
    let random = Mutex::new(1_u64);
    Arc::new(LogEnv {
        disk: Arc::clone(disk) as Arc<dyn Disk>,
        copy_reads,
        maps: MapBudget::new(MapBudget::DEFAULT_LIMIT),
        space: SpaceBudget::unlimited(),
        pinned: PinnedMaps::new(),
        spare: None,
        trace: Outbox::default(),
        #[cfg(feature = "testing")]
        seams: crate::seams::Seams::default(),
        process: Arc::new(Process::current()),
        random: Box::new(move || {
            let mut random = random.lock();
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *random
        }),
    })
}

fn open(
    env: &Arc<LogEnv>,
    setup: Setup,
    known: &Known,
) -> crate::error::Result<(Log, PartitionRecovery)> {
    let writer = if setup.stores { Writer::Stores } else { Writer::Pwrite };
    let options =
        LogOptions { segment_bytes: SEGMENT_BYTES, writer, has_budget: true, features: 0 };
    open_log(env, identity(), options, known)
}

fn identity() -> LogIdentity {
    let origin = Arc::new(TopicPartition::from(("t", 0)));
    LogIdentity { origin, topic_id: TOPIC, dir: PathBuf::from(DIR) }
}

/// One more record; whether there was room for it among the offsets.
fn append(log: &mut Log) -> bool {
    let mut encoder = BatchEncoder::new();
    let headers = std::iter::empty::<(&str, &[u8])>();
    let pushed = encoder.push(1, None, Some(b"new"), headers);
    assert!(pushed.is_ok(), "{pushed:?}");
    match log.append(&mut encoder.finish(), None, Way::AsUsual) {
        Ok(_) => true,
        Err(Error::OffsetExhausted { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

type Records = Vec<(u64, Option<Vec<u8>>)>;

/// All that can be read, around all damage, as a consumer does that seeks past it.
fn read(log: &Log) -> Records {
    let mut records: Records = Vec::new();
    let mut offset = log.log_start();
    while offset < log.log_end() {
        match read_from(log, offset, &mut records) {
            Ok(next) if next > offset => offset = next,
            Err(Error::Corrupt(corruption)) => match corruption.offsets {
                Some(lost) => {
                    assert!(lost.end > offset, "{lost:?} keeps a reader at {offset}");
                    offset = lost.end;
                }
                None => break,
            },
            Ok(_) | Err(_) => break,
        }
    }
    assert!(records.is_sorted_by(|left, right| left.0 < right.0), "offsets rise");
    records
}

fn read_from(log: &Log, offset: u64, records: &mut Records) -> crate::error::Result<u64> {
    let index_of =
        |segment: &Segment| locate::index_of(log, segment).map(|index| floor(index, offset));
    let Some(found) = position_of_offset(log.segments(), offset, index_of)? else {
        return Ok(offset);
    };
    let mut cursor = Cursor::new(found.segment, found.position, offset)?;
    let limits = FetchLimits { records: usize::MAX, bytes: usize::MAX, visible_end: log.log_end() };
    let mut fetched = Fetched::default();
    cursor.fetch(log.segments(), &limits, &mut fetched)?;
    for message in Batch::new(fetched.ranges).iter() {
        let _ = message.timestamp();
        records.push((message.offset(), message.value().map(<[u8]>::to_vec)));
    }
    Ok(cursor.next_offset())
}
