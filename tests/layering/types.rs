//! A type can be understood without its neighbours: it has at most [`METHODS_MAX`] inherent
//! methods and [`FIELDS_MAX`] fields, and its inherent impl lies in the file that defines it.
//!
//! `tables/types.txt` lists what is above: `room::Type.methods`, `.fields`, and `.files` for the
//! further files with inherent impls. `tables/data.txt` lists plain data (settings, reports,
//! metrics, headers), the fields of which are names of values and no state.

use std::collections::{BTreeMap, BTreeSet};

use crate::circles::Names;
use crate::items::{inherent_impls, types};
use crate::sources::{Sources, module_path, sources};
use crate::tables::{self, Counts};

const METHODS_MAX: usize = 30;
const FIELDS_MAX: usize = 10;

const TABLE: &str = "types.txt";
const PLAIN_DATA: &str = "data.txt";

#[test]
fn types_can_be_understood_without_their_neighbours() {
    let (state, data) = above(&Sources::read("src").unwrap(), &tables::read(PLAIN_DATA));
    tables::assert_within(TABLE, &state);
    tables::assert_within(PLAIN_DATA, &data);
}

/// What is above the limits, for types with a state of their own, and for plain data.
fn above(sources: &Sources, plain_data: &str) -> (Counts, Counts) {
    let plain_data = tables::numbers(plain_data);
    let (mut state, mut data) = (Counts::new(), Counts::new());
    for (key, shape) in shapes(sources) {
        let fields = format!("{key}.fields");
        if shape.fields > FIELDS_MAX {
            let counts =
                if plain_data.contains_key(fields.as_str()) { &mut data } else { &mut state };
            counts.insert(fields, shape.fields);
        }
        if shape.methods > METHODS_MAX {
            state.insert(format!("{key}.methods"), shape.methods);
        }
        let further = shape.impls.difference(&shape.homes).count();
        if further > 0 {
            state.insert(format!("{key}.files"), further);
        }
    }
    (state, data)
}

/// A type of a room; types of one name in a room share what is here.
#[derive(Default)]
struct Shape {
    fields: usize,
    methods: usize,
    /// The files that define it, and those with inherent impls.
    homes: BTreeSet<String>,
    impls: BTreeSet<String>,
}

/// Every type by its room and name, such as `broker::Engine`.
fn shapes(sources: &Sources) -> BTreeMap<String, Shape> {
    let names = Names::new(sources);
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    let key = |file: &str, name: &str| {
        let room = module_path(file).into_iter().next().unwrap_or_default();
        format!("{room}::{name}")
    };
    let mut methods: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (file, tokens) in &names.tokens {
        for found in types(tokens) {
            let shape = shapes.entry(key(file, &found.name)).or_default();
            shape.fields = shape.fields.max(found.fields);
            shape.homes.insert(file.clone());
        }
        for (name, count) in inherent_impls(tokens) {
            let imported = names.bindings.get(file).and_then(|bindings| bindings.names.get(&name));
            let home = imported.and_then(|path| names.file_of(path)).unwrap_or(file);
            *methods.entry((home.to_owned(), name.clone())).or_default() += count;
            shapes.entry(key(home, &name)).or_default().impls.insert(file.clone());
        }
    }
    for ((home, name), count) in methods {
        let shape = shapes.entry(key(&home, &name)).or_default();
        shape.methods = shape.methods.max(count);
    }
    shapes
}

// ---- the rule can fail --------------------------------------------------------------------------

#[cfg(test)]
fn keys(files: &[(&str, &str)], plain_data: &str) -> (Vec<String>, Vec<String>) {
    let (state, data) = above(&sources(files), plain_data);
    (state.into_keys().collect(), data.into_keys().collect())
}

#[cfg(test)]
fn type_of(fields: usize, methods: usize) -> String {
    let field = |at| format!("f{at}: HashMap<u8, u8>, ");
    let method = |at| format!("fn m{at}(&self) {{ fn inner() {{}} }} ");
    let fields: String = (0..fields).map(field).collect();
    let methods: String = (0..methods).map(method).collect();
    format!("struct S {{ {fields} }} impl S {{ {methods} }}")
}

#[test]
fn too_many_fields_and_methods_are_found() {
    let found = |fields, methods| keys(&[("log/a.rs", &type_of(fields, methods))], "").0;
    assert_eq!(found(FIELDS_MAX, METHODS_MAX).len(), 0);
    assert_eq!(found(FIELDS_MAX + 1, METHODS_MAX), ["log::S.fields"]);
    assert_eq!(found(FIELDS_MAX, METHODS_MAX + 1), ["log::S.methods"]);
}

#[test]
fn methods_count_over_all_impls_and_tests_do_not() {
    let half = |from: usize| -> String {
        let methods: Vec<_> = (from..from + 16).map(|at| format!("fn m{at}() {{}}")).collect();
        methods.join(" ")
    };
    let engine = format!("struct S; impl S {{ {} }} impl S {{ fn x() {{}} }}", half(0));
    let more = format!("use super::S; impl S {{ {} }}", half(16));
    let (found, _) = keys(&[("log/mod.rs", &engine), ("log/more.rs", &more)], "");
    assert_eq!(found, ["log::S.files", "log::S.methods"]);
    let test = format!("#[cfg(test)] impl super::S {{ {} }}", half(16));
    let (found, _) = keys(&[("log/mod.rs", &engine), ("log/more.rs", &test)], "");
    assert_eq!(found.len(), 0);
}

#[test]
fn an_impl_outside_of_the_defining_file_is_found() {
    let found = |text| keys(&[("log/mod.rs", "struct S;"), ("log/a.rs", text)], "").0;
    assert_eq!(found("use super::S; impl S {}"), ["log::S.files"]);
    assert_eq!(found("use crate::log::S as T; impl fmt::Debug for T {}").len(), 0);
    assert_eq!(found("struct S; impl S {}").len(), 0, "a type of the same name");
}

#[test]
fn fields_of_plain_data_are_listed_apart() {
    let files = [("log/a.rs", type_of(12, 0)), ("log/b.rs", type_of(12, 31).replace('S', "T"))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let (state, data) = keys(&files, "log::S.fields  12\nlog::T.fields  12\n");
    assert_eq!(state, ["log::T.methods"], "methods are always counted");
    assert_eq!(data, ["log::S.fields", "log::T.fields"]);
}
