//! What the integration tests share: directories, brokers, reading everything, a seeded random
//! number generator, child processes, and knowing that another thread waits.

#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::{Duration, SystemTime};

use logpond::{
    Broker, BrokerBuilder, Clock, Consumer, Durability, Error, ManualClock, Message, Partition,
    Producer, Record, Result, SendOutcome, SystemClock, TopicConfig, TopicPartition,
};
use tempfile::TempDir;

/// So long that only a lost wake-up, never a slow machine, lets it pass; and shorter than the
/// minute after which the engine's own housekeeping would hide one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The smallest segments there are: rolls happen all the time.
pub(crate) const SMALL_SEGMENT: u64 = 16 << 10;

pub(crate) fn temp_dir() -> TempDir {
    tempfile::Builder::new().prefix("logpond-test-").tempdir().expect("a temporary directory")
}

/// A broker without threads at level `Os`: quick and deterministic.
pub(crate) fn quiet(dir: &Path) -> BrokerBuilder {
    Broker::builder().data_dir(dir).durability(Durability::Os).background(false)
}

pub(crate) fn open_quiet(dir: &Path) -> Broker {
    quiet(dir).open().expect("a quiet broker")
}

/// The same without a directory.
pub(crate) fn in_memory() -> Broker {
    Broker::builder().in_memory().background(false).open().expect("a broker in memory")
}

/// The same at a time that the test sets.
pub(crate) fn in_memory_at(clock: &ManualClock) -> Broker {
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    builder.open().expect("a broker in memory")
}

pub(crate) fn small_topic(partitions: u32) -> TopicConfig {
    TopicConfig::new(partitions).segment_bytes(SMALL_SEGMENT)
}

/// Sends under a number of the source, or without one, and returns the offset.
pub(crate) fn send_as(producer: &Producer, seq: Option<u64>, record: Record<'_>) -> u64 {
    let Some(seq) = seq else { return producer.send(record).unwrap().offset };
    match producer.send_sequenced(seq, record).unwrap() {
        SendOutcome::Appended(sent) => sent.offset,
        duplicate @ SendOutcome::Duplicate { .. } => panic!("{duplicate:?}"),
    }
}

/// 14 November 2023: some moment in whole milliseconds.
pub(crate) fn some_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub(crate) fn manual_clock() -> ManualClock {
    ManualClock::new(some_time())
}

pub(crate) fn tp(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::from((topic, partition))
}

/// Appends `range` as decimal values to a partition of `topic`.
pub(crate) fn send_numbers(
    broker: &Broker,
    topic: &str,
    partition: u32,
    range: std::ops::Range<u64>,
) {
    let partition = broker.topic(topic).unwrap().partition(partition).unwrap();
    for number in range {
        partition.append(&Record::new().value(&number.to_string())).unwrap();
    }
}

/// A value of [`send_numbers`].
pub(crate) fn number(message: &Message) -> u64 {
    text(message).parse().expect("a number")
}

pub(crate) fn text(message: &Message) -> String {
    String::from_utf8(message.value().expect("a value").to_vec()).expect("text")
}

/// Everything that can be read now.
pub(crate) fn drain(consumer: &mut Consumer) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        let batch = consumer.poll(Duration::ZERO).expect("a poll");
        if batch.is_empty() {
            return all;
        }
        all.extend(batch);
    }
}

/// Everything in one partition, by `Partition::read`; or the first error.
pub(crate) fn try_read_all(partition: &Partition) -> Result<Vec<Message>> {
    let mut all: Vec<Message> = Vec::new();
    let mut next = partition.log_start_offset();
    loop {
        let batch = partition.read(next, 1 << 20)?;
        if batch.is_empty() {
            return Ok(all);
        }
        all.extend(batch);
        next = all.last().expect("not empty").next_offset();
    }
}

pub(crate) fn read_all(partition: &Partition) -> Vec<Message> {
    try_read_all(partition).expect("a readable partition")
}

/// Offsets without gaps from `start` on.
pub(crate) fn assert_dense(messages: &[Message], start: u64) {
    let offsets: Vec<u64> = messages.iter().map(Message::offset).collect();
    let expected: Vec<u64> = (start..).take(offsets.len()).collect();
    assert_eq!(offsets, expected, "offsets are not dense");
}

/// The setting that a configuration error names.
pub(crate) fn refused_setting<T>(result: Result<T>) -> &'static str {
    match result {
        Err(Error::Config(error)) => error.setting,
        Err(other) => panic!("not a configuration error: {other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

/// Puts a byte at the end of every file, so that a log whose process died continues in a new
/// segment.
pub(crate) fn put_something_behind_the_end(dir: &Path) {
    for path in files_below(dir) {
        let file = File::options().write(true).open(path).unwrap();
        let last = file.metadata().unwrap().len() - 1;
        file.write_all_at(&[1], last).unwrap();
    }
}

/// All files below a directory, by path, in a stable order.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// A copy of a store; sparse parts become zeros.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

// ---- random numbers -------------------------------------------------------------------------

/// `SplitMix64`: small, and the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded from `what`, so that the same change passes or fails in every run of the tests.
    /// `LOGPOND_SEED=fresh` draws a new seed, for campaigns; `LOGPOND_SEED=<seed>` replays one.
    /// Prints the seed, which the harness shows when the test fails.
    pub(crate) fn announced(what: &str) -> Self {
        let seed = match std::env::var("LOGPOND_SEED").as_deref() {
            Ok("fresh") => RandomState::new().hash_one(what),
            Ok(seed) => seed.parse().expect("LOGPOND_SEED is a number, or `fresh`"),
            // FNV-1a: the same in every run and with every toolchain.
            Err(_) => what.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }),
        };
        eprintln!("{what}: LOGPOND_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index")
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// A number from the environment, for long campaigns.
pub(crate) fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

// ---- child processes ------------------------------------------------------------------------

/// The variable that tells a re-executed test binary which directory to work in.
pub(crate) const CHILD_DIR: &str = "LOGPOND_CHILD_DIR";

/// This test binary again, running only the test `name`, in `dir`.
pub(crate) fn child(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD_DIR, dir);
    command
}

/// In a child: where to work. Elsewhere `None`, and the child's part of the test does nothing.
pub(crate) fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

// ---- waiting --------------------------------------------------------------------------------

/// A thread as the kernel sees it.
#[derive(Debug, Clone)]
pub(crate) struct ThreadState(PathBuf);

impl ThreadState {
    /// Of the calling thread.
    pub(crate) fn here() -> Self {
        let link = fs::read_link("/proc/thread-self").expect("procfs");
        Self(Path::new("/proc").join(link).join("stat"))
    }

    /// Returns once the thread sleeps: whatever it is called for from now on has to wake it.
    pub(crate) fn wait_until_it_sleeps(&self) {
        within_patience("the thread sleeps", || {
            let stat = fs::read_to_string(&self.0).expect("a live thread");
            let after_name = stat.rsplit(')').next().expect("a state");
            after_name.trim_start().starts_with('S')
        });
    }
}

/// Asks until the answer is yes.
pub(crate) fn within_patience(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    let end = clock.monotonic() + PATIENCE;
    while !is_so() {
        assert!(clock.monotonic() < end, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// A waker that counts its calls.
#[derive(Debug, Default)]
pub(crate) struct CountingWaker(AtomicUsize);

impl CountingWaker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
