//! `tail`: what is read, in which form, and until when.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

const FIRST: &str = "0\t0\t2023-11-14T22:13:20.000Z\tuser-7\twelcome!\ttrace=abc\n";
const SECOND: &str = "0\t1\t2023-11-14T22:14:20.000Z\tuser-7\t\\xff\\u{0}\n";
const THIRD: &str = "0\t2\t2023-11-14T22:15:20.000Z\tuser-7\t(tombstone)\n";
const OTHER: &str = "1\t0\t2023-11-14T22:16:20.000Z\t\ttwo\\nlines\n";

#[test]
fn records_are_lines_of_text() {
    let dir = sample();
    for (line, expected) in [
        ("tail {} emails", vec![FIRST, SECOND, THIRD, OTHER]),
        ("tail {} emails --from earliest", vec![FIRST, SECOND, THIRD, OTHER]),
        ("tail {} emails -n 1", vec![OTHER]),
        ("tail {} emails -n 2", vec![THIRD, OTHER]),
        ("tail {} emails -n 3 --limit 2", vec![SECOND, THIRD]),
        ("tail {} emails -n 0", vec![]),
        ("tail {} emails --partition 1", vec![OTHER]),
        ("tail {} emails -p 1 -p 0 --limit 2", vec![FIRST, SECOND]),
        ("tail {} emails --from 1 --partition 0", vec![SECOND, THIRD]),
        ("tail {} emails --from end", vec![]),
        ("tail {} emails --from 2023-11-14T22:14Z", vec![SECOND, THIRD, OTHER]),
        ("tail {} emails --from 2023-11-14T23:16+01:00", vec![OTHER]),
        ("tail {} emails --from 1h", vec![]),
        ("tail {} emails --limit 0", vec![]),
        ("tail {} addresses", vec![]),
    ] {
        let out = run(dir.path(), line).ok();
        let mut lines: Vec<&str> = out.split_inclusive('\n').collect();
        // Partitions are read in turns; each is in order.
        lines.sort_by_key(|line| line.split('\t').next().map(str::to_owned));
        assert_eq!(lines, expected, "{line}");
    }
    let refused = run(dir.path(), "tail {} nothing").refused(1);
    assert!(refused.contains(r#"there is no topic "nothing""#), "{refused}");
    let refused = run(dir.path(), "tail {} emails --partition 2").refused(1);
    assert!(refused.contains("there is no partition emails-2"), "{refused}");
}

#[test]
fn records_are_lines_of_json() {
    let dir = sample();
    let out = run(dir.path(), "tail {} emails --partition 0 --json").ok();
    assert_eq!(out, run(dir.path(), "tail {} emails -p 0 --format json").ok());
    let records: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        records[0],
        serde_json::json!({
            "topic": "emails", "partition": 0, "offset": 0,
            "timestamp": "2023-11-14T22:13:20.000Z", "key": "user-7", "value": "welcome!",
            "headers": [{"name": "trace", "value": "abc"}],
        })
    );
    assert_eq!(records[1]["value"], serde_json::json!({"hex": "ff00"}));
    assert!(records[2]["value"].is_null());
}

#[test]
fn records_are_dumps() {
    let dir = sample();
    let expected = "emails-0 0 2023-11-14T22:13:20.000Z
  key: 6 bytes
    00000000  75 73 65 72 2d 37                                user-7
  value: 8 bytes
    00000000  77 65 6c 63 6f 6d 65 21                          welcome!
  header trace: 3 bytes
    00000000  61 62 63                                         abc
";
    assert_eq!(run(dir.path(), "tail {} emails --format hex --limit 1 -p 0").ok(), expected);
    let out = run(dir.path(), "tail {} emails --format hex --from 2 -p 0").ok();
    assert!(out.contains("  value: none\n"), "{out}");
}

/// A child whose output is read line by line, and which is killed at the end.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

fn lines_of(out: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        lines.map_while(|line| send.send(line).ok()).for_each(drop);
    });
    lines
}

/// Waits for a message.
fn wait_for(said: &mpsc::Receiver<String>, text: &str) {
    while !said.recv_timeout(PATIENCE).expect(text).contains(text) {}
}

impl Following {
    fn start(dir: &Path, line: &str) -> Self {
        let mut child = command(dir, line).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The value of the next record, in the text form.
    /// It says that the topic is another one, reads three records of the sample, and ends.
    fn reads_the_sample_as_another_topic(mut self) {
        let values = [self.value(), self.value(), self.value()];
        assert_eq!(values, ["welcome!", r"\xff\u{0}", "(tombstone)"]);
        let (code, message) = self.end();
        assert_eq!(code, Some(0), "{message}");
        assert!(message.contains("topic emails is another one now"), "{message}");
    }

    fn value(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).expect("a line");
        line.split('\t').nth(4).expect("a value").to_owned()
    }

    /// Waits for the end of the program: its exit code and message.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut message = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
        (self.child.wait().unwrap().code(), message)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_topic_is_followed_beside_its_writer() {
    let dir = sample();
    let broker = service(dir.path());
    let tail = Following::start(dir.path(), "tail {} emails --follow -n 1 --partition 0");
    assert_eq!(tail.value(), "(tombstone)");
    for number in 0..3 {
        let value = format!("new {number}");
        broker.producer().send(Record::to("emails").partition(0).value(&value)).unwrap();
        assert_eq!(tail.value(), value);
    }
    // Several at once, over the end of segments, each once and in order.
    let partition = broker.topic("emails").unwrap().partition(0).unwrap();
    let values: Vec<String> = (0..1_500).map(|number| format!("many {number}")).collect();
    for value in &values {
        partition.append(&Record::new().value(value)).unwrap();
    }
    for value in &values {
        assert_eq!(&tail.value(), value);
    }
}

#[test]
fn a_partition_that_is_added_is_followed_too() {
    let dir = sample();
    let broker = service(dir.path());
    let tail = Following::start(dir.path(), "tail {} emails --follow --from 0 --limit 5");
    let mut values: Vec<String> = (0..4).map(|_| tail.value()).collect();
    values.sort();
    assert_eq!(values, ["(tombstone)", r"\xff\u{0}", r"two\nlines", "welcome!"]);
    broker.admin().add_partitions("emails", 3).unwrap();
    broker.producer().send(Record::to("emails").partition(2).value("first of 2")).unwrap();
    assert_eq!(tail.value(), "first of 2");
}

#[test]
fn following_ends_when_the_topic_is_deleted() {
    let dir = sample();
    let broker = service(dir.path());
    let mut tail = Following::start(dir.path(), "tail {} emails --follow -n 1 --partition 1");
    assert_eq!(tail.value(), r"two\nlines");
    broker.admin().delete_topic("emails").unwrap();
    let (code, message) = tail.end();
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains(r#"there is no topic "emails""#), "{message}");
}

#[test]
fn offsets_that_were_removed_before_they_were_read_are_reported() {
    let dir = sample();
    let broker = service(dir.path());
    let mut tail = Following::start(dir.path(), "tail {} emails -f --from 3 -p 0 --limit 2");
    let partition = broker.topic("emails").unwrap().partition(0).unwrap();
    partition.append(&Record::new().value("first")).unwrap();
    assert_eq!(tail.value(), "first");
    // It cannot look while it is stopped.
    let id = Pid::from_child(&tail.child);
    kill_process(id, Signal::STOP).unwrap();
    for value in ["a", "b", "c"] {
        partition.append(&Record::new().value(value)).unwrap();
    }
    broker.admin().delete_records(("emails", 0), 7).unwrap();
    partition.append(&Record::new().value("last")).unwrap();
    kill_process(id, Signal::CONT).unwrap();
    assert_eq!(tail.value(), "last");
    let (code, message) = tail.end();
    assert_eq!(code, Some(0), "{message}");
    assert!(message.contains("emails-0: offsets 4..7 are missing"), "{message}");
}

/// The damage is in what was read before the directory was looked at again.
#[test]
fn damage_that_was_passed_over_is_exit_code_3_at_the_end_of_following_too() {
    let dir = sample();
    damage::damage(dir.path(), b"welcome!");
    let broker = service(dir.path());
    let mut tail = Following::start(dir.path(), "tail {} emails --follow -p 0 --limit 3");
    assert_eq!([tail.value(), tail.value()], [r"\xff\u{0}", "(tombstone)"]);
    broker.producer().send(Record::to("emails").partition(0).value("new")).unwrap();
    assert_eq!(tail.value(), "new");
    let (code, message) = tail.end();
    assert_eq!(code, Some(3), "{message}");
}

/// `tail | head`: the program ends without a word when nobody reads any more.
#[test]
fn a_closed_pipe_is_no_error() {
    let dir = sample();
    let broker = open_quiet(dir.path());
    let partition = broker.topic("emails").unwrap().partition(0).unwrap();
    let value = "x".repeat(1_000);
    for _ in 0..1_000 {
        partition.append(&Record::new().value(&value)).unwrap();
    }
    broker.close().unwrap();
    for line in ["tail {} emails --from 0", "tail {} emails --from 0 --follow --json"] {
        let mut child = command(dir.path(), line).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        drop(out);
        let mut message = String::new();
        child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
        assert_eq!((child.wait().unwrap().code(), message.as_str()), (Some(0), ""), "{line}");
    }
}

/// Wherever the options stand.
#[test]
fn two_formats_are_a_wrong_command_line() {
    let dir = sample();
    for line in ["tail {} emails --json --format hex", "--json tail {} emails --format hex"] {
        let refused = run(dir.path(), line).refused(2);
        assert!(refused.contains("cannot be used with"), "{refused}");
    }
}

/// Its records have offsets that were read of the first one.
#[test]
fn a_topic_that_is_created_again_is_read_from_its_beginning() {
    let dir = sample();
    let broker = service(dir.path());
    let mut tail = Following::start(dir.path(), "tail {} emails -f -n 1 -p 0 --limit 6");
    assert_eq!(tail.value(), "(tombstone)");
    let id = Pid::from_child(&tail.child);
    kill_process(id, Signal::STOP).unwrap();
    broker.admin().delete_topic("emails").unwrap();
    broker.ensure_topic("emails", TopicConfig::new(1)).unwrap();
    let values = ["a", "b", "c", "d", "e"];
    for value in values {
        broker.producer().send(Record::to("emails").value(value)).unwrap();
    }
    kill_process(id, Signal::CONT).unwrap();
    assert_eq!(values.map(|_| tail.value()), values);
    let (code, message) = tail.end();
    assert_eq!(code, Some(0), "{message}");
    assert!(message.contains("topic emails is another one now"), "{message}");
}

/// As a restored backup does.
#[test]
fn a_directory_that_is_replaced_is_read_from_its_beginning() {
    let (dir, other) = (sample(), sample());
    let tail = Following::start(dir.path(), "tail {} emails -f -n 1 -p 0 --limit 4");
    assert_eq!(tail.value(), "(tombstone)");
    let id = Pid::from_child(&tail.child);
    kill_process(id, Signal::STOP).unwrap();
    let moved = other.path().join("moved");
    rustix::fs::rename(dir.path(), &moved).unwrap();
    fill_sample(dir.path());
    kill_process(id, Signal::CONT).unwrap();
    tail.reads_the_sample_as_another_topic();
}

/// As `rsync` restores a backup: the directory is the same, and its files are older.
#[test]
fn files_that_are_replaced_by_older_ones_are_read_from_the_beginning() {
    let dir = sample();
    let copy = contents(dir.path());
    let broker = service(dir.path());
    broker.producer().send(Record::to("emails").partition(0).value("lost")).unwrap();
    broker.close().unwrap();
    let tail = Following::start(dir.path(), "tail {} emails -f -n 1 -p 0 --limit 4");
    assert_eq!(tail.value(), "lost");
    let id = Pid::from_child(&tail.child);
    kill_process(id, Signal::STOP).unwrap();
    for path in files_below(dir.path()) {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in copy {
        fs::write(path, bytes).unwrap();
    }
    kill_process(id, Signal::CONT).unwrap();
    tail.reads_the_sample_as_another_topic();
}

#[test]
fn a_partition_whose_files_are_back_is_followed() {
    let (dir, aside) = (sample(), temp_dir());
    let (partition, moved) = (dir.path().join("emails/1"), aside.path().join("1"));
    rustix::fs::rename(&partition, &moved).unwrap();
    let mut tail = Following::start(dir.path(), "tail {} emails -f --from earliest --limit 4");
    let values = [tail.value(), tail.value(), tail.value()];
    assert_eq!(values, ["welcome!", r"\xff\u{0}", "(tombstone)"]);
    rustix::fs::rename(&moved, &partition).unwrap();
    assert_eq!(tail.value(), r"two\nlines");
    let (code, message) = tail.end();
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains("emails-1 can be read again"), "{message}");
}

/// It printed the whole partition: where it was to begin had been looked up when it could not be read.
#[test]
fn a_partition_whose_files_are_back_begins_where_it_was_to_begin() {
    for (line, limit, first) in [
        ("tail {} emails -f -n 1 --limit 2", 1, "(tombstone)"),
        ("tail {} emails -f --from end --limit 1", 0, "new"),
    ] {
        let (dir, aside) = (sample(), temp_dir());
        let (partition, moved) = (dir.path().join("emails/0"), aside.path().join("0"));
        rustix::fs::rename(&partition, &moved).unwrap();
        let mut tail = Following::start(dir.path(), line);
        let said = lines_of(tail.child.stderr.take().unwrap());
        wait_for(&said, "emails-0 is left out");
        for _ in 0..limit {
            assert_eq!(tail.value(), r"two\nlines");
        }
        rustix::fs::rename(&moved, &partition).unwrap();
        wait_for(&said, "emails-0 can be read again");
        let broker = service(dir.path());
        broker.producer().send(Record::to("emails").partition(0).value("new")).unwrap();
        assert_eq!(tail.value(), first, "{line}");
        drop(broker);
        assert_eq!(tail.child.wait().unwrap().code(), Some(3), "{line}");
    }
}

/// A segment is opened when it is read. It stayed left out for ever, because the partition itself was
/// not unavailable.
#[test]
fn a_partition_whose_files_vanish_for_a_moment_is_followed() {
    const RECORDS: usize = 600;
    let (dir, aside) = (sample(), temp_dir());
    let broker = open_quiet(dir.path());
    broker.ensure_topic("large", TopicConfig::new(1).segment_bytes(1 << 20)).unwrap();
    let partition = broker.topic("large").unwrap().partition(0).unwrap();
    let value = "x".repeat(16 << 10);
    for _ in 0..RECORDS {
        partition.append(&Record::new().value(&value)).unwrap();
    }
    broker.close().unwrap();
    let mut child = command(dir.path(), "tail {} large -f --from 0 --limit 600").spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    // It waits until more of what it has read is taken.
    let (files, moved) = (dir.path().join("large/0"), aside.path().join("0"));
    rustix::fs::rename(&files, &moved).unwrap();
    let said = lines_of(child.stderr.take().unwrap());
    let mut tail = Following { child, lines: lines_of(out) };
    wait_for(&said, "large-0 is left out");
    rustix::fs::rename(&moved, &files).unwrap();
    wait_for(&said, "large-0 can be read again");
    (1..RECORDS).for_each(|_| assert_eq!(tail.value(), value));
    assert_eq!(tail.child.wait().unwrap().code(), Some(3));
}

/// It counted offsets, of which compaction leaves few.
#[test]
fn the_last_records_of_a_compacted_topic_are_so_many_records() {
    let dir = temp_dir();
    let broker = service(dir.path());
    let config = small_topic(1).cleanup(logpond::Cleanup::Compact);
    broker.ensure_topic("latest", config).unwrap();
    let partition = broker.topic("latest").unwrap().partition(0).unwrap();
    let padding = "x".repeat(1_000);
    for number in 0..200 {
        let key = if number < 3 { number } else { 3 };
        let key = key.to_string();
        partition.append(&Record::new().key(&key).value(&padding)).unwrap();
    }
    broker.admin().compact_now("latest").unwrap();
    let offsets: Vec<String> =
        read_all(&partition).iter().map(|message| message.offset().to_string()).collect();
    assert!(offsets.len() < 100 && offsets[..3] == ["0", "1", "2"], "{offsets:?}");
    broker.close().unwrap();
    for count in [1, offsets.len() - 2, offsets.len(), offsets.len() + 1] {
        let out = run(dir.path(), &format!("tail {{}} latest -n {count}")).ok();
        let seen: Vec<&str> = out.lines().filter_map(|line| line.split('\t').nth(1)).collect();
        assert_eq!(seen, offsets[offsets.len().saturating_sub(count)..]);
    }
}
