//! Inside a room the modules do not import each other in circles, and neither do those inside of a
//! module.
//!
//! An import counts for the file that defines the name: what `broker/mod.rs` re-exports from
//! `broker/engine.rs` belongs to the latter, and to the module `broker/engine` with all that lies
//! below it. A module and its own parent are not a circle: the parent is made of its children.
//! `tables/circles.txt` lists the imports that close a circle today, one per line, as `from->to`.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::{Token, text, without_tests};
use crate::items::{Bindings, bindings, declared_modules, uses};
use crate::sources::{Sources, is_test_module, module_path, sources};
use crate::tables::{self, Counts};

const TABLE: &str = "circles.txt";

/// Who imports whom, by the names of files or modules, with a line where that is so.
pub(crate) type Imports = BTreeMap<(String, String), usize>;

#[test]
fn modules_of_a_room_do_not_import_each_other_in_circles() {
    let imports = sibling_imports(&Sources::read("src").unwrap());
    let table = tables::read(TABLE);
    tables::assert_within(TABLE, &closing(&imports, &tables::numbers(&table)));
}

/// The imports that close a circle: of the listed ones those that do so when no other listed one
/// is there, and every other one that is part of a circle.
fn closing(imports: &Imports, listed: &BTreeMap<&str, usize>) -> Counts {
    let key = |from: &str, to: &str| format!("{from}->{to}");
    let mut open: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in imports.keys() {
        if !listed.contains_key(key(from, to).as_str()) {
            open.entry(from).or_default().insert(to);
        }
    }
    let closes = |(from, to): &&(String, String)| reaches(&open, to, from);
    imports.keys().filter(closes).map(|(from, to)| (key(from, to), 1)).collect()
}

fn reaches(imports: &BTreeMap<&str, BTreeSet<&str>>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut pending = vec![from];
    while let Some(file) = pending.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            pending.extend(imports.get(file).into_iter().flatten());
        }
    }
    false
}

/// The imports between modules of one parent, inside the rooms, tests aside.
pub(crate) fn sibling_imports(sources: &Sources) -> Imports {
    let mut siblings = Imports::new();
    for ((from, to), line) in imports(sources) {
        let (from, to) = (module_path(&from), module_path(&to));
        let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
        let module = |path: &[String]| path.get(..=shared).map(|path| path.join("/"));
        if let Some((from, to)) = module(&from).zip(module(&to)).filter(|_| shared > 0) {
            siblings.entry((from, to)).or_insert(line);
        }
    }
    siblings
}

/// The imports between any two files, tests aside.
pub(crate) fn imports(sources: &Sources) -> Imports {
    let names = Names::new(sources);
    let mut imports = Imports::new();
    for (file, tokens) in &names.tokens {
        let module = module_path(file);
        let Some(bindings) = names.bindings.get(file) else { continue };
        for (path, line) in uses(tokens, &module, bindings) {
            if let Some(target) = names.file_of(&path).filter(|target| target != file) {
                imports.entry((file.clone(), target.to_owned())).or_insert(line);
            }
        }
    }
    imports
}

/// What the names of each file stand for; files that are compiled for tests are left out.
pub(crate) struct Names {
    pub(crate) tokens: BTreeMap<String, Vec<Token>>,
    modules: BTreeMap<Vec<String>, String>,
    pub(crate) bindings: BTreeMap<String, Bindings>,
}

impl Names {
    pub(crate) fn new(sources: &Sources) -> Self {
        let test_modules = sources.test_modules();
        let mut names =
            Self { tokens: BTreeMap::new(), modules: BTreeMap::new(), bindings: BTreeMap::new() };
        for (name, file) in &sources.files {
            let module = module_path(name);
            if is_test_module(&module, &test_modules) {
                continue;
            }
            let tokens = without_tests(&file.tokens).0;
            let bindings = bindings(&tokens, &module, &declared_modules(&tokens));
            names.modules.insert(module, name.clone());
            names.bindings.insert(name.clone(), bindings);
            names.tokens.insert(name.clone(), tokens);
        }
        names
    }

    /// The file that defines what a path from the root of the crate names.
    pub(crate) fn file_of(&self, path: &[String]) -> Option<&str> {
        self.follow(path, 8)
    }

    fn follow(&self, path: &[String], steps: u32) -> Option<&str> {
        let longest = (0..=path.len()).rev();
        let mut prefixes = longest.filter_map(|length| path.split_at_checked(length));
        let ((_, rest), file) =
            prefixes.find_map(|split| Some((split, self.modules.get(split.0)?)))?;
        let Some((name, rest)) = rest.split_first() else { return Some(file) };
        let bindings = self.bindings.get(file)?;
        let steps = steps.checked_sub(1)?;
        if let Some(target) = bindings.names.get(name).filter(|target| *target != path) {
            return self.follow(&[target, rest].concat(), steps).or(Some(file));
        }
        if self.defines(file, name) {
            return Some(file);
        }
        let from_globs = bindings.globs.iter().find_map(|module| {
            let target = self.modules.get(module)?;
            self.defines(target, name).then_some(target.as_str())
        });
        from_globs.or(Some(file))
    }

    fn defines(&self, file: &str, name: &str) -> bool {
        const ITEMS: &[&str] = &["struct", "enum", "fn", "trait", "type", "const", "static"];
        let tokens = self.tokens.get(file).map_or(&[][..], Vec::as_slice);
        (0..tokens.len())
            .any(|at| ITEMS.contains(&text(tokens, at)) && text(tokens, at + 1) == name)
    }
}

// ---- the rule can fail --------------------------------------------------------------------------

#[cfg(test)]
fn closing_in(files: &[(&str, &str)], listed: &str) -> Vec<String> {
    let imports = sibling_imports(&sources(files));
    closing(&imports, &tables::numbers(listed)).into_keys().collect()
}

#[test]
fn a_circle_is_found_however_the_names_arrive() {
    for (open, engine) in [
        ("use super::engine::Engine;", "use super::open::Open;"),
        ("use crate::broker::Engine;", "use super::Open;"),
        ("use super::{engine, Other}; fn f() { engine::open() }", "fn f() { super::open::f() }"),
        ("use super::engine::*;", "fn f() -> crate::Opened {}"),
    ] {
        let files = [
            ("lib.rs", "mod broker; pub use broker::Open as Opened;"),
            (
                "broker/mod.rs",
                "mod engine; mod open; pub use engine::Engine; pub use self::open::Open;",
            ),
            ("broker/engine.rs", engine),
            ("broker/open.rs", open),
        ];
        let both = ["broker/engine->broker/open", "broker/open->broker/engine"];
        assert_eq!(closing_in(&files, ""), both, "not found: {open} {engine}");
        // One exception is enough, and a second one is not needed.
        let one = "broker/open->broker/engine  1";
        assert_eq!(closing_in(&files, one), ["broker/open->broker/engine"]);
        assert_eq!(closing_in(&files, &both.map(|key| format!("{key}  1\n")).concat()).len(), 0);
    }
}

#[test]
fn circles_of_three_and_through_a_child_are_found() {
    let files = [
        ("log/mod.rs", "mod a; mod b; mod c;"),
        ("log/a.rs", "mod deep; use super::b::B;"),
        ("log/a/deep.rs", "struct Deep;"),
        ("log/b.rs", "use crate::log::c::C;"),
        ("log/c.rs", "use super::a::deep::Deep;"),
    ];
    assert_eq!(closing_in(&files, "").len(), 3);
}

#[test]
fn what_is_no_circle_is_not_reported() {
    let files = [
        ("log/mod.rs", "mod a; mod b; #[cfg(test)] mod model; struct Log(a::A);"),
        ("log/a.rs", "use super::b::B; use super::Log; use crate::storage::Disk;"),
        ("log/b.rs", "#[cfg(test)] mod tests { use super::super::a::A; } // use super::a::A;"),
        ("log/model.rs", "use super::a::A;"),
        ("log/b/tests.rs", "use crate::log::Log;"),
        ("storage.rs", "use crate::log::Log;"), // another rule's
    ];
    assert_eq!(closing_in(&files, ""), Vec::<String>::new());
}
