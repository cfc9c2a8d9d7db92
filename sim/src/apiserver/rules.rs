//! The CEL rules of a schema, as far as the library evaluates them.
//!
//! Rules that use functions which only Kubernetes has (`format`, `isSorted`, `lowerAscii`) are not evaluated; [`unsupported`]
//! names them, and a test keeps the list.

use std::collections::BTreeMap;

use cel::{Context, Program, objects::Value as CelValue};
use serde_json::Value;

use super::list_keys::keys;

/// Functions of Kubernetes that the library does not have.
const UNSUPPORTED: [&str; 4] = ["format.", "isSorted", "lowerAscii", "type("];

/// The rules of the schema that can be evaluated, by their text.
pub(super) fn compile(schema: &Value) -> BTreeMap<String, Program> {
    let texts = texts(schema).into_iter().filter(|text| is_supported(text));
    texts.filter_map(|text| Some((text.to_owned(), Program::compile(text).ok()?))).collect()
}

/// The rules of the schema that are not evaluated.
pub(super) fn unsupported<'a>(schema: &'a Value, compiled: &BTreeMap<String, Program>) -> Vec<&'a str> {
    let mut texts = texts(schema);
    texts.retain(|text| !compiled.contains_key(*text));
    texts.sort_unstable();
    texts.dedup();
    texts
}

fn is_supported(rule: &str) -> bool {
    UNSUPPORTED.iter().all(|function| !rule.contains(function))
}

/// The texts of all rules.
fn texts(schema: &Value) -> Vec<&str> {
    match schema {
        Value::Object(fields) => {
            let own = fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
            let own = own.filter_map(|rule| rule["rule"].as_str());
            own.chain(fields.values().flat_map(texts)).collect()
        }
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// Adds what the rules refuse. A rule on what has not changed is not evaluated again, and a rule that compares with the past
/// needs one.
pub(super) fn check(
    rules: &BTreeMap<String, Program>,
    schema: &Value,
    new: &Value,
    old: Option<&Value>,
    errors: &mut Vec<String>,
) {
    Checker { rules, errors }.check(schema, new, old, "");
}

struct Checker<'a> {
    rules: &'a BTreeMap<String, Program>,
    errors: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn check(&mut self, schema: &Value, new: &Value, old: Option<&Value>, path: &str) {
        if old == Some(new) || new.is_null() {
            return;
        }
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            self.apply(rule, new, old, path);
        }
        match new {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let known = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                    let before = old.and_then(|old| old.get(name));
                    self.check(known, value, before, &format!("{path}.{name}"));
                }
            }
            Value::Array(items) => {
                let names = keys(schema);
                let before = |item: &Value| {
                    let same = |other: &&Value| names.iter().all(|name| other.get(name) == item.get(name));
                    old?.as_array()?.iter().find(same).filter(|_| !names.is_empty())
                };
                for (position, item) in items.iter().enumerate() {
                    self.check(&schema["items"], item, before(item), &format!("{path}[{position}]"));
                }
            }
            _ => {}
        }
    }

    fn apply(&mut self, rule: &Value, new: &Value, old: Option<&Value>, path: &str) {
        let text = rule["rule"].as_str().unwrap_or_default();
        let Some(program) = self.rules.get(text) else { return };
        if text.contains("oldSelf") && old.is_none() {
            return;
        }
        if evaluate(program, new, old) == Some(false) {
            let message = rule["message"].as_str().map_or_else(|| format!("failed rule: {text}"), str::to_owned);
            let kind = match rule["reason"].as_str() {
                Some("FieldValueForbidden") => "Forbidden",
                Some("FieldValueRequired") => "Required value",
                Some("FieldValueDuplicate") => "Duplicate value",
                _ => "Invalid value",
            };
            let path = path.trim_start_matches('.');
            let path = if path.is_empty() { "<nil>" } else { path };
            self.errors.push(format!("{path}: {kind}: {message}"));
        }
    }
}

thread_local! {
    /// The functions of all rules: to make them takes longer than to evaluate a rule.
    static FUNCTIONS: Context<'static, 'static> = Context::default();
}

/// None when the rule does not evaluate to yes or no.
fn evaluate(program: &Program, new: &Value, old: Option<&Value>) -> Option<bool> {
    FUNCTIONS.with(|functions| {
        let mut context = functions.new_inner_scope();
        context.add_variable("self", without_nulls(new)).ok()?;
        if let Some(old) = old {
            context.add_variable("oldSelf", without_nulls(old)).ok()?;
        }
        match program.execute(&context) {
            Ok(CelValue::Bool(holds)) => Some(holds),
            _ => None,
        }
    })
}

/// To rules a null is an absent field.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let known = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(known.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}
