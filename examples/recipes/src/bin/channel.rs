//! From a bounded channel (`std::sync::mpsc::sync_channel`) to a topic.
//!
//! A send waits while the topic is full, as in the channel. The receiver deletes what it has
//! committed, which makes room.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use logpond::{Admin, Broker, Error, TopicConfig, TypedConsumer, TypedProducer, WhenFull};
use serde::{Deserialize, Serialize};

/// The last message ends the receiver: a topic has no end when its senders are dropped.
#[derive(Serialize, Deserialize)]
enum Work {
    Resize { image: u64, path: String },
    End,
}

const IMAGES: u64 = 20_000;
/// What the channel's capacity was, in bytes. Segments are removed as a whole, so they are small.
const CAPACITY: u64 = 512 << 10;
const SEGMENT: u64 = 32 << 10;

/// As the send of the channel: waits while there is no room, as long as `waits_on` says so.
fn send(
    sender: &TypedProducer<Work>,
    work: &Work,
    mut waits_on: impl FnMut() -> bool,
) -> logpond::Result<()> {
    loop {
        match sender.send(work) {
            // `at_most` is over, and nothing was stored.
            Err(Error::StorageFull { .. }) if waits_on() => {}
            sent => return sent.map(drop),
        }
    }
}

/// Returns how many images there were.
fn receive(mut receiver: TypedConsumer<Work>, admin: &Admin) -> logpond::Result<u64> {
    let (mut images, mut is_over) = (0, false);
    while !is_over {
        for work in receiver.poll(Duration::from_secs(1))? {
            match work.value? {
                Some(Work::Resize { image, path }) => {
                    assert_eq!((image, path), (images, format!("{images}.png")), "in order");
                    images += 1;
                }
                Some(Work::End) | None => is_over = true,
            }
        }
        receiver.commit()?;
        // With several groups: up to the lowest of their commits.
        for partition in receiver.inner().assignment() {
            if let Some(done) = receiver.inner().position(&partition) {
                admin.delete_records(&partition, done)?;
            }
        }
    }
    receiver.close()?;
    Ok(images)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `data_dir(..)` in place of `in_memory()` keeps the work across a crash.
    let broker = Broker::builder().in_memory().max_total_bytes(CAPACITY);
    let at_most = Duration::from_millis(20);
    let broker = broker.when_full(WhenFull::Wait { at_most }).open()?;
    broker.ensure_topic("images", TopicConfig::new(1).segment_bytes(SEGMENT))?;

    // was: let (sender, receiver) = sync_channel(1000);
    let sender = broker.producer().typed::<Work>("images");
    let receiver = broker.consumer("resizer").subscribe(["images"]).open_typed::<Work>()?;
    let (full, begin) = channel();
    let admin = broker.admin();
    let receiver = thread::spawn(move || {
        let _ = begin.recv(); // so that the sender finds the topic full
        receive(receiver, &admin)
    });
    let mut full_count = 0;
    let mut waits_on = || {
        full_count += 1;
        let _ = full.send(());
        full_count < 1_000 // a receiver that deletes nothing is noticed
    };
    for image in 0..IMAGES {
        let work = Work::Resize { image, path: format!("{image}.png") };
        send(&sender, &work, &mut waits_on)?;
        assert!(broker.metrics().budget_used_bytes <= CAPACITY);
    }
    send(&sender, &Work::End, &mut waits_on)?;
    let images = receiver.join().map_err(|_| "the receiver has panicked")??;
    assert_eq!(images, IMAGES);
    let metrics = broker.metrics();
    let sent: u64 =
        metrics.topics.iter().flat_map(|it| &it.partitions).map(|it| it.appended.bytes).sum();
    assert!(full_count > 0 && sent > 2 * CAPACITY, "the sender has waited");
    println!("{images} images, {sent} bytes through {CAPACITY}; full {full_count} times");
    Ok(broker.close()?)
}
