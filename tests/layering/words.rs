//! The vocabulary: words of the first version's dialect, for which there is a standard term, do not
//! occur in identifiers, comments, strings and documents, neither in the engine nor in its tests,
//! examples and benchmarks.
//!
//! `tables/words.txt` lists how many of them remain in each room, and in each document.

use std::collections::BTreeMap;
use std::path::Path;

use crate::sources::{manifest_dir, module_path, texts};
use crate::tables::{self, Counts};

/// A word, or some that follow each other, and what to say instead. Plurals count too.
const BANNED: &[(&str, &str)] = &[
    ("are gone", "are removed, deleted, lost, missing"),
    ("clue", "what is known, by its name"),
    ("fate", "outcome, decision"),
    ("go on", "continue"),
    ("goes on", "continues"),
    ("gone for good", "durably removed"),
    ("is gone", "is removed, deleted, lost, missing"),
    ("keep house", "run housekeeping"),
    ("lane", "background thread, worker"),
    ("lie behind", "follow, stand after"),
    ("own log", "internal log"),
    ("place", "rank, position, offset, slot, partition, path, .."),
    ("told", "reported, returned, notified"),
    ("untold", "unreported"),
    ("verdict", "result, decision"),
    ("went on", "continued"),
    ("what is left", "the rest, what remains"),
    ("whoever", "the caller, the consumer, .."),
    ("wreck", "damaged directory, leftover"),
];

/// A banned word after one that makes it a standard term: what is written in place.
const ALLOWED: &[(&str, &str)] = &[("in", "place")];

const TABLE: &str = "words.txt";

#[test]
fn names_and_prose_use_standard_terms() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, text) in documents().unwrap() {
        let lines = banned_in(&text).into_iter();
        let lines = lines.map(|(word, line)| format!("{name}:{line}: `{word}`"));
        found.entry(home(&name)).or_default().extend(lines);
    }
    let table = tables::read(TABLE);
    let ceilings = tables::numbers(&table);
    for (home, lines) in &found {
        if lines.len() > ceilings.get(home.as_str()).copied().unwrap_or_default() {
            eprintln!("{}", lines.join("\n"));
        }
    }
    let terms = BANNED.iter().map(|(word, instead)| format!("`{word}`: {instead}"));
    eprintln!("say instead: {}", terms.collect::<Vec<_>>().join("; "));
    let counts = found.into_iter().map(|(home, lines)| (home, lines.len()));
    tables::assert_within(TABLE, &counts.filter(|(_, count)| *count > 0).collect::<Counts>());
}

/// What is read: `src` by the names of its modules, everything else by its path.
fn documents() -> std::io::Result<Vec<(String, String)>> {
    let readme = std::fs::read_to_string(manifest_dir().join("README.md"))?;
    let mut documents = texts("src", &["rs", "md"])?;
    documents.push(("README.md".to_owned(), readme));
    for root in ["tests", "examples", "benches"] {
        let texts = texts(root, &["rs"])?.into_iter();
        documents.extend(texts.map(|(name, text)| (format!("{root}/{name}"), text)));
    }
    documents.retain(|(name, _)| name != "tests/layering/words.rs"); // it names them
    Ok(documents)
}

/// The room that a source file belongs to, so that a move within it is free; a document as it is.
fn home(name: &str) -> String {
    let is_source = Path::new(name).extension().is_some_and(|extension| extension == "rs");
    if is_source {
        module_path(name).into_iter().next().unwrap_or_default()
    } else {
        name.to_owned()
    }
}

/// The banned words of a text, with the line of each.
fn banned_in(text: &str) -> Vec<(&'static str, usize)> {
    let words = words(text);
    let is = |word: &str, banned: &str| {
        word == banned || word.strip_suffix('s').is_some_and(|singular| singular == banned)
    };
    let mut found = Vec::new();
    for (at, (word, line)) in words.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| words.get(before));
        if before.is_some_and(|(before, _)| ALLOWED.contains(&(before, word))) {
            continue;
        }
        let begins_here = |banned: &&str| {
            let mut parts = banned.split(' ').enumerate();
            parts.all(|(nth, part)| words.get(at + nth).is_some_and(|(word, _)| is(word, part)))
        };
        let banned = BANNED.iter().map(|(banned, _)| *banned).find(begins_here);
        found.extend(banned.map(|banned| (banned, *line)));
    }
    found
}

/// The words of a text in lower case; `own_log` and `OwnLog` are two words.
fn words(text: &str) -> Vec<(String, usize)> {
    let mut words = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let mut word = String::new();
        let mut was_lower = false;
        for character in text.chars().chain([' ']) {
            let begins = character.is_uppercase() && was_lower;
            if (begins || !character.is_alphabetic()) && !word.is_empty() {
                words.push((std::mem::take(&mut word), line + 1));
            }
            if character.is_alphabetic() {
                word.extend(character.to_lowercase());
            }
            was_lower = character.is_lowercase();
        }
    }
    words
}

// ---- the rule can fail --------------------------------------------------------------------------

#[test]
fn banned_words_are_found_in_every_spelling() {
    for text in [
        "/// It is told",
        "fn own_logs() {}",
        "struct OwnLog;",
        "let x = \"of its own\n/// log\";",
        "LANES",
        "a_verdict",
        "keep_house()",
        "Whoever reads",
        "every_place",
        "in its place",
        "goes_on()",
        "what is\n/// left",
    ] {
        assert_eq!(banned_in(text).len(), 1, "not found in: {text}");
    }
    assert_eq!(banned_in("told, untold: wrecks").len(), 3);
    assert_eq!(banned_in("a\nb\ntold"), [("told", 3)]);
}

#[test]
fn other_words_are_not_reported() {
    for text in [
        "planes",
        "logs of its own",
        "a house to keep",
        "fated",
        "foretold",
        "glanes",
        "replaces",
        "rewritten in place",
        "is_in_place",
        "what is there is left alone",
    ] {
        assert_eq!(banned_in(text), [], "reported: {text}");
    }
}
