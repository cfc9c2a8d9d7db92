//! Mutations of JSON documents: what a person mistypes, or another version of a client sends.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

/// Fields of this name are in no schema.
pub(crate) const UNKNOWN_FIELD: &str = "unknownField";

/// A string that no enum has, and that is no time and no number.
const UNKNOWN_VALUE: &str = "Nonsense";

/// A change of one value in a document.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    Remove,
    /// A value, most often of another type than the one that is there.
    Replace(Value),
    /// The field gets a name that is in no schema.
    Misname,
    /// Duplicates the list element, or the first element of the list.
    Duplicate,
}

/// All mutations.
pub(crate) fn all() -> Vec<Mutation> {
    let values = [
        json!(null),
        json!(true),
        json!(-7),
        json!(1.5),
        json!(i64::MAX),
        json!(UNKNOWN_VALUE),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({"x": 1}),
    ];
    let others = [Mutation::Remove, Mutation::Misname, Mutation::Duplicate];
    values.into_iter().map(Mutation::Replace).chain(others).collect()
}

pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    select(all())
}

/// How many values a document has that can be mutated.
pub(crate) fn count(document: &Value) -> usize {
    let mut all = Vec::new();
    paths(document, &[], &mut all);
    all.len()
}

/// The path of every value below a value, as tokens. `apiVersion` and `kind` are left out: kube writes them itself.
fn paths(value: &Value, path: &[String], out: &mut Vec<Vec<String>>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(elements) => elements.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (token, child) in
        children.into_iter().filter(|(token, _)| token != "apiVersion" && token != "kind" || !path.is_empty())
    {
        let path = [path, &[token]].concat();
        out.push(path.clone());
        paths(child, &path, out);
    }
}

impl Mutation {
    /// Applies the mutation to the n-th value of the document, and returns the path of the value.
    pub(crate) fn apply(&self, document: &mut Value, n: usize) -> String {
        let mut all = Vec::new();
        paths(document, &[], &mut all);
        let Some(path) = all.get(n % all.len().max(1)) else { return String::new() };
        let Some((last, parents)) = path.split_last() else { return String::new() };
        let parent = parents.iter().fold(document, |value, token| match value {
            Value::Array(elements) => &mut elements[token.parse::<usize>().unwrap()],
            value => &mut value[token.as_str()],
        });
        match parent {
            Value::Object(fields) => self.change_field(fields, last),
            Value::Array(elements) => self.change_element(elements, last.parse().unwrap()),
            _ => {}
        }
        path.join(".")
    }

    fn change_field(&self, fields: &mut serde_json::Map<String, Value>, name: &str) {
        match self {
            Self::Remove => _ = fields.remove(name),
            Self::Replace(value) => _ = fields.insert(name.to_owned(), value.clone()),
            Self::Misname => {
                if let Some(value) = fields.remove(name) {
                    fields.insert(UNKNOWN_FIELD.to_owned(), value);
                }
            }
            Self::Duplicate => {
                if let Some(Value::Array(elements)) = fields.get_mut(name) {
                    elements.extend(elements.first().cloned());
                }
            }
        }
    }

    fn change_element(&self, elements: &mut Vec<Value>, n: usize) {
        match self {
            Self::Remove | Self::Misname => _ = elements.remove(n),
            Self::Replace(value) => elements[n] = value.clone(),
            Self::Duplicate => elements.insert(n, elements[n].clone()),
        }
    }
}

/// The first value of `document` that `written`, which was read from it, does not have. Unknown fields may be dropped, and so
/// may values that mean the same as no value.
pub(crate) fn lost_value(document: &Value, written: Option<&Value>, path: &str) -> Option<String> {
    let differs = |written: Option<&Value>| written != Some(document);
    match (document, written) {
        (Value::Object(fields), Some(Value::Object(other))) => fields
            .iter()
            .filter(|(name, _)| *name != UNKNOWN_FIELD && *name != "x")
            .find_map(|(name, value)| lost_value(value, other.get(name), &format!("{path}.{name}"))),
        (Value::Array(elements), Some(Value::Array(other))) if elements.len() == other.len() => {
            let mut pairs = elements.iter().zip(other).enumerate();
            pairs.find_map(|(n, (value, other))| lost_value(value, Some(other), &format!("{path}[{n}]")))
        }
        // serde also reads a struct from a list of its fields. The schema of the CRD refuses such a list before.
        (Value::Null, _) | (Value::Array(_), Some(Value::Object(_))) => None,
        (document, None) if is_like_absent(document) => None,
        (_, written) => differs(written).then(|| format!("{path}: {document} became {written:?}")),
    }
}

/// Whether the value means the same as a missing field.
fn is_like_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_i64() == Some(0),
        Value::String(value) => value.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => fields.values().all(is_like_absent) || fields.contains_key("x"),
    }
}
