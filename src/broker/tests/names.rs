//! Names that change hands while something is done under them.
//!
//! Goal: whatever acts on a topic's files, nothing of it reaches the next topic of that name, nor
//! the next broker in that directory. Method: the act runs on a disk that calls back before each of
//! its operations; at one of them another thread deletes the topic and makes it again, or closes
//! the broker and does so in the next, as far as it gets without waiting for the act. Every act is
//! stopped at every operation.

use std::fs::{read_link, read_to_string};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{ThreadId, current, scope, yield_now};
use std::time::Duration;

use super::model::{DIR, clock, open_at, open_on};
use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::{Cleanup, Durability, TopicConfig};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::storage::disk::{Disk, HookedDisk, Operation, Side, SimulatedDisk};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::topic::Partition;

const TOPIC: &str = "t";
const RETENTION: Duration = Duration::from_secs(600);

fn config() -> TopicConfig {
    let config = TopicConfig::new(1).segment_bytes(16 << 10).retention(RETENTION);
    config.cleanup(Cleanup::CompactAndDelete)
}

/// Five of them fill a segment.
fn append(partition: &Partition, key: u64, value: &str) -> Result<u64> {
    let padded = format!("{value:-<3000}");
    partition.append(&Record::new().key(&key.to_string()).value(&padded))
}

/// What is done to the topic; some of it acts by path, some of it only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    DeleteRecords,
    Retention,
    Compact,
    Tick,
    Verify,
    Read,
    Append,
    Flush,
}

impl Act {
    const ALL: [Self; 8] = [
        Self::DeleteRecords,
        Self::Retention,
        Self::Compact,
        Self::Tick,
        Self::Verify,
        Self::Read,
        Self::Append,
        Self::Flush,
    ];

    fn run(self, broker: &Broker, old: &Partition) -> Result<()> {
        match self {
            Self::DeleteRecords => broker.admin().delete_records((TOPIC, 0), 7).map(drop),
            Self::Retention => broker.admin().enforce_retention_now(),
            Self::Compact => broker.admin().compact_now(TOPIC).map(drop),
            Self::Tick => broker.tick(),
            Self::Verify => broker.admin().verify(TOPIC).map(|report| {
                assert!(report.is_ok(), "{report:?}");
            }),
            Self::Read => {
                let mut next = old.log_start_offset();
                while next < old.log_end_offset() {
                    let batch = old.read(next, 1)?;
                    for message in batch.iter() {
                        let value = std::str::from_utf8(message.value().unwrap()).unwrap();
                        assert!(value.starts_with("old"), "{value:.10}");
                        next = message.next_offset();
                    }
                }
                Ok(())
            }
            Self::Append => (0..7).try_for_each(|key| append(old, key, "old").map(drop)),
            Self::Flush => broker.flush(),
        }
    }
}

/// How the name comes to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    NextTopic,
    NextBroker,
}

/// Where the act and the other thread meet.
struct Meeting {
    /// Who acts, and the number of the operation at which it waits.
    actor: Mutex<Option<(ThreadId, u64)>>,
    operations: AtomicU64,
    begin: Mutex<Option<Sender<()>>>,
    has_begun: AtomicBool,
    is_over: AtomicBool,
    other: Mutex<PathBuf>,
}

impl Meeting {
    fn new() -> (Arc<Self>, Receiver<()>) {
        let (begin, is_begun) = channel();
        let meeting = Self {
            actor: Mutex::new(None),
            operations: AtomicU64::new(0),
            begin: Mutex::new(Some(begin)),
            has_begun: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            other: Mutex::new(PathBuf::new()),
        };
        (Arc::new(meeting), is_begun)
    }

    fn before_operation(&self) {
        let Some((actor, at)) = *self.actor.lock() else { return };
        if actor != current().id() || self.operations.fetch_add(1, Ordering::SeqCst) + 1 != at {
            return;
        }
        let begin = self.begin.lock().take();
        begin.unwrap().send(()).unwrap();
        while !self.has_begun.load(Ordering::SeqCst) {
            yield_now();
        }
        while !self.is_over.load(Ordering::SeqCst) && !self.other_waits() {
            yield_now();
        }
    }

    /// Whether the other thread sleeps: this one is in its way. One that has panicked has ended.
    fn other_waits(&self) -> bool {
        let Ok(stat) = read_to_string(&*self.other.lock()) else { return true };
        stat.rsplit(')').next().is_some_and(|state| state.trim_start().starts_with('S'))
    }

    /// In the other thread.
    fn change(&self, is_begun: &Receiver<()>, change: impl FnOnce()) {
        *self.other.lock() =
            Path::new("/proc").join(read_link("/proc/thread-self").unwrap()).join("stat");
        if is_begun.recv().is_ok() {
            self.has_begun.store(true, Ordering::SeqCst);
            change();
        }
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// An act that is over has nobody to wait for.
struct Acting<'a>(&'a Meeting);

impl<'a> Acting<'a> {
    fn begin(meeting: &'a Meeting, at: u64) -> Self {
        *meeting.actor.lock() = Some((current().id(), at));
        Self(meeting)
    }
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        *self.0.actor.lock() = None;
        self.0.begin.lock().take();
    }
}

fn make_again(broker: &Broker) {
    broker.admin().delete_topic(TOPIC).unwrap();
    let next = broker.ensure_topic(TOPIC, config()).unwrap().partition(0).unwrap();
    (0..3).for_each(|key| assert_eq!(append(&next, key, "next").unwrap(), key));
}

fn check(broker: &Broker, context: &str) {
    let next = broker.topic(TOPIC).unwrap().partition(0).unwrap();
    let ends = (next.log_start_offset(), next.log_end_offset());
    assert_eq!(ends, (0, 3), "{context}");
    let batch = next.read(0, 1 << 20).unwrap();
    assert_eq!(batch.len(), 3, "{context}");
    for message in batch.iter() {
        assert!(message.value().unwrap().starts_with(b"next"), "{context}");
    }
    let report = broker.admin().verify(TOPIC).unwrap();
    assert!(report.is_ok(), "{context}: {report:?}");
}

/// Whether the act has so many operations.
fn meet(act: Act, change: Change, at: u64) -> bool {
    let context = format!("{act:?}, {change:?}, operation {at}");
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let (meeting, is_begun) = Meeting::new();
    let hooked = Arc::clone(&meeting);
    let hooked = HookedDisk::new(Arc::new(disk.clone()), move |_: Operation, side| {
        if side == Side::Before {
            hooked.before_operation();
        }
    });
    let broker = open_on(Arc::new(hooked), 1, Durability::Sync, &clock).unwrap();
    let old = broker.ensure_topic(TOPIC, config()).unwrap().partition(0).unwrap();
    for key in 0..12 {
        append(&old, key % 4, "old").unwrap();
    }
    if matches!(act, Act::Retention | Act::Tick) {
        clock.advance(RETENTION + Duration::from_secs(1));
    }
    let after = Mutex::new(None);
    scope(|scope| {
        let (meeting, broker, clock, disk, after) = (&meeting, &broker, &clock, &disk, &after);
        scope.spawn(move || {
            meeting.change(&is_begun, || {
                *after.lock() = match change {
                    Change::NextTopic => {
                        make_again(broker);
                        None
                    }
                    Change::NextBroker => Some(next_broker(broker, disk, clock)),
                }
            });
        });
        let acting = Acting::begin(meeting, at);
        let acted = act.run(broker, &old);
        drop(acting);
        let is_refused = |error| matches!(error, Error::Closed | Error::UnknownTopic(_));
        assert!(acted.is_ok() || acted.clone().is_err_and(is_refused), "{context}: {acted:?}");
    });
    if !meeting.has_begun.load(Ordering::SeqCst) {
        return false;
    }
    drop(old);
    let next = after.lock().take();
    check(next.as_ref().unwrap_or(&broker), &context);
    drop((broker, next));
    let broker = open_at(&disk.kill9(), 2, Durability::Sync, &clock).unwrap();
    let report = broker.recovery();
    assert!(report.partitions.iter().all(|it| it.corrupt.is_empty()), "{context}: {report:?}");
    assert!(report.unknown.is_empty(), "{context}: {report:?}");
    check(&broker, &context);
    let files = disk.list(&Path::new(DIR).join(TOPIC).join("0")).unwrap().len();
    assert_eq!(files, 1, "{context}: files of the topic before");
    true
}

fn next_broker(broker: &Broker, disk: &SimulatedDisk, clock: &ManualClock) -> Broker {
    broker.clone().close().unwrap();
    let next = open_at(disk, 3, Durability::Sync, clock).unwrap();
    make_again(&next);
    next
}

// RED: src/partition/retention.rs
//   - let Ok(removing) = self.log.begin_disk_work() else { return Ok(()) };
//   + let removing = ();
#[test]
fn row_a23_no_act_reaches_the_next_topic_of_the_name_at_any_of_its_steps() {
    let mut operations = 0;
    for act in Act::ALL {
        for change in [Change::NextTopic, Change::NextBroker] {
            let mut met = 0;
            while meet(act, change, met + 1) {
                met += 1;
            }
            eprintln!("{act:?}, {change:?}: {met} operations");
            operations += met;
        }
    }
    assert!(operations > 60, "{operations}");
}
