//! Wakers that run their task at once, in the call that wakes them, and tasks that use the broker.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Wake;

use super::*;

thread_local! {
    /// Whether a function that a waker of this thread has called has panicked: the engine ends such
    /// a panic with the call.
    static HAS_PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function once, when it is woken first.
struct CallsBack(std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for CallsBack {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().unwrap().take();
        if let Some(call) = call
            && catch_unwind(AssertUnwindSafe(call)).is_err()
        {
            HAS_PANICKED.set(true);
        }
    }
}

fn calls_back(call: impl FnOnce() + Send + 'static) -> Waker {
    Waker::from(Arc::new(CallsBack(std::sync::Mutex::new(Some(Box::new(call))))))
}

/// A waker that enqueues a record whose delivery does the same, `times` times in all, and then
/// closes the broker.
fn closes(broker: Broker, times: usize) -> Waker {
    calls_back(move || match times {
        0 => broker.close().unwrap(),
        _ => awaits(&broker, &closes(broker.clone(), times - 1)),
    })
}

/// Has a task wait for a delivery.
fn awaits(broker: &Broker, waker: &Waker) {
    let mut sent = broker.producer().enqueue(Record::to("t").value("v")).unwrap();
    assert!(Pin::new(&mut sent).poll(&mut Context::from_waker(waker)).is_pending());
    // Dropped, nobody would be woken.
    std::mem::forget(sent);
}

/// Has a waker called that uses the broker.
type Step = fn(&Broker, &ManualClock);

fn makes_a_topic(broker: &Broker) -> Waker {
    let broker = broker.clone();
    calls_back(move || drop(broker.ensure_topic("made", TopicConfig::new(1)).unwrap()))
}

fn parks(consumer: Consumer, waker: &Waker) {
    // For as long as the test runs: a stream that is dropped is not woken.
    let consumer = Box::leak(Box::new(consumer));
    assert!(poll_once(Box::leak(Box::new(consumer.stream())), waker).is_pending());
}

fn fill(broker: &Broker) {
    for _ in 0..2_000 {
        drop(broker.producer().enqueue(Record::to("t").value(&[0; 1 << 10])).unwrap());
    }
}

/// What changes a topic wakes those who wait for it.
const CHANGES: [(&str, Step); 4] = [
    ("a topic is made", |broker, _| {
        let member = broker.consumer("g").subscribe_pattern("*").open().unwrap();
        parks(member, &makes_a_topic(broker));
        broker.ensure_topic("other", TopicConfig::new(1)).unwrap();
    }),
    ("a topic grows", |broker, _| {
        parks(member(broker, "g"), &makes_a_topic(broker));
        broker.admin().add_partitions("t", 2).unwrap();
    }),
    ("a topic that is read is deleted", |broker, _| {
        let reader = broker.reader().subscribe(["t"]).open().unwrap();
        parks(reader, &makes_a_topic(broker));
        broker.admin().delete_topic("t").unwrap();
    }),
    ("a topic that is written is deleted", |broker, _| {
        awaits(broker, &makes_a_topic(broker));
        broker.admin().delete_topic("t").unwrap();
    }),
];

/// What else wakes.
const OTHERS: [(&str, Step); 4] = [
    ("a record is durable", |broker, _| {
        let reader = broker.reader().subscribe(["t"]).visibility(Visibility::Durable);
        let producer = broker.producer();
        let send = move || producer.send(Record::to("t").value("answer")).unwrap();
        parks(reader.open().unwrap(), &calls_back(move || assert_eq!(send().offset, 1)));
        broker.producer().send(Record::to("t").value("question")).unwrap();
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        assert_eq!(partition.durable_end_offset(), 2);
    }),
    ("recovery points are written", |broker, clock| {
        awaits(broker, &closes(broker.clone(), 2));
        clock.advance(Duration::from_secs(61));
        let _ = broker.tick();
        assert!(matches!(broker.topic("t"), Err(Error::Closed)));
    }),
    ("the broker is closed", |broker, _| {
        let inner = broker.clone();
        let delete = move || inner.admin().delete_topic("t");
        awaits(broker, &calls_back(move || assert!(matches!(delete(), Err(Error::Closed)))));
        broker.clone().close().unwrap();
    }),
    ("the oldest records make room", |_, _| {
        let broker = Broker::builder().in_memory().background(false).max_total_bytes(1 << 20);
        let broker = broker.when_full(WhenFull::DropOldest).open().unwrap();
        broker.ensure_topic("t", small_topic(1)).unwrap();
        let inner = broker.clone();
        awaits(&broker, &calls_back(move || fill(&inner)));
        fill(&broker);
    }),
];

/// An executor that runs a task in the call that wakes it never came back where the task used the
/// broker: wakers were called under the lock of the topics' changes (a topic that comes or goes),
/// of the recovery points, or while the partition that the task then had to sync counted as being
/// synced by the very same thread. Rule: a thread that holds something that a call may wait for
/// calls wakers only afterwards.
// RED: src/partition/group_commit.rs
//   - let _woken = foreign::hold_back();
// RED: src/broker/engine.rs
//   - let _woken = foreign::hold_back();
// RED: src/broker/topics.rs
//   - (foreign::hold_back(), self.run.env().trace.deliver_at_end())
//   + self.run.env().trace.deliver_at_end()
#[test]
fn row_j24_a_waker_may_use_the_broker() {
    let begin = |(what, step): (_, Step)| {
        let (ends, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let clock = manual_clock();
            let broker = Broker::builder().in_memory().background(false).clock(clock.clone());
            let broker = broker.open().unwrap();
            broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
            step(&broker, &clock);
            // In a debug build a lock that is taken out of order panics, and keeps nobody waiting.
            assert!(!HAS_PANICKED.get(), "{what}");
            ends.send(()).unwrap();
        });
        (what, ended)
    };
    let stuck = CHANGES.into_iter().chain(OTHERS).map(begin).collect::<Vec<_>>().into_iter();
    let stuck = stuck.filter(|(_, ended)| ended.recv_timeout(PATIENCE).is_err());
    let stuck: Vec<_> = stuck.map(|(what, _)| what).collect();
    assert!(stuck.is_empty(), "{stuck:?}");
}
