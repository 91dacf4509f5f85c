//! What the benchmarks share: where they write, what they say about the machine, how they repeat.
//!
//! - `LOGPOND_BENCH_DIR` picks the directory; the default is `target/bench-data`. Everything that
//!   is put there is removed again, and at no time more than [`DISK_BYTES_MAX`] of it exists.
//! - `LOGPOND_BENCH_QUICK=1`, or `-- --test` after the command, runs each benchmark once on little
//!   data: it shows that they work, and its figures mean nothing.
//! - What is compared is measured in turns, round by round, in the same run: on a shared machine
//!   the ratio of two figures means more than either. Shown are medians, with the least and the
//!   greatest in brackets.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use logpond::{Broker, Durability, Partition, Topic, TopicConfig};

/// What the benchmarks of this crate take of a disk, at most.
pub(crate) const DISK_BYTES_MAX: u64 = 4 << 30;

/// How much memory is touched before anything is measured. A virtual machine's free memory may
/// have gone back to its host: the first touch of such a page costs a hundred times the second.
const WARM_BYTES: usize = 2 << 30;

/// The topic that benchmarks write to.
pub(crate) const TOPIC: &str = "bench";

/// One benchmark program at work.
#[derive(Debug)]
pub(crate) struct Bench {
    dir: PathBuf,
    pub(crate) quick: bool,
}

impl Bench {
    /// Prints what the figures depend on, and warms the memory.
    pub(crate) fn start(name: &str, durability: &str) -> Self {
        let quick = is_quick();
        let dir = data_dir().join(name);
        remove(&dir);
        fs::create_dir_all(&dir).expect("the directory of LOGPOND_BENCH_DIR can be made");
        println!();
        println!("{name}: durability {durability}");
        println!("  data in {} ({})", dir.display(), file_system(&dir));
        println!("  {}", machine());
        if quick {
            println!("  quick: shows that it works, the figures mean nothing");
        } else {
            let took = warm(WARM_BYTES);
            println!("  warmed {} of memory in {took:.1?}", Bytes(WARM_BYTES as f64));
        }
        Self { dir, quick }
    }

    /// A number for the real run, and a small one for the quick run.
    pub(crate) fn scale<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A broker with one topic, in a new directory that goes away with it.
    pub(crate) fn topic(&self, config: TopicConfig) -> Fixture {
        let dir = self.dir.join("broker");
        remove(&dir);
        let broker = Broker::open(&dir).expect("a broker opens in a new directory");
        let topic = broker.ensure_topic(TOPIC, config).expect("a topic can be made");
        Fixture { topic, broker: Some(broker), dir }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// A broker and its one topic.
pub(crate) struct Fixture {
    pub(crate) topic: Topic,
    broker: Option<Broker>,
    dir: PathBuf,
}

impl Fixture {
    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("there until it is dropped")
    }

    pub(crate) fn partition(&self, number: u32) -> Partition {
        self.topic.partition(number).expect("the topic has this partition")
    }
}

impl Drop for Fixture {
    /// Without a flush: the files go away, and need not be written before that.
    fn drop(&mut self) {
        remove(&self.dir);
        if let Some(broker) = self.broker.take() {
            // Nothing depends on how it ends; but its threads must be gone before the next one.
            drop(broker.close());
        }
        remove(&self.dir);
    }
}

/// A topic of one partition whose appends are acknowledged once published.
pub(crate) fn unsynced(partitions: u32) -> TopicConfig {
    TopicConfig::new(partitions).durability(Durability::Os)
}

fn remove(dir: &Path) {
    // A broker that is just ending may still make a file.
    for _ in 0..3 {
        if fs::remove_dir_all(dir).is_ok() || !dir.exists() {
            return;
        }
    }
}

/// `--test`, or no `--bench` at all: benchmarks that run as tests only show that they run.
fn is_quick() -> bool {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    std::env::var_os("LOGPOND_BENCH_QUICK").is_some() || has("--test") || !has("--bench")
}

fn data_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("LOGPOND_BENCH_DIR") {
        return PathBuf::from(dir);
    }
    // Where the program lies: <target>/<profile>/deps/<name>.
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().nth(3).map(Path::to_path_buf);
    target.unwrap_or_else(|| PathBuf::from("target")).join("bench-data")
}

/// The device and file system of a directory, as far as the system tells.
fn file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_default();
    let found = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(_, at, _)| dir.starts_with(at))
        .max_by_key(|(_, at, _)| at.len());
    found.map_or_else(
        || "file system unknown".into(),
        |(device, _, kind)| format!("{kind} on {device}"),
    )
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let os = std::env::consts::OS;
    format!("{os} {}, {cores} cores, load {load} before the start", kernel.trim())
}

/// Touches this much memory and gives it back.
pub(crate) fn warm(bytes: usize) -> Duration {
    let start = now();
    let mut memory = vec![0_u8; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    start.elapsed()
}

/// The one clock of all benchmarks.
#[expect(clippy::disallowed_methods, reason = "benchmarks measure real time")]
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time, which an append reads too.
#[expect(clippy::disallowed_methods, reason = "part of what an append costs at least")]
#[inline]
pub(crate) fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// Measurements of one thing, one per round.
#[derive(Debug, Default, Clone)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn greatest(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The ratio of the two values of each round.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// `median [least..greatest]`, each shown by `show`.
    pub(crate) fn show(&self, show: impl Fn(f64) -> String) -> String {
        format!("{} [{}..{}]", show(self.median()), show(self.least()), show(self.greatest()))
    }
}

/// Runs the contestants in turns, and gives the rounds of each.
pub(crate) fn in_turns<const N: usize>(
    rounds: usize,
    contestants: &mut [&mut dyn FnMut() -> f64; N],
) -> [Rounds; N] {
    let mut results = std::array::from_fn(|_| Rounds::default());
    for round in 0..rounds {
        for turn in 0..N {
            // Another contestant is the first of each round.
            let at = (round + turn) % N;
            results[at].push(contestants[at]());
        }
    }
    results
}

/// `12.3 M/s` and its kin.
pub(crate) fn per_second(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} G/s", v / 1e9),
        v if v >= 1e6 => format!("{:.2} M/s", v / 1e6),
        v if v >= 1e3 => format!("{:.2} k/s", v / 1e3),
        v => format!("{v:.1} /s"),
    }
}

pub(crate) fn bytes_per_second(value: f64) -> String {
    format!("{:.2} GB/s", value / 1e9)
}

pub(crate) fn times(value: f64) -> String {
    format!("{value:.2}x")
}

/// A number of seconds, in the unit that suits it.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v < 1e-6 => format!("{:.0} ns", v * 1e9),
        v if v < 1e-3 => format!("{:.1} µs", v * 1e6),
        v if v < 1.0 => format!("{:.1} ms", v * 1e3),
        v => format!("{v:.2} s"),
    }
}

/// A number of bytes, for people.
pub(crate) struct Bytes(pub(crate) f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            v if v >= (1 << 30).into() => write!(f, "{:.0} GiB", v / f64::from(1 << 30)),
            v if v >= (1 << 20).into() => write!(f, "{:.0} MiB", v / f64::from(1 << 20)),
            v if v >= (1 << 10).into() => write!(f, "{:.0} KiB", v / f64::from(1 << 10)),
            v => write!(f, "{v:.0} B"),
        }
    }
}

/// Latencies in nanoseconds, up to ten seconds, at three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("constant bounds")
}

pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
}

/// A quantile of a histogram, in seconds.
pub(crate) fn quantile(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    Duration::from_nanos(histogram.value_at_quantile(quantile)).as_secs_f64()
}
