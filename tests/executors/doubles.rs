//! Goal: a test broker works where applications write tests: plain, on tokio, in proptest, many at
//! the same time.
//!
//! Method: the same small services as an application has, one test of each kind. Not covered: what
//! the test broker can do, which `tests/testing.rs` tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use logpond::testing::{ErrorKind, Fault, TestBroker, at_every_crash};
use logpond::{Broker, Error, Record, TopicConfig};
use proptest::prelude::*;

fn broker() -> TestBroker {
    let broker = TestBroker::new();
    broker.ensure_topic("orders", TopicConfig::new(2)).unwrap();
    broker
}

/// A service: takes orders until the broker refuses one, and says how many it has taken.
fn take(broker: &Broker, orders: &[String]) -> usize {
    let producer = broker.producer();
    let take = |order: &&String| producer.send(Record::to("orders").key(*order).value(*order));
    orders.iter().take_while(|order| take(order).is_ok()).count()
}

/// The same service, async.
async fn take_in_async(broker: &Broker, orders: &[String]) -> logpond::Result<usize> {
    let producer = broker.producer();
    for order in orders {
        producer.in_async().send(Record::to("orders").key(order).value(order)).await?;
    }
    Ok(orders.len())
}

fn orders(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("order {number}")).collect()
}

#[test]
fn in_a_plain_test() {
    let broker = broker();
    broker.faults().set(Fault::append().after(2).error(ErrorKind::StorageFull));
    assert_eq!(take(&broker, &orders(5)), 2);
}

/// With one thread nobody else could make the syncs that the futures wait for.
#[tokio::test(flavor = "current_thread")]
async fn on_one_thread_of_tokio() {
    let broker = broker();
    assert_eq!(take_in_async(&broker, &orders(5)).await.unwrap(), 5);
    let mut packer = broker.consumer("packers").subscribe(["orders"]).open().unwrap();
    let mut packer = packer.in_async();
    let mut count = 0;
    while count < 5 {
        count += packer.poll().await.unwrap().len();
    }
    broker.faults().set(Fault::commit().of_group("packers").error(ErrorKind::TimedOut));
    assert!(matches!(packer.commit().await, Err(Error::Io { .. })));
    packer.commit().await.unwrap();
    assert_eq!(broker.lag("packers").values().sum::<u64>(), 0);

    broker.faults().fail_next_append(("orders", 0), ErrorKind::StorageFull);
    broker.faults().fail_next_append(("orders", 1), ErrorKind::StorageFull);
    let refused = take_in_async(&broker, &orders(1)).await;
    assert!(matches!(refused, Err(Error::StorageFull { .. })));
    broker.faults().rebalance("packers");
    assert!(broker.finish().is_err(), "one of the partitions got no order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_several_threads_of_tokio() {
    let broker = broker();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let broker = broker.clone();
            tokio::spawn(async move { take_in_async(&broker, &orders(10)).await.unwrap() })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        taken += task.await.unwrap();
    }
    assert_eq!((taken, broker.produced("orders").len()), (80, 80));
}

/// A record that arrives from another thread, and a bound that only a failing test runs into.
#[test]
fn with_another_thread() {
    let broker = broker();
    let service = {
        let broker = broker.clone();
        std::thread::spawn(move || take(&broker, &orders(3)))
    };
    let has_all = |broker: &TestBroker| broker.produced("orders").len() == 3;
    broker.wait_for("three orders", Duration::from_secs(60), has_all);
    assert_eq!(service.join().unwrap(), 3);
}

#[test]
fn many_at_the_same_time() {
    let tests: Vec<_> = (0..64)
        .map(|number| {
            std::thread::spawn(move || {
                let broker = broker();
                assert_eq!(take(&broker, &orders(number)), number);
                let broker = broker.crash().power_cut(number as u64).unwrap();
                assert_eq!(broker.produced("orders").len(), number);
            })
        })
        .collect();
    for test in tests {
        test.join().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whatever was sent, and whenever the disk stops: no acknowledged order is lost.
    #[test]
    fn in_proptest(orders in prop::collection::vec("[a-z]{1,8}", 0..12), point in 0u64..40, seed: u64) {
        let broker = broker();
        broker.stop_disk_after(point);
        let taken = take(&broker, &orders);
        let broker = broker.crash().power_cut(seed).unwrap();
        prop_assert!(broker.produced("orders").len() >= taken);
        broker.advance(Duration::from_secs(1)).unwrap();
    }
}

/// The loop over every crash, as the guide shows it.
#[test]
fn at_every_crash_of_a_service() {
    let crashes = at_every_crash(
        broker,
        |broker| take(broker, &orders(3)),
        |taken, broker| {
            assert!(broker.produced("orders").len() >= taken);
        },
    );
    assert!(crashes >= 4 * 7, "{crashes}: each send makes two changes");
}
