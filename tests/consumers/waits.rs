//! What ends a wait.

use super::*;

/// A reader whose pattern matched nothing waited for ever when the broker was closed: the end of
/// the broker reached a consumer through its partitions, or through its group. Rule: the broker
/// itself knows all its consumers, and calls each of them when it is closed.
// RED: src/broker/engine.rs
//   - self.consumers.call_all();
#[test]
fn row_j08_the_end_of_the_broker_ends_the_wait_of_a_consumer_without_partitions() {
    for is_member in [false, true] {
        for call in [0, 1, 2] {
            let broker = filled(&[1]);
            let builder = if is_member { broker.consumer("g") } else { broker.reader() };
            let mut consumer = builder.subscribe_pattern("none-*").open().unwrap();
            let (parked, is_parked) = mpsc::channel();
            let (ends, ended) = mpsc::channel();
            thread::spawn(move || {
                parked.send(ThreadState::here()).unwrap();
                let result = match call {
                    0 => consumer.recv().map(drop),
                    1 => consumer.poll(Duration::MAX).map(drop),
                    _ => consumer.iter().next().map_or(Err(Error::Closed), |next| next.map(drop)),
                };
                ends.send(result)
            });
            is_parked.recv().unwrap().wait_until_it_sleeps();
            broker.close().unwrap();
            let result = ended.recv_timeout(PATIENCE).expect("the wait ends");
            assert!(matches!(result, Err(Error::Closed)), "{is_member} {call}: {result:?}");
        }
    }
}
