//! Small crates, each with or without a circle.

use std::{fs, path::Path};

use super::{check::read, graph::ImportGraph};

/// Imports of a crate that consists of these files.
fn graph(files: &[(&str, &str)]) -> ImportGraph {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let (graph, read) = read(&[folder.path().join("lib.rs")]).unwrap();
    assert_eq!(read.len(), files.len(), "{read:?}");
    graph
}

/// The circles of a crate, each step as `file -> file: names`.
fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let name = |path: &Path| {
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        let below_folder = parts.iter().position(|part| part.starts_with(".tmp")).unwrap() + 1;
        parts[below_folder..].join("/")
    };
    let circles = graph(files).circles();
    let steps = circles.iter().map(|circle| {
        circle.steps.iter().map(|step| {
            let names: Vec<_> = step.names.iter().cloned().collect();
            format!("{} -> {}: {}", name(&step.file), name(&step.definer), names.join(" "))
        })
    });
    steps.map(Iterator::collect).collect()
}

#[test]
fn two_files_that_import_each_other_are_a_circle() {
    let found = circles(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B; pub struct A; pub const N: u8 = 1;"),
        ("b.rs", "use super::a::A; pub struct B; fn n() -> u8 { crate::a::N }"),
    ]);
    assert_eq!(found, [["a.rs -> b.rs: B", "b.rs -> a.rs: A N"]]);
}

#[test]
fn imports_in_braces_and_renamed_imports_count() {
    let found = circles(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::{b::{self, B as Renamed}, c}; fn f() { b::g(); c::h() } pub struct A;"),
        ("b.rs", "use crate::{c::{C}}; pub struct B; pub fn g() {}"),
        ("c.rs", "use {super::{a::A}}; pub struct C; pub fn h() {}"),
    ]);
    assert_eq!(found, [["a.rs -> c.rs: h", "c.rs -> a.rs: A"]]);
    let graph = graph(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::{self, B as Renamed}; fn f() { b::g() }"),
        ("b.rs", "pub struct B; pub fn g() {}"),
    ]);
    assert_eq!(graph.imports(), 2);
}

#[test]
fn paths_in_macros_types_and_attributes_count() {
    for user in [
        "fn f() { println!(\"{}\", crate::b::N) }",
        "fn f() -> Option<crate::b::B> { None }",
        "#[serde(default = \"super::b::make\")] struct S;",
        "impl crate::b::T for u8 {}",
        "use crate::b; fn f() { b::make() }",
        "fn f() { use crate::b::make; make() }",
        "use crate::b::*;",
    ] {
        let a = format!("pub struct A; {user}");
        let b = "use crate::a::A; pub const N: u8 = 1; pub struct B; pub trait T {} pub fn make() {}";
        let found = circles(&[("lib.rs", "mod a; mod b;"), ("a.rs", &a), ("b.rs", b)]);
        assert_eq!(found.len(), 1, "{user}");
    }
}

#[test]
fn a_module_that_only_reexports_is_in_no_circle() {
    let found = circles(&[
        ("lib.rs", "mod inner; pub use inner::{A, run}; mod outer;"),
        ("inner/mod.rs", "mod a; mod b; mod run; pub use a::A; pub(crate) use b::*; pub use run::run;"),
        ("inner/a.rs", "pub struct A;"),
        ("inner/b.rs", "use super::A; use crate::A as Same; pub struct B;"),
        ("inner/run.rs", "use super::{A, B}; pub fn run() {}"),
        ("outer.rs", "use crate::{inner::{self, B}, run}; fn f() { inner::run() }"),
    ]);
    assert_eq!(found, [] as [Vec<String>; 0]);
}

#[test]
fn a_circle_through_a_reexport_names_the_defining_files() {
    let found = circles(&[
        ("lib.rs", "mod a; mod b; pub use a::Options;"),
        ("a.rs", "use crate::b; pub struct Options; fn f() { b::start() }"),
        ("b.rs", "use crate::Options; pub fn start() {}"),
    ]);
    assert_eq!(found, [["a.rs -> b.rs: start", "b.rs -> a.rs: Options"]]);
}

#[test]
fn a_parent_that_defines_what_its_child_imports_is_in_a_circle() {
    let found = circles(&[
        ("lib.rs", "mod parent;"),
        ("parent/mod.rs", "mod child; pub struct Settings; pub fn f() { child::run() }"),
        ("parent/child.rs", "use super::Settings; pub fn run() {}"),
    ]);
    assert_eq!(found, [["parent/child.rs -> parent/mod.rs: Settings", "parent/mod.rs -> parent/child.rs: run"]]);
}

#[test]
fn a_parent_that_imports_nothing_from_its_child_is_in_no_circle() {
    let found = circles(&[
        ("lib.rs", "mod parent;"),
        ("parent.rs", "mod child; pub struct Settings;"),
        ("parent/child.rs", "use super::Settings;"),
    ]);
    assert_eq!(found, [] as [Vec<String>; 0]);
}

#[test]
fn tests_and_other_crates_do_not_count() {
    let found = circles(&[
        ("lib.rs", "mod a; mod b; #[cfg(test)] mod tests;"),
        ("a.rs", "use std::fmt; use kube::{self, b::B}; pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
        ("b.rs", "use crate::a::A; pub struct B; impl fmt::Debug for B {}"),
    ]);
    assert_eq!(found, [] as [Vec<String>; 0]);
}

#[test]
fn inline_modules_belong_to_their_file() {
    let found = circles(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub mod inside { use super::super::b::B; use super::Outside; pub struct A; } pub struct Outside;"),
        ("b.rs", "use crate::a::inside::A; pub struct B;"),
    ]);
    assert_eq!(found, [["a.rs -> b.rs: B", "b.rs -> a.rs: A"]]);
}

#[test]
fn a_longer_circle_names_the_files_that_are_tied_into_it() {
    let circles = graph(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "use crate::{a::A, c::C}; pub struct B;"),
        ("c.rs", "use crate::a::A; pub struct C;"),
    ])
    .circles();
    assert_eq!(circles.len(), 1);
    assert_eq!(circles[0].steps.len(), 2);
    assert!(circles[0].other_files[0].ends_with("c.rs"), "{circles:?}");
}
