//! The names in a module: those that it defines, those that it imports, and the paths that it uses.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Expr, ExprLit, ImplItemFn, Item, ItemMod, ItemUse, Lit, Macro, Meta, Path, UseTree,
    visit::{self, Visit},
};

/// The segments of a path, such as `crate`, `lifecycle`, `decide`.
pub(super) type Segments = Vec<String>;

/// The names in one module, without those in its child modules and in its tests.
#[derive(Default)]
pub(super) struct Names {
    /// Items that the module defines.
    pub(super) defined: BTreeSet<String>,
    /// Names that `use` brings into the module, with their paths.
    pub(super) imported: BTreeSet<(String, Segments)>,
    /// Paths of modules or enums in `use path::*`.
    pub(super) globs: BTreeSet<Segments>,
    /// Paths of at least two segments elsewhere: in expressions, types, patterns, macros and attributes.
    pub(super) used: BTreeSet<Segments>,
}

impl Names {
    pub(super) fn of(items: &[Item]) -> Self {
        let mut names = Self::default();
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            names.defined.extend(defined_name(item));
            names.visit_item(item);
        }
        names
    }

    fn add_use(&mut self, tree: &UseTree, prefix: &mut Segments) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_use(&path.tree, prefix);
                prefix.pop();
            }
            UseTree::Name(name) => self.add_import(&name.ident.to_string(), None, prefix),
            UseTree::Rename(name) => {
                self.add_import(&name.ident.to_string(), Some(name.rename.to_string()), prefix);
            }
            UseTree::Glob(_) => {
                self.globs.insert(prefix.clone());
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, prefix)),
        }
    }

    fn add_import(&mut self, name: &str, rename: Option<String>, prefix: &Segments) {
        let mut path = prefix.clone();
        // `use a::{self}` imports `a`.
        if name != "self" || path.is_empty() {
            path.push(name.to_owned());
        }
        let name = rename.or_else(|| path.last().cloned()).unwrap_or_default();
        self.imported.insert((name, path));
    }

    fn add_used(&mut self, path: Segments) {
        if path.len() > 1 {
            self.used.insert(path);
        }
    }

    /// Finds paths in tokens that are not parsed, such as the arguments of a macro.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons) = (Segments::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_used(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.add_used(std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.add_tokens(group.stream()),
                        TokenTree::Literal(literal) => self.add_text(literal.to_string().trim_matches('"')),
                        TokenTree::Punct(_) | TokenTree::Ident(_) => {}
                    }
                }
            }
        }
        self.add_used(path);
    }

    /// A text that is a path, such as that of `#[serde(default = "defaults::port")]`.
    fn add_text(&mut self, text: &str) {
        if text.contains("::")
            && let Ok(path) = syn::parse_str::<Path>(text)
        {
            self.add_used(segments(&path));
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    /// Child modules have names of their own.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            self.add_use(&item.tree, &mut Segments::new());
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            self.add_used(segments(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast Macro) {
        self.visit_path(&invocation.path);
        self.add_tokens(invocation.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.add_tokens(list.tokens.clone()),
            Meta::NameValue(meta) if !meta.path.is_ident("doc") => {
                if let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value {
                    self.add_text(&text.value());
                }
            }
            _ => {}
        }
    }
}

/// Whether an item is only compiled for tests: `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        _ => false,
    })
}

/// Matches the variants of an item that have the named field.
macro_rules! field_of_item {
    ($item:expr, $field:ident, [$($variant:ident),*]) => {
        match $item {
            $(Item::$variant(item) => Some(&item.$field),)*
            _ => None,
        }
    };
}

fn attributes(item: &Item) -> &[Attribute] {
    let attributes = field_of_item!(
        item,
        attrs,
        [
            Const,
            Enum,
            ExternCrate,
            Fn,
            ForeignMod,
            Impl,
            Macro,
            Mod,
            Static,
            Struct,
            Trait,
            TraitAlias,
            Type,
            Union,
            Use
        ]
    );
    attributes.map_or(&[], Vec::as_slice)
}

fn defined_name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Fn(function) => Some(&function.sig.ident),
        Item::Macro(definition) => definition.ident.as_ref(),
        item => field_of_item!(item, ident, [Const, Enum, Static, Struct, Trait, TraitAlias, Type, Union]),
    };
    name.map(ToString::to_string)
}

fn segments(path: &Path) -> Segments {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}
