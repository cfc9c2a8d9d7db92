//! The structural schema of a CRD: what it removes, adds and refuses.

use std::collections::BTreeMap;

use cel::Program;
use serde_json::{Map, Value, json};

use super::{list_keys::keys, rules};

/// A structural schema.
pub(crate) struct Schema {
    root: Value,
    validator: jsonschema::Validator,
    /// The CEL rules that the library can compile, by their text.
    rules: BTreeMap<String, Program>,
}

impl Schema {
    /// The schema of an `openAPIV3Schema`.
    pub(crate) fn new(root: &Value) -> Result<Self, String> {
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&json_schema(root))
            .map_err(|error| error.to_string())?;
        Ok(Self { root: root.clone(), validator, rules: rules::compile(root) })
    }

    /// The part of the schema at these properties.
    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    /// Removes what the schema does not know and adds defaults, as the API server does with each document that it reads.
    pub(crate) fn complete(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else { return };
        for (name, schema) in properties(&self.root) {
            if let Some(value) = fields.get_mut(name).filter(|_| !is_type_meta(name)) {
                prune(schema, value);
            }
        }
        fields.retain(|name, _| is_type_meta(name) || self.root["properties"].get(name).is_some());
        add_defaults(&self.root, object);
    }

    /// The rules that are not evaluated.
    pub(crate) fn unsupported(&self) -> Vec<&str> {
        rules::unsupported(&self.root, &self.rules)
    }

    /// What the schema and its rules refuse, each with its field. `old` is the stored object, if there is one: what has not
    /// changed since it was stored is not held against the new one.
    pub(crate) fn errors(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut errors: Vec<String> = self
            .validator
            .iter_errors(new)
            .filter(|error| {
                let path = error.instance_path().to_string();
                old.and_then(|old| old.pointer(&path)).is_none_or(|before| Some(before) != new.pointer(&path))
            })
            .map(|error| format!("{}: Invalid value: {error}", dotted(&error.instance_path().to_string())))
            .collect();
        duplicates(&self.root, new, "", &mut errors);
        if errors.is_empty() {
            rules::check(&self.rules, &self.root, new, old, &mut errors);
        }
        errors
    }
}

/// The properties of an object's schema.
pub(crate) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// A JSON pointer as messages write it: `spec.packages[0].name`.
fn dotted(pointer: &str) -> String {
    let parts = pointer.split('/').filter(|part| !part.is_empty());
    let is_position = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let named = parts.map(|part| if is_position(part) { format!("[{part}]") } else { format!(".{part}") });
    named.collect::<String>().trim_start_matches('.').to_owned()
}

/// Fields that every object has.
fn is_type_meta(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// Removes the fields that the schema does not know.
fn prune(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if schema["x-kubernetes-preserve-unknown-fields"] == true {
                return;
            }
            let values = &schema["additionalProperties"];
            if values.is_object() {
                fields.values_mut().for_each(|value| prune(values, value));
                return;
            }
            fields.retain(|name, _| schema["properties"].get(name).is_some());
            for (name, value) in fields {
                prune(&schema["properties"][name], value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune(&schema["items"], item)),
        _ => {}
    }
}

/// Adds defaults, and removes each null that the schema does not allow.
fn add_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, schema) in properties(schema) {
                let is_unset = match fields.get(name) {
                    None => true,
                    Some(Value::Null) => schema["nullable"] != true,
                    Some(_) => false,
                };
                match schema.get("default") {
                    Some(default) if is_unset => drop(fields.insert(name.clone(), default.clone())),
                    None if is_unset => drop(fields.remove(name)),
                    _ => {}
                }
                if let Some(value) = fields.get_mut(name) {
                    add_defaults(schema, value);
                }
            }
            let values = &schema["additionalProperties"];
            if values.is_object() {
                fields.values_mut().for_each(|value| add_defaults(values, value));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| add_defaults(&schema["items"], item)),
        _ => {}
    }
}

/// Refuses lists with two entries of the same key.
fn duplicates(schema: &Value, value: &Value, path: &str, errors: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let known = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                duplicates(known, value, &format!("{path}.{name}"), errors);
            }
        }
        Value::Array(items) => {
            let names = keys(schema);
            for (position, item) in items.iter().enumerate() {
                let path = format!("{path}[{position}]");
                let is_same = |other: &&Value| names.iter().all(|key| other.get(key) == item.get(key));
                if !names.is_empty() && items[..position].iter().any(|other| is_same(&other)) {
                    let key: Map<String, Value> =
                        names.iter().filter_map(|key| Some(((*key).to_owned(), item.get(key)?.clone()))).collect();
                    errors.push(format!("{}: Duplicate value: {}", path.trim_start_matches('.'), Value::Object(key)));
                }
                duplicates(&schema["items"], item, &path, errors);
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
