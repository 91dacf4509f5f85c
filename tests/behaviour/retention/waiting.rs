//! `WhenFull::Wait`: who waits for room, what makes it, and what ends the wait.
//!
//! Not covered: that the wait is without any polling. Each wait ends long before its time is over,
//! so what ends it is what the test did.

use std::thread;
use std::time::Instant;

use logpond::{Result, SendOutcome};

use super::*;

const BUDGET: u64 = 200 << 10;
/// A wait that a test can sit out.
const AT_MOST: Duration = Duration::from_millis(20);
/// So long that a wait which lasts for half of it was ended by nothing.
const LONG: Duration = Duration::from_secs(60);

fn waiting(at_most: Duration, background: bool, config: TopicConfig) -> Setup {
    let clock = manual_clock();
    let builder = builder(&clock).max_total_bytes(BUDGET).background(background);
    let broker = builder.when_full(WhenFull::Wait { at_most }).open().unwrap();
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    Setup { broker, clock, partition }
}

/// A broker that refused a record after a short wait: its budget is used up.
fn refused(config: TopicConfig) -> Setup {
    let setup = waiting(AT_MOST, false, config);
    while setup.partition.append(&record()).is_ok() {}
    setup
}

/// Each way to append one record.
const WAYS: [fn(&Broker) -> Result<()>; 6] = [
    |broker| broker.topic("t")?.partition(0)?.append(&record()).map(drop),
    |broker| broker.topic("t")?.partition(0)?.append_batch(&[record()]).map(drop),
    |broker| broker.producer().send(of_topic()).map(drop),
    |broker| broker.producer().enqueue(of_topic()).map(drop),
    |broker| broker.producer().send_batch([of_topic()]).map(drop),
    |broker| {
        let producer = broker.producer_builder().id("p").build()?;
        let next = producer.last_sequence(&tp("t", 0)).map_or(1, |last| last + 1);
        let sent = producer.send_sequenced(next, of_topic().partition(0))?;
        assert!(matches!(sent, SendOutcome::Appended(_)), "{sent:?}");
        Ok(())
    },
];

fn record() -> Record<'static> {
    Record::new().key("k").value(&VALUE)
}

fn of_topic() -> Record<'static> {
    Record::to("t").key("k").value(&VALUE)
}

/// Appends by every way in turn, far more than there is room for, while `make_room` is called.
fn passes(setup: &Setup, make_room: impl Fn(&Setup)) {
    const COUNT: usize = 1_000;
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            for number in 0..COUNT {
                #[expect(clippy::disallowed_methods, reason = "the time-out is real time")]
                let began = Instant::now();
                WAYS[number % WAYS.len()](&setup.broker).unwrap();
                // The last attempt, when the time is over, would find the room too.
                assert!(began.elapsed() < LONG / 2, "nothing ended the wait but its time");
            }
        });
        while !producer.is_finished() {
            make_room(setup);
            thread::yield_now();
        }
        producer.join().unwrap();
    });
    assert_eq!(setup.partition.log_end_offset(), COUNT as u64);
}

/// Deletion as a consumer's, and retention and compaction by another thread's `tick`.
// RED: src/log/budget.rs
//   - self.wake();
#[test]
fn row_c16_an_append_waits_until_others_have_made_room() {
    passes(&waiting(LONG, false, small_topic(1)), |setup| {
        let end = setup.partition.log_end_offset();
        setup.broker.admin().delete_records(("t", 0), end).unwrap();
    });
    passes(&waiting(LONG, false, small_topic(1).retention(10 * MINUTE)), |setup| {
        setup.tick_after(11 * MINUTE);
    });
    passes(&waiting(LONG, false, small_topic(1).cleanup(Cleanup::Compact)), |setup| {
        setup.broker.tick().unwrap();
    });
}

/// The background does what is due without being called.
#[test]
fn row_c16_the_background_makes_room_for_an_append_that_waits() {
    passes(&waiting(LONG, true, small_topic(1).cleanup(Cleanup::Compact)), |_| {});
    passes(&waiting(LONG, true, small_topic(1).retention(SECOND)), |setup| {
        setup.clock.advance(2 * SECOND);
    });
}

/// Symptom: settings that let records go did not help an append that waited: it was refused when
/// its time was over. Cause: what can go is looked for when an append is refused, and then every
/// minute. Rule: a change of settings is a reason to look.
// RED: src/broker/space.rs
//   - self.run.env().space.wake();
#[test]
fn row_c16_an_append_waits_until_the_settings_make_room() {
    let full = refused(small_topic(1)).partition.log_end_offset();
    let setup = waiting(LONG, true, small_topic(1));
    thread::scope(|scope| {
        let appends = scope.spawn(|| {
            for _ in 0..full + 10 {
                setup.partition.append(&record()).unwrap();
            }
        });
        while setup.partition.log_end_offset() < full {
            thread::yield_now();
        }
        (0..10_000).for_each(|_| thread::yield_now());
        #[expect(clippy::disallowed_methods, reason = "the time-out is real time")]
        let began = Instant::now();
        setup.broker.admin().alter_topic("t", |config| config.retention_bytes(32 << 10)).unwrap();
        appends.join().unwrap();
        assert!(began.elapsed() < LONG / 2, "nothing ended the wait but its time");
    });
}

/// When the time is over the append is refused, and nothing was appended.
#[test]
fn row_c16_a_wait_ends_after_its_time() {
    let setup = refused(small_topic(1));
    let end = setup.partition.log_end_offset();
    for append in WAYS {
        #[expect(clippy::disallowed_methods, reason = "the time-out is real time")]
        let began = Instant::now();
        let refused = append(&setup.broker).unwrap_err();
        assert!(matches!(refused, Error::StorageFull { .. }), "{refused:?}");
        assert!(refused.is_definite() && refused.is_retriable());
        assert!(began.elapsed() >= AT_MOST, "{:?}", began.elapsed());
    }
    assert_eq!(setup.partition.log_end_offset(), end);
    // A topic is created or not, at once.
    let refused = setup.broker.ensure_topic("u", TopicConfig::new(9));
    assert!(matches!(refused, Err(Error::StorageFull { .. })), "{refused:?}");
}

/// Appends that wait while `end` is called, by several threads: how each of them ended.
fn ended_by(end: impl Fn(&Broker)) -> Vec<Error> {
    let full = refused(small_topic(1)).partition.log_end_offset();
    let setup = waiting(LONG, false, small_topic(1));
    let producer = setup.broker.producer();
    thread::scope(|scope| {
        let append = || loop {
            if let Err(error) = producer.send(of_topic().partition(0)) {
                return error;
            }
        };
        let appends = [(); 4].map(|()| scope.spawn(append));
        // There is no room for another one: they wait, or will in a moment.
        while setup.partition.log_end_offset() < full {
            thread::yield_now();
        }
        (0..10_000).for_each(|_| thread::yield_now());
        #[expect(clippy::disallowed_methods, reason = "the time-out is real time")]
        let began = Instant::now();
        end(&setup.broker);
        let errors = appends.map(|append| append.join().unwrap()).into();
        assert!(began.elapsed() < LONG / 2, "nothing ended the wait but its time");
        errors
    })
}

/// Closing the broker and deleting the topic end the wait.
// RED: src/broker/engine.rs
//   - self.run.env().space.wake();
#[test]
fn row_c16_a_close_and_a_deletion_end_the_wait() {
    for _ in 0..5 {
        let errors = ended_by(|broker| broker.admin().delete_topic("t").unwrap());
        let is_unknown = |error: &Error| matches!(error, Error::UnknownTopic(name) if name == "t");
        assert!(errors.iter().all(is_unknown), "{errors:?}");
        let errors = ended_by(|broker| broker.clone().close().unwrap());
        assert!(errors.iter().all(|error| matches!(error, Error::Closed)), "{errors:?}");
    }
}

#[test]
fn a_wait_of_no_time_is_refused() {
    let policy = WhenFull::Wait { at_most: Duration::ZERO };
    let refused = builder(&manual_clock()).when_full(policy).open();
    assert_eq!(refused_setting(refused), "when_full");
}
