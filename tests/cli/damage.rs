//! `verify` and `salvage`, and what the other commands say about damage.

use super::*;

/// Changes a byte of a record's value, in the only file that has it.
pub(crate) fn damage(dir: &Path, value: &[u8]) -> PathBuf {
    for path in files_below(dir) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(position) = bytes.windows(value.len()).position(|it| it == value) {
            bytes[position] ^= 1;
            fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("no file has the value");
}

/// The topic `emails` has a damaged record with the offset 0 in partition 0.
fn damaged() -> TempDir {
    let dir = sample();
    damage(dir.path(), b"welcome!");
    dir
}

#[test]
fn a_sound_directory_is_verified() {
    let dir = sample();
    let out = run(dir.path(), "verify {}").ok();
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, ["TOPIC", "__offsets", "__meta", "__local", "addresses", "emails"], "{out}");
    assert_eq!(rows[5][1..], ["2", "4", "4", "0"], "{out}");
    let json = run(dir.path(), "verify {} emails --json").json();
    assert_eq!(json["topics"].as_array().unwrap().len(), 1);
    assert_eq!(json["damage"], serde_json::json!([]));
    assert_eq!(json["topics"][0]["records"], 4);
    assert!(run(dir.path(), "verify {} emails nothing").refused(1).contains("\"nothing\""));
}

#[test]
fn damage_is_listed_and_is_exit_code_3() {
    let dir = damaged();
    let before = contents(dir.path());
    let ran = run(dir.path(), "verify {}");
    assert_eq!((ran.code, ran.err.as_str()), (3, ""), "{}", ran.out);
    let line = ran.out.lines().find(|line| line.starts_with("damaged: ")).unwrap();
    assert!(line.contains("/emails/0/") && line.contains("checksum"), "{line}");
    assert!(line.contains("(offsets 0..1)"), "{line}");
    let ran = run(dir.path(), "verify {} --json");
    assert_eq!(ran.code, 3);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let found = &json["damage"][0];
    assert_eq!((&found["topic"], &found["partition"]), (&"emails".into(), &0.into()));
    assert_eq!(found["offsets"], serde_json::json!({"start": 0, "end": 1}));
    run(dir.path(), "verify {} addresses").ok();
    assert!(contents(dir.path()) == before, "a file was changed");
}

/// All records that can be read are read; the exit code says that some cannot.
#[test]
fn damaged_records_are_passed_over_and_reported() {
    let dir = damaged();
    let ran = run(dir.path(), "tail {} emails --partition 0");
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
    assert!(ran.err.contains("emails-0: offsets 0..1 are missing"), "{}", ran.err);
}

#[test]
fn a_missing_partition_is_shown_and_verified() {
    let dir = sample();
    fs::remove_dir_all(dir.path().join("emails/1")).unwrap();
    let ran = run(dir.path(), "describe {} emails");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("unavailable") && ran.err.contains("1 damaged partition;"), "{ran:?}");
    let ran = run(dir.path(), "verify {} emails");
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.out.contains("/emails/1 at byte 0"), "{}", ran.out);
    assert_eq!(ran.out.matches("damaged: ").count(), 1, "once, not by two checks: {}", ran.out);
    let ran = run(dir.path(), "tail {} emails --partition 1");
    assert_eq!(ran.code, 3, "{}", ran.err);
}

#[test]
fn a_directory_that_does_not_open_is_exit_code_3_and_names_salvage() {
    let dir = sample();
    fs::remove_dir_all(dir.path().join("__meta")).unwrap();
    for line in ["topics {}", "verify {}", "tail {} emails", "produce {} emails"] {
        let refused = run(dir.path(), line).refused(3);
        assert!(refused.contains("__meta") && refused.contains("salvage"), "{refused}");
    }
}

/// Runs `salvage` to a path beside the directory.
fn salvage(dir: &Path, to: &Path, json: bool) -> Ran {
    let mut command = program();
    command.arg("salvage").arg(dir).arg(to).args(json.then_some("--json"));
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn what_can_be_read_is_salvaged_and_the_source_is_not_touched() {
    let dir = damaged();
    fs::remove_dir_all(dir.path().join("__meta")).unwrap();
    let before = contents(dir.path());
    let copies = temp_dir();
    let copy = copies.path().join("copy");
    let ran = salvage(dir.path(), &copy, false);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""), "{}", ran.out);
    let rows: Vec<Vec<&str>> =
        ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.contains(&vec!["emails", "0", "0", "3", "2", "0..1"]), "{}", ran.out);
    assert!(rows.contains(&vec!["emails", "1", "0", "1", "1", "none"]), "{}", ran.out);
    for part in ["emails: its settings were lost", "damaged: ", "with 2 commits of 1 groups"] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    assert!(contents(dir.path()) == before, "the source was changed");
    run(&copy, "verify {}").ok();
    assert!(run(&copy, "lag {}").ok().contains("mailer"));

    let ran = salvage(dir.path(), &copies.path().join("other"), true);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &json["is_whole"]), (3, &false.into()));
    let emails = json["topics"].as_array().unwrap().iter().find(|it| it["name"] == "emails");
    assert_eq!(
        emails.unwrap()["partitions"][0]["lost"],
        serde_json::json!([{"start": 0, "end": 1}])
    );
}

#[test]
fn a_sound_directory_is_salvaged_whole() {
    let dir = sample();
    let copies = temp_dir();
    let out = salvage(dir.path(), &copies.path().join("copy"), false).ok();
    assert!(!out.contains("damaged") && !out.contains("lost;"), "{out}");
}

#[test]
fn a_salvage_is_refused_where_it_could_destroy_something() {
    let dir = sample();
    let copies = temp_dir();
    let copy = copies.path().join("copy");
    let refused = salvage(&dir.path().join("none"), &copy, false).refused(1);
    assert!(refused.contains("there is no such directory"), "{refused}");
    let refused = salvage(dir.path(), dir.path(), false).refused(1);
    assert!(refused.contains("inside the directory"), "{refused}");
    assert!(refused.contains(&*dir.path().to_string_lossy()), "{refused}");
    let broker = service(dir.path());
    let refused = salvage(dir.path(), &copy, false).refused(1);
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    broker.close().unwrap();
    assert!(!copy.exists());
    salvage(dir.path(), &copy, false).ok();
    let refused = salvage(dir.path(), &copy, false).refused(1);
    assert!(refused.contains("not empty"), "{refused}");
}

/// The partitions that can be read are read; the other one is named.
#[test]
fn a_partition_that_is_unavailable_is_left_out() {
    let dir = sample();
    fs::remove_dir_all(dir.path().join("emails/1")).unwrap();
    for line in ["tail {} emails", "tail {} emails --follow --limit 3"] {
        let ran = run(dir.path(), line);
        assert_eq!(ran.code, 3, "{}", ran.err);
        assert_eq!(ran.out.lines().count(), 3, "{}", ran.out);
        assert!(ran.err.contains("emails-1 is left out: "), "{}", ran.err);
    }
}

/// `verify | head`: the exit code says what was found, whether or not anybody reads it.
#[test]
fn damage_is_exit_code_3_on_a_closed_pipe_too() {
    let dir = damaged();
    for line in ["verify {}", "tail {} emails --partition 0"] {
        let mut child = command(dir.path(), line);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = child.stdout(writer).spawn().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3), "{line}");
    }
}

#[test]
fn something_else_than_a_data_directory_is_not_salvaged() {
    let dir = temp_dir();
    fs::create_dir_all(dir.path().join("emails/0")).unwrap();
    fs::write(dir.path().join("emails/0/notes.txt"), "x").unwrap();
    let copies = temp_dir();
    let copy = copies.path().join("copy");
    let refused = salvage(dir.path(), &copy, false).refused(1);
    assert!(refused.contains("is not a data directory"), "{refused}");
    assert!(!copy.exists());
    // The topics of one are salvaged even if all of its own state is lost.
    let dir = sample();
    for name in ["__meta", "__offsets", "__local"] {
        fs::remove_dir_all(dir.path().join(name)).unwrap();
    }
    let ran = salvage(dir.path(), &copy, false);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.out.contains("emails"), "{}", ran.out);
}

#[test]
fn a_salvage_that_finds_the_directory_in_use_cannot_wait() {
    let dir = sample();
    let broker = service(dir.path());
    let copies = temp_dir();
    let refused = salvage(dir.path(), &copies.path().join("copy"), false).refused(1);
    assert!(refused.contains("stop that one") && !refused.contains("--wait"), "{refused}");
    broker.close().unwrap();
}
