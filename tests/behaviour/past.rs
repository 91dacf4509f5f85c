//! Goal: a directory that an earlier build left behind is opened by this one, with all that is in
//! it.
//!
//! Method: `tests/fixtures` holds such directories as text (`past/text.rs`), and beside each what
//! it held, as the build that made it showed it. Each is unpacked, opened, compared line by line,
//! used, closed and opened again. The build that made those of `first` is the last one before
//! stored forms were separated from public types; their clock stands at 14 November 2023. That of
//! `second` is the first whose internal logs are cleaned up piece by piece.
//!
//! The directories are made by the stories of `past/stories.rs`, which use the public interface
//! alone. A build whose stored forms differ from those of all fixtures adds a folder of its own,
//! before it is released, and never changes another. To stay below 100 KiB in all, it packs only
//! the stories that it names:
//!
//! ```text
//! LOGPOND_PACK=tests/fixtures/third LOGPOND_STORIES=used,closed cargo test --test behaviour past:: -- --nocapture
//! ```
//!
//! Not covered: stages of topics that only a crash in the middle of a call leaves
//! (`src/broker/tests`), damage. What this build leaves cannot be given to one of the past here;
//! that those refuse an unknown bit is shown by a bit that this build does not know.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod shown;
mod stories;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::common::*;
use logpond::{
    Broker, Cleanup, Clock, Consumer, Error, ManualClock, Message, Producer, Record,
    RecoveryPolicy, SendOutcome, salvage,
};
use shown::shown;
use stories::{STORIES, commits};

/// The named producers of all stories.
const PRODUCERS: [&str; 2] = ["importer", "mirror"];

/// A directory of the past, and what it held.
struct Fixture {
    name: String,
    text: String,
    /// Where the clock stood when the directory was left.
    now: SystemTime,
    expected: Vec<String>,
}

impl Fixture {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let expected = fs::read_to_string(path.with_extension("expected.txt")).unwrap();
        let mut lines = expected.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
        let now = lines.next().and_then(|line| line.strip_prefix("now ")?.parse().ok());
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now.expect("the time first"));
        Self { name: path.display().to_string(), text, now, expected: lines.collect() }
    }

    fn write(&self, path: &Path) {
        let now = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let expected = format!("now {now}\n{}\n", self.expected.join("\n"));
        fs::write(path, &self.text).unwrap();
        fs::write(path.with_extension("expected.txt"), expected).unwrap();
    }

    /// The directories that this build leaves.
    fn of_today() -> impl Iterator<Item = Self> {
        STORIES.iter().map(|story| {
            let (dir, clock) = (temp_dir(), manual_clock());
            let expected = (story.make)(dir.path(), &clock);
            let text = text::pack(dir.path());
            Self { name: story.name.to_owned(), text, now: clock.now(), expected }
        })
    }
}

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found = files_below(&root);
    found.retain(|path| !path.to_string_lossy().ends_with(".expected.txt"));
    found
}

/// The broker with all named producers, which fence those of the past.
fn open(dir: &Path, clock: &ManualClock) -> Broker {
    quiet(dir).clock(clock.clone()).open().unwrap()
}

fn producers(broker: &Broker, expected: &[String]) -> Vec<(String, Producer)> {
    let is_known = |name: &&str| {
        let start = format!("producer {name} ");
        expected.iter().any(|line| line.starts_with(&start))
    };
    let build = |name: &str| (name.to_owned(), broker.producer_builder().id(name).build().unwrap());
    PRODUCERS.into_iter().filter(is_known).map(build).collect()
}

/// What is there, without the positions of groups: a consumer may move them.
fn without_commits(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with("commit ")).collect()
}

fn check(fixture: &Fixture) {
    let name = &fixture.name;
    let home = temp_dir();
    let dir = home.path().join("data");
    text::unpack(&fixture.text, &dir);
    check_salvage(fixture, &dir, &home.path().join("salvaged"));
    let later = home.path().join("later");
    copy_dir(&dir, &later);
    check_retention(fixture, &later);
    let clock = ManualClock::new(fixture.now);

    let broker = open(&dir, &clock);
    let numbered = producers(&broker, &fixture.expected);
    let found = shown(&broker, &numbered);
    assert_eq!(found, fixture.expected, "{name}");
    broker.tick().unwrap();
    broker.close().unwrap();
    drop(numbered);

    let broker = open(&dir, &clock);
    assert!(broker.recovery().is_clean(), "{name}: {:?}", broker.recovery());
    let numbered = producers(&broker, &fixture.expected);
    assert_eq!(shown(&broker, &numbered), fixture.expected, "{name}: opened again");
    check_groups(&broker, fixture);
    proceed(&broker, &numbered);
    let grown = shown(&broker, &numbered);
    let is_kept = |line: &&String| line.starts_with("record ") && !grown.contains(line);
    assert_eq!(fixture.expected.iter().find(is_kept), None, "{name}: appended to");
    compact(&broker);
    let grown = without_commits(shown(&broker, &numbered));
    broker.close().unwrap();
    drop(numbered);

    let broker = open(&dir, &clock);
    assert!(broker.recovery().is_clean(), "{name}: {:?}", broker.recovery());
    let numbered = producers(&broker, &fixture.expected);
    assert_eq!(without_commits(shown(&broker, &numbered)), grown, "{name}: used");
    broker.close().unwrap();
}

/// Records of each partition, and repetitions of each producer's last ones.
fn proceed(broker: &Broker, numbered: &[(String, Producer)]) {
    for topic in broker.admin().topics().unwrap() {
        let handle = broker.topic(&topic.name).unwrap();
        for at in 0..topic.config.partitions {
            let partition = handle.partition(at).unwrap();
            let end = partition.log_end_offset();
            for (_, producer) in numbered {
                let Some(last) = producer.last_sequence(&tp(&topic.name, at)) else { continue };
                let again = Record::to(&topic.name).partition(at).value("again");
                let outcome = producer.send_sequenced(last, again).unwrap();
                assert_eq!(outcome, SendOutcome::Duplicate { last });
            }
            let offset = partition.append(&Record::new().key("key").value("new")).unwrap();
            assert_eq!(offset, end);
            assert_eq!(text(&read_all(&partition).pop().unwrap()), "new");
        }
    }
}

fn compact(broker: &Broker) {
    for topic in broker.admin().topics().unwrap() {
        if topic.config.cleanup != Cleanup::Delete {
            broker.admin().compact_now(&topic.name).unwrap();
        }
    }
}

/// As `drain`; an error for each commit that is beyond what a power cut has left.
fn drain_cut(consumer: &mut Consumer, broker: &Broker) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        match consumer.poll(Duration::ZERO) {
            Ok(batch) if batch.is_empty() => return all,
            Ok(batch) => all.extend(batch),
            Err(Error::Truncated { partition, committed, end }) => {
                let at = broker.topic(&partition.topic).unwrap();
                let at = at.partition(partition.partition).unwrap();
                assert_eq!(at.log_end_offset(), end, "{partition}");
                assert!(committed > end, "{partition} was cut at {end}, not below {committed}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Each group continues where it was, and each static member gets its partitions back.
fn check_groups(broker: &Broker, fixture: &Fixture) {
    for group in broker.admin().groups().unwrap() {
        let fixed: Vec<_> = group.members.iter().filter(|it| it.instance_id.is_some()).collect();
        let builder = || broker.consumer(&group.name).subscribe_pattern("*");
        let mut consumer = match fixed.first() {
            Some(member) => {
                let instance = member.instance_id.as_deref().unwrap();
                let topics = member.assignment.iter().map(|at| at.topic.clone());
                let builder = broker.consumer(&group.name).subscribe(topics);
                let consumer = builder.instance_id(instance).open().unwrap();
                assert_eq!(consumer.assignment(), member.assignment, "{}", fixture.name);
                consumer
            }
            None => builder().open().unwrap(),
        };
        let messages = drain_cut(&mut consumer, broker);
        for (name, at, committed) in commits(&fixture.expected) {
            if name != *group.name || !consumer.assignment().contains(&at) {
                continue;
            }
            let partition = broker.topic(&at.topic).unwrap().partition(at.partition).unwrap();
            let mut of_partition = messages.iter().filter(|it| it.topic_partition() == at);
            let from = committed.max(partition.log_start_offset());
            let next = read_all(&partition).into_iter().find(|message| message.offset() >= from);
            let first = of_partition.next().map(Message::offset);
            assert_eq!(first, next.map(|message| message.offset()), "{}: {at}", fixture.name);
        }
    }
}

/// The records of a directory that no broker opens are there, too.
fn check_salvage(fixture: &Fixture, dir: &Path, to: &Path) {
    let report = salvage(dir, to).unwrap();
    assert!(report.topics.iter().all(|topic| !topic.config_lost), "{}", fixture.name);
    let broker = open(to, &ManualClock::new(fixture.now));
    let found = shown(&broker, &[]);
    let is_lost = |line: &&String| line.starts_with("record ") && !found.contains(line);
    assert_eq!(fixture.expected.iter().find(is_lost), None, "{}: salvaged", fixture.name);
}

/// The ages that were stored are ages still: nothing is removed early, and nothing is kept for
/// ever.
fn check_retention(fixture: &Fixture, dir: &Path) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let clock = ManualClock::new(fixture.now + DAY * 6);
    let broker = open(dir, &clock);
    let mut topics = broker.admin().topics().unwrap();
    topics.retain(|topic| topic.config.cleanup == Cleanup::Delete);
    let check = |stage: &str| {
        broker.tick().unwrap();
        for topic in &topics {
            let handle = broker.topic(&topic.name).unwrap();
            for at in 0..topic.config.partitions {
                let known = format!("record {}-{at} ", topic.name);
                let known = fixture.expected.iter().filter(|line| line.starts_with(&known)).count();
                let is_brief = topic.config.retention == DAY * 7;
                let expected = if is_brief && stage == "late" { 0 } else { known };
                let found = read_all(&handle.partition(at).unwrap()).len();
                assert_eq!(found, expected, "{}: {}-{at} {stage}", fixture.name, topic.name);
            }
        }
    };
    check("in time");
    clock.advance(DAY * 2);
    check("late");
}

#[test]
fn directories_of_earlier_builds_are_opened_with_all_that_is_in_them() {
    let found = fixtures();
    assert!(!found.is_empty());
    for path in found {
        check(&Fixture::read(&path));
    }
}

/// That the stories, the text form and the checks are sound is seen by what this build leaves.
#[test]
fn directories_of_this_build_are_opened_with_all_that_is_in_them() {
    for fixture in Fixture::of_today() {
        check(&fixture);
    }
}

/// The files of a directory, with what is in them.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files_below(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn is_internal(path: &Path) -> bool {
    path.to_string_lossy().starts_with("__")
}

/// The segments of a directory, with their incompatible feature bits, those of internal logs apart.
fn features(dir: &Path) -> [Vec<u64>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for (path, bytes) in contents(dir) {
        if path.extension().is_some_and(|extension| extension == "log") {
            let is_internal = is_internal(path.strip_prefix(dir).unwrap());
            let bits = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
            found[usize::from(is_internal)].push(bits);
        }
    }
    found
}

/// An upgrade is the first opening for writing: then each internal log has a segment that earlier
/// builds refuse. To look at the directory before is no upgrade.
#[test]
fn reading_changes_nothing_and_the_first_opening_for_writing_keeps_earlier_builds_out() {
    for path in fixtures() {
        let (fixture, home) = (Fixture::read(&path), temp_dir());
        let (dir, clock) = (home.path().join("data"), ManualClock::new(fixture.now));
        text::unpack(&fixture.text, &dir);
        let before = contents(&dir);
        let looking = quiet(&dir).clock(clock.clone()).read_only(true).open().unwrap();
        let topics = looking.admin().topics().unwrap();
        for topic in &topics {
            let handle = looking.topic(&topic.name).unwrap();
            let read = (0..topic.config.partitions)
                .map(|at| read_all(&handle.partition(at).unwrap()).len())
                .sum::<usize>();
            let known = format!("record {}-", topic.name);
            let known = fixture.expected.iter().filter(|line| line.starts_with(&known)).count();
            assert_eq!(read, known, "{}: {}", fixture.name, topic.name);
        }
        looking.close().unwrap();
        assert!(contents(&dir) == before, "{}: changed by reading", fixture.name);

        open(&dir, &clock).close().unwrap();
        let [of_topics, internal] = features(&dir);
        // Bit 1: checksums in one pass, in segments of this build.
        assert!(of_topics.iter().all(|bits| *bits & !2 == 0), "{}", fixture.name);
        let numbered = internal.iter().filter(|bits| **bits == 3).count();
        assert!(numbered >= 1, "{}: {internal:?}", fixture.name);
    }
}

/// One segment of a later form is enough: nothing of the directory is read by a build that might
/// take it for something else, nothing is changed, and the error says what is missing.
// RED: src/format/segment.rs
//   - if version != VERSION || features != 0 {
//   + if version > VERSION + 1 {
// RED: src/log/salvage.rs
//   - Err(error) => drop(damage_of(&path, error)?),
//   + Err(error) => drop(damage_of(&path, error)),
#[test]
fn row_e17_a_directory_with_a_file_of_a_later_form_is_refused_as_a_whole() {
    const POLICIES: [RecoveryPolicy; 3] =
        [RecoveryPolicy::CutTornTail, RecoveryPolicy::Strict, RecoveryPolicy::ReadAroundDamage];
    let fixture = Fixture::of_today().next().unwrap();
    let home = temp_dir();
    let (clock, original) = (ManualClock::new(fixture.now), home.path().join("original"));
    text::unpack(&fixture.text, &original);
    let segments = files_below(&original);
    let segments = segments.iter().filter(|path| path.extension().is_some_and(|it| it == "log"));
    for (case, segment) in segments.enumerate() {
        let name = segment.strip_prefix(&original).unwrap();
        for (at, field, shown) in [
            (16, (1_u64 << 63 | 1).to_le_bytes().as_slice(), "feature bits 0x8000000000000000,"),
            (8, 2_u32.to_le_bytes().as_slice(), "format version 2,"),
        ] {
            let dir = home.path().join(format!("{case}-{at}"));
            copy_dir(&original, &dir);
            let mut bytes = fs::read(dir.join(name)).unwrap();
            bytes[at..at + field.len()].copy_from_slice(field);
            let checksum = crc32fast::hash(&bytes[..124]);
            bytes[124..128].copy_from_slice(&checksum.to_le_bytes());
            fs::write(dir.join(name), bytes).unwrap();
            let before = contents(&dir);

            let copy = home.path().join(format!("salvaged-{case}-{at}"));
            let mut refusals = vec![salvage(&dir, &copy).map(drop)];
            // Or the next attempt, with the build that knows the form, would find it not empty.
            assert!(!copy.exists(), "{}", name.display());
            for policy in POLICIES {
                for read_only in [false, true] {
                    let builder = quiet(&dir).clock(clock.clone()).recovery(policy);
                    refusals.push(builder.read_only(read_only).open().map(drop));
                }
            }
            for refused in refusals {
                let Err(error @ Error::UnsupportedVersion { path, supported: 1, .. }) = &refused
                else {
                    panic!("{}: {refused:?}", name.display())
                };
                assert_eq!(*path, dir.join(name));
                assert!(error.is_definite() && !error.is_retriable());
                let text = error.to_string();
                assert!(text.contains(shown) && text.contains("the build that wrote it"), "{text}");
            }
            // An opening that got as far as the topics has noted itself in an internal log, and has
            // opened other partitions.
            let after = contents(&dir);
            let partition = dir.join(name.parent().unwrap());
            let is_changed = |path: &Path| {
                let counts = is_internal(name) || path.starts_with(&partition);
                counts && before.get(path) != after.get(path)
            };
            let changed = before.keys().chain(after.keys()).find(|path| is_changed(path));
            assert_eq!(changed, None, "{}: changed although refused", name.display());
        }
    }
}

#[test]
fn pack() {
    let Some(to) = std::env::var_os("LOGPOND_PACK").map(PathBuf::from) else {
        eprintln!("skipped: set LOGPOND_PACK to a new folder of fixtures");
        return;
    };
    let names = std::env::var("LOGPOND_STORIES").unwrap_or_default();
    let is_named = |it: &Fixture| names.is_empty() || names.split(',').any(|name| name == it.name);
    fs::create_dir(&to).expect("a folder that there is not yet");
    for fixture in Fixture::of_today().filter(is_named) {
        fixture.write(&to.join(&fixture.name).with_extension("txt"));
    }
}
