//! Goal: the architecture stays what it is. Imports point downward by the table [`LEVELS`],
//! `unsafe` stays in one file, each package that touches memory or foreign bytes is imported by
//! one file, nothing grows beyond what can be read at a sitting, and the top level of the
//! repository holds what was agreed.
//!
//! Method: a small lexer (`layering/code.rs`) turns every file of `src/` into tokens, without comments and literals,
//! and the rules look at tokens. What is compiled for tests only (`#[cfg(test)]`, files named
//! `tests.rs`) may import upward. Each rule has a test that shows it failing on a bad snippet.
//!
//! Not covered: names that arrive through a glob re-export or a macro of another package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use code::{Root, Token, functions, paths, re_exports, tokens, without_tests};

#[path = "layering/code.rs"]
mod code;

/// The rooms of `src/` and their levels: a file may name its own room and lower levels. Rooms of
/// one level do not name each other, except on the ground floor. `message` lies below `log`.
const LEVELS: &[(&str, u32)] = &[
    ("error", GROUND),
    ("clock", GROUND),
    ("config", GROUND),
    ("sync", GROUND),
    ("record", GROUND),
    ("rules", GROUND),
    ("steps", GROUND),
    ("codec", GROUND),
    ("docs", GROUND),
    ("foreign", GROUND),
    ("trace", GROUND),
    ("format", 10),
    ("storage", 20),
    ("message", 30),
    ("log", 31),
    ("partition", 40),
    ("topic", 50),
    ("partitioner", 50),
    ("broker", 60),
    ("group", 58),
    ("producer", 70),
    ("consumer", 70),
    ("admin", 70),
    // Reads and writes whole directories.
    ("salvage", 75),
    // A client of producers and consumers.
    ("typed", 71),
    ("replication", 80),
    ("testing", 80),
    // Compiled for tests and fuzzing only.
    ("fuzzing", 90),
];
const GROUND: u32 = 0;

/// Packages that exactly one file imports.
const ONE_IMPORTER: &[&str] = &["memmap2", "crc32fast", "bincode"];
/// The one file with `unsafe` code, and the one with locks and atomics.
const UNSAFE_FILE: &str = "storage/region.rs";
const SYNC_FILE: &str = "sync.rs";

const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;

/// What may lie at the top of the repository, beside dotfiles.
const TOP_LEVEL: &[&str] =
    &["Cargo.toml", "Cargo.lock", "src", "examples", "tests", "benches", "README.md", "LICENSE"];

// ---- the checks on this repository -------------------------------------------------------------

#[test]
fn imports_point_downward() {
    let sources = Sources::read("src").unwrap();
    assert!(sources.files.contains_key("lib.rs"), "src/lib.rs was not found");
    assert_none(&import_violations(&sources));
}

#[test]
fn unsafe_code_is_in_one_file() {
    assert_none(&unsafe_violations(&Sources::read("src").unwrap()));
}

#[test]
fn packages_that_touch_memory_or_foreign_bytes_have_one_importer() {
    assert_none(&importer_violations(&Sources::read("src").unwrap()));
}

#[test]
fn locks_and_atomics_come_from_the_sync_module() {
    assert_none(&sync_violations(&Sources::read("src").unwrap()));
}

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

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n  {}\n", violations.join("\n  "));
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

// ---- the rules -----------------------------------------------------------------------------------

fn import_violations(sources: &Sources) -> Vec<String> {
    let re_exports = sources.files.get("lib.rs").map(|lib| re_exports(&lib.tokens));
    let re_exports = re_exports.unwrap_or_default();
    let test_modules = sources.test_modules();
    let mut violations = Vec::new();

    for (name, file) in &sources.files {
        let module = module_path(name);
        let Some(room) = module.first() else { continue }; // lib.rs names everybody
        if room == "bin" {
            continue; // another crate
        }
        let Some(own_level) = level(room) else {
            violations.push(format!("{name}: the room `{room}` is not in the table"));
            continue;
        };
        if is_test_module(&module, &test_modules) {
            continue;
        }
        for path in paths(&without_tests(&file.tokens).0, &module) {
            let Some(first) = path.segments.first() else { continue };
            if path.root == Root::Package {
                continue;
            }
            let target = re_exports.get(first).unwrap_or(first);
            let shown = path.segments.join("::");
            match level(target) {
                None => violations.push(format!(
                    "{name}:{}: `{shown}` is neither in the table nor re-exported by lib.rs",
                    path.line
                )),
                Some(_) if target == room => {}
                Some(GROUND) if own_level == GROUND => {}
                Some(target_level) if target_level < own_level => {}
                Some(_) => violations.push(format!(
                    "{name}:{}: `{room}` must not know `{target}` (`{shown}`)",
                    path.line
                )),
            }
        }
    }
    violations
}

fn unsafe_violations(sources: &Sources) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, file) in sources.files.iter().filter(|(name, _)| *name != UNSAFE_FILE) {
        for token in file.tokens.iter().filter(|token| token.text == "unsafe") {
            violations.push(format!("{name}:{}: `unsafe` outside {UNSAFE_FILE}", token.line));
        }
    }
    violations
}

fn importer_violations(sources: &Sources) -> Vec<String> {
    let mut violations = Vec::new();
    for package in ONE_IMPORTER {
        let importers = sources.naming(package);
        if importers.len() != 1 {
            violations.push(format!("`{package}` is imported by {importers:?}, not by one file"));
        }
    }
    violations
}

fn sync_violations(sources: &Sources) -> Vec<String> {
    let mut violations = Vec::new();
    for name in sources.naming("parking_lot") {
        if name != SYNC_FILE {
            violations.push(format!("{name}: `parking_lot` outside {SYNC_FILE}"));
        }
    }
    for (name, file) in sources.files.iter().filter(|(name, _)| *name != SYNC_FILE) {
        for path in paths(&without_tests(&file.tokens).0, &module_path(name)) {
            let atomics = ["std", "sync", "atomic"];
            if path.root == Root::Package && path.segments.iter().take(3).eq(atomics) {
                let line = path.line;
                violations.push(format!("{name}:{line}: `std::sync::atomic` outside {SYNC_FILE}"));
            }
        }
    }
    violations
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

fn level(room: &str) -> Option<u32> {
    LEVELS.iter().find(|(name, _)| *name == room).map(|(_, level)| *level)
}

// ---- files and modules ---------------------------------------------------------------------------

/// Files by their path below a root, with `/` between the parts.
#[derive(Default)]
struct Sources {
    files: BTreeMap<String, SourceFile>,
}

struct SourceFile {
    lines: usize,
    tokens: Vec<Token>,
}

impl Sources {
    fn read(root: &str) -> io::Result<Self> {
        let root = manifest_dir().join(root);
        let mut sources = Self::default();
        let mut pending = vec![root.clone()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir)? {
                let path: PathBuf = entry?.path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(&root).unwrap_or(&path);
                    let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
                    sources.add(&parts.join("/"), &fs::read_to_string(&path)?);
                }
            }
        }
        Ok(sources)
    }

    fn add(&mut self, name: &str, text: &str) {
        let file = SourceFile { lines: text.lines().count(), tokens: tokens(text) };
        self.files.insert(name.to_owned(), file);
    }

    /// The files whose code, tests aside, names a package.
    fn naming(&self, package: &str) -> Vec<&str> {
        let names = |file: &SourceFile| {
            without_tests(&file.tokens).0.iter().any(|token| token.text == package)
        };
        let files = self.files.iter().filter(|(_, file)| names(file));
        files.map(|(name, _)| name.as_str()).collect()
    }

    /// The paths of all modules that are declared under `#[cfg(test)]`.
    fn test_modules(&self) -> BTreeSet<Vec<String>> {
        let mut modules = BTreeSet::new();
        for (name, file) in &self.files {
            for child in without_tests(&file.tokens).1 {
                let mut module = module_path(name);
                module.push(child);
                modules.insert(module);
            }
        }
        modules
    }
}

/// `log/segment.rs` and `log/segment/mod.rs` are the module `["log", "segment"]`.
fn module_path(name: &str) -> Vec<String> {
    let name = name.strip_suffix(".rs").unwrap_or(name);
    let mut module: Vec<String> = name.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

fn is_test_module(module: &[String], declared: &BTreeSet<Vec<String>>) -> bool {
    let within = |parent: &Vec<String>| module.starts_with(parent);
    module.iter().any(|part| part == "tests") || declared.iter().any(within)
}

// ---- the rules can fail -----------------------------------------------------------------------------

fn sources(files: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::default();
    for (name, text) in files {
        sources.add(name, text);
    }
    sources
}

/// How many import violations a file with this text has, beside a plausible lib.rs.
fn violations_in(name: &str, text: &str) -> usize {
    let lib = "mod error; mod broker; pub use broker::{Broker, builder::BrokerBuilder as Builder};
               pub use error::Error; pub(crate) use self::log::Log;";
    import_violations(&sources(&[("lib.rs", lib), (name, text)])).len()
}

#[test]
fn an_upward_import_is_found_in_every_spelling() {
    for text in [
        "use crate::broker::Broker;",
        "use crate::{error::Error, broker::{self, lanes::Lane}};",
        "fn f() { crate::broker::open(); }",
        "fn f(x: &dyn crate::broker::Lane) {}",
        "use super::super::broker::Broker;",
        "mod inner { use super::super::super::broker::Broker; }",
        "use crate::Broker;",
        "use crate::Builder as B;",
        "use crate::Log;",
        "use crate::unheard_of::Thing;",
        "use crate::*;",
        "#[cfg(test)] use crate::admin::A; use crate::broker::B;",
        "#[cfg(test)] fn f() -> [u8; 2] { [1, 2] } use crate::broker::B;",
        "#[cfg(not(test))] use crate::broker::B;",
        "struct S { #[cfg(test)] probe: u32, owner: crate::broker::B }",
        "const QUOTE: char = '\"'; use crate::broker::B; // \"",
        "fn f<'a>(x: &'a str) { crate::broker::open(x) }",
        "const RAW: &str = r#\"a \" b\"#; use crate::broker::B;",
        "/* a /* nested */ comment */ use crate::broker::B;",
    ] {
        assert_eq!(violations_in("storage/disk.rs", text).min(1), 1, "not found in: {text}");
    }
}

#[test]
fn rooms_of_one_level_do_not_know_each_other() {
    assert_eq!(violations_in("producer.rs", "use crate::consumer::Consumer;"), 1);
    assert_eq!(violations_in("message.rs", "use crate::log::Log;"), 1);
    assert_eq!(violations_in("log/mod.rs", "use crate::message::Message;"), 0);
    assert_eq!(violations_in("clock.rs", "use crate::sync::Mutex;"), 0);
    assert_eq!(violations_in("clock.rs", "use crate::format::Batch;"), 1);
}

#[test]
fn a_room_outside_the_table_is_found() {
    assert_eq!(violations_in("util.rs", ""), 1);
}

#[test]
fn what_is_allowed_is_not_reported() {
    for text in [
        "use crate::error::Error; use crate::format::{batch, segment::Header}; use crate::Error;",
        "use super::region::Memory; use self::real::RealDisk; pub(crate) struct S;",
        "// use crate::broker::Broker;\n/// [`Broker`](crate::broker::Broker)\nstruct S;",
        "const S: &str = \"crate::broker::Broker\"; const B: &[u8] = b\"crate::broker::x\";",
        "#[cfg(test)] mod tests { use crate::broker::Broker; fn f() { let _ = '{'; } }",
        "#[cfg(all(test, not_loom))] use crate::broker::{A, B};",
        "#[cfg(test)] #[allow(dead_code)] pub(crate) fn f<A, B>() { crate::broker::open() }",
        "enum E { #[cfg(test)] Probe(crate::broker::B), Plain }",
    ] {
        assert_eq!(violations_in("storage/disk.rs", text), 0, "reported: {text}");
    }
    assert_eq!(violations_in("storage/disk/tests.rs", "use crate::broker::Broker;"), 0);
    assert_eq!(violations_in("lib.rs", "pub use admin::Admin;"), 0);
}

#[test]
fn a_module_declared_for_tests_may_look_up() {
    let child = ("log/model.rs", "use crate::broker::Broker;");
    let plain = sources(&[("log/mod.rs", "mod model;"), child]);
    assert_eq!(import_violations(&plain).len(), 1);
    let test = sources(&[("log/mod.rs", "#[cfg(test)] mod model;"), child]);
    assert_eq!(import_violations(&test).len(), 0);
}

#[test]
fn unsafe_elsewhere_is_found() {
    let code = "fn f() { let s = \"unsafe\"; unsafe { g() } } // unsafe";
    assert_eq!(unsafe_violations(&sources(&[("log/mod.rs", code)])).len(), 1);
    assert_eq!(unsafe_violations(&sources(&[(UNSAFE_FILE, code)])).len(), 0);
    let lint = "#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]";
    assert_eq!(unsafe_violations(&sources(&[("lib.rs", lint)])).len(), 0);
}

#[test]
fn a_second_importer_and_a_missing_one_are_found() {
    let good = [
        ("storage/region.rs", "use memmap2::MmapRaw;"),
        ("format/checksum.rs", "fn f() { crc32fast::hash(b\"\") }"),
        ("codec.rs", "use bincode::config;"),
        ("log/mod.rs", "#[cfg(test)] mod tests { use bincode::config; }"),
    ];
    assert_none(&importer_violations(&sources(&good)));
    let second = [good.as_slice(), &[("log/mod.rs", "use bincode::config;")]].concat();
    assert_eq!(importer_violations(&sources(&second)).len(), 1);
    let missing = good.get(1..).unwrap_or_default();
    assert_eq!(importer_violations(&sources(missing)).len(), 1);
}

#[test]
fn a_lock_or_an_atomic_from_elsewhere_is_found() {
    let count = |name, text| sync_violations(&sources(&[(name, text)])).len();
    assert_eq!(count("partition.rs", "use parking_lot::Mutex;"), 1);
    assert_eq!(count("partition.rs", "use std::sync::{Arc, atomic::{AtomicU64, Ordering}};"), 2);
    assert_eq!(count("partition.rs", "use std::sync::Arc;"), 0);
    assert_eq!(count(SYNC_FILE, "use parking_lot::Mutex; use std::sync::atomic::AtomicU64;"), 0);
}

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
