//! The large rooms have floors: a module of such a room imports only from lower floors of it.
//!
//! `tables/floors.txt` holds `room/module  floor` for modules of [`LARGE_ROOMS`], in tens, so that
//! one can be put between two; a module of a room is a file directly inside of it with all that
//! lies below. The file of the room itself is made of them all and has no floor. Imports that `tables/circles.txt` lists are not looked at.

use std::collections::BTreeMap;

use crate::circles::{Imports, sibling_imports};
use crate::sources::{Sources, assert_none, sources};
use crate::tables;

const LARGE_ROOMS: &[&str] = &["broker", "consumer", "group", "log", "partition", "storage"];

#[test]
fn modules_of_large_rooms_import_from_lower_floors() {
    let imports = sibling_imports(&Sources::read("src").unwrap());
    let (floors, circles) = (tables::read("floors.txt"), tables::read("circles.txt"));
    assert_none(&violations(&imports, &tables::numbers(&floors), &tables::numbers(&circles)));
}

fn violations(
    imports: &Imports,
    floors: &BTreeMap<&str, usize>,
    circles: &BTreeMap<&str, usize>,
) -> Vec<String> {
    let mut violations = Vec::new();
    for ((from, to), line) in imports {
        let room = from.split('/').next().unwrap_or_default();
        let is_excepted = circles.contains_key(format!("{from}->{to}").as_str());
        if !LARGE_ROOMS.contains(&room) || from.matches('/').count() != 1 || is_excepted {
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
