//! The large rooms have floors: a module of such a room imports only from lower floors of it.
//!
//! `tables/floors.txt` holds `room/module  floor` for each module of [`LARGE_ROOMS`], in tens, so
//! that one can be put between two; a module of a room is a file directly inside of it with all
//! that lies below. The file of the room itself is made of them all and has no floor. Imports that
//! `tables/circles.txt` lists are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::circles::{Imports, sibling_imports};
use crate::sources::{Sources, assert_none, is_test_module, module_path, sources};
use crate::tables;

const TABLE: &str = "floors.txt";
const LARGE_ROOMS: &[&str] = &["broker", "consumer", "group", "log", "partition", "storage"];

#[test]
fn modules_of_large_rooms_import_from_lower_floors() {
    let sources = Sources::read("src").unwrap();
    let (imports, modules) = (sibling_imports(&sources), modules(&sources));
    let mut floors = tables::read(TABLE);
    if tables::is_tightening() {
        floors = completed(&floors, &modules, &imports);
        tables::write(TABLE, &floors);
    }
    let circles = tables::read("circles.txt");
    let (floors, circles) = (tables::numbers(&floors), tables::numbers(&circles));
    assert_none(&strangers(&modules, &floors));
    assert_none(&violations(&imports, &floors, &circles));
}

/// The modules of the large rooms, tests aside.
fn modules(sources: &Sources) -> BTreeSet<String> {
    let test_modules = sources.test_modules();
    let modules = sources.files.keys().map(|name| module_path(name));
    let modules = modules.filter(|module| !is_test_module(module, &test_modules));
    let modules = modules.filter_map(|module| Some(module.get(..2)?.join("/")));
    modules.filter(|module| is_large(module)).collect()
}

fn is_large(module: &str) -> bool {
    module.split('/').next().is_some_and(|room| LARGE_ROOMS.contains(&room))
}

/// Modules without a floor, and floors without a module.
fn strangers(modules: &BTreeSet<String>, floors: &BTreeMap<&str, usize>) -> Vec<String> {
    let missing = modules.iter().filter(|module| !floors.contains_key(module.as_str()));
    let missing =
        missing.map(|module| format!("`{module}` has no line (LOGPOND_TIGHTEN=1 adds it)"));
    let gone = floors.keys().filter(|module| !modules.contains(**module));
    let gone = gone
        .map(|module| format!("`{module}` does not exist (LOGPOND_TIGHTEN=1 deletes the line)"));
    missing.chain(gone).map(|fault| format!("tables/{TABLE}: {fault}")).collect()
}

/// The table with a line for every module, and for no other. A new one stands right above what it
/// imports.
fn completed(table: &str, modules: &BTreeSet<String>, imports: &Imports) -> String {
    let mut floors = tables::numbers(table);
    floors.retain(|module, _| modules.contains(*module));
    let new: Vec<&String> =
        modules.iter().filter(|module| !floors.contains_key(module.as_str())).collect();
    for module in &new {
        floors.insert(module, 10);
    }
    // Each pass settles the modules above those that are settled; in a circle none ever is.
    for _ in &new {
        for ((from, to), _) in imports.iter().filter(|((from, _), _)| new.contains(&from)) {
            let lowest = floors.get(to.as_str()).map_or(0, |floor| floor + 10);
            if let Some(floor) = floors.get_mut(from.as_str()) {
                *floor = lowest.max(*floor);
            }
        }
    }
    let head = table.lines().filter(|line| line.starts_with('#')).map(str::to_owned);
    let lines = floors.iter().map(|(module, floor)| format!("{module}  {floor}"));
    head.chain(lines).map(|line| line + "\n").collect()
}

fn violations(
    imports: &Imports,
    floors: &BTreeMap<&str, usize>,
    circles: &BTreeMap<&str, usize>,
) -> Vec<String> {
    let mut violations = Vec::new();
    for ((from, to), line) in imports {
        let is_excepted = circles.contains_key(format!("{from}->{to}").as_str());
        if !is_large(from) || from.matches('/').count() != 1 || is_excepted {
            continue;
        }
        let (own, target) = (floors.get(from.as_str()), floors.get(to.as_str()));
        if let Some((own, target)) = own.zip(target).filter(|(own, target)| target >= own) {
            violations.push(format!(
                "line {line} of `{from}` (floor {own}) imports `{to}` (floor {target}): lower the \
                 one or raise the other in tables/floors.txt, or turn the import round"
            ));
        }
    }
    violations
}

// ---- the rule can fail --------------------------------------------------------------------------

#[cfg(test)]
fn found_in(floors: &str, circles: &str) -> usize {
    let files = [
        ("log/mod.rs", "mod open; mod scan;"),
        ("log/open.rs", "mod tail; use super::scan::Scan;"),
        ("log/open/tail.rs", "use super::super::scan::Scan;"),
        ("log/scan.rs", "use super::LogOptions; use crate::format::Batch;"),
        ("format/mod.rs", ""),
    ];
    let imports = sibling_imports(&sources(&files));
    violations(&imports, &tables::numbers(floors), &tables::numbers(circles)).len()
}

#[test]
fn an_import_from_the_same_or_a_higher_floor_is_found() {
    assert_eq!(found_in("log/open  20\nlog/scan  10\n", ""), 0);
    assert_eq!(found_in("log/open  10\nlog/scan  10\n", ""), 1);
    assert_eq!(found_in("log/open  10\nlog/scan  20\n", ""), 1);
    assert_eq!(found_in("log/open  10\nlog/scan  20\n", "log/open->log/scan  1\n"), 0);
}

#[test]
fn a_module_without_a_floor_and_a_floor_without_a_module_are_found() {
    let files = [
        ("log/mod.rs", "mod open; mod scan; #[cfg(test)] mod model;"),
        ("log/open.rs", "use super::scan::Scan;"),
        ("log/open/tail.rs", ""),
        ("log/scan.rs", ""),
        ("log/model.rs", ""),
        ("log/tests/open.rs", ""),
        ("topic.rs", ""),
    ];
    let sources = sources(&files);
    let (imports, modules) = (sibling_imports(&sources), modules(&sources));
    let found = |table: &str| strangers(&modules, &tables::numbers(table)).len();
    assert_eq!(found("log/open  20\nlog/scan  10\n"), 0);
    assert_eq!(found("log/scan  10\n"), 1);
    assert_eq!(found("log/open  20\nlog/scan  10\nlog/zip  10\n"), 1);
    let table = completed("# head\nlog/zip  10\n", &modules, &imports);
    assert_eq!(table, "# head\nlog/open  20\nlog/scan  10\n");
}
