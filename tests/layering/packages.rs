//! Locks, atomics and the packages that touch memory or foreign bytes each lie in one file, and the
//! packages of the program `logpond` in its folder.

use crate::code::{Root, paths, without_tests};
use crate::sources::{Sources, assert_none, module_path, sources};

/// Packages that exactly one file imports.
const ONE_IMPORTER: &[&str] = &["memmap2", "crc32fast", "bincode"];
/// Packages of the program: a user of the library never compiles them.
const PROGRAM_ONLY: &[&str] = &["clap"];
/// The folder of the program.
const PROGRAM: &str = "bin/";
/// The one file with locks and atomics.
const SYNC_FILE: &str = "sync.rs";

#[test]
fn packages_that_touch_memory_or_foreign_bytes_have_one_importer() {
    assert_none(&importer_violations(&Sources::read("src").unwrap()));
}

#[test]
fn packages_of_the_program_are_not_in_the_library() {
    let sources = Sources::read("src").unwrap();
    assert!(PROGRAM_ONLY.iter().all(|package| !sources.naming(package).is_empty()));
    assert_none(&program_violations(&sources));
}

#[test]
fn locks_and_atomics_come_from_the_sync_module() {
    assert_none(&sync_violations(&Sources::read("src").unwrap()));
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

fn program_violations(sources: &Sources) -> Vec<String> {
    let mut violations = Vec::new();
    for package in PROGRAM_ONLY {
        let importers = sources.naming(package).into_iter();
        let of_library = importers.filter(|name| !name.starts_with(PROGRAM));
        violations.extend(of_library.map(|name| format!("{name}: `{package}` in the library")));
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

// ---- the rules can fail -------------------------------------------------------------------------

#[test]
fn a_second_importer_and_a_missing_one_are_found() {
    let good = [
        ("storage/region/map.rs", "use memmap2::MmapRaw;"),
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
fn a_package_of_the_program_in_the_library_is_found() {
    let count = |name| program_violations(&sources(&[(name, "use clap::Parser;")])).len();
    assert_eq!((count("bin/logpond/args.rs"), count("config.rs")), (0, 1));
}

#[test]
fn a_lock_or_an_atomic_from_elsewhere_is_found() {
    let count = |name, text| sync_violations(&sources(&[(name, text)])).len();
    assert_eq!(count("partition.rs", "use parking_lot::Mutex;"), 1);
    assert_eq!(count("partition.rs", "use std::sync::{Arc, atomic::{AtomicU64, Ordering}};"), 2);
    assert_eq!(count("partition.rs", "use std::sync::Arc;"), 0);
    assert_eq!(count(SYNC_FILE, "use parking_lot::Mutex; use std::sync::atomic::AtomicU64;"), 0);
}
