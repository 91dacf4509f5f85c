//! A service that keeps its orders on three machines, with tests of what it does when the leader dies,
//! and with a twin that lacks what each promise needs. The test passes for the service and fails for its
//! twin: so it is a test.
//!
//! ```sh
//! cargo run --features testing,replication --example test_cluster
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::time::Duration;

use logpond::testing::TestCluster;
use logpond::{Acks, Broker, Error, NodeId, Record, Result, TopicConfig};

fn main() -> Result<()> {
    let promises: [(&str, Check); 2] = [
        ("orders are taken again when another member leads", finds_the_next_leader),
        ("an acknowledged order is kept when the leader dies", keeps_orders),
    ];
    for (promise, test) in promises {
        assert!(test(Service::Whole)?, "{promise}");
        assert!(!test(Service::Twin)?, "the test does not notice what the twin lacks: {promise}");
        println!("{promise}: shown, and missed where the service lacks what it needs");
    }
    Ok(())
}

/// Says whether a service keeps its promise.
type Check = fn(Service) -> Result<bool>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Whole,
    /// Without what its promise needs.
    Twin,
}

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// Three members, one of which leads, and their brokers as the service has them: the leader first.
fn cluster() -> Result<(TestCluster, Vec<Broker>)> {
    let cluster = TestCluster::new(NODES.len());
    cluster.leader().ensure_topic("orders", TopicConfig::new(1))?;
    let others = NODES.into_iter().filter(|node| Some(*node) != cluster.leader_id());
    let mut brokers = vec![cluster.leader().clone()];
    brokers.extend(others.map(|node| cluster.broker(node).clone()));
    Ok((cluster, brokers))
}

/// Calls one broker after the other, until one of them has done it.
fn anywhere<T>(brokers: &[Broker], call: impl Fn(&Broker) -> Result<T>) -> Result<T> {
    let mut last = Error::Closed;
    for broker in brokers.iter().cycle().take(100) {
        match call(broker) {
            Err(error) => last = error,
            done => return done,
        }
    }
    Err(last)
}

fn order() -> Record<'static> {
    Record::to("orders").partition(0).value("2 apples")
}

/// The twin knows the first broker only.
fn finds_the_next_leader(service: Service) -> Result<bool> {
    let (cluster, brokers) = cluster()?;
    let known = match service {
        Service::Whole => &brokers[..],
        Service::Twin => brokers.get(..1).unwrap_or_default(),
    };
    let take = || anywhere(known, |broker| broker.producer().send(order()));
    take()?;
    cluster.leader_id().into_iter().for_each(|node| cluster.crash(node));
    Ok(take().is_ok())
}

/// The twin does not wait for the other members.
fn keeps_orders(service: Service) -> Result<bool> {
    let (cluster, _) = cluster()?;
    let acks = match service {
        Service::Whole => Acks::Quorum,
        Service::Twin => Acks::Leader,
    };
    cluster.leader().producer_builder().acks(acks).build()?.send(order())?;
    cluster.leader_id().into_iter().for_each(|node| cluster.crash(node));
    let is_led = cluster.run_until(|it| it.leader_id().is_some(), Duration::from_secs(10));
    Ok(is_led && cluster.produced("orders").len() == 1)
}
