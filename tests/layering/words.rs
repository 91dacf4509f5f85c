//! The vocabulary: words of the first version's dialect, for which there is a standard term, do not
//! occur in identifiers, comments, strings and documents.
//!
//! `tables/words.txt` lists how many of them are left in each room, and in each document.

use std::collections::BTreeMap;
use std::path::Path;

use crate::sources::{manifest_dir, module_path, texts};
use crate::tables::{self, Counts};

/// A word, or two that follow each other, and what to say instead. Plurals count too.
const BANNED: &[(&str, &str)] = &[
    ("clue", "what is known, by its name"),
    ("fate", "outcome, decision"),
    ("keep house", "run housekeeping"),
    ("lane", "background thread, worker"),
    ("own log", "internal log"),
    ("told", "reported, returned, notified"),
    ("untold", "unreported"),
    ("verdict", "result, decision"),
    ("whoever", "the caller, the consumer, .."),
    ("wreck", "damaged directory, leftover"),
];

const TABLE: &str = "words.txt";

#[test]
fn names_and_prose_use_standard_terms() {
    let readme = std::fs::read_to_string(manifest_dir().join("README.md")).unwrap();
    let documents = texts("src", &["rs", "md"]).unwrap();
    let documents = documents.into_iter().chain([("README.md".to_owned(), readme)]);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, text) in documents {
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
    let is = |word: &str, banned: &str| word.strip_suffix('s').unwrap_or(word) == banned;
    let mut found = Vec::new();
    for (at, (word, line)) in words.iter().enumerate() {
        let next = words.get(at + 1).map_or("", |(next, _)| next.as_str());
        let banned = BANNED.iter().map(|(banned, _)| *banned).find(|banned| {
            banned
                .split_once(' ')
                .map_or(is(word, banned), |(first, second)| word == first && is(next, second))
        });
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
    ] {
        assert_eq!(banned_in(text).len(), 1, "not found in: {text}");
    }
    assert_eq!(banned_in("told, untold: wrecks").len(), 3);
    assert_eq!(banned_in("a\nb\ntold"), [("told", 3)]);
}

#[test]
fn other_words_are_not_reported() {
    for text in ["planes", "logs of its own", "a house to keep", "fated", "foretold", "glanes"] {
        assert_eq!(banned_in(text), [], "reported: {text}");
    }
}
