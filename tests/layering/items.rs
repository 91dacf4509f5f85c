//! Types, their fields and their methods, and what the names of a file stand for.

use std::collections::BTreeMap;

use crate::code::{Token, after_bracket, text};

/// A struct or enum and how many fields it has itself; an enum has none.
#[derive(Debug, PartialEq)]
pub(crate) struct Type {
    pub(crate) name: String,
    pub(crate) fields: usize,
}

/// The structs and enums among the tokens, in inline modules too.
pub(crate) fn types(tokens: &[Token]) -> Vec<Type> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if !matches!(token.text.as_str(), "struct" | "enum") || !is_name(text(tokens, at + 1)) {
            continue;
        }
        let name = text(tokens, at + 1).to_owned();
        let mut body = after_generics(tokens, at + 2);
        if text(tokens, body) == "where" {
            while !matches!(text(tokens, body), "{" | ";" | "") {
                body =
                    if text(tokens, body) == "<" { after_generics(tokens, body) } else { body + 1 };
            }
        }
        let fields = match (token.text.as_str(), text(tokens, body)) {
            ("struct", "{") => named_fields(tokens, body),
            ("struct", "(") => tuple_fields(tokens, body),
            _ => 0,
        };
        found.push(Type { name, fields });
    }
    found
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The position behind `<..>` at `at`, or `at` where there is none.
fn after_generics(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = at;
    loop {
        match text(tokens, at) {
            "<" => depth += 1,
            ">" if text(tokens, at.saturating_sub(1)) == "-" => {} // the arrow of a function type
            ">" => depth = depth.saturating_sub(1),
            "(" | "[" | "{" if depth > 0 => {
                at = after_bracket(tokens, at);
                continue;
            }
            "" => return at,
            _ => {}
        }
        if depth == 0 {
            return if text(tokens, at) == ">" { at + 1 } else { at };
        }
        at += 1;
    }
}

fn named_fields(tokens: &[Token], open: usize) -> usize {
    let mut fields = 0;
    let mut at = open + 1;
    while !matches!(text(tokens, at), "}" | "") {
        match text(tokens, at) {
            "(" | "[" | "{" => at = after_bracket(tokens, at),
            "<" => at = after_generics(tokens, at),
            colon => {
                fields += usize::from(colon == ":");
                at += 1;
            }
        }
    }
    fields
}

fn tuple_fields(tokens: &[Token], open: usize) -> usize {
    let mut fields = 0;
    let mut is_between = true;
    let mut at = open + 1;
    while !matches!(text(tokens, at), ")" | "") {
        let is_comma = text(tokens, at) == ",";
        fields += usize::from(is_between && !is_comma);
        is_between = is_comma;
        at = match text(tokens, at) {
            "(" | "[" | "{" => after_bracket(tokens, at),
            "<" => after_generics(tokens, at),
            _ => at + 1,
        };
    }
    fields
}

/// The inherent impl blocks among the tokens: the name of the type, and how many functions.
pub(crate) fn inherent_impls(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let previous = at.checked_sub(1).map_or("", |before| text(tokens, before));
        let is_item = matches!(previous, "" | ";" | "{" | "}" | "]" | "unsafe");
        if token.text != "impl" || !is_item {
            continue;
        }
        let mut name = String::new();
        let mut next = after_generics(tokens, at + 1);
        let is_inherent = loop {
            match text(tokens, next) {
                "<" => next = after_generics(tokens, next),
                "for" | "" => break false,
                "{" | "where" => break true,
                word => {
                    if is_name(word) {
                        word.clone_into(&mut name);
                    }
                    next += 1;
                }
            }
        };
        while is_inherent && !matches!(text(tokens, next), "{" | "") {
            next += 1;
        }
        if is_inherent {
            found.push((name, functions_within(tokens, next)));
        }
    }
    found
}

/// The functions of the block that opens at `open`, without those inside of them.
fn functions_within(tokens: &[Token], open: usize) -> usize {
    let mut functions = 0;
    let mut at = open + 1;
    while !matches!(text(tokens, at), "}" | "") {
        functions += usize::from(text(tokens, at) == "fn" && is_name(text(tokens, at + 1)));
        let opens = matches!(text(tokens, at), "(" | "[" | "{");
        at = if opens { after_bracket(tokens, at) } else { at + 1 };
    }
    functions
}

/// What the names that a file imports stand for, as paths from the root of the crate. Paths of
/// other packages are left out. `*` collects the modules whose names are all imported.
#[derive(Default)]
pub(crate) struct Bindings {
    pub(crate) names: BTreeMap<String, Vec<String>>,
    pub(crate) globs: Vec<Vec<String>>,
}

/// The bindings of a file whose module is `module`; `children` are the modules that it declares.
pub(crate) fn bindings(tokens: &[Token], module: &[String], children: &[String]) -> Bindings {
    let mut bindings = Bindings::default();
    for child in children {
        bindings.names.insert(child.clone(), [module, std::slice::from_ref(child)].concat());
    }
    let mut at = 0;
    while at < tokens.len() {
        if text(tokens, at) == "mod" && text(tokens, at + 2) == "{" {
            at = after_bracket(tokens, at + 2); // an inline module has names of its own
            continue;
        }
        let previous = at.checked_sub(1).map_or("", |before| text(tokens, before));
        let is_item = matches!(previous, "" | ";" | "{" | "}" | "]" | "pub" | ")");
        if text(tokens, at) == "use" && is_item {
            let resolve = &mut |path: &[String]| resolve_root(path, module, children);
            use_tree(tokens, at + 1, None, resolve, &mut bindings);
        }
        at += 1;
    }
    bindings
}

/// Where a path of an import begins, if that is in this crate.
fn resolve_root(path: &[String], module: &[String], children: &[String]) -> Option<Vec<String>> {
    let first = path.first()?;
    let mut base = match first.as_str() {
        "crate" => return Some(path.get(1..)?.to_vec()),
        "self" | "super" => module.to_vec(),
        child if children.iter().any(|declared| declared == child) => {
            return Some([module, path].concat());
        }
        _ => return None,
    };
    let mut rest = path;
    while let Some(first) = rest.first().filter(|first| matches!(first.as_str(), "self" | "super"))
    {
        if first == "super" {
            base.pop();
        }
        rest = rest.get(1..)?;
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// Collects what one tree of a `use` binds; returns the position after it.
fn use_tree(
    tokens: &[Token],
    at: usize,
    base: Option<&[String]>,
    resolve: &mut dyn FnMut(&[String]) -> Option<Vec<String>>,
    bindings: &mut Bindings,
) -> usize {
    let mut path = base.unwrap_or_default().to_vec();
    let mut at = at;
    loop {
        match text(tokens, at) {
            "{" => {
                at += 1;
                while !matches!(text(tokens, at), "}" | "") {
                    at = use_tree(tokens, at, Some(&path), resolve, bindings);
                    if text(tokens, at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "*" => {
                bindings.globs.extend(resolve(&path));
                return at + 1;
            }
            // In a group `self` is the module itself.
            "self" if base.is_some_and(|base| base.len() == path.len()) => at += 1,
            segment => {
                path.push(segment.to_owned());
                at += 1;
            }
        }
        if text(tokens, at) != "::" {
            break;
        }
        at += 1;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if text(tokens, at) == "as" {
        text(tokens, at + 1).clone_into(&mut name);
        at += 2;
    }
    if let Some(target) = resolve(&path) {
        bindings.names.insert(name, target);
    }
    at
}

/// The modules that a file declares, those with a body in it aside.
pub(crate) fn declared_modules(tokens: &[Token]) -> Vec<String> {
    let mut modules = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.text == "mod" && text(tokens, at + 2) == ";" {
            modules.push(text(tokens, at + 1).to_owned());
        }
    }
    modules
}

/// Every path in the code of a file that begins at a name of `bindings` or at `crate`, `self` or
/// `super`, as paths from the root of the crate.
pub(crate) fn uses(
    tokens: &[Token],
    module: &[String],
    bindings: &Bindings,
) -> Vec<(Vec<String>, usize)> {
    let mut found: Vec<(Vec<String>, usize)> = crate::code::paths(tokens, module)
        .into_iter()
        .filter(|path| path.root == crate::code::Root::Crate)
        .map(|path| (without_self(path.segments), path.line))
        .collect();
    for (at, token) in tokens.iter().enumerate() {
        let previous = at.checked_sub(1).map_or("", |before| text(tokens, before));
        let is_declared = previous == "mod" && text(tokens, at + 1) == ";";
        let Some(target) = bindings.names.get(&token.text) else { continue };
        if previous == "::" || previous == "." || is_declared || text(tokens, at + 1) != "::" {
            continue;
        }
        let mut path = target.clone();
        let mut next = at + 1;
        while text(tokens, next) == "::" && is_name(text(tokens, next + 1)) {
            path.push(text(tokens, next + 1).to_owned());
            next += 2;
        }
        found.push((path, token.line));
    }
    found
}

/// In a group `self` is the module itself.
fn without_self(mut path: Vec<String>) -> Vec<String> {
    path.pop_if(|last| last == "self");
    path
}

// ---- what is read here ---------------------------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::{bindings, inherent_impls, types, uses};
    use crate::code::tokens;

    fn fields(source: &str) -> Vec<usize> {
        types(&tokens(source)).iter().map(|found| found.fields).collect()
    }

    #[test]
    fn fields_are_counted_in_every_form() {
        assert_eq!(fields("struct S;"), [0]);
        assert_eq!(fields("pub(crate) struct S { pub(crate) a: Vec<u8>, b: u8 }"), [2]);
        assert_eq!(
            fields("struct S { a: HashMap<A, fn(b: u8) -> u8>, #[x(y: z)] b: [u8; 2] }"),
            [2]
        );
        assert_eq!(fields("struct S<T: Fn(A) -> B> where T: X<A = (B, C)> { a: T, }"), [1]);
        assert_eq!(fields("struct S(HashMap<A, B>, pub(crate) (C, D),);"), [2]);
        assert_eq!(fields("enum E { A { a: u8 }, B(u8) } struct T(u8);"), [0, 1]);
    }

    #[test]
    fn methods_are_counted_in_inherent_impls_only() {
        let count = |source: &str| inherent_impls(&tokens(source));
        assert_eq!(count("impl S { fn a(&self) { fn b() {} } pub fn c(); }"), [("S".into(), 2)]);
        assert_eq!(
            count("impl<T: Fn(A) -> B> super::S<T> where T: X { fn a() {} }"),
            [("S".into(), 1)]
        );
        assert_eq!(count("impl fmt::Debug for S { fn fmt() {} } fn f(x: impl T) -> impl U {}"), []);
        assert_eq!(count("#[a] impl<'a> S<'a> { const F: fn() = g; }"), [("S".into(), 0)]);
    }

    #[test]
    fn names_are_followed_to_what_they_stand_for() {
        let source = tokens(
            "mod engine; use engine::Engine; use super::room::{self, Want as W}; use std::io;
             fn f() { Engine::open(); room::make(); io::x(); a.room::<B>(); W::new() }",
        );
        let module = ["broker".to_owned()];
        let bindings = bindings(&source, &module, &["engine".to_owned()]);
        let found = uses(&source, &module, &bindings);
        let found: Vec<String> = found.into_iter().map(|(path, _)| path.join("::")).collect();
        assert_eq!(
            found,
            [
                "room",
                "room::Want",
                "broker::engine::Engine",
                "broker::engine::Engine::open",
                "room::make",
                "room::Want::new",
            ]
        );
    }
}
