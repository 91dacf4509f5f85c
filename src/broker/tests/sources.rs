//! Sources that retry: a named producer sends each row of its source with the row's number, and
//! sends all of them again after an error or a death.
//!
//! Goal: whatever fails, and whenever the process ends or the power does, one copy of each row is
//! there once the source has come to its end, in the source's order. Method: each call of the disk
//! fails once, and the disk stops at every store point; an answer that names an offset is held
//! against the row's number. Not covered: sources whose numbers have gaps, and expiry
//! (`expiry.rs`).

use std::io::ErrorKind;
use std::time::Duration;

use super::model::{Crash, clock, open, open_at, values};
use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::{Durability, TopicConfig};
use crate::error::{Error, Result};
use crate::producer::SendOutcome;
use crate::random::Random;
use crate::record::Record;
use crate::storage::disk::{Fault, Operation, PowerCut, SimulatedDisk};

const ROWS: u64 = 12;
const MINUTE: Duration = Duration::from_secs(60);

/// Five of them fill a segment.
fn value(row: u64) -> String {
    format!("{row:->3000}")
}

/// Sends all rows.
fn send_all(broker: &Broker, clock: &ManualClock, acknowledged: &mut u64) -> Result<()> {
    send_to(ROWS, broker, clock, acknowledged)
}

/// Sends rows from the first on, as a source does that knows nothing of the time before. What was
/// acknowledged is counted before the next one is sent.
fn send_to(rows: u64, broker: &Broker, clock: &ManualClock, acknowledged: &mut u64) -> Result<()> {
    broker.ensure_topic("t", TopicConfig::new(1).segment_bytes(16 << 10))?;
    let source = broker.producer_builder().id("source").build()?;
    for row in 1..=rows {
        let value = value(row);
        match source.send_sequenced(row, Record::to("t").partition(0).value(&value))? {
            SendOutcome::Appended(at) => assert_eq!(at.offset + 1, row, "stored twice, or late"),
            SendOutcome::Duplicate { last } => assert!(last >= row, "{row} after {last}"),
        }
        *acknowledged = row.max(*acknowledged);
        if row % 5 == 0 {
            // Footers, and recovery points.
            clock.advance(MINUTE);
            broker.tick()?;
        }
    }
    Ok(())
}

fn rows(broker: &Broker) -> Vec<String> {
    broker.topic("t").map_or_else(|_| Vec::new(), |topic| values(&topic, 0))
}

/// continues with what a crash has left.
fn proceed(disk: &SimulatedDisk, acknowledged: u64, context: &str) {
    let (clock, expected) = (clock(), (1..=ROWS).map(value).collect::<Vec<_>>());
    let broker = open(disk, acknowledged).unwrap_or_else(|e| panic!("{context}: {e:?}"));
    let found = rows(&broker);
    assert!(expected.starts_with(&found), "{context}: {found:.60?}");
    assert!(found.len() as u64 >= acknowledged, "{context}: {} of {acknowledged}", found.len());
    for again in 0..2 {
        let sent = send_all(&broker, &clock, &mut 0);
        sent.unwrap_or_else(|error| panic!("{context}, {again}: {error:?}"));
        assert_eq!(rows(&broker), expected, "{context}, {again}");
    }
}

fn crashes(random: &mut Random) -> [Crash; 3] {
    let any = PowerCut::any(&mut || random.next());
    [Crash::Kill, Crash::Cut(PowerCut::WORST), Crash::Cut(any)]
}

// RED: src/topic/append.rs
//   - let waited = self.core.flusher().wait_and_announce(self.offsets.end);
//   + let waited = if self.duplicate_of.is_some() { Ok(()) } else { self.core.wait_durable(self.offsets.end) };
#[test]
fn row_a05_b13_a_source_that_is_sent_again_after_a_death_is_there_once() {
    let whole = SimulatedDisk::new();
    let live = |disk: &SimulatedDisk, acknowledged: &mut u64| -> Result<()> {
        let clock = clock();
        let broker = open_at(disk, 7, Durability::Sync, &clock)?;
        send_all(&broker, &clock, acknowledged)?;
        broker.close()
    };
    live(&whole, &mut 0).unwrap();
    let points = whole.store_points();
    for point in 0..points {
        let (disk, mut acknowledged) = (SimulatedDisk::new(), 0);
        disk.crash_at(point);
        assert!(live(&disk, &mut acknowledged).is_err());
        let mut random = Random::new(point);
        for (crash, stops) in crashes(&mut random).map(|it| [(it, false), (it, true)]).concat() {
            let context = format!("store point {point} of {points}, {crash:?}, stops: {stops}");
            let (second, mut acknowledged) = (crash.of(&disk, &mut random), acknowledged);
            if stops {
                // The source has no more than what is there, and the power goes off after it.
                let (clock, broker) = (clock(), open(&second, 8).unwrap());
                let found = rows(&broker).len() as u64;
                send_to(found, &broker, &clock, &mut acknowledged).unwrap();
            } else {
                // It ends in the middle of sending again.
                second.crash_at(random.below(points));
                let _ = live(&second, &mut acknowledged);
            }
            for crash in [Crash::Kill, Crash::Cut(PowerCut::WORST)] {
                let image = crash.of(&second, &mut random);
                proceed(&image, acknowledged, &format!("{context}, {crash:?}"));
            }
        }
    }
}

// RED: src/log/producers.rs
//   - (Sequence::At(number), Some(state)) if number <= state.last_sequence => {
//   + (Sequence::At(number), Some(state)) if number < state.last_sequence => {
#[test]
fn row_d01_a_source_that_is_sent_again_after_an_error_is_there_once() {
    let mut failures = 0;
    for operation in [
        Operation::SyncDir,
        Operation::Rename,
        Operation::Create,
        Operation::Write,
        Operation::Allocate,
        Operation::Sync,
    ] {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            for call in 0.. {
                if !fail_once(operation, kind, call) {
                    break;
                }
                failures += 1;
            }
        }
    }
    assert!(failures > 100, "{failures}");
}

/// Whether there is such a call.
fn fail_once(operation: Operation, kind: ErrorKind, call: u64) -> bool {
    let context = format!("{operation:?}, {kind:?}, call {call}");
    let (disk, clock, mut acknowledged) = (SimulatedDisk::with_seed(call), clock(), 0);
    let broker = open_at(&disk, 7, Durability::Sync, &clock).unwrap();
    disk.inject(Fault::once(operation, kind).after(call));
    let sent = send_all(&broker, &clock, &mut acknowledged);
    let has_fired = disk.has_fired();
    disk.heal();
    let must_reopen = matches!(sent, Err(Error::SyncFailed { .. } | Error::Poisoned { .. }))
        || !broker.metrics().poisoned.is_empty();
    if !must_reopen {
        // The same process sends again.
        send_all(&broker, &clock, &mut acknowledged).unwrap_or_else(|e| panic!("{context}: {e:?}"));
        assert_eq!(rows(&broker), (1..=ROWS).map(value).collect::<Vec<_>>(), "{context}");
    }
    let mut random = Random::new(call);
    for crash in crashes(&mut random) {
        let image = crash.of(&disk, &mut random);
        proceed(&image, acknowledged, &format!("{context}, {sent:?}, {crash:?}"));
    }
    has_fired
}
