//! Wall clocks that are wrong at an opening and set right later, and machines that sleep.

use super::*;
use logpond::{SendOutcome, TimestampType};
use std::time::SystemTime;

const DAY: Duration = Duration::from_secs(86_400);

fn open(dir: &Path, clock: &ManualClock) -> Broker {
    builder_at(dir, clock).open().unwrap()
}

fn builder_at(dir: &Path, clock: &ManualClock) -> BrokerBuilder {
    Broker::builder().data_dir(dir).background(false).clock(clock.clone())
}

fn end(broker: Broker, closes: bool) {
    if closes { broker.close().unwrap() } else { drop(broker) }
}

fn start_of(broker: &Broker) -> u64 {
    broker.tick().unwrap();
    broker.topic("t").unwrap().partition(0).unwrap().log_start_offset()
}

/// Symptom: a service began before the time service had set the clock, which was 8 days behind. The
/// records that it appended later, with right stamps, were lost after the next opening. Cause:
/// their age was stored in the private time of that run, which stayed 8 days behind, and compared
/// with the wall clock of the next. Rule: what is stored is what the wall clock showed.
// RED: src/log/retention.rs
//   - Moment { wall: timestamp.min(wall), run: aged_from(timestamp, run, lag) }
//   + Moment { wall: aged_from(timestamp, run, lag), run: aged_from(timestamp, run, lag) }
#[test]
fn row_f12_a_clock_that_is_set_right_after_the_opening_loses_no_record() {
    let right = some_time();
    for behind in [1, 8, 5_000] {
        for (kind, closes) in [
            (TimestampType::CreateTime, true),
            (TimestampType::AppendTime, true),
            (TimestampType::CreateTime, false),
        ] {
            for fills in [false, true] {
                let dir = temp_dir();
                let clock = ManualClock::new(right - behind * DAY);
                let broker = open(dir.path(), &clock);
                let config = small_topic(1).retention(7 * DAY).timestamps(kind);
                let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
                clock.advance(SECOND);
                clock.set(right);
                for _ in 0..if fills { 3 * FULL } else { 5 } {
                    partition.append(&Record::new().value(&VALUE)).unwrap();
                }
                drop(partition);
                broker.tick().unwrap();
                end(broker, closes);
                clock.advance(5 * SECOND);
                let broker = open(dir.path(), &clock);
                let case = format!("{behind} days, {kind:?}, closes: {closes}, fills: {fills}");
                assert_eq!(start_of(&broker), 0, "{case}");
                clock.advance(7 * DAY);
                assert!(start_of(&broker) > 0, "{case}: kept for too long");
            }
        }
    }
}

/// As above; here the clock is behind while the directory is open for the second time, and nothing
/// is appended then: what that run writes of the records that it found must not be its own time.
#[test]
fn a_clock_that_is_behind_at_a_later_opening_makes_no_record_older() {
    for (first, second) in [(true, true), (true, false), (false, true), (false, false)] {
        let (dir, right) = (temp_dir(), some_time());
        let clock = ManualClock::new(right);
        let broker = open(dir.path(), &clock);
        let topic = broker.ensure_topic("t", small_topic(1).retention(7 * DAY)).unwrap();
        for _ in 0..3 * FULL + 4 {
            topic.partition(0).unwrap().append(&Record::new().value(&VALUE)).unwrap();
        }
        end(broker, first);
        drop(topic);
        clock.set(right - 30 * DAY);
        let broker = open(dir.path(), &clock);
        assert_eq!(start_of(&broker), 0);
        clock.advance(MINUTE);
        assert_eq!(start_of(&broker), 0);
        end(broker, second);
        clock.set(right + MINUTE);
        let broker = open(dir.path(), &clock);
        assert_eq!(start_of(&broker), 0, "closed: {first}, {second}");
        clock.advance(7 * DAY);
        assert!(start_of(&broker) > 0, "closed: {first}, {second}");
    }
}

/// Symptom: a laptop that sleeps 8 hours a day kept a broker open for 24 days; the records of the
/// last minute were lost after the next opening. Cause: as above, the monotonic clock stands still
/// while the machine sleeps. Symptom: while the wall clock of a broker that had been open for long
/// was ahead, a topic was made, and records that an application stamped by a clock that was right
/// went with the next tick. Cause: each partition counted the time of the run from when it was made
/// itself. Rule: one run has one time, that of its opening.
// RED: src/broker/topic_factory.rs
//   - let (lead, clock) = (self.context.lead(), self.context.clock.clone());
//   + let lead = self.context.lead();
//   + let clock = crate::clock::RunClock::begin(self.context.clock.shared());
#[test]
fn row_f12_a_topic_that_is_made_while_the_clock_is_ahead_ages_no_faster() {
    for grows in [false, true] {
        let dir = temp_dir();
        let clock = ManualClock::new(some_time());
        let broker = open(dir.path(), &clock);
        let admin = broker.admin();
        let config = small_topic(1).retention(7 * DAY);
        if grows {
            admin.create_topic("t", config.clone()).unwrap();
        }
        clock.set(some_time() + 45 * DAY);
        if grows {
            admin.add_partitions("t", 2).unwrap();
        } else {
            admin.create_topic("t", config).unwrap();
        }
        let partition = broker.topic("t").unwrap().partition(u32::from(grows)).unwrap();
        for _ in 0..3 * FULL {
            partition.append(&Record::new().value(&VALUE).timestamp(some_time())).unwrap();
        }
        broker.tick().unwrap();
        assert_eq!(partition.log_start_offset(), 0, "grows: {grows}");
        clock.set(some_time());
        clock.advance(7 * DAY + SECOND);
        broker.tick().unwrap();
        assert_eq!(partition.log_start_offset(), partition.log_end_offset(), "grows: {grows}");
    }
}

#[test]
fn a_machine_that_sleeps_while_a_broker_is_open_loses_no_record() {
    let dir = temp_dir();
    let clock = manual_clock();
    let broker = open(dir.path(), &clock);
    let topic = broker.ensure_topic("t", small_topic(1).retention(7 * DAY)).unwrap();
    for _ in 0..24 {
        clock.advance(2 * DAY / 3);
        clock.set(clock.now() + DAY / 3);
        broker.tick().unwrap();
    }
    let first = topic.partition(0).unwrap().append(&Record::new().value("now")).unwrap();
    drop(topic);
    broker.close().unwrap();
    clock.advance(SECOND);
    assert_eq!(start_of(&open(dir.path(), &clock)), first);
}

/// Symptom: a retry of a named producer was stored twice, a minute after the first try. Cause: when
/// its row was used last was stored in the private time of a run whose clock had been 40 days
/// behind; the next run took the producer for idle since. Rule: as above; and a row that was used
/// before the clock was set right counts by what the clock shows when the row is stored.
// RED: src/log/producers.rs
//   - let used = self.0.get(&state.id).map_or(now.run, |row| row.used);
//   + let used = 0;
#[test]
fn row_f12_a_producer_is_not_idle_because_a_clock_was_behind() {
    for set_first in [true, false] {
        for closes in [true, false] {
            let (dir, right) = (temp_dir(), some_time());
            let clock = ManualClock::new(right - 40 * DAY);
            let broker = open(dir.path(), &clock);
            broker.ensure_topic("t", small_topic(1)).unwrap();
            let row = || Record::to("t").partition(0).value("row");
            if set_first {
                clock.set(right);
            }
            let named = broker.producer_builder().id("n").build().unwrap();
            for number in 1..=5 {
                named.send_sequenced(number, row()).unwrap();
            }
            clock.set(right);
            drop(named);
            end(broker, closes);
            for _ in 0..2 {
                clock.advance(MINUTE);
                let broker = open(dir.path(), &clock);
                broker.producer().send(row()).unwrap();
                broker.tick().unwrap();
                let named = broker.producer_builder().id("n").build().unwrap();
                let outcome = named.send_sequenced(5, row()).unwrap();
                assert!(matches!(outcome, SendOutcome::Duplicate { .. }), "{set_first} {closes}");
                drop(named);
                broker.close().unwrap();
            }
        }
    }
}

/// Symptom: a tombstone was removed before its time, so that a reader never learned of the
/// deletion. Cause: its delete horizon was stored in the private time of a run whose clock had been
/// behind. Rule: the horizon is what is later of the two times, and has passed when it has by both.
// RED: src/partition/compactor.rs
//   - let latest = now.wall.max(now.run);
//   + let latest = now.run;
#[test]
fn row_f12_a_tombstone_stays_for_its_time_where_the_clock_was_behind() {
    let (dir, right) = (temp_dir(), some_time());
    let clock = ManualClock::new(right - 8 * DAY);
    let broker = open(dir.path(), &clock);
    let config = small_topic(1).cleanup(Cleanup::Compact).tombstone_retention(DAY);
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    clock.set(right);
    partition.append(&Record::new().key("gone").value("v")).unwrap();
    let tombstone = partition.append(&Record::new().key("gone").tombstone()).unwrap();
    for _ in 0..2 * FULL {
        partition.append(&Record::new().key("other").value(&VALUE)).unwrap();
    }
    drop(partition);
    broker.admin().compact_now("t").unwrap();
    broker.close().unwrap();
    let has_tombstone = |clock: &ManualClock| {
        let broker = open(dir.path(), clock);
        broker.admin().compact_now("t").unwrap();
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        let found = read_all(&partition).iter().any(|message| message.offset() == tombstone);
        broker.close().unwrap();
        found
    };
    clock.advance(23 * 60 * MINUTE);
    assert!(has_tombstone(&clock));
    clock.advance(61 * MINUTE);
    assert!(!has_tombstone(&clock));
}

/// Symptom: none in the field; without this test a horizon could be held against the wall clock
/// alone, and no instrument would notice. A wall clock that is set ahead while the broker is open
/// would then end the time of every tombstone, and what a deletion hides from a reader that is
/// behind would stay with it. Rule: as above, the horizon has passed when it has by both clocks.
// RED: src/partition/compactor.rs
//   - now: now.wall.min(now.run),
//   + now: now.wall,
#[test]
fn row_f08_a_clock_that_is_set_ahead_while_the_broker_is_open_ends_the_time_of_no_tombstone() {
    let (dir, right) = (temp_dir(), some_time());
    let clock = ManualClock::new(right);
    let broker = open(dir.path(), &clock);
    let config = small_topic(1).cleanup(Cleanup::Compact).tombstone_retention(DAY);
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    partition.append(&Record::new().key("gone").value("v")).unwrap();
    let tombstone = partition.append(&Record::new().key("gone").tombstone()).unwrap();
    for _ in 0..2 * FULL {
        partition.append(&Record::new().key("other").value(&VALUE)).unwrap();
    }
    let has_tombstone = || {
        broker.tick().unwrap();
        broker.admin().compact_now("t").unwrap();
        read_all(&partition).iter().any(|message| message.offset() == tombstone)
    };
    assert!(has_tombstone());
    clock.set(right + 30 * DAY);
    assert!(has_tombstone());
    clock.advance(23 * 60 * MINUTE);
    assert!(has_tombstone());
    clock.advance(61 * MINUTE);
    assert!(!has_tombstone());
}

/// Random runs in which no clock is ahead of the truth at an opening: every record is there until
/// the earlier of its timestamp and the wall clock at its append, plus the retention, has passed.
#[test]
fn no_record_goes_before_its_age_allows_in_runs_with_clocks_that_were_behind() {
    for seed in 0..from_env("LOGPOND_RUNS", 5) {
        run_with_clocks_behind(&mut Rng::new(seed), seed);
    }
}

fn run_with_clocks_behind(rng: &mut Rng, seed: u64) {
    let dir = temp_dir();
    let retention = 7 * DAY;
    let mut truth = some_time();
    let clock = ManualClock::new(truth);
    let mut broker = open(dir.path(), &clock);
    broker.ensure_topic("t", small_topic(1).retention(retention).segment_age(DAY)).unwrap();
    // From when each record counts.
    let mut ages: Vec<SystemTime> = Vec::new();
    for step in 0..120 {
        match rng.below(12) {
            0..4 => {
                let stamp = match rng.below(4) {
                    0 => truth + 400 * DAY,
                    1 => truth,
                    _ => clock.now(),
                };
                let record = Record::new().value(&VALUE).timestamp(stamp);
                let partition = broker.topic("t").unwrap().partition(0).unwrap();
                for _ in 0..=rng.below(FULL) {
                    partition.append(&record).unwrap();
                    ages.push(stamp.min(clock.now()));
                }
            }
            4..7 => {
                let by = Duration::from_secs(rng.below(3 * 86_400));
                truth += by;
                clock.advance(by);
            }
            7 => {
                // Asleep: the wall clock knows afterwards, the monotonic clock never does.
                let by = Duration::from_secs(rng.below(3 * 86_400));
                truth += by;
                clock.set(clock.now() + by);
            }
            8 => clock.set(truth),
            9..11 => {
                end(broker, rng.one_in(2));
                if rng.one_in(2) {
                    clock.set(truth - Duration::from_secs(rng.below(40 * 86_400)));
                } else {
                    clock.set(truth);
                }
                broker = open(dir.path(), &clock);
            }
            _ => broker.tick().unwrap(),
        }
        let start = usize::try_from(start_of(&broker)).unwrap();
        let lost = ages[..start].iter().position(|from| *from + retention > truth);
        assert_eq!(lost, None, "LOGPOND_RUNS, seed {seed}, step {step}, log start {start}");
    }
}
