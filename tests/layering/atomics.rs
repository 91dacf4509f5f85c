//! Each atomic says who writes it, who reads it, and what its ordering is for.
//!
//! Above each field that is an atomic, above the field before it of the same group (without a
//! comment between them), or above its type stands a comment with `ORDERING:`.

use std::collections::BTreeSet;

use crate::code::without_tests;
use crate::sources::{Sources, assert_none, is_test_module, module_path, sources};

#[test]
fn each_atomic_says_what_its_ordering_is_for() {
    assert_none(&violations(&Sources::read("src").unwrap()));
}

fn violations(sources: &Sources) -> Vec<String> {
    let test_modules = sources.test_modules();
    let mut violations = Vec::new();
    for (name, file) in &sources.files {
        if name.starts_with("sync") || is_test_module(&module_path(name), &test_modules) {
            continue; // what stands in for OnceLock in a model has no ordering of its own
        }
        let tokens = without_tests(&file.tokens).0;
        let is_atomic = |text: &str| text.starts_with("Atomic");
        let lines: BTreeSet<usize> =
            tokens.iter().filter(|token| is_atomic(&token.text)).map(|token| token.line).collect();
        let text: Vec<&str> = file.text.lines().collect();
        for line in lines {
            let declared = text.get(line - 1).copied().unwrap_or_default();
            if is_declaration(declared) && !says_so(&text, line - 1) {
                violations.push(format!("{name}:{line}: no `ORDERING:` at `{}`", declared.trim()));
            }
        }
    }
    violations
}

/// Whether a line declares a field of a type, or a type around an atomic.
fn is_declaration(line: &str) -> bool {
    let line = line.trim();
    let is_code = line.contains("::") || line.contains("fn ") || line.contains('&');
    let is_struct = line.contains("struct ") && line.ends_with(");");
    !is_code && (is_struct || line.ends_with(',') && line.contains(": "))
}

/// Whether a comment with `ORDERING:` stands above a declaration, its group or its type.
fn says_so(text: &[&str], at: usize) -> bool {
    let above: Vec<&str> = text.iter().take(at).rev().map(|line| line.trim()).collect();
    let is_comment = |line: &&str| line.starts_with("//") || line.starts_with("#[");
    let is_open = |line: &&str| line.contains("struct ") && line.ends_with('{');
    let group = above.iter().position(|line| is_comment(line) || is_open(line)).unwrap_or(0);
    let of_type = above.iter().position(is_open).map_or(above.len(), |open| open + 1);
    let says = |from: usize| {
        let comment = above.iter().skip(from).take_while(|line| is_comment(line));
        comment.into_iter().any(|line| line.contains("ORDERING:"))
    };
    says(0) || says(group) || says(of_type)
}

// ---- the rule can fail --------------------------------------------------------------------------

fn found_in(text: &str) -> usize {
    violations(&sources(&[("log.rs", text)])).len()
}

#[test]
fn an_atomic_without_a_reason_is_found() {
    assert_eq!(found_in("struct S {\n    end: AtomicU64,\n}"), 1);
    assert_eq!(found_in("struct S {\n    /// The end.\n    pub(crate) end: Arc<AtomicU64>,\n}"), 1);
    assert_eq!(found_in("/// A hint.\nstruct S(CachePadded<AtomicUsize>);"), 1);
    let other = "struct S {\n    /// ORDERING: Relaxed.\n    a: AtomicU64,\n    /// B.\n    b: AtomicU64,\n}";
    assert_eq!(found_in(other), 1);
}

#[test]
fn a_reason_is_found_at_the_field_its_group_and_its_type() {
    for text in [
        "struct S {\n    /// ORDERING: Relaxed.\n    end: AtomicU64,\n}",
        "struct S {\n    /// ORDERING: Relaxed.\n    a: AtomicU64,\n    b: AtomicU64,\n}",
        "/// ORDERING: Relaxed.\n#[derive(Debug)]\nstruct S {\n    a: AtomicU64,\n}",
        "/// ORDERING: Relaxed.\nstruct S(AtomicU64);",
        "fn f() {\n    let a = AtomicU64::new(0);\n    g(S { a: AtomicU64::new(0), b });\n}",
        "#[cfg(test)]\nmod tests {\n    struct S {\n        a: AtomicU64,\n    }\n}",
    ] {
        assert_eq!(found_in(text), 0, "{text}");
    }
}
