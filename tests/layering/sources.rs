//! The files of a folder with their tokens, and the modules they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::code::{Token, tokens, without_tests};

pub(crate) fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n  {}\n", violations.join("\n  "));
}

pub(crate) fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files by their path below a root, with `/` between the parts.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) files: BTreeMap<String, SourceFile>,
}

pub(crate) struct SourceFile {
    pub(crate) text: String,
    pub(crate) lines: usize,
    pub(crate) tokens: Vec<Token>,
}

impl Sources {
    pub(crate) fn read(root: &str) -> io::Result<Self> {
        let mut sources = Self::default();
        for (name, text) in texts(root, &["rs"])? {
            sources.add(&name, &text);
        }
        Ok(sources)
    }

    pub(crate) fn add(&mut self, name: &str, text: &str) {
        let lines = text.lines().count();
        let file = SourceFile { text: text.to_owned(), lines, tokens: tokens(text) };
        self.files.insert(name.to_owned(), file);
    }

    /// The files whose code, tests aside, names a package.
    pub(crate) fn naming(&self, package: &str) -> Vec<&str> {
        let names = |file: &SourceFile| {
            without_tests(&file.tokens).0.iter().any(|token| token.text == package)
        };
        let files = self.files.iter().filter(|(_, file)| names(file));
        files.map(|(name, _)| name.as_str()).collect()
    }

    /// The paths of all modules that are declared under `#[cfg(test)]`.
    pub(crate) fn test_modules(&self) -> BTreeSet<Vec<String>> {
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

/// The files below a folder that end in one of `extensions`: name and text.
pub(crate) fn texts(root: &str, extensions: &[&str]) -> io::Result<Vec<(String, String)>> {
    let root = manifest_dir().join(root);
    let mut texts = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir)? {
            let path: PathBuf = entry?.path();
            let extension = path.extension().unwrap_or_default().to_string_lossy();
            if path.ends_with("target") {
                continue; // what a package of its own has built
            }
            if path.is_dir() {
                pending.push(path);
            } else if extensions.contains(&&*extension) {
                let name = path.strip_prefix(&root).unwrap_or(&path);
                let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
                texts.push((parts.join("/"), fs::read_to_string(&path)?));
            }
        }
    }
    Ok(texts)
}

/// `log/segment.rs` and `log/segment/mod.rs` are the module `["log", "segment"]`.
pub(crate) fn module_path(name: &str) -> Vec<String> {
    let name = name.strip_suffix(".rs").unwrap_or(name);
    let mut module: Vec<String> = name.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

pub(crate) fn is_test_module(module: &[String], declared: &BTreeSet<Vec<String>>) -> bool {
    let within = |parent: &Vec<String>| module.starts_with(parent);
    module.iter().any(|part| part == "tests") || declared.iter().any(within)
}

/// Sources that a test has made up.
pub(crate) fn sources(files: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::default();
    for (name, text) in files {
        sources.add(name, text);
    }
    sources
}
