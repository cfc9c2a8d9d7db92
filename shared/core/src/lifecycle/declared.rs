//! Digests of declarations that stay the same when a later version of Berth adds a field with a default.
//!
//! Such a field is in every declaration from then on, because the API server fills it in. So what is digested is the declaration
//! without the fields that have their default: the one that a person would have had to write. Controllers write it so to Servers, too,
//! because the API server pays for every field that is present.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{App, ServerSpec},
    digest,
};

/// The schema of a Server's declaration, without references.
static SCHEMA: LazyLock<Value> = LazyLock::new(schema_of::<ServerSpec>);

fn schema_of<T: schemars::JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

impl ServerSpec {
    /// The declaration without the fields that have their default.
    #[must_use]
    pub fn without_defaults(&self) -> Value {
        without_defaults(self, &SCHEMA)
    }
}

impl App {
    /// The declaration without the fields that have their default.
    #[must_use]
    pub fn without_defaults(&self) -> Value {
        field("app", self)
    }
}

/// Digest of a whole declaration.
pub(super) fn digest_of_spec(spec: &ServerSpec) -> String {
    digest::short(&without_defaults(spec, &SCHEMA))
}

/// The value of this field of the declaration, without what has its default.
pub(super) fn field<T: Serialize>(name: &str, value: &T) -> Value {
    without_defaults(value, &SCHEMA["properties"][name])
}

fn without_defaults<T: Serialize>(value: &T, schema: &Value) -> Value {
    // The types of this crate always serialise.
    let mut value = serde_json::to_value(value).unwrap_or_default();
    remove_defaults(&mut value, schema);
    value
}

fn remove_defaults(value: &mut Value, schema: &Value) {
    for list in ["allOf", "anyOf", "oneOf"] {
        for part in schema[list].as_array().into_iter().flatten() {
            remove_defaults(value, part);
        }
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| remove_defaults(item, &schema["items"])),
        Value::Object(fields) => {
            let Some(properties) = schema["properties"].as_object() else { return };
            fields.retain(|name, field| {
                let Some(schema) = properties.get(name) else { return true };
                remove_defaults(field, schema);
                let mut default = schema["default"].clone();
                remove_defaults(&mut default, schema);
                field.is_null() || *field != default
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::json;

    use super::*;

    #[derive(Serialize, JsonSchema)]
    struct Old {
        name: &'static str,
        nested: Vec<OldNested>,
    }

    #[derive(Serialize, JsonSchema)]
    struct OldNested {
        port: i32,
    }

    #[derive(Serialize, JsonSchema)]
    struct New {
        #[serde(default = "five")]
        attempts: i32,
        name: &'static str,
        #[serde(default)]
        quick: bool,
        nested: Vec<NewNested>,
        #[serde(default)]
        inner: Inner,
    }

    #[derive(Serialize, JsonSchema)]
    struct NewNested {
        port: i32,
        #[serde(default = "five")]
        weight: i32,
    }

    #[derive(Default, Serialize, JsonSchema)]
    struct Inner {
        #[serde(default)]
        list: Vec<String>,
    }

    fn five() -> i32 {
        5
    }

    fn new(attempts: i32, weight: i32) -> Value {
        let nested = vec![NewNested { port: 80, weight }];
        let new = New { attempts, name: "a", quick: false, nested, inner: Inner::default() };
        without_defaults(&new, &schema_of::<New>())
    }

    #[test]
    fn fields_that_are_added_with_a_default_change_no_digest_until_they_are_set() {
        let old = Old { name: "a", nested: vec![OldNested { port: 80 }] };
        let old = without_defaults(&old, &schema_of::<Old>());
        assert_eq!(old, json!({"name": "a", "nested": [{"port": 80}]}));
        assert_eq!(new(5, 5), old);
        assert_ne!(new(6, 5), old);
        assert_ne!(new(5, 6), old);
    }

    #[test]
    fn a_declaration_without_its_defaults_is_what_a_person_has_to_write() {
        let written = json!({
            "machine": {"className": "local"},
            "packages": [{"name": "a", "version": "1", "apt": {}}],
            "app": {"name": "web", "command": "./run", "artifact": {"url": "http://a/b", "sha256": "a".repeat(64)},
                    "env": [{"name": "A"}]},
            "healthCheck": {"httpGet": {"port": 80}},
            "traffic": {"backends": [{"service": "web", "port": 80}]},
            "monitoring": {"port": 9100},
            "gates": [{"before": "DeployApp"}],
        });
        let spec: ServerSpec = serde_json::from_value(written.clone()).unwrap();
        assert_ne!(serde_json::to_value(&spec).unwrap(), written, "defaults are filled in");
        assert_eq!(spec.without_defaults(), written);
        assert_eq!(spec.app.as_ref().unwrap().without_defaults(), written["app"]);
        assert_eq!(serde_json::from_value::<ServerSpec>(written).unwrap(), spec, "nothing is lost");
    }
}
