//! A durable queue inside a service: request handlers put work in, a worker takes it out, and
//! nothing is lost when a worker, or the whole process, dies in between.
//!
//! ```sh
//! cargo run --example quickstart            # keeps its data in target/quickstart
//! cargo run --example quickstart -- DIR     # or in a directory of yours
//! ```
//!
//! Offsets grow from run to run: the queue and the group's progress are on disk.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::env;
use std::time::Duration;

use logpond::{Broker, MessageRef, Record, TopicConfig};

fn main() -> logpond::Result<()> {
    let dir = env::args_os().nth(1).unwrap_or_else(|| "target/quickstart".into());
    let broker = Broker::open(&dir)?;
    broker.ensure_topic("emails", TopicConfig::new(4))?;

    // A request handler. When `send` returns, the record is on stable storage. The key chooses
    // the partition: what concerns one user stays in order.
    let producer = broker.producer();
    for user in ["user-7", "user-12", "user-9"] {
        let sent = producer.send(Record::to("emails").key(user).value("welcome!"))?;
        println!("queued for {user}: partition {}, offset {}", sent.partition, sent.offset);
    }

    // A worker that takes a message and dies before it commits.
    let mut unlucky = broker.consumer("mailer").subscribe(["emails"]).open()?;
    let taken = unlucky.recv()?;
    println!("a worker took partition {}, offset {}, and died", taken.partition(), taken.offset());
    drop(unlucky);

    // Its successor in the group continues from what was committed, so it gets that message again.
    let mut worker = broker.consumer("mailer").subscribe(["emails"]).open()?;
    loop {
        let batch = worker.poll(Duration::from_millis(200))?;
        if batch.is_empty() {
            break;
        }
        for message in batch.iter() {
            deliver(&message);
        }
        worker.commit()?; // only now are these messages done
    }
    println!("left in the queue: {}", worker.lag()?.values().sum::<u64>());

    worker.close()?;
    broker.close()
}

fn deliver(message: &MessageRef<'_>) {
    println!(
        "delivered to {}: {:?} (partition {}, offset {})",
        String::from_utf8_lossy(message.key().unwrap_or_default()),
        String::from_utf8_lossy(message.value().unwrap_or_default()),
        message.partition(),
        message.offset(),
    );
}
