//! `topics`, `describe`, `groups`, `lag`: what can be seen from outside.

use super::*;

const COMMANDS: [&str; 7] = [
    "topics {}",
    "describe {} emails",
    "groups {}",
    "lag {}",
    "tail {} emails",
    "verify {}",
    "reset {} mailer emails --to end",
];

#[test]
fn topics_are_listed() {
    let dir = sample();
    let out = run(dir.path(), "topics {}").ok();
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["TOPIC", "PARTITIONS", "OFFSETS", "SIZE", "CLEANUP", "RETENTION"]);
    let [name, partitions, offsets, _, cleanup, retention] = lines[2][..] else { panic!("{out}") };
    assert_eq!(
        [name, partitions, offsets, cleanup, retention],
        ["emails", "2", "4", "delete", "forever"]
    );
    assert_eq!(lines[1][0], "addresses");
    assert_eq!(lines.len(), 3, "{out}");

    let json = run(dir.path(), "topics {} --json").json();
    let topic = &json["topics"][1];
    assert_eq!((topic["name"].as_str(), topic["offsets"].as_u64()), (Some("emails"), Some(4)));
    assert!(topic["bytes"].as_u64().unwrap() > 0);
    assert!(topic["retention_ms"].is_null());
    assert_eq!(json["topics"][0]["retention_ms"], 604_800_000);
}

#[test]
fn a_topic_is_described() {
    let dir = sample();
    let out = run(dir.path(), "describe {} emails").ok();
    for part in
        ["topic            emails", "retention        forever", "segments         of 64MiB or 7d"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains("compaction"), "{out}");
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    let rows = &rows[rows.len() - 2..];
    assert_eq!((rows[0][..3].to_vec(), rows[0][5]), (vec!["0", "0", "3"], "ok"), "{out}");
    assert_eq!(rows[1][..3], ["1", "0", "1"], "{out}");
    assert!(run(dir.path(), "describe {} addresses").ok().contains("compaction       from 0.5"));

    let json = run(dir.path(), "--json describe {} emails").json();
    assert_eq!(json["settings"]["segment_bytes"], 64 << 20);
    assert_eq!(json["partitions"][0]["log_end_offset"], 3);
    let refused = run(dir.path(), "describe {} email").refused(1);
    assert!(refused.contains(r#"there is no topic "email"; `logpond topics`"#), "{refused}");
}

#[test]
fn groups_and_their_lag_are_listed() {
    let dir = sample();
    assert_eq!(
        run(dir.path(), "groups {}").ok(),
        "GROUP   PARTITIONS  LAG  TOPICS\nmailer           2    2  emails\n"
    );
    let table = "GROUP   TOPIC   PARTITION  COMMITTED  START  END  LAG\n\
                 mailer  emails          0          1      0    3    2\n\
                 mailer  emails          1          1      0    1    0\n";
    for line in ["lag {}", "lag {} mailer", "lag {} mailer --topic emails"] {
        assert_eq!(run(dir.path(), line).ok(), table);
    }
    assert_eq!(run(dir.path(), "lag {} --topic addresses").ok().lines().count(), 1);
    let json = run(dir.path(), "lag {} --json").json();
    assert_eq!((&json["lag"], &json["offsets"][0]["committed"]), (&2.into(), &1.into()));
    assert_eq!(run(dir.path(), "groups {} --json").json()["groups"][0]["topics"][0], "emails");
    let refused = run(dir.path(), "lag {} nobody").refused(1);
    assert!(refused.contains(r#"there is no group "nobody"; `logpond groups`"#), "{refused}");
    assert!(run(dir.path(), "lag {} --topic t").refused(1).contains("there is no topic"));
}

/// A group's name may be any text, also one that clears the screen.
#[test]
fn names_that_a_terminal_would_act_upon_are_escaped() {
    let dir = sample();
    let name = "a\u{1b}[2J\u{9b}b\u{202e}";
    let broker = open_quiet(dir.path());
    broker.consumer(name).subscribe(["emails"]).open().unwrap().close().unwrap();
    broker.close().unwrap();
    let out = run(dir.path(), "groups {}").ok();
    assert!(out.contains(r"a\u{1b}[2J\u{9b}b\u{202e}"), "{out:?}");
    let json = run(dir.path(), "groups {} --json").ok();
    for out in [out, json.clone()] {
        assert!(!out.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{out:?}");
    }
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["groups"][0]["name"], name);
    let refused = run(dir.path(), "lag {} x\u{1b}y").refused(1);
    assert!(refused.contains(r"x\u{1b}y"), "{refused:?}");
}

/// What only reads works while a service has the directory open, sees what it has written just now,
/// and writes nothing, neither then nor afterwards.
#[test]
fn what_only_reads_works_beside_a_service_and_writes_nothing() {
    let dir = sample();
    let broker = service(dir.path());
    for number in 0..2 {
        let before = contents(dir.path());
        for line in COMMANDS {
            run(dir.path(), line).ok();
            run(dir.path(), &format!("{line} --json")).ok();
        }
        assert!(contents(dir.path()) == before, "a file was changed");
        let end = run(dir.path(), "describe {} emails --json").json();
        assert_eq!(end["partitions"][0]["log_end_offset"], 3 + number);
        broker.producer().send(Record::to("emails").partition(0).value("new")).unwrap();
    }
    broker.close().unwrap();
    let before = contents(dir.path());
    for line in COMMANDS {
        run(dir.path(), line).ok();
    }
    assert!(contents(dir.path()) == before, "a file was changed");
}

#[test]
fn what_is_no_data_directory_is_refused_and_nothing_is_made_of_it() {
    let dir = temp_dir();
    let (none, file) = (dir.path().join("none"), dir.path().join("file"));
    fs::write(&file, "x").unwrap();
    let writing = ["produce {} emails", "reset {} mailer emails --to end --execute"];
    for line in COMMANDS.into_iter().chain(writing) {
        assert!(run(&none, line).refused(1).ends_with("there is no such directory"));
        assert!(run(&file, line).refused(1).ends_with("it is not a directory"));
        let refused = run(dir.path(), line).refused(1);
        assert!(refused.contains("is not a data directory of logpond"), "{refused}");
    }
    assert_eq!(files_below(dir.path()), [file]);
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_help_is_not() {
    let dir = sample();
    for line in [
        "",
        "topics",
        "topic {}",
        "tail {} emails --from yesterday",
        "tail {} emails --from 2026-11-01T00:00",
        "tail {} emails --from 1 --last 1",
        "tail {} emails --format xml",
        "tail {} emails --json --format hex",
        "tail {} emails --partition -1",
        "reset {} mailer emails",
        "produce {} t --create 1 --segment-bytes 64M",
        "produce {} t --create 1 --retention 7",
        "produce {} t --retention 7d",
        "produce {} t --key-separator ",
    ] {
        let refused = run(dir.path(), line).refused(2);
        assert!(refused.contains("Usage") || refused.contains("error: "), "{line}: {refused}");
    }
    for line in ["--help", "help tail", "tail --help"] {
        assert!(run(dir.path(), line).ok().contains("Usage: logpond"), "{line}");
    }
    let version = run(dir.path(), "--version").ok();
    assert_eq!(version, concat!("logpond ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// What the system does not say is not taken for absence. (A test may run as root, which may look
/// into every directory: so it is a link that leads to itself.)
#[test]
fn a_path_that_cannot_be_looked_at_is_reported_with_its_reason() {
    let dir = temp_dir();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&link, &link).unwrap();
    let refused = run(&link, "topics {}").refused(1);
    assert!(refused.contains("cannot look at") && refused.contains("symbolic links"), "{refused}");
    let other = temp_dir();
    let link = other.path().join("__meta");
    std::os::unix::fs::symlink(&link, &link).unwrap();
    let refused = run(other.path(), "topics {}").refused(1);
    assert!(refused.contains("__meta: ") && refused.contains("symbolic links"), "{refused}");
    let refused = run_with(other.path(), "produce {} emails --create 1", "one\n").refused(1);
    assert!(refused.contains("symbolic links"), "{refused}");
}
