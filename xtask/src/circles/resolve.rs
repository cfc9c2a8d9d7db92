//! Finds the file that defines a name, through re-exports.

use std::{collections::BTreeSet, path::PathBuf};

use super::module_tree::ModuleTree;

/// Longest chain of re-exports to follow. It also ends the search where a crate is imported under its own name, as by
/// `use kube::{self, Api}`.
const MAX_DEPTH: u32 = 16;

/// What a path leads to.
enum Resolved {
    /// An item that this module defines.
    Item { module: usize, name: String },
    /// A module itself.
    Module(usize),
    /// Another crate, a local variable or a type parameter.
    OutsideTheCrate,
}

/// All imports of a crate: the file that imports, the file that defines the name, and the name.
pub(super) fn imports(tree: &ModuleTree) -> BTreeSet<(PathBuf, PathBuf, String)> {
    let mut imports = BTreeSet::new();
    for (index, module) in tree.modules.iter().enumerate() {
        let names = &module.names;
        let paths = names.imported.iter().map(|(_, path)| path).chain(&names.used).chain(&names.globs);
        let mut found: Vec<_> = paths.map(|path| tree.resolve(index, path, 0)).collect();
        found.extend(names.globs.iter().flat_map(|glob| tree.names_behind(index, glob)));
        for resolved in found {
            if let Resolved::Item { module: definer, name } = resolved {
                imports.insert((module.file.clone(), tree.modules[definer].file.clone(), name));
            }
        }
    }
    imports.retain(|(file, definer, _)| file != definer);
    imports
}

impl ModuleTree {
    fn resolve(&self, from: usize, path: &[String], depth: u32) -> Resolved {
        let Some((first, rest)) = path.split_first() else { return Resolved::Module(from) };
        match first.as_str() {
            _ if depth > MAX_DEPTH => Resolved::OutsideTheCrate,
            "crate" => self.descend(0, rest, depth),
            "self" | "super" => self.descend(from, path, depth),
            name => self.look_up(from, name, rest, depth).unwrap_or(Resolved::OutsideTheCrate),
        }
    }

    /// Follows a path from a module on that belongs to the crate.
    fn descend(&self, module: usize, path: &[String], depth: u32) -> Resolved {
        let Some((first, rest)) = path.split_first() else { return Resolved::Module(module) };
        match first.as_str() {
            "self" => self.descend(module, rest, depth),
            "super" => self.descend(self.modules[module].parent.unwrap_or(0), rest, depth),
            // A name that is not found was defined by a macro.
            name => self
                .look_up(module, name, rest, depth)
                .unwrap_or_else(|| Resolved::Item { module, name: name.to_owned() }),
        }
    }

    /// Finds a name in a module. Where an item and a module have the same name, `rest` tells them apart: only a module has
    /// names below it.
    fn look_up(&self, module: usize, name: &str, rest: &[String], depth: u32) -> Option<Resolved> {
        let found = &self.modules[module];
        let item = || {
            let is_defined = found.names.defined.contains(name);
            is_defined.then(|| Resolved::Item { module, name: name.to_owned() })
        };
        let child = || found.children.get(name).map(|child| self.descend(*child, rest, depth));
        let import = || self.import(module, name, rest, depth);
        let glob = || self.glob(module, name, rest, depth);
        if rest.is_empty() {
            item().or_else(import).or_else(child).or_else(glob)
        } else {
            child().or_else(import).or_else(item).or_else(glob)
        }
    }

    fn import(&self, module: usize, name: &str, rest: &[String], depth: u32) -> Option<Resolved> {
        let mut imported = self.modules[module].names.imported.iter();
        let (_, path) = imported.find(|(imported, _)| imported == name)?;
        Some(self.resolve(module, &[path, rest].concat(), depth + 1))
    }

    fn glob(&self, module: usize, name: &str, rest: &[String], depth: u32) -> Option<Resolved> {
        let mut globs = self.modules[module].names.globs.iter();
        globs.find_map(|glob| match self.resolve(module, glob, depth + 1) {
            Resolved::Module(source) if depth < MAX_DEPTH => self.look_up(source, name, rest, depth + 1),
            _ => None,
        })
    }

    /// Everything that `use glob::*` may import.
    fn names_behind(&self, module: usize, glob: &[String]) -> Vec<Resolved> {
        let Resolved::Module(source) = self.resolve(module, glob, 0) else { return Vec::new() };
        let names = &self.modules[source].names;
        let names = names.defined.iter().chain(names.imported.iter().map(|(name, _)| name));
        names.map(|name| self.descend(source, std::slice::from_ref(name), 0)).collect()
    }
}
