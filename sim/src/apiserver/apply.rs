//! Server-side apply, as far as Berth uses it: by force, and what a manager no longer applies is removed.
//!
//! Only managers that apply own fields here. A field that somebody has also updated is removed, too, when its last applier lets
//! go of it; the API server would keep it.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{list_keys::keys, metadata::seconds, resources::Resource, schema};

/// A step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    /// The entry of a list with these keys, as text.
    Entry(String),
}

type Path = Vec<Step>;

/// The object after the manager has applied this document.
pub(crate) fn apply(resource: &Resource, live: &Value, applied: &Value, manager: &str, now: Timestamp) -> Value {
    let schema = resource.schema.as_ref().map_or(&Value::Null, schema::Schema::root);
    let mut applied = applied.clone();
    if let Some(metadata) = applied["metadata"].as_object_mut() {
        metadata.retain(|field, _| !matches!(field.as_str(), "name" | "namespace" | "managedFields"));
    }
    // It is a precondition, and nobody's field.
    let version = applied["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    let mut owned = BTreeSet::new();
    for (name, value) in applied.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "apiVersion" | "kind") {
            leaves(&schema["properties"][name], value, &mut vec![Step::Field(name.clone())], &mut owned);
        }
    }
    let mut result = live.clone();
    for path in owned_by(live, |other| other == manager).difference(&owned) {
        if !owned_by(live, |other| other != manager).contains(path) {
            remove(schema, &mut result, path);
        }
    }
    merge(schema, &mut result, &applied);
    if let Some(version) = version {
        result["metadata"]["resourceVersion"] = version;
    }
    let entry = entry(&resource.api_version(), manager, &owned);
    set_entry(&mut result, live, entry, now);
    result
}

/// The fields that the appliers own which this test selects.
fn owned_by(object: &Value, is_selected: impl Fn(&str) -> bool) -> BTreeSet<Path> {
    let mut owned = BTreeSet::new();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    for entry in entries.filter(|entry| entry["operation"] == "Apply") {
        if entry["manager"].as_str().is_some_and(&is_selected) {
            read(&entry["fieldsV1"], &mut Vec::new(), &mut owned);
        }
    }
    owned
}

/// Reads the leaves of a `fieldsV1`.
fn read(fields: &Value, path: &mut Path, owned: &mut BTreeSet<Path>) {
    let Some(fields) = fields.as_object().filter(|fields| !fields.is_empty()) else {
        owned.insert(path.clone());
        return;
    };
    for (name, value) in fields {
        if name == "." {
            owned.insert(path.clone());
        }
        let step = match (name.strip_prefix("f:"), name.strip_prefix("k:")) {
            (Some(field), _) => Step::Field(field.to_owned()),
            (_, Some(keys)) => Step::Entry(keys.to_owned()),
            _ => continue,
        };
        path.push(step);
        read(value, path, owned);
        path.pop();
    }
}

/// The `managedFields` entry of these leaves.
fn entry(api_version: &str, manager: &str, owned: &BTreeSet<Path>) -> Value {
    let mut fields = json!({});
    for path in owned {
        let mut at = &mut fields;
        for step in path {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Entry(keys) => format!("k:{keys}"),
            };
            if at.get(&name).is_none() {
                at[&name] = json!({});
            }
            at = &mut at[&name];
        }
        if matches!(path.last(), Some(Step::Entry(_))) {
            at["."] = json!({});
        }
    }
    json!({"manager": manager, "operation": "Apply", "apiVersion": api_version, "fieldsType": "FieldsV1", "fieldsV1": fields})
}

/// Puts the entry in the place of the manager's former one. Its time changes only when the object does.
fn set_entry(result: &mut Value, live: &Value, mut entry: Value, now: Timestamp) {
    let before = live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let is_same = |other: &Value| other["operation"] == "Apply" && other["manager"] == entry["manager"];
    let former = before.iter().find(|other| is_same(other)).cloned();
    let mut entries: Vec<Value> = before.into_iter().filter(|other| !is_same(other)).collect();
    if let Some(former) = former {
        entry["time"] = former["time"].clone();
        entries.push(entry.clone());
        result["metadata"]["managedFields"] = entries.clone().into();
        if result == live {
            return;
        }
        entries.pop();
    }
    entry["time"] = seconds(now).into();
    entries.push(entry);
    result["metadata"]["managedFields"] = entries.into();
}

fn is_whole(schema: &Value, value: &Value) -> bool {
    match value {
        Value::Object(_) => schema["x-kubernetes-map-type"] == "atomic",
        Value::Array(_) => keys(schema).is_empty(),
        _ => true,
    }
}

/// Collects the leaves of an applied document: what is owned as a whole.
fn leaves(schema: &Value, value: &Value, path: &mut Path, owned: &mut BTreeSet<Path>) {
    if is_whole(schema, value) {
        owned.insert(path.clone());
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                path.push(Step::Field(name.clone()));
                leaves(field_schema(schema, name), value, path, owned);
                path.pop();
            }
        }
        Value::Array(items) => {
            for item in items {
                path.push(Step::Entry(entry_key(schema, item)));
                owned.insert(path.clone());
                leaves(&schema["items"], item, path, owned);
                path.pop();
            }
        }
        _ => {}
    }
}

fn field_schema<'a>(schema: &'a Value, name: &str) -> &'a Value {
    schema["properties"].get(name).unwrap_or(&schema["additionalProperties"])
}

fn entry_key(schema: &Value, item: &Value) -> String {
    let names = keys(schema);
    let keys = names.iter().map(|key| ((*key).to_owned(), item[*key].clone()));
    Value::Object(keys.collect::<Map<_, _>>()).to_string()
}

fn merge(schema: &Value, live: &mut Value, applied: &Value) {
    if is_whole(schema, applied) {
        *live = applied.clone();
        return;
    }
    match applied {
        Value::Object(fields) => {
            if !live.is_object() {
                *live = json!({});
            }
            for (name, value) in fields {
                merge(field_schema(schema, name), &mut live[name], value);
            }
        }
        Value::Array(items) => {
            let mut entries = live.as_array().cloned().unwrap_or_default();
            for item in items {
                let key = entry_key(schema, item);
                match entries.iter_mut().find(|entry| entry_key(schema, entry) == key) {
                    Some(entry) => merge(&schema["items"], entry, item),
                    None => entries.push(item.clone()),
                }
            }
            *live = entries.into();
        }
        _ => {}
    }
}

fn remove(schema: &Value, value: &mut Value, path: &[Step]) {
    match path {
        [Step::Field(name)] => drop(value.as_object_mut().map(|fields| fields.remove(name))),
        [Step::Field(name), rest @ ..] => {
            if let Some(value) = value.get_mut(name) {
                remove(field_schema(schema, name), value, rest);
            }
        }
        [Step::Entry(key), rest @ ..] => {
            let Some(entries) = value.as_array_mut() else { return };
            let position = entries.iter().position(|entry| entry_key(schema, entry) == *key);
            match position {
                Some(position) if rest.is_empty() => drop(entries.remove(position)),
                Some(position) => remove(&schema["items"], &mut entries[position], rest),
                None => {}
            }
        }
        [] => {}
    }
}
