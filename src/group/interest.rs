//! Which topics a member wants to read.
//!
//! Pure. A pattern is resolved against the existing topics, and again whenever these change, so
//! that all other modules know topics by name only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::assignor::Subscription;
use crate::error::CorruptionKind;
use crate::format::validate_topic;
use crate::steps;

/// The live topics and how many partitions each has. The engine's own are never among them, so no
/// pattern can match one.
pub(crate) type Topics = BTreeMap<Arc<str>, u32>;

/// Topics by name, which need not exist yet, and patterns for names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Interest {
    names: BTreeSet<Arc<str>>,
    patterns: BTreeSet<Arc<str>>,
}

/// A name or a pattern that a group reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// A topic.
    Name(Arc<str>),
    /// All topics whose names it matches.
    Pattern(Arc<str>),
}

impl Wanted {
    /// Checks whether a consumer can have subscribed to this name or pattern.
    pub(crate) fn check(&self) -> Result<(), CorruptionKind> {
        match self {
            Self::Name(name) if validate_topic(name).is_err() => {
                Err(CorruptionKind::Malformed("a topic's name"))
            }
            _ => Ok(()),
        }
    }

    /// Whether this topic is covered.
    pub(crate) fn covers(&self, topic: &str) -> bool {
        match self {
            Self::Name(name) => **name == *topic,
            Self::Pattern(pattern) => matches(pattern, topic),
        }
    }
}

impl Interest {
    pub(crate) fn new(
        names: impl IntoIterator<Item = Arc<str>>,
        patterns: impl IntoIterator<Item = Arc<str>>,
    ) -> Self {
        Self { names: names.into_iter().collect(), patterns: patterns.into_iter().collect() }
    }

    /// Checks the names. A pattern may be any text, because it is only compared with names.
    pub(crate) fn check(&self) -> Result<(), CorruptionKind> {
        let is_sound = self.names.iter().all(|name| validate_topic(name).is_ok());
        if is_sound { Ok(()) } else { Err(CorruptionKind::Malformed("a topic's name")) }
    }

    /// Each name and each pattern.
    pub(crate) fn each(&self) -> impl Iterator<Item = Wanted> {
        let names = self.names.iter().map(|name| Wanted::Name(Arc::clone(name)));
        names.chain(self.patterns.iter().map(|pattern| Wanted::Pattern(Arc::clone(pattern))))
    }

    /// Whether the result of [`resolve`](Self::resolve) depends on the existing topics.
    pub(crate) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether the topic is subscribed to by its name.
    pub(crate) fn names(&self, topic: &str) -> bool {
        self.names.contains(topic)
    }

    /// Whether a topic of this name is covered.
    pub(crate) fn covers(&self, topic: &str) -> bool {
        self.names.contains(topic) || self.is_matched(topic)
    }

    fn is_matched(&self, topic: &str) -> bool {
        steps::take(1);
        self.patterns.iter().any(|pattern| matches(pattern, topic))
    }

    pub(crate) fn resolve(&self, topics: &Topics) -> Subscription {
        let is_matched = |name: &&Arc<str>| self.is_matched(name);
        let matched = topics.keys().filter(|_| self.has_patterns()).filter(is_matched);
        self.names.iter().chain(matched).map(Arc::clone).collect()
    }
}

impl<T: Into<Arc<str>>> FromIterator<T> for Interest {
    /// Topics by name.
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        Self::new(names.into_iter().map(Into::into), [])
    }
}

/// Whether the whole name matches a pattern in which `*` stands for any characters, also none, and
/// `?` for one. Everything else stands for itself.
///
/// Takes at most (pattern × name) steps: on a mismatch only the LAST `*` takes one character more,
/// since an earlier one could gain nothing by taking more.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // The position after the last `*`, and where its match would end next.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let rest = name.clone();
        match (pattern.next(), name.next()) {
            (Some('*'), _) => {
                name = rest;
                retry = Some((pattern.clone(), name.clone()));
            }
            (None, None) => return true,
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                let Some((after, end)) = &mut retry else { return false };
                if end.next().is_none() {
                    return false;
                }
                (pattern, name) = (after.clone(), end.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_speaks_of_the_whole_name() {
        for (pattern, name) in [
            ("orders", "orders"),
            ("orders-*", "orders-eu"),
            ("orders-*", "orders-"),
            ("*", "anything"),
            ("*", ""),
            ("?-*-?", "a-bc-d-e"),
            ("*a*b*", "xxaxxbxx"),
            ("a**b", "ab"),
            ("*aab", "aaaab"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("orders", "orders-eu"),
            ("orders", "my-orders"),
            ("orders-?", "orders-"),
            ("orders-?", "orders-eu"),
            ("*a*b*", "ba"),
            ("", "a"),
            ("a.c", "abc"),
            ("ORDERS", "orders"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_ends() {
        let pattern = "*a".repeat(120) + "b";
        assert!(!matches(&pattern, &"a".repeat(249)));
    }

    /// Against the definition, letter by letter.
    #[test]
    fn every_short_pattern_agrees_with_the_definition() {
        fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern, name) {
                ([], []) => true,
                ([b'*', rest @ ..], _) => {
                    (0..=name.len()).any(|taken| by_definition(rest, &name[taken..]))
                }
                ([b'?', rest @ ..], [_, name @ ..]) => by_definition(rest, name),
                ([wanted, rest @ ..], [found, name @ ..]) => {
                    wanted == found && by_definition(rest, name)
                }
                _ => false,
            }
        }
        let words = |letters: &[u8], len: u32| {
            let letters = letters.to_vec();
            (0..=len).flat_map(move |len| {
                let letters = letters.clone();
                (0..letters.len().pow(len)).map(move |mut code| {
                    let mut word = String::new();
                    for _ in 0..len {
                        word.push(char::from(letters[code % letters.len()]));
                        code /= letters.len();
                    }
                    word
                })
            })
        };
        for pattern in words(b"ab*?", 5) {
            for name in words(b"ab", 5) {
                let expected = by_definition(pattern.as_bytes(), name.as_bytes());
                assert_eq!(matches(&pattern, &name), expected, "{pattern} {name}");
            }
        }
    }

    #[test]
    fn names_need_not_exist_and_patterns_see_only_what_does() {
        let topics: Topics = [("a-1".into(), 1), ("a-2".into(), 1), ("b".into(), 1)].into();
        let interest = Interest::new(["later".into()], ["a-*".into()]);
        assert_eq!(interest.resolve(&topics), ["a-1", "a-2", "later"].into_iter().collect());
        let named: Interest = ["b"].into_iter().collect();
        assert_eq!(named.resolve(&Topics::new()), ["b"].into_iter().collect());
    }
}
