//! Goal: every wrong argument, name, size, path, setting or file gets a typed error that names
//! the thing, and nothing is lost or half done. No panic, no hang, no signal.
//!
//! Method: tables of bad arguments against the public API; and hostile bytes: a small store, closed
//! or abandoned, is copied, one to three files of the copy are damaged at random (flips, zeros,
//! noise, cuts, foreign files, missing files), and the copy is opened and read in full by every
//! policy and both read modes. The seed is printed, `LOGPOND_SEED` replays it,
//! `LOGPOND_MUTATIONS` makes it a campaign.
//!
//! What must hold: whatever is read is what was written at that offset; and if opening reported no
//! damage and no read failed, then all of it is there. Of a store that was abandoned, an end that
//! is missing without a trace (its last file removed, or cut between two batches) cannot be
//! distinguished from one that was never written: there the rest must be a prefix.
//!
//! Not covered: files that change while they are open, a full disk (unit tests over the simulated
//! disk), permissions (tests run as root).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::common::*;
use logpond::{
    Acks, Broker, Durability, Error, NameError, Offsets, ReadMode, Record, RecoveryPolicy, StartAt,
    TopicConfig,
};

// ---- names ----------------------------------------------------------------------------------

/// What a name may be is a plain name of a file on every system that takes 249 bytes.
// RED: src/format/names.rs
//   - if name == "." || name == ".." {
//   + if name == "." {
// RED: src/format/names.rs
//   - if name.starts_with(INTERNAL_PREFIX) {
//   + if name.is_empty() {
#[test]
fn row_e18_every_bad_topic_name_is_refused_with_its_reason() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let (long, endless) = ("x".repeat(250), "x".repeat(10 << 10));
    for (name, expected) in [
        ("", NameError::Empty),
        (long.as_str(), NameError::TooLong { limit: 249 }),
        (endless.as_str(), NameError::TooLong { limit: 249 }),
        ("a ", NameError::Character(' ')),
        (" a", NameError::Character(' ')),
        ("\u{430}", NameError::Character('\u{430}')),
        ("orders\u{2024}eu", NameError::Character('\u{2024}')),
        ("\u{ff0e}\u{ff0e}", NameError::Character('\u{ff0e}')),
        ("a\u{200b}b", NameError::Character('\u{200b}')),
        ("a:b", NameError::Character(':')),
        ("\0", NameError::Character('\0')),
        (".", NameError::Directory),
        ("..", NameError::Directory),
        ("__meta", NameError::Reserved),
        ("__", NameError::Reserved),
        ("__mine", NameError::Reserved),
        ("a/b", NameError::Character('/')),
        ("../up", NameError::Character('/')),
        ("a b", NameError::Character(' ')),
        ("a\u{0}b", NameError::Character('\0')),
        ("a\\b", NameError::Character('\\')),
        ("caf\u{e9}", NameError::Character('\u{e9}')),
        ("a\n", NameError::Character('\n')),
        ("*", NameError::Character('*')),
    ] {
        for refused in [
            broker.ensure_topic(name, TopicConfig::new(1)).map(drop),
            broker.admin().create_topic(name, TopicConfig::new(1)).map(drop),
        ] {
            let Err(Error::InvalidName { name: named, reason }) = &refused else {
                panic!("{name:?}: {refused:?}")
            };
            assert_eq!((named.as_str(), *reason), (&name[..name.len().min(300)], expected));
            assert!(refused.unwrap_err().is_definite());
        }
        // Using is not creating: there is just no such topic. Not even the engine's own.
        for refused in [
            broker.topic(name).map(drop),
            broker.producer().send(Record::to(name).value("x")).map(drop),
            broker.reader().subscribe([name]).open().map(drop),
            broker.reader().assign([(name, 0)]).open().map(drop),
            broker.admin().describe_topic(name).map(drop),
            broker.admin().delete_topic(name),
        ] {
            let Err(Error::UnknownTopic(named)) = &refused else { panic!("{name:?}: {refused:?}") };
            assert_eq!(named, name);
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "nothing was made for them");
}

/// E18: what is a name, and that partitions of it lie below, so that no name is ever taken apart.
#[test]
fn row_e18_every_good_topic_name_is_a_directory_and_comes_back() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let good = ["x", &"x".repeat(249), "...", "_x", "a__", "-", "CON", "0", "a.", "x-1", "LOCK-"];
    for name in good {
        broker.ensure_topic(name, TopicConfig::new(2)).unwrap();
        broker.producer().send(Record::to(name).value("x")).unwrap();
        // A directory by exactly that name: partitions have one below it, not a suffix.
        assert!(dir.path().join(name).join("1").is_dir(), "{name}");
    }
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    let topics = broker.admin().topics().unwrap();
    let mut found: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
    found.sort_unstable();
    let mut expected = good.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    // The engine's own file is in nobody's way, nor is a topic in its.
    assert!(broker.ensure_topic("LOCK", TopicConfig::new(1)).is_err());
}

#[test]
fn a_hostile_name_is_not_repeated_at_full_length() {
    let broker = in_memory();
    let huge = "x".repeat(10 << 20);
    for refused in [
        broker.ensure_topic(&huge, TopicConfig::new(1)).map(drop),
        broker.consumer(&huge).subscribe(["t"]).open().map(drop),
        broker.producer_builder().id(&*huge).build().map(drop),
    ] {
        let Err(Error::InvalidName { name, reason: NameError::TooLong { .. } }) = refused else {
            panic!("another error")
        };
        assert_eq!(name.len(), 300);
    }
}

/// What a group, a member or a producer is called is bytes of a bounded length: kept as they are,
/// and never a path.
// RED: src/format/names.rs
//   - if label.len() > LABEL_BYTES_MAX {
//   + if label.len() > 1 << 20 {
#[test]
fn row_e19_names_of_groups_and_producers_are_bounded_and_never_paths() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    topic.partition(0).unwrap().append(&Record::new().value("x")).unwrap();
    let before = files_below(dir.path());
    let long = "g".repeat(256);
    for name in ["", &long] {
        for refused in [
            broker.consumer(name).subscribe(["t"]).open(),
            broker.consumer(name).assign([("t", 0)]).open(),
            broker.consumer("g").instance_id(name).subscribe(["t"]).open(),
        ] {
            assert!(matches!(refused, Err(Error::InvalidName { .. })), "{refused:?}");
        }
        let refused = broker.producer_builder().id(name).build();
        assert!(matches!(refused, Err(Error::InvalidName { .. })), "{refused:?}");
    }
    let longest = "g".repeat(255);
    let good =
        ["g", "caf\u{e9} / \u{1f980}", &longest, "__meta", "..", "../../etc", "a\0b", "CON", "G"];
    for name in good {
        let mut consumer = broker.consumer(name).instance_id(name).subscribe(["t"]).open().unwrap();
        assert_eq!(drain(&mut consumer).len(), 1, "{name:?}");
        consumer.commit().unwrap();
        drop(broker.producer_builder().id(name).build().unwrap());
    }
    assert_eq!(files_below(dir.path()), before, "a name has become a path");
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    for name in good {
        let consumer = broker.consumer(name).instance_id(name).subscribe(["t"]).open().unwrap();
        assert_eq!(consumer.committed(("t", 0)).unwrap(), Some(1), "{name:?}");
    }
    assert_eq!(broker.admin().groups().unwrap().len(), good.len());
}

// ---- settings -------------------------------------------------------------------------------

#[test]
fn each_bad_topic_setting_is_named_and_nothing_is_made() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let new = || TopicConfig::new(1);
    let before = files_below(dir.path());
    let interval =
        |millis, bytes| Durability::Interval { every: Duration::from_millis(millis), bytes };
    for (config, setting) in [
        (TopicConfig::new(0), "partitions"),
        (TopicConfig::new(10_001), "partitions"),
        (TopicConfig::new(u32::MAX), "partitions"),
        (new().segment_bytes(0), "segment_bytes"),
        (new().segment_bytes((16 << 10) - 1), "segment_bytes"),
        (new().segment_bytes((1 << 30) + 1), "segment_bytes"),
        (new().segment_bytes(u64::MAX), "segment_bytes"),
        (new().segment_bytes(16 << 10).max_record_bytes(16 << 10), "max_record_bytes"),
        (new().max_record_bytes(u32::MAX), "max_record_bytes"),
        (new().min_dirty_ratio(-0.1), "min_dirty_ratio"),
        (new().min_dirty_ratio(1.1), "min_dirty_ratio"),
        (new().min_dirty_ratio(f64::NAN), "min_dirty_ratio"),
        (new().segment_age(Duration::ZERO), "segment_age"),
        (new().durability(interval(0, 1)), "durability"),
        (new().durability(interval(1, 0)), "durability"),
    ] {
        assert_eq!(refused_setting(broker.ensure_topic("t", config.clone())), setting);
        assert_eq!(refused_setting(broker.admin().create_topic("t", config)), setting);
    }
    assert!(!dir.path().join("t").exists());
    assert_eq!(files_below(dir.path()), before);
}

#[test]
fn each_bad_setting_of_a_broker_is_named() {
    let dir = temp_dir();
    assert_eq!(refused_setting(Broker::builder().open()), "data_dir");
    assert_eq!(refused_setting(Broker::builder().in_memory().read_only(true).open()), "read_only");
    let never = Durability::Interval { every: Duration::ZERO, bytes: 1 };
    let refused = Broker::builder().data_dir(dir.path().join("new")).durability(never).open();
    assert_eq!(refused_setting(refused), "durability");
    assert!(!dir.path().join("new").exists(), "made although refused");
}

#[test]
fn each_bad_setting_of_a_producer_or_consumer_is_named() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let never = Durability::Interval { every: Duration::from_secs(1), bytes: 0 };
    assert_eq!(refused_setting(broker.producer_builder().durability(never).build()), "durability");
    assert_eq!(refused_setting(broker.producer_builder().acks(Acks::Quorum).build()), "acks");
    assert_eq!(refused_setting(broker.producer().send(Record::new().value("x"))), "record");
    let none: [&str; 0] = [];
    assert_eq!(refused_setting(broker.reader().open()), "subscribe");
    assert_eq!(refused_setting(broker.consumer("g").subscribe(none).open()), "subscribe");
    let mixed = broker.reader().subscribe(["t"]).assign([("t", 0)]).open();
    assert_eq!(refused_setting(mixed), "assign");
    let nothing = broker.reader().subscribe(["t"]).max_poll_records(0).open();
    assert_eq!(refused_setting(nothing), "max_poll_records");
    for unknown in [("t", 2), ("t", u32::MAX)] {
        for refused in [
            broker.reader().assign([unknown]).open().map(drop),
            broker.topic("t").unwrap().partition(unknown.1).map(drop),
            broker.producer().send(Record::to("t").partition(unknown.1)).map(drop),
        ] {
            let Err(Error::UnknownPartition(named)) = refused else { panic!("{refused:?}") };
            assert_eq!(named, tp("t", unknown.1));
        }
    }
    let refused = broker.reader().assign([("t", 0)]).start(StartAt::Error).open();
    assert!(matches!(refused, Err(Error::NoOffset(ref at)) if *at == tp("t", 0)), "{refused:?}");
}

#[test]
fn a_consumer_that_failed_to_open_is_no_member() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    assert!(broker.consumer("g").subscribe(["t", "none"]).open().is_err());
    assert!(broker.consumer("g").subscribe(["t"]).start(StartAt::Error).open().is_err());
    let member = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(member.assignment().len(), 2);
}

#[test]
fn the_longest_durations_do_not_overflow() {
    let broker = in_memory();
    let forever = TopicConfig::new(1).retention(Duration::MAX).segment_age(Duration::MAX);
    broker.ensure_topic("t", forever).unwrap();
    send_numbers(&broker, "t", 0, 0..1);
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    assert_eq!(reader.poll(Duration::MAX).unwrap().len(), 1);
    let auto = logpond::CommitMode::Auto { every: Duration::MAX };
    let mut member = broker.consumer("g").subscribe(["t"]).commit(auto).open().unwrap();
    assert!(member.recv_timeout(Duration::MAX).unwrap().is_some());
    let delivery = broker.producer().enqueue(Record::to("t").value("x")).unwrap();
    delivery.wait_timeout(Duration::MAX).unwrap().unwrap();
    let limits = broker.reader().subscribe(["t"]).max_poll_records(usize::MAX);
    let mut reader = limits.max_poll_bytes(usize::MAX).open().unwrap();
    assert_eq!(drain(&mut reader).len(), 2);
}

// ---- timestamps -----------------------------------------------------------------------------

/// The offset that a lookup by each of these times must give, by the definition.
fn check_lookups(broker: &Broker, times: &[u64], context: &str) {
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let around = |time: &u64| [time.saturating_sub(1), *time, time.saturating_add(1)];
    for wanted in times.iter().flat_map(around).chain([0, u64::MAX]) {
        let expected = times.iter().position(|time| *time >= wanted).map(|at| at as u64);
        let found = partition.offset_at(at(wanted)).unwrap();
        assert_eq!(found, expected, "{context}: {wanted}");
    }
    let first = partition.offset_at(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).unwrap();
    assert_eq!(first, Some(0), "{context}: before 1970");
    for (message, time) in read_all(&partition).iter().zip(times) {
        assert_eq!(message.timestamp(), at(*time), "{context}: {}", message.offset());
    }
}

/// Symptom: a lookup of a time after all records, too far away for 64 bits of milliseconds, gave
/// the first record, and a consumer that started there read everything. Cause: a time that cannot
/// be stored was taken for 1970. Rule: before 1970 every record is later, beyond the end none is.
// RED: src/partition/reader.rs
//   - None => return Ok(None),
//   + None => 0,
#[test]
fn row_e14_a_time_beyond_all_timestamps_is_later_than_every_record() {
    let broker = in_memory();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..5);
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let epoch = SystemTime::UNIX_EPOCH;
    let last = epoch + Duration::from_millis(u64::MAX);
    let beyond = last + Duration::from_millis(1);
    let (ancient, farthest) = (Duration::from_secs(1 << 60), Duration::from_secs(1 << 62));
    let cases = [
        (epoch - ancient, Some(0), 0),
        (epoch - Duration::from_nanos(1), Some(0), 0),
        (epoch, Some(0), 0),
        (last, None, 5),
        (beyond, None, 5),
        (epoch + farthest, None, 5),
    ];
    for (time, expected, position) in cases {
        assert_eq!(partition.offset_at(time).unwrap(), expected, "{time:?}");
        let reader = broker.reader().subscribe(["t"]).start(StartAt::Time(time)).open().unwrap();
        assert_eq!(reader.position(("t", 0)), Some(position), "{time:?}");
    }
}

/// Timestamps that jump about, from 1970 to the end of all numbers: a lookup gives the first record
/// of that time or a later one, from the index in memory, from footers, and where there is neither.
// RED: src/format/index.rs
//   - running = running.max(last.max_timestamp);
#[test]
fn row_e14_a_lookup_by_time_is_right_whatever_the_timestamps_are() {
    let mut rng = Rng::announced("timestamps");
    for round in 0..4 {
        let dir = temp_dir();
        let broker = open_quiet(dir.path());
        let config = TopicConfig::new(1).segment_bytes(256 << 10).retention(Duration::MAX);
        let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
        let mut times: Vec<u64> = Vec::new();
        let value = vec![b'v'; 9_000];
        while times.len() < 80 {
            let count = 1 + rng.index(3);
            let of_batch: Vec<u64> = (0..count)
                .map(|_| match rng.below(8) {
                    0 => 0,
                    1 => u64::MAX - rng.below(2),
                    2 => rng.next(),
                    3 => 1 << rng.below(64),
                    _ => 1_000_000 + rng.below(1_000),
                })
                .collect();
            let record = |time: &u64| {
                let at = SystemTime::UNIX_EPOCH + Duration::from_millis(*time);
                Record::new().value(&value).timestamp(at)
            };
            let records: Vec<_> = of_batch.iter().map(record).collect();
            partition.append_batch(&records).unwrap();
            times.extend(of_batch);
        }
        let negative = SystemTime::UNIX_EPOCH - Duration::from_millis(1);
        let refused = partition.append(&Record::new().value("x").timestamp(negative));
        assert_eq!(refused_setting(refused), "timestamp");
        check_lookups(&broker, &times, "from memory");
        broker.tick().unwrap();
        check_lookups(&broker, &times, "from footers");
        drop((partition, broker));
        check_lookups(&open_quiet(dir.path()), &times, &format!("round {round}, after a death"));
        let broker = open_quiet(dir.path());
        broker.close().unwrap();
        check_lookups(&open_quiet(dir.path()), &times, "after an end that was clean");
    }
}

// ---- paths ----------------------------------------------------------------------------------

#[test]
fn a_path_that_cannot_be_a_directory_is_an_error_that_names_it() {
    let dir = temp_dir();
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    let dangling = dir.path().join("dangling");
    std::os::unix::fs::symlink(dir.path().join("nowhere/at/all"), &dangling).unwrap();
    let around = dir.path().join("around");
    std::os::unix::fs::symlink(&around, &around).unwrap();
    for bad in [
        file.clone(),
        file.join("below"),
        file.join("far/below"),
        dangling,
        around,
        PathBuf::from("/proc/self/logpond"),
        PathBuf::from("/dev/null"),
        PathBuf::from("a\0b"),
        dir.path().join("x".repeat(300)),
        PathBuf::new(),
    ] {
        for read_only in [false, true] {
            let refused = Broker::builder().data_dir(&bad).read_only(read_only).open();
            let named = match &refused {
                Err(Error::Io { path, .. } | Error::ReadOnly { path }) => path.clone(),
                Err(Error::Corrupt(damage)) if read_only => damage.file.clone(),
                other => panic!("{}: {other:?}", bad.display()),
            };
            let related = named.starts_with(&bad) || bad.starts_with(&named);
            assert!(related, "{} is not about {}", named.display(), bad.display());
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_read_only_open_of_nothing_creates_nothing() {
    let dir = temp_dir();
    for path in [dir.path().to_path_buf(), dir.path().join("none")] {
        assert!(Broker::builder().data_dir(&path).read_only(true).open().is_err());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_in_place_of_a_file_is_an_error() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", small_topic(1)).unwrap();
    broker.close().unwrap();
    let lock = dir.path().join("LOCK");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let refused = Broker::open(dir.path());
    assert!(matches!(refused, Err(Error::Io { ref path, .. }) if *path == lock), "{refused:?}");
    fs::remove_dir(&lock).unwrap();
    Broker::open(dir.path()).unwrap().close().unwrap();
}

// ---- hostile bytes --------------------------------------------------------------------------

/// What a store holds: records by topic, partition and offset.
type Contents = BTreeMap<(String, u32, u64), Vec<u8>>;

/// A store with sealed and active segments, two topics, commits and a named producer.
fn make_store(dir: &Path, closes: bool) -> Contents {
    let mut contents = Contents::new();
    let broker = quiet(dir).seed(7).clock(manual_clock()).open().unwrap();
    broker.ensure_topic("a", small_topic(2)).unwrap();
    broker.ensure_topic("b", small_topic(1).durability(Durability::Sync)).unwrap();
    let named = broker.producer_builder().id("p").build().unwrap();
    let mut rng = Rng::new(7);
    for number in 0..260_u64 {
        let (topic, partition) = [("a", 0), ("a", 1), ("b", 0)][rng.index(3)];
        let len = 50 + rng.index(400);
        let value = [number.to_le_bytes().to_vec(), rng.bytes(len)].concat();
        let record = Record::to(topic).partition(partition).value(&value).header("h", "v");
        let offset = send_as(&named, rng.one_in(3).then_some(number), record);
        contents.insert((topic.to_owned(), partition, offset), value);
        if number % 64 == 0 {
            broker.tick().unwrap();
        }
    }
    let mut consumer = broker.consumer("g").subscribe(["a", "b"]).open().unwrap();
    consumer.commit_offsets(&Offsets::from([(tp("a", 0), 3), (tp("b", 0), 5)])).unwrap();
    drop((consumer, named));
    if closes {
        broker.close().unwrap();
    }
    contents
}

/// Damages one file of a store, or the set of its files. Says what it did.
fn mutate(rng: &mut Rng, dir: &Path) -> String {
    let files: Vec<PathBuf> =
        files_below(dir).into_iter().filter(|file| file.file_name().unwrap() != "LOCK").collect();
    let file = &files[rng.index(files.len())];
    let other = &files[rng.index(files.len())];
    let len = fs::metadata(file).unwrap().len();
    let open = || OpenOptions::new().read(true).write(true).open(file).unwrap();
    let overwrite = |at: u64, bytes: &[u8]| {
        let mut file = open();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    };
    // Most of what matters lies at the start of a file.
    let at = match rng.below(4) {
        0 => rng.below(200.min(len).max(1)),
        1 => rng.below(5000.min(len).max(1)),
        2 => len.saturating_sub(1 + rng.below(600.min(len).max(1))),
        _ => rng.below(len.max(1)),
    };
    let count = 1 + rng.index(64);
    let what = match rng.below(11) {
        0..=2 => {
            let byte = fs::read(file).unwrap().get(usize::try_from(at).unwrap()).copied();
            let flipped = byte.unwrap_or(0) ^ (1 << rng.below(8));
            overwrite(at, &[flipped]);
            "a flipped bit"
        }
        3 => {
            overwrite(at, &vec![0; count]);
            "zeros"
        }
        4 => {
            overwrite(at, &vec![0xff; count]);
            "ones"
        }
        5 => {
            let noise = rng.bytes(count);
            overwrite(at, &noise);
            "noise"
        }
        6 => {
            open().set_len(at).unwrap();
            "cut off"
        }
        7 => {
            open().set_len(len + 1 + rng.below(100_000)).unwrap();
            "longer"
        }
        8 => {
            fs::remove_file(file).unwrap();
            "removed"
        }
        9 => {
            let bytes = fs::read(other).unwrap();
            fs::write(file, bytes).unwrap();
            "replaced by another"
        }
        _ => {
            let number = rng.below(40);
            let name = file.with_file_name(format!("{number:020}.log"));
            let bytes = fs::read(file).unwrap();
            fs::write(name, bytes).unwrap();
            "copied to another number"
        }
    };
    let file = file.strip_prefix(dir).unwrap().display();
    let other = other.strip_prefix(dir).unwrap().display();
    format!("{file}: {what} at {at} of {len} ({count}; {other})")
}

/// Opens a damaged store and reads everything that can be read, in both ways. Whatever comes must
/// be what was written. Returns whether anything was reported or failed.
fn open_and_read(dir: &Path, rng: &mut Rng, contents: &Contents) -> bool {
    let policies =
        [RecoveryPolicy::CutTornTail, RecoveryPolicy::Strict, RecoveryPolicy::ReadAroundDamage];
    let policy = policies[rng.index(3)];
    let read_mode = [ReadMode::Mapped, ReadMode::Copy][rng.index(2)];
    let read_only = rng.one_in(4);
    let builder = quiet(dir).recovery(policy).read_mode(read_mode).read_only(read_only);
    let Ok(broker) = builder.open() else { return true };
    let mut failed = !broker.recovery().is_clean();
    let mut found = 0;
    let topics = broker.admin().topics().unwrap();
    for info in &topics {
        for partition in &info.partitions {
            let at = tp(&info.name, partition.partition);
            found += read_partition(&broker, &at, contents, &mut failed);
            failed |= !consume_partition(&broker, &at, contents);
        }
    }
    if failed {
        return true;
    }
    // An end that is missing without a trace: a prefix is all that can be asked for. That it is
    // one was checked while reading.
    if !broker.recovery().clean_shutdown && found < contents.len() {
        return true;
    }
    assert_eq!(found, contents.len(), "{policy:?}: loss that nobody reported");
    if !read_only {
        let named = broker.producer_builder().id("p").build().unwrap();
        let last = named.last_sequence(&tp("a", 0));
        let was_clean = broker.recovery().clean_shutdown;
        assert!(last.is_some() || !was_clean, "sequences lost unreported");
    }
    if !broker.recovery().clean_shutdown {
        return false;
    }
    let consumer = broker.consumer("g").assign([("a", 0), ("b", 0)]).open().unwrap();
    assert_eq!(consumer.committed(&tp("a", 0)).unwrap(), Some(3), "commits lost unreported");
    assert_eq!(consumer.committed(&tp("b", 0)).unwrap(), Some(5), "commits lost unreported");
    false
}

fn check(contents: &Contents, at: &logpond::TopicPartition, offset: u64, value: Option<&[u8]>) {
    let key = (at.topic.to_string(), at.partition, offset);
    let written = contents.get(&key).unwrap_or_else(|| panic!("{key:?} was never written"));
    assert!(value == Some(&written[..]), "{key:?} is not what was written");
}

fn read_partition(
    broker: &Broker,
    at: &logpond::TopicPartition,
    contents: &Contents,
    failed: &mut bool,
) -> usize {
    let partition = broker.topic(&at.topic).unwrap().partition(at.partition).unwrap();
    let mut next = partition.log_start_offset();
    let mut found = 0;
    loop {
        match partition.read(next, 4096) {
            Ok(batch) if batch.is_empty() => return found,
            Ok(batch) => {
                for message in batch.iter() {
                    assert!(message.offset() >= next, "an offset went back");
                    let is_gap = message.offset() > next && !*failed;
                    assert!(!is_gap, "{at}: a silent gap before {}", message.offset());
                    check(contents, at, message.offset(), message.value());
                    next = message.next_offset();
                    found += 1;
                }
            }
            Err(error) => {
                *failed = true;
                let Error::Corrupt(damage) = error else { return found };
                let Some(offsets) = damage.offsets.filter(|it| it.end > next) else { return found };
                next = offsets.end;
            }
        }
    }
}

/// Whether all was well.
fn consume_partition(broker: &Broker, at: &logpond::TopicPartition, contents: &Contents) -> bool {
    let Ok(mut reader) = broker.reader().assign([at]).open() else { return false };
    let mut well = true;
    loop {
        match reader.poll(Duration::ZERO) {
            Ok(batch) if batch.is_empty() => return well && reader.take_gaps().is_empty(),
            Ok(batch) => {
                for message in batch.iter() {
                    check(contents, at, message.offset(), message.value());
                }
            }
            Err(error) => {
                well = false;
                let position = reader.position(at).unwrap();
                let Error::Corrupt(damage) = error else { return false };
                let Some(offsets) = damage.offsets.filter(|it| it.end > position) else {
                    return false;
                };
                reader.seek(at, StartAt::Offset(offsets.end)).unwrap();
                if reader.position(at) == Some(position) {
                    return false;
                }
            }
        }
    }
}

#[test]
fn statement_07_damaged_files_never_panic_and_never_show_what_was_not_written() {
    let mut rng = Rng::announced("mutations");
    let mutations = from_env("LOGPOND_MUTATIONS", 40);
    let (mut reported, mut unharmed) = (0, 0);
    for closes in [true, false] {
        let original = temp_dir();
        let contents = make_store(original.path(), closes);
        assert!(!open_and_read_undamaged(original.path(), &contents), "damaged from the start");
        for number in 0..mutations {
            let copy = temp_dir();
            let store = copy.path().join("store");
            copy_dir(original.path(), &store);
            let what: Vec<String> =
                (0..=rng.below(3) / 2).map(|_| mutate(&mut rng, &store)).collect();
            let seen =
                catch_unwind(AssertUnwindSafe(|| open_and_read(&store, &mut rng, &contents)));
            match seen {
                Ok(true) => reported += 1,
                Ok(false) => unharmed += 1,
                Err(_) => {
                    let kept = copy.keep();
                    panic!("mutation {number}, closed {closes}: {what:?}, kept in {kept:?}");
                }
            }
            // A second time: the first may have repaired, it must not have made things worse.
            let again =
                catch_unwind(AssertUnwindSafe(|| open_and_read(&store, &mut rng, &contents)));
            assert!(again.is_ok() || !closes, "second open after {what:?}");
        }
    }
    // Both kinds happen, or the mutations do not test what they should.
    assert!(reported > 0 && unharmed > 0, "{reported} reported, {unharmed} unharmed");
}

fn open_and_read_undamaged(dir: &Path, contents: &Contents) -> bool {
    let copy = temp_dir();
    let store = copy.path().join("store");
    copy_dir(dir, &store);
    open_and_read(&store, &mut Rng::new(0), contents)
}
