//! Goal: a process that is killed at any moment loses nothing that it had acknowledged, at `Os` as
//! at `Sync`; what is there after it is what was sent, in order, in whole batches; named producers
//! resume without duplicates; and commits are neither lost nor invented.
//!
//! Method: this test binary again, as a child that produces and commits on six threads and prints a
//! line to a pipe before and after each call. The parent kills it with SIGKILL after a random
//! number of acknowledgements, reopens the directory, and compares it with all lines of all rounds
//! so far. The moments are counted in lines, not in time. The seed is printed, `LOGPOND_SEED`
//! replays the choices (not the threads' timing).
//!
//! `LOGPOND_KILL9_ROUNDS=500 cargo test --test kill9` is a campaign; the default is 10 rounds.
//!
//! Not covered: power cuts (the page cache survives a kill), kills while a topic is created or
//! deleted; both are tested over the simulated disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use common::*;
use logpond::{Broker, Durability, Offsets, Record, SendOutcome, TopicConfig, TopicPartition};

const PARTITIONS: u32 = 4;
/// The child's settings.
const LEVEL: &str = "LOGPOND_CHILD_LEVEL";
const SEED: &str = "LOGPOND_CHILD_SEED";
/// How many records a batch of the batching threads has.
const BATCH: u64 = 5;

// ---- the child ------------------------------------------------------------------------------

/// One line in one write: what precedes a kill arrives whole.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
fn child_produces_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let level = match std::env::var(LEVEL).unwrap().as_str() {
        "os" => Durability::Os,
        _ => Durability::Sync,
    };
    let seed = from_env(SEED, 0);
    let broker = Broker::builder().data_dir(dir).durability(level).open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(PARTITIONS).segment_bytes(32 << 10)).unwrap();
    thread::scope(|scope| {
        for worker in 0..2 {
            let broker = &broker;
            scope.spawn(move || send_one_by_one(broker, worker, seed));
        }
        for worker in 2..4 {
            let broker = &broker;
            scope.spawn(move || send_in_batches(broker, worker, seed));
        }
        scope.spawn(|| send_sequenced(&broker));
        scope.spawn(|| commit(&broker, seed));
    });
}

fn padding(rng: &mut Rng) -> String {
    "p".repeat(rng.index(700))
}

/// Values `<seed>-<worker> <number> <padding>`; numbers rise per worker, over all partitions.
fn send_one_by_one(broker: &Broker, worker: u64, seed: u64) {
    let mut rng = Rng::new(seed ^ worker);
    let producer = broker.producer();
    for number in 0.. {
        let partition = u32::try_from(rng.below(u64::from(PARTITIONS))).unwrap();
        let id = format!("{seed}-{worker} {number}");
        let value = format!("{id} {}", padding(&mut rng));
        say(&format!("sending {id}"));
        let sent =
            producer.send(Record::to("t").partition(partition).value(&value)).expect("a send");
        say(&format!("acked {partition} {} {id}", sent.offset));
    }
}

fn send_in_batches(broker: &Broker, worker: u64, seed: u64) {
    let mut rng = Rng::new(seed ^ worker);
    let topic = broker.topic("t").unwrap();
    for batch in 0_u64.. {
        let number = u32::try_from(rng.below(u64::from(PARTITIONS))).unwrap();
        let ids: Vec<String> =
            (0..BATCH).map(|it| format!("{seed}-{worker} {}", batch * BATCH + it)).collect();
        let values: Vec<String> =
            ids.iter().map(|id| format!("{id} {}", padding(&mut rng))).collect();
        let records: Vec<Record<'_>> = values.iter().map(|it| Record::new().value(it)).collect();
        for id in &ids {
            say(&format!("sending {id}"));
        }
        let range = topic.partition(number).unwrap().append_batch(&records).expect("a batch");
        for (id, offset) in ids.iter().zip(range) {
            say(&format!("acked {number} {offset} {id}"));
        }
    }
}

/// A source that is read again from behind its last line, as after any restart: values
/// `named <sequence>`, each partition with its own sequence.
fn send_sequenced(broker: &Broker) {
    let producer = broker.producer_builder().id("named").build().expect("a named producer");
    let mut next: Vec<u64> = (0..PARTITIONS)
        .map(|partition| {
            let last = producer.last_sequence(&tp("t", partition)).unwrap_or(0);
            // Some lines again: they are duplicates, and stored once.
            last.saturating_sub(2).max(1)
        })
        .collect();
    for turn in 0_usize.. {
        let partition = turn % next.len();
        let seq = next[partition];
        next[partition] += 1;
        let number = u32::try_from(partition).unwrap();
        let id = format!("named {seq}");
        say(&format!("sending {id}"));
        let record = Record::to("t").partition(number).value(&id);
        match producer.send_sequenced(seq, record).expect("a sequenced send") {
            SendOutcome::Appended(sent) => say(&format!("acked {number} {} {id}", sent.offset)),
            SendOutcome::Duplicate { .. } => {}
        }
    }
}

fn commit(broker: &Broker, seed: u64) {
    let mut rng = Rng::new(!seed);
    let partitions = (0..PARTITIONS).map(|partition| tp("t", partition));
    let mut consumer = broker.consumer("g").assign(partitions).open().expect("a consumer");
    loop {
        let message = consumer.recv().expect("a message");
        if rng.one_in(4) {
            let (partition, next) = (message.partition(), message.next_offset());
            say(&format!("committing {partition} {next}"));
            if rng.one_in(2) {
                consumer.commit_message(&message).expect("a commit");
            } else {
                let offsets = Offsets::from([(message.topic_partition(), next)]);
                consumer.commit_offsets(&offsets).expect("a commit");
            }
            say(&format!("committed {partition} {next}"));
        }
    }
}

// ---- the parent -----------------------------------------------------------------------------

/// What the children of all rounds said.
#[derive(Default)]
struct Heard {
    sent: HashSet<String>,
    /// By partition and offset: the record's id.
    acked: BTreeMap<(u32, u64), String>,
    committing: BTreeMap<u32, BTreeSet<u64>>,
    committed: BTreeMap<u32, u64>,
}

impl Heard {
    /// Whether the line was an acknowledgement.
    fn hear(&mut self, line: &str) -> bool {
        // Anything else is the test harness talking.
        let Some(line) = line.strip_prefix('@') else { return false };
        let (verb, rest) = line.split_once(' ').expect("a verb");
        let mut words = rest.splitn(3, ' ');
        let mut word = || words.next().expect("a word");
        match verb {
            "sending" => {
                self.sent.insert(rest.to_owned());
                false
            }
            "acked" => {
                let place = (word().parse().unwrap(), word().parse().unwrap());
                let before = self.acked.insert(place, word().to_owned());
                assert_eq!(before, None, "two records were acknowledged at {place:?}");
                true
            }
            "committing" => {
                let partition = word().parse().unwrap();
                self.committing.entry(partition).or_default().insert(word().parse().unwrap());
                false
            }
            "committed" => {
                self.committed.insert(word().parse().unwrap(), word().parse().unwrap());
                true
            }
            _ => panic!("{line:?}"),
        }
    }
}

/// Runs a child and kills it after this many acknowledgements.
fn run_and_kill(dir: &Path, level: &str, seed: u64, acks: u64, heard: &mut Heard) {
    let mut child = child("child_produces_until_it_is_killed", dir)
        .env(LEVEL, level)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut counted, mut killed) = (String::new(), 0, false);
    loop {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            break;
        }
        // The last line may have been cut by the kill; then it says nothing.
        let Some(whole) = line.strip_suffix('\n') else { break };
        counted += u64::from(heard.hear(whole));
        if counted >= acks && !killed {
            // SIGKILL. What is still in the pipe was said before it.
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself, after {counted} acknowledgements");
}

/// The part of a value that names it.
fn id_of(value: &str) -> String {
    let mut words = value.splitn(3, ' ');
    format!("{} {}", words.next().unwrap(), words.next().expect("a number"))
}

fn check(dir: &Path, heard: &Heard, rng: &mut Rng) {
    // Some checks leave the directory unclean once more, some end it cleanly. Without threads of
    // its own a dropped broker has freed the directory when `drop` returns.
    let closes = rng.one_in(2);
    let builder = Broker::builder().data_dir(dir).durability(Durability::Os).background(closes);
    let broker = builder.open().unwrap();
    let report = broker.recovery();
    assert!(!report.clean_shutdown);
    for partition in &report.partitions {
        assert_eq!(partition.corrupt, [], "a kill is no damage: {partition:?}");
    }
    let group: Vec<TopicPartition> = (0..PARTITIONS).map(|number| tp("t", number)).collect();
    let consumer = broker.consumer("g").assign(&group).open().unwrap();
    let mut batches = BTreeMap::<(String, u64), u64>::new();
    for number in 0..PARTITIONS {
        let partition = broker.topic("t").unwrap().partition(number).unwrap();
        let messages = read_all(&partition);
        assert_dense(&messages, 0);
        let mut last = BTreeMap::<String, u64>::new();
        for message in &messages {
            let id = id_of(&text(message));
            let place = (number, message.offset());
            assert!(heard.sent.contains(&id), "{place:?}: {id} was never sent");
            if let Some(acked) = heard.acked.get(&place) {
                assert_eq!(*acked, id, "{place:?} holds another record than was acknowledged");
            }
            let (producer, count) = id.split_once(' ').unwrap();
            let count: u64 = count.parse().unwrap();
            let before = last.insert(producer.to_owned(), count);
            assert!(before.is_none_or(|before| before < count), "{place:?}: {id} after {before:?}");
            if producer == "named" {
                assert_eq!(count, before.map_or(1, |it| it + 1), "a named line twice, or missing");
            }
            if producer.ends_with("-2") || producer.ends_with("-3") {
                *batches.entry((producer.to_owned(), count / BATCH)).or_default() += 1;
            }
        }
        let end = messages.len() as u64;
        let acked = heard.acked.range((number, 0)..=(number, u64::MAX)).next_back();
        assert!(acked.is_none_or(|((_, offset), _)| *offset < end), "lost: {acked:?} of {end}");
        check_commit(&consumer, heard, number, end);
    }
    assert!(batches.values().all(|count| *count == BATCH), "a batch in part: {batches:?}");
    drop(consumer);
    if closes {
        broker.close().unwrap();
    }
}

fn check_commit(consumer: &logpond::Consumer, heard: &Heard, number: u32, end: u64) {
    let found = consumer.committed(&tp("t", number)).unwrap();
    let acked = heard.committed.get(&number).copied();
    assert!(found >= acked, "partition {number}: {found:?} is behind the commit of {acked:?}");
    if let Some(found) = found {
        assert!(found <= end, "partition {number}: {found} was committed of {end}");
        let tried = heard.committing.get(&number).is_some_and(|tried| tried.contains(&found));
        assert!(tried, "partition {number}: nobody committed {found}");
    }
}

#[test]
fn statement_06_what_was_acknowledged_survives_a_kill_at_any_moment() {
    let mut rng = Rng::announced("kill9");
    let dir = temp_dir();
    let mut heard = Heard::default();
    for round in 0..from_env("LOGPOND_KILL9_ROUNDS", 10) {
        let level = if rng.one_in(2) { "os" } else { "sync" };
        // Also very early: while the directory is being made, or the first segment rolled.
        let acks = if rng.one_in(4) { 1 + rng.below(5) } else { rng.below(600) };
        let seed = rng.next() >> 32;
        eprintln!("round {round}: {level}, killed after {acks}, child seed {seed}");
        run_and_kill(dir.path(), level, seed, acks.max(1), &mut heard);
        check(dir.path(), &heard, &mut rng);
    }
    assert!(heard.acked.len() > 50, "the children did next to nothing");
}
