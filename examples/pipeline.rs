//! The whole engine at work on real text: producers, a group that shares, a group that audits,
//! and a run that may be interrupted at any moment.
//!
//! ```sh
//! cargo run --release --example pipeline                         # the sources of this crate
//! cargo run --release --example pipeline -- a.txt b.txt          # files of yours
//! journalctl | cargo run --release --example pipeline -- -       # standard input
//! cargo run --release --example pipeline -- --stop-after 1000    # interrupts itself
//! ```
//!
//! Every line becomes a record of the topic `lines`, with the file's path as the key. Three
//! workers of the group `counters` share the lines and count words per file. The group `audit`
//! checks that every line of every file arrived exactly once, in order, and with the contents that
//! the file has.
//!
//! Run it again and it sends only what the files have gained at their ends: each file has a
//! producer of its own name, the number of a line is its sequence number, and the broker remembers
//! the last one of each producer. That is also why an interrupted run can be continued: no line is
//! missing, and none is there twice. (A name that was idle for 30 days is forgotten; start with a
//! new `--dir` then.)
//!
//! A file that was changed before its end is found by the audit, which fails: what is in the topic
//! is not what the file says. Start with a new `--dir` then.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use logpond::{
    Batch, Broker, Clock, Consumer, ConsumerHandle, Durability, Error, MessageRef, Offsets, Record,
    SendOutcome, StartAt, SystemClock, Topic, TopicConfig, TopicPartition,
};

use input::{Options, Source};
use report::{Summary, grouped};

#[path = "pipeline/input.rs"]
mod input;
#[path = "pipeline/report.rs"]
mod report;

const TOPIC: &str = "lines";
const PARTITIONS: u32 = 4;
const WORKERS: usize = 3;
/// How many lines share a sync.
const LINES_PER_SYNC: u64 = 1024;
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// How long a consumer waits for lines before it reports that there were none.
const POLL: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let options = Options::parse(std::env::args_os().skip(1));
    match options.and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("pipeline: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let sources = options.sources()?; // before anything is opened: a bad path changes nothing
    let broker = Broker::builder().data_dir(&options.dir).durability(options.durability).open()?;
    // The audit begins at line 1 in every run, so no line may expire.
    let topic =
        broker.ensure_topic(TOPIC, TopicConfig::new(PARTITIONS).retention(Duration::MAX))?;

    let lines_in: u64 = ends(&topic)?.values().sum();
    if lines_in > 0 && !broker.recovery().clean_shutdown {
        say(&format!("the last run was interrupted; {} lines are in", grouped(lines_in)));
    }

    let (events, inbox) = mpsc::channel();
    let mut consumers = Vec::new();
    for _ in 0..WORKERS {
        let worker = broker.consumer("counters").subscribe([TOPIC]).open()?;
        consumers.push(worker.handle());
        spawn(&events, move |events| count(worker, events));
    }
    let auditor = broker.consumer("audit").assign(partitions()).open()?;
    consumers.push(auditor.handle());
    spawn(&events, move |events| audit(auditor, events));

    let (engine, durability, stop_after) = (broker.clone(), options.durability, options.stop_after);
    spawn(&events, move |_| produce(&engine, sources, durability, stop_after));

    let Some(summary) = watch(&inbox, &topic, &consumers)? else {
        // Interrupted, as by a signal: this process now ends with lines in flight, consumers in
        // the middle of their batches, and a broker that is not closed.
        return Ok(());
    };
    broker.close()?;
    summary.print()?;
    summary.check()
}

/// What the threads report to the main thread, which keeps all the totals.
enum Event {
    /// A worker has counted and committed some lines.
    Counted(Progress),
    /// The audit has checked some lines.
    Audited(Progress),
    /// The last word of the producer, of a worker, of the audit.
    Produced(Produced),
    Words(PerFile<u64>),
    Checked(Audit),
    Failed(Failure),
}

/// Lines that a group has dealt with, and how far it came in each partition.
#[derive(Default)]
struct Progress {
    lines: u64,
    reached: Offsets,
}

impl Progress {
    fn add(&mut self, step: Progress) {
        self.lines += step.lines;
        self.reached.extend(step.reached);
    }

    fn lag(&self, ends: &Offsets) -> u64 {
        let reached = |partition| self.reached.get(partition).copied().unwrap_or(0);
        ends.iter().map(|(partition, end)| end.saturating_sub(reached(partition))).sum()
    }
}

/// What there is for each file, by its path.
type PerFile<T> = HashMap<Vec<u8>, T>;

/// A checksum for each line of a file: 4 bytes per line in memory, whatever the lines hold.
type Checksums = Vec<u32>;

// ---- producing ---------------------------------------------------------------------------------

#[derive(Default)]
struct Produced {
    sent: u64,
    sent_bytes: u64,
    already_in: u64,
    /// The lines of each file as it is now.
    files: BTreeMap<String, Checksums>,
    stopped: bool,
}

/// Sends every line that is not in yet.
fn produce(
    broker: &Broker,
    sources: Vec<Source>,
    durability: Durability,
    stop_after: Option<u64>,
) -> Result<Event, Failure> {
    let mut sum = Produced::default();
    // A send at level `Sync` waits for a sync of its own. Many lines share one: they are sent at
    // level `Os`, and `flush` waits for all of them.
    let flushes = durability == Durability::Sync;
    let level = if flushes { Durability::Os } else { durability };

    for source in sources {
        let id = format!("pipeline:{}", source.name);
        let producer = broker.producer_builder().id(id).durability(level).build()?;
        // Lines are numbered 1, 2, 3 and so on, so the last number is also how many lines are in.
        // The key puts a whole file into one partition; the others know nothing of this producer.
        let already_in =
            partitions().filter_map(|partition| producer.last_sequence(&partition)).max();
        let already_in = already_in.unwrap_or(0);
        sum.already_in += already_in;

        let mut lines = source.lines()?;
        let mut checksums = Checksums::new();
        while let Some(line) = lines.next()? {
            checksums.push(crc32fast::hash(line));
            let number = checksums.len() as u64;
            if number <= already_in {
                continue;
            }
            if stop_after == Some(sum.sent) {
                sum.stopped = true;
                return Ok(Event::Produced(sum));
            }
            let text = number.to_string();
            let record = Record::to(TOPIC).key(&source.name).value(line).header("line", &text);
            let sent = producer.send_sequenced(number, record).map_err(|error| {
                Failure::new(format!("cannot send line {number} of {}", source.name), &error)
            })?;
            if let SendOutcome::Duplicate { last } = sent {
                let name = &source.name;
                return Err(Failure(format!("line {number} of {name} is in: the last is {last}")));
            }
            sum.sent += 1;
            sum.sent_bytes += line.len() as u64;
            if flushes && sum.sent.is_multiple_of(LINES_PER_SYNC) {
                producer.flush()?;
            }
        }
        if flushes {
            producer.flush()?;
        }
        sum.files.insert(source.name, checksums);
    }
    Ok(Event::Produced(sum))
}

// ---- the group that shares the work ------------------------------------------------------------

/// A worker of the group `counters`: words per file. What it commits it has counted, so after an
/// interruption the group continues where its last commits were: each line is counted at least
/// once.
fn count(mut consumer: Consumer, events: &Sender<Event>) -> Result<Event, Failure> {
    let mut words: PerFile<u64> = PerFile::new();
    while let Some(batch) = next_batch(&mut consumer)? {
        for message in batch.iter() {
            let file = message.key().unwrap_or_default().to_vec();
            *words.entry(file).or_default() += words_in(message.value().unwrap_or_default());
        }
        if !batch.is_empty() {
            match consumer.commit() {
                // Rebalanced: a partition has gone to another worker, which counts it from the
                // last commit on.
                Ok(()) | Err(Error::Rebalanced { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut step = Progress { lines: batch.len() as u64, ..Progress::default() };
        for partition in consumer.assignment() {
            if let Some(offset) = consumer.committed(&partition)? {
                step.reached.insert(partition, offset);
            }
        }
        let _ = events.send(Event::Counted(step));
    }
    Ok(Event::Words(words))
}

fn words_in(line: &[u8]) -> u64 {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count() as u64
}

// ---- the group that checks ---------------------------------------------------------------------

/// What the audit has seen.
#[derive(Default)]
struct Audit {
    lines: u64,
    /// The lines seen of each file.
    files: PerFile<Checksums>,
    first_fault: Option<String>,
}

/// The single member of the group `audit`. It takes all partitions by name instead of sharing
/// them, because it wants to see everything.
///
/// It trusts nobody, its own earlier runs included: it begins at the first line of the topic and
/// ends at the last, so "exactly once" is proved for every line since the first run, whatever
/// interrupted the runs between. What it commits tells others how far it has found every line in
/// its turn. At the end what it has seen of a file is compared with the file.
fn audit(mut consumer: Consumer, events: &Sender<Event>) -> Result<Event, Failure> {
    for partition in partitions() {
        consumer.seek(&partition, StartAt::Earliest)?;
    }
    let mut audit = Audit::default();
    while let Some(batch) = next_batch(&mut consumer)? {
        for message in batch.iter() {
            audit.check(&message);
        }
        if !batch.is_empty() && audit.first_fault.is_none() {
            consumer.commit()?;
        }
        let reached = |partition| {
            let next = consumer.position(&partition)?;
            Some((partition, next))
        };
        let reached = partitions().filter_map(reached).collect();
        let _ = events.send(Event::Audited(Progress { lines: batch.len() as u64, reached }));
    }
    Ok(Event::Checked(audit))
}

impl Audit {
    fn check(&mut self, message: &MessageRef<'_>) {
        let file = message.key().unwrap_or_default();
        let number = message.headers().get("line").and_then(|text| {
            let number: u64 = str::from_utf8(text).ok()?.parse().ok()?;
            Some(number)
        });
        let seen = self.files.entry(file.to_vec()).or_default();
        let expected = (seen.len() as u64).saturating_add(1);
        if number != Some(expected) {
            self.first_fault.get_or_insert_with(|| {
                format!(
                    "{}: line {expected} was expected at partition {}, offset {}; found {}",
                    String::from_utf8_lossy(file),
                    message.partition(),
                    message.offset(),
                    number.map_or("none".to_owned(), |number| format!("line {number}")),
                )
            });
        }
        seen.push(crc32fast::hash(message.value().unwrap_or_default()));
        self.lines += 1;
    }
}

// ---- around them -------------------------------------------------------------------------------

/// Follows the threads until all is done, or until the producer is stopped: then `None`.
fn watch(
    inbox: &Receiver<Event>,
    topic: &Topic,
    consumers: &[ConsumerHandle],
) -> Result<Option<Summary>, Failure> {
    let clock = SystemClock::new();
    let mut summary = Summary::default();
    let mut next_status = STATUS_EVERY;
    let mut running = consumers.len();

    while running > 0 {
        match inbox.recv_timeout(next_status.saturating_sub(clock.monotonic())) {
            Ok(Event::Counted(step)) => summary.counted.add(step),
            Ok(Event::Audited(step)) => summary.audited.add(step),
            Ok(Event::Produced(produced)) if produced.stopped => {
                let sent = grouped(produced.sent);
                say(&format!("stopped after {sent} lines; run again to continue"));
                return Ok(None);
            }
            Ok(Event::Produced(produced)) => {
                summary.produced = Some(produced);
                summary.producing = clock.monotonic();
            }
            Ok(Event::Words(words)) => {
                for (file, count) in words {
                    *summary.words.entry(file).or_default() += count;
                }
                running -= 1;
            }
            Ok(Event::Checked(audit)) => {
                summary.audit = audit;
                running -= 1;
            }
            Ok(Event::Failed(failure)) => return Err(failure),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        summary.ends = ends(topic)?;
        if summary.produced.is_some() && summary.lags() == (0, 0) && summary.consuming.is_zero() {
            // All is sent, counted and checked. A shut-down consumer's poll returns `Closed`.
            summary.consuming = clock.monotonic();
            consumers.iter().for_each(ConsumerHandle::shutdown);
        }
        if clock.monotonic() >= next_status {
            say(&summary.status());
            next_status = clock.monotonic() + STATUS_EVERY;
        }
    }
    Ok(Some(summary))
}

/// The next messages; an empty batch now and then; `None` once the consumer has been shut down.
fn next_batch(consumer: &mut Consumer) -> Result<Option<Batch>, Failure> {
    match consumer.poll(POLL) {
        Ok(batch) => Ok(Some(batch)),
        Err(Error::Closed) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn partitions() -> impl Iterator<Item = TopicPartition> {
    (0..PARTITIONS).map(|partition| (TOPIC, partition).into())
}

/// Where each partition ends now.
fn ends(topic: &Topic) -> Result<Offsets, Failure> {
    let end = |at: TopicPartition| {
        let end = topic.partition(at.partition)?.log_end_offset();
        Ok((at, end))
    };
    partitions().map(end).collect()
}

/// Starts a thread whose last word, be it good or bad, arrives as an event.
fn spawn<F>(events: &Sender<Event>, work: F)
where
    F: FnOnce(&Sender<Event>) -> Result<Event, Failure> + Send + 'static,
{
    let events = events.clone();
    thread::spawn(move || {
        let result = panic::catch_unwind(AssertUnwindSafe(|| work(&events)));
        let result = result.unwrap_or_else(|_| Err(Failure("a thread panicked".to_owned())));
        let _ = events.send(result.unwrap_or_else(Event::Failed));
    });
}

/// What went wrong, in one line.
struct Failure(String);

impl Failure {
    fn new(what: impl fmt::Display, cause: &dyn std::error::Error) -> Self {
        Self(format!("{what}: {}", Self::causes(cause)))
    }

    fn causes(error: &dyn std::error::Error) -> String {
        let chain = std::iter::successors(Some(error), |error| error.source());
        chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(Self::causes(&error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A line to standard error. Nobody listening there is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
