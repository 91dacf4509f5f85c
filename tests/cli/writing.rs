//! `reset` and `produce`: they look first, and write alone.

use super::*;
use logpond::Error;

fn committed(dir: &Path, group: &str) -> Vec<Option<u64>> {
    let broker = open_quiet(dir);
    let group = broker.admin().describe_group(group).unwrap();
    group.offsets.iter().map(|offset| offset.committed).collect()
}

fn values(dir: &Path, topic: &str) -> Vec<(Option<String>, String)> {
    let broker = open_quiet(dir);
    let mut reader = broker.reader().subscribe([topic]).open().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let messages = drain(&mut reader);
    messages.iter().map(|it| (it.key().map(text), text(it.value().unwrap()))).collect()
}

#[test]
fn a_reset_is_tried_first_and_then_done() {
    let dir = sample();
    let before = contents(dir.path());
    let rows = "GROUP   TOPIC   PARTITION  COMMITTED  RESET TO  LAG\n\
                mailer  emails          0          1         3    0\n\
                mailer  emails          1          1         1    0\n";
    let out = run(dir.path(), "reset {} mailer emails --to end").ok();
    assert_eq!(out, format!("{rows}Nothing was changed. Add `--execute` to reset the offsets.\n"));
    assert!(contents(dir.path()) == before, "a dry run has written");
    let out = run(dir.path(), "reset {} mailer emails --to end --execute").ok();
    assert_eq!(out, format!("{rows}The offsets are reset.\n"));
    assert_eq!(committed(dir.path(), "mailer"), [Some(3), Some(1)]);
}

/// The dry run says what is then done, for every way to name an offset.
#[test]
fn a_dry_run_and_the_reset_agree() {
    let dir = sample();
    let only_0 = " --partition 0";
    for (to, partition, expected) in [
        ("earliest", "", [0, 0]),
        ("1", "", [1, 1]),
        ("99", "", [3, 1]),
        ("2023-11-14T22:14Z", "", [1, 0]),
        ("2023-11-15", "", [3, 1]),
        ("forever", "", [0, 0]),
        ("2", only_0, [2, 0]),
    ] {
        let line = format!("reset {{}} mailer emails --json --to {to}{partition}");
        let mut plan = run(dir.path(), &line).json();
        let mut done = run(dir.path(), &format!("{line} --execute")).json();
        assert_eq!((plan["executed"].take(), done["executed"].take()), (false.into(), true.into()));
        assert_eq!(plan, done, "{to}");
        assert_eq!(committed(dir.path(), "mailer"), expected.map(Some), "{to}");
    }
}

/// A mistyped name would create a group that nobody has, and change nothing of the one that was
/// meant.
#[test]
fn a_reset_creates_a_group_only_if_it_is_asked_to() {
    let dir = sample();
    for end in ["", " --execute"] {
        let refused = run(dir.path(), &format!("reset {{}} mailr emails --to end{end}")).refused(1);
        assert!(refused.contains(r#"there is no group "mailr""#), "{refused}");
        let line = format!("reset {{}} mailer emials --to end{end}");
        assert!(run(dir.path(), &line).refused(1).contains(r#"no topic "emials""#));
        let line = format!("reset {{}} mailer emails --to end --partition 2{end}");
        assert!(run(dir.path(), &line).refused(1).contains("no partition emails-2"));
    }
    run(dir.path(), "reset {} new emails --to 2 --new-group --execute").ok();
    assert_eq!(committed(dir.path(), "new"), [Some(2), Some(1)]);
}

/// Only one process writes to a directory. The message says which one does.
#[test]
fn what_writes_says_which_process_has_the_directory() {
    let dir = sample();
    let broker = service(dir.path());
    for line in [
        "reset {} mailer emails --to end --execute",
        "produce {} emails",
        "produce {} other --create 1 --wait 0s",
    ] {
        let refused = run_with(dir.path(), line, "one\n").refused(1);
        let process = format!("is in use by process {} (", std::process::id());
        assert!(refused.contains(&process) && refused.contains("--wait"), "{refused}");
    }
    // But a reset can be planned.
    run(dir.path(), "reset {} mailer emails --to end").ok();
    assert!(matches!(broker.topic("other"), Err(Error::UnknownTopic(_))));
    // It waits for the service to end, if it is asked to.
    let mut child = command(dir.path(), "produce {} emails --wait 40s");
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"waited\n").unwrap();
    broker.close().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let broker = open_quiet(dir.path());
    let mut reader = broker.reader().subscribe(["emails"]).open().unwrap();
    let last = drain(&mut reader).into_iter().map(|it| it.value().map(<[u8]>::to_vec));
    assert!(last.flatten().any(|value| value == b"waited"));
}

#[test]
fn lines_are_sent_as_records() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    let line = "produce {} jobs --create 1 --retention 12h --segment-bytes 1MiB \
                --retention-bytes 10GB --json";
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let out = run_with(&data, &line, "one\n\ntwo: 2\nwithout an end").json();
    assert_eq!(
        out,
        serde_json::json!({"topic": "jobs", "records": 4, "partitions": [
            {"partition": 0, "records": 4, "first_offset": 0, "last_offset": 3}]})
    );
    let sent: Vec<String> = values(&data, "jobs").into_iter().map(|(_, value)| value).collect();
    assert_eq!(sent, ["one", "", "two: 2", "without an end"]);
    let config = open_quiet(&data).topic("jobs").unwrap().config();
    assert_eq!(config.retention, Duration::from_secs(12 * 3_600));
    assert_eq!((config.segment_bytes, config.retention_bytes), (1 << 20, 10_000_000_000));

    let out = run_with(&data, "produce {} jobs --key-separator :", "a:1\nb:2:3\n").ok();
    assert_eq!(
        out,
        "TOPIC  PARTITION  RECORDS  FIRST  LAST\njobs           0        2      4     5\n"
    );
    let sent = values(&data, "jobs");
    let (a, b) = ((Some("a".to_owned()), "1".to_owned()), (Some("b".to_owned()), "2:3".to_owned()));
    assert_eq!(sent[4..], [a, b]);
    let nothing = run_with(&data, "produce {} jobs", "").ok();
    assert_eq!(nothing.lines().count(), 1, "{nothing}");
}

/// More lines than wait for the disk at the same time, in order.
#[test]
fn many_lines_are_sent_in_order() {
    let dir = temp_dir();
    let lines: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    let line = "produce {} jobs --create 2 --partition 1";
    let data = dir.path().join("data");
    run_with(&data, line, &lines.join("\n")).ok();
    let sent: Vec<String> = values(&data, "jobs").into_iter().map(|(_, value)| value).collect();
    assert_eq!(sent, lines);
}

#[test]
fn a_line_that_cannot_be_sent_is_named_and_those_before_it_are_sent() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    let long = "x".repeat((1 << 20) + 1);
    for (line, input, reason) in [
        ("produce {} a --create 1 --key-separator :", "k:v\nno separator\nk:w\n", "it has no key"),
        ("produce {} b --create 1", &*format!("v\n{long}\nw\n"), "longer than 1048576 bytes"),
    ] {
        let refused = run_with(&data, line, input).refused(1);
        assert!(refused.contains("line 2: ") && refused.contains(reason), "{refused}");
        assert!(refused.contains("(1 line before it was sent)"), "{refused}");
    }
    assert_eq!(values(&data, "a"), [(Some("k".to_owned()), "v".to_owned())]);
    assert_eq!(values(&data, "b"), [(None, "v".to_owned())]);
}

#[test]
fn a_topic_is_created_only_if_it_is_asked_for() {
    let dir = sample();
    let refused = run_with(dir.path(), "produce {} email", "one\n").refused(1);
    assert!(refused.contains(r#"there is no topic "email""#), "{refused}");
    assert_eq!(run(dir.path(), "topics {}").ok().lines().count(), 3);
    let refused = run_with(dir.path(), "produce {} emails --partition 2", "one\n").refused(1);
    assert!(refused.contains("there is no partition emails-2"), "{refused}");
    // One that is there has to be as it is asked for.
    let refused = run_with(dir.path(), "produce {} emails --create 3", "one\n").refused(1);
    assert!(refused.contains("partitions"), "{refused}");
    run_with(dir.path(), "produce {} emails --create 2", "one\n").ok();
    let none = dir.path().join("none");
    assert!(run_with(&none, "produce {} emails", "one\n").refused(1).contains("no such directory"));
    assert!(!none.exists());
    // A directory of something else does not become a data directory.
    let other = temp_dir();
    fs::write(other.path().join("file"), "x").unwrap();
    let refused = run_with(other.path(), "produce {} emails --create 1", "one\n").refused(1);
    assert!(refused.contains("is not a data directory"), "{refused}");
    assert_eq!(files_below(other.path()).len(), 1);
    let empty = temp_dir();
    run_with(empty.path(), "produce {} emails --create 1", "one\n").ok();
}

/// A process can name itself as it likes, and its name must not reach the terminal as it is.
#[test]
fn the_name_of_another_process_is_escaped() {
    let dir = sample();
    let broker = service(dir.path());
    let before = fs::read_to_string("/proc/self/comm").unwrap();
    fs::write("/proc/self/comm", "a\u{1b}[2J").unwrap();
    let refused = run_with(dir.path(), "produce {} emails", "one\n").refused(1);
    fs::write("/proc/self/comm", before.trim_end()).unwrap();
    assert!(refused.contains(r"(a\u{1b}[2J)"), "{refused}");
    broker.close().unwrap();
}

/// A dry run refuses what the reset would.
#[test]
fn a_dry_run_refuses_what_the_reset_refuses() {
    let dir = sample();
    let name = "g".repeat(256);
    for end in ["", " --execute"] {
        let line = format!("reset {{}} {name} emails --to end --new-group{end}");
        let refused = run(dir.path(), &line).refused(1);
        assert!(refused.contains("cannot be used as a name"), "{refused}");
    }
    fs::remove_dir_all(dir.path().join("emails/1")).unwrap();
    for end in ["", " --execute"] {
        for partition in ["", " --partition 1"] {
            let line = format!("reset {{}} mailer emails --to end{partition}{end}");
            let ran = run(dir.path(), &line);
            assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{line}: {}", ran.err);
        }
        run(dir.path(), &format!("reset {{}} mailer emails --to 2 --json -p 0{end}"));
    }
}

/// What is refused has made nothing.
#[test]
fn a_topic_that_cannot_be_made_is_refused_before_anything_is_made() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    for (line, reason) in [
        ("produce {} a/b --create 1", "cannot be used as a name"),
        ("produce {} __meta --create 1", "cannot be used as a name"),
        ("produce {} a --create 0", "partitions"),
        ("produce {} a --create 1 --segment-bytes 1B", "segment_bytes"),
        ("produce {} a --create 2 --partition 2", "there is no partition a-2"),
    ] {
        let refused = run_with(&data, line, "one\n").refused(1);
        assert!(refused.contains(reason), "{line}: {refused}");
        assert!(!data.exists(), "{line}");
    }
    let dir = sample();
    let before = contents(dir.path());
    let line = "produce {} new --create 2 --partition 2";
    assert!(run_with(dir.path(), line, "one\n").refused(1).contains("there is no partition new-2"));
    assert!(contents(dir.path()) == before, "something was written");
}

/// The disk refuses after some lines: the message names the first that was not sent.
#[test]
fn a_disk_that_fails_later_is_reported_with_the_line() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    run_with(&data, "produce {} jobs --create 1", "").ok();
    let mut child = Command::new("sh");
    // Files may have 2 MiB. With the signal ignored, a longer one is an error.
    let limited = r#"trap "" XFSZ; ulimit -f 4096; exec "$0" produce "$1" jobs"#;
    child.args(["-c", limited, env!("CARGO_BIN_EXE_logpond")]).arg(&data);
    let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let line = format!("{}\n", "x".repeat(1_000));
    let writer = std::thread::spawn(move || {
        (0..8_000).take_while(|_| input.write_all(line.as_bytes()).is_ok()).count()
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    let number = message.strip_prefix("logpond: line ").and_then(|it| it.split(':').next());
    let number: usize = number.unwrap_or_else(|| panic!("{message}")).parse().unwrap();
    assert!(number > 1, "{message}");
    assert_eq!(values(&data, "jobs").len().min(number - 1), number - 1, "{message}");
    assert!(message.contains("lines before it were sent)"), "{message}");
}

#[test]
fn damage_is_mentioned_before_something_is_written_beside_it() {
    let dir = sample();
    fs::remove_dir_all(dir.path().join("emails/1")).unwrap();
    let ran = run_with(dir.path(), "produce {} emails --partition 0", "one\n");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("1 damaged partition;"), "{}", ran.err);
}
