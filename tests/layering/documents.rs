//! The pages name no file that does not exist, and the map of the rooms is the one that `rooms`
//! checks: a map that shows what is not there misleads.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::rooms;
use crate::sources::{assert_none, manifest_dir, texts};

/// What a path in the pages begins with.
const ROOTS: [&str; 5] = ["src/", "tests/", "benches/", "examples/", ".ci/"];

/// The programs of `recipes.md`, which says how long they are at most.
const RECIPES: &str = "examples/recipes/src/bin";
const RECIPE_LINES_MAX: usize = 119;

#[test]
fn files_that_the_pages_name_exist() {
    let mut violations = Vec::new();
    let pages = pages().unwrap();
    assert!(pages.len() > 10, "the pages of src/docs were not found");
    for path in pages {
        let text = std::fs::read_to_string(&path).unwrap();
        let names = named(&text).into_iter().chain(linked(&text));
        let missing = names.filter(|name| !manifest_dir().join(name).exists());
        let page = path.file_name().unwrap_or_default().to_string_lossy();
        violations.extend(missing.map(|name| format!("{page}: there is no {name}")));
    }
    assert_none(&violations);
}

#[test]
fn the_table_of_rooms_has_the_levels_that_are_checked() {
    let page = manifest_dir().join("src/docs/architecture.md");
    let shown = rooms_in(&std::fs::read_to_string(page).unwrap());
    assert_none(&differences(&shown, &rooms::levels()));
}

#[test]
fn each_recipe_is_short_and_has_a_chapter() {
    let page = std::fs::read_to_string(manifest_dir().join("src/docs/recipes.md")).unwrap();
    // They are a package of their own, which is not part of this one where it is published.
    let programs = texts(RECIPES, &["rs"]).unwrap_or_default();
    assert_none(&recipe_faults(&page, &programs));
}

/// README and every page of `src/docs`.
fn pages() -> std::io::Result<Vec<PathBuf>> {
    let listed = std::fs::read_dir(manifest_dir().join("src/docs"))?;
    let listed = listed.map(|entry| Ok(entry?.path()));
    let mut pages = listed.collect::<std::io::Result<Vec<_>>>()?;
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.push(manifest_dir().join("README.md"));
    Ok(pages)
}

/// The paths between backticks, of which a command or a pattern is none.
fn named(text: &str) -> Vec<&str> {
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_path = |span: &&str| {
        ROOTS.iter().any(|root| span.starts_with(root)) && !span.contains([' ', '*', '<'])
    };
    spans.filter(is_path).collect()
}

/// The paths that links lead to, without what follows a `#`.
fn linked(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| ROOTS.iter().any(|root| target.starts_with(root))).collect()
}

/// Rooms and their levels, by the table below the heading "Rooms". A row may have several rooms,
/// all of its level or each of its own; one without a level continues that of the row above.
fn rooms_in(page: &str) -> BTreeMap<String, u32> {
    let section = page.split("\n## Rooms\n").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let (mut rooms, mut current) = (BTreeMap::new(), Vec::new());
    for row in section.lines().filter_map(|line| line.strip_prefix('|')).skip(2) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [levels, names, ..] = cells.as_slice() else { continue };
        let number = |level: &str| if level == "ground" { Some(0) } else { level.parse().ok() };
        let levels: Vec<u32> = levels.split(", ").filter_map(number).collect();
        if !levels.is_empty() {
            current = levels;
        }
        let of_row = current.iter().chain(current.last().into_iter().cycle());
        let names = names.split('`').skip(1).step_by(2);
        rooms.extend(names.map(str::to_owned).zip(of_row.copied()));
    }
    rooms
}

/// Programs that are too long, and those that the page does not name in its table and in a chapter.
fn recipe_faults(page: &str, programs: &[(String, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, text) in programs {
        let lines = text.lines().count();
        if lines > RECIPE_LINES_MAX {
            faults.push(format!("{name}: {lines} lines, of {RECIPE_LINES_MAX}"));
        }
        if page.matches(&format!("`{RECIPES}/{name}`")).count() < 2 {
            faults.push(format!("recipes.md: no chapter for {name}, or not in the table"));
        }
    }
    faults
}

fn differences(shown: &BTreeMap<String, u32>, checked: &BTreeMap<String, u32>) -> Vec<String> {
    let fault = |room: &String| {
        let (shown, checked) = (shown.get(room), checked.get(room));
        let text = format!("architecture.md: `{room}` is at {shown:?}, in rooms.rs at {checked:?}");
        (shown != checked).then_some(text)
    };
    let only_shown = shown.keys().filter(|room| !checked.contains_key(*room));
    checked.keys().chain(only_shown).filter_map(fault).collect()
}

// ---- the rules can fail -------------------------------------------------------------------------

#[test]
fn a_path_is_found_and_a_command_is_not() {
    let text = "See `src/a.rs` and `tests/b/`.\n`tests/c.rs: d`, `src/*.rs`, `Broker`, src/e.rs, `.ci/run`";
    assert_eq!(named(text), ["src/a.rs", "tests/b/", ".ci/run"]);
}

#[test]
fn the_target_of_a_link_is_found() {
    let text =
        "[a](src/docs/a.md#b), [b](https://c.d/src/e), [f](crate::docs::f), [g](examples/g.rs)";
    assert_eq!(linked(text), ["src/docs/a.md", "examples/g.rs"]);
}

#[test]
fn a_room_that_the_table_shows_elsewhere_is_found() {
    let table = |rows: &str| {
        rooms_in(&format!(
            "# A\n\n## Rooms\n\n| level | room | owns |\n|---|---|---|\n{rows}\n\n## B\n| 9 | `x` |"
        ))
    };
    let page = table("| ground | `a`, `b` | data |\n| | `c` | |\n| 10, 20 | `d`, `e` | |");
    let rooms = [("a", 0), ("b", 0), ("c", 0), ("d", 10), ("e", 20)];
    let rooms: BTreeMap<_, _> = rooms.map(|(room, level)| (room.to_owned(), level)).into();
    assert_eq!(page, rooms);
    assert_eq!(differences(&page, &rooms).len(), 0);
    let moved = table("| ground | `a`, `b` | |\n| 10, 21 | `d`, `e` | |\n| 30 | `f` | |");
    assert_eq!(differences(&moved, &rooms).len(), 3, "c is missing, e is moved, f is unknown");
}

#[test]
fn a_recipe_without_a_chapter_and_a_long_one_are_found() {
    let of = |lines: usize| vec![("a.rs".to_owned(), "\n".repeat(lines))];
    let page = format!("| a | `{RECIPES}/a.rs` |\n## A\n`{RECIPES}/a.rs`.");
    assert_eq!(recipe_faults(&page, &of(RECIPE_LINES_MAX)).len(), 0);
    assert_eq!(recipe_faults(&page, &of(RECIPE_LINES_MAX + 1)).len(), 1);
    assert_eq!(recipe_faults("no page", &of(1)).len(), 1);
}
