//! The workers by hand: what they look at, and when. Without threads, but where a thread's end is
//! what is tested.

#[cfg(feature = "replication")]
mod announced;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, SystemTime};

use super::bulk::Compactions;
use super::rounds::{AtWork, Pace, STANDS_STILL, TRY_AGAIN};
use super::space::Intervals;
use super::syncs::{For, Syncs};
use super::*;
use crate::broker::engine::Engine;
use crate::clock::{ManualClock, real_now};
use crate::config::{Cleanup, Durability, TopicConfig};
use crate::foreign;
use crate::partition::footers::Finished;
use crate::record::Record;
use crate::storage::disk::{Disk, HookedDisk, Operation, Side, SimulatedDisk};
use crate::sync::{AtomicUsize, Condvar, Mutex};
use crate::{Broker, BrokerBuilder};

const SECOND: Duration = Duration::from_secs(1);

fn interval(every: Duration) -> Durability {
    Durability::Interval { every, bytes: 1 << 20 }
}

/// A broker in memory whose workers are the test's, and its partition.
fn opened(
    set: impl FnOnce(BrokerBuilder) -> BrokerBuilder,
) -> (Broker, Arc<PartitionCore>, ManualClock) {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + SECOND);
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    let broker = set(builder).open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let core = Arc::clone(broker.run().topic("t").unwrap().partition(0).unwrap());
    (broker, core, clock)
}

fn no_helper() -> io::Result<JoinHandle<()>> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// A producer with an interval of 50 ms on a topic of 8 s: durable after 7.9 s, when the partition
/// was queued already. A known partition was not looked at again. The rule: the earliest deadline
/// counts, whichever append set it and whenever.
// RED: src/broker/workers/space.rs
//   - if known.is_none_or(|known| due < known) {
//   + if known.is_none() {
#[test]
fn row_d11_a_queued_partition_is_synced_when_an_earlier_interval_ends() {
    let (broker, core, clock) = opened(|builder| builder.durability(interval(SECOND * 8)));
    let mut intervals = Intervals::default();
    let sync = |core: Arc<PartitionCore>| core.flush().unwrap();
    broker.producer().send(Record::to("t").value("slow")).unwrap();
    intervals.add(Arc::clone(&core), clock.monotonic(), &sync);
    assert_eq!(intervals.sync_due(clock.monotonic(), &sync), Some(SECOND * 8));

    let quick = Duration::from_millis(50);
    let producer = broker.producer_builder().durability(interval(quick)).build().unwrap();
    producer.send(Record::to("t").value("quick")).unwrap();
    intervals.add(Arc::clone(&core), clock.monotonic(), &sync);
    assert_eq!(intervals.sync_due(clock.monotonic(), &sync), Some(quick));
    clock.advance(quick);
    intervals.sync_due(clock.monotonic(), &sync);
    assert_eq!(core.durable_end(), 2);

    // What the longer interval has left in the queue is passed over, and nothing is looked at
    // twice.
    clock.advance(SECOND * 8);
    assert_eq!(intervals.sync_due(clock.monotonic(), &sync), None);
    assert_eq!(intervals.counts(), (0, 0));
}

/// A panic in foreign code ended the worker's thread, and with it every later delivery, interval
/// sync and eviction, without an error. The rule: a panic ends a round, not the worker.
// RED: src/broker/workers/rounds.rs
//   - match foreign::call(&mut round) {
//   + match Some(round()) {
#[test]
fn row_j14_a_panic_in_a_round_does_not_end_the_worker() {
    let (workers, queues) = Workers::new(true);
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let (looked, looks) = unbounded();
    std::thread::scope(|scope| {
        let mut panics = true;
        let evict = std::cell::RefCell::new(move || {
            looked.send(()).unwrap();
            assert!(!std::mem::take(&mut panics), "as foreign code does");
            None
        });
        let worker = scope.spawn(move || {
            let evict = || (evict.borrow_mut())();
            run_space_worker(&queues, &clock, &Outbox::default(), evict, no_helper);
        });
        looks.recv().unwrap();
        workers.watch_members();
        let again = looks.recv();
        workers.stop();
        worker.join().unwrap();
        assert!(again.is_ok(), "the worker looks again");
        assert_eq!(workers.panics(), 1);
    });
}

/// Events are delivered in the workers, and what hears of them may move the clock: that leaves one
/// note for each worker, however often it happens, and blocks nobody. A clock that stands still
/// just before a deadline is looked at some twenty times a second, not all the time.
#[test]
fn a_clock_that_is_moved_within_a_worker_or_stands_still_costs_little() {
    let (workers, queues) = Workers::new(true);
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    workers.follow(&clock);
    let (looked, looks) = unbounded();
    std::thread::scope(|scope| {
        let moved = clock.clone();
        let worker = scope.spawn(move || {
            let evict = || {
                (0..1000).for_each(|_| moved.advance(SECOND));
                looked.send(queues.space.len() + queues.bulk.len()).unwrap();
                None
            };
            run_space_worker(&queues, &moved, &Outbox::default(), evict, no_helper);
        });
        assert_eq!([looks.recv().unwrap(), looks.recv().unwrap()], [2, 2]);
        workers.stop();
        worker.join().unwrap();
    });

    let (mut pace, nearly) = (Pace::default(), Duration::from_nanos(1));
    assert_eq!(pace.wait(nearly, SECOND), nearly);
    assert_eq!(pace.wait(nearly, SECOND), STANDS_STILL);
    assert_eq!(pace.wait(Duration::ZERO, SECOND), Duration::ZERO);
    assert_eq!(pace.wait(nearly, SECOND * 2), nearly);
}

/// Segments that were finished while a compaction ran had to wait for the next minute: a
/// compaction was asked for already, so they did not ask. The rule: its end asks again.
// RED: src/broker/workers/bulk.rs
//   - partition.compactor().request(Occasion::Ended);
#[test]
fn row_c14_the_end_of_a_compaction_asks_for_the_next() {
    let (broker, _, clock) = opened(|builder| builder);
    let config = TopicConfig::new(1).cleanup(Cleanup::Compact).segment_bytes(16 << 10);
    let partition = broker.ensure_topic("c", config).unwrap().partition(0).unwrap();
    let core = Arc::clone(broker.run().topic("c").unwrap().partition(0).unwrap());
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
    let engine: &Engine = broker.run();
    let step = |compactions: &mut Compactions| {
        clock.advance(SECOND);
        compactions.step(&clock, engine, &mut AtWork::default());
    };
    step(&mut compactions);
    fill();
    while compactions.next_step().is_some() {
        step(&mut compactions);
    }
    let dirty = || core.compactor().stats().unwrap().dirty_bytes;
    assert!(dirty() > 0);
    core.do_requested();
    assert_eq!(dirty(), 0);
}

/// Panics the next time it is asked, when that is set.
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
/// The rule: what a worker was at is asked for again after a second.
// RED: src/broker/workers/rounds.rs
//   - self.panicked.push(job);
//   + drop(job);
#[test]
fn row_j14_what_a_worker_was_at_when_it_panicked_is_asked_for_again() {
    let (broker, core, clock) = opened(|builder| builder.durability(Durability::Os));
    broker.producer().send(Record::to("t").value("waits for a sync")).unwrap();
    let mut at_work = AtWork::default();
    core.requests().request(Work::Sync);
    let job = || -> () {
        core.requests().begin(Work::Sync);
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
    fn run_housekeeping(&self) {}

    fn finished(&self, _: &Arc<PartitionCore>) {}

    fn relieve(&self) {}

    fn appended(&self) -> u64 {
        0
    }
}

/// A compaction that panicked stayed first in the queue: it panicked every 10 ms, and no other was
/// ever compacted. The rule: it is taken out for its step, and asked for again after a second.
// RED: src/broker/workers/bulk.rs
//   - let Some(partition) = self.queue.pop_front() else { return };
//   + let Some(partition) = self.queue.front().cloned() else { return };
#[test]
fn row_j14_a_compaction_that_panics_does_not_hold_up_the_others() {
    let clock = Clockwork::new();
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    let broker = builder.open().unwrap();
    let config = TopicConfig::new(2).cleanup(Cleanup::Compact);
    broker.ensure_topic("t", config).unwrap();
    let topic = broker.run().topic("t").unwrap();
    let [first, second] = [0, 1].map(|number| Arc::clone(topic.partition(number).unwrap()));

    let (mut compactions, mut at_work) = (Compactions::default(), AtWork::default());
    for core in [&first, &second] {
        compactions.add(Arc::clone(core), clock.monotonic());
    }
    clock.panics.store(true, Ordering::Relaxed);
    let step = || compactions.step(&clock, &NoHouse, &mut at_work);
    assert_eq!(foreign::call(step), None, "the first one's");
    assert!(compactions.queue().iter().all(|core| Arc::ptr_eq(core, &second)));
    assert_eq!(at_work.ask_again(clock.monotonic()), Some(TRY_AGAIN));
    compactions.step(&clock, &NoHouse, &mut at_work);
    assert!(compactions.queue().is_empty());
    let stats = first.compactor().stats().unwrap();
    assert_eq!((stats.failures, stats.is_running), (1, false));
}

/// A disk whose syncs, once it is closed, do not return before it is open again.
#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    /// Syncs that have begun since it was closed.
    begun: AtomicUsize,
    changed: Condvar,
}

impl Gate {
    fn disk(self: &Arc<Self>) -> Arc<dyn Disk> {
        let gate = Arc::clone(self);
        Arc::new(HookedDisk::new(Arc::new(SimulatedDisk::new()), move |operation, side| {
            let mut is_closed = gate.is_closed.lock();
            if (operation, side) == (Operation::Sync, Side::Before) && *is_closed {
                gate.begun.fetch_add(1, Ordering::Relaxed);
                gate.changed.notify_all();
                while *is_closed {
                    is_closed = gate.changed.wait(is_closed);
                }
            }
        }))
    }

    fn set_closed(&self, is_closed: bool) {
        *self.is_closed.lock() = is_closed;
        self.changed.notify_all();
    }

    /// Waits until so many syncs have begun, and says how many have.
    fn await_begun(&self, count: usize) -> usize {
        let (give_up, mut guard) = (real_now() + SECOND * 30, self.is_closed.lock());
        while self.begun.load(Ordering::Relaxed) < count && real_now() < give_up {
            guard = self.changed.wait_until(guard, give_up).0;
        }
        self.begun.load(Ordering::Relaxed)
    }
}

/// A broker with workers on a disk whose syncs can be held up, and its topic of `partitions`.
fn gated(partitions: u32, durability: Durability) -> (Broker, Arc<Gate>, ManualClock) {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + SECOND);
    let gate = Arc::new(Gate::default());
    let builder = Broker::builder().disk(gate.disk(), Path::new("/data")).clock(clock.clone());
    let broker = builder.durability(durability).open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(partitions)).unwrap();
    (broker, gate, clock)
}

fn to(partition: u32) -> Record<'static> {
    Record::to("t").partition(partition).value("x")
}

/// Interval syncs were made one after the other: 200 partitions with 50 ms on a disk of 5 ms were
/// un-synced for 1.2 s. The rule: several are in flight.
// RED: src/broker/workers/syncs.rs
//   - if queue.helpers >= HELPERS {
//   + if queue.helpers >= 1 {
#[test]
fn row_d14_syncs_of_several_partitions_are_in_flight_at_once() {
    let (broker, gate, clock) = gated(8, interval(SECOND));
    gate.set_closed(true);
    let producer = broker.producer();
    for partition in 0..8 {
        producer.send(to(partition)).unwrap();
    }
    clock.advance(SECOND);
    let begun = gate.await_begun(8);
    gate.set_closed(false);
    assert_eq!(begun, 8);
    broker.close().unwrap();
}

/// A sync that hung in the background stopped the worker: no space ahead, no eviction and no sync
/// of any other partition. The rule: it holds one helper.
// RED: src/broker/workers/space.rs
//   - Ok(Job::Do(partition, Work::Sync)) => {
//   + Ok(Job::Do(partition, Work::Sync)) if partition.is_closed() => {
#[test]
fn row_d08_a_sync_that_hangs_in_the_background_stops_no_other() {
    let (broker, gate, _) = gated(2, Durability::Sync);
    let producer = broker.producer();
    let [hangs, other] = [0, 1].map(|partition| producer.enqueue(to(partition)).unwrap());
    gate.set_closed(true);
    assert!(hangs.wait_timeout(Duration::from_millis(1)).is_none());
    assert_eq!(gate.await_begun(1), 1);
    assert!(other.wait_timeout(Duration::from_millis(1)).is_none());
    assert_eq!(gate.await_begun(2), 2, "beside the one that hangs");
    gate.set_closed(false);
    for delivery in [hangs, other] {
        delivery.wait().unwrap();
    }
    broker.close().unwrap();
}

/// The same in the other worker: a sealed segment whose sync hung kept those of all other
/// partitions from their footers, and with them retention, recovery points and compactions. The
/// rule: what is sealed is synced by a helper too, and gets its footer afterwards.
// RED: src/broker/workers/bulk.rs
//   - Ok(Job::Do(partition, Work::Finish)) => {
//   + Ok(Job::Do(partition, Work::Finish)) if partition.is_closed() => {
#[test]
fn row_d08_a_sync_of_a_sealed_segment_that_hangs_stops_no_other() {
    let gate = Arc::new(Gate::default());
    let builder = Broker::builder().disk(gate.disk(), Path::new("/data")).background(false);
    let broker = builder.durability(Durability::Os).open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(2).segment_bytes(16 << 10)).unwrap();
    let cores = [0, 1].map(|number| {
        for _ in 0..20 {
            topic.partition(number).unwrap().append(&Record::new().value(&[7; 1_000])).unwrap();
        }
        Arc::clone(broker.run().topic("t").unwrap().partition(number).unwrap())
    });
    let (workers, queues) = Workers::new(true);
    gate.set_closed(true);
    let begun = std::thread::scope(|scope| {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let start = || {
            let workers = Arc::clone(&workers);
            Ok(std::thread::spawn(move || workers.help(&Outbox::default())))
        };
        scope.spawn(move || {
            run_bulk_worker(&queues, &clock, SECOND, &Outbox::default(), &NoHouse, start);
        });
        for core in &cores {
            workers.request(core, Work::Finish);
        }
        let begun = gate.await_begun(2);
        gate.set_closed(false);
        workers.stop();
        begun
    });
    assert_eq!(begun, 2, "beside the one that hangs");
    for helper in workers.shared.syncs.take_threads() {
        helper.join().unwrap();
    }
    for core in cores {
        assert_eq!(core.finish_durable(), Finished { wants_sync: false, has_written: true });
    }
}

/// At most four syncs are in flight for footers alone, of however many partitions; one that
/// somebody waits for is not held up by that, and is made once for both.
#[test]
fn syncs_for_footers_leave_helpers_to_those_who_wait() {
    let broker = Broker::builder().in_memory().background(false).open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(8)).unwrap();
    let topic = broker.run().topic("t").unwrap();
    let syncs = Syncs::new();
    // Not joined: the test is the helper.
    let start = || Ok(std::thread::spawn(|| {}));
    let ask = |number: u32, reason| {
        syncs.ask((Arc::clone(topic.partition(number).unwrap()), reason), &start);
    };
    (0..8).for_each(|number| ask(number, For::Footers));
    ask(7, For::Waiters);
    let (first, reason) = syncs.next().unwrap();
    assert_eq!((first.origin.partition, reason), (7, For::Both));
    let taken: Vec<_> = (0..4).map(|_| syncs.next().unwrap()).collect();
    assert!(taken.iter().all(|(_, reason)| *reason == For::Footers));
    assert!(syncs.take_now().is_none(), "a fifth for footers");
    ask(6, For::Waiters);
    assert_eq!(syncs.next().unwrap().1, For::Both);
    for ask in taken {
        syncs.sync(ask).unwrap();
    }
    let left: Vec<_> =
        std::iter::from_fn(|| syncs.take_now()).map(|(core, _)| core.origin.partition).collect();
    assert_eq!(left, [4, 5]);
}

/// Footers are asked for again when the sync has ended, and both reasons to sync are served.
#[test]
fn what_is_sealed_gets_its_footer_after_the_sync() {
    let (broker, core, _) = opened(|builder| builder.durability(Durability::Os));
    let config = TopicConfig::new(1).segment_bytes(16 << 10);
    let partition = broker.ensure_topic("s", config).unwrap().partition(0).unwrap();
    let sealed = Arc::clone(broker.run().topic("s").unwrap().partition(0).unwrap());
    for _ in 0..20 {
        partition.append(&Record::new().value(&[7; 1_000])).unwrap();
    }
    assert_eq!(sealed.finish_durable(), Finished { wants_sync: true, has_written: false });
    let syncs = Syncs::new();
    syncs.ask((Arc::clone(&core), For::Footers), &no_helper);
    assert_eq!(core.finish_durable(), Finished { wants_sync: false, has_written: false });
    syncs.ask((Arc::clone(&sealed), For::Footers), &no_helper);
    let durable = sealed.durable_end();
    assert!(0 < durable && durable < sealed.log_end(), "{durable}");
    sealed.do_requested();
    assert_eq!(sealed.finish_durable(), Finished { wants_sync: false, has_written: false });
    assert_eq!(For::Footers.and(For::Waiters), For::Both);
    syncs.ask((Arc::clone(&sealed), For::Both), &no_helper);
    assert_eq!(sealed.durable_end(), sealed.log_end());
}

/// A partition has one helper, however often a sync is asked for; what was asked for while it was
/// at it is done after.
#[test]
fn a_partition_has_one_helper_and_is_synced_once_more_where_that_was_asked_for() {
    let (broker, core, _) = opened(|builder| builder.durability(Durability::Os));
    let syncs = Syncs::new();
    let started = AtomicUsize::new(0);
    let start = || {
        started.fetch_add(1, Ordering::Relaxed);
        // Not joined: the test is the helper.
        Ok(std::thread::spawn(|| {}))
    };
    let send = || broker.producer().send(Record::to("t").value("x")).unwrap();
    send();
    let ask = || syncs.ask((Arc::clone(&core), For::Waiters), &start);
    ask();
    ask();
    assert_eq!(started.load(Ordering::Relaxed), 1);
    let partition = syncs.next().unwrap();
    assert_eq!(core.durable_end(), 0);
    ask();
    syncs.sync(partition).unwrap();
    send();
    let partition = syncs.next().unwrap();
    syncs.sync(partition).unwrap();
    assert_eq!((core.durable_end(), started.load(Ordering::Relaxed)), (2, 1));
    syncs.stop();
    ask();
    assert!(syncs.next().is_none());
}

/// A requested sync goes past the worker, which may be busy, to a helper: one that is at work on the
/// partition, and syncs it once more; or one that is idle. It is begun there, and not once more by the
/// worker.
// RED: src/broker/workers/syncs.rs
//   - *again = Some(again.map_or(For::Waiters, |known| known.and(For::Waiters)));
// RED: src/broker/workers/syncs.rs
//   - queue.add(Arc::clone(partition), For::Waiters);
#[test]
fn a_requested_sync_is_begun_by_a_helper_that_is_there() {
    let (broker, core, _) = opened(|builder| builder.durability(Durability::Os));
    let syncs = Arc::new(Syncs::new());
    let send = || broker.producer().send(Record::to("t").value("x")).unwrap();
    let helps = Arc::clone(&syncs);
    let help = move || {
        let syncs = Arc::clone(&helps);
        Ok(std::thread::spawn(move || syncs.help(&|| {})))
    };
    send();
    core.requests().request(Work::Sync);
    assert!(!syncs.ask_helper(&core), "there is none");
    // The test is the helper, at work on the partition.
    syncs.ask((Arc::clone(&core), For::Waiters), &|| Ok(std::thread::spawn(|| {})));
    let at_work = syncs.take_now().unwrap();
    assert!(syncs.ask_helper(&core));
    core.do_requested();
    assert_eq!(core.durable_end(), 0, "it was begun by the helper");
    syncs.sync(at_work).unwrap();
    assert_eq!(core.durable_end(), 1);
    send();
    syncs.sync(syncs.take_now().unwrap()).unwrap();
    assert_eq!(core.durable_end(), 2);
    // A helper is idle for a moment after its work.
    let deadline = real_now() + SECOND * 30;
    loop {
        send();
        syncs.ask((Arc::clone(&core), For::Waiters), &help);
        while core.durable_end() < core.log_end() && real_now() < deadline {
            std::thread::yield_now();
        }
        let end = send().offset + 1;
        let idles = || {
            let is_asked = (0..1_000).any(|_| {
                std::thread::yield_now();
                syncs.ask_helper(&core)
            });
            is_asked.then_some(())
        };
        if idles().is_some() {
            while core.durable_end() < end {
                assert!(real_now() < deadline, "the helper was not woken");
                std::thread::yield_now();
            }
            break;
        }
        assert!(real_now() < deadline, "no helper is ever idle");
    }
    syncs.stop();
    for helper in syncs.take_threads() {
        helper.join().unwrap();
    }
}

/// Where no thread can be had, the worker syncs itself.
#[test]
fn without_a_helper_the_worker_syncs() {
    let (broker, core, _) = opened(|builder| builder.durability(Durability::Os));
    broker.producer().send(Record::to("t").value("x")).unwrap();
    Syncs::new().ask((Arc::clone(&core), For::Waiters), &no_helper);
    assert_eq!(core.durable_end(), 1);
}

struct Closes {
    broker: Mutex<Option<Broker>>,
    closed: Sender<crate::Result<()>>,
}

impl Wake for Closes {
    fn wake(self: Arc<Self>) {
        let broker = self.broker.lock().take();
        if let Some(broker) = broker {
            self.closed.send(broker.close()).unwrap();
        }
    }
}

/// A waker runs in a thread of the broker. One that closed the broker made that thread wait for its
/// own end. The rule: a close waits for the other threads.
// RED: src/broker/workers.rs
//   - for thread in threads.into_iter().filter(|thread| thread.thread().id() != own) {
//   + for thread in threads.into_iter().filter(|thread| thread.thread().id() != own || true) {
#[test]
fn row_j11_a_waker_may_close_the_broker() {
    let (broker, _, _) = gated(1, Durability::Sync);
    let (closed, is_closed) = unbounded();
    let mut delivery = broker.producer().enqueue(to(0)).unwrap();
    let waker = Waker::from(Arc::new(Closes { broker: Mutex::new(Some(broker)), closed }));
    let polled = Pin::new(&mut delivery).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    is_closed.recv_timeout(SECOND * 30).unwrap().unwrap();
}
