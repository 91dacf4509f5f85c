//! A topic as a table: of each key the latest record stays, and a reader that begins at the start
//! has them all.
//!
//! ```sh
//! cargo run --example compacted_topic
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::collections::BTreeMap;
use std::time::Duration;

use logpond::{Broker, Cleanup, Record, TopicConfig};

fn main() -> logpond::Result<()> {
    let broker = Broker::in_memory()?;
    // Small segments, since the one that takes the appends is never compacted.
    let config = TopicConfig::new(1).cleanup(Cleanup::Compact).segment_bytes(16 << 10);
    broker.ensure_topic("profiles", config)?;

    let producer = broker.producer();
    let padding = "x".repeat(200);
    for version in 1..=100 {
        for user in ["ann", "bob", "cid"] {
            let profile = format!("version {version} {padding}");
            producer.send(Record::to("profiles").key(user).value(&profile))?;
        }
    }
    // Deleted: a record without a value.
    producer.send(Record::to("profiles").key("bob").tombstone())?;

    // The background does this by itself once enough is superseded.
    let report = broker.admin().compact_now("profiles")?;
    println!(
        "{} records went, {} bytes became {}",
        report.records_removed, report.bytes_before, report.bytes_after
    );

    let mut table = BTreeMap::new();
    let mut read = 0;
    let mut reader = broker.reader().subscribe(["profiles"]).open()?;
    loop {
        let batch = reader.poll(Duration::ZERO)?;
        if batch.is_empty() {
            break;
        }
        for message in batch.iter() {
            read += 1;
            let key = message.key().unwrap_or_default().to_vec();
            match message.value() {
                Some(value) => table.insert(key, value.to_vec()),
                None => table.remove(&key),
            };
        }
    }
    println!("{read} of 301 records were read to learn of {} users", table.len());
    assert!(read < 301 && table.len() == 2);
    broker.close()
}
