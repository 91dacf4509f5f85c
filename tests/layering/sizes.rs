//! Files and functions can be read at a sitting, and the top level of the repository holds what was
//! agreed.

use std::collections::BTreeSet;
use std::process::Command;

use crate::code::functions;
use crate::sources::{Sources, assert_none, manifest_dir, sources};

const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;

/// What may lie at the top of the repository, beside dotfiles.
const TOP_LEVEL: &[&str] =
    &["Cargo.toml", "Cargo.lock", "src", "examples", "tests", "benches", "README.md", "LICENSE"];

#[test]
fn files_and_functions_can_be_read_at_a_sitting() {
    for root in ["src", "examples", "tests", "benches"] {
        assert_none(&size_violations(&Sources::read(root).unwrap()));
    }
}

#[test]
fn the_top_level_holds_what_was_agreed() {
    let listed = Command::new("git").arg("ls-files").current_dir(manifest_dir()).output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        eprintln!("SKIPPED: no git repository to ask for the top level");
        return;
    };
    assert_none(&top_level_violations(&String::from_utf8_lossy(&listed.stdout)));
}

fn size_violations(sources: &Sources) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, file) in &sources.files {
        if file.lines > FILE_LINES_MAX {
            violations.push(format!("{name}: {} lines, of {FILE_LINES_MAX}", file.lines));
        }
        for (function, line, lines) in functions(&file.tokens) {
            if lines > FUNCTION_LINES_MAX {
                violations.push(format!(
                    "{name}:{line}: `{function}` has {lines} lines, of {FUNCTION_LINES_MAX}"
                ));
            }
        }
    }
    violations
}

fn top_level_violations(listed: &str) -> Vec<String> {
    let entries = listed.lines().filter_map(|line| line.split('/').next());
    let entries: BTreeSet<&str> = entries.map(|entry| entry.trim_matches('"')).collect();
    let strangers = entries
        .into_iter()
        .filter(|entry| !entry.is_empty() && !entry.starts_with('.') && !TOP_LEVEL.contains(entry));
    strangers.map(|entry| format!("`{entry}` does not belong at the top level")).collect()
}

// ---- the rules can fail -------------------------------------------------------------------------

#[test]
fn long_files_and_functions_are_found() {
    let function = |lines: usize| format!("fn f<T>(_: [u8; 2]) {{{}}}", "\n".repeat(lines - 1));
    let count = |text: &str| size_violations(&sources(&[("a.rs", text)])).len();
    assert_eq!(count(&function(FUNCTION_LINES_MAX)), 0);
    assert_eq!(count(&function(FUNCTION_LINES_MAX + 1)), 1);
    assert_eq!(count(&format!("trait T {{ fn f(); {} }}", function(71))), 1);
    assert_eq!(count(&"\n".repeat(FILE_LINES_MAX)), 0);
    assert_eq!(count(&"\n".repeat(FILE_LINES_MAX + 1)), 1);
}

#[test]
fn a_stranger_at_the_top_level_is_found() {
    let listed = ".ci/run\nCargo.toml\nsrc/lib.rs\nsrc/log/mod.rs\nLICENSE\n";
    assert_none(&top_level_violations(listed));
    assert_eq!(top_level_violations(&format!("{listed}docs/a.md\ndocs/b.md\nTODO\n")).len(), 2);
}
