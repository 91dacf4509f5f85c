//! Mutants: this test binary again, once for each rule, without it.
//!
//! Goal: the crash tests notice the loss of every single rule. Method: each rule names one quick
//! test, which has to fail in a process without the rule. Not covered: rules that nobody has named.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::Rule;

/// The rule that a process does without.
const MUTANT: &str = "LOGPOND_MUTANT";

/// LIMIT: a test that has not ended by then hangs without its rule, which nobody would notice.
const PATIENCE: Duration = Duration::from_secs(600);

/// The rule that this process does without, if any.
pub(super) fn removed() -> Option<Rule> {
    static REMOVED: OnceLock<Option<Rule>> = OnceLock::new();
    *REMOVED.get_or_init(|| {
        let name = std::env::var(MUTANT).ok()?;
        let is_named = |(rule, _): &&(Rule, &str)| format!("{rule:?}") == name;
        let (rule, _) = Rule::ALL.iter().find(is_named).expect("LOGPOND_MUTANT is a rule");
        Some(*rule)
    })
}

/// How the tests of a process ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Passed,
    /// The tests that failed, whether or not another one hung after them.
    Failed(Vec<String>),
    /// One hung, and none failed before it.
    Hung,
}

/// Runs tests of this binary without `rule`.
fn run_without(rule: Rule, tests: &[&str]) -> Ended {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(tests)
        .args(["--skip", "rules::tests"])
        .env(MUTANT, format!("{rule:?}"))
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let (sender, receiver) = sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = output.read_to_string(&mut text);
        let _ = sender.send(());
        text
    });
    let hung = receiver.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
    if hung {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let text = reader.join().unwrap();
    let failed = |line: &str| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(name.to_owned())
    };
    let failed: Vec<String> = text.lines().filter_map(failed).collect();
    match (hung, status.success(), failed.is_empty()) {
        // A test that waits for what the rule would have done hangs; the others have answered.
        (_, _, false) => Ended::Failed(failed),
        (true, ..) => Ended::Hung,
        (_, true, _) => {
            assert!(!text.contains(" 0 passed"), "{tests:?} are no tests:\n{text}");
            Ended::Passed
        }
        // It never came to a test: nothing was noticed.
        _ => panic!("{rule:?}: {status:?}\n{text}"),
    }
}

#[test]
fn every_mutant_is_killed() {
    let all_tests = std::env::var("LOGPOND_MUTANTS").is_ok_and(|which| which == "all");
    let mut alive = Vec::new();
    for (rule, test) in Rule::ALL {
        let tests: &[&str] = if all_tests { &[] } else { &["--exact", test] };
        match run_without(*rule, tests) {
            Ended::Failed(tests) => eprintln!("{rule:?}: killed by {}", tests.join(", ")),
            other => {
                eprintln!("{rule:?}: {other:?}");
                alive.push(rule);
            }
        }
    }
    let (all, killed) = (Rule::ALL.len(), Rule::ALL.len() - alive.len());
    eprintln!("killed {killed} of {all} mutants");
    assert!(alive.is_empty(), "nobody notices the loss of {alive:?}");
}

/// The tests that kill a mutant are no proof if they fail with all rules in force; that they pass
/// is shown by the rest of this run, so here it only has to be the whole engine that is tested.
#[test]
fn without_a_mutant_all_rules_hold() {
    assert_eq!(removed(), None, "{MUTANT} is set");
    assert!(Rule::ALL.iter().all(|(rule, _)| rule.holds()));
}
