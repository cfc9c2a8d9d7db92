//! The modules of a crate, read from its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use syn::{Expr, ExprLit, Item, ItemMod, Lit, Meta};

use super::names::{Names, is_for_tests};

/// The modules of one crate. The first is the crate's root.
#[derive(Default)]
pub(super) struct ModuleTree {
    pub(super) modules: Vec<Module>,
}

/// A module: a file, or an inline module in a file.
pub(super) struct Module {
    /// The file that it is in.
    pub(super) file: PathBuf,
    /// Index of its parent; `None` for the crate's root.
    pub(super) parent: Option<usize>,
    /// Indices of its child modules, by name.
    pub(super) children: BTreeMap<String, usize>,
    /// The names in it.
    pub(super) names: Names,
}

/// Where a module's text is, and where the files of its children are.
#[derive(Clone, Copy)]
struct ModulePlace<'a> {
    file: &'a Path,
    folder: &'a Path,
}

impl ModuleTree {
    /// Reads a crate, from its root file on, without its test modules.
    pub(super) fn read(crate_root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let folder = crate_root.parent().unwrap_or(Path::new(""));
        tree.add_file(ModulePlace { file: crate_root, folder }, None)?;
        Ok(tree)
    }

    fn add_file(&mut self, place: ModulePlace<'_>, parent: Option<usize>) -> Result<usize> {
        let text = fs::read_to_string(place.file).with_context(|| format!("read {}", place.file.display()))?;
        let items = syn::parse_file(&text).with_context(|| format!("parse {}", place.file.display()))?.items;
        self.add_module(&items, place, parent)
    }

    fn add_module(&mut self, items: &[Item], place: ModulePlace<'_>, parent: Option<usize>) -> Result<usize> {
        let index = self.modules.len();
        let (file, names) = (place.file.to_owned(), Names::of(items));
        self.modules.push(Module { file, parent, children: BTreeMap::new(), names });
        for item in items {
            if let Item::Mod(child) = item
                && !is_for_tests(&child.attrs)
            {
                let child_index = self.add_child(child, place, index)?;
                self.modules[index].children.insert(child.ident.to_string(), child_index);
            }
        }
        Ok(index)
    }

    fn add_child(&mut self, child: &ItemMod, place: ModulePlace<'_>, parent: usize) -> Result<usize> {
        let name = child.ident.to_string();
        let folder = place.folder.join(&name);
        match &child.content {
            Some((_, items)) => self.add_module(items, ModulePlace { file: place.file, folder: &folder }, Some(parent)),
            None => {
                let file = child_file(child, place, &name)?;
                let owns_its_folder = file.file_name().is_some_and(|name| name == "mod.rs");
                let folder = if owns_its_folder { file.parent().unwrap_or(&folder) } else { &folder };
                self.add_file(ModulePlace { file: &file, folder }, Some(parent))
            }
        }
    }
}

/// The files of a crate, without its test modules.
pub(crate) fn source_files(crate_root: &Path) -> Result<BTreeSet<PathBuf>> {
    Ok(ModuleTree::read(crate_root)?.modules.into_iter().map(|module| module.file).collect())
}

/// The file that `mod name;` stands for.
fn child_file(child: &ItemMod, place: ModulePlace<'_>, name: &str) -> Result<PathBuf> {
    let given = child.attrs.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("path") => match &meta.value {
            Expr::Lit(ExprLit { lit: Lit::Str(path), .. }) => Some(path.value()),
            _ => None,
        },
        _ => None,
    });
    if let Some(path) = given {
        return Ok(place.file.parent().unwrap_or(Path::new("")).join(path));
    }
    let candidates = [place.folder.join(format!("{name}.rs")), place.folder.join(name).join("mod.rs")];
    match candidates.into_iter().find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("{}: there is no file for `mod {name};`", place.file.display()),
    }
}
