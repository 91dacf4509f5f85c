//! What the children do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::*;
use crate::ledger::{id_of, say};
use logpond::{
    Broker, Cleanup, Durability, Error, ManualClock, Offsets, Partition, Record, Result,
    TopicConfig,
};

/// A name that a child looks for, and does not find, when its work begins.
pub(crate) const BEGIN: &str = "nothing-is-here";

/// The key of a record in the compacted topic.
pub(crate) fn key_of(id: &str) -> String {
    let count: u64 = id.split(' ').nth(1).unwrap().parse().unwrap();
    format!("key {}", count % 3)
}

/// A bit of everything that stores something, in one thread and in one order, in two runs. What
/// fails is said, and the rest is done all the same.
#[test]
fn child_works() {
    let Some(dir) = child_dir() else { return };
    let _marks_the_beginning = fs::metadata(dir.join(BEGIN));
    say("began");
    for run in 0..2 {
        // An opening that failed can be tried again.
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let open = || open(&dir, &clock).inspect_err(|error| failed("open", error));
        let Ok(broker) = open().or_else(|_| open()) else { continue };
        say("opened");
        Worker { broker: broker.clone(), run }.work(&clock);
        match broker.close() {
            Ok(()) => say("closed"),
            Err(error) => failed("close", &error),
        }
    }
    say("ended");
}

pub(crate) fn open(dir: &Path, clock: &ManualClock) -> Result<Broker> {
    let builder = Broker::builder().data_dir(dir).durability(Durability::Sync);
    builder.clock(clock.clone()).background(false).open()
}

fn failed(what: &str, error: &Error) {
    let kind = if error.is_definite() { "definite" } else { "unknown" };
    say(&format!("failed {what} {kind} {error:?}").replace('\n', " "));
}

struct Worker {
    broker: Broker,
    run: u64,
}

const SMALL: u64 = SMALL_SEGMENT;

impl Worker {
    fn work(&self, clock: &ManualClock) {
        self.create("a", TopicConfig::new(2).segment_bytes(SMALL));
        self.create("o", TopicConfig::new(1).segment_bytes(SMALL).durability(Durability::Os));
        let keyed = TopicConfig::new(1).segment_bytes(SMALL).durability(Durability::Os);
        self.create("k", keyed.cleanup(Cleanup::Compact));
        self.create("r", TopicConfig::new(1).segment_bytes(SMALL));
        for turn in 0..8 {
            self.send("a", 0, turn, 3_500);
            self.batch("a", 1, turn);
            self.send("o", 0, turn, 3_000);
            self.send("k", 0, turn, 2_500);
            self.send("r", 0, turn, 4_000);
            if turn % 3 == 2 {
                self.commit(turn);
            }
            if turn == 4 {
                clock.advance(Duration::from_secs(61));
                self.note("tick", self.broker.tick());
            }
        }
        self.delete_records(3 + self.run * 4);
        self.note("compact", self.broker.admin().compact_now("k"));
        self.create("x", TopicConfig::new(1));
        self.delete("x");
        self.note("flush", self.topic("o", 0).and_then(|it| it.flush()));
        self.note("tick", self.broker.tick());
    }

    fn note<T>(&self, what: &str, done: Result<T>) {
        if let Err(error) = done {
            failed(&format!("{what} of run {}", self.run), &error);
        }
    }

    fn topic(&self, name: &str, partition: u32) -> Result<Partition> {
        self.broker.topic(name)?.partition(partition)
    }

    fn create(&self, name: &str, config: TopicConfig) {
        let existed = self.broker.topic(name).is_ok();
        if !existed {
            say(&format!("topic {name} unknown"));
        }
        match self.broker.ensure_topic(name, config) {
            Ok(_) => say(&format!("topic {name} present")),
            Err(error) => {
                if error.is_definite() && !existed {
                    say(&format!("topic {name} absent"));
                }
                failed("create", &error);
            }
        }
    }

    fn delete(&self, name: &str) {
        say(&format!("topic {name} unknown"));
        match self.broker.admin().delete_topic(name) {
            Ok(()) => say(&format!("topic {name} absent")),
            Err(error) => failed("delete", &error),
        }
    }

    fn send(&self, topic: &str, partition: u32, turn: u64, pad: usize) {
        let id = format!("one {}", self.run * 100 + turn);
        say(&format!("sending {topic} {partition} {id}"));
        let (key, value) = (key_of(&id), format!("{id} {}", "p".repeat(pad)));
        let mut record = Record::to(topic).partition(partition).value(&value);
        if topic == "k" {
            record = record.key(&key);
        }
        match self.broker.producer().send(record) {
            Ok(sent) => say(&format!("acked {topic} {partition} {} {id}", sent.offset)),
            Err(error) => refused(topic, partition, &[id], &error),
        }
    }

    fn batch(&self, topic: &str, partition: u32, turn: u64) {
        let first = (self.run * 100 + turn) * 3;
        let ids: Vec<String> = (first..first + 3).map(|it| format!("batch {it}")).collect();
        append_batch(topic, partition, &ids, 1_200, || self.topic(topic, partition));
    }

    fn commit(&self, turn: u64) {
        let commit = || {
            let mut consumer = self.broker.consumer("g").assign([tp("a", 0)]).open()?;
            let message = consumer.try_recv()?;
            let next = message.map_or(0, |it| it.next_offset()).max(turn / 3 + self.run * 4);
            let next = next.min(self.topic("a", 0)?.log_end_offset());
            say(&format!("committing a 0 {next}"));
            consumer.commit_offsets(&Offsets::from([(tp("a", 0), next)]))?;
            if consumer.committed(tp("a", 0))? == Some(next) {
                say(&format!("committed a 0 {next}"));
            }
            Ok(())
        };
        self.note("commit", commit());
    }

    fn delete_records(&self, before: u64) {
        // No further than what was appended: sends may have been refused.
        let end = self.topic("r", 0).map_or(0, |it| it.log_end_offset());
        let before = before.min(end);
        say(&format!("deleting r 0 {before}"));
        match self.broker.admin().delete_records(tp("r", 0), before) {
            Ok(start) => say(&format!("deleted r 0 {start}")),
            Err(error) => failed("delete records", &error),
        }
    }
}

fn refused(topic: &str, partition: u32, ids: &[String], error: &Error) {
    for id in ids.iter().filter(|_| error.is_definite()) {
        say(&format!("refused {topic} {partition} {id}"));
    }
    failed("send", error);
}

/// False when it failed.
fn append_batch(
    topic: &str,
    number: u32,
    ids: &[String],
    pad: usize,
    partition: impl Fn() -> Result<Partition>,
) -> bool {
    let values: Vec<String> = ids.iter().map(|id| format!("{id} {}", "p".repeat(pad))).collect();
    let records: Vec<Record<'_>> = values.iter().map(|it| Record::new().value(it)).collect();
    for id in ids {
        say(&format!("sending {topic} {number} {id}"));
    }
    match partition().and_then(|partition| partition.append_batch(&records)) {
        Ok(range) => {
            for (id, offset) in ids.iter().zip(range) {
                say(&format!("acked {topic} {number} {offset} {id}"));
            }
            true
        }
        Err(error) => {
            refused(topic, number, ids, &error);
            false
        }
    }
}

// ---- without end --------------------------------------------------------------------------------

/// The name of this round, so that its records differ from those of other rounds.
pub(crate) const ROUND: &str = "LOGPOND_CHILD_ROUND";

/// Acknowledged appends and commits on four threads, until a call fails or the child is killed.
/// What is said to be acknowledged is on stable storage, whatever the topic's level.
#[test]
fn child_appends_without_end() {
    let Some(dir) = child_dir() else { return };
    let round = from_env(ROUND, 0);
    let Ok(broker) = Broker::builder().data_dir(dir).durability(Durability::Sync).open() else {
        return;
    };
    let small = |partitions| TopicConfig::new(partitions).segment_bytes(32 << 10);
    let made = broker
        .ensure_topic("s", small(3))
        .and_then(|_| broker.ensure_topic("o", small(1).durability(Durability::Os)));
    if made.is_err() {
        return;
    }
    thread::scope(|scope| {
        let broker = &broker;
        for partition in 0..2 {
            scope.spawn(move || send_one_by_one(broker, round, partition));
        }
        scope.spawn(move || {
            let mut rng = Rng::new(round);
            for batch in 0_u64.. {
                let ids: Vec<String> =
                    (0..5).map(|it| format!("{round}-batch {}", batch * 5 + it)).collect();
                let pad = rng.index(400);
                let partition = || broker.topic("s")?.partition(2);
                if !append_batch("s", 2, &ids, pad, partition) {
                    return;
                }
            }
        });
        scope.spawn(move || store_and_sync(broker, round, &mut 0, 300, u64::MAX));
        scope.spawn(move || commit_on(broker));
    });
}

fn send_one_by_one(broker: &Broker, round: u64, partition: u32) {
    let mut rng = Rng::new(round ^ u64::from(partition));
    let producer = broker.producer();
    for number in 0_u64.. {
        let id = format!("{round}-one {number}");
        let value = format!("{id} {}", "p".repeat(rng.index(900)));
        say(&format!("sending s {partition} {id}"));
        match producer.send(Record::to("s").partition(partition).value(&value)) {
            Ok(sent) => say(&format!("acked s {partition} {} {id}", sent.offset)),
            Err(error) => return refused("s", partition, &[id], &error),
        }
    }
}

/// The lengths of all files below a directory, as far as they can be read.
fn lengths(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(lengths(&entry.path())),
            Ok(metadata) => drop(found.insert(entry.path(), metadata.len())),
            Err(_) => {}
        }
    }
    found
}

/// Closes the broker again and again, each time after a few records that were stored and synced,
/// until a call fails or the child is killed. The segment is so large, and the records are, that a close
/// shortens the file; what is held meanwhile is read after it.
#[test]
fn child_closes_without_end() {
    let Some(dir) = child_dir() else { return };
    let round = from_env(ROUND, 0);
    let (mut rng, mut number) = (Rng::new(round), 0);
    loop {
        let builder = Broker::builder().data_dir(&dir).durability(Durability::Sync);
        let Ok(broker) = builder.open() else { return };
        let config = TopicConfig::new(1).durability(Durability::Os);
        let stored = broker.ensure_topic("o", config).is_ok()
            && store_and_sync(&broker, round, &mut number, 6_000, 1 + rng.below(3));
        let Ok(partition) = broker.topic("o").and_then(|topic| topic.partition(0)) else { return };
        if !stored {
            return;
        }
        let Ok(held) = try_read_all(&partition) else { return };
        let before = lengths(&dir);
        if broker.close().is_err() {
            return;
        }
        let after = lengths(&dir);
        let is_shorter = |(path, bytes)| after.get(path).is_some_and(|now| now < bytes);
        say(if before.iter().any(is_shorter) { "shortened" } else { "kept" });
        assert!(held.iter().all(|message| message.value().is_some_and(<[u8]>::is_ascii)));
    }
}

/// Stores through the map, and so many syncs. False when a call failed.
fn store_and_sync(broker: &Broker, round: u64, number: &mut u64, pad: usize, syncs: u64) -> bool {
    let mut rng = Rng::new(!round ^ *number);
    let Ok(partition) = broker.topic("o").and_then(|topic| topic.partition(0)) else {
        return false;
    };
    for _ in 0..syncs {
        let mut stored = Vec::new();
        for _ in 0..=rng.below(20) {
            let id = format!("{round}-stored {number}");
            *number += 1;
            let value = format!("{id} {}", "p".repeat(rng.index(pad)));
            say(&format!("sending o 0 {id}"));
            let Ok(offset) = partition.append(&Record::new().value(&value)) else { return false };
            stored.push((offset, id_of(&value)));
        }
        if partition.flush().is_err() {
            return false;
        }
        for (offset, id) in stored {
            say(&format!("acked o 0 {offset} {id}"));
        }
    }
    true
}

fn commit_on(broker: &Broker) {
    let opened = broker.consumer("g").assign([tp("s", 0)]).open();
    let Ok(mut consumer) = opened else { return };
    loop {
        let Ok(message) = consumer.recv() else { return };
        let next = message.next_offset();
        say(&format!("committing s 0 {next}"));
        if consumer.commit_message(&message).is_err() {
            return;
        }
        say(&format!("committed s 0 {next}"));
    }
}
