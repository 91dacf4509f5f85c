//! Broadcast between the parts of one process: every group sees every record, at its own pace.
//!
//! ```sh
//! cargo run --example broadcast
//! ```
//!
//! Here everything stays in memory. With `Broker::open(dir)` in place of `Broker::in_memory()`
//! the same program survives a restart.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::collections::BTreeMap;
use std::thread;

use logpond::{Broker, Error, TopicConfig, TypedConsumer, TypedMessage};
use serde::{Deserialize, Serialize};

/// A new price of an article, whose name is the key.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct PriceChanged {
    cents: u64,
}

const CHANGES: [(&str, u64); 5] =
    [("sku-1", 1999), ("sku-2", 250), ("sku-1", 1799), ("sku-3", 99), ("sku-2", 275)];

type Feed = TypedConsumer<PriceChanged>;

fn main() -> logpond::Result<()> {
    let broker = Broker::in_memory()?;
    // One partition: every group sees the changes in the order in which they were made.
    broker.ensure_topic("prices", TopicConfig::new(1))?;

    let feed = |group| broker.consumer(group).subscribe(["prices"]).open_typed::<PriceChanged>();
    let (cache, search, audit) = (feed("cache")?, feed("search")?, feed("audit")?);

    thread::scope(|scope| -> logpond::Result<()> {
        let cache = scope.spawn(|| latest_prices(cache));
        let search = scope.spawn(|| changes_per_article(search));
        let audit = scope.spawn(|| sum_of_prices(audit));

        let prices = broker.producer().typed::<PriceChanged>("prices");
        for (article, cents) in CHANGES {
            prices.send_keyed(article, &PriceChanged { cents })?;
        }

        println!("cache:  latest prices {:?}", joined(cache)?);
        println!("search: changes seen  {:?}", joined(search)?);
        println!("audit:  sum of prices {}", joined(audit)?);
        Ok(())
    })?;
    broker.close()
}

/// Keeps the newest price of each article.
fn latest_prices(mut feed: Feed) -> logpond::Result<BTreeMap<String, u64>> {
    let mut prices = BTreeMap::new();
    for message in feed.iter().take(CHANGES.len()) {
        let (article, cents) = price_change(message?)?;
        prices.insert(article, cents);
    }
    Ok(prices)
}

/// Counts what would have to be indexed again.
fn changes_per_article(mut feed: Feed) -> logpond::Result<BTreeMap<String, usize>> {
    let mut changes = BTreeMap::new();
    for message in feed.iter().take(CHANGES.len()) {
        let (article, _) = price_change(message?)?;
        *changes.entry(article).or_default() += 1;
    }
    Ok(changes)
}

/// Adds everything up, and remembers in the group `audit` how far it came.
fn sum_of_prices(mut feed: Feed) -> logpond::Result<u64> {
    let mut sum = 0;
    for _ in CHANGES {
        let message = feed.recv()?;
        sum += price_change(message.clone())?.1;
        feed.commit_message(&message)?;
    }
    Ok(sum)
}

/// Bytes that are no price change end this program; another one might note them and continue.
fn price_change(message: TypedMessage<PriceChanged>) -> logpond::Result<(String, u64)> {
    let article = String::from_utf8_lossy(message.raw.key().unwrap_or_default()).into_owned();
    let change = message.value.map_err(Error::from)?;
    // No value at all: the article is no longer sold.
    Ok((article, change.map_or(0, |change| change.cents)))
}

/// What a thread returned. A panic in it continues here.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
