//! Rust source as far as the layering rules need it: tokens without comments and literals, the
//! items among them that are compiled for tests only, paths, and the lengths of functions.

use std::collections::BTreeMap;

// ---- tokens --------------------------------------------------------------------------------------

/// An identifier, `::`, or one other character. Comments and literals leave nothing behind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest).unwrap_or_else(|| {
            let word = word_length(rest);
            let length = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let text = rest.get(..length).unwrap_or_default();
            if !first.is_whitespace() && !first.is_ascii_digit() {
                let text = text.strip_prefix("r#").unwrap_or(text).to_owned();
                tokens.push(Token { text, line });
            }
            length
        });
        let (taken, left) = rest.split_at_checked(length.max(1)).unwrap_or((rest, ""));
        line += taken.matches('\n').count();
        rest = left;
    }
    tokens
}

/// The length of the identifier or number at the start.
fn word_length(rest: &str) -> usize {
    let prefix = if rest.starts_with("r#") { 2 } else { 0 };
    let word = rest.get(prefix..).unwrap_or_default();
    let end = word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len());
    if end == 0 { 0 } else { prefix + end }
}

/// The length of the comment, literal or lifetime at the start, if there is one.
fn skipped(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let unprefixed = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r').filter(|_| prefix <= 1) {
        let body = raw.trim_start_matches('#');
        let hashes = raw.len() - body.len();
        if let Some(body) = body.strip_prefix('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let end = body.find(&close).map_or(body.len(), |at| at + close.len());
            return Some(rest.len() - body.len() + end);
        }
    }
    if let Some(body) = unprefixed.strip_prefix('"').filter(|_| prefix <= 1) {
        return Some(prefix + 1 + quoted(body, '"'));
    }
    if let Some(body) = unprefixed.strip_prefix('\'').filter(|_| prefix <= 1) {
        let mut characters = body.chars();
        let is_literal = characters.next() == Some('\\') || characters.next() == Some('\'');
        let length = if is_literal { quoted(body, '\'') } else { word_length(body) };
        return Some(prefix + 1 + length);
    }
    None
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(left) = rest.get(at..).filter(|left| !left.is_empty()) {
        if left.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if left.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += left.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length up to and with the closing quote.
fn quoted(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in body.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == quote {
            return at + 1;
        }
    }
    body.len()
}

pub(crate) fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

/// The position after the bracket that closes the one at `open`.
pub(crate) fn after_bracket(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

// ---- what is compiled for tests only --------------------------------------------------------------

/// The tokens without the items under `#[cfg(test)]`, and the names of the modules among them.
pub(crate) fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let mut kept = Vec::new();
    let mut modules = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if !is_test_attribute(tokens, at) {
            kept.push(token.clone());
            at += 1;
            continue;
        }
        at = after_bracket(tokens, at + 1);
        while text(tokens, at) == "#" {
            at = after_bracket(tokens, at + 1);
        }
        let item = tokens.get(at..).unwrap_or_default();
        let length = item_length(item);
        let declared = item.iter().take(length).skip_while(|token| token.text != "mod").nth(1);
        modules.extend(declared.map(|token| token.text.clone()));
        at += length;
    }
    (kept, modules)
}

/// `#[cfg(test)]` and `#[cfg(all(test, ..))]`; neither `not(test)` nor `any(test, ..)`.
fn is_test_attribute(tokens: &[Token], at: usize) -> bool {
    if (text(tokens, at), text(tokens, at + 1), text(tokens, at + 2)) != ("#", "[", "cfg") {
        return false;
    }
    let end = after_bracket(tokens, at + 1);
    let attribute = tokens.get(at..end).unwrap_or_default();
    let has = |word: &str| attribute.iter().any(|token| token.text == word);
    has("test") && !has("not") && !has("any")
}

/// How many tokens belong to the item, field or arm at the start.
fn item_length(tokens: &[Token]) -> usize {
    const ITEMS: &[&str] = &[
        "fn",
        "mod",
        "use",
        "impl",
        "struct",
        "enum",
        "const",
        "static",
        "trait",
        "type",
        "async",
        "unsafe",
        "extern",
        "macro_rules",
        "let",
    ];
    let mut start = 0;
    if text(tokens, start) == "pub" {
        start += 1;
        if text(tokens, start) == "(" {
            start = after_bracket(tokens, start);
        }
    }
    let keyword = text(tokens, start);
    let ends_with_semicolon = ["use", "const", "static", "type", "let"].contains(&keyword)
        && text(tokens, start + 1) != "fn";
    let mut at = start;
    while at < tokens.len() {
        match text(tokens, at) {
            ";" => return at + 1,
            "," if !ITEMS.contains(&keyword) => return at + 1,
            ")" | "]" | "}" => return at, // the parent's
            "{" if !ends_with_semicolon => return after_bracket(tokens, at),
            "(" | "[" | "{" => at = after_bracket(tokens, at),
            _ => at += 1,
        }
    }
    at
}

// ---- paths ----------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Root {
    /// `crate::`, `self::` and `super::`; the segments begin at the root of this crate.
    Crate,
    /// Another package; the segments begin with its name.
    Package,
}

#[derive(Debug)]
pub(crate) struct ImportPath {
    pub(crate) root: Root,
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// Every path through `crate`, `self`, `super` or `std`, in imports and in expressions.
pub(crate) fn paths(tokens: &[Token], file_module: &[String]) -> Vec<ImportPath> {
    let mut found = Vec::new();
    let mut module = file_module.to_vec();
    let mut open_braces: Vec<bool> = Vec::new(); // true: the brace of an inline module
    for (at, token) in tokens.iter().enumerate() {
        let previous = at.checked_sub(1).map_or("", |before| text(tokens, before));
        match token.text.as_str() {
            "{" => {
                let is_module =
                    at.checked_sub(2).is_some_and(|before| text(tokens, before) == "mod");
                if is_module {
                    module.push(previous.to_owned());
                }
                open_braces.push(is_module);
            }
            "}" => {
                let closes_module = open_braces.pop().unwrap_or_default();
                module.truncate(module.len() - usize::from(closes_module));
            }
            "crate" | "self" | "super" | "std"
                if previous != "::" && text(tokens, at + 1) == "::" =>
            {
                let (root, base, next) = root_of(tokens, at, &module);
                let mut trees = Vec::new();
                tree(tokens, next, &base, &mut trees);
                let line = token.line;
                found.extend(trees.into_iter().map(|segments| ImportPath { root, segments, line }));
            }
            _ => {}
        }
    }
    found
}

/// Where the path at `at` begins, and the position of its first free segment.
fn root_of(tokens: &[Token], at: usize, module: &[String]) -> (Root, Vec<String>, usize) {
    let mut base = match text(tokens, at) {
        "std" => return (Root::Package, vec!["std".to_owned()], at + 2),
        "crate" => return (Root::Crate, Vec::new(), at + 2),
        _ => module.to_vec(),
    };
    let mut next = at;
    while matches!(text(tokens, next), "self" | "super") && text(tokens, next + 1) == "::" {
        if text(tokens, next) == "super" {
            base.pop();
        }
        next += 2;
    }
    (Root::Crate, base, next)
}

/// Collects the paths of a use tree; returns the position after it.
fn tree(tokens: &[Token], at: usize, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = base.to_vec();
    let mut at = at;
    loop {
        match text(tokens, at) {
            "{" => {
                at += 1;
                while !matches!(text(tokens, at), "}" | "") {
                    let before = at;
                    at = tree(tokens, at, &path, found);
                    while text(tokens, at) == "as" {
                        at += 2;
                    }
                    if text(tokens, at) == "," || at == before {
                        at += 1;
                    }
                }
                return at + 1;
            }
            segment
                if segment.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '*') =>
            {
                path.push(segment.to_owned());
                at += 1;
            }
            _ => break,
        }
        if text(tokens, at) != "::" {
            break;
        }
        at += 1;
    }
    found.push(path);
    at
}

/// What lib.rs offers at the root of the crate: name, and the room it comes from.
pub(crate) fn re_exports(lib: &[Token]) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (at, token) in lib.iter().enumerate() {
        let visible =
            at.checked_sub(1).is_some_and(|before| matches!(text(lib, before), "pub" | ")"));
        if token.text != "use" || !visible {
            continue;
        }
        let start = if text(lib, at + 2) == "::" && matches!(text(lib, at + 1), "crate" | "self") {
            at + 3
        } else {
            at + 1
        };
        let mut trees = Vec::new();
        tree(lib, start, &[], &mut trees);
        for path in trees {
            if let (Some(room), Some(name)) = (path.first(), path.last()) {
                names.insert(name.clone(), room.clone());
            }
        }
    }
    names
}

/// Name, first line and number of lines of every function with a body.
pub(crate) fn functions(tokens: &[Token]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let name = text(tokens, at + 1);
        if token.text != "fn" || !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            continue;
        }
        let mut next = at + 2;
        while !matches!(text(tokens, next), "{" | ";" | "") {
            let bracket = matches!(text(tokens, next), "(" | "[");
            next = if bracket { after_bracket(tokens, next) } else { next + 1 };
        }
        if text(tokens, next) == "{" {
            let last = tokens.get(after_bracket(tokens, next) - 1).map_or(token.line, |t| t.line);
            found.push((name.to_owned(), token.line, last - token.line + 1));
        }
    }
    found
}
