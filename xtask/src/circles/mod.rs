//! `cargo xtask circles`: fails when files of a crate import each other in a circle.
//!
//! A file imports another when it names an item that the other file defines: in `use`, or by a path in an expression, a
//! type, a macro or an attribute. A name is resolved through re-exports to the file that defines it, so a `mod.rs` or
//! `lib.rs` that only declares modules and re-exports their items takes part in no circle; one that also defines what its
//! children import does. Tests do not count.

mod check;
mod graph;
mod module_tree;
mod names;
mod resolve;
#[cfg(test)]
mod tests;
mod workspace;

pub(crate) use check::check;
pub(crate) use module_tree::source_files;
pub(crate) use names::is_for_tests;
pub(crate) use workspace::crate_roots;
