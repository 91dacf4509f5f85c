//! Streams, calls and deliveries as an application uses them, with the engine's threads, for any executor:
//! `tests/async_stream.rs` runs them on a plain `block_on`, `tests/executors/streams.rs` on tokio
//! and smol.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use logpond::{
    Broker, Consumer, ConsumerHandle, Durability, Error, Offsets, Record, TopicConfig, Visibility,
};

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

/// The loop of a worker: next, work, commit; with the engine's threads.
pub(crate) async fn a_worker_commits_each_message() {
    const COUNT: u64 = 40;
    let dir = temp_dir();
    let broker = Broker::open(dir.path()).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let mut consumer = member(&broker, "g");
    let sender = {
        let broker = broker.clone();
        std::thread::spawn(move || send_numbers(&broker, "t", 0, 0..COUNT))
    };
    let mut inbox = consumer.in_async();
    for expected in 0..COUNT / 2 {
        let message = inbox.recv().await.unwrap();
        assert_eq!(number(&message), expected);
        inbox.commit_message(&message).await.unwrap();
        assert_eq!(inbox.inner().committed(("t", 0)).unwrap(), Some(expected + 1));
    }
    sender.join().unwrap();
    let mut next = COUNT / 2;
    while next < COUNT {
        for message in inbox.poll().await.unwrap() {
            assert_eq!(number(&message), next);
            next += 1;
        }
        inbox.commit().await.unwrap();
    }
    assert_eq!(inbox.inner().committed(("t", 0)).unwrap(), Some(COUNT));
    inbox.commit_offsets(&Offsets::from([(tp("t", 0), 7)])).await.unwrap();
    assert_eq!(inbox.inner().committed(("t", 0)).unwrap(), Some(7));
    let handle = inbox.handle();
    let caller = std::thread::spawn(move || handle.wake());
    assert!(matches!(inbox.recv().await, Err(Error::Timeout)));
    caller.join().unwrap();
    let handle = inbox.handle();
    let stopper = std::thread::spawn(move || handle.shutdown());
    assert!(matches!(inbox.poll().await, Err(Error::Closed)));
    stopper.join().unwrap();
}

/// A record is acknowledged in a task when it is on the disk.
pub(crate) async fn a_task_sends() {
    let dir = temp_dir();
    let broker = Broker::open(dir.path()).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let producer = broker.producer();
    for offset in 0..20 {
        let sent = producer.in_async().send(Record::to("t").value("v")).await.unwrap();
        assert_eq!(sent.offset, offset);
        assert!(partition.durable_end_offset() > offset);
    }
    let at_os = broker.producer_builder().durability(Durability::Os).build().unwrap();
    assert_eq!(at_os.in_async().send(Record::to("t").value("v")).await.unwrap().offset, 20);
}

/// A task that owns its stream, commits what it yields, and is ended from outside.
pub(crate) fn a_stream_of_its_own() -> impl Future<Output = ()> + Send + 'static {
    let broker = Broker::in_memory().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..30);
    let mut stream = member(&broker, "g").into_stream();
    async move {
        let handle = stream.handle();
        for expected in 0..30 {
            let message = next(&mut stream).await.unwrap().unwrap();
            assert_eq!(number(&message), expected);
            stream.commit_message(&message).await.unwrap();
        }
        handle.shutdown();
        assert!(next(&mut stream).await.is_none());
        // After its end too: this is how a service stops.
        stream.commit().await.unwrap();
        assert_eq!(stream.inner().committed(("t", 0)).unwrap(), Some(30));
        drop(stream);
        assert!(broker.admin().describe_group("g").unwrap().members.is_empty());
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
