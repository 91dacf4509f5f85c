//! Goal: a process that dies at any moment, by whatever signal, loses nothing that it had
//! acknowledged, at `Os` as at `Sync`; what is there after it is what was sent, in order, in whole
//! batches; named producers resume without duplicates; commits are neither lost nor invented; and
//! retention and compaction, which run meanwhile, take nothing that is not theirs to take.
//!
//! Method: this test binary again, as a child that produces and commits on nine threads, to topics
//! of three kinds, and prints a line to a pipe before and after each call. The parent kills it
//! after a random number of acknowledgements, reopens the directory, and compares it with all lines
//! of all rounds in that directory so far. The moments are counted in lines, not in time. The seed
//! is printed, `LOGPOND_SEED` replays the choices (not the threads' timing).
//!
//! `LOGPOND_ROUNDS=5000 cargo test --test kill9` is a campaign; the default is a few rounds.
//!
//! Not covered: power cuts (the page cache survives a kill), kills while a topic is created or
//! deleted; both are tested over the simulated disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use common::*;
use logpond::{
    Broker, Cleanup, Consumer, Durability, Offsets, Record, SendOutcome, TopicConfig,
    TopicPartition,
};

const PARTITIONS: u32 = 4;
/// The child's settings.
const LEVEL: &str = "LOGPOND_CHILD_LEVEL";
const SEED: &str = "LOGPOND_CHILD_SEED";
/// How many records a batch of the batching threads has.
const BATCH: u64 = 5;
/// Keys of the compacted topic.
const KEYS: u64 = 40;
/// After so many rounds another directory is taken: reading all of it again takes its time.
const ROUNDS_PER_DIRECTORY: u64 = 25;

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
    let small = || TopicConfig::new(1).segment_bytes(SMALL_SEGMENT);
    broker.ensure_topic("removed", small().retention_bytes(4 * SMALL_SEGMENT)).unwrap();
    let compacted = small().cleanup(Cleanup::Compact).min_dirty_ratio(0.1);
    broker.ensure_topic("compacted", compacted).unwrap();
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
        scope.spawn(|| commit_as_member(&broker, seed));
        scope.spawn(|| send_to_be_removed(&broker, seed));
        scope.spawn(|| send_to_be_compacted(&broker, seed));
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
        say(&format!("acked t-{partition} {} {id}", sent.offset));
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
            say(&format!("acked t-{number} {offset} {id}"));
        }
    }
}

/// A source that is read again from after its last line, as after any restart: values
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
            SendOutcome::Appended(sent) => say(&format!("acked t-{number} {} {id}", sent.offset)),
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
            say(&format!("committing g-{partition} {next}"));
            if rng.one_in(2) {
                consumer.commit_message(&message).expect("a commit");
            } else {
                let offsets = Offsets::from([(message.topic_partition(), next)]);
                consumer.commit_offsets(&offsets).expect("a commit");
            }
            say(&format!("committed g-{partition} {next}"));
        }
    }
}

/// A group that commits what it was handed out, waiting for the disk or not: a kill takes neither.
fn commit_as_member(broker: &Broker, seed: u64) {
    let mut rng = Rng::new(seed.rotate_left(32));
    let mut consumer = broker.consumer("member").subscribe(["t"]).open().expect("a member");
    loop {
        consumer.poll(PATIENCE).expect("messages");
        let positions: Vec<(u32, u64)> = (0..PARTITIONS)
            .filter_map(|number| Some((number, consumer.position(&tp("t", number))?)))
            .collect();
        for (number, next) in &positions {
            say(&format!("committing member-{number} {next}"));
        }
        if rng.one_in(2) { consumer.commit() } else { consumer.commit_soon() }.expect("a commit");
        for (number, next) in &positions {
            say(&format!("committed member-{number} {next}"));
        }
    }
}

fn send_to_be_removed(broker: &Broker, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x4E);
    for number in 0.. {
        send_alone(broker, "removed", &format!("{seed}-r {number}"), None, &mut rng);
    }
}

fn send_to_be_compacted(broker: &Broker, seed: u64) {
    let mut rng = Rng::new(seed ^ 0xC0);
    for number in 0.. {
        let key = rng.below(KEYS).to_string();
        send_alone(broker, "compacted", &format!("{seed}-c {number}"), Some(&key), &mut rng);
    }
}

fn send_alone(broker: &Broker, topic: &str, id: &str, key: Option<&str>, rng: &mut Rng) {
    let value = format!("{id} {}", padding(rng));
    say(&format!("sending {id}"));
    let record = Record::to(topic).value(&value);
    let record = if let Some(key) = key { record.key(key) } else { record };
    let sent = broker.producer().send(record).expect("a send");
    say(&format!("acked {topic}-0 {} {id}", sent.offset));
    if let Some(key) = key {
        say(&format!("latest {key} {}", sent.offset));
    }
}

// ---- the parent -----------------------------------------------------------------------------

/// What the children of all rounds said.
#[derive(Default)]
struct Heard {
    sent: HashSet<String>,
    /// By topic and partition, and offset: the record's id.
    acked: BTreeMap<(String, u64), String>,
    /// By group and partition.
    committing: BTreeMap<String, BTreeSet<u64>>,
    committed: BTreeMap<String, u64>,
    /// By key of the compacted topic.
    latest: BTreeMap<String, u64>,
    /// What an earlier check saw.
    log_start: u64,
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
                let at = (word().to_owned(), word().parse().unwrap());
                let before = self.acked.insert(at, word().to_owned());
                assert_eq!(before, None, "two records were acknowledged at one offset: {line}");
                true
            }
            "committing" => {
                let partition = word().to_owned();
                self.committing.entry(partition).or_default().insert(word().parse().unwrap());
                false
            }
            "committed" => {
                self.committed.insert(word().to_owned(), word().parse().unwrap());
                true
            }
            "latest" => {
                self.latest.insert(word().to_owned(), word().parse().unwrap());
                false
            }
            _ => panic!("{line:?}"),
        }
    }
}

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// Also what the kernel sends when memory is out.
    Kill,
    /// As after a wild pointer in the host's own code.
    Segv,
    /// As after `abort`.
    Abrt,
}

impl Signal {
    fn send(self, child: &mut Child) {
        match self {
            Self::Kill => child.kill().unwrap(),
            Self::Segv | Self::Abrt => {
                let name = if self == Self::Segv { "SEGV" } else { "ABRT" };
                let kill = format!("kill -{name} {} 2>/dev/null", child.id());
                Command::new("sh").args(["-c", &kill]).status().unwrap();
            }
        }
    }
}

/// Runs a child and kills it after this many acknowledgements.
fn run_and_kill(
    dir: &Path,
    level: &str,
    seed: u64,
    (signal, acks): (Signal, u64),
    heard: &mut Heard,
) {
    let mut child = child("child_produces_until_it_is_killed", dir)
        .env(LEVEL, level)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut counted, mut killed) = (String::new(), 0, false);
    // The first SEGV only takes away the handler of Rust's runtime, so it is sent again.
    let mut next = acks;
    loop {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            break;
        }
        // The last line may have been cut by the kill; then it says nothing.
        let Some(whole) = line.strip_suffix('\n') else { break };
        counted += u64::from(heard.hear(whole));
        if counted >= next {
            // What is still in the pipe was said before it.
            signal.send(&mut child);
            (killed, next) = (true, if signal == Signal::Kill { u64::MAX } else { counted + 20 });
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

fn check(dir: &Path, heard: &mut Heard, rng: &mut Rng) {
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
    // A child may die before it has made its topics.
    if broker.topic("t").is_ok() {
        check_appends(&broker, heard);
    }
    if broker.topic("removed").is_ok() {
        check_removed(&broker, heard);
    }
    if broker.topic("compacted").is_ok() {
        check_compacted(&broker, heard);
    }
    if closes {
        broker.close().unwrap();
    }
}

fn check_appends(broker: &Broker, heard: &Heard) {
    let all: Vec<TopicPartition> = (0..PARTITIONS).map(|number| tp("t", number)).collect();
    let consumers =
        ["g", "member"].map(|group| (group, broker.consumer(group).assign(&all).open().unwrap()));
    let mut batches = BTreeMap::<(String, u64), u64>::new();
    for number in 0..PARTITIONS {
        let partition = broker.topic("t").unwrap().partition(number).unwrap();
        let messages = read_all(&partition);
        assert_dense(&messages, 0);
        let mut last = BTreeMap::<String, u64>::new();
        for message in &messages {
            let id = id_of(&text(message));
            let at = (format!("t-{number}"), message.offset());
            check_record(heard, &at, &id);
            let (producer, count) = id.split_once(' ').unwrap();
            let count: u64 = count.parse().unwrap();
            let before = last.insert(producer.to_owned(), count);
            assert!(before.is_none_or(|before| before < count), "{at:?}: {id} after {before:?}");
            if producer == "named" {
                assert_eq!(count, before.map_or(1, |it| it + 1), "a named line twice, or missing");
            }
            if producer.ends_with("-2") || producer.ends_with("-3") {
                *batches.entry((producer.to_owned(), count / BATCH)).or_default() += 1;
            }
        }
        let end = messages.len() as u64;
        check_end(heard, &format!("t-{number}"), end);
        for (group, consumer) in &consumers {
            check_commit(consumer, heard, (group, number), end);
        }
    }
    assert!(batches.values().all(|count| *count == BATCH), "a batch in part: {batches:?}");
}

/// A record that is there was sent, and stands at the offset that was acknowledged.
fn check_record(heard: &Heard, at: &(String, u64), id: &str) {
    assert!(heard.sent.contains(id), "{at:?}: {id} was never sent");
    if let Some(acked) = heard.acked.get(at) {
        assert_eq!(acked, id, "{at:?} holds another record than was acknowledged");
    }
}

/// What was acknowledged lies below the end.
fn check_end(heard: &Heard, partition: &str, end: u64) {
    let all = (partition.to_owned(), 0)..=(partition.to_owned(), u64::MAX);
    let acked = heard.acked.range(all).next_back();
    assert!(acked.is_none_or(|((_, offset), _)| *offset < end), "lost: {acked:?} of {end}");
}

fn check_commit(consumer: &Consumer, heard: &Heard, (group, number): (&str, u32), end: u64) {
    let found = consumer.committed(&tp("t", number)).unwrap();
    let name = format!("{group}-{number}");
    let acked = heard.committed.get(&name).copied();
    assert!(found >= acked, "{name}: {found:?} is behind the commit of {acked:?}");
    if let Some(found) = found {
        assert!(found <= end, "{name}: {found} was committed of {end}");
        let tried = heard.committing.get(&name).is_some_and(|tried| tried.contains(&found));
        assert!(tried, "{name}: nobody committed {found}");
    }
}

/// Retention takes from the front, never goes back, and leaves what it says that it keeps.
fn check_removed(broker: &Broker, heard: &mut Heard) {
    let partition = broker.topic("removed").unwrap().partition(0).unwrap();
    let start = partition.log_start_offset();
    assert!(start >= heard.log_start, "the log start went back from {}", heard.log_start);
    heard.log_start = start;
    let messages = read_all(&partition);
    assert_dense(&messages, start);
    for message in &messages {
        let at = ("removed-0".to_owned(), message.offset());
        check_record(heard, &at, &id_of(&text(message)));
    }
    check_end(heard, "removed-0", start + messages.len() as u64);
    let bytes: usize = messages.iter().map(|message| text(message).len()).sum();
    assert!(start == 0 || bytes as u64 >= 3 * SMALL_SEGMENT / 2, "only {bytes} bytes are left");
}

/// Compaction takes no latest record, and brings none back.
fn check_compacted(broker: &Broker, heard: &Heard) {
    let partition = broker.topic("compacted").unwrap().partition(0).unwrap();
    let mut found = BTreeMap::new();
    for message in read_all(&partition) {
        let at = ("compacted-0".to_owned(), message.offset());
        check_record(heard, &at, &id_of(&text(&message)));
        let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
        let before = found.insert(key, message.offset());
        assert!(before.is_none_or(|before| before < message.offset()), "{at:?}: order");
    }
    check_end(heard, "compacted-0", partition.log_end_offset());
    for (key, acked) in &heard.latest {
        let offset = found.get(key);
        assert!(offset.is_some_and(|it| it >= acked), "{key} at {acked}: found at {offset:?}");
    }
}

/// Rounds of killing and checking; `signal` says how the next child dies.
fn campaign(rounds: u64, rng: &mut Rng, signal: impl Fn(&mut Rng) -> Signal) {
    let mut dir = temp_dir();
    let mut heard = Heard::default();
    let mut acked = 0;
    for round in 0..rounds {
        if round > 0 && round.is_multiple_of(ROUNDS_PER_DIRECTORY) {
            (dir, heard) = (temp_dir(), Heard::default());
        }
        let level = if round.is_multiple_of(2) { "os" } else { "sync" };
        // Also very early: while the directory is being made, or the first segment rolled.
        let acks = 1 + if rng.one_in(4) { rng.below(5) } else { rng.below(300) };
        let (signal, seed) = (signal(rng), rng.next() >> 32);
        eprintln!("round {round}: {level}, {signal:?} after {acks}, child seed {seed}");
        let before = heard.acked.len();
        run_and_kill(dir.path(), level, seed, (signal, acks), &mut heard);
        acked += heard.acked.len() - before;
        check(dir.path(), &mut heard, rng);
    }
    eprintln!("{rounds} rounds, {acked} records acknowledged, none lost");
    assert!(acked > 50, "the children did next to nothing");
}

#[test]
fn statement_06_what_was_acknowledged_survives_a_kill_at_any_moment() {
    let mut rng = Rng::announced("kill9");
    campaign(from_env("LOGPOND_ROUNDS", 10), &mut rng, |_| Signal::Kill);
}

// RED: src/storage/region/map.rs
//   - Access::ReadWrite => options.map_raw(file)?,
//   + Access::ReadWrite => MmapRaw::from(unsafe { options.map_copy(file)? }),
#[test]
fn row_a27_a_host_that_dies_by_its_own_fault_is_a_process_that_was_killed() {
    let mut rng = Rng::announced("signals");
    let signal = |rng: &mut Rng| if rng.one_in(2) { Signal::Segv } else { Signal::Abrt };
    campaign(from_env("LOGPOND_ROUNDS", 4), &mut rng, signal);
}
