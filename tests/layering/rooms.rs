//! Imports between rooms point downward.

use std::collections::BTreeMap;

use crate::code::{Root, paths, re_exports, without_tests};
use crate::sources::{Sources, assert_none, is_test_module, module_path, sources};

/// The rooms of `src/` and their levels: a file may name its own room and lower levels. Rooms of
/// one level do not name each other, except on the ground floor. `message` lies below `log`.
const LEVELS: &[(&str, u32)] = &[
    ("error", GROUND),
    ("clock", GROUND),
    ("config", GROUND),
    ("sync", GROUND),
    ("record", GROUND),
    ("random", GROUND),
    ("rules", GROUND),
    ("steps", GROUND),
    ("codec", GROUND),
    ("docs", GROUND),
    ("foreign", GROUND),
    ("trace", GROUND),
    ("seams", GROUND),
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
    // Clusters of test brokers.
    ("testing", 85),
    // Compiled for tests and fuzzing only.
    ("fuzzing", 90),
];
const GROUND: u32 = 0;

#[test]
fn imports_point_downward() {
    let sources = Sources::read("src").unwrap();
    assert!(sources.files.contains_key("lib.rs"), "src/lib.rs was not found");
    assert_none(&import_violations(&sources));
}

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

/// The table of levels.
pub(crate) fn levels() -> BTreeMap<String, u32> {
    LEVELS.iter().map(|(room, level)| ((*room).to_owned(), *level)).collect()
}

fn level(room: &str) -> Option<u32> {
    LEVELS.iter().find(|(name, _)| *name == room).map(|(_, level)| *level)
}

// ---- the rule can fail --------------------------------------------------------------------------

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
        "use crate::{error::Error, broker::{self, workers::Worker}};",
        "fn f() { crate::broker::open(); }",
        "fn f(x: &dyn crate::broker::Worker) {}",
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
fn the_broker_of_a_test_is_built_on_replication() {
    assert_eq!(violations_in("testing.rs", "use crate::replication::Transport;"), 0);
    assert_eq!(violations_in("replication.rs", "use crate::testing::SimNetwork;"), 1);
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
