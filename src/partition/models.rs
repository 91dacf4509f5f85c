//! A partition's appenders, readers and its end, in every interleaving.
//!
//! The partition runs as it ships, over a log on the memory disk; only the locks and atomics are
//! loom's. At most two preemptions per execution, as each of the orders that these are about needs
//! one; without a bound they would take hours.

use std::path::Path;
use std::time::SystemTime;

use loom::thread;

use super::append::{Accepted, AppendOptions};
use super::background::Want;
use super::encode::{Encoder, RecordRules};
use super::waiters::Notifier;
use super::*;
use crate::clock::{ManualClock, RunClock};
use crate::config::TimestampType;
use crate::format::TopicId;
use crate::log::budget::SpaceBudget;
use crate::log::create::Writer;
use crate::log::cursor::{Cursor, FetchLimits, Fetched};
use crate::log::maps::MapBudget;
use crate::log::pinned::PinnedMaps;
use crate::log::{LogEnv, LogIdentity, LogOptions};
use crate::message::Batch;
use crate::record::Record;
use crate::storage::disk::{Disk, MemoryDisk};
use crate::storage::process::Process;
use crate::sync::{AtomicU64, Ordering};
use crate::trace::Outbox;

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.max_branches = 100_000;
    model.check(body);
}

/// Nobody works behind these partitions.
#[derive(Debug)]
struct Nobody;

impl Background for Nobody {
    fn request(&self, _: &Arc<PartitionCore>, _: Work) {}

    fn is_running(&self) -> bool {
        false
    }

    fn make_room(&self, _: &Arc<PartitionCore>, _: &mut Want) -> Result<bool> {
        Ok(false)
    }
}

fn partition() -> Arc<PartitionCore> {
    let disk = MemoryDisk::new();
    disk.create_dir(Path::new("/t")).unwrap();
    let counter = AtomicU64::new(1);
    let env = LogEnv {
        disk: Arc::new(disk),
        copy_reads: true,
        maps: MapBudget::new(8),
        space: SpaceBudget::unlimited(),
        pinned: PinnedMaps::new(),
        spare: None,
        process: Arc::new(Process::current()),
        trace: Outbox::default(),
        #[cfg(feature = "testing")]
        seams: crate::seams::Seams::default(),
        random: Box::new(move || counter.fetch_add(1, Ordering::Relaxed)),
    };
    let origin = Arc::new(TopicPartition::from(("t", 0)));
    let identity =
        LogIdentity { origin: Arc::clone(&origin), topic_id: TopicId([1; 16]), dir: "/t".into() };
    let options = LogOptions {
        segment_bytes: 16 << 10,
        writer: Writer::Pwrite,
        has_budget: false,
        features: 0,
    };
    let log = Log::create(&Arc::new(env), identity, options, 0).unwrap();
    let clock = RunClock::begin(Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH)));
    PartitionCore::new(
        log,
        Lineage::default(),
        Durability::Os,
        &Lead::none(),
        clock,
        Arc::new(Nobody),
        None,
    )
}

fn append(core: &Arc<PartitionCore>) -> Result<u64> {
    const RULES: RecordRules = RecordRules {
        record_bytes_max: u32::MAX,
        timestamps: TimestampType::CreateTime,
        needs_key: false,
    };
    let options = AppendOptions::default();
    let mut encoder = Encoder::take();
    let mut batch = encoder.encode([&Record::new().value("x")], RULES, 0)?;
    match core.append(&mut batch, &options)? {
        Accepted::Appended { next_offset, .. } => Ok(next_offset),
        other @ Accepted::Duplicate { .. } => panic!("{other:?}"),
    }
}

/// A reader that is refused looks where the log begins, and must find that it is behind it: else
/// the refusal passes for an error of the caller.
#[test]
fn loom_a_reader_that_is_out_of_range_finds_that_the_log_start_has_moved() {
    model(|| {
        let core = partition();
        for _ in 0..2 {
            append(&core).unwrap();
            core.with_log(|log| log.roll_for(0)).unwrap();
        }
        append(&core).unwrap();
        let mut cursor = core.reader().cursor_at(0).unwrap();
        let limits = FetchLimits { records: 1, bytes: usize::MAX, visible_end: 3 };
        core.reader().fetch(&mut cursor, &limits, &mut Fetched::default()).unwrap();
        let retention = {
            let core = Arc::clone(&core);
            thread::spawn(move || core.retention().retire(2).unwrap())
        };
        match core.reader().fetch(&mut cursor, &limits, &mut Fetched::default()) {
            Ok(()) => {}
            Err(Error::OffsetOutOfRange { requested: 1, .. }) => assert_eq!(core.log_start(), 2),
            Err(other) => panic!("{other:?}"),
        }
        retention.join().unwrap();
    });
}

/// A reader in front of retention gets each record, or hears from where on there are any: never
/// that a file is missing.
#[test]
fn loom_a_reader_that_retention_passes_hears_that_it_was_retention() {
    model(|| {
        let core = partition();
        append(&core).unwrap();
        core.with_log(|log| log.roll_for(0)).unwrap();
        append(&core).unwrap();
        let mut cursor = core.reader().cursor_at(0).unwrap();
        let retention = {
            let core = Arc::clone(&core);
            thread::spawn(move || core.retention().retire(1).unwrap())
        };
        let limits = FetchLimits {
            records: 1,
            bytes: usize::MAX,
            visible_end: core.visible_end(Visibility::Published),
        };
        // Whether the one record is there; otherwise retention has passed it.
        let reads = |cursor: &mut Cursor, offset: u64| {
            let mut fetched = Fetched::default();
            match core.reader().fetch(cursor, &limits, &mut fetched) {
                Ok(()) => {
                    let read = Batch::new(fetched.ranges);
                    let offsets: Vec<u64> = read.iter().map(|message| message.offset()).collect();
                    assert_eq!(offsets, [offset]);
                    true
                }
                Err(Error::OffsetOutOfRange { start: 1, .. }) => false,
                Err(other) => panic!("{other:?}"),
            }
        };
        let read_first = reads(&mut cursor, 0);
        // A lookup anew, as after a seek.
        match core.reader().cursor_at(0) {
            Ok(mut anew) => _ = reads(&mut anew, 0),
            Err(Error::OffsetOutOfRange { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        if read_first {
            assert!(reads(&mut cursor, 1), "retention does not go that far");
        }
        retention.join().unwrap();
        assert_eq!(core.log_start(), 1);
        // A reader that armed meanwhile is still woken by the next record.
        let notifier = Notifier::new();
        let id = core.log().register(&notifier, 3);
        assert!(core.reader().arm(id, 2, Visibility::Published));
        append(&core).unwrap();
        assert_eq!(notifier.wait(None), (vec![3], false));
    });
}

/// An append that meets the end is in the log, or is refused; and a reader that parks meanwhile is
/// woken once. A wake-up that is lost would be a deadlock, which loom reports.
#[test]
fn loom_an_append_and_a_parked_reader_that_meet_the_end_are_answered_once() {
    model(|| {
        let core = partition();
        let notifier = Notifier::new();
        let id = core.log().register(&notifier, 3);
        let appender = {
            let core = Arc::clone(&core);
            thread::spawn(move || append(&core))
        };
        let closer = {
            let core = Arc::clone(&core);
            thread::spawn(move || core.close())
        };
        if core.reader().arm(id, 0, Visibility::Published) {
            assert_eq!(notifier.wait(None), (vec![3], false), "once");
        }
        let appended = appender.join().unwrap();
        closer.join().unwrap();
        match appended {
            Ok(end) => assert_eq!((end, core.log_end()), (1, 1)),
            Err(Error::Closed) => assert_eq!(core.log_end(), 0),
            Err(other) => panic!("{other:?}"),
        }
        assert!(!core.reader().arm(id, 1, Visibility::Published), "nobody parks behind the end");
        assert!(matches!(append(&core), Err(Error::Closed)));
    });
}

/// Who waits for a sync when the partition ends hears of one or the other, and so do those who come
/// later.
#[test]
fn loom_who_waits_for_a_sync_that_meets_the_end_is_answered() {
    model(|| {
        let core = partition();
        let end = append(&core).unwrap();
        let closer = {
            let core = Arc::clone(&core);
            thread::spawn(move || core.close())
        };
        let waiter = {
            let core = Arc::clone(&core);
            thread::spawn(move || core.wait_durable(end))
        };
        let waited = core.wait_durable(end);
        let durable = core.durable_end() >= end;
        assert!(waited.is_err() || durable, "{waited:?}");
        let other = waiter.join().unwrap();
        closer.join().unwrap();
        for answer in [waited, other] {
            assert!(matches!(answer, Ok(()) | Err(Error::Closed)), "{answer:?}");
        }
    });
}
