//! Tables of exceptions, one line per entry: `key  ceiling  reason`, sorted by key.
//!
//! A table only shrinks. A count above its ceiling fails, and so does an entry that is no longer
//! needed. A ceiling may stand above the count until somebody lowers it:
//! `LOGPOND_TIGHTEN=1 cargo test --test layering` lowers all of them and deletes what is not
//! needed; it never adds or raises one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use crate::sources::{assert_none, manifest_dir};

/// What a rule has found, by key. A rule leaves out what is within its limits.
pub(crate) type Counts = BTreeMap<String, usize>;

struct Entry<'a> {
    key: &'a str,
    ceiling: usize,
    reason: &'a str,
}

fn path(name: &str) -> PathBuf {
    manifest_dir().join("tests/layering/tables").join(name)
}

pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn write(name: &str, table: &str) {
    if let Err(error) = std::fs::write(path(name), table) {
        panic!("{name}: {error}");
    }
}

/// Whether the tables are to be tightened before they are checked.
pub(crate) fn is_tightening() -> bool {
    std::env::var_os("LOGPOND_TIGHTEN").is_some()
}

/// Asserts that `counts` are what the table allows; or, when asked to, tightens the table first.
#[track_caller]
pub(crate) fn assert_within(name: &str, counts: &Counts) {
    let mut table = read(name);
    if is_tightening() {
        table = tightened(&table, counts);
        write(name, &table);
    }
    let violations = violations(&table, counts);
    let shown = violations.iter().map(|violation| format!("tables/{name}: {violation}"));
    assert_none(&shown.collect::<Vec<_>>());
}

/// The keys of a table and the number beside each.
pub(crate) fn numbers(table: &str) -> BTreeMap<&str, usize> {
    table
        .lines()
        .filter_map(|line| entry(line).ok().flatten())
        .map(|e| (e.key, e.ceiling))
        .collect()
}

pub(crate) fn violations(table: &str, counts: &Counts) -> Vec<String> {
    let mut violations = Vec::new();
    let mut ceilings: BTreeMap<&str, usize> = BTreeMap::new();
    for line in table.lines() {
        let entry = match entry(line) {
            Ok(None) => continue,
            Ok(Some(entry)) => entry,
            Err(fault) => {
                violations.push(format!("`{line}`: {fault}"));
                continue;
            }
        };
        if let Some((last, _)) = ceilings.last_key_value().filter(|(last, _)| **last >= entry.key) {
            violations.push(format!("`{}` must stand before `{last}`, and once", entry.key));
        }
        if !counts.contains_key(entry.key) {
            violations.push(format!(
                "`{}` is no longer needed: delete the line (LOGPOND_TIGHTEN=1 does)",
                entry.key
            ));
        }
        ceilings.insert(entry.key, entry.ceiling);
    }
    for (key, count) in counts {
        match ceilings.get(key.as_str()) {
            None => violations.push(format!("`{key}` is not allowed (count {count})")),
            Some(ceiling) if count > ceiling => {
                violations.push(format!("`{key}` has {count}, above its ceiling {ceiling}"));
            }
            Some(_) => {}
        }
    }
    violations
}

fn entry(line: &str) -> Result<Option<Entry<'_>>, &'static str> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (key, rest) = line.split_once(char::is_whitespace).ok_or("no ceiling")?;
    let rest = rest.trim_start();
    let (ceiling, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let ceiling = ceiling.parse().map_err(|_| "the ceiling is not a number")?;
    Ok(Some(Entry { key, ceiling, reason: reason.trim() }))
}

fn tightened(table: &str, counts: &Counts) -> String {
    let mut kept = String::new();
    for line in table.lines() {
        let Ok(Some(entry)) = entry(line) else {
            let _ = writeln!(kept, "{line}");
            continue;
        };
        if let Some(count) = counts.get(entry.key) {
            let ceiling = entry.ceiling.min(*count);
            let row = format!("{}  {ceiling}  {}", entry.key, entry.reason);
            let _ = writeln!(kept, "{}", row.trim_end());
        }
    }
    kept
}

// ---- the tables can fail -------------------------------------------------------------------------

#[cfg(test)]
fn counts(counts: &[(&str, usize)]) -> Counts {
    counts.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

#[test]
fn a_table_allows_up_to_its_ceilings_and_no_more() {
    let table = "# key  ceiling  reason\na  2  because\nb  3\n";
    assert_none(&violations(table, &counts(&[("a", 2), ("b", 1)])));
    assert_eq!(violations(table, &counts(&[("a", 3), ("b", 3)])).len(), 1);
    assert_eq!(violations(table, &counts(&[("a", 1), ("b", 3), ("c", 1)])).len(), 1);
}

#[test]
fn an_entry_that_is_not_needed_or_stands_wrong_is_found() {
    assert_eq!(violations("a  2\nb  3\n", &counts(&[("a", 2)])).len(), 1);
    let both = counts(&[("a", 2), ("b", 3)]);
    assert_eq!(violations("b  3\na  2\n", &both).len(), 1);
    assert_eq!(violations("a  2\na  2\nb  3\n", &both).len(), 1);
    assert_eq!(violations("a  2\nb  three\n", &both).len(), 2);
    assert_eq!(violations("a  2\nb\n", &both).len(), 2);
}

#[test]
fn tightening_only_lowers_and_deletes() {
    let table = "# head\na  2  why\nb  3\nc  1\n";
    let counts = counts(&[("a", 1), ("c", 4), ("d", 1)]);
    assert_eq!(tightened(table, &counts), "# head\na  1  why\nc  1\n");
}
