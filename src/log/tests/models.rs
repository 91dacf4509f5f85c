//! A reader beside the log's own changes of its segment list, in every interleaving.
//!
//! The whole log runs, over the memory disk, as it ships; only the locks and atomics are loom's.
//! At most two preemptions per execution, or the models would take hours: each of the orders that
//! they are about needs one.

use loom::thread;

use super::*;
use crate::format::BatchEncoder;
use crate::log::compaction::run::{Compaction, LogAccess, Progress, Terms};
use crate::log::segment::{Segment, SegmentList};

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.max_branches = 100_000;
    model.check(body);
}

/// What a fetch finds, whatever end is visible: all that is published.
fn fetch_published(segments: &SegmentList, cursor: &mut Cursor) -> Result<Vec<u64>> {
    let limits = FetchLimits { records: usize::MAX, bytes: usize::MAX, visible_end: u64::MAX };
    let mut fetched = Fetched::default();
    cursor.fetch(segments, &limits, &mut fetched)?;
    Ok(Batch::new(fetched.ranges).iter().map(|message| message.offset()).collect())
}

/// A reader that finds a segment sealed finds its successor too: it never takes a roll for the end
/// of what was durable.
#[test]
fn loom_a_reader_continues_across_a_roll() {
    model(|| {
        let mut log = Rig::memory().create();
        append(&mut log, 1, 8);
        let segments = Arc::clone(log.segments());
        let mut cursor = cursor_at(&log, 0).unwrap();
        let appender = thread::spawn(move || {
            log.roll_for(0).unwrap();
            append(&mut log, 1, 8);
            log
        });
        let mut read = fetch_published(&segments, &mut cursor).unwrap();
        read.extend(fetch_published(&segments, &mut cursor).unwrap());
        let log = appender.join().unwrap();
        read.extend(fetch_published(&segments, &mut cursor).unwrap());
        assert_eq!(read, [0, 1]);
        drop(log);
    });
}

/// A log as the partition above reaches it.
struct Locked(Mutex<Log>);

impl LogAccess for Locked {
    fn with_log<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        change(&mut self.0.lock())
    }

    fn remove_files(&self, segments: Vec<Arc<Segment>>) {
        for segment in segments {
            segment.remove_file().unwrap();
        }
    }
}

const TERMS: Terms = Terms {
    key_memory_bytes: 1 << 12,
    segment_bytes: SEGMENT_BYTES,
    now: 5_000,
    horizon: 9_000,
    limit: u64::MAX,
};

/// How many steps of the compaction change nothing for readers.
fn steps_before_the_swap() -> usize {
    let log = compactable();
    let segments = Arc::clone(log.segments());
    let first = segments.first().map(|segment| segment.number);
    let mut compaction = Compaction::begin(&log, TERMS).unwrap();
    let log = Locked(Mutex::new(log));
    let mut steps = 0;
    loop {
        compaction.step(&log).unwrap();
        if segments.first().map(|segment| segment.number) != first {
            return steps;
        }
        steps += 1;
    }
}

/// Two segments with the same two keys in each, both finished, read by copying: a reader that has
/// to come back to the file meets each step of the swap.
fn compactable() -> Log {
    let mut rig = Rig::memory();
    rig.env().copy_reads = true;
    let mut log = rig.create();
    for round in 0..2 {
        for key in ["a", "b"] {
            let mut encoder = BatchEncoder::new();
            let headers = std::iter::empty::<(&str, &[u8])>();
            let value = format!("{key}{round}");
            encoder.push(1_000, Some(key.as_bytes()), Some(value.as_bytes()), headers).unwrap();
            log.append(&mut encoder.finish(), None, Way::AsUsual).unwrap();
        }
        log.roll_for(0).unwrap();
    }
    sync(&mut log).unwrap();
    while let Some(mut task) = log.backlog().begin_footer(None) {
        task.run().unwrap();
        log.backlog_mut().finish_footer(&task);
    }
    log
}

/// A reader in a segment that compaction replaces: it sees the latest record of
/// each key, no offset twice, and nothing that is missing.
#[test]
fn loom_a_reader_continues_across_the_swap_of_a_compaction() {
    model(|| {
        let before = steps_before_the_swap();
        let log = compactable();
        let segments = Arc::clone(log.segments());
        let first = segments.first().map(|segment| segment.number);
        let mut cursor = cursor_at(&log, 0).unwrap();
        let mut compaction = Compaction::begin(&log, TERMS).unwrap();
        let log = Arc::new(Locked(Mutex::new(log)));
        // Alone, up to the step that swaps: each step before it changes nothing for readers.
        for _ in 0..before {
            assert_eq!(compaction.step(&*log).unwrap(), Progress::More);
        }
        assert_eq!(segments.first().map(|segment| segment.number), first);
        let compactor = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                compaction.step(&*log).unwrap();
            })
        };
        let mut read = fetch_published(&segments, &mut cursor).unwrap();
        compactor.join().unwrap();
        read.extend(fetch_published(&segments, &mut cursor).unwrap());
        assert_ne!(segments.first().map(|segment| segment.number), first, "nothing was swapped");
        assert!(read.is_sorted() && read.windows(2).all(|two| two[0] < two[1]), "{read:?}");
        assert!(read.ends_with(&[2, 3]), "{read:?}");
    });
}
