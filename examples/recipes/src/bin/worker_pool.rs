//! A pool with more workers than partitions: messages are worked on out of order and committed in
//! order, so that no message is skipped after a crash.
//!
//! One thread polls, gives each message to the worker of its key, so that messages of one key stay
//! in order, and commits each partition up to the first message that is not done.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use logpond::{Broker, Consumer, DefaultPartitioner, Error, InFlight, Message, Partitioner};
use logpond::{Record, Result, TopicConfig};

/// At about as many messages that are not committed, the pool waits for the slowest.
const LIMIT: usize = 100;

/// Returns after `ConsumerHandle::shutdown`, when all that was begun is done and committed.
fn run_pool(mut inbox: Consumer, workers: u32, work: impl Fn(&Message) + Sync) -> Result<()> {
    thread::scope(|scope| {
        let (finished, done) = channel();
        let start = |_| -> Sender<Message> {
            let (sender, messages) = channel();
            let (finished, pool, work) = (finished.clone(), inbox.handle(), &work);
            scope.spawn(move || {
                for message in messages {
                    work(&message);
                    let _ = finished.send(message); // nobody receives after an error of the pool
                    pool.wake();
                }
            });
            sender
        };
        let senders: Vec<_> = (0..workers).map(start).collect();
        drop(finished);
        let (by_key, mut begun) = (DefaultPartitioner::new(), InFlight::new());
        loop {
            let batch = match inbox.poll(Duration::from_secs(60)) {
                Err(Error::Closed) => break,
                polled => polled?,
            };
            begun.retain(&inbox.assignment());
            for message in batch {
                begun.begin(&message);
                let worker = senders.get(by_key.partition(message.key(), workers) as usize);
                let sent = worker.ok_or(Error::Closed)?.send(message);
                sent.map_err(|_| Error::Closed)?; // it has panicked, and so does the scope
            }
            commit(&mut inbox, &mut begun, done.try_iter())?;
            // While all is paused, a poll returns nothing, and keeps this member in its group.
            match begun.len() {
                0..LIMIT => inbox.resume_all(),
                _ => inbox.pause_all(),
            }
        }
        drop(senders); // the workers end when they have done what they were given
        commit(&mut inbox, &mut begun, done.iter())?;
        inbox.close()
    })
}

fn commit(
    inbox: &mut Consumer,
    begun: &mut InFlight,
    done: impl Iterator<Item = Message>,
) -> Result<()> {
    done.for_each(|message| begun.finish(&message));
    for message in begun.take_done() {
        match inbox.commit_message(&message) {
            Err(Error::Rebalanced { .. }) => {} // its new owner does it again
            committed => committed?,
        }
    }
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::in_memory()?;
    broker.ensure_topic("jobs", TopicConfig::new(2))?;
    for number in 0_u8..=255 {
        broker.producer().send(Record::to("jobs").key(&[number % 32]).value("job"))?;
    }
    let inbox = broker.consumer("workers").subscribe(["jobs"]).open()?;
    let stop = inbox.handle();
    let (log, done) = channel();
    let slow = Arc::new(Mutex::new(()));
    let (slow_job, first_job) = (Arc::clone(&slow), slow.lock());
    let work = move |message: &Message| {
        if (message.partition(), message.offset()) == (0, 0) {
            drop(slow_job.lock());
        }
        let _ = log.send(message.clone());
    };
    let pool = thread::spawn(move || run_pool(inbox, 8, work));
    let group = || broker.admin().describe_group("workers");
    let mut log: Vec<_> = done.iter().take(200).collect();
    assert!(log.iter().any(|it| it.partition() == 0), "they did not wait for the slow one");
    let is_skipped = group()?.offsets.iter().all(|it| it.committed.is_some_and(|next| next > 0));
    assert!(!is_skipped, "after a crash it would not be delivered again");
    drop(first_job);
    log.extend(done.iter().take(56));
    stop.shutdown();
    pool.join().map_err(|_| "the pool has panicked")??;
    assert_eq!(group()?.offsets.iter().map(|it| it.lag).sum::<u64>(), 0, "all are committed");
    let of_key = |key: u8| log.iter().filter(move |it| it.key() == Some(&[key][..]));
    assert!((0..32).all(|key| of_key(key).map(Message::offset).is_sorted()), "each key in order");
    println!("8 workers, 2 partitions, 32 keys in order");
    Ok(broker.close()?)
}
