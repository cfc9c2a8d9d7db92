//! The template from which a set creates its Servers.

use std::collections::BTreeMap;

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
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMeta {
    /// Labels of each Server. They must include those of the selector.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of each Server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
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
