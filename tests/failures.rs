//! Goal: every row of `src/docs/failures.md` has a test that bears its number, and beside it the
//! line of the engine whose removal turns that test red.
//!
//! Method: names and comments of the tests are read from the sources. With `LOGPOND_RED=20` that
//! many rows, picked by `LOGPOND_SEED`, are tried: the sources are copied, the change is made to
//! the copy, and the test has to fail there. One that does not end is killed after five minutes,
//! with everything that it has started, and is listed as one that hangs:
//!
//! ```text
//! LOGPOND_RED=20 LOGPOND_SEED=7 cargo test --test failures -- --nocapture
//! ```
//!
//! Not covered: that a test shows all of its row. That is for a reader to judge.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::*;

/// How many rows each part of the catalogue has. Rows are never removed and never renumbered.
const PARTS: [(char, u32); 9] = [
    ('a', 28),
    ('b', 18),
    ('c', 20),
    ('d', 25),
    ('e', 23),
    ('f', 16),
    ('g', 9),
    ('h', 22),
    ('j', 26),
];
const PAGE: &str = "src/docs/failures.md";
const NOT_SHOWN: &str = "**Not shown yet.**";
const NOT_NAMED: &str = "**Line not named yet.**";

/// A change to the engine under which a test has to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Red {
    file: String,
    removed: String,
    added: String,
}

/// A test that bears the numbers of rows.
#[derive(Debug, Clone)]
struct RowTest {
    name: String,
    file: PathBuf,
    rows: Vec<String>,
    reds: Vec<Red>,
    is_impossible: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `a01` and `a02` of `row_a01_a02_something_happens`.
fn rows_of(name: &str) -> Vec<String> {
    let Some(rest) = name.strip_prefix("row_") else { return Vec::new() };
    let is_row = |word: &&str| {
        let mut letters = word.chars();
        letters.next().is_some_and(|part| PARTS.iter().any(|(known, _)| *known == part))
            && word.len() == 3
            && letters.all(|letter| letter.is_ascii_digit())
    };
    rest.split('_').take_while(is_row).map(str::to_owned).collect()
}

/// The changes that a comment names: a `RED:` line with a file, then `-` and perhaps `+`.
fn reds(comment: &[&str]) -> Vec<Red> {
    let mut all: Vec<Red> = Vec::new();
    for line in comment {
        let text = line.trim_start_matches('/').trim();
        if let Some(file) = text.strip_prefix("RED:") {
            let file = file.trim().to_owned();
            all.push(Red { file, removed: String::new(), added: String::new() });
        } else if let Some(red) = all.last_mut() {
            if let Some(removed) = text.strip_prefix("- ") {
                removed.trim().clone_into(&mut red.removed);
            } else if let Some(added) = text.strip_prefix("+ ") {
                added.trim().clone_into(&mut red.added);
            }
        }
    }
    all
}

fn row_tests(text: &str, file: &Path) -> Vec<RowTest> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("fn row_") else { continue };
        let name = format!("row_{}", rest.split('(').next().unwrap_or_default());
        let above = |line: &&&str| line.starts_with("//") || line.starts_with("#[");
        let mut comment: Vec<&str> = lines[..at].iter().rev().take_while(above).copied().collect();
        comment.reverse();
        if !comment.iter().any(|line| line.starts_with("#[test")) {
            continue;
        }
        let is_impossible = comment.iter().any(|line| line.contains("IMPOSSIBLE:"));
        let (rows, reds) = (rows_of(&name), reds(&comment));
        found.push(RowTest { name, file: file.to_owned(), rows, reds, is_impossible });
    }
    found
}

fn all_row_tests() -> Vec<RowTest> {
    let files = [files_below(&root().join("src")), files_below(&root().join("tests"))].concat();
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        found.extend(row_tests(&text, file.strip_prefix(root()).unwrap()));
    }
    found
}

/// What the page says that a row still wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    Line,
    Test,
}

/// The rows of the page, as `a01`.
fn page() -> BTreeMap<String, Want> {
    let text = fs::read_to_string(root().join(PAGE)).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let Some(cell) = line.strip_prefix("| ").and_then(|rest| rest.split(' ').next()) else {
            continue;
        };
        let Some(number) = cell.get(1..).and_then(|digits| digits.parse::<u32>().ok()) else {
            continue;
        };
        let row = format!("{}{number:02}", cell[..1].to_lowercase());
        let want = match (line.contains(NOT_SHOWN), line.contains(NOT_NAMED)) {
            (true, _) => Want::Test,
            (false, true) => Want::Line,
            (false, false) => Want::Nothing,
        };
        assert!(rows.insert(row, want).is_none(), "{cell} stands there twice");
    }
    rows
}

/// What is wrong with the change that a test names, if anything.
fn fault_of(red: &Red) -> Option<String> {
    let Ok(text) = fs::read_to_string(root().join(&red.file)) else {
        return Some(format!("there is no {}", red.file));
    };
    if red.removed.is_empty() {
        return Some("no line with `-`".to_owned());
    }
    match text.matches(&red.removed).count() {
        1 => None,
        count => Some(format!("{} has `{}` {count} times, not once", red.file, red.removed)),
    }
}

#[test]
fn every_row_has_what_the_page_says() {
    let expected: BTreeSet<String> = PARTS
        .iter()
        .flat_map(|(part, rows)| (1..=*rows).map(move |row| format!("{part}{row:02}")))
        .collect();
    let page = page();
    assert_eq!(page.keys().cloned().collect::<BTreeSet<_>>(), expected, "{PAGE}");

    let tests = all_row_tests();
    for test in &tests {
        assert!(!test.rows.is_empty(), "{} bears no row of {PAGE}", test.name);
    }
    for (row, said) in page {
        let of_row: Vec<_> = tests.iter().filter(|test| test.rows.contains(&row)).collect();
        let named = of_row.iter().any(|test| test.is_impossible || !test.reds.is_empty());
        let want = match (of_row.is_empty(), named) {
            (true, _) => Want::Test,
            (false, false) => Want::Line,
            (false, true) => Want::Nothing,
        };
        assert_eq!(want, said, "{row}: what it wants by the tests, and by {PAGE}");
    }
}

#[test]
fn every_named_line_is_in_the_engine() {
    let mut faults = Vec::new();
    for test in all_row_tests() {
        let of_test = test.reds.iter().filter_map(fault_of);
        faults.extend(of_test.map(|fault| format!("{}: {fault}", test.name)));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn comments_and_names_are_read() {
    let text = "/// Why.\n// RED: src/a.rs\n//   - let x = 1;\n//   + let x = 2;\n#[test]\n\
                fn row_a01_b12_c_is_no_row() {}\n\nfn row_a02_no_test() {}\n";
    let found = row_tests(text, Path::new("f"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rows, ["a01", "b12"]);
    let red = Red {
        file: "src/a.rs".to_owned(),
        removed: "let x = 1;".to_owned(),
        added: "let x = 2;".to_owned(),
    };
    assert_eq!(found[0].reds, [red]);
    assert!(rows_of("row_x01_nothing").is_empty());
}

/// The target of `cargo test` that holds a test.
fn target_of(file: &Path) -> Vec<String> {
    let mut parts = file.iter().map(|part| part.to_string_lossy());
    match (parts.next().as_deref(), parts.next()) {
        (Some("tests"), Some(name)) => {
            vec!["--test".to_owned(), name.trim_end_matches(".rs").to_owned()]
        }
        _ => vec!["--lib".to_owned()],
    }
}

/// Copies what git knows of, without its history.
fn copy_sources(to: &Path) {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    for path in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let target = to.join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(root().join(path), target).unwrap();
    }
}

/// LIMIT: how long one test may run in the changed copy. The slowest take a minute on a busy machine.
const TEST_TIME: Duration = Duration::from_secs(300);

/// How a test ended in the changed copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Red,
    Green,
    /// It did not end: the test notices the change, and reports nothing.
    Hangs,
    DoesNotBuild,
}

/// Runs a program; `None` if it did not end in time, and was killed with everything that it has
/// started.
fn run_for(most: Duration, command: &mut Command) -> Option<ExitStatus> {
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn().unwrap();
    let group = child.id();
    let (sender, ended) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let status = child.wait();
        sender.send(()).unwrap();
        status.unwrap()
    });
    let is_over = ended.recv_timeout(most).is_err();
    if is_over {
        // The group of processes whose first one is the child.
        let kill = format!("kill -KILL -{group}");
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    }
    let status = waiting.join().unwrap();
    (!is_over).then_some(status)
}

fn try_red(copy: &Path, target: &Path, test: &RowTest, red: &Red) -> Outcome {
    let file = copy.join(&red.file);
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, before.replacen(&red.removed, &red.added, 1)).unwrap();
    let cargo = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "--quiet", "--all-features"]).args(target_of(&test.file));
        command.args(more).env("CARGO_TARGET_DIR", target).env_remove("LOGPOND_RED");
        command.current_dir(copy);
        command
    };
    let outcome = if cargo(&["--no-run"]).output().unwrap().status.success() {
        let mut command = cargo(&[&test.name]);
        match run_for(TEST_TIME, command.stdout(Stdio::null()).stderr(Stdio::null())) {
            Some(status) if status.success() => Outcome::Green,
            Some(_) => Outcome::Red,
            None => Outcome::Hangs,
        }
    } else {
        Outcome::DoesNotBuild
    };
    fs::write(&file, before).unwrap();
    outcome
}

/// Symptom: a campaign waited for ever, because a test without its line did. Rule: a test that does
/// not end in time is killed, and the processes that it has started too: `cargo` starts the test.
#[test]
fn a_test_that_does_not_end_is_killed_with_all_that_it_has_started() {
    let (mut output, input) = std::io::pipe().unwrap();
    let script = "(sleep 10; echo alive) & wait";
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(input).stderr(Stdio::null());
    assert_eq!(run_for(Duration::ZERO, &mut command), None);
    // The pipe ends with the last process that can write to it.
    drop(command);
    let mut written = String::new();
    output.read_to_string(&mut written).unwrap();
    assert_eq!(written, "");

    let status = |code: &str| run_for(TEST_TIME, Command::new("sh").args(["-c", code])).unwrap();
    assert!(status("exit 0").success() && !status("exit 1").success());
}

#[test]
fn picked_rows_turn_red() {
    let Ok(count) = std::env::var("LOGPOND_RED") else {
        eprintln!("skipped: set LOGPOND_RED to the number of rows to try");
        return;
    };
    let count: usize = count.parse().expect("LOGPOND_RED is a number");
    let mut random = Rng::announced("picked rows");

    let mut tests = all_row_tests();
    tests.retain(|test| !test.reds.is_empty());
    for at in (1..tests.len()).rev() {
        tests.swap(at, random.index(at + 1));
    }
    let mut rows = BTreeSet::new();
    tests.retain(|test| test.rows.iter().any(|row| rows.insert(row.clone())));

    let copy = temp_dir();
    copy_sources(copy.path());
    let target = root().join("target/red");
    let mut wrong: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for test in tests.iter().take(count) {
        let red = &test.reds[random.index(test.reds.len())];
        let outcome = try_red(copy.path(), &target, test, red);
        eprintln!("{outcome:?}: {} without `{}` of {}", test.name, red.removed, red.file);
        if outcome != Outcome::Red {
            wrong.entry(format!("{outcome:?}")).or_default().push(&test.name);
        }
    }
    assert!(wrong.is_empty(), "not red: {wrong:#?}");
}
