//! The pages for those who change the code name no file that does not exist: a map that names what is not
//! there misleads.

use crate::sources::{assert_none, manifest_dir};

const PAGES: [&str; 4] = ["architecture", "contributing", "decisions", "testing"];

/// What a path in the pages begins with.
const ROOTS: [&str; 5] = ["src/", "tests/", "benches/", "examples/", ".ci/"];

#[test]
fn files_that_the_pages_name_exist() {
    let mut violations = Vec::new();
    for page in PAGES {
        let path = manifest_dir().join("src/docs").join(page).with_extension("md");
        let text = std::fs::read_to_string(&path).unwrap();
        let gone = named(&text).into_iter().filter(|name| !manifest_dir().join(name).exists());
        violations.extend(gone.map(|name| format!("{page}.md: there is no {name}")));
    }
    assert_none(&violations);
}

/// The paths between backticks, of which a command or a pattern is none.
fn named(text: &str) -> Vec<&str> {
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_path = |span: &&str| {
        ROOTS.iter().any(|root| span.starts_with(root)) && !span.contains([' ', '*', '<'])
    };
    spans.filter(is_path).collect()
}

#[test]
fn a_path_is_found_and_a_command_is_not() {
    let text = "See `src/a.rs` and `tests/b/`.\n`tests/c.rs: d`, `src/*.rs`, `Broker`, src/e.rs, `.ci/run`";
    assert_eq!(named(text), ["src/a.rs", "tests/b/", ".ci/run"]);
}
