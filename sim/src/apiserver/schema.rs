//! The structural schema of a CRD: what it removes, adds and refuses.

use std::fmt;

use serde_json::{Map, Value, json};

use super::{node::Node, rule};

/// A structural schema.
pub(crate) struct Schema {
    root: Value,
    compiled: Node,
    validator: jsonschema::Validator,
}

impl Schema {
    /// The schema of an `openAPIV3Schema`.
    pub(crate) fn new(root: &Value) -> Result<Self, String> {
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&json_schema(root))
            .map_err(|error| error.to_string())?;
        Ok(Self { root: root.clone(), compiled: Node::new(root), validator })
    }

    /// The part of the schema at these properties.
    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    /// Removes what the schema does not know and adds defaults, as the API server does with each document that it reads.
    pub(crate) fn complete(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else { return };
        // Every object has these, and the API server knows their fields itself.
        let own = ["apiVersion", "kind", "metadata"].map(|name| fields.remove_entry(name));
        self.compiled.complete(object, true);
        if let Some(fields) = object.as_object_mut() {
            fields.extend(own.into_iter().flatten());
        }
    }

    /// The rules that are not evaluated.
    pub(crate) fn unsupported(&self) -> Vec<&str> {
        rule::unsupported(&self.root)
    }

    /// What the schema and its rules refuse, each with its field. `old` is the stored object, if there is one: what has not
    /// changed since it was stored is not held against the new one.
    pub(crate) fn errors(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        // Nearly every object is valid, and to find that out is much quicker than to look for what is wrong.
        let mut errors = if self.validator.is_valid(new) { Vec::new() } else { self.invalid(new, old) };
        duplicates(&self.compiled, new, &Path::Root, &mut errors);
        if errors.is_empty() {
            refusals(&self.compiled, new, old, &Path::Root, &mut errors);
        }
        errors
    }

    fn invalid(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let errors = self.validator.iter_errors(new).filter(|error| {
            let path = error.instance_path().to_string();
            old.and_then(|old| old.pointer(&path)).is_none_or(|before| Some(before) != new.pointer(&path))
        });
        let describe = |error: jsonschema::ValidationError<'_>| {
            format!("{}: Invalid value: {error}", dotted(&error.instance_path().to_string()))
        };
        errors.map(describe).collect()
    }
}

/// A JSON pointer as messages write it: `spec.packages[0].name`.
fn dotted(pointer: &str) -> String {
    let parts = pointer.split('/').filter(|part| !part.is_empty());
    let is_position = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let named = parts.map(|part| if is_position(part) { format!("[{part}]") } else { format!(".{part}") });
    named.collect::<String>().trim_start_matches('.').to_owned()
}

/// Where a value is. It is written only for what is refused.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Entry(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(path, name) => write!(f, "{path}.{name}"),
            Self::Entry(path, position) => write!(f, "{path}[{position}]"),
        }
    }
}

/// Refuses lists with two entries of the same key.
fn duplicates(node: &Node, value: &Value, path: &Path<'_>, errors: &mut Vec<String>) {
    if !node.has_keys {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(node) = node.field(name) {
                    duplicates(node, value, &Path::Field(path, name), errors);
                }
            }
        }
        Value::Array(items) => {
            for (position, item) in items.iter().enumerate() {
                let path = Path::Entry(path, position);
                let is_same = |other: &Value| node.keys.iter().all(|key| other.get(key) == item.get(key));
                if !node.keys.is_empty() && items[..position].iter().any(is_same) {
                    let keys = node.keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                    errors.push(format!("{path}: Duplicate value: {}", Value::Object(keys.collect())));
                }
                if let Some(node) = &node.items {
                    duplicates(node, item, &path, errors);
                }
            }
        }
        _ => {}
    }
}

/// Adds what the rules refuse. A rule on what has not changed is not evaluated again.
fn refusals(node: &Node, new: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Vec<String>) {
    if !node.has_rules || old == Some(new) || new.is_null() {
        return;
    }
    for refusal in node.rules.iter().filter_map(|rule| rule.refusal(new, old)) {
        let at = if matches!(path, Path::Root) { "<nil>".to_owned() } else { path.to_string() };
        errors.push(format!("{at}: {refusal}"));
    }
    match new {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(node) = node.field(name) {
                    refusals(node, value, old.and_then(|old| old.get(name)), &Path::Field(path, name), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(node_of_items) = &node.items else { return };
            let before = |item: &Value| {
                let is_same = |other: &&Value| node.keys.iter().all(|name| other.get(name) == item.get(name));
                old?.as_array()?.iter().find(is_same).filter(|_| !node.keys.is_empty())
            };
            for (position, item) in items.iter().enumerate() {
                refusals(node_of_items, item, before(item), &Path::Entry(path, position), errors);
            }
        }
        _ => {}
    }
}

/// The JSON Schema of what this one describes, or null.
fn nullable(mut schema: Map<String, Value>) -> Value {
    let Some(described) = schema.get("type").cloned() else { return json!({"anyOf": [{"type": "null"}, schema]}) };
    schema.insert("type".to_owned(), json!([described, "null"]));
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.push(Value::Null);
    }
    Value::Object(schema)
}

/// The schema in the words of JSON Schema.
fn json_schema(schema: &Value) -> Value {
    let Some(fields) = schema.as_object() else { return schema.clone() };
    let mut converted = Map::new();
    for (name, value) in fields {
        match name.as_str() {
            "properties" => {
                let properties = value.as_object().into_iter().flatten();
                let properties = properties.map(|(name, schema)| (name.clone(), json_schema(schema)));
                converted.insert(name.clone(), Value::Object(properties.collect()));
            }
            "items" | "additionalProperties" | "not" => drop(converted.insert(name.clone(), json_schema(value))),
            "anyOf" | "allOf" | "oneOf" => {
                let all = value.as_array().into_iter().flatten().map(json_schema).collect();
                converted.insert(name.clone(), Value::Array(all));
            }
            "format" if value == "int32" => {
                converted.entry("minimum").or_insert(json!(i32::MIN));
                converted.entry("maximum").or_insert(json!(i32::MAX));
            }
            "format" if value != "date-time" => {}
            "default" | "description" | "nullable" => {}
            name if name.starts_with("x-kubernetes-") => {}
            _ => drop(converted.insert(name.clone(), value.clone())),
        }
    }
    if schema["x-kubernetes-int-or-string"] == true {
        converted.remove("type");
    }
    if schema["nullable"] == true {
        return nullable(converted);
    }
    Value::Object(converted)
}
