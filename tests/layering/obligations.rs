//! `unsafe` code lies in one folder of small files and names what it relies on.
//!
//! Obligations are items of the lists in the headers of the folder's files, numbered by a letter
//! and a digit: `//! - M1 **A mapped file does not shrink.**`. Right above each use of `unsafe`
//! stands one comment that begins with `SAFETY:` and names those that it relies on. Each name is
//! that of an obligation, and each obligation is named.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Sources, assert_none, sources};

/// The folder, and the module above it, whose header holds what concerns all of its files.
const UNSAFE_FOLDER: &str = "storage/region/";
const UNSAFE_MODULE: &str = "storage/region.rs";

const UNSAFE_LINES_MAX: usize = 300;

#[test]
fn unsafe_code_lies_in_one_folder_and_names_its_obligations() {
    assert_none(&violations(&Sources::read("src").unwrap()));
}

fn violations(sources: &Sources) -> Vec<String> {
    let is_within = |name: &str| name.starts_with(UNSAFE_FOLDER);
    let headers =
        sources.files.iter().filter(|(name, _)| is_within(name) || *name == UNSAFE_MODULE);
    let defined: BTreeMap<String, &str> = headers
        .flat_map(|(name, file)| defined_in(&file.text).map(move |id| (id, name.as_str())))
        .collect();
    let (mut violations, mut named) = (Vec::new(), BTreeSet::new());
    for (name, file) in &sources.files {
        let uses = file.tokens.iter().filter(|token| token.text == "unsafe");
        let uses: Vec<usize> = uses.map(|token| token.line).collect();
        if !is_within(name) {
            let outside = |line| format!("{name}:{line}: `unsafe` outside {UNSAFE_FOLDER}");
            violations.extend(uses.into_iter().map(outside));
            continue;
        }
        if file.lines > UNSAFE_LINES_MAX {
            violations.push(format!("{name}: {} lines, of {UNSAFE_LINES_MAX}", file.lines));
        }
        let comments = file.text.lines().filter(|line| line.trim().starts_with("// SAFETY:"));
        if comments.count() != uses.len() {
            violations.push(format!("{name}: not one `SAFETY:` for each `unsafe`"));
        }
        for line in uses {
            let Some(reason) = safety_above(&file.text, line) else {
                violations.push(format!("{name}:{line}: `unsafe` without `SAFETY:` above it"));
                continue;
            };
            let ids = ids_in(&reason);
            if ids.is_empty() {
                violations.push(format!("{name}:{line}: names no obligation"));
            }
            let unknown = ids.iter().filter(|id| !defined.contains_key(*id));
            violations.extend(unknown.map(|id| format!("{name}:{line}: {id} is defined nowhere")));
            named.extend(ids);
        }
    }
    let unnamed = defined.iter().filter(|(id, _)| !named.contains(*id));
    violations.extend(unnamed.map(|(id, name)| format!("{name}: nothing relies on {id}")));
    violations
}

/// The obligations that the header of a file defines.
fn defined_in(text: &str) -> impl Iterator<Item = String> {
    let items = text.lines().filter_map(|line| line.strip_prefix("//! - "));
    let split = items.filter_map(|item| item.split_once(" **"));
    split.map(|(id, _)| id.to_owned()).filter(|id| is_id(id))
}

/// The comment right above a line, if it begins with `SAFETY:`.
fn safety_above(text: &str, line: usize) -> Option<String> {
    let above: Vec<&str> = text.lines().take(line.saturating_sub(1)).collect();
    let comment = above.iter().rev().map_while(|line| line.trim().strip_prefix("//"));
    let comment: Vec<&str> = comment.map(str::trim).collect();
    let begin = comment.iter().position(|line| line.starts_with("SAFETY:"))?;
    Some(comment.into_iter().take(begin + 1).rev().collect::<Vec<_>>().join(" "))
}

fn ids_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| is_id(word)).map(str::to_owned).collect()
}

fn is_id(word: &str) -> bool {
    let mut characters = word.chars();
    characters.next().is_some_and(|first| first.is_ascii_uppercase())
        && characters.next().is_some_and(|second| second.is_ascii_digit())
        && characters.all(|rest| rest.is_ascii_digit())
}

// ---- the rule can fail --------------------------------------------------------------------------

const HEADER: &str = "//! - M1 **It lives.**\n\n";

fn found_in(code: &str) -> usize {
    let text = format!("{HEADER}{code}");
    violations(&sources(&[("storage/region/shared.rs", text.as_str())])).len()
}

#[test]
fn unsafe_elsewhere_is_found() {
    let code = "fn f() { let s = \"unsafe\"; unsafe { g() } } // unsafe";
    assert_eq!(violations(&sources(&[("log.rs", code)])).len(), 1);
    assert_eq!(violations(&sources(&[(UNSAFE_MODULE, code)])).len(), 1);
    let lint = "#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]";
    assert_eq!(violations(&sources(&[("lib.rs", lint)])).len(), 0);
}

#[test]
fn unsafe_that_names_no_obligation_is_found() {
    let good = "// SAFETY: (M1) the page\n// lives.\nlet page = unsafe { f() };";
    assert_eq!(found_in(good), 0);
    // Each of these leaves the obligation unnamed, besides.
    assert_eq!(found_in("// SAFETY: it lives.\nunsafe { f() }"), 2);
    assert_eq!(found_in("// SAFETY: (M2) it lives.\nunsafe { f() }"), 2);
    assert_eq!(found_in("// It lives (M1).\nunsafe { f() }"), 3);
    assert_eq!(found_in("// SAFETY: (M1) it lives.\n\nunsafe { f() }"), 2);
    assert_eq!(found_in("// SAFETY: (M1)\nunsafe { f() }\nunsafe { g() }"), 2);
    assert_eq!(found_in("// SAFETY: (M1)\nunsafe impl Send for S {}\n// SAFETY: (M1)"), 1);
}

#[test]
fn an_obligation_that_nothing_relies_on_is_found() {
    assert_eq!(found_in("fn f() {}"), 1);
}

#[test]
fn a_long_file_with_unsafe_code_is_found() {
    let code = "// SAFETY: (M1)\nunsafe { f() }";
    let lines = UNSAFE_LINES_MAX - HEADER.lines().count() - code.lines().count();
    assert_eq!(found_in(&format!("{code}{}", "\n".repeat(lines + 1))), 0);
    assert_eq!(found_in(&format!("{code}{}", "\n".repeat(lines + 2))), 1);
}
