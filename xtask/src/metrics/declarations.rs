//! The types of a crate's fields, which say of what type a metric is and which labels it has.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use syn::{
    Attribute, Expr, ExprLit, Field, Ident, ItemMod, ItemStruct, ItemType, Lit, Meta, Type,
    visit::{self, Visit},
};

use super::metric::{MetricLabel, MetricType};
use crate::circles::is_for_tests;

/// What a crate declares.
#[derive(Default)]
pub(super) struct Declarations {
    /// The names in the types of all fields of this name.
    fields: BTreeMap<String, Vec<Vec<String>>>,
    /// The names in the type that an alias stands for.
    aliases: BTreeMap<String, Vec<String>>,
    /// The labels that a struct of labels declares.
    labels: BTreeMap<String, Vec<MetricLabel>>,
}

impl Declarations {
    /// The type and the labels of the metric that a field of this name holds.
    pub(super) fn metric_of(&self, field: &str) -> Result<(MetricType, Vec<MetricLabel>)> {
        let mut found: Vec<_> = Vec::new();
        for names in self.fields.get(field).into_iter().flatten() {
            let names = self.without_aliases(names);
            if let Some(metric_type) = names.iter().find_map(|name| MetricType::of(name)) {
                let labels = names.iter().find_map(|name| self.labels.get(*name)).cloned().unwrap_or_default();
                found.push((metric_type, labels));
            }
        }
        found.dedup();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => bail!("no field `{field}` holds a metric"),
            _ => bail!("fields `{field}` hold metrics of several types; give them different names"),
        }
    }

    fn without_aliases<'a>(&'a self, names: &'a [String]) -> Vec<&'a str> {
        let of = |name: &'a String| {
            let aliased = self.aliases.get(name).into_iter().flatten();
            std::iter::once(name).chain(aliased).map(String::as_str)
        };
        names.iter().flat_map(of).collect()
    }
}

impl<'ast> Visit<'ast> for Declarations {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_type(&mut self, alias: &'ast ItemType) {
        self.aliases.insert(alias.ident.to_string(), names(&alias.ty));
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.labels.insert(item.ident.to_string(), item.fields.iter().filter_map(label).collect());
        for field in &item.fields {
            if let Some(name) = &field.ident {
                self.fields.entry(name.to_string()).or_default().push(names(&field.ty));
            }
        }
    }
}

fn label(field: &Field) -> Option<MetricLabel> {
    let name = field.ident.as_ref()?.to_string();
    Some(MetricLabel { name, values: comment(&field.attrs) })
}

/// The documentation of an item in one line.
fn comment(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// All names in a type, from the left to the right.
fn names(of: &Type) -> Vec<String> {
    struct Names(Vec<String>);
    impl<'ast> Visit<'ast> for Names {
        fn visit_ident(&mut self, name: &'ast Ident) {
            self.0.push(name.to_string());
        }
    }
    let mut names = Names(Vec::new());
    names.visit_type(of);
    names.0
}
