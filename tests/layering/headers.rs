//! "Must not know" in the header of a module is kept: what it names is not imported by the file.
//!
//! The header lists what the module must not know, separated by commas, up to the end of the
//! sentence: `Must not know: topics, the broker, locks.` Each item of one word that is the name of
//! a room or a module, or one of [`CONCEPTS`], is checked; a longer item is for readers only.
//! `tables/headers.txt` lists what is imported all the same, as `module:word`.

use std::collections::BTreeSet;

use crate::circles::Names;
use crate::items::uses;
use crate::sources::{Sources, module_path, sources};
use crate::tables::{self, Counts};

/// Words that stand for paths.
const CONCEPTS: &[(&str, &[&str])] = &[
    ("atomics", &["sync::Atomic"]),
    ("files", &["std::fs", "storage::disk"]),
    ("locks", &["sync::Mutex", "sync::RwLock"]),
    ("threads", &["std::thread"]),
    ("time", &["clock", "std::time::Instant", "std::time::SystemTime"]),
    ("waiting", &["sync::Condvar"]),
];

const TABLE: &str = "headers.txt";

#[test]
fn what_a_header_says_must_not_be_known_is_not_imported() {
    tables::assert_within(TABLE, &known_all_the_same(&Sources::read("src").unwrap()));
}

fn known_all_the_same(sources: &Sources) -> Counts {
    let names = Names::new(sources);
    let modules: BTreeSet<String> =
        names.tokens.keys().filter_map(|file| module_path(file).pop()).collect();
    let mut counts = Counts::new();
    for (file, tokens) in &names.tokens {
        let unknown = sources.files.get(file).map(|file| must_not_know(&file.text));
        let unknown = unknown.unwrap_or_default();
        let Some(bindings) = names.bindings.get(file).filter(|_| !unknown.is_empty()) else {
            continue;
        };
        let module = module_path(file);
        let mut known: Vec<String> = Vec::new();
        for (path, _) in uses(tokens, &module, bindings) {
            let home = names.file_of(&path).filter(|home| home != file);
            known.extend(home.map(|home| module_path(home).join("::")));
            known.push(path.join("::"));
        }
        let of_std = crate::code::paths(tokens, &module).into_iter();
        known.extend(of_std.map(|path| path.segments.join("::")));
        let own = module.join("::");
        for word in unknown {
            let forbidden = forbidden_by(&word, &modules);
            let is_known = |path: &&String| {
                !own.starts_with(path.as_str())
                    && forbidden.iter().any(|forbidden| is_within(path, forbidden, &own))
            };
            let count = known.iter().filter(is_known).count();
            if count > 0 {
                counts.insert(format!("{}:{word}", module.join("/")), count);
            }
        }
    }
    counts
}

/// What a word of a header stands for: paths, or names of modules.
fn forbidden_by(word: &str, modules: &BTreeSet<String>) -> Vec<String> {
    let concept = CONCEPTS.iter().find(|(concept, _)| *concept == word);
    if let Some((_, paths)) = concept {
        return paths.iter().map(|path| (*path).to_owned()).collect();
    }
    let singular = word.strip_suffix('s').unwrap_or(word);
    let forms = [word.to_owned(), singular.to_owned(), format!("{singular}s")];
    forms.into_iter().filter(|form| modules.contains(form)).collect()
}

/// Whether `path` leads to what is forbidden, or through a module of that name other than those
/// in which the file itself lies.
fn is_within(path: &str, forbidden: &str, own: &str) -> bool {
    if forbidden.contains("::") || forbidden == "clock" {
        return path.starts_with(forbidden);
    }
    let is_own = |module: &str| own.split("::").any(|part| part == module);
    path.split("::").any(|part| part == forbidden) && !is_own(forbidden)
}

/// The items of one word of the sentence that begins with "Must not know".
fn must_not_know(text: &str) -> Vec<String> {
    let header = text.lines().map_while(|line| line.strip_prefix("//!"));
    let header = header.map(|line| if line.trim().is_empty() { ". " } else { line });
    let header = header.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((_, rest)) = header.split_once("Must not know") else { return Vec::new() };
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let sentence = rest.split(['.', ';', ':', '(']).next().unwrap_or_default();
    let sentence = sentence.replace(" and ", ",").replace(" or ", ",");
    let items = sentence.split(',').map(|item| item.trim().trim_start_matches("the "));
    let words = items.filter(|item| !item.is_empty() && !item.contains(' '));
    words.map(str::to_lowercase).collect()
}

// ---- the rule can fail --------------------------------------------------------------------------

#[cfg(test)]
fn found_in(header: &str, code: &str) -> Vec<String> {
    let text = format!("{header}\n\n{code}");
    let files = [
        ("lib.rs", "mod broker; mod log; mod sync; mod clock; mod topic; pub use topic::Topic;"),
        ("broker.rs", "mod topics; mod engine;"),
        ("broker/engine.rs", ""),
        ("broker/topics.rs", ""),
        ("clock.rs", ""),
        ("log.rs", "mod segment;"),
        ("log/segment.rs", text.as_str()),
        ("sync.rs", ""),
        ("topic.rs", "struct Topic;"),
    ];
    known_all_the_same(&sources(&files)).into_keys().collect()
}

#[test]
fn what_is_known_all_the_same_is_found() {
    let found = |header: &str, code: &str| found_in(header, code).len();
    assert_eq!(found("//! Must not know: topics.", "use crate::topic::Topic;"), 1);
    assert_eq!(found("//! Must not know: topics.", "use crate::Topic;"), 1);
    assert_eq!(found("//! Must not know the broker.", "fn f() { crate::broker::engine::f() }"), 1);
    assert_eq!(
        found("//! Must not\n//! know: logs, locks and\n//! clocks.", "use crate::sync::Mutex;"),
        1
    );
    assert_eq!(found("//! Must not know: time.", "use std::time::Instant;"), 1);
    assert_eq!(
        found("//! Must not know: files, clocks.", "use std::fs; use crate::clock::Clock;"),
        2
    );
    assert_eq!(found("//! Must not know: engines.", "use crate::broker::engine;"), 1);
}

#[test]
fn what_a_header_does_not_rule_out_is_not_reported() {
    for (header, code) in [
        ("//! Must not know: topics.", "use crate::broker::engine; // crate::topic"),
        ("//! Must not know: what a topic holds.", "use crate::topic::Topic;"),
        ("//! Must not know: time. Owns topics.", "use crate::topic::Topic;"),
        (
            "//! Must not know: clocks\n//!\n//! Owns: the topic, topics.",
            "use crate::topic::Topic;",
        ),
        ("//! Must not know: time.", "use std::time::Duration;"),
        ("//! Must not know: other segments.", "use super::segment::Other;"),
        ("//! Must not know: topics.", "#[cfg(test)] mod tests { use crate::topic::Topic; }"),
        ("//! Segments.\nconst MUST: &str = \"Must not know: topics\";", "use crate::Topic;"),
    ] {
        assert_eq!(found_in(header, code), Vec::<String>::new(), "{header} {code}");
    }
}
