//! The template from which a set creates its Servers.

use std::collections::BTreeMap;

use kube::{
    KubeSchema,
    core::{Message, Rule},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ServerSpec;

/// Template from which a set creates its Servers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerTemplate {
    /// Labels and annotations that each Server gets.
    #[serde(default)]
    pub metadata: TemplateMeta,
    /// Declaration that each Server gets, except for the fields that concern a single Server. `app` is the application
    /// that a new Server starts with; on existing Servers it changes nothing, because deployment-controller rolls it
    /// out.
    #[schemars(transform = template_schema)]
    pub spec: ServerSpec,
}

/// Labels and annotations of a template.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMeta {
    /// Labels of each Server, at most 32. They must include those of the selector.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    #[x_kube(validation = qualified_names("labels", "name"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of each Server, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations_schema")]
    #[x_kube(validation = qualified_names("annotations", "name.lowerAscii()"))]
    pub annotations: BTreeMap<String, String>,
}

/// The validation rule for the names of labels and annotations: that of Kubernetes itself. Without it a set with a wrong
/// name would be accepted, and the creation of each of its Servers refused.
fn qualified_names(field: &str, name: &str) -> Rule {
    Rule::new(format!("self.all(name, !format.qualifiedName().validate({name}).hasValue())")).message(Message::Message(format!(
        "template.metadata.{field}: a name is an optional DNS subdomain with a slash, and up to 63 letters, digits, '-', '_' and '.', the first and the last of which are letters or digits"
    )))
}

/// The values of labels as Kubernetes allows them.
fn labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let value = schemars::json_schema!({
        "type": "string", "maxLength": 63, "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
    });
    schemars::json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": value})
}

/// Kubernetes allows annotations of 256 KiB in total: with these bounds, names and values stay below half of it.
fn annotations_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let value = schemars::json_schema!({"type": "string", "maxLength": 4096});
    schemars::json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": value})
}

/// Fields that concern a single Server: people and failover write them, a template never has them.
const SERVER_ONLY_FIELDS: [&str; 5] = ["offline", "force", "retry", "reboot", "retain"];

/// Turns the schema of a Server into that of a template: without the fields that concern a single Server, with a machine that
/// may change, and with fields that people apply one by one.
fn template_schema(spec: &mut schemars::Schema) {
    let Some(properties) = spec.get_mut("properties").and_then(Value::as_object_mut) else { return };
    properties.retain(|name, _| !SERVER_ONLY_FIELDS.contains(&name.as_str()));
    if let Some(machine) = properties.get_mut("machine").and_then(Value::as_object_mut) {
        // A Server's machine is immutable; that is its only rule.
        machine.remove("x-kubernetes-validations");
    }
    for property in properties.values_mut().filter_map(Value::as_object_mut) {
        property.remove("x-kubernetes-map-type");
        if let Some(items) = property.get_mut("items").and_then(Value::as_object_mut) {
            items.remove("x-kubernetes-map-type");
        }
    }
}
