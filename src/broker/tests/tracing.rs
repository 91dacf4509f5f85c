//! What an application's subscriber hears of a disk that fails; all else is in `tests/tracing.rs`.

use std::fmt::{Debug, Write};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::tracing::field::{Field, Visit};
use ::tracing::span::{Attributes, Id, Record as SpanRecord};
use ::tracing::{Event, Metadata, Subscriber};

use super::model::{clock, open_at};
use crate::broker::workers::Housekeeping;
use crate::config::{Durability, TopicConfig};
use crate::record::Record;
use crate::storage::disk::{Fault, Operation, SimulatedDisk};

/// Each event as a line: the message, then the fields.
#[derive(Clone, Default)]
struct Heard {
    lines: Arc<Mutex<Vec<String>>>,
    /// Whether it panics whenever it has taken note of an event.
    panics: bool,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0.insert_str(0, &format!("{value:?}")),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "logpond"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &SpanRecord<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
        assert!(!self.panics, "in a subscriber");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

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
        heard.lines.lock().unwrap().clear();

        // What the workers do is asked for by nobody who could be given the error.
        clock.advance(Duration::from_secs(120));
        disk.inject(Fault::always(Operation::Write, ErrorKind::Other).on("__local"));
        Housekeeping::run_housekeeping(&***broker.run());
        disk.heal();
        disk.inject(Fault::once(Operation::Sync, ErrorKind::Other).on("/t/0"));
        broker.producer().send(Record::to("t").value("lost?")).unwrap_err();
        broker.tick().unwrap();
    });
    let heard = heard.lines.lock().unwrap();
    let count = |start: &str| heard.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("background work failed work=\"housekeeping\" error="), 1, "{heard:#?}");
    assert_eq!(count("poisoned partition=t-0 error="), 1, "{heard:#?}");
}
