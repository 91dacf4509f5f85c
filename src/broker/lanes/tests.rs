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
    let (mut intervals, mut at_work) = (Intervals::default(), AtWork::default());
    broker.producer().send(Record::to("t").value("slow")).unwrap();
    intervals.add(Arc::clone(&core), clock.monotonic(), &mut at_work);
    assert_eq!(intervals.sync_due(clock.monotonic(), &mut at_work), Some(SECOND * 8));

    let quick = Duration::from_millis(50);
    let producer = broker.producer_builder().durability(interval(quick)).build().unwrap();
    producer.send(Record::to("t").value("quick")).unwrap();
    intervals.add(Arc::clone(&core), clock.monotonic(), &mut at_work);
    assert_eq!(intervals.sync_due(clock.monotonic(), &mut at_work), Some(quick));
    clock.advance(quick);
    intervals.sync_due(clock.monotonic(), &mut at_work);
    assert_eq!(core.durable_end(), 2);

    // What the longer interval has left in the queue is passed over, and nothing is looked at twice.
    clock.advance(SECOND * 8);
    assert_eq!(intervals.sync_due(clock.monotonic(), &mut at_work), None);
    assert!(intervals.partitions.is_empty() && intervals.due.is_empty());
}

/// A panic in foreign code ended the lane's thread, and with it every later delivery, interval
/// sync and eviction, without an error. The rule: a panic ends a round, not the lane.
// RED: src/broker/lanes.rs
//   - match foreign::call(&mut round) {
//   + match Some(round()) {
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
            run_space_lane(&queues, &clock, &Outbox::default(), || (evict.borrow_mut())());
        });
        looks.recv().unwrap();
        lanes.watch_members();
        let again = looks.recv();
        lanes.stop();
        lane.join().unwrap();
        assert!(again.is_ok(), "the lane looks again");
        assert_eq!(lanes.panics(), 1);
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
            run_space_lane(&queues, &moved, &Outbox::default(), evict);
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
        compactions.step(&clock, engine, &mut AtWork::default());
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

/// Panics the next time it is asked, when it is told to.
#[derive(Clone)]
struct Clockwork {
    clock: ManualClock,
    panics: Arc<AtomicBool>,
}

impl Clockwork {
    fn new() -> Self {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + SECOND);
        Self { clock, panics: Arc::default() }
    }
}

impl Clock for Clockwork {
    fn now(&self) -> SystemTime {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "in a clock");
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// A round that panicked was forgotten with what it was at. The partition took its request for
/// begun or still queued, and those who waited for it had asked once, so nobody asked again.
/// The rule: what a lane was at is asked for again after a second.
// RED: src/broker/lanes.rs
//   - self.panicked.push(job);
//   + drop(job);
#[test]
fn row_j14_what_a_lane_was_at_when_it_panicked_is_asked_for_again() {
    let (broker, core, clock) = opened(|builder| builder.durability(Durability::Os));
    broker.producer().send(Record::to("t").value("waits for a sync")).unwrap();
    let mut at_work = AtWork::default();
    core.request(Work::Sync);
    let job = || -> () {
        core.take_up(Work::Sync);
        panic!("in the middle of a job");
    };
    assert_eq!(foreign::call(|| at_work.run(&core, Work::Sync, job)), None);
    assert_eq!(at_work.ask_again(clock.monotonic()), Some(TRY_AGAIN));
    core.do_requested();
    assert_eq!(core.durable_end(), 0, "not at once, lest it panics without a pause");
    clock.advance(TRY_AGAIN);
    assert_eq!(at_work.ask_again(clock.monotonic()), None);
    core.do_requested();
    assert_eq!(core.durable_end(), 1);
}

struct NoHouse;

impl Housekeeping for NoHouse {
    fn keep_house(&self) {}

    fn finished(&self, _: &Arc<PartitionCore>) {}

    fn relieve(&self) {}

    fn appended(&self) -> u64 {
        0
    }
}

/// A compaction that panicked stayed first in the queue: it panicked every 10 ms, and no other was
/// ever compacted. The rule: it is taken out for its step, and asked for again after a second.
// RED: src/broker/lanes.rs
//   - let Some(partition) = self.queue.pop_front() else { return };
//   + let Some(partition) = self.queue.front().cloned() else { return };
#[test]
fn row_j14_a_compaction_that_panics_does_not_hold_up_the_others() {
    let clock = Clockwork::new();
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    let broker = builder.open().unwrap();
    let config = TopicConfig::new(2).cleanup(Cleanup::Compact);
    broker.ensure_topic("t", config).unwrap();
    let topic = broker.life().topic("t").unwrap();
    let [first, second] = [0, 1].map(|number| Arc::clone(topic.partition(number).unwrap()));

    let (mut compactions, mut at_work) = (Compactions::default(), AtWork::default());
    for core in [&first, &second] {
        compactions.add(Arc::clone(core), clock.monotonic());
    }
    clock.panics.store(true, Ordering::Relaxed);
    let step = || compactions.step(&clock, &NoHouse, &mut at_work);
    assert_eq!(foreign::call(step), None, "the first one's");
    assert!(compactions.queue.iter().all(|core| Arc::ptr_eq(core, &second)));
    assert_eq!(at_work.ask_again(clock.monotonic()), Some(TRY_AGAIN));
    compactions.step(&clock, &NoHouse, &mut at_work);
    assert!(compactions.queue.is_empty());
    let stats = first.compaction_stats().unwrap();
    assert_eq!((stats.failures, stats.is_running), (1, false));
}
