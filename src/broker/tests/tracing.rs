//! What an application's subscriber hears of a disk that fails; all else is in `tests/tracing.rs`.

use std::io::ErrorKind;
use std::time::Duration;

use super::model::{clock, open_at};
use crate::broker::workers::Housekeeping;
use crate::config::{Durability, TopicConfig};
use crate::record::Record;
use crate::storage::disk::{Fault, Operation, SimulatedDisk};
use crate::trace::heard::Heard;

#[test]
fn a_poisoned_partition_and_work_that_failed_behind_the_scenes_are_reported() {
    poison_and_fail(&Heard::default());
}

/// Events wait until no lock is held, and are delivered by the next thread that comes by. When the
/// subscriber
/// panicked at one, those that waited after it were lost, and a thread that had nothing to do with
/// it unwound. The rule: a panic ends with the event that caused it.
// RED: src/trace.rs
//   - foreign::call(|| emit(event));
//   + emit(event);
#[test]
fn row_j14_a_subscriber_that_panics_gets_the_next_event_and_reaches_no_caller() {
    poison_and_fail(&Heard { panics: true, ..Heard::default() });
}

fn poison_and_fail(heard: &Heard) {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    ::tracing::subscriber::with_default(heard.clone(), || {
        let broker = open_at(&disk, 1, Durability::Sync, &clock).unwrap();
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        broker.producer().send(Record::to("t").value("kept")).unwrap();
        heard.lines.lock().clear();

        // What the workers do is asked for by nobody who could be given the error.
        clock.advance(Duration::from_secs(120));
        disk.inject(Fault::always(Operation::Write, ErrorKind::Other).on("__local"));
        Housekeeping::run_housekeeping(&***broker.run());
        disk.heal();
        disk.inject(Fault::once(Operation::Sync, ErrorKind::Other).on("/t/0"));
        broker.producer().send(Record::to("t").value("lost?")).unwrap_err();
        broker.tick().unwrap();
    });
    let heard = heard.lines.lock();
    let count = |start: &str| heard.iter().filter(|line| line.contains(start)).count();
    assert_eq!(count("background work failed work=\"housekeeping\" error="), 1, "{heard:#?}");
    assert_eq!(count("poisoned partition=t-0 error="), 1, "{heard:#?}");
}
