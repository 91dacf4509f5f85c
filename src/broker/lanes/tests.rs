//! The lanes by hand: what they look at, and when. Without threads, but where a thread's end is
//! what is tested.

use std::time::SystemTime;

use super::*;
use crate::broker::engine::Engine;
use crate::clock::ManualClock;
use crate::config::{Cleanup, Durability, TopicConfig};
use crate::record::Record;
use crate::{Broker, BrokerBuilder};

const SECOND: Duration = Duration::from_secs(1);

fn interval(every: Duration) -> Durability {
    Durability::Interval { every, bytes: 1 << 20 }
}

/// A broker in memory whose lanes are the test's, and its partition.
fn opened(
    set: impl FnOnce(BrokerBuilder) -> BrokerBuilder,
) -> (Broker, Arc<PartitionCore>, ManualClock) {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + SECOND);
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    let broker = set(builder).open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let core = Arc::clone(broker.life().topic("t").unwrap().partition(0).unwrap());
    (broker, core, clock)
}

/// A producer with an interval of 50 ms on a topic of 8 s: durable after 7.9 s, when the partition
/// was queued already. A known partition was not looked at again. The rule: the earliest deadline
/// counts, whoever set it and whenever.
// RED: src/broker/lanes.rs
//   - && known.is_none_or(|known| due < known)
//   + && known.is_none()
#[test]
fn row_d11_a_queued_partition_is_synced_when_an_earlier_interval_ends() {
    let (broker, core, clock) = opened(|builder| builder.durability(interval(SECOND * 8)));
    let mut intervals = Intervals::default();
    broker.producer().send(Record::to("t").value("slow")).unwrap();
    intervals.add(Arc::clone(&core), clock.monotonic());
    assert_eq!(intervals.sync_due(clock.monotonic()), Some(SECOND * 8));

    let quick = Duration::from_millis(50);
    let producer = broker.producer_builder().durability(interval(quick)).build().unwrap();
    producer.send(Record::to("t").value("quick")).unwrap();
    intervals.add(Arc::clone(&core), clock.monotonic());
    assert_eq!(intervals.sync_due(clock.monotonic()), Some(quick));
    clock.advance(quick);
    intervals.sync_due(clock.monotonic());
    assert_eq!(core.durable_end(), 2);

    // What the longer interval has left in the queue is passed over, and nothing is looked at twice.
    clock.advance(SECOND * 8);
    assert_eq!(intervals.sync_due(clock.monotonic()), None);
    assert!(intervals.partitions.is_empty() && intervals.due.is_empty());
}

/// A panic in foreign code ended the lane's thread, and with it every later delivery, interval
/// sync and eviction, without an error. The rule: a panic ends a round, not the lane.
// RED: src/broker/lanes.rs
//   - match catch_unwind(AssertUnwindSafe(&mut round)) {
//   + match Ok::<_, Box<dyn std::any::Any + Send>>(round()) {
#[test]
fn row_j14_a_panic_in_a_round_does_not_end_the_lane() {
    let (lanes, queues) = Lanes::new(true);
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let (looked, looks) = unbounded();
    std::thread::scope(|scope| {
        let mut panics = true;
        let evict = std::cell::RefCell::new(move || {
            looked.send(()).unwrap();
            assert!(!std::mem::take(&mut panics), "as foreign code does");
            None
        });
        let lane = scope.spawn(move || {
            run_space_lane(&queues, &clock, || (evict.borrow_mut())());
        });
        looks.recv().unwrap();
        lanes.watch_members();
        let again = looks.recv();
        lanes.stop();
        lane.join().unwrap();
        assert!(again.is_ok(), "the lane looks again");
    });
}

/// Events are delivered in the lanes, and what hears of them may move the clock: that leaves one
/// note for each lane, however often it happens, and blocks nobody. A clock that stands still just
/// before a deadline is looked at some twenty times a second, not all the time.
#[test]
fn a_clock_that_is_moved_within_a_lane_or_stands_still_costs_little() {
    let (lanes, queues) = Lanes::new(true);
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    lanes.follow(&clock);
    let (looked, looks) = unbounded();
    std::thread::scope(|scope| {
        let moved = clock.clone();
        let lane = scope.spawn(move || {
            let evict = || {
                (0..1000).for_each(|_| moved.advance(SECOND));
                looked.send(queues.space.len() + queues.bulk.len()).unwrap();
                None
            };
            run_space_lane(&queues, &moved, evict);
        });
        assert_eq!([looks.recv().unwrap(), looks.recv().unwrap()], [2, 2]);
        lanes.stop();
        lane.join().unwrap();
    });

    let (mut pace, nearly) = (Pace::default(), Duration::from_nanos(1));
    assert_eq!(pace.wait(nearly, SECOND), nearly);
    assert_eq!(pace.wait(nearly, SECOND), STANDS_STILL);
    assert_eq!(pace.wait(Duration::ZERO, SECOND), Duration::ZERO);
    assert_eq!(pace.wait(nearly, SECOND * 2), nearly);
}

/// Segments that were finished while a compaction ran had to wait for the next minute: a
/// compaction was asked for already, so they did not ask. The rule: its end asks again.
// RED: src/broker/lanes.rs
//   - partition.compact_again_if_due();
#[test]
fn row_c14_the_end_of_a_compaction_asks_for_the_next() {
    let (broker, _, clock) = opened(|builder| builder);
    let config = TopicConfig::new(1).cleanup(Cleanup::Compact).segment_bytes(16 << 10);
    let partition = broker.ensure_topic("c", config).unwrap().partition(0).unwrap();
    let core = Arc::clone(broker.life().topic("c").unwrap().partition(0).unwrap());
    let fill = || {
        for number in 0..100 {
            let key = format!("k{}", number % 10);
            partition.append(&Record::new().key(&key).value(&[7; 1_000])).unwrap();
        }
        core.do_work(Work::Finish);
    };
    fill();
    let mut compactions = Compactions::default();
    compactions.add(Arc::clone(&core), clock.monotonic());
    let engine: &Engine = broker.life();
    let step = |compactions: &mut Compactions| {
        clock.advance(SECOND);
        compactions.step(&clock, engine);
    };
    step(&mut compactions);
    fill();
    while compactions.next_step().is_some() {
        step(&mut compactions);
    }
    let dirty = || core.compaction_stats().unwrap().dirty_bytes;
    assert!(dirty() > 0);
    core.do_requested();
    assert_eq!(dirty(), 0);
}
