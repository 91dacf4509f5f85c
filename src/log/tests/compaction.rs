//! Compaction of a log on a disk that loses power: at every store point of it, by every step.
//!
//! The oracle knows every record that was appended, which of them must be readable (the latest of
//! each key), which may be (tombstones within their time), and which must never be again (what a
//! compaction that came to its end has removed).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::format::{BatchView, Footer, SegmentHeader};
use crate::log::compaction::Tally;
use crate::log::compaction::candidates::Candidates;
use crate::log::compaction::run::{Compaction, LogAccess, Progress, Terms};
use crate::log::segment::Segment;

mod readers;
mod run;

/// How long a tombstone is kept, in milliseconds.
const TOMBSTONES_KEPT: u64 = 1_000;

pub(super) const TERMS: Terms = Terms {
    key_memory_bytes: 1 << 20,
    segment_bytes: SEGMENT_BYTES,
    now: 5_000,
    horizon: 5_000 + TOMBSTONES_KEPT,
    limit: u64::MAX,
};

fn terms_at(now: u64) -> Terms {
    Terms { now, horizon: now + TOMBSTONES_KEPT, ..TERMS }
}

/// A log that is reached as the partition above reaches it.
pub(super) struct Shared(pub(super) RefCell<Log>);

impl LogAccess for Shared {
    fn with_log<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        change(&mut self.0.borrow_mut())
    }

    fn remove_files(&self, segments: Vec<Arc<Segment>>) {
        for segment in segments {
            // A crash, or a refusal: what stays is void.
            let _ = segment.remove_file();
        }
    }
}

impl Shared {
    pub(super) fn new(log: Log) -> Self {
        Self(RefCell::new(log))
    }

    pub(super) fn compact(&self, terms: Terms) -> Result<Tally> {
        self.compact_with(terms, |_| ())
    }

    /// Compacts, and calls `between` after each step.
    fn compact_with(&self, terms: Terms, mut between: impl FnMut(&Log)) -> Result<Tally> {
        let compaction = Compaction::begin(&self.0.borrow(), terms);
        let Some(mut compaction) = compaction else { return Ok(Tally::default()) };
        loop {
            let progress = compaction.step(self)?;
            between(&self.0.borrow());
            if progress != Progress::More {
                return Ok(compaction.tally());
            }
        }
    }
}

type Entry = (Vec<u8>, Option<Vec<u8>>);

/// Appends records with keys as one batch, at the time of their offsets.
fn append_entries(
    log: &mut Log,
    entries: &[Entry],
    producer: Option<&ProducerRequest>,
) -> Result<Outcome> {
    let mut encoder = BatchEncoder::new();
    for ((key, value), offset) in entries.iter().zip(log.log_end()..) {
        let headers = [("offset", b"x".as_slice())];
        let time = time_of(offset);
        encoder.push(time, Some(key), value.as_deref(), headers.into_iter())?;
    }
    log.append(&mut encoder.finish(), producer, Way::AsUsual)
}

/// Not in the order of offsets.
fn time_of(offset: u64) -> u64 {
    1_000 + (offset ^ 5)
}

fn entry(key: &str, value: &str) -> Entry {
    (key.into(), Some(value.into()))
}

fn tombstone(key: &str) -> Entry {
    (key.into(), None)
}

type Found = BTreeMap<u64, Entry>;

/// Everything that can be read, by offset; what stands in messages is checked on the way.
fn read_entries(log: &Log, from: u64, step: usize) -> Result<Found> {
    let mut cursor = cursor_at(log, from)?;
    let mut found = Found::new();
    loop {
        let mut fetched = Fetched::default();
        cursor.fetch(log.segments(), &limits(log, step, usize::MAX), &mut fetched)?;
        if fetched.records == 0 {
            assert_eq!(cursor.next_offset(), log.log_end(), "it must not be asked for ever");
            return Ok(found);
        }
        for message in Batch::new(fetched.ranges) {
            let last = found.last_key_value().map(|(offset, _)| *offset);
            assert!(last.is_none_or(|last| last < message.offset()), "order");
            assert_eq!(message.timestamp(), crate::clock::from_millis(time_of(message.offset())));
            assert_eq!(message.headers().get("offset"), Some(b"x".as_slice()));
            let entry = (message.key().unwrap().to_vec(), message.value().map(<[u8]>::to_vec));
            found.insert(message.offset(), entry);
        }
    }
}

fn finish_all(log: &mut Log) {
    sync(log).unwrap();
    finish_segments(log).unwrap();
}

/// A log with each entry list in a segment of its own, all finished, and an empty active segment.
fn log_of(rig: &Rig, segments: &[&[Entry]]) -> Shared {
    let mut log = rig.create();
    for entries in segments {
        for entry in *entries {
            append_entries(&mut log, std::slice::from_ref(entry), None).unwrap();
        }
        log.roll_for(0).unwrap();
    }
    finish_all(&mut log);
    Shared::new(log)
}

fn offsets(found: &Found) -> Vec<u64> {
    found.keys().copied().collect()
}

#[test]
fn the_latest_record_of_each_key_stays_with_its_offset() {
    every_rig(|name, rig| {
        let first = [entry("a", "1"), entry("b", "1"), entry("a", "2")];
        let second = [entry("a", "3"), entry("c", "1")];
        let log = log_of(&rig, &[&first, &second]);
        append_entries(&mut log.0.borrow_mut(), &[entry("b", "active")], None).unwrap();
        let tally = log.compact(TERMS).unwrap();
        assert_eq!((tally.records_kept, tally.records_removed), (3, 2), "{name}");
        assert_eq!((tally.segments_read, tally.segments_written), (2, 1), "{name}");
        assert_eq!(tally.passes, 1, "{name}");
        // The active segment takes no part: the earlier value of b stays.
        for step in [1, 2, usize::MAX] {
            let found = read_entries(&log.0.borrow(), 0, step).unwrap();
            assert_eq!(offsets(&found), [1, 3, 4, 5], "{name}");
            assert_eq!(found[&3], entry("a", "3"), "{name}");
        }
        // From inside each gap, and at the end.
        for (from, expected) in [(0, 1), (1, 1), (2, 3), (3, 3), (4, 4), (5, 5)] {
            let found = read_entries(&log.0.borrow(), from, 1).unwrap();
            assert_eq!(offsets(&found)[0], expected, "{name}: from {from}");
        }
        let again = log.compact(TERMS).unwrap();
        assert_eq!((again.segments_written, again.records_removed), (0, 0), "{name}: {again:?}");
    });
}

#[test]
fn a_batch_keeps_its_ends_and_a_segment_its_reach_although_records_are_removed() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    let batch: Vec<Entry> = ["a", "b", "c", "d"].map(|key| entry(key, "old")).into();
    append_entries(&mut log, &batch, None).unwrap();
    append_entries(&mut log, &[entry("a", "new"), entry("d", "new")], None).unwrap();
    append_entries(&mut log, &[entry("z", "old")], None).unwrap();
    log.roll_for(0).unwrap();
    append_entries(&mut log, &[entry("z", "new")], None).unwrap();
    log.roll_for(0).unwrap();
    finish_all(&mut log);
    let log = Shared::new(log);
    let apart = Terms { segment_bytes: 1, ..TERMS };
    assert_eq!(log.compact(apart).unwrap().segments_written, 2, "too small to be one");
    let path = log.0.borrow().segments().first().unwrap().path.clone();
    let bytes = disk.read(&path).unwrap();
    let header = SegmentHeader::decode(&bytes).unwrap();
    assert_eq!((header.ranks(), header.number, header.generation), (0..=0, 3, 1));
    let mut rest = &bytes[SegmentHeader::SIZE..];
    let mut batches = Vec::new();
    while let Some(view) = BatchView::check(rest, &header.key()).unwrap() {
        let it = view.header();
        batches.push((it.base_offset, it.next_offset(), it.record_count));
        rest = &rest[it.size as usize..];
    }
    // The opening; the four, of which two are left; the two; a filler to the segment's end.
    assert_eq!(batches, [(0, 0, 0), (0, 4, 2), (4, 6, 2), (6, 7, 0)]);
}

#[test]
fn a_tombstone_stays_for_its_time_and_goes_in_a_later_compaction() {
    let (_, rig) = Rig::fresh(1);
    let log = log_of(&rig, &[&[entry("a", "1"), entry("b", "1")], &[tombstone("a")]]);
    log.compact(terms_at(5_000)).unwrap();
    let found = |log: &Shared| offsets(&read_entries(&log.0.borrow(), 0, 9).unwrap());
    assert_eq!(found(&log), [1, 2], "the records that it deletes are removed, and it remains");
    let tally = log.compact(terms_at(5_000 + TOMBSTONES_KEPT - 1)).unwrap();
    assert_eq!((found(&log), tally.tombstones_removed), (vec![1, 2], 0), "its time is not over");
    // Its horizon is the one that the first compaction has set.
    let tally = log.compact(terms_at(5_000 + TOMBSTONES_KEPT)).unwrap();
    assert_eq!((found(&log), tally.tombstones_removed), (vec![1], 1));
}

/// An earlier build says nothing in a footer of when tombstones may go: the next compaction finds
/// out, also where it changes nothing.
#[test]
fn a_horizon_that_a_footer_does_not_name_is_found_by_a_compaction() {
    let (disk, rig) = Rig::fresh(1);
    let log = log_of(&rig, &[&[entry("a", "1"), entry("b", "1")], &[tombstone("a")]]);
    assert_eq!(
        Candidates::of(&log.0.borrow(), u64::MAX).next_horizon(),
        Footer::NO_HORIZON,
        "nothing is compacted"
    );
    log.compact(terms_at(5_000)).unwrap();
    assert_eq!(Candidates::of(&log.0.borrow(), u64::MAX).next_horizon(), 5_000 + TOMBSTONES_KEPT);
    let segment = log.0.borrow().segments().first().unwrap();
    let footer = segment.read_footer().unwrap().unwrap();
    assert_eq!(footer.next_horizon, Some(5_000 + TOMBSTONES_KEPT));
    let earlier = Footer { next_horizon: None, ..footer }.encode(segment.key.salt()).unwrap();
    let mut bytes = disk.read(&segment.path).unwrap();
    bytes.truncate(segment.sealed().unwrap().data_end as usize + 4);
    bytes.extend_from_slice(&earlier);
    rig.env.disk.remove_file(&segment.path).unwrap();
    rig.env.disk.create(&segment.path).unwrap().write_at(&bytes, 0).unwrap();
    drop(log);

    let log = Shared::new(rig.open(&known(None, false)).unwrap().0);
    assert_eq!(Candidates::of(&log.0.borrow(), u64::MAX).next_horizon(), Footer::NO_HORIZON);
    let tally = log.compact(terms_at(5_500)).unwrap();
    assert_eq!((tally.segments_written, tally.tombstones_removed), (0, 0));
    assert_eq!(Candidates::of(&log.0.borrow(), u64::MAX).next_horizon(), 5_000 + TOMBSTONES_KEPT);
}

#[test]
fn a_tombstone_never_goes_in_the_compaction_that_sees_it_first() {
    let (_, rig) = Rig::fresh(1);
    let log = log_of(&rig, &[&[entry("a", "1")], &[tombstone("a")]]);
    let at_once = Terms { horizon: 0, ..terms_at(9_000) };
    assert_eq!(log.compact(at_once).unwrap().tombstones_removed, 0);
    assert_eq!(log.compact(at_once).unwrap().tombstones_removed, 1);
    assert!(read_entries(&log.0.borrow(), 0, 9).unwrap().is_empty());
}

#[test]
fn records_without_a_key_stay() {
    let (_, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 4, 10);
    log.roll_for(0).unwrap();
    finish_all(&mut log);
    let log = Shared::new(log);
    assert_eq!(log.compact(TERMS).unwrap().records_kept, 4);
    assert_eq!(read_from(&log.0.borrow(), 0, 9).unwrap(), plain(0..4, 10));
}

/// Keys for which there is no memory at once: the same result, in several passes.
#[test]
fn little_memory_for_keys_takes_more_passes_and_changes_nothing_else() {
    let segments: Vec<Vec<Entry>> = (0..6_u32)
        .map(|round| (0..40).map(|key| entry(&format!("key-{key}"), &round.to_string())).collect())
        .collect();
    let segments: Vec<&[Entry]> = segments.iter().map(Vec::as_slice).collect();
    let mut results = Vec::new();
    for (key_memory_bytes, more) in [(1 << 20, false), (1 << 10, true), (0, true)] {
        let (_, rig) = Rig::fresh(1);
        let log = log_of(&rig, &segments);
        let tally = log.compact(Terms { key_memory_bytes, ..TERMS }).unwrap();
        assert_eq!(tally.passes > 1, more, "{tally:?}");
        let dirt = Candidates::of(&log.0.borrow(), u64::MAX).dirt();
        assert_eq!((dirt.dirty_bytes, dirt.clean_end), (0, 240), "{key_memory_bytes}");
        results.push(read_entries(&log.0.borrow(), 0, 9).unwrap());
    }
    assert_eq!(offsets(&results[0]), (200..240).collect::<Vec<_>>());
    assert!(results.iter().all(|result| *result == results[0]));
}

/// A pass that begins inside a segment counts all that stays of it.
#[test]
fn segments_that_become_one_fit_also_after_a_pass_that_ended_inside_one() {
    let values = |name: &str, count: u32| -> Vec<Entry> {
        (0..count).map(|key| entry(&format!("{name}-{key}"), &"x".repeat(400))).collect()
    };
    let (many, some) = (values("a", 40), values("b", 10));
    let mut within = 0;
    for key_memory_bytes in (512..4_096).step_by(128) {
        let (_, mut rig) = Rig::fresh(1);
        rig.options.segment_bytes = 64 << 10;
        let log = log_of(&rig, &[&many, &some]);
        let bytes = |segment: &Segment| u64::from(segment.sealed().unwrap().data_end);
        // There is no room for a record beside those of the first one, which all stay.
        let segment_bytes = bytes(&log.0.borrow().segments().first().unwrap());
        let terms = Terms { key_memory_bytes, segment_bytes, ..TERMS };
        let tally = log.compact(terms).unwrap();
        let segments = log.0.borrow().segments().all();
        assert_eq!(segments.len(), 3, "with {key_memory_bytes}: {tally:?}");
        // The first one is written once for each pass that covers some of it.
        within += usize::from(tally.passes == 2 && tally.segments_written == 3);
    }
    assert!(within > 0, "no second pass has begun inside a segment");
}

/// The byte budget, as a compaction finds it whenever it exchanges segments.
struct Budgeted<'a> {
    log: &'a Shared,
    space: &'a SpaceBudget,
    least_free: Cell<u64>,
}

impl LogAccess for Budgeted<'_> {
    fn with_log<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        self.least_free.set(self.least_free.get().min(self.space.free()));
        self.log.with_log(change)
    }

    fn remove_files(&self, segments: Vec<Arc<Segment>>) {
        self.log.remove_files(segments);
    }
}

#[test]
fn a_compaction_never_takes_more_of_the_byte_budget_than_what_it_replaces() {
    let (_, mut rig) = Rig::fresh(1);
    rig.env().space = SpaceBudget::new(1 << 20);
    let large = |key| entry(key, &"x".repeat(5_000));
    let log = log_of(&rig, &[&[large("a"), large("b")], &[large("b"), large("c")]]);
    let space = &*rig.env.space;
    let before = space.free();
    let log = Budgeted { log: &log, space, least_free: Cell::new(before) };
    let mut compaction = Compaction::begin(&log.log.0.borrow(), TERMS).unwrap();
    while compaction.step(&log).unwrap() == Progress::More {}
    assert_eq!(compaction.tally().records_removed, 1);
    assert_eq!(log.least_free.get(), before, "while old and new are there");
    assert!(space.free() > before + 4_000);
}

/// A segment with more keys than there is memory for is rewritten once per pass. One that was
/// interrupted must not pass for clean.
#[test]
fn a_segment_that_was_gathered_in_part_stays_dirty() {
    let (disk, rig) = Rig::fresh(1);
    let twice: Vec<Entry> = (0..80).map(|key| entry(&format!("key-{}", key % 40), "x")).collect();
    let log = log_of(&rig, &[&twice]);
    let little = Terms { key_memory_bytes: 1 << 10, ..TERMS };
    let mut compaction = Compaction::begin(&log.0.borrow(), little).unwrap();
    while compaction.tally().segments_written == 0 {
        assert_eq!(compaction.step(&log).unwrap(), Progress::More);
    }
    drop((compaction, log));
    let (log, report) = Rig::simulated(&disk, 2).open(&AFTER_CUT).unwrap();
    assert!(report.corrupt.is_empty(), "{report:?}");
    let dirt = Candidates::of(&log, u64::MAX).dirt();
    assert_eq!(dirt.clean_end, 0, "{dirt:?}");
    assert!(dirt.dirty_bytes > 0, "{dirt:?}");
    let log = Shared::new(log);
    log.compact(TERMS).unwrap();
    assert_eq!(
        offsets(&read_entries(&log.0.borrow(), 0, 9).unwrap()),
        (40..80).collect::<Vec<_>>()
    );
}

/// Also where it is sealed, because a crash has left something after it: the log continues where it
/// ends.
#[test]
fn the_last_segment_is_never_touched() {
    let (disk, rig) = Rig::fresh(1);
    let log = log_of(&rig, &[&[entry("a", "1")], &[entry("a", "2")]]);
    append_entries(&mut log.0.borrow_mut(), &[entry("a", "3"), entry("a", "4")], None).unwrap();
    sync(&mut log.0.borrow_mut()).unwrap();
    drop(log);
    let path = files(&disk).pop().unwrap();
    let length = disk.read(&path).unwrap().len() as u64;
    disk.corrupt(&path, length - 1, 1).unwrap();
    let (mut log, _) = Rig::simulated(&disk, 2).open(&AFTER_CUT).unwrap();
    finish_all(&mut log);
    assert!(log.segments().last().unwrap().sealed().is_some());
    let log = Shared::new(log);
    let last = log.0.borrow().segments().last().unwrap().number;
    log.compact(TERMS).unwrap();
    assert_eq!(log.0.borrow().segments().last().unwrap().number, last);
    assert_eq!(offsets(&read_entries(&log.0.borrow(), 0, 9).unwrap()), [1, 2, 3]);
}

#[test]
fn a_damaged_segment_is_left_as_it_is_and_so_is_the_log() {
    let (disk, rig) = Rig::fresh(1);
    let log = log_of(&rig, &[&[entry("a", "1")], &[entry("a", "2")], &[entry("a", "3")]]);
    let second = log.0.borrow().segments().all()[1].path.clone();
    let before = files(&disk);
    let position = disk.read(&second).unwrap().windows(1).position(|byte| byte == b"2").unwrap();
    disk.corrupt(&second, position as u64, 1).unwrap();
    let failed = log.compact(TERMS);
    assert!(matches!(failed, Err(Error::Corrupt(_))), "{failed:?}");
    assert_eq!(files(&disk), before);
}

/// C6: the compaction is given up, what it made is removed, and what was there stays.
// RED: src/log/compaction/output.rs
//   - let _ = self.env.disk.remove_file(&self.draft.path);
#[test]
fn row_c06_a_full_disk_during_compaction_leaves_the_log_as_it_was() {
    for operation in [
        Operation::Create,
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDir,
    ] {
        let (disk, rig) = Rig::fresh(1);
        let log = log_of(&rig, &[&[entry("a", "1")], &[entry("a", "2")]]);
        let before = (files(&disk), disk.paths().len());
        disk.inject(Fault::once(operation, std::io::ErrorKind::StorageFull));
        assert!(log.compact(TERMS).is_err(), "{operation:?}");
        assert_eq!((files(&disk), disk.paths().len()), before, "{operation:?}");
        assert_eq!(read_entries(&log.0.borrow(), 0, 9).unwrap().len(), 2, "{operation:?}");
        log.compact(TERMS).unwrap();
        assert_eq!(offsets(&read_entries(&log.0.borrow(), 0, 9).unwrap()), [1], "{operation:?}");
    }
}

#[test]
fn a_producers_numbers_survive_although_all_its_batches_are_removed() {
    let producer = |sequence| ProducerRequest { id: 9, epoch: 1, sequence };
    for damage_footer in [false, true] {
        let (disk, rig) = Rig::fresh(1);
        let mut log = rig.create();
        let named = producer(Sequence::At(41));
        append_entries(&mut log, &[entry("a", "named")], Some(&named)).unwrap();
        append_entries(&mut log, &[entry("a", "plain")], None).unwrap();
        log.roll_for(0).unwrap();
        finish_all(&mut log);
        let log = Shared::new(log);
        assert_eq!(log.compact(TERMS).unwrap().records_removed, 1);
        let segments = log.0.borrow().segments().all();
        drop(log);
        // The successor is lost, so that what the rewritten segment says is all there is.
        disk.truncate(&segments[1].path, SegmentHeader::SIZE as u64).unwrap();
        if damage_footer {
            let length = disk.read(&segments[0].path).unwrap().len() as u64;
            disk.corrupt(&segments[0].path, length - 1, 1).unwrap();
        }
        let (mut log, report) = Rig::simulated(&disk, 2).open(&AFTER_CUT).unwrap();
        assert!(report.corrupt.is_empty(), "{report:?}");
        assert_eq!(log.log_end(), 2);
        let again = append_entries(&mut log, &[entry("a", "again")], Some(&named)).unwrap();
        let duplicate = Outcome::Duplicate { last_sequence: 41, last_offset: 0 };
        assert_eq!(again, duplicate, "footer damaged: {damage_footer}");
    }
}

/// The record that goes is the youngest of its batch, and not the first.
#[test]
fn times_are_those_of_what_stays() {
    let (_, rig) = Rig::fresh(1);
    let mut log = rig.create();
    let batch: Vec<Entry> = ["a", "b", "c", "d"].map(|key| entry(key, "x")).into();
    append_entries(&mut log, &batch, None).unwrap();
    log.roll_for(0).unwrap();
    append_entries(&mut log, &[entry("c", "y")], None).unwrap();
    log.roll_for(0).unwrap();
    finish_all(&mut log);
    let log = Shared::new(log);
    assert_eq!([0, 1, 2, 3].map(time_of), [1_005, 1_004, 1_007, 1_006]);
    log.compact(Terms { segment_bytes: 1, ..TERMS }).unwrap();
    let first = log.0.borrow().segments().first().unwrap();
    let times = first.sealed().unwrap().times.unwrap();
    assert_eq!((times.first, times.max), (1_005, 1_006));
    let footer = first.read_footer().unwrap().unwrap();
    assert_eq!(footer.times, Some(times));
    assert_eq!((footer.base_offset, footer.next_offset), (0, 4));
    assert_eq!(footer.index.first_at_or_after_time(1_007), None);
}
