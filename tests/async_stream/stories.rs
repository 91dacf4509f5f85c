//! Streams and deliveries as an application uses them, with the engine's threads, for any executor:
//! `tests/async_stream.rs` runs them on a plain `block_on`, `tests/executors/streams.rs` on tokio
//! and smol.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use logpond::{Broker, Consumer, ConsumerHandle, Durability, Record, TopicConfig, Visibility};

use crate::common::*;

/// What `StreamExt::next` is in other crates.
pub(crate) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

pub(crate) fn member(broker: &Broker, group: &str) -> Consumer {
    broker.consumer(group).subscribe(["t"]).open().unwrap()
}

/// With the engine's threads: whatever is missed here hangs the test.
pub(crate) async fn a_stream_waits_for_another_thread() {
    const COUNT: u64 = 2_000;
    let broker = Broker::in_memory().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let mut consumer = member(&broker, "g");
    let handle = consumer.handle();
    let sender = {
        let broker = broker.clone();
        std::thread::spawn(move || send_numbers(&broker, "t", 0, 0..COUNT))
    };
    let mut stream = consumer.stream();
    for expected in 0..COUNT {
        let message = next(&mut stream).await.unwrap().unwrap();
        assert_eq!(number(&message), expected);
        if expected.is_multiple_of(16) {
            handle.wake();
        }
    }
    sender.join().unwrap();
    let stopper = std::thread::spawn(move || handle.shutdown());
    assert!(next(&mut stream).await.is_none());
    stopper.join().unwrap();
}

pub(crate) async fn deliveries_resolve() {
    let dir = temp_dir();
    let builder = Broker::builder().data_dir(dir.path()).durability(Durability::Sync);
    let broker = builder.open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let producer = broker.producer();
    let mut deliveries = Vec::new();
    for offset in 0..20u64 {
        let delivery = producer.enqueue(Record::to("t").value(&offset.to_string())).unwrap();
        deliveries.push((offset, delivery));
    }
    for (offset, delivery) in deliveries {
        assert_eq!(delivery.await.unwrap().offset, offset);
    }
    assert_eq!(broker.topic("t").unwrap().partition(0).unwrap().durable_end_offset(), 20);
    // One that is waited for when the broker goes away gets an answer too.
    let delivery = producer.enqueue(Record::to("t").value("last")).unwrap();
    let closer = std::thread::spawn(move || broker.close().unwrap());
    assert_eq!(delivery.await.unwrap().offset, 20);
    closer.join().unwrap();
}

pub(crate) async fn a_stream_waits_for_what_is_durable() {
    let dir = temp_dir();
    let broker = Broker::builder().data_dir(dir.path()).durability(Durability::Os).open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let reader = broker.reader().subscribe(["t"]).visibility(Visibility::Durable);
    let mut consumer = reader.open().unwrap();
    let mut stream = consumer.stream();
    send_numbers(&broker, "t", 0, 0..3);
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    for expected in 0..3 {
        assert_eq!(number(&next(&mut stream).await.unwrap().unwrap()), expected);
        assert!(partition.durable_end_offset() > expected);
    }
}

/// Reads into a shared list until `total` messages are there, then ends all members.
pub(crate) async fn share(
    mut consumer: Consumer,
    seen: Arc<std::sync::Mutex<Vec<u64>>>,
    handles: Vec<ConsumerHandle>,
    total: usize,
) -> usize {
    let mut count = 0;
    let mut stream = consumer.stream();
    while let Some(message) = next(&mut stream).await {
        let mut seen = seen.lock().unwrap();
        seen.push(number(&message.unwrap()));
        count += 1;
        if seen.len() == total {
            handles.iter().for_each(ConsumerHandle::shutdown);
        }
    }
    count
}

/// Four partitions with the same number of records each, shared by two members.
pub(crate) fn two_streams_of_a_group(
    run: impl FnOnce(Vec<Pin<Box<dyn Future<Output = usize> + Send>>>),
) {
    const EACH: u64 = 250;
    let broker = Broker::in_memory().unwrap();
    broker.ensure_topic("t", TopicConfig::new(4)).unwrap();
    let mut members: Vec<_> = (0..2).map(|_| member(&broker, "g")).collect();
    // Each has its share before the first record comes.
    for member in members.iter_mut().rev().chain([&mut member(&broker, "other")]) {
        member.poll(Duration::ZERO).unwrap();
    }
    let handles: Vec<_> = members.iter().map(Consumer::handle).collect();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let futures = members.into_iter().map(|member| {
        let future = share(member, Arc::clone(&seen), handles.clone(), 4 * 250);
        Box::pin(future) as Pin<Box<dyn Future<Output = usize> + Send>>
    });
    let futures = futures.collect();
    let sender = std::thread::spawn(move || {
        for partition in 0..4 {
            let start = u64::from(partition) * EACH;
            send_numbers(&broker, "t", partition, start..start + EACH);
        }
    });
    run(futures);
    sender.join().unwrap();
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_unstable();
    assert_eq!(seen, (0..4 * EACH).collect::<Vec<_>>());
}
