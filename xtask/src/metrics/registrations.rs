//! The places where a crate registers metrics.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, anyhow};
use syn::{
    Expr, ExprLit, ExprMethodCall, ImplItemFn, ItemMod, Lit, Local, Member, Pat,
    visit::{self, Visit},
};

use super::{
    declarations::Declarations,
    metric::{Metric, MetricType},
};
use crate::circles::{is_for_tests, source_files};

/// The metrics that a crate registers, in the order of its files.
pub(super) fn metrics(crate_root: &Path) -> Result<Vec<Metric>> {
    let (mut declarations, mut registrations) = (Declarations::default(), Registrations::default());
    for path in source_files(crate_root)? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let file = syn::parse_file(&text).with_context(|| format!("parse {}", path.display()))?;
        declarations.visit_file(&file);
        registrations.visit_file(&file);
    }
    registrations.found.iter().map(|found| found.metric(&declarations)).collect()
}

/// A call that registers a metric.
struct Registration {
    name: Option<String>,
    help: Option<String>,
    unit: Option<String>,
    /// The last name in the expression for the metric: its field.
    field: Option<String>,
}

impl Registration {
    fn metric(&self, declarations: &Declarations) -> Result<Metric> {
        let name = self.name.as_deref().context("the name of a metric is not a literal where it is registered")?;
        let field = self.field.as_deref().with_context(|| format!("the metric {name} is not a field"))?;
        let help = self.help.clone().with_context(|| format!("the help of the metric {name} is not a literal"))?;
        let (metric_type, labels) = declarations.metric_of(field).map_err(|error| anyhow!("metric {name}: {error}"))?;
        let unit = self.unit.as_ref().map_or(String::new(), |unit| format!("_{}", unit.to_lowercase()));
        let suffix = if metric_type == MetricType::Counter { "_total" } else { "" };
        Ok(Metric { name: format!("{name}{unit}{suffix}"), type_: metric_type, labels, help })
    }
}

#[derive(Default)]
struct Registrations {
    found: Vec<Registration>,
    /// The texts of the local variables so far.
    texts: BTreeMap<String, String>,
    /// What the function's registry puts before every name.
    prefix: String,
}

impl Registrations {
    fn text(&self, expression: &Expr) -> Option<String> {
        literal(expression).or_else(|| self.texts.get(&last_name(expression)?).cloned())
    }
}

impl<'ast> Visit<'ast> for Registrations {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.prefix.clear();
        visit::visit_impl_item_fn(self, function);
        self.prefix.clear();
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if let (Pat::Ident(name), Some(init)) = (&local.pat, &local.init)
            && let Some(text) = literal(&init.expr)
        {
            self.texts.insert(name.ident.to_string(), text);
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let arguments: Vec<&Expr> = call.args.iter().collect();
        let (unit, parts) = match (call.method.to_string().as_str(), arguments.as_slice()) {
            ("sub_registry_with_prefix", [prefix]) => {
                self.prefix = self.text(prefix).map_or(String::new(), |prefix| format!("{prefix}_"));
                (None, None)
            }
            ("register", [name, help, metric]) => (None, Some((name, help, metric))),
            ("register_with_unit", [name, help, unit, metric]) => (last_name(unit), Some((name, help, metric))),
            _ => (None, None),
        };
        if let Some((name, help, metric)) = parts {
            let name = self.text(name).map(|name| format!("{}{name}", self.prefix));
            self.found.push(Registration { name, help: self.text(help), unit, field: last_name(metric) });
        }
        visit::visit_expr_method_call(self, call);
    }
}

fn literal(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

/// The last name in an expression, without the call that clones it: `calls` of `own.calls.clone()` or `Family::clone(&calls)`.
fn last_name(expression: &Expr) -> Option<String> {
    match expression {
        Expr::MethodCall(call) if call.method == "clone" => last_name(&call.receiver),
        Expr::Call(call) => last_name(call.args.first()?),
        Expr::Reference(reference) => last_name(&reference.expr),
        Expr::Field(field) => match &field.member {
            Member::Named(name) => Some(name.to_string()),
            Member::Unnamed(_) => None,
        },
        Expr::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}
