//! A CEL rule of a schema, as far as the library evaluates it.
//!
//! Rules that use functions which only Kubernetes has (`format`, `isSorted`, `lowerAscii`) are not evaluated; a test keeps the
//! list of them.

use cel::{Context, Program, objects::Value as CelValue};
use serde_json::Value;

/// Functions of Kubernetes that the library does not have.
const UNSUPPORTED: [&str; 4] = ["format.", "isSorted", "lowerAscii", "type("];

thread_local! {
    /// The functions of all rules: to make them takes longer than to evaluate a rule.
    static FUNCTIONS: Context<'static, 'static> = Context::default();
}

/// A rule that can be evaluated.
pub(super) struct Rule {
    program: Program,
    compares_with_the_past: bool,
    /// The fields that the rule reads; none when it reads the value as a whole.
    reads: Option<Vec<Vec<String>>>,
    /// What is said when it does not hold.
    refusal: String,
}

impl Rule {
    /// None when the library cannot evaluate it.
    pub(super) fn new(rule: &Value) -> Option<Self> {
        let text = rule["rule"].as_str().unwrap_or_default();
        let message = rule["message"].as_str().map_or_else(|| format!("failed rule: {text}"), str::to_owned);
        let kind = match rule["reason"].as_str() {
            Some("FieldValueForbidden") => "Forbidden",
            Some("FieldValueRequired") => "Required value",
            Some("FieldValueDuplicate") => "Duplicate value",
            _ => "Invalid value",
        };
        Some(Self {
            program: program(text)?,
            compares_with_the_past: text.contains("oldSelf"),
            reads: reads(text),
            refusal: format!("{kind}: {message}"),
        })
    }

    /// What is said if the rule does not hold. A rule that compares with the past needs one, and one that reads only what has
    /// not changed holds, because it held when that was stored.
    pub(super) fn refusal(&self, new: &Value, old: Option<&Value>) -> Option<&str> {
        match old {
            None if self.compares_with_the_past => return None,
            Some(old) if !self.compares_with_the_past && self.reads_the_same(new, old) => return None,
            _ => {}
        }
        (evaluate(&self.program, new, old) == Some(false)).then_some(&self.refusal)
    }

    fn reads_the_same(&self, new: &Value, old: &Value) -> bool {
        let field =
            |object, path: &[String]| path.iter().try_fold(object, |value: &Value, name| value.get(name)).cloned();
        self.reads.as_ref().is_some_and(|paths| paths.iter().all(|path| field(new, path) == field(old, path)))
    }
}

/// The texts of the rules that are not evaluated.
pub(super) fn unsupported(schema: &Value) -> Vec<&str> {
    let mut texts = texts(schema);
    texts.retain(|text| program(text).is_none());
    texts.sort_unstable();
    texts.dedup();
    texts
}

fn program(text: &str) -> Option<Program> {
    let is_supported = UNSUPPORTED.iter().all(|function| !text.contains(function));
    if is_supported { Program::compile(text).ok() } else { None }
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

/// The fields below `self` that a rule reads; none when it reads `self` as a whole. What is called is no field.
fn reads(text: &str) -> Option<Vec<Vec<String>>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut paths = Vec::new();
    for (position, _) in text.match_indices("self") {
        if text[..position].ends_with(is_name) {
            continue;
        }
        let (mut rest, mut path) = (&text[position + "self".len()..], Vec::new());
        while let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            rest = &after[end..];
            if rest.starts_with('(') {
                break;
            }
            path.push(after[..end].to_owned());
        }
        if path.is_empty() {
            return None;
        }
        paths.push(path);
    }
    Some(paths)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_reads_the_fields_that_it_names_or_everything() {
        let of = |text| reads(text).map(|paths| paths.iter().map(|path| path.join(".")).collect::<Vec<_>>());
        assert_eq!(of("self.metadata.name.size() <= 63"), Some(vec!["metadata.name".to_owned()]));
        assert_eq!(of("has(self.a) != has(self.b.c)"), Some(vec!["a".to_owned(), "b.c".to_owned()]));
        for whole in
            ["self == oldSelf", "self.all(name, name != 'a')", "self['a'] == 1", "has(self.a) && self.size() > 1"]
        {
            assert_eq!(of(whole), None, "{whole}");
        }
    }

    #[test]
    fn a_rule_is_not_asked_again_about_what_has_not_changed() {
        let rule = Rule::new(&json!({"rule": "self.a < 3", "message": "too large"})).unwrap();
        let object = |a: i64, b: i64| json!({"a": a, "b": b});
        assert_eq!(rule.refusal(&object(5, 1), None), Some("Invalid value: too large"));
        assert_eq!(rule.refusal(&object(5, 1), Some(&object(1, 1))), Some("Invalid value: too large"));
        assert_eq!(rule.refusal(&object(5, 2), Some(&object(5, 1))), None);
        assert_eq!(rule.refusal(&object(1, 2), None), None);
    }
}
